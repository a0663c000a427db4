"""The one LightningModule: an image tower, a target side and an objective, each handed in.

    module = PairModule(Head(1280, 40), nn.Identity(), SoftCrossEntropy(), AdamWCosine(lr=1e-3))

The target is what a picture is taught by. If it is a column of targets, the target side is `nn.Identity`; a contrastive run has a head over
an encoder's column, or a text tower over strings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from jsonargparse import lazy_instance
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from multimodal.data import ViewsTarget
from multimodal.errors import InputError
from multimodal.metrics import chance_recall_at, ranks, recall_at, same_class
from multimodal.objectives import Objective
from multimodal.objectives.base import Distance, Parts, gather
from multimodal.pairs import Batch
from multimodal.training.datamodule import PairData
from multimodal.training.micro_batches import check_rows_are_independent, encode
from multimodal.training.optimisers import AdamWCosine, Optimiser, averaged, averages

RECALL_AT = (1, 5, 10)
MAX_QUERIES = 2000
"""Validation pictures that look for their class, evenly drawn; a few thousand tell MAP@R to a point."""
TRAINED = "trained_weights"
"""Where a checkpoint holds the weights to resume from if its `state_dict` holds their average."""
DEFAULT_OPTIMISER: Optimiser = lazy_instance(AdamWCosine)
"""The default: `optimiser: {lr: 1.0e-3}` needs no class path."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The vectors of the validation pairs of all ranks, in the order of their ids. Pairs that could not be read are left out.

    ids: (n,) int64, in the shard set. image: (n, d) float32, what the pictures mean (`objective.output`). target: (n, d) float32, or (n,)
    int64 labels.
    """

    ids: np.ndarray
    image: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class Encoded(NamedTuple):
    """A batch's vectors on this rank. id: (b,) int64. image, target: as in `HeldOut`. valid: (b,) bool."""

    id: Tensor
    image: Tensor
    target: Tensor
    valid: Tensor


class PairModule(L.LightningModule):
    """Trains on pairs, and reports retrieval among validation pairs: by text, or where the target is a label, of the same class.

    Where the picture asks about itself (a pretext task), it reports how well that is answered.

    image_tower: `batch.image` -> (b, d). target_side: `batch.target` -> (b, d); the identity for labels, which the objective takes as they
    are. objective: see `multimodal.objectives`.
    optimiser: how the weights move, see `multimodal.training.optimisers`.
    micro_batch_size: how many rows a rank encodes at a time, if the activations of a whole batch do not fit into memory; loss and gradient
        stay those of the whole batch, for one more forward pass. None: all at once. See `multimodal.training.micro_batches`.
    No hyper-parameters are saved: a checkpoint holds tensors and numbers, read with `weights_only=True`. The settings are in config.yaml.
    """

    def __init__(
        self,
        image_tower: nn.Module,
        target_side: nn.Module,
        objective: Objective,
        optimiser: Optimiser = DEFAULT_OPTIMISER,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not objective.compares_with_texts and type(target_side) is not nn.Identity:
            raise InputError(
                f"model.target_side: {type(objective).__name__} takes its target as it is, so nothing would train "
                f"{type(target_side).__name__}. Set it to torch.nn.Identity"
            )
        if micro_batch_size is not None:
            if micro_batch_size < 1:
                raise InputError(f"model.micro_batch_size={micro_batch_size} must be at least 1, or null")
            check_rows_are_independent("image_tower", image_tower)
            check_rows_are_independent("target_side", target_side)
        self.image_tower = image_tower
        self.target_side = target_side
        self.objective = objective
        self.optimiser = optimiser
        self.micro_batch_size = micro_batch_size
        self.held_out: HeldOut | None = None
        """The vectors of the last validation, from its end until the next one begins."""
        self.figures: dict[str, float] = {}
        """Its retrieval figures, by their names in metrics.csv; as long as `held_out`."""
        self._validated: list[Encoded] = []
        self._validating = ExitStack()
        """Holds the averaged weights in place during validation."""
        self._num_accumulated: Tensor | int = 0
        """Valid rows, of all ranks, in the batches whose gradients are being accumulated."""

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.objective.uses_identity:
            data.identify = True
        if isinstance(data, PairData):
            self._check_target(data)

    def _check_target(self, data: PairData) -> None:
        """InputError if the target is a label and the objective takes none, or the other way round."""
        name, target = type(self.objective).__name__, f"data.target ({data.target})"
        if self.objective.is_pretext != isinstance(data.target, ViewsTarget):
            raise InputError(
                f"model.objective: {name} is a pretext task: its target is made from the picture, but {target} is not. Set data.target to "
                "multimodal.data.ViewsTarget, and data.image to the views of this task"
                if self.objective.is_pretext
                else f"model.objective: {name} does not answer what data.image ({data.image}) asks. Set it to the objective of that task"
            )
        if self.objective.takes_labels and data.classes is None:
            raise InputError(f"model.objective: {name} takes labels, but {target} gives none. Set data.target to multimodal.data.Labels")
        if data.classes is not None and not self.objective.takes_labels:
            raise InputError(
                f"model.objective: {name} compares a picture with the vector of its target, but {target} gives labels. Set it to one that "
                "takes labels"
            )

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8 or (b, d) features -> (b, d), what the picture means, as a store holds it."""
        return self.objective.output(self.image_tower(image))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.objective.at_step(self.trainer.global_step)
        image, target = self._embeddings(batch)
        loss, parts = loss_of(self.objective, image, target, batch)
        self.log_dict({f"train/{name}": value for name, value in parts.items()}, batch_size=len(batch.image))
        if self.trainer.accumulate_grad_batches == 1:
            return loss
        # The mean over all rows of the batches together, as of one large batch: batches have different numbers of valid rows, and an
        # epoch's last step has fewer batches. So their sums are accumulated, and divided by the number of rows before the step.
        self._num_accumulated = self._num_accumulated + parts["rows"]
        return loss * parts["rows"]

    def _embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Both sides, (b, d) each; or labels (b,), or answers about views, as they are."""
        image = encode(self.image_tower, batch.image, self.micro_batch_size)
        if not self.objective.compares_with_texts:
            return image, batch.target  # type: ignore[return-value]  # a tensor: checked in setup
        return image, encode(self.target_side, batch.target, self.micro_batch_size)

    def on_train_start(self) -> None:
        for optimizer in self._averaging():
            optimizer.train()

    def on_validation_start(self) -> None:
        for optimizer in self._averaging():
            self._validating.enter_context(averaged(optimizer))

    def on_validation_end(self) -> None:
        self._validating.close()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """If the optimiser keeps an average, it becomes the checkpoint's `state_dict`, so that every reader gets it."""
        for optimizer in self._averaging():
            checkpoint[TRAINED] = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
            with averaged(optimizer):
                checkpoint["state_dict"] = {name: value.clone() for name, value in self.state_dict().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = checkpoint.pop(TRAINED, checkpoint["state_dict"])

    def _averaging(self) -> list[Any]:
        """The run's optimisers that keep an average; at most one, and none outside training."""
        return [optimizer for optimizer in self.trainer.optimizers if averages(optimizer)]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        image, target = self._embeddings(batch)
        _, parts = loss_of(self.objective, image, target, batch)
        # Every rank has the figures of the whole batch, so there is nothing to reduce. An epoch's mean weights a batch by its valid rows.
        self.log("val/loss", parts["loss"], batch_size=int(parts["rows"]))
        if self.objective.is_pretext:
            self._log_answers(parts)
            return
        self._validated.append(self._encoded(batch, image, target))

    def _log_answers(self, parts: Parts) -> None:
        """How well a pretext task is answered, beside chance."""
        figures = {name: value for name, value in parts.items() if name not in ("loss", "rows")}
        chances = {f"chance_{name}": torch.tensor(value) for name, value in self.objective.chances.items()}
        self.log_dict({f"val/{name}": value for name, value in {**figures, **chances}.items()}, batch_size=int(parts["rows"]))

    def encode(self, batch: Batch) -> Encoded:
        """The vectors of a batch, as in validation; in evaluation mode and without gradients if the caller sees to it."""
        return self._encoded(batch, *self._embeddings(batch))

    def _encoded(self, batch: Batch, image: Tensor, target: Tensor) -> Encoded:
        target = target if self.objective.takes_labels else target.float()
        return Encoded(batch.id, self.objective.output(image).float(), target, batch.valid)

    def on_validation_epoch_start(self) -> None:
        self.held_out, self.figures = None, {}
        self._validated.clear()

    def on_validation_epoch_end(self) -> None:
        self.end_validation()
        self.log_dict(self.figures, rank_zero_only=False, sync_dist=False)

    def end_validation(self) -> dict[str, float]:
        """The figures of this validation, once all of its batches are encoded. Callbacks, which Lightning asks first, may need them."""
        if self.held_out is None and not self.objective.is_pretext:
            self.held_out = self.held_out_of(self._validated)
            self.figures = {f"val/{name}": value for name, value in self._figures(self.held_out).items()}
            self._validated.clear()
        return self.figures

    def _figures(self, held_out: HeldOut) -> dict[str, float]:
        return class_figures(held_out, self.objective.distance) if self.objective.takes_labels else retrieval_figures(held_out)

    def held_out_of(self, batches: Sequence[Encoded]) -> HeldOut:
        """Batches of all ranks as one, the same on every rank; called on all of them with equally many batches of equal size."""
        ids, image, target, valid = (torch.cat(parts) for parts in zip(*batches, strict=True))
        ids, image, target, valid = gather(ids), gather(image), gather(target), gather(valid.to(torch.uint8)).bool()
        ids = ids[valid]
        order = torch.argsort(ids)  # ranks hold slices of each batch; the result must not depend on their number
        return HeldOut(ids[order].cpu().numpy(), *(rows[valid][order].cpu().numpy() for rows in (image, target)))

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
            self.log("train/lr", max(group["lr"] for group in optimizer.param_groups))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimiser.optimizer(self)
        if averages(optimizer) and any(isinstance(callback, WeightAveraging) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise InputError(f"trainer.callbacks: {type(optimizer).__name__} keeps an average of the weights itself. Remove the other one")
        schedule = self.optimiser.schedule(optimizer, self._num_steps)
        return {"optimizer": optimizer, **({"lr_scheduler": schedule} if schedule is not None else {})}

    def _num_steps(self) -> float:
        """Optimiser steps of the whole run; infinite until the loaders exist.

        Before that the schedule is evaluated only at step 0, which does not depend on it. Lightning's `estimated_stepping_batches` sets the
        loaders up by itself, too early for a checkpoint's state to reach them (2.6).
        """
        trainer = self.trainer
        steps: float = math.inf
        if trainer.max_epochs is not None and trainer.max_epochs >= 0 and trainer.num_training_batches < math.inf:
            steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches) * trainer.max_epochs
        return min(steps, trainer.max_steps) if trainer.max_steps >= 0 else steps


def loss_of(objective: Any, image: Tensor, target: Tensor, batch: Batch) -> tuple[Tensor, Parts]:
    """What an objective returns for a batch whose two sides are encoded, (b, d) each."""
    identity = (batch.identity,) if objective.uses_identity else ()
    loss, parts = objective(image, target, batch.valid, *identity)
    return loss, parts


def retrieval_figures(held_out: HeldOut) -> dict[str, float]:
    """Retrieval of each target's own picture among those of all n pairs, by cosine.

    R@k in per cent and the median rank, each with its chance level: k of n, and the middle of n. Empty if n is 0.
    """
    num = len(held_out)
    if not num:
        return {}
    first = ranks(held_out.target, held_out.image, np.arange(num))
    recall = {f"R@{k}": 100 * recall_at(first, k) for k in RECALL_AT}
    chance = {f"chance_R@{k}": 100 * chance_recall_at(num, k) for k in RECALL_AT}
    return {**recall, **chance, "median_rank": float(np.median(first)), "chance_median_rank": (num + 1) / 2, "num_pairs": float(num)}


def class_figures(held_out: HeldOut, distance: Distance) -> dict[str, float]:
    """Retrieval of the other pictures of each picture's class among those of all n: R@1 and MAP@R in per cent, each with its chance level.

    See `multimodal.metrics.same_class`; at most MAX_QUERIES pictures ask. Empty if no class has two pictures.
    """
    judged = same_class(held_out.image, held_out.target, distance, MAX_QUERIES)
    if judged is None:
        return {}
    return {
        "R@1": 100 * judged.recall_1,
        "mAP@R": 100 * judged.map_r,
        "chance_R@1": 100 * judged.chance_recall_1,
        "chance_mAP@R": 100 * judged.chance_map_r,
        "num_classes": float(judged.num_classes),
        "num_queries": float(judged.num_queries),
        "num_pairs": float(len(held_out)),
    }
