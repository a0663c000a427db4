"""Opening a shard set, by its folder or its URL. Tars at a URL are fetched whole into a cache folder when they are read, or ahead of it.

    shards = open_set("shards/flickr"), open_set("https://example.org/flickr"), open_set("s3://bucket/flickr", cache=Path("/scratch"))
    shards.image_bytes(7)                       # fetches the tar that holds pair 7, unless it is there

Nothing is written to the URL. Columns of the set are made beside its index in the cache, `<cache>/flickr-1a2b3c4d/columns/`, where every
command that is given the same URL and cache finds them; one that lies in `columns/` at the URL is fetched when it is first asked for.

Any file system that fsspec knows will do: s3, gs, hf, http(s), file. It is imported here, when the first URL is opened. What is fetched
is checked against the manifest. A fetch goes in pieces, each of which is asked for again where it fails, stalls or ends early, so that a
broken connection costs a piece and not a tar.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from multimodal.boxes import MANIFEST, atomic_write, decode_manifest, fingerprint_bytes, fingerprint_file
from multimodal.errors import InputError, install_command, missing_extra
from multimodal.shards.cache import Cache
from multimodal.shards.format import TAR
from multimodal.shards.reader import Shard, ShardSet, Unreadable
from multimodal.shards.table import INDEX
from multimodal.urls import is_url, url_in, user_cache

PIECE_BYTES = 4 * 2**20
MAX_WAIT_S = 30.0
NUM_HASH_CHARACTERS = 8
CACHE_BYTES = 20 * 2**30
NOT_THERE, REFUSED = "is not there", "may not be read"
PASSING = frozenset({408, 425, 429})
"""Of the 4xx answers of a web server those that another try may change."""
_SHA256 = re.compile("[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteShards:
    """A finished shard set at a URL, read through a cache folder that any number of processes and sets share.

    url: the folder of the tars. cache: a local folder, by default in the user's cache folder; columns of the set are made in it, too.
    cache_bytes: the most that all tars in the cache take; make it large enough for what an epoch's order reads at once. index: the folder
    of `index.arrow` and `manifest.json` where they lie here, with columns beside them; None fetches both from the URL.
    tries: of each piece, and of a tar whose content is not what the manifest says. timeout_s: for a piece of 4 MiB; file systems of fsspec
    that are not asynchronous (hf, file) have their own. wait_s: before the second try; doubled for each one after, up to half a minute.
    """

    url: str
    cache: Path = field(default_factory=lambda: user_cache() / "shards")
    cache_bytes: int = CACHE_BYTES
    index: Path | None = None
    tries: int = 5
    timeout_s: float = 60.0
    wait_s: float = 0.5
    offline: bool = field(default=False, compare=False, repr=False)
    """Whether only what lies in the cache is read, see `fetched`."""

    def __post_init__(self) -> None:
        if not is_url(self.url):
            raise InputError(f"RemoteShards: {self.url!r} is no URL such as s3://bucket/set; give the path of a local set by itself")
        if self.url.startswith("http") and "?" in self.url:
            raise InputError(f"{self.url}: names of files are put behind the URL of a set, so that it cannot have a query (?...)")
        if self.tries < 1 or self.timeout_s <= 0 or self.wait_s < 0:
            raise InputError(f"RemoteShards: tries={self.tries}, timeout_s={self.timeout_s}, wait_s={self.wait_s} must be above 0")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rstrip("/").rpartition("/")[2]

    def open(self) -> ShardSet:
        """The set. InputError where there is none at the URL, or a tar alone is larger than the cache may be."""
        _check_protocol(self.url)
        try:
            Path(self.cache).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "Give another folder (--cache, in fit --data.cache), or set XDG_CACHE_HOME"
            raise InputError(f"{self.cache}: cannot hold what is fetched ({error.strerror}). {remedy}") from None
        if self.index is None:
            self._fetch_index(self._folder)
        return self._opened()

    def fetched(self) -> ShardSet:
        """The set as it was when it was opened last: its index and columns lie in the cache, and the network is not asked.

        InputError where it was never opened with this cache.
        """
        return replace(self, offline=True)._opened()

    @property
    def _folder(self) -> Path:
        """What the cache holds of this set, but for its tars."""
        return Path(self.cache) / f"{self.name}-{fingerprint_bytes(self.url.rstrip('/').encode())[:NUM_HASH_CHARACTERS]}"

    def _opened(self) -> ShardSet:
        shards = ShardSet(self._folder, self.index, self)
        for shard in shards.shards:  # it becomes a file's name in the cache
            if not _SHA256.fullmatch(shard.fingerprint):
                raise InputError(
                    f"{self.url}: shard {shard.name} has {shard.fingerprint!r} for its sha256. The set has to be indexed again"
                )
        largest = max((shard.size_bytes for shard in shards.shards), default=0)
        if largest > self.cache_bytes:
            remedy = "Raise it (--cache-bytes, in fit --data.cache_bytes)"
            raise InputError(f"{self.url}: has a tar of {largest} bytes, and cache_bytes={self.cache_bytes}. {remedy}")
        return shards

    def as_argument(self) -> str:
        """How a command line names the set: `multimodal shards verify URL --cache FOLDER`, or by all its settings where it has others."""
        plain = RemoteShards(self.url)
        if replace(self, cache=plain.cache, cache_bytes=plain.cache_bytes) == plain:
            cache = [] if self.cache == plain.cache else ["--cache", str(self.cache)]
            bound = [] if self.cache_bytes == plain.cache_bytes else ["--cache-bytes", str(self.cache_bytes)]
            return shlex.join([self.url, *cache, *bound])
        given = {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) != field.default}
        told = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        return shlex.quote(f"{{class_path: multimodal.shards.RemoteShards, init_args: {json.dumps(told)}}}")

    def opened(self, shard: Shard, again: bool = False) -> AbstractContextManager[int]:
        """A descriptor of the shard's tar, fetched now where it is not in the cache, to which it belongs as long as this is open.

        again: fetched and its size looked at, whatever the cache holds. Unreadable where it is not at the URL, cannot be read, or is not
        what the manifest says.
        """
        # Under its hash, so that a tar that was changed at the URL, with the manifest, is another file.
        return Cache(Path(self.cache), self.cache_bytes).opened(
            f"{shard.fingerprint}{TAR}", shard.size_bytes, lambda file: self._fetch(shard, file, again), again
        )

    def fetch(self, shard: Shard) -> None:
        """Have the shard's tar in the cache."""
        with self.opened(shard):
            pass

    def read_file(self, name: str) -> bytes | None:
        """The content of a small file of the set, `columns/lda40/manifest.json`; None where none can be had at the URL."""
        url = self._url(name)
        try:
            return self._tried(url, lambda: self._call(url, "cat_file"))
        except Unreadable as error:
            if error.reason.startswith((NOT_THERE, REFUSED)):  # a bucket that may not be listed answers 403 for what is not in it
                return None
            raise

    def fetch_file(self, name: str, path: Path, fingerprint: str | None = None) -> None:
        """Have a file of the set at a path here. Unreadable where its sha256 is not the one given, and then there is none."""
        url = self._url(name)
        size_bytes = self._tried(url, lambda: self._call(url, "info"))["size"]
        if size_bytes is None:
            raise InputError(f"{url}: the server does not say how large it is, and parts of files are asked for. Serve the set otherwise")
        with atomic_write(path) as file:
            digest = hashlib.sha256()
            for piece in self._pieces(url, size_bytes):
                digest.update(piece)
                file.write(piece)
            found = digest.hexdigest()
            if fingerprint is not None and found != fingerprint:
                reason = f"its sha256 is {found[:12]}.. and {fingerprint[:12]}.. in the manifest"
                raise Unreadable(f"{url}: {reason}. It was changed, or is damaged there: bring the whole folder to the URL again", reason)

    def _fetch(self, shard: Shard, file: IO[bytes], check_size: bool) -> None:
        url = self._url(f"{shard.name}{TAR}")
        if check_size:  # a read asks for the bytes that the manifest knows, and does not see that there are more
            size_bytes = self._tried(url, lambda: self._call(url, "info"))["size"]  # None: the server does not say
            if size_bytes is not None and size_bytes != shard.size_bytes:
                reason = f"has {size_bytes} bytes, the manifest says {shard.size_bytes}"
                raise Unreadable(f"{url}: {reason}. It was changed after it was indexed: index the set again", reason)
        found = ""
        for _ in range(self.tries):
            digest = hashlib.sha256()
            file.seek(0)
            for piece in self._pieces(url, shard.size_bytes):
                digest.update(piece)
                file.write(piece)
            found = digest.hexdigest()
            if found == shard.fingerprint:
                return
        reason = f"its sha256 is {found[:12]}.. and {shard.fingerprint[:12]}.. in the manifest, {self.tries} times"
        raise Unreadable(f"{url}: {reason}. It was changed after it was indexed, or is damaged there: index the set again", reason)

    def _pieces(self, url: str, size_bytes: int) -> Iterator[bytes]:
        start = 0
        while start < size_bytes:
            stop = min(start + PIECE_BYTES, size_bytes)
            piece = self._tried(url, partial(self._piece, url, start, stop, size_bytes))
            yield piece
            start += len(piece)

    def _piece(self, url: str, start: int, stop: int, size_bytes: int) -> bytes:
        content = self._call(url, "cat_file", start=start, end=stop)
        if len(content) == size_bytes:  # a server that knows no ranges sends the whole file
            return content[start:]
        if len(content) != stop - start:
            raise EOFError(f"gave {len(content)} bytes from {start} on, of {stop - start}; the manifest says {size_bytes} in all")
        return content

    def _fetch_index(self, folder: Path) -> None:
        """The index and then the manifest, unless those that are here are those that are there."""
        manifest = self._tried(self._url(MANIFEST), lambda: self._call(self._url(MANIFEST), "cat_file"))
        here, index = folder / MANIFEST, folder / INDEX
        facts = decode_manifest(manifest, self.url, "shards").parts.get(INDEX, {})
        wanted = facts.get("fingerprint")  # of a set of an older release there is none
        if here.is_file() and here.read_bytes() == manifest and index.is_file() and wanted in (None, fingerprint_file(index)):
            return
        self.fetch_file(INDEX, index, wanted)
        with atomic_write(here) as file:
            file.write(manifest)

    def _call(self, url: str, method: str, **arguments: Any) -> Any:
        """A method of the URL's file system; asynchronous ones are stopped after timeout_s."""
        from fsspec.asyn import sync
        from fsspec.core import url_to_fs

        # fsspec keeps one instance a process, so that none is held here: they do not live through a fork
        system, path = url_to_fs(url)
        if system.async_impl:
            return sync(system.loop, getattr(system, f"_{method}"), path, timeout=self.timeout_s, **arguments)
        return getattr(system, method)(path, **arguments)

    def _tried(self, url: str, attempt: Callable[[], T]) -> T:
        """Its result, of the first attempt that gives one. Unreadable at once where another try would change nothing, else after all."""
        told = ""
        for number in range(self.tries):
            if number:
                # Of its own chance, since ranks that failed together should not ask together, and global random states are a run's own.
                time.sleep(min(self.wait_s * 2 ** (number - 1), MAX_WAIT_S) * random.SystemRandom().uniform(0.5, 1))
            try:
                return attempt()
            except Exception as raised:  # file systems raise what their own libraries do: aiohttp, botocore, httpx
                error = _innermost(raised)
            status = getattr(error, "status", None)
            told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if isinstance(error, FileNotFoundError) or status in (404, 410):
                remedy = f"Check the URL; a finished set has {MANIFEST}, {INDEX} and its tars in one folder"
                raise Unreadable(f"{url}: {NOT_THERE}. {remedy}", NOT_THERE)
            if isinstance(error, PermissionError) or (isinstance(status, int) and 400 <= status < 500 and status not in PASSING):
                reason = f"{REFUSED} ({told})"
                raise Unreadable(f"{url}: {reason}. Check the URL, and the credentials that its server asks for", reason)
        reason = f"could not be read in {self.tries} tries. The last said: {told}"
        raise Unreadable(f"{url}: {reason}. Is the server up? What was fetched stays: give the same command again", reason)

    def _url(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"


SetPath = str | Path | RemoteShards
"""Where a set is, as a person says it: its folder or its URL; or a URL with settings of its own."""


def open_set(where: SetPath, cache: Path | None = None, cache_bytes: int | None = None, index: Path | None = None) -> ShardSet:
    """The set in a folder, or at a URL (given as a string). Every command that takes a set opens it here.

    cache, cache_bytes: of a set at a URL, where what is fetched is kept, and the most that its tars take there; by default in the user's
    cache folder, and 20 GiB. index: the folder of its `index.arrow` and `manifest.json`, where they are somewhere else.
    InputError where there is no set, or it cannot be read.
    """
    given = {name: value for name, value in (("cache", cache), ("cache_bytes", cache_bytes), ("index", index)) if value is not None}
    if isinstance(where, RemoteShards):
        if given:
            raise InputError(f"{where.url}: is given as RemoteShards, so that {', '.join(given)} has to be among its init_args")
        return where.open()
    if is_url(where):
        return RemoteShards(str(where), **given).open()  # type: ignore[arg-type]
    if url := url_in(where):
        raise InputError(f"{url}: a URL that was made a Path, which names nothing any more; give it as a string")
    if str(where).startswith("{"):
        raise InputError(
            f"{where}: no settings of multimodal.shards.RemoteShards (one misspelt?). A URL may be given by itself, with --cache"
        )
    return ShardSet(where, index)


def _check_protocol(url: str) -> None:
    """InputError where nothing that is installed can read such a URL."""
    try:
        from fsspec import get_filesystem_class
    except ImportError:
        raise missing_extra("remote", f"{url}: reading from a URL needs fsspec") from None
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        get_filesystem_class(protocol)
    except ValueError:
        raise InputError(f"{url}: no file system that fsspec knows is called {protocol}://. Check the URL") from None
    except ImportError as error:
        extra = f"{install_command('remote')} for http and hf, pip install s3fs, gcsfs or the like for others"
        raise InputError(f"{url}: a package is missing: {str(error).rstrip('.')}. Run: {extra}") from None


def _innermost(error: BaseException) -> BaseException:
    """What went wrong, where fsspec says of any failure that the file is not there."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error
