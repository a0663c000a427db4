"""Files of lines, plain or gzipped, read as a stream: JSON Lines, or texts with one document a line.

for number, line in numbered_lines(Path("articles.jsonl.gz")):
    text = document_of(json_object(line))     # BadLine says what is wrong with this one
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from multimodal.errors import InputError

_GZIP_START = b"\x1f\x8b"


JSON_LINES = (".jsonl", ".jsonl.gz")
"""How a file of them ends."""


class BadLine(ValueError):
    """A line is not what was wanted; the message is the reason, for the ledger of a source or for an InputError."""


@dataclass(frozen=True, slots=True)
class Line:
    """number: from 1. start: the byte at which it begins, of a gzipped file in what is unpacked."""

    number: int
    start: int
    content: bytes


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) for each line that is not blank, counted from 1; a byte order mark at the start is taken away.

    Whether the file is gzipped is told by its first bytes. InputError: it is not there, or its gzip is damaged.
    """
    return ((line.number, line.content) for line in lines_from(path))


def lines_from(path: Path, start: int = 0, number: int = 1) -> Iterator[Line]:
    """As `numbered_lines`, from the line of that number, which begins at that byte. A gzipped file is unpacked up to there."""
    if not path.is_file():
        raise InputError(f"{path}: is a folder; a file of lines is wanted" if path.is_dir() else f"{path}: does not exist")
    with _open(path) as file:
        try:
            file.seek(start)
            for number, line in enumerate(file, number):  # noqa: B020  # goes on from the number given
                content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if content.strip():
                    yield Line(number, start, content)
                start += len(line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: its gzip is damaged after line {number}: {error}. Get the file again") from None


def text_of_line(line: bytes) -> str:
    """The line as text, without blanks around it. BadLine where it is not UTF-8."""
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadLine(f"is not UTF-8 (byte 0x{line[error.start]:02x} at place {error.start + 1})") from None


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object that a line holds. BadLine where it holds anything else."""
    try:
        value = json.loads(text_of_line(line), parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise BadLine(f"is not JSON: {error.msg} at character {error.colno}") from None
    if not isinstance(value, dict):
        raise BadLine(f"holds a {type(value).__name__}; one JSON object a line is wanted")
    return value


def string_of(record: Mapping[str, Any], name: str) -> str:
    """A field without blanks around it, "" where it is absent or null. BadLine where it is no string."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise BadLine(f"its `{name}` is a {type(value).__name__}; a string is wanted")
    return (value or "").strip()


def document_of(record: Mapping[str, Any]) -> str:
    """The field `text`, its `title` on a line before it where there is one; "" where both are blank. BadLine where `text` is absent."""
    if "text" not in record:
        raise BadLine(f"has no `text`; its fields are {', '.join(record) or 'none'}")
    return "\n".join(part for part in (string_of(record, "title"), string_of(record, "text")) if part)


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    with open(path, "rb") as file:
        is_gzipped = file.read(2) == _GZIP_START
    return gzip.open(path) if is_gzipped else open(path, "rb")


def _refuse(constant: str) -> NoReturn:
    raise BadLine(f"holds {constant}, which is not JSON")  # and which no shard could keep
