"""Covariances of what is the same and of what is different, of rows (n, d): all that the closed forms in `maps` need. (d, d) float64 each.

Of labels they are exact over all pairs, which need not be listed: the sum of (x - y)(x - y)' over all pairs of n rows is n times the sum of
(x - m)(x - m)', m their mean.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from multimodal.mahalanobis.pairs import Pairs, chunklets


class Scatters(NamedTuple):
    """within: the mean of (x - m)(x - m)' about the mean m of each class. same, different: of (x - y)(x - y)' over pairs of each kind.
    between: of (m - c)(m - c)' over rows, c the mean of all; of pairs, what different ones have beyond `within`.
    """

    within: np.ndarray
    same: np.ndarray
    different: np.ndarray
    between: np.ndarray

    def of_first(self, num: int) -> Scatters:
        """Of the first num dimensions."""
        return Scatters(*(one[:num, :num] for one in self))


def scatters_of_pairs(rows: np.ndarray, pairs: Pairs) -> Scatters:
    """Classes are the groups that same pairs connect. ValueError if there are no pairs of a kind."""
    if pairs.same.all() or not pairs.same.any():
        raise ValueError("needs same pairs and different ones")
    differences = rows[pairs.first] - rows[pairs.second]
    same, different = (some.T @ some / len(some) for some in (differences[pairs.same], differences[~pairs.same]))
    groups = chunklets(len(rows), pairs)
    within = _sums(rows[groups >= 0], groups[groups >= 0])[0] / (groups >= 0).sum()
    return Scatters(within, same, different, different / 2 - within)


def scatters_of_labels(rows: np.ndarray, labels: np.ndarray) -> Scatters:
    """Rows whose label is below 0 are left out. ValueError if there are not two classes, or none has two rows."""
    rows, labels = rows[labels >= 0], labels[labels >= 0]
    sizes = np.unique(labels, return_counts=True)[1]
    num_same, num_all = float((sizes * (sizes - 1) // 2).sum()), len(rows) * (len(rows) - 1) / 2
    if not num_same or num_same == num_all:
        raise ValueError("needs two classes, and one that has two rows")
    within, of_pairs = _sums(rows, labels)
    centred = rows - rows.mean(axis=0)
    total = centred.T @ centred
    different = (len(rows) * total - of_pairs) / (num_all - num_same)
    return Scatters(within / len(rows), of_pairs / num_same, different, (total - within) / len(rows))


def _sums(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of (x - m)(x - m)' about the means of classes, and of (x - y)(x - y)' over all pairs within classes."""
    _, groups, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(sizes), rows.shape[1]))
    np.add.at(means, groups, rows)
    deviations = rows - (means / sizes[:, None])[groups]
    return deviations.T @ deviations, (deviations * sizes[groups][:, None]).T @ deviations
