"""A run whose time is over, or that a signal stops, is not finished: the same command goes on. A finished one can be made longer."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from multimodal.boxes import is_whole, read_manifest
from multimodal.errors import InputError
from multimodal.training.door import fit

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

Arguments = Callable[..., list[str]]
AT_ONCE = ("--trainer.max_time", "00:00:00:00")
"""A time that is over after the first step, and after each that follows."""


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return loaded


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        left, right = checkpoint(one, name), checkpoint(other, name)
        assert left["global_step"] == right["global_step"]
        assert all(torch.equal(value, right["state_dict"][key]) for key, value in left["state_dict"].items())
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_a_run_whose_time_is_over_after_every_step_ends_in_the_weights_of_an_undisturbed_one(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(arguments("whole"))
    paused = tmp_path / "paused"
    for step in range(1, 15):  # inside epochs and between them; the fifteenth step is the last one
        assert fit(arguments("paused", *AT_ONCE)) == paused
        assert not is_whole(paused) and checkpoint(paused)["global_step"] == step
        assert "its time is up, trainer.max_time=0:00:00. It is not finished; run the same command to resume" in capsys.readouterr().err
    fit(arguments("paused", *AT_ONCE))
    assert_same_run(whole, paused)


@pytest.mark.timeout(480)
def test_several_ranks_pause_together(arguments: Arguments, launch: Callable[..., list[int]], tmp_path: Path) -> None:
    assert launch(arguments("whole"), num_ranks=2) == [0, 0]
    for _ in range(2):
        assert launch(arguments("paused", *AT_ONCE), num_ranks=2) == [0, 0]
        assert not is_whole(tmp_path / "paused")
    assert launch(arguments("paused"), num_ranks=2) == [0, 0]
    assert_same_run(tmp_path / "whole", tmp_path / "paused")


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_signal_that_a_cluster_sends_costs_no_step(arguments: Arguments, witness: Witnessed, tmp_path: Path, name: str) -> None:
    command = arguments("run", "--trainer.callbacks+=witness.Witness")
    before = signal.getsignal(signal.Signals[name])
    witness.die_after(7, of=name)
    with pytest.raises(KeyboardInterrupt):
        fit(command)
    assert signal.getsignal(signal.Signals[name]) == before
    witness.die_after(None)
    assert checkpoint(tmp_path / "run")["global_step"] == 7 and not is_whole(tmp_path / "run")
    fit(command)
    assert [seen["step"] for seen in witness.steps()] == list(range(1, 16))
    assert_same_run(fit(arguments("whole", "--trainer.callbacks+=witness.Witness")), tmp_path / "run")


def test_a_timer_that_would_end_a_run_for_good_is_refused(arguments: Arguments, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Set trainer.max_time, which pauses it"):
        fit(arguments("run", "--trainer.callbacks+=Timer", "--trainer.callbacks.duration", "00:01:00:00"))
    assert not (tmp_path / "run").exists()


def test_a_time_that_is_none_is_refused(arguments: Arguments) -> None:
    with pytest.raises(InputError, match=r"trainer.max_time=soon: .*DD:HH:MM:SS"):
        fit(arguments("run", "--trainer.max_time", "soon"))


def test_steps_that_were_asked_for_are_a_finish(arguments: Arguments) -> None:
    run = fit(arguments("run", "--trainer.max_steps", "7"))
    assert read_manifest(run, kind="run").counts["steps"] == 7


def test_a_finished_run_is_trained_further_where_that_is_asked_for(arguments: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    constant = ("--model.optimiser", "multimodal.training.SGDSteps", "--model.optimiser.lr", "0.01")
    whole = fit(arguments("whole", *constant, "--trainer.max_epochs", "4"))
    run = fit(arguments("run", *constant, "--trainer.max_epochs", "2"))
    longer = arguments("run", *constant, "--trainer.max_epochs", "4")
    with pytest.raises(InputError, match=r"trainer.max_epochs was 2 and is 4. To train this run further, add --extend"):
        fit(longer)
    assert fit([*longer, "--extend"]) == run
    assert "trainer.max_epochs was 2 and is 4. A rate that falls until the end follows the longer run's schedule" in capsys.readouterr().err
    assert_same_run(whole, run)  # of a rate that does not depend on the length of a run
    assert fit(longer) == run and fit([*longer, "--extend"]) == run
    with pytest.raises(InputError, match="trainer.max_epochs"):
        fit(arguments("run", *constant, "--trainer.max_epochs", "3", "--extend"))


def test_a_cosine_is_that_of_the_longer_run(arguments: Arguments) -> None:
    run = fit(arguments("run", "--trainer.max_epochs", "1"))
    fit(arguments("run", "--trainer.max_epochs", "2", "--extend"))
    whole = fit(arguments("whole", "--trainer.max_epochs", "2"))
    rates = []
    for one in (run, whole):
        with open(one / "metrics.csv", newline="", encoding="utf-8") as file:
            rates.append([float(row["train/lr"]) for row in csv.DictReader(file)])
    assert len(rates[0]) == 10 and rates[0][6:] == rates[1][6:]  # the sixth step has the rate that the shorter run's schedule left
    assert rates[0][5] < 1e-4 < rates[0][6]


def test_a_run_with_a_config_of_an_earlier_release_is_the_same_run(arguments: Arguments) -> None:
    """Before an optimiser was named by a class path, and before a run could begin with another one's weights."""
    run = fit(arguments("run", "--trainer.max_epochs", "1"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["optimiser"] = {
        key: config["model"]["optimiser"]["init_args"][key] for key in ("lr", "weight_decay", "warmup_steps", "betas")
    }
    for key in ("init_from", "init_parts", "extend"):
        del config[key]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert fit(arguments("run", "--trainer.max_epochs", "1")) == run
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    again = fit(["--config", str(run / "config.yaml"), "--run", str(run.parent / "again")])
    assert all(torch.equal(value, checkpoint(again)["state_dict"][key]) for key, value in checkpoint(run)["state_dict"].items())
    with pytest.raises(InputError, match=r"model.optimiser.init_args.lr"):
        fit(arguments("run", "--trainer.max_epochs", "1", "--model.optimiser.lr", "0.5"))


def test_a_run_that_was_only_tried_leaves_nothing(arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(arguments("run", "--trainer.fast_dev_run", "true"))
    assert "trained and validated 1 steps without an error. Nothing was saved" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    run = fit(arguments("run", "--trainer.max_epochs", "1"))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    fit(arguments("run", "--trainer.fast_dev_run", "2"))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
