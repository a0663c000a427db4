"""A folder of fetched files with a limit on its bytes, shared by any number of processes and threads.

    cache = Cache(Path("/scratch/cache"), max_bytes=20 * 2**30)
    with cache.opened("000000.tar", size_bytes=73_400_320, fetch=write_it) as descriptor: ...

A file is fetched by one of those that want it, while the others wait; it appears under its name when complete. If space is needed, the
least recently opened file is evicted, never one that is open. All of this uses locks, which the system releases when a process
dies, so a killed process leaves nothing to clean up by hand; the folder must be on a file system that supports them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from multimodal.errors import InputError
from multimodal.machine.portable import BINARY, can_hold, held, hold, lock_file, unheld

LOCK, PART = ".lock", ".part"
WAIT_S = 0.05
"""Between two checks for space, while all files are open or being fetched."""


@dataclass(frozen=True)
class Cache:
    """folder: made if it does not exist. max_bytes: of all files in it; those being fetched count in full."""

    folder: Path
    max_bytes: int

    @contextmanager
    def opened(self, name: str, size_bytes: int, fetch: Callable[[IO[bytes]], None], again: bool = False) -> Iterator[int]:
        """A descriptor to read the file, which stays in the folder while this is open.

        fetch writes the size_bytes bytes into a file, from its start; its exceptions pass, and then nothing is kept. InputError
        if the file alone is larger than the limit. again: fetch it even if it is there, and replace it; readers that have the old file
        open keep reading it. If there is no space for both, the old one is evicted first, once nobody has it open: do not hold it yourself.
        """
        path = self.folder / name
        while True:
            if again or not path.exists():
                self._fetch(path, size_bytes, fetch, again)
                again = False
            try:
                descriptor = os.open(path, os.O_RDONLY | BINARY)
            except FileNotFoundError:  # evicted again before it was opened
                continue
            with held(descriptor, shared=True):
                if os.fstat(descriptor).st_nlink:  # else it was evicted before it was locked
                    os.utime(descriptor if os.utime in os.supports_fd else path)
                    yield descriptor
                    return

    def _fetch(self, path: Path, size_bytes: int, fetch: Callable[[IO[bytes]], None], again: bool) -> None:
        if size_bytes > self.max_bytes:
            raise InputError(f"{self.folder}: a file of {size_bytes} bytes does not fit into a cache of {self.max_bytes}. Raise its limit")
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock_file(self.folder / f".{path.name}{LOCK}"):
            if path.exists() and not again:
                return
            part = self.folder / f".{path.name}{PART}"
            descriptor = self._reserved(part, size_bytes)
            try:
                with held(descriptor):
                    with open(descriptor, "r+b", closefd=False) as file:
                        fetch(file)
                        file.flush()
                        os.fsync(descriptor)
                    if can_hold():
                        os.replace(part, path)  # while it is locked, so that nobody takes it for a dead process's
                if not can_hold():
                    os.replace(part, path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def _reserved(self, part: Path, size_bytes: int) -> int:
        """A locked new file of that size, made as soon as there is space for it."""
        while True:
            with lock_file(self.folder / LOCK):
                if self._make_room(size_bytes):
                    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | BINARY, 0o644)
                    hold(descriptor)
                    os.ftruncate(descriptor, size_bytes)
                    return descriptor
            time.sleep(WAIT_S)

    def _make_room(self, size_bytes: int) -> bool:
        """Remove files that dead processes began, then the least recently opened, until size_bytes more fit. Returns whether they do."""
        # Parts first: one that is completed meanwhile is counted twice rather than missed.
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
    """Remove a file unless it is in use. Returns whether it is gone."""
    try:
        with unheld(path):
            path.unlink(missing_ok=True)  # a failed fetch removes its file
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
