"""Batches of streamed tars: read from front to back, anywhere, without an index.

    tars = tars_of("s3://bucket/cc12m/{00000..01242}.tar")
    loader = StreamLoader(tars, Stream(num_pairs=1_000_000), Pixels(224), Captions(), batch_size=64, seed=0, num_workers=4)
    for batch in loader: ...

Every worker of every rank draws its own tars, and holds some pairs, of which it gives a random one and reads the next (webdataset's
shuffle). All random choices are functions of (seed, epoch, where the loop began in it, rank, worker), so that the same loop gives the same
batches. But pairs may come twice in an epoch or not at all, and an epoch that is resumed in the middle draws its rest anew. `PairLoader` is
exact; it needs an index.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import PurePosixPath
from typing import Any, cast

import numpy as np
from torch.utils.data import get_worker_info

from multimodal.data.sides import Captions, Pixels, Side
from multimodal.data.steps import Place, Step, StepLoader, Steps, check_place
from multimodal.errors import InputError, needing
from multimodal.pairs import Batch, Pair
from multimodal.shards import Ledger, ShardSet
from multimodal.shards.ledger import Bad
from multimodal.shards.scan import OpenTar
from multimodal.shards.streamed import Streamed, Wanted, every_pair, open_tar, pairs_in

MAX_EMPTY = 20
"""So many tars in a row without a pair to train on end the run."""
PLACE_BITS = 32
"""A pair's id is its tar's number in the list, shifted by these bits, and which sample of the tar it is."""


@dataclass(frozen=True)
class Stream:
    """How tars are streamed, when data.shards is a pattern of tars.

    num_pairs: the pairs of an epoch, of all ranks together, rounded up to whole batches; to be given, as nobody has counted them.
    resample: each worker draws its tars at random, with replacement. false: all workers together read every tar once, in shuffled order,
    before any comes again.
    buffer: the encoded pairs that each worker holds to draw from; more mix better, and take more memory.
    validation_pairs: how many pairs to validate on: the first of the stream that the split gives to validation, copied into the cache.
    """

    num_pairs: int | None = None
    resample: bool = True
    buffer: int = 2000
    validation_pairs: int = 1000

    def __post_init__(self) -> None:
        for name in ("num_pairs", "buffer", "validation_pairs"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"stream: {name}={value} must be at least 1")


class StreamLoader(StepLoader):
    """A plain iterable of `Batch`, all of batch_size rows, as many on every rank.

    tars: paths or URLs. image, target: `Pixels` and `Captions`; other sides read by id. wanted: which pairs are trained on. ledger: where
    unreadable pairs are listed, each once; the caller closes it. A sample without a picture or a text is not in a batch; a pair whose
    picture does not decode is an invalid row. A tar that cannot be read at all is an InputError. Other arguments as of `PairLoader`.
    A batch's id is (number of the tar) * 2**32 + (number of the sample in it).
    """

    _steps: _StreamSteps

    def __init__(
        self,
        tars: Sequence[str],
        stream: Stream,
        image: Side,
        target: Side,
        batch_size: int,
        seed: int,
        wanted: Wanted = every_pair,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin: bool = False,
        ledger: Ledger | None = None,
    ) -> None:
        check_place(batch_size, rank, world_size, pin)
        check_sides(image, target)
        if stream.num_pairs is None:
            raise InputError(
                "data.stream.num_pairs is not set: tars do not say how many pairs they have. Set the number of pairs of an epoch"
            )
        steps = _StreamSteps(tars, stream, image, target, batch_size, seed, wanted, rank, world_size)
        super().__init__(steps, stream.num_pairs, seed, num_workers, rank, world_size, pin)
        self.ledger = ledger
        self._named: set[tuple[str, str]] = set()
        self.is_exact = True
        """Whether what was loaded by `load_state_dict` is continued exactly: on as many ranks and workers, from the start of an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """See `StepLoader`."""
        return {**super().state_dict(), "layout": [self.world_size, self.num_workers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the step after that position. In the middle of an epoch its other pairs are drawn anew, see `is_exact`."""
        super().load_state_dict(state)
        self.is_exact = not state["offset"] and state["layout"] == [self.world_size, self.num_workers]

    def _places(self, epoch: int, offsets: range) -> list[Place]:
        return [(epoch, offset, offsets.start) for offset in offsets]

    def _note(self, batch: Batch, unread: Sequence[Bad]) -> None:
        if self.ledger is None:
            return
        self.ledger.good(int(batch.valid.sum()))
        for bad in unread:
            if (bad.where, bad.key) not in self._named:
                self._named.add((bad.where, bad.key))
                self.ledger.bad(bad.where, bad.key, bad.reason)


def check_sides(image: Side, target: Side) -> None:
    """InputError if a side reads by id."""
    for name, side in (("image", image), ("target", target)):
        if not isinstance(side, Pixels | Captions):
            raise InputError(
                f"data.{name}={side}: cannot be used with streamed tars, whose pairs have no ids; only Pixels and Captions can. "
                "For columns and controls, index the tars: multimodal shards index PATTERN"
            )


@dataclass
class _Window:
    """The pairs of a batch by their rows, as much of a `ShardSet` as Pixels and Captions read."""

    pairs: Sequence[Pair] = ()

    def image_bytes(self, row: int) -> bytes:
        return self.pairs[row].image

    def texts(self, row: int) -> tuple[str, ...]:
        return self.pairs[row].texts


class _StreamSteps(Steps):
    """(epoch, offset, begin) -> the next batch of a worker's stream. begin: the offset of the loop's first step, where streams begin."""

    def __init__(
        self,
        tars: Sequence[str],
        stream: Stream,
        image: Side,
        target: Side,
        batch_size: int,
        seed: int,
        wanted: Wanted,
        rank: int,
        world_size: int,
    ) -> None:
        self.window = _Window()
        rows, shards = np.arange(batch_size), cast(ShardSet, self.window)
        super().__init__(image.open(shards, rows), target.open(shards, rows), batch_size)
        self.tars, self.stream, self.seed, self.wanted = tars, stream, seed, wanted
        self.rank, self.world_size = rank, world_size
        self.names = short_names(tars)
        self._reading: _Reading | None = None

    def step(self, place: Place, buffer: int | None) -> Step:
        epoch, offset, begin = place
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info is not None else (0, 1)
        # torch gives the steps of a loop to its workers in turn, from the first worker on.
        if self._reading is None or offset == begin + worker * self.batch_size * self.world_size:
            number, of = self.rank * num_workers + worker, self.world_size * num_workers
            self._reading = _Reading(self, f"{self.seed} {epoch} {begin}", number, of)
        return self._step(self._reading, buffer)

    def _step(self, reading: _Reading, buffer: int | None) -> Step:
        drawn = list(islice(reading.pairs, self.batch_size))
        self.window.pairs = [streamed.pair for _, streamed in drawn]
        rows = np.arange(len(drawn))
        image, target = (
            self.read(read, rows, reading.words(len(rows)), into) for read, into in ((self.image, buffer), (self.target, None))
        )
        unread = reading.take_bad()
        for side in (image, target):
            for row, reason in zip(np.flatnonzero(~side.ok).tolist(), side.reasons, strict=True):
                unread.append(Bad(self.names[drawn[row][0]], drawn[row][1].key, reason))
        ids = np.array([(number << PLACE_BITS) + streamed.place for number, streamed in drawn], np.int64)
        return Step(ids, image.values if buffer is None else None, target.values, image.ok & target.ok, unread, buffer)


class _Reading:
    """What one worker reads in one loop. pairs: (number of the tar, pair), without end.

    loop: what all workers of the loop have in common. number, of: which worker of how many, on all ranks.
    """

    def __init__(self, steps: _StreamSteps, loop: str, number: int, of: int) -> None:
        with needing("train", "streamed tars"):
            import webdataset as wds
        self._steps, self._loop, self._number, self._of = steps, loop, number, of
        self._random = random.Random(f"{loop} {number} {of}")
        self._bad: list[Bad] = []
        size = steps.stream.buffer
        self.pairs: Iterator[tuple[int, Streamed]] = iter(wds.shuffle(size, initial=-(-size // 2), rng=self._random)(self._read()))

    def words(self, num: int) -> np.ndarray:
        """(num,) uint64, random."""
        return np.array([self._random.getrandbits(64) for _ in range(num)], np.uint64)

    def take_bad(self) -> list[Bad]:
        """What was found to be no pair since the last time."""
        bad, self._bad = self._bad, []
        return bad

    def _read(self) -> Iterator[tuple[int, Streamed]]:
        num_empty = 0
        for number in self._resampled() if self._steps.stream.resample else self._in_passes():
            num_empty += 1
            for streamed in self._pairs(number):
                num_empty = 0
                yield number, streamed
            if num_empty >= MAX_EMPTY:
                why = f", for example {self._bad[-1]}" if self._bad else ": all are held out"
                raise InputError(f"{self._steps.tars[number]}: like {num_empty - 1} tars before it, it has no pair to train on{why}")

    def _pairs(self, number: int) -> Iterator[Streamed]:
        where = self._steps.tars[number]
        try:
            tar = OpenTar(open_tar(where))
            for streamed in pairs_in(tar, self._steps.wanted):
                if streamed is not None:
                    yield streamed
                self._take_bad_of(tar, number)
        except OSError as error:
            raise InputError(f"{where}: cannot be read: {error.strerror or error}. Restore it, or name the other tars only") from error
        self._take_bad_of(tar, number)

    def _take_bad_of(self, tar: OpenTar, number: int) -> None:
        self._bad += [replace(bad, where=self._steps.names[number]) for bad in tar.bad]
        tar.bad.clear()

    def _resampled(self) -> Iterator[int]:
        while True:
            yield self._random.randrange(len(self._steps.tars))

    def _in_passes(self) -> Iterator[int]:
        """Each pass has an order of its own, which the workers take in turn."""
        for one in count():
            order = list(range(len(self._steps.tars)))
            random.Random(f"{self._loop} pass {one}").shuffle(order)
            first = (self._number - one * len(order)) % self._of
            yield from order[first :: self._of]


def short_names(tars: Sequence[str]) -> list[str]:
    """The tars' names without the folders that all have in common."""
    parts = [PurePosixPath(tar).parts for tar in tars]
    folders = [one[:-1] for one in parts]
    common = 0
    while all(len(one) > common and one[common] == folders[0][common] for one in folders):
        common += 1
    return ["/".join(one[common:]) for one in parts]
