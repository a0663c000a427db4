"""What a search engine is: rows in, nearest ids out. The default is exact (`flat.py`); another is one class with these four methods.

    engine = FlatEngine(dim=256)
    engine.add(store.ids, store.rows)
    engine.filter(store.select('set = noto')).search(queries, k=10)

An engine of your own takes `dim` and its settings, as in `HNSW(dim=256, links=16)`, and a store names it: `multimodal index --engine
mypackage.HNSW --engine.links 16`. To open that store, one must trust the engine's package (`--trust mypackage`).
An engine whose index takes long to make has `save` and `load` too (`Kept`): a store then keeps the index and adds what is new to it.
`multimodal.search.conformance.check_engine` checks that it keeps the contract.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np

from multimodal.boxes.trust import Builder
from multimodal.errors import InputError

SLACK = 2.0**-23
"""Times d: what two float32 inner products of unit vectors, each off by at most d * 2**-24, are off by together."""
CALLS = ("__len__", "add", "search", "filter")
KEEPING = ("save", "load")
OURS = (
    "multimodal.search.flat.FlatEngine",
    "multimodal.search.ivf.IvfEngine",
    "multimodal.search.pgvector.PgVector",
    "multimodal.search.qdrant.Qdrant",
)
"""The engines of this project, which any store may name. They are imported when they are named."""


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


@runtime_checkable
class ScoresAll(Protocol):
    """An exact engine that can score every row, as queries of several terms want; of other engines the terms' neighbours are candidates."""

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """queries (q, d) float -> the ids (n,) that are searched, in any order, and the inner products (q, n) float32."""
        ...


@runtime_checkable
class MapsRows(Protocol):
    """An engine that can leave a store's rows where they are: float16, in mapped files."""

    def add_mapped(self, ids: np.ndarray, rows: np.ndarray, live: np.ndarray | None = None, once: bool = False) -> None:
        """As `add`, for rows (m, d) float16 of unit length up to its rounding, which do not change; scores are of the rows at unit length.

        live: the positions among the rows that the ids are of, ascending; None if they are of all rows.
        once: they will be searched once, and should not stay in memory.
        """
        ...


@runtime_checkable
class Kept(Protocol):
    """An engine whose index a store keeps, since it takes long to make or lies on a server; others get all rows whenever a store is opened.

    In a store, its ids are not those of pictures: each row of the store has a number of its own, which is never used for another row.
    """

    def save(self, path: Path) -> None:
        """Write into a new folder what `load` needs. It holds nothing that the store's own rows and settings do not give again."""

    def load(self, path: Path) -> Self:
        """Of an empty engine with the same settings: the one that was saved, to search and to add to. The folder is not changed by it."""
        ...


class IndexGoneError(InputError):
    """What `load` raises if the index that was saved is not there any more, so that only making it anew helps."""


@runtime_checkable
class Retains(Protocol):
    """A kept engine that can remove rows, as one on a server must: it is never made anew, and several generations of a store share it."""

    def retain(self, ids: np.ndarray) -> None:
        """Remove all other rows, also those that an earlier process added and did not save. ids (n,) int64, some unknown perhaps."""


@runtime_checkable
class Coarse(Protocol):
    """A kept engine that holds codes in place of rows. A store scores its candidates again, with the rows that it has on disk anyway."""

    @property
    def oversampling(self) -> int:
        """How many candidates to ask for, for each neighbour that is wanted."""
        ...


@runtime_checkable
class Trains(Protocol):
    """A kept engine that is fitted to rows before it takes them, such as one that puts them into lists."""

    def sample_size(self, num_rows: int) -> int:
        """How many rows it wants to see, of a store that has so many."""
        ...

    def train(self, sample: np.ndarray, num_rows: int) -> None:
        """Before any row is added. sample (m, d) float32, evenly from all rows; num_rows: how many rows will be added."""


@runtime_checkable
class Tunes(Protocol):
    """A kept engine that chooses how thoroughly it searches by measuring against exact search, once all rows are added."""

    def tune(self, queries: np.ndarray, nearest: np.ndarray) -> dict[str, Any]:
        """queries (q, d) float32, in words; nearest (q, k) int64, the ids of their exact neighbours. Returns figures for the manifest."""
        ...


@runtime_checkable
class OnServer(Protocol):
    """An engine that opens connections."""

    @property
    def remote_host(self) -> str | None:
        """The machine that it will connect to, by its settings; None for this one, and for one that the environment names."""
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
        made = Builder(box, {}, trust).build(described, object, self._ours())
        if missing := [name for name in CALLS if not callable(getattr(made, name, None))]:
            raise InputError(f"{box}: {self.class_path} is no search engine: it has no {', '.join(missing)}. See multimodal.search.engine")
        trusted = any(self.class_path.startswith(f"{package}.") for package in trust)
        if isinstance(made, OnServer) and made.remote_host is not None and not trusted:
            raise InputError(
                f"{box}: its index is on another machine, {made.remote_host}, and no command connects there because a folder says so. "
                f"If you trust that machine, and whoever made this folder, add: --trust {self.class_path.rpartition('.')[0]}"
            )
        return cast(Engine, made)

    def _ours(self) -> dict[str, type]:
        if self.class_path not in OURS:
            return {}
        module, _, name = self.class_path.rpartition(".")
        return {self.class_path: getattr(importlib.import_module(module), name)}
