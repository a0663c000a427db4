"""Figures of topics: what they are where the answer is known, and that fitted topics beat what they are read beside."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from data_prep.spaces import fit_topics
from data_prep.spaces.topic_figures import halves, npmi, permuted_words, perplexity
from multimodal.text import Normaliser


def test_words_that_are_all_alike_have_as_much_perplexity_as_there_are_words():
    topics = np.full((3, 50), 1 / 50)
    bags = [(np.array([0, 7]), np.array([2.0, 1.0])), (np.array([3]), np.array([1.0]))]
    assert perplexity(topics, np.full((2, 3), 1 / 3), bags) == pytest.approx(50)


def test_perplexity_equals_the_product_of_probabilities_written_out():
    topics = np.array([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]])
    shares = np.array([[1.0, 0.0], [0.5, 0.5]])
    bags = [(np.array([0, 2]), np.array([2.0, 1.0])), (np.array([1]), np.array([1.0]))]
    assert perplexity(topics, shares, bags) == pytest.approx((0.5 * 0.5 * 0.1 * 0.3) ** (-1 / 4))


def slow_npmi(words: list[int], documents: list[set[int]]) -> float:
    values = []
    for one, other in itertools.combinations(words, 2):
        both = sum({one, other} <= document for document in documents) / len(documents)
        first, second = (sum(word in document for document in documents) / len(documents) for word in (one, other))
        values.append(-1.0 if not both else 1.0 if both == 1 else math.log(both / first / second) / -math.log(both))
    return sum(values) / len(values)


def test_npmi_equals_the_formula_written_as_a_loop():
    random = np.random.default_rng(0)
    documents = [random.integers(0, 9, random.integers(1, 9)) for _ in range(60)]
    top = np.array([[0, 1, 2], [3, 8, 0], [5, 6, 7]])
    wanted = [slow_npmi(row.tolist(), [set(document.tolist()) for document in documents]) for row in top]
    np.testing.assert_allclose(npmi(top, documents), wanted)


def test_words_that_only_occur_together_have_npmi_one_and_words_that_never_meet_minus_one():
    documents = [np.array([0, 1, 1]), np.array([2]), np.array([3, 2])]
    assert npmi(np.array([[0, 1], [0, 2]]), documents).tolist() == pytest.approx([1, -1])


def test_halves_share_out_every_word():
    ids = np.array([5, 2, 5, 5, 9], np.int32)
    (first, first_counts), (second, second_counts) = halves(ids)
    assert first.tolist() == [5, 9] and first_counts.tolist() == [2, 1]
    assert second.tolist() == [2, 5] and second_counts.tolist() == [1, 1]


def test_permuted_words_are_the_same_words():
    top = np.arange(12).reshape(3, 4)
    assert sorted(permuted_words(top).ravel()) == list(range(12))
    assert permuted_words(top).tolist() == permuted_words(top).tolist() != top.tolist()


def test_fitted_topics_beat_one_topic_for_all_and_permuted_words(texts):
    space = fit_topics(texts[:240], Normaliser(), num_topics=3, passes=5, held_out=texts[240:])
    figures = space.origin.config["figures"]
    assert figures["held_out_documents"] == 60
    assert 8 <= figures["perplexity"] < 0.6 * figures["unigrams"] and figures["unigrams"] == pytest.approx(24, rel=0.1)
    assert figures["npmi"] > figures["dealt"] + 0.1
    assert fit_topics(texts, Normaliser(), num_topics=3, passes=1).origin.config["figures"]["perplexity"] is None
