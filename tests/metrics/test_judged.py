"""Figures of partly judged rankings against slow loops over one query's items."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from multimodal.metrics import average_precision, average_precisions, relevant_ranks, shares_among


def made(seed: int, num_queries: int = 40, num_items: int = 60, levels: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, marks and which items are ranked; each query has a marked item that is ranked. levels: the number of different scores."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal((num_queries, num_items)) if not levels else random.integers(levels, size=(num_queries, num_items)) / 7
    marked, ranked = random.random(scores.shape) < 0.2, random.random(scores.shape) < 0.7
    marked[:, 0] = ranked[:, 0] = True
    return scores, marked, ranked


@pytest.mark.parametrize("levels", [0, 1, 3, 20])
def test_average_precision_is_that_of_each_query_among_its_ranked_items(levels: int) -> None:
    scores, relevant, ranked = made(levels, levels=levels)
    alone = [average_precision(relevant_ranks(line[some], own[some])) for line, own, some in zip(scores, relevant, ranked, strict=True)]
    assert average_precisions(scores, relevant, ranked) == pytest.approx(np.array(alone))


@pytest.mark.parametrize("k", [1, 10, 200])
@pytest.mark.parametrize("levels", [0, 1, 3, 20])
def test_shares_are_those_of_a_sorted_list(levels: int, k: int) -> None:
    scores, marked, ranked = made(levels, levels=levels)
    for ties, last in (("few", True), ("many", False)):
        for number, found in enumerate(shares_among(scores, marked, ranked, k, ties)):  # type: ignore[arg-type]
            items = [(-scores[number, item], marked[number, item] == last) for item in np.flatnonzero(ranked[number])]
            first = [is_last == last for _, is_last in sorted(items)][:k]
            assert found == pytest.approx(np.mean(first))


def test_few_and_many_are_the_least_and_the_most_over_all_orders_of_tied_items() -> None:
    scores = np.array([2.0, 1, 1, 1, 0])
    marked, ranked = np.array([[True, True, False, False, True]]), np.ones((1, 5), dtype=bool)
    orders = [order for order in permutations(range(5)) if all(scores[i] >= scores[j] for i, j in zip(order, order[1:], strict=False))]
    shares = [np.mean(marked[0][list(order[:2])]) for order in orders]
    assert shares_among(scores[None], marked, ranked, 2, "few") == min(shares)
    assert shares_among(scores[None], marked, ranked, 2, "many") == max(shares)


def test_items_that_are_not_ranked_change_nothing() -> None:
    scores, marked, ranked = made(5)
    others = np.where(ranked, scores, np.random.default_rng(6).standard_normal(scores.shape) * 100)
    flipped = np.where(ranked, marked, ~marked)
    assert average_precisions(others, flipped, ranked).tolist() == average_precisions(scores, marked, ranked).tolist()
    assert shares_among(others, flipped, ranked, 10, "few").tolist() == shares_among(scores, marked, ranked, 10, "few").tolist()


def test_a_perfect_order_scores_one_and_a_constant_one_is_the_worst_order() -> None:
    scores, marked, ranked = made(7)
    assert average_precisions(marked.astype(float), marked, ranked).tolist() == [1.0] * len(scores)
    worst = average_precisions(-marked.astype(float), marked, ranked)
    assert average_precisions(np.zeros(scores.shape), marked, ranked).tolist() == worst.tolist()
