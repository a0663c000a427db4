"""A corpus while a space is fitted: its words counted once and kept as numbers, four bytes a word.

corpus = Corpus.read(texts, Normaliser(), min_count=2)
corpus.vocabulary, len(corpus), corpus.documents[0]     # (words of document 0,) int32 positions, in order
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from multimodal.errors import InputError
from multimodal.text.normalise import Normaliser
from multimodal.text.vocabulary import Vocabulary

_MORE_WANTED_FROM = (100, 500)  # documents; a word seen twice says little, but among few documents there are only such words


@dataclass(frozen=True, slots=True)
class Corpus:
    """documents: each (words,) int32 positions in the vocabulary, in reading order; documents without a known word are not among them."""

    vocabulary: Vocabulary
    documents: list[np.ndarray]

    @classmethod
    def read(
        cls, texts: Iterable[str], normaliser: Normaliser, min_count: int | None = 1, max_share: float = 1.0, max_words: int | None = None
    ) -> Corpus:
        """One pass over the texts. InputError where no word is left. The limits are those of `Vocabulary.count`.

        min_count: None for 1, 2 or 3, in corpora of less than 100, less than 500, or more documents.
        """
        numbers: dict[str, int] = {}
        frequencies: Counter[int] = Counter()
        read: list[array[int]] = []
        for text in texts:
            document = array("i", [numbers.setdefault(word, len(numbers)) for word in normaliser.tokens(text)])
            frequencies.update(set(document))
            read.append(document)
        if not read:
            raise InputError("there are no texts to fit a space on")
        if min_count is None:
            min_count = 1 + sum(len(read) >= size for size in _MORE_WANTED_FROM)
        words = list(numbers)
        by_word = {words[number]: count for number, count in frequencies.items()}
        vocabulary = Vocabulary.choose(by_word, len(read), min_count, max_share, max_words)
        positions = np.full(len(words), -1, np.int32)
        for position, word in enumerate(vocabulary.words):
            positions[numbers[word]] = position
        documents = []
        for document in read:
            ids = positions[np.frombuffer(document, np.intc)] if document else positions[:0]
            ids = ids[ids >= 0]
            if len(ids):
                documents.append(ids)
        return cls(vocabulary, documents)

    def __len__(self) -> int:
        return len(self.documents)
