"""The regions of a store's map, named by the words that are near their pictures and not near all pictures.

    regions = make_regions(store, store.map.points)
    regions.levels[0][0].name            # "beach, ocean"

There are few large regions to be named from afar, and each is cut into smaller ones for a nearer look: the map is halved again and again,
where its pictures are spread most (bisecting k-means; Steinbach et al., 2000). How near a word is to a region is the mean of its cosines
with the region's pictures, in standard deviations of that word's cosines over the store, above its mean: the calibration that a search
has. A word that is near everything is then near nothing. Of a smaller region, a word counts more if the larger one is less near to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.boxes import reading
from multimodal.search.calibration import sampled
from multimodal.search.words import Words
from multimodal.text.normalise import Normaliser

if TYPE_CHECKING:
    from multimodal.search.store import Store

LEVELS = (8, 32, 128)
"""How many regions there are, from afar and near."""
MIN_PICTURES = 8
"""A region has at least so many."""
NUM_NAMES = 2
"""Words in a name."""
NUM_LISTED = 6
"""Words that are kept of a region."""
RARE = 0.25
"""By how much the rarest of the words has to be nearer than the most frequent one: dog rather than collie."""
MAX_CORNERS = 12
_CELL_BITS = 8
_MAX_STEPS = 50
_LESS_GOOD, _MUCH_LESS_GOOD = 0.7, 0.5
"""What share of the best word's score another has to have, to name a region because the best one names another, or to be second."""


@dataclass(frozen=True, slots=True)
class Region:
    """x, y: its centre, 0 to `places.SIDE`. num: pictures in it. id: of the one that is nearest to the centre. words: the ones that name it
    first, with their scores in standard deviations. outline: corners of its convex hull.
    """

    x: int
    y: int
    num: int
    id: int
    words: tuple[tuple[str, float], ...]
    outline: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        return ", ".join(word for word, _ in self.words[:NUM_NAMES])


@dataclass(frozen=True, slots=True)
class Regions:
    """levels: from the largest regions to the smallest."""

    levels: tuple[tuple[Region, ...], ...]

    def as_json(self) -> str:
        return json.dumps([[asdict(region) for region in level] for level in self.levels], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Regions:
        """ValueError if it is not what `as_json` gives."""
        levels = json.loads(text)
        if not isinstance(levels, list) or not all(isinstance(level, list) for level in levels):
            raise ValueError("regions are a list of levels, each a list of regions")
        return cls(tuple(tuple(_region(facts) for facts in level) for level in levels))


def _region(facts: Any) -> Region:
    if (
        not isinstance(facts, dict)
        or set(facts) != {"x", "y", "num", "id", "words", "outline"}
        or not all(type(facts[name]) is int for name in ("x", "y", "num", "id"))
    ):
        raise ValueError("a region has x, y, num and id, which are whole numbers, words and an outline")
    words = tuple((str(word), float(score)) for word, score in facts["words"])
    return Region(facts["x"], facts["y"], facts["num"], facts["id"], words, tuple((int(x), int(y)) for x, y in facts["outline"]))


def read_regions(path: Path) -> Regions:
    """As they are kept with a map. InputError if the file is damaged."""
    with reading(path):
        return Regions.from_json(path.read_text(encoding="utf-8"))


def make_regions(store: Store, points: np.ndarray, words: Words | None = None) -> Regions:
    """The regions of a map with the points (n, 2), in the order of store.ids. words: of the store, if they are there."""
    if not len(points):
        return Regions(())
    words = Words.of(store) if words is None else words
    chosen = naming_words(words.words)
    levels = cut(points)
    means, mean = _means(store, levels)
    units = words.units[chosen].astype(np.float64)
    named = name_levels(levels, means, mean, words.std[chosen], [words.words[at] for at in chosen], units)
    return Regions(tuple(_described(store.ids, points, labels, listed) for labels, listed in zip(levels, named, strict=True)))


def naming_words(words: Sequence[str]) -> list[int]:
    """Places of the words that a region may be named by: the first of each stem."""
    stems = Normaliser(reduce="stem")
    by_stem: dict[str, int] = {}
    for at, word in enumerate(words):
        if len(word) > 2:
            by_stem.setdefault("".join(stems.tokens(word)) or word, at)
    return list(by_stem.values())


# -- cutting -------------------------------------------------------------------------------------------------------------------------------


def cut(points: np.ndarray, levels: Sequence[int] = LEVELS, min_pictures: int = MIN_PICTURES) -> list[np.ndarray]:
    """For each level, (n,) the number of the region that each point (n, 2) uint16 is in. A level's regions lie within those before it.

    Points in one cell of a grid are never cut, so the work does not grow with their number.
    """
    cells, of_point = np.unique(points.astype(np.int64) >> _CELL_BITS, axis=0, return_inverse=True)
    of_point = of_point.ravel()
    weights = np.bincount(of_point, minlength=len(cells)).astype(np.float64)
    places = cells.astype(np.float64)
    groups, found = [np.arange(len(cells))], list[np.ndarray]()
    spreads = [_spread(places, weights)]
    halves: list[tuple[np.ndarray, np.ndarray] | None] = [_halves(places, weights, groups[0], min_pictures)]
    for num in levels:
        while len(groups) < num:
            can_be = [at for at in range(len(groups)) if halves[at] is not None]
            if not can_be:
                break
            at = max(can_be, key=lambda at: (spreads[at], -at))
            pair = halves[at]
            assert pair is not None
            for place, group in zip((at, len(groups)), pair, strict=True):
                made = _spread(places[group], weights[group]), _halves(places, weights, group, min_pictures)
                if place == at:
                    groups[at], spreads[at], halves[at] = group, *made
                else:
                    groups.append(group)
                    spreads.append(made[0])
                    halves.append(made[1])
        labels = np.empty(len(cells), np.int64)
        for number, group in enumerate(groups):
            labels[group] = number
        found.append(labels[of_point])
    return found


def _spread(places: np.ndarray, weights: np.ndarray) -> float:
    """The weighted sum of squared distances from their mean; rounded, so that equal ones tie."""
    mean = weights @ places / weights.sum()
    return round(float(weights @ ((places - mean) ** 2).sum(axis=1)), 6)


def _halves(places: np.ndarray, weights: np.ndarray, group: np.ndarray, min_pictures: int) -> tuple[np.ndarray, np.ndarray] | None:
    """A group of cells in two, by k-means from its longest direction; None if one would be too small."""
    if len(group) < 2 or weights[group].sum() < 2 * min_pictures:
        return None
    here, weight = places[group], weights[group]
    mean = weight @ here / weight.sum()
    centred = here - mean
    a, b, c = (weight @ (centred[:, i] * centred[:, j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    angle = 0.5 * np.arctan2(2 * b, a - c)
    right = centred @ [np.cos(angle), np.sin(angle)] > 0
    for _ in range(_MAX_STEPS):
        if not right.any() or right.all():
            return None
        centres = [weight[side] @ here[side] / weight[side].sum() for side in (~right, right)]
        distances = [((here - centre) ** 2).sum(axis=1) for centre in centres]
        moved = (distances[1] - distances[0]).round(9) < 0
        if (moved == right).all():
            break
        right = moved
    if min(weight[right].sum(), weight[~right].sum()) < min_pictures:
        return None
    return group[~right], group[right]


# -- naming --------------------------------------------------------------------------------------------------------------------------------


def _means(store: Store, levels: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """For each level, the mean of the unit rows of each region (r, d), of those pictures that statistics are made of; and of all (d,)."""
    ids = sampled(store.ids)
    order = np.argsort(store.ids, kind="stable")
    at = order[np.searchsorted(store.ids, ids, sorter=order)]
    rows = store.take(ids).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    means = []
    for labels in levels:
        sums = np.zeros((int(labels.max()) + 1, store.dim))
        chosen = labels[at]
        by_label = np.argsort(chosen, kind="stable")
        starts = np.flatnonzero(np.diff(chosen[by_label], prepend=-1))
        sums[chosen[by_label][starts]] = np.add.reduceat(rows[by_label], starts, axis=0)
        means.append(sums / np.maximum(np.bincount(chosen, minlength=len(sums)), 1)[:, None])
    return means, rows.mean(axis=0)


def name_levels(
    levels: Sequence[np.ndarray],
    means: Sequence[np.ndarray],
    mean: np.ndarray,
    std: np.ndarray,
    names: Sequence[str],
    vectors: np.ndarray,
) -> list[list[list[tuple[str, float]]]]:
    """For each level, for each region, its words with their scores, the ones that it is named by first.

    levels: (n,) labels each, those of a level within those before it. means: (r, d) for each level; mean: (d,) of the store.
    std: (w,), of the words' cosines over the store. names, vectors (w, d): of the words, of unit length; the most frequent first.
    """
    if not len(names):
        return [[[] for _ in of_level] for of_level in means]
    usual = 1 - RARE * np.arange(len(names)) / len(names)
    named, before = [], np.empty((0, len(names)))
    for level, (labels, of_level) in enumerate(zip(levels, means, strict=True)):
        near = ((of_level - mean) @ vectors.T / std).round(6)
        wanted = near
        if level:
            parents = np.zeros(len(of_level), np.int64)
            parents[labels] = levels[level - 1]
            wanted = near + (near - before[parents])
        named.append(choose_names(wanted * usual, near, names, vectors))
        before = near
    return named


def choose_names(wanted: np.ndarray, near: np.ndarray, names: Sequence[str], vectors: np.ndarray) -> list[list[tuple[str, float]]]:
    """For each of r regions, at most NUM_LISTED words with their scores.

    wanted: (r, w), by how much each word is wanted for each region; near: (r, w), the score that is shown.
    Regions choose in the order of how much they want their best word. A word that names one is the first of another only if that has none
    nearly as good; the second word of a name is none that says nearly the same.
    """
    alike = vectors @ vectors.T
    taken: set[int] = set()
    chosen: list[list[tuple[str, float]]] = [[] for _ in wanted]
    for region in np.argsort(-wanted.max(axis=1), kind="stable").tolist():
        order = np.argsort(-wanted[region], kind="stable")
        best = float(wanted[region, order[0]])
        good = [at for at in order[: 4 * NUM_LISTED].tolist() if wanted[region, at] >= _LESS_GOOD * best > 0]
        if not good:
            continue
        first = next((at for at in good if at not in taken), good[0])
        taken.add(first)
        rest = [at for at in order[: 4 * NUM_LISTED].tolist() if at != first and wanted[region, at] >= _MUCH_LESS_GOOD * best]
        second = [at for at in rest if alike[first, at] < _SAME and at not in taken][: NUM_NAMES - 1]
        listed = [first, *second, *(at for at in rest if at not in second)][:NUM_LISTED]
        chosen[region] = [(names[at], round(float(near[region, at]), 2)) for at in listed]
    return chosen


_SAME = 0.45
"""Words with a larger cosine say nearly the same."""


def _described(ids: np.ndarray, points: np.ndarray, labels: np.ndarray, words: Sequence[Sequence[tuple[str, float]]]) -> tuple[Region, ...]:
    made = []
    order = np.argsort(labels, kind="stable")
    for group, listed in zip(np.split(order, np.flatnonzero(np.diff(labels[order])) + 1), words, strict=True):
        here = points[group].astype(np.int64)
        x, y = here.mean(axis=0).round().astype(int).tolist()
        nearest = group[np.lexsort((ids[group], ((here - [x, y]) ** 2).sum(axis=1)))[0]]
        made.append(Region(x, y, len(group), int(ids[nearest]), tuple((word, score) for word, score in listed), outline_of(here)))
    return tuple(made)


def outline_of(points: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Corners of a convex polygon around points (n, 2) of whole numbers, counterclockwise, at most MAX_CORNERS of the hull's."""
    hull = _hull(sorted(set(map(tuple, points.tolist()))))
    while len(hull) > MAX_CORNERS:  # the corner that cuts off the least
        areas = [abs(_turn(hull[at - 1], hull[at], hull[(at + 1) % len(hull)])) for at in range(len(hull))]
        del hull[int(np.argmin(areas))]
    return tuple(hull)


def _hull(points: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Andrew's monotone chain, of points in ascending order."""
    every = list(points)
    if len(every) <= 2:
        return every
    chains = []
    for line in (every, every[::-1]):
        chain: list[tuple[int, int]] = []
        for point in line:
            while len(chain) >= 2 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        chains += chain[:-1]
    return chains


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    """Twice the area of a triangle, positive if it turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
