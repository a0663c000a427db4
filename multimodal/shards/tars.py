"""Access to the tars of a set: in a local folder, or at a URL, from which they are downloaded into a cache.

    tars = LocalTars(Path("shards/emoji"), index=Path("shards/emoji")), RemoteTars("s3://bucket/emoji")
    with tars[0].opened(shard) as tar: tar.read(offset=512, size=64)

A tar at a URL is downloaded completely when it is read, or prefetched, in pieces that are retried one by one, and is checked against the
manifest. Nothing is written to the URL.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any, Protocol

from multimodal.boxes import MANIFEST, atomic_write, fingerprint_bytes
from multimodal.errors import InputError
from multimodal.machine.portable import BINARY, read_some
from multimodal.shards.cache import Cache
from multimodal.shards.format import TAR
from multimodal.shards.recent import Recent
from multimodal.shards.table import INDEX
from multimodal.urls import Transport, Unreachable, is_url, user_cache

MAX_OPEN_FILES = 256  # the usual limit is 1024 per process
CACHE_BYTES = 20 * 2**30
NUM_HASH_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar of a set. name: without `.tar`. fingerprint: the sha256 of the tar. start: the id of its first pair."""

    name: str
    num_pairs: int
    size_bytes: int
    fingerprint: str
    start: int

    @property
    def ids(self) -> range:
        """The ids of its pairs."""
        return range(self.start, self.start + self.num_pairs)


class Unreadable(InputError):
    """A file of a set cannot be read at all: it is missing or, for a set at a URL, cannot be downloaded or does not match the manifest.

    reason: the message without the place and the remedy.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Readable(Protocol):
    """A tar that is read from front to back, such as a `Tar`, or one that arrives from a URL."""

    name: str
    size_bytes: int

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer only at the end of the tar."""
        ...

    def forget(self, before: int) -> None:
        """Nothing before this offset will be read any more."""
        ...

    def fingerprint(self) -> str:
        """The sha256 of the tar, as hex digits."""
        ...


class Tar:
    """An open tar. Reads share no file position, so that threads and forked processes may share one.

    size_bytes: the actual size of the file, which may differ from the manifest.
    """

    __slots__ = ("descriptor", "name", "size_bytes")

    def __init__(self, descriptor: int, name: str) -> None:
        """descriptor: an open file descriptor, which the caller closes."""
        self.descriptor, self.name = descriptor, name
        self.size_bytes = os.fstat(descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer only at the end of the tar."""
        content = read_some(self.descriptor, offset, size)
        while len(content) < size and (more := read_some(self.descriptor, offset + len(content), size - len(content))):
            content += more  # one read returns at most 2 GiB, and may return less on network file systems
        return content

    def forget(self, before: int) -> None:
        """See `Readable`: an open file holds nothing in memory."""

    def fingerprint(self) -> str:
        """The sha256 of the tar, as hex digits. Moves the file position."""
        with open(self.descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()


class OwnTar(Tar):
    """A local tar, which is closed with the last reference to it. OSError if it cannot be opened."""

    __slots__ = ()

    def __init__(self, path: Path) -> None:
        super().__init__(os.open(path, os.O_RDONLY | BINARY), path.name)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Tars(Protocol):
    """Opens the tars of a set."""

    @property
    def name(self) -> str:
        """The name of the set: the last part of its path or URL."""
        ...

    @property
    def place(self) -> str:
        """The folder or the URL, for messages."""
        ...

    def as_argument(self) -> str:
        """The set as an argument on a command line."""
        ...

    def opened(self, shard: Shard, anew: bool = False) -> AbstractContextManager[Tar]:
        """A context with the shard's open tar. Unreadable if it is missing, cannot be read, or does not match the manifest.

        A local tar may be shorter than the manifest says. anew: open or download it again, even if it is already open or cached.
        """
        ...


class LocalTars:
    """Tars in a folder. index: the folder of the manifest. Opening a tar that is longer than the manifest says is an InputError."""

    def __init__(self, folder: Path, index: Path) -> None:
        self.folder, self.index = folder, index
        self._recent: Recent[Shard, Tar] = Recent(MAX_OPEN_FILES)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def place(self) -> str:
        return str(self.folder)

    def as_argument(self) -> str:
        return str(self.folder)

    def opened(self, shard: Shard, anew: bool = False) -> AbstractContextManager[Tar]:
        """See `Tars`; anew: of any length."""
        return nullcontext(self._open(shard) if anew else self._recent.get(shard, self._open_checked))

    def _open_checked(self, shard: Shard) -> Tar:
        tar = self._open(shard)
        if tar.size_bytes > shard.size_bytes:
            raise InputError(
                f"{self.folder / tar.name}: has {tar.size_bytes} bytes and had {shard.size_bytes} when it was indexed. "
                f"Run: multimodal shards verify {self.as_argument()}"
            )
        return tar

    def _open(self, shard: Shard) -> Tar:
        path = self.folder / f"{shard.name}{TAR}"
        if not path.is_file():
            listed = f"the manifest in {self.index} lists it. Restore it, or index the set again"
            raise Unreadable(f"{path}: the shard is missing; {listed}", "the tar is missing")
        return OwnTar(path)


@contextmanager
def _unreadable() -> Iterator[None]:
    """Raise `Unreadable` instead of `Unreachable`."""
    try:
        yield
    except Unreachable as error:
        layout = f"; a finished set has {MANIFEST}, {INDEX} and its tars in one folder" if error.is_absent else ""
        raise Unreadable(f"{error}{layout}", error.reason) from error


@dataclass(frozen=True)
class RemoteTars:
    """The tars of a finished shard set at a URL, read through a cache folder that any number of processes and sets share.

    url: the folder of the tars. cache: a local folder, by default in the user's cache folder; columns of the set are made in it, too.
    cache_bytes: the maximum size of all tars in the cache; make it large enough for the tars that an epoch reads at once. index: the folder
    of a local `index.arrow` and `manifest.json`, with columns beside them; None downloads both from the URL.
    tries: for each piece, and for a tar that does not match the manifest. timeout_s: for a piece of 4 MiB; fsspec file systems that are not
    asynchronous (hf, file) have their own. wait_s: before the second try; doubled for each later one, up to half a minute.
    """

    url: str
    cache: Path = field(default_factory=lambda: user_cache() / "shards")
    cache_bytes: int = CACHE_BYTES
    index: Path | None = None
    tries: int = 5
    timeout_s: float = 60.0
    wait_s: float = 0.5
    offline: bool = field(default=False, compare=False, repr=False)
    """Whether only the cache is read and the network is not used, see `RemoteShards.fetched`."""

    def __post_init__(self) -> None:
        if not is_url(self.url):
            raise InputError(
                f"RemoteShards: expected a URL such as s3://bucket/set, got {self.url!r}. Give the path of a local set by itself"
            )
        if self.url.startswith("http") and "?" in self.url:
            raise InputError(f"{self.url}: the URL of a set cannot have a query (?...), because file names are appended to it")
        _ = self.transport  # which checks the other settings

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def place(self) -> str:
        """The URL."""
        return self.url

    @property
    def transport(self) -> Transport:
        """The transport of all downloads of the set."""
        return Transport(self.tries, self.timeout_s, self.wait_s)

    @property
    def folder(self) -> Path:
        """The folder in the cache for everything of this set except its tars."""
        return Path(self.cache) / f"{self.name}-{fingerprint_bytes(self.url.rstrip('/').encode())[:NUM_HASH_CHARACTERS]}"

    def as_argument(self) -> str:
        """The set as an argument: `URL --cache FOLDER`, or its class path and init_args if it has other settings."""
        plain = type(self)(self.url)
        if replace(self, cache=plain.cache, cache_bytes=plain.cache_bytes) == plain:
            cache = [] if self.cache == plain.cache else ["--cache", str(self.cache)]
            bound = [] if self.cache_bytes == plain.cache_bytes else ["--cache-bytes", str(self.cache_bytes)]
            return shlex.join([self.url, *cache, *bound])
        described = self.described()
        return shlex.quote(f"{{class_path: {described['class_path']}, init_args: {json.dumps(described['init_args'])}}}")

    def described(self) -> dict[str, Any]:
        """The set in a run's config: its class path and the settings that differ from the defaults, as JSON values."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) != field.default}
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        return {"class_path": "multimodal.shards.RemoteShards", "init_args": settings}

    @contextmanager
    def opened(self, shard: Shard, anew: bool = False) -> Iterator[Tar]:
        """See `Tars`. A tar that is not cached is downloaded now; it may not be evicted while this is open. anew: download it again."""
        # Named by its hash, so that a tar that changed at the URL, with its manifest, is another file.
        with Cache(Path(self.cache), self.cache_bytes).opened(
            f"{shard.fingerprint}{TAR}", shard.size_bytes, lambda file: self._fetch(shard, file, anew), anew
        ) as descriptor:
            yield Tar(descriptor, f"{shard.name}{TAR}")

    def fetch(self, shard: Shard) -> None:
        """Download the shard's tar into the cache, unless it is there."""
        with self.opened(shard):
            pass

    @_unreadable()
    def read_small(self, name: str) -> bytes:
        """The content of a small file of the set, `manifest.json`."""
        return self.transport.read(self.url_of(name))

    def read_file(self, name: str) -> bytes | None:
        """As `read_small`, but None if the file does not exist at the URL or may not be read."""
        try:
            return self.transport.read(self.url_of(name))
        except Unreachable as error:
            if error.is_absent or error.is_refused:  # a bucket that may not be listed answers 403 for a missing file
                return None
            raise

    def fetch_file(self, name: str, path: Path, fingerprint: str | None = None) -> None:
        """Download a file of the set to a local path. Unreadable, and no file is left, if its sha256 is not `fingerprint`."""
        url = self.url_of(name)
        with _unreadable():
            size_bytes = self.transport.info(url)["size"]
        if size_bytes is None:
            raise InputError(f"{url}: the server does not report its size, which is needed for range requests. Use another server")
        with _unreadable(), atomic_write(path) as file:
            digest = hashlib.sha256()
            for piece in self.transport.pieces(url, size_bytes):
                digest.update(piece)
                file.write(piece)
            found = digest.hexdigest()
            if fingerprint is not None and found != fingerprint:
                reason = f"its sha256 is {found[:12]}.. and {fingerprint[:12]}.. in the manifest"
                raise Unreadable(f"{url}: {reason}. It was changed or is damaged there: upload the whole folder again", reason)

    @_unreadable()
    def _fetch(self, shard: Shard, file: IO[bytes], check_size: bool) -> None:
        url = self.url_of(f"{shard.name}{TAR}")
        if check_size:  # a read requests the bytes that the manifest lists, and would not notice more
            size_bytes = self.transport.info(url)["size"]  # None: the server does not say
            if size_bytes is not None and size_bytes != shard.size_bytes:
                reason = f"has {size_bytes} bytes, the manifest says {shard.size_bytes}"
                raise Unreadable(f"{url}: {reason}. It was changed after it was indexed: index the set again", reason)
        found = ""
        for _ in range(self.tries):
            digest = hashlib.sha256()
            file.seek(0)
            for piece in self.transport.pieces(url, shard.size_bytes):
                digest.update(piece)
                file.write(piece)
            found = digest.hexdigest()
            if found == shard.fingerprint:
                return
        reason = f"its sha256 is {found[:12]}.. and {shard.fingerprint[:12]}.. in the manifest, {self.tries} times"
        raise Unreadable(f"{url}: {reason}. It was changed after it was indexed or is damaged there: index the set again", reason)

    def url_of(self, name: str) -> str:
        """The URL of a file of the set."""
        return f"{self.url.rstrip('/')}/{name}"


def tars_of(folder: Path, index: Path, remote: RemoteTars | None) -> Tars:
    """The tars of a set: those in its folder, or those of `remote`. index: the folder of the manifest."""
    return LocalTars(folder, index) if remote is None else remote
