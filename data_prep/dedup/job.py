"""Find duplicate pictures in one shard set or several: as another file, in another size, slightly cropped or brighter.

    data-prep dedup shards/flickr8k shards/cc12m --output runs/dedup --page
    multimodal fit ... --data.shards shards/cc12m --data.leave_out runs/dedup/cc12m.leakage.json

A training picture that is also in the test set makes figures too good (leakage); a picture that is in a set a thousand times
is learned a thousand times. What counts as the same is a matter of judgement: look at the page before you leave anything out.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.dedup.hamming import NearPairs, near_pairs
from data_prep.dedup.page import Shown, render
from data_prep.dedup.phash import SIDES, NumBits, perceptual_hash
from multimodal.boxes import atomic_write
from multimodal.errors import InputError
from multimodal.machine.cores import map_in_threads
from multimodal.machine.progress import track
from multimodal.pictures.decode import BadPicture
from multimodal.shards import BrokenPair, Ledger, SetPath, ShardSet, Split, open_set, write_leave_out

TRAIN = "train"
LISTS = {
    "leakage": "pairs to learn from that are near to one that is held out",
    "duplicates": "those near to one that is held out, and all but the first of near ones",
}
"""The lists of each set: name in the file name -> why its pairs are left out."""
_SPLIT = Split()


@dataclass(frozen=True, slots=True)
class Pictures:
    """The n pictures of all sets that have a hash, one set after the other.

    set_of, id_of (n,) int64; part_of (n,) str; hashes (n, w) uint64.
    """

    sets: tuple[ShardSet, ...]
    set_of: np.ndarray
    id_of: np.ndarray
    part_of: np.ndarray
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.set_of)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which pictures are near each other.

    distinct (n,) int64: the number of each picture's hash among the distinct hashes; links: near pairs of those.
    group_of (n,) int64: pictures with the same number are linked, directly or through others; groups are numbered by their first picture.
    leaks (n,) bool: a picture of a training split that is near one of another split.
    """

    distinct: np.ndarray
    links: NearPairs
    group_of: np.ndarray
    leaks: np.ndarray


def dedup(
    shards: Sequence[SetPath],
    output: Path,
    radius: int = 48,
    num_bits: NumBits = 256,
    split: Split = _SPLIT,
    page: bool = False,
    max_shown: int = 200,
    max_bad_share: float = 0.05,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Path:
    """Find pictures that look alike, across shard sets and splits, and return the folder of the report.

    It holds report.json with the printed counts; groups.csv, a line for each picture that has another near it; and two lists for
    each set, which a run leaves out with `--data.leave_out`: <set>.leakage.json, the training pairs that are near one of
    another split, of any of the sets; and <set>.duplicates.json, those and all but the first of each group of training pairs.

    Args:
        shards: the shard sets, folders or URLs, one or several.
        output: the folder of the report; an earlier report there is replaced.
        radius: how many bits of the hash may differ. 16 finds other encodings, 32 other sizes and brightness, 48 most crops by 2 %.
        num_bits: size of the hash, 64 or 256. 64 takes half the time to compare, but takes some different photographs for the same.
        split: what is held out; give the same settings as to the run that trains on the sets.
        page: also write report.html, with the pictures side by side.
        max_shown: the most groups on the page; groups with leakage come first.
        max_bad_share: fail if more than this share of the pictures cannot be read.
        cache: for a set at a URL, the folder for its tars and columns; by default in the user's cache folder.
        cache_bytes: the most bytes that tars take there; by default 20 GiB.
    """
    if not 0 <= radius < num_bits // 2:
        raise InputError(
            f"radius is {radius}; with {num_bits} bits give 0 to {num_bits // 2 - 1}, since different pictures differ in half of them"
        )
    sets = _open(shards, cache, cache_bytes)
    with Ledger(output / "bad.csv", max_bad_share) as ledger:
        pictures, num_blank = hash_pictures(sets, num_bits, split, ledger)
    found = find_duplicates(pictures, radius)
    for old in (output / "report.html", *(file for name in LISTS for file in output.glob(f"*.{name}.json"))):
        old.unlink(missing_ok=True)  # possibly of a set that is not among the sets of this call
    counts, num_groups = part_counts(pictures, found), len(_groups(pictures, found))
    report = {
        "settings": {"radius": radius, "num_bits": num_bits, "seed": split.seed, "held_out": split.held_out},
        "sets": {one.name: one.fingerprint for one in sets},
        "pictures": len(pictures),
        "blank": num_blank,
        "unread": ledger.num_bad,
        "near_pairs": [{"one": one, "other": other, "pairs": num} for (one, other), num in counts.items()],
        "groups": num_groups,
        "leaks": {one.name: int((found.leaks & (pictures.set_of == number)).sum()) for number, one in enumerate(sets)},
    }
    _write(output / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    _write(output / "groups.csv", _groups_csv(pictures, found))
    listed = {"leakage": found.leaks, "duplicates": found.leaks | _repeats(pictures, found)}
    for number, one in enumerate(sets):
        for name, reason in LISTS.items():
            write_leave_out(output / f"{one.name}.{name}.json", one, pictures.id_of[listed[name] & (pictures.set_of == number)], reason)
    if page:
        _write(output / "report.html", render(table(counts), list(_shown(pictures, found, max_shown)), num_groups))
    print(f"{len(pictures)} pictures, {num_blank} blank; pairs within {radius} of {num_bits} bits:\n{table(counts)}")
    print(f"{int(found.leaks.sum())} training pairs are near a held-out one: {output}", file=sys.stderr)
    return output


# Hashes -----------------------------------------------------------------------------------------------------------------------------------


def hash_pictures(sets: Sequence[ShardSet], num_bits: NumBits, split: Split, ledger: Ledger) -> tuple[Pictures, int]:
    """The hash of every picture, on all cores, and how many are blank and have none. Unreadable pictures go to the ledger."""
    hashes: list[np.ndarray] = []
    places: list[tuple[int, int]] = []
    parts: list[str] = []
    num_blank = 0
    for number, one in enumerate(sets):
        work = track(_hashes(one, num_bits), f"hashes of {one.name}", unit="picture", total=len(one))
        for id, found in enumerate(work):
            if isinstance(found, str):
                ledger.bad(one.shard_of(id).name, one.key(id), found)
                continue
            ledger.good()
            if found is None:
                num_blank += 1
                continue
            hashes.append(found)
            places.append((number, id))
            parts.append(split.part_of(one.groups[id], one.splits[id]))
    set_of, id_of = np.array(places, np.int64).reshape(-1, 2).T
    words = np.array(hashes, np.uint64).reshape(len(hashes), SIDES[num_bits] ** 2 // 64)
    return Pictures(tuple(sets), set_of, id_of, np.array(parts, np.str_), words), num_blank


def _hashes(shards: ShardSet, num_bits: NumBits) -> Iterator[np.ndarray | str | None]:
    """For each pair in order: its hash, None for a blank picture, or why it cannot be read."""

    def one(id: int) -> np.ndarray | str | None:
        try:
            return perceptual_hash(shards.image_bytes(id), num_bits)
        except (BadPicture, BrokenPair) as error:
            return str(error)

    return map_in_threads(one, range(len(shards)))


def _open(paths: Sequence[SetPath], cache: Path | None, cache_bytes: int | None) -> list[ShardSet]:
    sets = [open_set(path, cache, cache_bytes) for path in paths]
    names = [one.name for one in sets]
    for one in sets:
        if names.count(one.name) > 1:
            rename = "Rename one" if one.remote is None else "Rename one, or fetch it into a folder of another name"
            raise InputError(f"{one.place}: two sets are called {one.name}, but the lists are named by set. {rename}, or give it once")
    return sets


# What is near what ------------------------------------------------------------------------------------------------------------------------


def find_duplicates(pictures: Pictures, radius: int) -> Duplicates:
    """Pictures whose hashes differ in at most `radius` bits. Equal hashes count as one, so that a thousand equal pictures are cheap."""
    hashes, distinct = np.unique(pictures.hashes, axis=0, return_inverse=True)
    distinct = distinct.reshape(-1)
    links = near_pairs(hashes, radius)
    held_out = np.zeros(len(hashes), bool)
    held_out[distinct[pictures.part_of != TRAIN]] = True
    near_held_out = held_out.copy()
    near_held_out[links.first[held_out[links.second]]] = True
    near_held_out[links.second[held_out[links.first]]] = True
    leaks = near_held_out[distinct] & (pictures.part_of == TRAIN)
    _, first, group_of = np.unique(_components(len(hashes), links)[distinct], return_index=True, return_inverse=True)
    return Duplicates(distinct, links, np.argsort(np.argsort(first))[group_of.reshape(-1)], leaks)


def _components(num: int, links: NearPairs) -> np.ndarray:
    """(num,) int64: the lowest node that each is linked to, directly or through others."""
    parent = np.arange(num)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    for first, second in zip(links.first.tolist(), links.second.tolist(), strict=True):
        one, other = root(first), root(second)
        parent[max(one, other)] = min(one, other)
    return np.array([root(node) for node in range(num)], np.int64)


def part_counts(pictures: Pictures, found: Duplicates) -> dict[tuple[str, str], int]:
    """(split, split) -> how many pairs of pictures, one from each, are near; splits named "set split", zero counts omitted."""
    names = [
        f"{pictures.sets[number].name} {part}" for number, part in zip(pictures.set_of.tolist(), pictures.part_of.tolist(), strict=True)
    ]
    parts = sorted(set(names))
    index = np.array([parts.index(name) for name in names], np.int64)
    with_hash = np.zeros((found.distinct.max(initial=-1) + 1, len(parts)), np.int64)
    np.add.at(with_hash, (found.distinct, index), 1)
    near = with_hash[found.links.first].T @ with_hash[found.links.second]
    equal = with_hash.T @ with_hash
    counts = {}
    for row, one in enumerate(parts):
        for column in range(row, len(parts)):
            if row == column:
                num = near[row, row] + (equal[row, row] - with_hash[:, row].sum()) // 2
            else:
                num = near[row, column] + near[column, row] + equal[row, column]
            if num:
                counts[one, parts[column]] = int(num)
    return counts


def _repeats(pictures: Pictures, found: Duplicates) -> np.ndarray:
    """(n,) bool: a training picture whose group has an earlier training picture that does not leak."""
    repeats = np.zeros(len(pictures), bool)
    candidates = np.flatnonzero((pictures.part_of == TRAIN) & ~found.leaks)
    _, first = np.unique(found.group_of[candidates], return_index=True)
    repeats[np.delete(candidates, first)] = True
    return repeats


# The report -------------------------------------------------------------------------------------------------------------------------------


def table(counts: dict[tuple[str, str], int]) -> str:
    """The counts as lines of text."""
    if not counts:
        return "none"
    width = max(len(f"{one} and {other}") for one, other in counts)
    return "\n".join(f"{f'{one} and {other}':{width}}  {num:8,}" for (one, other), num in counts.items())


def _groups(pictures: Pictures, found: Duplicates) -> list[np.ndarray]:
    """The pictures of each group of two or more; groups that leak come first, then by their first picture."""
    order = np.argsort(found.group_of, kind="stable")
    cuts = np.flatnonzero(np.diff(found.group_of[order])) + 1
    groups = [group for group in np.split(order, cuts) if len(group) > 1]
    return sorted(groups, key=lambda group: not found.leaks[group].any())


def _groups_csv(pictures: Pictures, found: Duplicates) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["group", "set", "part", "key", "name", "bits_from_first", "leaks"])
    for number, group in enumerate(_groups(pictures, found)):
        for place in group.tolist():
            one, id = pictures.sets[pictures.set_of[place]], int(pictures.id_of[place])
            away = _distance(pictures, group[0], place)
            rows.writerow([number, one.name, pictures.part_of[place], one.key(id), one.names[id], away, int(found.leaks[place])])
    return text.getvalue()


def _shown(pictures: Pictures, found: Duplicates, max_shown: int) -> Iterator[list[Shown]]:
    for group in _groups(pictures, found)[:max_shown]:
        yield [
            Shown(
                pictures.sets[pictures.set_of[place]],
                int(pictures.id_of[place]),
                str(pictures.part_of[place]),
                _distance(pictures, group[0], place),
                bool(found.leaks[place]),
            )
            for place in group.tolist()
        ]


def _distance(pictures: Pictures, one: int, other: int) -> int:
    return int(np.bitwise_count(pictures.hashes[one] ^ pictures.hashes[other]).sum())


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "surrogatepass"))
