"""Retrieval: the rank of the one picture that belongs to a text, and recall, median and chance read off the ranks.

first = ranks(text_vectors, image_vectors, relevant=np.arange(len(text_vectors)))
recall_at(first, 10), np.median(first), chance_recall_at(len(image_vectors), 10)
found, cosines = nearest(text_vectors, image_vectors, k=10)
"""

from __future__ import annotations

import numpy as np

BLOCK_ROWS = 1024


def ranks(queries: np.ndarray, gallery: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The 1-based rank by cosine of each query's own item; (n,) int64.

    queries (n, d), gallery (m, d) float, of any length; relevant (n,) the row of the gallery that belongs to each query.
    Ties count against: a model that gives all items one score ranks every item last. A row of zeros has cosine 0 with
    everything, so a query in which nothing is known ranks last too.
    """
    queries, gallery = _unit(queries), _unit(gallery)
    found = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        scores = queries[rows] @ gallery.T
        own = np.take_along_axis(scores, relevant[rows, None], axis=1)
        found[rows] = (scores >= own).sum(axis=1)
    return found


def nearest(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the gallery that are nearest to each query by cosine, nearest first, and their cosines; (n, k) int64 and (n, k) float32.

    queries (n, d), gallery (m, d) float, of any length; k at most m, more are m. Equal cosines come in the gallery's order.
    """
    scores = _unit(queries) @ _unit(gallery).T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def recall_at(first: np.ndarray, k: int) -> float:
    """Share of the queries whose item is among the first k; first (n,) 1-based ranks."""
    return float(np.mean(first <= k))


def average_precision(first: np.ndarray) -> float:
    """Mean average precision where each query has one relevant item: the mean of 1 / rank."""
    return float(np.mean(1.0 / first))


def chance_recall_at(num_gallery: int, k: int) -> float:
    """What a random order of the gallery gives: min(1, k / m)."""
    return min(1.0, k / num_gallery)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
