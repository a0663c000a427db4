"""From what score on a picture is shown: calibrated on a store, by how often a query for something finds a picture that shows it as well.

    reach = reach_of([rows], words)
    reach.share(2, levels)               # of random queries of two words, the share that find a picture of at least these levels
    reach.bar(2, 0.5)                    # the level above which at most half of them find any

A cosine means something else in every store, and for a query of two words something else than for one. So a store keeps how its own most
frequent words, embedded as queries are (`multimodal.search.calibration`), are met by its pictures. The level of a picture is the smallest
of its cosines with the words and phrases that a query wants: of what it shows least. For random queries of one to MAX_TERMS of these words,
the store keeps the distribution of the best level that any picture has. A cut-off of 0.5 then hides the pictures whose level half of the
random queries reach. What a query excludes, pictures in it, topics, and terms that a joined store scores are not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multimodal.errors import InputError
from multimodal.search.algebra import QueryTerms
from multimodal.search.calibration import Calibration
from multimodal.search.engine import Engine, ScoresAll
from multimodal.search.pausing import may_pause
from multimodal.text import TextSpace

MAX_TERMS = 4
"""Of a random query; queries of more terms are compared with these."""
NUM_QUERIES = 256
"""Random queries of each number of terms above one; of one term, each word is a query."""
QUANTILES = 100
_ROWS_AT_ONCE = 2048
_DECIMALS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """levels: (MAX_TERMS, QUANTILES + 1) float64: for each number of terms, quantiles of the best levels of random queries."""

    levels: np.ndarray

    def bar(self, num_terms: int, share: float) -> float:
        """The level that a share of the random queries reaches, between 0 and 1; -inf for all of them."""
        line = self.levels[min(num_terms, MAX_TERMS) - 1]
        return -np.inf if share >= 1 else float(np.interp(1 - share, np.linspace(0, 1, QUANTILES + 1), line))

    def share(self, num_terms: int, level: float) -> float:
        """The share of the random queries that reach a level."""
        line = self.levels[min(num_terms, MAX_TERMS) - 1]
        return 1 - float(np.interp(level, line, np.linspace(0, 1, QUANTILES + 1)))

    def as_json(self) -> list[list[float]]:
        """As a store's manifest keeps it."""
        return [[round(value, _DECIMALS) for value in line] for line in self.levels.tolist()]

    @classmethod
    def from_json(cls, kept: object) -> Reach:
        """ValueError if it is not what `as_json` gives."""
        levels = np.asarray(kept, dtype=np.float64)
        if levels.shape != (MAX_TERMS, QUANTILES + 1) or not np.isfinite(levels).all() or (np.diff(levels, axis=1) < 0).any():
            raise ValueError(f"reach is no {MAX_TERMS} x {QUANTILES + 1} ascending numbers")
        return cls(levels)


def reach_of(blocks: Iterable[np.ndarray], words: np.ndarray) -> Reach | None:
    """From the rows of a store, in blocks (b, d) of about unit length, and the unit vectors (w, d) of its words as queries have them.

    None if there are no pictures or no words. Random queries are the same ones for the same number of words; those of three terms are those
    of two with one term more. Cosines are made in float64, so that the place of a row among the others changes none that is kept.
    """
    if not len(words):
        return None
    chosen = np.random.default_rng(0).integers(0, len(words), (MAX_TERMS, NUM_QUERIES))
    best = [np.full(len(words), -np.inf), *np.full((MAX_TERMS - 1, NUM_QUERIES), -np.inf)]
    for block in blocks:
        for start in range(0, len(block), _ROWS_AT_ONCE):
            rows = block[start : start + _ROWS_AT_ONCE].astype(np.float64)
            cosines = (words @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T).astype(np.float32)
            np.maximum(best[0], cosines.max(axis=1), out=best[0])
            levels = cosines[chosen[0]]
            for found, term in zip(best[1:], chosen[1:], strict=True):
                np.minimum(levels, cosines[term], out=levels)
                np.maximum(found, levels.max(axis=1), out=found)
    if not np.isfinite(best[0]).all():
        return None
    return Reach(np.stack([np.quantile(some, np.linspace(0, 1, QUANTILES + 1)) for some in best]))


class Judged(Protocol):
    """A store whose pictures are judged."""

    @property
    def query_space(self) -> TextSpace: ...
    @property
    def calibration(self) -> Calibration: ...
    @property
    def reach(self) -> Reach: ...


class Judge:
    """The level of pictures for one query."""

    def __init__(self, store: Judged, terms: QueryTerms) -> None:
        """InputError if the query wants no words of this store."""
        wanted = [part.term.content for part in terms.parts if part.term.kind == "text" and not part.is_without and not part.home]
        if not wanted:
            raise InputError("a cut-off judges the words that a query wants, and this one has none. Add a word, or leave the cut-off out")
        self.num_terms = len(wanted)
        self._reach = store.reach
        self._units = np.stack([store.calibration.embed(phrase, store.query_space) for phrase in wanted])

    def above(self, engine: Engine, cut_off: float) -> np.ndarray:
        """The ids of the pictures whose level fewer than a share of the random queries reach, of those that the engine searches."""
        bar = self._reach.bar(self.num_terms, cut_off)
        if isinstance(engine, ScoresAll):
            ids, cosines = engine.scores(self._units)
            return ids[cosines.min(axis=0, initial=np.inf) > bar]
        return _common([_neighbours_above(engine, unit, bar) for unit in self._units])

    def share(self, rows: np.ndarray) -> list[float]:
        """For pictures with these unit rows (r, d), the share of the random queries that reach their level."""
        levels = (rows.astype(np.float64) @ self._units.T).min(axis=1)
        return [self._reach.share(self.num_terms, level) for level in levels.tolist()]


def check_cut_off(cut_off: float) -> float:
    """The cut-off; InputError if it is no share."""
    if not 0 < cut_off <= 1:
        raise InputError(f"cut-off {cut_off}: a share of the random queries, above 0 and at most 1. 0.5 hides what half of them reach")
    return cut_off


def _neighbours_above(engine: Engine, unit: np.ndarray, bar: float) -> np.ndarray:
    """The ids whose cosine is above a bar, by an engine that only finds nearest neighbours."""
    depth = min(256, len(engine))
    while True:
        may_pause()
        found = engine.search(unit[None].astype(np.float32), max(depth, 1))
        if depth >= len(engine) or found.scores[0, -1] <= bar:
            return found.ids[0][found.scores[0] > bar]
        depth = min(4 * depth, len(engine))


def _common(every: Sequence[np.ndarray]) -> np.ndarray:
    common = every[0]
    for ids in every[1:]:
        common = np.intersect1d(common, ids)
    return common
