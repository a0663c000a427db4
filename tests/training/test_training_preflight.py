from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from multimodal.data import ColumnRows, Shuffled
from multimodal.errors import InputError
from multimodal.objectives import Clip, Cosine, KLDivergence, Objective, SigLip, SigmoidCrossEntropy, SoftCrossEntropy
from multimodal.pairs import Batch
from multimodal.shards import Column, ColumnWriter, ShardSet, Split
from multimodal.towers import Head
from multimodal.training.datamodule import PairData
from multimodal.training.door import fit
from multimodal.training.module import PairModule
from multimodal.training.optimisers import AdamWCosine
from multimodal.training.preflight import Fit, overfit

Arguments = Callable[..., list[str]]

TOPICS = "--data.target.init_args.name"
DIM_TEXT = 4
FEATURES = "--data.image.init_args.name"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([TOPICS, "constant"], r"data\.target .*constant.* is the same for all 32 pairs: the target is constant"),
        ([TOPICS, "zeros"], r"data\.target .*zeros.* is zero for all 32 pairs: no text has a word that its space knows"),
        ([TOPICS, "nothing"], r"none of 32 pairs can be used: .*row of column nothing is not finite"),
        (
            [FEATURES, "constant", "--model.image_tower.init_args.dim_in", "4"],
            r"data\.image .*constant.* gives the same values for all 32 pictures",
        ),
        (
            ["--model.image_tower.init_args.dim_in", "7"],
            r"image_tower takes 7 numbers per pair, but data\.image .*features.* gives 6 numbers",
        ),
        (
            ["--model.image_tower.init_args.dim_out", "5"],
            r"image_tower gives 5 numbers, but the target side gives 4: data\.target .*topics",
        ),
        (["--data.target", "multimodal.data.Captions"], r"data\.target .*Captions.* gives strings"),
        (
            ["--data.image", "multimodal.data.Pixels", "--data.image.init_args.size", "8"],
            r"takes 6 numbers per pair, but data\.image .*\(3, 8, 8\) per pair",
        ),
        (
            [
                TOPICS,
                "features",
                "--model.image_tower.init_args.dim_out",
                "6",
                "--model.objective",
                "multimodal.objectives.SigmoidCrossEntropy",
            ],
            r"targets range from .* outside \[0, 1\]",
        ),
        (["--model.optimiser.lr", "1.0e+9"], r"could not overfit .*to infinity or NaN"),
    ],
)
def test_a_run_that_cannot_learn_is_stopped_with_the_reason(arguments: Arguments, tmp_path: Path, settings: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=f"preflight: .*{reason}"):
        fit(arguments("run", *settings))
    assert not (tmp_path / "run" / "checkpoints").exists()


class OwnTower(nn.Module):
    """A text tower of one's own, that says nothing of how queries are read."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM_TEXT))

    def forward(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(len(text) % (number + 2)) for number in range(DIM_TEXT)] for text in texts]) * self.weight


HEAD = [
    "--model.target_side",
    "multimodal.towers.Head",
    *(f"--model.target_side.init_args.{dim}={DIM_TEXT}" for dim in ("dim_in", "dim_out")),
]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            [],
            r"columns/features: was not made by a trunk, so no network leads from pictures to it. Make features with: multimodal embed",
        ),
        ([FEATURES, "of_trunk"], r"columns/topics: was not made by a text space, so nothing could read queries"),
        (
            [FEATURES, "of_trunk", TOPICS, "of_space", *HEAD, "--model.target_side.init_args.activation", "torch.nn.Sigmoid"],
            r"its target side cannot be exported: this head has the activation Sigmoid",
        ),
        (
            [FEATURES, "of_trunk", "--data.target", "multimodal.data.Captions", "--model.target_side", f"{__name__}.OwnTower"],
            r"has no `as_space`",
        ),
    ],
)
def test_what_export_would_refuse_is_refused_before_it_is_trained(
    arguments: Arguments, pairs: Path, tmp_path: Path, settings: list[str], reason: str
) -> None:
    write_columns_that_were_made(pairs)
    with pytest.raises(InputError, match=f"this run could be trained but not exported: .*{reason}.* --preflight.export false"):
        fit(arguments("run", *settings, "--preflight.export", "true"))
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert fit(arguments("again", *settings, "--preflight.export", "false", "--preflight.max_steps", "0", "--trainer.max_epochs", "1"))


def test_a_text_head_on_a_space_of_words_may_be_trained(arguments: Arguments, pairs: Path) -> None:
    write_columns_that_were_made(pairs)
    hidden = [FEATURES, "of_trunk", TOPICS, "of_space", *HEAD, "--model.target_side.init_args.hidden", "3"]
    assert fit(arguments("run", *hidden, "--preflight.export", "true", "--preflight.max_steps", "0", "--trainer.max_epochs", "1"))


def write_columns_that_were_made(pairs: Path) -> None:
    """`of_trunk` and `of_space`: the features and topics again, with a manifest that says what made them."""
    shards = ShardSet(pairs)
    for name, of, config, made_from in (
        ("of_trunk", "features", {"trunk": {"class_path": "multimodal.towers.Trunk", "init_args": {}}}, {"trunk": "f" * 64}),
        ("of_space", "topics", {}, {"text-space": "e" * 64}),
    ):
        rows = Column.of(shards, of)
        with ColumnWriter(shards, name, rows.dim, "pair", "float32", config, made_from) as writer:
            for shard in writer.missing():
                writer.write(shard, rows.take(np.arange(shard.start, shard.start + shard.num_pairs)))


def test_a_run_with_and_without_preflight_is_the_same_run(arguments: Arguments) -> None:
    runs = [fit(arguments(f"run{steps}", "--trainer.max_epochs", "1", "--preflight.max_steps", steps)) for steps in ("0", "30")]
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in runs)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_rate_that_hardly_moves_the_loss_is_not_held_against_the_run(arguments: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    fit(arguments("run", "--trainer.max_epochs", "1", "--model.optimiser.lr", "1.0e-5"))
    assert "the loss hardly falls in 100 steps at the run's rate of 1e-05; at " in capsys.readouterr().err


@pytest.mark.parametrize("objective", [SoftCrossEntropy(), KLDivergence(), SigmoidCrossEntropy(), Cosine(), Clip(), SigLip()])
@pytest.mark.parametrize("control", [False, True])
def test_any_objective_overfits_a_few_pairs_also_shuffled_ones(pairs: Path, objective: Objective, control: bool) -> None:
    text = ColumnRows("topics")
    data = PairData(pairs, ColumnRows("features"), Shuffled(text) if control else text, Split())
    data.setup("fit")
    batch, _ = data.some_pairs(8)
    module = PairModule(Head(6, 4, hidden=64), torch.nn.Identity(), objective, AdamWCosine(lr=1e-2))
    fits = list(overfit(module, batch, times=10, max_steps=100))
    assert any(fit.fall > 0.02 and fit.tells_apart for fit in fits)


def test_a_picture_side_that_says_nothing_is_found_though_the_loss_falls() -> None:
    """The loss falls while the mean target is learned, which needs no picture."""
    target = torch.softmax(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0, 0, 0]), dim=1)
    batch = Batch(torch.arange(16), torch.zeros(16, 6), target, torch.ones(16, dtype=torch.bool))
    module = PairModule(Head(6, 4), torch.nn.Identity(), SoftCrossEntropy())
    last = list(overfit(module, batch, times=100, max_steps=50))[-1]
    assert last.fall > 0.1
    assert not last.tells_apart


def test_the_towers_of_the_run_are_not_touched() -> None:
    module = PairModule(Head(6, 4, standardise=True), torch.nn.Identity(), Clip())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    batch = Batch(torch.arange(8), torch.randn(8, 6), torch.randn(8, 4), torch.ones(8, dtype=torch.bool))
    assert all(isinstance(fit, Fit) for fit in overfit(module, batch, times=1000, max_steps=10))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
