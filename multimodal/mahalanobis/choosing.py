"""The metric that is best on what it was not fitted on, or the one as it was, if none is clearly better.

    found = choose(Known(rows, pairs=pairs))                     # new classes will be compared; new="pictures": new pictures of these
    (rows - found.centre) @ found.map.T                          # compared by cosine

Every method, in several numbers of principal components and with several ridges, is fitted on some of what is known and judged on the rest,
in turns (cross-validation). What is chosen in this way is compared with the cosine of the vectors as they are: its gain must be clear with
95 % confidence, else it is not used. So a fit does not make a search worse in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

import numpy as np

from multimodal.errors import InputError, near_names
from multimodal.mahalanobis import maps, trained
from multimodal.mahalanobis.judging import Judge, New, Vectors, cosines, judge_of
from multimodal.mahalanobis.known import Known
from multimodal.mahalanobis.pairs import Pairs, triplets_of_pairs
from multimodal.metrics.verification import roc

Method = Literal["pca", "rca", "kissme", "lda", "nca", "triplets"]
METHODS: tuple[Method, ...] = get_args(Method)
FAST: tuple[Method, ...] = ("pca", "rca", "kissme")
"""The closed forms, which are tried if nobody says what to try; of labels also lda."""
NEEDS_LABELS: tuple[Method, ...] = ("lda", "nca")
COMPONENTS = (32, 64, 128, 256, 512)
RIDGES = (0.01, 0.1, 1.0, 10.0)
GRIDS: Mapping[Method, tuple[Sequence[int], Sequence[float]]] = {
    "pca": (COMPONENTS, (0.0,)),
    "rca": (COMPONENTS, RIDGES),
    "kissme": (COMPONENTS, RIDGES),
    "lda": (COMPONENTS, RIDGES),
    "nca": ((32, 64), (0.1, 1.0)),
    "triplets": ((128,), (0.1, 1.0)),
}
"""Method -> numbers of components and ridges to try; few where a fit is slow."""
GENTLE: Mapping[Method, tuple[Sequence[int], Sequence[float]]] = {
    "pca": ((512,), (0.0,)),
    "rca": ((512,), (10.0, 100.0)),
    "kissme": ((512,), (10.0, 100.0)),
    "triplets": ((512,), (10.0,)),
}
"""The same for pairs and triplets where new classes will be compared. They name no classes, so none can be held out, and few components or
a small ridge fit the classes of the pairs. By 2,000 pairs of five of CIFAR-10's classes, the mAP of the other five changes by -1.9 (kissme,
32 components, ridge 1), by +1.7 (512, 10) and by +1.6 (512, 100): the means of five divisions of its train pictures.
"""
MOST_ROWS = 2000
"""That nca compares with each other, drawn from more."""
MIN_GAIN = 0.05
"""The least gain, as a share of the figure before or of what it lacks to 1, whichever is less: a smaller one is not worth a new store. It
also guards against chance: of 40 fits to pairs without a meaning, the gain of 3 was positive with 95 % confidence, and that of 1 so large.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """A method, the number of principal components of the rows that it is fitted in, and its ridge (0 if it has none)."""

    method: Method
    components: int
    ridge: float

    def fit(self, known: Known, seed: int = 0) -> np.ndarray:
        """(k, components)"""
        known = known.of_first(self.components)
        match self.method:
            case "pca":
                return np.eye(self.components)
            case "rca":
                return maps.whitening(known.scatters.within, self.ridge)
            case "kissme":
                return maps.kissme(known.scatters.same, known.scatters.different, self.ridge)
            case "lda":
                assert known.labels is not None
                num = len(np.unique(known.labels[known.labels >= 0])) - 1
                return maps.lda(known.scatters.within, known.scatters.between, min(num, self.components), self.ridge)
            case "nca":
                assert known.labels is not None
                some = np.flatnonzero(known.labels >= 0)
                if len(some) > MOST_ROWS:
                    some = np.sort(np.random.default_rng(seed).choice(some, MOST_ROWS, replace=False))
                # It begins at the rows as they are, and finds little if they vary most in what does not matter.
                start = maps.whitening(known.scatters.within, self.ridge)
                return maps.nca(known.rows[some] @ start.T, known.labels[some], self.components, seed) @ start
            case "triplets":
                start = maps.whitening(known.scatters.within, self.ridge)
                if known.labels is not None:
                    return trained.by_labels(known.rows, known.labels, start, seed)
                triplets = known.triplets
                if triplets is None:
                    assert known.pairs is not None
                    triplets = triplets_of_pairs(known.pairs)
                return trained.by_triplets(known.rows, triplets, start, seed) if len(triplets) else start


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which cosine on two pictures count as the same. false_accepts, true_accepts: the shares of held-out different and same pairs
    that do. num_different, num_same: how many pairs these are.
    """

    cosine: float
    false_accepts: float
    true_accepts: float
    num_different: int
    num_same: int

    @classmethod
    def of(cls, scores: np.ndarray, same: np.ndarray, false_accepts: float) -> Threshold:
        """The least one by which at most this share of the different pairs count as the same. scores: (p,) cosines; same: (p,) bool."""
        found = roc(scores, same).at_false_accepts(false_accepts)
        if np.isinf(found.threshold):
            raise InputError(
                f"more than {false_accepts:g} of the held-out different pairs have a cosine of 1, so no threshold separates them"
            )
        num = int(same.sum())
        return cls(found.threshold, found.false_accepts, found.true_accepts, len(same) - num, num)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What was chosen. map: (k, d), and centre (d,), subtracted before; None if the metric stays as it was.

    figure: what was compared, "AUC", "mAP" or "triplets" (the share whose order is right). before, after: the figure of the cosine and of
    the best setting, on what was held out. gain: the 95 % interval of the difference. setting: the best one, whether it was taken or not.
    same: the threshold of the metric that was taken, if one was asked for.
    """

    map: np.ndarray | None
    centre: np.ndarray
    setting: Setting
    figure: str
    before: float
    after: float
    gain: tuple[float, float]
    same: Threshold | None = None

    @property
    def is_better(self) -> bool:
        return self.map is not None

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """rows (n, d) -> (n, k), or the rows as they are."""
        return rows if self.map is None else (rows - self.centre) @ self.map.T

    def __str__(self) -> str:
        compared = f"{self.figure} on held-out pictures: {self.before:.3f} before, {self.after:.3f} by {self.setting.method}"
        gained = f"gain {self.gain[0]:+.3f} to {self.gain[1]:+.3f}"
        return f"{compared} ({gained})" + ("" if self.is_better else "; not clearly better, so the metric stays as it was")


def choose(
    known: Known,
    new: New = "classes",
    centred: bool = True,
    methods: Sequence[str] | None = None,
    false_accepts: float | None = None,
    seed: int = 0,
) -> Chosen:
    """The best of some methods for rows (n, d) of which something is known.

    new: what will be compared, other classes or new pictures of these. centred: whether the mean of the rows is subtracted; not if texts
    are compared with them too. methods: of METHODS; None: FAST, and lda if there are labels. false_accepts: also find a threshold.
    InputError: new is neither, too little is known, a method needs labels, or the share is less than one of the held-out different pairs.
    """
    if new not in get_args(New):
        raise InputError(f"new={new!r}: is one of {', '.join(get_args(New))}")
    exact = np.asarray(known.rows, np.float64)
    at = _Components.of(exact, centred)
    judge = judge_of(replace(known, rows=at.rows), new, seed)
    grids = GENTLE if new == "classes" and known.labels is None else GRIDS
    settings = list(_settings(grids, _checked(known, methods), at.rows.shape[1]))
    pairs = [] if false_accepts is None else _checked_pairs(judge, false_accepts)
    held_out = _HeldOut.of(judge, settings, exact, seed)
    after, before = (judge.figure(scores, np.ones(len(scores), bool)) for scores in (held_out.after, held_out.before))
    gain = judge.gain(held_out.after, held_out.before)
    is_better = gain[0] > MIN_GAIN * min(before, 1 - before)
    threshold = None
    if false_accepts is not None:
        by = held_out.chosen if is_better else [None] * len(pairs)
        alike = [cosines(_vectors(judge, one, fold, exact, seed), pairs[fold]) for fold, one in enumerate(by)]
        threshold = Threshold.of(np.concatenate(alike), np.concatenate([some.same for some in pairs]), false_accepts)
    best = held_out.best
    fitted = best.fit(judge.known, seed) @ at.directions[: best.components] if is_better else None
    return Chosen(fitted, at.centre, best, judge.figure_name, before, after, gain, threshold)


def _checked(known: Known, methods: Sequence[str] | None) -> list[Method]:
    if methods is None:
        return [*FAST, "lda"] if known.labels is not None else [*FAST]
    for name in methods:
        if name not in METHODS:
            raise InputError(f"--methods {name}: is none. {near_names(name, METHODS)}")
        if name in NEEDS_LABELS and known.labels is None:
            raise InputError(f"--methods {name}: needs labels; from pairs or triplets, use pca, rca, kissme or triplets")
    if not methods:
        raise InputError(f"--methods: name at least one of {', '.join(METHODS)}")
    return [name for name in METHODS if name in methods]


def _checked_pairs(judge: Judge, false_accepts: float) -> list[Pairs]:
    """The held-out pairs of each fold."""
    pairs = [judge.pairs(fold) for fold in range(judge.num_folds)]
    num = sum(int((~of_fold.same).sum()) for of_fold in pairs)
    if not num:
        raise InputError("--false-accept: triplets say what is more alike, and not what is the same. Give --label or --pairs")
    if not 1 / num <= false_accepts < 1:
        raise InputError(
            f"--false-accept {false_accepts:g}: of {num:,} held-out different pairs, give a share from {1 / num:.2g} to below 1"
        )
    return pairs


def _settings(grids: Mapping[Method, tuple[Sequence[int], Sequence[float]]], methods: Sequence[Method], most: int) -> Iterator[Setting]:
    for method in methods:
        numbers, ridges = grids[method]
        for num, ridge in product(sorted({min(num, most) for num in numbers}), ridges):
            yield Setting(method, num, ridge)


@dataclass(frozen=True, slots=True, eq=False)
class _HeldOut:
    """Scores (m,) of what was held out, by chosen settings and by the vectors as they are. best: the best setting of all.

    chosen: of each fold, the best one on the other folds, whose scores are taken: the best of many figures is good by chance too, and would
    promise a gain where there is none.
    """

    best: Setting
    chosen: list[Setting]
    after: np.ndarray
    before: np.ndarray

    @classmethod
    def of(cls, judge: Judge, settings: Sequence[Setting], exact: np.ndarray, seed: int) -> _HeldOut:
        folds, before = judge.folds, np.empty(len(judge.folds))
        scores = np.empty((len(settings), len(folds)))
        for fold in range(judge.num_folds):
            known = judge.without(fold)
            before[folds == fold] = scores[:, folds == fold] = judge.scores(fold, exact.__getitem__)
            for line, setting in zip(scores, settings, strict=True):
                if known is not None:
                    line[folds == fold] = judge.scores(fold, _mapped(judge.known.rows, setting.fit(known, seed)))
        after, chosen = np.empty(len(folds)), []
        for fold in range(judge.num_folds):
            others = folds != fold
            best = int(np.argmax([judge.figure(line[others], others) for line in scores]))
            after[~others] = scores[best, ~others]
            chosen.append(settings[best])
        whole = np.ones(len(folds), bool)
        best = int(np.argmax([judge.figure(line, whole) for line in scores]))
        return cls(settings[best], chosen, after, before)


def _vectors(judge: Judge, setting: Setting | None, fold: int, exact: np.ndarray, seed: int) -> Vectors:
    """By a setting, fitted without a fold; None, or if nothing is known without it: as they are, (n, d) exact."""
    known = judge.without(fold)
    return exact.__getitem__ if setting is None or known is None else _mapped(judge.known.rows, setting.fit(known, seed))


def _mapped(rows: np.ndarray, fitted: np.ndarray) -> Vectors:
    """rows: in their components; fitted: (k, fewer components)."""
    return lambda places: rows[places, : fitted.shape[1]] @ fitted.T


@dataclass(frozen=True, slots=True, eq=False)
class _Components:
    """Rows (n, c) in their principal components. directions: (c, d). centre: (d,), subtracted before."""

    rows: np.ndarray
    directions: np.ndarray
    centre: np.ndarray

    @classmethod
    def of(cls, exact: np.ndarray, centred: bool) -> _Components:
        centre = exact.mean(axis=0) if centred else np.zeros(exact.shape[1])
        directions = maps.pca(exact, min(max(COMPONENTS), *exact.shape))
        return cls((exact - centre) @ directions.T, directions, centre)
