"""What every text space must hold; a test hands its space over in one line.

def test_topics_keep_the_contract(tmp_path): check_space(space, ["a dog", "two cats"], tmp_path, without=["gensim"])
def test_encoder_keeps_the_contract(tmp_path): check_space(space, ["a dog", "two cats"], tmp_path, tolerance=1e-5)
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multimodal.text.space import EmbedsMany, TextSpace, open_space

_MANY_TOLERANCE = 1e-6
FAMILIES = ("topic", "wordvec", "contrastive")

_OPEN_AFRESH = """
import sys
import numpy as np
from multimodal.text import open_space
space = open_space(sys.argv[1], trust=[sys.argv[2]])
np.save(sys.argv[3], space.embed(sys.argv[4:]))
print(space.fingerprint, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def check_space(space: TextSpace, texts: Sequence[str], folder: Path, without: Sequence[str] = (), tolerance: float = 0.0) -> None:
    """AssertionError, with what was wanted, where a space does not keep the contract.

    texts: at least two, different, of which the space knows words. folder: an empty one to save into.
    without: packages that the saved space must open and embed without, above all the one that fitted it.
    tolerance: by how much a row may differ with the texts beside it; 0 for bit by bit.
    """
    texts = list(texts)
    assert len(set(texts)) > 1, "give at least two different texts"
    assert space.family in FAMILIES, f"family {space.family!r} is none of {', '.join(FAMILIES)}"
    rows = space.embed(texts)
    _check_rows(space, texts, rows)
    _check_each_row_alone(space, texts, rows, tolerance)
    _check_unknown(space, texts, rows, tolerance)
    _check_reload(space, texts, rows, folder)
    _check_afresh(space, texts, rows, folder / "space", folder / "afresh.npy", without)


def _check_rows(space: TextSpace, texts: list[str], rows: np.ndarray) -> None:
    assert rows.shape == (len(texts), space.dim) and rows.dtype == np.float32, (
        f"embed gives {rows.shape} {rows.dtype}, wanted ({len(texts)}, {space.dim}) float32"
    )
    assert np.isfinite(rows).all(), "rows are finite"
    assert rows.any(axis=1).all(), "of every text given the space knows a word"
    assert np.array_equal(space.embed(texts), rows), "the same texts give the same rows twice, bit by bit"
    if space.family == "topic":
        assert (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-5), "topics are shares: not negative, rows sum to one"


def _check_each_row_alone(space: TextSpace, texts: list[str], rows: np.ndarray, tolerance: float) -> None:
    assert space.embed([]).shape == (0, space.dim), "no texts give no rows"
    for at, text in enumerate(texts):
        _close(space.embed([text])[0], rows[at], tolerance, f"row {at} alone is not what it is among the others")
    _close(space.embed(texts[::-1])[::-1], rows, tolerance, "the order of the texts changes rows")
    for size in {2, 3, max(1, len(texts) // 2)}:
        parts = [space.embed(texts[start : start + size]) for start in range(0, len(texts), size)]
        _close(np.concatenate(parts), rows, tolerance, f"in batches of {size} the rows are not what they are at once")
    long = " ".join(texts * 20)
    _close(space.embed([long, *texts])[1:], rows, tolerance, "a long text beside them changes rows")
    if isinstance(space, EmbedsMany):
        _close(space.embed_many(texts), rows, max(tolerance, _MANY_TOLERANCE), "embed_many gives other rows than embed")


def _check_unknown(space: TextSpace, texts: list[str], rows: np.ndarray, tolerance: float) -> None:
    nothing = ["", " \n", "\u2603"]  # a snowman: no space has a word for it
    assert not space.embed(nothing).any(), "a text with no known word gives a row of zeros"
    mixed = space.embed([nothing[0], texts[0], nothing[2], texts[1]])
    _close(mixed[[1, 3]], rows[:2], tolerance, "texts without a known word change their neighbours")
    unknown = space.unknown_words("\u2603")
    assert all(isinstance(near, list) for near in unknown.values()), "unknown_words gives word -> list of words"
    assert unknown, "a text of which nothing is known has its words named"
    assert space.unknown_words("") == {}, "a text without words has no unknown ones"


def _check_reload(space: TextSpace, texts: list[str], rows: np.ndarray, folder: Path) -> None:
    space.save(folder / "space")
    loaded = open_space(folder / "space", trust=[_package_of(space)])
    assert type(loaded) is type(space), f"opened as {type(loaded).__name__}, saved as {type(space).__name__}"
    assert np.array_equal(loaded.embed(texts), rows), "saved and loaded, rows are the same bit by bit"
    assert loaded.fingerprint == space.fingerprint, "saved and loaded, the fingerprint is the same"
    loaded.save(folder / "again")
    files = sorted(path.name for path in (folder / "space").iterdir())
    assert files == sorted(path.name for path in (folder / "again").iterdir()), "a space saved twice has the same files"
    for name in files:
        same = (folder / "space" / name).read_bytes() == (folder / "again" / name).read_bytes()
        assert same, f"{name} differs in a space that was loaded and saved again"


def _check_afresh(space: TextSpace, texts: list[str], rows: np.ndarray, box: Path, found: Path, without: Sequence[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", _OPEN_AFRESH, str(box), _package_of(space), str(found), *texts]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, f"does not open in a fresh process: {done.stderr}"
    fingerprint, *modules = done.stdout.split()
    assert fingerprint == space.fingerprint, "another process sees another fingerprint"
    loaded = sorted(set(without) & set(modules))
    assert not loaded, f"opening and embedding loads {', '.join(loaded)}"
    assert np.array_equal(np.load(found), rows), "in a fresh process rows are the same bit by bit"


def _package_of(space: TextSpace) -> str:
    """The package that whoever checks a space of their own trusts."""
    return type(space).__module__.partition(".")[0]


def _close(found: np.ndarray, wanted: np.ndarray, tolerance: float, message: str) -> None:
    distance = float(np.abs(found.astype(np.float64) - wanted).max(initial=0))
    assert distance <= tolerance, f"{message}: they differ by {distance:.2g}, and at most {tolerance:.2g} is allowed"
