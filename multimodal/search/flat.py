"""Exact search: every row is compared, and equal scores are ordered by id.

engine = FlatEngine(dim=256); engine.add(ids, rows); engine.search(queries, k=10).ids

A store's rows stay where they are, float16 in mapped files: NumKong's kernels read them there, on all cores, and nothing is copied.
What they compute is off by at most `_Block.slack`, so the rows within that of the k-th best are scored again, in float64: the answer is
that of float64 sums over all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Self

import numkong
import numpy as np

from multimodal.boxes.arrays import let_go
from multimodal.errors import InputError
from multimodal.machine.cores import map_in_threads
from multimodal.search.engine import Neighbours
from multimodal.search.segments import duplicates, name_some, unit_rows

_QUERIES_AT_ONCE = 64
_BYTES_AT_ONCE = 2**24
"""Of rows, that a thread compares before it takes the next: large beside what Python adds, and small beside a core's share of a store."""
_EXACT_AT_ONCE = 2**23  # numbers in float64, when rows are scored again
_GATHERED = 8
"""Of a filter that keeps less than one row in this many, the rows are copied together; otherwise all are compared, which is faster."""
_LOW = 2.0**11
"""What is left of a number after rounding to float16 is scaled by this, and rounded to float16 too: together they are off by 2**-22."""


class FlatEngine:
    """Scores are computed in float64 and rounded to float32, so that equal rows tie exactly.

    `add` copies rows to float32; `add_mapped` keeps a store's float16 rows where they are.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._blocks: list[_Block] = []
        self._joined: np.ndarray | None = None  # the ids of all blocks, once they are needed
        self._allowed: np.ndarray | None = None  # positions that a filter lets through, ascending

    def __len__(self) -> int:
        return sum(len(block.ids) for block in self._blocks) if self._allowed is None else len(self._allowed)

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        self._check(ids, rows)
        ids = np.array(ids, dtype=np.int64)
        if repeated := duplicates(ids) or ids[np.isin(ids, self._ids)].tolist():
            raise InputError(f"ids must be unique in an engine; these come twice: {name_some(repeated)}")
        rows = np.array(rows, dtype=np.float32, order="C")
        self._append(_Block(ids, rows, None, False, float(np.linalg.norm(rows.astype(np.float64), axis=1).max(initial=0))))

    def add_mapped(self, ids: np.ndarray, rows: np.ndarray, live: np.ndarray | None = None, once: bool = False) -> None:
        """Rows that stay as they are: float16 of unit length, up to its rounding. Scores are those of the rows at unit length.

        ids: (n,) int64, none of them added before. rows: (m, d) float16, mapped; neither may change afterwards.
        live: (n,) the positions among the rows that the ids are of, ascending; None if the ids are of all rows.
        once: pages are given back as soon as their rows are compared, so that a search of a large store takes little memory. Whoever
        searches again maps them again, which takes a part of the time of a search.
        """
        self._check(ids, rows if live is None else rows[: len(live)])
        self._append(_Block(ids, rows, live, once, None))

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries of shape {queries.shape}; wanted (q, {self.dim})")
        if k < 1:
            raise InputError(f"k = {k}; it must be at least 1")
        exact = np.ascontiguousarray(queries, dtype=np.float32)
        k = min(k, len(self))
        ids, scores = np.empty((len(exact), k), np.int64), np.empty((len(exact), k), np.float32)
        for start in range(0, len(exact) if k else 0, _QUERIES_AT_ONCE):
            some = exact[start : start + _QUERIES_AT_ONCE]
            for place, positions in enumerate(self._candidates(some, k), start):
                ids[place], scores[place] = self._best(positions, exact[place], k)
        return Neighbours(ids, scores)

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `ScoresAll`. In float32: two scores are off by at most SLACK times d times the lengths of row and query."""
        found = np.empty((len(queries), len(self)), dtype=np.float32)
        ids = self._ids if self._allowed is None else self._ids[self._allowed]
        if not found.size:
            return ids, found
        asked = _Queries(np.ascontiguousarray(queries, dtype=np.float32))

        def score(pieces: Sequence[_Piece]) -> None:
            for piece in pieces:
                found[:, piece.first : piece.first + piece.num] = piece.block.scores(asked, piece)
            _let_go(pieces)

        for _ in map_in_threads(score, self._tasks()):
            pass
        return ids, found

    def filter(self, ids: np.ndarray) -> Self:
        view = type(self).__new__(type(self))
        view.dim, view._blocks, view._joined = self.dim, self._blocks, self._ids
        allowed = np.flatnonzero(np.isin(self._ids, ids))
        view._allowed = allowed if self._allowed is None else np.intersect1d(allowed, self._allowed, assume_unique=True)
        return view

    def rows(self) -> np.ndarray:
        """(n, d) float32, all of them."""
        return self._rows(np.arange(len(self._ids)))

    def _check(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if self._allowed is not None:
            raise ValueError("a filtered engine is a view; add to the engine that it was filtered from")
        if rows.ndim != 2 or rows.shape != (len(ids), self.dim):
            raise InputError(f"{len(ids)} ids and rows of shape {rows.shape}; wanted ({len(ids)}, {self.dim})")

    def _append(self, block: _Block) -> None:
        self._blocks = [*self._blocks, block]  # another list: a filtered view keeps the one that it has
        self._joined = None

    @property
    def _ids(self) -> np.ndarray:
        """(n,) int64, of all rows."""
        if self._joined is None:
            self._joined = np.concatenate([np.empty(0, np.int64), *(block.ids for block in self._blocks)])
        return self._joined

    def _candidates(self, queries: np.ndarray, k: int) -> list[np.ndarray]:
        """For each query the positions of its k best rows, and of those that may be among them. k: at most the length."""
        asked = _Queries(queries)
        slack = 2 * np.max([block.slack(asked) for block in self._blocks], axis=0)  # both scores that are compared may be off
        best = np.full((len(queries), k), -np.inf)  # the k largest so far, ascending
        lock = Lock()

        def look(pieces: Sequence[_Piece]) -> list[tuple[np.ndarray, np.ndarray]]:
            every = [piece.block.rough(asked, piece) for piece in pieces]
            _let_go(pieces)
            found = np.ascontiguousarray(every[0] if len(every) == 1 else np.concatenate(every, axis=1))
            return [look_for(query, line, pieces) for query, line in enumerate(found)]

        def look_for(query: int, found: np.ndarray, pieces: Sequence[_Piece]) -> tuple[np.ndarray, np.ndarray]:
            most = found.max()
            if np.isnan(most):
                broken = self._ids[self._positions(pieces[0].first + np.flatnonzero(np.isnan(found)))]
                raise InputError(f"rows that are zero or not finite cannot be searched; their ids: {name_some(broken.tolist())}")
            floor = best[query, 0] - slack[query]
            if len(found) > k and most >= floor:  # nothing below the k-th of this task alone
                floor = max(floor, np.partition(found, -k)[-k] - slack[query])
            at = np.flatnonzero(found >= floor)
            values = found[at]
            if len(at):
                with lock:
                    merged = np.concatenate([best[query], values])
                    best[query] = np.sort(np.partition(merged, -k)[-k:])
            return at + pieces[0].first, values

        parts = [list(zip(*lines, strict=True)) for lines in zip(*map_in_threads(look, self._tasks()), strict=True)]
        places, values = ([np.concatenate(arrays) for arrays in arrays_of] for arrays_of in zip(*parts, strict=True))
        floors = best[:, 0] - slack
        return [self._positions(at[found >= floor]) for at, found, floor in zip(places, values, floors, strict=True)]

    def _positions(self, places: np.ndarray) -> np.ndarray:
        """Of places among the rows that are searched, the positions among all rows."""
        return places if self._allowed is None else self._allowed[places]

    def _best(self, positions: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(k,), (k,): the ids of the best of some rows, and their scores."""
        step = max(_EXACT_AT_ONCE // self.dim, 1)
        # a sum per row, not a matrix product: BLAS may round a row differently depending on its place in the block
        exact = [
            (self._rows(positions[start : start + step]) * query.astype(np.float64)).sum(axis=1) for start in range(0, len(positions), step)
        ]
        scores, ids = np.concatenate(exact).astype(np.float32), self._ids[positions]
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], scores[order]

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        """(len(positions), d) float32."""
        rows = np.empty((len(positions), self.dim), np.float32)
        stops = np.cumsum([0, *(len(block.ids) for block in self._blocks)])
        owner = np.searchsorted(stops, positions, side="right") - 1
        for index in np.unique(owner).tolist():
            places = np.flatnonzero(owner == index)
            rows[places] = self._blocks[index].exact(positions[places] - stops[index])
        return rows

    def _tasks(self) -> Iterator[list[_Piece]]:
        """All rows that are searched, in tasks that read about as many bytes each."""
        task: list[_Piece] = []
        size = 0
        for piece in self._pieces():
            task.append(piece)
            size += piece.size_bytes
            if size >= _BYTES_AT_ONCE:
                yield task
                task, size = [], 0
        if task:
            yield task

    def _pieces(self) -> Iterator[_Piece]:
        first = start = 0
        for block in self._blocks:
            step = max(_BYTES_AT_ONCE // (self.dim * block.rows.itemsize), 1)
            for begin in range(0, len(block.ids), step):
                end = min(begin + step, len(block.ids))
                chosen = None
                if self._allowed is not None:
                    low, high = np.searchsorted(self._allowed, (start + begin, start + end))
                    chosen = self._allowed[low:high] - start
                piece = _Piece.of(block, begin, end, chosen, first)
                if piece.num:
                    yield piece
                    first += piece.num
            start += len(block.ids)


class _Queries:
    """Queries at unit length, as the kernels take them."""

    def __init__(self, queries: np.ndarray) -> None:
        """queries: (q, d) float32."""
        exact = queries.astype(np.float64)
        self.lengths = np.linalg.norm(exact, axis=1)
        units = exact / np.where(self.lengths > 0, self.lengths, 1.0)[:, None]
        self.singles = units.astype(np.float32)
        self.halves = units.astype(np.float16)
        low = ((units - self.halves) * _LOW).astype(np.float16)
        self.off_by = np.linalg.norm(units - self.halves, axis=1)
        """(q,): how far the halves are from the units."""
        self.packed = numkong.dots_pack(self.halves) if len(queries) > 1 else None
        self.packed_both = numkong.dots_pack(np.concatenate([self.halves, low]))


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Rows of a block that lie near each other.

    num: how many; first: the place of the first among all rows that are searched. span: the rows to read, and columns: which of these are
    meant, or None for all; for few rows, far from each other, span is an array of their positions.
    """

    block: _Block
    num: int
    first: int
    span: slice | np.ndarray
    columns: np.ndarray | None
    size_bytes: int

    @classmethod
    def of(cls, block: _Block, begin: int, end: int, chosen: np.ndarray | None, first: int) -> _Piece:
        """Of the rows begin to end; chosen: those of them that are meant, or None for all."""
        a_row = block.rows.shape[1] * block.rows.itemsize
        if chosen is None and block.live is None:
            return cls(block, end - begin, first, slice(begin, end), None, (end - begin) * a_row)
        local = np.arange(begin, end) if chosen is None else chosen
        there = local if block.live is None else block.live[local]
        if not len(there):
            return cls(block, 0, first, slice(0, 0), None, 0)
        low, high = int(there[0]), int(there[-1]) + 1
        if len(there) * _GATHERED < high - low:
            return cls(block, len(there), first, there, None, len(there) * a_row)
        return cls(block, len(there), first, slice(low, high), there - low, (high - low) * a_row)

    def meant(self, values: np.ndarray) -> np.ndarray:
        """Of values (q, rows of the span) those of the rows that are meant."""
        return values if self.columns is None else values[:, self.columns]


class _Block:
    """Rows that were added together."""

    def __init__(self, ids: np.ndarray, rows: np.ndarray, live: np.ndarray | None, once: bool, longest: float | None) -> None:
        """rows: float32, of which the longest has that length; or float16 of unit length up to rounding, and longest is None."""
        self.ids, self.rows, self.live, self.once, self.longest = ids, rows.view(np.ndarray), live, once, longest

    def slack(self, asked: _Queries) -> np.ndarray:
        """(q,): the most that a score of `rough` is off by."""
        dim = self.rows.shape[1]
        sums = dim * 2.0**-24  # of float32 products, added in any order
        if self.longest is not None:
            return np.full(len(asked.lengths), 1.01 * self.longest * (sums + 2.0**-23))
        uneven = 2.0**-11 + dim**0.5 * 2.0**-25  # the most that rounding to float16 changes the length of a row
        return 1.01 * ((1 + uneven) * (asked.off_by + sums) + uneven + 2.0**-23)

    def rough(self, asked: _Queries, piece: _Piece) -> np.ndarray:
        """(q, piece.num): scores with queries at unit length."""
        rows = self.rows[piece.span]
        if self.longest is not None:
            return piece.meant(np.asarray(numkong.cdist(asked.singles, rows, "dot")))
        if asked.packed is None:  # of a single query twice as fast as the kernel for several
            return piece.meant(np.asarray(numkong.cdist(asked.halves, rows, "dot")))
        return piece.meant(np.asarray(numkong.dots_packed(rows, asked.packed)).T)

    def scores(self, asked: _Queries, piece: _Piece) -> np.ndarray:
        """(q, piece.num): scores, off by what sums in float32 are."""
        rows = self.rows[piece.span]
        if self.longest is not None:
            return piece.meant(np.asarray(numkong.cdist(asked.singles, rows, "dot"))) * asked.lengths[:, None]
        high, low = np.split(np.asarray(numkong.dots_packed(rows, asked.packed_both)).T, 2)
        return piece.meant((high + low / np.float32(_LOW)) / self.norms[piece.span]) * asked.lengths[:, None]

    def exact(self, positions: np.ndarray) -> np.ndarray:
        """(len(positions), d) float32: the rows that scores are of."""
        rows = self.rows[positions if self.live is None else self.live[positions]]
        return rows if self.longest is not None else unit_rows(rows, self.ids[positions])

    @cached_property
    def norms(self) -> np.ndarray:
        """(rows,) float32: the lengths of float16 rows."""
        step = max(_BYTES_AT_ONCE // (self.rows.shape[1] * self.rows.itemsize), 1)
        parts = [self.rows[start : start + step] for start in range(0, len(self.rows), step)]
        return np.concatenate([np.empty(0, np.float32), *map_in_threads(_lengths, parts)])


def _let_go(pieces: Sequence[_Piece]) -> None:
    """Give back the pages of mapped rows that will not be read again."""
    for piece in pieces:
        if piece.block.once:
            let_go(piece.block.rows if isinstance(piece.span, np.ndarray) else piece.block.rows[piece.span])


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.asarray(numkong.norm(rows, axis=1)).astype(np.float32)
