"""What the protocols share: the file of queries, and lines over several seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.figures import Found, align, lines_of, look_up, read_found, write_figures
from multimodal.metrics import interval, unit


def random_found(direction: str, seed: int, num: int = 60) -> Found:
    generator = np.random.default_rng(seed)
    queries, gallery = unit(generator.normal(size=(num, 6))), unit(generator.normal(size=(30, 6)))
    groups = np.array([f"group {number // 4:02}" for number in range(num)])
    return look_up(direction, queries, gallery, generator.integers(3, size=num), np.arange(30) % 3, np.arange(num), groups)


def test_what_queries_found_does_not_depend_on_the_order_of_rows() -> None:
    generator = np.random.default_rng(0)
    queries, gallery = generator.integers(-2, 3, size=(40, 3)).astype(float), generator.integers(-2, 3, size=(25, 3)).astype(float)  # ties
    query_marks, gallery_marks = generator.integers(4, size=40), np.arange(25) % 4
    groups = np.array([f"group {number % 7}" for number in range(40)])
    found = look_up("a->b", queries, gallery, query_marks, gallery_marks, np.arange(40), groups)
    order, place = generator.permutation(40), generator.permutation(25)
    again = look_up("a->b", queries[order], gallery[place], query_marks[order], gallery_marks[place], np.arange(40)[order], groups[order])
    for name in ("ids", "groups", "first", "precision", "num_relevant"):
        assert getattr(again, name).tolist() == getattr(found, name)[order].tolist(), name


def test_what_queries_found_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    found = [random_found("image->text", 0), random_found("text->image", 1, num=25)]
    write_figures(tmp_path / "figures.v1.json", [{"R@10": 1.5}, {"R@10": 2.5}], found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.v1.json", "figures.v1.queries.parquet"]
    for before, after in zip(found, read_found(tmp_path / "figures.v1.json"), strict=True):
        assert (after.direction, after.num_gallery, len(after)) == (before.direction, before.num_gallery, len(before))
        for name in ("ids", "groups", "first", "precision", "num_relevant"):
            assert getattr(after, name).tolist() == getattr(before, name).tolist(), name


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_figures(tmp_path / f"{name}.json", [{}], [random_found("a->b", 3)])
    assert (tmp_path / "a.queries.parquet").read_bytes() == (tmp_path / "b.queries.parquet").read_bytes()


def test_rows_without_their_queries_are_reported(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("[]")
    with pytest.raises(
        InputError, match=r"old\.queries\.parquet: is missing; it holds the results of each query of .*old\.json\. Run again"
    ):
        read_found(tmp_path / "old.json")


def test_a_line_over_seeds_has_the_interval_of_the_mean_of_each_query_over_its_seeds() -> None:
    found = [random_found("a->b", seed) for seed in range(3)]
    [line] = lines_of([0, 1, 2], found, key=lambda row: "same", score=lambda one: one.precision)
    low, high = interval(np.mean([one.precision for one in found], axis=0), found[0].groups)
    assert line.rows == (0, 1, 2)
    assert line.interval == (round(100 * low, 2), round(100 * high, 2))


def test_seeds_that_held_out_other_queries_share_those_that_are_in_both() -> None:
    every = random_found("a->b", 0)
    halves = [np.arange(60) < 40, np.arange(60) >= 20]
    found = [
        Found("a->b", 30, every.ids[half], every.groups[half], every.first[half], every.precision[half], every.num_relevant[half])
        for half in halves
    ]
    [line] = lines_of([0, 1], found, key=lambda row: "same", score=lambda one: one.precision)
    weights = 1.0 + (halves[0] & halves[1])  # queries 20 to 39 were asked twice
    by_hand = interval(np.repeat(every.precision, weights.astype(int)), np.repeat(every.groups, weights.astype(int)))
    assert line.interval == pytest.approx([100 * by_hand.low, 100 * by_hand.high], abs=0.006)


def test_a_table_is_aligned_and_leaves_out_what_is_empty_throughout() -> None:
    table = align(["recipe", "R@1", "seeds", "chance"], [["a longer name", "1.0", "", "5.0"], ["b", "22.5", "", "5.0"]], num_left=1)
    assert table.splitlines() == ["recipe          R@1  chance", "a longer name   1.0     5.0", "b              22.5     5.0"]


def test_arrays_of_several_lengths_are_no_result() -> None:
    one, two = np.ones(1, np.int64), np.ones(2, np.int64)
    with pytest.raises(ValueError, match="every array needs one entry per query"):
        Found("a->b", 3, one, two, one, one, one)
