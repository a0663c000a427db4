"""Pairs that cannot be read cost themselves alone: the run goes on, counts and names them, and learns what the others teach."""

from __future__ import annotations

import csv
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from multimodal.data import PairLoader
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter
from multimodal.training.datamodule import PairData
from multimodal.training.door import build, fit
from multimodal.training.module import PairModule
from multimodal.training.optimisers import warmup_cosine

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

NUM_PAIRS, NUM_BAD, BATCH_SIZE, DIM = 400, 4, 48, 5

RECIPE = f"""
model:
  image_tower: tiny_tower.Tower
  target_side:
    class_path: multimodal.towers.Head
    init_args: {{dim_in: {DIM}, dim_out: 8}}
  objective: multimodal.objectives.Clip
  optimiser: {{lr: 1.0e-2, warmup_steps: 3}}
data:
  split: {{held_out: 0}}
  validation_share: 0
  image: {{class_path: multimodal.data.Pixels, init_args: {{size: 8}}}}
  target: {{class_path: multimodal.data.ColumnRows, init_args: {{name: words}}}}
  batch_size: {BATCH_SIZE}
preflight: {{max_steps: 0, export: false}}
trainer: {{accelerator: cpu, max_epochs: 2, log_every_n_steps: 1}}
"""

TOWER = """
from torch import nn

class Tower(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.Tanh(), nn.Linear(16, 8))

    def forward(self, image):
        return super().forward(image / 255)
"""


@pytest.fixture
def jpegs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, tuple[int, ...]], list[str]]:
    """`jpegs("some", bad)`: the command line of a contrastive run over 400 JPEGs, of which those named are cut off in the middle."""
    from tests.training.conftest import write_column

    (tmp_path / "tiny_tower.py").write_text(TOWER)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)

    def of(name: str, bad: tuple[int, ...]) -> list[str]:
        generator = np.random.default_rng(0)
        with ShardWriter(tmp_path / name, pairs_per_shard=150) as writer:
            for number in range(NUM_PAIRS):
                encoded = io.BytesIO()
                Image.fromarray(generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(encoded, "JPEG")
                content = encoded.getvalue()[: -60 if number in bad else None]
                writer.write(Pair(f"{number}.jpg", content, "jpg", (f"thing {number}",), group=str(number)))
        write_column(ShardSet(tmp_path / name), "words", generator.normal(size=(NUM_PAIRS, DIM)).astype(np.float32))
        return ["--config", str(tmp_path / "recipe.yaml"), "--data.shards", str(tmp_path / name)]

    return of


def on_rank_one(command: list[str]) -> tuple[int, ...]:
    """Pairs that the second of two ranks reads, in both epochs."""
    data = build([*command, "--run", "none"])[1]
    data.setup("fit")
    loader = training_loader(data, rank=1, world_size=2)
    first, second = ({int(id) for batch in loader for id in batch.id if id >= 0} for _ in range(2))
    return tuple(sorted(first & second))[:NUM_BAD]


def training_loader(data: PairData, rank: int = 0, world_size: int = 1) -> PairLoader:
    return PairLoader(
        data.shards, data.train_ids, data.image, data.target, BATCH_SIZE // world_size, seed=0, rank=rank, world_size=world_size
    )


def slow_losses(module: PairModule, loader: PairLoader, num_epochs: int) -> list[float]:
    """Training as a bare loop: of each global batch the rows that are valid alone, and CLIP's loss one row at a time."""
    optimizer = module.optimiser.optimizer(module)
    lr, num_steps, losses = module.optimiser.lr, num_epochs * len(loader), []
    for _ in range(num_epochs):
        for batch in loader:
            image = F.normalize(module.image_tower(batch.image[batch.valid]), dim=1)
            text = F.normalize(module.target_side(batch.target[batch.valid]), dim=1)
            scores = module.objective.log_scale.exp() * image @ text.T
            rows = [-torch.log_softmax(side[row], dim=0)[row] for side in (scores, scores.T) for row in range(len(side))]
            loss = torch.stack(rows).mean()
            for group in optimizer.param_groups:
                group["lr"] = lr * warmup_cosine(len(losses), num_steps, module.optimiser.warmup_steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_with_one_per_cent_of_jpegs_cut_all_on_one_of_two_ranks_a_run_learns_what_a_loop_over_the_others_learns(
    jpegs: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]], tmp_path: Path
) -> None:
    bad = on_rank_one(jpegs("whole", ()))
    command = [*jpegs("cut", bad), "--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "4"]
    run = tmp_path / "run"
    witness.die_after(14)  # in the second epoch: what was found bad before is not found a second time
    assert -signal.SIGKILL in launch([*command, "--run", str(run)], num_ranks=2)
    killed = witness.take(2)
    witness.die_after(None)
    assert launch([*command, "--run", str(run)], num_ranks=2) == [0, 0]
    gone_on = witness.take(2)
    assert [sorted({id for steps in (killed[rank], gone_on[rank]) for step in steps for id in step["bad"]}) for rank in (0, 1)] == [
        [],
        [*bad],
    ]

    shards = ShardSet(tmp_path / "cut")
    named = {(f"cut/{shards.shard_of(id).name}", shards.key(id)) for id in bad}
    assert {(row["where"], row["key"]) for row in rows_of(run / "bad.csv")} == named
    assert all("truncated" in row["reason"] for row in rows_of(run / "bad.csv"))

    module, data = build([*command, "--run", "none"])
    data.setup("fit")
    loader = training_loader(data)
    expected = slow_losses(module, loader, num_epochs=2)
    figures = rows_of(run / "metrics.csv")
    assert [int(row["step"]) for row in figures] == list(range(2 * len(loader)))
    # float32 sums in another order, and Adam divides by the root of a gradient's square
    np.testing.assert_allclose([float(row["train/loss"]) for row in figures], expected, rtol=2e-4)
    loader.set_epoch(0)
    so_far, num_rows = set(), []
    for step, batch in enumerate([*loader, *loader]):
        so_far |= {int(id) for id in batch.id if int(id) in bad}
        num_rows.append(int(batch.valid.sum()))
        assert float(figures[step]["train/bad_pairs"]) == len(so_far)
    assert [float(row["train/rows"]) for row in figures] == num_rows


def test_the_progress_shows_how_many_pairs_were_bad(
    jpegs: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fit([*jpegs("cut", (7, 8, 9)), "--run", str(tmp_path / "run")])
    assert "training: 864/864 pairs" in (told := capfd.readouterr().err) and "done, 3 bad" in told
    fit([*jpegs("whole", ()), "--run", str(tmp_path / "other")])
    assert "bad" not in capfd.readouterr().err and not (tmp_path / "other" / "bad.csv").exists()


def test_a_run_stops_as_soon_as_too_many_of_its_pairs_are_bad_and_names_them(jpegs: Callable[..., list[str]], tmp_path: Path) -> None:
    command = [*jpegs("cut", tuple(range(0, NUM_PAIRS, 10))), "--run", str(tmp_path / "run"), "--data.max_bad_share", "0.02"]
    with pytest.raises(InputError, match=r"of 400 are bad \(\d\.\d%\), more than --data.max_bad_share 0.02: .*bad.csv"):
        fit(command)
    assert len(rows_of(tmp_path / "run" / "bad.csv")) < NUM_PAIRS // 10, "the first epoch was not over"


def test_a_tar_that_was_cut_costs_its_pairs_and_not_the_run(jpegs: Callable[..., list[str]], tmp_path: Path) -> None:
    command = jpegs("cut", ())
    shards = ShardSet(tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "000002.tar", shards.rows(shards.shards[2])[90].image_offset)  # of 100 pairs
    run = fit([*command, "--run", str(tmp_path / "run")])
    assert [row["key"] for row in rows_of(run / "bad.csv")] == [shards.key(id) for id in range(390, 400)]
    assert float(rows_of(run / "metrics.csv")[-1]["train/bad_pairs"]) == 10


def test_a_run_whose_tar_vanishes_ends_with_the_reason_and_goes_on_once_it_is_back(
    jpegs: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]], tmp_path: Path
) -> None:
    command = [*jpegs("set", ()), "--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "4", "--run", str(tmp_path / "run")]
    tar = tmp_path / "set" / "000001.tar"
    witness.die_after(6)
    assert launch(command) == [-signal.SIGKILL]
    witness.die_after(None)
    tar.rename(tmp_path / "elsewhere.tar")
    with pytest.raises(InputError, match=r"000001.tar: the shard is missing") as ended:
        fit(command)
    assert "\n" not in str(ended.value)
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    (tmp_path / "elsewhere.tar").rename(tar)
    fit(command)
    assert [int(row["step"]) for row in rows_of(tmp_path / "run" / "metrics.csv")] == list(range(18))
