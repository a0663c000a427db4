"""multimodal evaluate neighbours: pixels and exports among labelled pictures, with labels that are left out, and wrong input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal.cli import main
from multimodal.data import Labels, Shuffled
from multimodal.errors import InputError
from multimodal.evaluate.neighbours import NeighboursRow, _Labelled, _permuted, as_table, evaluate
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter, Split
from multimodal.shards.labels import read_labels
from multimodal.towers import LeNet

NUM, COLOURS = 60, (20, 120, 220)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey squares of three brightnesses with noise, a third of them in test; one of them cannot be read."""
    folder, random = tmp_path_factory.mktemp("grey") / "set", np.random.default_rng(0)
    with ShardWriter(folder) as writer:
        for number in range(NUM):
            file, label = io.BytesIO(), number % 3
            Image.fromarray((COLOURS[label] + random.integers(-9, 9, (20, 20))).astype(np.uint8)).save(file, "PNG")
            encoded = b"broken" if number == 58 else file.getvalue()
            split = "test" if number >= 40 else "train"
            writer.write(Pair(f"{number}.png", encoded, "png", (), f"{number}", split=split, metadata={"label": f"{label}"}))
    return folder


def test_pictures_of_one_brightness_are_neighbours(grey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = evaluate(grey, pixels=8, output=tmp_path / "figures.json")
    assert row.nearest_1 == row.nearest_5 == 100 and row.violated == 0 and row.silhouette > 0.9
    assert (row.num_gallery, row.num_queries, row.dim) == (40, 19, 64) and 32 < row.chance < 35
    assert NeighboursRow.from_json(json.loads((tmp_path / "figures.json").read_text())[0]) == row
    printed = capsys.readouterr()
    assert "1 of 60 pictures cannot be read, such as 000000058 (not an image" in printed.err and "100.00" in printed.out
    [among] = evaluate(grey, pixels=8, part="test", gallery="test", among=["0", "2"])
    assert among.num_queries == among.num_gallery == 13 and among.nearest_1 == 100 and among.chance == pytest.approx(50, abs=5)
    assert among.num_labels == 2


def test_permuted_labels_are_those_of_a_run_and_at_chance(grey: Path) -> None:
    shards = ShardSet(grey)
    ids = Split().ids(shards, "train")
    taught = Shuffled(Labels("label"), 3).open(shards, ids)(ids, None).values
    rows = [evaluate(grey, pixels=8, permuted=seed)[0] for seed in range(12)]
    assert all(row.control for row in rows) and abs(np.mean([row.nearest_5 for row in rows]) - 33) < 12
    found = _permuted(shards, _Labelled(ids, read_labels(shards, ids, "label").values), "label", 3)  # type: ignore[arg-type]
    assert [int(one) for one in found.labels] == np.asarray(taught).tolist() and sorted(found.labels)[:14] == ["0"] * 14


def test_a_trunk_may_be_asked_and_seeds_are_one_line(grey: Path) -> None:
    rows = [evaluate(grey, trunk=LeNet(frozen=True), recipe="random")[0] for _ in range(2)]
    assert rows[0] == rows[1] and rows[0].dim == 256 and rows[0].distance == "euclidean"
    table = as_table(rows).splitlines()
    assert len(table) == 2 and f"{rows[0].nearest_1:.2f}..{rows[0].nearest_1:.2f}" in table[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give one of --export E, a trunk by its arguments .* and --pixels SIZE"),
        ({"pixels": 8, "export": "E"}, "give one of"),
        ({"pixels": 0}, "--pixels 0: .* size is 0; expected a whole number"),
        ({"pixels": 8, "distance": "kl"}, "--distance kl: is unknown. Give one of cosine, euclidean"),
        ({"pixels": 8, "label": "identity"}, "none of 20 pictures has identity: has no identity"),
        ({"pixels": 8, "among": ["7"]}, "no picture of test has the label 7. There are 0, 1, 2"),
        ({"pixels": 8, "part": "dev"}, "no pair is in part 'dev'"),
        ({"pixels": 8, "max_bad_share": 0.0}, "1 of 60 pictures cannot be read"),
    ],
)
def test_wrong_input_is_refused(grey: Path, given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        evaluate(grey, **given)  # type: ignore[arg-type]


def test_what_cannot_be_told_is_null_in_the_file_and_too_few_pictures_are_refused(tmp_path: Path) -> None:
    labels = {"train": ("a", "a", "b"), "test": ("a", "a"), "one": ("b",)}
    with ShardWriter(tmp_path / "set") as writer:
        for split, of_split in labels.items():
            for number, label in enumerate(of_split):
                file = io.BytesIO()
                Image.new("L", (8, 8), 50 + 100 * (label == "b") + number).save(file, "PNG")
                name = f"{split}{number}.png"
                writer.write(Pair(name, file.getvalue(), "png", (), name, split=split, metadata={"label": label}))
    [row] = evaluate(tmp_path / "set", pixels=8, output=tmp_path / "figures.json")
    assert row.silhouette is None and row.violated is None and "nan" not in as_table([row])
    assert "NaN" not in (tmp_path / "figures.json").read_text()
    with pytest.raises(InputError, match="one has one picture with label, and an interval needs two"):
        evaluate(tmp_path / "set", pixels=8, part="one")


def test_the_command_says_what_is_missing(grey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "neighbours", "--shards", str(grey)]) == 2
    assert "nothing to compare" in capsys.readouterr().err
