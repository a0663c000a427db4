"""The small convolutional network: the function of its published blocks, made again by what it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from multimodal.boxes.trust import Builder
from multimodal.errors import InputError
from multimodal.export.slots import SLOTS
from multimodal.towers import ConvTrunk, NoWeights, Trunk, folded


def pictures(size: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("channels", "size", "dim"), [((64, 64, 64, 64), 28, 64), ((8, 16), 20, 16 * 25)])
def test_it_is_convolution_norm_relu_and_pool_of_the_grey_picture(channels: tuple[int, ...], size: int, dim: int) -> None:
    trunk = ConvTrunk(NoWeights(1), channels, size=size)
    for _ in range(3):
        trunk(pictures(size))  # moves the norms' statistics
    trunk.eval()
    grey = torch.tensordot(pictures(size) / 255, torch.tensor([0.299, 0.587, 0.114]), ([1], [0]))[:, None] * 2 - 1
    for block in trunk.model[1:-1]:
        convolution, _, norm, _ = block
        grey = nn.functional.max_pool2d(norm(convolution(grey)).relu(), 2)
    torch.testing.assert_close(trunk(pictures(size)), grey.flatten(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(folded(trunk)(pictures(size)), grey.flatten(1), rtol=1e-3, atol=1e-4)  # as it is indexed
    assert trunk.dim == dim == grey[0].numel()


def test_its_recipe_makes_it_again_and_its_settings_are_checked() -> None:
    trunk = ConvTrunk(NoWeights(1), (8, 16), size=20)
    twin = Builder(Path("box"), SLOTS).build(trunk.recipe, Trunk)
    assert twin.fingerprint == trunk.fingerprint != ConvTrunk(NoWeights(2), (8, 16), size=20).fingerprint
    with pytest.raises(InputError, match="size=15 is halved by each of 4 blocks, and nothing is left. Set it to 16"):
        ConvTrunk(NoWeights(), size=15)
    with pytest.raises(InputError, match="channels=.* must be numbers of at least 1"):
        ConvTrunk(NoWeights(), channels=())
