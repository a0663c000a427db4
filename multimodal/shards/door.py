"""The verbs of `multimodal shards`: look into a set, check it, and make other people's tars readable.

multimodal shards verify shards/emoji
multimodal shards ls shards/emoji --num 5
multimodal shards cat shards/emoji 000000007 --picture seven.webp
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
from multimodal.errors import InputError
from multimodal.printable import json_text, printable
from multimodal.shards.columns import Column, column_names, column_path
from multimodal.shards.index import index_tars
from multimodal.shards.reader import BrokenPair, ShardSet
from multimodal.shards.remote import SetPath, open_set
from multimodal.shards.split import Split
from multimodal.shards.verify import find_problems, read_lengths

NUM_PROBLEMS_SHOWN = 20
NUM_PROBLEMS_TOLD = 3
MAX_TEXT = 60


def verify(path: SetPath, index: Path | None = None, json: bool = False, cache: Path | None = None, cache_bytes: int | None = None) -> None:
    """Check a shard set and its columns: hashes, sizes, member positions, JSON, texts, picture headers. Fails where anything is broken.

    Of a set at a URL each tar is fetched again, whatever the cache holds, and checked there; no more of them lie in the cache than it may
    hold: where there is room for one alone, what it held goes. One that cannot be fetched, or is another than the manifest says, is named,
    and the next one comes.

    Args:
        path: the shard set, a folder or a URL.
        index: where the index lies, for a set indexed elsewhere.
        json: print {"shards", "pairs", "broken_pairs", "problems": [{"where", "key", "reason"}]} instead of a table.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
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
        state = f"{len(problems)} problems, of {num_broken} pairs by name" if problems else "all well"
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
    """Count what is in a shard set: pairs, texts and their lengths, groups, splits, picture formats, sizes, columns, pairs that are broken.

    Reads each text. Broken are pairs whose members lie behind the end of their tar, or whose JSON is; `verify` names them and looks closer.

    Args:
        path: the shard set, a folder or a URL; all its tars go through the cache.
        index: where the index lies, for a set indexed elsewhere.
        json: print one object instead of a table.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
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
        index: where the index lies, for a set indexed elsewhere.
        part: "all", "train" or "test" as training cuts them by default (seed 0, a fifth held out), or a split of the source's own.
        start: leave out so many pairs of the part.
        num: list so many.
        json: print one object a line instead of a table.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
    """
    if start < 0 or num < 0:
        raise InputError(f"--start {start} --num {num}: both count pairs, from 0 up")
    shards = open_set(path, cache, cache_bytes, index)
    ids = Split().ids(shards, part)
    listed = [_pair_facts(shards, int(id)) for id in ids[start : start + num]]
    if json:
        for facts in listed:
            print(json_text(facts))
        return
    _print_table(["id", "key", "split", "group", "name", "bytes", "text"], [[str(value) for value in facts.values()] for facts in listed])
    if start + num < len(ids):
        print(f"... {len(ids)} pairs in all; go on with --start {start + num}")


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
        pair: a key as `ls` prints it, or an id; where both could be meant, it is the key.
        index: where the index lies, for a set indexed elsewhere.
        picture: write the picture's bytes to this file as well; "-" writes them to standard output in place of the JSON.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
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


def index(path: Path, output: Path | None = None, max_bad_share: float = 0.05, json: bool = False) -> None:
    """Index tars that another program wrote (img2dataset, a WebDataset), so that they are read as a shard set without a copy.

    Args:
        path: the folder of the tars; each picture needs `<key>.txt`, or a caption in `<key>.json`, beside it.
        output: where the index goes where that folder cannot be written; give it as `--index` to the other verbs.
        max_bad_share: fail where a larger share of the pairs has no text, no picture, or is cut off; `bad.csv` names them.
        json: print {"index", "shards", "pairs", ...} instead of a line.
    """
    manifest = index_tars(path, output, max_bad_share)
    if json:
        _print_json({"index": str(output or path), **manifest.counts})
        return
    print(f"{output or path}: {manifest.counts['pairs']} pairs in {manifest.counts['shards']} shards, {manifest.counts['groups']} groups")


def _spread(values: np.ndarray) -> dict[str, int]:
    if not len(values):
        return {}
    return {"smallest": int(values.min()), "median": int(np.median(values)), "largest": int(values.max())}


def _find(shards: ShardSet, pair: str) -> int:
    id = shards.find(pair)
    if id is None and pair.isdecimal() and int(pair) < len(shards):
        id = int(pair)
    if id is None:
        keys = f"keys {shards.key(0)} to {shards.key(len(shards) - 1)}, ids 0 to {len(shards) - 1}" if len(shards) else "no pair"
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
        return shards.texts(id)[0]
    except BrokenPair as broken:
        return f"(broken: {broken.reason})"


def _column_facts(shards: ShardSet, name: str) -> str:
    column = Column(column_path(shards, name))
    return f"{column.num_rows} rows of {column.dim}, one a {column.unit}"


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
