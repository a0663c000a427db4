"""Files of lines, plain or gzipped, read as a stream: JSON Lines, or texts with one document a line.

for number, line in numbered_lines(Path("articles.jsonl.gz")):
    text = document_of(json_object(line))     # BadLine says what is wrong with this one
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.text_files import MAX_LINE_BYTES, open_text, open_unpacked
from multimodal.errors import InputError
from multimodal.shards.format import broken_text

JSON_LINES = (".jsonl", ".jsonl.gz")
"""How a file of them ends."""


class BadLine(ValueError):
    """A line is not what was wanted; the message is the reason, for the ledger of a source or for an InputError."""


@dataclass(frozen=True, slots=True)
class Line:
    """number: from 1. start: the byte at which it begins, in what is unpacked of a gzipped file, and in UTF-8. content: in UTF-8."""

    number: int
    start: int
    content: bytes


def numbered_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, bytes]]:
    """(number, line) for each line that is not blank, counted from 1, in UTF-8; a byte order mark at the start is taken away.

    The first bytes of the file say whether it is gzipped. Of a line longer than `MAX_LINE_BYTES` only the beginning is kept, and that is
    still too long: `text_of_line` refuses it. InputError: the file is not there, or its gzip is damaged.
    """
    return ((line.number, line.content) for line in lines_from(path, encoding=encoding))


def lines_from(path: Path, start: int = 0, number: int = 1, encoding: str = "utf-8") -> Iterator[Line]:
    """As `numbered_lines`, from the line of that number, which begins at that byte. What is packed or not UTF-8 is read up to there."""
    if not path.is_file():
        raise InputError(f"{path}: is a folder; a file of lines is wanted" if path.is_dir() else f"{path}: does not exist")
    if encoding in ("utf-8", "utf-8-sig"):
        with open_unpacked(path) as file:
            file.seek(start)
            yield from _lines(file.readline, start, number)
    else:
        with open_text(path, encoding, newline="\n") as text:
            lines = _lines(lambda size: text.readline(size).encode("utf-8", "surrogatepass"), 0, 1)
            yield from (line for line in lines if line.start >= start)


def _lines(readline: Callable[[int], bytes], start: int, number: int) -> Iterator[Line]:
    while content := readline(MAX_LINE_BYTES + 1):
        size_bytes, rest = len(content), content
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = readline(MAX_LINE_BYTES + 1)
            size_bytes += len(rest)
        line = content.removeprefix(codecs.BOM_UTF8) if number == 1 else content
        if line.strip():
            yield Line(number, start, line)
        start += size_bytes
        number += 1


def text_of_line(line: bytes) -> str:
    """The line as text, without blanks around it. BadLine where it is not UTF-8, or is too long."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadLine(f"is not UTF-8 (byte 0x{line[error.start]:02x} at place {error.start + 1})") from None


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object that a line holds; BadLine where it holds anything else.

    NaN and Infinity, which Python writes and JSON does not know, are None: pandas writes NaN for what is missing.
    """
    text = text_of_line(line)
    try:
        value = json.loads(text, parse_constant=lambda name: None, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise BadLine(f"is not JSON: {error.msg} at character {error.colno}") from None
    except RecursionError:
        raise BadLine("is JSON that is nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise BadLine(f"is JSON that cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise BadLine(f"holds a {type(value).__name__}; one JSON object a line is wanted")
    return value


def string_of(record: Mapping[str, Any], name: str) -> str:
    """A field without blanks around it, "" where it is absent or null. BadLine where it is no string, or no valid one."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise BadLine(f"its `{name}` is a {type(value).__name__}; a string is wanted")
    if reason := broken_text(value):
        raise BadLine(f"its `{name}` {reason}")
    return (value or "").strip()


def document_of(record: Mapping[str, Any]) -> str:
    """The field `text`, its `title` on a line before it where there is one; "" where both are blank. BadLine where `text` is absent."""
    if "text" not in record:
        raise BadLine(f"has no `text`; its fields are {', '.join(record) or 'none'}")
    return "\n".join(part for part in (string_of(record, "title"), string_of(record, "text")) if part)


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None  # 1e999
