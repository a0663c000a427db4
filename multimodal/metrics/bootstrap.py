"""Intervals over queries by the percentile bootstrap (Efron, 1979).

interval(first <= 10, seed=0)    # Interval(low=0.52, high=0.64)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """The middle 95 % of the resampled means."""

    low: float
    high: float


def interval(values: np.ndarray, seed: int = 0, num_samples: int = 1000, level: float = 0.95) -> Interval:
    """The percentile interval of the mean of values (n,), resampling the n values with replacement."""
    values = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = np.array([values[generator.integers(len(values), size=len(values))].mean() for _ in range(num_samples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
