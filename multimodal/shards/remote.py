"""Shard sets at a URL: whole tars are fetched into a cache folder when they are read, or ahead of it, and checked against the manifest.

    shards = RemoteShards("s3://bucket/flickr", cache=Path("/scratch/cache")).open()
    shards.image_bytes(7)                       # fetches the tar that holds pair 7, unless it is there

Any file system that fsspec knows will do: s3, gs, hf, http(s), file. It is imported here, when the first URL is opened. A fetch goes in
pieces, each of which is asked for again where it fails, stalls or ends early, so that a broken connection costs a piece and not a tar.
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
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from multimodal.boxes import MANIFEST, atomic_write, fingerprint_bytes
from multimodal.errors import InputError
from multimodal.shards.cache import Cache
from multimodal.shards.format import TAR
from multimodal.shards.reader import Shard, ShardSet, Unreadable
from multimodal.shards.table import INDEX

PIECE_BYTES = 4 * 2**20
MAX_WAIT_S = 30.0
NUM_HASH_CHARACTERS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteShards:
    """A finished shard set at a URL, read through a cache folder that any number of processes and sets share.

    url: the folder of the tars. cache: a local folder; make it large enough for what an epoch's order reads at once.
    cache_bytes: the most that all tars in the cache take. index: the folder of `index.arrow` and `manifest.json` where they lie here, with
    columns beside them; None fetches both from the URL.
    tries: of each piece, and of a tar whose content is not what the manifest says. timeout_s: for a piece of 4 MiB; file systems of fsspec
    that are not asynchronous (hf, file) have their own. wait_s: before the second try; doubled for each one after, up to half a minute.
    """

    url: str
    cache: Path
    cache_bytes: int = 20 * 2**30
    index: Path | None = None
    tries: int = 5
    timeout_s: float = 60.0
    wait_s: float = 0.5

    def __post_init__(self) -> None:
        if "://" not in self.url:
            raise InputError(f"RemoteShards: {self.url!r} is no URL such as s3://bucket/set; give the path of a local set by itself")
        if self.tries < 1 or self.timeout_s <= 0 or self.wait_s < 0:
            raise InputError(f"RemoteShards: tries={self.tries}, timeout_s={self.timeout_s}, wait_s={self.wait_s} must be above 0")

    def open(self) -> ShardSet:
        """The set. InputError where there is none at the URL, or a tar alone is larger than the cache may be."""
        if self.index is None:
            self._fetch_index(self._folder)
        return self.fetched()

    @property
    def _folder(self) -> Path:
        """What the cache holds of this set, but for its tars."""
        name = self.url.rstrip("/").rpartition("/")[2]
        return Path(self.cache) / f"{name}-{fingerprint_bytes(self.url.encode())[:NUM_HASH_CHARACTERS]}"

    def fetched(self) -> ShardSet:
        """The set as it was when it was opened last: its index and columns lie in the cache, and the network is not asked.

        InputError where it was never opened with this cache.
        """
        shards = ShardSet(self._folder, self.index, self)
        largest = max((shard.size_bytes for shard in shards.shards), default=0)
        if largest > self.cache_bytes:
            raise InputError(f"{self.url}: has a tar of {largest} bytes, and cache_bytes={self.cache_bytes}. Raise it")
        return shards

    def as_argument(self) -> str:
        """How a command line names the set: `multimodal shards verify '{class_path: ..., init_args: {...}}'`."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) != field.default}
        told = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        return shlex.quote(f"{{class_path: multimodal.shards.RemoteShards, init_args: {json.dumps(told)}}}")

    def opened(self, shard: Shard, again: bool = False) -> AbstractContextManager[int]:
        """A descriptor of the shard's tar, fetched now where it is not in the cache, to which it belongs as long as this is open.

        again: fetched and its size looked at, whatever the cache holds. Unreadable where it is not at the URL, cannot be read, or is not
        what the manifest says.
        """
        if not re.fullmatch("[0-9a-f]{64}", shard.fingerprint):  # it becomes the name of a file
            raise InputError(f"{self.url}: its manifest says that the sha256 of {shard.name} is {shard.fingerprint!r}. Index the set again")
        # Under its hash, so that a tar that was changed at the URL, with the manifest, is another file.
        return Cache(Path(self.cache), self.cache_bytes).opened(
            f"{shard.fingerprint}{TAR}", shard.size_bytes, lambda file: self._fetch(shard, file, again), again
        )

    def fetch(self, shard: Shard) -> None:
        """Have the shard's tar in the cache."""
        with self.opened(shard):
            pass

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
        here = folder / MANIFEST
        if here.is_file() and here.read_bytes() == manifest and (folder / INDEX).is_file():
            return
        url = self._url(INDEX)
        size_bytes = self._tried(url, lambda: self._call(url, "info"))["size"]
        if size_bytes is None:
            raise InputError(
                f"{url}: the server does not say how large it is. Fetch {INDEX} and {MANIFEST} yourself, and give index=FOLDER"
            )
        for name, pieces in ((INDEX, self._pieces(url, size_bytes)), (MANIFEST, iter([manifest]))):
            with atomic_write(folder / name) as file:
                for piece in pieces:
                    file.write(piece)

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
        """Its result, of the first attempt that gives one. Unreadable at once where the URL holds nothing, else after all tries."""
        try:
            import fsspec  # noqa: F401  (each file system raises errors of its own below)
        except ImportError:
            raise InputError(f"{url}: reading from a URL needs fsspec. Run: pip install 'wordsight[remote]'") from None
        told = ""
        for number in range(self.tries):
            if number:
                # Of its own chance, since ranks that failed together should not ask together, and global random states are a run's own.
                time.sleep(min(self.wait_s * 2 ** (number - 1), MAX_WAIT_S) * random.SystemRandom().uniform(0.5, 1))
            try:
                return attempt()
            except FileNotFoundError:
                remedy = f"Check the URL; a finished set has {MANIFEST}, {INDEX} and its tars in one folder"
                raise Unreadable(f"{url}: is not there. {remedy}", "is not there") from None
            except ImportError as error:  # the package of a file system, such as s3fs
                raise InputError(f"{url}: {error}") from None
            except PermissionError as error:
                raise Unreadable(f"{url}: {error}", str(error)) from None
            except Exception as error:  # file systems raise what their own libraries do: aiohttp, botocore, httpx
                told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        reason = f"could not be read in {self.tries} tries. The last said: {told}"
        raise Unreadable(f"{url}: {reason}", reason)

    def _url(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"


def open_shards(shards: Path | RemoteShards) -> ShardSet:
    """A set by its folder, or at its URL."""
    return shards.open() if isinstance(shards, RemoteShards) else ShardSet(shards)
