"""The order of an epoch, chosen in a config by class path: shuffled as a whole, or in blocks of shards that are read one after another.
(For so many pictures of each label in a batch, see `by_label`.)

    data:
      order: {class_path: multimodal.data.BlockShuffle, init_args: {shards: 8, lanes: 8}}

    order = BlockShuffle(shards=8, lanes=8).open(seed=0, sizes=np.full(100, 1000))     # 100 shards of 1000 pairs
    order.ids(epoch=3, start=512, stop=768)
    how_mixed(order, sizes, batch_size=256).same_shard                                 # what the locality costs

To add one, write a `Shuffle`. Every order is arithmetic: the id at a position is a function of (seed, epoch, position), and memory does not
grow with the number of pairs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multimodal.data.order import Order, permuted, positions_within, round_keys
from multimodal.errors import InputError
from multimodal.shards import ShardSet

EMPTY = -1
"""What an order gives for a place that stays empty: a row of padding."""


class EpochOrder(Protocol):
    """A permutation of 0 .. n-1 for each epoch, perhaps with empty places in between."""

    @property
    def num(self) -> int:
        """The number of positions in an epoch."""
        ...

    def ids(self, epoch: int, start: int, stop: int, step: int = 1) -> np.ndarray:
        """The ids at every step-th position of start .. stop-1, int64, `EMPTY` for an empty place; positions beyond the end are an
        error.
        """
        ...


class Shuffle(ABC):
    """Settings of an order. Its `repr` goes into checkpoints, so that a run never continues in the middle of another order.

    lanes: position p belongs to lane p modulo lanes, also in a mixture of sets; 1 for an order without lanes.
    """

    lanes: int = 1

    @property
    def batch_size(self) -> int | None:
        """The only global batch for which the order is meant; None if it is for any."""
        return None

    @abstractmethod
    def open(self, seed: int, sizes: np.ndarray) -> EpochOrder:
        """The order of the pairs of consecutive shards; sizes (s,) int64: the number of pairs in each."""

    def open_on(self, shards: ShardSet, ids: np.ndarray, seed: int) -> EpochOrder:
        """The order of the pairs ids (n,) of one set, as numbers 0 .. n-1: `open`, unless the order depends on what the pairs are."""
        return self.open(seed, run_lengths(shards.shard_numbers(ids)))


def run_lengths(values: np.ndarray) -> np.ndarray:
    """(n,) -> (r,) int64, the lengths of runs of equal values: [3, 3, 5, 3] -> [2, 1, 1]."""
    begins = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1], [True]])) if len(values) else np.zeros(1, np.int64)
    return np.diff(begins)


@dataclass(frozen=True)
class FullShuffle(Shuffle):
    """Any pair may follow any other. Mixes best; reads all shards at once."""

    def open(self, seed: int, sizes: np.ndarray) -> Order:
        return Order(seed, int(np.sum(sizes)))


@dataclass(frozen=True)
class BlockShuffle(Shuffle):
    """For sets larger than memory: shards are shuffled and cut into lanes; in each lane, the pairs of a few shards at a time are shuffled.

    shards: the number of shards in a block, which are shuffled together; when a lane has read a block, it continues with the next.
    lanes: position p belongs to lane p modulo lanes, and ranks take positions in turn. If the number of ranks divides the number of lanes,
    each rank has its own lanes: it reads files that no other rank reads (except shards that the end of a lane cuts in two), and the ids of
    a global batch are the same on any number of ranks.

    Larger values of both mix better and read more shards at once. For 1000 shards of 1000 pairs, in global batches of 1024 (`how_mixed`,
    seed 0, epoch 0; if shards differ in content, a batch's mean varies as much as that of fewer pairs, drawn independently):

        shards x lanes   two of a batch share a shard   neighbours' correlation   shards at once   1024 pairs are worth, at least
        full shuffle             0.10 %                        0.00                    1000                  506
        32 x 8                   0.40 %                        0.04                     256                  202
        8 x 8                    1.58 %                        0.12                      64                   60
        8 x 1                   11.96 %                        0.14                       8                    8
        1 x 8                   11.89 %                        1.00                       8                    8

    The last column is the worst case: each shard holds one kind of thing only. If the pairs were shuffled when the shards were made, any
    order mixes fully. Each epoch draws anew which shards form a block.
    """

    shards: int = 8
    lanes: int = 8

    def __post_init__(self) -> None:
        if self.shards < 1 or self.lanes < 1:
            raise InputError(f"BlockShuffle: shards={self.shards} and lanes={self.lanes} must be at least 1")

    def open(self, seed: int, sizes: np.ndarray) -> BlockOrder:
        return BlockOrder(seed, np.asarray(sizes, np.int64), self.shards, self.lanes)


class BlockOrder:
    """See `BlockShuffle`. sizes (s,): the pairs of each shard, any numbers, including 0. Keeps a few numbers per shard, of one epoch."""

    def __init__(self, seed: int, sizes: np.ndarray, shards: int, lanes: int) -> None:
        self.seed, self.sizes, self.shards, self.lanes = seed, sizes, shards, lanes
        self.num = int(sizes.sum())
        self._last: _Layout | None = None

    def ids(self, epoch: int, start: int, stop: int, step: int = 1) -> np.ndarray:
        """The ids at every step-th position of start .. stop-1 of an epoch, int64; positions beyond the end are an error."""
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
        # Lane l has the positions l, l + lanes, ..: their sizes differ by at most one.
        lanes = np.cumsum([0, *((self.num - lane + self.lanes - 1) // self.lanes for lane in range(self.lanes))])
        cuts = np.union1d(ends, lanes)
        pieces = cuts[cuts < self.num]  # where each shard, or its part in a lane, starts
        lane = np.searchsorted(lanes, pieces, side="right") - 1
        number_in_lane = np.arange(len(pieces)) - np.searchsorted(lane, lane)
        blocks = np.append(pieces[number_in_lane % self.shards == 0], self.num)
        return _Layout(epoch, lanes, blocks, ends, starts - (ends - self.sizes[shards]))


@dataclass(frozen=True, slots=True)
class _Layout:
    """An epoch's shards laid end to end in their shuffled order, and where that line is cut. All values are places on it, 0 .. n-1."""

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
    """How well an epoch's order mixes, and how many shards it reads at once."""

    same_shard: float
    """The probability that two pairs of one global batch are from the same shard. If shards differ in content, the variance of a batch's
    mean is 1 + (batch_size - 1) * same_shard times that of independent pairs (Kish's design effect, 1965).
    """
    neighbours: float
    """The largest absolute rank correlation between the ids at a position and at one up to MAX_LAG later."""
    shards_at_once: int
    """The most shards that are open at once: started, and not yet read to the end."""


MAX_LAG = 64


def how_mixed(order: EpochOrder, sizes: np.ndarray, batch_size: int, epoch: int = 0) -> Mix:
    """Measure one epoch of an order over shards of these sizes (s,), in global batches of batch_size; n numbers are held in memory."""
    num = int(np.sum(sizes))
    ids = order.ids(epoch, 0, num)
    shards = np.repeat(np.arange(len(sizes)), sizes)[ids]
    whole = shards[: num - num % batch_size].reshape(-1, batch_size)
    counts = np.array([np.bincount(batch, minlength=len(sizes)) for batch in whole])
    same = (counts * (counts - 1)).sum() / (len(whole) * batch_size * (batch_size - 1))
    # ids are ranks already, so their Pearson correlation is Spearman's
    lags = range(1, min(MAX_LAG, num - 2) + 1)
    neighbours = max((abs(float(np.corrcoef(ids[:-lag], ids[lag:])[0, 1])) for lag in lags), default=0.0)
    used, first = np.unique(shards, return_index=True)
    last = num - 1 - np.unique(shards[::-1], return_index=True)[1]
    begun = np.searchsorted(np.sort(first), np.sort(first), side="right")
    done = np.searchsorted(np.sort(last), np.sort(first), side="left")
    return Mix(float(same), neighbours, int((begun - done).max()) if len(used) else 0)
