"""Learned metrics against their formulas written as loops, scikit-learn's example, and what a fit must never do."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.mahalanobis import Chosen, Known, Pairs, choose
from multimodal.mahalanobis.choosing import METHODS, Setting
from multimodal.mahalanobis.maps import kissme, lda, nca, pca, square_root, whitening
from multimodal.mahalanobis.pairs import ALONE, chunklets, pairs_of_labels, triplets_of_pairs
from multimodal.mahalanobis.scatters import scatters_of_labels, scatters_of_pairs
from multimodal.metrics import unit

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
    means = np.stack([rows[labels == label].mean(axis=0) - rows.mean(axis=0) for label in labels])
    np.testing.assert_allclose(found.between, outer_mean(list(means)), atol=1e-9)
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
    known = scatters_of_labels(train, train_labels)
    for made, expected in ((pca(train, 2), 0.5228), (lda(known.within, known.between, 2), 0.6585), (nca(train, train_labels, 2), 0.6952)):
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
    pairs = pairs_of_labels(labels, 800, seed=0)
    for known in (Known(rows, labels=labels), Known(rows, pairs=pairs), Known(rows, triplets=triplets_of_pairs(pairs))):
        chosen = choose(known, new="pictures", methods=["pca", "rca", "kissme"])
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
        for chosen in (
            choose(Known(rows, labels=labels)),
            choose(Known(rows, labels=labels), new="pictures"),
            choose(Known(rows, pairs=pairs_of_labels(labels, 300, seed)), new="pictures"),
        ):
            num_taken += chosen.is_better
            assert ("stays as it was" in str(chosen)) == (not chosen.is_better)
            assert (chosen.apply(rows) is rows) == (not chosen.is_better)
    assert num_taken <= 1, "of twelve; by chance one of forty is taken"


def test_too_little_is_said_so() -> None:
    rows, labels = noisy_classes(0, 36)
    with pytest.raises(InputError, match="4 same pairs: a metric needs at least 20"):
        choose(Known(rows, pairs=pairs_of_labels(labels, 8, seed=0)))
    with pytest.raises(InputError, match="3 classes have two pictures or more; a metric needs 4"):
        choose(Known(rows, labels=np.where(labels < 3, labels, -1)))
    for each in (2, 5):  # none of these is held out beside another of its class
        few = np.repeat(np.arange(len(rows) // each), each)
        with pytest.raises(InputError, match="and 0 of .* pictures were held out beside another of their class. Give 10 pictures or more"):
            choose(Known(rows[: len(few)], labels=few), "pictures")
    pairs = pairs_of_labels(labels, 200, seed=0)
    with pytest.raises(InputError, match="triplets: a metric needs at least 20"):
        choose(Known(rows, triplets=triplets_of_pairs(pairs)[:9]))
    with pytest.raises(InputError, match="--methods lda: needs labels"):
        choose(Known(rows, pairs=pairs), methods=["lda"])
    with pytest.raises(InputError, match="--methods kisme: is none. Did you mean kissme"):
        choose(Known(rows, pairs=pairs), methods=["kisme"])
    with pytest.raises(InputError, match="of 100 held-out different pairs, give a share from 0.01 to below 1"):
        choose(Known(rows, pairs=pairs), false_accepts=0.001)
    with pytest.raises(InputError, match="triplets say what is more alike, and not what is the same"):
        choose(Known(rows, triplets=triplets_of_pairs(pairs)), false_accepts=0.1)


def test_triplets_of_pairs_are_those_that_share_a_picture() -> None:
    pairs = Pairs(np.array([0, 1, 4, 2, 0]), np.array([1, 2, 5, 3, 4]), np.array([True, True, True, False, False]))
    found = triplets_of_pairs(pairs)
    listed = set(zip(found.anchor.tolist(), found.same.tolist(), found.different.tolist(), strict=True))
    assert listed == {(0, 1, 4), (2, 1, 3), (4, 5, 0)} and len(found) == 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_dimensions_that_tell_classes_apart(method: str) -> None:
    if method == "nca":
        pytest.importorskip("sklearn", reason="needs scikit-learn")
    rows, labels = noisy_classes(0, 360)
    news, of_news = noisy_classes(1, 240)
    before = nearest_share(news, of_news)
    setting = Setting(method, 16, 0.1)  # type: ignore[arg-type]
    pairs = pairs_of_labels(labels, 800, seed=0)
    every = [Known(rows, labels=labels)]
    every += [] if method in ("lda", "nca") else [Known(rows, pairs=pairs), Known(rows, triplets=triplets_of_pairs(pairs))]
    for known in every:
        metric = setting.fit(known)
        assert np.linalg.eigvalsh(metric.T @ metric).min() > -1e-9
        assert nearest_share(news @ metric.T, of_news) > before + (-1e-9 if method == "pca" else 0.3)


def test_a_threshold_accepts_the_share_that_was_asked_for() -> None:
    rows, labels = noisy_classes(0, 360)
    news, of_news = noisy_classes(1, 360)
    for known in (Known(rows, labels=labels), Known(rows, pairs=pairs_of_labels(labels, 2000, seed=0))):
        chosen = choose(known, new="pictures", methods=["rca"], false_accepts=0.05)
        assert chosen.same is not None and chosen.same.false_accepts <= 0.05
        accepted = cosine_table(chosen, news)[np.triu_indices(360, 1)] >= chosen.same.cosine
        same = (of_news[:, None] == of_news)[np.triu_indices(360, 1)]
        assert abs(accepted[~same].mean() - 0.05) < 0.02
        assert abs(accepted[same].mean() - chosen.same.true_accepts) < 0.1


def cosine_table(chosen: Chosen, rows: np.ndarray) -> np.ndarray:
    units = unit(chosen.apply(rows))
    return units @ units.T


def test_regions_held_out_show_what_is_true_of_the_classes_of_the_pairs_alone() -> None:
    """One dimension separates each class from the rest, and pairs of other classes carry no information about it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    rows = 3 * rng.normal(size=(400, 20))
    rows[np.arange(400), labels] += 9
    known = Known(rows, pairs=pairs_of_labels(labels, 600, seed=0))
    by_pictures, by_regions = (choose(known, new=new, methods=["kissme"]) for new in ("pictures", "classes"))
    assert by_pictures.is_better and not by_regions.is_better, (by_pictures, by_regions)
    few = Known(rows, pairs=pairs_of_labels(np.where(labels == 0, 0, np.where(labels == 1, 1, -1)), 60, seed=0))
    assert choose(few, methods=["rca"]).after >= 0, "without the region of one class, no different pair is left"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "one of: labels, pairs, triplets"),
        ({"labels": np.zeros(4, np.int64)}, r"expected \(5,\) whole numbers"),
        ({"labels": np.array(list("abcde"))}, "whole numbers"),
        ({"pairs": Pairs(np.array([0, 5]), np.array([1, 2]), np.array([True, False]))}, "from 0 to 4"),
        ({"rows": np.full((5, 2), np.nan), "labels": np.zeros(5, np.int64)}, "finite"),
    ],
)
def test_what_cannot_be_known_of_rows_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Known(**{"rows": np.ones((5, 2)), **given})
