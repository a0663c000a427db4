"""A corpus while a space is fitted: its words, counted once and kept as numbers of four bytes, on disk if there are many.

corpus = Corpus.read(texts, Normaliser(), min_count=2)
corpus.vocabulary, len(corpus), corpus[0]     # (words of document 0,) int32 positions, in order

Memory hardly grows with the corpus: at most 256 MB of words (the rest is in an unnamed file in the folder for temporary files, TMPDIR), the
counts of at most two million different words, and eight bytes per document.
"""

from __future__ import annotations

import itertools
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from multimodal.errors import InputError
from multimodal.text.normalise import Normaliser
from multimodal.text.vocabulary import Vocabulary, check_max_words

_HIGHER_COUNT_FROM = (100, 500)  # documents; a word seen twice says little, but a small corpus has only such words
_DOCUMENTS_KEPT, _WORDS_KEPT = 0.9, 0.5  # shares that a higher count must leave: titles of photos hardly share a word
_WORDS_IN_MEMORY = 1 << 26
_WORDS_AT_ONCE = 1 << 22
_MOST_COUNTED = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Documents as positions in the vocabulary, in reading order; without documents that have no known word.

    words: (t,) int32, one document after the other; ends: (n,) int64, where each document ends.
    """

    vocabulary: Vocabulary
    words: np.ndarray
    ends: np.ndarray

    @classmethod
    def read(
        cls, texts: Iterable[str], normaliser: Normaliser, min_count: int | None = 1, max_share: float = 1.0, max_words: int | None = None
    ) -> Corpus:
        """One pass over the texts. InputError if no word is left. The limits are those of `Vocabulary.count`.

        min_count: None for 1, 2 or 3, in corpora of less than 100, less than 500, or more documents; and lower if it would leave less than
        90 % of the documents with a word, or less than half of all words: adding documents never makes words unknown.
        Whenever more than two million different words are counted, the rarest are dropped, so that in very large corpora the count of a
        rare word may be too small.
        """
        check_max_words(max_words)
        counted, spool, ends = _Counted(), _Spool(), array("q")
        for text in texts:
            spool.append(counted.add(normaliser.tokens(text)))
            ends.append(len(spool))
        if not ends:
            raise InputError("there are no texts to fit a space on")
        if min_count is None:
            min_count = _fitting_min_count(spool.words(), np.frombuffer(ends, np.int64), counted.frequencies(), max_share)
        vocabulary = Vocabulary.choose(counted.frequencies_by_word(), len(ends), min_count, max_share, max_words)
        words, kept_ends = _renumbered(spool.words(), np.frombuffer(ends, np.int64), counted.positions(vocabulary))
        return cls(vocabulary, words, kept_ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> np.ndarray:
        """(words of the document,) int32."""
        return self.words[self.ends[number - 1] if number else 0 : self.ends[number]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))


class _Counted:
    """Words, numbered in order of appearance, and the number of documents with each."""

    def __init__(self) -> None:
        self._next = itertools.count()
        self._numbers: defaultdict[str, int] = defaultdict(self._next.__next__)
        self._frequencies: Counter[int] = Counter()
        self._forgotten_up_to = 0

    def add(self, words: list[str]) -> array[int]:
        """The numbers of a document's words."""
        document = array("i", [self._numbers[word] for word in words])
        self._frequencies.update(set(document))
        if len(self._numbers) > _MOST_COUNTED:
            self._forget()
        return document

    def _forget(self) -> None:
        """Drop the words in fewest documents until a quarter is free; one that appears again gets a new number, and counts from one."""
        while len(self._numbers) > 3 * _MOST_COUNTED // 4:
            self._forgotten_up_to += 1
            kept = {word: number for word, number in self._numbers.items() if self._frequencies[number] > self._forgotten_up_to}
            self._numbers = defaultdict(self._next.__next__, kept)
        self._frequencies = Counter({number: self._frequencies[number] for number in self._numbers.values()})

    def frequencies_by_word(self) -> dict[str, int]:
        return {word: self._frequencies[number] for word, number in self._numbers.items()}

    def frequencies(self) -> np.ndarray:
        """(numbers,) int64: the number of documents with the word of each number, 0 for dropped words."""
        frequencies = np.zeros(max(self._frequencies, default=-1) + 1, np.int64)
        frequencies[list(self._frequencies.keys())] = list(self._frequencies.values())
        return frequencies

    def positions(self, vocabulary: Vocabulary) -> np.ndarray:
        """(numbers,) int32: the vocabulary position of the word of each number, -1 if it has none."""
        positions = np.full(next(self._next), -1, np.int32)
        for position, word in enumerate(vocabulary.words):
            positions[self._numbers[word]] = position
        return positions


def _fitting_min_count(words: np.ndarray, ends: np.ndarray, frequencies: np.ndarray, max_share: float) -> int:
    """The value for `min_count=None`. words (t,) numbers; ends (n,); frequencies (numbers,), the number of documents with each word."""
    usable = np.where(frequencies <= max_share * len(ends), frequencies, 0)
    best = _best_of_each(words, ends, usable)
    for min_count in range(1 + sum(len(ends) >= size for size in _HIGHER_COUNT_FROM), 1, -1):
        documents_kept = np.count_nonzero(best >= min_count) >= _DOCUMENTS_KEPT * np.count_nonzero(best)
        if documents_kept and usable[usable >= min_count].sum() >= _WORDS_KEPT * usable.sum():
            return min_count
    return 1


def _best_of_each(words: np.ndarray, ends: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """(n,) the largest frequency among the words of each document, 0 for documents without words."""
    best = np.zeros(len(ends), np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    filled = np.flatnonzero(ends > starts)
    portions = np.flatnonzero(np.diff(starts[filled] // _WORDS_AT_ONCE)) + 1  # of documents that begin near each other
    for portion in np.split(filled, portions):
        if len(portion):
            first = starts[portion[0]]
            best[portion] = np.maximum.reduceat(frequencies[words[first : ends[portion[-1]]]], starts[portion] - first)
    return best


class _Spool:
    """Appended numbers, in memory while they are few, then in a file."""

    def __init__(self) -> None:
        self._buffer = array("i")
        self._file: IO[bytes] | None = None
        self._num_written = 0

    def __len__(self) -> int:
        return self._num_written + len(self._buffer)

    def append(self, numbers: array[int]) -> None:
        self._buffer.extend(numbers)
        if len(self._buffer) > _WORDS_IN_MEMORY:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()
        self._buffer.tofile(self._file)
        self._num_written += len(self._buffer)
        self._buffer = array("i")

    def words(self) -> np.ndarray:
        """(t,) int32, which may be written to."""
        if self._file is None:
            return np.frombuffer(self._buffer, np.int32) if self._buffer else np.zeros(0, np.int32)
        self._write()
        self._file.flush()
        return np.memmap(self._file, np.int32, "r+")


def _renumbered(words: np.ndarray, ends: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The words as vocabulary positions, without unknown ones, and the ends of the documents that still have words. Overwrites `words`."""
    kept_ends = np.zeros_like(ends)
    num_kept = 0
    for start in range(0, len(words), _WORDS_AT_ONCE):
        found = positions[words[start : start + _WORDS_AT_ONCE]]
        keep = found >= 0
        first, last = np.searchsorted(ends, [start, start + len(found)], "right")  # the documents that end in here
        kept_ends[first:last] = num_kept + np.cumsum(keep)[ends[first:last] - start - 1]
        kept = found[keep]
        words[num_kept : num_kept + len(kept)] = kept  # behind what is still to be read
        num_kept += len(kept)
    return words[:num_kept], kept_ends[np.diff(kept_ends, prepend=0) > 0]
