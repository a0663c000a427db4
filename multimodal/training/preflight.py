"""Before the first epoch: can the model overfit 32 pairs? If not, the run stops with the reason, in seconds instead of after a night.

    Trainer(callbacks=[Preflight(num_pairs=32, max_steps=100)])

It inspects the two sides of the pairs, then trains a copy of the towers on them. The run's own weights and random state do not change.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, distributed, nn

from multimodal.data import Side
from multimodal.data.sides import column_names
from multimodal.errors import InputError
from multimodal.export.exportable import check_exportable
from multimodal.objectives.base import world_size
from multimodal.pairs import Batch
from multimodal.shards import Column, JoinedShards, ShardSet
from multimodal.training.datamodule import PairData
from multimodal.training.micro_batches import encode
from multimodal.training.module import PairModule, loss_of
from multimodal.training.optimisers import averages

RATES = (1, 10, 100)
"""Factors on the run's own rate: a fine-tuning rate hardly moves a loss in a hundred steps, though the run may be fine."""
CHECK_EVERY = 5
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
MATCH_MARGIN = 1e-3
"""By what share pictures must fit their own texts better than others', to rule out that the model only learned the mean text."""


class Preflight(Callback):
    """Stops a run that cannot learn, with an InputError that gives the reason.

    num_pairs: pairs to overfit, on all ranks together. max_steps: training steps on them; 0 only inspects the pairs.
    min_fall: the share of its first value by which the loss must fall, with pictures fitting their own texts better than those of others.
    export: refuse a run that `multimodal export` would refuse after training; false trains it anyway.
    A run that resumes from a checkpoint has passed before and is not checked again.
    """

    def __init__(self, num_pairs: int = 32, max_steps: int = 100, min_fall: float = 0.02, export: bool = True) -> None:
        self.num_pairs = num_pairs
        self.max_steps = max_steps
        self.min_fall = min_fall
        self.export = export

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step:
            return
        assert isinstance(pl_module, PairModule)
        data: PairData = trainer.datamodule  # type: ignore[attr-defined]
        own_gpu = [pl_module.device] if pl_module.device.type == "cuda" else []  # all of them would mean a context on each
        with isolate_rng(include_cuda=False), torch.random.fork_rng(own_gpu):
            batch, unread = data.some_pairs(self.num_pairs, trainer.global_rank, trainer.world_size)
            sides = Sides(f"data.image ({data.image})", f"data.target ({data.target})")
            self._stop_on(what_is_wrong(batch, unread, sides))
            if self.export:
                check_export(pl_module, data)
            batch = trainer.precision_plugin.convert_input(trainer.strategy.batch_to_device(batch, pl_module.device))
            with trainer.precision_plugin.train_step_context():
                check_dimensions(pl_module, batch, sides)
                if self.max_steps:
                    self._learn(pl_module, batch)

    def _learn(self, module: PairModule, batch: Batch) -> None:
        tries, own = [], highest_rate(module.optimiser.optimizer(module))
        for times in RATES:
            for fit in overfit(module, batch, times, self.max_steps):
                if fit.fall >= self.min_fall and fit.tells_apart:
                    if times > 1:
                        warning = (
                            f"the loss hardly falls in {self.max_steps} steps at the run's rate of {own:g}; at {own * times:g} it does"
                        )
                        print(f"preflight: {warning}", file=sys.stderr)
                    return
            tries.append(f"at rate {own * times:g} {fit}")
            if not math.isfinite(fit.now):
                break
        raise InputError(
            f"preflight: the model could not overfit {self.num_pairs} pairs in {self.max_steps} steps: {'; '.join(tries)}. "
            "Check the learning rate, and whether the two sides of a pair belong together. To skip this training: --preflight.max_steps 0"
        )

    @staticmethod
    def _stop_on(reason: str | None) -> None:
        """Stop every rank if one has a reason; stopping one alone would leave the others waiting."""
        reasons = [reason]
        if world_size() > 1:
            reasons = [None] * world_size()
            distributed.all_gather_object(reasons, reason)
        for rank_reason in reasons:
            if rank_reason is not None:
                raise InputError(f"preflight: {rank_reason}")


@dataclass(frozen=True, slots=True)
class Sides:
    """The names of a batch's two sides in messages."""

    image: str
    target: str


@dataclass(frozen=True, slots=True)
class Fit:
    """How well the pairs are fitted: the loss at first and now, and now with each picture given the target of another one."""

    first: float
    now: float
    swapped: float

    @property
    def fall(self) -> float:
        """The share of its first value by which the loss fell; NaN if the loss is."""
        return (self.first - self.now) / max(abs(self.first), 1e-12)

    @property
    def tells_apart(self) -> bool:
        return self.now < self.swapped - MATCH_MARGIN * abs(self.swapped)

    def __str__(self) -> str:
        if not math.isfinite(self.now):
            return f"the loss went from {self.first:.4g} to infinity or NaN"
        apart = "" if self.tells_apart else f", and is no lower than with the targets of other pictures ({self.swapped:.4g})"
        return f"the loss went from {self.first:.4g} to {self.now:.4g}{apart}"


def what_is_wrong(batch: Batch, unread: str, sides: Sides) -> str | None:
    """Why nothing can be learned from these pairs, judged by the two sides alone; None if there is no such reason."""
    valid = batch.valid
    if not valid.any():
        return f"none of {int((batch.id >= 0).sum())} pairs can be used: {unread}"
    if valid.sum() == 1:
        return None  # a single row is always constant
    if _is_constant(batch.image[valid]):
        return f"{sides.image} gives the same values for all {int(valid.sum())} pictures"
    if isinstance(batch.target, Tensor) and not batch.target.is_floating_point():
        if _is_constant(batch.target[valid]):
            return f"{sides.target} is the same for all {int(valid.sum())} pairs, so nothing tells them apart"
    elif isinstance(batch.target, Tensor):
        if not batch.target[valid].any():
            return f"{sides.target} is zero for all {int(valid.sum())} pairs: no text has a word that its space knows"
        if _is_constant(batch.target[valid]):
            return f"{sides.target} is the same for all {int(valid.sum())} pairs: the target is constant"
    elif len({target for target, ok in zip(batch.target, valid.tolist(), strict=True) if ok}) == 1:
        return f"{sides.target} is the same for all {int(valid.sum())} pairs"
    return None


def check_export(module: PairModule, data: PairData) -> None:
    """InputError, from the same function that `multimodal export` calls, if this run could not be exported."""
    image, target = (_column(data.shards, side) for side in (data.image, data.target))
    side = module.target_side if module.objective.compares_with_texts else None
    try:
        check_exportable(module.image_tower, side, image, target)
    except InputError as reason:
        raise InputError(
            f"preflight: this run could be trained but not exported: {reason}. To train it anyway: --preflight.export false"
        ) from None


def _column(shards: ShardSet | JoinedShards, side: Side) -> Column | None:
    """The column that a side reads; for several sets that of the first, since it means the same in all."""
    names = list(column_names(side))
    return next(iter(JoinedShards.of(shards).columns(names[0]).values())) if names else None


def check_dimensions(module: PairModule, batch: Batch, sides: Sides) -> None:
    """InputError, with the dimensions, if a side does not fit its tower, or the two towers do not fit each other."""
    for key, tower, rows, side in (
        ("model.image_tower", module.image_tower, batch.image, sides.image),
        ("model.target_side", module.target_side, batch.target, sides.target),
    ):
        wanted = getattr(tower, "dim_in", None)
        if wanted is not None and not (isinstance(rows, Tensor) and rows.ndim == 2 and rows.shape[1] == wanted):
            found = f"shape {tuple(rows.shape[1:])} per pair" if isinstance(rows, Tensor) else "strings"
            if isinstance(rows, Tensor) and rows.ndim == 2:
                found = f"{rows.shape[1]} numbers per pair. Set {key}.init_args.dim_in: {rows.shape[1]}"
            raise InputError(f"preflight: {key} takes {wanted} numbers per pair, but {side} gives {found}")
    towers = _copies(module).eval()
    if not module.objective.compares_with_texts:
        return  # labels fit vectors of any dimension, and a pretext objective says itself what it takes
    with torch.no_grad():
        try:
            image, target = towers["image_tower"](batch.image), towers["target_side"](batch.target)
        except ValueError as error:
            raise InputError(f"preflight: {error}") from None
    if not isinstance(target, Tensor):
        raise InputError(
            f"preflight: {sides.target} gives strings, which model.target_side does not turn into numbers. Use multimodal.towers.TextTower"
        )
    if image.shape[1:] != target.shape[1:]:
        raise InputError(
            f"preflight: model.image_tower gives {image.shape[-1]} numbers, but the target side gives {target.shape[-1]}: {sides.target}, "
            f"model.target_side {type(module.target_side).__name__}. Set model.image_tower's dim_out: {target.shape[-1]}"
        )


def highest_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rates of an optimiser's groups."""
    return float(max(group["lr"] for group in optimizer.param_groups))


def overfit(module: PairModule, batch: Batch, times: float, max_steps: int) -> Iterator[Fit]:
    """Train a copy of the module's towers on one batch repeatedly, and yield the fit every few steps.

    times: a factor on the run's own rates.
    """
    towers = _copies(module).train()
    for part in towers.modules():
        if isinstance(part, DROPOUTS):  # its noise could look like a falling loss
            part.p = 0.0
    image_tower, target_side, objective = towers.values()
    optimizer: Any = module.optimiser.optimizer(towers)
    for group in optimizer.param_groups:
        group["lr"] *= times
    if averages(optimizer):
        optimizer.train()
    other, exchanged = _swapped(batch)
    first = None
    for step in range(max_steps + 1):
        image = encode(image_tower, batch.image, module.micro_batch_size)
        target: Any = batch.target
        if module.objective.compares_with_texts:
            target = encode(target_side, batch.target, module.micro_batch_size)
        try:
            loss, _ = loss_of(objective, image, target, batch)
        except ValueError as error:
            raise InputError(f"preflight: {error}") from None
        first = loss.item() if first is None else first
        if step and (step % CHECK_EVERY == 0 or step == max_steps or not torch.isfinite(loss)):
            with torch.no_grad():
                swapped, parts = loss_of(objective, image, target[other], exchanged)
            yield Fit(first, loss.item(), swapped.item() if parts["rows"] else float("inf"))
            if not torch.isfinite(loss):  # the same on all ranks, like the loss
                return
        optimizer.zero_grad()
        loss.backward()
        _average_gradients(towers)
        optimizer.step()


def _copies(module: PairModule) -> nn.ModuleDict:
    """Parameters by their names in the module, which decide their rates."""
    return copy.deepcopy(nn.ModuleDict({name: getattr(module, name) for name in ("image_tower", "target_side", "objective")}))


def _swapped(batch: Batch) -> tuple[Tensor, Batch]:
    """Rows (b,) that give each pair the target of another one, and the batch with the validity and identity of the pairs then."""
    num, device = len(batch.valid), batch.valid.device
    other = torch.arange(num, device=device).roll(1)
    if isinstance(batch.target, Tensor) and batch.target.ndim == 1:  # of labels in turn, the next one's would only rename the classes
        other = torch.randperm(num, generator=torch.Generator().manual_seed(0)).to(device)
    identity = None if batch.identity is None else torch.stack([batch.identity[:, 0], batch.identity[other, 1]], dim=1)
    return other, batch._replace(valid=batch.valid & batch.valid[other], identity=identity)


def _average_gradients(towers: nn.ModuleDict) -> None:
    """Averages gradients over ranks, as DistributedDataParallel does for the run's own towers."""
    if world_size() > 1:
        for parameter in towers.parameters():
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= world_size()


def _is_constant(rows: Tensor) -> bool:
    return bool((rows == rows[:1]).all())
