from __future__ import annotations

import csv
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from timm.models import group_parameters
from torch import nn

from multimodal.errors import InputError
from multimodal.export.trained import Trained
from multimodal.objectives import Clip
from multimodal.towers import Head, ImageTower, NoWeights, Trunk
from multimodal.training import AdamWCosine, ScheduleFreeAdamW, SGDSteps, TorchOptimiser
from multimodal.training.door import fit
from multimodal.training.optimisers import warmup_cosine
from multimodal.training.validate import validate

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed


@given(num_steps=st.integers(1, 5000), warmup_steps=st.integers(0, 500))
def test_the_rate_rises_then_falls_to_zero_at_the_last_step(num_steps: int, warmup_steps: int) -> None:
    shares = [warmup_cosine(step, num_steps, warmup_steps) for step in range(num_steps + 1)]
    rising, falling = shares[:warmup_steps], shares[warmup_steps:]
    assert all(0 <= share <= 1 for share in shares)
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    if num_steps > warmup_steps:
        assert math.isclose(max(shares), 1.0)
        assert math.isclose(shares[-1], 0.0, abs_tol=1e-12)


def test_the_first_step_does_not_depend_on_how_many_follow() -> None:
    for warmup_steps in (0, 1, 20):
        assert warmup_cosine(0, math.inf, warmup_steps) == warmup_cosine(0, 77, warmup_steps)


class Towers(nn.Module):
    """A run's parts under the names that they have in one, small."""

    def __init__(self) -> None:
        super().__init__()
        trunk = Trunk("test_vit", NoWeights(0), frozen=False, size=32)
        self.image_tower = ImageTower(trunk, Head(trunk.dim, 4, standardise=True))
        self.target_side = Head(3, 4, hidden=5)
        self.objective = Clip()


SETTINGS: list[dict[str, Any]] = [
    {},
    {"rates": {"image_tower": 0.5, "image_tower.trunk": 0.1}},
    {"rates": {"target_side": 3.0, "objective": 0.25}, "layer_decay": 0.7},
    {"layer_decay": 1.0},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", [AdamWCosine, SGDSteps, ScheduleFreeAdamW, TorchOptimiser])
def test_each_parameter_has_the_rate_and_the_decay_that_a_slow_loop_computes(kind: type, settings: dict[str, Any]) -> None:
    if kind is ScheduleFreeAdamW:
        pytest.importorskip("schedulefree", reason="schedulefree is not installed (extra train)")
    towers, lr, decay = Towers(), 0.25, 0.125
    towers.target_side.output.weight.requires_grad_(False)
    if kind is TorchOptimiser:
        made = TorchOptimiser(lambda groups: torch.optim.RMSprop(groups, lr=lr, weight_decay=decay), **settings).optimizer(towers)
    else:
        made = kind(lr=lr, weight_decay=decay, **settings).optimizer(towers)
    layers = group_parameters(towers.image_tower.trunk.model, towers.image_tower.trunk.model.group_matcher(coarse=False), reverse=True)
    expected = {}
    for name, parameter in towers.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = lr
        prefixes = [prefix for prefix in settings.get("rates", {}) if name == prefix or name.startswith(prefix + ".")]
        if prefixes:
            rate *= settings["rates"][max(prefixes, key=len)]
        inside = name.removeprefix("image_tower.trunk.model.")
        if inside in layers and inside != name:
            rate *= settings.get("layer_decay", 1.0) ** (max(layers.values()) - layers[inside])
        expected[name] = (pytest.approx(rate, rel=1e-12), decay if parameter.ndim >= 2 else 0.0)
    names = {id(parameter): name for name, parameter in towers.named_parameters()}
    found = [(names[id(one)], (group["lr"], group["weight_decay"])) for group in made.param_groups for one in group["params"]]
    assert len(found) == len(dict(found)) and dict(found) == expected
    assert dict(found)["objective.log_scale"][1] == 0.0


def test_adamw_with_a_cosine_is_to_the_bit_what_torch_makes_of_two_groups_and_a_lambda() -> None:
    """As it was written out before there were other optimisers."""
    ours, theirs = (Head(3, 4, hidden=5) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    settings = AdamWCosine(lr=0.01, weight_decay=0.3, warmup_steps=3, betas=(0.8, 0.95))
    optimizer = settings.optimizer(ours)
    schedule: Any = settings.schedule(optimizer, lambda: 12)
    decayed, others = ([one for one in theirs.parameters() if (one.ndim >= 2) == is_matrix] for is_matrix in (True, False))
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95))
    falls = torch.optim.lr_scheduler.LambdaLR(reference, lambda step: warmup_cosine(step, 12, 3))
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(12):
        for network, one, steps in ((ours, optimizer, schedule["scheduler"]), (theirs, reference, falls)):
            one.zero_grad()
            network(rows).square().sum().backward()
            one.step()
            steps.step()
    assert schedule["interval"] == "step"
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in reference.param_groups]


def test_sgd_drops_its_rate_every_so_many_steps() -> None:
    settings = SGDSteps(drop_every_n_steps=4, drop=0.5, warmup_steps=2)
    assert [settings.share(step) for step in range(11)] == [0.5, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rates": {"image_towr": 0.1}}, "no trainable parameter is called image_towr. There are: image_tower.trunk, image_tower.head"),
        ({"rates": {"target_side": 0.0}}, "target_side: 0.0 must be above 0"),
        ({"layer_decay": 1.5}, "layer_decay=1.5 must be above 0 and at most 1"),
        ({"warmup_steps": -1}, "warmup_steps=-1 must not be negative"),
        ({"betas": (0.9, 1.0)}, r"betas=\[0.9, 1.0\] must be from 0 to below 1"),
    ],
)
def test_a_rate_that_is_for_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        AdamWCosine(**settings).optimizer(Towers())


def test_layers_of_no_trunk_are_refused() -> None:
    with pytest.raises(InputError, match="no trunk of timm and no tower of a CLIP model is trainable here"):
        AdamWCosine(layer_decay=0.7).optimizer(Head(3, 4))


def test_a_run_in_which_nothing_trains_is_refused() -> None:
    with pytest.raises(InputError, match="all are frozen"):
        AdamWCosine().optimizer(nn.Linear(2, 2).requires_grad_(False))


SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05, "momentum": 0.9}}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "rates": {"optimiser": {"lr": 0.01, "rates": {"image_tower.output": 0.5}}},
    "sgd": {"optimiser": {"class_path": "multimodal.training.SGDSteps", "init_args": {"lr": 0.1, "drop_every_n_steps": 6}}},
    "torch": {
        "optimiser": {
            "class_path": "multimodal.training.TorchOptimiser",
            "init_args": {
                "optimizer": SGD,
                "scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1, "gamma": 0.5}},
            },
        }
    },
    "schedule-free": {"optimiser": {"class_path": "multimodal.training.ScheduleFreeAdamW", "init_args": {"lr": 0.02, "warmup_steps": 2}}},
    "average": {},
}


def command_of(name: str, arguments: Callable[..., list[str]], tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a run with one of OPTIMISERS."""
    if name == "schedule-free":
        pytest.importorskip("schedulefree", reason="schedulefree is not installed (extra train)")
    ema = [{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.8}}] if name == "average" else []
    callbacks = [{"class_path": "witness.Witness"}, *ema]
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"model": OPTIMISERS[name], "trainer": {"callbacks": callbacks}}))
    return lambda run, *more: arguments(run, "--config", str(tmp_path / f"{name}.yaml"), "--checkpoint_every_n_steps", "2", *more)


def assert_equal(one: Any, other: Any) -> None:
    """Nested lists and dictionaries of a checkpoint, to the bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.timeout(480)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_run_with_any_optimiser_goes_on_after_a_kill_to_the_bit_and_is_validated_and_exported_with_the_weights_that_were_kept(
    arguments: Callable[..., list[str]],
    witness: Witnessed,
    launch: Callable[..., list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    command = command_of(name, arguments, tmp_path)
    whole = fit(command("whole"))
    assert sum(len(seen) for seen in witness.take()) == 15
    witness.die_after(9)
    assert launch(command("killed")) == [-signal.SIGKILL]
    witness.die_after(None)
    killed = fit(command("killed"))
    for checkpoint in ("last", "best"):
        states = [torch.load(run / "checkpoints" / f"{checkpoint}.ckpt", weights_only=True) for run in (whole, killed)]
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "trained_weights", "current_model_state"):
            assert_equal(*(state.get(part) for state in states))
    assert (whole / "metrics.csv").read_text() == (killed / "metrics.csv").read_text()
    averages = name in ("schedule-free", "average")
    training = states[0].get("trained_weights", states[0].get("current_model_state"))
    assert (training is not None) == averages
    if averages:  # what is kept is not what the next step starts from
        assert any(not torch.equal(value, training[key]) for key, value in states[0]["state_dict"].items())
    figures = validate(whole, accelerator="cpu")
    with open(whole / "metrics.csv", newline="", encoding="utf-8") as file:
        logged = {int(row["step"]): row for row in csv.DictReader(file)}[states[0]["global_step"] - 1]
    assert {key: float(logged[key]) for key in figures} == figures
    state = Trained.read(whole, None, ()).state  # what an export is made of
    assert_equal(dict(state), dict(states[0]["state_dict"]))


def test_looking_at_averaged_weights_more_often_changes_no_weight(
    arguments: Callable[..., list[str]], witness: Witnessed, tmp_path: Path
) -> None:
    command = command_of("schedule-free", arguments, tmp_path)
    runs = [fit(command("seldom")), fit(command("often", "--checkpoint_every_n_steps", "1", "--trainer.val_check_interval", "2"))]
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs]
    assert_equal(states[0]["trained_weights"], states[1]["trained_weights"])


def test_two_averages_at_once_are_refused(arguments: Callable[..., list[str]], witness: Witnessed, tmp_path: Path) -> None:
    command = command_of("schedule-free", arguments, tmp_path)
    with pytest.raises(InputError, match="AdamWScheduleFree keeps an average of the weights itself"):
        fit(command("run", "--trainer.callbacks+=EMAWeightAveraging", "--preflight.max_steps", "0"))


def test_the_rate_of_a_plateau_is_refused_since_a_run_that_goes_on_would_miss_an_epoch(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    plateau = {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": {"monitor": "val/loss"}}
    described = {"class_path": "multimodal.training.TorchOptimiser", "init_args": {"optimizer": SGD, "scheduler": plateau}}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"model": {"optimiser": described}}))
    with pytest.raises(InputError, match="ReduceLROnPlateau reads an epoch's figures after its checkpoint"):
        fit(arguments("run", "--config", str(tmp_path / "more.yaml"), "--preflight.max_steps", "0"))


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_gradients_are_those_of_one_large_batch_also_where_pairs_are_bad_and_an_epoch_ends(
    arguments: Callable[..., list[str]], accumulate: int
) -> None:
    common = [
        "--model.image_tower.init_args.dropout",
        "0",
        "--model.image_tower.init_args.standardise",
        "false",
        "--data.image.init_args.name",
        "some_bad",
        "--trainer.gradient_clip_val",
        "0.5",
    ]
    small = ["--data.batch_size", "8", "--trainer.accumulate_grad_batches", str(accumulate)]
    runs = [fit(arguments("small", *common, *small)), fit(arguments("large", *common, "--data.batch_size", str(8 * accumulate)))]
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs]
    assert states[0]["global_step"] == states[1]["global_step"] == 3 * -(-78 // (8 * accumulate))
    for name, value in states[0]["state_dict"].items():
        # The order of sums differs, and Adam divides by the root of a gradient's square: where it is near zero its rounding counts.
        torch.testing.assert_close(value, states[1]["state_dict"][name], rtol=1e-4, atol=1e-5)
