"""Nearest neighbours, silhouette and violated triplets against scikit-learn and loops from their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.metrics import majority_classes, share_violated, silhouette
from multimodal.metrics.distances import Distance, distances

DISTANCES = pytest.mark.parametrize("distance", ["cosine", "euclidean"])


def labelled(seed: int, num: int, dim: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    classes = random.integers(num_classes, size=num)
    return random.normal(size=(num, dim)) + 2 + random.normal(size=(num_classes, dim))[classes], classes


@DISTANCES
@pytest.mark.parametrize("seed", range(3))
def test_silhouette_is_scikit_learns(seed: int, distance: Distance) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rows, classes = labelled(seed, 80, 3, 6)
    assert silhouette(rows, classes, distance) == pytest.approx(metrics.silhouette_score(rows, classes, metric=distance), abs=1e-6)
    assert np.isnan(silhouette(rows, np.zeros(80, int), distance))
    assert silhouette(np.zeros((4, 2)), np.array([0, 0, 1, 1])) == 0


@DISTANCES
def test_the_majority_is_that_of_the_nearest(distance: Distance) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    rows, classes = labelled(0, 120, 2, 4)
    queries, wanted = labelled(1, 60, 2, 4)
    found = majority_classes(rows, classes, queries, wanted, (1, 5), distance)
    np.testing.assert_array_equal(found[1], neighbors.KNeighborsClassifier(1, metric=distance).fit(rows, classes).predict(queries))
    far = distances(queries, rows, distance)
    for query in range(len(queries)):
        near = classes[np.argsort(far[query])[:5]].tolist()
        assert found[5][query] == max(near, key=near.count), "of equally many votes the class of the nearest"
    # among themselves
    own = majority_classes(rows, classes, rows, classes, (1,), distance, own=np.arange(len(rows)))[1]
    far = distances(rows, rows, distance) + np.diag(np.full(len(rows), np.inf))
    np.testing.assert_array_equal(own, classes[far.argmin(axis=1)])


def test_rows_that_do_not_differ_are_no_success() -> None:
    rows, classes = np.ones((9, 2)), np.arange(9) % 3
    found = majority_classes(rows, classes, rows, classes, (1, 5), "euclidean", own=np.arange(9))
    assert (found[1] != classes).all() and (found[5] != classes).all()
    assert share_violated(rows, classes) == 1
    assert np.isnan(share_violated(rows, np.arange(9)))


@DISTANCES
def test_the_share_of_violated_triplets_is_that_of_the_loop(distance: Distance) -> None:
    rows, classes = labelled(2, 25, 2, 4)
    far = distances(rows, rows, distance)
    triplets = [
        far[anchor, positive] >= far[anchor, negative]
        for anchor in range(25)
        for positive in range(25)
        for negative in range(25)
        if anchor != positive and classes[anchor] == classes[positive] != classes[negative]
    ]
    assert share_violated(rows, classes, distance) == pytest.approx(np.mean(triplets))
    random = np.random.default_rng(0)
    assert share_violated(random.normal(size=(300, 2)), random.integers(5, size=300), distance, 100) == pytest.approx(0.5, abs=0.05)
