"""Right engines of each kind that a store may name: kept, removing rows, of codes, approximate."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import faiss
import numpy as np

from multimodal.boxes.arrays import read_array, write_array
from multimodal.errors import InputError
from multimodal.search.engine import Neighbours
from multimodal.search.flat import FlatEngine


class Hnsw:
    """A graph of near neighbours (Malkov and Yashunin, 2016), by FAISS: right, and approximate."""

    def __init__(self, dim: int, links: int = 16) -> None:
        self.dim, self.links = dim, links
        self.index = faiss.IndexHNSWFlat(dim, links, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 400
        self.ids = np.empty(0, np.int64)
        self.allowed: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids) if self.allowed is None else len(self.allowed)

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if np.isin(ids, self.ids).any():
            raise InputError("ids are unique")
        self.index.add(np.ascontiguousarray(rows, np.float32))
        self.ids = np.concatenate([self.ids, ids])

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if queries.shape[1] != self.dim or k < 1:
            raise InputError(f"queries (q, {self.dim}) and k of at least 1 are wanted")
        k = min(k, len(self))
        if not k:
            return Neighbours(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
        selector = None if self.allowed is None else faiss.IDSelectorBatch(self.allowed)
        wanted = faiss.SearchParametersHNSW(sel=selector, efSearch=max(len(self.ids), 16))
        scores, places = self.index.search(np.ascontiguousarray(queries, np.float32), k, params=wanted)
        return Neighbours(self.ids[places], scores)

    def filter(self, ids: np.ndarray) -> Self:
        view = type(self).__new__(type(self))
        view.__dict__.update(self.__dict__)
        allowed = np.flatnonzero(np.isin(self.ids, ids))
        view.allowed = allowed if self.allowed is None else np.intersect1d(allowed, self.allowed)
        return view

    def save(self, path: Path) -> None:
        write_array(path / "ids.npy", self.ids)
        write_array(path / "graph.npy", faiss.serialize_index(self.index))

    def load(self, path: Path) -> Self:
        self.ids, self.index = read_array(path / "ids.npy"), faiss.deserialize_index(read_array(path / "graph.npy"))
        return self


class KeptFlat(FlatEngine):
    """Exact, and kept."""

    def save(self, path: Path) -> None:
        write_array(path / "ids.npy", self._ids)
        write_array(path / "rows.npy", self._rows(np.arange(len(self._ids))))

    def load(self, path: Path) -> Self:
        self.add(read_array(path / "ids.npy"), read_array(path / "rows.npy"))
        return self


class Retaining(KeptFlat):
    """Removes rows."""

    def retain(self, ids: np.ndarray) -> None:
        kept = np.isin(self._ids, ids)
        left = KeptFlat(self.dim)
        left.add(self._ids[kept], self._rows(np.flatnonzero(kept)))
        self._blocks, self._joined = left._blocks, None


class Codes(KeptFlat):
    """Holds each row as the signs of its numbers, and leaves the rest to a store."""

    oversampling = 12

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        super().add(ids, np.sign(rows))

    def load(self, path: Path) -> Self:
        return super().load(path)
