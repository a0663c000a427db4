"""Open a shard set by its folder or its URL. A tar at a URL is downloaded into a cache folder when it is read, or prefetched.

    shards = open_set("shards/flickr"), open_set("https://example.org/flickr"), open_set("s3://bucket/flickr", cache=Path("/scratch"))
    shards.image_bytes(7)                       # downloads the tar that holds pair 7, unless it is cached

Nothing is written to the URL. Columns of the set are made beside its index in the cache, `<cache>/flickr-1a2b3c4d/columns/`, where every
command with the same URL and cache finds them. A column in `columns/` at the URL is downloaded at its first use.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from multimodal.boxes import MANIFEST, atomic_write, decode_manifest, fingerprint_file, is_whole, read_manifest
from multimodal.errors import InputError
from multimodal.shards.reader import ShardSet
from multimodal.shards.streamed import is_pattern
from multimodal.shards.table import INDEX
from multimodal.shards.tars import RemoteTars, Unreadable
from multimodal.urls import Unreachable, check_protocol, is_url, url_in

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteShards(RemoteTars):
    __doc__ = RemoteTars.__doc__  # it documents the settings

    def open(self) -> ShardSet:
        """Open the set. InputError if there is none at the URL, or one of its tars is larger than cache_bytes."""
        check_protocol(self.url)
        try:
            Path(self.cache).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "Give another folder (--cache, in fit --data.cache), or set XDG_CACHE_HOME"
            raise InputError(f"{self.cache}: cannot be used as the cache folder ({error.strerror}). {remedy}") from None
        if self.index is None:
            self._fetch_index(self.folder)
        return self._opened()

    def fetched(self) -> ShardSet:
        """The set as it was at the last `open`, with the index and columns in the cache; the network is not used.

        InputError if the set was never opened with this cache.
        """
        return replace(self, offline=True)._opened()

    def _opened(self) -> ShardSet:
        shards = ShardSet(self.folder, self.index, self)
        for shard in shards.shards:  # it becomes a file name in the cache
            if not _SHA256.fullmatch(shard.fingerprint):
                raise InputError(
                    f"{self.url}: shard {shard.name}: expected a sha256 of 64 hex digits, got {shard.fingerprint!r}. Index the set again"
                )
        largest = max((shard.size_bytes for shard in shards.shards), default=0)
        if largest > self.cache_bytes:
            remedy = "Raise it (--cache-bytes, in fit --data.cache_bytes)"
            raise InputError(f"{self.url}: has a tar of {largest} bytes, and cache_bytes={self.cache_bytes}. {remedy}")
        return shards

    def _fetch_index(self, folder: Path) -> None:
        """Download the index and then the manifest, unless the cached files are those at the URL.

        If there is none at the URL, an index that `shards index` made in the cache is used.
        """
        here, index = folder / MANIFEST, folder / INDEX
        try:
            manifest = self.read_small(MANIFEST)
        except Unreadable as error:
            why = error.__cause__  # a bucket that may not be listed answers 403 for a missing file
            if not isinstance(why, Unreachable) or not (why.is_absent or why.is_refused):
                raise
            if is_whole(folder) and read_manifest(folder, kind="shards").config.get("indexed"):
                return
            raise Unreadable(f"{error}. If they are tars of another program: multimodal shards index {self.url}", error.reason) from why
        facts = decode_manifest(manifest, self.url, "shards").parts.get(INDEX, {})
        wanted = facts.get("fingerprint")  # sets of older releases have none
        if here.is_file() and here.read_bytes() == manifest and index.is_file() and wanted in (None, fingerprint_file(index)):
            return
        self.fetch_file(INDEX, index, wanted)
        with atomic_write(here) as file:
            file.write(manifest)


SetPath = str | Path | RemoteShards
"""The location of a set as users give it: a folder or a URL, or a URL with its own settings."""


def open_set(where: SetPath, cache: Path | None = None, cache_bytes: int | None = None, index: Path | None = None) -> ShardSet:
    """Open the set in a folder or at a URL (given as a string). Every command that takes a set opens it here.

    cache, cache_bytes: for a set at a URL, the folder of downloaded files and the maximum total size of its tars; by default in the user's
    cache folder, and 20 GiB. index: the folder of `index.arrow` and `manifest.json`, if they are not beside the tars.
    InputError if there is no set, or it cannot be read.
    """
    if is_pattern(where):
        raise InputError(
            f"{where}: names tars, and the folder of a shard set is expected. Only multimodal fit streams tars, from data.shards alone. "
            f"To read them by id, as all commands do: multimodal shards index {shlex.quote(str(where))}"
        )
    given = {name: value for name, value in (("cache", cache), ("cache_bytes", cache_bytes), ("index", index)) if value is not None}
    if isinstance(where, RemoteShards):
        if given:
            raise InputError(f"{where.url}: is given as RemoteShards; put {', '.join(given)} among its init_args")
        return where.open()
    if is_url(where):
        return RemoteShards(str(where), **given).open()  # type: ignore[arg-type]
    if url := url_in(where):
        raise InputError(f"{url}: a URL converted to a Path is no longer a URL; give it as a string")
    if str(where).startswith("{"):
        raise InputError(
            f"{where}: not the settings of a multimodal.shards.RemoteShards (is one misspelt?). A URL may be given by itself, with --cache"
        )
    return ShardSet(where, index)
