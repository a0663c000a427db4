"""Find what is broken in a set: in its tars, its index and its columns, named by shard and key.

for problem in find_problems(ShardSet("shards/emoji")): print(problem)
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from multimodal.boxes import box_file, fingerprint_file
from multimodal.errors import InputError
from multimodal.progress import track
from multimodal.shards.columns import Column, column_files, column_names
from multimodal.shards.format import TAR
from multimodal.shards.ledger import Bad
from multimodal.shards.reader import BrokenPair, Shard, ShardSet, Unreadable
from multimodal.shards.scan import scan_tar


def find_problems(shards: ShardSet) -> Iterator[Bad]:
    """All that differs from what the manifest and index say, or cannot be right: the shard or column, the pair's key, "" for the file.

    Of each tar: it is there, with its size and sha256; the pairs lie where the index says, JSON is well formed, the .txt is texts[0], and
    each picture begins as a format that is read (it is not decoded). Of each column: it was made of these shards, and its files are
    unchanged. Tars at a URL are fetched again, one after another through the set's cache; one that cannot be, or is not what the manifest
    says after all tries, is a problem of its own.
    """
    for shard in track(shards.shards, f"verifying {shards.name}", unit="shard"):
        yield from _shard_problems(shards, shard)
    for name in column_names(shards):
        yield from _column_problems(shards, name)


@dataclass(frozen=True, slots=True)
class TextLengths:
    """Of each text that can be read, all texts of a pair (t,) int64; and how many pairs cannot."""

    characters: np.ndarray
    words: np.ndarray
    num_broken: int


def read_lengths(shards: ShardSet) -> TextLengths:
    """How long the texts are, and how many pairs lie behind the end of a tar (cut, or missing) or have no text that can be read."""
    characters, words, num_broken = array("q"), array("q"), 0
    for shard in track(shards.shards, f"texts of {shards.name}", unit="shard"):
        try:
            with _tar(shards, shard) as tar:
                end = tar.stat().st_size
                for id, row in zip(shard.ids, shards.rows(shard), strict=True):
                    try:
                        if row.image_offset + row.image_size > end:
                            raise BrokenPair(f"{shard.name} {row.key}: its picture lies behind the end of the tar")
                        texts = shards.texts(id)
                    except BrokenPair:
                        num_broken += 1
                        continue
                    characters.extend(map(len, texts))
                    words.extend(len(text.split()) for text in texts)
        except Unreadable:
            num_broken += shard.num_pairs
    return TextLengths(np.array(characters, np.int64), np.array(words, np.int64), num_broken)


@contextmanager
def _tar(shards: ShardSet, shard: Shard, again: bool = False) -> Iterator[Path]:
    """A path to read the shard's tar by, while this is open; again: one at a URL is fetched whatever the cache holds. Unreadable where
    there is none.
    """
    if shards.remote is not None:
        with shards.remote.opened(shard, again) as descriptor:
            yield Path(f"/dev/fd/{descriptor}")
        return
    path = shards.path / f"{shard.name}{TAR}"
    if not path.is_file():
        raise Unreadable(f"{path}: the tar is missing", "the tar is missing")
    yield path


def _shard_problems(shards: ShardSet, shard: Shard) -> Iterator[Bad]:
    try:
        with _tar(shards, shard, again=True) as path:
            yield from _tar_problems(shards, shard, path)
    except Unreadable as error:
        yield Bad(shard.name, "", error.reason)


def _tar_problems(shards: ShardSet, shard: Shard, path: Path) -> Iterator[Bad]:
    size_bytes, fingerprint = path.stat().st_size, fingerprint_file(path)
    changed = fingerprint != shard.fingerprint
    if size_bytes != shard.size_bytes:
        yield Bad(shard.name, "", f"has {size_bytes} bytes, the manifest says {shard.size_bytes}")
    elif changed:
        yield Bad(shard.name, "", f"its sha256 is {fingerprint[:12]}.., the manifest says {shard.fingerprint[:12]}..")
    scan = scan_tar(path)
    indexed = shards.rows(shard)
    keys = {row.key for row in indexed}
    for bad in scan.bad:
        if changed or bad.key in keys:  # what an index of somebody else's tars left out is in its ledger, and no news
            yield Bad(shard.name, bad.key, bad.reason)
    told = {bad.key for bad in scan.bad}
    found = {row.image_offset: row for row in scan.rows}
    for row in indexed:
        # An index made by an earlier release has the extension of the member's name where that differs from what the picture is.
        here = found.get(row.image_offset)
        if (here is None or row != replace(here, extension=row.extension)) and row.key not in told:
            yield Bad(shard.name, row.key, "is not in the tar as the index says")
    if size_bytes == shard.size_bytes:
        yield from _pair_problems(shards, shard, {key for key in keys if key not in told})


def _pair_problems(shards: ShardSet, shard: Shard, keys: Iterable[str]) -> Iterator[Bad]:
    for id in shard.ids:
        key = shards.key(id)
        if key not in keys:
            continue
        text = shards.text_bytes(id)
        try:
            main = shards.texts(id)[0]
        except InputError as error:
            yield Bad(shard.name, key, str(error))
            continue
        if text.strip() and text != main.encode():
            yield Bad(shard.name, key, "its .txt is not the first of its texts")


def _column_problems(shards: ShardSet, name: str) -> Iterator[Bad]:
    try:
        column = Column.of(shards, name)
    except InputError as error:
        yield Bad(name, "", str(error))
        return
    yield from column_problems(column)


def column_problems(column: Column) -> Iterator[Bad]:
    """Its files that are missing, or have other content than was written."""
    for file, fingerprint in column_files(column.manifest).items():
        try:
            path = box_file(column.path, file)
        except InputError as error:
            yield Bad(column.name, "", str(error))
            continue
        if not path.is_file():
            yield Bad(column.name, "", f"column file {file} is missing")
        elif fingerprint_file(path) != fingerprint:
            yield Bad(column.name, "", f"column file {file} has changed since it was made")
