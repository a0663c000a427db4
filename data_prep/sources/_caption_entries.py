"""What a file of captions says, whatever its format: pictures in the order of their first mention, each with its captions.

entries = Entries(Path("captions.tsv"), ledger)
entries.add("line 2", "a.jpg", "A dog .", "train")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimodal.errors import InputError
from multimodal.shards import Ledger


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a table, or the fields of JSON Lines, are called. split: None for `split` where there is one."""

    file: str = "file"
    caption: str = "caption"
    split: str | None = None

    def refuse_for(self, path: Path, format: str) -> None:
        """InputError where columns were named for a format that has none to name."""
        if self != Columns():
            options = "--file-column, --caption-column and --split-column"
            raise InputError(f"{path}: is {format}, whose fields have their own names; leave out {options}")


@dataclass(slots=True)
class Entry:
    """One picture. place: where it is first mentioned, "line 2" or "images[1]"."""

    file: str
    place: str
    split: str
    captions: list[str] = field(default_factory=list)


class Entries:
    """The pictures of one file of captions. What cannot be used of it goes to the ledger, by its place."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self._ledger = ledger
        self._by_file: dict[str, Entry] = {}
        self.num_rows = 0

    def add(self, place: str, file: Any, captions: Any, split: Any = "") -> None:
        """One row: a picture's file, one caption or a list of them, and the source's own split ("" or None: it has none).

        InputError where the picture was put into another split before.
        """
        file = file.strip() if isinstance(file, str) else ""
        captions = [captions] if isinstance(captions, str) else [] if captions is None else captions
        if not file:
            return self.bad(place, "", "names no picture")
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            return self.bad(place, file, f"its captions are {captions!r:.60}; a string or a list of strings is wanted")
        if not isinstance(split, str | None):
            return self.bad(place, file, f"its split is {split!r}; a string is wanted")
        texts = [caption.strip() for caption in captions if caption.strip()]
        if not texts:
            return self.bad(place, file, "has no text")
        self.num_rows += 1
        own = (split or "").strip()
        entry = self._by_file.setdefault(file, Entry(file, place, own))
        if entry.split != own:
            raise InputError(f"{self.path} {place}: {file} is in split {own!r} here and in {entry.split!r} at {entry.place}")
        entry.captions += texts

    def bad(self, place: str, file: str, reason: str) -> None:
        """Write down a row that cannot be used."""
        self.num_rows += 1
        self._ledger.bad(f"{self.path.name} {place}", file, reason)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_file.values())
