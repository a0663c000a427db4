"""Pictures by name, out of a folder or out of tars, for sources whose texts lie in a file beside the pictures.

with Images(Path("flickr8k")) as images: encoded = images.read("1000268201_693b08cb0e.jpg")
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from data_prep.sources import input_fingerprint
from multimodal.errors import InputError
from multimodal.picture_files import PICTURE_SUFFIXES
from multimodal.system_files import is_system_file, is_system_name


class Images:
    """A folder of pictures, a folder of tars whose members are found by full path or by bare name, or one tar.

    path: names are relative to it. Tars in the folder and plain files serve side by side. What the tars hold is looked up once a process.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"{path}: does not exist; the folder or the .tar with the pictures is wanted (--images)")
        self.path = path
        self._open = ExitStack()
        self._files: dict[Path, IO[bytes]] = {}
        self._index = _Index({}, {})

    def __enter__(self) -> Images:
        facts = ((tar, tar.stat()) for tar in _tars(self.path))
        self._index = _index(tuple((tar, stat.st_size, stat.st_mtime_ns) for tar, stat in facts))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def read(self, name: str) -> bytes | None:
        """The picture's bytes, None where there is none of that name. InputError where several members could be meant."""
        meant = self._index.paths_of.get(name, [])
        exact = [path for path in meant if path == name]
        if len(exact or meant) > 1:
            raise InputError(f"{self.path}: several members of its tars are called {name}; give their folders with the names")
        if meant:
            member = self._index.members[(exact or meant)[0]]
            if member.tar not in self._files:
                self._files[member.tar] = self._open.enter_context(open(member.tar, "rb"))
            self._files[member.tar].seek(member.offset)
            return self._files[member.tar].read(member.size_bytes)
        path = self.path / name
        return path.read_bytes() if self.path.is_dir() and path.is_file() else None


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a file lies in a tar."""

    tar: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Index:
    """members: by full path. paths_of: full path, and bare name -> the members' full paths that it may mean, one for each member."""

    members: dict[str, _Member]
    paths_of: dict[str, list[str]]


@lru_cache(maxsize=1)
def _index(tars: tuple[tuple[Path, int, int], ...]) -> _Index:
    """What is in the tars: (path, size in bytes, time of the last change), by which one that has changed is read again."""
    index = _Index({}, {})
    for path, _, _ in tars:
        try:
            with tarfile.open(path, mode="r:") as tar:
                for member in tar:
                    if member.isfile():
                        name = member.name.removeprefix("./")
                        index.members[name] = _Member(path, member.offset_data, member.size)
                        for called in {name, name.rpartition("/")[2]}:
                            index.paths_of.setdefault(called, []).append(name)
        except tarfile.TarError as error:
            raise InputError(f"{path}: is not a whole, uncompressed tar: {error}") from None
    return index


@dataclass(frozen=True, slots=True)
class Walk:
    """pictures: in an order that is the same on every file system. num_passed_over: pictures that are hidden, or in folders that a system
    left behind. unreadable: folders that cannot be listed.
    """

    pictures: list[Path]
    num_passed_over: int
    unreadable: list[Path]


def walk_pictures(path: Path) -> Walk:
    """The pictures, by their suffixes, in a folder and below it."""
    pictures: list[Path] = []
    unreadable: list[Path] = []
    num_passed_over = 0
    for parent, folders, files in os.walk(path, onerror=lambda error: unreadable.append(Path(error.filename))):
        folders.sort()
        is_passed_over = is_system_file(os.path.relpath(parent, path))
        for name in sorted(files):
            if Path(name).suffix.lower().removeprefix(".") not in PICTURE_SUFFIXES:
                continue
            if is_passed_over or is_system_name(name):
                num_passed_over += 1
            else:
                pictures.append(Path(parent) / name)
    return Walk(pictures, num_passed_over, [folder for folder in unreadable if not is_system_file(os.path.relpath(folder, path))])


def pictures_below(path: Path) -> list[Path]:
    """See `walk_pictures`. Files and folders that are hidden, or that a system left behind (thumbnails, waste bins), are passed over."""
    return walk_pictures(path).pictures


def images_fingerprint(path: Path, names: Iterable[str] | None = None) -> str:
    """What the pictures of these names are read from, or of any name: the tars, and the plain files that are there.

    What else lies there does not enter, as the shards themselves where they are written into the folder of the pictures.
    """
    named = pictures_below(path) if names is None else (path / name for name in names)
    return input_fingerprint(path, [*_tars(path), *(file for file in named if file.is_file())])


def _tars(path: Path) -> list[Path]:
    return sorted(path.glob("*.tar")) if path.is_dir() else [path]
