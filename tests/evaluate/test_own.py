"""A protocol of one's own runs by its path, with its options, and is printed and written as ours are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from multimodal.cli import main
from multimodal.evaluate.figures import read_found
from multimodal.evaluate.retrieval import retrieve
from multimodal.search.store import Store
from multimodal.shards import ShardSet

OWN = '''
from dataclasses import dataclass
from multimodal.evaluate.figures import judged_ids
from multimodal.evaluate.retrieval import retrieve

def first_words(store, shards, ids, most: int = 100, upside_down: bool = False):
    """The first pairs alone.

    most: how many pairs.
    """
    return retrieve(store, shards, ids[:most], directions=["text->image"])

@dataclass
class Share:
    letter: str
    share: float

def shares(store, shards, ids, letter: str = "e"):
    texts = [shards.texts(int(id))[0] for id in judged_ids(store, shards, ids)]
    return [Share(one, sum(one in text for text in texts) / len(texts)) for one in letter]

def of_numpy(store, shards, ids):
    import numpy as np
    return [{"num": np.int64(len(ids)), "mean": np.float32(0.5)}]

def untyped(store, shards, ids, most=3): ...
def too_few(store): ...
def ours(store, shards, ids, part: str = "x"): ...
def nonsense(store, shards, ids): return [3]
def nested(store, shards, ids): return [{"a": [1]}]
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "their_figures.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("their_figures", None)


@pytest.fixture
def given(make_store: Callable[..., Store], shards: ShardSet) -> list[str]:
    return ["--store", str(make_store("store").path), "--shards", str(shards.path), "--part", "all"]


def run(function: str, *arguments: str) -> int:
    return main(["evaluate", f"their_figures:{function}", *arguments])


def test_what_queries_found_is_printed_and_written_as_recall(
    own: None, given: list[str], tmp_path: Path, shards: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("first_words", *given, "--most", "30", "--recipe", "mine", "--output", str(tmp_path / "f.json")) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["recipe", "trunk", "gallery", "direction"] and line.startswith("mine")
    [row] = json.loads((tmp_path / "f.json").read_text())
    assert (row["num_queries"], row["R@1"], row["chance_R@10"]) == (30, 100.0, 33.33)
    [wanted] = retrieve(Store(given[1]), shards, np.arange(30), directions=["text->image"])
    [found] = read_found(tmp_path / "f.json")
    assert found.first.tolist() == wanted.first.tolist() and found.num_gallery == 30


def test_rows_of_figures_are_printed_and_written_as_they_are(
    own: None, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("shares", *given, "--letter", "aq", "--output", str(tmp_path / "f.json")) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][0] == ["letter", "share"]
    rows = json.loads((tmp_path / "f.json").read_text())
    assert [row["letter"] for row in rows] == ["a", "q"] and rows[1]["share"] == 0 < rows[0]["share"] <= 1
    assert run("of_numpy", *given) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["num", "mean"], ["200", "0.5"]]


def test_the_help_is_the_functions_own(own: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("first_words", "--help") == 0
    told = capsys.readouterr().out
    assert (
        "The first pairs alone." in told and "--most MOST" in told and "how many pairs (default: 100)" in told and "--store STORE" in told
    )


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("untyped", "its option most has no type. Annotate it, for example most: int"),
        ("too_few", "takes 1 parameters; a protocol takes store, shards and ids, then its options"),
        ("ours", "its option part is one that every protocol has"),
        ("nonsense", "their_figures:nonsense returned a int; it must return Found, a dict or a dataclass"),
        ("nested", "returned a=[1]; figures are numbers or texts"),
        ("missing", "the module their_figures has no function 'missing'"),
    ],
)
def test_what_is_no_protocol_is_refused_with_the_reason(
    own: None, given: list[str], function: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(function, *given) == 2
    assert message in capsys.readouterr().err


def test_a_protocol_that_is_not_found_is_reported_with_where_python_looks(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "nobodys:figures", *given]) == 2
    assert "there is no module nobodys. Install nobodys, or put PYTHONPATH=FOLDER in front of the command" in capsys.readouterr().err
