"""The one LightningModule: an image tower, a text side and an objective, each handed in.

    module = PairModule(Head(1280, 40), nn.Identity(), SoftCrossEntropy(), AdamWCosine(lr=1e-3))

Where the text is a column of targets the text side is `nn.Identity`; a contrastive run has a head over
an encoder's column, or a text tower over strings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from multimodal.errors import InputError
from multimodal.metrics import chance_recall_at, ranks, recall_at
from multimodal.objectives import Objective
from multimodal.pairs import Batch

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)  # without slots, which jsonargparse cannot read a default from
class AdamWCosine:
    """AdamW whose rate rises in a straight line and then falls along half a cosine to zero, at the run's last step.

    lr: the highest rate.
    weight_decay: of matrices and kernels alone; biases, norms and scales (anything of fewer than two dimensions) have none.
    warmup_steps: optimiser steps until the highest rate.
    betas: AdamW's.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 20
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise InputError(f"optimiser.lr={self.lr} must be above 0")
        if self.weight_decay < 0 or self.warmup_steps < 0:
            raise InputError(f"optimiser: weight_decay={self.weight_decay} and warmup_steps={self.warmup_steps} must not be negative")

    def groups(self, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
        """The parameters that train, in two groups for an optimiser: with weight decay and without."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        decayed = [parameter for parameter in trained if parameter.ndim >= 2]
        others = [parameter for parameter in trained if parameter.ndim < 2]
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        groups = self.groups(parameters)
        if not groups:
            raise InputError("no parameter of the towers, the text side or the objective trains: all are frozen")
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas)


DEFAULT_OPTIMISER = AdamWCosine()


def warmup_cosine(step: int, num_steps: float, warmup_steps: int) -> float:
    """The share of the highest rate at an optimiser step, counted from 0: (0, 1] while warming up, then down to 0 at step num_steps."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1.0, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a validation made of its pairs, those of all ranks, in the order of their ids. Pairs that could not be read are left out.

    ids: (n,) int64, in the shard set. image: (n, d) float32, what the pictures mean (`objective.output`). text: (n, d) float32.
    """

    ids: np.ndarray
    image: np.ndarray
    text: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class PairModule(L.LightningModule):
    """Learns from pairs, and tells by retrieval among held-out pairs how well.

    image_tower: `batch.image` -> (b, d). text_side: `batch.text` -> (b, d). objective: see `multimodal.objectives`.
    No hyper-parameters are saved: a checkpoint holds tensors and numbers, read with `weights_only=True`. What made it is in config.yaml.
    """

    def __init__(
        self, image_tower: nn.Module, text_side: nn.Module, objective: Objective, optimiser: AdamWCosine = DEFAULT_OPTIMISER
    ) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_side = text_side
        self.objective = objective
        self.optimiser = optimiser
        self.held_out: HeldOut | None = None
        """Of the last validation, from its end until the next one begins."""
        self._validated: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._num_accumulated: Tensor | int = 0
        """Rows of the batches whose gradients are being accumulated, of all ranks."""

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8 or (b, d) features -> (b, d), what the picture means, as a store holds it."""
        return self.objective.output(self.image_tower(image))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, parts = self.objective(self.image_tower(batch.image), self.text_side(batch.text), batch.valid)
        self.log_dict({f"train/{name}": value for name, value in parts.items()}, batch_size=len(batch.image))
        if self.trainer.accumulate_grad_batches == 1:
            return loss
        # The mean over all rows of the batches together, as of one large batch: batches have different numbers of valid rows, and an
        # epoch's last step has fewer batches. So their sums are accumulated, and divided by the number of rows before the step.
        self._num_accumulated = self._num_accumulated + parts["rows"]
        return loss * parts["rows"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        image, text = self.image_tower(batch.image), self.text_side(batch.text)
        _, parts = self.objective(image, text, batch.valid)
        # Every rank holds the figures of the whole batch, so nothing is left to reduce. An epoch's mean weighs a batch by its valid rows.
        self.log("val/loss", parts["loss"], batch_size=int(parts["rows"]))
        self._validated.append((batch.id, self.objective.output(image).float(), text.float(), batch.valid))

    def on_validation_epoch_start(self) -> None:
        self.held_out = None
        self._validated.clear()

    def on_validation_epoch_end(self) -> None:
        ids, image, text, valid = (torch.cat(parts) for parts in zip(*self._validated, strict=True))
        self._validated.clear()
        if self.trainer.world_size > 1:
            ids, image, text, valid = (self._of_all_ranks(part) for part in (ids, image, text, valid))
        ids = ids[valid]
        order = torch.argsort(ids)  # ranks hold slices of each batch; whoever looks must not see how many there are
        self.held_out = HeldOut(ids[order].cpu().numpy(), *(rows[valid][order].cpu().numpy() for rows in (image, text)))
        figures = retrieval_figures(self.held_out)
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, rank_zero_only=False, sync_dist=False)

    def _of_all_ranks(self, rows: Tensor) -> Tensor:
        gathered = self.all_gather(rows)  # (ranks, b, ...); padding keeps b the same on all
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        accumulate: int = self.trainer.accumulate_grad_batches
        if accumulate > 1:  # Lightning has divided each batch's loss by it
            share = accumulate / torch.as_tensor(self._num_accumulated).clamp(min=1)
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad *= share.to(parameter.grad)
            self._num_accumulated = 0
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.trainer.global_step + 1) % every == 0:  # each figure costs a third of a millisecond
            self.log("train/lr", optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        optimizer = self.optimiser.optimizer(self.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, self._num_steps(), self.optimiser.warmup_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _num_steps(self) -> float:
        """Optimiser steps of the whole run; infinite until the loaders are there.

        Before that the schedule is asked for step 0 alone, which does not depend on it. Lightning's `estimated_stepping_batches` sets the
        loaders up by itself, too early for a checkpoint's state to reach them (2.6).
        """
        trainer = self.trainer
        steps: float = math.inf
        if trainer.max_epochs is not None and trainer.max_epochs >= 0 and trainer.num_training_batches < math.inf:
            steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches) * trainer.max_epochs
        return min(steps, trainer.max_steps) if trainer.max_steps >= 0 else steps


def retrieval_figures(held_out: HeldOut) -> dict[str, float]:
    """How well texts find their own pictures among those of all n pairs, by cosine.

    R@k in per cent and the median rank, each with what chance gives: k of n, and the middle of n. Empty where n is 0.
    """
    num = len(held_out)
    if not num:
        return {}
    first = ranks(held_out.text, held_out.image, np.arange(num))
    recall = {f"R@{k}": 100 * recall_at(first, k) for k in RECALL_AT}
    chance = {f"chance_R@{k}": 100 * chance_recall_at(num, k) for k in RECALL_AT}
    return {**recall, **chance, "median_rank": float(np.median(first)), "chance_median_rank": (num + 1) / 2, "num_pairs": float(num)}
