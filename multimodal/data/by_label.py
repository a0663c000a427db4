"""Batches of P labels with K pictures each, for objectives that compare pictures of one label with those of others.

    data:
      order: {class_path: multimodal.data.PxK, init_args: {label: identity, labels: 16, pictures: 4}}
      batch_size: 64

    order = PxKOrder(seed=0, labels=np.array([0, 0, 0, 1, 1, 2]), num_labels=2, num_pictures=2)
    order.ids(epoch=3, start=0, stop=4)      # one global batch: two pictures of a label, then two of another; -1 is an empty place

**Exact.** Every picture comes once an epoch. A label of n pictures takes ceil(n / K) turns, whose sizes differ by at most one, so 5
pictures with K = 4 come as 3 and 2. The places that a turn does not fill stay empty: rows of padding, which are not valid. (Other samplers
repeat pictures instead, or leave some out.) With K of 3 or more a picture is alone in its turn only if its label has no other; with K = 2
one of an odd number is too.

**Distinct.** The labels of a batch are distinct, as long as none has more turns than the epoch has batches. One that has is several times
in some of them, each time with other pictures.

Everything is a function of (seed, epoch, position): nothing depends on ranks, workers or what was read before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal.data.order import Order, permuted, positions_within, round_keys
from multimodal.data.shuffle import EMPTY, Shuffle
from multimodal.errors import InputError
from multimodal.shards import ShardSet
from multimodal.shards.labels import read_labels

TURNS_APART = 2**33
"""The distance between the seeds of the order of labels and that of a label's pictures; sets of a mixture are 2**32 apart."""


@dataclass(frozen=True)
class PxK(Shuffle):
    """P labels with K pictures each in every global batch, so data.batch_size is their product. For one set.

    label: the name in the pairs' metadata that says which pictures belong together. labels: P. pictures: K. Pairs without a valid label
    take turns of their own, so that each is read, and counted as bad, once.
    """

    label: str = "label"
    labels: int = 16
    pictures: int = 4

    def __post_init__(self) -> None:
        if self.labels < 1 or self.pictures < 1:
            raise InputError(f"PxK: labels={self.labels} and pictures={self.pictures} must be at least 1")

    @property
    def batch_size(self) -> int:
        return self.labels * self.pictures

    def open(self, seed: int, sizes: np.ndarray) -> PxKOrder:
        raise InputError(
            "order PxK: needs the labels of one set, and data.shards names several. Make them into one set, or use another order"
        )

    def open_on(self, shards: ShardSet, ids: np.ndarray, seed: int) -> PxKOrder:
        labels = read_labels(shards, ids, self.label)
        if len(labels.reasons) == len(ids):
            found = f", such as {shards.key(int(ids[0]))}: {labels.reasons[int(ids[0])]}" if len(ids) else ""
            raise InputError(f"{shards.place}: none of {len(ids)} pairs can be ordered by {self.label}{found}. Set the order's label")
        return PxKOrder(seed, labels.numbers, self.labels, self.pictures)


class PxKOrder:
    """See `PxK`. labels (n,) int64: the label of each id 0 .. n-1, any numbers. num_labels, num_pictures: P and K.

    Keeps three numbers per picture, and one per turn of one epoch.
    """

    def __init__(self, seed: int, labels: np.ndarray, num_labels: int, num_pictures: int) -> None:
        self.seed, self.num_pictures, self.batch_size = seed, num_pictures, num_labels * num_pictures
        self.num_labels = num_labels
        self._by_label = np.argsort(labels, kind="stable")
        _, self._firsts, self._sizes = np.unique(labels[self._by_label], return_index=True, return_counts=True)
        self._turns = -(-self._sizes // num_pictures)
        self._ends = np.cumsum(self._turns)  # all turns are numbered, label by label
        self.num_batches = -(-int(self._turns.sum()) // num_labels)
        self._last: tuple[int, np.ndarray] | None = None

    @property
    def num(self) -> int:
        """The number of positions in an epoch, empty ones included: a multiple of P * K."""
        return self.num_batches * self.batch_size

    def ids(self, epoch: int, start: int, stop: int, step: int = 1) -> np.ndarray:
        """As `EpochOrder.ids`; -1 at an empty place."""
        positions = positions_within(self.num, start, stop, step)
        batch, within = np.divmod(positions, self.batch_size)
        slot, place = np.divmod(within, self.num_pictures)
        turns = self._batches(epoch)[batch, slot]
        ids = np.full(len(positions), EMPTY, np.int64)
        here = np.flatnonzero(turns >= 0)
        label = np.searchsorted(self._ends, turns[here], side="right")
        # turn t of a label with T turns takes the pictures at t, t + T, t + 2 T, .. of their shuffled order
        of_label = turns[here] - (self._ends - self._turns)[label] + place[here] * self._turns[label]
        is_filled = of_label < self._sizes[label]
        here, label, of_label = here[is_filled], label[is_filled], of_label[is_filled]
        used, inverse = np.unique(label, return_inverse=True)
        keys = round_keys(self.seed + TURNS_APART, epoch, used)
        ids[here] = self._by_label[self._firsts[label] + permuted(of_label, self._sizes[label], keys[:, inverse])]
        return ids

    def _batches(self, epoch: int) -> np.ndarray:
        """(batches, P) int64, the turn in each slot of an epoch's batches, -1 for none."""
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, self._deal(epoch)
        return self._last[1]

    def _deal(self, epoch: int) -> np.ndarray:
        """All turns in a row, the labels in an order of the epoch's own, cut into P stretches of as many turns as there are batches.

        A stretch gives one turn to each batch, by a permutation of its own. So two turns of one label in one stretch are in different
        batches. A label that the cut between two stretches divides could meet itself: in its batches of the first, the second stretch
        exchanges its turn with that of another batch.
        """
        if not self.num_batches:
            return np.zeros((0, self.num_labels), np.int64)
        labels = Order(self.seed, len(self._sizes)).ids(epoch, 0, len(self._sizes))
        firsts = (self._ends - self._turns)[labels]
        counts = self._turns[labels]
        ends = np.cumsum(counts)
        num = int(counts.sum())
        line = np.full(self.num_batches * self.num_labels, -1, np.int64)
        line[:num] = np.arange(num) + np.repeat(firsts - (ends - counts), counts)
        of = np.full(len(line), -1, np.int64)
        of[:num] = np.repeat(labels, counts)
        placed = np.full((self.num_batches, self.num_labels), -1, np.int64)
        shape, before, taken = (self.num_labels, self.num_batches), -1, np.zeros(0, np.int64)
        for slot, (turns, owners) in enumerate(zip(line.reshape(shape), of.reshape(shape), strict=True)):
            keys = round_keys(self.seed, epoch, np.array([slot]))
            batches = permuted(np.arange(self.num_batches), np.array(self.num_batches), keys)
            if before >= 0:
                _keep_apart(batches, int((owners == before).sum()), taken)
            placed[batches, slot] = turns
            before = int(owners[-1])
            taken = batches[owners == before]
        return placed


def _keep_apart(batches: np.ndarray, num: int, taken: np.ndarray) -> None:
    """Exchange entries of a permutation, in place, so that its first num ones are not among `taken`, as far as others are free."""
    collides = np.isin(batches, taken)
    wrong = np.flatnonzero(collides[:num])
    free = num + np.flatnonzero(~collides[num:])
    wrong, free = wrong[: len(free)], free[: len(wrong)]
    batches[wrong], batches[free] = batches[free], batches[wrong]
