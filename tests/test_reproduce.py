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
