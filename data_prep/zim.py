"""A wiki as Kiwix ships it: a ZIM file, which holds the pages as HTML and the pictures beside them.

    zim = Zim(Path("wikipedia_en_all_maxi_2025-08.zim"))
    for page in zim.pages(bad=print): ...                      # read_html(page.html), whose pictures lie at picture_path(page.path, src)
    zim.picture("_assets_/0c70a452/Low_tide.jpg")

Entries lie in the order of their paths. libzim reads them (extra `zim`); pieces of the file are unpacked as they are needed, and 16 MB of
them are kept. Damage is noticed where a piece does not unpack; where it does, only openZIM's `zimcheck` finds it, by the file's checksum.
"""

from __future__ import annotations

import posixpath
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from data_prep.wiki_dump import OnBad
from multimodal.boxes import fingerprint_json
from multimodal.errors import InputError, missing_extra

if TYPE_CHECKING:
    from libzim.reader import Archive, Entry

_ZIM = re.compile(r".*\.zim(aa)?", re.IGNORECASE)  # .zimaa: the first of the files that a large one was split into
_ELSEWHERE = re.compile(r"[A-Za-z][\w+.-]*:|//")
_DAMAGE = (RuntimeError, UnicodeDecodeError)  # what libzim raises: of its own reading, of names


@dataclass(frozen=True, slots=True)
class HtmlPage:
    """path: what the entry is called in the ZIM file, where each is there once."""

    path: str
    title: str
    html: str


def is_zim(path: Path) -> bool:
    """By its name."""
    return _ZIM.fullmatch(path.name) is not None


def picture_path(page: str, src: str) -> str | None:
    """Where in the ZIM file a page's picture lies; None: it lies elsewhere on the web, or in the address itself.

    picture_path("Moon/Tides", "../_assets_/0c/Low%20tide.jpg") == "_assets_/0c/Low tide.jpg"
    """
    if _ELSEWHERE.match(src):
        return None
    relative = unquote(re.split(r"[?#]", src, maxsplit=1)[0])
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), relative)).lstrip("/")


class Zim:
    """An open ZIM file. InputError: it is none, is not whole, or libzim is not installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = _open(path)

    @property
    def fingerprint(self) -> str:
        """Of the name and the checksum that the file was given when it was made, so that a hundred GB need not be read for it."""
        checksum = self._archive.checksum if self._archive.has_checksum else ""
        return fingerprint_json([str(self._archive.uuid), checksum, self._archive.filesize])

    @property
    def num_entries(self) -> int:
        """Of every kind: pages, pictures, redirects, and what belongs to the file itself."""
        return self._archive.all_entry_count

    def page_entries(self) -> array[int]:
        """The numbers of the entries that are pages, ascending, 4 bytes each; some 50,000 entries a second are looked at."""
        return array("I", (number for number in range(self.num_entries) if self._is_page(number)))

    def pages(self, start: int = 0, stop: int | None = None, *, bad: OnBad) -> Iterator[HtmlPage]:
        """The pages among the entries of those numbers, redirects passed over; `bad` is told of those that are damaged."""
        for number in range(start, self.num_entries if stop is None else stop):
            name = f"entry {number}"
            try:
                entry = self._archive._get_entry_by_id(number)
                name = entry.path
                if _is_page(entry):
                    yield HtmlPage(name, entry.title, bytes(entry.get_item().content).decode("utf-8"))
            except _DAMAGE as error:
                bad(self.path.name, name, f"cannot be read: {error}")

    def picture(self, path: str) -> bytes:
        """The content of an entry, redirects followed. InputError: there is none of that path, or it is damaged."""
        try:
            return bytes(self._archive.get_entry_by_path(path).get_item().content)
        except KeyError:
            raise InputError(f"{self.path.name} holds no {path}") from None
        except _DAMAGE as error:
            raise InputError(f"{path} cannot be read: {error}") from None

    def _is_page(self, number: int) -> bool:
        try:
            return _is_page(self._archive._get_entry_by_id(number))
        except _DAMAGE:  # which is told by whoever reads it
            return False


def _is_page(entry: Entry) -> bool:
    return not entry.is_redirect and entry.get_item().mimetype.startswith("text/html")


def _open(path: Path) -> Archive:
    if not path.is_file():
        raise InputError(f"{path}: does not exist; a ZIM file is wanted")
    try:
        from libzim.reader import Archive
    except ModuleNotFoundError:
        raise missing_extra("zim", f"{path}: needs the package libzim, which is not installed") from None
    try:
        return Archive(path)
    except RuntimeError as error:
        raise InputError(f"{path}: is no whole ZIM file: {error}. Get it again") from None
