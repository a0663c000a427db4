"""Where a set is written: a folder of this machine, or a URL of any file system that fsspec knows. The same calls, and the same bytes.

    folder = folder_of("s3://bucket/flickr")
    with folder.writing("manifest.json") as file: file.write(content)       # there once it is whole, or not at all

What goes to a URL is written to a nameless local file first, and uploaded whole. An object store shows an object once all of it is there;
anywhere else the upload has another name until it is. fsspec is imported here, when the first URL is touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from multimodal.boxes import atomic_write
from multimodal.errors import InputError, missing_extra
from multimodal.shards.table import IndexTable, open_table, read_table
from multimodal.urls import is_url, url_in

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "hf"})
"""Protocols that publish an upload at its end, and whose rename is a copy. Others are taken for file systems: upload, then rename."""


class Folder(Protocol):
    """A folder that a job writes. Names are relative to it, "parts/000003.json"; str() is what a message calls it."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        ...

    def at(self, name: str) -> str:
        """What a message calls a file of it."""
        ...

    def size_bytes(self, name: str) -> int | None:
        """Of a file; None where there is none."""
        ...

    def files(self, under: str = "") -> dict[str, int]:
        """Name -> size in bytes of the files that lie in it, or in a folder of it; none where there is no such folder."""
        ...

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The contents of small files that are there."""
        ...

    def tables(self, names: Sequence[str]) -> Iterable[IndexTable]:
        """Sidecars, to be gone through as often as one likes; each mapped when its turn comes, or at a URL all fetched into memory."""
        ...

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file that is there once it is whole. Nothing is left where the body, or the upload, fails."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away; it may be gone already."""
        ...

    def remove_folder(self, name: str) -> None:
        """Take a folder in it away, with all files in it; there may be none."""
        ...


def folder_of(path: str | Path) -> Folder:
    """The folder at a path, or at a URL given as a string. It need not be there yet."""
    if is_url(path):
        return RemoteFolder(str(path).rstrip("/"))
    if url := url_in(path):
        raise InputError(f"{url}: a URL that was made a Path; give it as a string")
    return LocalFolder(Path(path))


def split_place(path: str | Path) -> tuple[Folder, str]:
    """The folder that a file lies in, and the file's name there."""
    if is_url(path):
        url, _, name = str(path).rpartition("/")
        return folder_of(url), name
    return folder_of(Path(path).parent), Path(path).name


class LocalFolder:
    """See `Folder`. What is written is on disk before it has its name."""

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
        if (self.path / name).is_dir():  # looked at first: a finished set may lie where nothing can be written
            shutil.rmtree(self.path / name)


class _Mapped:
    """Sidecars in a folder of this machine, which do not stay open."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[IndexTable]:
        return map(open_table, self._paths)


class RemoteFolder:
    """See `Folder`. Whatever the file system raises is an InputError that names the URL; it has tried again by itself where it does."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def at(self, name: str) -> str:
        return f"{self.url}/{name}"

    def size_bytes(self, name: str) -> int | None:
        with self._reached(name, "looked at") as (system, path):
            try:
                found = system.info(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return int(found["size"]) if found["type"] == "file" else None

    def files(self, under: str = "") -> dict[str, int]:
        with self._reached(under, "listed") as (system, path):
            try:
                found = system.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            return {entry["name"].rpartition("/")[2]: int(entry["size"]) for entry in found if entry["type"] == "file"}

    def read(self, names: Sequence[str]) -> list[bytes]:
        with self._reached("", "read") as (system, path):
            # many at a time, where the file system is asynchronous
            return list(system.cat_ranges([f"{path}/{name}" for name in names], None, None, on_error="raise")) if names else []

    def tables(self, names: Sequence[str]) -> Iterable[IndexTable]:
        contents = self.read(names)
        return [read_table(pa.py_buffer(content), self.at(name)) for name, content in zip(names, contents, strict=True)]

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryFile() as file:  # nameless: a process that is killed leaves nothing
            try:
                yield file
                file.flush()
            except OSError as error:
                if error.filename is None:  # a write on a full disk knows no name
                    error.filename = tempfile.gettempdir()
                raise
            with self._reached(name, "written") as (system, path):
                _upload(system, f"/dev/fd/{file.fileno()}", path)

    def remove(self, name: str) -> None:
        with self._reached(name, "removed") as (system, path), suppress(FileNotFoundError):
            system.rm_file(path)

    def remove_folder(self, name: str) -> None:
        if self.files(name):
            with self._reached(name, "removed") as (system, path):
                system.rm(path, recursive=True)

    @contextmanager
    def _reached(self, name: str, action: str) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it. Not held: fsspec keeps one instance a process, and this object travels to others."""
        url = self.at(name) if name else self.url
        try:
            import fsspec  # noqa: F401  (below, an ImportError is of the package of one file system, such as s3fs)
        except ImportError:
            raise missing_extra("remote", f"{url}: a URL needs fsspec") from None
        try:
            from fsspec.core import url_to_fs

            system, path = url_to_fs(url)
            system.invalidate_cache()  # s3fs and others keep what they listed, and find nothing there that another process wrote since
            yield system, path
        except Exception as error:  # file systems raise what their own libraries do: aiohttp, botocore, google.auth
            told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            remedy = "Are the credentials and the URL right? What is finished stays: the same command goes on from there"
            raise InputError(f"{url}: could not be {action}: {told.rstrip('.')}. {remedy}") from error


def _upload(system: Any, file: str, path: str) -> None:
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if protocols & OBJECT_STORES:
        system.put_file(file, path)
        return
    parent, _, name = path.rpartition("/")
    temporary = f"{parent}/.{name}.{secrets.token_hex(4)}.part"
    system.makedirs(parent, exist_ok=True)
    try:
        system.put_file(file, temporary)
        system.mv(temporary, path)
    except BaseException:
        with suppress(Exception):  # of a line that is down, say: what is told is the first error, and the next run clears this up
            system.rm_file(temporary)
        raise
