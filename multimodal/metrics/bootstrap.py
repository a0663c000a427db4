"""Intervals over queries by the percentile bootstrap (Efron, 1979), over clusters of queries where they are not independent.

interval(first <= 10)                 # Interval(low=0.52, high=0.64)
interval(first <= 10, groups=groups)  # queries of one article, or of one picture, are drawn together
word_intervals(values, words)         # queries made of several words, each of which is in many queries
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_DRAWN = 1 << 22
"""The most random numbers held at once: 32 MB."""


class Interval(NamedTuple):
    """The middle 95 % of the resampled means."""

    low: float
    high: float


def interval(
    values: np.ndarray,
    groups: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    seed: int = 0,
    num_samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The percentile interval of the weighted mean of values (n,), resampling their g groups with replacement.

    groups: (n,) the group of each value, numbers or strings; by default each value is its own group. A resample draws g groups, each with
    all its values, and takes the mean of those values: the cluster bootstrap (Davison and Hinkley, 1997, section 3.8). Five captions of one
    picture then count as the evidence of one picture.
    weights: (n,) the weight of each value, above 0; equal by default.

    To pair s seeds that asked the same n queries, concatenate their s x n values, and repeat the groups s times. Every draw of a query then
    includes its results from all seeds, and the interval is that of the mean over seeds and queries. This also works if each seed held out
    different queries: those that two seeds share are drawn together. If the seeds asked different numbers of queries, weight each value by
    one over its seed's number; the mean is then the mean of the seeds' means.
    ValueError: fewer than 2 groups, which have no spread.
    """
    values = np.asarray(values, dtype=np.float64)
    groups = np.arange(len(values)) if groups is None else groups
    weights = np.ones(len(values)) if weights is None else weights
    if not len(values) == len(groups) == len(weights):
        raise ValueError(f"{len(values)} values, {len(groups)} groups and {len(weights)} weights; expected one group and weight per value")
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, weights=values * weights), np.bincount(place, weights=weights)
    num_groups = len(sums)
    if num_groups < 2:
        raise ValueError(f"{len(values)} values of {num_groups} group; an interval needs at least 2 groups")
    generator = np.random.default_rng(seed)
    means = np.empty(num_samples)
    step = max(1, MAX_DRAWN // num_groups)
    for start in range(0, num_samples, step):
        drawn = generator.integers(num_groups, size=(min(step, num_samples - start), num_groups))
        means[start : start + step] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def word_intervals(
    values: np.ndarray,
    words: np.ndarray,
    weights: np.ndarray | None = None,
    seed: int = 0,
    num_samples: int = 1000,
    level: float = 0.95,
) -> list[Interval]:
    """The percentile intervals of the weighted means of the f columns of values (n, f), resampling the words that the queries are made of.

    words: (n, w) int from 0, the words of each query; -1 where a query has fewer than w. weights: (n,) above 0; equal by default.
    A resample draws as many words as there are, with replacement, and a query counts as often as the product of the counts of its words:
    the pigeonhole bootstrap (Owen, 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1). Queries that share a word are not
    independent, and drawing them one by one would give intervals that are too narrow.

    To pair s seeds, concatenate their values and repeat their words, as in `interval`. Resamples that leave no query are not counted.
    A column of NaN has an interval of NaN. ValueError: fewer than 2 words.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(values) == len(words) == len(weights):
        raise ValueError(f"{len(values)} values, {len(words)} rows of words and {len(weights)} weights; expected one of each per query")
    every, place = np.unique(words, return_inverse=True)
    place = place.reshape(words.shape)
    is_none = every[0] < 0 if len(every) else False
    num_words = len(every) - is_none
    if num_words < 2:
        raise ValueError(f"{len(values)} queries of {num_words} word; an interval needs at least 2 words")
    place = place - is_none  # -1: no word
    generator = np.random.default_rng(seed)
    sums, totals = [], []
    step = max(1, MAX_DRAWN // (len(values) * words.shape[1] + num_words))
    for start in range(0, num_samples, step):
        counts = generator.multinomial(num_words, np.full(num_words, 1 / num_words), size=min(step, num_samples - start))
        counts = np.column_stack([counts, np.ones(len(counts), np.int64)]).astype(np.float64)  # the last column: no word
        times = counts[:, place].prod(axis=2) * weights
        sums.append(times @ values)
        totals.append(times.sum(axis=1))
    total = np.concatenate(totals)
    means = np.concatenate(sums)[total > 0] / total[total > 0, None]
    bounds = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Interval(float(low), float(high)) for low, high in bounds.T]
