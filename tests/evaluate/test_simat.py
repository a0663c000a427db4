"""SIMAT's protocol on made files in its format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from multimodal.cli import main
from multimodal.errors import InputError
from multimodal.evaluate.simat import evaluate, read_simat
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.shards import ShardSet, ShardWriter

MakeStore = Callable[..., Store]
SUBJECTS, OBJECTS = ("dog", "cat", "man"), ("beach", "snow", "car", "boat")  # words that the room's spaces know
TRIPLETS = [(subject, "on", thing) for subject, thing, _ in product(SUBJECTS, OBJECTS, range(2))]
REGIONS = [1000 + 7 * number for number in range(len(TRIPLETS))]


def write_table(path: Path, lines: list[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every subject and object of every picture changed into every other one; half of the pictures are in the test part."""
    path = tmp_path / "simat_db"
    path.mkdir()
    numbers = {triplet: number for number, triplet in enumerate(sorted(set(TRIPLETS)))}
    pictures = [
        {"region_id": region, "subj": s, "rel": r, "obj": o, "dataset_id": number}
        for number, (region, (s, r, o)) in enumerate(zip(REGIONS, TRIPLETS, strict=True))
    ]
    write_table(path / "triplets.csv", [dict(line) for line in reversed(pictures)])
    changes: list[dict[str, object]] = []
    for row, (s, r, o) in enumerate(TRIPLETS):
        for field, value, others in (("subj", s, SUBJECTS), ("obj", o, OBJECTS)):
            for target in others:
                if target != value:
                    wanted = (target, r, o) if field == "subj" else (s, r, target)
                    line = {"region_id": REGIONS[row], "field": field, "value": value, "target": target, "target_ids": numbers[wanted]}
                    changes.append({"": len(changes), **line, "norm2": 1 + len(changes) % 5, "is_test": row % 2 == 0})
    write_table(path / "transfos.csv", changes)
    return path


@pytest.fixture
def crops(tmp_path: Path) -> ShardSet:
    with ShardWriter(tmp_path / "crops", pairs_per_shard=10) as writer:
        for region, triplet in zip(REGIONS, TRIPLETS, strict=True):
            writer.write(Pair(f"images/{region}.png", b"unread", "png", (" ".join(triplet),), f"{region}"))
    return ShardSet(tmp_path / "crops")


@pytest.fixture
def store(make_store: MakeStore, crops: ShardSet) -> Store:
    noise = np.random.default_rng(0).standard_normal((len(TRIPLETS), 24))
    made = make_store("exact", of=crops)
    return make_store("noisy", of=crops, rows=made.rows.astype(np.float64) * 4 + noise)


def score_by_loop(store: Store, folder: Path, is_test: bool, weight: float | None, oracle: np.ndarray | None = None) -> float:
    """The authors' `eval.py`, with lists: the first of all other pictures, weighted by 1 / sqrt(norm2)."""
    rows = [row / np.linalg.norm(row) for row in store.take(np.arange(len(TRIPLETS))).astype(np.float64)]
    total = right = 0.0
    with (folder / "transfos.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            if (line["is_test"] == "True") != is_test:
                continue
            own = REGIONS.index(int(line["region_id"]))
            vector = rows[own]
            if weight is not None:
                words = [store.query_space.embed([line[name]])[0].astype(np.float64) for name in ("target", "value")]
                vector = vector + weight * (words[0] / np.linalg.norm(words[0]) - words[1] / np.linalg.norm(words[1]))
            found = max((row for row in range(len(rows)) if row != own), key=lambda row, vector=vector: float(rows[row] @ vector))
            wanted = [
                line["target"] if name == line["field"] else part for name, part in zip(("subj", "rel", "obj"), TRIPLETS[own], strict=True)
            ]
            is_right = tuple(wanted) == TRIPLETS[found] if oracle is None else oracle[found, int(line["target_ids"])] > 0.5
            total += float(line["norm2"]) ** -0.5
            right += float(line["norm2"]) ** -0.5 * is_right
    return 100 * right / total


def test_the_score_is_that_of_the_authors_loop(store: Store, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "simat.json"
    for domain in ("test", "dev"):
        rows = evaluate(store.path, folder, domain=domain, weights=(0.5, 1.0), control=True, output=output)  # type: ignore[arg-type]
        assert [row.system for row in rows] == ["picture alone", "sum 0.5", "sum 1", "product"]
        for row, weight in zip(rows[:3], (None, 0.5, 1.0), strict=True):
            assert row.score == pytest.approx(score_by_loop(store, folder, domain == "test", weight), abs=0.01)
            assert row.low <= row.score <= row.high and (row.oracle, row.num_pictures) == ("labels", len(TRIPLETS))
        assert min(rows[2].score, rows[3].score) > rows[0].score + 10
        assert rows[0].chance == pytest.approx(100 * 2 / (len(TRIPLETS) - 1), abs=0.01)  # two pictures are right, of all but one
        assert json.loads(output.read_text())[2]["SIMAT"] == rows[2].score
    assert "wordvec shuffled" in capsys.readouterr().out


def test_given_similarities_take_the_place_of_labels(store: Store, folder: Path, tmp_path: Path) -> None:
    similarities = np.random.default_rng(1).random((len(TRIPLETS), len(set(TRIPLETS)))).astype(np.float16)
    np.save(tmp_path / "oracle.npy", similarities)
    rows = evaluate(store.path, folder, oracle=tmp_path / "oracle.npy")
    assert rows[1].score == pytest.approx(score_by_loop(store, folder, True, 1.0, similarities), abs=0.01)
    assert rows[1].oracle == "given"


def test_pictures_that_are_not_in_the_store_are_left_out(
    make_store: MakeStore, crops: ShardSet, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    less = make_store("less", of=crops, without=(0, 3))
    rows = evaluate(less.path, folder)
    assert rows[0].num_pictures == len(TRIPLETS) - 2
    assert rows[0].num_queries == len(read_simat(folder).changes) - 5  # those of picture 0; picture 3 is in dev
    assert "lacks 2 of 24 pictures" in capsys.readouterr().err


def test_wrong_input_is_named(
    store: Store, folder: Path, tmp_path: Path, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "simat", "--store", str(store.path), "--data", str(folder / "none")]) == 2
    assert "triplets.csv: does not exist" in capsys.readouterr().err
    with pytest.raises(InputError, match="Index its crops"):
        evaluate(make_store("others").path, folder)
    np.save(tmp_path / "small.npy", np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"has shape \(3, 3\)"):
        read_simat(folder, oracle=tmp_path / "small.npy")
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"pickle\.npy"):
        read_simat(folder, oracle=tmp_path / "pickle.npy")
    text = (folder / "transfos.csv").read_text()
    for before, after, problem in (
        ("norm2", "norm", "no column norm2"),
        ("subj", "verb", "field is 'verb'"),
        ("True", "False", "is_test is True"),
    ):
        (folder / "transfos.csv").write_text(text.replace(before, after))
        with pytest.raises(InputError, match=problem):
            read_simat(folder)
