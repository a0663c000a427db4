"""Batches of pairs, every pair once an epoch on any number of ranks and workers, from any position.

    loader = PairLoader(shards, ids, image=Pixels(224), target=ColumnRows("lda40"), batch_size=64, seed=0, num_workers=2)
    for batch in loader: ...                    # epoch 0; the next loop is epoch 1
    loader.load_state_dict(saved)               # continues after the last batch returned before `saved` was taken

A global batch is a slice of batch_size * world_size positions of the epoch's order. The ranks take them in turn (rank r of W takes the
positions p with p % W == r), so what a step sees depends on the global batch alone. The last batch is padded with rows that are not valid.
Workers get positions and hold no state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np

from multimodal.boxes import fingerprint_bytes
from multimodal.data.ahead import Ahead
from multimodal.data.identity import Identities
from multimodal.data.mixture import Drawn, MixedOrder, Mixture
from multimodal.data.order import random_words
from multimodal.data.pretext import Views, ViewsTarget
from multimodal.data.shuffle import EMPTY, EpochOrder, FullShuffle, Shuffle, run_lengths
from multimodal.data.sides import Rows, Side, open_side
from multimodal.data.steps import IMAGE, TARGET, Place, Step, StepLoader, Steps, check_place
from multimodal.errors import InputError
from multimodal.pairs import Batch
from multimodal.shards import JoinedShards, Ledger, ShardSet

FULL_SHUFFLE = FullShuffle()
EACH_ONCE = Mixture()


class PairLoader(StepLoader):
    """A plain iterable of `Batch`, all of batch_size rows.

    shards, ids (n,) int64: the pairs of one split, as `Split.ids` gives them. With several joined sets, ids must be ascending.
    image, target: the two sides.
    batch_size: rows of one rank. seed: of the order and of every random choice.
    shuffle: True to train: a new order and new random choices (crop, caption) each epoch. False to evaluate: the order of `ids`, nothing
    random.
    order: how an epoch is shuffled; with several sets, how each pass through a set is. mixture: how much of each set an epoch holds.
    num_workers: processes that prepare batches; columns need none. pin: page-locked memory, for copies to a GPU; a thread copies one batch
    ahead. InputError if torch finds no GPU.
    rank, world_size: this process among those that train together. drop_tail: leave out the last global batch if it is not full.
    ledger: where unreadable pairs are listed, each once; the caller closes it. Such pairs become invalid rows; all other rows keep their
    places.
    identify: fill `Batch.identity`, which reads each pair's file and texts, those of columns too.
    """

    _steps: _PairSteps

    def __init__(
        self,
        shards: ShardSet | JoinedShards,
        ids: np.ndarray,
        image: Side,
        target: Side,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_tail: bool = False,
        pin: bool = False,
        ledger: Ledger | None = None,
        order: Shuffle = FULL_SHUFFLE,
        mixture: Mixture = EACH_ONCE,
        identify: bool = False,
    ) -> None:
        check_place(batch_size, rank, world_size, pin)
        if shuffle and order.batch_size not in (None, batch_size * world_size):
            raise InputError(
                f"order {order}: is for batches of {order.batch_size} pairs, and they have {batch_size * world_size}. "
                f"Set data.batch_size to {order.batch_size}"
            )
        ids = np.asarray(ids, np.int64)
        opened = open_order(shards, ids, seed, order, mixture) if shuffle else None
        steps = _PairSteps(shards, ids, image, target, batch_size, seed, opened, rank, world_size, identify)
        super().__init__(steps, steps.num, seed, num_workers, rank, world_size, pin, drop_tail)
        self._order = f"{order} of {opened.counts.tolist()}" if isinstance(opened, MixedOrder) else repr(order if shuffle else None)
        if drop_tail and 0 < self.num_pairs < self.global_batch:
            raise InputError(
                f"drop_tail=True leaves no batch: {self.num_pairs} pairs are fewer than batch_size {batch_size} x {world_size} ranks. "
                "Choose a smaller batch_size, or drop_tail=False"
            )
        self.ledger = ledger
        self._joined = JoinedShards.of(shards)
        self._named: set[int] = set()
        self._is_good = np.zeros(len(shards) if ledger is not None else 0, bool)  # which pairs the ledger has counted as good

    def state_dict(self) -> dict[str, Any]:
        """See `StepLoader`."""
        return {**super().state_dict(), "order": self._order, "pairs": self._pairs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from that position, with any number of ranks and workers. InputError if the order would differ."""
        if state["order"] != self._order:
            raise InputError(
                f"the checkpoint's loader had the order {state['order']} and this one has {self._order}. Use the checkpoint's order"
            )
        if state["pairs"] != self._pairs:
            raise InputError(
                f"the checkpoint's loader read other pairs than these {len(self._steps.ids)}: the shards or the split have changed"
            )
        super().load_state_dict(state)

    @contextmanager
    def _fetching(self, starts: list[Place]) -> Iterator[Callable[[int], None]]:
        """While it is open, the tars of remote sets are fetched ahead. Yields a function to call with each step that is done."""
        sets = self._joined.sets if self._steps.reads_tars else {}
        remotes = {name: shards.remote for name, shards in sets.items() if shards.remote is not None}
        with ExitStack() as opened:
            aheads = []
            for name, remote in remotes.items():
                # Half of this rank's share of the cache: the other half holds what was read last, and is evicted first.
                window_bytes = remote.cache_bytes // (2 * self.world_size * len(remotes))
                ids = map(partial(self._ids_in, name), starts)
                aheads.append(opened.enter_context(Ahead(sets[name], remote, ids, window_bytes)))

            def reached(number: int) -> None:
                for ahead in aheads:
                    ahead.reached(number)

            yield reached

    def _ids_in(self, name: str, place: Place) -> np.ndarray:
        """The pairs of one set that a step reads, by their ids in that set."""
        ids = self._steps.drawn(place).ids
        return next(part.ids for part in self._joined.parts(ids[ids != EMPTY]) if part.name == name)

    @cached_property
    def _pairs(self) -> str:
        """A fingerprint of these pairs and their shards."""
        return fingerprint_bytes(self._steps.shards.fingerprint.encode(), self._steps.ids.astype("<i8").tobytes())

    def _note(self, batch: Batch, unread: Sequence[tuple[int, str]]) -> None:
        if self.ledger is None:
            return
        good = np.unique(batch.id[batch.valid].numpy())  # in a mixture, a pair may come twice
        self.ledger.good(int((~self._is_good[good]).sum()))
        self._is_good[good] = True
        for id, reason in unread:
            if id not in self._named:
                self._named.add(id)
                self.ledger.bad(self._joined.where(id), self._joined.key(id), reason)


class _PairSteps(Steps):
    """This rank's rows of the global batch that starts at a position of an epoch. Keeps no state between steps."""

    def __init__(
        self,
        shards: ShardSet | JoinedShards,
        ids: np.ndarray,
        image: Side,
        target: Side,
        batch_size: int,
        seed: int,
        order: EpochOrder | MixedOrder | None,
        rank: int,
        world_size: int,
        identify: bool,
    ) -> None:
        check_views(image, target)
        super().__init__(open_side(image, shards, ids), open_side(target, shards, ids), batch_size)
        self.shards, self.ids, self.seed, self.order = shards, ids, seed, order
        self.rank, self.world_size = rank, world_size
        self.num = order.num if order else len(ids)
        self.reads_tars = image.reads_tars or target.reads_tars or identify
        self.identities = Identities(shards, ids, image, target) if identify else None

    def step(self, place: Place, buffer: int | None) -> Step:
        drawn = self.drawn(place)
        rows = np.flatnonzero(drawn.ids != EMPTY)
        ids, passes = drawn.ids[rows], drawn.passes[rows]
        crops, captions = (random_words(self.seed, passes, ids, purpose) if self.order else None for purpose in (IMAGE, TARGET))
        image = self.read(self.image, ids, crops, buffer, rows)
        made = image.target  # by the image side, with its views
        target = (
            self.read(self.target, ids, captions, None, rows) if made is None else Rows(self.padded(made, rows), np.ones(len(ids), bool))
        )
        unread = [(int(id), reason) for side in (image, target) for id, reason in zip(ids[~side.ok], side.reasons, strict=True)]
        valid = np.zeros(self.batch_size, bool)
        valid[rows] = image.ok & target.ok
        padded_ids = np.full(self.batch_size, -1, np.int64)
        padded_ids[rows] = ids
        identity = None
        if self.identities is not None:
            identity = np.zeros((self.batch_size, 2), np.int64)
            identity[rows] = self.identities(ids, captions)
        return Step(padded_ids, image.values if buffer is None else None, target.values, valid, unread, buffer, identity)

    def drawn(self, place: Place) -> Drawn:
        """This rank's b pairs, fewer in the last step of an epoch; `EMPTY` where the order leaves a place empty."""
        epoch, start = place
        stop = min(start + self.batch_size * self.world_size, self.num)
        start = min(start + self.rank, stop)
        if isinstance(self.order, MixedOrder):
            places, passes = self.order.at(epoch, start, stop, self.world_size)
            return Drawn(self.ids[places], passes)
        places = self.order.ids(epoch, start, stop, self.world_size) if self.order else np.arange(start, stop, self.world_size)
        return Drawn(np.where(places == EMPTY, EMPTY, self.ids[places]), np.full(len(places), epoch))


def check_views(image: Side, target: Side) -> None:
    """InputError if one side makes views that the other one does not answer."""
    if isinstance(image, Views) and not isinstance(target, ViewsTarget):
        raise InputError(
            f"data.image: {type(image).__name__} asks about its own views, so {target} teaches nothing. Set data.target to "
            "multimodal.data.ViewsTarget"
        )
    if isinstance(target, ViewsTarget) and not isinstance(image, Views):
        raise InputError(
            f"data.target: ViewsTarget is made by an image side that asks about its views, and {image} does not. Set data.image to such a "
            "side: multimodal.data.RotationViews, for one"
        )


def open_order(shards: ShardSet | JoinedShards, ids: np.ndarray, seed: int, shuffle: Shuffle, mixture: Mixture) -> EpochOrder | MixedOrder:
    """The order of the pairs of ids (n,), as numbers 0 .. n-1. mixture: used with several sets."""
    if isinstance(shards, ShardSet):
        return shuffle.open_on(shards, ids, seed)
    if (np.diff(ids) < 0).any():
        raise ValueError("the ids of a mixture must be ascending: its order numbers the pairs of one set after another")
    return mixture.open(seed, {part.name: run_lengths(part.shards.shard_numbers(part.ids)) for part in shards.parts(ids)}, shuffle)
