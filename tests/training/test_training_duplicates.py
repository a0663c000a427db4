"""Pairs with the same picture or the same text, which are not each other's negatives if a recipe says so."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.objectives import Clip, SigLip
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter
from multimodal.training.door import build, fit
from multimodal.training.validate import validate
from tests.training.conftest import write_column

NUM, NUM_TEXTS = 96, 6
CONTRASTIVE = """
model:
  image_tower: {class_path: multimodal.towers.Head, init_args: {dim_in: 8, dim_out: 5, standardise: false}}
  target_side: {class_path: multimodal.towers.Head, init_args: {dim_in: 4, dim_out: 5, standardise: false}}
  objective: {class_path: multimodal.objectives.Clip, init_args: {mask_duplicates: true}}
  optimiser: {lr: 1.0e-2}
data:
  image: {class_path: multimodal.data.ColumnRows, init_args: {name: features}}
  target: {class_path: multimodal.data.ColumnRows, init_args: {name: rows}}
  batch_size: 16
  validation_share: 0.2
preflight: {export: false}
trainer: {accelerator: cpu, max_epochs: 2, log_every_n_steps: 1, precision: 64-true}
"""


@pytest.fixture(scope="module")
def few_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 pairs of different pictures that share six texts. Their rows, as an encoder's may, differ in the last bits."""
    folder, rng = tmp_path_factory.mktemp("few") / "set", np.random.default_rng(0)
    with ShardWriter(folder, pairs_per_shard=50) as writer:
        for number in range(NUM):
            encoded = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(encoded, "PNG")
            writer.write(Pair(f"{number}.png", encoded.getvalue(), "png", (f"kind {number % NUM_TEXTS}",), group=f"{number}"))
    shards, kinds = ShardSet(folder), np.arange(NUM) % NUM_TEXTS
    rows = rng.normal(size=(NUM_TEXTS, 4))[kinds]
    write_column(shards, "rows", rows * (1 + 1e-6 * rng.normal(size=rows.shape)))
    write_column(shards, "features", np.eye(8)[kinds] + 0.3 * rng.normal(size=(NUM, 8)))
    return folder


@pytest.fixture
def command(few_texts: Path, tmp_path: Path) -> Callable[..., list[str]]:
    (tmp_path / "contrastive.yaml").write_text(CONTRASTIVE)
    common = ["--config", str(tmp_path / "contrastive.yaml"), "--data.shards", str(few_texts)]
    return lambda name, *more: [*common, "--run", str(tmp_path / name), *more]


def weights(run: Path) -> torch.Tensor:
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for value in state.values()])


def losses(run: Path, name: str) -> list[float]:
    with open(run / "metrics.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize("objective", [Clip, SigLip])
def test_two_ranks_that_mask_duplicates_train_what_one_does_in_micro_batches_too(
    command: Callable[..., list[str]], launch: Callable[..., list[int]], tmp_path: Path, objective: type
) -> None:
    of = ["--model.objective", f"multimodal.objectives.{objective.__name__}", "--model.objective.mask_duplicates"]
    one, counted = fit(command("one", *of, "true")), fit(command("counted", *of, "false"))
    assert launch(command("two", *of, "true"), num_ranks=2) == [0, 0]
    parts = fit(command("parts", *of, "true", "--model.micro_batch_size", "5"))
    for other in (tmp_path / "two", parts):
        torch.testing.assert_close(weights(other), weights(one), rtol=0, atol=1e-10)
    assert (weights(counted) - weights(one)).norm() > 1e-6
    assert losses(one, "val/loss")[-1] < losses(counted, "val/loss")[-1]
    best = torch.load(parts / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
    assert validate(parts, accelerator="cpu")["val/loss"] == pytest.approx(losses(parts, "val/loss")[best], rel=1e-6)


def test_a_recipe_sets_label_smoothing(command: Callable[..., list[str]]) -> None:
    smoothed = ["--model.objective.label_smoothing", "0.2", "--trainer.max_epochs", "1"]
    module, _ = build(command("smoothed", *smoothed))
    assert isinstance(module.objective, Clip) and module.objective.label_smoothing == 0.2
    plain, run = fit(command("plain", "--trainer.max_epochs", "1")), fit(command("smoothed", *smoothed))
    assert losses(run, "train/loss")[0] != losses(plain, "train/loss")[0]
