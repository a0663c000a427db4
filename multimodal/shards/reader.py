"""Random access to the pairs of a set, by id: one `pread` a member, nothing kept in memory but the mapped index.

    shards = ShardSet("shards/emoji")
    shards.image_bytes(7), shards.texts(7), shards.groups[7]

Ids are 0..n-1 in (shard, position) order. A ShardSet pickles as its paths and opens files when they are read, so that workers each get
their own; reads share no file position, so that threads and forked processes may use one together.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from multimodal.boxes import MANIFEST, box_file, check_parts, fingerprint_json, read_manifest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards.format import BLOCK, TAR, decode_record, header_key
from multimodal.shards.table import INDEX, SIDECAR, Row, Strings, open_table
from multimodal.urls import is_url, url_in

if TYPE_CHECKING:
    from multimodal.shards.remote import RemoteShards

MAX_OPEN_FILES = 256  # of the usual limit of 1024 a process, whatever the number of shards

SetParts = tuple[Path, Path | None, "RemoteShards | None"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar of a set: its name without `.tar`, its pairs, its bytes, the sha256 of its content, and the id of its first pair."""

    name: str
    num_pairs: int
    size_bytes: int
    fingerprint: str
    start: int

    @property
    def ids(self) -> range:
        """The ids of its pairs."""
        return range(self.start, self.start + self.num_pairs)


class BrokenPair(InputError):
    """One pair cannot be read as it was indexed: its tar was cut since, or its JSON is damaged. The others can.

    A run marks this one and goes on; a job that makes a box of them stops, or the box would go on lacking it once the tar is mended.
    reason: the message without where it is and what to do.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Unreadable(InputError):
    """A whole file of a set cannot be read: it is missing or, of a set at a URL, cannot be fetched, or is not what the manifest says.

    reason: the message without where it is and what to do.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ShardSet:
    """A finished set of shards, read by id.

    path: the folder of the tars. index: the folder of `index.arrow` and `manifest.json` where they lie elsewhere (a read-only set).
    A pair that cannot be read raises `BrokenPair`: of a tar that was cut after it was indexed those behind the end, and no others.
    remote: where the tars are got from instead, for a set at a URL; `open_set` opens it.
    """

    def __init__(self, path: str | Path, index: str | Path | None = None, remote: RemoteShards | None = None) -> None:
        if is_url(path) or url_in(path):
            raise InputError(f"{path}: is a URL, and a folder is wanted here. A set at a URL, as a string, is opened by: open_set(url)")
        self.path = Path(path)
        self.index = self.path if index is None else Path(index)
        self.remote = remote
        if not (self.index / MANIFEST).is_file() and any(self.path.glob(f"*{TAR}")):
            if any(self.path.glob(f"*{SIDECAR}")):
                raise InputError(f"{self.path}: the job that writes these shards has not finished. Run it again")
            raise InputError(f"{self.path}: holds tars, and no index of them. Run: multimodal shards index {self.path}")
        self.manifest = read_manifest(self.index, kind="shards")
        self.name = self.path.resolve().name if remote is None else remote.name
        self.shards = _shards(self.index, self.manifest.parts)
        self._table = open_table(self.index / INDEX, self.manifest.parts.get(INDEX))
        if len(self._table) != sum(shard.num_pairs for shard in self.shards):
            raise InputError(
                f"{self.index}: index.arrow has {len(self._table)} pairs, manifest.json {self.manifest.counts.get('pairs')}. "
                "They were not written together; make the shards, or the index, again"
            )
        self._spans = {
            member: (self._table.integers(f"{member}_offset"), self._table.integers(f"{member}_size"))
            for member in ("image", "json", "txt")
        }
        self._shard_of = self._table.integers("shard")
        if INDEX not in self.manifest.parts:  # made by an older release: nothing says that it is the index that was written
            self._check_spans()
        self.groups: Strings = self._table.strings("group")
        self.splits: Strings = self._table.strings("split")
        self.names: Strings = self._table.strings("name")
        self.extensions: Strings = self._table.strings("extension")
        self._keys = self._table.strings("key")
        self._files: Recent[int, _File] = Recent(MAX_OPEN_FILES)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"ShardSet({self.place!r}: {len(self)} pairs in {len(self.shards)} shards)"

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardSet, self.parts

    @property
    def parts(self) -> SetParts:
        """What another process opens the same set by: `ShardSet(*parts)`. Hashable, and as small as paths are."""
        return self.path, None if self.index == self.path else self.index, self.remote

    @property
    def place(self) -> str:
        """Where the tars lie, as a message calls it: the folder or the URL."""
        return str(self.path) if self.remote is None else self.remote.url

    @property
    def argument(self) -> str:
        """How a command line names the set."""
        return str(self.path) if self.remote is None else self.remote.as_argument()

    @property
    def fingerprints(self) -> dict[str, str]:
        """Name of a shard -> sha256 of its tar."""
        return {shard.name: shard.fingerprint for shard in self.shards}

    @cached_property
    def fingerprint(self) -> str:
        """Over all shards."""
        return fingerprint_json(self.fingerprints)

    def key(self, id: int) -> str:
        """The pair's name in its tar."""
        return self._keys[self._check(id)]

    def keys(self) -> np.ndarray:
        """(n,) array of str."""
        return self._keys.to_numpy()

    def find(self, key: str) -> int | None:
        """The id of the first pair with this key, None where there is none."""
        return self._keys.find(key)

    @property
    def num_texts(self) -> np.ndarray:
        """(n,) int64, how many texts each pair has; a read-only view of the index."""
        return self._table.integers("num_texts")

    @property
    def image_sizes(self) -> np.ndarray:
        """(n,) int64, bytes of each encoded picture; a read-only view of the index."""
        return self._spans["image"][1]

    def shard_of(self, id: int) -> Shard:
        """The shard that holds the pair."""
        return self.shards[self._shard_of[self._check(id)]]

    def shard_numbers(self, ids: np.ndarray) -> np.ndarray:
        """(n,) int32, which of `shards` holds each pair of ids (n,)."""
        return self._shard_of[ids]

    def rows(self, shard: Shard) -> list[Row]:
        """The index of one shard."""
        return self._table.rows(shard.start, shard.num_pairs)

    def image_bytes(self, id: int) -> bytes:
        """The encoded picture, as the source had it."""
        return self._member(id, "image")

    def record(self, id: int) -> dict[str, Any]:
        """The pair's JSON: texts (list of str, at least one), group, name, split, metadata; other writers' JSON in the same shape."""
        record = self._member(id, "json")
        try:
            return decode_record(record, lambda: self._member(id, "txt"), self.names[id], self.groups[id])
        except InputError:
            raise
        except ValueError as error:
            raise self._broken(id, str(error)) from None

    def texts(self, id: int) -> tuple[str, ...]:
        """The texts that came with the picture, the main one first."""
        return tuple(self.record(id)["texts"])

    def text_bytes(self, id: int) -> bytes:
        """The .txt member as it lies in the tar, what readers of one caption see; b"" where there is none."""
        return self._member(id, "txt")

    def pair(self, id: int) -> Pair:
        """The whole pair, as it was written."""
        record, image = self.record(id), self.image_bytes(id)
        try:
            return Pair(
                name=record["name"],
                image=image,
                extension=self.extensions[id],
                texts=tuple(record["texts"]),
                group=record["group"],
                split=record["split"],
                metadata=record["metadata"],
            )
        except ValueError as error:
            raise self._broken(id, str(error)) from None

    def _member(self, id: int, member: str) -> bytes:
        offsets, sizes = self._spans[member]
        number = int(self._shard_of[self._check(id)])
        size = int(sizes[id])
        if not size:
            return b""
        offset = int(offsets[id])
        if self.remote is not None:  # verified when it was fetched: nothing of it is cut
            with self.remote.opened(self.shards[number]) as descriptor:  # for this read alone: what is open cannot make room for others
                return read_at(descriptor, offset, size)
        file = self._files.get(number, self._open)
        content = read_at(file.descriptor, offset, size)
        if len(content) < size:
            raise self._broken(id, f"its {member} lies behind the end of the tar, which was cut after it was indexed")
        # Shorter by a cut is one thing, by being another file is another: then nothing lies where the index says.
        if (
            file.size_bytes < self.shards[number].size_bytes
            and header_key(read_at(file.descriptor, offset - BLOCK, BLOCK)) != self._keys[id]
        ):
            raise self._broken(id, f"its {member} does not lie where the index says, in a tar that became shorter after it was indexed")
        return content

    def _open(self, number: int) -> _File:
        shard = self.shards[number]
        path = self.path / f"{shard.name}{TAR}"
        try:
            file = _File(path)
        except FileNotFoundError:
            listed = f"the manifest in {self.index} lists it. Bring it back, or index again"
            raise Unreadable(f"{path}: the shard is missing; {listed}", "the tar is missing") from None
        if file.size_bytes > shard.size_bytes:
            raise InputError(f"{path}: has {file.size_bytes} bytes and had {shard.size_bytes} when it was indexed. Run: {self._verify()}")
        return file

    def _check_spans(self) -> None:
        """InputError where the index sends a reader to other tars than the manifest lists, or outside of them."""
        ends = np.array([shard.size_bytes for shard in self.shards], np.int64)
        of_pairs = np.repeat(np.arange(len(self.shards)), [shard.num_pairs for shard in self.shards])
        if (self._shard_of != of_pairs).any() or any(
            (offsets < 0).any() or (sizes < 0).any() or (sizes > ends[of_pairs] - offsets).any() for offsets, sizes in self._spans.values()
        ):
            raise InputError(
                f"{self.index / INDEX}: the index is damaged: it names places that are not in the tars. "
                f"Run: multimodal shards index {self.path}"
            )

    def _check(self, id: int) -> int:
        if not 0 <= id < len(self):
            raise IndexError(f"id {id} is outside 0..{len(self) - 1} of {self.place}")
        return id

    def _broken(self, id: int, reason: str) -> BrokenPair:
        where = f"{self.place}: shard {self.shard_of(id).name}, pair {self.key(id)}"
        return BrokenPair(f"{where}: {reason}. Run: {self._verify()}", reason)

    def _verify(self) -> str:
        return f"multimodal shards verify {self.argument}"


class Recent(Generic[K, V]):
    """Opened things, at most `limit` of them: the one that was asked for longest ago goes first.

    What goes is closed when its last user lets go of it (reference counting), so that a thread in the middle of a read keeps its file.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._opened: dict[K, V] = {}
        self._lock, self._opening = threading.Lock(), threading.Lock()

    def __len__(self) -> int:
        return len(self._opened)

    def get(self, key: K, open: Callable[[K], V]) -> V:
        """The thing under the key, opened now where it is not open; once, also when several threads ask for it."""
        value = self._find(key)
        if value is not None:
            return value
        with self._opening:
            value = self._find(key)
            if value is not None:
                return value
            value = open(key)
            with self._lock:
                self._opened[key] = value
                while len(self._opened) > self.limit:
                    self._opened.pop(next(iter(self._opened)))
            return value

    def _find(self, key: K) -> V | None:
        with self._lock:
            value = self._opened.pop(key, None)
            if value is not None:
                self._opened[key] = value  # a dict keeps insertion order: the most recent is last
            return value


class _File:
    """A file descriptor that closes with its last reference."""

    __slots__ = ("descriptor", "size_bytes")

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    """The bytes of a file from offset on, fewer than size only where it ends."""
    content = os.pread(descriptor, size, offset)
    while len(content) < size and (more := os.pread(descriptor, size - len(content), offset + len(content))):
        content += more  # one pread gives at most 2 GiB, and network file systems may give less
    return content


def _shards(box: Path, parts: Mapping[str, Mapping[str, Any]]) -> tuple[Shard, ...]:
    shards: list[Shard] = []
    start = 0
    check_parts(box, parts, {"size_bytes": int, "fingerprint": str})
    tars = {name: part for name, part in parts.items() if name != INDEX}
    check_parts(box, tars, {"num_pairs": int})
    for file, part in sorted(tars.items()):
        box_file(box, file, may_link=True)
        if not file.endswith(TAR) or Path(file).name != file:
            raise InputError(f"{box / MANIFEST}: lists {file!r}, which is no name of a tar in its folder")
        shards.append(Shard(file.removesuffix(TAR), part["num_pairs"], part["size_bytes"], part["fingerprint"], start))
        start += shards[-1].num_pairs
    return tuple(shards)
