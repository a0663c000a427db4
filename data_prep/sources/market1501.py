"""Market-1501 and other sets for re-identification: people by the numbers in the names of their pictures, seen by several cameras.

    data-prep make-shards market1501 Market-1501-v15.09.15 --output shards/market
    data-prep make-shards market1501 boxes --hold-out 3 --output shards/market           a folder (or tars, zips) without the authors' parts

    bounding_box_train/0002_c1s1_000451_03.jpg     person 0002, camera 1, sequence 1, frame 451, its third box        split train
    query/  bounding_box_test/                     what is asked, and where it is looked for                           split test

Any names that begin with PERSON_cCAMERA are read (DukeMTMC-reID has them too). A pair has no text; its metadata has `identity` ("0002"),
`camera` (1), and in the test part `role` ("query" or "gallery"; with --hold-out "both" or "gallery"). Pairs of one person are a group, so
that no split cuts a person.
As the protocol says, boxes of nobody in particular (person -1, junk) are left out, and counted; distractors (person 0000) have
`distractor: true` and no identity: they are wrong for every query.

These are pictures of people who were not asked. Do not publish them, or try to say who somebody is.

L. Zheng, L. Shen, L. Tian, S. Wang, J. Wang, Q. Tian, "Scalable Person Re-identification: A Benchmark", ICCV 2015.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from data_prep.pictures.formats import offer
from data_prep.sources import cut
from data_prep.sources._file_tree import FileTree, tree_of
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures.decode import BadPicture
from multimodal.pictures.formats import PICTURE_SUFFIXES
from multimodal.shards import Ledger

NAME = re.compile(r"(-1|\d+)_c(\d+)(?!\d)[^/]*")
JUNK, DISTRACTOR = "-1", re.compile("0+")
FOLDERS = {"bounding_box_train": ("train", ""), "query": ("test", "query"), "bounding_box_test": ("test", "gallery")}
"""The authors' folders -> the split, and what their pictures are for in the test."""


def market1501(input: Path, hold_out: int | None = None, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The pictures in the order of their names, each with its person and its camera.

    input: the folder of the data set, or any folder, .tar or .zip of pictures with such names.
    hold_out: for pictures outside the authors' folders: one in so many persons is in the test, by a hash of the number; of each, the first
        picture by each camera is a query, and all are the gallery. By default such pictures have no split of their own, and a hash of the
        person decides in each run.
    """
    listed = _listed(tree_of(input, None if part is None else part["listing"]), hold_out)
    for box in listed.boxes[slice(None) if part is None else slice(part["start"], part["stop"])]:
        try:
            image = listed.tree.read(box.name)
        except BadPicture as error:
            ledger.bad(str(input), box.name, str(error))
            continue
        yield from offer(ledger, str(input), box.name, image, [], box.group, box.split, box.metadata, needs_text=False)


def plan(pairs_per_shard: int, input: Path, hold_out: int | None = None) -> list[dict[str, Any]]:
    """Ranges of the sorted names. Reports on stderr what is left out."""
    listed = _listed(tree_of(input), hold_out)
    if listed.num_junk:
        print(f"{input}: {listed.num_junk} boxes of nobody in particular (person -1) are left out, as the protocol says", file=sys.stderr)
    if num := sum("distractor" in box.metadata for box in listed.boxes):
        print(f"{input}: {num} distractors (person 0000) belong to nobody, and are wrong for every query", file=sys.stderr)
    if listed.unnamed:
        print(f"{input}: {len(listed.unnamed)} pictures have other names, such as {listed.unnamed[0]}, and are left out", file=sys.stderr)
    return cut(len(listed.boxes), pairs_per_shard, listing=listed.tree.digest)


def inputs(input: Path, hold_out: int | None) -> dict[str, str]:
    """Fingerprint of the pictures' names and sizes, or of the archives."""
    listed = _listed(tree_of(input), hold_out)
    return {"input": listed.tree.fingerprint(box.name for box in listed.boxes)}


@dataclass(frozen=True, slots=True)
class _Box:
    name: str
    group: str
    split: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class _Listed:
    """num_junk: how many boxes are of nobody. unnamed: pictures that name no person."""

    tree: FileTree
    boxes: list[_Box]
    num_junk: int
    unnamed: list[str]


@lru_cache(maxsize=1)
def _listed(tree: FileTree, hold_out: int | None) -> _Listed:
    if hold_out is not None and hold_out < 2:
        raise InputError(f"hold_out is {hold_out}; it must be at least 2: one in so many persons is held out")
    boxes, num_junk, unnamed, asked = [], 0, [], set[tuple[str, str]]()
    for name in tree.names:
        folder, _, file = name.rpartition("/")
        if file.rpartition(".")[2].lower() not in PICTURE_SUFFIXES:
            continue
        found = NAME.fullmatch(file)
        if found is None:
            unnamed.append(name)
            continue
        person, camera = found[1], found[2]
        if person == JUNK:
            num_junk += 1
            continue
        split, role = FOLDERS.get(folder.rpartition("/")[2], ("", ""))
        metadata: dict[str, Any] = {"camera": int(camera)}
        if DISTRACTOR.fullmatch(person):
            metadata["distractor"] = True
        else:
            metadata["identity"] = person
            if not split and hold_out is not None:
                split, role = ("test", "gallery") if is_held_out(person, hold_out) else ("train", "")
                if split == "test" and (person, camera) not in asked:
                    asked.add((person, camera))
                    role = "both"
        if role:
            metadata["role"] = role
        boxes.append(_Box(name, name if "distractor" in metadata else f"person {person}", split, metadata))
    if not boxes:
        seen = f"{len(unnamed)} pictures, such as {unnamed[0]}" if unnamed else "no picture"
        raise InputError(f"{tree.path}: no name such as 0002_c1s1_000451_03.jpg in it, only {seen}. Give the folder of Market-1501")
    return _Listed(tree, boxes, num_junk, unnamed)


def is_held_out(person: str, one_in: int) -> bool:
    """Whether blake2b of the number as it is written (8 bytes, big-endian) divides by one_in."""
    return int.from_bytes(blake2b(person.encode("ascii"), digest_size=8).digest(), "big") % one_in == 0
