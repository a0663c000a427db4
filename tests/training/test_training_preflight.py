from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multimodal.data import ColumnRows, Shuffled
from multimodal.errors import InputError
from multimodal.objectives import Clip, Cosine, KLDivergence, Objective, SigLip, SigmoidCrossEntropy, SoftCrossEntropy
from multimodal.pairs import Batch
from multimodal.shards import Split
from multimodal.towers import Head
from multimodal.training.datamodule import PairData
from multimodal.training.door import fit
from multimodal.training.module import AdamWCosine, PairModule
from multimodal.training.preflight import Fit, learn_by_heart

Arguments = Callable[..., list[str]]

TOPICS = "--data.text.init_args.name"
FEATURES = "--data.image.init_args.name"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([TOPICS, "constant"], r"data\.text .*constant.* is the same for all of 32 pairs: the target is constant"),
        ([TOPICS, "zeros"], r"data\.text .*zeros.* is zero for all of 32 pairs: no text has a word that its space knows"),
        ([TOPICS, "nothing"], r"none of 32 pairs can be used: .*row of column nothing is not finite"),
        (
            [FEATURES, "constant", "--model.image_tower.init_args.dim_in", "4"],
            r"data\.image .*constant.* gives the same for all of 32 pictures",
        ),
        (
            ["--model.image_tower.init_args.dim_in", "7"],
            r"image_tower takes 7 numbers a pair, and data\.image .*features.* gives 6 numbers",
        ),
        (["--model.image_tower.init_args.dim_out", "5"], r"image_tower gives 5 numbers and the text side 4: data\.text .*topics"),
        (["--data.text", "multimodal.data.Captions"], r"data\.text .*Captions.* gives strings"),
        (
            ["--data.image", "multimodal.data.Pixels", "--data.image.init_args.size", "8"],
            r"takes 6 numbers a pair, and data\.image .*\(3, 8, 8\) a pair",
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
            r"targets reach from .* outside \[0, 1\]",
        ),
        (["--model.optimiser.lr", "1.0e+9"], r"could not be learnt by heart .*beyond all numbers"),
    ],
)
def test_a_run_that_cannot_learn_is_stopped_with_the_reason(arguments: Arguments, tmp_path: Path, settings: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=f"preflight: .*{reason}"):
        fit(arguments("run", *settings))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_with_and_without_preflight_is_the_same_run(arguments: Arguments) -> None:
    runs = [fit(arguments(f"run{steps}", "--trainer.max_epochs", "1", "--preflight.max_steps", steps)) for steps in ("0", "30")]
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in runs)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_rate_that_hardly_moves_the_loss_is_not_held_against_the_run(arguments: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    fit(arguments("run", "--trainer.max_epochs", "1", "--model.optimiser.lr", "1.0e-5"))
    assert "the loss hardly moves in 100 steps at optimiser.lr=1e-05; at " in capsys.readouterr().err


@pytest.mark.parametrize("objective", [SoftCrossEntropy(), KLDivergence(), SigmoidCrossEntropy(), Cosine(), Clip(), SigLip()])
@pytest.mark.parametrize("control", [False, True])
def test_any_objective_learns_a_few_pairs_by_heart_also_those_of_the_control(pairs: Path, objective: Objective, control: bool) -> None:
    text = ColumnRows("topics")
    data = PairData(pairs, ColumnRows("features"), Shuffled(text) if control else text, Split())
    data.setup("fit")
    batch, _ = data.some_pairs(8)
    module = PairModule(Head(6, 4, hidden=64), torch.nn.Identity(), objective, AdamWCosine(lr=1e-2))
    fits = list(learn_by_heart(module, batch, rate=1e-2, max_steps=100))
    assert any(fit.fall > 0.02 and fit.tells_apart for fit in fits)


def test_a_picture_side_that_says_nothing_is_found_though_the_loss_falls() -> None:
    """The loss falls while the mean target is learnt, which needs no picture."""
    target = torch.softmax(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0, 0, 0]), dim=1)
    batch = Batch(torch.arange(16), torch.zeros(16, 6), target, torch.ones(16, dtype=torch.bool))
    module = PairModule(Head(6, 4), torch.nn.Identity(), SoftCrossEntropy())
    last = list(learn_by_heart(module, batch, rate=1e-1, max_steps=50))[-1]
    assert last.fall > 0.1
    assert not last.tells_apart


def test_the_towers_of_the_run_are_not_touched() -> None:
    module = PairModule(Head(6, 4, standardise=True), torch.nn.Identity(), Clip())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    batch = Batch(torch.arange(8), torch.randn(8, 6), torch.randn(8, 4), torch.ones(8, dtype=torch.bool))
    assert all(isinstance(fit, Fit) for fit in learn_by_heart(module, batch, rate=1.0, max_steps=10))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
