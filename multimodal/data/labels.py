"""Labels as the target of a batch: the class or the identity of a picture as a number, for an objective of same and different.

    data:
      target: {class_path: multimodal.data.Labels, init_args: {name: identity}}

By default a run validates on classes that it does not train on, as what is learned should tell new ones apart. `numbered` gives the classes
of a run their numbers: first those that are trained on, from 0, in the order of their values; then the other ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import ClassVar

import numpy as np

from multimodal.data.sides import Reader, Rows, Shuffled, Side
from multimodal.errors import InputError
from multimodal.shards import JoinedShards, ShardSet
from multimodal.shards.labels import in_order, read_labels
from multimodal.shards.reader import SetParts

FEWEST = 2
"""Classes to validate on: among pictures of one class, every neighbour is right."""


@dataclass(frozen=True)
class Labels(Side):
    """The number of each picture's class, (n,) int64: equal for pictures of one class. A pair without a label is not ok.

    name: of the class in a pair's metadata: label, identity, or any other value that is text or a whole number.
    validate_on: the classes to validate on, none of which is trained on; null: the share data.validation_share of them, at least two, in
    the order of a hash.
    seen: true validates on other pictures of the classes that are trained on, split off by group.
    """

    name: str = "label"
    validate_on: list[str] | None = None
    seen: bool = False

    def __post_init__(self) -> None:
        if self.seen and self.validate_on is not None:
            raise InputError(f"Labels: seen: true validates on all classes, so validate_on={self.validate_on} says nothing. Leave one out")

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        """The classes are numbered over these ids alone; those of a run, over all pairs that it trains on (`numbered`)."""
        known = KnownLabels.read(shards, ids, self.name)
        return _NumberReader(known.of_sets[shards.parts], classes_of(known.values(ids), []))

    def held_out(self, values: Iterable[str | None], seed: int, share: float) -> frozenset[str]:
        """Those of the classes to validate on. InputError if there are too few classes."""
        different = in_order(values)
        if self.validate_on is not None:
            chosen = frozenset(str(one) for one in self.validate_on)
            if unknown := sorted(chosen - set(different)):
                raise InputError(f"Labels: validate_on: no pair has the {self.name} {', '.join(unknown)}. There are {_listed(different)}")
            left = len(different) - len(chosen)
        else:
            num = max(FEWEST, math.ceil(share * len(different)))
            chosen = frozenset(sorted(different, key=lambda value: _hash(f"{seed} {self.name} {value}"))[:num])
            left = len(different) - num
        if left < FEWEST:
            raise InputError(
                f"Labels: {self.name} has {len(different)} values ({_listed(different) or 'none'}), of which {max(left, 0)} would be left "
                "to train on, and at least 2 are needed. With seen: true, a run validates on other pictures of the same classes"
            )
        return chosen


@dataclass(frozen=True, slots=True)
class Classes:
    """names: the class of each number. num_trained: how many of them, the first ones, are trained on."""

    names: tuple[str, ...]
    num_trained: int

    def numbers(self) -> dict[str, int]:
        """Class -> its number."""
        return {name: number for number, name in enumerate(self.names)}


def classes_of(trained: Iterable[str | None], validated: Iterable[str | None]) -> Classes:
    """The numbering of the classes of some pairs to train on, and some to validate on."""
    first = in_order(trained)
    return Classes((*first, *in_order(set(validated) - set(first))), len(first))


@dataclass(frozen=True)
class _OfSet:
    """The labels of the pairs ids (n,), ascending, of one set; values: None where `reasons` has the pair's id."""

    ids: np.ndarray
    values: Sequence[str | None]
    reasons: Mapping[int, str]


@dataclass(frozen=True)
class KnownLabels:
    """The labels of pairs of one or several sets, as they were read once. of_sets: by the set's `parts`."""

    shards: ShardSet | JoinedShards
    of_sets: Mapping[SetParts, _OfSet]

    @classmethod
    def read(cls, shards: ShardSet | JoinedShards, ids: np.ndarray, name: str) -> KnownLabels:
        """ids: (n,) int64, of the joined numbering if there are several sets."""
        of_sets = {}
        for part in JoinedShards.of(shards).parts(np.unique(ids)):
            found = read_labels(part.shards, part.ids, name)
            of_sets[part.shards.parts] = _OfSet(part.ids, found.values, found.reasons)
        return cls(shards, of_sets)

    def values(self, ids: np.ndarray) -> list[str | None]:
        """The labels of some of those pairs (m,), None where there is none."""
        values: list[str | None] = [None] * len(ids)
        for part in JoinedShards.of(self.shards).parts(ids):
            known = self.of_sets[part.shards.parts]
            for row, place in zip(part.rows.tolist(), np.searchsorted(known.ids, part.ids).tolist(), strict=True):
                values[row] = known.values[place]
        return values

    def are_of(self, chosen: frozenset[str], shards: ShardSet, ids: np.ndarray) -> np.ndarray:
        """(m,) bool: whether each of the pairs ids (m,) of one of the sets has one of these labels."""
        known = self.of_sets[shards.parts]
        is_chosen = np.array([value in chosen for value in known.values], bool)
        return is_chosen[np.searchsorted(known.ids, ids)]


@dataclass(frozen=True)
class NumberedLabels(Side):
    """`Labels` with a run's numbering; made by `numbered`."""

    name: str
    classes: Classes = field(repr=False)
    known: KnownLabels = field(repr=False)
    reads_tars: ClassVar[bool] = False  # it has read them all

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _NumberReader(self.known.of_sets[shards.parts], self.classes)


def labels_in(side: Side) -> Labels | None:
    """The labels that a side gives, also in a control; None if it gives something else."""
    if isinstance(side, Shuffled):
        return labels_in(side.side)
    return side if isinstance(side, Labels) else None


def numbered(side: Side, classes: Classes, known: KnownLabels) -> Side:
    """The side with its `Labels`, also in a control, numbered as in `classes`."""
    if isinstance(side, Labels):
        return NumberedLabels(side.name, classes, known)
    return replace(side, side=numbered(side.side, classes, known)) if isinstance(side, Shuffled) else side


class _NumberReader:
    def __init__(self, known: _OfSet, classes: Classes) -> None:
        of_class = classes.numbers()
        self.ids, self.reasons = known.ids, known.reasons
        self.numbers = np.array([-1 if value is None else of_class.get(value, -1) for value in known.values], np.int64)

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        numbers = self.numbers[np.searchsorted(self.ids, ids)]
        ok = numbers >= 0
        return Rows(np.where(ok, numbers, 0), ok, [self.reasons[id] for id in ids[~ok].tolist()])


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _listed(names: Sequence[str], num: int = 8) -> str:
    return ", ".join(names[:num]) + (f" and {len(names) - num} more" if len(names) > num else "")
