"""What a fine-tuning forgets is measured, decides which checkpoint is kept, and ends a run that loses it; runs that diverge end too."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from multimodal.boxes import is_whole
from multimodal.data import ColumnRows
from multimodal.errors import InputError
from multimodal.evaluate.report import forgotten_of
from multimodal.export.run import Run
from multimodal.shards import Column, ShardSet, Split
from multimodal.towers import Head
from multimodal.training.datamodule import PairData
from multimodal.training.door import fit
from tests.training.conftest import DIM_IMAGE, DIM_TEXT, write_column, write_pairs
from tests.training.test_training_resume import assert_equal_runs, last_saved, state

if TYPE_CHECKING:
    from tests.conftest import Road
    from tests.training.conftest import Witnessed

SHUFFLED = ["--data.target", "multimodal.data.Shuffled", "--data.target.side.class_path", "multimodal.data.ColumnRows"]
OTHERS = [*SHUFFLED, "--data.target.side.init_args.name", "topics"]
"""Pairs that contradict the base: it forgets what it could do as fast as it learns."""


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of another source; their texts can be told from their pictures as those of `pairs`."""
    folder = tmp_path_factory.mktemp("foreign")
    write_pairs(folder, 90, np.random.default_rng(2))
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, pairs: Path, recipe: Path) -> Path:
    run = tmp_path_factory.mktemp("base") / "run"
    more = ["--trainer.max_epochs", "20", "--model.optimiser.lr", "0.1"]
    return fit(["--config", str(recipe), "--data.shards", str(pairs), "--run", str(run), *more])


@pytest.fixture
def tuned(arguments: Callable[..., list[str]], base: Path, foreign: Path) -> Callable[..., list[str]]:
    measure = ["--init_from", str(base), "--forgetting.pairs", str(foreign), "--forgetting.part", "all"]
    return lambda name, *more: arguments(name, *measure, "--model.image_tower.init_args.dropout", "0", *more)


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv that have a trade-off."""
    with open(run / "metrics.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row.get("val/trade_off")]


def recall(run: Path, checkpoint: str, shards: Path, ids: list[int]) -> float:
    """R@10 by a slow loop, of a checkpoint's head among pairs; in per cent."""
    head = Head(DIM_IMAGE, DIM_TEXT, dropout=0.1, standardise=True)
    prefix = "image_tower."
    weights = state(run, checkpoint)["state_dict"].items()  # type: ignore[attr-defined]
    head.load_state_dict({name.removeprefix(prefix): value for name, value in weights if name.startswith(prefix)})
    opened = ShardSet(shards)
    with torch.no_grad():
        image = head.eval()(torch.from_numpy(Column.of(opened, "features").take(np.array(ids)))).softmax(dim=1).double().numpy()
    text = Column.of(opened, "topics").take(np.array(ids)).astype(np.float64)
    cosines = (text / np.linalg.norm(text, axis=1)[:, None]) @ (image / np.linalg.norm(image, axis=1)[:, None]).T
    return 100 * sum((line >= line[number]).sum() <= 10 for number, line in enumerate(cosines)) / len(ids)


def test_both_sides_are_measured_before_the_first_step_and_at_each_validation(
    tuned: Callable[..., list[str]], base: Path, pairs: Path, foreign: Path
) -> None:
    run = fit(tuned("run", *OTHERS, "--model.optimiser.lr", "0.1", "--forgetting.min_kept", "0", "--forgetting.weight", "0.25"))
    measured = [{name: float(value) for name, value in row.items() if value} for row in rows(run)]
    assert [(row["epoch"], row["step"]) for row in measured] == [(-1, -1), (0, 4), (1, 9), (2, 14)]
    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), validation_share=0.2)
    data.setup("fit")
    assert data.validation_ids.tolist()
    every = list(range(len(ShardSet(foreign))))
    first, last = measured[0], measured[-1]
    assert first["val/foreign_R@10"] == pytest.approx(recall(base, "best", foreign, every))
    assert last["val/foreign_R@10"] == pytest.approx(recall(run, "last", foreign, every))
    assert first["val/chance_foreign_R@10"] == pytest.approx(1000 / 90)
    for row in measured:
        chance = row["val/chance_foreign_R@10"]
        left = (row["val/foreign_R@10"] - chance) / (first["val/foreign_R@10"] - chance)
        assert row["val/kept"] == pytest.approx(100 * max(0, left), rel=1e-5)
        assert row["val/trade_off"] == pytest.approx(row["val/R@10"] ** 0.75 * row["val/kept"] ** 0.25, rel=1e-5)
    assert first["val/kept"] == 100 and last["val/kept"] < 60
    best = max(measured, key=lambda row: row["val/trade_off"])
    opened = Run(run)
    assert opened.monitor == "val/trade_off" and opened.best == pytest.approx(best)
    told = forgotten_of(run, "mine")
    assert list(told.steps) == [0, 5, 10, 15] and told.best == best["step"] + 1
    assert [(curve.name, curve.floor) for curve in told.curves] == [("val/R@10", None), ("val/foreign_R@10", None)]
    page = (run / "forgetting.html").read_text()
    assert "<svg" in page and "best.ckpt" in page and all(f"{row['val/foreign_R@10']:.1f}" in page for row in measured)


def test_a_run_that_forgets_too_much_stops_with_the_reason_and_keeps_what_was_best(
    tuned: Callable[..., list[str]], base: Path, tmp_path: Path
) -> None:
    careless = ["run", *OTHERS, "--model.optimiser.lr", "1"]
    said = (
        r"run: stopped after epoch 0, val/kept is [\d.]+, below forgetting.min_kept=50: val/foreign_R@10 went from [\d.]+ to [\d.]+ "
        r"\(chance 11.1\). checkpoints/best.ckpt has the weights with the best trade-off"
    )
    with pytest.raises(InputError, match=said) as stopped:
        fit(tuned(*careless))
    run = tmp_path / "run"
    assert not is_whole(run) and [row["epoch"] for row in rows(run)] == ["-1", "0"]
    assert "\n" not in str(stopped.value) and "Stopped: after epoch 0" in (run / "forgetting.html").read_text()
    kept, begun = state(run, "best")["state_dict"], state(base, "best")["state_dict"]
    assert all(torch.equal(value, begun[name]) for name, value in kept.items())  # type: ignore[attr-defined, index]
    with pytest.raises(InputError, match=said):  # the same command says the same, and trains no further
        fit(tuned(*careless))
    assert state(run)["global_step"] == 5
    assert is_whole(fit(tuned(*careless, "--forgetting.min_kept", "0"))) and len(rows(run)) == 4


def test_a_run_whose_last_epoch_loses_it_is_not_finished_either(tuned: Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stopped after epoch 0"):
        fit(tuned("run", *OTHERS, "--model.optimiser.lr", "1", "--trainer.max_epochs", "1"))
    assert not is_whole(tmp_path / "run")


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tuned: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]]
) -> None:
    more = ["--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "2", "--forgetting.min_kept", "0"]
    whole = fit(tuned("whole", *more))
    ((*expected,),) = witness.take()
    for dies_at in (1, 6, 9):  # before there is a checkpoint, after an epoch, inside one
        witness.die_after(dies_at)
        assert launch(tuned(f"killed{dies_at}", *more)) == [-signal.SIGKILL]
        witness.die_after(None)
        killed = fit(tuned(f"killed{dies_at}", *more))
        assert_equal_runs(whole, killed)
        pages = [(run / "forgetting.html").read_text().replace(run.name, "") for run in (whole, killed)]
        assert pages[0] == pages[1]
        assert witness.take() == [expected[:dies_at] + expected[last_saved(dies_at) :]]


def test_two_ranks_measure_what_one_measures(tuned: Callable[..., list[str]], launch: Callable[..., list[int]], tmp_path: Path) -> None:
    more = ["--data.batch_size", "12", "--forgetting.min_kept", "0"]
    assert launch(tuned("two", *more), num_ranks=2) == [0, 0]
    one, two = rows(fit(tuned("one", *more))), rows(tmp_path / "two")
    assert len(one) == len(two) == 4
    for of_one, of_two in zip(one, two, strict=True):
        for name, value in of_one.items():
            if value:
                assert float(of_two[name]) == pytest.approx(float(value), rel=1e-3), name


def test_an_average_of_the_weights_is_what_is_measured(tuned: Callable[..., list[str]], foreign: Path) -> None:
    average = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.9", "--forgetting.min_kept", "0"]
    run = fit(tuned("run", *OTHERS, "--model.optimiser.lr", "0.1", *average))
    every = list(range(len(ShardSet(foreign))))
    assert float(rows(run)[-1]["val/foreign_R@10"]) == pytest.approx(recall(run, "last", foreign, every))


def test_zero_shot_is_that_of_the_export_on_the_train_part(own_road: Road) -> None:
    for picture in sorted((own_road.folder / "photos").glob("*.png")):
        of_class = own_road.folder / "colours" / picture.name.partition("-")[0]
        of_class.mkdir(parents=True, exist_ok=True)
        (of_class / picture.name).write_bytes(picture.read_bytes())
    zero_shot = "multimodal evaluate zeroshot --export export --data colours --device cpu --part train --output figures.json"
    assert own_road.run(zero_shot).status == 0
    [expected] = json.loads((own_road.folder / "figures.json").read_text())
    command = "multimodal fit --config recipe.yaml --data.shards set --init_from run --run tuned --forgetting.classes colours"
    told = own_road.run(command)
    assert told.status == 2 and "names of classes need the space that made set/columns/words. Give it: --forgetting.space" in told.err
    told = own_road.run(f"{command} --forgetting.space space")  # the same run: nothing was trained before
    assert told.status == 0, told.err
    before = rows(own_road.folder / "tuned")[0]
    assert float(before["val/zero_shot"]) == pytest.approx(expected["top-1"], abs=0.01)
    assert float(before["val/chance_zero_shot"]) == pytest.approx(expected["chance_top-1"], abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--forgetting.weight", "2"], r"forgetting.weight=2.0 must be from 0"),
        (["--forgetting.min_kept", "-1"], r"forgetting.min_kept=-1.0 must be a share"),
        (["--forgetting.max_pairs", "1"], r"forgetting.max_pairs=1 must be at least 2"),
        (["--forgetting.space", "somewhere"], r"forgetting.space=somewhere: needs --forgetting.classes"),
        (["--forgetting.part", "dev"], r"no pair is in part 'dev'; there are"),
        (["--forgetting.pairs", "nowhere"], r"nowhere"),
        (["--data.validation_share", "0"], r"forgetting is measured at each validation, but data.validation_share=0 turns it off"),
        (["--data.image.init_args.name", "some_bad"], r"has no column some_bad|some_bad"),
    ],
)
def test_what_cannot_be_measured_is_refused(tuned: Callable[..., list[str]], options: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(tuned("run", *options))


def test_weights_that_have_nothing_to_lose_are_refused(tuned: Callable[..., list[str]], tmp_path: Path) -> None:
    shards, _ = write_pairs(tmp_path / "noise", 90, np.random.default_rng(3))
    shutil.rmtree(shards.path / "columns" / "topics")
    write_column(shards, "topics", np.random.default_rng(4).dirichlet(np.ones(DIM_TEXT), 90))
    with pytest.raises(InputError, match=r"before the first step val/foreign_R@10 is [\d.]+, no better than chance \(11.1\)"):
        fit(tuned("run", "--forgetting.pairs", str(shards.path)))


def test_whoever_starts_from_other_weights_without_measuring_is_told(
    arguments: Callable[..., list[str]], base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(arguments("run", "--init_from", str(base), "--trainer.max_epochs", "1"))
    assert f"nothing measures what is forgotten of {base}" in capsys.readouterr().err


# -- runs that diverge ---------------------------------------------------------------------------------------------------------------------

POISON = '''
import torch
from lightning.pytorch.callbacks import Callback

class Poison(Callback):
    """After step 7 a weight is not finite, as after an update that was too large."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 7:
            with torch.no_grad():
                next(module.image_tower.parameters()).fill_(float("nan"))
'''


def test_a_run_that_diverges_ends_with_the_reason_and_its_last_good_checkpoint(
    arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poison.py").write_text(POISON)
    monkeypatch.syspath_prepend(tmp_path)
    at_a_step = ["--trainer.callbacks+=poison.Poison", "--preflight.max_steps", "0"]
    with pytest.raises(
        InputError, match=r"run: training diverged: the loss is nan at step 8, in epoch 1. last.ckpt and best.ckpt in .* before"
    ):
        fit(arguments("run", *at_a_step))
    with pytest.raises(InputError, match=r"training diverged: image_tower\.\S+ is not finite at step 7, in epoch 1"):
        fit(arguments("saves", *at_a_step, "--checkpoint_every_n_steps", "7", "--trainer.log_every_n_steps", "100"))
    for name in ("run", "saves"):
        last: Any = state(tmp_path / name)
        assert last["global_step"] == 5 and all(torch.isfinite(value).all() for value in last["state_dict"].values())


def test_a_rate_beyond_all_bounds_is_named(arguments: Callable[..., list[str]]) -> None:
    with pytest.raises(InputError, match=r"training diverged: the loss is (nan|inf) at step \d+.* Train again with a lower"):
        fit(arguments("run", "--model.optimiser.lr", "3e37", "--model.optimiser.warmup_steps", "0", "--preflight.max_steps", "0"))


BEYOND_FLOAT32 = {
    "adamw": ["--model.optimiser.lr", "1e38", "--model.optimiser.warmup_steps", "0"],
    "sgd": ["--model.optimiser", "multimodal.training.SGDSteps", "--model.optimiser.lr", "1e39"],
    "torch's": [
        *("--model.optimiser", "multimodal.training.TorchOptimiser"),
        *("--model.optimiser.optimizer", "torch.optim.RMSprop", "--model.optimiser.optimizer.lr", "1e39"),
    ],
    "another package's": ["--model.optimiser", "multimodal.training.ScheduleFreeAdamW", "--model.optimiser.lr", "1e40"],
    "of other gradients": [
        *("--model.optimiser", "multimodal.training.TorchOptimiser"),
        *("--model.optimiser.optimizer", "torch.optim.SparseAdam"),
    ],
}


@pytest.mark.parametrize("settings", BEYOND_FLOAT32.values(), ids=BEYOND_FLOAT32)
def test_a_step_that_the_optimiser_cannot_make_ends_the_run_in_one_line(arguments: Callable[..., list[str]], settings: list[str]) -> None:
    said = r"run: model.optimiser failed at step \d, in epoch 0, at a rate of \S+: .*(overflow|dense).*\. Lower --model.optimiser.lr"
    with pytest.raises(InputError, match=said) as stopped:
        fit(arguments("run", *settings, "--preflight.max_steps", "0"))
    assert "\n" not in str(stopped.value)


FAULTY = '''
import torch
from multimodal.objectives import SoftCrossEntropy

class Faulty(SoftCrossEntropy):
    """An objective with a fault in its backward pass."""

    def forward(self, image, text, valid):
        loss, parts = super().forward(image, text, valid)
        loss.register_hook(lambda gradient: gradient.view(7))
        return loss, parts
'''


def test_a_fault_in_the_pass_that_the_optimiser_calls_keeps_its_traceback(
    arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"shape '\[7\]' is invalid"):
        fit(arguments("run", "--model.objective", "faulty.Faulty", "--preflight.max_steps", "0"))
