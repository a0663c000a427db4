"""What the pictures of a set are of: the class, the identity or any other value that their metadata names.

labels = read_labels(shards, np.arange(len(shards)), "identity")
labels.values[0], labels.reasons                     # "0002", {17: "has no identity"}
labels.names, labels.numbers                         # ["0002", "0007", ...], and (n,) the place of each label in them
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.shards.reader import BrokenPair, ShardSet

SLOW = 100_000
"""From so many pairs on, reading their labels takes seconds, and is reported."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of n pairs. values: in their order, None for a pair without a valid one. reasons: its id -> what is wrong."""

    values: list[str | None]
    reasons: dict[int, str]

    @property
    def names(self) -> list[str]:
        """The different ones, see `in_order`."""
        return in_order(self.values)

    @property
    def numbers(self) -> np.ndarray:
        """(n,) int64, the place of each in `names`; -1 for none."""
        places = {name: place for place, name in enumerate(self.names)}
        return np.array([-1 if value is None else places[value] for value in self.values], np.int64)


def label_of(metadata: Mapping[str, Any], name: str) -> str:
    """The value of that name as text. ValueError: it is missing, or neither text nor a whole number."""
    value = metadata.get(name)
    if name in metadata and value in (None, ""):
        raise ValueError(f"has an empty {name} in its metadata")
    if value is None:
        raise ValueError(f"has no {name} in its metadata, which has {', '.join(sorted(metadata)) or 'nothing'}")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"its {name} is {value!r:.60}; expected text or a whole number")
    return str(value)


def read_labels(shards: ShardSet, ids: np.ndarray, name: str) -> Labels:
    """The labels of the pairs ids (n,), from their JSON: some 20 µs each."""
    values: list[str | None] = []
    reasons = {}
    for id in track(ids.tolist(), f"{name} of {shards.name}", unit="pair") if len(ids) > SLOW else ids.tolist():
        value = None
        try:
            record = shards.record(id)
        except BrokenPair as error:
            reasons[id] = error.reason
        else:
            try:
                value = label_of(record["metadata"], name)
            except ValueError as error:
                reasons[id] = str(error)
        values.append(value)
    return Labels(values, reasons)


def known_labels(shards: ShardSet, ids: np.ndarray, name: str) -> Labels:
    """As `read_labels`, for a command that leaves out pictures without a label: it says on stderr how many. InputError: all are."""
    found = read_labels(shards, ids, name)
    if found.reasons:
        first = next(iter(found.reasons))
        if len(found.reasons) == len(ids):
            raise InputError(f"{shards.place}: none of {len(ids)} pictures has {name}: {found.reasons[first]}. Choose another --label")
        told = f"{len(found.reasons)} of {len(ids)} pictures have no {name}, such as {shards.key(first)}, which {found.reasons[first]}"
        print(f"{shards.place}: {told}. They are left out", file=sys.stderr)
    return found


def in_order(values: Iterable[str | None]) -> list[str]:
    """The different values, those of whole numbers by their size, others by their letters."""
    different = {value for value in values if value is not None}
    if all(value.isascii() and value.isdecimal() for value in different):
        return sorted(different, key=lambda value: (int(value), value))
    return sorted(different)
