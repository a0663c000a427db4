"""Keeps where some pictures are in the embedding in the course of a run, for a map of them that moves.

    trainer:
      callbacks:
        - {class_path: multimodal.training.KeepEmbeddings, init_args: {pictures: 300}}

read_embeddings("runs/mnist").rows                              # (t, n, d), see multimodal.export.run
course_of("runs/mnist", shards, "label", "triplet")             # as a page shows it, see multimodal.evaluate.course
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from multimodal.boxes import atomic_write
from multimodal.data.sides import open_side
from multimodal.errors import InputError
from multimodal.export.run import EMBEDDINGS, Embeddings, read_embeddings
from multimodal.shards import JoinedShards
from multimodal.training.datamodule import PairData
from multimodal.training.module import PairModule
from multimodal.training.optimisers import averaged, averages

AT_ONCE = 256
"""Pictures that are encoded at a time."""
ROUND = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Of the steps 10, 15, 20, 30, 50, 70, 100, 150 and so on: nearly evenly apart on a logarithmic scale, as what changes is."""


class KeepEmbeddings(Callback):
    """The vectors of some pictures before the first step, after steps 10, 15, 20, 30, 50, 70, 100 and so on, and after the last one.

    They are in embeddings.npz in the run's folder, written anew each time. part: of the split; by default pictures on which nothing is
    trained and nothing chosen. pictures: how many, evenly drawn. A resumed run keeps those of the steps before its checkpoint.
    """

    def __init__(self, part: str = "test", pictures: int = 300) -> None:
        if pictures < 1:
            raise InputError(f"KeepEmbeddings: pictures={pictures} must be at least 1")
        self.part, self.pictures = part, pictures
        self._kept: Embeddings | None = None
        self._images: Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PairData)
        sets = JoinedShards.of(data.shards)
        ids = np.concatenate([sets.starts[name] + data.split.ids(one, self.part) for name, one in sets.sets.items()])
        if not len(ids):
            raise InputError(f"KeepEmbeddings: no pair of {sets} is in part {self.part}. Choose another part")
        ids = ids[np.unique(np.linspace(0, len(ids) - 1, min(self.pictures, len(ids))).round().astype(np.int64))]
        rows = open_side(data.image, data.shards, ids)(ids, None)
        assert isinstance(rows.values, np.ndarray)
        ids, self._images = ids[rows.ok], torch.from_numpy(rows.values[rows.ok])
        step = trainer.global_step
        self._kept = Embeddings(ids, np.zeros(0, np.int64), np.zeros((0, len(ids), 0), np.float32))
        if step and self._path(trainer).is_file():
            before = read_embeddings(self._path(trainer).parent)
            if np.array_equal(before.ids, ids):
                self._kept = Embeddings(ids, before.steps[before.steps < step], before.rows[before.steps < step])
        self._keep(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        if is_round(trainer.global_step):
            self._keep(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._keep(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, InputError):  # such as a collapse, whose last state is what one wants to see
            self._keep(trainer, pl_module)

    def _keep(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        kept, images, step = self._kept, self._images, trainer.global_step
        if kept is None or images is None or (len(kept.steps) and kept.steps[-1] >= step):
            return
        assert isinstance(module, PairModule)
        was_training = module.training
        with ExitStack() as stack, torch.no_grad():
            for optimizer in trainer.optimizers:
                if averages(optimizer):
                    stack.enter_context(averaged(optimizer))
            module.eval()
            rows = torch.cat([module(part.to(module.device)).float().cpu() for part in images.split(AT_ONCE)]).numpy()
        module.train(was_training)
        self._kept = Embeddings(kept.ids, np.append(kept.steps, step), np.concatenate([kept.rows.reshape(-1, *rows.shape), rows[None]]))
        with atomic_write(self._path(trainer)) as file:
            np.savez(file, ids=self._kept.ids, steps=self._kept.steps, rows=self._kept.rows)

    @staticmethod
    def _path(trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir) / EMBEDDINGS


def is_round(step: int) -> bool:
    """Whether a step is 10, 15, 20, 30, 50 or 70, times a power of ten."""
    if step < 10:
        return False
    return step / 10 ** math.floor(math.log10(step)) in ROUND
