"""Votes of neighbours against scikit-learn's, and the properties that keep the figure honest."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from multimodal.metrics import nearest_classes


@pytest.mark.parametrize(("seed", "num", "num_queries", "dim", "k"), [(0, 200, 1500, 16, 20), (1, 30, 10, 3, 1), (2, 50, 40, 8, 50)])
def test_the_vote_is_that_of_scikit_learn(seed: int, num: int, num_queries: int, dim: int, k: int) -> None:
    random = np.random.default_rng(seed)
    rows, queries, labels = random.normal(size=(num, dim)), random.normal(size=(num_queries, dim)), random.integers(5, size=num)
    # scikit-learn's weights get distances 1 - cosine: the same up to a factor that all votes share
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp(-distances / 0.07))
    differ = nearest_classes(rows, labels, queries, k) != peer.fit(rows, labels).predict(queries)
    assert differ.mean() <= 0.002  # float32 against float64 may swap two near-equal votes


def test_pictures_of_clusters_far_apart_get_their_own() -> None:
    labels = np.repeat(np.arange(4), 30)
    rows = np.eye(4)[labels] + 0.05 * np.random.default_rng(0).normal(size=(120, 4))
    assert (nearest_classes(rows, labels, 7 * rows) == labels).all()  # of any length


def test_shuffled_labels_stay_at_chance() -> None:
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(500, 8)), random.integers(5, size=500)
    right = nearest_classes(rows, labels, random.normal(size=(1000, 8))) == random.integers(5, size=1000)
    assert abs(right.mean() - 0.2) < 0.05


def test_order_of_the_rows_is_irrelevant() -> None:
    random = np.random.default_rng(1)
    rows, queries, labels = random.normal(size=(100, 6)), random.normal(size=(40, 6)), random.integers(3, size=100)
    order, place = random.permutation(100), random.permutation(40)
    assert (nearest_classes(rows[order], labels[order], queries[place]) == nearest_classes(rows, labels, queries)[place]).all()


def test_a_near_neighbour_outweighs_two_far_ones() -> None:
    rows, labels = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]]), np.array([1, 0, 0])
    assert nearest_classes(rows, labels, np.array([[1.0, 0.0]]), k=3).tolist() == [1]


def test_fewer_rows_than_neighbours_all_vote_and_a_query_of_zeros_is_defined() -> None:
    assert nearest_classes(np.eye(2), np.array([1, 1]), np.zeros((1, 2)), k=20).tolist() == [1]


@pytest.mark.parametrize(("num", "k"), [(0, 20), (3, 0)])
def test_no_vote_is_refused(num: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"k={k} and {num} rows; both must be at least 1"):
        nearest_classes(np.ones((num, 2)), np.zeros(num, np.int64), np.ones((1, 2)), k)
