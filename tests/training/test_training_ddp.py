from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from multimodal.boxes import read_manifest
from multimodal.data import ColumnRows
from multimodal.doors import recipes
from multimodal.shards import Split
from multimodal.training.datamodule import PairData
from multimodal.training.door import fit
from multimodal.training.offline_wandb import OfflineRun

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

TIMEOUT_S = 500


def test_two_processes_see_every_pair_once_and_train_what_one_process_trains(
    arguments: Callable[..., list[str]],
    pairs: Path,
    told_wandb: Callable[[Path], OfflineRun],
    witness: Witnessed,
    meeting: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    same = [
        "--config",
        str(recipes.find("trainer/wandb.yaml")),
        "--trainer.max_epochs",
        "2",
        "--trainer.callbacks+=witness.Witness",
        "--model.image_tower.init_args.dropout",
        "0",
    ]
    two = [*arguments("two", *same), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": str(tmp_path),
        **meeting,
    }
    done = subprocess.run(
        [sys.executable, "-m", "multimodal.cli", "fit", *two], env=environment, timeout=TIMEOUT_S, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    ranks = witness.take(2)
    one = fit(arguments("one", *same))

    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), validation_share=0.2)
    data.setup("fit")
    for epoch in (0, 1):
        seen = [id for rank in ranks for step in rank if step["epoch"] == epoch for id in step["ids"]]
        assert sorted(seen) == data.train_ids.tolist()
    for left, right, together in zip(*ranks, *witness.take(), strict=True):
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


@pytest.fixture
def twelve_a_step(arguments: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """A run whose batches divide by one, two and three ranks, and neither its pairs nor its shards by anything."""
    more = ["--trainer.callbacks+=witness.Witness", "--data.batch_size", "12", "--checkpoint_every_n_steps", "3"]
    return lambda name, *others: arguments(name, *more, "--model.image_tower.init_args.dropout", "0", *others)


def joined(ranks: list[list[dict[str, Any]]]) -> list[tuple[int, int, list[int]]]:
    """(step, epoch, ids) of each global batch, the ids in their order, of which ranks take one in turn; all ranks took equal steps of the
    same size.
    """
    steps = []
    for parts in zip(*ranks, strict=True):
        assert len({(part["step"], part["epoch"], part["num_rows"]) for part in parts}) == 1
        in_turn = zip_longest(*(part["ids"] for part in parts))  # padding comes last, and has no id
        steps.append((parts[0]["step"], parts[0]["epoch"], [id for turn in in_turn for id in turn if id is not None]))
    return steps


def test_one_two_and_three_processes_take_the_same_steps_and_go_on_as_any_other_number(
    twelve_a_step: Callable[..., list[str]], pairs: Path, witness: Witnessed, launch: Callable[..., list[int]], tmp_path: Path
) -> None:
    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), validation_share=0.2)
    data.setup("fit")
    ids = data.train_ids.tolist()
    assert len({shard.num_pairs for shard in data.shards.shards}) > 1 and len(ids) % 12

    fit(twelve_a_step("one"))
    whole = joined(witness.take())
    per_epoch = -(-len(ids) // 12)
    assert [step for step, _, _ in whole] == list(range(1, 3 * per_epoch + 1))
    for epoch in range(3):
        seen = [id for _, of_step, step_ids in whole for id in step_ids if of_step == epoch]
        assert sorted(seen) == ids and (not epoch or seen != [id for _, _, step_ids in whole[:per_epoch] for id in step_ids])
    for num_ranks, name in ((2, "two"), (3, "three")):
        assert launch(twelve_a_step(name), num_ranks) == [0] * num_ranks
        ranks = witness.take(num_ranks)
        assert {step["num_rows"] for rank in ranks for step in rank} == {12 // num_ranks}
        assert joined(ranks) == whole
        if num_ranks == 2:
            uninterrupted = ranks

    dies_at = int(torch.randint(per_epoch + 1, 2 * per_epoch, (), generator=torch.Generator().manual_seed(len(ids))))
    witness.die_after(dies_at)
    assert -signal.SIGKILL in launch([*twelve_a_step("killed2"), "--data.num_workers", "1"], num_ranks=2)
    witness.take(2)
    witness.die_after(None)
    saved: int = torch.load(tmp_path / "killed2" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert per_epoch <= saved < dies_at and dies_at - saved <= 3
    for other in ("killed1", "killed3"):
        shutil.copytree(tmp_path / "killed2", tmp_path / other)
    for num_ranks, num_workers in ((2, 0), (1, 2), (3, 0)):
        assert launch([*twelve_a_step(f"killed{num_ranks}"), "--data.num_workers", str(num_workers)], num_ranks) == [0] * num_ranks
        ranks = witness.take(num_ranks)
        assert joined(ranks) == whole[saved:], f"killed on 2 ranks after step {dies_at}, gone on with {num_ranks}"
        if num_ranks == 2:
            assert ranks == [rank[saved:] for rank in uninterrupted]  # chance included

    weights = [torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in ("two", "killed2")]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert (tmp_path / "two" / "metrics.csv").read_text() == (tmp_path / "killed2" / "metrics.csv").read_text()
    for run in ("three", "killed1", "killed2", "killed3"):
        assert read_manifest(tmp_path / run, kind="run") == read_manifest(tmp_path / "one", kind="run")


ENDS = '''
import os
from lightning.pytorch.callbacks import Callback

class Ends(Callback):
    """Ends the second rank, as a machine that fails does."""

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_rank == 1 and trainer.global_step == 7:
            os._exit(9)
'''


def test_a_rank_that_loses_another_ends_in_one_line_and_the_run_resumes(
    arguments: Callable[..., list[str]], launch: Callable[..., list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    command = arguments("run", "--preflight.max_steps", "0", "--trainer.callbacks+=ends.Ends")
    assert launch(command, num_ranks=2) == [2, 9]
    told = [line for line in (tmp_path / "ranks.log").read_text().splitlines() if not line.startswith("training:")]
    assert len(told) == 1 and told[0].startswith("error: rank 0: another rank has ended")
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5
    assert fit(command) and read_manifest(tmp_path / "run", "run")
