"""Omniglot: handwritten characters of fifty alphabets, twenty drawings of each, and the author's twenty one-shot runs (Lake et al., 2015).

    data-prep make-shards omniglot omniglot --output shards/omniglot
    data-prep make-shards omniglot omniglot --sets images_background_small1 --rotations --output shards/small1

    omniglot/images_background.zip, images_evaluation.zip, images_background_small1.zip, all_runs.zip        or the folders in them
      images_background/Balinese/character01/0108_01.png       the first person's drawing                      split train
      images_evaluation/...                                                                                     split test
      run01/training/class01.png  run01/test/item01.png  run01/class_labels.txt                                 split runs

Download the archives from github.com/brendenlake/omniglot (folder python). A pair has no text; its metadata has `label`
("Balinese/character01"), `alphabet` and `drawer`. Drawings of one character are a group, so that no split cuts a character. The runs have
`label` ("run01/class08"), `run` and `role` ("training" or "test"): a drawing to classify has the label of the one that is right for it. A
run has twenty drawings of each role, one for each of its twenty characters; `--runs false` leaves the runs out.
The two small sets share alphabets; a drawing that is in several sets is taken once, and `sets` in its metadata has all of them.

With `--rotations`, each drawing to train on is there four times: as it is, and turned by 90, 180 and 270 degrees against the clock, as
another character (`label` "Balinese/character01 90", and `turned`), which makes four times as many classes (Santoro et al., 2016, train
their networks so). They are in the group of their character. Drawings to test on and those of the runs are never turned.

B. Lake, R. Salakhutdinov, J. Tenenbaum, "Human-level concept learning through probabilistic program induction", Science 350, 2015.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.pictures.formats import offer
from data_prep.sources import cut
from data_prep.sources._file_tree import FileTree, tree_of
from multimodal.errors import InputError, near_names
from multimodal.pairs import Pair
from multimodal.pictures.arrays import png
from multimodal.pictures.decode import BadPicture, picture
from multimodal.shards import Ledger

DRAWING = re.compile(r"(?:.*/)?(images_\w+)/([^/]+)/(character\d+)/(\d+_(\d+)\.png)")
OF_RUN = re.compile(r"(?:.*/)?(run\d+)/(training|test)/(\w+)\.png")
LABELS = re.compile(r"(?:.*/)?(run\d+)/class_labels\.txt")
LINE = re.compile(r"(run\d+)/test/(\w+)\.png\s+\1/training/(\w+)\.png")
EVALUATION, RUNS = "images_evaluation", "runs"
TURNS = (0, 90, 180, 270)
"""Degrees against the clock."""


def omniglot(
    input: Path,
    sets: list[str] | None = None,
    runs: bool = True,
    held_out: list[str] | None = None,
    rotations: bool = False,
    part: Mapping[str, Any] | None = None,
    *,
    ledger: Ledger,
) -> Iterator[Pair]:
    """The drawings in the order of alphabet, character and drawer, then the runs.

    input: the folder that holds the archives, or what is in them.
    sets: the sets of drawings to read, such as images_background_small1; by default all that are there.
    runs: whether to read the one-shot runs, if they are there.
    held_out: alphabets to test on, beside those of images_evaluation; the recipe of a training can be chosen on them.
    rotations: turn each drawing to train on by 90, 180 and 270 degrees too, as other characters.
    """
    listed = _listed(tree_of(input, None if part is None else part["listing"]), *_settings(sets, runs, held_out, rotations))
    for drawing in listed.drawings[slice(None) if part is None else slice(part["start"], part["stop"])]:
        try:
            images = {listed.tree.read(path) for path in drawing.paths}
            if len(images) > 1:
                raise BadPicture(f"differs between {' and '.join(drawing.paths)}. Read one of them, with --sets")
            if drawing.quarters:
                images = {_turned(image, drawing.quarters) for image in images}
        except BadPicture as error:
            ledger.bad(str(input), drawing.name, str(error))
            continue
        [image] = images
        yield from offer(ledger, str(input), drawing.name, image, [], drawing.group, drawing.split, drawing.metadata, needs_text=False)


def plan(
    pairs_per_shard: int,
    input: Path,
    sets: list[str] | None = None,
    runs: bool = True,
    held_out: list[str] | None = None,
    rotations: bool = False,
) -> list[dict[str, Any]]:
    """Ranges of the drawings."""
    listed = _listed(tree_of(input), *_settings(sets, runs, held_out, rotations))
    return cut(len(listed.drawings), pairs_per_shard, listing=listed.tree.digest)


def inputs(input: Path, sets: list[str] | None, runs: bool, held_out: list[str] | None, rotations: bool) -> dict[str, str]:
    """Fingerprint of the drawings' names and sizes, or of the archives."""
    listed = _listed(tree_of(input), *_settings(sets, runs, held_out, rotations))
    return {"input": listed.tree.fingerprint(path for drawing in listed.drawings for path in drawing.paths)}


@dataclass(frozen=True, slots=True)
class _Drawing:
    name: str
    paths: tuple[str, ...]
    group: str
    split: str
    metadata: Mapping[str, Any]
    quarters: int = 0


@dataclass(frozen=True)
class _Listed:
    tree: FileTree
    drawings: list[_Drawing]


def _settings(
    sets: list[str] | None, runs: bool, held_out: list[str] | None, rotations: bool
) -> tuple[tuple[str, ...] | None, bool, tuple[str, ...], bool]:
    """As `_listed` takes them, which is kept by them."""
    return None if sets is None else tuple(sets), runs, tuple(held_out or ()), rotations


@lru_cache(maxsize=1)
def _listed(tree: FileTree, sets: tuple[str, ...] | None, runs: bool, held_out: tuple[str, ...], rotations: bool) -> _Listed:
    found: dict[str, dict[str, str]] = {}  # name of a drawing -> set -> path
    there: set[str] = set()
    for path in tree.names:
        if match := DRAWING.fullmatch(path):
            of_set, alphabet, character, file, _ = match.groups()
            there.add(of_set)
            if sets is None or of_set in sets:
                found.setdefault(f"{alphabet}/{character}/{file}", {})[of_set] = path
    if unknown := sorted(set(sets or ()) - there):
        raise InputError(f"{tree.path}: has no set {unknown[0]}. {near_names(unknown[0], sorted(there))}")
    alphabets = {name.partition("/")[0] for name in found}
    if unknown := sorted(set(held_out) - alphabets):
        raise InputError(f"{tree.path}: has no alphabet {unknown[0]} to hold out. {near_names(unknown[0], sorted(alphabets))}")
    drawings = [one for name, paths in sorted(found.items()) for one in _drawings(name, paths, held_out, rotations)]
    drawings += _of_runs(tree) if runs else []
    if not drawings:
        raise InputError(
            f"{tree.path}: is not laid out as Omniglot: no images_*/<alphabet>/characterNN/NNNN_NN.png in it, and no runNN. Give the "
            "folder that holds images_background.zip and all_runs.zip"
        )
    return _Listed(tree, drawings)


def _drawings(name: str, paths: Mapping[str, str], held_out: tuple[str, ...], rotations: bool) -> Iterator[_Drawing]:
    """A drawing of a character, and its rotations if they are asked for and it is one to train on."""
    alphabet, character, file = name.split("/")
    label, of_sets = f"{alphabet}/{character}", sorted(paths)
    split = "test" if EVALUATION in paths or alphabet in held_out else "train"
    metadata = {"label": label, "alphabet": alphabet, "drawer": int(file.partition("_")[2].partition(".")[0]), "sets": of_sets}
    files = tuple(paths[of_set] for of_set in of_sets)
    yield _Drawing(name, files, label, split, metadata)
    if rotations and split == "train":
        for quarters, degrees in enumerate(TURNS[1:], start=1):
            turned = {**metadata, "label": f"{label} {degrees}", "turned": degrees}
            yield _Drawing(f"{name.removesuffix('.png')}_{degrees}.png", files, label, split, turned, quarters)


def _turned(encoded: bytes, quarters: int) -> bytes:
    """A drawing turned by quarters of a circle against the clock, as a PNG. BadPicture if it is not a picture."""
    return png(np.ascontiguousarray(np.rot90(np.asarray(picture(encoded).convert("L")), quarters)))


def _of_runs(tree: FileTree) -> list[_Drawing]:
    """The drawings of the one-shot runs. InputError if a drawing to classify has no line in its run's class_labels.txt."""
    right: dict[str, str] = {}  # run01/item01 -> class08
    for path in tree.names:
        if match := LABELS.fullmatch(path):
            try:
                lines = tree.read(path).decode("ascii").splitlines()
            except (BadPicture, UnicodeDecodeError) as error:
                raise InputError(f"{tree.path}: {path} cannot be read: {error}") from None
            for number, line in enumerate(lines, start=1):
                said = LINE.fullmatch(line.strip())
                if line.strip() and (said is None or said[1] != match[1]):
                    wanted = f"{match[1]}/test/item01.png {match[1]}/training/class08.png"
                    raise InputError(f"{tree.path}: {path}, line {number}: is {line.strip()!r:.80}; expected such as {wanted}")
                if said is not None:
                    right[f"{said[1]}/{said[2]}"] = said[3]
    drawings = []
    for path in tree.names:
        if match := OF_RUN.fullmatch(path):
            run, role, stem = match.groups()
            of_class = stem if role == "training" else right.get(f"{run}/{stem}")
            if of_class is None:
                raise InputError(f"{tree.path}: {path} is to be classified, but {run}/class_labels.txt has no line for it")
            metadata = {"label": f"{run}/{of_class}", "run": run, "role": role}
            drawings.append(_Drawing(f"{run}/{role}/{stem}.png", (path,), run, RUNS, metadata))
    return sorted(drawings, key=lambda one: one.name)
