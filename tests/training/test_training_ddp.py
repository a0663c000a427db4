from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multimodal.boxes import read_manifest
from multimodal.data import ColumnRows
from multimodal.shards import Split
from multimodal.training import recipes
from multimodal.training.datamodule import PairData
from multimodal.training.door import fit
from multimodal.training.offline_wandb import OfflineRun

WITNESS = """
import json, os
from lightning.pytorch.callbacks import Callback

class Witness(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        seen = {"epoch": trainer.current_epoch, "ids": batch.id[batch.valid].tolist()}
        with open(os.environ["WITNESS"] + f".rank{trainer.global_rank}", "a") as file:
            file.write(json.dumps(seen) + "\\n")
"""

TIMEOUT_S = 160


def test_two_processes_see_every_pair_once_and_train_what_one_process_trains(
    arguments: Callable[..., list[str]],
    pairs: Path,
    told_wandb: Callable[[Path], OfflineRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "witness_ddp.py").write_text(WITNESS)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    same = [
        "--config",
        str(recipes.find("trainer/wandb.yaml")),
        "--trainer.max_epochs",
        "2",
        "--trainer.callbacks+=witness_ddp.Witness",
        "--model.image_tower.init_args.dropout",
        "0",
    ]
    two = [*arguments("two", *same), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": str(tmp_path),
        "WITNESS": str(tmp_path / "two"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "multimodal.cli", "fit", *two], env=environment, timeout=TIMEOUT_S, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WITNESS", str(tmp_path / "one"))
    one = fit(arguments("one", *same))

    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), validation_share=0.2)
    data.setup("fit")
    ranks = [[json.loads(line) for line in (tmp_path / f"two.rank{rank}").read_text().splitlines()] for rank in (0, 1)]
    for epoch in (0, 1):
        seen = [id for rank in ranks for step in rank if step["epoch"] == epoch for id in step["ids"]]
        assert sorted(seen) == data.train_ids.tolist()
    whole = [json.loads(line) for line in (tmp_path / "one.rank0").read_text().splitlines()]
    for left, right, together in zip(*ranks, whole, strict=True):
        assert sorted(left["ids"] + right["ids"]) == sorted(together["ids"])

    weights = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (tmp_path / "two", one)]
    for key, value in weights[0].items():
        # The order of sums differs, and Adam divides by the root of a gradient's square: where it is near zero its rounding counts.
        torch.testing.assert_close(value, weights[1][key], rtol=1e-3, atol=1e-4)
    assert read_manifest(tmp_path / "two", kind="run") == read_manifest(one, kind="run")  # but for devices, which are not in it
    told = [told_wandb(run) for run in (tmp_path / "two", one)]
    assert told[0].steps("queries/table") == told[1].steps("queries/table") and len(told[0].steps("queries/table")) == 2
    for step in told[0].steps("queries/table"):
        rows = [of_run.table("queries/table", step).rows for of_run in told]
        for of_two, of_one in zip(*rows, strict=True):  # all ranks' rows, though rank zero alone tells
            assert of_two[:2] == of_one[:2] and of_two[3] == of_one[3] == len(data.validation_ids)
            assert of_two[5] == pytest.approx(of_one[5], abs=1e-3)
    assert (tmp_path / "two" / "metrics.csv").read_text().splitlines()[0] == (one / "metrics.csv").read_text().splitlines()[0]
