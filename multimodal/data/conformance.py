"""What any loader of pairs must do, to be called with one's own: every pair once an epoch, and exactly the rest after a resume.

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
    """What a run wants of its loader."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


MakeLoader = Callable[[int, int, int], Loader]
"""(batch_size, rank, world_size) -> a loader of one rank, not yet used."""


def assert_exact_epoch(make: MakeLoader, ids: np.ndarray, batch_size: int, world_size: int, epoch: int = 0) -> None:
    """All ranks take the same number of full steps, and together they see each of ids (n,) once; what fills the last step is -1 and not
    valid.
    """
    seen = _seen(make, batch_size, world_size, epoch)
    assert sorted(seen) == sorted(ids.tolist()), f"{len(seen)} rows seen of {len(ids)} pairs, {len(set(seen))} different ones"


def assert_exact_mixture(make: MakeLoader, sets: Sequence[np.ndarray], batch_size: int, world_size: int, num_epochs: int) -> None:
    """From epoch 0 on, all ranks take the same number of full steps, each epoch sees as many pairs of each set as any other, and of a set
    no pair has been seen twice more than another.

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
        assert counts[-1] == counts[0], f"epoch {epoch} has {counts[-1]} pairs of the sets, and epoch 0 has {counts[0]}"
        times.update(seen)
        for number, of_set in enumerate(sets):
            most, least = max(times[id] for id in of_set.tolist()), min(times[id] for id in of_set.tolist())
            assert most - least <= 1, f"after epoch {epoch}, a pair of set {number} was seen {most} times and another {least}"


def _seen(make: MakeLoader, batch_size: int, world_size: int, epoch: int) -> list[int]:
    """The ids that all ranks together see in an epoch, in full steps of equal number."""
    loaders = [make(batch_size, rank, world_size) for rank in range(world_size)]
    seen: list[int] = []
    for rank, loader in enumerate(loaders):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader) == len(loaders[0]), f"rank {rank} took {len(batches)} steps, of {len(loaders[0])} on rank 0"
        for batch in batches:
            assert {len(batch.id), len(batch.image), len(batch.text), len(batch.valid)} == {batch_size}, "a batch is not full"
            padding = batch.id < 0
            assert not batch.valid[padding].any(), "a row of padding is marked valid"
            seen += batch.id[~padding].tolist()
    return seen


def assert_exact_resume(make: MakeLoader, batch_size: int, world_size: int, world_size_after: int | None = None, epoch: int = 0) -> None:
    """Stopped after any number of steps, saved as JSON and loaded by other ranks, the epoch's rest and the next epoch are what they would
    have been.

    world_size_after: ranks that go on, with a batch size that keeps the global batch; as many as before where None.
    """
    world_size_after = world_size_after or world_size
    assert batch_size * world_size % world_size_after == 0, "the global batch must divide by the ranks that go on"
    batch_size_after = batch_size * world_size // world_size_after
    expected = _steps([make(batch_size, rank, world_size) for rank in range(world_size)], epoch, num_epochs=2)
    num_steps = len(expected) // 2
    for num_done in range(num_steps + 1):
        before = [make(batch_size, rank, world_size) for rank in range(world_size)]
        for loader in before:
            loader.set_epoch(epoch)
            assert len(list(islice(loader, num_done))) == num_done
        states = [json.dumps(loader.state_dict(), sort_keys=True) for loader in before]
        assert len(set(states)) == 1, f"ranks disagree on where they are: {states}"
        after = [make(batch_size_after, rank, world_size_after) for rank in range(world_size_after)]
        for loader in after:
            loader.load_state_dict(json.loads(states[0]))
        rest = _steps(after, None, num_epochs=2 if 0 < num_done < num_steps else 1)
        wanted = expected[num_done:] if num_done else expected[:num_steps]
        assert len(rest) == len(wanted), f"after {num_done} steps of {num_steps}, {len(rest)} followed where {len(wanted)} should"
        for step, (batch, other) in enumerate(zip(rest, wanted, strict=True), start=num_done):
            assert _equal(batch, other), f"resumed after {num_done} steps, step {step} is another one"


def _steps(loaders: list[Loader], epoch: int | None, num_epochs: int) -> list[Batch]:
    """The global batches of some epochs: the first row of each rank, then the second of each, and so on, as positions are dealt."""
    steps: list[Batch] = []
    if epoch is not None:
        for loader in loaders:
            loader.set_epoch(epoch)
    for _ in range(num_epochs):
        steps += [_joined(parts) for parts in zip(*loaders, strict=True)]
    return steps


def _joined(parts: tuple[Batch, ...]) -> Batch:
    ids, images, texts, valid = zip(*parts, strict=True)
    text = _in_turn(texts) if isinstance(texts[0], torch.Tensor) else [one for row in zip(*texts, strict=True) for one in row]
    return Batch(_in_turn(ids), _in_turn(images), text, _in_turn(valid))


def _in_turn(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """w tensors (b, ...) -> (b * w, ...)."""
    return torch.stack(list(parts), dim=1).flatten(0, 1)


def _equal(one: Batch, other: Batch) -> bool:
    same_text = (
        torch.equal(one.text, other.text)
        if isinstance(one.text, torch.Tensor) and isinstance(other.text, torch.Tensor)
        else one.text == other.text
    )
    return same_text and all(torch.equal(a, b) for a, b in ((one.id, other.id), (one.image, other.image), (one.valid, other.valid)))
