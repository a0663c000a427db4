"""The suite for text spaces rejects each mistake with a message that names it; what it accepts is in the tests of each space."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest

from multimodal.text.conformance import check_space
from multimodal.text.space import BoxedSpace, Origin, open_box, origin_of

TEXTS = ["violin", "a dog", "beach"]


class Vowels(BoxedSpace):
    """How often each vowel is in a text."""

    family: ClassVar[str] = "wordvec"

    def __init__(self, letters: str = "aeiou", origin: Origin = Origin()) -> None:  # noqa: B008 (frozen)
        self.letters = letters
        self.origin = origin

    @property
    def dim(self) -> int:
        return len(self.letters)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[text.count(letter) for letter in self.letters] for text in texts], np.float32).reshape(-1, self.dim)

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        return {word: [] for word in text.split() if not set(word) & set(self.letters)}

    def _files(self) -> Mapping[str, bytes | Path]:
        return {"letters.json": json.dumps(self.letters).encode()}

    def _settings(self) -> Mapping[str, object]:
        return {}

    def _counts(self) -> Mapping[str, int]:
        return {"dim": self.dim}

    @classmethod
    def load(cls, path: Path) -> Self:
        manifest = open_box(path, cls)
        return cls(json.loads((path / "letters.json").read_text()), origin_of(manifest))


class Sorting(Vowels):
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = super().embed(texts)
        if isinstance(texts, list):
            texts.sort()
        return rows


class OneBuffer(Vowels):
    buffer: ClassVar[np.ndarray] = np.zeros((1000, 5), np.float32)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.buffer[: len(texts)] = super().embed(texts)
        return self.buffer[: len(texts)]


class NamesAll(Vowels):
    """Names every word as unknown, and has a row for it."""

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        return {word: [] for word in text.split()}


class NamesTooFew(Vowels):
    """Says of its first dimensions alone what they mean."""

    def top_words(self, k: int) -> list[list[str]]:
        return [[letter] for letter in self.letters[:2]]


class Normalised(Vowels):
    """Measures a text against those beside it."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = super().embed(texts)
        return rows / np.float32(max(rows.max(initial=0), 1))


WRONG = {
    Sorting: "embed changes the list of texts",
    OneBuffer: "rows that embed returned change with its next call",
    NamesAll: "unknown_words names 'violin', but embed has a row for it",
    NamesTooFew: r"top_words\(2\) gives 2 lists; expected 2 words for each of 5 dimensions",
    Normalised: "differs from the same row among the others",
}


def test_the_suite_accepts_a_right_space(tmp_path: Path) -> None:
    check_space(Vowels(), TEXTS, tmp_path)


@pytest.mark.parametrize("space", WRONG, ids=lambda space: space.__name__)
def test_the_suite_rejects_a_wrong_space_and_says_what_is_wrong(space: type[Vowels], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=WRONG[space]):
        check_space(space(), TEXTS, tmp_path)
