"""Several shard sets under one numbering: the ids of each set follow those of the set before, in the order of their names.

    joined = JoinedShards({"cc": ShardSet("shards/cc"), "flickr": ShardSet("shards/flickr8k")})
    joined.image_bytes(7), joined.where(7)      # from the set that holds the pair; "cc/000000"

A training run reads several at once (`multimodal.data.Mixture`); every other job takes one set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from multimodal.boxes import fingerprint_json
from multimodal.errors import InputError
from multimodal.shards.columns import Column
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import RemoteShards, SetPath, open_set

Sets = RemoteShards | dict[str, SetPath] | str | Path
"""The pairs of a run: one set, or several, each under a name; each a folder or a URL. They accept any string, so are tried last."""


@dataclass(frozen=True, slots=True)
class Part:
    """Those of n pairs that are in one set."""

    name: str
    shards: ShardSet
    rows: np.ndarray
    """(m,) which of the n they are, ascending."""
    ids: np.ndarray
    """(m,) their ids in the set."""


class JoinedShards:
    """Finished sets, read by an id that runs over all of them.

    sets: name -> set. The names stand for the sets in ledgers, fingerprints and weights, wherever the sets are.
    """

    def __init__(self, sets: Mapping[str, ShardSet]) -> None:
        if not sets:
            raise InputError("shards: no set is given. Give at least one, as NAME: FOLDER or URL")
        self.sets = dict(sorted(sets.items()))
        sizes = [len(shards) for shards in self.sets.values()]
        self.starts = dict(zip(self.sets, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        """Name -> the id of its first pair."""

    @classmethod
    def of(cls, shards: ShardSet | JoinedShards) -> JoinedShards:
        """Joins opened sets; a single one keeps its own name and ids."""
        return shards if isinstance(shards, JoinedShards) else cls({shards.name: shards})

    def __len__(self) -> int:
        return sum(map(len, self.sets.values()))

    def __repr__(self) -> str:
        return f"JoinedShards({self.sets})"

    def __str__(self) -> str:
        return ", ".join(shards.place for shards in self.sets.values())

    @cached_property
    def fingerprint(self) -> str:
        """Of all sets and their names."""
        return fingerprint_json({name: shards.fingerprint for name, shards in self.sets.items()})

    def parts(self, ids: np.ndarray) -> list[Part]:
        """The pairs of ids (n,) by set: one part for each set, also an empty one."""
        parts = []
        for name, shards in self.sets.items():
            own = ids - self.starts[name]
            rows = np.flatnonzero((0 <= own) & (own < len(shards)))
            parts.append(Part(name, shards, rows, own[rows]))
        if sum(len(part.rows) for part in parts) != len(ids):
            raise IndexError(f"ids {ids.min()}..{ids.max()} are outside 0..{len(self) - 1} of {self!r}")
        return parts

    def image_bytes(self, id: int) -> bytes:
        """The encoded picture, as the source had it."""
        _, shards, own = self._find(id)
        return shards.image_bytes(own)

    def key(self, id: int) -> str:
        """The pair's name in its tar."""
        _, shards, own = self._find(id)
        return shards.key(own)

    def where(self, id: int) -> str:
        """The set's name and the shard's, `cc/000003`."""
        name, shards, own = self._find(id)
        return f"{name}/{shards.shard_of(own).name}"

    def columns(self, name: str) -> dict[str, Column]:
        """Name of a set -> its column of this name. InputError if a set has none, or if two do not mean the same."""
        columns = {of: Column.of(shards, name) for of, shards in self.sets.items()}
        first, *others = columns.values()
        for other in others:
            for what, one, another in (
                ("dim", first.dim, other.dim),
                *((key, first.manifest.made_from.get(key), other.manifest.made_from.get(key)) for key in _keys(first, other)),
            ):
                if one != another:
                    raise InputError(
                        f"columns {first.path} and {other.path}: {what} is {_short(one)} and {_short(another)}. "
                        "Sets are mixed by columns that mean the same; make one of them again, with the settings of the other"
                    )
        return columns

    def _find(self, id: int) -> tuple[str, ShardSet, int]:
        for name, shards in self.sets.items():
            if 0 <= id - self.starts[name] < len(shards):
                return name, shards, id - self.starts[name]
        raise IndexError(f"id {id} is outside 0..{len(self) - 1} of {self!r}")


def open_sets(sets: Sets, cache: Path | None = None, cache_bytes: int | None = None) -> ShardSet | JoinedShards:
    """The set, or all named sets, joined. cache, cache_bytes: of those at a URL; see `open_set`."""
    if isinstance(sets, Mapping):
        return JoinedShards({name: open_set(one, cache, cache_bytes) for name, one in sets.items()})
    return open_set(sets, cache, cache_bytes)


def _keys(one: Column, other: Column) -> list[str]:
    return sorted(one.manifest.made_from.keys() | other.manifest.made_from.keys())


def _short(value: int | str | None) -> str:
    return "not there" if value is None else f"{value[:12]}.." if isinstance(value, str) else str(value)
