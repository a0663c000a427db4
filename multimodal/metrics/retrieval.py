"""Retrieval: the ranks of the items that are relevant to a query; recall, average precision and what chance gives of both.

first = ranks(text_vectors, image_vectors, relevant=np.arange(len(text_vectors)))
recall_at(first, 10), np.median(first), chance_recall_at(len(image_vectors), 10)
found, cosines = nearest(text_vectors, image_vectors, k=10)

found = relevant_ranks(scores, classes == "physics")     # one query, several relevant items
average_precision(found), chance_average_precision(len(scores), len(found))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb
from typing import NamedTuple

import numpy as np

MAX_SCORES = 1 << 24
"""Scores held at once: 64 MB in float32, so that 100,000 queries among 100,000 items need no more than a hundred among them do."""


class Block(NamedTuple):
    """The scores (b, m) of the queries from `start` on."""

    start: int
    scores: np.ndarray


def score_blocks(queries: np.ndarray, gallery: np.ndarray) -> Iterator[Block]:
    """The inner products of queries (n, d) with a gallery (m, d), at most MAX_SCORES at once."""
    step = max(1, MAX_SCORES // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        yield Block(start, queries[start : start + step] @ gallery.T)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, d) at length one, float32, so that inner products are cosines. A row of zeros stays: its cosine with everything is 0."""
    rows = np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def ranks(queries: np.ndarray, gallery: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The 1-based rank by cosine of each query's own item; (n,) int64.

    queries (n, d), gallery (m, d) float, of any length; relevant (n,) the row of the gallery that belongs to each query.
    Ties count against: a model that gives all items one score ranks every item last. A row of zeros has cosine 0 with
    everything, so a query in which nothing is known ranks last too.
    """
    found = np.empty(len(queries), dtype=np.int64)
    for start, scores in score_blocks(unit(queries), unit(gallery)):
        rows = slice(start, start + len(scores))
        own = np.take_along_axis(scores, relevant[rows, None], axis=1)
        found[rows] = (scores >= own).sum(axis=1)
    return found


def nearest(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the gallery that are nearest to each query by cosine, nearest first, and their cosines; (n, k) int64 and (n, k) float32.

    queries (n, d), gallery (m, d) float, of any length; k at most m, more are m. Equal cosines come in the gallery's order.
    """
    scores = unit(queries) @ unit(gallery).T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def relevant_ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The 1-based ranks of the relevant items of one query, best first; (r,) int64 ascending.

    scores (m,), the larger the nearer; relevant (m,) bool. Ties count against: among equal scores the relevant ones come last.
    """
    own = np.sort(scores[relevant])
    reached = np.searchsorted(own, scores[~relevant], side="right")  # how many of the own items each other one is at least as near as
    ahead = np.cumsum(np.bincount(reached, minlength=len(own) + 1)[::-1])[:-1]  # others at least as near as the best own item, the next ...
    return ahead + np.arange(1, len(own) + 1)


def recall_at(first: np.ndarray, k: int) -> float:
    """Share of the queries whose first relevant item is among the first k; first (n,) 1-based ranks."""
    return float(np.mean(first <= k))


def average_precision(found: np.ndarray) -> float:
    """The mean over a query's relevant items of the precision down to each of them.

    found: (r,) their 1-based ranks, ascending, as `relevant_ranks` gives them; r at least 1. With one relevant item it is 1 / rank.
    """
    return float(np.mean(np.arange(1, len(found) + 1) / found))


def chance_recall_at(num_gallery: int, k: int, num_relevant: np.ndarray | int = 1) -> float:
    """What a random order of m items gives: that one of the r relevant ones is among the first k, 1 - C(m - r, k) / C(m, k).

    num_relevant: r, or (n,) that of each query, and then the mean over queries. With one relevant item it is k / m.
    """
    k = min(k, num_gallery)
    return _mean_over(num_relevant, lambda r: 1 - comb(num_gallery - r, k) / comb(num_gallery, k))


def chance_average_precision(num_gallery: int, num_relevant: np.ndarray | int) -> float:
    """The exact expectation of the average precision of a random order of m items, r of them relevant.

    (H + (r - 1) / (m - 1) * (m - H)) / m, where H is the m-th harmonic number: an item at place i is relevant with r / m, and then each of
    the i - 1 before it with (r - 1) / (m - 1). Bestgen (2015), Prague Bulletin of Mathematical Linguistics 103, arrives at the same.
    num_relevant: r, or (n,) that of each query, and then the mean over queries.
    """
    harmonic = float(np.sum(1 / np.arange(1, num_gallery + 1)))
    others = max(1, num_gallery - 1)  # of a single item, r - 1 is 0
    return _mean_over(num_relevant, lambda r: (harmonic + (r - 1) / others * (num_gallery - harmonic)) / num_gallery)


def dealt_average_precision(scores: np.ndarray, classes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The average precision that each of n rankings has on average where it is dealt to a query at random; (n,).

    scores (n, m); classes (m,) integers below c, of the items; shares (c,) of the queries that are of each class, 0 for one without items.
    Chance for rankings that are what they are. It is above `chance_average_precision` where items of one class lie together, as they do in
    any text space: then they come one after the other, for whatever query, and a run of them is worth more than as many strewn about.
    """
    each = np.zeros(len(scores))
    for number in np.flatnonzero(shares).tolist():
        relevant = classes == number
        each += shares[number] * np.array([average_precision(relevant_ranks(line, relevant)) for line in scores])
    return each


def _mean_over(num_relevant: np.ndarray | int, chance: Callable[[int], float]) -> float:
    different, counts = np.unique(np.atleast_1d(num_relevant), return_counts=True)
    return float(np.average([chance(r) for r in different.tolist()], weights=counts))
