"""Ways to fit the map L (k, d) of a metric M = L'L. Rows are (n, d); closed forms are computed in float64.

    found = scatters_of_pairs(rows, pairs)
    L = kissme(found.same, found.different, ridge=0.1)
    np.linalg.norm((rows[0] - rows[1]) @ L.T)          # the distance

A ridge is added to each covariance, as a share of its mean variance: from few pairs the small eigenvalues of a covariance are far too
small, and their inverses would decide everything.
"""

from __future__ import annotations

import numpy as np


def pca(rows: np.ndarray, dim: int) -> np.ndarray:
    """(dim, d): the directions of the largest variance, orthonormal; the one way that needs to know nothing of the pictures."""
    from scipy.linalg import eigh

    centred = rows - rows.mean(axis=0)
    if len(rows) < rows.shape[1]:
        return np.asarray(np.linalg.svd(centred, full_matrices=False)[2][:dim])
    last = rows.shape[1] - 1  # ascending; of many rows this takes a tenth of the time of their singular values
    return np.asarray(eigh(centred.T @ centred, subset_by_index=[last + 1 - dim, last])[1].T[::-1])


def whitening(within: np.ndarray, ridge: float) -> np.ndarray:
    """(d, d): C^(-1/2), which makes what differs within classes equally large in all directions (Bar-Hillel et al., 2005).

    within: C (d, d), the covariance about the mean of each class; see `multimodal.mahalanobis.scatters`.
    """
    values, vectors = np.linalg.eigh(_with_ridge(within, ridge))
    return (vectors / np.sqrt(values)).T


def kissme(same: np.ndarray, different: np.ndarray, ridge: float) -> np.ndarray:
    """(k, d): M = S^-1 - D^-1 without its negative part (Koestinger et al., 2012).

    same, different: S and D (d, d), the means of (x - y)(x - y)' over pairs. If both kinds of differences are normal, x' M x is the
    logarithm of how much likelier a difference is for a different pair than for a same one, up to a constant.
    """
    return square_root(np.linalg.inv(_with_ridge(same, ridge)) - np.linalg.inv(_with_ridge(different, ridge)))


def square_root(metric: np.ndarray) -> np.ndarray:
    """L (k, d) with L'L the positive part of a symmetric matrix (d, d); k, how many eigenvalues are positive."""
    values, vectors = np.linalg.eigh((metric + metric.T) / 2)
    positive = values > max(values.max(), 0) * len(values) * np.finfo(np.float64).eps
    return (vectors[:, positive] * np.sqrt(values[positive])).T


def lda(within: np.ndarray, between: np.ndarray, dim: int, ridge: float = 1e-9) -> np.ndarray:
    """(dim, d): linear discriminants, the directions with the largest variance between classes for that within them (Fisher, 1936).

    within, between: covariances (d, d). dim: less than the number of classes; beyond it nothing is between them.
    """
    white = whitening(within, ridge)
    _, vectors = np.linalg.eigh(white @ between @ white.T)  # ascending
    return vectors[:, ::-1][:, :dim].T @ white


def nca(rows: np.ndarray, labels: np.ndarray, dim: int, seed: int = 0) -> np.ndarray:
    """(dim, d): neighbourhood components, of scikit-learn (Goldberger et al., 2004). It compares all rows: use it for some thousand."""
    from sklearn.neighbors import NeighborhoodComponentsAnalysis

    return np.asarray(NeighborhoodComponentsAnalysis(n_components=dim, random_state=seed).fit(rows, labels).components_)


def _with_ridge(covariance: np.ndarray, ridge: float) -> np.ndarray:
    return covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
