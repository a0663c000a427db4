"""Lightning's own callbacks, loggers and profilers in a run: all they write lies in its folder, and those that cannot work say why."""

from __future__ import annotations

import csv
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml

from multimodal.boxes import is_whole
from multimodal.cli import main
from multimodal.doors import recipes
from multimodal.errors import InputError
from multimodal.training.door import fit
from multimodal.training.offline_wandb import OfflineRun

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

Arguments = Callable[..., list[str]]
ToldWandb = Callable[[Path], OfflineRun]

MONITORS = """
trainer:
  callbacks:
    - {class_path: LearningRateMonitor}
    - {class_path: ModelCheckpoint, init_args: {save_last: true, monitor: val/loss}}
    - {class_path: DeviceStatsMonitor, init_args: {cpu_stats: true}}
"""
CONTRASTIVE = [
    "--model.objective",
    "multimodal.objectives.Clip",
    "--data.target.init_args.name",
    "features",
    "--model.image_tower.init_args.dim_out",
    "6",
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where nothing may be written, of a machine on which nobody is logged in to W&B."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_login"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def monitored(arguments: Arguments, tmp_path: Path) -> Arguments:
    """A run with W&B and the callbacks that most people add."""
    pytest.importorskip("wandb", reason="wandb is not installed (extra train)")
    (tmp_path / "monitors.yaml").write_text(MONITORS)
    wandb = str(recipes.find("trainer/wandb.yaml"))
    return lambda name, *more: arguments(name, "--config", wandb, "--config", str(tmp_path / "monitors.yaml"), *more)


def rows_of(run: Path) -> list[dict[str, float]]:
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def assert_wandb_has_all_of(told: OfflineRun, run: Path) -> None:
    """Each figure of metrics.csv is in the offline W&B run, at its step."""
    sent = {step["trainer/global_step"]: step for step in told.history()}
    for row in rows_of(run):
        expected = {name: value for name, value in row.items() if name != "step"}
        assert {name: sent[row["step"]][name] for name in expected} == pytest.approx(expected)


def with_suffix(folder: Path, suffix: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(f"*{suffix}"))


def test_all_that_the_usual_callbacks_write_lies_in_the_run_s_folder_and_in_wandb(
    monitored: Arguments, told_wandb: ToldWandb, empty_folder: Path
) -> None:
    run = fit(monitored("run"))
    assert not any(empty_folder.iterdir())
    assert with_suffix(run / "checkpoints", ".ckpt") == ["best.ckpt", "last.ckpt", "lightning/epoch=2-step=15.ckpt", "lightning/last.ckpt"]
    names = {name for row in rows_of(run) for name in row}
    assert {"lr-AdamW/pg1", "train/loss", "val/R@10"} < names
    assert any(name.startswith("DeviceStatsMonitor.on_train_batch_start/cpu_percent") for name in names)
    told = told_wandb(run)
    assert_wandb_has_all_of(told, run)
    assert all({"epoch", "trainer/pairs_seen"} <= row.keys() for row in told.history())
    assert {row["epoch"] for row in told.history()} == {0, 1, 2}


@pytest.mark.timeout(480)  # the process that all ranks are forked from imports everything first, on cores that may be busy
def test_a_killed_run_with_the_usual_callbacks_goes_on_and_wandb_has_everything_once(
    monitored: Arguments, told_wandb: ToldWandb, witness: Witnessed, launch: Callable[..., list[int]], empty_folder: Path
) -> None:
    command = lambda name: monitored(name, "--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "2")  # noqa: E731
    whole = fit(command("whole"))
    witness.die_after(9)
    assert launch(command("killed")) == [-signal.SIGKILL]
    witness.die_after(None)
    killed = fit(command("killed"))
    assert not any(empty_folder.iterdir())
    told, told_of_whole = told_wandb(killed), told_wandb(whole)
    assert_wandb_has_all_of(told, killed)
    for name in {name for row in rows_of(whole) for name in row.keys() - {"step", "epoch"}}:
        assert told.steps(name) == told_of_whole.steps(name), name
    steady = [[{name: value for name, value in row.items() if "Device" not in name} for row in rows_of(run)] for run in (whole, killed)]
    assert steady[0] == steady[1]
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, killed)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.timeout(480)
def test_two_ranks_with_the_usual_callbacks_write_into_the_run_s_folder_alone(
    monitored: Arguments, told_wandb: ToldWandb, launch: Callable[..., list[int]], tmp_path: Path, empty_folder: Path
) -> None:
    assert launch(monitored("run", "--trainer.max_epochs", "2"), num_ranks=2) == [0, 0]
    assert not any(empty_folder.iterdir())
    assert_wandb_has_all_of(told_wandb(tmp_path / "run"), tmp_path / "run")
    assert "lightning/last.ckpt" in with_suffix(tmp_path / "run" / "checkpoints", ".ckpt")


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ({"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}}, "logs/lightning_logs/version_0/metrics.csv"),
        ({"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "."}}}, "lightning_logs/version_0/metrics.csv"),
        ({"profiler": "simple"}, None),
        ({"profiler": {"class_path": "SimpleProfiler", "init_args": {"filename": "times"}}}, "fit-times.txt"),
        ({"profiler": {"class_path": "AdvancedProfiler", "init_args": {"filename": "times", "dirpath": "deep"}}}, "deep/fit-times.txt"),
        ({"callbacks": [{"class_path": "ModelCheckpoint"}]}, "checkpoints/lightning/epoch=0-step=5.ckpt"),
        ({"callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": "mine"}}]}, "mine/epoch=0-step=5.ckpt"),
        ({"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]}, None),
        ({"callbacks": [{"class_path": "Timer"}]}, None),
        ({"callbacks": [{"class_path": "ModelSummary"}]}, None),
        ({"callbacks": [{"class_path": "TQDMProgressBar"}]}, None),
        ({"callbacks": [{"class_path": "EMAWeightAveraging"}]}, None),
        ({"callbacks": [{"class_path": "OnExceptionCheckpoint", "init_args": {"dirpath": "failed"}}]}, None),
    ],
)
def test_a_part_of_lightning_works_and_writes_nothing_into_the_current_folder(
    arguments: Arguments, tmp_path: Path, empty_folder: Path, settings: dict, written: str | None
) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"trainer": settings}))
    command = ["--config", str(tmp_path / "more.yaml"), "--trainer.max_epochs", "1", "--preflight.max_steps", "0"]
    run = fit(arguments("run", *command))
    assert is_whole(run) and not any(empty_folder.iterdir())
    assert written is None or (run / written).is_file(), with_suffix(run, "")
    again = fit([*arguments("again", *command), "--config", str(run / "config.yaml"), "--run", str(tmp_path / "again")])
    assert written is None or (again / written).is_file()  # a run's config is good for another one


def test_the_throughput_monitor_counts_pairs(arguments: Arguments, tmp_path: Path, empty_folder: Path) -> None:
    monitor = {"class_path": "ThroughputMonitor", "init_args": {"batch_size_fn": "multimodal.training.stock.num_pairs"}}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [monitor]}}))
    run = fit(arguments("run", "--config", str(tmp_path / "more.yaml"), "--trainer.max_epochs", "1", "--preflight.max_steps", "0"))
    rows = [row for row in rows_of(run) if "train/samples" in row]
    assert [row["train/samples"] for row in rows] == [16 * (number + 1) for number in range(len(rows))] and len(rows) == 5
    assert not any(empty_folder.iterdir())


def test_a_summary_or_a_profile_that_was_asked_for_is_printed(arguments: Arguments, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    logger = logging.getLogger("lightning.pytorch")
    logger.addHandler(caplog.handler)
    try:
        fit(arguments("run", "--trainer.callbacks+=ModelSummary", "--trainer.profiler", "simple", "--trainer.max_epochs", "1"))
    finally:
        logger.removeHandler(caplog.handler)
    assert "Trainable params" in caplog.text and "Profiler Report" in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"accumulate_grad_batches": 2}, "Clip compares the pairs of a batch with each other, .* set model.micro_batch_size"),
        ({"callbacks": [{"class_path": "GradientAccumulationScheduler", "init_args": {"scheduling": {0: 2}}}]}, "steps of one size"),
        ({"callbacks": [{"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1}}]}, "EMAWeightAveraging"),
        ({"callbacks": [{"class_path": "BatchSizeFinder"}]}, "Set data.batch_size, and .* model.micro_batch_size"),
        ({"strategy": "fsdp"}, "trainer.strategy=fsdp: .* needs? whole ones, .* Use ddp, .* model.micro_batch_size"),
        ({"strategy": "deepspeed_stage_2"}, "trainer.strategy=deepspeed_stage_2: .* Use ddp"),
        ({"strategy": {"class_path": "FSDPStrategy"}}, "trainer.strategy=FSDPStrategy: .* Use ddp"),
        ({"callbacks": [{"class_path": "LearningRateFinder"}]}, "Set model.optimiser.lr"),
        ({"callbacks": [{"class_path": "BackboneFinetuning"}]}, "no model.backbone|needs a model.backbone"),
        ({"default_root_dir": "elsewhere"}, "a run writes only into its folder"),
        ({"logger": {"class_path": "CSVLogger"}}, "CSVLogger needs a folder: set its save_dir"),
    ],
)
def test_a_part_of_lightning_that_cannot_work_is_refused_with_the_reason_before_any_work(
    arguments: Arguments, tmp_path: Path, settings: dict, said: str
) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"trainer": settings}))
    with pytest.raises(InputError, match=said):
        fit(arguments("run", *CONTRASTIVE, "--config", str(tmp_path / "more.yaml")))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def logged_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """W&B as somebody has it who never logged in. It reads its settings once a process, so it forgets them before and after."""
    wandb = pytest.importorskip("wandb", reason="needs the train extra")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("logged_out")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"monitor": "nope"}}]}, "could not find the monitored key"),
        ({"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "nope"}}]}, "metric `nope` which is not available"),
        ({"logger": {"class_path": "WandbLogger"}}, "To log without one: --config trainer/wandb.yaml"),
    ],
)
def test_what_a_part_of_lightning_raises_is_one_line(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict, said: str
) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"trainer": settings}))
    assert main(["fit", *arguments("run", "--preflight.max_steps", "0", "--config", str(tmp_path / "more.yaml"))]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]


TAKES_FOLDER = """
import shutil
from pathlib import Path
from lightning.pytorch.callbacks import Callback

class Takes(Callback):
    def __init__(self, at: int, and_makes: bool = False):
        self.at, self.and_makes = at, and_makes

    def on_train_batch_start(self, trainer, module, *args):
        run = Path(trainer.default_root_dir)
        if trainer.global_step == self.at:
            shutil.rmtree(run)
            if self.and_makes:
                run.mkdir()
"""


@pytest.mark.parametrize("at", [0, 2, 14])  # of 15 steps
@pytest.mark.parametrize("and_makes", [False, True])
def test_a_run_whose_folder_is_removed_while_it_trains_ends_in_a_clear_error(
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at: int,
    and_makes: bool,
) -> None:
    (tmp_path / "takes.py").write_text(TAKES_FOLDER)
    monkeypatch.syspath_prepend(tmp_path)
    takes = ["--trainer.callbacks+=takes.Takes", "--trainer.callbacks.at", str(at), "--trainer.callbacks.and_makes", str(and_makes).lower()]
    command = arguments("run", "--preflight.max_steps", "0", *takes)
    assert main(["fit", *command]) == 2
    told = capsys.readouterr().err
    assert "the run's folder was removed or replaced while it was being trained. Run the same command again" in told
    assert "trained 3 epochs" not in told and not is_whole(tmp_path / "run")
    shutil.copy(tmp_path / "takes.py", tmp_path / "takes_none.py")
    fit(arguments("run", "--preflight.max_steps", "0"))  # what is left is in nobody's way
