"""Files of a box: whole or absent, always inside it, and identified by their fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from multimodal.errors import InputError
from multimodal.machine.portable import can_hold, hold, unheld

STALE_S = 86_400
"""A temporary file of another host that has not been written to for this long is abandoned."""


_NO_LINK = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{6})-\w{8}\.part", re.DOTALL)  # `.name.host-random.part`


def box_file(box: str | Path, name: Any, may_link: bool = False) -> Path:
    """The path of a file, or folder, that a box names, such as a part of its manifest; InputError if it would be outside the box.

    A name is relative, with `/` between folders. may_link: the file may be a link to somewhere else, as for tars on another disk; otherwise
    any link that leads out of the box is refused.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not parts or any(part in ("", ".", "..") for part in parts) or re.search(r"[\0\\]|^[A-Za-z]:", name):
        raise InputError(f"{box}: names the file {name!r}, which may be outside this folder. Nothing was read; do not use this folder")
    path = Path(box, name)
    if not may_link and not path.resolve().is_relative_to(Path(box).resolve()):
        raise InputError(
            f"{path}: is a link that leads out of {box}, to {path.resolve()}. A box holds its own files: replace the link with a copy"
        )
    return path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name only when it is whole and on disk; after an error nothing is left behind.

    Makes the parent folder. The temporary file is beside the target, so the rename never crosses file systems. The first call of a
    process in a folder removes the temporary files that killed processes left there. A link, or anything else there, is replaced: in a box
    from somebody else a link may lead to a device.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_once(path.parent.resolve())
    descriptor, temporary = _locked_temporary(path)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp gives 0600; others read our boxes too
            if can_hold():
                os.replace(temporary, path)  # while it is open, and so locked
        if not can_hold():
            os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # the error of a write on a full disk names no file
            error.filename = str(path)
        raise


def write_text(path: str | Path, text: str) -> None:
    """A whole file of UTF-8, by `atomic_write`."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def write_output(path: str | Path) -> Iterator[IO[bytes]]:
    """`atomic_write` to a path that the user typed.

    An existing /dev/stdout, pipe or device is written to directly: a rename would replace it by a file.
    """
    path = Path(path)
    with open(path, "wb") if _is_special(path) else atomic_write(path) as file:
        yield file


def _is_special(path: Path) -> bool:
    """Whether the path leads to something that is neither a regular file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:  # it does not exist or cannot be reached: opening it will say so
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _locked_temporary(path: Path) -> tuple[int, str]:
    """A new file beside path, whose name identifies the host, and which is locked while it is open."""
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{_host()}-", suffix=".part")
        with suppress(OSError):  # a file system without locks: `remove_stale` gets none either, and leaves the file
            hold(descriptor)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # it was taken for a stale one before it was locked


@cache
def _host() -> str:
    return fingerprint_bytes(socket.gethostname().encode())[:6]


@cache
def remove_stale_once(folder: Path) -> None:
    """`remove_stale`, once per folder and process."""
    remove_stale(folder)


def remove_stale(folder: Path) -> None:
    """Remove temporary files of `atomic_write` in a folder that no running process is writing.

    A lock shows which files of this host are in use. Locks of other hosts may be invisible here, and on Windows a file that is closed to
    be renamed has no lock, so those files must also be a day old.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(".part")]
    for name in names:
        made = _TEMPORARY.fullmatch(name)
        if made is None:
            continue
        with suppress(OSError), unheld(folder / name, _NO_LINK) as found:  # already gone, in use, or not ours to remove
            if (can_hold() and made[1] == _host()) or time.time() - found.st_mtime > STALE_S:
                os.unlink(folder / name)


def is_unfinished(path: Path) -> bool:
    """Whether this is the temporary file of an `atomic_write` that is running, or was killed."""
    return path.name.startswith(".") and path.suffix == ".part"


def link_or_copy(source: Path, target: Path) -> None:
    """Make target a file equal to source: a hard link if the file system allows it, since files of boxes are never changed in place."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with open(source, "rb") as original, atomic_write(target) as copy:
            shutil.copyfileobj(original, copy)


def fingerprint_bytes(*chunks: bytes) -> str:
    """sha256 of the concatenated chunks, as hex."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def fingerprint_file(path: str | Path) -> str:
    """sha256 of a file's content, as hex, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_json(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    return fingerprint_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())
