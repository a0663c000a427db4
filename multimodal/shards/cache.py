"""A folder of fetched files with a bound on its bytes, which any number of processes and threads share.

    cache = Cache(Path("/scratch/cache"), max_bytes=20 * 2**30)
    with cache.opened("000000.tar", size_bytes=73_400_320, fetch=write_it) as descriptor: ...

A file is fetched by one of those that want it, while the others wait; it appears under its name when it is whole. Where room is needed, the
file that was opened longest ago goes, and never one that is open. Everything is said by file locks (flock) that the kernel takes back when
a process dies, so that a killed one leaves nothing to clean up by hand; the folder must be on a file system that has them.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from multimodal.errors import InputError

LOCK, PART = ".lock", ".part"
WAIT_S = 0.05
"""Between two looks for room, while all of it is open or being fetched."""


@dataclass(frozen=True)
class Cache:
    """folder: made where it is not there. max_bytes: of all files in it, those that are being fetched counted in full."""

    folder: Path
    max_bytes: int

    @contextmanager
    def opened(self, name: str, size_bytes: int, fetch: Callable[[IO[bytes]], None], again: bool = False) -> Iterator[int]:
        """A descriptor to read the file by, which stays in the folder as long as this is open.

        fetch writes the size_bytes bytes into a file, from its start; what it raises is raised here, and nothing of it is kept. InputError
        where the file alone is larger than the bound. again: fetched also where it is there, in place of that one; who has that one open
        goes on reading it. Where there is no room for both, that one goes first, as soon as nobody has it open: do not hold it yourself.
        """
        path = self.folder / name
        while True:
            if again or not path.exists():
                self._fetch(path, size_bytes, fetch, again)
                again = False
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # evicted again before it was opened
                continue
            with _lock(descriptor, fcntl.LOCK_SH):
                if os.fstat(descriptor).st_nlink:  # else it was evicted before it was locked
                    os.utime(descriptor)
                    yield descriptor
                    return

    def _fetch(self, path: Path, size_bytes: int, fetch: Callable[[IO[bytes]], None], again: bool) -> None:
        if size_bytes > self.max_bytes:
            raise InputError(f"{self.folder}: a file of {size_bytes} bytes does not fit into a cache of {self.max_bytes}. Raise its bound")
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked_file(self.folder / f".{path.name}{LOCK}"):
            if path.exists() and not again:
                return
            part = self.folder / f".{path.name}{PART}"
            descriptor = self._reserved(part, size_bytes)
            with _lock(descriptor, fcntl.LOCK_EX):
                try:
                    with open(descriptor, "r+b", closefd=False) as file:
                        fetch(file)
                        file.flush()
                        os.fsync(descriptor)
                    os.replace(part, path)
                except BaseException:
                    part.unlink(missing_ok=True)
                    raise

    def _reserved(self, part: Path, size_bytes: int) -> int:
        """A locked new file of that size, made as soon as there is room for it."""
        while True:
            with _locked_file(self.folder / LOCK):
                if self._make_room(size_bytes):
                    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    os.truncate(descriptor, size_bytes)
                    return descriptor
            time.sleep(WAIT_S)

    def _make_room(self, size_bytes: int) -> bool:
        """Remove what dead processes began, then what was opened longest ago, until size_bytes more fit; whether they do."""
        # Parts first: one that becomes whole meanwhile is counted twice, and not left out.
        being_fetched = sum(size for size, file in [(_size(file), file) for file in self.folder.glob(f".*{PART}")] if not _removed(file))
        files = [file for file in self.folder.iterdir() if file.is_file() and not file.name.startswith(".")]
        stats = sorted(((file.stat(), file) for file in files), key=lambda pair: pair[0].st_mtime_ns)
        room = self.max_bytes - being_fetched - sum(stat.st_size for stat, _ in stats)
        for stat, file in stats:
            if room >= size_bytes:
                break
            if _removed(file):
                room += stat.st_size
        return room >= size_bytes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _removed(path: Path) -> bool:
    """Remove a file unless somebody has it locked; whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    with _lock(descriptor, fcntl.LOCK_EX):
        path.unlink(missing_ok=True)  # a fetch that failed removes its own
        return True


@contextmanager
def _locked_file(path: Path) -> Iterator[None]:
    """Alone among all processes and threads that ask for the same path."""
    with _lock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), fcntl.LOCK_EX):
        yield


@contextmanager
def _lock(descriptor: int, operation: int) -> Iterator[None]:
    """Locked, then unlocked and closed. Unlocked outright: a process that was forked meanwhile holds the same lock by its copy."""
    try:
        fcntl.flock(descriptor, operation)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
