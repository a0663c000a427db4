"""The words that a space knows, in order, with the number of documents of the fitting corpus that contain each.

vocabulary = Vocabulary.count([["dog", "beach"], ["dog"]], min_count=1)
vocabulary.ids(["dog", "zebra"])           # [0]: unknown words are left out
vocabulary.near("baech")                   # ["beach"]
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from multimodal.boxes import fingerprint_bytes
from multimodal.errors import InputError

_LETTERS = string.ascii_lowercase + string.digits
LONGEST_NEAR = 64
"""Longer words get no near spellings: the work grows with the square of their length."""


class Vocabulary:
    """Words by position and positions by word.

    words: (v,) distinct, none empty, most frequent first if made by `count`.
    document_frequencies: (v,) int64, documents of the fitting corpus with the word; 0 for a word that is only in the space itself.
    num_documents: of that corpus.
    """

    def __init__(self, words: Sequence[str], document_frequencies: np.ndarray, num_documents: int) -> None:
        self.words = tuple(words)
        self.document_frequencies = np.asarray(document_frequencies, np.int64)
        self.num_documents = int(num_documents)
        self._positions = dict(zip(self.words, range(len(self.words)), strict=True))
        if len(self._positions) != len(self.words):
            word, times = Counter(self.words).most_common(1)[0]
            raise InputError(f"words must be unique in a vocabulary; {word!r} is in it {times} times")
        if self.document_frequencies.shape != (len(self.words),):
            raise InputError(f"{len(self.words)} words have {self.document_frequencies.shape} document frequencies; give one for each word")

    @classmethod
    def count(
        cls, documents: Iterable[Sequence[str]], min_count: int = 1, max_share: float = 1.0, max_words: int | None = None
    ) -> Vocabulary:
        """The words of a corpus, most frequent first, ties in order of spelling.

        documents: the words of each. min_count: rarer words are dropped (by documents, not occurrences). max_share: words in a larger
        share of documents are dropped. max_words: keep only this many of the rest, the most frequent.
        """
        check_max_words(max_words)
        frequencies: Counter[str] = Counter()
        num_documents = 0
        for words in documents:
            frequencies.update(set(words))
            num_documents += 1
        return cls.choose(frequencies, num_documents, min_count, max_share, max_words)

    @classmethod
    def choose(
        cls, frequencies: Mapping[str, int], num_documents: int, min_count: int, max_share: float, max_words: int | None
    ) -> Vocabulary:
        """Like `count`, from given document frequencies."""
        kept = [(word, count) for word, count in frequencies.items() if min_count <= count <= max_share * num_documents]
        kept = sorted(kept, key=lambda item: (-item[1], item[0]))[:max_words]
        if not kept:
            raise InputError(_none_kept(len(frequencies), num_documents, min_count, max_share))
        return cls([word for word, _ in kept], np.array([count for _, count in kept], np.int64), num_documents)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._positions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.fingerprint == other.fingerprint

    __hash__ = None  # type: ignore[assignment]

    def position(self, word: str) -> int:
        """The word's position; KeyError if it is unknown."""
        return self._positions[word]

    def ids(self, words: Iterable[str]) -> list[int]:
        """The positions of the words, in their order, repetitions included; unknown ones are left out."""
        positions = self._positions
        return [positions[word] for word in words if word in positions]

    @cached_property
    def fingerprint(self) -> str:
        """A fingerprint of the words, their order and their document frequencies."""
        return fingerprint_bytes(self.to_text(), self.document_frequencies.astype("<i8").tobytes(), str(self.num_documents).encode())

    def to_text(self) -> bytes:
        """UTF-8, one word per line."""
        return "".join(f"{word}\n" for word in self.words).encode()

    @staticmethod
    def words_of(text: bytes) -> list[str]:
        """The words of `to_text`."""
        return text.decode().split("\n")[:-1]  # not splitlines: a word may contain what Unicode calls a line end

    def near(self, word: str, limit: int = 3) -> list[str]:
        """Known words with a similar spelling, nearest first, then most frequent first; at most `limit`.

        Similar means one or two letters omitted, inserted, changed or swapped with their neighbour; only one in words shorter than five.
        Two changes are searched only among words with the same first letter. There is no index: 400,000 words take some 20 ms. A word of
        more than 64 letters gets none.
        """
        if len(word) > LONGEST_NEAR:
            return []
        found = [candidate for candidate in dict.fromkeys(_one_change(word)) if candidate in self._positions and candidate != word]
        found.sort(key=self._positions.__getitem__)
        if len(found) < limit and len(word) >= 5:
            first, shortest, longest = word[0], len(word) - 2, len(word) + 2
            similar = [one for one in self.words if one[0] == first and shortest <= len(one) <= longest]
            distances = _edit_distances(word, similar)
            taken = {word, *found}
            found += [similar[at] for at in np.flatnonzero(distances <= 2) if similar[at] not in taken]
        return found[:limit]


def check_max_words(max_words: int | None) -> None:
    """InputError if no word could be kept."""
    if max_words is not None and max_words < 1:
        raise InputError(f"max_words={max_words} must be above 0")


def _none_kept(num_words: int, num_documents: int, min_count: int, max_share: float) -> str:
    if not num_words:
        return f"no words in {num_documents} documents: their texts are blank, or contain only stop words, numbers and signs"
    limits = [f"in at least {min_count} of them"] if min_count > 1 else []
    limits += [f"in at most {max_share:.0%} of them"] if max_share < 1 else []
    remedies = ["Lower min_count (--min-count 1)"] if min_count > 1 else []
    remedies += ["raise max_share (--max-share 1)"] if max_share < 1 else []
    remedy = ", or ".join(remedies)
    return f"no word of {num_words} in {num_documents} documents is {' and '.join(limits)}. {remedy[:1].upper()}{remedy[1:]}"


def _one_change(word: str) -> Iterator[str]:
    for at in range(len(word) + 1):
        head, tail = word[:at], word[at:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        for letter in _LETTERS:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]


def _edit_distances(word: str, others: Sequence[str]) -> np.ndarray:
    """(n,) optimal string alignment distances of one word from n others: Levenshtein's, with a swap of adjacent letters as one change."""
    if not others:
        return np.zeros(0, np.int16)
    letters = np.array(others)
    lengths = np.char.str_len(letters)
    letters = letters.view(np.uint32).reshape(len(others), -1).T  # (w, n) code points, 0 where a word has ended
    codes = [ord(letter) for letter in word]
    # rows[j] (n,): distance between the first i letters of `word` and the first j of each other word
    rows = np.repeat(np.arange(len(letters) + 1, dtype=np.int16)[:, None], len(others), axis=1)
    before = rows
    for i, code in enumerate(codes, 1):
        row = np.empty_like(rows)
        row[0] = i
        for j in range(1, len(rows)):
            row[j] = np.minimum(np.minimum(rows[j], row[j - 1]) + 1, rows[j - 1] + (letters[j - 1] != code))
            if i > 1 and j > 1:
                swapped = (letters[j - 2] == code) & (letters[j - 1] == codes[i - 2])
                row[j] = np.where(swapped, np.minimum(row[j], before[j - 2] + 1), row[j])
        before, rows = rows, row
    return rows[lengths, np.arange(len(others))]
