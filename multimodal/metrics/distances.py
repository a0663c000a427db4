"""Rows by their distance, cosine or Euclidean, as inner products: so that equal rows tie on any processor (`score_blocks`).

queries, gallery = comparable(rows[asking], rows, "euclidean")
for start, scores in score_blocks(queries, gallery): ...          # larger is nearer
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from multimodal.metrics.retrieval import unit

Distance = Literal["cosine", "euclidean"]


def comparable(queries: np.ndarray, gallery: np.ndarray, distance: Distance) -> tuple[np.ndarray, np.ndarray]:
    """queries (q, d), gallery (n, d) -> (q, e) and (n, e) whose inner products order a query's gallery by distance, the nearest largest."""
    if distance == "cosine":
        return unit(queries), unit(gallery)
    # |q - g|^2 = |q|^2 - 2 q.g + |g|^2, of which |q|^2 is the same for all g; around their mean, so that nothing is lost far from 0
    mean = np.mean(gallery, axis=0, dtype=np.float64)
    queries, gallery = np.asarray(queries, np.float64) - mean, np.asarray(gallery, np.float64) - mean
    squares = np.square(gallery).sum(axis=1, keepdims=True)
    return np.hstack([queries, np.ones((len(queries), 1))]), np.hstack([2 * gallery, -squares])


def distances(queries: np.ndarray, gallery: np.ndarray, distance: Distance) -> np.ndarray:
    """(q, d), (n, d) -> (q, n) float64: 1 - cosine, or Euclidean. Equal rows are 0 apart only up to rounding."""
    if distance == "cosine":
        return 1 - unit(queries).astype(np.float64) @ unit(gallery).T.astype(np.float64)
    mean = np.mean(gallery, axis=0, dtype=np.float64)
    queries, gallery = np.asarray(queries, np.float64) - mean, np.asarray(gallery, np.float64) - mean
    squares = np.square(queries).sum(axis=1)[:, None] - 2 * queries @ gallery.T + np.square(gallery).sum(axis=1)
    return np.sqrt(np.maximum(0, squares))
