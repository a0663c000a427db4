"""Pictures by name, out of a folder or out of tars, for sources whose texts lie in a file beside the pictures.

with Images(Path("flickr8k")) as images: encoded = images.read("1000268201_693b08cb0e.jpg")
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from data_prep.sources import input_fingerprint
from multimodal.errors import InputError


class Images:
    """A folder of pictures, a folder of tars whose members are found by full path or by bare name, or one tar.

    path: names are relative to it. Tars in the folder and plain files serve side by side.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"{path}: does not exist; the folder or the .tar with the pictures is wanted (--images)")
        self.path = path
        self._open = ExitStack()
        self._members: dict[str, tuple[IO[bytes], int, int]] = {}
        self._paths_of: dict[str, list[str]] = {}
        """Full path, and bare name -> the members' full paths that it may mean, one for each member."""

    def __enter__(self) -> Images:
        for path in _tars(self.path):
            file = self._open.enter_context(open(path, "rb"))
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    for member in tar:
                        if member.isfile():
                            self._add(member.name.removeprefix("./"), (file, member.offset_data, member.size))
            except tarfile.TarError as error:
                raise InputError(f"{path}: is not a whole, uncompressed tar: {error}") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _add(self, name: str, where: tuple[IO[bytes], int, int]) -> None:
        self._members[name] = where
        for called in {name, name.rpartition("/")[2]}:
            self._paths_of.setdefault(called, []).append(name)

    def read(self, name: str) -> bytes | None:
        """The picture's bytes, None where there is none of that name. InputError where several members could be meant."""
        meant = self._paths_of.get(name, [])
        exact = [path for path in meant if path == name]
        if len(exact or meant) > 1:
            raise InputError(f"{self.path}: several members of its tars are called {name}; give their folders with the names")
        if meant:
            file, offset, size = self._members[(exact or meant)[0]]
            file.seek(offset)
            return file.read(size)
        path = self.path / name
        return path.read_bytes() if self.path.is_dir() and path.is_file() else None


def images_fingerprint(path: Path, names: Iterable[str]) -> str:
    """What the pictures of these names are read from: the tars, and the plain files that are there."""
    named = (path / name for name in names)
    return input_fingerprint(path, [*_tars(path), *(file for file in named if file.is_file())])


def _tars(path: Path) -> list[Path]:
    return sorted(path.glob("*.tar")) if path.is_dir() else [path]
