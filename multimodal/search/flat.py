"""Exact search with FAISS: every row is compared, and equal scores are ordered by id.

engine = FlatEngine(dim=256); engine.add(ids, rows); engine.search(queries, k=10).ids
"""

from __future__ import annotations

from typing import Self

import faiss
import numpy as np

from multimodal.errors import InputError
from multimodal.search.engine import SLACK, Neighbours
from multimodal.search.segments import duplicates, name_some

_QUERIES_AT_ONCE = 64


class FlatEngine:
    """`faiss.IndexFlatIP` over float32 rows. Scores are computed again in float64, then rounded to float32: equal rows tie exactly."""

    def __init__(self, dim: int) -> None:
        self._index = faiss.IndexFlatIP(dim)
        self._ids = np.empty(0, dtype=np.int64)
        self._longest = 0.0
        self._allowed: np.ndarray | None = None  # positions that filter lets through

    def __len__(self) -> int:
        return len(self._ids) if self._allowed is None else len(self._allowed)

    @property
    def dim(self) -> int:
        return int(self._index.d)

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if self._allowed is not None:
            raise ValueError("a filtered engine is a view; add to the engine that it was filtered from")
        if rows.ndim != 2 or rows.shape != (len(ids), self.dim):
            raise InputError(f"{len(ids)} ids and rows of shape {rows.shape}; wanted ({len(ids)}, {self.dim})")
        ids = np.asarray(ids, dtype=np.int64)
        if repeated := duplicates(ids) or ids[np.isin(ids, self._ids)].tolist():
            raise InputError(f"ids must be unique in an engine; these come twice: {name_some(repeated)}")
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        self._index.add(rows)
        self._ids = np.concatenate([self._ids, ids])
        self._longest = max(self._longest, float(np.linalg.norm(rows, axis=1).max(initial=0)))

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries of shape {queries.shape}; wanted (q, {self.dim})")
        if k < 1:
            raise InputError(f"k = {k}; it must be at least 1")
        exact = np.ascontiguousarray(queries, dtype=np.float32)
        parts = [self._search(exact[start : start + _QUERIES_AT_ONCE], k) for start in range(0, len(exact), _QUERIES_AT_ONCE)]
        empty = (0, min(k, len(self)))
        ids = np.concatenate([np.empty(empty, np.int64), *(part.ids for part in parts)])
        return Neighbours(ids, np.concatenate([np.empty(empty, np.float32), *(part.scores for part in parts)]))

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `ScoresAll`. In float32: two scores are off by at most SLACK times d times the lengths of row and query."""
        exact = np.ascontiguousarray(queries, dtype=np.float32)
        held = self._held()
        if self._allowed is None:
            return self._ids, exact @ held.T
        return self._ids[self._allowed], exact @ held[self._allowed].T

    def filter(self, ids: np.ndarray) -> Self:
        view = type(self).__new__(type(self))
        view._index, view._ids, view._longest = self._index, self._ids, self._longest
        allowed = np.flatnonzero(np.isin(self._ids, ids))
        view._allowed = allowed if self._allowed is None else np.intersect1d(allowed, self._allowed)
        return view

    def _search(self, queries: np.ndarray, k: int) -> Neighbours:
        """One block of queries. FAISS returns candidates until the last is clearly worse than the k-th; they are ordered here."""
        k = min(k, len(self))
        if k == 0:
            return Neighbours(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
        params = None if self._allowed is None else faiss.SearchParameters(sel=faiss.IDSelectorBatch(self._allowed))  # type: ignore[call-arg]
        wanted = min(k + 16, len(self))
        scores, positions = self._index.search(queries, wanted, params=params)
        # candidates that FAISS scores within this of the k-th are scored again before the list is cut; query vectors may have any length
        slack = SLACK * self.dim * np.linalg.norm(queries, axis=1) * self._longest
        while wanted < len(self) and (scores[:, -1] >= scores[:, k - 1] - slack).any():
            wanted = min(2 * wanted, len(self))
            scores, positions = self._index.search(queries, wanted, params=params)
        ids = self._ids[positions]
        # a sum per row, not a matrix product: BLAS may round a row differently depending on its place in the block
        exact = [(self._rows(at) * query).sum(axis=1) for at, query in zip(positions, queries.astype(np.float64), strict=True)]
        rounded = np.stack(exact).astype(np.float32)
        order = np.lexsort((ids, -rounded), axis=1)[:, :k]
        return Neighbours(np.take_along_axis(ids, order, axis=1), np.take_along_axis(rounded, order, axis=1))

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        """(len(positions), d) float32."""
        return self._held()[positions]

    def _held(self) -> np.ndarray:
        """All rows (n, d) float32, in FAISS's own memory."""
        held = faiss.rev_swig_ptr(self._index.get_xb(), len(self._ids) * self.dim) if len(self._ids) else np.empty(0, np.float32)
        return held.reshape(len(self._ids), self.dim)
