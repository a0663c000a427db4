"""What the pictures of a set are of: the class, the identity or any other value that their metadata names.

labels = read_labels(shards, np.arange(len(shards)), "identity")
labels.values[0], labels.reasons                     # "0002", {17: "has no identity"}
in_order(labels.values)                              # ["0002", "0007", ...]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multimodal.machine.progress import track
from multimodal.shards.reader import BrokenPair, ShardSet

SLOW = 100_000
"""From so many pairs on, reading their labels takes seconds, and is reported."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of n pairs. values: in their order, None for a pair without a valid one. reasons: its id -> what is wrong."""

    values: list[str | None]
    reasons: dict[int, str]


def label_of(metadata: Mapping[str, Any], name: str) -> str:
    """The value of that name as text. ValueError: it is missing, or neither text nor a whole number."""
    value = metadata.get(name)
    if value is None or value == "":
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


def in_order(values: Iterable[str | None]) -> list[str]:
    """The different values, those of whole numbers by their size, others by their letters."""
    different = {value for value in values if value is not None}
    if all(value.isascii() and value.isdecimal() for value in different):
        return sorted(different, key=lambda value: (int(value), value))
    return sorted(different)
