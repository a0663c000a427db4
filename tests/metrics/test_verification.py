"""Curves of pairs against scikit-learn and against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.metrics.verification import roc

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")

PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({s for _, s in pairs}) == 2
)


@given(PAIRS)
@settings(max_examples=60)
def test_the_curve_is_that_of_scikit_learn_and_its_area_that_of_counting(pairs: list[tuple[int, bool]]) -> None:
    scores, same = np.array([score for score, _ in pairs], float), np.array([kind for _, kind in pairs])
    curve = roc(scores, same)
    false, true, thresholds = sklearn_metrics.roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose([curve.false_accepts, curve.true_accepts, curve.thresholds], [false, true, thresholds])
    higher = [float(a > b) + (a == b) / 2 for a in scores[same] for b in scores[~same]]
    assert curve.area == pytest.approx(np.mean(higher))


@given(PAIRS, st.floats(0, 1))
@settings(max_examples=60)
def test_a_threshold_keeps_its_promise_and_none_of_the_scores_would_accept_more(pairs: list[tuple[int, bool]], most: float) -> None:
    scores, same = np.array([score for score, _ in pairs], float), np.array([kind for _, kind in pairs])
    chosen = roc(scores, same).at_false_accepts(most)
    assert chosen.false_accepts == np.mean(scores[~same] >= chosen.threshold) <= most
    assert chosen.true_accepts == np.mean(scores[same] >= chosen.threshold)
    for other in [*scores.tolist(), np.inf]:
        if np.mean(scores[~same] >= other) <= most:
            assert np.mean(scores[same] >= other) <= chosen.true_accepts


def test_the_equal_error_rate_is_where_both_errors_meet() -> None:
    assert roc(np.array([3.0, 2, 1, 0]), np.array([True, True, False, False])).equal_error_rate == 0
    assert roc(np.array([0.0, 1, 2, 3]), np.array([True, True, False, False])).equal_error_rate == 1
    assert roc(np.array([4.0, 3, 2, 1]), np.array([True, False, True, False])).equal_error_rate == 0.5
    assert roc(np.zeros(4), np.array([True, False, True, False])).equal_error_rate == 0.5  # all scores are equal
    rng = np.random.default_rng(0)
    same = rng.random(4000) < 0.5
    assert roc(rng.normal(size=4000) + 2 * same, same).equal_error_rate == pytest.approx(0.1587, abs=0.02)  # of two normals 2 apart


@pytest.mark.parametrize("same", [np.ones(3, bool), np.zeros(3, bool)])
def test_pairs_of_one_kind_have_no_curve(same: np.ndarray) -> None:
    with pytest.raises(ValueError, match="needs both kinds"):
        roc(np.arange(3.0), same)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="one number"):
        roc(np.array([0.0, np.nan]), np.array([True, False]))
