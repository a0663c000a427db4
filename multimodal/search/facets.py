"""What the columns of some pictures hold, counted, each value with the filter that keeps its pictures.

    for facet in facets(store, where="camera = X100"):
        facet.column, facet.kind, facet.values, facet.bins       # values of text, bins of numbers and dates

A column of text is counted by its most frequent values, that of paths by their folders. Numbers are in bins of equal width with round ends,
dates in years, months or days. Text that is another one for nearly every picture, as names and captions are, is left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multimodal.search.filters import Column, FilterColumns, Kind
from multimodal.search.where import MAX_PATTERN, Where, quoted

FacetKind = Literal["text", "number", "date", "boolean"]
KINDS: dict[Kind, FacetKind] = {
    "text": "text",
    "whole numbers": "number",
    "numbers": "number",
    "truth values": "boolean",
    "dates": "date",
}
"""What a column is called beside a picture; one of another type is left out."""
MAX_VALUES = 50
MAX_BINS = 24
PATH = "path"
MIN_WIDTH = 1e-300
"""Of a bin: narrower ones have no exact ends, and numbers above its inverse none that is finite."""
MAX_PLACE = 1e9
"""How often a bin's width may go into a number, so that ends of twelve digits tell bins apart."""
_UNIQUE = 0.5
"""A column of text is left out if it has more values than MAX_VALUES, and more than this share of the pictures."""
_HIDDEN = ("text", "content")
_WORD = re.compile(r"[^\s\"“”'`()=<>!,]+")
_KEYWORDS = ("and", "or", "not")


@dataclass(frozen=True, slots=True)
class Value:
    """where: a filter, which these pictures meet."""

    value: str | bool
    count: int
    where: str


@dataclass(frozen=True, slots=True)
class Bin:
    """Of numbers from the first to the second, or of dates from the first to before the second, as years, months or days."""

    start: float | str
    stop: float | str
    count: int
    where: str


@dataclass(frozen=True, slots=True)
class Facet:
    """A column. num_values: how many different ones there are; values has the most frequent. missing: pictures without a value."""

    column: str
    kind: FacetKind
    values: tuple[Value, ...]
    bins: tuple[Bin, ...]
    num_values: int
    missing: int


class Faceted(Protocol):
    """A store, whose columns are counted."""

    @property
    def columns(self) -> list[str]: ...
    @property
    def filter_columns(self) -> FilterColumns: ...


def facets(store: Faceted, where: Where | None = None) -> list[Facet]:
    """Of the pictures that meet a filter, of all for None. InputError if the filter does not parse, or a column has no such test."""
    mask = None if where is None else pa.array(store.filter_columns.meeting(where))
    return list(_facets(store, mask))


def column_name(name: str) -> str:
    """The name of a column as a filter has it."""
    return name if _WORD.fullmatch(name) and name.lower() not in _KEYWORDS else f"`{name}`"


def _facets(store: Faceted, mask: pa.Array | None) -> Iterator[Facet]:
    for name in store.columns:
        if name in _HIDDEN or "`" in name:
            continue
        column = store.filter_columns.column(name)
        kind = KINDS.get(column.kind)
        if kind is None:
            continue
        values = column.values if mask is None else column.values.filter(mask)
        present = pc.drop_null(values)
        missing = len(values) - len(present)
        if kind == "text":
            counted = _folders(present) if name == PATH else _texts(column_name(name), present)
            if name == PATH or len(counted) <= MAX_VALUES or len(counted) <= _UNIQUE * len(present):
                yield Facet(name, kind, tuple(counted[:MAX_VALUES]), (), len(counted), missing)
        elif kind == "boolean":
            counts = Counter(present.to_pylist()) if len(present) else Counter()
            found = [Value(value, counts[value], f"{column_name(name)} = {str(value).lower()}") for value in (True, False) if counts[value]]
            yield Facet(name, kind, tuple(found), (), len(found), missing)
        else:
            yield Facet(name, kind, (), tuple(_bins(column, column_name(name), present)), pc.count_distinct(present).as_py(), missing)


def _texts(name: str, present: pa.ChunkedArray) -> list[Value]:
    """The most frequent first, equal ones by spelling."""
    counted = pc.value_counts(present)
    pairs = zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)
    return [Value(value, count, f"{name} = {quoted(value)}") for value, count in sorted(pairs, key=lambda pair: (-pair[1], pair[0]))]


def _folders(present: pa.ChunkedArray) -> list[Value]:
    """The folders that the paths are in, without what is in folders below them."""
    if not len(present):
        return []
    folders = pc.replace_substring_regex(present, r"(?s)/?[^/]*\z", "")
    counted = pc.value_counts(folders)
    pairs = zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)
    found = []
    for folder, count in sorted(pairs, key=lambda pair: (-pair[1], pair[0])):
        inside = re.sub(r"([%_\\])", r"\\\1", folder)
        if len(inside) + 4 <= MAX_PATTERN:
            directly = f"{PATH} like {quoted(inside + '/%')} and not {PATH} like {quoted(inside + '/%/%')}"
            found.append(Value(folder, count, directly if folder else f'not {PATH} like "%/%"'))
    return found


def _bins(column: Column, name: str, present: pa.ChunkedArray) -> Iterator[Bin]:
    if not len(present):
        return
    if column.kind == "dates":
        yield from _date_bins(name, present.to_numpy())
    elif column.kind == "whole numbers":
        yield from _whole_bins(name, present.to_numpy())
    else:
        values = present.to_numpy()
        values = values[np.isfinite(values)]
        if len(values):
            yield from _number_bins(name, values)


def _whole_bins(name: str, values: np.ndarray) -> Iterator[Bin]:
    """Each bin holds both its ends. In integers throughout: large ones are not their nearest floats."""
    low, high = int(values.min()), int(values.max())
    width = max(1, int(_round_width((high - low) / MAX_BINS))) if high > low else 1
    places = values // width
    for place, count in zip(*(numbers.tolist() for numbers in np.unique(places, return_counts=True)), strict=True):
        first, last = place * width, (place + 1) * width - 1
        yield Bin(first, last, count, f"{name} = {first}" if first == last else f"{name} between {first} and {last}")


def _number_bins(name: str, values: np.ndarray) -> Iterator[Bin]:
    """With round ends, each without its upper one; a single bin where round ends cannot tell the numbers apart."""
    low, high = float(values.min()), float(values.max())
    least = high / MAX_BINS - low / MAX_BINS if high > low else 1.0
    largest = max(abs(low), abs(high))
    if least < MIN_WIDTH or largest > 1 / MIN_WIDTH or largest / least > MAX_PLACE:
        yield Bin(low, high, len(values), f"{name} = {low!r}" if low == high else f"{name} between {low!r} and {high!r}")
        return
    width = _round_width(least)
    ends = [_short(place * width) for place in range(math.floor(low / width) - 1, math.floor(high / width) + 3)]
    places = np.searchsorted(ends, values, side="right") - 1  # a division may round to another bin than the filter's
    for place, count in zip(*(numbers.tolist() for numbers in np.unique(places, return_counts=True)), strict=True):
        start, stop = ends[place], ends[place + 1]
        yield Bin(start, stop, count, f"{name} >= {start!r} and {name} < {stop!r}")


def _short(value: float) -> float:
    """Without what multiplying left: 0.3 for 0.30000000000000004."""
    return float(f"{value:.12g}")


def _round_width(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least so much."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least)


def _date_bins(name: str, since_epoch: np.ndarray) -> Iterator[Bin]:
    """Days, months or years: the finest of which there are at most MAX_BINS between the first and the last, else years."""
    moments = since_epoch.astype("datetime64[us]")
    parts = moments.astype("datetime64[D]")
    for unit in ("M", "Y"):
        if int((parts.max() - parts.min()).astype(np.int64)) >= MAX_BINS:
            parts = moments.astype(f"datetime64[{unit}]")
    for part, count in zip(*np.unique(parts, return_counts=True), strict=True):
        yield Bin(str(part), str(part + 1), int(count), f"{name} = {part}")
