"""Clip and SigLip against open_clip's losses, value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from multimodal.objectives import Clip, Objective, SigLip

open_clip_loss = pytest.importorskip("open_clip.loss", reason="needs open_clip_torch (the train extra)")


def theirs(objective: Objective, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    if isinstance(objective, Clip):
        return open_clip_loss.ClipLoss()(image, text, objective.log_scale.exp())
    assert isinstance(objective, SigLip)
    return open_clip_loss.SigLipLoss()(image, text, objective.log_scale.exp(), objective.bias)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [Clip, SigLip])
def test_contrastive_objectives_equal_those_of_open_clip_in_value_and_gradient(make: type[Objective], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(17, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    image.requires_grad_()
    objective = make().double()
    loss, _ = objective(image, text, torch.ones(17, dtype=torch.bool))
    expected = theirs(objective, image, text)
    ours_gradient = torch.autograd.grad(loss, [image, *objective.parameters()])
    expected_gradient = torch.autograd.grad(expected, [image, *objective.parameters()])
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours_gradient, expected_gradient, atol=1e-6, rtol=0)
