"""Captions in rows: tables with a header (.tsv, .csv), Flickr's token files, JSON Lines and Parquet. Each reader fills `Entries`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.lines import BadLine, json_object, numbered_lines
from data_prep.sources._caption_entries import Columns, Entries
from multimodal.errors import InputError

_TOKEN = re.compile(r"(.+)#\d+\t(.*)")


def read_text(path: Path, columns: Columns, entries: Entries) -> None:
    """A table or a token file, told apart by the first line: `name.jpg#0<TAB>caption`, or a header.

    InputError: not there, not UTF-8, a column is missing, the quoting is broken, or no row follows.
    """
    text = decode(path)
    if _TOKEN.fullmatch(text.partition("\n")[0].rstrip("\r")):
        columns.refuse_for(path, "a token file (name.jpg#0<TAB>caption)")
        _read_tokens(text, entries)
    else:
        _read_table(path, text, columns, entries)


def _read_tokens(text: str, entries: Entries) -> None:
    """Flickr8k.token.txt and Flickr30k's results_20130124.token: the picture, the caption's number, a tab, the caption."""
    for number, line in enumerate(text.split("\n"), 1):
        if found := _TOKEN.fullmatch(line.rstrip("\r")):
            entries.add(f"line {number}", found[1], found[2])
        elif line.strip():
            entries.bad(f"line {number}", line.partition("#")[0], "is not name.jpg#0<TAB>caption, as the first line is")


def _read_table(path: Path, text: str, columns: Columns, entries: Entries) -> None:
    """A header line, then rows: separated by tabs (fields are taken as they are) or by commas (fields may be quoted)."""
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if "\t" in text.partition("\n")[0] else {"delimiter": ","}
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
    try:
        header = [name.strip() for name in next(rows, [])]
        columns = _columns_in(f"{path} line 1", header, columns)
        file_at, caption_at = header.index(columns.file), header.index(columns.caption)
        split_at = None if columns.split is None else header.index(columns.split)
        for row in rows:
            place = f"line {rows.line_num}"
            if len(row) == len(header):
                entries.add(place, row[file_at], row[caption_at], "" if split_at is None else row[split_at])
            elif row:
                entries.bad(place, row[0], f"{len(row)} fields where the header has {len(header)}: {', '.join(header)}")
    except csv.Error as error:
        raise InputError(f"{path} line {rows.line_num}: {error}") from None
    if not entries.num_rows:
        raise InputError(f"{path}: has a header line and no row below it; a row a caption is wanted")


def read_json_lines(path: Path, columns: Columns, entries: Entries) -> None:
    """An object a line: the file, a caption or a list of captions and, where there is one, the split."""
    for number, line in numbered_lines(path):
        place = f"line {number}"
        try:
            row = json_object(line)
        except BadLine as error:
            entries.bad(place, "", str(error))
            continue
        named = {"--file-column": columns.file, "--caption-column": columns.caption, "--split-column": columns.split}
        missing = [f"{name!r} ({option} names another)" for option, name in named.items() if name is not None and name not in row]
        if missing:
            file = row.get(columns.file)
            fields = ", ".join(row) or "none"
            entries.bad(place, file if isinstance(file, str) else "", f"has no field {', nor '.join(missing)}; its fields are {fields}")
        else:
            entries.add(place, row[columns.file], row[columns.caption], row.get(columns.split or "split"))


def read_parquet(path: Path, columns: Columns, entries: Entries) -> None:
    """A row a caption, or a row a picture with a list of captions; of the other columns nothing is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            columns = _columns_in(str(path), table.schema_arrow.names, columns)
            wanted = [name for name in (columns.file, columns.caption, columns.split) if name is not None]
            rows = (row for batch in table.iter_batches(columns=wanted) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                entries.add(f"row {number}", row[columns.file], row[columns.caption], row.get(columns.split))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is not a whole Parquet file: {error}") from None


def decode(path: Path) -> str:
    """The text of a file; InputError where it is not UTF-8, with the line, or is blank."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} line {line}: not UTF-8 (byte 0x{content[error.start]:02x}). Convert it first, for example: "
            f"iconv -f latin1 -t utf-8 {path.name}"
        ) from None
    if not text.strip():
        raise InputError(f"{path}: is empty; pictures and their captions are wanted in it")
    return text


def _columns_in(where: str, header: Sequence[str], columns: Columns) -> Columns:
    """The columns, each known to be in the header; split is None where there is no `split`, and no other was asked for."""
    split = columns.split or ("split" if "split" in header else None)
    _check_column(where, header, columns.file, "--file-column")
    _check_column(where, header, columns.caption, "--caption-column")
    if split is not None:
        _check_column(where, header, split, "--split-column")
    return replace(columns, split=split)


def _check_column(where: str, header: Sequence[str], name: str, option: str) -> None:
    if header.count(name) != 1:
        problem = "has no column" if name not in header else "has more than one column"
        raise InputError(f"{where}: {problem} {name!r}; the columns are {', '.join(header)}. Name yours with {option}")
