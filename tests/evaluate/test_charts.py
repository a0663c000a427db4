from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from multimodal.evaluate.charts import learning_chart, part_of_all, ranks_chart, training_chart
from multimodal.evaluate.report import Curve, LearningCurve
from multimodal.pages import shorten
from multimodal.pages.svg import spaced


def assert_inside(chart: str, num_points: int) -> None:
    """Every point of every line, band and dot is inside the box of the chart."""
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', chart).groups())  # type: ignore[union-attr]
    points = [point for line in re.findall(r'points="([^"]*)"', chart) for point in line.split()]
    points += [f"{x},{y}" for x, y in re.findall(r'[xc][12x]?="([^"]*)" [yc][12y]?="([^"]*)"', chart)]
    assert len(points) >= num_points
    for x, y in (map(float, point.split(",")) for point in points):
        assert 0 <= x <= width and 0 <= y <= height


@pytest.mark.parametrize("chance", [None, 0.5, -3.0])
@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [1e-9, 1e9]])
def test_a_training_curve_stays_inside_its_chart(values: list[float], chance: float | None) -> None:
    chart = training_chart(Curve("topic", "train/loss", list(range(len(values))), values, chance))
    assert_inside(chart, len(values))
    assert ("dashed" in chart) == (chance is not None)


@pytest.mark.parametrize(
    ("num_pairs", "values"), [([7], [0.0]), ([1, 6000], [0.0, 100.0]), ([750, 1500, 3000, 6000], [1e-3] * 4), ([10, 11], [-5.0, 40.0])]
)
@pytest.mark.parametrize("num_curves", [1, 8])
def test_learning_curves_stay_inside_their_chart(num_pairs: list[int], values: list[float], num_curves: int) -> None:
    low, high = [value - 2 for value in values], [value + 2 for value in values]
    curves = [LearningCurve(f"recipe {number} of many words", num_pairs, values, low, high, 1.0) for number in range(num_curves)]
    chart = learning_chart(curves)
    assert_inside(chart, 2 * num_curves * len(values))
    assert all(f"recipe {number}" in chart for number in range(num_curves))


def test_shares_up_to_a_rank_stay_inside_and_their_labels_do_not_touch() -> None:
    curves = [Curve(name, "CMC", range(1, 51), np.linspace(20, end, 50).tolist()) for name, end in (("cosine", 80.0), ("head", 80.5))]
    drawn = ranks_chart(curves)
    assert_inside(drawn, 100)
    places = [float(re.search(rf'<text[^>]* y="([^"]*)"[^>]*>{name}', drawn)[1]) for name in ("cosine 80.0", "head 80.5")]  # type: ignore[index]
    assert abs(places[0] - places[1]) >= 15


def test_equal_ratios_of_pairs_are_equally_far_apart() -> None:
    chart = learning_chart([LearningCurve("topic", [1, 2, 4, 16], [1.0, 2.0, 3.0, 4.0], [1.0] * 4, [4.0] * 4, 0.5)])
    x = [float(at) for at in re.findall(r'<circle cx="([^"]*)"', chart)]
    assert np.diff(x) / (x[1] - x[0]) == pytest.approx([1, 1, 2], abs=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_labels_keep_their_order_and_distance_and_move_no_more_than_they_must(seed: int) -> None:
    random = np.random.default_rng(seed)
    places = random.uniform(0, 100, size=random.integers(0, 8)).tolist()
    moved = spaced(places, 10, 0, 100)
    order = np.argsort(places, kind="stable")
    assert all(after - before >= 10 - 1e-9 for before, after in pairwise(np.array(moved)[order].tolist()))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in moved)
    cost = sum((a - b) ** 2 for a, b in zip(places, moved, strict=True))
    for _ in range(200):  # no other places that are allowed are nearer
        others = np.sort(random.uniform(0, 100, size=len(places)))
        if all(np.diff(others) >= 10):
            assert sum((a - b) ** 2 for a, b in zip(np.sort(places), others, strict=True)) >= cost - 1e-9
    if all(np.diff(np.sort(places)) >= 10):
        assert moved == pytest.approx(places)


def test_labels_for_which_there_is_no_room_still_do_not_touch() -> None:
    assert spaced([5, 5, 5, 5], 10, 0, 20) == [0, 10, 20, 30]


def test_a_part_is_said_as_a_person_would() -> None:
    assert part_of_all(1, 1) == "all" and part_of_all(1, 2) == "1/2" and part_of_all(3, 10) == "30 %" and part_of_all(1, 10_000) == "0.01 %"
    assert [part_of_all(num, 6000) for num in (375, 750, 2999, 6000, 2000, 60, 4700)] == ["1/16", "1/8", "1/2", "all", "1/3", "1 %", "78 %"]


def test_a_text_is_cut_at_a_blank_where_there_is_one() -> None:
    assert shorten("two dogs, running", 40) == "two dogs, running"
    assert shorten("two dogs, running", 12) == "two dogs…"
    assert shorten("a" * 50, 10) == "a" * 9 + "…"
    assert all(len(shorten(f"{'ab ' * n}{'c' * n}", 20)) <= 20 for n in range(40))
