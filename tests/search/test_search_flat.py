"""FAISS flat is exact and deterministic."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.search.conformance import brute_force
from multimodal.search.flat import FlatEngine


def test_equal_scores_come_in_the_order_of_ids_even_when_all_rows_are_equal():
    engine = FlatEngine(4)
    ids = np.random.default_rng(0).permutation(500)
    engine.add(ids, np.tile(np.float32([0.5, 0.5, 0.5, 0.5]), (500, 1)))
    found = engine.search(np.eye(4, dtype=np.float32), k=7)
    assert found.ids.tolist() == [list(range(7))] * 4


def test_rows_and_queries_of_any_length_are_ranked_exactly():
    random = np.random.default_rng(1)
    rows = (random.standard_normal((200, 16)) * 1000).astype(np.float32)
    queries = (random.standard_normal((5, 16)) * 0.01).astype(np.float32)
    engine = FlatEngine(16)
    engine.add(np.arange(200), rows)
    wanted = brute_force(np.arange(200), rows, queries, 20)
    found = engine.search(queries, 20)
    assert (found.ids == wanted.ids).all() and (found.scores == wanted.scores).all()


def test_a_filter_of_a_filter_lets_only_the_common_ids_through():
    engine = FlatEngine(2)
    engine.add(np.arange(10), np.ones((10, 2), np.float32))
    view = engine.filter(np.array([1, 2, 3, 4])).filter(np.array([3, 4, 5]))
    assert len(view) == 2
    assert view.search(np.ones((1, 2), np.float32), 9).ids.tolist() == [[3, 4]]


def test_adding_to_a_filtered_view_is_refused():
    with pytest.raises(ValueError, match="view"):
        FlatEngine(2).filter(np.array([1])).add(np.array([1]), np.ones((1, 2), np.float32))


def test_rows_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"wanted \(2, 3\)"):
        FlatEngine(3).add(np.arange(2), np.ones((2, 4), np.float32))
