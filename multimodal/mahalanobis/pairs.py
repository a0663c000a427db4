"""What is known of pictures: labels, pairs that are the same or different, or triplets of which two are more alike.

pairs = pairs_of_labels(labels, 2000, seed=0)
chunklets(len(rows), pairs)                # (n,) groups of pictures that same pairs connect
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALONE = -1
"""Of a picture that no same pair names."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """first, second: (m,) int64, places of pictures among the rows. same: (m,) bool."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.same)

    def __getitem__(self, chosen: np.ndarray) -> Pairs:
        return Pairs(self.first[chosen], self.second[chosen], self.same[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Triplets:
    """anchor, same, different: (t,) int64, places of pictures among the rows: an anchor is more like `same` than like `different`."""

    anchor: np.ndarray
    same: np.ndarray
    different: np.ndarray

    def __len__(self) -> int:
        return len(self.anchor)

    def __getitem__(self, chosen: np.ndarray) -> Triplets:
        return Triplets(self.anchor[chosen], self.same[chosen], self.different[chosen])

    @property
    def pairs(self) -> Pairs:
        """Each anchor with its same one and with its different one."""
        anchors = np.concatenate([self.anchor, self.anchor])
        return Pairs(anchors, np.concatenate([self.same, self.different]), np.repeat([True, False], len(self)))


def triplets_of_pairs(pairs: Pairs) -> Triplets:
    """Every same pair with every different pair that shares a picture with it, which is the anchor."""
    sides = [np.concatenate(of) for of in ((pairs.first, pairs.second), (pairs.second, pairs.first))]
    same = np.concatenate([pairs.same, pairs.same])
    anchor, other = (side[same] for side in sides)
    order = np.argsort(sides[0][~same], kind="stable")
    of_different, different = (side[~same][order] for side in sides)
    start, stop = (np.searchsorted(of_different, anchor, side=side) for side in ("left", "right"))
    num = stop - start
    within = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
    return Triplets(np.repeat(anchor, num), np.repeat(other, num), different[np.repeat(start, num) + within])


def pairs_of_labels(labels: np.ndarray, num: int, seed: int) -> Pairs:
    """At most num pairs of rows, half of them of one label and half of two, drawn without repetition; fewer where there are no more.

    Every same pair of the set is as likely as every other, and so is every different one. Labels below 0 are left out.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(labels >= 0)
    _, groups, sizes = np.unique(labels[known], return_inverse=True, return_counts=True)
    by_group = known[np.argsort(groups, kind="stable")]
    starts = np.cumsum([0, *sizes])
    num_same = sizes * (sizes - 1) // 2
    total_same, total = int(num_same.sum()), len(known) * (len(known) - 1) // 2
    same = _drawn(rng, total_same, min(num // 2, total_same))
    group = np.searchsorted(np.cumsum(num_same), same, side="right")
    at = _corner(same - (np.cumsum(num_same) - num_same)[group])
    first, second = (by_group[starts[group] + place] for place in at)
    different: set[int] = set()
    wanted = min(num - num // 2, total - total_same)
    while len(different) < wanted:  # by rejection: most pairs are of two labels unless a label has most of the rows
        drawn = rng.integers(0, total, 2 * (wanted - len(different)) + 16)
        one, other = _corner(drawn)
        different.update(drawn[groups[one] != groups[other]].tolist()[: wanted - len(different)])
    one, other = _corner(np.array(sorted(different), np.int64))
    return Pairs(
        np.concatenate([first, known[one]]), np.concatenate([second, known[other]]),
        np.repeat([True, False], [len(first), len(one)]),
    )  # fmt: skip


def chunklets(num_rows: int, pairs: Pairs) -> np.ndarray:
    """(n,) int64: the number of the group that same pairs connect each row to; ALONE for rows in no same pair (Bar-Hillel et al., 2005)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    same = pairs[pairs.same]
    graph = coo_array((np.ones(len(same), bool), (same.first, same.second)), shape=(num_rows, num_rows))
    groups = connected_components(graph, directed=False)[1].astype(np.int64)
    alone = np.ones(num_rows, bool)
    alone[same.first] = alone[same.second] = False
    return np.where(alone, ALONE, groups)


def _drawn(rng: np.random.Generator, total: int, num: int) -> np.ndarray:
    """num different numbers below total, ascending."""
    if total <= 4 * num:
        return np.sort(rng.choice(total, num, replace=False)) if num else np.empty(0, np.int64)
    drawn: set[int] = set()
    while len(drawn) < num:
        drawn.update(rng.integers(0, total, num - len(drawn)).tolist())
    return np.array(sorted(drawn), np.int64)


def _corner(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (i, j) with i > j that these numbers stand for, where i (i - 1) / 2 + j is the number of a pair."""
    i = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.int64)
    i -= i * (i - 1) // 2 > numbers  # the root may be off by one
    i += (i + 1) * i // 2 <= numbers
    return i, numbers - i * (i - 1) // 2
