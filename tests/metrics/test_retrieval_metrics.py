"""Ranks against a loop over pairs, and the properties that keep a figure honest."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.metrics import (
    average_precision,
    chance_average_precision,
    chance_recall_at,
    interval,
    nearest,
    permuted_average_precision,
    ranks,
    recall_at,
    relevant_ranks,
    score_blocks,
    unit,
)


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


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_ranks_of_several_relevant_items_are_those_of_a_sort_in_which_they_lose_every_tie(seed: int, num_own: int, num_others: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(5, size=num_own + num_others).astype(np.float32)  # many ties
    relevant = generator.permutation(np.arange(num_own + num_others) < num_own)
    by_hand = sorted(zip(scores.tolist(), relevant.tolist(), strict=True), key=lambda item: (-item[0], item[1]))
    assert relevant_ranks(scores, relevant).tolist() == [place for place, (_, is_own) in enumerate(by_hand, 1) if is_own]


def test_with_one_relevant_item_there_is_one_way_to_rank() -> None:
    generator = np.random.default_rng(2)
    queries, gallery, relevant = generator.normal(size=(30, 5)), generator.normal(size=(20, 5)), generator.integers(20, size=30)
    scores = unit(queries) @ unit(gallery).T
    assert [relevant_ranks(line, np.arange(20) == own).tolist() for line, own in zip(scores, relevant, strict=True)] == [
        [rank] for rank in ranks(queries, gallery, relevant).tolist()
    ]


def test_blocks_are_the_whole_matrix_and_never_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = np.random.default_rng(3).normal(size=(50, 4)), np.random.default_rng(4).normal(size=(30, 4))
    monkeypatch.setattr("multimodal.metrics.retrieval.MAX_SCORES", 100)
    blocks = list(score_blocks(queries, gallery))
    assert max(scores.size for _, scores in blocks) <= 100
    assert [start for start, _ in blocks] == list(range(0, 50, 3))
    assert np.allclose(np.concatenate([scores for _, scores in blocks]), queries @ gallery.T)


def test_average_precision_is_scikit_learns_where_nothing_ties() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(5)
    for num_relevant in (1, 2, 7, 39, 40):
        scores, relevant = generator.permutation(40) / 40, generator.permutation(40) < num_relevant
        expected = metrics.average_precision_score(relevant, scores)
        assert average_precision(relevant_ranks(scores, relevant)) == pytest.approx(expected)


def test_average_precision_is_perfect_where_the_relevant_come_first_and_least_where_all_tie() -> None:
    relevant = np.arange(10) < 3
    assert average_precision(relevant_ranks(-np.arange(10.0), relevant)) == 1
    assert relevant_ranks(np.zeros(10), relevant).tolist() == [8, 9, 10]
    assert average_precision(np.array([8, 9, 10])) < chance_average_precision(10, 3)


@pytest.mark.parametrize(("num_gallery", "num_relevant", "k"), [(6, 2, 3), (7, 1, 3), (5, 5, 1), (4, 3, 10), (6, 4, 6)])
def test_chance_is_the_mean_over_all_orders(num_gallery: int, num_relevant: int, k: int) -> None:
    every = [np.array(places) for places in combinations(range(1, num_gallery + 1), num_relevant)]
    assert chance_recall_at(num_gallery, k, num_relevant) == pytest.approx(np.mean([places[0] <= k for places in every]))
    assert chance_average_precision(num_gallery, num_relevant) == pytest.approx(np.mean([average_precision(places) for places in every]))


def test_chance_of_several_queries_is_the_mean_of_theirs() -> None:
    of_each = np.array([1, 5, 5, 2])
    assert chance_recall_at(100, 10, of_each) == pytest.approx(np.mean([chance_recall_at(100, 10, r) for r in of_each.tolist()]))
    assert chance_average_precision(100, of_each) == pytest.approx(np.mean([chance_average_precision(100, r) for r in of_each.tolist()]))
    assert chance_recall_at(100, 10) == pytest.approx(0.1) and chance_recall_at(5, 10) == 1


def test_chance_among_many_items_is_what_shuffles_give() -> None:
    generator = np.random.default_rng(6)
    scores, relevant = generator.random((2000, 500)), np.arange(500) < 40
    each = [relevant_ranks(line, relevant) for line in scores]
    assert chance_average_precision(500, 40) == pytest.approx(np.mean([average_precision(one) for one in each]), rel=0.02)
    assert chance_recall_at(500, 10, 40) == pytest.approx(np.mean([one[0] <= 10 for one in each]), rel=0.04)


def test_permuted_average_precision_is_the_mean_over_all_permutations_of_the_queries() -> None:
    generator = np.random.default_rng(7)
    scores, classes, of_queries = generator.random((4, 9)), np.array([0, 0, 1, 1, 1, 2, 2, 2, 2]), [0, 1, 1, 2]
    ways = [
        [average_precision(relevant_ranks(line, classes == mark)) for line, mark in zip(scores, marks, strict=True)]
        for marks in permutations(of_queries)
    ]
    assert permuted_average_precision(scores, classes, np.array([1, 2, 1]) / 4).tolist() == pytest.approx(np.mean(ways, axis=0).tolist())


def test_rankings_in_which_classes_are_clustered_score_above_a_random_order_for_any_query() -> None:
    generator, classes, shares = np.random.default_rng(8), np.repeat(np.arange(4), 6), np.full(4, 1 / 4)
    scattered, together = generator.random((300, 24)), generator.random((300, 4))[:, classes]
    assert permuted_average_precision(scattered, classes, shares).mean() == pytest.approx(chance_average_precision(24, 6), abs=0.01)
    assert permuted_average_precision(together, classes, shares).mean() > chance_average_precision(24, 6) + 0.05
