"""Several shard sets in one run: how much of each an epoch holds, and which pair is at each position.

    data:
      shards: {cc: shards/cc, flickr: shards/flickr8k}
      mixture: {weights: {cc: 1, flickr: 3}}

    order = Mixture({"cc": 1, "flickr": 3}).open(seed=0, sizes={"cc": np.full(10, 1000), "flickr": np.full(6, 1000)}, shuffle=FullShuffle())
    order.at(epoch=3, start=512, stop=768)       # which pairs, and in which pass through their set

Each set is read in endless passes, each pass in its own order: position p of a set of n pairs is position p % n of its pass p // n. An
epoch of the mixture reads the next positions of each set, as many as its share. So nothing is drawn with replacement, for any weights: the
counts of any two pairs of a set differ by at most one, and everything is a function of (seed, epoch, position).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from multimodal.data.order import permuted, positions_within, round_keys
from multimodal.data.shuffle import EpochOrder, Shuffle
from multimodal.errors import InputError

MAX_PAIRS = 2**31
"""The most pairs of an epoch: its square must fit into 63 bits (`interleaved`)."""
WINDOW = 64
"""The sets' turns are shuffled within windows of this many positions, each of which holds the sets' shares. Without the shuffle, sets with
regular shares would go to the same ranks in every step (two equal sets on two ranks: one each).
"""
SEEDS_APART = 2**32
"""The distance between the seeds of two sets, so that sets of one size, perhaps of the same pictures, have independent orders."""


@dataclass(frozen=True)
class Mixture:
    """What an epoch of several sets holds. By default each pair of each set once.

    weights: the name of each set -> its share of an epoch's pairs, on any scale; null: in proportion to the sets' sizes.
    num_pairs: the pairs of an epoch; null: as many as all sets have to train on.
    """

    weights: dict[str, float] | None = None
    num_pairs: int | None = None

    def __post_init__(self) -> None:
        for name, weight in (self.weights or {}).items():
            if not 0 < weight < math.inf:
                raise InputError(f"mixture: weights.{name}={weight} must be above 0. To leave out a set, remove it from data.shards")
        if self.num_pairs is not None and self.num_pairs < 1:
            raise InputError(f"mixture: num_pairs={self.num_pairs} must be at least 1, or null")

    def counts(self, nums: Mapping[str, int]) -> dict[str, int]:
        """Name of a set -> how many of its pairs an epoch holds: its share, rounded so that the counts sum to num_pairs.

        nums: the number of pairs of each set. The largest remainders are rounded up (Hamilton's method).
        """
        weights: Mapping[str, float] = nums if self.weights is None else self.weights
        if weights.keys() != nums.keys():
            raise InputError(
                f"mixture: there are weights for {', '.join(sorted(weights))}, and the sets are {', '.join(nums)}. Give each set a weight"
            )
        for name, num in nums.items():
            if not num:
                raise InputError(f"mixture: set {name} has no pair to train on. Remove it from data.shards")
        num_pairs = sum(nums.values()) if self.num_pairs is None else self.num_pairs
        if num_pairs > MAX_PAIRS:
            raise InputError(f"mixture: an epoch of {num_pairs} pairs is too long. Set num_pairs to at most {MAX_PAIRS}")
        total = sum(Fraction(weights[name]) for name in nums)
        shares = {name: num_pairs * Fraction(weights[name]) / total for name in nums}
        counts = {name: math.floor(share) for name, share in shares.items()}
        by_remainder = sorted(nums, key=lambda name: counts[name] - shares[name])
        for name in by_remainder[: num_pairs - sum(counts.values())]:
            counts[name] += 1
        for name, count in counts.items():
            if not count:
                raise InputError(
                    f"mixture: an epoch of {num_pairs} pairs holds none of set {name}. Raise its weight of {weights[name]}, or num_pairs"
                )
        return counts

    def open(self, seed: int, sizes: Mapping[str, np.ndarray], shuffle: Shuffle) -> MixedOrder:
        """The order of the sets' pairs, laid one after another.

        sizes: name of a set -> (r,) int64, the number of its pairs in each of its shards. shuffle: of each pass through a set.
        """
        nums = {name: int(np.sum(of_shards)) for name, of_shards in sizes.items()}
        counts = self.counts(nums)
        orders = tuple(shuffle.open(seed + number * SEEDS_APART, of_shards) for number, of_shards in enumerate(sizes.values()))
        return MixedOrder(
            seed - SEEDS_APART, orders, np.array([*nums.values()], np.int64), np.array([*counts.values()], np.int64), shuffle.lanes
        )


class Drawn(NamedTuple):
    """What is at some positions of an epoch."""

    ids: np.ndarray
    """(m,) int64"""
    passes: np.ndarray
    """(m,) int64, which pass through its set each belongs to; with a single set a pass is an epoch."""


@dataclass(frozen=True, slots=True)
class MixedOrder:
    """See `Mixture`. seed: of how sets are assigned to positions. orders: of each set.

    nums (s,) int64: the pairs of each set. counts (s,) int64: how many of them an epoch holds. lanes: how many consecutive positions go to
    one set, so that each lane of a set is read by one rank, as without a mixture (`BlockShuffle`).
    """

    seed: int
    orders: tuple[EpochOrder, ...]
    nums: np.ndarray
    counts: np.ndarray
    lanes: int

    @property
    def num(self) -> int:
        """The number of positions in an epoch."""
        return int(self.counts.sum())

    def ids(self, epoch: int, start: int, stop: int, step: int = 1) -> np.ndarray:
        """As `EpochOrder.ids`, numbered over the pairs of all sets. Not a permutation: an epoch may hold a pair twice, or not at all."""
        return self.at(epoch, start, stop, step).ids

    def at(self, epoch: int, start: int, stop: int, step: int = 1) -> Drawn:
        """The ids, and which pass through its set each belongs to."""
        sets, ranks = self._assigned(epoch, positions_within(self.num, start, stop, step))
        passes, own = np.divmod(epoch * self.counts[sets] + ranks, self.nums[sets])
        ids = np.cumsum(self.nums)[sets] - self.nums[sets]
        for number, one in np.unique(np.stack([sets, passes], axis=1), axis=0).tolist():
            here = np.flatnonzero((sets == number) & (passes == one))
            first, last = int(own[here].min()), int(own[here].max())
            ids[here] += self.orders[number].ids(one, first, last + 1)[own[here] - first]
        return Drawn(ids, passes)

    def _assigned(self, epoch: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) the set of each position of an epoch, and (n,) which of the set's positions in the epoch it is.

        Sets take turns of `lanes` positions. What whole turns leave of their counts comes at the end, one by one.
        """
        turns = self.counts // self.lanes
        num_turns = int(turns.sum())
        sets, ranks = np.empty_like(positions), np.empty_like(positions)
        turn, lane = np.divmod(positions, self.lanes)
        whole, rest = np.flatnonzero(turn < num_turns), np.flatnonzero(turn >= num_turns)
        sets[whole], nth = interleaved(turns, self._shuffled(epoch, turn[whole], num_turns))
        ranks[whole] = nth * self.lanes + lane[whole]
        sets[rest], nth = interleaved(self.counts - turns * self.lanes, positions[rest] - num_turns * self.lanes)
        ranks[rest] = turns[sets[rest]] * self.lanes + nth
        return sets, ranks

    def _shuffled(self, epoch: int, turns: np.ndarray, num_turns: int) -> np.ndarray:
        """Turns (n,) of 0 .. num_turns-1, each permuted within its window."""
        size = max(1, WINDOW // self.lanes)
        windows, inverse = np.unique(turns // size, return_inverse=True)
        first = windows * size
        sizes, keys = np.minimum(size, num_turns - first), round_keys(self.seed, epoch, windows)
        return first[inverse] + permuted(turns - first[inverse], sizes[inverse], keys[:, inverse])


def interleaved(counts: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spread sum(counts) positions evenly over s sets: (n,) the set of each of positions (n,), and (n,) how many that set has before it.

    Bresenham's line for the first set, then for each further set on the positions that are left. Among the first p positions each set has
    its share to within s - 1.
    """
    sets, ranks = np.zeros_like(positions), np.zeros_like(positions)
    is_free, left = np.ones(len(positions), bool), int(counts.sum())
    for number, count in enumerate(counts.tolist()):
        before = positions * count // max(left, 1)
        own = is_free & ((positions + 1) * count // max(left, 1) > before)
        sets[own], ranks[own] = number, before[own]
        is_free &= ~own
        positions, left = positions - before, left - count
    return sets, ranks
