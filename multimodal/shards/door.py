"""The verbs of `multimodal shards`: inspect a set, check it, and index tars that other programs wrote.

multimodal shards verify shards/emoji
multimodal shards ls shards/emoji --num 5
multimodal shards cat shards/emoji 000000007 --picture seven.webp
multimodal shards index img2dataset_output
multimodal shards stats s3://bucket/emoji --cache /scratch/cache
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.boxes import write_output
from multimodal.doors.printable import json_text, printable
from multimodal.errors import InputError
from multimodal.shards.columns import Column, column_names, column_path
from multimodal.shards.index import folder_of_index, index_tars, place_of
from multimodal.shards.reader import BrokenPair, ShardSet
from multimodal.shards.remote import SetPath, open_set
from multimodal.shards.split import Split
from multimodal.shards.verify import find_problems, read_lengths

NUM_PROBLEMS_SHOWN = 20
NUM_PROBLEMS_TOLD = 3
MAX_TEXT = 60


def verify(path: SetPath, index: Path | None = None, json: bool = False, cache: Path | None = None, cache_bytes: int | None = None) -> None:
    """Check a shard set and its columns: hashes, sizes, member positions, JSON, texts, picture headers. Fails if anything is broken.

    For a set at a URL each tar is fetched again, even if it is in the cache, and checked. The cache stays within its limit: if there is
    space for only one tar, the others are removed. A tar that cannot be fetched, or differs from the manifest, is named,
    and the check continues with the next.

    Args:
        path: the shard set, a folder or a URL.
        index: the folder of the index, for a set indexed elsewhere.
        json: print {"shards", "pairs", "broken_pairs", "problems": [{"where", "key", "reason"}]} instead of a table.
        cache: for a set at a URL, the folder for its tars and columns; by default in the user's cache folder.
        cache_bytes: the most bytes that tars take there; by default 20 GiB.
    """
    shards = open_set(path, cache, cache_bytes, index)
    problems = list(find_problems(shards))
    num_broken = len({(problem.where, problem.key) for problem in problems if problem.key})
    if json:
        _print_json(
            {
                "shards": len(shards.shards),
                "pairs": len(shards),
                "broken_pairs": num_broken,
                "problems": [asdict(problem) for problem in problems],
            }
        )
    else:
        state = f"{len(problems)} problems, {num_broken} pairs affected" if problems else "all well"
        print(f"{shards.place}: {len(shards.shards)} shards, {len(shards)} pairs, {len(column_names(shards))} columns: {state}")
        if problems:
            shown = problems[:NUM_PROBLEMS_SHOWN]
            _print_table(["where", "key", "reason"], [[problem.where, problem.key, problem.reason] for problem in shown])
            if len(problems) > len(shown):
                print(f"... and {len(problems) - len(shown)} more; --json prints all")
    if problems:
        first = "; ".join(str(problem) for problem in problems[:NUM_PROBLEMS_TOLD])
        raise InputError(f"{shards.place} is broken in {len(problems)} places: {first}. Make these again from their source")


def stats(path: SetPath, index: Path | None = None, json: bool = False, cache: Path | None = None, cache_bytes: int | None = None) -> None:
    """Count what is in a shard set: pairs, texts and their lengths, groups, splits, picture formats, sizes, columns, broken pairs.

    Reads each text. Pairs count as broken if their members are beyond the end of the tar, or their JSON is broken; `verify` names them.

    Args:
        path: the shard set, a folder or a URL; all its tars go through the cache.
        index: the folder of the index, for a set indexed elsewhere.
        json: print one object instead of a table.
        cache: for a set at a URL, the folder for its tars and columns; by default in the user's cache folder.
        cache_bytes: the most bytes that tars take there; by default 20 GiB.
    """
    shards = open_set(path, cache, cache_bytes, index)
    sizes = shards.image_sizes
    groups = shards.groups.distinct()
    parts_of: defaultdict[str, set[str]] = defaultdict(set)
    for group, split in zip(shards.groups, shards.splits, strict=True):
        parts_of[group].add(split)
    texts = read_lengths(shards)
    facts: dict[str, Any] = {
        "pairs": len(shards),
        "broken_pairs": texts.num_broken,
        "texts": int(shards.num_texts.sum()),
        "text_characters": _spread(texts.characters),
        "text_words": _spread(texts.words),
        "shards": len(shards.shards),
        "size_bytes": sum(shard.size_bytes for shard in shards.shards),
        "groups": len(groups),
        "largest_group": max(groups.values(), default=0),
        "splits": {split or "(by hash)": count for split, count in shards.splits.distinct().items()},
        "groups_cut_by_own_splits": sum(len(parts) > 1 for parts in parts_of.values()),
        "formats": shards.extensions.distinct(),
        "image_bytes": _spread(sizes),
        "columns": {name: _column_facts(shards, name) for name in column_names(shards)},
        "fingerprint": shards.fingerprint,
    }
    if json:
        _print_json(facts)
        return
    for name, value in facts.items():
        told = ", ".join(f"{key} {fact}" for key, fact in value.items()) or "none" if isinstance(value, dict) else value
        print(f"{name.replace('_', ' '):26}{told}")


def ls(
    path: SetPath,
    index: Path | None = None,
    part: str = "all",
    start: int = 0,
    num: int = 20,
    json: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> None:
    """List pairs: id, key, split, group, name, picture size, and the beginning of the main text.

    Args:
        path: the shard set, a folder or a URL; the tars of the listed pairs are fetched.
        index: the folder of the index, for a set indexed elsewhere.
        part: "all", "train" or "test" as training splits them by default (seed 0, a fifth held out), or one of the source's own splits.
        start: number of pairs of the part to skip.
        num: number of pairs to list.
        json: print one object per line instead of a table.
        cache: for a set at a URL, the folder for its tars and columns; by default in the user's cache folder.
        cache_bytes: the most bytes that tars take there; by default 20 GiB.
    """
    if start < 0 or num < 0:
        raise InputError(f"--start {start} --num {num}: both are numbers of pairs and must be at least 0")
    shards = open_set(path, cache, cache_bytes, index)
    ids = Split().ids(shards, part)
    listed = [_pair_facts(shards, int(id)) for id in ids[start : start + num]]
    if json:
        for facts in listed:
            print(json_text(facts))
        return
    _print_table(["id", "key", "split", "group", "name", "bytes", "text"], [[str(value) for value in facts.values()] for facts in listed])
    if start + num < len(ids):
        print(f"... {len(ids)} pairs in all; continue with --start {start + num}")


def cat(
    path: SetPath,
    pair: str,
    index: Path | None = None,
    picture: Path | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> None:
    """Print one pair as JSON: its place, and its texts, group, name, split and metadata.

    Args:
        path: the shard set, a folder or a URL; the pair's tar is fetched.
        pair: a key as `ls` prints it, or an id; if it could be either, it is taken as a key.
        index: the folder of the index, for a set indexed elsewhere.
        picture: also write the picture's bytes to this file; "-" writes them to standard output instead of the JSON.
        cache: for a set at a URL, the folder for its tars and columns; by default in the user's cache folder.
        cache_bytes: the most bytes that tars take there; by default 20 GiB.
    """
    shards = open_set(path, cache, cache_bytes, index)
    id = _find(shards, pair)
    if picture == Path("-"):
        sys.stdout.buffer.write(shards.image_bytes(id))
        return
    if picture is not None:
        with write_output(picture) as file:
            file.write(shards.image_bytes(id))
    place = {"id": id, "key": shards.key(id), "shard": shards.shard_of(id).name, "extension": shards.extensions[id]}
    _print_json(place | shards.record(id))


def index(path: str | Path, output: Path | None = None, max_bad_share: float = 0.05, json: bool = False, cache: Path | None = None) -> None:
    """Index tars that another program wrote (img2dataset, a WebDataset), so that they are read as a shard set without a copy.

    Args:
        path: the folder of the tars, a URL, or a pattern, 's3://bucket/cc12m/{00000..01242}.tar'; each picture needs `<key>.txt`, or a
            caption in `<key>.json`, beside it. Every tar is read once, and nothing is kept but the index.
        output: folder for the index, if the folder of the tars is read-only; give it as `--index` to the other verbs. For a URL, by default
            the set's folder in the cache, where every command finds it: `multimodal fit --data.shards s3://bucket/cc12m`.
        max_bad_share: fail if a larger share of the pairs has no text, no picture, or is cut off; `bad.csv` names them.
        json: print {"index", "shards", "pairs", ...} instead of a summary line.
        cache: for a URL, the folder for the index; by default in the user's cache folder. Give it to the other commands, too.
    """
    manifest = index_tars(path, output, max_bad_share, cache)
    place = output or folder_of_index(place_of(path), cache)
    if json:
        _print_json({"index": str(place), **manifest.counts})
        return
    print(f"{place}: {manifest.counts['pairs']} pairs in {manifest.counts['shards']} shards, {manifest.counts['groups']} groups")


def _spread(values: np.ndarray) -> dict[str, int]:
    if not len(values):
        return {}
    return {"smallest": int(values.min()), "median": int(np.median(values)), "largest": int(values.max())}


def _find(shards: ShardSet, pair: str) -> int:
    id = shards.find(pair)
    if id is None and pair.isdecimal() and int(pair) < len(shards):
        id = int(pair)
    if id is None:
        keys = f"keys {shards.key(0)} to {shards.key(len(shards) - 1)}, ids 0 to {len(shards) - 1}" if len(shards) else "no pairs"
        raise InputError(f"{shards.place}: no pair has the key or id {pair!r}; there are {keys}")
    return id


def _pair_facts(shards: ShardSet, id: int) -> dict[str, Any]:
    return {
        "id": id,
        "key": shards.key(id),
        "split": shards.splits[id],
        "group": shards.groups[id],
        "name": shards.names[id],
        "bytes": int(shards.image_sizes[id]),
        "text": _main_text(shards, id),
    }


def _main_text(shards: ShardSet, id: int) -> str:
    try:
        return next(iter(shards.texts(id)), "(no text)")
    except BrokenPair as broken:
        return f"(broken: {broken.reason})"


def _column_facts(shards: ShardSet, name: str) -> str:
    column = Column(column_path(shards, name))
    return f"{column.num_rows} rows of {column.dim}, one per {column.unit}"


def _print_json(value: Any) -> None:
    print(json_text(value, indent=1))


def _print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    cells = [[_one_line(cell) for cell in row] for row in [names, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _one_line(text: str) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
