"""A finished run as a box to inspect: its config, its figures and its checkpoints. It loads no torch.

run = Run("runs/demo/topic/run")
run.best["val/R@10"], run.checkpoint, run.config["model"]["optimiser"]
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from multimodal.boxes import read_manifest, reading
from multimodal.errors import InputError

CONFIG = "config.yaml"
METRICS = "metrics.csv"
EMBEDDINGS = "embeddings.npz"
"""Where some pictures were in the course of the training, if the run has the callback KeepEmbeddings."""
MODELS = "models"
"""What the CLIP models are that the run was trained on, without their weights."""
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")
"""In order of preference: the first that the run has is used."""


class Run:
    """The folder of a finished run; InputError if it is not one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path, kind="run")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """All settings, resolved: its config.yaml, from which `multimodal fit` makes the same run."""
        path = self.path / CONFIG
        with reading(path, yaml.YAMLError):
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(config, dict):
                raise ValueError("it holds no settings")
        return config

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """A row for each step at which something was logged: epoch, step (of the optimiser, from 0), and the figures logged then.

        `pandas.DataFrame(run.metrics)` is a table of them.
        """
        path = self.path / METRICS
        with reading(path, csv.Error), open(path, newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]

    @property
    def best(self) -> dict[str, float] | None:
        """The row of `metrics` after which best.ckpt was written; None if the run kept only its last state."""
        if not (self.path / CHECKPOINTS[0]).is_file():
            return None
        better, monitor = max if self._selection.get("mode", "max") == "max" else min, self.monitor
        rows = [row for row in self.metrics if not math.isnan(row.get(monitor, math.nan))]
        return better(rows, key=lambda row: row[monitor]) if rows else None  # among equally good ones the first, which the run kept

    @property
    def monitor(self) -> str:
        """The figure by which the best epoch is chosen, as `metrics` names it."""
        return str(self._selection.get("monitor"))

    @property
    def _selection(self) -> Mapping[str, Any]:
        return self.config.get("selection") or {}

    @property
    def checkpoint(self) -> Path:
        """The file that an export is made from: best.ckpt, else last.ckpt. InputError if both are missing."""
        for name in CHECKPOINTS:
            if (self.path / name).is_file():
                return self.path / name
        raise InputError(
            f"{self.path}: has no {' and no '.join(CHECKPOINTS)}. "
            f"Make the run again: multimodal fit --config {self.path / CONFIG} --run {self.path} --overwrite"
        )

    def __repr__(self) -> str:
        counts = self.manifest.counts
        shown = [f"{counts[what]:,} {what}" for what in ("epochs", "steps", "pairs") if what in counts]
        best = self.best
        if best is not None:
            when = f"in epoch {best['epoch']:.0f}" if best["epoch"] >= 0 else "before the first step"
            shown.append(f"best {self.monitor} {best[self.monitor]:.4g} {when}")
        return f"Run({str(self.path)!r}: {', '.join(shown)})"


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The vectors of n pictures after t steps of a run. ids (n,) int64, in its shards. steps (t,) int64, ascending; 0 is before the first.
    rows (t, n, d) float32.
    """

    ids: np.ndarray
    steps: np.ndarray
    rows: np.ndarray


def read_embeddings(run: Path) -> Embeddings:
    """What the callback KeepEmbeddings has kept in a run's folder; the run need not be finished. InputError: nothing, or a damaged file."""
    path = Path(run) / EMBEDDINGS
    if not path.is_file():
        raise InputError(f"{run}: has no {EMBEDDINGS}. Train it with: --trainer.callbacks+=multimodal.training.KeepEmbeddings")
    with reading(path, zipfile.BadZipFile), np.load(path, allow_pickle=False) as file:
        kept = Embeddings(file["ids"], file["steps"], file["rows"])
        if kept.rows.ndim != 3 or kept.rows.shape[:2] != (len(kept.steps), len(kept.ids)):
            raise ValueError(f"its rows are {kept.rows.shape}, of {len(kept.steps)} steps and {len(kept.ids)} pictures")
        return kept
