"""Intervals against slow loops, and the properties that keep them honest."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from multimodal.metrics import Interval, interval, word_intervals


def interval_by_loop(values: np.ndarray, groups: list[int], num_samples: int = 200) -> tuple[float, float]:
    """The same draws, one at a time, every value of a drawn group written out."""
    generator, members = (
        np.random.default_rng(0),
        [[value for value, of in zip(values, groups, strict=True) if of == group] for group in sorted(set(groups))],
    )
    means = []
    for _ in range(num_samples):
        drawn = [members[place] for place in generator.integers(len(members), size=len(members))]
        means.append(np.mean([value for of_one in drawn for value in of_one]))
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@pytest.mark.parametrize("sizes", [[1] * 12, [5] * 8, [1, 7, 2, 4, 4, 1]])
def test_an_interval_over_groups_is_that_of_a_slow_loop(sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(1).permutation(len(groups))  # members of a group need not lie side by side
    values, groups = np.random.default_rng(2).random(len(groups))[order], groups[order]
    found = interval(values, groups, num_samples=200)
    assert found == pytest.approx(interval_by_loop(values, groups.tolist()))
    assert interval(values, np.array([f"group {group:02}" for group in groups]), num_samples=200) == pytest.approx(found)


def test_without_groups_each_value_is_its_own() -> None:
    values = np.random.default_rng(0).random(40)
    assert interval(values) == pytest.approx(interval(values, np.arange(40)))
    assert interval(values, num_samples=200) == pytest.approx(interval_by_loop(values, list(range(40))))


def test_an_interval_covers_the_mean_and_narrows_with_more_values() -> None:
    generator = np.random.default_rng(3)
    few, many = generator.random(50), generator.random(5000)
    assert interval(few).low <= few.mean() <= interval(few).high
    assert np.ptp(interval(many)) < np.ptp(interval(few))


def test_five_equal_values_of_a_group_are_no_more_evidence_than_one() -> None:
    values = np.random.default_rng(4).random(60)
    five, groups = np.repeat(values, 5), np.repeat(np.arange(60), 5)
    assert interval(five, groups) == pytest.approx(interval(values))
    assert np.ptp(interval(five)) < 0.6 * np.ptp(interval(five, groups))


def test_seeds_end_to_end_give_the_interval_of_the_mean_over_seeds_of_each_query() -> None:
    generator = np.random.default_rng(5)
    values = generator.random(80) + 0.2 * generator.random((3, 80))  # (seeds, n): queries are hard or easy for all of them
    queries = np.arange(80)
    paired = interval(values.ravel(), np.tile(queries, 3))
    assert paired == pytest.approx(interval(values.mean(axis=0)))
    assert np.ptp(interval(values.ravel())) < 0.7 * np.ptp(paired)  # as if each seed had asked other queries: too narrow


def test_weights_make_every_seed_count_alike_whatever_it_was_asked() -> None:
    generator = np.random.default_rng(7)
    hard, easy = generator.random(200) * 0.2, 1 - generator.random(50) * 0.2
    values, weights = np.concatenate([hard, easy]), np.repeat([1 / 200, 1 / 50], [200, 50])
    low, high = interval(values, weights=weights)
    assert low < (hard.mean() + easy.mean()) / 2 < high
    assert interval(values).high < low  # where they do not, the seed with more queries decides
    assert interval(values, weights=np.full(250, 3.0)) == pytest.approx(interval(values))


def test_the_interval_of_a_share_covers_the_truth_as_often_as_it_says() -> None:
    generator, held = np.random.default_rng(6), 0
    for _ in range(300):
        hard = generator.random(40) < 0.5  # the five captions of a picture all hit, or all miss
        low, high = interval(np.repeat(hard, 5), np.repeat(np.arange(40), 5), num_samples=200)
        held += low <= 0.5 <= high
    assert 0.89 < held / 300 < 0.99


def test_values_without_an_estimable_spread_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values of 1 group; an interval needs at least 2 groups"):
        interval(np.array([0.0, 1.0, 1.0]), np.array(["a", "a", "a"]))
    with pytest.raises(ValueError, match="3 values, 2 groups and 3 weights"):
        interval(np.ones(3), np.arange(2))


def word_intervals_by_loop(values: np.ndarray, words: list[tuple[int, ...]], weights: np.ndarray, num_samples: int) -> Interval:
    """The same draws of words, with every query counted as often as each combination of its drawn words."""
    every = sorted({word for of_one in words for word in of_one})
    generator, means = np.random.default_rng(0), []
    for counts in generator.multinomial(len(every), [1 / len(every)] * len(every), size=num_samples):
        times = dict(zip(every, counts.tolist(), strict=True))
        drawn, total = 0.0, 0.0
        for value, of_one, weight in zip(values, words, weights, strict=True):
            for _ in product(*(range(times[word]) for word in of_one)):
                drawn, total = drawn + weight * value, total + weight
        if total:
            means.append(drawn / total)
    return Interval(float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975)))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_an_interval_over_words_is_that_of_a_slow_loop(width: int) -> None:
    random = np.random.default_rng(width)
    words = [tuple(random.choice(6, size=width, replace=False).tolist()) for _ in range(20)]
    values, weights = random.random((20, 2)), random.random(20) + 0.5
    found = word_intervals(values, np.array(words), weights, num_samples=100)
    for column in range(2):
        assert found[column] == pytest.approx(word_intervals_by_loop(values[:, column], words, weights, 100))
    padded = np.column_stack([np.array(words), np.full(20, -1)])
    assert np.array(word_intervals(values, padded, weights, num_samples=100)) == pytest.approx(np.array(found))


def test_queries_that_share_words_say_less_than_queries_of_their_own_words() -> None:
    """A word that is easy makes all its queries easy."""
    random = np.random.default_rng(0)
    ease = random.standard_normal(12)
    words = np.array([(a, b) for a in range(12) for b in range(a)])
    values = ease[words].sum(axis=1)
    [(low, high)] = word_intervals(values[:, None], words)
    alone = interval(values)
    assert high - low > 2 * (alone.high - alone.low)


def test_seeds_of_the_same_queries_are_paired() -> None:
    random = np.random.default_rng(1)
    words, values = np.array([(a, b) for a in range(8) for b in range(a)]), random.random((28, 1))
    once = word_intervals(values, words)
    both = word_intervals(np.concatenate([values, values]), np.concatenate([words, words]))
    assert np.array(both) == pytest.approx(np.array(once))


def test_a_column_without_a_meaning_has_no_interval_and_one_word_is_refused() -> None:
    words = np.array([(0, 1), (1, 2), (0, 2)])
    found = word_intervals(np.array([[1.0, np.nan]] * 3), words)
    assert found[0] == (1, 1) and np.isnan(found[1]).all()
    with pytest.raises(ValueError, match="at least 2 words"):
        word_intervals(np.ones((2, 1)), np.zeros((2, 1), np.int64))
