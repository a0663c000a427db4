"""Learned metrics against their formulas written as loops, scikit-learn's example, and what a fit must never do."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.mahalanobis.choosing import choose_by_labels, choose_by_pairs
from multimodal.mahalanobis.maps import kissme, lda, nca, pca, square_root, whitening
from multimodal.mahalanobis.pairs import ALONE, Pairs, chunklets, pairs_of_labels
from multimodal.mahalanobis.scatters import scatters_of_labels, scatters_of_pairs

SETS = st.tuples(st.integers(0, 10_000), st.integers(4, 16), st.integers(1, 4), st.integers(2, 4))


def some_set(given: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    seed, num, dim, num_classes = given
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, dim)), rng.permutation(np.arange(num) % num_classes)


def outer_mean(vectors: list[np.ndarray]) -> np.ndarray:
    return sum(np.outer(one, one) for one in vectors) / len(vectors)


@given(SETS)
@settings(max_examples=40)
def test_scatters_of_labels_are_those_of_all_pairs_listed(drawn: tuple[int, int, int, int]) -> None:
    rows, labels = some_set(drawn)
    if max(np.bincount(labels)) < 2:
        with pytest.raises(ValueError, match="one that has two rows"):
            scatters_of_labels(rows, labels)
        return
    unknown = np.append(labels, -1)
    found = scatters_of_labels(np.append(rows, 9 + rows[:1], axis=0), unknown)
    every = list(combinations(range(len(rows)), 2))
    np.testing.assert_allclose(found.same, outer_mean([rows[a] - rows[b] for a, b in every if labels[a] == labels[b]]), atol=1e-9)
    np.testing.assert_allclose(found.different, outer_mean([rows[a] - rows[b] for a, b in every if labels[a] != labels[b]]), atol=1e-9)
    np.testing.assert_allclose(
        found.within, outer_mean([row - rows[labels == label].mean(axis=0) for row, label in zip(rows, labels, strict=True)]), atol=1e-9
    )
    listed = Pairs(*(np.array(side) for side in zip(*every, strict=True)), np.array([labels[a] == labels[b] for a, b in every]))
    of_pairs = scatters_of_pairs(rows, listed)
    np.testing.assert_allclose(of_pairs.same, found.same, atol=1e-9)
    np.testing.assert_allclose(of_pairs.different, found.different, atol=1e-9)


@given(SETS, st.integers(0, 60))
@settings(max_examples=40)
def test_drawn_pairs_are_what_they_say_and_all_different(drawn: tuple[int, int, int, int], num: int) -> None:
    _, labels = some_set(drawn)
    labels = np.where(np.arange(len(labels)) == 1, -1, labels)
    pairs = pairs_of_labels(labels, num, seed=drawn[0])
    names = [frozenset(pair) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)]
    assert len(set(names)) == len(names) and all(len(name) == 2 and 1 not in name for name in names)
    assert ((labels[pairs.first] == labels[pairs.second]) == pairs.same).all()
    every = [labels[a] == labels[b] for a, b in combinations(np.flatnonzero(labels >= 0).tolist(), 2)]
    assert pairs.same.sum() == min(num // 2, sum(every)) and (~pairs.same).sum() == min(num - num // 2, len(every) - sum(every))


def test_every_pair_of_a_kind_is_drawn_as_often() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])  # six same pairs and one
    counts = np.zeros((7, 7))
    for seed in range(1000):
        pairs = pairs_of_labels(labels, 4, seed)
        np.add.at(counts, (np.maximum(pairs.first, pairs.second), np.minimum(pairs.first, pairs.second)), 1)
    same = [counts[b, a] for a, b in combinations(range(7), 2) if labels[a] == labels[b]]
    different = [counts[b, a] for a, b in combinations(range(7), 2) if labels[a] != labels[b]]
    np.testing.assert_allclose(same, 2000 / len(same), rtol=0.2)
    np.testing.assert_allclose(different, 2000 / len(different), rtol=0.3)


def test_chunklets_are_what_same_pairs_connect() -> None:
    pairs = Pairs(np.array([0, 1, 4, 5]), np.array([1, 2, 5, 6]), np.array([True, True, True, False]))
    groups = chunklets(8, pairs)
    assert groups[0] == groups[1] == groups[2] != groups[4] == groups[5] and (groups[[3, 6, 7]] == ALONE).all()


def test_whitening_makes_the_differences_within_classes_round() -> None:
    rows, labels = np.random.default_rng(0).normal(size=(200, 4)) * [1, 2, 5, 9], np.arange(200) % 5
    mapped = rows @ whitening(scatters_of_labels(rows, labels).within, ridge=0).T
    np.testing.assert_allclose(scatters_of_labels(mapped, labels).within, np.eye(4), atol=1e-9)


def test_kissme_is_the_positive_part_of_the_difference_of_inverses() -> None:
    rows, labels = np.random.default_rng(1).normal(size=(60, 3)), np.arange(60) % 4
    rows[:, 0] += labels
    known = scatters_of_labels(rows, labels)
    made = kissme(known.same, known.different, ridge=0)
    metric = np.linalg.inv(known.same) - np.linalg.inv(known.different)
    values, vectors = np.linalg.eigh(metric)
    assert (values < 0).any(), "so that there is a part to leave out"
    np.testing.assert_allclose(made.T @ made, (vectors * np.maximum(values, 0)) @ vectors.T, atol=1e-9)
    assert np.linalg.eigvalsh(made.T @ made).min() > -1e-9
    points = np.random.default_rng(2).normal(size=(100_000, 3, 3)) @ made.T
    sides = [np.linalg.norm(points[:, a] - points[:, b], axis=1) for a, b in ((0, 1), (1, 2), (0, 2))]
    assert (sides[2] <= sides[0] + sides[1] + 1e-12).all()
    assert square_root(np.zeros((3, 3))).shape == (0, 3)


def test_two_dimensions_of_the_digits_are_those_of_scikit_learns_example() -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    digits, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(digits, labels, test_size=0.5, stratify=labels, random_state=0)
    scale = StandardScaler().fit(train)
    train, test = scale.transform(train), scale.transform(test)
    for made, expected in ((pca(train, 2), 0.5228), (lda(train, train_labels, 2), 0.6585), (nca(train, train_labels, 2), 0.6952)):
        model = KNeighborsClassifier(3).fit(train @ made.T, train_labels)
        assert round(model.score(test @ made.T, test_labels), 4) == expected


def noisy_classes(seed: int, num: int, num_classes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Classes that differ in 3 of 16 dimensions; in the other ones everything varies four times as much."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    centres = np.random.default_rng(5).normal(size=(num_classes, 3)) * 2
    return np.concatenate([centres[labels] + rng.normal(size=(num, 3)) * 0.5, 4 * rng.normal(size=(num, 13))], axis=1), labels


def test_a_metric_that_helps_is_taken_and_helps_what_is_new() -> None:
    rows, labels = noisy_classes(0, 360)
    news, of_news = noisy_classes(1, 240)
    for chosen in (
        choose_by_labels(rows, labels),
        choose_by_labels(rows, labels, new_classes=False),
        choose_by_pairs(rows, pairs_of_labels(labels, 800, seed=0)),
    ):
        assert chosen.is_better and chosen.gain[0] > 0 and "clearly" not in str(chosen)
        assert nearest_share(chosen.apply(news), of_news) > nearest_share(news, of_news) + 0.3


def nearest_share(rows: np.ndarray, labels: np.ndarray) -> float:
    """How often the nearest other row by cosine has the same label."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    return float((labels[cosines.argmax(axis=1)] == labels).mean())


def test_labels_without_a_meaning_leave_the_metric_as_it_was() -> None:
    rows, labels = noisy_classes(0, 240)
    num_taken = 0
    for seed in range(4):
        labels = np.random.default_rng(seed).permutation(labels)
        by_labels = [choose_by_labels(rows, labels, new_classes=is_new) for is_new in (True, False)]
        for chosen in (*by_labels, choose_by_pairs(rows, pairs_of_labels(labels, 300, seed))):
            num_taken += chosen.is_better
            assert ("stays as it was" in str(chosen)) == (not chosen.is_better)
            assert (chosen.apply(rows) is rows) == (not chosen.is_better)
    assert num_taken <= 1, "of twelve; by chance one of forty is taken"


def test_too_little_is_said_so() -> None:
    rows, labels = noisy_classes(0, 36)
    with pytest.raises(InputError, match="4 same pairs: a metric needs at least 20"):
        choose_by_pairs(rows, pairs_of_labels(labels, 8, seed=0))
    with pytest.raises(InputError, match="3 classes have two pictures or more; a metric needs 4"):
        choose_by_labels(rows, np.where(labels < 3, labels, -1))
