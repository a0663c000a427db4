"""Reading ZIM files, the format of Kiwix: the pages of a wiki as HTML, with their pictures.

    zim = Zim(Path("wikipedia_en_all_maxi_2025-08.zim"))
    for page in zim.pages(bad=print): ...                      # read_html(page.html); its pictures are at picture_path(page.path, src)
    zim.picture("_assets_/0c70a452/Low_tide.jpg")

Entries are sorted by path. libzim reads them (extra `zim`); it decompresses clusters as they are needed and caches 16 MB of them. A damaged
cluster is noticed only if it does not decompress; openZIM's `zimcheck` finds all damage, by the file's checksum.
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

from data_prep.wiki.dump import OnBad
from multimodal.boxes import fingerprint_json
from multimodal.errors import InputError, missing_extra

if TYPE_CHECKING:
    from libzim.reader import Archive, Entry

_ZIM = re.compile(r".*\.zim(aa)?", re.IGNORECASE)  # .zimaa: the first file of a split ZIM file
_ELSEWHERE = re.compile(r"[A-Za-z][\w+.-]*:|//")
_DAMAGE = (RuntimeError, UnicodeDecodeError)  # what libzim raises for damaged content and for names that are not UTF-8


@dataclass(frozen=True, slots=True)
class HtmlPage:
    """path: the path of the entry, unique in the ZIM file."""

    path: str
    title: str
    html: str


def is_zim(path: Path) -> bool:
    """Whether the file name is that of a ZIM file."""
    return _ZIM.fullmatch(path.name) is not None


def picture_path(page: str, src: str) -> str | None:
    """The path in the ZIM file of a page's picture; None for an absolute URL or a data URL.

    picture_path("Moon/Tides", "../_assets_/0c/Low%20tide.jpg") == "_assets_/0c/Low tide.jpg"
    """
    if _ELSEWHERE.match(src):
        return None
    relative = unquote(re.split(r"[?#]", src, maxsplit=1)[0])
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), relative)).lstrip("/")


class Zim:
    """An open ZIM file. InputError if it is not a complete ZIM file, or libzim is not installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = _open(path)

    @property
    def fingerprint(self) -> str:
        """A hash of the UUID, the checksum and the size that are stored in the file, so that 100 GB need not be read."""
        checksum = self._archive.checksum if self._archive.has_checksum else ""
        return fingerprint_json([str(self._archive.uuid), checksum, self._archive.filesize])

    @property
    def num_entries(self) -> int:
        """The number of entries of every kind: pages, pictures, redirects and metadata."""
        return self._archive.all_entry_count

    def page_entries(self) -> array[int]:
        """The numbers of the entries that are pages, ascending, 4 bytes each; about 50,000 entries are examined per second."""
        return array("I", (number for number in range(self.num_entries) if self._is_page(number)))

    def pages(self, start: int = 0, stop: int | None = None, *, bad: OnBad) -> Iterator[HtmlPage]:
        """The pages among the entries start to stop - 1, without redirects; `bad` is called for each entry that is damaged."""
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
        """The content of an entry; redirects are followed. InputError if there is no entry of that path, or it is damaged."""
        try:
            return bytes(self._archive.get_entry_by_path(path).get_item().content)
        except KeyError:
            raise InputError(f"{self.path.name} has no entry {path}") from None
        except _DAMAGE as error:
            raise InputError(f"{path} cannot be read: {error}") from None

    def _is_page(self, number: int) -> bool:
        try:
            return _is_page(self._archive._get_entry_by_id(number))
        except _DAMAGE:  # `pages` reports it
            return False


def _is_page(entry: Entry) -> bool:
    return not entry.is_redirect and entry.get_item().mimetype.startswith("text/html")


def _open(path: Path) -> Archive:
    if not path.is_file():
        raise InputError(f"{path}: does not exist; expected a ZIM file")
    try:
        from libzim.reader import Archive
    except ModuleNotFoundError:
        raise missing_extra("zim", f"{path}: needs the package libzim, which is not installed") from None
    try:
        return Archive(path)
    except RuntimeError as error:
        raise InputError(f"{path}: is not a complete ZIM file: {error}. Download it again") from None
