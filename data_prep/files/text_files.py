"""Text files as people have them: gzipped or not, and in an encoding detected from their bytes.

    encoding = encoding_of(Path("captions.csv"))            # "utf-8", "utf-16", "cp1252", ...
    with open_text(Path("captions.csv"), encoding) as file: ...

The encoding depends on the content alone, so every process that reads the file detects the same. Bytes that are invalid in it become lone
surrogates (`broken_text` of `multimodal.shards.format` reports them), so they cost the row that they are in, not the file.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TextIO

from multimodal.errors import InputError

MAX_LINE_BYTES = 64 << 20
"""The longest line, or row of a table, that is read (in a table: characters). A gzip of 2 MB can hold a line of 2 GB."""

_GZIP_START = b"\x1f\x8b"
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, because it begins with UTF-16's mark
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NAMES = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16 (little-endian, without a byte order mark)",
    "utf-16-be": "UTF-16 (big-endian, without a byte order mark)",
    "utf-32": "UTF-32",
    "cp1252": "Windows-1252 (Western European; --encoding names another)",
    "mac_roman": "Mac Roman (--encoding names another)",
}
_ONE_BYTE = ("cp1252", "mac_roman")
"""What Excel writes as CSV in Western Europe and the Americas: on Windows, and on a Mac. The first includes Latin-1."""

_CHUNK_BYTES = 1 << 20
_MAX_WORDS = 100_000
_NON_ASCII, _BROKEN = re.compile("[^\x00-\x7f]+"), re.compile("[\ud800-\udfff]+")
_WORD_BEYOND_ASCII = re.compile(rb"[A-Za-z]*[\x80-\xff][A-Za-z\x80-\xff]*")
_BETWEEN_LETTERS, _ALONE = frozenset("’‘–—…·\xa0\xad"), frozenset("“”„‚«»‹›€£©®™°§•½¼¾²")


def name_of(encoding: str) -> str:
    """The usual name of an encoding."""
    return _NAMES.get(encoding, encoding)


def encoding_of(path: Path, given: str | None = None) -> str:
    """Python's name of the encoding: the given one, or the one detected from the (decompressed) content.

    A byte order mark decides. Without one, UTF-16 is recognised by its zeros, UTF-8 by being valid (despite a few damaged bytes among many
    good characters), and anything else is Windows-1252 or Mac Roman, if its words then look like words.
    InputError: the file does not exist, the given encoding is unknown, or the text is in another encoding.
    """
    if given is not None:
        try:
            "".encode(given)  # fails for codecs that are not text encodings, such as zlib
            return codecs.lookup(given).name
        except LookupError:
            raise InputError(f"--encoding {given}: unknown text encoding. Examples: utf-8, utf-16, cp1252, cp1251, shift_jis") from None
    if not path.is_file():
        raise InputError(f"{path}: is a folder; give a file" if path.is_dir() else f"{path}: does not exist")
    facts = path.stat()
    return _detected(path, facts.st_size, facts.st_mtime_ns)


def announced_encoding(path: Path) -> str:
    """The encoding by the first bytes: a byte order mark, or the zeros of UTF-16; otherwise UTF-8, without reading the rest."""
    with open_unpacked(path) as file:
        head = file.read(4)
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    zeros = "".join("0" if byte == 0 else "x" for byte in head)
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros, "utf-8")


@contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed if its first bytes are gzip's. InputError if the gzip is damaged."""
    with open(path, "rb") as start:
        is_gzipped = start.read(2) == _GZIP_START
    with gzip.open(path) if is_gzipped else open(path, "rb") as file:
        try:
            yield file  # type: ignore[misc]  # a GzipFile works as well
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: its gzip is damaged: {error}. Download the file again") from None


@contextmanager
def open_text(path: Path, encoding: str, newline: str = "") -> Iterator[TextIO]:
    """The text of a file, without its byte order mark. newline: as for `open`; by default line ends are kept."""
    with open_unpacked(path) as file, io.TextIOWrapper(file, encoding, errors=_errors(encoding), newline=newline) as text:
        try:
            yield text
        except UnicodeDecodeError as error:  # of UTF-16: half a character at the end
            raise InputError(f"{path}: is not valid {name_of(encoding)} at its end: {error.reason}. Download the file again") from None


def read_text(path: Path, encoding: str) -> str:
    """All of a text file."""
    with open_text(path, encoding) as file:
        return file.read()


def bounded_lines(file: TextIO) -> Iterator[str]:
    """Lines with their line ends. A line longer than `MAX_LINE_BYTES` is cut to just above that."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(("\n", "\r")):
            line = file.readline(MAX_LINE_BYTES + 1)


def _errors(encoding: str) -> str:
    return "surrogatepass" if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")) else "surrogateescape"


@lru_cache(maxsize=8)
def _detected(path: Path, size_bytes: int, mtime_ns: int) -> str:
    announced = announced_encoding(path)
    if announced != "utf-8":
        return announced
    num_good = num_broken = 0
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in _chunks(path):
        text = decoder.decode(chunk)
        if not text.isascii():
            broken = _BROKEN.findall(text)
            num_broken += sum(map(len, broken))
            num_good += sum(map(len, _NON_ASCII.findall(text))) - sum(map(len, broken))
    num_broken += len(decoder.decode(b"", final=True))
    return "utf-8" if not num_broken or num_good > num_broken else _one_byte_encoding(path)


def _one_byte_encoding(path: Path) -> str:
    """Windows-1252 or Mac Roman; InputError if neither turns the bytes above ASCII into words."""
    words: list[bytes] = []
    for chunk in _chunks(path):
        words += _WORD_BEYOND_ASCII.findall(chunk)
        if len(words) >= _MAX_WORDS:
            break
    best = min(_ONE_BYTE, key=lambda encoding: _strangeness(words, encoding))  # Windows-1252 if they are equal
    if _strangeness(words, best) > 0.1:
        first = next(byte for byte in words[0] if byte >= 0x80)
        raise InputError(
            f"{path} line {_line_of(path, words[0])}: is neither UTF-8 (byte 0x{first:02x}) nor Western European text. "
            "Name its encoding with --encoding, for example cp1251 or koi8-r (Cyrillic), cp1250 (Central Europe), shift_jis or gb18030"
        )
    return best


def _strangeness(words: list[bytes], encoding: str) -> float:
    """The share of non-ASCII characters that no Western word has at that place; 1 if the words are mostly not ASCII."""
    num, num_strange, num_foreign, num_ascii = 0, 0, 0, 0
    for word in (f" {word.decode(encoding, 'replace')} " for word in words):
        for before, one, after in zip(word, word[1:], word[2:], strict=False):
            if one.isascii():
                num_ascii += 1
                continue
            num += 1
            num_foreign += one not in _BETWEEN_LETTERS and one not in _ALONE
            if one.isalpha():
                num_strange += one.isupper() and before.islower()
            elif one not in _BETWEEN_LETTERS:
                num_strange += one == "\ufffd" or (before.isalpha() and after.isalpha())
    return 1.0 if num_foreign > 2 * num_ascii else num_strange / max(num, 1)


def _line_of(path: Path, content: bytes) -> int:
    number = 1
    for chunk in _chunks(path):
        if (at := chunk.find(content)) >= 0:
            return number + chunk.count(b"\n", 0, at)
        number += chunk.count(b"\n")
    return number


def _chunks(path: Path) -> Iterator[bytes]:
    with open_unpacked(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
