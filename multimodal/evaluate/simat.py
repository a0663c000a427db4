"""SIMAT: one part of a picture changed in words, judged as its authors do.

    multimodal evaluate simat --store S --data SIMAT/simat_db

Couairon, Douze, Cord and Schwenk (2022), "Embedding arithmetic of multimodal queries for image retrieval": crops of Visual Genome with one
subject, relation and object each, and transformations such as (a dog on a pillow, pillow -> rug). The nearest picture that is not the given
one is right or wrong; a transformation counts as 1 / sqrt(norm2), so that frequent ones do not count more than rare ones. The figure is the
share that is right.

The folder is that of their repository, github.com/facebookresearch/SIMAT: `transfos.csv`, `triplets.csv`. Crops are named
`<region_id>.png`, as its prepare_dataset.py writes them. Which pictures are right is said by the similarities of OSCAR if they are given as
a .npy (n, c), pictures in the order of dataset_id and captions in that of `captions.txt`, where above 0.5 is right; their own .pt file is a
pickle, which could run code, and is not read. Otherwise the labels say it: the picture's subject, relation and object must be those asked
for.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from multimodal.boxes import reading
from multimodal.errors import InputError
from multimodal.evaluate.arithmetic import System, name_of, system_of
from multimodal.evaluate.figures import FigureRow, align, per_cent, write_rows
from multimodal.metrics import shares_among, word_intervals
from multimodal.search.query import ScoreAll
from multimodal.search.store import Store

Domain = Literal["test", "dev"]
PARTS = ("subj", "rel", "obj")
_RIGHT = 0.5
_TRIPLET_COLUMNS = ("region_id", *PARTS, "dataset_id")
_CHANGE_COLUMNS = ("region_id", "field", "value", "target", "target_ids", "norm2", "is_test")


@dataclass(frozen=True, slots=True)
class Change:
    """One transformation. row: of its picture. part: which of PARTS changes. value, target: from what to what.

    caption: the number of the wanted caption, a column of the oracle. weight: 1 / sqrt(norm2).
    """

    row: int
    part: str
    value: str
    target: str
    caption: int
    weight: float

    def wish(self, picture: int) -> str:
        """As a query, of the picture's id in a store."""
        return f'image:{picture} + "{self.target}" instead of "{self.value}"'

    def sum(self, picture: int, weight: float) -> str:
        """As a sum of vectors with signs."""
        return f'image:{picture} + {weight:.6f}*"{self.target}" - {weight:.6f}*"{self.value}"'


@dataclass(frozen=True, slots=True, eq=False)
class Simat:
    """The files of SIMAT. regions: (n,) int64, region ids in the order of dataset_id. labels: (n, 3) str, subject, relation and object.

    oracle: (n, c) similarities of pictures and captions, or None.
    """

    regions: np.ndarray
    labels: np.ndarray
    changes: tuple[Change, ...]
    oracle: np.ndarray | None

    def relevant(self, change: Change) -> np.ndarray:
        """(n,) bool: the pictures that are right."""
        if self.oracle is not None:
            above: np.ndarray = self.oracle[:, change.caption] > _RIGHT
            return above
        wanted = self.labels[change.row].copy()
        wanted[PARTS.index(change.part)] = change.target
        equal: np.ndarray = (self.labels == wanted).all(axis=1)
        return equal


def read_simat(folder: Path, domain: Domain = "test", oracle: Path | None = None) -> Simat:
    """The pictures of SIMAT and the transformations of one part of it. InputError if a file is missing or is not theirs."""
    triplets = _rows(Path(folder) / "triplets.csv", _TRIPLET_COLUMNS)
    with reading(Path(folder) / "triplets.csv"):
        triplets.sort(key=lambda line: int(line["dataset_id"]))
        regions = np.array([int(line["region_id"]) for line in triplets], np.int64)
        if [int(line["dataset_id"]) for line in triplets] != list(range(len(triplets))) or len(set(regions.tolist())) < len(regions):
            raise ValueError("dataset_id must number the pictures from 0, each region once")
    labels = np.array([[line[part] for part in PARTS] for line in triplets], dtype=object).reshape(-1, len(PARTS))
    row_of = {region: row for row, region in enumerate(regions.tolist())}
    path = Path(folder) / "transfos.csv"
    wanted = "True" if domain == "test" else "False"
    with reading(path):
        changes = tuple(
            Change(
                row_of[int(line["region_id"])],
                line["field"],
                line["value"],
                line["target"],
                int(line["target_ids"]),
                float(line["norm2"]) ** -0.5,
            )
            for line in _rows(path, _CHANGE_COLUMNS)
            if line["is_test"] == wanted
        )
        if not all(np.isrealobj(change.weight) and 0 < change.weight < np.inf for change in changes):
            raise ValueError("norm2 must be a finite number above 0")
        if any(change.caption < 0 for change in changes):
            raise ValueError("target_ids must be 0 or more")
        if same := [change.value for change in changes if change.value == change.target]:
            raise ValueError(f"value and target are both {same[0]!r}; a transformation changes something")
        if odd := [change.part for change in changes if change.part not in PARTS]:
            raise ValueError(f"field is {odd[0]!r}; expected one of {', '.join(PARTS)}")
    if not changes:
        raise InputError(f"{path}: has no transformation whose is_test is {wanted}. Choose the other --domain")
    similarities = None if oracle is None else _oracle(Path(oracle), len(regions), max(change.caption for change in changes) + 1)
    return Simat(regions, labels, changes, similarities)


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path}: does not exist. Give the folder simat_db of SIMAT's repository")
    with reading(path, csv.Error), path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if missing := [name for name in columns if name not in (table.fieldnames or ())]:
            raise ValueError(f"has no column {missing[0]}")
        return list(table)


def _oracle(path: Path, num_pictures: int, num_captions: int) -> np.ndarray:
    with reading(path):
        similarities = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(similarities, np.ndarray) or similarities.ndim != 2:
            raise ValueError("expected one array (pictures, captions)")
        if len(similarities) != num_pictures or similarities.shape[1] < num_captions:
            raise ValueError(f"has shape {similarities.shape}; expected ({num_pictures}, at least {num_captions})")
        return similarities


@dataclass(frozen=True, slots=True)
class SimatRow(FigureRow):
    """One line of the table. score, chance, low, high: in per cent.

    oracle: "given" or "labels". score: the weighted share of transformations whose nearest other picture is right.
    chance: that of a picture drawn at random. low, high: the 95 % bootstrap interval over the words.
    """

    recipe: str
    family: str
    domain: Domain
    oracle: str
    system: str
    num_pictures: int
    num_queries: int
    num_words: int
    score: float
    low: float
    high: float
    chance: float
    control: bool

    keys: ClassVar[Mapping[str, str]] = {"score": "SIMAT"}


def judge_system(data: Simat, changes: Sequence[Change], present: np.ndarray, system: System, asked: Callable[[Change], str]) -> np.ndarray:
    """(q,) float64: 1 where the nearest picture that is not the given one is right. Ties count against the system.

    present: (m,) rows of `data` in the order of the system's scores.
    """
    right = np.empty(len(changes))
    for number, change in enumerate(changes):
        others = present != change.row
        scores = np.asarray(system(asked(change)), np.float64)
        right[number] = shares_among(scores[None], data.relevant(change)[present][None], others[None], 1, "few")[0]
    return right


def evaluate(
    store: Path,
    data: Path,
    oracle: Path | None = None,
    domain: Domain = "test",
    weights: Sequence[float] = (1.0,),
    recipe: str | None = None,
    control: bool = False,
    output: Path | None = None,
    trust: Sequence[str] = (),
) -> list[SimatRow]:
    """Change one part of a picture in words (SIMAT, 2022), and print how often the nearest other picture is right.

    Args:
        store: of SIMAT's crops, each named <region_id>.png; made by `multimodal index`.
        data: the folder simat_db of SIMAT's repository, with transfos.csv and triplets.csv.
        oracle: similarities of pictures and captions as .npy; by default the labels say which pictures are right.
        domain: test, or dev for choosing a weight.
        weights: of the word that is added and of the one that is taken away; one line for each.
        recipe: the name of the run in the table; by default its family.
        control: mark the rows as a control, trained with texts shuffled across pictures.
        output: also write the rows to this JSON file.
        trust: your own packages whose classes the store names. Their code is run; without this option, nothing is imported because a
            folder names it.
    """
    opened, simat = Store(store, trust=trust), read_simat(data, domain, oracle)
    ids, present = _pictures(opened, simat)
    place_of = {id: place for place, id in enumerate(opened.ids.tolist())}
    places = np.array([place_of[id] for id in ids])
    changes = _usable(opened, simat, present)
    vectors, kept = (system_of(ScoreAll(opened, way), len(opened)) for way in ("sum", None))
    id_of = dict(zip(present.tolist(), ids, strict=True))
    systems: dict[str, Callable[[Change], str]] = {"picture alone": lambda change: f"image:{id_of[change.row]}"}
    for weight in weights:
        systems[f"sum {weight:g}"] = lambda change, weight=weight: change.sum(id_of[change.row], weight)  # type: ignore[misc]
    systems[name_of(opened)] = lambda change: change.wish(id_of[change.row])
    importance = np.array([change.weight for change in changes])
    numbers = {word: number for number, word in enumerate(sorted({word for one in changes for word in (one.value, one.target)}))}
    words = np.array([[numbers[change.value], numbers[change.target]] for change in changes])
    chance = np.array([_chance(simat, change, present) for change in changes])
    rows = []
    for name, asked in systems.items():
        system = kept if name == name_of(opened) else vectors
        right = judge_system(simat, changes, present, lambda query, system=system: system(query)[places], asked)  # type: ignore[misc]
        [(low, high)] = word_intervals(right[:, None], words, importance)
        rows.append(
            SimatRow(
                recipe=recipe or opened.family,
                family=opened.family,
                domain=domain,
                oracle="labels" if oracle is None else "given",
                system=name,
                num_pictures=len(present),
                num_queries=len(changes),
                num_words=len(numbers),
                score=per_cent(float(np.average(right, weights=importance))),
                low=per_cent(low),
                high=per_cent(high),
                chance=per_cent(float(np.average(chance, weights=importance))),
                control=control,
            )
        )
    if output is not None:
        write_rows(output, rows)
    print(as_table(rows))
    return rows


def as_table(rows: Sequence[SimatRow]) -> str:
    """The rows as text."""
    header = ["recipe", "domain", "oracle", "system", "queries", "words", "pictures", "SIMAT", "95 % interval", "chance"]
    lines = [
        [
            row.recipe + (" shuffled" if row.control else ""),
            row.domain,
            row.oracle,
            row.system,
            f"{row.num_queries}",
            f"{row.num_words}",
            f"{row.num_pictures}",
            f"{row.score:.1f}",
            f"[{row.low:.1f}, {row.high:.1f}]",
            f"{row.chance:.1f}",
        ]
        for row in rows
    ]
    return align(header, lines, num_left=4)


def _pictures(store: Store, data: Simat) -> tuple[list[int], np.ndarray]:
    """The store's ids of SIMAT's pictures, and their rows there."""
    row_of = {f"{region}.png": row for row, region in enumerate(data.regions.tolist())}
    named = [(id, Path(str(name)).name) for id, name in zip(store.ids.tolist(), store.column("name"), strict=True)]
    found = [(id, row_of[name]) for id, name in named if name in row_of]
    rows = np.array([row for _, row in found], np.int64)
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"{store.path}: two of its pictures have the name of one region. Index SIMAT's crops only")
    if len(found) < 2:
        raise InputError(
            f"{store.path}: holds {len(found)} of SIMAT's {len(data.regions)} pictures. Index its crops, each named <region_id>.png, "
            f"such as {data.regions[0]}.png"
        )
    if len(found) < len(data.regions):
        print(f"{store.path}: lacks {len(data.regions) - len(found)} of {len(data.regions)} pictures, which are left out", file=sys.stderr)
    return [id for id, _ in found], rows


def _usable(store: Store, data: Simat, present: np.ndarray) -> list[Change]:
    """The transformations whose picture is present and whose words the store's text space knows."""
    words = sorted({word for change in data.changes for word in (change.value, change.target)})
    unknown = {word for word, vector in zip(words, store.query_space.embed(words), strict=True) if not vector.any()}
    there = set(present.tolist())
    kept = [change for change in data.changes if change.row in there and unknown.isdisjoint((change.value, change.target))]
    if len(kept) < len(data.changes):
        print(
            f"{store.path}: {len(data.changes) - len(kept)} of {len(data.changes)} transformations are left out: their picture is not in "
            f"the store, or its text space does not know their words ({', '.join(sorted(unknown)[:8]) or 'it knows all'})",
            file=sys.stderr,
        )
    if not kept:
        raise InputError(f"{store.path}: no transformation is left. Use a store whose text space knows words such as {words[0]}")
    return kept


def _chance(data: Simat, change: Change, present: np.ndarray) -> float:
    return float(data.relevant(change)[present[present != change.row]].mean())
