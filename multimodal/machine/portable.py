"""What systems do differently: reading at a place, and locks between processes.

    with lock_file(folder / ".lock"): ...               # alone among all who ask for the same path
    with held(descriptor, shared=True): ...             # a file that is in use is known by it, see `unheld`

A lock is the system's: it takes it back when its process ends, however that ends, so that a killed one leaves nothing to clean up. A file
that is itself in use is locked by flock; Windows has none, and needs none, since there a file that is open is neither removed nor replaced.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import BaseFileLock

BINARY: int = getattr(os, "O_BINARY", 0)
"""To be added to what a file is opened with by `os.open`: Windows takes it for text otherwise."""
POLL_S = 0.02

_positions = threading.Lock()


def read_some(descriptor: int, offset: int, size: int) -> bytes:
    """At most size bytes of a file from offset on; whoever else reads by the same descriptor does not notice."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _positions:  # Windows has neither this call nor forked processes
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def lock_file(path: Path, wait: bool = True) -> BaseFileLock:
    """The lock of a path, taken: `with` it, or `release()` it. The file is made where it is not there, and stays.

    BlockingIOError where somebody else has it and is not to be waited for. OSError where the file system has no locks, or the path is a
    link.
    """
    from filelock import FileLock, Timeout  # here, since who only reads locks nothing

    lock = FileLock(path, thread_local=False, poll_interval=POLL_S, fallback_to_soft=False)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path)) from None
    return lock


def can_hold() -> bool:
    """Whether a file in use is known by a lock on itself, and may be replaced meanwhile; else by its being open, and it may not."""
    return _fcntl() is not None


def hold(descriptor: int, shared: bool = False) -> None:
    """Mark an open file as in use until it is closed, waiting for who has it for itself. OSError where the file system has no locks."""
    if fcntl := _fcntl():
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


@contextmanager
def held(descriptor: int, shared: bool = False) -> Iterator[None]:
    """In use, then not any more, and closed. Unlocked outright: a process that was forked meanwhile holds the same lock by its copy."""
    try:
        hold(descriptor, shared)
        try:
            yield
        finally:
            if fcntl := _fcntl():
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextmanager
def unheld(path: Path, flags: int = os.O_RDONLY) -> Iterator[os.stat_result]:
    """A file that nobody has in use, for as long as this is open, to be removed; what it is. BlockingIOError where somebody has.

    flags: what it is opened with. Other OSErrors where it is not there, or cannot be opened so.
    """
    fcntl = _fcntl()
    if fcntl is None:
        try:
            yield os.lstat(path)
        except PermissionError as error:  # it is open
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path)) from error
        return
    descriptor = os.open(path, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield os.fstat(descriptor)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@cache
def _fcntl() -> Any:
    """The module, None on Windows. Imported by who locks: who only reads has no need of it."""
    try:
        import fcntl
    except ImportError:
        return None
    return fcntl
