"""The content of a file of captions, in any format: pictures in the order of their first mention, each with its captions.

entries = Entries(Path("captions.tsv"), ledger)
entries.add("line 2", "a.jpg", "A dog .", "train")
"""

from __future__ import annotations

import math
import posixpath
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.files.text_files import name_of
from multimodal.errors import InputError
from multimodal.shards import Ledger
from multimodal.shards.format import broken_text

_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
"""Our names of the two usual splits, by a source's spelling; other names are kept."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns of a table, or the fields of JSON Lines; None: the usual names (`data_prep.files.columns`).

    names: of all columns, for a table without a header line. encoding: of a text file; None: detected.
    """

    file: str | None = None
    caption: str | None = None
    split: str | None = None
    names: tuple[str, ...] | None = None
    encoding: str | None = None

    def refuse_for(self, path: Path, format: str) -> None:
        """InputError if columns were named for a format whose fields are fixed."""
        if replace(self, encoding=None) != Columns():
            options = "--file-column, --caption-column, --split-column and --columns"
            raise InputError(f"{path}: is {format}, whose field names are fixed; leave out {options}")

    def refuse_text_options(self, path: Path, format: str) -> None:
        """InputError if options were given that are only for text files."""
        if self.names is not None:
            raise InputError(f"{path}: is {format}, which names its own columns; leave out --columns")
        if self.encoding is not None:
            raise InputError(f"{path}: is {format}, which needs no encoding; leave out --encoding")


@dataclass(slots=True)
class Entry:
    """One picture. place: of its first mention, "line 2" or "images[1]"."""

    file: str
    place: str
    split: str
    captions: list[str] = field(default_factory=list)


class Entries:
    """The pictures of one file of captions. Unusable rows go to the ledger, by their place."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self._ledger = ledger
        self._by_file: dict[str, Entry] = {}
        self.num_rows = 0
        self.note = ""
        """How the file was read, to report. is_plain: it was read in the documented format, so there is nothing to report."""
        self.is_plain = True

    def add(self, place: str, file: Any, captions: Any, split: Any = "") -> None:
        """Add one row: a picture's file, or a list of one; a caption or a list of captions; and the source's own split ("" or None: none).

        InputError if the picture is already in another split.
        """
        if isinstance(file, list) and len(file) == 1:
            [file] = file
        file = file.strip() if isinstance(file, str) else ""
        if not file:
            return self.bad(place, "", "names no picture")
        given = captions if isinstance(captions, list) else [captions]
        texts = [caption for caption in given if not _is_missing(caption)]
        if not all(isinstance(caption, str) for caption in texts):
            return self.bad(place, file, f"its captions: expected a string or a list of strings, got {captions!r:.60}")
        own = _split_of(split)
        if own is None:
            return self.bad(place, file, f"its split: expected a string or a number, got {split!r:.60}")
        if reason := broken_text([file, texts, own]):
            return self.bad(place, file, reason)
        texts = [text.strip() for text in texts if text.strip()]
        if not texts:
            return self.bad(place, file, "has no text")
        self.num_rows += 1
        entry = self._by_file.setdefault(_as_one(file), Entry(file, place, own))
        if entry.split != own:
            raise InputError(
                f"{self.path} {place}: {file} is in split {own!r} here and in {entry.split!r} at {entry.place}. Put it into one split"
            )
        entry.captions += texts

    def note_encoding(self, encoding: str) -> None:
        """Note the file's encoding."""
        self.note, self.is_plain = f"read as {name_of(encoding)}", name_of(encoding) == "UTF-8"

    def bad(self, place: str, file: str, reason: str) -> None:
        """Add an unusable row to the ledger."""
        self.num_rows += 1
        self._ledger.bad(f"{self.path.name} {place}", file, reason)

    def __contains__(self, file: object) -> bool:
        return isinstance(file, str) and bool(file) and _as_one(file) in self._by_file

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_file.values())


def _is_missing(value: Any) -> bool:
    """None, or NaN, which pandas writes for missing values."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _split_of(value: Any) -> str | None:
    """A split as a string, "train" and "test" in lower case; None if it is neither a string nor a number."""
    if _is_missing(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return _SPLITS.get(text.lower(), text)


def _as_one(file: str) -> str:
    """One form for all spellings of a path: with backslashes or slashes, composed or decomposed, with ./ or without."""
    return unicodedata.normalize("NFC", posixpath.normpath(file.replace("\\", "/")))
