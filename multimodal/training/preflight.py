"""Before the first epoch: can this run learn 32 pairs by heart? If it cannot, it says why, in seconds instead of after a night.

    Trainer(callbacks=[Preflight(num_pairs=32, max_steps=100)])

It looks at the two sides of the pairs, then trains a copy of the towers on them. The run's own weights and random numbers stay as they are.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, distributed, nn
from torch.nn.modules.dropout import _DropoutNd

from multimodal.errors import InputError
from multimodal.objectives.base import world_size
from multimodal.pairs import Batch
from multimodal.training.datamodule import PairData
from multimodal.training.module import PairModule

RATES = (1, 10, 100)
"""Times the run's own rate: a fine-tuning rate hardly moves a loss in a hundred steps, which says nothing against the run."""
CHECK_EVERY = 5
MATCH_MARGIN = 1e-3
"""By what share pictures must fit their own texts better than others', to be sure that the loss did not fall by learning the mean text."""


class Preflight(Callback):
    """Stops a run that cannot learn, with the reason: an InputError.

    num_pairs: to learn by heart, on all ranks together. max_steps: of training on them; 0 looks at the pairs alone.
    min_fall: by what share of its first value the loss must fall, with pictures fitting their own texts better than those of others.
    A run that goes on from a checkpoint has passed before and is not asked again.
    """

    def __init__(self, num_pairs: int = 32, max_steps: int = 100, min_fall: float = 0.02) -> None:
        self.num_pairs = num_pairs
        self.max_steps = max_steps
        self.min_fall = min_fall

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step:
            return
        assert isinstance(pl_module, PairModule)
        data: PairData = trainer.datamodule  # type: ignore[attr-defined]
        own_gpu = [pl_module.device] if pl_module.device.type == "cuda" else []  # asking all of them would make a context on each
        with isolate_rng(include_cuda=False), torch.random.fork_rng(own_gpu):
            batch, unread = data.some_pairs(self.num_pairs, trainer.global_rank, trainer.world_size)
            sides = Sides(f"data.image ({data.image})", f"data.text ({data.text})")
            self._stop_on(what_is_wrong(batch, unread, sides))
            batch = trainer.strategy.batch_to_device(batch, pl_module.device)
            with trainer.precision_plugin.train_step_context():
                check_dimensions(pl_module, batch, sides)
                if self.max_steps:
                    self._learn(pl_module, batch)

    def _learn(self, module: PairModule, batch: Batch) -> None:
        tries = []
        for times in RATES:
            rate = module.optimiser.lr * times
            for fit in learn_by_heart(module, batch, rate, self.max_steps):
                if fit.fall >= self.min_fall and fit.tells_apart:
                    if times > 1:
                        told = (
                            f"the loss hardly moves in {self.max_steps} steps at optimiser.lr={module.optimiser.lr:g}; at {rate:g} it falls"
                        )
                        print(f"preflight: {told}", file=sys.stderr)
                    return
            tries.append(f"at rate {rate:g} {fit}")
            if not math.isfinite(fit.now):
                break
        raise InputError(
            f"preflight: {self.num_pairs} pairs could not be learnt by heart in {self.max_steps} steps: {'; '.join(tries)}. "
            "Look at the rate, and at whether the two sides of a pair belong together. To look at the pairs alone: --preflight.max_steps 0"
        )

    @staticmethod
    def _stop_on(reason: str | None) -> None:
        """Stop on every rank where one has a reason; one alone would leave the others waiting."""
        reasons = [reason]
        if world_size() > 1:
            reasons = [None] * world_size()
            distributed.all_gather_object(reasons, reason)
        for rank_reason in reasons:
            if rank_reason is not None:
                raise InputError(f"preflight: {rank_reason}")


@dataclass(frozen=True, slots=True)
class Sides:
    """How a message names the two sides of a batch."""

    image: str
    text: str


@dataclass(frozen=True, slots=True)
class Fit:
    """How far the pairs are learnt: the loss at first and now, and now with each picture given the text of another one."""

    first: float
    now: float
    swapped: float

    @property
    def fall(self) -> float:
        """Share of the first loss that is gone; NaN where the loss is."""
        return (self.first - self.now) / max(abs(self.first), 1e-12)

    @property
    def tells_apart(self) -> bool:
        return self.now < self.swapped - MATCH_MARGIN * abs(self.swapped)

    def __str__(self) -> str:
        if not math.isfinite(self.now):
            return f"the loss went from {self.first:.4g} beyond all numbers"
        apart = "" if self.tells_apart else f", and is no lower than with the texts of other pictures ({self.swapped:.4g})"
        return f"the loss went from {self.first:.4g} to {self.now:.4g}{apart}"


def what_is_wrong(batch: Batch, unread: str, sides: Sides) -> str | None:
    """Why nothing can be learnt from these pairs, read off the two sides alone; None where there is no such reason."""
    valid = batch.valid
    if not valid.any():
        return f"none of {int((batch.id >= 0).sum())} pairs can be used: {unread}"
    if valid.sum() == 1:
        return None  # one row is constant by nature
    if _is_constant(batch.image[valid]):
        return f"{sides.image} gives the same for all of {int(valid.sum())} pictures"
    if isinstance(batch.text, Tensor):
        if not batch.text[valid].any():
            return f"{sides.text} is zero for all of {int(valid.sum())} pairs: no text has a word that its space knows"
        if _is_constant(batch.text[valid]):
            return f"{sides.text} is the same for all of {int(valid.sum())} pairs: the target is constant"
    elif len({text for text, ok in zip(batch.text, valid.tolist(), strict=True) if ok}) == 1:
        return f"{sides.text} is the same for all of {int(valid.sum())} pairs"
    return None


def check_dimensions(module: PairModule, batch: Batch, sides: Sides) -> None:
    """InputError where a side does not fit its tower, or the two towers do not fit each other; says which has which dimension."""
    for key, tower, rows, side in (
        ("model.image_tower", module.image_tower, batch.image, sides.image),
        ("model.text_side", module.text_side, batch.text, sides.text),
    ):
        wanted = getattr(tower, "dim_in", None)
        if wanted is not None and not (isinstance(rows, Tensor) and rows.ndim == 2 and rows.shape[1] == wanted):
            found = f"{tuple(rows.shape[1:])} a pair" if isinstance(rows, Tensor) else "strings"
            if isinstance(rows, Tensor) and rows.ndim == 2:
                found = f"{rows.shape[1]} numbers a pair. Set {key}.init_args.dim_in: {rows.shape[1]}"
            raise InputError(f"preflight: {key} takes {wanted} numbers a pair, and {side} gives {found}")
    towers = _copies(module).eval()
    with torch.no_grad():
        try:
            image, text = towers[0](batch.image), towers[1](batch.text)
        except ValueError as error:
            raise InputError(f"preflight: {error}") from None
    if not isinstance(text, Tensor):
        raise InputError(
            f"preflight: {sides.text} gives strings, and model.text_side does not turn them into numbers. Use multimodal.towers.TextTower"
        )
    if image.shape[1:] != text.shape[1:]:
        raise InputError(
            f"preflight: model.image_tower gives {image.shape[-1]} numbers and the text side {text.shape[-1]}: {sides.text}, "
            f"model.text_side {type(module.text_side).__name__}. Set model.image_tower's dim_out: {text.shape[-1]}"
        )


def learn_by_heart(module: PairModule, batch: Batch, rate: float, max_steps: int) -> Iterator[Fit]:
    """Train a copy of the module's towers on one batch, again and again, and tell every few steps how far it is."""
    towers = _copies(module).train()
    for part in towers.modules():
        if isinstance(part, _DropoutNd):  # its noise would look like a loss that falls
            part.p = 0.0
    image_tower, text_side, objective = towers
    optimizer = replace(module.optimiser, lr=rate).optimizer(towers.parameters())
    other, other_valid = _swapped(batch)
    first = None
    for step in range(max_steps + 1):
        image, text = image_tower(batch.image), text_side(batch.text)
        try:
            loss, _ = objective(image, text, batch.valid)
        except ValueError as error:
            raise InputError(f"preflight: {error}") from None
        first = loss.item() if first is None else first
        if step and (step % CHECK_EVERY == 0 or step == max_steps or not torch.isfinite(loss)):
            with torch.no_grad():
                swapped, parts = objective(image, text[other], other_valid)
            yield Fit(first, loss.item(), swapped.item() if parts["rows"] else float("inf"))
            if not torch.isfinite(loss):  # the same on all ranks, as the loss is
                return
        optimizer.zero_grad()
        loss.backward()
        _average_gradients(towers)
        optimizer.step()


def _copies(module: PairModule) -> nn.ModuleList:
    return copy.deepcopy(nn.ModuleList([module.image_tower, module.text_side, module.objective]))


def _swapped(batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows (b,) that give each pair the text of another one, and where both are valid."""
    other = torch.arange(len(batch.valid), device=batch.valid.device).roll(1)
    return other, batch.valid & batch.valid[other]


def _average_gradients(towers: nn.ModuleList) -> None:
    """What DistributedDataParallel does to the run's own towers."""
    if world_size() > 1:
        for parameter in towers.parameters():
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= world_size()


def _is_constant(rows: Tensor) -> bool:
    return bool((rows == rows[:1]).all())
