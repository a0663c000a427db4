from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.pairs import Pair
from multimodal.shards import ColumnWriter, ShardSet, ShardWriter
from multimodal.training.offline_wandb import OfflineRun, read_offline

NUM_PAIRS, DIM_IMAGE, DIM_TEXT = 121, 6, 4
UNREADABLE = (3, 40)
"""Ids without a row in the column `some_bad`."""

RECIPE = f"""
model:
  image_tower:
    class_path: multimodal.towers.Head
    init_args: {{dim_in: {DIM_IMAGE}, dim_out: {DIM_TEXT}, dropout: 0.1, standardise: true}}
  text_side: {{class_path: torch.nn.Identity}}
  objective: {{class_path: multimodal.objectives.SoftCrossEntropy}}
  optimiser: {{lr: 1.0e-2, warmup_steps: 3}}
data:
  image: {{class_path: multimodal.data.ColumnRows, init_args: {{name: features}}}}
  text: {{class_path: multimodal.data.ColumnRows, init_args: {{name: topics}}}}
  batch_size: 16
  validation_share: 0.2
trainer: {{accelerator: cpu, max_epochs: 3, log_every_n_steps: 1}}
"""


def write_column(shards: ShardSet, name: str, rows: np.ndarray) -> None:
    with ColumnWriter(shards, name, rows.shape[1], "pair", "float32", {}, {"test": name}) as writer:
        for shard in writer.missing():
            writer.write(shard, rows[shard.start : shard.start + shard.num_pairs])


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Steps of a few rows are a hundred times slower on several threads where other processes want the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 121 pairs in groups of two, with features and topics that can be told from them; columns with faults beside."""
    folder, generator = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    with ShardWriter(folder, pairs_per_shard=50) as writer:
        for number in range(NUM_PAIRS):
            encoded = io.BytesIO()
            Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(encoded, "PNG")
            writer.write(Pair(f"{number}.png", encoded.getvalue(), "png", (f"thing {number}",), group=f"group {number // 2}"))
    shards = ShardSet(folder)
    features = generator.normal(size=(NUM_PAIRS, DIM_IMAGE)).astype(np.float32)
    topics = np.exp(2 * features[:, :DIM_TEXT])
    write_column(shards, "features", features)
    write_column(shards, "topics", topics / topics.sum(1, keepdims=True))
    write_column(shards, "constant", np.full((NUM_PAIRS, DIM_TEXT), 1 / DIM_TEXT))
    write_column(shards, "nothing", np.full((NUM_PAIRS, DIM_TEXT), np.nan))
    write_column(shards, "zeros", np.zeros((NUM_PAIRS, DIM_TEXT)))
    some_bad = features.copy()
    some_bad[list(UNREADABLE)] = np.nan
    write_column(shards, "some_bad", some_bad)
    return folder


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def told_wandb() -> Callable[[Path], OfflineRun]:
    """Reads what an offline run told W&B, once W&B's own process has written its end. Skips where wandb is not installed."""
    pytest.importorskip("wandb", reason="wandb is not installed (extra train)")

    def read(run: Path) -> OfflineRun:
        while not (told := read_offline(run)).is_finished:
            time.sleep(0.05)
        return told

    return read


@pytest.fixture
def arguments(pairs: Path, recipe: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a small run: `arguments("run", "--trainer.max_epochs", "1")`."""

    def of(name: str, *more: str) -> list[str]:
        return ["--config", str(recipe), "--data.shards", str(pairs), "--run", str(tmp_path / name), *more]

    return of
