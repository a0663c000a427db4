from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from multimodal.errors import InputError
from multimodal.objectives import Clip
from multimodal.training.door import fit
from multimodal.training.module import AdamWCosine, warmup_cosine


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


def test_biases_norms_and_scales_have_no_weight_decay_and_frozen_weights_no_group() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2), Clip(), frozen)
    decayed, others = AdamWCosine(weight_decay=0.5).groups(network.parameters())
    assert decayed["weight_decay"] == 0.5 and others["weight_decay"] == 0.0
    assert {tuple(parameter.shape) for parameter in decayed["params"]} == {(4, 3, 1, 1), (2, 4)}
    assert all(parameter.ndim < 2 for parameter in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == sum(parameter.requires_grad for parameter in network.parameters())


def test_a_run_in_which_nothing_trains_is_refused() -> None:
    with pytest.raises(InputError, match="all are frozen"):
        AdamWCosine().optimizer(nn.Linear(2, 2).requires_grad_(False).parameters())


def test_the_optimiser_is_adamw_with_the_rate_and_betas_that_were_asked_for() -> None:
    optimizer = AdamWCosine(lr=0.25, betas=(0.8, 0.9)).optimizer(nn.Linear(2, 2).parameters())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["lr"] == 0.25 and group["betas"] == (0.8, 0.9) for group in optimizer.param_groups)


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
