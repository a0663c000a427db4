"""How the steps of a loader are made in workers and reach the training process; `PairLoader` and `StreamLoader` say what is in them.

A step is a batch of one rank. Workers get the places where steps begin, and write pictures into shared buffers (`buffers.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from multimodal.data.buffers import Buffers
from multimodal.data.sides import InPlace, Reader, Rows
from multimodal.errors import InputError
from multimodal.machine.cores import map_in_threads
from multimodal.pairs import Batch

PREFETCH = 2
"""Steps that each worker prepares ahead; torch's default."""
SPARE_BUFFERS = 4
"""Buffers beyond those of prefetched steps: the batch in use, the next one, and two that a loop may keep before batches have to be sent by
pipe.
"""
IMAGE, TARGET = 0, 1
"""Purposes of a pair's random words, so that its crop and its caption are independent."""
Place = tuple[int, ...]
"""Where a step begins: its epoch, its offset there, and what else the steps of a loader need to know."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the whole run: an epoch, and how many positions of its order all ranks together have read."""

    epoch: int
    offset: int


class Step(NamedTuple):
    """A batch on its way from a worker, as arrays: until they are large, a pipe is quicker than shared memory of their own."""

    ids: np.ndarray
    image: np.ndarray | Sequence[str] | None
    """None if the rows are in a buffer."""
    target: np.ndarray | Sequence[str]
    valid: np.ndarray
    unread: Sequence[Any]
    """What could not be read, as the loader's `_note` takes it."""
    buffer: int | None
    identity: np.ndarray | None = None


class Steps(Dataset, ABC):
    """(*place, buffer) -> a step. buffer: the number of the buffer for the pictures, None for an array of their own. Is sent to workers.

    image, target: the readers of the two sides.
    """

    def __init__(self, image: Reader, target: Reader, batch_size: int) -> None:
        self.image, self.target, self.batch_size = image, target, batch_size
        self.buffers: Buffers | None = None

    def __getitem__(self, place: tuple[Any, ...]) -> Step | InputError:
        """An InputError is returned, and raised in the training process: torch would turn one raised in a worker into a traceback."""
        try:
            return self.step(place[:-1], place[-1])
        except InputError as error:
            return error

    @abstractmethod
    def step(self, place: Place, buffer: int | None) -> Step:
        """The step that begins at a place."""

    def read(self, read: Reader, ids: np.ndarray, words: np.ndarray | None, buffer: int | None, rows: np.ndarray | None = None) -> Rows:
        """Rows of ids (n,) whose values are (b, ...), or b strings, with zeros or "" in rows that are padding; see `_laid`.

        rows: which of the b rows the ids have, ascending; by default the first ones.
        """
        rows = np.arange(len(ids)) if rows is None else rows
        if isinstance(read, InPlace):
            memory = None if buffer is None or self.buffers is None else self.buffers.memory(buffer)
            memory = np.empty(self.batch_size * read.row_bytes, np.uint8) if memory is None else memory
            values = read.rows_in(memory)
            found = read.read(ids, words, values[: len(ids)])
            for row, place in reversed([*enumerate(rows.tolist())]):  # the last one first: none is overwritten before it has moved
                if row != place:
                    values[place] = values[row]
            values[np.setdiff1d(np.arange(self.batch_size), rows)] = 0
            return found._replace(values=memory)
        found = read(ids, words)
        if len(ids) == self.batch_size:
            return found
        if not isinstance(found.values, np.ndarray):
            texts = dict(zip(rows.tolist(), found.values, strict=True))
            return found._replace(values=[texts.get(row, "") for row in range(self.batch_size)])
        return found._replace(values=self.padded(found.values, rows))

    def padded(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """values (n, ...) of the rows (n,) of a batch, as all b of them, with zeros in the other ones."""
        padded = np.zeros((self.batch_size, *values.shape[1:]), values.dtype)
        padded[rows] = values
        return padded


class StepLoader(ABC):
    """A plain iterable of `Batch`, all of batch_size rows; the same number of them on every rank.

    num_pairs: of an epoch, on all ranks. drop_tail: leave out the last global batch if it is not full. Other arguments as of `PairLoader`.
    """

    def __init__(
        self, steps: Steps, num_pairs: int, seed: int, num_workers: int, rank: int, world_size: int, pin: bool, drop_tail: bool = False
    ) -> None:
        self._steps, self.num_pairs, self.seed, self.num_workers = steps, num_pairs, seed, num_workers
        self.batch_size, self.rank, self.world_size = steps.batch_size, rank, world_size
        self.global_batch = self.batch_size * world_size
        self.pin, self.drop_tail = pin, drop_tail
        self._position = Position(epoch=0, offset=0)
        self._resumes = False
        self._loop: object = None  # the loop that was started last
        self._starts: list[Place] = []
        self._buffers: Buffers | None = None

    def __len__(self) -> int:
        """Steps of a whole epoch, the same on every rank, even if an epoch is resumed in the middle."""
        return self.num_pairs // self.global_batch if self.drop_tail else -(-self.num_pairs // self.global_batch)

    @property
    def epoch(self) -> int:
        """The epoch being read, or the next one."""
        return self._position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Read this epoch next, from its start. Does nothing if this epoch is next anyway, or was resumed in the middle."""
        if epoch != self.epoch:
            self._position, self._resumes = Position(epoch, 0), False

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was returned; batches that workers have prepared since do not count. JSON values."""
        return {"epoch": self._position.epoch, "offset": self._position.offset, "seed": self.seed, "global_batch": self.global_batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from that position. InputError if the seed is another, or in the middle of an epoch the global batch."""
        if state["seed"] != self.seed:
            raise InputError(
                f"the checkpoint's loader had seed={state['seed']} and this one has {self.seed}: their orders differ. "
                f"Set the seed to {state['seed']}"
            )
        if state["offset"] and state["global_batch"] != self.global_batch:
            raise InputError(
                f"the checkpoint is from the middle of an epoch with a global batch of {state['global_batch']}, and this run has "
                f"{self.batch_size} x {self.world_size} ranks = {self.global_batch}. Choose batch_size x ranks = {state['global_batch']}"
            )
        self._position, self._resumes = Position(state["epoch"], state["offset"]), True

    def __iter__(self) -> Iterator[Batch]:
        """The rest of a resumed epoch, or else a whole one. An epoch that was left early and not resumed starts again."""
        if not self._resumes:  # nothing changes before the first batch is asked for: Lightning makes iterators that it never uses
            self._position = Position(self.epoch, 0)
        self._resumes = False
        loop = self._loop = object()
        epoch, stop = self.epoch, len(self) * self.global_batch
        self._starts[:] = self._places(epoch, range(self._position.offset, stop, self.global_batch))
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
                        f"{type(self).__name__}: this loop continues after another one over the same loader was started. "
                        "Make a loader for each"
                    )

    def _places(self, epoch: int, offsets: range) -> list[Place]:
        return [(epoch, offset) for offset in offsets]

    @contextmanager
    def _fetching(self, starts: list[Place]) -> Iterator[Callable[[int], None]]:
        """What is done while the steps are read. Yields a function to call with each step that is done."""
        yield lambda number: None

    @abstractmethod
    def _note(self, batch: Batch, unread: Sequence[Any]) -> None:
        """Record what could not be read."""

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
            generator=torch.Generator(),  # its own: drawing from the global one, dropout would depend on the number of workers
        )

    def _batch(self, step: Step | InputError) -> tuple[Batch, Sequence[Any]]:
        if isinstance(step, InputError):
            raise step
        reader, target = self._steps.image, _laid(self._steps.target, step.target)
        if step.image is not None:
            image = _laid(reader, step.image)
        else:
            assert self._buffers is not None and step.buffer is not None and isinstance(reader, InPlace)
            image = self._buffers.lend(step.buffer, reader.rows_in)
        identity = None if step.identity is None else torch.from_numpy(step.identity)
        return Batch(torch.from_numpy(step.ids), _tensor(image), _tensor(target), torch.from_numpy(step.valid), identity), step.unread


class _Places:
    """The sampler of the workers: the start of each step of an epoch, with a buffer that is free when its turn comes."""

    def __init__(self, starts: list[Place], buffers: Buffers | None) -> None:
        self.starts, self.buffers = starts, buffers

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int | None, ...]]:
        if self.buffers is not None:  # by now all earlier steps have arrived, even those of an epoch that was left early
            self.buffers.reclaim()
        for start in self.starts:
            yield (*start, self.buffers.take() if self.buffers is not None else None)


def check_place(batch_size: int, rank: int, world_size: int, pin: bool) -> None:
    """InputError if there can be no such loader."""
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1")
    if not 0 <= rank < world_size:
        raise InputError(f"rank={rank} is not one of {world_size} ranks, which count from 0")
    if pin and not torch.cuda.is_available():
        raise InputError("pin=True: page-locked memory is for copies to a GPU, and torch finds no GPU here. Leave it out")


def _as_it_is(step: Any) -> Any:  # a named function, because spawned workers get it by pickle
    return step


def _laid(reader: Reader, values: np.ndarray | Sequence[str]) -> np.ndarray | Sequence[str]:
    """A reader's rows, unpacked: an in-place reader's travel as flat memory, since a pipe would change their layout."""
    return reader.rows_in(values) if isinstance(reader, InPlace) and isinstance(values, np.ndarray) else values


def _tensor(values: np.ndarray | Sequence[str]) -> Any:
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def _pinned_ahead(batches: Iterable[tuple[Batch, Sequence[Any]]]) -> Iterator[tuple[Batch, Sequence[Any]]]:
    """The batches in page-locked memory. A buffer stays in use until its copy is made: the thread refers to the batch in it."""
    device = torch.cuda.current_device()  # a new thread starts with the first GPU, and would allocate memory on it for every rank
    return map_in_threads(_pinned, batches, num_threads=1, ahead=2, begin=partial(torch.cuda.set_device, device))


def _pinned(read: tuple[Batch, Sequence[Any]]) -> tuple[Batch, Sequence[Any]]:
    batch, unread = read
    target = batch.target.pin_memory() if isinstance(batch.target, torch.Tensor) else batch.target
    identity = None if batch.identity is None else batch.identity.pin_memory()
    return Batch(batch.id.pin_memory(), batch.image.pin_memory(), target, batch.valid.pin_memory(), identity), unread
