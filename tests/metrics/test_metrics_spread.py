"""The room that an embedding takes, and what it gets most wrong."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.metrics import effective_rank, hardest_triplets, spread


def cloud(num: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, dim))


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_the_effective_rank_of_equal_directions_is_their_number(directions: int) -> None:
    rows = np.concatenate([np.eye(9)[:directions], -np.eye(9)[:directions]])
    assert effective_rank(7 + 3 * rows) == pytest.approx(directions)


def test_the_effective_rank_is_between_one_and_the_dimension_and_does_not_depend_on_scale_place_or_turn() -> None:
    rows = cloud(50, 4) * [1, 2, 3, 4]
    turn, _ = np.linalg.qr(cloud(4, 4, seed=1))
    assert 1 < effective_rank(rows) < 4
    assert effective_rank(1e-3 * rows @ turn + 5) == pytest.approx(effective_rank(rows))


def test_the_formula_of_roy_and_vetterli() -> None:
    rows = cloud(20, 3)
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    shares = values / values.sum()
    assert effective_rank(rows) == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.ones((1, 3)), np.full((5, 3), 0.1)])
def test_rows_at_one_point_take_no_room(rows: np.ndarray) -> None:
    assert spread(rows) == pytest.approx(0, abs=1e-15)
    assert effective_rank(rows) == 0


def test_the_spread_is_the_distance_from_the_mean() -> None:
    rows = cloud(30, 4)
    assert spread(rows) == pytest.approx(np.sqrt(np.mean([np.sum((row - rows.mean(axis=0)) ** 2) for row in rows])))
    assert spread(2 * rows + 9) == pytest.approx(2 * spread(rows))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_hardest_triplets_are_those_of_the_loop(distance: str) -> None:
    rows, classes = cloud(25, 3), np.arange(25) % 6
    classes[-1] = 99  # alone: no anchor
    expected = []
    for a in range(25):

        def far(i: int, a: int = a) -> float:
            if distance == "euclidean":
                return float(np.linalg.norm(rows[i] - rows[a]))
            return float(1 - rows[i] @ rows[a] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[a]))

        positives = [i for i in range(25) if i != a and classes[i] == classes[a]]
        negatives = [i for i in range(25) if classes[i] != classes[a]]
        if positives:
            p, n = max(positives, key=far), min(negatives, key=far)
            expected.append((far(n) - far(p), a, p, n))
    found = hardest_triplets(rows, classes, 7, distance)  # type: ignore[arg-type]
    assert list(zip(found.anchors, found.positives, found.negatives, strict=True)) == [one[1:] for one in sorted(expected)[:7]]
    np.testing.assert_allclose(found.to_negative - found.to_positive, [one[0] for one in sorted(expected)[:7]], atol=1e-12)


@pytest.mark.parametrize("classes", [[0, 0, 0], [0, 1, 2], []])
def test_without_positives_or_negatives_there_is_no_triplet(classes: list[int]) -> None:
    assert len(hardest_triplets(cloud(len(classes), 2), np.array(classes, np.int64), 5)) == 0
