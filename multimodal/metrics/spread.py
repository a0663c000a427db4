"""How much room the rows of an embedding take: how far they are from their mean, and in how many directions.

spread(rows), effective_rank(rows)       # (n, d) -> 0.71, 23.4
"""

from __future__ import annotations

import numpy as np


def spread(rows: np.ndarray) -> float:
    """The root mean square distance of rows (n, d) from their mean; 0 if all are equal, or there is none."""
    rows = np.asarray(rows, np.float64)
    return float(np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())) if len(rows) else 0.0


def effective_rank(rows: np.ndarray) -> float:
    """exp of the entropy of the singular values of rows (n, d), less their mean, as shares of their sum (Roy and Vetterli, 2007).

    k for k equal singular values, so between 1 and min(n - 1, d); 0 if all rows are equal, or there is none.
    """
    rows = np.asarray(rows, np.float64)
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) if len(rows) else np.zeros(0)
    if not values.any() or values.max() <= np.finfo(np.float64).eps * len(rows) * np.abs(rows).max():
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
