"""Which pictures an embedding gets most wrong: those that are nearer to one of another class than to one of their own.

found = hardest_triplets(rows, classes, num=8)
found.anchors[0], found.positives[0], found.negatives[0]       # rows: the worst anchor, the farthest of its class, the nearest of another
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal.metrics.retrieval import unit
from multimodal.metrics.same_class import Distance

AT_ONCE = 2**22
"""Distances in memory at a time."""


@dataclass(frozen=True, slots=True)
class HardestTriplets:
    """The hardest first, one of each anchor. anchors, positives, negatives (t,) int64: rows. to_positive, to_negative (t,) float64: the
    anchor's distances to them; 1 - cosine, or Euclidean.
    """

    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    to_positive: np.ndarray
    to_negative: np.ndarray

    def __len__(self) -> int:
        return len(self.anchors)


def hardest_triplets(rows: np.ndarray, classes: np.ndarray, num: int, distance: Distance = "euclidean") -> HardestTriplets:
    """rows (n, d) float; classes (n,) int. Up to num anchors by how much farther their farthest positive is than their nearest negative.

    Of equal ones the first row counts. Only anchors with a positive and a negative; none if no class has two rows, or there is one class.
    """
    exact = unit(rows) if distance == "cosine" else np.asarray(rows, np.float64) - np.mean(rows, axis=0, dtype=np.float64)
    squares = np.square(exact).sum(axis=1)
    positives, negatives = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    to_positive, to_negative = np.full(len(rows), -np.inf), np.full(len(rows), np.inf)
    size = max(1, AT_ONCE // max(1, len(rows)))
    for start in range(0, len(rows), size):
        block = np.arange(start, min(start + size, len(rows)))
        inner = exact[block] @ exact.T
        far = 1 - inner if distance == "cosine" else np.sqrt(np.maximum(0, squares[block, None] + squares - 2 * inner))
        same = classes[block, None] == classes
        of_same = np.where(same, far, -np.inf)
        of_same[np.arange(len(block)), block] = -np.inf
        of_other = np.where(same, np.inf, far)
        positives[block], negatives[block] = of_same.argmax(axis=1), of_other.argmin(axis=1)
        to_positive[block], to_negative[block] = of_same.max(axis=1), of_other.min(axis=1)
    has_both = np.flatnonzero(np.isfinite(to_positive) & np.isfinite(to_negative))
    worst = has_both[np.argsort(to_negative[has_both] - to_positive[has_both], kind="stable")][:num]
    return HardestTriplets(worst, positives[worst], negatives[worst], to_positive[worst], to_negative[worst])
