"""What happens around the steps of a run: seeds, progress on the terminal, checkpoints that are written whole or not at all.

Trainer(callbacks=[SeedSteps(seed=0), Progress(), KeepCheckpoints(Path("runs/x/checkpoints"), Selection("val/R@10", "max"))])
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import distributed

from multimodal.boxes import atomic_write
from multimodal.data.labels import labels_in
from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.metrics import chance_recall_at
from multimodal.pairs import Batch
from multimodal.shards import Ledger
from multimodal.shards.ledger import NO_WORDS
from multimodal.training.datamodule import PairData
from multimodal.training.forgetting import OWN, TRADE_OFF, Forgetting
from multimodal.training.loggers import Pace, WeightsAndBiases
from multimodal.training.module import PairModule
from multimodal.training.panels import Show

CHECKPOINTS, CLASSES = "checkpoints", "classes.json"
BEST = "best.ckpt"
LAST = "last.ckpt"
HARDLY_TELLS = 90
"""Per cent that chance finds among so few validation pairs that epochs hardly differ, and the first one is kept."""
ASK_EVERY_S = 10.0
"""The longest delay until a run of several ranks learns that it should pause."""


class SeedSteps(Callback):
    """Makes every random choice inside a step (dropout) a function of (seed, epoch, batch, rank), so that resuming changes none."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        words = np.random.SeedSequence((self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))
        seed = int(words.generate_state(1, np.uint64)[0])
        # Not torch.manual_seed: if CUDA is available but unused, it keeps a stack trace of every call forever, at a millisecond each.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif pl_module.device.type == "mps":
            torch.mps.manual_seed(seed)


class SetEpoch(Callback):
    """Sets the epoch of the training loader. Lightning sets it only on samplers; a loader inside that epoch keeps its position."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        loader.set_epoch(trainer.current_epoch)


class BadPairs(Callback):
    """Counts and names the pairs that no rank could read, and stops the run once there are too many.

    The count is logged as `train/bad_pairs` and shown in the progress; the names are in `bad.csv`. Checkpoints hold the record, so that a
    resumed run keeps it. max_bad_share: of all training pairs; above it the run stops at once.
    Pairs whose text has no word that the space knows are not bad: they are counted separately, and named in `no_words.csv`.
    """

    def __init__(self, path: Path, max_bad_share: float) -> None:
        self.path = path
        self.max_bad_share = max_bad_share
        self._reasons: dict[tuple[str, str], str] = {}
        self._num_shared = 0
        """How many of this rank's entries the other ranks have."""
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
        self._exchange()  # here, because all ranks dump a checkpoint together, and rank zero's is kept
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
        """Share what each rank found since the last time; returns whether there was anything. Usually not, which costs one number."""
        trainer = self._trainer
        if trainer is None:
            return False
        entries = trainer.datamodule.ledger.entries  # type: ignore[attr-defined]
        own = [((bad.where, bad.key), bad.reason) for bad in entries[self._num_shared :]]
        self._num_shared = len(entries)
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
        ledger = Ledger(self.path, self.max_bad_share, "--data.max_bad_share")
        ledger.good(max(0, data.num_read_by(trainer.current_epoch) - len(self._reasons)))
        for (where, key), reason in sorted(self._reasons.items()):
            ledger.bad(where, key, reason)
        ledger.close()  # on every rank, with the same content: all write it, and all stop


class Progress(Callback):
    """Pairs seen out of all, rate and time left, as everywhere in this project: a bar on a terminal, else a plain line now and then.

    bad_pairs: its counts are shown too, if there are any.
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
        next(self._steps, None)  # starts the clock

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
    """Passes to a W&B logger what only the loaders know, and its panels after each validation."""

    def __init__(self, logger: WeightsAndBiases) -> None:
        self.logger = logger
        self._shows: dict[str, Show] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairModule)
        data: PairData = trainer.datamodule  # type: ignore[attr-defined]
        loader: Any = trainer.train_dataloader
        per_epoch = min(loader.num_pairs, int(trainer.num_training_batches) * data.batch_size)
        self.logger.begin(Pace(per_epoch, data.batch_size * trainer.accumulate_grad_batches))
        counts = {"train": data.num_read_by(0), "validation": len(data.validation_ids), "shards": len(data.shards)}
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
    """Checkpoints are written beside their final path and renamed, so that a kill during a write leaves the previous one.

    Lightning's own IO uses the system's temporary folder, from which a rename may be a copy. This one reads only tensors and plain values.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        with atomic_write(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's archive raises its own error after a failed write
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
    """Which epoch is the best, and when to stop early. Both are judged on validation pairs.

    monitor: the deciding figure, by its name in metrics.csv; null: val/trade_off if the run measures what it forgets, else val/R@10, or
    val/mAP@R if the target is a label, or val/accuracy of a pretext task.
    mode: "max" if more is better, "min" if less is.
    patience: epochs without a better figure after which the run stops; null: the run trains all its epochs.
    """

    monitor: str | None = None
    mode: Literal["min", "max"] = "max"
    patience: int | None = None

    @property
    def figure(self) -> str:
        """The deciding figure."""
        return self.monitor or OWN

    def cannot_tell(self, num_pairs: int) -> str:
        """Why the figure can hardly choose an epoch among so few validation pairs; "" if it can."""
        found = re.fullmatch(r"val/R@(1|5|10)", OWN if self.figure == TRADE_OFF else self.figure)
        if found is None or not num_pairs:
            return ""
        chance = 100 * chance_recall_at(num_pairs, int(found[1]))
        if chance < HARDLY_TELLS:
            return ""
        other = "" if self.figure == TRADE_OFF else ", or choose by --selection.monitor val/loss --selection.mode min"
        return (
            f"{num_pairs} validation pairs are too few to choose the best epoch by {self.figure}: chance alone finds {chance:.0f} % of "
            f"them. Raise --data.validation_share{other}"
        )

    def early_stopping(self) -> list[Callback]:
        if self.patience is None:
            return []
        return [EarlyStopping(self.figure, mode=self.mode, patience=self.patience, check_on_train_epoch_end=True)]


class KeepsClasses(Callback):
    """Writes which number of a label stands for which class, if the target is a label: a file with `name`, `trained` and `validated`.

    The first class of `trained` has the number 0, and those of `validated` follow the last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        labels = labels_in(data.target)
        if labels is None or data.classes is None or not trainer.is_global_zero:
            return
        names, num = list(data.classes.names), data.classes.num_trained
        with atomic_write(self.path) as file:
            file.write((json.dumps({"name": labels.name, "trained": names[:num], "validated": names[num:]}, indent=1) + "\n").encode())


class StopsDiverged(Callback):
    """Stops a run whose loss is not finite, with the reason: its weights are lost, and nothing that follows would bring them back.

    Checked at the steps that log something, and the weights before a validation, which could not compare such rows.
    `KeepCheckpoints` checks the weights before it writes them, so what it has written is good.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        loss = outputs["loss"]
        if trainer.world_size > 1:  # an objective of one's own may give another loss on each rank, and all must stop
            loss = trainer.strategy.reduce(loss, reduce_op="sum")
        if not torch.isfinite(loss):
            raise diverged(trainer, self.folder, f"the loss is {float(loss)}")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            check_finite(trainer, self.folder)


def check_finite(trainer: L.Trainer, folder: Path) -> None:
    """InputError if the weights are not finite; folder: the run's checkpoints."""
    for name, weights in trainer.lightning_module.named_parameters():
        if not torch.isfinite(weights).all():
            raise diverged(trainer, folder, f"{name} is not finite")


def diverged(trainer: L.Trainer, folder: Path, what: str) -> InputError:
    """The reason for the end of a run, and what is left of it."""
    kept = [name for name in (LAST, BEST) if (folder / name).is_file()]
    left = (
        f"{' and '.join(kept)} in {folder} {'are' if len(kept) > 1 else 'is'} from before" if kept else "No checkpoint was written before"
    )
    return InputError(
        f"{folder.parent}: training diverged: {what} at step {trainer.global_step}, in epoch {trainer.current_epoch}. {left}. "
        "Train again with a lower --model.optimiser.lr or with --trainer.gradient_clip_val 1, and --overwrite"
    )


class SharedClock:
    """Signals all ranks at the same step that a number of seconds has passed, by rank zero's clock.

    Ranks must save together, but their clocks differ. Asking rank zero after every step would be a collective per step. Instead it
    announces after how many steps to ask again: half of those that fit into the time left, at the speed so far. That is a collective
    for each halving of the time left, and if steps become slower, it is late by no more than their slowdown.
    """

    def __init__(self, every_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self.every_s = every_s
        self.now = now
        self.start(0)

    def start(self, step: int) -> None:
        """Start the clock at this optimiser step; called on all ranks at the same step."""
        self._start_s, self._start_step, self._ask_at = self.now(), step, step + 1

    def is_due(self, step: int, broadcast: Callable[[Any], Any]) -> bool:
        """Whether the time is up, the same on all ranks. broadcast: returns rank zero's value on every rank."""
        if step < self._ask_at:
            return False
        passed_s = self.now() - self._start_s
        steps_that_fit = (self.every_s - passed_s) * (step - self._start_step) / max(passed_s, 1e-9)
        due, self._ask_at = broadcast((passed_s >= self.every_s, step + max(1, int(steps_that_fit / 2))))
        return bool(due)


class Stopped(Exception):
    """Training should pause here: its last checkpoint holds its current state."""


class Pause:
    """Why training should pause, the same on all ranks: its time is up, or a signal came.

    max_s: seconds from `start`; None: no limit. Several ranks ask rank zero every few seconds; a single rank checks after each step.
    """

    def __init__(self, max_s: float | None) -> None:
        self.max_s = max_s
        self.signal: str | None = None
        """The name of a signal that arrived; set by its handler."""
        self.start()

    def start(self) -> None:
        self._start_s, self._clock = time.monotonic(), SharedClock(ASK_EVERY_S)

    def reason(self, trainer: L.Trainer, at_once: bool = False) -> str:
        """The reason, or "" if there is none; called on all ranks at the same step. at_once: ask rank zero now."""
        if trainer.world_size == 1:
            return self._own_reason(trainer)
        if not at_once and not self._clock.is_due(trainer.global_step, trainer.strategy.broadcast):
            return ""
        self._clock.start(trainer.global_step)
        return str(trainer.strategy.broadcast(self._own_reason(trainer)))

    def _own_reason(self, trainer: L.Trainer) -> str:
        if self.signal is not None:
            return self.signal
        if trainer.received_sigterm:
            return "SIGTERM"
        is_over = self.max_s is not None and time.monotonic() - self._start_s >= self.max_s
        return f"its time is up, trainer.max_time={timedelta(seconds=self.max_s or 0)}" if is_over else ""


class KeepCheckpoints(Checkpoint):
    """Writes `last.ckpt`, to resume from, after each epoch, and `best.ckpt` when the monitored figure is better than ever before.

    Among equally good epochs the first is kept. every_n_steps: also write last.ckpt after this many optimiser steps. every_s: also after
    this many seconds since the last one, so that a kill costs little of a long epoch. A checkpoint's content depends only on its step.
    Weights that are not finite are never written (see `StopsDiverged`).
    forgetting: if it is given, the weights before the first step may be the best too, and its page is written after each epoch.
    pause: checked after each step; if there is a reason, last.ckpt is written, and `Stopped` is raised before the next step.
    Lightning's ModelCheckpoint keeps absolute paths in its state and loses the best figure if the folder was moved.
    """

    def __init__(
        self,
        folder: Path,
        selection: Selection | None,
        every_n_steps: int | None = None,
        every_s: float | None = None,
        pause: Pause | None = None,
        forgetting: Forgetting | None = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise InputError(f"checkpoint_every_n_steps={every_n_steps} must be at least 1, or null")
        if every_s is not None and not every_s > 0:
            raise InputError(f"checkpoint_every_s={every_s} must be above 0, or null")
        self.folder = folder
        self.selection = selection
        self.every_n_steps = every_n_steps
        self.clock = SharedClock(every_s) if every_s is not None else None
        self.pause = pause or Pause(None)
        self.forgetting = forgetting
        self.best_value: float | None = None
        self.best_epoch: int | None = None
        self._is_validated = False
        self._seen_step = 0
        self._stops_for = ""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.pause.start()  # before the preflight, which takes time too

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value, self.best_epoch = state_dict["best_value"], state_dict["best_epoch"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen_step = trainer.global_step
        if self.clock is not None:
            self.clock.start(self._seen_step)
        if self.selection is not None and trainer.is_global_zero and not trainer.global_step:
            num: int = len(trainer.datamodule.validation_ids)  # type: ignore[attr-defined]
            if warning := self.selection.cannot_tell(num):
                print(warning, file=sys.stderr)
        before = self.forgetting.measured[0] if self.forgetting is not None else None
        if before is not None and not trainer.global_step and self.selection is not None and self.selection.figure in before.figures:
            self._keep_if_best(trainer, before.figures[self.selection.figure], before.epoch)
        self._draw(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step == self._seen_step:
            return  # gradients are being accumulated, and a checkpoint does not hold them
        self._seen_step = step
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # the end of the epoch writes one
        is_due = self.clock is not None and self.clock.is_due(step, trainer.strategy.broadcast)
        self._stops_for = self.pause.reason(trainer)
        if is_due or self._stops_for or (self.every_n_steps and step % self.every_n_steps == 0):
            self._save_last(trainer)

    def on_train_epoch_start(self, *args: Any, **kwargs: Any) -> None:
        self._stop()

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        """Done here, not when the checkpoint is written, because the figures of that step and epoch are logged in between."""
        if self._stops_for:
            raise Stopped(self._stops_for)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.selection is not None and self._is_validated:
            self._is_validated = False
            self._keep_if_best(trainer, self._monitored(trainer, self.selection.figure), trainer.current_epoch)
        self._save_last(trainer)
        self._draw(trainer)
        self._stops_for = self.pause.reason(trainer, at_once=True)

    def _keep_if_best(self, trainer: L.Trainer, value: float, epoch: int) -> None:
        assert self.selection is not None
        better = max if self.selection.mode == "max" else min
        if self.best_value is None or (value != self.best_value and better(value, self.best_value) == value):
            check_finite(trainer, self.folder)
            self.best_value, self.best_epoch = value, epoch
            trainer.save_checkpoint(self.folder / BEST)

    def _draw(self, trainer: L.Trainer) -> None:
        if self.forgetting is not None and trainer.is_global_zero:
            self.forgetting.draw(self.best_epoch)

    def _save_last(self, trainer: L.Trainer) -> None:
        check_finite(trainer, self.folder)
        trainer.save_checkpoint(self.folder / LAST)
        if self.clock is not None:
            self.clock.start(trainer.global_step)

    def _monitored(self, trainer: L.Trainer, name: str) -> float:
        figures = trainer.callback_metrics
        if name not in figures:
            raise InputError(
                f"selection.monitor={name} is not among the figures of this run: {', '.join(sorted(figures))}. Set it to one of these. "
                "Recalls need two validation pairs, and labels two pictures of one: a larger data.validation_share may have them"
            )
        return float(figures[name])
