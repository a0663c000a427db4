"""What every text space must satisfy. A test passes its space in one line.

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

from multimodal.text.opening import open_space
from multimodal.text.space import EmbedsMany, NamesDimensions, TextSpace

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


def check_space(
    space: TextSpace,
    texts: Sequence[str],
    folder: Path,
    without: Sequence[str] = (),
    tolerance: float = 0.0,
    spells: bool = False,
) -> None:
    """AssertionError, with what was expected, if a space breaks the contract.

    texts: at least two different ones, each with words that the space knows. folder: an empty folder to save into.
    without: packages without which the saved space must open and embed, above all the one that fitted it.
    tolerance: by how much a row may change with the other texts of a call; 0 for bitwise equality.
    spells: the space has a row for every symbol, since it spells what it has no word for; then only an empty text has none.
    """
    texts = list(texts)
    assert len(set(texts)) > 1, "give at least two different texts"
    assert space.family in FAMILIES, f"family {space.family!r} is unknown; it must be one of {', '.join(FAMILIES)}"
    given = list(texts)
    rows = space.embed(given)
    assert given == texts, "embed changes the list of texts that it is given"
    kept = rows.copy()
    space.embed(texts[::-1])
    assert np.array_equal(rows, kept), "rows that embed returned change with its next call: return new arrays"
    _check_rows(space, texts, rows)
    _check_each_row_alone(space, texts, rows, tolerance)
    _check_unknown(space, texts, rows, tolerance, spells)
    _check_reload(space, texts, rows, folder)
    _check_afresh(space, texts, rows, folder / "space", folder / "afresh.npy", without)


def _check_rows(space: TextSpace, texts: list[str], rows: np.ndarray) -> None:
    assert rows.shape == (len(texts), space.dim) and rows.dtype == np.float32, (
        f"embed gives {rows.shape} {rows.dtype}; expected ({len(texts)}, {space.dim}) float32"
    )
    assert np.isfinite(rows).all(), "rows are finite"
    assert rows.any(axis=1).all(), "the space must know a word of every given text"
    assert np.array_equal(space.embed(texts), rows), "the same texts must give the same rows twice, bitwise"
    if isinstance(space, NamesDimensions):
        named = space.top_words(2)
        assert len(named) == space.dim and all(len(words) <= 2 for words in named), (
            f"top_words(2) gives {len(named)} lists; expected 2 words for each of {space.dim} dimensions"
        )
    if space.family == "topic":
        assert (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-5), "topic shares must be at least 0 and sum to one"


def _check_each_row_alone(space: TextSpace, texts: list[str], rows: np.ndarray, tolerance: float) -> None:
    assert space.embed([]).shape == (0, space.dim), "no texts give no rows"
    for at, text in enumerate(texts):
        _close(space.embed([text])[0], rows[at], tolerance, f"row {at} alone differs from the same row among the others")
    _close(space.embed(texts[::-1])[::-1], rows, tolerance, "the order of the texts changes rows")
    for size in {2, 3, max(1, len(texts) // 2)}:
        parts = [space.embed(texts[start : start + size]) for start in range(0, len(texts), size)]
        _close(np.concatenate(parts), rows, tolerance, f"in batches of {size} the rows differ from those of one call")
    long = " ".join(texts * 20)
    _close(space.embed([long, *texts])[1:], rows, tolerance, "a long text changes the rows of other texts")
    if isinstance(space, EmbedsMany):
        _close(space.embed_many(texts), rows, max(tolerance, _MANY_TOLERANCE), "embed_many gives other rows than embed")


def _check_unknown(space: TextSpace, texts: list[str], rows: np.ndarray, tolerance: float, spells: bool) -> None:
    nothing = ["", " \n", "" if spells else "\u2603"]  # a snowman: no space has a word for it
    assert not space.embed(nothing).any(), "a text with no known word must give a row of zeros"
    mixed = space.embed([nothing[0], texts[0], nothing[2], texts[1]])
    _close(mixed[[1, 3]], rows[:2], tolerance, "texts without a known word change their neighbours")
    unknown = space.unknown_words("\u2603")
    assert all(isinstance(near, list) for near in unknown.values()), "unknown_words must return word -> list of words"
    assert spells or unknown, "unknown_words must name the words of a text that has no known one"
    assert space.unknown_words("") == {}, "a text without words must have no unknown ones"
    placed = [word for text in texts for word in space.unknown_words(text) if space.embed([word]).any()]
    assert not placed, f"unknown_words names {placed[0]!r}, but embed has a row for it: named words are left out of queries"


def _check_reload(space: TextSpace, texts: list[str], rows: np.ndarray, folder: Path) -> None:
    space.save(folder / "space")
    loaded = open_space(folder / "space", trust=[_package_of(space)])
    assert type(loaded) is type(space), f"opened as {type(loaded).__name__}, saved as {type(space).__name__}"
    assert np.array_equal(loaded.embed(texts), rows), "rows must be bitwise equal after save and load"
    assert loaded.fingerprint == space.fingerprint, "the fingerprint must be the same after save and load"
    loaded.save(folder / "again")
    files, again = (
        sorted(file.relative_to(box) for file in box.rglob("*") if file.is_file()) for box in (folder / "space", folder / "again")
    )
    assert files == again, "a space saved twice must have the same files"
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
    assert fingerprint == space.fingerprint, "a fresh process gets another fingerprint"
    loaded = sorted(set(without) & set(modules))
    assert not loaded, f"opening and embedding loads {', '.join(loaded)}"
    assert np.array_equal(np.load(found), rows), "rows must be bitwise equal in a fresh process"


def _package_of(space: TextSpace) -> str:
    """The package to trust for a custom space."""
    return type(space).__module__.partition(".")[0]


def _close(found: np.ndarray, wanted: np.ndarray, tolerance: float, message: str) -> None:
    distance = float(np.abs(found.astype(np.float64) - wanted).max(initial=0))
    assert distance <= tolerance, f"{message}: they differ by {distance:.2g}; at most {tolerance:.2g} is allowed"
