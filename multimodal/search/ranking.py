"""From vectors to a ranking: score the pictures of a store by every term, combine the scores, and order the pictures.

    found = rank(store, terms, store.fusion, k=10)
    found.ids, found.totals, found.added

A query of one term is its nearest neighbours, whatever the engine. Of several terms, an exact engine scores every picture; of an
approximate one, only the nearest neighbours of each term, and of their sum, are candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multimodal.errors import InputError
from multimodal.search.algebra import Place, QueryTerms
from multimodal.search.engine import SLACK, Engine, ScoresAll
from multimodal.search.fusion import Fusion, TermScores
from multimodal.search.pausing import may_pause
from multimodal.search.segments import name_some, unit_rows

SCORE_DECIMALS = 6  # float16 rows carry three or four; at six, scores that should tie do tie
_COMBINED_AT_ONCE = 1 << 15
MIN_DEPTH, DEPTH = 200, 20
"""Neighbours of each term that an approximate engine gives as candidates: at least the first, and the second for each wanted hit."""


class Rankable(Place, Protocol):
    """A store, whose pictures are ranked."""

    @property
    def ids(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The best pictures, best first.

    ids: (k,) int64. totals: (k,), what the terms add up to, rounded. added: (t, k), what each term adds.
    candidates: in words, which pictures were scored.
    """

    ids: np.ndarray
    totals: np.ndarray
    added: np.ndarray
    candidates: str


def rank(
    store: Rankable,
    terms: QueryTerms,
    fusion: Fusion,
    k: int,
    named: frozenset[int] = frozenset(),
    allowed: np.ndarray | None = None,
    joined: Mapping[str, Rankable] | None = None,
) -> Ranking:
    """The k best pictures by their rounded totals; among equals the pictures that the query names come first, then smaller ids.

    named: ids of pictures that the query names. allowed: the ids that may be found; None for all. joined: as for `look_up`.
    """
    homes: dict[str, Rankable] = {"": store, **(joined or {})}
    engine = store.engine
    if allowed is not None:
        engine, named = engine.filter(allowed), named & set(allowed.tolist())
    scorer = _Scorer(homes, terms, fusion)
    may_pause()
    if not len(engine):
        return Ranking(np.empty(0, np.int64), np.empty(0), np.empty((len(terms.parts), 0)), "no picture")
    if len(terms.parts) == 1 and not terms.parts[0].is_without and terms.parts[0].home == "":
        return _of_one_term(scorer, engine, k, named)
    if isinstance(engine, ScoresAll) and all(isinstance(homes[part.home].engine, ScoresAll) for part in terms.parts):
        return _of_all(scorer, engine, k, named)
    return _of_neighbours(scorer, engine, k, named)


def totals_of(store: Rankable, terms: QueryTerms, fusion: Fusion, cosines: np.ndarray) -> np.ndarray:
    """(n,): what the scores of pictures add up to, rounded as in `rank`, from the cosines (t, n) of the terms."""
    scorer = _Scorer({"": store}, terms, fusion)
    return np.round(fusion.combine(scorer.scores(cosines)).sum(axis=0), SCORE_DECIMALS) + 0.0


class _Scorer:
    """The terms of a query, ready to score pictures."""

    def __init__(self, homes: Mapping[str, Rankable], terms: QueryTerms, fusion: Fusion) -> None:
        self.homes, self.terms, self.fusion = homes, terms, fusion
        parts, units = terms.parts, terms.units
        self._weights = np.array([part.term.weight for part in parts])
        self._without = np.array([part.is_without for part in parts])
        self._pictures = np.array([part.term.kind in ("image", "near") for part in parts])
        same = [[one.home == other.home for other in parts] for one in parts]
        self._gram = np.array(
            [[float(u @ v) if near else 0.0 for v, near in zip(units, line, strict=True)] for u, line in zip(units, same, strict=True)]
        )
        moments = [homes[part.home].calibration.moments(one[None]) for part, one in zip(parts, units, strict=True)]
        self._mean, self._std = (np.concatenate(values) for values in zip(*moments, strict=True))

    def scores(self, cosines: np.ndarray) -> TermScores:
        return TermScores(cosines, self._weights, self._without, self._pictures, self._mean, self._std, self._gram)

    def added(self, ids: np.ndarray) -> np.ndarray:
        """(t, c): what each term adds to the totals of some pictures, in float64."""
        rows = {home: unit_rows(self._take(home, ids), ids).astype(np.float64) for home in {part.home for part in self.terms.parts}}
        # a sum per row, not a matrix product: BLAS rounds a row depending on its place among the others, and a filter changes that
        cosines = [(rows[part.home] * one).sum(axis=1) for part, one in zip(self.terms.parts, self.terms.units, strict=True)]
        return self.fusion.combine(self.scores(np.stack(cosines)))

    def slack(self) -> float:
        """The most that a total computed from float32 cosines is off by."""
        dims = np.array([self.homes[part.home].dim for part in self.terms.parts])
        nothing = self.scores(np.zeros((len(self.terms.parts), 0)))
        return float(self.fusion.slopes(nothing) @ (SLACK * dims)) + 10**-SCORE_DECIMALS

    def _take(self, home: str, ids: np.ndarray) -> np.ndarray:
        try:
            return self.homes[home].take(ids)
        except InputError as error:
            if home:
                raise InputError(f"the joined store {home}: {error}") from None
            raise

    def ranking(self, ids: np.ndarray, k: int, named: frozenset[int], candidates: str) -> Ranking:
        added = self.added(ids)
        totals = np.round(added.sum(axis=0), SCORE_DECIMALS) + 0.0  # + 0.0: no -0.0
        order = np.lexsort((ids, ~np.isin(ids, sorted(named)), -totals))[:k]
        return Ranking(ids[order], totals[order], added[:, order], candidates)


def _of_one_term(scorer: _Scorer, engine: Engine, k: int, named: frozenset[int]) -> Ranking:
    """A way to combine terms keeps the order of a single wanted one, so its neighbours are the answer."""
    unit = scorer.terms.units[0]
    wanted = k
    while True:  # until every row left out is clearly worse than the k-th hit, so that k hits are the first k of any longer list
        may_pause()
        wanted = min(wanted + 16, len(engine))
        found = engine.search(unit[None].astype(np.float32), wanted)
        ids = np.union1d(found.ids[0], sorted(named)).astype(np.int64)
        ranking = scorer.ranking(ids, k, named, f"the nearest of all {len(engine):,} pictures")
        if wanted >= len(engine):
            return ranking
        left_out = scorer.fusion.combine(scorer.scores(found.scores[:1, -1:].astype(np.float64))).sum()
        if left_out < ranking.totals[-1] - 2 * 10**-SCORE_DECIMALS:
            return ranking
        wanted *= 2


def _of_all(scorer: _Scorer, engine: Engine, k: int, named: frozenset[int]) -> Ranking:
    """Score every picture in float32; those within its error of the k-th best are scored again in float64."""
    assert isinstance(engine, ScoresAll)
    parts, units = scorer.terms.parts, scorer.terms.units
    own = [place for place, part in enumerate(parts) if part.home == ""]
    ids, found = engine.scores(np.stack([units[place] for place in own]) if own else np.zeros((1, scorer.homes[""].dim)))
    cosines: list[np.ndarray] = [np.empty(0)] * len(parts)  # (n,) float32 of each term
    for place, line in zip(own, found, strict=False):
        cosines[place] = line
    for place, part in enumerate(parts):
        if part.home:
            cosines[place] = _aligned(scorer.homes[part.home], part.home, units[place], ids)
    totals = np.empty(len(ids))
    for start in range(0, len(ids), _COMBINED_AT_ONCE):  # a block in float64 stays in the processor's cache, all pictures would not
        some = slice(start, start + _COMBINED_AT_ONCE)
        block = np.stack([line[some] for line in cosines]).astype(np.float64)
        totals[some] = scorer.fusion.combine(scorer.scores(block)).sum(axis=0)
    kept = totals >= np.partition(totals, max(len(ids) - k, 0))[max(len(ids) - k, 0)] - 2 * scorer.slack()
    return scorer.ranking(ids[kept], k, named, f"all {len(ids):,} pictures")


def _aligned(store: Rankable, name: str, unit: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(n,): the cosines of a joined store for the pictures of the searched one."""
    engine = store.engine
    assert isinstance(engine, ScoresAll)
    there, [found] = engine.scores(unit[None])
    missing = np.setdiff1d(ids, there).tolist()
    if missing:
        raise InputError(f"the joined store {name} has no picture {name_some(missing)}. Join a store of the same pictures")
    order = np.argsort(there)
    return found[order[np.searchsorted(there, ids, sorter=order)]]


def _of_neighbours(scorer: _Scorer, engine: Engine, k: int, named: frozenset[int]) -> Ranking:
    """Candidates of an approximate engine: the neighbours of each wanted term, and of the signed sum of all."""
    own = [(part, one) for part, one in zip(scorer.terms.parts, scorer.terms.units, strict=True) if part.home == ""]
    if not own:
        raise InputError(
            "the engine of this store, or of a joined one, is approximate, and no term is scored by this store itself. Add a word"
        )
    heaviest = max(part.term.weight for part, _ in own)  # over it: a weight may be larger than float32 holds
    total = sum((-one if part.is_without else one) * (part.term.weight / heaviest) for part, one in own)
    queries = [total, *(one for part, one in own if not part.is_without)]
    depth = min(max(MIN_DEPTH, DEPTH * k), len(engine))
    found = engine.search(np.stack(queries).astype(np.float32), depth).ids
    ids = np.union1d(found, sorted(named)).astype(np.int64)
    return scorer.ranking(ids, k, named, f"the {depth:,} nearest pictures of each wanted term and of the sum of all, {len(ids):,} in all")
