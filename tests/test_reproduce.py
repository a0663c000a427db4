"""scripts/reproduce.py walks from files to a table and a page, does nothing twice, and puts the table into a page of results."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from multimodal.errors import InputError
from multimodal.evaluate.interpolation import InterpolationRow

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 210)}
SHAPES = ("square", "stripe")


def drawing(colour: str, shape: str, number: int, size: int = 56) -> np.ndarray:
    """(size, size, 3) uint8: a shape on noise of its own."""
    pixels = np.random.default_rng(number).integers(90, 160, (size, size, 3), dtype=np.uint8)
    pixels[10:40, 10 : 40 if shape == "square" else 20] = COLOURS[colour]
    return pixels


def photographs(folder: Path, num: int = 36) -> None:
    """Drawings with two captions each, a third of them in dev, as the captions source reads them."""
    folder.mkdir()
    lines = ["file\tsplit\tcaption"]
    for number in range(num):
        colour, shape = list(COLOURS)[number % 3], SHAPES[number // 3 % 2]
        Image.fromarray(drawing(colour, shape, number)).save(folder / f"{number:03d}.jpg")
        split = "dev" if number >= num * 2 // 3 else "train"
        lines += [f"{number:03d}.jpg\t{split}\t{text}" for text in (f"a {colour} {shape} on a wall", f"the {shape} looks {colour} today")]
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def labelled(path: Path) -> None:
    x = {
        part: np.stack([drawing(list(COLOURS)[n % 3], "square", n + start, 32) for n in range(30)])
        for part, start in (("train", 0), ("test", 90))
    }
    y = np.arange(30) % 3
    np.savez(path, x_train=x["train"], y_train=y, x_test=x["test"], y_test=y, names=np.array(list(COLOURS)))


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process may use one core, and so runs all lists of commands itself: each other process would import torch once more."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_from_files_to_a_table_a_page_and_the_page_of_results(
    reproduce: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm", reason="needs the train extra")
    photographs(tmp_path / "photos")
    labelled(tmp_path / "classes.npz")
    out = tmp_path / "scratch"
    settings = {"classes": tmp_path / "classes.npz", "families": ["topic"], "seeds": 1, "epochs": 1, "control": True}
    reproduce.scratch(tmp_path / "photos", out, **settings)
    files = {name: (out / name).read_bytes() for name in ("results.json", "probe.json", "results.txt")}
    table = files["results.txt"].decode()
    assert table.strip() in capsys.readouterr().out, "what is written is what was printed"
    page = html.unescape((out / "index.html").read_text(encoding="utf-8"))
    assert all(row in page for row in table.splitlines() if row), "every figure is on the page"
    rows = json.loads(files["results.json"])
    assert {(row["direction"], row["control"]) for row in rows} == {
        (direction, control) for direction in ("text->image", "image->text") for control in (False, True)
    }
    assert all(row["num_pairs"] == 12 for row in rows)
    probed = [row["what"] for row in json.loads(files["probe.json"])]
    assert {"topic", "topic shuffled", "random weights"} < set(probed)

    made = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.ckpt")}
    reproduce.scratch(tmp_path / "photos", out, **settings)
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.ckpt")} == made != {}, "nothing is trained twice"
    assert {name: (out / name).read_bytes() for name in files} == files

    results = tmp_path / "results.md"
    results.write_text("# Results\n<!-- scratch -->\n```\nold\n```\nThe end.\n", encoding="utf-8")
    reproduce.docs([out], results)
    assert results.read_text(encoding="utf-8") == f"# Results\n<!-- scratch -->\n```\n{table}```\nThe end.\n"


@pytest.mark.parametrize(
    "page, folder, said",
    [
        ("# Results\n", "scratch", "has no code block below a mark <!-- scratch -->"),
        ("<!-- other -->\n```\n```\n", "other", "has no results.txt"),
    ],
)
def test_a_table_without_a_place_or_a_run_without_a_table_is_refused(
    reproduce: ModuleType, page: str, folder: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "results.txt").write_text("figures\n", encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "results.md").write_text(page, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        reproduce.docs([tmp_path / folder], tmp_path / "results.md")
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == page


def interpolated(alpha: float, own: float, other: float) -> InterpolationRow:
    sides = {"own": "own pairs: drawings, test", "num_own": 100, "other": "foreign pairs: photos, dev", "num_other": 200}
    intervals = {"own_low": 0.0, "own_high": 99.0, "own_chance": 10.0, "other_low": 0.0, "other_high": 99.0, "other_chance": 5.0}
    figures = {"recall_1": own / 10, "recall_5": own / 2, "own_figure": own, "other_figure": other, "kept": other, "trade_off": own}
    return InterpolationRow(alpha=alpha, **sides, **intervals, **figures)  # type: ignore[arg-type]


def test_seeds_become_their_mean_with_the_smallest_and_the_largest(reproduce: ModuleType) -> None:
    seeds = [[interpolated(0, 10, 60), interpolated(1, 50, 20)], [interpolated(0, 20, 62), interpolated(1, 52, 40)]]
    base, run = reproduce.mean_of(seeds)
    assert (base.own_figure, base.own_low, base.own_high, base.recall_1) == (15, 10, 20, 1.5)
    assert (run.alpha, run.other_figure, run.other_low, run.other_high, run.kept) == (1, 30, 20, 40, 30)
    table = reproduce.over_seeds(seeds)
    assert "chance 10.0" in table and "chance 5.0" in table and "mean of 2 seeds" in table
    assert table.splitlines()[-1].split() == ["1", "5.1", "25.5", "51.0", "50.0..52.0", "30.0", "20.0..40.0", "30.0", "51.0"]
    with pytest.raises(ValueError, match="different alphas"):
        reproduce.mean_of([seeds[0], seeds[1][::-1]])


def test_a_rate_has_a_line_with_what_its_best_epochs_found_and_kept(reproduce: ModuleType, tmp_path: Path) -> None:
    lines = ["epoch,step,val/R@10,val/kept,val/trade_off", "-1,-1,10,100,31.6", "0,3,40,90,60", "1,7,50,49,49.5"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    stopped = reproduce.Tuned.of(tmp_path, stopped=True)
    assert (stopped.own, stopped.kept, stopped.trade_off) == (40, 90, 60)
    table = reproduce.rates_table({1e-2: [stopped, reproduce.Tuned(50, 80, 70, stopped=False)]})
    assert table.splitlines()[-1].split() == ["0.01", "45.0", "85.0", "65.0", "60.0..70.0", "of", "2", "1"]
