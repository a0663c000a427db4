"""Confusion between classes in retrieval: which classes the hits of a query of one class belong to.

shares = shares_among_first(scores, gallery_classes, num_classes=12, k=10)     # (n, 12), one row a query
confusion(shares, query_classes)                                               # (12, 12)
"""

from __future__ import annotations

import numpy as np


def shares_among_first(scores: np.ndarray, gallery_classes: np.ndarray, num_classes: int, k: int) -> np.ndarray:
    """The share of each class among the k best items of each query; (n, c) float64, rows sum to one.

    scores (n, m), larger is nearer; gallery_classes (m,) integers below c; all m items if there are fewer than k. Items that tie for the
    last places share them equally: the average over random orders among them.
    """
    k = min(k, scores.shape[1])
    last = np.partition(scores, -k, axis=1)[:, -k, None]  # (n, 1) the score of the k-th item
    above, level = scores > last, scores == last
    places_left = k - above.sum(axis=1, keepdims=True)
    weights = above + level * (places_left / level.sum(axis=1, keepdims=True))
    return (weights @ np.eye(num_classes)[gallery_classes]) / k


def confusion(shares: np.ndarray, query_classes: np.ndarray) -> np.ndarray:
    """(c, c): row i is the mean of the rows of shares (n, c) over the queries of class i. Rows of classes without a query are NaN."""
    num_classes = shares.shape[1]
    counts = np.bincount(query_classes, minlength=num_classes)[:, None]
    sums = np.eye(num_classes)[query_classes].T @ shares
    return np.divide(sums, counts, out=np.full((num_classes, num_classes), np.nan), where=counts > 0)
