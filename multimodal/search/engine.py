"""What a search engine is: rows in, nearest ids out. FAISS flat is ours (`flat.py`); another is one file with these five calls.

    engine = FlatEngine(dim=256)
    engine.add(store.ids, store.rows)
    engine.filter(store.select({"set": "noto"})).search(queries, k=10)

`multimodal.search.conformance.check_engine` says whether a new one keeps the contract.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The best rows for each query, best first; among equal scores the smaller id first."""

    ids: np.ndarray
    """(q, min(k, n)) int64."""
    scores: np.ndarray
    """(q, min(k, n)) float32 inner products; cosines where rows and queries have unit length."""


class Engine(Protocol):
    """Nearest neighbours by inner product over rows (n, d) with unique ids."""

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """ids (n,) int64, none of them there yet (InputError); rows (n, d) float."""

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        """queries (q, d) float. Fewer than k rows give fewer than k neighbours, an empty engine none."""
        ...

    def filter(self, ids: np.ndarray) -> Self:
        """The same rows, searched among these ids alone; ids that the engine does not have count for nothing."""
        ...

    def save(self, path: Path) -> None:
        """A folder that `load` opens; it can be thrown away, since a store's segments hold all that is in it."""

    @classmethod
    def load(cls, path: Path) -> Self: ...
