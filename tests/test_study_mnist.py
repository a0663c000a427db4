"""scripts/reproduce.py mnist: its runs are recipes that can be built, and it walks from IDX files to a table and a page that moves."""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from multimodal.training.door import build

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import studies.mnist

    yield studies.mnist
    for name in [name for name in sys.modules if name.partition(".")[0] == "studies"]:
        del sys.modules[name]


def idx(path: Path, content: np.ndarray) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in content.shape)
    path.write_bytes(bytes([0, 0, 8, content.ndim]) + sizes + content.astype(np.uint8).tobytes())


def bars(folder: Path) -> None:
    """Ten kinds of bars, at places of their own, with noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for begins, num in (("train", 200), ("t10k", 60)):
        labels = np.arange(num) % 10
        images = random.integers(0, 60, (num, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[4:24, 2 + 2 * label : 5 + 2 * label] = 255
        idx(folder / f"{begins}-images-idx3-ubyte", images)
        idx(folder / f"{begins}-labels-idx1-ubyte", labels)


def test_every_run_is_a_recipe_that_can_be_built(study: ModuleType, tmp_path: Path) -> None:
    trainings = [*study._trainings(tmp_path, tmp_path / "leave_out.json", 2, ())]
    assert len({one.folder for one in trainings}) == len(trainings) == 2 * 5 + 2
    for one in trainings[:7]:
        module, data = build([*one.fit[2:]])
        assert data.validation_share == 0 and data.order.batch_size == data.batch_size == 20 * (8 if one.among else 10)
        assert (data.leave_out is not None) == bool(one.among)
        assert (type(data.target).__name__ == "Shuffled") == one.control
        assert module.objective.normalise == (one.recipe == study.CIRCLE)
        judged = [command for command in one.commands() if command[1] == "evaluate"]
        assert len(judged) == 1 + bool(one.among) + one.control
        assert ("--gallery" in judged[-1], "--permuted" in judged[-1]) == (bool(one.among), one.control)


@pytest.mark.slow
def test_from_files_to_figures_and_a_page(study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars(tmp_path / "mnist")
    out = tmp_path / "out"
    study.mnist(tmp_path / "mnist", out, seeds=1, epochs=1)
    table = (out / "results.txt").read_text()
    assert table.strip() in capsys.readouterr().out
    rows = json.loads((out / "neighbours.json").read_text())
    assert {(row["recipe"], row["gallery"], row["control"]) for row in rows} == {
        *((name, "train", False) for name in ("triplet", "siamese")),
        *((f"{name}, taught permuted labels", "train", control) for name in ("triplet", "siamese") for control in (False, True)),
        *((f"{name} without 8 and 9", gallery, False) for name in ("triplet", "siamese") for gallery in ("train", "test")),
        *((name, "train", False) for name in (study.CIRCLE, study.PIXELS, study.RANDOM)),
    }
    apart = [row for row in rows if row["among"]]
    assert all(row["num_labels"] == 2 and row["num_queries"] == 12 for row in apart)
    page = html.unescape((out / "index.html").read_text())
    assert all(line in page for line in table.splitlines() if line) and "<script" not in page
    for name in ("triplet", "siamese", study.CIRCLE, "batch-hard", "semi-hard"):
        assert f'aria-label="{name}: 60 pictures of 10 classes"' in page
