"""Files of lines, plain or gzipped, read as a stream: JSON Lines, or texts with one document per line.

for number, line in numbered_lines(Path("articles.jsonl.gz")):
    text = document_of(json_object(line))     # BadLine says what is wrong with this line
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.files.text_files import MAX_LINE_BYTES, open_text, open_unpacked
from multimodal.errors import InputError
from multimodal.shards.format import broken_text

JSON_LINES = (".jsonl", ".jsonl.gz")
"""Suffixes of files of JSON Lines."""


class BadLine(ValueError):
    """A line cannot be used; the message is the reason, for a ledger or an InputError."""


@dataclass(frozen=True, slots=True)
class Line:
    """number: from 1. start: the byte offset at which it begins, after decompression and in UTF-8. content: in UTF-8."""

    number: int
    start: int
    content: bytes


def numbered_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, bytes]]:
    """(number, line) for each line that is not blank, counted from 1, in UTF-8; without a byte order mark at the start.

    Gzip is recognised by the file's first bytes. A line longer than `MAX_LINE_BYTES` is cut to just above that, and `text_of_line` refuses
    it. InputError: the file does not exist, or its gzip is damaged.
    """
    return ((line.number, line.content) for line in lines_from(path, encoding=encoding))


def lines_from(path: Path, start: int = 0, number: int = 1, encoding: str = "utf-8") -> Iterator[Line]:
    """As `numbered_lines`, from the line of that number, which begins at that byte. Compressed or recoded files are read up to there."""
    if not path.is_file():
        raise InputError(f"{path}: is a folder; give a file of lines" if path.is_dir() else f"{path}: does not exist")
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
    """The line as text, stripped. BadLine if it is not UTF-8, or is too long."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadLine(f"is not UTF-8 (byte 0x{line[error.start]:02x} at place {error.start + 1})") from None


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; BadLine if it is anything else.

    NaN and Infinity, which Python writes and JSON does not allow, become None: pandas writes NaN for missing values.
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
        raise BadLine(f"expected one JSON object per line, got a {type(value).__name__}")
    return value


def string_of(record: Mapping[str, Any], name: str) -> str:
    """A field, stripped; "" if it is absent or null. BadLine if it is not a string, or not a valid one."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise BadLine(f"its `{name}`: expected a string, got a {type(value).__name__}")
    if reason := broken_text(value):
        raise BadLine(f"its `{name}` {reason}")
    return (value or "").strip()


def document_of(record: Mapping[str, Any]) -> str:
    """The field `text`, with the `title`, if any, on a line before it; "" if both are blank. BadLine if `text` is absent."""
    if "text" not in record:
        raise BadLine(f"has no `text`; its fields are {', '.join(record) or 'none'}")
    return "\n".join(part for part in (string_of(record, "title"), string_of(record, "text")) if part)


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None  # 1e999
