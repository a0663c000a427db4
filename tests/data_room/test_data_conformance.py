"""The suite for loaders accepts a plain right one, and rejects each mistake with a message that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from multimodal.data.conformance import assert_exact_epoch, assert_exact_resume
from multimodal.pairs import Batch

IDS = np.arange(20)


class Plain:
    """Every pair once an epoch, in an order of the epoch's own; rank r has the positions p with p % world_size == r."""

    def __init__(self, batch_size: int, rank: int, world_size: int) -> None:
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.epoch, self.step = 0, 0

    def __len__(self) -> int:
        return -(-len(IDS) // (self.batch_size * self.world_size))

    def order(self) -> np.ndarray:
        return np.random.default_rng(self.epoch).permutation(IDS)

    def __iter__(self) -> Iterator[Batch]:
        step_size = self.batch_size * self.world_size
        padded = np.pad(self.order(), (0, self.num_steps() * step_size - len(IDS)), constant_values=-1)
        for step in range(self.step, self.num_steps()):
            self.step = step + 1
            if self.step == self.num_steps():
                self.epoch, self.step = self.epoch + 1, 0
            yield self.batch(torch.from_numpy(padded[step * step_size + self.rank : (step + 1) * step_size : self.world_size]))

    def num_steps(self) -> int:
        return -(-len(IDS) // (self.batch_size * self.world_size))

    def batch(self, ids: torch.Tensor) -> Batch:
        return Batch(ids, ids[:, None].float(), ids[:, None] * 2.0, ids >= 0)

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.step = state["epoch"], state["step"]


class OneOrder(Plain):
    def order(self) -> np.ndarray:
        return np.random.default_rng(0).permutation(IDS)


class Shrinking(Plain):
    """As long as what is left of the epoch."""

    def __len__(self) -> int:
        return self.num_steps() - self.step


class OneBuffer(Plain):
    """Writes every batch's pictures into the same memory."""

    def batch(self, ids: torch.Tensor) -> Batch:
        if not hasattr(self, "buffer"):
            self.buffer = torch.empty(len(ids), 1)
        self.buffer[:] = ids[:, None]
        return super().batch(ids)._replace(image=self.buffer)


class NoneValid(Plain):
    def batch(self, ids: torch.Tensor) -> Batch:
        return super().batch(ids)._replace(valid=torch.zeros(len(ids), dtype=torch.bool))


class PaddingCounts(Plain):
    def batch(self, ids: torch.Tensor) -> Batch:
        return super().batch(ids)._replace(valid=torch.ones(len(ids), dtype=torch.bool))


WRONG = {
    OneOrder: "epochs 0 and 1 have the same order",
    Shrinking: "len is 2 after a resume and 3 before",
    OneBuffer: "batch 0 changed while later ones were read",
    NoneValid: "20 rows seen, and none of them is valid",
    PaddingCounts: "a row of padding is marked valid",
}


def check(make: type[Plain]) -> None:
    assert_exact_epoch(make, IDS, batch_size=4, world_size=2)
    assert_exact_resume(make, batch_size=4, world_size=2, world_size_after=1)


def test_the_suite_accepts_a_right_loader() -> None:
    check(Plain)


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_the_suite_rejects_a_wrong_loader_and_says_what_is_wrong(make: type[Plain]) -> None:
    with pytest.raises(AssertionError, match=WRONG[make]):
        check(make)
