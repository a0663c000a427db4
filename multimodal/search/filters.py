"""Which pictures of a store meet a filter: its tests on the columns, by Arrow's compute functions, each column read once.

    columns = FilterColumns(store)
    columns.meeting('date >= 2024-06 and not camera = "X100"')      # (n,) bool, in the order of store.ids

What a test means depends on what its column holds. A column of text that came with shards is read as what its values are: if all of them
read as whole numbers, numbers, truth values or dates, that is what it holds; blank ones and JSON's NaN are then missing. A value that is
missing meets no test but `is missing`, and `not` is two-valued: it turns what is not met into what is.

Every store has two more columns, unless its pictures' metadata has them: `id`, and `map`, which has one test:
`map inside "3f2a9c: 120 340, 180.5 340, 150 400"` is met within the polygon of these corners, x and y in thousandths of the map's side.
The digits before the colon, which may be left out, are of the map that it was drawn on: if the map has been made again since, that is an
error, and not a filter for other pictures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Literal, NoReturn, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multimodal.errors import near_names
from multimodal.search.pausing import may_pause
from multimodal.search.places import SIDE, StoreMap, are_inside
from multimodal.search.pointing import brief
from multimodal.search.where import Joined, Not, Test, Tree, Where, WhereError, Written, parse_where, where_of

Kind = Literal["text", "whole numbers", "numbers", "truth values", "dates", "values of another type"]
ID, MAP, INSIDE = "id", "map", "inside"
MAX_CORNERS = 200
_PART = r"[0-9]{1,4}(?:\.[0-9]{1,9})?"
_CORNER = rf"{_PART}\s+{_PART}"
_WRITTEN_POLYGON = re.compile(rf"(?:([0-9a-z]{{1,64}})\s*:\s*)?({_CORNER}(?:\s*,\s*{_CORNER}){{2,}})")
_COMPARED = ("=", "!=", "<", "<=", ">", ">=", "in", "between")
OPERATORS: Mapping[Kind, tuple[str, ...]] = {
    "text": (*_COMPARED, "like"),
    "whole numbers": _COMPARED,
    "numbers": _COMPARED,
    "truth values": ("=", "!=", "in"),
    "dates": _COMPARED,
    "values of another type": (),
}
"""Operators of each kind of column, besides `is missing`, which all have."""

_INT64 = np.iinfo(np.int64)
_INT64_RANGE = range(_INT64.min, _INT64.max + 1)
_BLANK = r"^\s*(NaN)?$"
_WHOLE = r"^-?(0|[1-9][0-9]*)$"
_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_ZONE = r"[0-9](Z|[+-][0-9]{2}:?[0-9]{2})$"
_DATE = r"^[0-9]{4}(-[0-9]{2}-[0-9]{2}|:[0-9]{2}:[0-9]{2})([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
_FEW = 64
"""Values that are looked at first: most columns of text are seen to be no numbers by these."""
_KEPT = 16
"""Filters whose result is kept, since a page asks the same one with each query."""
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_WRITTEN_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
_WRITTEN_DATE = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:[ T]([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?)?)?)?)?"
)


class Filterable(Protocol):
    """A store, whose columns are filtered."""

    ids: np.ndarray

    def __len__(self) -> int: ...
    @property
    def map(self) -> StoreMap: ...
    @property
    def columns(self) -> list[str]: ...
    def arrow_column(self, name: str) -> pa.ChunkedArray: ...


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """What a column holds, as it is compared. values: n of them, null where one is missing; whole numbers are int64, numbers float64, dates
    int64 microseconds since 1970. stored: as the store has them."""

    name: str
    kind: Kind
    values: pa.ChunkedArray
    stored: pa.ChunkedArray

    @property
    def has_text(self) -> bool:
        return pa.types.is_string(self.stored.type)


class FilterColumns:
    """The columns of one generation of a store that filters and orders have asked for."""

    def __init__(self, store: Filterable) -> None:
        self._store = store
        self._columns: dict[str, Column] = {}
        self._met: dict[tuple[str, ...], np.ndarray] = {}

    def meeting(self, where: Where) -> np.ndarray:
        """(n,) bool: the pictures that meet a filter. WhereError if it does not parse, or a column has no such test."""
        wheres = _as_texts(where)
        if wheres not in self._met:
            met = np.ones(len(self._store), dtype=bool)
            for one in wheres:
                met &= self._tree(one, parse_where(one))
            if len(self._met) == _KEPT:
                del self._met[next(iter(self._met))]
            self._met[wheres] = met
        return self._met[wheres]

    def column(self, name: str) -> Column:
        """A column, read and told its kind; `id` too. KeyError if no segment has it."""
        if name not in self._columns:
            if name in self._store.columns:
                self._columns[name] = read_column(name, self._store.arrow_column(name))
            elif name == ID:
                self._columns[name] = read_column(name, pa.chunked_array([pa.array(self._store.ids)]))
            else:
                raise KeyError(name)
        return self._columns[name]

    def _tree(self, where: str, tree: Tree) -> np.ndarray:
        if isinstance(tree, Not):
            return ~self._tree(where, tree.part)
        if isinstance(tree, Joined):
            met = self._tree(where, tree.parts[0]).copy()
            for part in tree.parts[1:]:  # one after the other: a filter may have thousands
                may_pause()
                (np.logical_and if tree.by == "and" else np.logical_or)(met, self._tree(where, part), out=met)
            return met
        if tree.column.text == MAP and MAP not in self._store.columns:
            return self._on_map(where, tree)
        return _Tester(where, tree, self._column(where, tree.column)).met()

    def _on_map(self, where: str, test: Test) -> np.ndarray:
        """(n,) bool: the pictures whose place on the map is within a polygon."""
        if test.operator != INSIDE:
            raise WhereError(where, test.at, f'map is where a picture is on the map, which has: map {INSIDE} "120 340, 180 340, 150 400"')
        [value] = test.values
        found = _WRITTEN_POLYGON.fullmatch(value.text.strip())
        if found is None:
            wanted = 'at least three corners, x and y from 0 to 1000, such as "120 340, 180 340, 150 400"'
            problem = f'"{brief(value.text)}" is no polygon: write {wanted}'
            raise WhereError(where, value.position, problem)
        version, written = found.groups()
        if version is not None and version != self._store.map.version:
            now = self._store.map.version
            problem = f"this was drawn on the map {version}, which has been made again since: now it is {now}. Draw it again"
            raise WhereError(where, value.position, problem)
        corners = [[float(number) for number in corner.split()] for corner in written.split(",")]
        if len(corners) > MAX_CORNERS:
            raise WhereError(where, value.position, f"a polygon has at most {MAX_CORNERS} corners, and this one has {len(corners)}")
        return are_inside(self._store.map.points, np.array(corners) / 1000 * SIDE)

    def _column(self, where: str, named: Written) -> Column:
        try:
            return self.column(named.text)
        except KeyError:
            if not len(self._store) and not self._store.columns:  # an empty store has no columns yet
                nothing = pa.chunked_array([pa.nulls(0, pa.string())])
                return Column(named.text, "text", nothing, nothing)
            problem = f"there is no column {brief(named.text)}. {near_names(named.text, self._store.columns)}"
            raise WhereError(where, named.position, problem) from None


def _as_texts(where: Where) -> tuple[str, ...]:
    if isinstance(where, str):
        return (where,)
    return ((where_of(where),) if where else ()) if isinstance(where, Mapping) else tuple(where)


# -- what a column holds -------------------------------------------------------------------------------------------------------------------


def read_column(name: str, stored: pa.ChunkedArray) -> Column:
    """A column as it is compared; see the module."""
    kind = stored.type
    if pa.types.is_null(kind):
        stored = stored.cast(pa.string())
        return Column(name, "text", stored, stored)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _read_text(name, stored)
    if pa.types.is_boolean(kind):
        return Column(name, "truth values", stored, stored)
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return Column(name, "whole numbers", stored.cast(pa.int64()), stored)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        values = stored.cast(pa.float64(), safe=False)
        return Column(name, "numbers", pc.if_else(pc.is_nan(values), None, values), stored)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Column(name, "dates", _microseconds(stored), stored)
    return Column(name, "values of another type", stored, stored)


def _read_text(name: str, stored: pa.ChunkedArray) -> Column:
    if not pc.all(pc.string_is_ascii(stored)).as_py():  # as `where.composed` does with a value
        stored = pc.utf8_normalize(stored, form="NFC")
    for kind, pattern, read in _READERS:
        if all(_all_read(some, pattern) for some in (stored[:_FEW], stored)):
            try:
                return Column(name, kind, read(_without_blank(stored)), stored)
            except pa.ArrowInvalid:  # too large for a whole number, or a 31st of June: it stays what it is
                continue
    return Column(name, "text", stored, stored)


def _without_blank(stored: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.match_substring_regex(stored, _BLANK), None, stored)


def _all_read(stored: pa.ChunkedArray, pattern: str) -> bool:
    """Whether all values match, blank ones aside, of which a whole column must have others."""
    present = pc.drop_null(_without_blank(stored))
    return pc.all(pc.match_substring_regex(present, pattern)).as_py() if len(present) else len(stored) == _FEW


def _read_dates(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Microseconds from ISO 8601 or EXIF; those with a zone in UTC."""
    iso = pc.replace_substring_regex(values, r"^([0-9]{4}):([0-9]{2}):", r"\1-\2-")
    iso = pc.replace_substring_regex(iso, r"(\.[0-9]{6})[0-9]+", r"\1")
    has_zone = pc.match_substring_regex(iso, _ZONE)
    in_utc = pc.if_else(has_zone, iso, None).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    plain = pc.if_else(has_zone, None, iso).cast(pa.timestamp("us")).cast(pa.int64())
    return pc.coalesce(in_utc, plain)


def _microseconds(stored: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of timestamps and dates; nanoseconds are rounded down, also before 1970."""
    if pa.types.is_date(stored.type):
        return stored.cast(pa.timestamp("us")).cast(pa.int64())
    if stored.type.unit != "ns":
        return stored.cast(pa.timestamp("us", stored.type.tz)).cast(pa.int64())
    chunks = [
        pa.array(chunk.fill_null(0).to_numpy() // 1000, mask=chunk.is_null().to_numpy(zero_copy_only=False))
        for chunk in stored.cast(pa.int64()).chunks
    ]
    return pa.chunked_array(chunks, pa.int64())


# -- what a test means ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Span:
    """The values that a written one equals: start <= value < stop, whole numbers, or microseconds of a date."""

    start: int
    stop: int


class _Tester:
    """One test of a filter on its column."""

    def __init__(self, where: str, test: Test, column: Column) -> None:
        self._where, self._test, self._column = where, test, column

    def met(self) -> np.ndarray:
        """(n,) bool."""
        operator, kind = self._test.operator, self._column.kind
        if operator == "is missing":
            return _as_mask(pc.is_null(self._column.values))
        if operator == "like" and self._column.has_text:
            return _as_mask(pc.match_substring_regex(self._column.stored, pattern_of(self._test.values[0].text)))
        if operator not in OPERATORS[kind]:
            named = ", ".join([*OPERATORS[kind], "is missing"])
            self._fail(self._test.at, f"{brief(self._column.name)} holds {kind}, which have {named}")
        if operator == "between":
            least, most = self._test.values
            return self._compared(">=", least) & self._compared("<=", most)
        if operator == "in":
            return self._in()
        return self._compared(operator, self._test.values[0])

    def _in(self) -> np.ndarray:
        """Whether a value equals one of a list. Text and whole numbers are looked up at once."""
        kind, values = self._column.kind, self._test.values
        if kind == "text":
            return self._is_in(pa.array([value.text for value in values], self._column.values.type))
        if kind == "whole numbers":
            spans = [self._span(value) for value in values]
            whole = [span.start for span in spans if span.start < span.stop and span.start in _INT64_RANGE]
            return self._is_in(pa.array(whole, pa.int64()))
        met = np.zeros(len(self._column.values), dtype=bool)
        for value in values:
            met |= self._compared("=", value)
        return met

    def _is_in(self, wanted: pa.Array) -> np.ndarray:
        return _as_mask(pc.is_in(self._column.values, value_set=wanted, skip_nulls=True))

    def _compared(self, operator: str, value: Written) -> np.ndarray:
        kind, values = self._column.kind, self._column.values
        if kind == "text":
            if operator != "=" and not value.is_quoted:
                self._check_order_of_text(value)
            return _as_mask(_COMPARE[operator](values, pa.scalar(value.text, values.type)))
        if kind == "truth values":
            return _as_mask(pc.equal(values, self._truth(value)))
        if kind == "numbers":
            return _as_mask(_COMPARE[operator](values, pa.scalar(float(self._number(value)), pa.float64())))
        span = self._span(value)
        if operator == "=":
            return ~self._below(span.start) & self._below(span.stop)
        bound = span.start if operator in ("<", ">=") else span.stop
        return self._below(bound) if operator in ("<", "<=") else self._present() & ~self._below(bound)

    def _below(self, bound: int) -> np.ndarray:
        if bound > _INT64.max:
            return self._present()
        return _as_mask(pc.less(self._column.values, pa.scalar(max(bound, int(_INT64.min)), pa.int64())))

    def _present(self) -> np.ndarray:
        return _as_mask(pc.is_valid(self._column.values))

    def _truth(self, value: Written) -> bool:
        if value.text.lower() not in ("true", "false"):
            self._fail_at_value(value, "true or false")
        return value.text.lower() == "true"

    def _number(self, value: Written) -> Decimal:
        if not _WRITTEN_NUMBER.fullmatch(value.text):
            self._fail_at_value(value, "a number, such as 2000 or 0.5")
        return Decimal(value.text)

    def _span(self, value: Written) -> _Span:
        if self._column.kind == "dates":
            return self._dates(value)
        number = self._number(value)
        if number.copy_abs() > 2**64:  # beyond every value; its digits need not be written out
            beyond = int(math.copysign(2**64, number))
            return _Span(beyond, beyond)
        return _Span(int(number.to_integral_value(ROUND_CEILING)), int(number.to_integral_value(ROUND_FLOOR)) + 1)

    def _dates(self, value: Written) -> _Span:
        """A year, a month, a day, an hour ... from its beginning to before the next."""
        found = _WRITTEN_DATE.fullmatch(value.text)
        if found is None:
            self._fail_at_value(value, 'a date: 2024, 2024-06, 2024-06-01 or "2024-06-01 12:30"')
        given = [int(part) for part in found.groups()[:6] if part is not None]
        fraction = found[7]
        try:
            start = datetime(*given, *[1] * (3 - len(given))) if len(given) < 3 else datetime(*given)  # type: ignore[arg-type]
        except ValueError:
            self._fail(value.position, f"{value.text} is no date of the calendar")
        if fraction is not None:
            start += timedelta(microseconds=int(fraction.ljust(6, "0")))
            return _Span(_since_epoch(start), _since_epoch(start) + 10 ** (6 - len(fraction)))
        if len(given) >= 3:
            step = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))[len(given) - 3]
            return _Span(_since_epoch(start), _since_epoch(start) + step // _MICROSECOND)
        years, months = divmod(start.year * 12 + start.month - 1 + (12 if len(given) == 1 else 1), 12)
        is_last = years > 9999
        stop = _since_epoch(datetime(9999, 12, 31)) + 86_400_000_000 if is_last else _since_epoch(datetime(years, months + 1, 1))
        return _Span(_since_epoch(start), stop)

    def _check_order_of_text(self, value: Written) -> None:
        """A number or a date that is compared with text by order is meant as one, so say why the column is text."""
        for pattern, what in ((_WRITTEN_NUMBER, "a number"), (_WRITTEN_DATE, "a date")):
            if pattern.fullmatch(value.text):
                odd = self._odd_one(_NUMBER if pattern is _WRITTEN_NUMBER else _DATE)
                why = f', since "{brief(odd)}" is not {what}' if odd is not None else ""
                problem = f'{brief(self._column.name)} holds text{why}. To compare as text, write "{value.text}"'
                self._fail(value.position, problem)

    def _odd_one(self, pattern: str) -> str | None:
        stored = pc.drop_null(self._column.stored)
        odd = stored.filter(pc.invert(pc.or_(pc.match_substring_regex(stored, pattern), pc.match_substring_regex(stored, _BLANK))))
        return odd[0].as_py() if len(odd) else None

    def _fail_at_value(self, value: Written, wanted: str) -> NoReturn:
        self._fail(value.position, f'{brief(self._column.name)} holds {self._column.kind}, and "{brief(value.text)}" is not {wanted}')

    def _fail(self, position: int, problem: str) -> NoReturn:
        raise WhereError(self._where, position, problem)


_READERS: tuple[tuple[Kind, str, Callable[[pa.ChunkedArray], pa.ChunkedArray]], ...] = (
    ("truth values", "^(true|false)$", lambda values: pc.equal(values, "true")),
    ("whole numbers", _WHOLE, lambda values: values.cast(pa.int64())),
    ("numbers", _NUMBER, lambda values: values.cast(pa.float64())),
    ("dates", _DATE, _read_dates),
)
_COMPARE: Mapping[str, Callable[[pa.ChunkedArray, pa.Scalar], pa.ChunkedArray]] = {
    "=": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def _since_epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def pattern_of(like: str) -> str:
    """The regular expression (RE2's) of a pattern: % is any text, _ one character, and a backslash before one of them means the sign."""
    parts = re.findall(r"\\[%_\\]|%+|_|[^%_\\]+", like)
    signs = {"_": ".", "\\%": "%", "\\_": "_", "\\\\": r"\\"}
    body = "".join(".*" if part.startswith("%") else signs.get(part) or re.escape(part) for part in parts)
    return rf"(?is)\A{body}\z"


def _as_mask(met: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool, a missing value being no."""
    return pc.fill_null(met, False).to_numpy(zero_copy_only=False) if isinstance(met, pa.Array) else pc.fill_null(met, False).to_numpy()
