"""A table of captions, one or several rows a picture, beside a folder of pictures or tars of them (Flickr8k, Flickr30k, COCO as a table).

    data-prep make-shards captions flickr8k/captions.tsv --output shards/flickr8k

The table is UTF-8 with a header line: columns `file`, `caption` and, where the source has splits of its own, `split`. Separated by tabs
(fields are taken as they are) or by commas (fields may be quoted).
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from data_prep.pictures import offer
from data_prep.sources import input_fingerprint
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger


def captions(
    input: Path,
    images: Path | None = None,
    file_column: str = "file",
    caption_column: str = "caption",
    split_column: str | None = None,
    *,
    ledger: Ledger,
) -> Iterator[Pair]:
    """The pictures that a table names, in the order of their first rows, each with all its captions.

    input: the .tsv or .csv file.
    images: the folder that the table's file names are relative to, or a folder of .tar files that hold them, or one .tar; by default the
        table's own folder.
    file_column, caption_column: the names of those columns in the header.
    split_column: the column of the source's own split; by default `split` where there is one.
    """
    entries = read_table(input, file_column, caption_column, split_column, ledger)
    with _Images(images or input.parent) as pictures:
        for entry in entries.values():
            where = f"{input.name} line {entry.line}"
            image = pictures.read(entry.file)
            if image is None:
                ledger.bad(where, entry.file, f"no such picture in {pictures.path}")
                continue
            yield from offer(ledger, where, entry.file, image, entry.captions, entry.file, entry.split)


def inputs(input: Path, images: Path | None, **columns: Any) -> dict[str, str]:
    """The table and the pictures beside it, for telling a set that was made of them."""
    entries = read_table(input, **columns, ledger=Ledger(Path()))  # its lines are written down when the pairs are read
    folder = images or input.parent
    named = (folder / name for name in entries)
    files = [*_tars(folder), *(file for file in named if file.is_file())]
    return {"input": input_fingerprint(input), "images": input_fingerprint(folder, files)}


@dataclass(slots=True)
class Entry:
    """One picture of a table. line: of its first row, counted from 1."""

    file: str
    line: int
    split: str
    captions: list[str] = field(default_factory=list)


def read_table(table: Path, file_column: str, caption_column: str, split_column: str | None, ledger: Ledger) -> dict[str, Entry]:
    """file -> entry, in the order of first rows. A row that cannot be used goes to the ledger by its line.

    InputError: the table is not there, not UTF-8, lacks a column, breaks its quoting, or puts one picture into two splits.
    """
    text = _decode(table)
    header_line = text.partition("\n")[0]
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if "\t" in header_line else {"delimiter": ","}
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
    header = [name.strip() for name in next(rows, [])]
    file_at = _column(table, header, file_column, "--file-column")
    caption_at = _column(table, header, caption_column, "--caption-column")
    split_at = _column(table, header, split_column or "split", "--split-column") if split_column or "split" in header else None
    entries: dict[str, Entry] = {}
    try:
        for row in rows:
            line = rows.line_num
            if not row:
                continue
            if len(row) != len(header):
                ledger.bad(
                    f"{table.name} line {line}", row[0], f"{len(row)} fields where the header has {len(header)}: {', '.join(header)}"
                )
                continue
            file, caption, split = row[file_at].strip(), row[caption_at].strip(), row[split_at].strip() if split_at is not None else ""
            if not file or not caption:
                ledger.bad(f"{table.name} line {line}", file, "names no picture" if not file else "has no text")
                continue
            entry = entries.setdefault(file, Entry(file, line, split))
            if entry.split != split:
                raise InputError(f"{table} line {line}: {file} is in split {split!r} here and in {entry.split!r} at line {entry.line}")
            entry.captions.append(caption)
    except csv.Error as error:
        raise InputError(f"{table} line {rows.line_num}: {error}") from None
    if not entries and not ledger.entries:
        raise InputError(f"{table}: has a header line and no row below it; a row a caption is wanted")
    return entries


def _decode(table: Path) -> str:
    if not table.is_file():
        raise InputError(f"{table}: is a folder; the table of captions is wanted" if table.is_dir() else f"{table}: does not exist")
    content = table.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{table} line {line}: not UTF-8 (byte 0x{content[error.start]:02x}). Convert it first, for example: "
            f"iconv -f latin1 -t utf-8 {table.name}"
        ) from None
    if not text.strip():
        raise InputError(f"{table}: is empty; a header line with the columns file and caption is wanted, then a row a caption")
    return text


def _column(table: Path, header: list[str], name: str, option: str) -> int:
    if header.count(name) != 1:
        problem = "has no column" if name not in header else "has more than one column"
        raise InputError(f"{table} line 1: {problem} {name!r}; the columns are {', '.join(header)}. Name yours with {option}")
    return header.index(name)


def _tars(images: Path) -> list[Path]:
    return sorted(images.glob("*.tar")) if images.is_dir() else [images]


class _Images:
    """Pictures by name, out of a folder, or out of tars whose members are found by full path or by bare name."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"{path}: does not exist; the folder or the .tar with the pictures is wanted (--images)")
        self.path = path
        self._open = ExitStack()
        self._members: dict[str, tuple[IO[bytes], int, int]] = {}
        self._twice: set[str] = set()

    def __enter__(self) -> _Images:
        for path in _tars(self.path):
            file = self._open.enter_context(open(path, "rb"))
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    for member in tar:
                        if member.isfile():
                            self._add(member.name.removeprefix("./"), (file, member.offset_data, member.size))
            except tarfile.TarError as error:
                raise InputError(f"{path}: is not a whole, uncompressed tar: {error}") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _add(self, name: str, where: tuple[IO[bytes], int, int]) -> None:
        for called in {name, name.rpartition("/")[2]}:
            if called in self._members:
                self._twice.add(called)
            self._members.setdefault(called, where)

    def read(self, name: str) -> bytes | None:
        """The picture's bytes, None where there is none of that name."""
        if name in self._twice:
            raise InputError(f"{self.path}: several members of its tars are called {name}; give their folders in the table")
        if name in self._members:
            file, offset, size = self._members[name]
            file.seek(offset)
            return file.read(size)
        path = self.path / name
        return path.read_bytes() if self.path.is_dir() and path.is_file() else None
