"""The metric that is best on what it was not fitted on, or the one as it was, if none is clearly better.

    found = choose_by_pairs(rows, pairs)               # pairs that are the same or different
    found = choose_by_labels(rows, labels)             # new classes will be compared; new_classes=False: new pictures of these
    (rows - found.centre) @ found.map.T                # compared by cosine

Every way of `WAYS`, in several numbers of principal components and with several ridges, is fitted on some of what is known and judged on
the rest, in turns (cross-validation). What is chosen in this way is compared with the cosine of the vectors as they are: its gain must be
clear with 95 % confidence, else it is not used. So a fit does not make a search worse in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np

from multimodal.errors import InputError
from multimodal.mahalanobis.maps import kissme, pca, whitening
from multimodal.mahalanobis.pairs import Pairs
from multimodal.mahalanobis.scatters import Scatters, scatters_of_labels, scatters_of_pairs
from multimodal.metrics import interval, unit
from multimodal.metrics.identities import Identities, identity_figures, identity_masks
from multimodal.metrics.verification import roc

Way = Literal["kissme", "within-class"]
WAYS: tuple[Way, ...] = ("kissme", "within-class")
COMPONENTS = (32, 64, 128, 256, 512)
RIDGES = (0.01, 0.1, 1.0, 10.0)
NUM_FOLDS, NUM_PAIR_FOLDS = 5, 10
"""Of classes or pictures, and of the pictures of pairs: of these more, since all pairs with a held-out picture are left out."""
MIN_PAIRS = 20
"""Of each kind: with fewer, no figure would tell one metric from another."""
MIN_GAIN = 0.05
"""The least gain, as a share of the figure before: a smaller one is not worth a new store. It also guards against chance: of 40 fits to
pairs without a meaning, the gain of 3 was positive with 95 % confidence, and that of 1 so large."""
NUM_RESAMPLED = 1000
MOST_JUDGED = 3000
"""Pictures of a held-out part that are compared with each other."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A way to fit, the number of principal components of the rows that it is fitted in, and its ridge."""

    way: Way
    components: int
    ridge: float

    def fit(self, known: Scatters) -> np.ndarray:
        """(k, components)"""
        known = known.of_first(self.components)
        if self.way == "within-class":
            return whitening(known.within, self.ridge)
        return kissme(known.same, known.different, self.ridge)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What was chosen. map: (k, d), and centre (d,), subtracted before; None if the metric stays as it was.

    figure: what was compared, "AUC" or "mAP". before, after: the figure of the cosine and of the best setting, on what was held out.
    gain: the 95 % interval of the difference. setting: the best one, whether it was taken or not.
    """

    map: np.ndarray | None
    centre: np.ndarray
    setting: Setting
    figure: str
    before: float
    after: float
    gain: tuple[float, float]
    every: Mapping[Setting, float] = field(repr=False)

    @classmethod
    def of(
        cls, at: _Components, setting: Setting, known: Scatters, figure: str, before: float, after: float, gain: tuple[float, float],
        every: Mapping[Setting, float],
    ) -> Chosen:  # fmt: skip
        fitted = setting.fit(known) @ at.directions[: setting.components] if gain[0] > MIN_GAIN * before else None
        return cls(fitted, at.centre, setting, figure, before, after, gain, every)

    @property
    def is_better(self) -> bool:
        return self.map is not None

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """rows (n, d) -> (n, k), or the rows as they are."""
        return rows if self.map is None else (rows - self.centre) @ self.map.T

    def __str__(self) -> str:
        compared = f"{self.figure} on held-out pictures: {self.before:.3f} before, {self.after:.3f} by {self.setting.way}"
        gained = f"gain {self.gain[0]:+.3f} to {self.gain[1]:+.3f}"
        return f"{compared} ({gained})" + ("" if self.is_better else "; not clearly better, so the metric stays as it was")


def choose_by_pairs(rows: np.ndarray, pairs: Pairs, centred: bool = True, ways: Sequence[Way] = WAYS, seed: int = 0) -> Chosen:
    """From pairs of rows (n, d). centred: whether the mean of the rows is subtracted; not if texts are compared with them too.

    Judged by the area under the ROC curve of held-out pairs. InputError: too few pairs.
    """
    for kind, num in (("same", int(pairs.same.sum())), ("different", int((~pairs.same).sum()))):
        if num < MIN_PAIRS:
            raise InputError(f"{num} {kind} pairs: a metric needs at least {MIN_PAIRS} of each kind, to be fitted and judged")
    at = _Components.of(rows, centred)
    of_picture = _dealt(np.zeros(len(rows)), NUM_PAIR_FOLDS, seed)
    folds = of_picture[pairs.first]  # a pair is judged by a map that has seen no pair of its first picture

    def scores_of(setting: Setting, fold: int, known: Scatters) -> np.ndarray:
        return _cosines(at.mapped(setting, known), pairs[folds == fold])

    def known_without(fold: int) -> Scatters:
        seen = pairs[(of_picture[pairs.first] != fold) & (of_picture[pairs.second] != fold)]
        if seen.same.all() or not seen.same.any():
            raise InputError(f"{len(pairs)} pairs of {len(rows)} pictures: without those of every tenth picture, none of a kind is left")
        return scatters_of_pairs(at.rows, seen)

    def area(scores: np.ndarray, some: np.ndarray) -> float:
        return roc(scores, pairs.same[some]).area

    scores, setting, every = _held_out(ways, at, folds, known_without, scores_of, area)
    before = _cosines(np.asarray(rows, np.float64), pairs)
    areas = roc(before, pairs.same).area, roc(scores, pairs.same).area
    known = scatters_of_pairs(at.rows, pairs)
    return Chosen.of(at, setting, known, "AUC", *areas, _gain_of_areas(scores, before, pairs.same, seed), every)


def choose_by_labels(
    rows: np.ndarray, labels: np.ndarray, new_classes: bool = True, centred: bool = True, ways: Sequence[Way] = WAYS, seed: int = 0
) -> Chosen:
    """From the labels (n,) of rows (n, d); below 0: unknown. new_classes: whether pictures of other classes will be compared.

    Judged by mAP among held-out pictures, which are of held-out classes if new_classes. InputError: too few classes or pictures.
    """
    classes, groups, sizes = np.unique(labels[labels >= 0], return_inverse=True, return_counts=True)
    repeated = int((sizes > 1).sum())
    if repeated < (4 if new_classes else 2):
        wanted = "4, so that two can be held out" if new_classes else "2"
        raise InputError(f"{repeated} classes have two pictures or more; a metric needs {wanted}")
    num_folds = min(NUM_FOLDS, repeated // 2) if new_classes else NUM_FOLDS
    of_picture = _dealt(sizes > 1, num_folds, seed)[groups] if new_classes else _dealt(groups, num_folds, seed)
    folds = np.full(len(labels), -1)
    folds[labels >= 0] = of_picture
    at = _Components.of(rows, centred)
    judged = [_judged(folds, fold, labels, seed) for fold in range(num_folds)]
    places = np.concatenate([np.full(len(one.with_match), fold) for fold, one in enumerate(judged)])

    def scores_of(setting: Setting, fold: int, known: Scatters) -> np.ndarray:
        return judged[fold].precisions(at.mapped(setting, known, judged[fold].chosen))

    def known_without(fold: int) -> Scatters:
        return scatters_of_labels(at.rows, np.where(folds == fold, -1, labels))

    scores, setting, every = _held_out(ways, at, places, known_without, scores_of, lambda scores, _: float(scores.mean()))
    before = np.concatenate([one.precisions(np.asarray(rows, np.float64)[one.chosen]) for one in judged])
    # whole classes are drawn: what is ranked before the pictures of one class is much the same for all of them
    gain = interval(scores - before, np.concatenate([labels[one.chosen[one.with_match]] for one in judged]))
    means = float(before.mean()), float(scores.mean())
    return Chosen.of(at, setting, scatters_of_labels(at.rows, labels), "mAP", *means, (gain.low, gain.high), every)


def _held_out(
    ways: Sequence[Way],
    at: _Components,
    folds: np.ndarray,
    known_without: Callable[[int], Scatters],
    scores_of: Callable[[Setting, int, Scatters], np.ndarray],
    figure: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[np.ndarray, Setting, dict[Setting, float]]:
    """(m,) scores of what each fold holds out, the best setting of all, and the figure of each.

    The setting whose scores of a fold are returned was chosen on the other folds: the best of many figures is good by chance too, and would
    promise a gain where there is none.
    """
    settings = [Setting(way, num, ridge) for num in at.numbers for way, ridge in product(ways, RIDGES)]
    scores = np.empty((len(settings), len(folds)))
    for fold in range(int(folds.max()) + 1):
        known = known_without(fold)
        for line, setting in zip(scores, settings, strict=True):
            line[folds == fold] = scores_of(setting, fold, known)
    chosen = np.empty(len(folds))
    for fold in range(int(folds.max()) + 1):
        others = folds != fold
        best = int(np.argmax([figure(line[others], others) for line in scores]))
        chosen[~others] = scores[best, ~others]
    whole = np.ones(len(folds), bool)
    every = {setting: figure(line, whole) for setting, line in zip(settings, scores, strict=True)}
    return chosen, max(every, key=lambda setting: every[setting]), every


@dataclass(frozen=True, slots=True, eq=False)
class _Components:
    """Rows (n, c) in their principal components. directions: (c, d). centre: (d,), subtracted before. numbers: how many to try."""

    rows: np.ndarray
    directions: np.ndarray
    centre: np.ndarray
    numbers: Sequence[int]

    @classmethod
    def of(cls, rows: np.ndarray, centred: bool) -> _Components:
        exact = np.asarray(rows, np.float64)
        centre = exact.mean(axis=0) if centred else np.zeros(exact.shape[1])
        most = min(max(COMPONENTS), *exact.shape)
        directions = pca(exact, most)
        return cls((exact - centre) @ directions.T, directions, centre, sorted({min(num, most) for num in COMPONENTS}))

    def mapped(self, setting: Setting, known: Scatters, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(m, k): the chosen rows, mapped."""
        return self.rows[chosen, : setting.components] @ setting.fit(known).T


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Held-out pictures that are compared with each other.

    chosen: (j,) their places. with_match: (m,) those that have another of their class. relevant, ranked: (j, j), see `identity_masks`.
    """

    chosen: np.ndarray
    with_match: np.ndarray
    relevant: np.ndarray
    ranked: np.ndarray

    def precisions(self, rows: np.ndarray) -> np.ndarray:
        """(m,) average precisions. rows: (j, d)."""
        units = unit(rows)
        return identity_figures(units @ units.T, self.relevant, self.ranked).average_precision if len(self.with_match) else np.empty(0)


def _judged(folds: np.ndarray, fold: int, labels: np.ndarray, seed: int) -> _Judged:
    chosen = np.flatnonzero(folds == fold)
    if len(chosen) > MOST_JUDGED:
        chosen = np.sort(np.random.default_rng((seed, fold)).choice(chosen, MOST_JUDGED, replace=False))
    pictures = Identities(labels[chosen])
    relevant, ranked = identity_masks(pictures, pictures, own=np.arange(len(chosen)))
    return _Judged(chosen, np.flatnonzero(relevant.any(axis=1)), relevant, ranked)


def _dealt(groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """(n,) the fold of each, so that the members of each group are spread evenly."""
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    folds = np.empty(len(groups), np.int64)
    folds[order] = np.arange(len(groups)) % num_folds
    return folds


def _cosines(rows: np.ndarray, pairs: Pairs) -> np.ndarray:
    units = unit(rows)
    return (units[pairs.first] * units[pairs.second]).sum(axis=1)


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
