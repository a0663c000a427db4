"""Which order an epoch has, picked in a config by class path: shuffled as a whole, or in blocks of shards that are read one after another.

    data:
      order: {class_path: multimodal.data.BlockShuffle, init_args: {shards: 8, lanes: 8}}

    order = BlockShuffle(shards=8, lanes=8).open(seed=0, sizes=np.full(100, 1000))     # 100 shards of 1000 pairs
    order.ids(epoch=3, start=512, stop=768)
    how_mixed(order, sizes, batch_size=256).same_shard                                 # what the locality costs

To add one, write a `Shuffle`. Every order is arithmetic: what is at a position is a function of (seed, epoch, position), and memory does
not grow with the number of pairs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multimodal.data.order import Order, permuted, positions_within, round_keys
from multimodal.errors import InputError


class EpochOrder(Protocol):
    """A permutation of 0 .. n-1 for each epoch."""

    @property
    def num(self) -> int:
        """Positions of an epoch."""
        ...

    def ids(self, epoch: int, start: int, stop: int, step: int = 1) -> np.ndarray:
        """What is at every step-th position of start .. stop-1, int64; positions beyond the end are an error."""
        ...


class Shuffle(ABC):
    """Settings of an order. Its `repr` goes into checkpoints: a run does not go on in the middle of another order.

    lanes: position p belongs to lane p modulo lanes, which a mixture of sets keeps apart too; 1 where an order has none.
    """

    lanes: int = 1

    @abstractmethod
    def open(self, seed: int, sizes: np.ndarray) -> EpochOrder:
        """The order of pairs that lie in shards one after another; sizes (s,) int64: how many of them lie in each."""


@dataclass(frozen=True)
class FullShuffle(Shuffle):
    """Any pair may follow any other. The best mix; reads all shards at once."""

    def open(self, seed: int, sizes: np.ndarray) -> Order:
        return Order(seed, int(np.sum(sizes)))


@dataclass(frozen=True)
class BlockShuffle(Shuffle):
    """Shuffled shards, cut into lanes, in which the pairs of each few shards are shuffled among themselves: for sets larger than memory.

    shards: so many are mixed at a time in each lane, a block; when all their pairs are read, the lane goes on to its next block.
    lanes: position p belongs to lane p modulo lanes, and ranks take positions in turn. Where the number of ranks divides that of the
    lanes, each rank has lanes of its own, so that it reads files that no other rank reads (but for the shards that a lane's end cuts in
    two), and the ids of a global batch are the same on any number of ranks.

    Both grow the mix and the number of shards that are read at once. Of 1000 shards of 1000 pairs, in global batches of 1024 (`how_mixed`,
    seed 0, epoch 0; where shards differ in what they hold, a batch's mean varies as much as that of fewer pairs, drawn independently):

        shards x lanes   two of a batch share a shard   neighbours' correlation   shards at once   1024 pairs are worth, at least
        full shuffle             0.10 %                        0.00                    1000                  506
        32 x 8                   0.40 %                        0.04                     256                  202
        8 x 8                    1.58 %                        0.12                      64                   60
        8 x 1                   11.96 %                        0.14                       8                    8
        1 x 8                   11.89 %                        1.00                       8                    8

    The last column is the worst case, of shards that each hold one thing only; where pairs were shuffled when the shards were made, any
    order mixes fully. Which shards meet in a block is drawn anew each epoch.
    """

    shards: int = 8
    lanes: int = 8

    def __post_init__(self) -> None:
        if self.shards < 1 or self.lanes < 1:
            raise InputError(f"BlockShuffle: shards={self.shards} and lanes={self.lanes} must be at least 1")

    def open(self, seed: int, sizes: np.ndarray) -> BlockOrder:
        return BlockOrder(seed, np.asarray(sizes, np.int64), self.shards, self.lanes)


class BlockOrder:
    """See `BlockShuffle`. sizes (s,): the pairs of each shard, of any sizes, 0 too. Keeps some numbers a shard, of one epoch at a time."""

    def __init__(self, seed: int, sizes: np.ndarray, shards: int, lanes: int) -> None:
        self.seed, self.sizes, self.shards, self.lanes = seed, sizes, shards, lanes
        self.num = int(sizes.sum())
        self._last: _Layout | None = None

    def ids(self, epoch: int, start: int, stop: int, step: int = 1) -> np.ndarray:
        """What is at every step-th position of start .. stop-1 of an epoch, int64; positions beyond the end are an error."""
        positions = positions_within(self.num, start, stop, step)
        layout = self._layout(epoch)
        places = layout.lanes[positions % self.lanes] + positions // self.lanes
        used, inverse = np.unique(np.searchsorted(layout.blocks, places, side="right") - 1, return_inverse=True)
        keys = round_keys(self.seed, epoch, used)
        first = layout.blocks[used]
        nums = layout.blocks[used + 1] - first
        places = first[inverse] + permuted(places - first[inverse], nums[inverse], keys[:, inverse])
        shard = np.searchsorted(layout.ends, places, side="right")
        return places + layout.shifts[shard]

    def _layout(self, epoch: int) -> _Layout:
        layout = self._last
        if layout is None or layout.epoch != epoch:
            layout = self._last = self._make_layout(epoch)
        return layout

    def _make_layout(self, epoch: int) -> _Layout:
        shards = Order(self.seed, len(self.sizes)).ids(epoch, 0, len(self.sizes))
        ends = np.cumsum(self.sizes[shards])
        starts = (np.cumsum(self.sizes) - self.sizes)[shards]
        # Lane l has the positions l, l + lanes, ..: sizes differ by one at most.
        lanes = np.cumsum([0, *((self.num - lane + self.lanes - 1) // self.lanes for lane in range(self.lanes))])
        cuts = np.union1d(ends, lanes)
        pieces = cuts[cuts < self.num]  # where each shard begins, or its part in a lane
        lane = np.searchsorted(lanes, pieces, side="right") - 1
        number_in_lane = np.arange(len(pieces)) - np.searchsorted(lane, lane)
        blocks = np.append(pieces[number_in_lane % self.shards == 0], self.num)
        return _Layout(epoch, lanes, blocks, ends, starts - (ends - self.sizes[shards]))


@dataclass(frozen=True, slots=True)
class _Layout:
    """An epoch's shards laid end to end in their shuffled order, and where they are cut. All in places of that line, 0 .. n-1."""

    epoch: int
    lanes: np.ndarray
    """(lanes + 1,) where each lane begins, and the end."""
    blocks: np.ndarray
    """(m + 1,) where each block begins, ascending, and the end."""
    ends: np.ndarray
    """(s,) where each shard ends."""
    shifts: np.ndarray
    """(s,) what to add to a place in the shard to get the id."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How well an epoch's order mixes, and what it reads for it."""

    same_shard: float
    """The chance that two pairs of one global batch lie in one shard. Where shards differ in what they hold, a batch's mean varies
    1 + (batch_size - 1) * same_shard times as much as that of independent pairs (Kish's design effect, 1965).
    """
    neighbours: float
    """The largest rank correlation, by size, between the ids at a position and at one up to MAX_LAG later."""
    shards_at_once: int
    """The most shards that are begun and not yet read to their end."""


MAX_LAG = 64


def how_mixed(order: EpochOrder, sizes: np.ndarray, batch_size: int, epoch: int = 0) -> Mix:
    """Measure one epoch of an order over shards of these sizes (s,), in global batches of batch_size; n numbers are held in memory."""
    num = int(np.sum(sizes))
    ids = order.ids(epoch, 0, num)
    shards = np.repeat(np.arange(len(sizes)), sizes)[ids]
    whole = shards[: num - num % batch_size].reshape(-1, batch_size)
    counts = np.array([np.bincount(batch, minlength=len(sizes)) for batch in whole])
    same = (counts * (counts - 1)).sum() / (len(whole) * batch_size * (batch_size - 1))
    # ids are ranks already, so that Pearson's correlation of them is Spearman's
    lags = range(1, min(MAX_LAG, num - 2) + 1)
    neighbours = max((abs(float(np.corrcoef(ids[:-lag], ids[lag:])[0, 1])) for lag in lags), default=0.0)
    used, first = np.unique(shards, return_index=True)
    last = num - 1 - np.unique(shards[::-1], return_index=True)[1]
    begun = np.searchsorted(np.sort(first), np.sort(first), side="right")
    done = np.searchsorted(np.sort(last), np.sort(first), side="left")
    return Mix(float(same), neighbours, int((begun - done).max()) if len(used) else 0)
