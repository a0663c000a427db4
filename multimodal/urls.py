"""Files at URLs: what counts as a URL, and the only code that reads and writes there.

    is_url("s3://bucket/set"), is_url("shards/emoji")       # True, False
    transport = Transport(tries=5, timeout_s=60.0)
    transport.read("s3://bucket/set/manifest.json")
    transport.write("s3://bucket/set/000000.tar", file)     # appears when complete, or not at all

Any file system that fsspec knows will do: s3, gs, hf, http(s), file. fsspec is imported when the first URL is used. Reads and writes
are retried alike: what fails, stalls or ends early is tried again, unless another try would change nothing.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Any, TypeVar

from multimodal.errors import InputError, install_command, missing_extra

PIECE_BYTES = 4 * 2**20
MAX_WAIT_S = 30.0
FILES_AT_ONCE = 32
"""Small files that are requested together, if the file system can."""
PASSING = frozenset({408, 425, 429})
"""The 4xx responses of a web server that may succeed on another try."""
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "hf"})
"""Protocols that publish an upload when it ends, and whose rename is a copy. With all others: upload, then rename."""
NOT_THERE = "is not there"

_DESCRIPTORS = Path("/dev/fd")
_URL = re.compile(r"[A-Za-z][\w+.:-]+://")
_URL_IN_A_PATH = re.compile(r"[A-Za-z][\w+.:-]+:/")  # a Path keeps one of the two slashes

T = TypeVar("T")


def is_url(where: object) -> bool:
    """Whether it is a URL, given as a string: `http://host/set`, `s3://bucket/set`. A drive letter (`C://set`) is not."""
    return isinstance(where, str) and _URL.match(where) is not None


def url_in(path: object) -> str | None:
    """The URL that a Path was made from, which makes the Path unusable; None for any other path, and for a string."""
    return str(path).replace(":/", "://", 1) if isinstance(path, PurePath) and _URL_IN_A_PATH.match(str(path)) else None


def user_cache() -> Path:
    """The folder for downloads: $XDG_CACHE_HOME/multimodal, or ~/.cache/multimodal."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multimodal"


class Unreachable(InputError):
    """Something at a URL could not be read, written or removed: the last try failed, or another one would change nothing.

    reason: the message without the URL and the remedy. is_absent: nothing exists at the URL. is_refused: the server does not allow it.
    """

    def __init__(self, url: str, reason: str, remedy: str, is_absent: bool = False, is_refused: bool = False) -> None:
        super().__init__(f"{url}: {reason}. {remedy}")
        self.reason, self.is_absent, self.is_refused = reason, is_absent, is_refused


@dataclass(frozen=True)
class Transport:
    """How often an operation at a URL is tried, and for how long. Every method raises `Unreachable` when it gives up.

    tries: for each piece read, and for each file written. timeout_s: for 4 MiB, or a smaller request; fsspec's file
    systems that are not asynchronous (hf, file) have their own. wait_s: before the second try; doubled before each later one, up to
    half a minute.
    """

    tries: int = 5
    timeout_s: float = 60.0
    wait_s: float = 0.5

    def __post_init__(self) -> None:
        if self.tries < 1 or self.timeout_s <= 0 or self.wait_s < 0:
            raise InputError(f"tries={self.tries} and timeout_s={self.timeout_s} must be above 0, and wait_s={self.wait_s} at least 0")

    def read(self, url: str) -> bytes:
        """The content of a small file."""
        return self._tried(url, "read", lambda: self._call(url, "cat_file"))

    def read_files(self, folder: str, names: Sequence[str]) -> list[bytes]:
        """The current contents of small files of a folder, many at a time if the file system is asynchronous."""
        contents: dict[str, bytes] = {}
        for start in range(0, len(names), FILES_AT_ONCE):
            self._tried(folder, "read", partial(self._read_missing, folder, names[start : start + FILES_AT_ONCE], contents))
        return [contents[name] for name in names]

    def info(self, url: str, is_fresh: bool = False) -> Mapping[str, Any]:
        """What its file system reports: `type`, "file" or "directory", and `size` in bytes, None if the server does not report it."""
        found: Mapping[str, Any] = self._tried(url, "looked at" if is_fresh else "read", lambda: self._call(url, "info", is_fresh=is_fresh))
        return found

    def files(self, url: str) -> dict[str, int]:
        """Name -> size in bytes of the files now in a folder; empty if there is no such folder."""
        try:
            found = self._tried(url, "listed", lambda: self._call(url, "ls", detail=True, is_fresh=True))
        except Unreachable as error:
            if error.is_absent:
                return {}
            raise
        return {entry["name"].rpartition("/")[2]: int(entry["size"]) for entry in found if entry["type"] == "file"}

    def pieces(self, url: str, size_bytes: int) -> Iterator[bytes]:
        """The content of a file of that size. A failure costs a piece of 4 MiB, not the file."""
        start = 0
        while start < size_bytes:
            stop = min(start + PIECE_BYTES, size_bytes)
            piece = self._tried(url, "read", partial(self._piece, url, start, stop, size_bytes))
            yield piece
            start += len(piece)

    def write(self, url: str, file: IO[bytes]) -> None:
        """Upload the whole content of an open local file. A failed try never leaves an incomplete file under that name.

        An object store shows an object when it is complete; elsewhere the upload has another name until then.
        """
        file.flush()
        size_bytes = file.seek(0, os.SEEK_END)
        with _path_of(file) as path:
            self._tried(url, "written", partial(self._upload, url, file, path, size_bytes))

    def remove(self, url: str) -> None:
        """Remove a file; it may be gone already."""
        self._remove(url, "rm_file")

    def remove_folder(self, url: str) -> None:
        """Remove a folder and everything in it; it need not exist."""
        if num_files := len(self.files(url)):
            self._remove(url, "rm", recursive=True, num_pieces=num_files)

    def _remove(self, url: str, method: str, **arguments: Any) -> None:
        try:
            self._tried(url, "removed", lambda: self._call(url, method, is_fresh=True, **arguments))
        except Unreachable as error:
            if not error.is_absent:
                raise

    def _read_missing(self, folder: str, names: Sequence[str], contents: dict[str, bytes]) -> None:
        """Add the contents of the files still missing. Raises the first error after adding the others."""
        missing = [name for name in names if name not in contents]
        system, path = _reached(folder, is_fresh=True)
        paths = [f"{path}/{name}" for name in missing]
        found = self._call_system(system, "cat_ranges", paths, None, None, on_error="return")
        contents.update({name: content for name, content in zip(missing, found, strict=True) if not isinstance(content, Exception)})
        for content in found:
            if isinstance(content, Exception):
                raise content

    def _piece(self, url: str, start: int, stop: int, size_bytes: int) -> bytes:
        content: bytes = self._call(url, "cat_file", start=start, end=stop)
        if len(content) == size_bytes:  # a server without range requests sends the whole file
            return content[start:]
        if len(content) != stop - start:
            raise EOFError(f"got {len(content)} of {stop - start} bytes from byte {start} on; the manifest says {size_bytes} in all")
        return content

    def _upload(self, url: str, file: IO[bytes], local: str, size_bytes: int) -> None:
        file.seek(0)  # a path to a descriptor may share its position, as on macOS
        system, path = _reached(url, is_fresh=True)
        num_pieces = max(1, -(-size_bytes // PIECE_BYTES))
        protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
        if protocols & OBJECT_STORES:
            self._call_system(system, "put_file", local, path, num_pieces=num_pieces)
            return
        parent, _, name = path.rpartition("/")
        temporary = f"{parent}/.{name}.{secrets.token_hex(4)}.part"
        self._call_system(system, "makedirs", parent, exist_ok=True)
        try:
            self._call_system(system, "put_file", local, temporary, num_pieces=num_pieces)
            arrived = self._call_system(system, "info", temporary)["size"]
            if arrived not in (size_bytes, None):
                raise EOFError(f"{arrived} of {size_bytes} bytes arrived")
            self._call_system(system, "mv", temporary, path, num_pieces=num_pieces)
        except BaseException:
            with suppress(Exception):  # the connection may be down; the first error is the one to report
                self._call_system(system, "rm_file", temporary)
            raise

    def _call(self, url: str, method: str, is_fresh: bool = False, **arguments: Any) -> Any:
        """Call a method of the URL's file system with the path there; is_fresh: drop its cached listings first."""
        system, path = _reached(url, is_fresh)
        return self._call_system(system, method, path, **arguments)

    def _call_system(self, system: Any, method: str, *arguments: Any, num_pieces: int = 1, **named: Any) -> Any:
        """Call a method of a file system; an asynchronous one is stopped after timeout_s times num_pieces."""
        if system.async_impl and hasattr(system, f"_{method}"):
            from fsspec.asyn import sync

            return sync(system.loop, getattr(system, f"_{method}"), *arguments, timeout=self.timeout_s * num_pieces, **named)
        return getattr(system, method)(*arguments, **named)

    def _tried(self, url: str, action: str, attempt: Callable[[], T]) -> T:
        """The result of the first attempt that succeeds. Unreachable at once if another try would change nothing, else after the last.

        action: for the message: what could not be done, such as "read".
        """
        check_protocol(url)
        said = ""
        for number in range(self.tries):
            if number:
                # Random, since ranks that failed together should not retry together; not from the global state, which belongs to the run.
                time.sleep(min(self.wait_s * 2 ** (number - 1), MAX_WAIT_S) * random.SystemRandom().uniform(0.5, 1))
            try:
                return attempt()
            except Exception as raised:  # file systems raise their libraries' own errors: aiohttp, botocore, httpx
                error = _innermost(raised)
            status = _status(error)
            said = f"{type(error).__name__}: {error}".rstrip(".") if str(error) else type(error).__name__
            if isinstance(error, FileNotFoundError | NotADirectoryError) or status in (404, 410):
                reason = NOT_THERE if action == "read" else f"cannot be {action} ({said})"
                raise Unreachable(url, reason, "Check the URL", is_absent=True) from error
            if isinstance(error, PermissionError) or (status is not None and 400 <= status < 500 and status not in PASSING):
                remedy = "Check the URL, and the credentials for its server"
                raise Unreachable(url, f"may not be {action} ({said})", remedy, is_refused=True) from error
            if isinstance(error, IsADirectoryError | FileExistsError | NotImplementedError | ImportError):
                raise Unreachable(url, f"cannot be {action} ({said})", "Check the URL") from error
        reason = f"could not be {action} in {self.tries} tries. The last error was: {said}"
        raise Unreachable(url, reason, "Is the server up? Finished work is kept: run the same command again")


def check_protocol(url: str) -> None:
    """InputError if no installed package can read such a URL."""
    try:
        from fsspec import get_filesystem_class
    except ImportError:
        raise missing_extra("remote", f"{url}: a URL needs fsspec") from None
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        get_filesystem_class(protocol)
    except ValueError:
        raise InputError(f"{url}: fsspec knows no protocol {protocol}://. Check the URL") from None
    except ImportError as error:
        extra = f"{install_command('remote')} for http and hf, pip install s3fs, gcsfs or the like for others"
        raise InputError(f"{url}: a package is missing: {str(error).rstrip('.')}. Run: {extra}") from None


def _reached(url: str, is_fresh: bool) -> tuple[Any, str]:
    """The file system and the path in it. Do not keep it: fsspec has one instance per process, which does not survive a fork."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    if is_fresh:
        system.invalidate_cache()  # s3fs and others cache listings, and miss what another process wrote since
    return system, path


@contextmanager
def _path_of(file: IO[bytes]) -> Iterator[str]:
    """A path to read an open file by. The file may be nameless, so that a killed process leaves nothing behind."""
    if _DESCRIPTORS.is_dir():
        yield str(_DESCRIPTORS / str(file.fileno()))
        return
    with tempfile.TemporaryDirectory() as folder:  # on Windows nothing else can open such a file
        copy = Path(folder) / "copy"
        file.seek(0)
        with open(copy, "wb") as target:
            shutil.copyfileobj(file, target)
        yield str(copy)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error, if it has one, as in aiohttp, httpx and gcsfs."""
    response = getattr(error, "response", None)
    for owner, name in ((error, "status"), (response, "status_code"), (error, "code")):
        if isinstance(status := getattr(owner, name, None), int):
            return int(status)
    return None


def _innermost(error: BaseException) -> BaseException:
    """The underlying error: fsspec's http reports any failure as a missing file. A failed name look-up is not a missing file."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None and not isinstance(error.__cause__, LookupError):
        error = error.__cause__
    return error
