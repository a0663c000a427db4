"""Re-identification: a query's identity among pictures of other cameras, as CMC, mAP and mINP.

    relevant, ranked = identity_masks(queries, gallery, own)
    found = identity_figures(scores, relevant, ranked)
    100 * np.mean(found.first <= 1), 100 * found.average_precision.mean()      # CMC-1 and mAP, over the queries that have a match

A picture of the query's own identity by its own camera is no answer and no error: it is left out of the ranking (Zheng et al., 2015). As
everywhere, ties count against the model: among equal scores the relevant pictures come last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal.metrics.judged import in_order


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """Pictures: identities (n,) integers, and cameras (n,) integers, or None if nobody knows which camera took them."""

    identities: np.ndarray
    cameras: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class IdentityFigures:
    """Of each query that has a match.

    has_match: (q,) bool, of all queries. The others are (m,), of those with a match. first: the rank of the first match, from 1.
    average_precision: the mean of the precision at each match. inverse_negative_penalty: the number of matches by the rank of the last
    one (Ye et al., 2021).
    """

    has_match: np.ndarray
    first: np.ndarray
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray

    def cmc(self, k: int) -> float:
        """The share of the queries with a match whose first k ranks hold one (cumulative matching characteristic)."""
        return float(np.mean(self.first <= k))


def identity_masks(queries: Identities, gallery: Identities, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Which pictures of the gallery (n) are relevant to each query (q), and which are ranked; (q, n) bool each.

    Left out of the ranking are pictures of the query's identity by its camera. Where there are no cameras, the query itself alone is left
    out: own (q,), its place in the gallery, -1 if it is not in it.
    """
    same = queries.identities[:, None] == gallery.identities[None]
    ranked = np.ones(same.shape, bool)
    if queries.cameras is not None and gallery.cameras is not None:
        ranked = ~(same & (queries.cameras[:, None] == gallery.cameras[None]))
    if own is not None:
        there = np.flatnonzero(own >= 0)
        ranked[there, own[there]] = False
    return same & ranked, ranked


def identity_figures(scores: np.ndarray, relevant: np.ndarray, ranked: np.ndarray) -> IdentityFigures:
    """From the scores (q, n) of the gallery for each query, larger is nearer. ValueError if no query has a match."""
    has_match = (relevant & ranked).any(axis=1)
    if not has_match.any():
        raise ValueError("no query has a match in the gallery that is ranked")
    hits = in_order(scores[has_match], (relevant & ranked)[has_match], ranked[has_match])
    places, found = np.arange(1, hits.shape[1] + 1), np.cumsum(hits, axis=1)
    last = hits.shape[1] - np.argmax(hits[:, ::-1], axis=1)
    precision = (np.where(hits, found, 0) / places).sum(axis=1) / found[:, -1]
    return IdentityFigures(has_match, np.argmax(hits, axis=1) + 1, precision, found[:, -1] / last)
