"""Words of a store's text space near a vector: what a picture shows, and what else one could search for.

    words = Words.of(store)                        # seconds, once for a store
    words.near(store.take([17]), 10)               # [[Near("beach", 3.1), ...]]

A space of words or topics has its own vocabulary, of which the most frequent are taken. An encoder reads any text and has no list, so the
words of the store's own texts and everyday ones are embedded, in the store's template. Nearness is a word's cosine in standard deviations
above its mean over the store: some words are near to every picture, and say nothing of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from multimodal.search.calibration import Calibration, frequent_words
from multimodal.search.pausing import may_pause
from multimodal.text import Doc2VecSpace, TextSpace, TopicSpace, WordSpace
from multimodal.text.stop_words import ENGLISH

MAX_WORDS = 5_000
"""Of a vocabulary."""
MAX_ENCODED = 768
"""Of the store's own words, where an encoder embeds each."""
NUM_TEXTS = 5_000
"""Of a store, in which an encoder's words are counted."""
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Near:
    """A word, and how near it is: its cosine in standard deviations above its mean over the store."""

    word: str
    nearness: float


class HasWords(Protocol):
    """A store."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def query_space(self) -> TextSpace: ...
    @property
    def calibration(self) -> Calibration: ...
    def records(self, ids: Sequence[int] | np.ndarray, columns: Sequence[str] = ...) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """words: w of them. units: (w, d) float32, their vectors as queries have them. mean, std: (w,), of their cosines over the store."""

    words: tuple[str, ...]
    units: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, store: HasWords) -> Words:
        """Of a store. It may take seconds, and pauses often (`multimodal.search.pausing`)."""
        words = _vocabulary(store)
        units = []
        for start in range(0, len(words), _AT_ONCE):
            may_pause()
            units.append(store.calibration.embed_words(words[start : start + _AT_ONCE], store.query_space).astype(np.float32))
        found = np.concatenate([np.empty((0, store.query_space.dim), np.float32), *units])
        known = np.flatnonzero(found.any(axis=1))
        moments = [
            store.calibration.moments(found[some].astype(np.float64)) for some in np.array_split(known, -(-len(known) // _AT_ONCE) or 1)
        ]
        mean, std = (np.concatenate(parts).astype(np.float32) for parts in zip(*moments, strict=True))
        return cls(tuple(words[at] for at in known.tolist()), found[known], mean, std)

    def near(self, vectors: np.ndarray, k: int) -> list[list[Near]]:
        """For each vector (n, d) of a picture the k nearest words, the nearest first."""
        return self._best((_units(vectors) @ self.units.T - self.mean) / self.std, k)

    def akin(self, vectors: np.ndarray, k: int) -> list[list[Near]]:
        """The same for vectors of queries; nearness is the cosine less its mean over the store. In standard deviations over pictures, which
        a word is far from, those words came first that hardly vary there: whoa, became and ipod for dog."""
        return self._best(_units(vectors) @ self.units.T - self.mean, k)

    def _best(self, nearness: np.ndarray, k: int) -> list[list[Near]]:
        best = np.argsort(-nearness, axis=1, kind="stable")[:, :k]
        return [[Near(self.words[at], float(line[at])) for at in places.tolist()] for line, places in zip(nearness, best, strict=True)]


def _units(vectors: np.ndarray) -> np.ndarray:
    units = vectors.astype(np.float32)
    return units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)


def _vocabulary(store: HasWords) -> list[str]:
    space = store.query_space
    if isinstance(space, TopicSpace | WordSpace | Doc2VecSpace):
        stop = set(ENGLISH)
        return [word for word in space.vocabulary.words[: 2 * MAX_WORDS] if word.isalpha() and len(word) > 2 and word not in stop][
            :MAX_WORDS
        ]
    step = max(1, -(-len(store.ids) // NUM_TEXTS))
    texts = [str(record["text"] or "") for record in store.records(np.sort(store.ids)[::step], ["text"])]
    return frequent_words(texts, space, is_slow=True, num=MAX_ENCODED)
