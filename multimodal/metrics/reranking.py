"""Rankings improved by who finds whom: k-reciprocal re-ranking (Zhong, Zheng, Cao and Li, CVPR 2017).

distances = k_reciprocal(queries, gallery)            # (q, g), smaller is nearer
"""

from __future__ import annotations

import numpy as np

MOST = 40_000
"""Pictures that are compared with each other: their matrix of distances takes 4 bytes a pair, 6 GB."""


def k_reciprocal(queries: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, weight: float = 0.3) -> np.ndarray:
    """(q, g) float32 distances: the Jaccard distance of k-reciprocal neighbourhoods, and the original one with that weight.

    queries (q, d), gallery (g, d): compared by squared Euclidean distance, divided by the largest from each picture (as the authors' code
    does; the paper has the Mahalanobis distance). k1, k2, weight: the paper's k1, k2 and lambda. Two pictures are k-reciprocal neighbours
    if each is among the other's k nearest (eq. 3); the neighbourhood of a picture also takes the k1/2-reciprocal neighbours of its members
    where two thirds of these are in it (eq. 5). Its members weigh exp(-distance) (eq. 7), averaged over its k2 nearest (eq. 11).
    Memory: some 12 bytes a pair of all pictures. ValueError: more than MOST.
    """
    num = len(queries) + len(gallery)
    if num > MOST:
        raise ValueError(
            f"{num} pictures are compared with each other, and their distances would take {num**2 * 12 >> 30} GB; at most {MOST}"
        )
    distances = _distances(np.concatenate([queries, gallery]).astype(np.float64))
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : k1 + 1].astype(np.int32)
    half = int(np.around(k1 / 2))
    reciprocal = [_reciprocal(nearest, place, k1) for place in range(num)]
    of_half = [_reciprocal(nearest, place, half) for place in range(num)]
    membership = np.zeros((num, num), np.float32)
    for place, near in enumerate(reciprocal):
        taken = [near, *(of_half[one] for one in near if len(np.intersect1d(of_half[one], near)) > 2 / 3 * len(of_half[one]))]
        members = np.unique(np.concatenate(taken))
        weights = np.exp(-distances[place, members])
        membership[place, members] = weights / weights.sum()
    asked = distances[: len(queries), len(queries) :].copy()
    del distances
    if k2 > 1:
        membership = np.stack([membership[near].mean(axis=0) for near in nearest[:, :k2]])
    holders = [np.flatnonzero(column) for column in membership.T]
    for place, line in enumerate(asked):
        shared = np.zeros(num, np.float32)
        for one in np.flatnonzero(membership[place]):
            shared[holders[one]] += np.minimum(membership[place, one], membership[holders[one], one])
        jaccard = 1 - shared[len(queries) :] / (2 - shared[len(queries) :])  # each row of membership sums to one
        line[:] = (1 - weight) * jaccard + weight * line
    return asked


def _distances(rows: np.ndarray) -> np.ndarray:
    """(n, n) float32: squared, and divided by the largest in each row."""
    squares = np.square(rows).sum(axis=1)
    found = np.empty((len(rows), len(rows)), np.float32)
    for start in range(0, len(rows), 1024):
        block = rows[start : start + 1024]
        between = squares[start : start + len(block), None] - 2 * block @ rows.T + squares
        found[start : start + len(block)] = between / between.max(axis=1, keepdims=True)
    return found


def _reciprocal(nearest: np.ndarray, place: int, k: int) -> np.ndarray:
    """Those among a picture's k nearest, itself included, that have it among theirs."""
    near = nearest[place, : k + 1]
    return near[(nearest[near, : k + 1] == place).any(axis=1)]
