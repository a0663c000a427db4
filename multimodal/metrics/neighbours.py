"""Classification by nearest neighbours: how well rows tell classes apart as they are, with nothing fitted to them.

predicted = nearest_classes(train, labels, queries, k=20)
taken_for = majority_classes(train, labels, queries, wanted, ks=(1, 5), distance="euclidean")[5]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multimodal.metrics.distances import Distance, comparable
from multimodal.metrics.retrieval import score_blocks, unit


def nearest_classes(rows: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int = 20, temperature: float = 0.07) -> np.ndarray:
    """The class (m,) int64 of each query, by a vote of its k nearest rows by cosine, or of all rows if there are fewer.

    rows (n, d), queries (m, d) float, of any length; labels (n,) int, from 0. A row's vote has the weight exp(cosine / temperature); this
    and the temperature are from Wu et al., 2018 ("Unsupervised Feature Learning via Non-Parametric Instance Discrimination"). DINO (Caron
    et al., 2021) found k = 20 best. Among equally near rows the first counts; among classes with equal votes the smallest wins.
    """
    if not len(rows) or k < 1:
        raise ValueError(f"nearest_classes: k={k} and {len(rows)} rows; both must be at least 1")
    rows, queries, k = unit(rows), unit(queries), min(k, len(rows))
    predicted = np.empty(len(queries), dtype=np.int64)
    for start, cosines in score_blocks(queries, rows):
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        weights = np.exp((np.take_along_axis(cosines, nearest, axis=1) - 1) / temperature)
        votes = np.zeros((len(cosines), labels.max() + 1))
        np.add.at(votes, (np.arange(len(cosines))[:, None], labels[nearest]), weights)
        predicted[start : start + len(cosines)] = votes.argmax(axis=1)
    return predicted


def majority_classes(
    rows: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    wanted: np.ndarray,
    ks: Sequence[int] = (1, 5),
    distance: Distance = "cosine",
    own: np.ndarray | None = None,
) -> dict[int, np.ndarray]:
    """k -> the class (m,) int64 of each query by the majority of its k nearest rows, or of all rows if there are fewer.

    rows (n, d), queries (m, d) float; labels (n,) and wanted (m,) int, from 0: the class of each query. Among classes with equally many
    votes the one with the nearest row wins. Among equally near rows those of another class than the wanted one come first, so that rows
    which do not differ are no success. own (m,): the row that is the query itself, which is left out, or -1.
    """
    if not len(rows) or min(ks) < 1:
        raise ValueError(f"majority_classes: ks={list(ks)} and {len(rows)} rows; both must be at least 1")
    predicted = {k: np.empty(len(queries), np.int64) for k in ks}
    asked, found = comparable(queries, rows, distance)
    most = min(max(ks), len(rows) - (own is not None))
    for start, scores in score_blocks(asked, found):
        for query, line in enumerate(scores, start=start):
            if own is not None and own[query] >= 0:
                line[own[query]] = -np.inf
            last = np.partition(line, len(line) - most)[len(line) - most]
            near = np.flatnonzero(line >= last)
            near = near[np.lexsort((labels[near] == wanted[query], -line[near]))]
            for k in ks:
                of_k = labels[near[: min(k, most)]]
                votes = np.bincount(of_k)
                predicted[k][query] = of_k[np.argmax(votes[of_k])]  # the first, so the nearest, of those with the most votes
    return predicted
