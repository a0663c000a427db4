"""Intervals over queries by the percentile bootstrap (Efron, 1979), over clusters of queries where they are not independent.

interval(first <= 10)                 # Interval(low=0.52, high=0.64)
interval(first <= 10, groups=groups)  # queries of one article, or of one picture, are drawn together
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_DRAWN = 1 << 22
"""Drawn numbers held at once: 32 MB."""


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
    """The percentile interval of the weighted mean of values (n,), resampling with replacement the g groups that they are of.

    groups: (n,) what each value belongs to, numbers or strings; by default each value is a group of its own. A resample draws g groups,
    each with all its values, and takes the mean of the drawn values: the cluster bootstrap (Davison and Hinkley, 1997, section 3.8). Five
    captions of one picture are then as much evidence as one picture is.
    weights: (n,) how much each value counts, above 0; alike by default.

    Several seeds that asked the same n queries are paired by giving their s x n values end to end, and the groups s times: every draw then
    holds a query with what all the seeds made of it, and the interval is that of the mean over seeds and queries. The same holds where
    each seed held out other queries; those that two seeds share are drawn together. Where seeds asked different numbers of queries, a
    weight of one over its seed's number makes the mean that of the seeds' means.
    ValueError: fewer than 2 groups, of which no spread can be told.
    """
    values = np.asarray(values, dtype=np.float64)
    groups = np.arange(len(values)) if groups is None else groups
    weights = np.ones(len(values)) if weights is None else weights
    if not len(values) == len(groups) == len(weights):
        raise ValueError(f"{len(values)} values, {len(groups)} groups and {len(weights)} weights; wanted one of each for each value")
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
