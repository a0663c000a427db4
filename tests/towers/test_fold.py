"""Batch norms folded into convolutions: the same features, without the norms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from multimodal.towers import NoWeights, Trunk, folded
from multimodal.towers.fold import fold_batch_norms


def lively(trunk: Trunk) -> Trunk:
    """Norms with statistics and scales of their own: fresh ones do nothing, and folding them wrongly would not show."""
    generator = torch.Generator().manual_seed(0)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data = torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5
    return trunk


@pytest.mark.parametrize("architecture", ["test_efficientnet", "resnet10t", "tf_efficientnet_lite0"])
def test_a_folded_trunk_gives_the_same_features_without_batch_norms(architecture: str) -> None:
    trunk = lively(Trunk(architecture, NoWeights(), size=64))
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    fast = folded(trunk)
    pictures = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    expected = trunk(pictures)
    # float32's rounding through some fifty layers
    torch.testing.assert_close(fast(pictures), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())


def test_a_network_without_batch_norms_stays_as_it_is() -> None:
    trunk = Trunk("test_vit", NoWeights(), size=32)
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(folded(trunk)(pictures), trunk(pictures), rtol=0, atol=0)


class _Shared(nn.Module):
    """Uses a convolution's output twice, once without the norm: folding it would change the result."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return (self.norm(x) + x).mean((2, 3))


def test_a_convolution_that_something_else_uses_too_is_left_alone() -> None:
    model = _Shared().eval()
    example = torch.randn(1, 3, 4, 4)
    assert torch.equal(fold_batch_norms(model, example)(example), model(example))
