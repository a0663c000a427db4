"""Concepts: words that can be seen in pictures, and which pictures show them, judged by the texts that came with the pictures.

    concepts = find_concepts(texts)                    # [Concept(("dog", "dogs")), ...]
    judged = judge(texts, concepts)
    judged.shows[:, 3], judged.lacks[:, 3]             # (n,) bool: pictures that show concept 3, and that do not; the others are unclear

Several people describe a picture differently, so one caption alone proves little. Where a picture has at least three texts, a concept is
shown if two of them name it, absent if none does, and unclear if one does. Where it has one or two, a concept is shown if one names it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from multimodal.errors import InputError
from multimodal.text.normalise import Normaliser, lemma

Half = Literal["validation", "test"]

MIN_PICTURES = 8
MAX_SHARE = 0.3
MANY_TEXTS = 3
"""From this many texts a concept must be named by two of them."""
_RELATIONS = frozenset(
    "across along another around aside away behind beneath beside besides front inside near nearby next one past several toward".split()
)
"""Words that are no stop words of a search, but say nothing about a picture alone."""
_WORDS = Normaliser(stop_words=None, min_length=1, numbers=True)
_CONTENT = Normaliser()


@dataclass(frozen=True, slots=True)
class Concept:
    """forms: the words or phrases that name it, in lower case; the first one stands for it in queries."""

    forms: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.forms[0]

    @property
    def half(self) -> Half:
        """Decided by a hash of the dictionary form of its name, so a concept is in the same half for any pictures."""
        base = " ".join(lemma(word, "en") for word in self.name.split())
        return "test" if hashlib.blake2b(base.encode(), digest_size=8).digest()[0] & 1 else "validation"


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What n pictures show. shows, lacks: (n, c) bool, for c concepts; a picture for which neither is true is unclear."""

    concepts: tuple[Concept, ...]
    shows: np.ndarray
    lacks: np.ndarray

    def only(self, chosen: np.ndarray) -> Judged:
        """Those of the concepts that are chosen, a mask (c,) or numbers."""
        numbers = np.arange(len(self.concepts))[chosen]
        return Judged(tuple(self.concepts[number] for number in numbers), self.shows[:, numbers], self.lacks[:, numbers])

    def of_half(self, half: Half) -> Judged:
        return self.only(np.array([concept.half == half for concept in self.concepts], dtype=bool))


def find_concepts(texts: Sequence[Sequence[str]]) -> list[Concept]:
    """The words of the texts of n pictures, without stop words. Words with the same dictionary form ("dog" and "dogs", "runs" and
    "running") are one concept, whose most frequent form comes first. In alphabetical order of the dictionary forms.
    """
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for of_one in texts:
        for text in of_one:
            for word in _CONTENT.tokens(text):
                forms[lemma(word, "en")][word] += 1
    ordered = {base: sorted(counts, key=lambda word: (-counts[word], word)) for base, counts in forms.items()}
    return [Concept(tuple(ordered[base])) for base in sorted(ordered) if base not in _RELATIONS]


def read_concepts(path: Path) -> list[Concept]:
    """Concepts from a text file, one a line, as `dog, dogs, puppy`: the words and phrases that name it, the first one for queries.

    InputError: the file is missing or holds none, or one word belongs to two concepts.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8. Give a file with one concept a line, such as: dog, dogs, puppy") from None
    found: list[Concept] = []
    owner: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        forms = tuple(dict.fromkeys(" ".join(_WORDS.tokens(form)) for form in line.split(",") if form.strip()))
        if not forms:
            continue
        if not all(forms):
            raise InputError(f"{path}, line {number}: {line.strip()!r} has a name without a letter. Write words, such as: dog, dogs, puppy")
        for form in forms:
            if form in owner:
                raise InputError(f"{path}, line {number}: {form!r} is in line {owner[form]} too. Give each word to one concept")
            owner[form] = number
        found.append(Concept(forms))
    if not found:
        raise InputError(f"{path}: has no concept. Write one a line, such as: dog, dogs, puppy")
    return found


def judge(texts: Sequence[Sequence[str]], concepts: Sequence[Concept]) -> Judged:
    """Which of n pictures show each concept, by their texts."""
    numbers = {form: number for number, concept in enumerate(concepts) for form in concept.forms}
    longest = max((len(form.split()) for form in numbers), default=1)
    counts = np.zeros((len(texts), len(concepts)), np.int32)
    for row, of_one in enumerate(texts):
        for text in of_one:
            named = {numbers[phrase] for phrase in _phrases(_WORDS.tokens(text), longest) if phrase in numbers}
            counts[row, list(named)] += 1
    needed = np.array([2 if len(of_one) >= MANY_TEXTS else 1 for of_one in texts], np.int32)
    return Judged(tuple(concepts), counts >= needed[:, None], counts == 0)


def frequent(judged: Judged, min_pictures: int = MIN_PICTURES, max_share: float = MAX_SHARE) -> Judged:
    """Without the concepts that fewer than min_pictures pictures, or more than max_share of them, show."""
    counts = judged.shows.sum(axis=0)
    return judged.only((counts >= min_pictures) & (counts <= max_share * len(judged.shows)))


def shared_frames(texts: Sequence[Sequence[str]], concepts: Sequence[Concept]) -> np.ndarray:
    """In how many different frames, (the word before, the word after), two concepts both occur; (c, c) int64.

    Words that share frames belong to one category, as colours or people or actions do: Mintz (2003), "Frequent frames as a cue for
    grammatical categories in child directed speech", Cognition 90. So one can stand in the other's place: "a man in", "a woman in".
    """
    numbers = {form: number for number, concept in enumerate(concepts) for form in concept.forms}
    frames: dict[tuple[str, str], set[int]] = defaultdict(set)
    for of_one in texts:
        for text in of_one:
            words = ["", *_WORDS.tokens(text), ""]
            for before, word, after in zip(words, words[1:], words[2:], strict=False):
                if word in numbers:
                    frames[before, after].add(numbers[word])
    inside = np.zeros((len(frames), len(concepts)))
    for row, members in enumerate(frames.values()):
        inside[row, list(members)] = 1
    return (inside.T @ inside).astype(np.int64)


def word_sets(texts: Sequence[Sequence[str]], concepts: Sequence[Concept]) -> list[frozenset[str]]:
    """The content words of each picture's main text, in their dictionary forms; a concept's forms become its name."""
    names = {form: concept.name for concept in concepts for form in concept.forms}
    return [frozenset(names.get(word, lemma(word, "en")) for word in _CONTENT.tokens(of_one[0])) for of_one in texts]


def _phrases(words: Sequence[str], longest: int) -> list[str]:
    """All runs of up to `longest` words."""
    return [" ".join(words[start : start + num]) for num in range(1, longest + 1) for start in range(len(words) - num + 1)]
