"""Stops a run whose vectors have all become one, with the cause and the remedy, instead of letting it train on for a night.

    trainer:
      callbacks:
        - {class_path: multimodal.training.CollapseAlarm}

An embedding collapses where that costs less than order. The loss of equal rows is the margin, or its like; if the hardest triplets of
untrained weights cost more than that, then the shortest way down is to pull everything to one point (Hermans et al., 2017, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from multimodal.errors import InputError
from multimodal.metrics import effective_rank, spread
from multimodal.objectives.base import gather
from multimodal.training.module import PairModule

MAX_ROWS = 512
"""Of a batch, to measure: their singular values take some 20 ms."""
SHRUNK = 1e-3
"""Equal rows have no semi-hard triplets, and no gradient. Rows shrunk towards their mean by this have, at nearly the loss of equal ones."""


class CollapseAlarm(Callback):
    """Measures the embedding of training batches, and stops the run with an InputError once it has collapsed.

    Logged each time: `train/spread`, the root mean square distance from the mean row, and `train/effective_rank` (Roy and Vetterli, 2007).
    every_n_steps: how often. patience: for how many optimiser steps, measured at each time between, one of these has to be true:
    - a point: the loss is that of the batch shrunk to a thousandth of its size, to within `tolerance` of it, and the spread is less than
      `shrinks_to` of what it was at the first step;
    - a line: the effective rank is below `min_rank`, in two dimensions or more.
    A batch costs one more evaluation of the objective, without its gradient being used, each time.
    """

    def __init__(
        self, every_n_steps: int = 10, patience: int = 50, tolerance: float = 0.05, shrinks_to: float = 0.5, min_rank: float = 1.02
    ) -> None:
        if every_n_steps < 1 or patience < 1:
            raise InputError(f"CollapseAlarm: every_n_steps={every_n_steps} and patience={patience} must be at least 1")
        self.every_n_steps, self.patience, self.tolerance = every_n_steps, patience, tolerance
        self.shrinks_to, self.min_rank = shrinks_to, min_rank
        self.first: dict[str, float] = {}
        """The spread, the loss and the loss of equal rows at the first step."""
        self.since: dict[str, int] = {}
        """Step since which the embedding has been a `point` or a `line`."""
        self._kept: tuple[Sequence[Tensor], Tensor] | None = None
        self._hook: RemovableHandle | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "since": self.since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.since = state_dict["first"], state_dict["since"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairModule)
        self._hook = pl_module.objective.register_forward_hook(self._keep)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _keep(self, objective: torch.nn.Module, given: tuple[Tensor, ...], returned: tuple[Tensor, dict[str, Tensor]]) -> None:
        """Of a training step, the sides of the batch as they were encoded, and their loss."""
        self._kept = ([one.detach() for one in given], returned[0].detach()) if objective.training else None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        kept, self._kept = self._kept, None
        step = trainer.global_step
        if kept is None or (step != 1 and step % self.every_n_steps):
            return
        assert isinstance(pl_module, PairModule)
        (image, target, valid, *more), loss = kept
        with torch.no_grad():
            image = image.float()
            everyones = gather(image)[gather(valid.to(torch.uint8)).bool()]  # a mean of each rank's own would leave a point for each
            mean = everyones.mean(dim=0) if len(everyones) else torch.zeros_like(image[0])
            shrunk = torch.where(valid[:, None], mean + SHRUNK * (image - mean), 0.0)
            of_equal = float(pl_module.objective(shrunk, target, valid, *more)[0])
            rows = pl_module.objective.output(everyones[:MAX_ROWS]).cpu().numpy()
        self._kept = None  # the evaluation above was kept too
        if not np.isfinite(rows).all():
            return  # a run that has diverged, which `StopsDiverged` and `KeepCheckpoints` end with the reason
        figures = {"spread": spread(rows), "effective_rank": effective_rank(rows)}
        for logger in trainer.loggers:  # not by `log_dict`, which would repeat them at each step until they are measured again
            logger.log_metrics({f"train/{name}": value for name, value in figures.items()}, step - 1)
        self._judge(trainer, pl_module, step, rows, float(loss), of_equal, figures)

    def _judge(
        self, trainer: L.Trainer, module: PairModule, step: int, rows: np.ndarray, loss: float, of_equal: float, figures: dict[str, float]
    ) -> None:
        if not self.first:
            self.first = {"spread": figures["spread"], "loss": loss, "of_equal": of_equal}
        is_equal = abs(loss - of_equal) <= self.tolerance * abs(of_equal)
        found = {
            "point": is_equal and figures["spread"] < self.shrinks_to * self.first["spread"],
            "line": len(rows) > 2 and rows.shape[1] > 1 and figures["effective_rank"] < self.min_rank,
        }
        self.since = {name: self.since.get(name, step) for name, is_so in found.items() if is_so}
        for name, begun in self.since.items():
            if step - begun >= self.patience:
                raise InputError(self._reason(trainer, module, name, begun, rows, loss, of_equal, figures))

    def _reason(
        self,
        trainer: L.Trainer,
        module: PairModule,
        name: str,
        begun: int,
        rows: np.ndarray,
        loss: float,
        of_equal: float,
        figures: dict[str, float],
    ) -> str:
        seen = (
            f"the embedding has collapsed to a {name}, from step {begun} to {trainer.global_step}: the loss is {loss:.4g}, and equal rows "
            f"cost {of_equal:.4g}; the spread is {figures['spread']:.3g}, from {self.first['spread']:.3g} at first; the effective rank is "
            f"{figures['effective_rank']:.2f} of {rows.shape[1]}"
        )
        miner = getattr(module.objective, "miner", None)
        rate = max(group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups)
        if name == "point" and self.first["loss"] > self.first["of_equal"]:
            mined = f" of {type(miner).__name__}" if miner is not None else ""
            cause = (
                f"The first triplets{mined} cost {self.first['loss']:.4g}, more than equal rows, so the shortest way down was to pull "
                f"everything together, at a rate of {rate:g}. Begin with model.objective's miner SemiHard, or a Schedule from it to the "
                "hardest"
            )
        else:
            cause = f"Steps at a rate of {rate:g} were too large for these weights"
        labels = ". If the pictures do not show what their labels say, that is the best that there is: look at some" * (name == "point")
        return f"{seen}. {cause}; lower --model.optimiser.lr. Add --overwrite to train again{labels}"
