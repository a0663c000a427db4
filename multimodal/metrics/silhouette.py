"""How compact the classes of an embedding are, and how far apart.

silhouette(rows, classes)                    # from -1 to 1; 0: classes overlap
"""

from __future__ import annotations

import numpy as np

from multimodal.metrics.distances import Distance, distances

AT_ONCE = 2**22
"""Distances in memory at a time."""


def silhouette(rows: np.ndarray, classes: np.ndarray, distance: Distance = "euclidean") -> float:
    """rows (n, d) float; classes (n,) int. The mean over rows of (b - a) / max(a, b) (Rousseeuw, 1987), where a is the mean distance to the
    others of the row's class, and b that to the nearest other class. A row that is alone in its class counts 0.

    NaN with fewer than two classes.
    """
    _, classes, counts = np.unique(classes, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return float("nan")
    members = np.eye(len(counts))[classes]  # (n, c)
    of_row = np.zeros(len(rows))
    size = max(1, AT_ONCE // len(rows))
    for start in range(0, len(rows), size):
        block = np.arange(start, min(start + size, len(rows)))
        far = distances(rows[block], rows, distance)
        far[np.arange(len(block)), block] = 0.0
        sums = far @ members
        own = classes[block]
        at = np.arange(len(block)), own
        within = sums[at] / np.maximum(1, counts[own] - 1)
        means = sums / counts
        means[at] = np.inf
        other = means.min(axis=1)
        larger = np.maximum(within, other)
        of_row[block] = np.where((counts[own] > 1) & (larger > 0), (other - within) / np.where(larger > 0, larger, 1.0), 0.0)
    return float(of_row.mean())
