"""R@1 and MAP@R against loops from their definitions, and chance against random orders."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from multimodal.metrics import same_class
from multimodal.metrics.same_class import chance_precision_among_r, precision_among_r


def slow(rows: np.ndarray, classes: np.ndarray, distance: str) -> tuple[float, float]:
    """The shares of R@1 and MAP@R; ties count against."""
    first, precisions = [], []
    for own in range(len(rows)):
        others = [place for place in range(len(rows)) if place != own]
        if distance == "cosine":
            near = {at: float(rows[at] @ rows[own] / np.linalg.norm(rows[at]) / np.linalg.norm(rows[own])) for at in others}
        else:
            near = {at: -float(np.square(rows[at] - rows[own]).sum()) for at in others}
        order = sorted(others, key=lambda at: (-near[at], classes[at] == classes[own]))
        right = [classes[at] == classes[own] for at in order]
        num = sum(right)
        if num:
            first.append(right[0])
            precisions.append(sum(np.mean(right[: place + 1]) for place in range(num) if right[place]) / num)
    return float(np.mean(first)), float(np.mean(precisions))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize(("seed", "num", "dim", "num_classes"), [(0, 60, 3, 5), (1, 40, 2, 20), (2, 25, 8, 2), (3, 3, 2, 1)])
def test_it_is_what_the_loop_over_pairs_gives(seed: int, num: int, dim: int, num_classes: int, distance: str) -> None:
    random = np.random.default_rng(seed)
    classes = random.integers(num_classes, size=num)
    rows = random.normal(size=(num, dim)) + 3 + random.normal(size=(num_classes, dim))[classes]
    judged = same_class(rows, classes, distance)  # type: ignore[arg-type]
    assert judged is not None
    np.testing.assert_allclose([judged.recall_1, judged.map_r], slow(rows, classes, distance), atol=1e-12)


def test_classes_far_apart_are_perfect_and_one_point_for_all_is_worthless() -> None:
    classes = np.repeat(np.arange(4), 5)
    perfect = same_class(np.eye(4)[classes] + 1e-3 * np.random.default_rng(0).normal(size=(20, 4)), classes)
    collapsed = same_class(np.ones((20, 4)), classes)
    assert perfect is not None and (perfect.recall_1, perfect.map_r) == (1, 1)
    assert collapsed is not None and (collapsed.recall_1, collapsed.map_r) == (0, 0)


def test_by_distance_what_is_nearer_than_its_direction_says_is_told_apart() -> None:
    """Two classes on one ray from the origin: cosine cannot tell them apart, the distance can."""
    rows, classes = np.array([[1.0, 1.0], [1.1, 1.1], [5.0, 5.0], [5.1, 5.1]]), np.array([0, 0, 1, 1])
    near, alike = same_class(rows, classes, "euclidean"), same_class(rows, classes, "cosine")
    assert near is not None and alike is not None and near.map_r == 1 and alike.map_r == 0


def test_order_of_the_rows_and_names_of_the_classes_are_irrelevant() -> None:
    random = np.random.default_rng(4)
    rows, classes = random.normal(size=(50, 4)), random.integers(7, size=50)
    order = random.permutation(50)
    one, other = same_class(rows, classes), same_class(rows[order], 100 - 3 * classes[order])
    assert one is not None and other is not None
    np.testing.assert_allclose(astuple(one), astuple(other), atol=1e-12)  # the mean is summed in another order


def test_a_picture_alone_of_its_class_does_not_ask_but_is_found() -> None:
    judged = same_class(np.eye(3)[[0, 0, 1]], np.array([0, 0, 1]))
    assert judged is not None and judged.num_queries == 2 and judged.num_classes == 2
    assert same_class(np.eye(3), np.arange(3)) is None


def test_at_most_so_many_ask_and_all_are_found() -> None:
    random = np.random.default_rng(5)
    judged = same_class(random.normal(size=(200, 4)), random.integers(3, size=200), max_queries=20)
    assert judged is not None and judged.num_queries == 20


@pytest.mark.parametrize(("num", "relevant"), [(9, 1), (9, 4), (30, 7), (5, 5), (1, 1)])
def test_chance_is_the_mean_over_random_orders(num: int, relevant: int) -> None:
    random = np.random.default_rng(6)
    drawn = [precision_among_r(np.sort(random.permutation(num)[:relevant]) + 1) for _ in range(4000)]
    assert abs(np.mean(drawn) - chance_precision_among_r(num, np.array([relevant]))) < 0.02
