"""Heads, and the standardisation in front of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from multimodal.towers import Head, Standardise


def rows(num: int, dim: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, generator=generator) * torch.arange(1, dim + 1) + 10


@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_standardise_holds_mean_and_variance_of_all_rows_however_they_were_batched(cuts: list[int], seed: int) -> None:
    every = rows(sum(cuts), seed=seed)
    module = Standardise(every.shape[1]).train()
    for part in every.split(cuts):
        module(part)
    np.testing.assert_allclose(module.mean, every.double().mean(0), rtol=1e-4)
    # float32 sums about a moving mean; a single row has variance 0
    np.testing.assert_allclose(module.variance, every.double().var(0, unbiased=False), rtol=1e-3, atol=1e-3)
    assert int(module.num_rows) == len(every)


def test_standardised_rows_have_mean_zero_and_variance_one() -> None:
    every = rows(500)
    module = Standardise(every.shape[1]).train()
    module(every)
    out = module.eval()(every)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(out.var(0, unbiased=False), 1, atol=1e-3)


def test_rows_that_could_not_be_read_leave_the_statistics_alone() -> None:
    every = rows(20)
    clean, dirty = Standardise(6).train(), Standardise(6).train()
    clean(every)
    dirty(torch.cat([every, torch.zeros(3, 6), torch.full((2, 6), torch.nan)]))
    torch.testing.assert_close(dirty.mean, clean.mean)
    torch.testing.assert_close(dirty.variance, clean.variance)
    dirty(torch.zeros(3, 6))
    assert int(dirty.num_rows) == 20


def test_evaluation_learns_nothing() -> None:
    module = Standardise(6).eval()
    module(rows(20))
    assert int(module.num_rows) == 0


@pytest.mark.parametrize("standardise", [False, True])
def test_a_linear_head_is_the_affine_map_it_says(standardise: bool) -> None:
    head = Head(6, 3, standardise=standardise).train()
    head(rows(50))
    [(weight, bias)] = head.eval().as_layers()
    # folding multiplies before it adds up; float32
    torch.testing.assert_close(rows(9, seed=1) @ weight.T + bias, head(rows(9, seed=1)), rtol=1e-4, atol=1e-4)


def test_a_head_with_a_hidden_layer_is_two_affine_maps_with_gelu_between() -> None:
    head = Head(6, 3, hidden=4, standardise=True).train()
    head(rows(50))
    (weight, bias), (last_weight, last_bias) = head.eval().as_layers()
    made = nn.functional.gelu(rows(9, seed=1) @ weight.T + bias) @ last_weight.T + last_bias
    torch.testing.assert_close(made, head(rows(9, seed=1)), rtol=1e-4, atol=1e-4)


def test_a_head_that_ends_in_an_activation_says_that_it_is_no_affine_map() -> None:
    head = Head(6, 3, activation=nn.Sigmoid())
    with pytest.raises(ValueError, match="this head has the activation Sigmoid, so it is not an affine map"):
        head.as_layers()
    assert head(rows(2)).shape == (2, 3)


def test_dropout_is_off_in_evaluation() -> None:
    head = Head(6, 3, hidden=4, dropout=0.5).eval()
    assert torch.equal(head(rows(4)), head(rows(4)))
