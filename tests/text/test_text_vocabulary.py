"""Words by position, counted in a corpus, and near spellings of those that are not there."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.spaces.corpus import Corpus
from multimodal.errors import InputError
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.vocabulary import _edit_distances

DOCUMENTS = [["dog", "beach", "dog"], ["dog", "cat"], ["dog", "cat", "\u2028"], ["dog"]]


def test_the_most_frequent_words_come_first_and_equal_ones_by_spelling():
    vocabulary = Vocabulary.count(DOCUMENTS)
    assert vocabulary.words == ("dog", "cat", "beach", "\u2028")
    assert vocabulary.document_frequencies.tolist() == [4, 2, 1, 1]
    assert vocabulary.num_documents == 4


def test_limits_leave_out_rare_frequent_and_surplus_words():
    assert Vocabulary.count(DOCUMENTS, min_count=2).words == ("dog", "cat")
    assert Vocabulary.count(DOCUMENTS, max_share=0.5).words == ("cat", "beach", "\u2028")
    assert Vocabulary.count(DOCUMENTS, max_words=1).words == ("dog",)
    with pytest.raises(InputError, match="Lower min_count"):
        Vocabulary.count(DOCUMENTS, min_count=5)


@pytest.mark.parametrize("max_words", [0, -1])
def test_a_limit_that_no_word_can_keep_is_named(max_words):
    for read in (Vocabulary.count, lambda documents, max_words: Corpus.read(map(" ".join, documents), Normaliser(), max_words=max_words)):
        with pytest.raises(InputError, match=f"^max_words={max_words} must be above 0$"):
            read(DOCUMENTS, max_words=max_words)


def test_unknown_words_are_left_out_of_ids_and_repetitions_stay():
    vocabulary = Vocabulary.count(DOCUMENTS)
    assert vocabulary.ids(["cat", "zebra", "dog", "cat"]) == [1, 0, 1]
    assert "cat" in vocabulary and "zebra" not in vocabulary


def test_one_word_a_line_reads_back_as_the_same_words():
    vocabulary = Vocabulary.count(DOCUMENTS)
    assert vocabulary.to_text().decode() == "dog\ncat\nbeach\n\u2028\n"
    assert Vocabulary.words_of(vocabulary.to_text()) == list(vocabulary.words)


def test_the_fingerprint_depends_on_words_order_and_frequencies():
    one = Vocabulary(["a", "b"], np.array([1, 1]), 2)
    others = [
        Vocabulary(["b", "a"], np.array([1, 1]), 2),
        Vocabulary(["a", "b"], np.array([1, 2]), 2),
        Vocabulary(["a", "b"], np.array([1, 1]), 3),
    ]
    assert one.fingerprint == Vocabulary(["a", "b"], np.array([1, 1]), 2).fingerprint
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_word_that_stands_twice_is_an_error():
    with pytest.raises(InputError, match="'a' is in it 2 times"):
        Vocabulary(["a", "b", "a"], np.ones(3), 1)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("baech", ["beach", "beech", "bench"]),  # a swap of neighbours is one change, and so nearer than the others
        ("beac", ["beach"]),
        ("xdog", ["dog"]),
        ("zxqv", []),
        ("orchstera", ["orchestra"]),
        ("dog", ["dogs"]),  # the word itself is no near spelling of it
        ("", []),
    ],
)
def test_near_spellings_are_named_nearest_first(word, near):
    words = ["dog", "beach", "bench", "beech", "orchestra", "dogs"]
    vocabulary = Vocabulary(words, np.arange(len(words), 0, -1), 10)
    found = vocabulary.near(word)
    assert found[:1] == near[:1]
    assert set(found) == set(near)


def slow_distance(a: str, b: str) -> int:
    """The recurrence as it is written in textbooks."""
    table = {(i, -1): i + 1 for i in range(-1, len(a))} | {(-1, j): j + 1 for j in range(-1, len(b))}
    for i, j in itertools.product(range(len(a)), range(len(b))):
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i] != b[j]))
        if i and j and a[i] == b[j - 1] and a[i - 1] == b[j]:
            table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(a) - 1, len(b) - 1]


@settings(max_examples=60, deadline=None)
@given(word=st.text("abc", min_size=1, max_size=6), others=st.lists(st.text("abcd", min_size=1, max_size=7), max_size=8))
def test_distances_of_many_words_at_once_equal_those_one_by_one(word, others):
    assert _edit_distances(word, others).tolist() == [slow_distance(word, other) for other in others]


def test_a_word_too_long_to_be_misspelt_has_no_near_spellings_and_costs_nothing():
    class Counted(str):
        sliced = 0

        def __getitem__(self, key):
            Counted.sliced += 1
            return str.__getitem__(self, key)

    vocabulary = Vocabulary(["d" * 3001, "dog"], np.ones(2), 1)
    assert vocabulary.near(Counted("d" * 3000)) == [] and Counted.sliced == 0
    assert Vocabulary(["d" * 64], np.ones(1), 1).near("d" * 63) == ["d" * 64]
