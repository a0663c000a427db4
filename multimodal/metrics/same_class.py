"""Do pictures of one class lie together? Each asks for the others of its class, among all others.

judged = same_class(rows, classes)
judged.recall_1, judged.chance_recall_1, judged.map_r, judged.chance_map_r           # shares in [0, 1]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal.metrics.distances import Distance, comparable
from multimodal.metrics.retrieval import chance_recall_at, relevant_ranks, score_blocks


@dataclass(frozen=True, slots=True)
class SameClass:
    """recall_1: the share of queries whose nearest other picture is of their class. map_r: MAP@R, the mean average precision among a
    query's first R, R being how many others of its class there are (Musgrave, Belongie and Lim, 2020, "A Metric Learning Reality Check").
    chance_*: of a random order, exactly. num_queries: pictures that have another of their class. num_classes: of all pictures.
    """

    recall_1: float
    chance_recall_1: float
    map_r: float
    chance_map_r: float
    num_queries: int
    num_classes: int


def same_class(rows: np.ndarray, classes: np.ndarray, distance: Distance = "cosine", max_queries: int | None = None) -> SameClass | None:
    """rows (n, d) float; classes (n,) int. None if no class has two pictures.

    Ties count against the model. max_queries: ask with so many pictures at most, evenly drawn; all n are found.
    """
    _, classes, counts = np.unique(classes, return_inverse=True, return_counts=True)
    asking = np.flatnonzero(counts[classes] > 1)
    if not len(asking):
        return None
    if max_queries is not None and len(asking) > max_queries:
        asking = asking[np.linspace(0, len(asking) - 1, max_queries).astype(np.int64)]
    queries, gallery = comparable(rows[asking], rows, distance)
    first, precision = np.empty(len(asking), np.int64), np.empty(len(asking))
    for start, scores in score_blocks(queries, gallery):
        for row, (own, line) in enumerate(zip(asking[start : start + len(scores)].tolist(), scores, strict=True), start=start):
            is_other = np.arange(len(rows)) != own
            found = relevant_ranks(line[is_other], classes[is_other] == classes[own])
            first[row], precision[row] = found[0], precision_among_r(found)
    num_relevant = counts[classes[asking]] - 1
    return SameClass(
        float(np.mean(first == 1)),
        chance_recall_at(len(rows) - 1, 1, num_relevant),
        float(precision.mean()),
        chance_precision_among_r(len(rows) - 1, num_relevant),
        len(asking),
        len(counts),
    )


def precision_among_r(found: np.ndarray) -> float:
    """1/R times the sum, over the relevant items among the first R, of the precision down to each; found: (R,) 1-based ranks, ascending."""
    num = len(found)
    places = np.arange(1, num + 1)
    return float((places / found)[found <= num].sum() / num)


def chance_precision_among_r(num_gallery: int, num_relevant: np.ndarray) -> float:
    """The mean over queries, (q,), of the exact expectation of `precision_among_r` for a random order of m items, r of them relevant.

    The item at place i is relevant with probability r / m, and given that, each of the i - 1 before it with (r - 1) / (m - 1); so it is
    (H + (r - 1) / (m - 1) * (r - H)) / m, where H is the r-th harmonic number.
    """
    different, counts = np.unique(num_relevant, return_counts=True)
    others = max(1, num_gallery - 1)
    harmonic = np.array([np.sum(1 / np.arange(1, r + 1)) for r in different.tolist()])
    return float(np.average((harmonic + (different - 1) / others * (different - harmonic)) / num_gallery, weights=counts))
