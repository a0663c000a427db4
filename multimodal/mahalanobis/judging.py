"""How metrics are compared on what they were not fitted on: by held-out pictures of labels, by held-out pairs, or by held-out triplets.

    judge = judge_of(known, new="classes", seed=0)
    for fold in range(judge.num_folds):
        metric = setting.fit(judge.without(fold))
        judge.scores(fold, lambda places: rows[places] @ metric.T)      # of what this fold holds out

If new classes will be compared, whole classes are held out. Pairs and triplets name no classes. So the vectors are divided into regions,
and pairs are judged by maps that have seen no pair in their regions: what is learned must be true elsewhere too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from multimodal.errors import InputError
from multimodal.mahalanobis.known import Known
from multimodal.mahalanobis.pairs import Pairs, Triplets, pairs_of_labels
from multimodal.metrics import interval, unit
from multimodal.metrics.identities import Identities, identity_figures, identity_masks
from multimodal.metrics.verification import roc

New = Literal["classes", "pictures"]
Vectors = Callable[[np.ndarray], np.ndarray]
"""Places (m,) -> their vectors (m, k)."""
NUM_FOLDS, NUM_PAIR_FOLDS, NUM_REGIONS = 5, 10, 5
"""Of classes or pictures; of the pictures of pairs, more, since all pairs with a held-out picture are left out; and of regions."""
MIN_PAIRS = 20
"""Of each kind, and of triplets: with fewer, no figure would tell one metric from another."""
MOST_JUDGED = 1000
"""Pictures of a held-out part that are compared with each other."""
NUM_COMPARED = 40_000
"""Pairs of held-out pictures of known labels that are drawn, to say how alike the same and different ones are."""
NUM_RESAMPLED = 1000


class Judge(ABC):
    """known: rows in their components. folds: (m,) int64, the fold of each score, from 0 to num_folds - 1."""

    figure_name: ClassVar[str]
    known: Known
    folds: np.ndarray
    num_folds: int

    @abstractmethod
    def without(self, fold: int) -> Known | None:
        """What is known without a fold; None if that is too little for a fit, so that what the fold holds out is judged as it is."""

    @abstractmethod
    def scores(self, fold: int, vectors: Vectors) -> np.ndarray:
        """(m of the fold,) what is averaged, or compared, in the figure."""

    @abstractmethod
    def figure(self, scores: np.ndarray, some: np.ndarray) -> float:
        """Of the scores of some (m,) bool of what is judged; larger is better."""

    @abstractmethod
    def gain(self, after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
        """The 95 % interval of the difference of two figures, of scores (m,)."""

    @abstractmethod
    def pairs(self, fold: int) -> Pairs:
        """Pairs of pictures that the fold holds out; none if nobody knows which are the same."""


def judge_of(known: Known, new: New, seed: int) -> Judge:
    """InputError: too little is known."""
    if known.labels is not None:
        return _by_labels(known, known.labels, new, seed)
    if known.pairs is not None:
        for kind, num in (("same", int(known.pairs.same.sum())), ("different", int((~known.pairs.same).sum()))):
            if num < MIN_PAIRS:
                raise InputError(f"{num} {kind} pairs: a metric needs at least {MIN_PAIRS} of each kind, to be fitted and judged")
        ends = np.stack([known.pairs.first, known.pairs.second], axis=1)
        return _PairJudge(known, *_folds_of(known.rows, ends, new, seed), seed)
    assert known.triplets is not None, "one of the three is given"
    if len(known.triplets) < MIN_PAIRS:
        raise InputError(f"{len(known.triplets)} triplets: a metric needs at least {MIN_PAIRS}, to be fitted and judged")
    ends = np.stack([known.triplets.anchor, known.triplets.same, known.triplets.different], axis=1)
    return _TripletJudge(known, *_folds_of(known.rows, ends, new, seed))


@dataclass(frozen=True, eq=False)
class _LabelJudge(Judge):
    """of_row: (n,) the fold of each row, -1 where its label is unknown. held_out: of each fold."""

    figure_name: ClassVar[str] = "mAP"
    known: Known
    folds: np.ndarray
    num_folds: int
    of_row: np.ndarray
    held_out: list[_HeldOut]
    seed: int

    def without(self, fold: int) -> Known | None:
        assert self.known.labels is not None
        return replace(self.known, labels=np.where(self.of_row == fold, -1, self.known.labels))

    def scores(self, fold: int, vectors: Vectors) -> np.ndarray:
        held_out = self.held_out[fold]
        return held_out.precisions(vectors(held_out.chosen))

    def figure(self, scores: np.ndarray, some: np.ndarray) -> float:
        return float(scores.mean())

    def gain(self, after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
        # whole classes are drawn: what is ranked before the pictures of one class is much the same for all of them
        assert self.known.labels is not None
        labels = np.concatenate([self.known.labels[one.chosen[one.with_match]] for one in self.held_out])
        return interval(after - before, labels)

    def pairs(self, fold: int) -> Pairs:
        assert self.known.labels is not None
        chosen = self.held_out[fold].chosen
        drawn = pairs_of_labels(self.known.labels[chosen], NUM_COMPARED // self.num_folds, self.seed)
        return Pairs(chosen[drawn.first], chosen[drawn.second], drawn.same)


@dataclass(frozen=True, eq=False)
class _PairJudge(Judge):
    """near: (m, folds) bool, whether a fold leaves a pair out."""

    figure_name: ClassVar[str] = "AUC"
    known: Known
    folds: np.ndarray
    num_folds: int
    near: np.ndarray
    seed: int

    @property
    def _all(self) -> Pairs:
        assert self.known.pairs is not None
        return self.known.pairs

    def without(self, fold: int) -> Known | None:
        seen = self._all[~self.near[:, fold]]
        return None if seen.same.all() or not seen.same.any() else replace(self.known, pairs=seen)

    def scores(self, fold: int, vectors: Vectors) -> np.ndarray:
        return cosines(vectors, self.pairs(fold))

    def figure(self, scores: np.ndarray, some: np.ndarray) -> float:
        same = self._all.same[some]
        return roc(scores, same).area if same.any() and not same.all() else 0.5

    def gain(self, after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
        return _gain_of_areas(after, before, self._all.same, self.seed)

    def pairs(self, fold: int) -> Pairs:
        return self._all[self.folds == fold]


@dataclass(frozen=True, eq=False)
class _TripletJudge(Judge):
    """near: (t, folds) bool, whether a fold leaves a triplet out."""

    figure_name: ClassVar[str] = "triplets"
    known: Known
    folds: np.ndarray
    num_folds: int
    near: np.ndarray

    @property
    def _all(self) -> Triplets:
        assert self.known.triplets is not None
        return self.known.triplets

    def without(self, fold: int) -> Known | None:
        seen = self._all[~self.near[:, fold]]
        return replace(self.known, triplets=seen) if len(seen) else None

    def scores(self, fold: int, vectors: Vectors) -> np.ndarray:
        """1 where the same one is nearer, one half at a tie."""
        some = self._all[self.folds == fold]
        apart = cosines(vectors, some.pairs)
        return (1 + np.sign(apart[: len(some)] - apart[len(some) :])) / 2

    def figure(self, scores: np.ndarray, some: np.ndarray) -> float:
        return float(scores.mean())

    def gain(self, after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
        return interval(after - before, self._all.anchor)

    def pairs(self, fold: int) -> Pairs:
        nobody = np.empty(0, np.int64)  # what is the nearer of two need not be the same
        return Pairs(nobody, nobody, nobody.astype(bool))


def cosines(vectors: Vectors, pairs: Pairs) -> np.ndarray:
    """(m,)"""
    places, of_pairs = np.unique(np.stack([pairs.first, pairs.second]), return_inverse=True)
    units = unit(vectors(places))
    first, second = of_pairs.reshape(2, -1)
    return (units[first] * units[second]).sum(axis=1)


def _by_labels(known: Known, labels: np.ndarray, new: New, seed: int) -> Judge:
    _, groups, sizes = np.unique(labels[labels >= 0], return_inverse=True, return_counts=True)
    repeated = int((sizes > 1).sum())
    if repeated < (4 if new == "classes" else 2):
        wanted = "4, so that two can be held out" if new == "classes" else "2"
        raise InputError(f"{repeated} classes have two pictures or more; a metric needs {wanted}")
    num_folds = min(NUM_FOLDS, repeated // 2) if new == "classes" else NUM_FOLDS
    of_row = np.full(len(labels), -1)
    of_row[labels >= 0] = _dealt(sizes > 1, num_folds, seed)[groups] if new == "classes" else _dealt(groups, num_folds, seed)
    held_out = [_HeldOut.of(of_row, fold, labels, seed) for fold in range(num_folds)]
    judged = [labels[one.chosen[one.with_match]] for one in held_out if len(one.with_match)]
    if len(judged) < 2 or len(np.unique(np.concatenate(judged))) < 2:
        raise InputError(
            f"--new pictures holds out a fifth of each class at a time, and {sum(map(len, judged))} of {len(labels[labels >= 0])} pictures "
            f"were held out beside another of their class. Give {2 * NUM_FOLDS} pictures or more of each class, or --new classes"
        )
    folds = np.concatenate([np.full(len(one.with_match), fold) for fold, one in enumerate(held_out)])
    return _LabelJudge(known, folds, num_folds, of_row, held_out, seed)


def _folds_of(rows: np.ndarray, ends: np.ndarray, new: New, seed: int) -> tuple[np.ndarray, int, np.ndarray]:
    """The fold of each pair or triplet, given by its pictures (m, 2 or 3); how many folds; and (m, folds) whether one leaves it out.

    New pictures: a fold is a tenth of the pictures, and judges the pairs with a first picture among them. New classes: a fold is a set of
    regions, those of the pictures of some pairs, and judges these pairs. Left out are all pairs with a picture in the fold.
    """
    if new == "pictures":
        of_picture = _dealt(np.zeros(len(rows)), NUM_PAIR_FOLDS, seed)[ends]
        return of_picture[:, 0], NUM_PAIR_FOLDS, (of_picture[:, :, None] == np.arange(NUM_PAIR_FOLDS)).any(axis=1)
    named, places = np.unique(ends, return_inverse=True)
    touched = (_regions(rows[named], seed)[places.reshape(ends.shape)][:, :, None] == np.arange(NUM_REGIONS)).any(axis=1)
    different, folds = np.unique(touched, axis=0, return_inverse=True)
    return folds.reshape(-1), len(different), touched @ different.T


def _regions(rows: np.ndarray, seed: int) -> np.ndarray:
    """(n,) the region of each row, by k-means of their directions."""
    from scipy.cluster.vq import kmeans2

    return np.asarray(kmeans2(unit(rows), NUM_REGIONS, minit="++", rng=seed)[1], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _HeldOut:
    """Held-out pictures that are compared with each other.

    chosen: (j,) their places. with_match: (m,) those that have another of their class. relevant, ranked: (j, j), see `identity_masks`.
    """

    chosen: np.ndarray
    with_match: np.ndarray
    relevant: np.ndarray
    ranked: np.ndarray

    @classmethod
    def of(cls, folds: np.ndarray, fold: int, labels: np.ndarray, seed: int) -> _HeldOut:
        chosen = np.flatnonzero(folds == fold)
        if len(chosen) > MOST_JUDGED:
            chosen = np.sort(np.random.default_rng((seed, fold)).choice(chosen, MOST_JUDGED, replace=False))
        pictures = Identities(labels[chosen])
        relevant, ranked = identity_masks(pictures, pictures, own=np.arange(len(chosen)))
        return cls(chosen, np.flatnonzero(relevant.any(axis=1)), relevant, ranked)

    def precisions(self, rows: np.ndarray) -> np.ndarray:
        """(m,) average precisions. rows: (j, d)."""
        units = unit(rows)
        return identity_figures(units @ units.T, self.relevant, self.ranked).average_precision if len(self.with_match) else np.empty(0)


def _dealt(groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """(n,) the fold of each, so that the members of each group are spread evenly."""
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    folds = np.empty(len(groups), np.int64)
    folds[order] = np.arange(len(groups)) % num_folds
    return folds


def _gain_of_areas(scores: np.ndarray, others: np.ndarray, same: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of the difference of two areas, over pairs drawn anew (bootstrap)."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(same), np.flatnonzero(~same)]
    gains = []
    for _ in range(NUM_RESAMPLED):
        drawn = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        gains.append(roc(scores[drawn], same[drawn]).area - roc(others[drawn], same[drawn]).area)
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)
