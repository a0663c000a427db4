"""Verification: are two pictures of the same person, or thing? Judged pairs, as a curve: what is accepted by mistake, and what rightly.

multimodal evaluate identities --export E --shards market --pairs judged.csv --part all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from multimodal.errors import InputError
from multimodal.evaluate.figures import FigureRow, align, per_cent
from multimodal.metrics import unit
from multimodal.metrics.verification import Roc, roc

FALSE_ACCEPTS = (0.1, 0.01, 0.001)
NUM_SAMPLES = 500
MOST_POINTS = 200
"""Of a curve in a file."""


@dataclass(frozen=True, slots=True)
class PairsRow(FigureRow):
    """One line of a table of figures. Shares are in per cent; chance is 50 for the area and for the equal error rate.

    area: under the curve. equal_error: where as many different pairs are accepted as same ones are refused. *_low, *_high: the 95 %
    bootstrap intervals, pictures resampled with all their pairs. true_accepts: the share of same pairs accepted, by the largest share of
    different ones that may be; None if there are too few different pairs to tell. thresholds: the cosines of these.
    false_accepts_curve, true_accepts_curve: the curve, at most MOST_POINTS of its points.
    """

    recipe: str
    family: str
    gallery: str
    num_pairs: int
    num_same: int
    area: float
    area_low: float
    area_high: float
    equal_error: float
    equal_error_low: float
    equal_error_high: float
    true_accepts: Mapping[str, float | None]
    thresholds: Mapping[str, float | None]
    false_accepts_curve: Sequence[float]
    true_accepts_curve: Sequence[float]

    keys: ClassVar[Mapping[str, str]] = {"area": "AUC", "area_low": "AUC_low", "area_high": "AUC_high", "equal_error": "EER"} | {
        "equal_error_low": "EER_low",
        "equal_error_high": "EER_high",
        "true_accepts": "TAR_at_FAR",
    }


def judge_pairs(rows: np.ndarray, places: np.ndarray, same: np.ndarray, recipe: str, family: str, gallery: str, seed: int = 0) -> PairsRow:
    """By the cosine. rows (n, d); places (m, 2), the pictures of each pair; same (m,) bool. InputError: all same, or all different."""
    if same.all() or not same.any():
        raise InputError(f"{int(same.sum())} of {len(same)} pairs are the same; a curve needs both kinds")
    units = unit(rows).astype(np.float64)
    scores = (units[places[:, 0]] * units[places[:, 1]]).sum(axis=1)
    curve = roc(scores, same)
    areas, errors = _resampled(scores, same, places, len(rows), seed)
    asked = {f"{share:g}": share for share in FALSE_ACCEPTS}
    at = {name: curve.at_false_accepts(share) if (~same).sum() * share >= 1 else None for name, share in asked.items()}
    shown = np.unique(np.linspace(0, len(curve.thresholds) - 1, MOST_POINTS).astype(int))
    return PairsRow(
        recipe=recipe,
        family=family,
        gallery=gallery,
        num_pairs=len(same),
        num_same=int(same.sum()),
        area=per_cent(curve.area),
        area_low=per_cent(areas[0]),
        area_high=per_cent(areas[1]),
        equal_error=per_cent(curve.equal_error_rate),
        equal_error_low=per_cent(errors[0]),
        equal_error_high=per_cent(errors[1]),
        true_accepts={name: None if one is None else per_cent(one.true_accepts) for name, one in at.items()},
        thresholds={name: one.threshold if one is not None and np.isfinite(one.threshold) else None for name, one in at.items()},
        false_accepts_curve=[per_cent(share) for share in curve.false_accepts[shown].tolist()],
        true_accepts_curve=[per_cent(share) for share in curve.true_accepts[shown].tolist()],
    )


def as_table(row: PairsRow) -> str:
    """The row as text."""
    header = ["recipe", "pictures", "pairs", "same", "AUC", "95 % interval", "EER", "95 % interval"]
    header += [f"TAR at {share}" for share in row.true_accepts]
    line = [row.recipe, row.gallery, f"{row.num_pairs}", f"{row.num_same}"]
    line += [f"{row.area:.1f}", f"[{row.area_low:.1f}, {row.area_high:.1f}]"]
    line += [f"{row.equal_error:.1f}", f"[{row.equal_error_low:.1f}, {row.equal_error_high:.1f}]"]
    line += ["" if share is None else f"{share:.1f}" for share in row.true_accepts.values()]
    return align(header, [line], num_left=2)


def _resampled(scores: np.ndarray, same: np.ndarray, places: np.ndarray, num: int, seed: int) -> tuple[list[float], list[float]]:
    """The middle 95 % of area and equal error rate.

    Pairs that share a picture are not independent: pictures are drawn, and a pair counts as often as the product of how often its two were
    (the pigeonhole bootstrap; Owen, 2007).
    """
    generator, curves = np.random.default_rng(seed), list[Roc]()
    used, pictures = np.unique(places, return_inverse=True)
    pictures = pictures.reshape(places.shape)
    while len(curves) < NUM_SAMPLES:
        times = generator.multinomial(len(used), np.full(len(used), 1 / len(used)))[pictures].prod(axis=1)
        drawn = np.repeat(np.arange(len(same)), times)
        if len(drawn) and same[drawn].any() and not same[drawn].all():
            curves.append(roc(scores[drawn], same[drawn]))
    found = [[one.area for one in curves], [one.equal_error_rate for one in curves]]
    low_high = [np.quantile(values, [0.025, 0.975]).tolist() for values in found]
    return low_high[0], low_high[1]
