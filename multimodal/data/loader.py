"""Batches of pairs, every pair once an epoch on any number of ranks and workers, from any position.

    loader = PairLoader(shards, ids, image=Pixels(224), text=ColumnRows("lda40"), batch_size=64, seed=0, num_workers=2)
    for batch in loader: ...                    # epoch 0; the next loop is epoch 1
    loader.load_state_dict(saved)               # goes on after the last batch that was handed out when `saved` was taken

A global batch is a slice of batch_size * world_size positions of the epoch's order, which the ranks take in turn (rank r of W the
positions p with p % W == r), so that what a step sees depends on the global batch alone. The last one is filled up with rows that are not
valid. Workers get positions, and hold no state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from multimodal.boxes import fingerprint_bytes
from multimodal.cores import map_in_threads
from multimodal.data.ahead import Ahead
from multimodal.data.buffers import Buffers
from multimodal.data.mixture import Drawn, MixedOrder, Mixture
from multimodal.data.order import random_words
from multimodal.data.shuffle import EpochOrder, FullShuffle, Shuffle
from multimodal.data.sides import InPlace, Reader, Rows, Side, open_side, reads_tars
from multimodal.errors import InputError
from multimodal.pairs import Batch
from multimodal.shards import JoinedShards, Ledger, ShardSet

FULL_SHUFFLE = FullShuffle()
EACH_ONCE = Mixture()
Unread = list[tuple[int, str]]
"""(id, reason) of pairs that could not be read."""
PREFETCH = 2
"""Steps that each worker is ahead, torch's default."""
SPARE_BUFFERS = 4
"""More than steps on their way: the batch that is used, the next one, and two that a loop may hold back before others have to be sent by
pipe.
"""
IMAGE, TEXT = 0, 1
"""Purposes of a pair's random words: its crop says nothing of its caption."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the whole run: an epoch, and how many positions of its order, of all ranks, are behind."""

    epoch: int
    offset: int


class PairLoader:
    """A plain iterable of `Batch`, all of batch_size rows.

    shards, ids (n,) int64: the pairs of this part, as `Split.ids` gives them; of one set, or of several that are joined, ascending.
    image, text: the two sides.
    batch_size: rows of one rank. seed: of the order and of every random choice.
    shuffle: True to train: a new order and new choices (crop, caption) each epoch. False to evaluate: the order of `ids`, and no chance
    anywhere.
    order: which order an epoch has where it is shuffled; of several sets, each pass through one. mixture: what an epoch then has of each.
    num_workers: processes that prepare batches; columns need none. pin: page-locked memory, for copies to a GPU, made by a thread a batch
    ahead; InputError where torch finds no GPU.
    rank, world_size: this process among those that train together. drop_tail: leave out the last global batch where it is not full.
    ledger: where pairs that could not be read are named, each once; its `close` is the caller's. They count as invalid rows, and shift
    nothing.
    """

    def __init__(
        self,
        shards: ShardSet | JoinedShards,
        ids: np.ndarray,
        image: Side,
        text: Side,
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
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} must be at least 1")
        if not 0 <= rank < world_size:
            raise InputError(f"rank={rank} is not one of {world_size} ranks, which count from 0")
        if pin and not torch.cuda.is_available():
            raise InputError("pin=True: page-locked memory is for copies to a GPU, and torch finds none here. Leave it out")
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.num_workers, self.drop_tail, self.pin, self.ledger = num_workers, drop_tail, pin, ledger
        ids = np.asarray(ids, np.int64)
        opened = open_order(shards, ids, seed, order, mixture) if shuffle else None
        self._steps = _Steps(shards, ids, image, text, batch_size, seed, opened, rank, world_size)
        self._order = f"{order} of {opened.counts.tolist()}" if isinstance(opened, MixedOrder) else repr(order if shuffle else None)
        self.num_pairs = self._steps.num
        self.global_batch = batch_size * world_size
        if drop_tail and 0 < self.num_pairs < self.global_batch:
            raise InputError(f"drop_tail leaves nothing: {self.num_pairs} pairs are fewer than {batch_size} x {world_size} ranks")
        self._position = Position(epoch=0, offset=0)
        self._resumes = False
        self._loop: object = None  # the one that was begun last
        self._starts: list[tuple[int, int]] = []
        self._joined = JoinedShards.of(shards)
        self._buffers: Buffers | None = None
        self._named: set[int] = set()
        self._is_good = np.zeros(len(shards) if ledger is not None else 0, bool)  # which pairs the ledger has counted as good

    def __len__(self) -> int:
        """Steps of a whole epoch, the same on every rank, also where an epoch is resumed in its middle."""
        return self.num_pairs // self.global_batch if self.drop_tail else -(-self.num_pairs // self.global_batch)

    @property
    def epoch(self) -> int:
        """The epoch that is being read, or is read next."""
        return self._position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Read this epoch next, from its start; nothing happens where it is this epoch's turn anyhow, or its middle was resumed."""
        if epoch != self.epoch:
            self._position, self._resumes = Position(epoch, 0), False

    def state_dict(self) -> dict[str, Any]:
        """Where the run is, after the last batch that was handed out, whatever workers have prepared since. JSON values."""
        return {
            "epoch": self._position.epoch,
            "offset": self._position.offset,
            "seed": self._steps.seed,
            "order": self._order,
            "pairs": self._pairs,
            "global_batch": self.global_batch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, with any number of ranks and workers. InputError where the order would not be the same one."""
        if state["seed"] != self._steps.seed:
            raise InputError(f"the checkpoint's loader had seed={state['seed']} and this one has {self._steps.seed}: their orders differ")
        if state["order"] != self._order:
            raise InputError(f"the checkpoint's loader had the order {state['order']} and this one has {self._order}")
        if state["pairs"] != self._pairs:
            raise InputError(
                f"the checkpoint's loader read other pairs than these {len(self._steps.ids)}: the shards or the split have changed"
            )
        if state["offset"] and state["global_batch"] != self.global_batch:
            raise InputError(
                f"the checkpoint stands inside an epoch of global batches of {state['global_batch']}, and this run has "
                f"{self.batch_size} x {self.world_size} ranks = {self.global_batch}. Choose batch_size x ranks = {state['global_batch']}"
            )
        self._position, self._resumes = Position(state["epoch"], state["offset"]), True

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch that was resumed, or else a whole one. What was left early, without a resume, starts again."""
        if not self._resumes:  # nothing is taken note of before the first batch is asked for: Lightning makes iterators that it never uses
            self._position = Position(self.epoch, 0)
        self._resumes = False
        loop = self._loop = object()
        epoch, stop = self.epoch, len(self) * self.global_batch
        self._starts[:] = [(epoch, offset) for offset in range(self._position.offset, stop, self.global_batch)]
        # Workers are forked here, before there is a second thread.
        steps = iter(self._workers) if self.num_workers else (self._steps[(*start, None)] for start in self._starts)
        batches = map(self._batch, steps)
        with self._fetching(self._starts.copy()) as reached:
            for number, (batch, unread) in enumerate(_pinned_ahead(batches) if self.pin else batches):
                reached(number)
                offset = self._position.offset + self.global_batch
                self._position = Position(epoch, offset) if offset < stop else Position(epoch + 1, 0)
                self._note(batch, unread)
                yield batch
                if self._loop is not loop:  # both would take steps from the same workers, and move the same position
                    raise InputError(
                        "PairLoader: this loop goes on after another one over the same loader was begun. Make a loader for each"
                    )

    @contextmanager
    def _fetching(self, starts: list[tuple[int, int]]) -> Iterator[Callable[[int], None]]:
        """While it is open the tars of remote sets are fetched ahead of the steps; what it gives is told which steps are done."""
        sets = self._joined.sets if self._steps.reads_tars else {}
        remotes = {name: shards.remote for name, shards in sets.items() if shards.remote is not None}
        with ExitStack() as opened:
            aheads = []
            for name, remote in remotes.items():
                # Half of this rank's share of the cache: the other half holds what was read last, which goes first.
                window_bytes = remote.cache_bytes // (2 * self.world_size * len(remotes))
                ids = map(partial(self._ids_in, name), starts)
                aheads.append(opened.enter_context(Ahead(sets[name], remote, ids, window_bytes)))

            def reached(number: int) -> None:
                for ahead in aheads:
                    ahead.reached(number)

            yield reached

    def _ids_in(self, name: str, place: tuple[int, int]) -> np.ndarray:
        """Which pairs of one set a step reads, by their ids in the set."""
        return next(part.ids for part in self._joined.parts(self._steps.drawn(place).ids) if part.name == name)

    @cached_property
    def _pairs(self) -> str:
        """Fingerprint of which pairs of which shards these are."""
        return fingerprint_bytes(self._steps.shards.fingerprint.encode(), self._steps.ids.astype("<i8").tobytes())

    @cached_property
    def _workers(self) -> DataLoader:
        reader = self._steps.image
        if isinstance(reader, InPlace):
            num = PREFETCH * self.num_workers + SPARE_BUFFERS
            self._buffers = self._steps.buffers = Buffers(num, self.batch_size * reader.row_bytes)
        return DataLoader(
            self._steps,
            sampler=_Places(self._starts, self._buffers),
            batch_size=None,  # a step is a whole batch already
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            prefetch_factor=PREFETCH,
            persistent_workers=True,
            generator=torch.Generator(),  # or it would draw from the global one, and dropout would depend on the number of workers
        )

    def _batch(self, step: _Step | InputError) -> tuple[Batch, Unread]:
        if isinstance(step, InputError):
            raise step
        reader, text = self._steps.image, _laid(self._steps.text, step.text)
        if step.image is not None:
            image = _laid(reader, step.image)
        else:
            assert self._buffers is not None and step.buffer is not None and isinstance(reader, InPlace)
            image = self._buffers.lend(step.buffer, reader.rows_in)
        return Batch(torch.from_numpy(step.ids), _tensor(image), _tensor(text), torch.from_numpy(step.valid)), step.unread

    def _note(self, batch: Batch, unread: Unread) -> None:
        if self.ledger is None:
            return
        good = np.unique(batch.id[batch.valid].numpy())  # of a mixture, a pair may come twice
        self.ledger.good(int((~self._is_good[good]).sum()))
        self._is_good[good] = True
        for id, reason in unread:
            if id not in self._named:
                self._named.add(id)
                self.ledger.bad(self._joined.where(id), self._joined.key(id), reason)


class _Step(NamedTuple):
    """A batch on its way from a worker: arrays, for which a pipe is quicker than shared memory of their own until they are large."""

    ids: np.ndarray
    image: np.ndarray | Sequence[str] | None
    """None where the rows lie in a buffer."""
    text: np.ndarray | Sequence[str]
    valid: np.ndarray
    unread: Unread
    buffer: int | None


class _Places:
    """What workers are asked for: the starts of an epoch, each with a buffer that is free when its turn comes."""

    def __init__(self, starts: list[tuple[int, int]], buffers: Buffers | None) -> None:
        self.starts, self.buffers = starts, buffers

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int, int | None]]:
        if self.buffers is not None:  # all steps that were on their way have arrived by now, those of an epoch left early too
            self.buffers.reclaim()
        for start in self.starts:
            yield (*start, self.buffers.take() if self.buffers is not None else None)


class _Steps(Dataset):
    """(epoch, start, buffer) -> this rank's rows of the global batch from position start on, and the pairs among them that could not be
    read. buffer: the number of the one that the pictures go to, None for an array of their own.

    Goes to workers, and keeps nothing from step to step.
    """

    def __init__(
        self,
        shards: ShardSet | JoinedShards,
        ids: np.ndarray,
        image: Side,
        text: Side,
        batch_size: int,
        seed: int,
        order: EpochOrder | MixedOrder | None,
        rank: int,
        world_size: int,
    ) -> None:
        self.shards, self.ids, self.batch_size, self.seed, self.order = shards, ids, batch_size, seed, order
        self.rank, self.world_size = rank, world_size
        self.num = order.num if order else len(ids)
        self.reads_tars = reads_tars(image) or reads_tars(text)
        self.image: Reader = open_side(image, shards, ids)
        self.text: Reader = open_side(text, shards, ids)
        self.buffers: Buffers | None = None

    def __getitem__(self, place: tuple[int, int, int | None]) -> _Step | InputError:
        """An InputError is given back, and raised in the training process: of one that a worker raises, torch makes a traceback."""
        try:
            return self._step(*place)
        except InputError as error:
            return error

    def _step(self, epoch: int, start: int, buffer: int | None) -> _Step:
        drawn = self.drawn((epoch, start))
        ids = drawn.ids
        memory = None if buffer is None or self.buffers is None else self.buffers.memory(buffer)
        image, text = (
            self._read(read, ids, random_words(self.seed, drawn.passes, ids, purpose) if self.order else None, into)
            for read, purpose, into in ((self.image, IMAGE, memory), (self.text, TEXT, None))
        )
        unread = [(int(id), reason) for side in (image, text) for id, reason in zip(ids[~side.ok], side.reasons, strict=True)]
        valid = np.zeros(self.batch_size, bool)
        valid[: len(ids)] = image.ok & text.ok
        padded_ids = np.full(self.batch_size, -1, np.int64)
        padded_ids[: len(ids)] = ids
        return _Step(padded_ids, image.values if buffer is None else None, text.values, valid, unread, buffer)

    def drawn(self, place: tuple[int, int]) -> Drawn:
        """This rank's b pairs, fewer in the last step of an epoch."""
        epoch, start = place
        stop = min(start + self.batch_size * self.world_size, self.num)
        start = min(start + self.rank, stop)
        if isinstance(self.order, MixedOrder):
            places, passes = self.order.at(epoch, start, stop, self.world_size)
            return Drawn(self.ids[places], passes)
        places = self.order.ids(epoch, start, stop, self.world_size) if self.order else np.arange(start, stop, self.world_size)
        return Drawn(self.ids[places], np.full(len(places), epoch))

    def _read(self, read: Reader, ids: np.ndarray, words: np.ndarray | None, memory: np.ndarray | None) -> Rows:
        """Rows whose values are (b, ...), or b strings, with zeros or "" at the end where there are fewer; see `_laid`."""
        missing = self.batch_size - len(ids)
        if isinstance(read, InPlace):
            memory = np.empty(self.batch_size * read.row_bytes, np.uint8) if memory is None else memory
            values = read.rows_in(memory)
            values[len(ids) :] = 0
            return read.read(ids, words, values[: len(ids)])._replace(values=memory)
        rows = read(ids, words)
        if not missing:
            return rows
        if not isinstance(rows.values, np.ndarray):
            return rows._replace(values=[*rows.values, *[""] * missing])
        return rows._replace(values=np.concatenate([rows.values, np.zeros((missing, *rows.values.shape[1:]), rows.values.dtype)]))


def open_order(shards: ShardSet | JoinedShards, ids: np.ndarray, seed: int, shuffle: Shuffle, mixture: Mixture) -> EpochOrder | MixedOrder:
    """The order of the pairs of ids (n,), as numbers 0 .. n-1; mixture: of several sets."""
    if isinstance(shards, ShardSet):
        return shuffle.open(seed, _run_lengths(shards.shard_numbers(ids)))
    if (np.diff(ids) < 0).any():
        raise ValueError("the ids of a mixture must be ascending, or places of its order would be those of other sets")
    return mixture.open(seed, {part.name: _run_lengths(part.shards.shard_numbers(part.ids)) for part in shards.parts(ids)}, shuffle)


def _run_lengths(values: np.ndarray) -> np.ndarray:
    """(n,) -> (r,) int64, how often each value follows itself: [3, 3, 5, 3] -> [2, 1, 1]."""
    begins = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1], [True]])) if len(values) else np.zeros(1, np.int64)
    return np.diff(begins)


def _as_it_is(step: Any) -> Any:  # a function with a name, because workers may be started afresh and get it by pickle
    return step


def _laid(reader: Reader, values: np.ndarray | Sequence[str]) -> np.ndarray | Sequence[str]:
    """What a reader gave, as it came: of one in place the memory, since a pipe would bring its rows in another layout."""
    return reader.rows_in(values) if isinstance(reader, InPlace) and isinstance(values, np.ndarray) else values


def _tensor(values: np.ndarray | Sequence[str]) -> Any:
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def _pinned_ahead(batches: Iterable[tuple[Batch, Unread]]) -> Iterator[tuple[Batch, Unread]]:
    """The batches in page-locked memory. A buffer is in use until its copy is made: the thread holds the batch that lies in it."""
    device = torch.cuda.current_device()  # a thread begins with the first GPU, and would take memory of it for every rank
    return map_in_threads(_pinned, batches, num_threads=1, ahead=2, begin=partial(torch.cuda.set_device, device))


def _pinned(read: tuple[Batch, Unread]) -> tuple[Batch, Unread]:
    batch, unread = read
    text = batch.text.pin_memory() if isinstance(batch.text, torch.Tensor) else batch.text
    return Batch(batch.id.pin_memory(), batch.image.pin_memory(), text, batch.valid.pin_memory()), unread
