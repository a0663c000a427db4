"""What any loader of pairs must do, as checks for your own loader: every pair once per epoch, and exactly the rest after a resume.

def make(batch_size: int, rank: int, world_size: int) -> PairLoader: ...

assert_exact_epoch(make, ids, batch_size=3, world_size=2)
assert_exact_resume(make, batch_size=3, world_size=2, world_size_after=1)
assert_exact_mixture(make, [ids_of_cc, ids_of_flickr], batch_size=3, world_size=2, num_epochs=4)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from multimodal.pairs import Batch


class Loader(Protocol):
    """What a run requires of its loader."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


MIN_SHUFFLED = 8
"""From this many pairs on, two epochs in the same order are no coincidence: there are 40,320 orders of eight."""

MakeLoader = Callable[[int, int, int], Loader]
"""(batch_size, rank, world_size) -> a loader of one rank, not yet used."""


def assert_exact_epoch(make: MakeLoader, ids: np.ndarray, batch_size: int, world_size: int, epoch: int = 0) -> None:
    """All ranks take the same number of full steps, and together they see each of ids (n,) once; padding of the last step is -1 and not
    valid, some other rows are valid, and a batch does not change while later ones are read.
    """
    seen = _seen(make, batch_size, world_size, epoch)
    assert sorted(seen) == sorted(ids.tolist()), f"{len(seen)} rows seen for {len(ids)} pairs, {len(set(seen))} of them distinct"


def assert_exact_mixture(make: MakeLoader, sets: Sequence[np.ndarray], batch_size: int, world_size: int, num_epochs: int) -> None:
    """From epoch 0 on, all ranks take the same number of full steps, each epoch sees the same number of pairs of each set, and
    no pair of a set has been seen two times more often than another.

    sets: the ids (n_s,) of each set.
    """
    ids = np.concatenate(sets)
    numbers = dict(zip(ids.tolist(), np.repeat(np.arange(len(sets)), [len(of_set) for of_set in sets]).tolist(), strict=True))
    times: Counter[int] = Counter()
    counts = []
    for epoch in range(num_epochs):
        seen = _seen(make, batch_size, world_size, epoch)
        assert set(seen) <= numbers.keys(), f"{len(set(seen) - numbers.keys())} pairs seen that are in no set"
        counts.append(np.bincount([numbers[id] for id in seen], minlength=len(sets)).tolist())
        assert counts[-1] == counts[0], f"epoch {epoch} has {counts[-1]} pairs of the sets, but epoch 0 has {counts[0]}"
        times.update(seen)
        for number, of_set in enumerate(sets):
            most, least = max(times[id] for id in of_set.tolist()), min(times[id] for id in of_set.tolist())
            assert most - least <= 1, f"after epoch {epoch}, a pair of set {number} was seen {most} times and another {least}"


def _seen(make: MakeLoader, batch_size: int, world_size: int, epoch: int) -> list[int]:
    """The ids that all ranks together see in an epoch; each rank takes the same number of full steps."""
    loaders = [make(batch_size, rank, world_size) for rank in range(world_size)]
    seen: list[int] = []
    num_valid = 0
    for rank, loader in enumerate(loaders):
        loader.set_epoch(epoch)
        batches, copies = [], []
        for batch in loader:
            batches.append(batch)
            copies.append(_copy(batch))
        changed = next((step for step, (batch, copy) in enumerate(zip(batches, copies, strict=True)) if not _equal(batch, copy)), None)
        assert changed is None, f"batch {changed} changed while later ones were read: its memory was reused too early"
        assert len(batches) == len(loader) == len(loaders[0]), f"rank {rank} took {len(batches)} steps, of {len(loaders[0])} on rank 0"
        for batch in batches:
            assert {len(batch.id), len(batch.image), len(batch.target), len(batch.valid)} == {batch_size}, "a batch is not full"
            padding = batch.id < 0
            assert not batch.valid[padding].any(), "a row of padding is marked valid"
            seen += batch.id[~padding].tolist()
            num_valid += int(batch.valid.sum())
    assert num_valid or not seen, f"{len(seen)} rows seen, and none of them is valid: nothing would be learned"
    return seen


def assert_exact_resume(make: MakeLoader, batch_size: int, world_size: int, world_size_after: int | None = None, epoch: int = 0) -> None:
    """Stopped after any number of steps, saved as JSON and loaded by other ranks, the epoch's rest and the next epoch are as they would
    have been, and the loader's length is unchanged. The next epoch has another order.

    world_size_after: ranks that resume, with a batch size that keeps the global batch; None for as many as before.
    """
    world_size_after = world_size_after or world_size
    assert batch_size * world_size % world_size_after == 0, "the global batch must divide by the ranks that resume"
    batch_size_after = batch_size * world_size // world_size_after
    expected = _steps([make(batch_size, rank, world_size) for rank in range(world_size)], epoch, num_epochs=2)
    num_steps = len(expected) // 2
    orders = [[id for step in steps for id in step.id.tolist()] for steps in (expected[:num_steps], expected[num_steps:])]
    assert orders[0] != orders[1] or len(orders[0]) < MIN_SHUFFLED, f"epochs {epoch} and {epoch + 1} have the same order"
    for num_done in range(num_steps + 1):
        before = [make(batch_size, rank, world_size) for rank in range(world_size)]
        for loader in before:
            loader.set_epoch(epoch)
            assert len(list(islice(loader, num_done))) == num_done
        states = [json.dumps(loader.state_dict(), sort_keys=True) for loader in before]
        assert len(set(states)) == 1, f"ranks disagree on their position: {states}"
        after = [make(batch_size_after, rank, world_size_after) for rank in range(world_size_after)]
        for loader in after:
            loader.load_state_dict(json.loads(states[0]))
            assert len(loader) == num_steps, f"len is {len(loader)} after a resume and {num_steps} before: it counts a whole epoch"
        rest = _steps(after, None, num_epochs=2 if 0 < num_done < num_steps else 1)
        wanted = expected[num_done:] if num_done else expected[:num_steps]
        assert len(rest) == len(wanted), f"after {num_done} steps of {num_steps}, {len(rest)} followed, expected {len(wanted)}"
        for step, (batch, other) in enumerate(zip(rest, wanted, strict=True), start=num_done):
            assert _equal(batch, other), f"resumed after {num_done} steps, step {step} is different"


def _steps(loaders: list[Loader], epoch: int | None, num_epochs: int) -> list[Batch]:
    """The global batches of some epochs: the first row of each rank, then the second of each, and so on, as positions are assigned."""
    steps: list[Batch] = []
    if epoch is not None:
        for loader in loaders:
            loader.set_epoch(epoch)
    for _ in range(num_epochs):
        steps += [_joined(parts) for parts in zip(*loaders, strict=True)]
    return steps


def _joined(parts: tuple[Batch, ...]) -> Batch:
    ids, images, texts, valid, identities = zip(*parts, strict=True)
    text = _in_turn(texts) if isinstance(texts[0], torch.Tensor) else [one for row in zip(*texts, strict=True) for one in row]
    return Batch(_in_turn(ids), _in_turn(images), text, _in_turn(valid), None if identities[0] is None else _in_turn(identities))


def _copy(batch: Batch) -> Batch:
    return Batch._make(part.clone() if isinstance(part, torch.Tensor) else part and list(part) for part in batch)


def _in_turn(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """w tensors (b, ...) -> (b * w, ...)."""
    return torch.stack(list(parts), dim=1).flatten(0, 1)


def _equal(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )
