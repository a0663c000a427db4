"""Classification by nearest neighbours: how well rows tell classes apart as they are, with nothing fitted to them.

predicted = nearest_classes(train, labels, queries, k=20)
"""

from __future__ import annotations

import numpy as np

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
