"""Random access to the pairs of a set, by id: one `pread` per member; only the memory-mapped index is kept in memory.

    shards = ShardSet("shards/emoji")
    shards.image_bytes(7), shards.texts(7), shards.groups[7]

Ids are 0..n-1 in (shard, position) order. A ShardSet pickles as its paths and opens tars at the first read, so that each worker opens its
own; reads share no file position, so that threads and forked processes may share one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np

from multimodal.boxes import MANIFEST, box_file, check_parts, fingerprint_json, read_manifest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards.format import BLOCK, TAR, decode_record, header_key
from multimodal.shards.split import Part, Split
from multimodal.shards.table import INDEX, SIDECAR, Row, Strings, open_table
from multimodal.shards.tars import RemoteTars, Shard, tars_of
from multimodal.shards.views import Pairs, position
from multimodal.shards.wds import pipeline
from multimodal.urls import is_url, url_in

SetParts = tuple[Path, Path | None, RemoteTars | None]


class BrokenPair(InputError):
    """A pair cannot be read as it was indexed: its tar was truncated since, or its JSON is damaged. The other pairs can be read.

    Training marks it as invalid and continues; a job that makes a box stops, or the box would still lack it after the tar is repaired.
    reason: the message without the place and the remedy.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ShardSet:
    """A finished set of shards, read by id.

    path: the folder of the tars. index: the folder of `index.arrow` and `manifest.json` if they are elsewhere (a read-only set).
    Reading a broken pair raises `BrokenPair`; in a tar that was truncated after it was indexed, only the pairs beyond its end are broken.
    remote: for a set at a URL, where the tars are downloaded from; use `open_set` for such a set.
    """

    def __init__(self, path: str | Path, index: str | Path | None = None, remote: RemoteTars | None = None) -> None:
        if is_url(path) or url_in(path):
            raise InputError(f"{path}: expected a folder, got a URL. Open a set at a URL with open_set(url), the URL as a string")
        self.path = Path(path)
        self.index = self.path if index is None else Path(index)
        self.remote = remote
        self.tars = tars_of(self.path, self.index, remote)
        if not (self.index / MANIFEST).is_file() and any(self.path.glob(f"*{TAR}")):
            if any(self.path.glob(f"*{SIDECAR}")):
                raise InputError(f"{self.path}: the job that writes these shards has not finished. Run it again")
            raise InputError(f"{self.path}: has tars, but no index. Run: multimodal shards index {self.path}")
        self.manifest = read_manifest(self.index, kind="shards")
        self.name = self.tars.name
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
        if INDEX not in self.manifest.parts:  # of an older release: there is no fingerprint to check the index by
            self._check_spans()
        self.groups: Strings = self._table.strings("group")
        self.splits: Strings = self._table.strings("split")
        self.names: Strings = self._table.strings("name")
        self.extensions: Strings = self._table.strings("extension")
        self._keys = self._table.strings("key")

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"ShardSet({self.place!r}: {len(self)} pairs in {len(self.shards)} shards)"

    @overload
    def __getitem__(self, at: SupportsIndex) -> Pair: ...
    @overload
    def __getitem__(self, at: slice) -> Pairs: ...
    def __getitem__(self, at: SupportsIndex | slice) -> Pair | Pairs:
        """The pair of an id, where a negative one counts from the end; for a slice the pairs, which are not read yet."""
        if isinstance(at, slice):
            return Pairs(self, np.arange(len(self))[at])
        return self.pair(position(at, len(self), repr(self)))

    def __iter__(self) -> Iterator[Pair]:
        """The pairs, by ascending id."""
        return map(self.pair, range(len(self)))

    def part(self, part: Part, split: Split | None = None) -> Pairs:
        """The pairs of one of `part_names`, by ascending id, not read yet; InputError if there is no such part.

        split: how pairs without a split in the source are split; by default as in training, with a fifth held out.
        """
        return Pairs(self, (split or Split()).ids(self, part), part)

    @property
    def part_names(self) -> list[Part]:
        """The valid arguments of `part`: "train", "test", "all", and any other splits of the source."""
        own = [name for name in self.splits.distinct() if name and name not in ("train", "test")]
        return ["train", "test", "all", *own]

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardSet, self.parts

    def webdataset(self, seed: int | None = None) -> Any:
        """A pipeline of webdataset over all tars, a dict per pair: `__key__`, and the bytes of its members, `jpg`, `txt` and `json`.

        `shards.webdataset().shuffle(1000).decode("pil").to_tuple("jpg;png;webp", "txt")`; it has the methods of `wds.WebDataset`. Ranks and
        workers share the tars. What it decodes is decoded by webdataset, without the limits of this project. seed: shuffles the tars.
        """
        return pipeline(self, seed)

    @property
    def parts(self) -> SetParts:
        """The arguments with which another process opens the same set: `ShardSet(*parts)`. Small and hashable."""
        return self.path, None if self.index == self.path else self.index, self.remote

    @property
    def place(self) -> str:
        """The place of the tars in messages: the folder or the URL."""
        return self.tars.place

    @property
    def argument(self) -> str:
        """The set as an argument on a command line."""
        return self.tars.as_argument()

    @property
    def fingerprints(self) -> dict[str, str]:
        """Name of a shard -> sha256 of its tar."""
        return {shard.name: shard.fingerprint for shard in self.shards}

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of `fingerprints`: of all tars of the set."""
        return fingerprint_json(self.fingerprints)

    def key(self, id: int) -> str:
        """The pair's name in its tar."""
        return self._keys[self._check(id)]

    def keys(self) -> np.ndarray:
        """(n,) array of str."""
        return self._keys.to_numpy()

    def find(self, key: str) -> int | None:
        """The id of the first pair with this key, None if there is none."""
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
        """The encoded picture, as it is stored."""
        return self._member(id, "image")

    def record(self, id: int) -> dict[str, Any]:
        """The pair's JSON: texts (list of str), group, name, split, metadata; JSON of other writers is converted to this."""
        record = self._member(id, "json")
        try:
            return decode_record(record, lambda: self._member(id, "txt"), self.names[id], self.groups[id])
        except InputError:
            raise
        except ValueError as error:
            raise self._broken(id, str(error)) from None

    def texts(self, id: int) -> tuple[str, ...]:
        """The texts of the pair, the main one first; () if it has none."""
        return tuple(self.record(id)["texts"])

    def need_texts(self, ids: np.ndarray, what: str) -> None:
        """InputError if one of the pairs ids (n,) has no text. what: what needs them, such as "retrieval by text"."""
        without = ids[self.num_texts[ids] == 0]
        if len(without):
            raise InputError(
                f"{self.place}: {len(without)} of {len(ids)} pairs have no text, such as {self.names[int(without[0])]}, and {what} needs a "
                "text of each. Use a set with texts; pictures with classes or identities alone are trained on with data.target "
                "multimodal.data.Labels, and judged by multimodal evaluate identities, evaluate fewshot or evaluate probe"
            )

    def text_bytes(self, id: int) -> bytes:
        """The .txt member as stored in the tar, for readers of one caption; b"" if there is none."""
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
        shard = self.shards[number]
        with self.tars.opened(shard) as tar:  # for this read alone: a cache cannot evict open files
            content = tar.read(offset, size)
            if len(content) < size:
                raise self._broken(id, f"its {member} is beyond the end of the tar, which was truncated after it was indexed")
            # A shorter tar may be truncated, or another file, in which nothing is where the index says.
            if tar.size_bytes < shard.size_bytes and header_key(tar.read(offset - BLOCK, BLOCK)) != self._keys[id]:
                raise self._broken(id, f"its {member} is not where the index says, in a tar that became shorter after it was indexed")
            return content

    def _check_spans(self) -> None:
        """InputError if the index refers to tars that the manifest does not list, or to places outside them."""
        ends = np.array([shard.size_bytes for shard in self.shards], np.int64)
        of_pairs = np.repeat(np.arange(len(self.shards)), [shard.num_pairs for shard in self.shards])
        if (self._shard_of != of_pairs).any() or any(
            (offsets < 0).any() or (sizes < 0).any() or (sizes > ends[of_pairs] - offsets).any() for offsets, sizes in self._spans.values()
        ):
            raise InputError(
                f"{self.index / INDEX}: the index is damaged: it has offsets outside the tars. Run: multimodal shards index {self.path}"
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


def _shards(box: Path, parts: Mapping[str, Mapping[str, Any]]) -> tuple[Shard, ...]:
    shards: list[Shard] = []
    start = 0
    check_parts(box, parts, {"size_bytes": int, "fingerprint": str})
    tars = {name: part for name, part in parts.items() if name != INDEX}
    check_parts(box, tars, {"num_pairs": int})
    for file, part in sorted(tars.items()):
        box_file(box, file, may_link=True)
        if not file.endswith(TAR) or Path(file).name != file:
            raise InputError(f"{box / MANIFEST}: lists {file!r}; expected the file name of a tar in the same folder")
        shards.append(Shard(file.removesuffix(TAR), part["num_pairs"], part["size_bytes"], part["fingerprint"], start))
        start += shards[-1].num_pairs
    return tuple(shards)
