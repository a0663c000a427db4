"""Find damage in a shard set: in its tars, its index and its columns, named by shard and key.

for problem in find_problems(ShardSet("shards/emoji")): print(problem)
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from multimodal.boxes import box_file, fingerprint_file
from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.shards.columns import Column, column_files, column_names
from multimodal.shards.ledger import Bad
from multimodal.shards.reader import BrokenPair, ShardSet
from multimodal.shards.scan import scan_tar
from multimodal.shards.tars import Shard, Tar, Unreadable


def find_problems(shards: ShardSet) -> Iterator[Bad]:
    """Every difference from the manifest and the index, and every invalid pair. key: of the pair, "" for a whole file.

    Checked for each tar: it exists and has its size and sha256; the pairs are where the index says, the JSON is well formed, the .txt is
    texts[0] if there are texts, and each picture begins like a supported format (it is not decoded). For each column: it was made from
    these shards, and its files are unchanged. Tars at a URL are downloaded again, one after another, through the set's cache; a tar that
    cannot be downloaded, or does not match the manifest after all tries, is a problem.
    """
    for shard in track(shards.shards, f"verifying {shards.name}", unit="shard"):
        yield from _shard_problems(shards, shard)
    for name in column_names(shards):
        yield from _column_problems(shards, name)


@dataclass(frozen=True, slots=True)
class TextLengths:
    """characters, words: the lengths of all readable texts, (t,) int64 each. num_broken: the number of pairs that cannot be read."""

    characters: np.ndarray
    words: np.ndarray
    num_broken: int


def read_lengths(shards: ShardSet) -> TextLengths:
    """The lengths of all texts, and the number of broken pairs: beyond the end of a truncated tar, or without a readable text."""
    characters, words, num_broken = array("q"), array("q"), 0
    for shard in track(shards.shards, f"texts of {shards.name}", unit="shard"):
        try:
            with shards.tars.opened(shard) as tar:
                end = tar.size_bytes
                for id, row in zip(shard.ids, shards.rows(shard), strict=True):
                    try:
                        if row.image_offset + row.image_size > end:
                            raise BrokenPair(f"{shard.name} {row.key}: its picture is beyond the end of the tar")
                        texts = shards.texts(id)
                    except BrokenPair:
                        num_broken += 1
                        continue
                    characters.extend(map(len, texts))
                    words.extend(len(text.split()) for text in texts)
        except Unreadable:
            num_broken += shard.num_pairs
    return TextLengths(np.array(characters, np.int64), np.array(words, np.int64), num_broken)


def _shard_problems(shards: ShardSet, shard: Shard) -> Iterator[Bad]:
    try:
        with shards.tars.opened(shard, anew=True) as tar:
            yield from _tar_problems(shards, shard, tar)
    except Unreadable as error:
        yield Bad(shard.name, "", error.reason)


def _tar_problems(shards: ShardSet, shard: Shard, tar: Tar) -> Iterator[Bad]:
    size_bytes, fingerprint = tar.size_bytes, tar.fingerprint()
    changed = fingerprint != shard.fingerprint
    if size_bytes != shard.size_bytes:
        yield Bad(shard.name, "", f"has {size_bytes} bytes, the manifest says {shard.size_bytes}")
    elif changed:
        yield Bad(shard.name, "", f"its sha256 is {fingerprint[:12]}.., the manifest says {shard.fingerprint[:12]}..")
    scan = scan_tar(tar)
    indexed = shards.rows(shard)
    keys = {row.key for row in indexed}
    for bad in scan.bad:
        if changed or bad.key in keys:  # what `shards index` left out is in its ledger already
            yield Bad(shard.name, bad.key, bad.reason)
    reported = {bad.key for bad in scan.bad}
    found = {row.image_offset: row for row in scan.rows}
    for row in indexed:
        # Earlier releases indexed the extension of the member's name, even if the picture has another format.
        here = found.get(row.image_offset)
        if (here is None or row != replace(here, extension=row.extension)) and row.key not in reported:
            yield Bad(shard.name, row.key, "is not in the tar as the index says")
    if size_bytes == shard.size_bytes:
        yield from _pair_problems(shards, shard, {key for key in keys if key not in reported})


def _pair_problems(shards: ShardSet, shard: Shard, keys: Iterable[str]) -> Iterator[Bad]:
    for id in shard.ids:
        key = shards.key(id)
        if key not in keys:
            continue
        text = shards.text_bytes(id)
        try:
            main = "".join(shards.texts(id)[:1])
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
    """The files of the column that are missing or whose content has changed."""
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
