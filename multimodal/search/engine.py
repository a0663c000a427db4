"""What a search engine is: rows in, nearest ids out. The default is FAISS flat (`flat.py`); another is one class with these six methods.

    engine = FlatEngine(dim=256)
    engine.add(store.ids, store.rows)
    engine.filter(store.select({"set": "noto"})).search(queries, k=10)

An engine of your own takes `dim` and its settings, as in `HNSW(dim=256, links=16)`, and a store names it: `multimodal index --engine
mypackage.HNSW --engine.links 16`. To open that store, one must trust the engine's package (`--trust mypackage`).
`multimodal.search.conformance.check_engine` checks that it keeps the contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np

from multimodal.boxes.trust import Builder
from multimodal.errors import InputError

SLACK = 2.0**-23
"""Times d: what two float32 inner products of unit vectors, each off by at most d * 2**-24, are off by together."""
CALLS = ("__len__", "add", "search", "filter", "save", "load")


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The best rows for each query, best first; among equal scores the smaller id first."""

    ids: np.ndarray
    """(q, min(k, n)) int64."""
    scores: np.ndarray
    """(q, min(k, n)) float32 inner products; cosines if rows and queries have unit length."""


class Engine(Protocol):
    """Nearest neighbours by inner product over rows (n, d) with unique ids. Made as `MyEngine(dim=d, **its settings)`."""

    def __len__(self) -> int:
        """How many rows are searched: all, or those that a filter lets through."""
        ...

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """ids (n,) int64, none of them added before (else InputError); rows (n, d) float, which the caller may change afterwards."""

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        """queries (q, d) float, of any length. Fewer than k rows give fewer than k neighbours, an empty engine none."""
        ...

    def filter(self, ids: np.ndarray) -> Self:
        """A view that searches only these ids; ids that the engine does not have are ignored. The engine itself does not change."""
        ...

    def save(self, path: Path) -> None:
        """Write a folder that `load` opens. It can be deleted: a store's segments hold all that is in it."""

    @classmethod
    def load(cls, path: Path) -> Self: ...


@runtime_checkable
class ScoresAll(Protocol):
    """An exact engine that can score every row, as queries of several terms want; of other engines the terms' neighbours are candidates."""

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """queries (q, d) float -> the ids (n,) that are searched, in any order, and the inner products (q, n) float32."""
        ...


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """Which engine searches a store: the path of its class, and its settings except `dim`, as JSON values."""

    class_path: str
    init_args: Mapping[str, Any] | None = None

    @property
    def package(self) -> str:
        return self.class_path.partition(".")[0]

    def as_json(self) -> dict[str, Any]:
        """As a store's manifest holds it."""
        return {"class_path": self.class_path, "init_args": dict(self.init_args or {})}

    def make(self, dim: int, box: Path, trust: Sequence[str]) -> Engine:
        """An empty engine. box: whose manifest names it; trust: packages that it may be in. InputError if it is none or not trusted."""
        described = {"class_path": self.class_path, "init_args": {**(self.init_args or {}), "dim": dim}}
        made = Builder(box, {}, trust).build(described, object, {})
        if missing := [name for name in CALLS if not callable(getattr(made, name, None))]:
            raise InputError(f"{box}: {self.class_path} is no search engine: it has no {', '.join(missing)}. See multimodal.search.engine")
        return cast(Engine, made)
