"""Pictures by name, from a folder or from tars, for sources whose texts are in a file beside the pictures.

with Images(Path("flickr8k")) as images: encoded = images.read("1000268201_693b08cb0e.jpg")
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote

from data_prep.sources import input_fingerprint
from multimodal.errors import InputError
from multimodal.pictures.decode import BadPicture
from multimodal.pictures.folders import PictureWalk
from multimodal.shards.format import broken_text
from multimodal.shards.scan import OpenTar

_ADDRESS = re.compile("https?://", re.IGNORECASE)


class Images:
    """A folder of pictures, a folder of tars whose members are found by full path or by bare name, or one tar.

    path: names are relative to it. A folder may have both tars and plain files. The content of tars is listed once per process.
    names: all names that `read_named` will be asked for, needed to resolve absolute paths from other machines.
    allow_outside: whether names may lead out of the folder.
    """

    def __init__(self, path: Path, names: Collection[str] = (), allow_outside: bool = False) -> None:
        if not path.exists():
            raise InputError(f"{path}: does not exist; give the folder or the .tar of the pictures with --images")
        self.path = path
        self._names, self._allow_outside = names, allow_outside
        self._open = ExitStack()
        self._files: dict[Path, IO[bytes]] = {}
        self._index = _Index({}, {}, [])
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def __enter__(self) -> Images:
        self._index = _index_of(_tars(self.path))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def read(self, name: str) -> bytes | None:
        """The picture's bytes, None if no member has that name. InputError if several members match."""
        try:
            found = self._exact(name)
            return None if found is None else self._content(found)
        except BadPicture as error:
            raise InputError(f"{self.path}: {error}") from None

    def read_named(self, name: str) -> bytes:
        """The bytes of the picture with that name in a table. BadPicture if none or several match, or it cannot be read.

        The exact name is tried first; then with accents composed or decomposed, then ignoring case; each also with \\ for / and %20 for a
        blank. For an absolute path that does not exist, its last components are matched.
        """
        return self._content(self._find(name))

    def fingerprint(self, names: Iterable[str]) -> str:
        """Fingerprint of what these pictures are read from: the tars, and the existing plain files. Reports damaged tars on stderr."""
        _report(self._index.damage)
        files = []
        for name in names:
            try:
                found = self._find(name)
            except BadPicture:  # reported when the pictures are read
                continue
            if isinstance(found, Path):
                files.append(found)
        return input_fingerprint(self.path, [*_tars(self.path), *files])

    def _find(self, name: str) -> Path | _Member:
        plain = _plain(name)
        spellings = list(dict.fromkeys((name, posixpath.normpath(name.replace("\\", "/")), plain)))
        for look in (self._exact, self._like):
            for spelling in spellings:
                if (found := look(spelling)) is not None:
                    return found
        for ending in _endings(plain, self.path.absolute().name) if self._names else ():
            if (found := self._exact(ending) or self._like(ending)) is not None:
                self._check_alone(ending)
                return found
        raise BadPicture(self._why_none(name, spellings))

    def _check_alone(self, path: str) -> None:
        """BadPicture if more than one of the names can mean this path."""
        if self._num_meaning[_key(path)] > 1:
            raise BadPicture(f"could be {path} in {self.path}, which another name can mean as well; write it as the file is called")

    def _why_none(self, name: str, spellings: Sequence[str]) -> str:
        if _ADDRESS.match(name):
            return "is an address and no file; pictures are fetched by: data-prep make-shards urls"
        if not self._allow_outside and any(self._is_outside(spelling) for spelling in spellings):
            return f"lies outside of {self.path}; such pictures are read with --allow-outside, or from another folder with --images"
        return f"no such picture in {self.path}"

    def _exact(self, name: str) -> Path | _Member | None:
        """The file or member with exactly that name. BadPicture if several members have it."""
        meant = self._index.paths_of.get(name, [])
        exact = [path for path in meant if path == name]
        if len(exact or meant) > 1:
            raise BadPicture(f"several members of its tars are called {name}; give their folders with the names")
        if meant:
            return self._index.members[(exact or meant)[0]]
        if self.path.is_dir() and _is_path(name) and (self._allow_outside or not self._is_outside(name)):
            return path if _is_file(path := self.path / name) else None
        return None

    def _like(self, name: str) -> Path | _Member | None:
        """The file or member whose name differs only in accents or case. BadPicture if there are several."""
        if not _is_path(name) or self._is_outside(name):
            return None
        members = {path for one in self._index.like.get(_key(name), []) for path in self._index.paths_of[one]}
        parts = PurePosixPath(os.path.relpath(self._absolute(name), self.path.absolute())).parts
        files = [file for file in self._files_like(parts) if _is_file(file)] if self.path.is_dir() else []
        found: dict[str, Path | _Member] = {
            **{path: self._index.members[path] for path in sorted(members)},
            **{str(file.relative_to(self.path)): file for file in files},
        }
        composed = unicodedata.normalize("NFC", name)
        equal = [one for path, one in found.items() if unicodedata.normalize("NFC", path).endswith(composed)]
        nearest = equal or list(found.values())
        if len(nearest) > 1:
            raise BadPicture(f"could be {' or '.join(list(found)[:3])} in {self.path}; write it as the file is called")
        if found and not equal:
            self._check_alone(next(iter(found)))
        return nearest[0] if nearest else None

    def _files_like(self, parts: Sequence[str]) -> list[Path]:
        """The paths in the folder whose components equal these, ignoring accents and case."""
        found = [self.path]
        for part in parts:
            found = [folder / name for folder in found for name in self._listing(folder).get(_key(part), [])]
        return found

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                for name in sorted(os.listdir(folder)):
                    listing.setdefault(_key(name), []).append(name)
            except OSError:  # not a folder, or not readable: nothing in it matches
                listing = {}
            self._listings[folder] = listing
        return self._listings[folder]

    def _absolute(self, name: str) -> PurePosixPath:
        return PurePosixPath(os.path.abspath(self.path.absolute() / name))

    def _is_outside(self, name: str) -> bool:
        """Whether the name as written leads out of the folder. Links inside the folder are the user's own, and are followed."""
        path = self._absolute(name)
        return self.path.is_dir() and not any(path.is_relative_to(root) for root in self._roots)

    @cached_property
    def _roots(self) -> tuple[str, str]:
        return os.path.abspath(self.path), os.path.realpath(self.path)

    @cached_property
    def _num_meaning(self) -> Counter[str]:
        """Path in the folder -> how many of the names can mean it."""
        folder = _key(self.path.absolute().name)
        counts: Counter[str] = Counter()
        for name in {_plain(name) for name in self._names}:
            counts.update({_key(name), *_endings(_key(name), folder)})
        return counts

    def _content(self, found: Path | _Member) -> bytes:
        try:
            if isinstance(found, Path):
                return found.read_bytes()
            if found.tar not in self._files:
                self._files[found.tar] = self._open.enter_context(open(found.tar, "rb"))
            self._files[found.tar].seek(found.offset)
            content = self._files[found.tar].read(found.size_bytes)
        except OSError as error:
            raise BadPicture(f"cannot be read: {error.strerror or error}") from None
        if missing := found.size_bytes - len(content):
            raise BadPicture(f"is cut off: {found.tar.name} ends {missing} bytes too early")
        return content


@dataclass(frozen=True, slots=True)
class _Member:
    """The location of a file in a tar."""

    tar: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class _Index:
    """members: by full path. paths_of: full path or bare name -> the full paths of the members that it may mean, one for each member.

    damage: a sentence for each damaged tar, whose readable members are used.
    """

    members: dict[str, _Member]
    paths_of: dict[str, list[str]]
    damage: list[str]

    @cached_property
    def like(self) -> dict[str, list[str]]:
        """The names of `paths_of`, by their form that ignores case and the composition of accents."""
        names: dict[str, list[str]] = {}
        for name in self.paths_of:
            names.setdefault(_key(name), []).append(name)
        return names


def _index_of(tars: Sequence[Path]) -> _Index:
    facts = ((tar, tar.stat()) for tar in tars)
    return _index(tuple((tar, stat.st_size, stat.st_mtime_ns) for tar, stat in facts))


def _report(damage: Sequence[str]) -> None:
    """Print to stderr; called when a fingerprint is taken, which a job does once, in its first process."""
    for sentence in damage:
        print(sentence, file=sys.stderr)


@lru_cache(maxsize=1)
def _index(tars: tuple[tuple[Path, int, int], ...]) -> _Index:
    """The content of the tars, given as (path, size in bytes, modification time), so that changed ones are read again.

    InputError if no file at all is found in a broken tar: it is compressed, or something else.
    """
    index = _Index({}, {}, [])
    for path, _, _ in tars:
        with OpenTar(path) as tar:
            num_members = 0
            for member in tar.files():
                num_members += 1
                name = member.name.removeprefix("./")
                index.members[name] = _Member(path, member.offset, member.size)
                for called in {name, name.rpartition("/")[2]}:
                    index.paths_of.setdefault(called, []).append(name)
        if tar.bad and not num_members:
            raise InputError(f"{path}: is not an uncompressed tar: {tar.bad[0].reason}. Unpack it, or download it again")
        if tar.bad:
            index.damage.append(f"{path}: is damaged; its readable files are used: {tar.bad[0].reason}")
    return index


def _plain(name: str) -> str:
    """The name with slashes, without ./ and %20, and with composed accents."""
    return unicodedata.normalize("NFC", posixpath.normpath(unquote(name.replace("\\", "/"))))


def _key(name: str) -> str:
    """Equal for names that differ only in case or in the composition of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _is_path(name: str) -> bool:
    """Whether it can be a path at all: no file name has a NUL or half of a surrogate pair."""
    return "\0" not in name and broken_text(name) is None


def _is_file(path: Path) -> bool:
    """Whether it is a file; False also for names that are too long, and paths through a circular link or an unreadable folder."""
    try:
        return path.is_file()
    except OSError:
        return False


def _endings(name: str, folder: str) -> Iterator[str]:
    """The endings of an absolute path, of Unix or Windows, longest first; or of a path that begins with the folder's own name."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        yield from ("/".join(parts[at:]) for at in range(1, len(parts)) if ".." not in parts[at:])
    elif len(parts) > 1 and parts[0] == folder and ".." not in parts:
        yield "/".join(parts[1:])


@dataclass(frozen=True, slots=True)
class Walk:
    """pictures: in the same order on every file system. num_passed_over: pictures that are hidden, or in system folders.
    unreadable: folders that cannot be listed.
    """

    pictures: list[Path]
    num_passed_over: int
    unreadable: list[Path]


def walk_pictures(path: Path) -> Walk:
    """The pictures, by their suffixes, in a folder and below it."""
    walk = PictureWalk(path)
    pictures = [path / name for name in walk]
    return Walk(pictures, walk.num_hidden, [path / folder for folder in walk.unreadable])


def pictures_below(path: Path) -> list[Path]:
    """See `walk_pictures`. Hidden files and folders, and those of the system (thumbnails, recycle bins), are skipped."""
    return walk_pictures(path).pictures


def images_fingerprint(path: Path) -> str:
    """Fingerprint of a folder of pictures: its tars and its picture files.

    Other files make no difference, such as shards that are written into the folder of the pictures.
    """
    tars = _tars(path)
    _report(_index_of(tars).damage)
    return input_fingerprint(path, [*tars, *pictures_below(path)])


def _tars(path: Path) -> list[Path]:
    return sorted(path.glob("*.tar")) if path.is_dir() else [path]
