"""A kept index and exact search beside it, as one engine: what was added since the index was made is found, and what was deleted is not.

    Layered(index, RowNumbers(covered), beside).search(queries, k=10)

The index knows rows by numbers that no other row of the store ever gets, so one that is on a server serves several generations at once:
each reader drops the rows that its own generation does not have, and asks for more until k pictures are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self, cast

import numpy as np

from multimodal.errors import InputError
from multimodal.search.engine import Coarse, Engine, Neighbours
from multimodal.search.segments import SegmentReader, unit_rows

_PLACE_BITS = 32
NARROW = 100_000
"""A filter that lets no more pictures through is searched exactly, where the rows are on disk: that takes no longer, and misses none."""


def row_numbers(segment: int, positions: np.ndarray) -> np.ndarray:
    """(m,) int64: the numbers of rows at some positions of a segment. A store never uses the number of a segment again."""
    return (np.int64(segment) << _PLACE_BITS) | positions.astype(np.int64)


class RowNumbers:
    """The pictures of some segments by the numbers of their rows, and the numbers by picture."""

    def __init__(self, segments: Sequence[tuple[SegmentReader, np.ndarray]], once: bool = False) -> None:
        """segments: each with the positions of its live rows. once: files are not kept mapped, see `FlatEngine.add_mapped`."""
        self._once = once
        self._segments = sorted((segment for segment, _ in segments), key=lambda segment: segment.number)
        live = {segment.number: positions for segment, positions in segments}
        sizes = [len(segment.ids) for segment in self._segments]
        self._numbers = np.array([segment.number for segment in self._segments], np.int64)
        self._sizes = np.array(sizes, np.int64)
        self._starts = np.cumsum([0, *sizes])[:-1].astype(np.int64)
        self._ids = np.concatenate([np.empty(0, np.int64), *(segment.ids for segment in self._segments)])
        self._is_live = np.zeros(len(self._ids), dtype=bool)
        for start, segment in zip(self._starts.tolist(), self._segments, strict=True):
            self._is_live[start + live[segment.number]] = True
        self.num_live = int(self._is_live.sum())
        self._mapped: dict[int, np.ndarray] = {}  # to map a file takes as long as to score its candidates

    def ids(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of rows, of any shape -> the ids of their pictures, and whether they are live pictures of these segments."""
        if not len(self._numbers):
            return np.zeros_like(rows), np.zeros(rows.shape, dtype=bool)
        at, positions, there = self._places(rows)
        flat = np.where(there, self._starts[at] + positions, 0)
        return self._ids[flat], there & self._is_live[flat]

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The numbers of the live rows of pictures, ascending; ids that are not in these segments are left out."""
        live, by_id = self._live_by_id
        found = np.searchsorted(self._ids[live], ids, sorter=by_id)
        inside = found < len(live)
        flat = live[by_id[found[inside]]]
        flat = np.unique(flat[self._ids[flat] == np.asarray(ids)[inside]])
        at = np.searchsorted(self._starts, flat, side="right") - 1
        return (self._numbers[at] << _PLACE_BITS) | (flat - self._starts[at])

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(m, d) float32 of unit length, from disk; not a number for rows that are not in these segments."""
        if not self._segments:
            return np.full((len(rows), 1), np.nan, np.float32)
        at, positions, there = self._places(rows)
        halves = np.zeros((len(rows), self._segments[0].dim), np.float16)
        for index in np.unique(at[there]).tolist():
            chosen = there & (at == index)
            mapped = self._mapped.get(index)
            if mapped is None:
                mapped = self._segments[index].rows()
                if not self._once:
                    self._mapped[index] = mapped
            halves[chosen] = mapped[positions[chosen]]
        taken = np.full(halves.shape, np.nan, np.float32)
        taken[there] = unit_rows(halves[there], rows[there])  # all at once: a call for each segment takes longer than their rows
        return taken

    def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each row the place of its segment among these, its position in the segment, and whether there is such a row."""
        at = np.minimum(np.searchsorted(self._numbers, rows >> _PLACE_BITS), len(self._numbers) - 1)
        positions = rows & ((1 << _PLACE_BITS) - 1)
        return at, positions, (self._numbers[at] == rows >> _PLACE_BITS) & (positions < self._sizes[at])

    @cached_property
    def _live_by_id(self) -> tuple[np.ndarray, np.ndarray]:
        live = np.flatnonzero(self._is_live)
        return live, np.argsort(self._ids[live])


class Layered:
    """An engine of picture ids over an index of row numbers, and over an engine of the pictures that are not in it."""

    def __init__(self, index: Engine, numbers: RowNumbers, beside: Engine, exact: Engine | None = None) -> None:
        """numbers: of the segments that the index covers. beside: the other pictures of the store. exact: all of them, which narrow
        filters are searched in; None: they too are searched in the index.
        """
        self._index, self._numbers, self._beside, self._exact = index, numbers, beside, exact
        self._num_live = numbers.num_live  # of the rows in the index; under a filter, of those that it lets through

    def __len__(self) -> int:
        return self._num_live + len(self._beside)

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        raise ValueError("a store is added to by its writer, not through its engine")

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        beside = self._beside.search(queries, k)  # also refuses what cannot be searched
        found = self._of_index(queries, min(k, self._num_live))
        ids = np.concatenate([found.ids, beside.ids], axis=1)
        scores = np.concatenate([found.scores, beside.scores], axis=1)
        order = np.lexsort((ids, -scores), axis=1)[:, :k]
        return Neighbours(np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1))

    def filter(self, ids: np.ndarray) -> Self:
        exact = None if self._exact is None else self._exact.filter(ids)
        if exact is not None and len(exact) <= NARROW:
            return cast(Self, exact)  # an engine like this one, to whoever searches it
        view = type(self)(self._index.filter(self._numbers.rows(ids)), self._numbers, self._beside.filter(ids), exact)
        view._num_live = len(view._index)
        return view

    def _of_index(self, queries: np.ndarray, k: int) -> Neighbours:
        """The k best live pictures of the index, (q, k). k is at most the number of them."""
        if not k:
            return Neighbours(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
        num_rows = len(self._index)
        wanted = min(-(-k * num_rows // self._num_live), num_rows)  # as many as hold k live ones, if the dead are anywhere
        while True:
            found = self._index.search(queries, wanted)
            ids, live = self._numbers.ids(found.ids)
            if not len(queries) or live.sum(axis=1).min() >= k or found.ids.shape[1] < wanted:
                break
            wanted *= 2  # also beyond the rows that there were: a later generation may have added some
        if len(queries) and live.sum(axis=1).min() < k:
            raise InputError("the index no longer has all pictures of this store, which changed twice since it was opened. Open it again")
        order = np.argsort(~live, axis=1, kind="stable")[:, :k]
        return Neighbours(np.take_along_axis(ids, order, axis=1), np.take_along_axis(found.scores, order, axis=1))


class Rescored:
    """An index of codes whose candidates are scored again: an engine that gives inner products of the rows themselves."""

    def __init__(self, index: Engine, vectors: Callable[[np.ndarray], np.ndarray]) -> None:
        """index: a `Coarse` one. vectors: ids (m,) -> rows (m, d) float32; candidates without a row, not a number, come last."""
        self._index, self._vectors = index, vectors

    def __len__(self) -> int:
        return len(self._index)

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        self._index.add(ids, rows)

    def filter(self, ids: np.ndarray) -> Self:
        return type(self)(self._index.filter(ids), self._vectors)

    def save(self, path: Path) -> None:
        self._index.save(path)  # type: ignore[attr-defined]

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        assert isinstance(self._index, Coarse)
        found = self._index.search(queries, min(k * self._index.oversampling, max(k, len(self))))
        scores = np.empty(found.ids.shape, np.float32)
        for at, (ids, query) in enumerate(zip(found.ids, np.asarray(queries, np.float32).astype(np.float64), strict=True)):
            scores[at] = (self._vectors(ids) * query).sum(axis=1)  # a sum per row, not a matrix product: equal rows then tie
        order = np.lexsort((found.ids, -scores), axis=1)[:, :k]
        return Neighbours(np.take_along_axis(found.ids, order, axis=1), np.take_along_axis(scores, order, axis=1))
