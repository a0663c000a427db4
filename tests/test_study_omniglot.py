"""The study of Omniglot walks from archives to a table and a page, and trains nothing twice."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from multimodal.pictures.arrays import png

WAYS = 3
SYSTEMS = ("eight alphabets", "eight alphabets, labels permuted", "random weights", "modified Hausdorff distance", "pixels")


def drawing(shape: int, drawer: int) -> bytes:
    """Black ink on white, 20 x 20: a cross of bars whose places say which character it is, thicker by another hand."""
    pixels = np.full((20, 20), 255, np.uint8)
    pixels[2 + shape : 4 + shape + drawer % 2] = 0
    pixels[:, 14 - 2 * shape : 16 - 2 * shape] = 0
    return png(pixels)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    files: dict[str, bytes] = {}
    for of_set, alphabet in (("images_background_small1", "A"), ("images_background_small2", "B")):
        for character in range(6):
            for drawer in range(1, 5):
                files[f"{of_set}/{alphabet}/character{character:02}/{character:04}_{drawer:02}.png"] = drawing(character, drawer)
    for number in range(WAYS):
        files[f"run01/training/class{number:02}.png"] = drawing(2 * number, 1)
        files[f"run01/test/item{number:02}.png"] = drawing(2 * number, 2)
    lines = [f"run01/test/item{number:02}.png run01/training/class{number:02}.png" for number in range(WAYS)]
    files["run01/class_labels.txt"] = "\n".join(lines).encode()
    for name, content in files.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    return tmp_path / "data"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "scripts"))
    monkeypatch.setattr(sys, "argv", ["scripts/reproduce.py", "omniglot"])
    return importlib.import_module("studies.omniglot")


@pytest.mark.slow
def test_from_archives_to_a_table_and_a_page(study: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    settings = "--trainer.max_epochs 1 --data.order.init_args.labels 8 --data.order.init_args.pictures 4 --data.batch_size 32"
    trained = set()
    for _ in range(2):
        study.omniglot(data, out, seeds=1, five=False, settings=settings)
        told = capsys.readouterr().out
        trained.add((out / "runs/eight_alphabets/seed0/run/checkpoints/last.ckpt").stat().st_mtime_ns)
    assert len(trained) == 1
    lines = {name: line.split() for line in told.splitlines() for name in (*SYSTEMS, "chance") if line.startswith(f"{name}  ")}
    assert lines.keys() == {*SYSTEMS, "chance"} and lines["chance"][-1] == "33.3"
    assert lines["pixels"][2] == "100.0", "one hand draws a bar thicker than another"
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "the right one is number" in page and all(name in page for name in SYSTEMS)
    assert (out / "results.txt").read_text(encoding="utf-8").strip() in told


def test_minutes_are_those_of_all_tries_of_a_training(study: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("$ multimodal fit --run a\nstopped\n$ multimodal export\n# took 9 s, 9 s of one core\n")
    assert study._core_minutes(log) is None, "a training that was stopped has no line"
    with log.open("a") as file:
        file.write(
            "$ multimodal fit --run a\n1/2\n# took 200 s, 90 s of one core\n$ multimodal export --run a\n# took 2 s, 1 s of one core\n"
        )
        file.write("$ multimodal fit --run a\n# took 60 s, 30 s of one core\n")
    assert study._core_minutes(log) == 2.0
