"""Few-shot classification: many small tasks, each of telling a few classes apart by a few pictures of each.

    tasks = draw_episodes(labels, ways=5, shots=20, num_queries=15, num_episodes=1000, seed=0)
    right = accuracies(rows, tasks.with_shots(5), prototypes)        # (1000,), of which `interval` gives the mean's 95 %

Every query is classified by itself: matching the queries of a task one to one to its classes would use the others' answers. Equally near
classes count as wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from multimodal.metrics.retrieval import score_blocks, unit

Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the rows of a task's classes (w, k, d), and its queries (m, d), the score (m, w) of each class; larger is nearer."""


@dataclass(frozen=True, slots=True, eq=False)
class Episodes:
    """e tasks of w classes, with k pictures and q queries of each: places among n pictures.

    classes: (e, w) int, their labels. shots: (e, w, k) int. queries: (e, w, q) int.
    """

    classes: np.ndarray
    shots: np.ndarray
    queries: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def with_shots(self, num: int) -> Episodes:
        """The same tasks and queries with the first pictures of each class."""
        return replace(self, shots=self.shots[:, :, :num])


def draw_episodes(labels: np.ndarray, ways: int, shots: int, num_queries: int, num_episodes: int, seed: int = 0) -> Episodes:
    """Classes and pictures drawn without replacement, anew in each task; labels (n,) int, below 0: left out.

    Classes with fewer than shots + num_queries pictures are not drawn. ValueError: fewer than ways are left.
    """
    different, counts = np.unique(labels[labels >= 0], return_counts=True)
    usable = different[counts >= shots + num_queries]
    if len(usable) < ways:
        raise ValueError(f"{len(usable)} of {len(different)} classes have {shots} + {num_queries} pictures; {ways} are wanted")
    of_class = {label: np.flatnonzero(labels == label) for label in usable.tolist()}
    generator = np.random.default_rng(seed)
    classes = np.stack([generator.choice(usable, ways, replace=False) for _ in range(num_episodes)])
    size = shots + num_queries
    drawn = np.array([[generator.choice(of_class[label], size, replace=False) for label in task] for task in classes.tolist()])
    return Episodes(classes, drawn[:, :, :shots], drawn[:, :, shots:])


def accuracies(rows: np.ndarray, tasks: Episodes, scores: Scores) -> np.ndarray:
    """(e,) the share of each task's queries whose own class alone has the largest score. rows: (n, d)."""
    num_classes, num_queries = tasks.queries.shape[1:]
    own = np.repeat(np.arange(num_classes), num_queries)
    right = np.empty(len(tasks))
    for place, (shots, queries) in enumerate(zip(tasks.shots, tasks.queries, strict=True)):
        right[place] = share_right(scores(rows[shots], rows[queries.reshape(-1)]), own)
    return right


def share_right(scores: np.ndarray, own: np.ndarray) -> float:
    """The share of the queries whose own class (m,) alone has the largest score; scores: (m, w)."""
    return float(np.mean((scores >= np.take_along_axis(scores, own[:, None], axis=1)).sum(axis=1) == 1))


# -- ways to classify ----------------------------------------------------------------------------------------------------------------------


def prototypes(shots: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """By the cosine to each class's mean of unit rows: prototypical networks (Snell et al., 2017) with cosine."""
    means = unit(shots.reshape(-1, shots.shape[-1])).reshape(shots.shape).mean(axis=1, dtype=np.float64)
    return _cosines(queries, means)


def prototypes_euclidean(shots: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """By the distance to each class's mean (prototypical networks; Snell et al., 2017)."""
    return _nearness(queries, shots.mean(axis=1, dtype=np.float64))


def nearest_shot(shots: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """By the cosine to each class's nearest picture."""
    return _cosines(queries, shots.reshape(-1, shots.shape[-1])).reshape(len(queries), *shots.shape[:2]).max(axis=2)


def nearest_shot_euclidean(shots: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """By the distance to each class's nearest picture."""
    return _nearness(queries, shots.reshape(-1, shots.shape[-1])).reshape(len(queries), *shots.shape[:2]).max(axis=2)


def _cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return _products(unit(rows), unit(others))


def _nearness(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(m, n): for each row larger where the Euclidean distance is smaller, and equal where it is equal."""
    # |r - o|^2 = |r|^2 - 2 r.o + |o|^2, of which |r|^2 is the same for all others; around their mean, so that nothing is lost far from 0
    mean = others.mean(axis=0, dtype=np.float64)
    rows, others = rows - mean, others - mean
    squares = np.square(others).sum(axis=1, keepdims=True)
    return _products(np.hstack([rows, np.ones((len(rows), 1))]), np.hstack([2 * others, -squares]))


def _products(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.concatenate([block.scores for block in score_blocks(rows, others)])
