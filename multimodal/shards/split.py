"""Which pairs are trained on and which are held out: a function of seed and group, so that adding data never moves a pair.

    Split(seed=0, held_out=0.2).ids(shards, "test")

A pair's own split wins: "train" and "test" are these parts, and a pair of any other split of the source ("dev", "val") is in a part of that
name and in neither of the two. A pair without one goes by its group: into "test" where blake2b(seed, group), read as a number in [0, 1), is
below held_out. Pairs of one group therefore stay together (unless the source's own split cuts the group), and a larger held_out only adds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from multimodal.errors import InputError
from multimodal.shards.reader import ShardSet

Part = str
""" "train", "test", "all", or the name of a split of the source's own."""


@dataclass(frozen=True, slots=True)
class Split:
    """seed: another seed, another split. held_out: the share of groups that goes into "test", in [0, 1]."""

    seed: int = 0
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.held_out <= 1:
            raise InputError(f"held_out is {self.held_out}; it is the share of groups to hold out, from 0 to 1")

    def part_of(self, group: str, own: str = "") -> Part:
        """The part of a pair, from its group and its own split ("" where it has none)."""
        if own:
            return own
        digest = hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8, key=str(self.seed).encode()).digest()
        return "test" if int.from_bytes(digest, "big") / 2**64 < self.held_out else "train"

    def ids(self, shards: ShardSet, part: Part) -> np.ndarray:
        """(n,) int64 ids of the pairs in the part, ascending. InputError where the source has no split of that name."""
        if part == "all":
            return np.arange(len(shards), dtype=np.int64)
        ids = np.array([id for id, one in enumerate(self._parts(shards)) if one == part], np.int64)
        if not len(ids) and part not in ("train", "test"):
            own = [name for name in shards.splits.distinct() if name and name not in ("train", "test")]
            raise InputError(f"{shards.place}: no pair is in part {part!r}; there are {', '.join(['train', 'test', 'all', *own])}")
        return ids

    def _parts(self, shards: ShardSet) -> Iterable[Part]:
        by_hash: dict[str, Part] = {}
        for group, own in zip(shards.groups, shards.splits, strict=True):
            if own:
                yield own
            else:
                if group not in by_hash:
                    by_hash[group] = self.part_of(group)
                yield by_hash[group]
