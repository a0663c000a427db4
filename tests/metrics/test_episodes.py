"""Few-shot tasks and ways to classify against loops over one query at a time; the distance between drawings against its definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.metrics.episodes import (
    Episodes,
    Scores,
    accuracies,
    draw_episodes,
    nearest_shot,
    nearest_shot_euclidean,
    prototypes,
    prototypes_euclidean,
)
from multimodal.metrics.hausdorff import centred_ink, modified_hausdorff


def length(row: np.ndarray) -> float:
    return float(np.sqrt(np.sum(row**2)))


def cosine(row: np.ndarray, other: np.ndarray) -> float:
    return float(row @ other) / (length(row) * length(other))


LOOPS: dict[Scores, Callable[[np.ndarray, np.ndarray], float]] = {
    prototypes: lambda query, shots: cosine(query, np.mean([shot / length(shot) for shot in shots], axis=0)),
    prototypes_euclidean: lambda query, shots: -length(query - shots.mean(axis=0)),
    nearest_shot: lambda query, shots: max(cosine(query, shot) for shot in shots),
    nearest_shot_euclidean: lambda query, shots: -min(length(query - shot) for shot in shots),
}
"""A way to classify -> the score of one class for one query, from its definition."""


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=40)
def test_ways_to_classify_equal_a_loop_and_a_tie_is_wrong(seed: int, shots: int, num_queries: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(6), shots + num_queries))
    rows = 3 + rng.normal(size=(len(labels), 4))
    tasks = draw_episodes(labels, 3, shots, num_queries, 4, seed)
    for way, score_of in LOOPS.items():
        for task, found in enumerate(accuracies(rows, tasks, way)):
            of_class = [rows[places] for places in tasks.shots[task]]
            wanted = [
                int(np.argmax([score_of(rows[query], known) for known in of_class]) == place)
                for place, queries in enumerate(tasks.queries[task])
                for query in queries
            ]
            assert found == pytest.approx(np.mean(wanted))
        assert not accuracies(np.ones_like(rows), tasks, way).any()  # all classes are equally near


def test_episodes_never_ask_what_they_show_and_nest() -> None:
    labels = np.repeat(np.arange(-1, 9), [50, 40, 40, 9, 40, 40, 40, 40, 40, 12])  # -1: of no class; classes 2 and 8 are too small
    tasks = draw_episodes(labels, 5, 10, 15, 200, seed=1)
    assert tasks.shots.shape == (200, 5, 10) and tasks.queries.shape == (200, 5, 15)
    for classes, shots, queries in zip(tasks.classes, tasks.shots, tasks.queries, strict=True):
        both = np.concatenate([shots, queries], axis=1)
        assert len(set(classes.tolist())) == 5 and len(set(both.reshape(-1).tolist())) == 125
        assert (labels[both] == classes[:, None]).all()
    assert set(tasks.classes.reshape(-1).tolist()) == {0, 1, 3, 4, 5, 6, 7}
    fewer = tasks.with_shots(3)
    assert (fewer.shots == tasks.shots[:, :, :3]).all() and fewer.queries is tasks.queries
    again = draw_episodes(labels, 5, 10, 15, 200, seed=1)
    assert (again.shots == tasks.shots).all() and (draw_episodes(labels, 5, 10, 15, 200, seed=2).shots != tasks.shots).any()
    with pytest.raises(ValueError, match="7 of 9 classes have 10 \\+ 15 pictures; 8 are wanted"):
        draw_episodes(labels, 8, 10, 15, 1)


def test_rows_without_a_meaning_score_at_chance() -> None:
    rng = np.random.default_rng(0)
    tasks = draw_episodes(np.repeat(np.arange(10), 40), 5, 5, 15, 300)
    assert accuracies(rng.normal(size=(400, 8)), tasks, prototypes).mean() == pytest.approx(0.2, abs=0.03)
    assert isinstance(tasks, Episodes) and len(tasks) == 300


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=30)
def test_the_modified_hausdorff_distance_is_its_definition(seed: int, num: int, other: int) -> None:
    rng = np.random.default_rng(seed)
    places, others = rng.integers(-20, 20, (num, 2)).astype(float), rng.integers(-20, 20, (other, 2)).astype(float)
    one_way = np.mean([min(length(a - b) for b in others) for a in places])
    other_way = np.mean([min(length(a - b) for a in places) for b in others])
    assert modified_hausdorff(places, others) == pytest.approx(max(one_way, other_way), abs=2e-3)


def test_ink_is_dark_and_centred_and_an_empty_drawing_is_far_from_everything() -> None:
    drawing = np.full((5, 5), 255, np.uint8)
    drawing[1, 1:4] = 0
    assert centred_ink(drawing).tolist() == [[0, -1], [0, 0], [0, 1]]
    assert modified_hausdorff(centred_ink(np.full((5, 5), 255, np.uint8)), centred_ink(drawing)) == np.inf
