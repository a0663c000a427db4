"""Retrieval: the ranks of the items that are relevant to a query; recall, average precision, and the chance level of both.

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

MAX_SCORES = 1 << 23
"""The most scores held at once: 64 MB in float64, for any number of queries."""
_BITS = 26
"""Bits of the first part of a number: products of two such parts have 52, and float64 adds up 53 without rounding."""
_MORE_BITS = 20
"""Bits of the second part, the remainder: with it, sums over up to 2^15 dimensions stay within 53 bits."""
_LONGEST = 1.4
"""Two rows no longer than this have a product below 2, even if every term is positive (Cauchy and Schwarz)."""


class Block(NamedTuple):
    """The scores (b, m) of the queries from `start` on."""

    start: int
    scores: np.ndarray


def score_blocks(queries: np.ndarray, gallery: np.ndarray) -> Iterator[Block]:
    """The inner products of queries (n, d) with a gallery (m, d), float64, at most MAX_SCORES at once.

    Equal rows have equal scores at any position, on any processor, with any number of threads. BLAS alone does not ensure this: its order
    of summation depends on the kernel and on a row's place in the block. So the numbers are first split into parts so short that no sum of
    their products needs rounding, and the order of summation makes no difference. This is the error-free product of Ozaki et al. (2012,
    "Error-free transformations of matrix multiplication by using fast routines of matrix multiplication"), without the product of the
    second parts: scores are exact to within 2^-44 sqrt(d) times the product of the longest rows.

    ValueError: a number is not finite.
    """
    query_parts, gallery_parts = _parts(queries), _parts(gallery)
    scale = query_parts.scale * gallery_parts.scale
    step = max(1, MAX_SCORES // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        first, second = query_parts.first[start : start + step], query_parts.second[start : start + step]
        scores = first @ gallery_parts.first.T
        scores += first @ gallery_parts.second.T + second @ gallery_parts.first.T
        yield Block(start, scores * scale)


class _Parts(NamedTuple):
    """first, second (n, d) float64: scale * (first + second) are the numbers, to nearly all their bits. scale: a power of two."""

    first: np.ndarray
    second: np.ndarray
    scale: float


def _parts(numbers: np.ndarray) -> _Parts:
    """Rows scaled to a length of at most _LONGEST, and split into their first _BITS binary places and the _MORE_BITS after those."""
    numbers = np.asarray(numbers, dtype=np.float64)
    longest = float(np.sqrt(np.square(numbers).sum(axis=1).max(initial=0)))
    if not np.isfinite(longest):
        raise ValueError("cannot compute inner products: the rows hold a number that is not finite, or is too large to square")
    scale = float(2.0 ** (np.floor(np.log2(longest / _LONGEST)) + 1)) if longest > 0 else 1.0
    first = _rounded(numbers / scale, _BITS)
    return _Parts(first, _rounded(numbers / scale - first, _BITS + _MORE_BITS), scale)


def _rounded(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to a whole multiple of 2^-bits."""
    rounded: np.ndarray = np.rint(numbers * 2.0**bits) * 2.0**-bits
    return rounded


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, d) at length one, float32, so that inner products are cosines.

    A row of zeros stays as it is, and its cosine with everything is 0. A row that is not finite becomes a row of zeros.
    """
    rows = np.ascontiguousarray(rows, dtype=np.float64)  # contiguous: a row is then summed in the same order in any array
    length = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return np.divide(rows, length, out=np.zeros_like(rows), where=np.isfinite(length) & (length > 0)).astype(np.float32)


def ranks(queries: np.ndarray, gallery: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The 1-based rank by cosine of each query's own item; (n,) int64.

    queries (n, d), gallery (m, d) float, of any length; relevant (n,) the gallery row that belongs to each query.
    Ties count against the model: one that scores all items equally ranks every item last. A row of zeros has cosine 0 with
    everything, so a query without a known word ranks last too, and so does everything if the model's vectors are not finite.
    """
    found = np.empty(len(queries), dtype=np.int64)
    for start, scores in score_blocks(unit(queries), unit(gallery)):
        rows = slice(start, start + len(scores))
        own = np.take_along_axis(scores, relevant[rows, None], axis=1)
        found[rows] = (scores >= own).sum(axis=1)
    return found


def nearest(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The gallery rows that are nearest to each query by cosine, nearest first, and their cosines; (n, k) int64 and (n, k) float32.

    queries (n, d), gallery (m, d) float, of any length; k above m counts as m. Equal cosines come in the gallery's order.
    """
    k = min(k, len(gallery))
    rows, cosines = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start, scores in score_blocks(unit(queries), unit(gallery)):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        rows[start : start + len(best)], cosines[start : start + len(best)] = best, np.take_along_axis(scores, best, axis=1)
    return rows, cosines


def relevant_ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The 1-based ranks of the relevant items of one query, best first; (r,) int64 ascending.

    scores (m,), larger is nearer; relevant (m,) bool. Ties count against the model: among equal scores the relevant ones come last.
    """
    own = np.sort(scores[relevant])
    reached = np.searchsorted(own, scores[~relevant], side="right")  # how many of the own items each other one is at least as near as
    ahead = np.cumsum(np.bincount(reached, minlength=len(own) + 1)[::-1])[:-1]  # others at least as near as the best own item, the next ...
    return ahead + np.arange(1, len(own) + 1)


def recall_at(first: np.ndarray, k: int) -> float:
    """The share of the queries whose first relevant item is among the first k; first (n,) 1-based ranks."""
    return float(np.mean(first <= k))


def average_precision(found: np.ndarray) -> float:
    """The mean over a query's relevant items of the precision down to each of them.

    found: (r,) their 1-based ranks, ascending, as `relevant_ranks` gives them; r at least 1. With one relevant item it is 1 / rank.
    """
    return float(np.mean(np.arange(1, len(found) + 1) / found))


def chance_recall_at(num_gallery: int, k: int, num_relevant: np.ndarray | int = 1) -> float:
    """The recall of a random order of m items: one of the r relevant ones is among the first k with 1 - C(m - r, k) / C(m, k).

    num_relevant: r, or (n,) one for each query; the result is then the mean over queries. With one relevant item it is k / m.
    """
    k = min(k, num_gallery)
    return _mean_over(num_relevant, lambda r: 1 - comb(num_gallery - r, k) / comb(num_gallery, k))


def chance_average_precision(num_gallery: int, num_relevant: np.ndarray | int) -> float:
    """The exact expectation of the average precision of a random order of m items, r of them relevant.

    (H + (r - 1) / (m - 1) * (m - H)) / m, where H is the m-th harmonic number: the item at place i is relevant with probability r / m, and
    given that, each of the i - 1 before it with (r - 1) / (m - 1). The formula of Bestgen (2015), Prague Bulletin of Mathematical
    Linguistics 103. num_relevant: r, or (n,) one for each query; the result is then the mean over queries.
    """
    harmonic = float(np.sum(1 / np.arange(1, num_gallery + 1)))
    others = max(1, num_gallery - 1)  # with a single item, r - 1 is 0
    return _mean_over(num_relevant, lambda r: (harmonic + (r - 1) / others * (num_gallery - harmonic)) / num_gallery)


def permuted_average_precision(scores: np.ndarray, classes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The expected average precision of each of n rankings if the rankings are permuted across queries; (n,).

    scores (n, m); classes (m,) integers below c, of the items; shares (c,) the share of the queries of each class, 0 for a class without
    items. This is the chance level of these very rankings. It is above `chance_average_precision` if items of one class are near each
    other, as in any text space: they then come one after another in every ranking, and a run of them scores more than scattered items.
    """
    each = np.zeros(len(scores))
    for number in np.flatnonzero(shares).tolist():
        relevant = classes == number
        each += shares[number] * np.array([average_precision(relevant_ranks(line, relevant)) for line in scores])
    return each


def _mean_over(num_relevant: np.ndarray | int, chance: Callable[[int], float]) -> float:
    different, counts = np.unique(np.atleast_1d(num_relevant), return_counts=True)
    return float(np.average([chance(r) for r in different.tolist()], weights=counts))
