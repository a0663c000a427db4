"""Lazy sequences of pairs of a set, as `shards.part("train")` and `shards[:100]` return. A pair is read when it is accessed.

train = shards.part("train")
len(train), train.ids, train[0], train[:10]
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Protocol, SupportsIndex, overload

import numpy as np

from multimodal.pairs import Pair


class Readable(Protocol):
    """What `Pairs` reads from, such as a `ShardSet`."""

    @property
    def place(self) -> str: ...
    def pair(self, id: int) -> Pair: ...
    def __len__(self) -> int: ...


class Pairs:
    """The pairs `ids` (n,) of a set, in this order. Like a list of `Pair`, but each pair is read when it is accessed."""

    def __init__(self, shards: Readable, ids: np.ndarray, name: str = "") -> None:
        """name: for messages, such as the name of the part."""
        self.shards = shards
        self.ids = np.asarray(ids, np.int64)
        self.name = name

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Pair]:
        return map(self.shards.pair, self.ids.tolist())

    @overload
    def __getitem__(self, at: SupportsIndex) -> Pair: ...
    @overload
    def __getitem__(self, at: slice) -> Pairs: ...
    def __getitem__(self, at: SupportsIndex | slice) -> Pair | Pairs:
        if isinstance(at, slice):
            return Pairs(self.shards, self.ids[at], self.name)
        return self.shards.pair(int(self.ids[position(at, len(self), repr(self))]))

    def __repr__(self) -> str:
        return f"Pairs({self.shards.place!r}{self.name and f', {self.name}'}: {len(self)} of {len(self.shards)} pairs)"


def position(at: SupportsIndex, num: int, of: str) -> int:
    """The index as a number from 0 to num - 1; negative ones count from the end. IndexError, which names `of`, if it is out of range."""
    index = operator.index(at)
    if not -num <= index < num:
        raise IndexError(f"{of}: there is no pair {index}")
    return index % num
