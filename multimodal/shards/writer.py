"""Write pairs into shards. The same pairs give the same bytes, and each shard is written atomically.

    with ShardWriter(output, pairs_per_shard=1000, config={"source": "photos"}) as writer:
        for pair in pairs:
            writer.write(pair)

Each shard is independent of the others, so that several processes can write shards with `write_shard`; `finish` then merges their sidecars
into the index of the set and writes the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from multimodal.boxes import MANIFEST, Manifest, encode_manifest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards.folder import Folder, folder_of
from multimodal.shards.format import TAR, TAR_END, broken_text, encode_record, member_name, pair_key, shard_name, tar_header, tar_padding
from multimodal.shards.table import INDEX, SIDECAR, IndexTable, Row, make_table, merge, write_batch

BEYOND_KEYS = 10**12  # more pairs than any set has


class ShardWriter:
    """Writes a whole set, one shard after another. The manifest is written on a clean exit; after an exception there is none.

    output: a folder or an fsspec URL without a finished shard set. An unfinished set that this class left there is replaced.
    config: JSON values that describe the source of the pairs, for the manifest.
    """

    def __init__(self, output: str | Path, pairs_per_shard: int = 1000, config: Mapping[str, Any] | None = None) -> None:
        if pairs_per_shard < 1:
            raise InputError(f"pairs_per_shard is {pairs_per_shard}; a shard holds at least one pair")
        self.output = folder_of(output)
        self.pairs_per_shard = pairs_per_shard
        self.config = dict(config or {})
        self.num_pairs = 0
        self._open = ExitStack()
        self._shard: _OpenShard | None = None

    def write(self, pair: Pair) -> None:
        """Append one pair. InputError, and nothing is written, if its texts or metadata cannot be stored."""
        members = encode_members(pair)
        if self._shard is None:
            self._shard = self._open.enter_context(_open_shard(self.output, self.num_pairs // self.pairs_per_shard))
        self._shard.write(pair_key(self.num_pairs), pair, members)
        self.num_pairs += 1
        if self.num_pairs % self.pairs_per_shard == 0:
            self._shard = None
            self._open.close()

    def __enter__(self) -> ShardWriter:
        clear_unfinished(self.output)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shard = None
        self._open.__exit__(kind, error, trace)
        if error is None:
            finish(str(self.output), self.config | {"pairs_per_shard": self.pairs_per_shard})


def write_shard(output: str | Path, number: int, pairs: Iterable[Pair], first_key: int, num_keys: int | None = None) -> None:
    """Write one shard and its sidecar, for jobs that write shards in parallel and then call `finish`.

    first_key: the number that is the first pair's key; the key ranges of different shards must not overlap.
    num_keys: the size of this shard's key range, if there may be more pairs. The key of each pair beyond it is the shard's number, counted
        from 1, followed by twelve digits for its position in the shard, so that keys stay unique.
    """
    with _open_shard(folder_of(output), number) as shard:
        for position, pair in enumerate(pairs):
            is_own = num_keys is None or position < num_keys
            key = first_key + position if is_own else (number + 1) * BEYOND_KEYS + position
            shard.write(pair_key(key), pair, encode_members(pair))


def finish(output: str | Path, config: Mapping[str, Any]) -> Manifest:
    """Merge the sidecars of all shards in the folder into `index.arrow`, then write the manifest; after that the set is readable.

    Call it again after adding shards. InputError if a shard is unfinished or was written by another program, or there is no pair.
    """
    folder = folder_of(output)
    files = folder.files()
    shards = sorted(name.removesuffix(SIDECAR) for name in files if name.endswith(SIDECAR) and name != INDEX)
    unfinished = [f"{shard}{SIDECAR}" for shard in shards if f"{shard}{TAR}" not in files]
    if unfinished:
        raise InputError(f"{output}: shards {', '.join(unfinished)} were not finished: their tars are missing. Make those shards again")
    foreign = _foreign_tars(files)
    if foreign:
        raise InputError(f"{output}: {foreign[0]} was not written with these shards. Move it, or run: multimodal shards index {output}")
    tables = folder.tables([f"{shard}{SIDECAR}" for shard in shards])
    manifest = shards_manifest(zip(shards, tables, strict=True), config)
    if not manifest.counts["pairs"]:
        raise InputError(f"{output}: no pair was written, so there is no shard set")
    with folder.writing(INDEX) as file:
        manifest = with_index(manifest, write_batch(file, merge(tables)))
    with folder.writing(MANIFEST) as file:
        file.write(encode_manifest(manifest))
    return manifest


def shards_manifest(tables: Iterable[tuple[str, IndexTable]], config: Mapping[str, Any]) -> Manifest:
    """The manifest of a set. tables: the name and the index of each shard."""
    parts: dict[str, dict[str, Any]] = {}
    groups: list[np.ndarray] = []  # as digests: the strings would take a hundred bytes per pair
    num_texts = 0
    for name, table in tables:
        facts = table.metadata
        size_bytes = int(facts["size_bytes"])
        parts[f"{name}{TAR}"] = {"num_pairs": len(table), "size_bytes": size_bytes, "fingerprint": facts["sha256"]}
        groups.append(table.strings("group").digests())
        num_texts += int(table.integers("num_texts").sum())
    counts = {
        "shards": len(parts),
        "pairs": sum(part["num_pairs"] for part in parts.values()),
        "texts": num_texts,
        "groups": _num_distinct(groups),
        "size_bytes": sum(part["size_bytes"] for part in parts.values()),
    }
    return Manifest(kind="shards", config=dict(config), counts=counts, parts=parts)


def with_index(manifest: Manifest, facts: Mapping[str, Any]) -> Manifest:
    """The manifest with the size and fingerprint of `index.arrow`, which readers check."""
    return replace(manifest, parts={**manifest.parts, INDEX: dict(facts)})


def _num_distinct(digests: Sequence[np.ndarray]) -> int:
    """By sorting: `np.unique` has a hash table, which is several times as large as what it is given."""
    ordered = np.sort(np.concatenate([np.zeros(0, np.uint64), *digests]))
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + (len(ordered) > 0)


class _OpenShard:
    """A tar on its way to disk, its hash so far, and the rows of its index."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        self.rows: list[Row] = []

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, key: str, pair: Pair, members: Mapping[str, bytes]) -> None:
        offsets = {extension: self._member(member_name(key, extension), content) for extension, content in members.items()}
        self.rows.append(
            Row(
                key=key,
                group=pair.group,
                split=pair.split,
                name=pair.name,
                extension=pair.extension,
                num_texts=len(pair.texts),
                image_offset=offsets[pair.extension],
                image_size=len(members[pair.extension]),
                json_offset=offsets["json"],
                json_size=len(members["json"]),
                txt_offset=offsets.get("txt", 0),
                txt_size=len(members.get("txt", b"")),
            )
        )

    def append(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self._file.write(chunk)
            self._digest.update(chunk)
            self.size_bytes += len(chunk)

    def _member(self, name: str, content: bytes) -> int:
        self.append(tar_header(name, len(content)))
        offset = self.size_bytes
        self.append(content, tar_padding(len(content)))
        return offset


@contextmanager
def _open_shard(folder: Folder, number: int) -> Iterator[_OpenShard]:
    name = shard_name(number)
    with folder.writing(f"{name}{TAR}") as file:
        shard = _OpenShard(file)
        yield shard
        shard.append(TAR_END)
        # The tar gets its name after its sidecar: a tar without a sidecar is another program's, and is never used or removed.
        with folder.writing(f"{name}{SIDECAR}") as sidecar:
            write_batch(sidecar, make_table(shard.rows, shard.size_bytes, shard.sha256))


def encode_members(pair: Pair) -> dict[str, bytes]:
    """Extension -> content, in tar order. InputError if the pair cannot be stored."""
    try:
        text = {"txt": pair.texts[0].encode()} if pair.texts else {}
        return {pair.extension: pair.image, **text, "json": encode_record(pair)}
    except UnicodeEncodeError as error:
        parts = {"text": pair.texts, "name": pair.name, "group": pair.group, "split": pair.split, "metadata": pair.metadata}
        problem = next((f"its {part} {reason}" for part, value in parts.items() if (reason := broken_text(value))), str(error))
        raise InputError(f"pair {pair.name!r} cannot be stored: {problem}") from None
    except ValueError as error:
        raise InputError(f"pair {pair.name!r} cannot be stored: {error}") from None


def _foreign_tars(files: Collection[str]) -> list[str]:
    return sorted(name for name in files if name.endswith(TAR) and f"{name.removesuffix(TAR)}{SIDECAR}" not in files)


def clear_unfinished(folder: Folder, keep: Collection[str] = ()) -> None:
    """Remove the files of an unfinished run, and nothing else. keep: names of shards to keep. InputError if the folder has other shards."""
    files = folder.files()
    if MANIFEST in files:
        raise InputError(f"{folder}: already holds something finished. Remove it, or choose another output folder")
    foreign = _foreign_tars(files)
    if foreign:
        raise InputError(f"{folder}: holds {foreign[0]}, which this program did not write. Choose another output folder")
    ours = (f"*{TAR}", f"*{SIDECAR}", *(f".*{suffix}.*.part" for suffix in (TAR, SIDECAR, ".json", ".csv")))
    for name in files:
        if any(fnmatchcase(name, pattern) for pattern in ours) and name.rpartition(".")[0] not in keep:
            folder.remove(name)
