"""The suite for sources accepts a plain right one, and rejects each mistake with a message that names it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep.conformance import check_source
from multimodal.pairs import Pair
from multimodal.shards import Ledger


def right(input: Path, *, ledger: Ledger) -> Iterator[Pair]:
    """Every PNG of a folder, called by its file name."""
    for path in sorted(input.glob("*.png")):
        yield Pair(path.name, path.read_bytes(), "png", (path.stem,), group=path.stem)


def leaves_a_list(input: Path, *, ledger: Ledger) -> Iterator[Pair]:
    (input / "seen.txt").write_text("all")
    yield from right(input, ledger=ledger)


def shares_its_place(input: Path, *, ledger: Ledger, place: list[int] = [0]) -> Iterator[Pair]:  # noqa: B006 (the mistake)
    place[0] = 0
    pairs = list(right(input, ledger=ledger))
    while place[0] < len(pairs):
        place[0] += 1
        yield pairs[place[0] - 1]


def goes_on(input: Path, *, ledger: Ledger) -> Iterator[Pair]:
    for pair in right(input, ledger=ledger):
        try:
            yield pair
        except BaseException:
            ledger.bad("input", pair.name, "it raised something")


def guesses_extensions(input: Path, *, ledger: Ledger) -> Iterator[Pair]:
    for pair in right(input, ledger=ledger):
        yield Pair(pair.name, pair.image, "jpg", pair.texts, pair.group)


def never_twice_the_same(input: Path, *, ledger: Ledger) -> Iterator[Pair]:
    pairs = list(right(input, ledger=ledger))
    start = int.from_bytes(os.urandom(8)) % len(pairs)
    yield from pairs[start:] + pairs[:start]


WRONG: dict[Callable[..., Any], str] = {
    leaves_a_list: "reading changed the input: .*seen.txt",
    shares_its_place: "two iterators at once affect each other",
    goes_on: "an iterator that was closed after one pair continues",
    guesses_extensions: "expected the extension png of its content, got jpg",
    never_twice_the_same: "two passes differ|affect each other",
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(40):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "png")
        (tmp_path / f"picture {number:02d}.png").write_bytes(file.getvalue())
    return tmp_path


def test_the_suite_accepts_a_right_source(pictures: Path) -> None:
    assert len(check_source(right, {"input": pictures})) == 40


@pytest.mark.parametrize("source", WRONG, ids=lambda source: source.__name__)
def test_the_suite_rejects_a_wrong_source_and_says_what_is_wrong(source: Callable[..., Any], pictures: Path) -> None:
    with pytest.raises(AssertionError, match=WRONG[source]):
        check_source(source, {"input": pictures})
