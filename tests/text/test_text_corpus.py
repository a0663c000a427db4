"""A corpus is its documents in the vocabulary's numbers, wherever it lies; and counts no more words than it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.spaces.corpus import Corpus
from multimodal.errors import InputError
from multimodal.text import Normaliser, Vocabulary

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
        patch.setattr("data_prep.spaces.corpus._WORDS_IN_MEMORY", in_memory)
        patch.setattr("data_prep.spaces.corpus._WORDS_AT_ONCE", at_once)
        corpus = Corpus.read(texts, PLAIN, min_count)
    assert corpus.vocabulary == vocabulary and len(corpus) == len(wanted)
    assert [document.tolist() for document in corpus] == wanted
    assert [document.tolist() for document in corpus] == wanted  # as often as one likes


def test_of_too_many_words_the_rarest_are_forgotten_and_the_frequent_counted_in_full(monkeypatch):
    monkeypatch.setattr("data_prep.spaces.corpus._MOST_COUNTED", 40)
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
    with pytest.raises(InputError, match="no words"):
        Corpus.read(["", "the"], PLAIN)


def titles(num: int) -> list[str]:
    """Names of photos: each has a word of its own, and every third one shares another with some."""
    return [f"{letters(number)} {['lake', 'harbour', 'market'][number % 3] if number % 3 == 0 else ''}" for number in range(num)]


def letters(number: int) -> str:
    return "".join(chr(ord("b") + digit) for digit in divmod(number, 20)) + "ixo"


def captions(num: int) -> list[str]:
    return [f"a {WORDS[number % 5]} and a {WORDS[number // 5 % 5]} by the {letters(number)}" for number in range(num)]


def known(texts: list[str]) -> int:
    """How many of the texts keep a word."""
    return len(Corpus.read(texts, PLAIN, min_count=None, max_share=0.5))


def test_more_titles_of_photos_never_mean_that_fewer_of_them_are_known():
    counts = [known(titles(num)) for num in (50, 96, 99, 100, 101, 130, 160, 250)]
    assert counts == [50, 96, 99, 100, 101, 130, 160, 250]


@pytest.mark.parametrize(("num", "rarest"), [(99, 1), (100, 2), (200, 2)])
def test_of_captions_that_share_their_words_the_rare_ones_are_left_out(num, rarest):
    vocabulary = Corpus.read(captions(num), PLAIN, min_count=None, max_share=0.5).vocabulary
    assert vocabulary.document_frequencies.min() >= rarest and (len(vocabulary) <= len(WORDS)) == (rarest > 1)


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.sampled_from([*WORDS, *map(letters, range(60))]), max_size=5), min_size=1, max_size=40),
    repeated=st.integers(1, 16),
    at_once=st.sampled_from([1, 3, 1000]),
)
def test_what_is_left_by_default_is_nearly_all_that_there_is_to_know(documents, repeated, at_once):
    texts = [" ".join(words) for words in documents] * repeated
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.spaces.corpus._WORDS_AT_ONCE", at_once)
        try:
            least, all_there_is = (Corpus.read(texts, PLAIN, min_count=count, max_share=0.5) for count in (None, 1))
        except InputError:
            return
    assert len(least) >= 0.9 * len(all_there_is)
    assert least.vocabulary.document_frequencies.sum() >= 0.5 * all_there_is.vocabulary.document_frequencies.sum()


def test_no_word_that_is_left_names_options_that_would_help():
    with pytest.raises(InputError, match=r"in at least 2 of them. Lower min_count \(--min-count 1\)$"):
        Corpus.read(["dog", "beach"], PLAIN, min_count=2)
    with pytest.raises(InputError, match=r"in at most 50% of them. Raise max_share \(--max-share 1\)$"):
        Corpus.read(["dog", "dog"], PLAIN, max_share=0.5)
