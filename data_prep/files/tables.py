"""Delimited tables, as spreadsheets, pandas and people write them, read as a stream; a broken row costs only itself.

    layout = layout_of(Path("captions.csv"), [Column("pictures", "--file-column", FILES), Column("captions", "--caption-column", CAPTIONS)])
    for row in rows(Path("captions.csv"), layout): ...     # Row(line=2, fields=["a.jpg", "a cat"], reason=None)

Fields are separated by tabs, semicolons, `|` or commas: whichever splits the first line into known columns. Fields separated by commas or
semicolons may be quoted; with tabs and `|`, quotes count only if every field that begins with a quote is fully quoted, as Excel and pandas
write it. Rows of blank fields are skipped, and fields without a column name may be missing at the end.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.files.columns import NAMES_SHOWN, Column, matches
from data_prep.files.lines import BadLine
from data_prep.files.text_files import MAX_LINE_BYTES, bounded_lines, encoding_of, name_of, open_text
from multimodal.errors import InputError
from multimodal.shards.format import broken_text

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "'|'", ",": "commas"}
"""In the order in which they are tried, since captions contain commas and semicolons."""

_HEAD_CHARACTERS = 1 << 20
_EXCEL = re.compile(r"\"?sep=(.)\"?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a table. names: of the columns. first_line: of the rows, from 1. has_blanks: a blank follows each separator."""

    encoding: str
    separator: str
    names: tuple[str, ...]
    first_line: int
    is_quoted: bool = True
    has_blanks: bool = False
    has_header: bool = True

    def __str__(self) -> str:
        header = "" if self.has_header else ", no header line"
        return f"read as {name_of(self.encoding)}, fields separated by {SEPARATORS.get(self.separator, repr(self.separator))}{header}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row; its fields are stripped. line: where it begins. reason: why it cannot be used; then only one field is kept."""

    line: int
    fields: list[str]
    reason: str | None = None


def layout_of(
    path: Path,
    columns: Sequence[Column],
    names: Sequence[str] | None = None,
    encoding: str | None = None,
    is_value: Callable[[str], bool] = lambda field: False,
) -> Layout:
    """Detect the layout of a table from its content.

    columns: those that are needed. names: of all columns, in order, if the file has no header line. encoding: if it is known.
    is_value: whether a field is a value of the first column rather than a name. A first line with such a field is not a header; if it has
    just one other field, that is the second column's.
    InputError: the file is empty, or its first line is neither a header nor such a row.
    """
    encoding = encoding_of(path, encoding)
    with open_text(path, encoding) as file:
        head = list(bounded_lines(io.StringIO(file.read(_HEAD_CHARACTERS), newline="")))
    first = next((number for number, line in enumerate(head, 1) if line.strip()), None)
    if first is None:
        raise InputError(f"{path}: is empty; it needs a header line, and rows below it")
    separators = list(SEPARATORS)
    if marked := _EXCEL.fullmatch(head[first - 1].strip("\r\n")):  # a line for Excel that names the separator
        separators, first = [marked[1]], first + 1
    tried = [_tried(head, first, separator, encoding) for separator in separators]
    if names is None:
        layout = _chosen(path, "".join(head[first - 1 : first]), first, tried, columns, is_value)
    else:
        layout = next((layout for layout in tried if len(layout.names) == len(names)), tried[-1])
        layout = replace(layout, names=tuple(names), first_line=first, has_header=False)
    return layout if layout.separator in ",;" else replace(layout, is_quoted=_is_quoted(path, layout))


def rows(path: Path, layout: Layout) -> Iterator[Row]:
    """The rows below the header; broken ones have a reason."""
    num = len(layout.names)
    for row in _records(path, layout):
        fields = [field.strip() for field in row.fields]
        if row.reason is None and not any(fields):
            continue
        if row.reason is None and len(fields) != num:
            if len(fields) > num and not any(fields[num:]):
                fields = fields[:num]
            elif len(fields) < num and not any(layout.names[len(fields) :]):
                fields += [""] * (num - len(fields))
            else:
                where = "the header has" if layout.has_header else "--columns names"
                shown = ", ".join(layout.names)[:NAMES_SHOWN]
                yield Row(row.line, fields[:1], f"{len(fields)} fields where {where} {num}: {shown}")
                continue
        reason = row.reason or next((reason for field in fields if (reason := broken_text(field))), None)
        yield Row(row.line, fields if reason is None else fields[:1], reason)


def _tried(head: Sequence[str], first: int, separator: str, encoding: str) -> Layout:
    """The layout with that separator; its names are the fields of the first line."""
    line = head[first - 1] if first <= len(head) else ""
    has_blanks = separator in line and all(part.startswith(" ") for part in line.rstrip("\r\n").split(separator)[1:])
    layout = Layout(encoding, separator, (), first, has_blanks=has_blanks)
    lines = _Lines(head[first - 1 :], first)
    try:
        fields = _fields(lines, layout)
    except BadLine:
        fields = line.rstrip("\r\n").split(separator)
        lines.take_back()
    except StopIteration:
        fields = []
    return replace(layout, names=tuple(field.strip() for field in fields), first_line=lines.number)


def _chosen(
    path: Path, line: str, first: int, tried: Sequence[Layout], columns: Sequence[Column], is_value: Callable[[str], bool]
) -> Layout:
    """The first layout in which the first line has the columns, or is a row of them."""
    for layout in tried:
        if all(matches(layout.names, column) for column in columns):
            return layout
    for layout in tried:
        is_row = [is_value(field) for field in layout.names]
        if is_row in ([True, False], [False, True]):
            names = [column.given or column.usual[0] for column in columns]
            return replace(layout, names=tuple(names if is_row[0] else names[::-1]), first_line=first, has_header=False)
        if any(is_row):
            example = f"--columns {' '.join(column.usual[0] for column in columns)} ..."
            raise InputError(f"{path} line {first}: is a row, not a header: {line.strip()[:80]}. Name its columns, in order: {example}")
    return max(tried, key=lambda layout: len(layout.names))  # `pick` will say which column is missing


class _Lines:
    """Numbered lines, some of which can be read again. number: of the next line."""

    def __init__(self, lines: Iterable[str], number: int = 1) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self._taken: list[str] = []
        self.number = number

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        self.number += 1
        return line

    def forget(self) -> None:
        """Give up the lines taken so far: they will not be read again."""
        self._taken.clear()

    def take_back(self) -> str:
        """The first line taken since; the others will be read again."""
        first, *rest = self._taken
        self._again.extendleft(reversed(rest))
        self.number -= len(rest)
        return first


def _records(path: Path, layout: Layout) -> Iterator[Row]:
    """The rows with unprocessed fields. After a broken row, reading continues on the line after its first."""
    with open_text(path, layout.encoding) as file:
        lines = _Lines(bounded_lines(file))
        while lines.number < layout.first_line and next(lines, None) is not None:
            lines.forget()
        while True:
            number = lines.number
            try:
                row = Row(number, _fields(lines, layout))
            except StopIteration:
                return
            except BadLine as error:
                row = Row(number, [lines.take_back().partition(layout.separator)[0][:NAMES_SHOWN]], str(error))
            lines.forget()
            yield row


def _fields(lines: Iterator[str], layout: Layout) -> list[str]:
    """The fields of one row; while a quote is open, it takes more lines. BadLine if its quotes or its length are invalid."""
    line, separator = next(lines), layout.separator
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"is longer than {MAX_LINE_BYTES:,} characters")
    if not layout.is_quoted or '"' not in line:
        return line.rstrip("\r\n").split(separator)
    fields: list[str] = []
    at, size = 0, len(line)
    while True:
        start = _past_blanks(line, at) if layout.has_blanks else at
        if not line.startswith('"', start):
            end = line.find(separator, at)
            if end < 0:
                return [*fields, line[at:].rstrip("\r\n")]
            fields.append(line[at:end])
            at = end + 1
            continue
        pieces, at = [], start + 1
        while (close := line.find('"', at)) < 0 or line.startswith('"', close + 1):
            if close >= 0:  # a doubled quote stands for one
                pieces.append(line[at : close + 1])
                at = close + 2
                continue
            pieces.append(line[at:])
            line, at = next(lines, ""), 0
            size += len(line)
            if not line or size > MAX_LINE_BYTES:
                raise BadLine("opens a quote that is never closed; inside of quotes, a quote is written twice")
        fields.append("".join([*pieces, line[at:close]]))
        at = _past_blanks(line, close + 1)
        if not line[at : at + 2].strip("\r\n"):
            return fields
        if not line.startswith(separator, at):
            raise BadLine("has text behind a closing quote; inside of quotes, a quote is written twice")
        at += 1


def _past_blanks(line: str, at: int) -> int:
    while line.startswith(" ", at):
        at += 1
    return at


def _is_quoted(path: Path, layout: Layout) -> bool:
    """Whether some field begins with a quote, and all such fields are fully quoted."""
    opening = re.compile(f'(?:^|{re.escape(layout.separator)}){" *" if layout.has_blanks else ""}"')
    with open_text(path, layout.encoding) as file:
        if not any(opening.search(line) for line in bounded_lines(file)):
            return False
    records = _records(path, replace(layout, is_quoted=True))
    return all(row.reason is None and not any(layout.separator in field and "\n" in field for field in row.fields) for row in records)
