"""Ranks against a loop over pairs, and the properties that keep a figure honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.metrics import average_precision, chance_recall_at, interval, nearest, ranks, recall_at


def ranks_by_loop(queries: np.ndarray, gallery: np.ndarray, relevant: np.ndarray) -> list[int]:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    return [
        sum(cosine(query, item) >= cosine(query, gallery[own]) for item in gallery) for query, own in zip(queries, relevant, strict=True)
    ]


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12), st.integers(2, 6))
@settings(max_examples=50, deadline=None)
def test_ranks_equal_a_loop_over_pairs(seed: int, num_queries: int, num_gallery: int, dim: int) -> None:
    generator = np.random.default_rng(seed)
    queries, gallery = generator.normal(size=(num_queries, dim)), generator.normal(size=(num_gallery, dim))
    relevant = generator.integers(num_gallery, size=num_queries)
    # float32 against float64 may swap two near-equal scores: at most one place here
    assert np.abs(ranks(queries, gallery, relevant) - ranks_by_loop(queries, gallery, relevant)).max() <= 1


@given(st.integers(0, 1000), st.integers(0, 5), st.integers(1, 12), st.integers(1, 15))
@settings(max_examples=50, deadline=None)
def test_the_nearest_are_those_of_a_sorted_loop(seed: int, num_queries: int, num_gallery: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    queries, gallery = generator.normal(size=(num_queries, 3)), generator.normal(size=(num_gallery, 3))
    rows, cosines = nearest(queries, gallery, k)
    assert rows.shape == cosines.shape == (num_queries, min(k, num_gallery))
    for query, found, scores in zip(queries, rows, cosines, strict=True):
        by_hand = [float(query @ item / (np.linalg.norm(query) * np.linalg.norm(item))) for item in gallery]
        assert scores == pytest.approx(sorted(by_hand, reverse=True)[:k], abs=1e-6)
        assert [by_hand[row] for row in found] == pytest.approx(scores.tolist(), abs=1e-6)


def test_equally_near_ones_come_in_the_order_of_the_gallery() -> None:
    rows, _ = nearest(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]), k=4)
    assert rows.tolist() == [[1, 3, 0, 2]]


def test_ranks_read_off_by_hand() -> None:
    queries = np.array([[1.0, 0.0], [0.0, 1.0]])
    gallery = np.array([[1.0, 0.1], [1.0, 0.0], [0.5, 0.5]])
    assert ranks(queries, gallery, np.array([0, 2])).tolist() == [2, 1]


def test_perfect_input_is_perfect_and_equal_scores_do_not_flatter() -> None:
    rows = np.eye(7)
    assert recall_at(ranks(rows, rows, np.arange(7)), 1) == 1.0
    assert ranks(rows, np.ones((7, 7)), np.arange(7)).tolist() == [7] * 7
    assert ranks(np.zeros((2, 7)), rows, np.arange(2)).tolist() == [7, 7]


def test_random_vectors_stay_at_chance() -> None:
    generator = np.random.default_rng(0)
    first = ranks(generator.normal(size=(2000, 8)), generator.normal(size=(100, 8)), generator.integers(100, size=2000))
    low, high = interval(first <= 10)
    assert low <= chance_recall_at(100, 10) <= high


def test_order_of_the_rows_is_irrelevant() -> None:
    generator = np.random.default_rng(1)
    queries, gallery, relevant = generator.normal(size=(30, 5)), generator.normal(size=(20, 5)), generator.integers(20, size=30)
    order, place = generator.permutation(30), generator.permutation(20)
    shuffled = ranks(queries[order], gallery[place], np.argsort(place)[relevant[order]])
    assert shuffled.tolist() == ranks(queries, gallery, relevant)[order].tolist()


def test_average_precision_with_one_relevant_item_is_the_mean_reciprocal_rank() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(2)
    queries, gallery, relevant = generator.normal(size=(9, 4)), generator.normal(size=(15, 4)), generator.integers(15, size=9)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, gallery)]
    scores = unit[0] @ unit[1].T
    each = [metrics.average_precision_score(np.arange(15) == own, row) for own, row in zip(relevant, scores, strict=True)]
    expected = np.mean(each)
    assert average_precision(ranks(queries, gallery, relevant)) == pytest.approx(expected)


def test_an_interval_covers_the_mean_and_narrows_with_more_values() -> None:
    generator = np.random.default_rng(3)
    few, many = generator.random(50), generator.random(5000)
    assert interval(few).low <= few.mean() <= interval(few).high
    assert np.ptp(interval(many)) < np.ptp(interval(few))
