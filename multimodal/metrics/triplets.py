"""Which pictures an embedding gets most wrong: those that are nearer to one of another class than to one of their own.

found = hardest_triplets(rows, classes, num=8)
found.anchors[0], found.positives[0], found.negatives[0]       # rows: the worst anchor, the farthest of its class, the nearest of another
share_violated(rows, classes)                                  # of all triplets, that with the positive no nearer than the negative
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal.metrics.distances import Distance, comparable, distances
from multimodal.metrics.retrieval import score_blocks

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
    positives, negatives = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    to_positive, to_negative = np.full(len(rows), -np.inf), np.full(len(rows), np.inf)
    size = max(1, AT_ONCE // max(1, len(rows)))
    for start in range(0, len(rows), size):
        block = np.arange(start, min(start + size, len(rows)))
        far = distances(rows[block], rows, distance)
        same = classes[block, None] == classes
        of_same = np.where(same, far, -np.inf)
        of_same[np.arange(len(block)), block] = -np.inf
        of_other = np.where(same, np.inf, far)
        positives[block], negatives[block] = of_same.argmax(axis=1), of_other.argmin(axis=1)
        to_positive[block], to_negative[block] = of_same.max(axis=1), of_other.min(axis=1)
    has_both = np.flatnonzero(np.isfinite(to_positive) & np.isfinite(to_negative))
    worst = has_both[np.argsort(to_negative[has_both] - to_positive[has_both], kind="stable")][:num]
    return HardestTriplets(worst, positives[worst], negatives[worst], to_positive[worst], to_negative[worst])


def share_violated(rows: np.ndarray, classes: np.ndarray, distance: Distance = "euclidean", max_anchors: int | None = None) -> float:
    """rows (n, d) float; classes (n,) int. The share in [0, 1] of triplets whose positive is as far from the anchor as the negative, or
    farther: half by chance, and one if all rows are equal. NaN if there is no triplet.

    max_anchors: at most so many anchors, evenly drawn; every positive and negative of theirs counts.
    """
    anchors = np.arange(len(rows))
    if max_anchors is not None and len(rows) > max_anchors:
        anchors = np.linspace(0, len(rows) - 1, max_anchors).astype(np.int64)
    queries, gallery = comparable(rows[anchors], rows, distance)
    num, num_violated = 0, 0
    for start, scores in score_blocks(queries, gallery):  # larger is nearer; equal rows tie exactly
        for anchor, line in zip(anchors[start : start + len(scores)].tolist(), scores, strict=True):
            same = classes == classes[anchor]
            negatives = np.sort(line[~same])
            same[anchor] = False
            positives = line[same]
            num += len(positives) * len(negatives)
            # of each positive, the negatives that are as near or nearer
            num_violated += len(positives) * len(negatives) - int(np.searchsorted(negatives, positives, side="left").sum())
    return num_violated / num if num else float("nan")
