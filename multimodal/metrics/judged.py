"""Figures of queries of which only some items are judged: the others are not ranked at all. Vectorised over queries, for fits.

    average_precisions(scores, relevant, ranked)                  # (q,)
    shares_among(scores, marked, ranked, k=10, ties="few")        # (q,), precision at 10 if the relevant items are marked

scores (q, n) are those of n items for each of q queries, larger is nearer; relevant, marked, ranked (q, n) bool. An item that is not ranked
is as if it were not in the gallery. As everywhere, ties count against the model.
"""

from __future__ import annotations

from typing import Literal

import numpy as np


def average_precisions(scores: np.ndarray, relevant: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """The average precision of each query over its ranked items; (q,) float64. Among equal scores the relevant items come last.

    Every query needs a relevant item that is ranked; relevant items that are not ranked do not count. Equals `average_precision` of
    `relevant_ranks` for the ranked items of one query.
    """
    hits = in_order(scores, relevant & ranked, ranked)
    places = np.arange(1, hits.shape[1] + 1)
    found = np.cumsum(hits, axis=1, dtype=np.int32)
    precision: np.ndarray = (np.where(hits, found, 0) / places).sum(axis=1) / found[:, -1]
    return precision


def shares_among(scores: np.ndarray, marked: np.ndarray, ranked: np.ndarray, k: int, ties: Literal["few", "many"]) -> np.ndarray:
    """The share of each query's first k ranked items that are marked, of all its ranked items if there are fewer; (q,) float64.

    ties: "few", among equal scores the marked items come last, if they are what is wanted; "many", first, if they are not.
    Every query needs a ranked item.
    """
    num = np.minimum(k, ranked.sum(axis=1))
    first = np.where(ranked, scores, -np.inf)
    k = min(k, scores.shape[1])
    last = np.partition(first, -k, axis=1)[:, -k, None]  # (q, 1) the score of the k-th item; -inf if fewer are ranked
    above, level = ranked & (first > last), ranked & (first == last)
    places = num - above.sum(axis=1)
    of_level = (level & marked).sum(axis=1)
    among = np.minimum(places, of_level) if ties == "many" else np.maximum(0, places - (level.sum(axis=1) - of_level))
    shares: np.ndarray = ((above & marked).sum(axis=1) + among) / num
    return shares


def in_order(scores: np.ndarray, relevant: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """(q, n) bool: whether the item at each place is relevant, best first; items that are not ranked come last."""
    worth = np.where(ranked, -scores, np.inf)
    order = np.argsort(worth, axis=1)
    in_order = np.take_along_axis(worth, order, axis=1)
    tied = ((in_order[:, 1:] == in_order[:, :-1]) & np.isfinite(in_order[:, 1:])).any(axis=1)
    if tied.any():  # seldom, and sorting by two keys takes several times as long
        order[tied] = np.lexsort((relevant[tied], worth[tied]), axis=1)
    return np.take_along_axis(relevant, order, axis=1)
