"""Where a set is written: a local folder, or a URL of any file system that fsspec knows. The same calls and the same bytes.

    folder = folder_of("s3://bucket/flickr")
    with folder.writing("manifest.json") as file: file.write(content)       # appears when complete, or not at all

A file for a URL is first written to a nameless local file, then uploaded whole, see `multimodal.urls.Transport`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa

from multimodal.boxes import atomic_write
from multimodal.errors import InputError
from multimodal.shards.table import IndexTable, open_table, read_table
from multimodal.urls import Transport, Unreachable, is_url, url_in

TRANSPORT = Transport()
"""How often and how long a write to a URL is tried."""


class Folder(Protocol):
    """A folder that a job writes. Names are relative to it, "parts/000003.json"; str() is its name in messages."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        ...

    def at(self, name: str) -> str:
        """A file's name in messages."""
        ...

    def size_bytes(self, name: str) -> int | None:
        """The size of a file; None if there is none."""
        ...

    def files(self, under: str = "") -> dict[str, int]:
        """Name -> size in bytes of the files in it, or in a folder in it; empty if there is no such folder."""
        ...

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The contents of small files that exist."""
        ...

    def tables(self, names: Sequence[str]) -> Iterable[IndexTable]:
        """Sidecars, which can be iterated over repeatedly; each is mapped when reached, or at a URL all are fetched into memory."""
        ...

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file that appears when complete. Nothing is left if the body, or the upload, fails."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; it may be gone already."""
        ...

    def remove_folder(self, name: str) -> None:
        """Remove a folder in it with all its files; it need not exist."""
        ...


def folder_of(path: str | Path) -> Folder:
    """The folder at a path, or at a URL given as a string. It need not exist yet."""
    if is_url(path):
        return RemoteFolder(str(path).rstrip("/"))
    if url := url_in(path):
        raise InputError(f"{url}: a URL converted to a Path; give it as a string")
    return LocalFolder(Path(path))


def split_place(path: str | Path) -> tuple[Folder, str]:
    """A file's folder, and its name there."""
    if is_url(path):
        url, _, name = str(path).rpartition("/")
        return folder_of(url), name
    return folder_of(Path(path).parent), Path(path).name


class LocalFolder:
    """See `Folder`. A file is on disk before it gets its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def at(self, name: str) -> str:
        return str(self.path / name)

    def size_bytes(self, name: str) -> int | None:
        path = self.path / name
        return path.stat().st_size if path.is_file() else None

    def files(self, under: str = "") -> dict[str, int]:
        try:
            with os.scandir(self.path / under) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def read(self, names: Sequence[str]) -> list[bytes]:
        return [(self.path / name).read_bytes() for name in names]

    def tables(self, names: Sequence[str]) -> Iterable[IndexTable]:
        return _Mapped([self.path / name for name in names])

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return atomic_write(self.path / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        if (self.path / name).is_dir():  # checked first: a finished set may be read-only
            shutil.rmtree(self.path / name)


class _Mapped:
    """Sidecars in a local folder, which do not stay open."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[IndexTable]:
        return map(open_table, self._paths)


class RemoteFolder:
    """See `Folder`. A failure is an InputError that names the URL, after several tries if those may help."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def at(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def size_bytes(self, name: str) -> int | None:
        try:
            found = TRANSPORT.info(self.at(name), is_fresh=True)
        except Unreachable as error:
            if error.is_absent:
                return None
            raise
        return int(found["size"]) if found["type"] == "file" else None

    def files(self, under: str = "") -> dict[str, int]:
        return TRANSPORT.files(self.at(under))

    def read(self, names: Sequence[str]) -> list[bytes]:
        return TRANSPORT.read_files(self.url, names)

    def tables(self, names: Sequence[str]) -> Iterable[IndexTable]:
        contents = self.read(names)
        return [read_table(pa.py_buffer(content), self.at(name)) for name, content in zip(names, contents, strict=True)]

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryFile() as file:  # nameless: a killed process leaves nothing
            try:
                yield file
                file.flush()
            except OSError as error:
                if error.filename is None:  # the error of a write on a full disk names no file
                    error.filename = tempfile.gettempdir()
                raise
            TRANSPORT.write(self.at(name), file)

    def remove(self, name: str) -> None:
        TRANSPORT.remove(self.at(name))

    def remove_folder(self, name: str) -> None:
        TRANSPORT.remove_folder(self.at(name))
