"""What happens around the steps of a run: seeds, progress on the terminal, checkpoints that are whole or absent.

Trainer(callbacks=[SeedSteps(seed=0), Progress(), KeepCheckpoints(Path("runs/x/checkpoints"), Selection("val/R@10", "max"))])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import distributed

from multimodal.boxes import atomic_write
from multimodal.errors import InputError
from multimodal.pairs import Batch
from multimodal.progress import track
from multimodal.shards import Ledger
from multimodal.shards.ledger import NO_WORDS
from multimodal.training.datamodule import PairData
from multimodal.training.loggers import Pace, WeightsAndBiases
from multimodal.training.module import PairModule
from multimodal.training.panels import Show

CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"


class SeedSteps(Callback):
    """Makes every random choice inside a step (dropout) a function of (seed, epoch, batch, rank), so that resuming changes none."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        words = np.random.SeedSequence((self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))
        seed = int(words.generate_state(1, np.uint64)[0])
        # Not torch.manual_seed: where CUDA is there and unused it keeps a stack trace of every call, a millisecond each, for ever.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif pl_module.device.type == "mps":
            torch.mps.manual_seed(seed)


class SetEpoch(Callback):
    """Tells the training loader which epoch begins. Lightning tells samplers alone; a loader inside that epoch stays where it is."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        loader.set_epoch(trainer.current_epoch)


class BadPairs(Callback):
    """Counts and names the pairs that could not be read, on any rank, and stops the run once too many of its pairs are.

    The count is `train/bad_pairs` beside the other figures, and in the progress; the names are in `bad.csv`. The record travels in
    checkpoints, so that a run that goes on forgets none. max_bad_share: of all training pairs; above it there is no need to see the rest.
    Pairs of whose text the space knows no word are not bad: they are counted apart, and named in `no_words.csv`.
    """

    def __init__(self, path: Path, max_bad_share: float) -> None:
        self.path = path
        self.max_bad_share = max_bad_share
        self._reasons: dict[tuple[str, str], str] = {}
        self._num_told = 0
        """How many of this rank's own the others know of."""
        self._trainer: L.Trainer | None = None

    @property
    def num_bad(self) -> int:
        return len(self._reasons) - self.num_without_words

    @property
    def num_without_words(self) -> int:
        return sum(reason.startswith(NO_WORDS) for reason in self._reasons.values())

    def __str__(self) -> str:
        """Both counts, those that are not zero."""
        counts = {"bad": self.num_bad, "without a known word": self.num_without_words}
        return ", ".join(f"{num} {what}" for what, num in counts.items() if num)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        self._exchange()  # here, because all ranks dump a checkpoint together, and rank zero's is the one that is kept
        return {"bad": [[where, key, reason] for (where, key), reason in sorted(self._reasons.items())]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._reasons = {(where, key): reason for where, key, reason in state_dict["bad"]}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            if self._exchange():
                self._write(trainer)
            self._log(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._exchange()
        self._write(trainer)
        self._log(pl_module)

    def _log(self, module: L.LightningModule) -> None:
        module.log("train/bad_pairs", float(self.num_bad), rank_zero_only=False, sync_dist=False)  # the same on all ranks

    def _exchange(self) -> bool:
        """Tell all ranks what each found since the last time; whether there was any. Most times there is none, which one number says."""
        trainer = self._trainer
        if trainer is None:
            return False
        entries = trainer.datamodule.ledger.entries  # type: ignore[attr-defined]
        own = [((bad.where, bad.key), bad.reason) for bad in entries[self._num_told :]]
        self._num_told = len(entries)
        everyones: list[Any] = [own]
        if trainer.world_size > 1:
            num = trainer.strategy.reduce(torch.tensor(len(own), device=trainer.strategy.root_device), reduce_op="sum")
            if not int(num):
                return False
            everyones = [None] * trainer.world_size
            distributed.all_gather_object(everyones, own)
        for new in everyones:
            self._reasons = {**dict(new), **self._reasons}
        return any(everyones)

    def _write(self, trainer: L.Trainer) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        ledger = Ledger(self.path, self.max_bad_share)
        ledger.good(len(data.train_ids) - len(self._reasons))
        for (where, key), reason in sorted(self._reasons.items()):
            ledger.bad(where, key, reason)
        ledger.close()  # on every rank, with the same content: all write it, and all stop


class Progress(Callback):
    """Pairs seen of those to see, rate and time left, as everywhere here: a bar on a terminal, a plain line now and then elsewhere.

    bad_pairs: whose counts are shown too, where there are any.
    """

    def __init__(self, bad_pairs: BadPairs | None = None) -> None:
        self.bad_pairs = bad_pairs
        self._steps: Iterator[int] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        per_epoch, batch_size = int(trainer.num_training_batches), trainer.datamodule.batch_size  # type: ignore[attr-defined]
        num_batches = per_epoch * (trainer.max_epochs or 0)
        if trainer.max_steps >= 0:
            num_batches = (
                min(num_batches, trainer.max_steps * trainer.accumulate_grad_batches) if trainer.max_epochs != -1 else trainer.max_steps
            )
        left = max(0, num_batches - trainer.fit_loop.total_batch_idx - 1)
        self._steps = iter(track(range(left), "training", unit="pair", weight=batch_size, note=self._note))
        next(self._steps, None)  # so that the clock starts now

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if self._steps is not None:
            next(self._steps, None)

    def _note(self) -> str:
        return str(self.bad_pairs or "")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._steps is not None:
            self._steps.close()  # type: ignore[attr-defined]
            self._steps = None


class Dashboard(Callback):
    """Tells a W&B logger what only the loaders know, and shows it its panels after each validation."""

    def __init__(self, logger: WeightsAndBiases) -> None:
        self.logger = logger
        self._shows: dict[str, Show] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairModule)
        data: PairData = trainer.datamodule  # type: ignore[attr-defined]
        loader: Any = trainer.train_dataloader
        per_epoch = min(loader.num_pairs, int(trainer.num_training_batches) * data.batch_size)
        self.logger.begin(Pace(per_epoch, data.batch_size * trainer.accumulate_grad_batches))
        counts = {"train": len(data.train_ids), "validation": len(data.validation_ids), "shards": len(data.shards)}
        self.logger.log_hyperparams({"pairs": counts, "parameters": _parameters(pl_module)})
        opened = {name: panel.open(pl_module, data) for name, panel in self.logger.panels.items()}
        self._shows = {name: show for name, show in opened.items() if show is not None}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairModule)
        held_out = pl_module.held_out
        if trainer.sanity_checking or not trainer.is_global_zero or not held_out:
            return
        views = {name: show(held_out) for name, show in self._shows.items() if self.logger.lacks(name)}
        if views:
            self.logger.log_views(views)


def _parameters(module: PairModule) -> dict[str, int]:
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return {"trained": trained, "frozen": sum(parameter.numel() for parameter in module.parameters()) - trained}


class WholeCheckpoints(CheckpointIO):
    """Checkpoints written beside their place and renamed, on one file system, so that a kill while writing leaves the one before.

    Lightning's own goes through the system's temporary folder, from where a rename can be a copy. Reads tensors and plain values alone.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        with atomic_write(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's archive complains of itself, after a write failed
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which epoch is the best one, and when there is no point in going on. Both look at held-out pairs, so they need validation.

    monitor: the figure that decides, as metrics.csv names it. mode: "max" where more is better, "min" where less is.
    patience: epochs without a better figure after which the run stops; null: it trains all its epochs.
    """

    monitor: str = "val/R@10"
    mode: Literal["min", "max"] = "max"
    patience: int | None = None

    def early_stopping(self) -> list[Callback]:
        if self.patience is None:
            return []
        return [EarlyStopping(self.monitor, mode=self.mode, patience=self.patience, check_on_train_epoch_end=True)]


class SharedClock:
    """Tells all ranks at one and the same step that so many seconds are over, by rank zero's clock.

    To save is a thing that ranks do together, and their clocks differ. Asking rank zero after every step would be a collective each; it
    tells them instead how many steps to leave it alone: half of those that fit into the time left, as fast as steps went so far. That is
    a collective for each halving of the time, and steps that become slower make it late by no more than they have become slower.
    """

    def __init__(self, every_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self.every_s = every_s
        self.now = now
        self.start(0)

    def start(self, step: int) -> None:
        """Count from here, at this optimiser step; called on all ranks at the same one."""
        self._start_s, self._start_step, self._ask_at = self.now(), step, step + 1

    def is_due(self, step: int, broadcast: Callable[[Any], Any]) -> bool:
        """Whether the time is over, the same on all ranks; broadcast: rank zero's value, on every rank."""
        if step < self._ask_at:
            return False
        passed_s = self.now() - self._start_s
        steps_that_fit = (self.every_s - passed_s) * (step - self._start_step) / max(passed_s, 1e-9)
        due, self._ask_at = broadcast((passed_s >= self.every_s, step + max(1, int(steps_that_fit / 2))))
        return bool(due)


class KeepCheckpoints(Checkpoint):
    """Writes `last.ckpt`, to go on from, after each epoch, and `best.ckpt` when the monitored figure was never better.

    Of equally good epochs the first stays. every_n_steps: write last.ckpt every so many optimiser steps too. every_s: and when so many
    seconds have passed since the last one, so that a kill costs little of a long epoch. What a checkpoint holds is a function of its step.
    Lightning's ModelCheckpoint keeps absolute paths in its state and forgets the best figure where a folder was moved.
    """

    def __init__(self, folder: Path, selection: Selection | None, every_n_steps: int | None = None, every_s: float | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise InputError(f"checkpoint_every_n_steps={every_n_steps} must be at least 1, or null")
        if every_s is not None and not every_s > 0:
            raise InputError(f"checkpoint_every_s={every_s} must be above 0, or null")
        self.folder = folder
        self.selection = selection
        self.every_n_steps = every_n_steps
        self.clock = SharedClock(every_s) if every_s is not None else None
        self.best_value: float | None = None
        self.best_epoch: int | None = None
        self._is_validated = False
        self._seen_step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value, self.best_epoch = state_dict["best_value"], state_dict["best_epoch"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen_step = trainer.global_step
        if self.clock is not None:
            self.clock.start(self._seen_step)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step == self._seen_step:
            return  # gradients are being accumulated, and a checkpoint holds none
        self._seen_step = step
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # the end of the epoch writes one
        is_due = self.clock is not None and self.clock.is_due(step, trainer.strategy.broadcast)
        if is_due or (self.every_n_steps and step % self.every_n_steps == 0):
            self._save_last(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.selection is not None and self._is_validated:
            self._is_validated = False
            value = self._monitored(trainer, self.selection.monitor)
            better = max if self.selection.mode == "max" else min
            if self.best_value is None or (value != self.best_value and better(value, self.best_value) == value):
                self.best_value, self.best_epoch = value, trainer.current_epoch
                trainer.save_checkpoint(self.folder / BEST)
        self._save_last(trainer)

    def _save_last(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.folder / LAST)
        if self.clock is not None:
            self.clock.start(trainer.global_step)

    def _monitored(self, trainer: L.Trainer, name: str) -> float:
        figures = trainer.callback_metrics
        if name not in figures:
            raise InputError(f"selection.monitor={name} is not among the figures of this run: {', '.join(sorted(figures))}")
        return float(figures[name])
