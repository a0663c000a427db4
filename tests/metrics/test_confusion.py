"""Confusion between classes against a slow loop, and what it says of rankings that can be read off by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.metrics import confusion, shares_among_first


def test_shares_are_those_of_a_slow_loop_where_nothing_ties() -> None:
    generator = np.random.default_rng(0)
    scores, classes = generator.random((30, 25)), generator.integers(4, size=25)
    shares = shares_among_first(scores, classes, num_classes=4, k=7)
    for row, line in zip(shares, scores, strict=True):
        first = classes[np.argsort(-line)[:7]].tolist()
        assert row.tolist() == pytest.approx([first.count(one) / 7 for one in range(4)])


def test_ties_for_the_last_places_are_shared() -> None:
    scores = np.array([[3.0, 1.0, 1.0, 1.0, 0.0]])
    assert shares_among_first(scores, np.array([0, 1, 1, 2, 3]), num_classes=4, k=2).tolist() == [pytest.approx([1 / 2, 1 / 3, 1 / 6, 0])]


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 15))
@settings(max_examples=50, deadline=None)
def test_shares_sum_to_one_and_know_no_order_of_the_gallery(seed: int, num_gallery: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    scores, classes = generator.integers(4, size=(5, num_gallery)).astype(float), generator.integers(3, size=num_gallery)
    shares, order = shares_among_first(scores, classes, 3, k), generator.permutation(num_gallery)
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.allclose(shares, shares_among_first(scores[:, order], classes[order], 3, k))


def test_a_confusion_is_the_mean_over_the_queries_of_a_class() -> None:
    shares = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    found = confusion(shares, np.array([0, 0, 2]))
    assert found[[0, 2]].tolist() == [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    assert np.isnan(found[1]).all()  # nobody asked for it
