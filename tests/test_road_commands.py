"""The road as commands: what a training is asked to do, and lists of commands that run in processes of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.figures import Found
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.pairs import Pair
from multimodal.road import Gallery, Training, commands, figures, run_side_by_side
from multimodal.shards import ShardWriter
from multimodal.training.door import build


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(3):
            writer.write(Pair(f"{number}.png", b"picture", "png", (f"text {number}",), group=f"{number}"))
    return tmp_path / "shards"


def test_lists_of_commands_run_in_their_order_and_leave_what_they_said(shards: Path, tmp_path: Path) -> None:
    stats = ("multimodal", "shards", "stats", str(shards))
    listing = ("multimodal", "shards", "ls", str(shards))
    run_side_by_side({tmp_path / "a.txt": [stats, listing], tmp_path / "logs" / "b.txt": [listing]})
    first, second = (tmp_path / "a.txt").read_text(), (tmp_path / "logs" / "b.txt").read_text()
    assert first.index("$ multimodal shards stats") < first.index("$ multimodal shards ls")
    assert all(f"{number}.png" in second for number in range(3)) and "stats" not in second


def test_a_command_that_fails_ends_its_list_and_is_reported_with_its_output(shards: Path, tmp_path: Path) -> None:
    missing = ("multimodal", "shards", "stats", str(tmp_path / "nothing"))
    listing = ("multimodal", "shards", "ls", str(shards))
    with pytest.raises(InputError, match=r"a\.txt: a command failed with status 2(.|\n)*nothing"):
        run_side_by_side({tmp_path / "a.txt": [missing, listing]})
    assert "0.png" not in (tmp_path / "a.txt").read_text()


def test_a_control_trains_on_shuffled_texts_and_is_judged_as_one() -> None:
    shards, space = Path("shards"), Path("space")
    plain = Training(
        "words", "experiment/wordvec_emoji.yaml", Path("plain"), shards, space, "column", [Gallery("g", shards, "test")], seed=3
    )
    control = replace(plain, folder=Path("control"), control=True)
    for training in (plain, control):
        fit, *_, judged = commands(training)
        _, data = build(fit[2:])
        assert type(data.target).__name__ == ("Shuffled" if training.control else "ColumnRows")
        assert (data.target.side if training.control else data.target).name == "column"
        assert (data.split.seed, data.validation_share) == (3, 0)
        assert ("--control" in judged) == training.control
        assert str(figures(training, training.galleries[0], "retrieval")) in judged


@pytest.mark.parametrize("verb", ["flickr8k", "best", "textbook", "scratch"])
def test_every_run_of_the_reproduction_is_a_recipe_that_can_be_built(
    reproduce: ModuleType, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = []
    monkeypatch.setattr(reproduce.Study, "walk", lambda study, more=None: studies.append(study) or [])
    monkeypatch.setattr(reproduce, "_write", lambda *args: None)
    settings = {"flickr8k": {"grid": True}, "scratch": {"classes": tmp_path / "classes.npz"}}.get(verb, {})
    if verb == "scratch":
        monkeypatch.setattr(reproduce, "_probe_rows", lambda *args: [])
        pictures, labels = np.zeros((2, 8, 8, 3), np.uint8), np.arange(2)
        np.savez(settings["classes"], x_train=pictures, y_train=labels, x_test=pictures, y_test=labels, names=np.array(["a", "b"]))
    getattr(reproduce, verb)(tmp_path / "data", tmp_path / "out", seeds=1, **settings)
    trainings = list(studies[0].trainings())
    assert len({training.folder for training in trainings}) == len(trainings)
    columns = set(studies[0]._spaces())
    for training in trainings:
        module, data = build(commands(training)[0][2:])
        assert training.target in columns and training.space == tmp_path / "out" / "spaces" / training.target
        assert module.optimiser.optimizer(module).param_groups


def test_the_grid_has_a_line_a_recipe_with_each_control_in_its_column(reproduce: ModuleType) -> None:
    random = np.random.default_rng(0)
    rows, found, wanted = [], [], {}
    for recipe in ("first", "second"):
        for column, trunk, direction, control in (
            ("text->image", "imagenet", "text->image", False),
            ("image->text", "imagenet", "image->text", False),
            ("shuffled, text->image", "imagenet", "text->image", True),
            ("random trunk, text->image", "random", "text->image", False),
            (None, "random", "image->text", False),
        ):
            recalls = []
            for seed in range(2):
                first = random.integers(1, 30, 50)
                recalls.append(100 * float((first <= 10).mean()))
                figures = {"recall_1": 0.0, "recall_5": 0.0, "recall_10": recalls[-1], "median_rank": 9.0, "mean_average_precision": 5.0}
                counts = {"num_pairs": 50, "num_queries": 50, "chance_recall_10": 20.0, "low": 0.0, "high": 0.0, "seed": seed}
                named = {"recipe": recipe, "family": "topic", "trunk": trunk, "gallery": "unseen", "direction": direction}
                rows.append(RetrievalRow(**named, **figures, **counts, control=control))
                ids = np.arange(50)
                found.append(Found(direction, 50, ids, ids.astype(str), first, 1 / first, np.ones(50, np.int64)))
            if column:
                wanted[recipe, column] = np.mean(recalls)
    table = reproduce.grid_table(rows, found)
    assert [line[0] for line in table.rows] == ["first", "second"]
    for recipe, *figures in table.rows:
        for column, figure in zip(table.header[1:], figures, strict=True):
            assert figure.value == pytest.approx(wanted[recipe, column])
            assert figure.low < figure.value < figure.high
    lines = reproduce.as_text(table).splitlines()
    assert len(lines) == 3 and f"{wanted['second', 'image->text']:.1f}  [" in lines[2]
