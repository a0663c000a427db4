"""What people say of hits, kept in the store's folder as two tables that any program reads.

    judgements = Judgements(store.path)
    judgements.add({"query": "beach", "id": 17, "name": "a.jpg", "relevant": True})     # 1
    judgements.add({"a": 17, "b": 18, "same": False})                                   # 2
    judgements.undo()

S/judgements/relevant.csv   number,query,id,name,relevant
S/judgements/pairs.csv      number,a,b,same

Numbers count both tables together, in the order of time. A line is on disk before its number is returned; all processes that write take
turns by a lock beside the tables. No manifest knows of them: a store is the same with and without.

Anybody may have written a query, and spreadsheets compute a cell that begins with one of `=+-@`. Such a text has an apostrophe before it in
the table, as does one that begins with apostrophes and such a sign, and is read without.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal.boxes import box_file, reading
from multimodal.errors import InputError
from multimodal.machine.portable import BINARY, lock_file

FOLDER = "judgements"
TABLES: Mapping[str, tuple[str, ...]] = {
    "relevant.csv": ("number", "query", "id", "name", "relevant"),
    "pairs.csv": ("number", "a", "b", "same"),
}
MAX_BYTES = 64 << 20
"""Of a table: without it a visitor could fill the disk."""
_FORMULA = re.compile("'*[=+@＝＋－＠-]")
_TEXTS = ("query", "name")
_TRUTHS = ("same", "relevant")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a table, and where it begins, in bytes."""

    values: dict[str, Any]
    start: int


class Judgements:
    """Of one store. path: its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, judgement: Mapping[str, Any]) -> int:
        """Its number, once it is on disk. InputError if the folder cannot be written, or a table is not one of ours."""
        [table] = [name for name, columns in TABLES.items() if set(columns[1:]) == set(judgement)]
        with self._locked():
            number = max((line.values["number"] for lines in self._lines().values() for line in lines), default=0) + 1
            values = {"number": number, **judgement}
            self._append(table, [_written(values[column]) for column in TABLES[table]])
        return number

    def undo(self, number: int | None = None) -> dict[str, Any] | None:
        """Remove the last judgement, and return it; None if there is none, or if it has another number."""
        with self._locked():
            lines = [(line, table) for table, several in self._lines().items() for line in several]
            if not lines:
                return None
            last, table = max(lines, key=lambda found: found[0].values["number"])
            if number not in (None, last.values["number"]):
                return None
            with open(self._file(table), "r+b") as file:
                file.truncate(last.start)
                os.fsync(file.fileno())
        return last.values

    def rows(self, query: str | None = None) -> list[dict[str, Any]]:
        """All judgements by number; with a query, those of pictures for it."""
        found = [line.values for lines in self._lines().values() for line in lines if query is None or line.values.get("query") == query]
        return sorted(found, key=lambda values: values["number"])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            folder = box_file(self.path, FOLDER)
            folder.mkdir(exist_ok=True)
            lock = lock_file(box_file(self.path, f"{FOLDER}/.lock"))
        except OSError as error:
            raise InputError(f"{self.path / FOLDER}: {error.strerror}, so no judgement can be kept there") from None
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.path / FOLDER}: {error.strerror}, so the judgement was not kept") from None
        finally:
            lock.release()

    def _file(self, table: str) -> Path:
        return box_file(self.path, f"{FOLDER}/{table}")

    def _append(self, table: str, values: list[str]) -> None:
        """One line. A line that a killed process left unfinished was never reported as kept, and is removed."""
        descriptor = os.open(self._file(table), os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | BINARY, 0o644)
        with os.fdopen(descriptor, "r+b") as file:
            content = file.read()
            if len(content) > MAX_BYTES:
                raise InputError(f"{self._file(table)}: has {len(content):,} bytes, and takes no more. Move it away to begin a new one")
            whole = content.rfind(b"\n") + 1
            file.seek(whole)
            file.truncate()
            file.write(b"".join([b"" if whole else _line(TABLES[table]), _line(values)]))
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> dict[str, list[_Line]]:
        return {table: list(self._read(table)) for table in TABLES}

    def _read(self, table: str) -> Iterator[_Line]:
        path, columns = self._file(table), TABLES[table]
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        with reading(path, csv.Error):
            lines = content.split(b"\n")[:-1]  # after the last line end there is nothing, or what a killed process left
            if lines and lines[0].rstrip(b"\r").decode() != ",".join(columns):
                raise ValueError(f"its first line is not {','.join(columns)}")
            start = len(lines[0]) + 1 if lines else 0
            for line in lines[1:]:
                [fields] = csv.reader([line.decode()])
                if len(fields) != len(columns):
                    raise ValueError(f"a line with {len(fields)} fields: {line[:80].decode()!r}")
                yield _Line({name: _read_value(name, value) for name, value in zip(columns, fields, strict=True)}, start)
                start += len(line) + 1


def plain(text: str) -> str:
    """A text as it is kept: in one line."""
    return " ".join(text.split())


def _line(fields: tuple[str, ...] | list[str]) -> bytes:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(fields)
    return written.getvalue().encode()


def _written(value: Any) -> str:
    if isinstance(value, str):
        text = plain(value)
        return f"'{text}" if _FORMULA.match(text) else text
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_value(name: str, value: str) -> Any:
    if name in _TRUTHS:
        if value not in ("true", "false"):
            raise ValueError(f"{name} is {value[:20]!r}, neither true nor false")
        return value == "true"
    if name in _TEXTS:
        return value[1:] if value.startswith("'") and _FORMULA.match(value) else value
    return int(value)
