"""Before the first epoch: how many texts are longer than the text tower reads. Their ends are never seen, which nothing else would say."""

from __future__ import annotations

import sys

import lightning as L
from lightning.pytorch.callbacks import Callback

from multimodal.text.space import CutsTexts
from multimodal.training.datamodule import PairData
from multimodal.training.module import PairModule

NUM_READ = 10_000
"""Texts that are read to count them; a tokenizer takes some seconds for as many."""


class LongTexts(Callback):
    """Prints how many of the texts of the run's first epoch, of at most `NUM_READ` of them, are cut. A resumed run has said so before."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairModule)
        data: PairData = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.global_step or not trainer.is_global_zero or not isinstance(pl_module.target_side, CutsTexts):
            return
        texts = data.some_texts(NUM_READ)
        if num_cut := pl_module.target_side.num_cut(texts):
            among = f"of {len(texts):,}" if len(texts) == len(data.train_ids) else f"of {len(texts):,} drawn"
            print(f"{num_cut:,} {among} texts are longer than the text tower reads; only their beginnings count", file=sys.stderr)
