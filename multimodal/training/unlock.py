"""Towers that begin locked: they take part from a given optimiser step on.

trainer:
  callbacks:
    - {class_path: multimodal.training.Unlock, init_args: {after_steps: {image_tower: 500}}}
"""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from multimodal.errors import InputError


class Unlock(Callback):
    """Locks parts of the model for the first optimiser steps of a run: their weights do not move, and they are in evaluation mode.

    after_steps: part (`image_tower`, `image_tower.trunk`, `target_side`) -> the number of steps. What a part's own `frozen` or `tuning`
    locks stays locked. At the step where a part begins to move, its rate is that of the schedule, and its optimiser state is new.

    With one process, a locked part costs no backward pass. Several ranks compute its gradients all the same, and drop them:
    DistributedDataParallel must know from the start which weights move.
    """

    def __init__(self, after_steps: dict[str, int]) -> None:
        for part, steps in after_steps.items():
            if steps < 1:
                raise InputError(f"Unlock: after_steps: {part}: {steps} must be at least 1")
        self.after_steps = after_steps
        self._moving: dict[str, list[nn.Parameter]] = {}
        """The parameters of each part that move once it is unlocked."""
        self._locked: set[str] = set()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for part in self.after_steps:
            try:
                network = pl_module.get_submodule(part)
            except AttributeError:
                raise InputError(f"Unlock: after_steps: the model has no part {part}. Parts are image_tower, target_side, ...") from None
            self._moving[part] = [one for one in network.parameters() if one.requires_grad]
            if not self._moving[part]:
                raise InputError(f"Unlock: after_steps: nothing of {part} could move later: its weights are frozen by its own settings")
        steps = trainer.estimated_stepping_batches
        for part, after in self.after_steps.items():
            if after >= steps and trainer.is_global_zero:
                print(
                    f"Unlock: {part} stays locked: the run has {steps} steps, and it would move after {after}", file=sys.stderr, flush=True
                )
        self._locked = set(self.after_steps)
        for part in self._locked:
            self._move(trainer, part, False)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        for part in sorted(self._locked):
            network = pl_module.get_submodule(part)
            if trainer.global_step < self.after_steps[part]:
                network.eval()  # Lightning's epochs begin in training mode
            else:
                self._locked.discard(part)
                self._move(trainer, part, True)
                network.train()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        for part in self._locked:
            for parameter in self._moving[part]:
                parameter.grad = None  # an optimiser skips it: no decay, no moments

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for part in self._locked:
            self._move(trainer, part, True)

    def _move(self, trainer: L.Trainer, part: str, moves: bool) -> None:
        if trainer.world_size == 1:
            for parameter in self._moving[part]:
                parameter.requires_grad_(moves)
