"""Captions in rows: tables with a header (.tsv, .csv), Flickr's token files, JSON Lines and Parquet. Each reader fills `Entries`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from data_prep.files.columns import CAPTIONS, FILES, UNSURE_SPLIT, Column, matches, pick, pick_split
from data_prep.files.lines import BadLine, json_object, numbered_lines
from data_prep.files.tables import layout_of, rows
from data_prep.files.text_files import bounded_lines, encoding_of, name_of, open_text
from data_prep.sources._caption_entries import Columns, Entries
from multimodal.errors import InputError
from multimodal.pictures.formats import PICTURE_SUFFIXES

_TOKEN = re.compile(r"(.+)#\d+\t(.*)")


def read_text(path: Path, columns: Columns, entries: Entries) -> None:
    """A table or a token file, by the first line: `name.jpg#0<TAB>caption`, or a header.

    InputError: the file does not exist, its encoding is unknown, a column is missing, or it has no row.
    """
    encoding = encoding_of(path, columns.encoding)
    with open_text(path, encoding) as file:
        is_token_file = _TOKEN.fullmatch(file.readline(10_000).rstrip("\r\n"))
    if is_token_file:
        columns.refuse_for(path, "a token file (name.jpg#0<TAB>caption)")
        _read_tokens(path, encoding, entries)
    else:
        _read_table(path, encoding, columns, entries)


def _read_tokens(path: Path, encoding: str, entries: Entries) -> None:
    """Flickr8k.token.txt and Flickr30k's results_20130124.token: the picture, the caption's number, a tab, the caption."""
    entries.note_encoding(encoding)
    with open_text(path, encoding) as file:
        for number, line in enumerate(bounded_lines(file), 1):
            if found := _TOKEN.fullmatch(line.rstrip("\r\n")):
                entries.add(f"line {number}", found[1], found[2])
            elif line.strip():
                entries.bad(f"line {number}", line.partition("#")[0], "is not name.jpg#0<TAB>caption, as the first line is")


def _read_table(path: Path, encoding: str, columns: Columns, entries: Entries) -> None:
    layout = layout_of(path, _wanted(columns), columns.names, encoding, _is_picture_name)
    records = rows(path, layout)
    first = next(records, None)
    where = f"{path} line {layout.first_line - 1}" if layout.has_header else str(path)
    at = _Places.of(where, layout.names, columns, [] if first is None else first.fields)
    entries.note = f"{layout}; {at.note}"
    is_plain = layout.separator == ("\t" if ".tsv" in path.name.lower() else ",") or (
        layout.separator == "\t" and ".txt" in path.name.lower()
    )
    entries.is_plain = is_plain and name_of(encoding) == "UTF-8" and layout.has_header and at.is_plain
    for row in chain([] if first is None else [first], records):
        place = f"line {row.line}"
        if row.reason is not None:
            entries.bad(place, row.fields[0], row.reason)
        else:
            entries.add(place, row.fields[at.file], row.fields[at.caption], "" if at.split is None else row.fields[at.split])
    if not entries.num_rows:
        raise InputError(f"{path}: has a header line and no row below it; it needs one row per caption")


def read_json_lines(path: Path, columns: Columns, entries: Entries) -> None:
    """One object per line: the file, a caption or a list of captions and, if there is one, the split."""
    encoding = encoding_of(path, columns.encoding)
    entries.note_encoding(encoding)
    read_objects(path, _objects(path, encoding, entries), columns, entries)


def _objects(path: Path, encoding: str, entries: Entries) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in numbered_lines(path, encoding):
        try:
            yield f"line {number}", json_object(line)
        except BadLine as error:
            entries.bad(f"line {number}", "", str(error))


def read_objects(path: Path, objects: Iterator[tuple[str, dict[str, Any]]], columns: Columns, entries: Entries) -> None:
    """Objects with their places. The first one with a picture and a caption decides the names of the fields."""
    wanted = _wanted(columns)
    file, caption = (_called((), column) for column in wanted)
    split, is_known = columns.split, False
    for place, row in objects:
        names = list(row)
        if not is_known:
            file, caption = (_called(names, column) for column in wanted)
        if not is_known and file in row and caption in row:
            at = _Places.of(f"{path} {place}", names, columns, list(row.values()))
            file, caption, is_known = names[at.file], names[at.caption], True
            split = columns.split if at.split is None else names[at.split]
            entries.note, entries.is_plain = f"{entries.note}; {at.note}", entries.is_plain and at.is_plain
        needed = [(file, "--file-column"), (caption, "--caption-column"), (columns.split, "--split-column")]
        missing = [f"{name!r} ({option} names another)" for name, option in needed if name is not None and name not in row]
        if missing:
            named = row.get(file)
            fields = ", ".join(row) or "none"
            entries.bad(place, named if isinstance(named, str) else "", f"has no field {', nor '.join(missing)}; its fields are {fields}")
        else:
            entries.add(place, row[file], row[caption], row.get(split or "split"))


def _called(names: Sequence[str], column: Column) -> str:
    """The column's name among these, or its default name."""
    return next((names[at] for at in matches(names, column)), column.given or column.usual[0])


def read_parquet(path: Path, columns: Columns, entries: Entries) -> None:
    """One row per caption, or one row per picture with a list of captions; other columns are not read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns.refuse_text_options(path, "Parquet")
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            unsure = [names[place] for place in matches(names, UNSURE_SPLIT)]
            [head] = next((batch.to_pylist() for batch in table.iter_batches(1, columns=unsure)), [{}]) if unsure else [{}]
            at = _Places.of(str(path), names, columns, [head.get(name) for name in names])
            kind = table.schema_arrow.field(at.file).type
            if not (pa.types.is_string(_values(kind)) or pa.types.is_large_string(_values(kind))):
                raise InputError(
                    f"{path}: its column {names[at.file]!r} holds {str(kind)[:80]}, not file names. Name another with --file-column; "
                    "pictures inside Parquet have to be written to files first"
                )
            entries.note, entries.is_plain = f"read as Parquet; {at.note}", at.is_plain
            wanted = [names[place] for place in (at.file, at.caption, at.split) if place is not None]
            numbered = (row for batch in table.iter_batches(columns=wanted) for row in batch.to_pylist())
            for number, row in enumerate(numbered, 1):
                split = None if at.split is None else row[names[at.split]]
                entries.add(f"row {number}", row[names[at.file]], row[names[at.caption]], split)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is not a valid Parquet file: {error}") from None


def _values(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


@dataclass(frozen=True, slots=True)
class _Places:
    """The positions of the columns. note: their names, to report. is_plain: they have our own names, or were named by options."""

    file: int
    caption: int
    split: int | None
    note: str
    is_plain: bool

    @classmethod
    def of(cls, where: str, names: Sequence[str], columns: Columns, first: Sequence[object]) -> _Places:
        """InputError if a needed column is missing."""
        wanted = _wanted(columns)
        advice = "; if that is not a header but the first row, name the columns with --columns" if columns.names is None else ""
        file, caption = (pick(where, names, column, advice) for column in wanted)
        split = pick_split(where, names, columns.split, first)
        note = f"pictures in column {names[file]!r}, captions in {names[caption]!r}"
        note += "" if split is None else f", splits in {names[split]!r}"
        others = [
            f"{names[at]!r} ({column.option})"
            for column, used in zip(wanted, (file, caption), strict=True)
            for at in matches(names, column)
            if at != used
        ]
        note += f"; not used: {', '.join(others)}" if others else ""
        is_plain = [names[file], names[caption]] == [columns.file or "file", columns.caption or "caption"] and not others
        return cls(file, caption, split, note, is_plain and (split is None or names[split] == (columns.split or "split")))


def _wanted(columns: Columns) -> tuple[Column, Column]:
    return (
        Column("pictures", "--file-column", FILES, columns.file),
        Column("captions", "--caption-column", CAPTIONS, columns.caption),
    )


def _is_picture_name(field: str) -> bool:
    return Path(field).suffix.lower().removeprefix(".") in PICTURE_SUFFIXES
