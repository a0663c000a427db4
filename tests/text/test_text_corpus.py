"""A corpus is its documents in the vocabulary's numbers, wherever it lies; and counts no more words than it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.corpus import Corpus

PLAIN = Normaliser()
WORDS = ["dog", "beach", "violin", "comet", "wave"]


def slow(texts: list[str], min_count: int, max_share: float) -> tuple[Vocabulary, list[list[int]]]:
    documents = [PLAIN.tokens(text) for text in texts]
    vocabulary = Vocabulary.count(documents, min_count, max_share)
    return vocabulary, [ids for ids in map(vocabulary.ids, documents) if ids]


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(st.lists(st.sampled_from([*WORDS, "the"]), max_size=7), min_size=1, max_size=9),
    min_count=st.integers(1, 2),
    in_memory=st.sampled_from([0, 3, 1000]),
    at_once=st.sampled_from([1, 2, 5, 1000]),
)
def test_documents_are_the_same_in_memory_and_on_disk(documents, min_count, in_memory, at_once):
    texts = [" ".join(words) for words in documents]
    try:
        vocabulary, wanted = slow(texts, min_count, 1.0)
    except InputError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimodal.text.corpus._WORDS_IN_MEMORY", in_memory)
        patch.setattr("multimodal.text.corpus._WORDS_AT_ONCE", at_once)
        corpus = Corpus.read(texts, PLAIN, min_count)
    assert corpus.vocabulary == vocabulary and len(corpus) == len(wanted)
    assert [document.tolist() for document in corpus] == wanted
    assert [document.tolist() for document in corpus] == wanted  # as often as one likes


def test_of_too_many_words_the_rarest_are_forgotten_and_the_frequent_counted_in_full(monkeypatch):
    monkeypatch.setattr("multimodal.text.corpus._MOST_COUNTED", 40)
    letters = "abcdefghijklmnopqrst"
    rare = [f"rare{one}{other}" for one in letters for other in letters]
    texts = [f"dog {word} beach" for word in rare]
    corpus = Corpus.read(texts, PLAIN)
    words = dict(zip(corpus.vocabulary.words, corpus.vocabulary.document_frequencies.tolist(), strict=True))
    assert words["dog"] == words["beach"] == len(texts) and len(words) <= 40
    assert sum(len(document) for document in corpus) == 2 * len(texts) + len(words) - 2
    dog = corpus.vocabulary.position("dog")
    assert all(np.count_nonzero(document == dog) == 1 for document in corpus)


def test_no_texts_and_no_words_are_errors():
    with pytest.raises(InputError, match="no texts"):
        Corpus.read([], PLAIN)
    with pytest.raises(InputError, match="no word of 0"):
        Corpus.read(["", "the"], PLAIN)
