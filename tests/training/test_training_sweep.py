"""A run of a sweep: the shipped command, as W&B's agent composes and starts it, on two ranks that both have the values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from multimodal.boxes import is_whole
from multimodal.doors import recipes

utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils", reason="wandb is not installed (extra train)")

TOLD = """
import json
from pathlib import Path
from lightning.pytorch.callbacks import Callback

class Told(Callback):
    def on_train_start(self, trainer, module):
        has = {"lr": module.optimiser.lr, "seed": trainer.datamodule.seed, "batch": trainer.datamodule.batch_size}
        Path(f"rank{trainer.global_rank}.json").write_text(json.dumps(has))
"""


@pytest.mark.slow
def test_both_ranks_of_a_sweep_s_run_have_the_values_and_wandb_knows_it_by_the_agent_s_id(
    arguments: Callable[..., list[str]], meeting: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "told.py").write_text(TOLD)
    sweep = yaml.safe_load((recipes.folder() / "sweep" / "contrastive_emoji.yaml").read_text())
    *before, args = [part for part in sweep["command"] if not str(part).startswith(("--data.", "--config=experiment/"))]
    run = arguments("unused", "--trainer.max_epochs=1", "--preflight.max_steps=0", "--trainer.callbacks+=told.Told")
    at = run.index("--run")
    mine = [*run[:at], *run[at + 2 :], "--trainer.devices=2", "--trainer.strategy=ddp"]
    values = {"model.optimiser.lr": 1e-05, "seed_everything": 3, "data.batch_size": 24}
    macros = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros["env"] = ["/usr/bin/env"]
    command = [one for part in [*before, *mine, args] for one in (macros[part[2:-1]] if part.startswith("${") else [part])]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        **{"WANDB_RUN_ID": "agents1", "WANDB_SWEEP_ID": "sweep1", "WANDB_MODE": "offline", "WANDB_CACHE_DIR": str(tmp_path / "cache")},
        **{"PYTHONPATH": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **meeting},
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert is_whole(tmp_path / "runs" / "sweep" / "agents1")
    for rank in (0, 1):
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == {"lr": 1e-05, "seed": 3, "batch": 24}
    [kept] = (tmp_path / "runs" / "sweep" / "agents1" / "wandb").glob("offline-run-*")
    assert kept.name.endswith("-agents1")
