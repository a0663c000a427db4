"""The split into train and test: a function of seed and group, so that adding data never moves a pair.

    Split(seed=0, held_out=0.2).ids(shards, "test")

A split given by the source takes precedence: its "train" and "test" are the parts of those names, and a pair of any other split ("dev",
"val") is in a part of that name and in neither of the two. Other pairs are split by group: a pair is in "test" if blake2b(seed, group), as
a number in [0, 1), is below held_out. Pairs of one group therefore stay together (unless the source's split divides the group), and a
larger held_out only adds pairs to "test".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multimodal.errors import InputError

Part = str
""" "train", "test", "all", or the name of a split given by the source."""


class Grouped(Protocol):
    """What can be split, such as a `ShardSet`: the group of each pair and its split in the source, by ascending id."""

    @property
    def place(self) -> str: ...
    @property
    def groups(self) -> Sequence[str]: ...
    @property
    def splits(self) -> Sequence[str]: ...
    @property
    def part_names(self) -> list[Part]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Split:
    """seed: of the hash; another seed gives another split. held_out: the share of groups in "test", in [0, 1]."""

    seed: int = 0
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.held_out <= 1:
            raise InputError(f"held_out is {self.held_out}; it is the share of groups to hold out, from 0 to 1")

    def part_of(self, group: str, own: str = "") -> Part:
        """The part of a pair. own: its split in the source, "" if it has none."""
        if own:
            return own
        digest = hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8, key=str(self.seed).encode()).digest()
        return "test" if int.from_bytes(digest, "big") / 2**64 < self.held_out else "train"

    def within_train(self, validation_share: float) -> Split:
        """The split of the training part: its "test" is validated on. Independent of this one, as users' seeds count from 0."""
        return Split(seed=-1 - self.seed, held_out=validation_share)

    def ids(self, shards: Grouped, part: Part) -> np.ndarray:
        """(n,) int64 ids of the pairs in the part, ascending. InputError if there is no such part."""
        if part == "all":
            return np.arange(len(shards), dtype=np.int64)
        ids = np.array([id for id, one in enumerate(self._parts(shards)) if one == part], np.int64)
        if not len(ids) and part not in ("train", "test"):
            raise InputError(f"{shards.place}: no pair is in part {part!r}; there are {', '.join(shards.part_names)}")
        return ids

    def _parts(self, shards: Grouped) -> Iterable[Part]:
        by_hash: dict[str, Part] = {}
        for group, own in zip(shards.groups, shards.splits, strict=True):
            if own:
                yield own
            else:
                if group not in by_hash:
                    by_hash[group] = self.part_of(group)
                yield by_hash[group]
