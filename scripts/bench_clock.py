"""The seconds of a training's epochs, as a Lightning callback that a recipe can name: for bench_train.py."""

from __future__ import annotations

import time

import lightning as L


class EpochClock(L.Callback):
    """`EpochClock.seconds` is how long the last epoch of training took, validation left out."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        EpochClock.seconds = time.perf_counter() - self.begun
