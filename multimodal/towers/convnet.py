"""A plain convolutional network for small grey pictures, trained from random weights: the usual one of few-shot learning ("Conv-4").

tower = ImageTower(ConvTrunk(NoWeights(0), channels=[64, 64, 64, 64], size=28))
tower(pictures)                                             # (b, 3, 28, 28) uint8 -> (b, 64)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from multimodal.errors import InputError
from multimodal.pictures.preprocessing import Preprocessing
from multimodal.towers.lenet import Grey
from multimodal.towers.trunk import Trunk
from multimodal.towers.weights import Weights


class ConvTrunk(Trunk):
    """A block for each number of channels: convolution 3 x 3, max-pool 2 x 2, batch norm, ReLU; then what is left, as one vector.

    Four blocks of 64 channels are the network of Vinyals et al. (2016, arXiv 1606.04080) and of prototypical networks (Snell et al., 2017),
    but pooled before the norm: with positive scales that is the same function in evaluation, and norm and ReLU see a quarter of the values.
    Colour is not seen. d = channels[-1] * side ** 2, where side is size halved once a block, rounded down.

    weights: NoWeights, with a seed. frozen: see `Trunk`. size: height and width of its input, in pixels.
    """

    def __init__(self, weights: Weights, channels: Sequence[int] = (64, 64, 64, 64), frozen: bool = False, size: int = 28) -> None:
        super(Trunk, self).__init__()
        self.channels = list(channels)
        if not self.channels or min(self.channels) < 1:
            raise InputError(f"ConvTrunk: channels={self.channels} must be numbers of at least 1, one for each block")
        if not (side := size >> len(self.channels)):
            raise InputError(
                f"ConvTrunk: size={size} is halved by each of {len(self.channels)} blocks, and nothing is left. Set it to "
                f"{2 ** len(self.channels)} at least"
            )
        self.architecture, self.dim, self.num_maps = f"conv{len(self.channels)}", self.channels[-1] * side**2, 0
        self.weights, self.frozen, self.size = weights, frozen, size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.seed)
            blocks = [_block(into, out) for into, out in pairwise([1, *self.channels])]
        layers = {"grey": Grey(), **{str(number): block for number, block in enumerate(blocks)}, "flatten": nn.Flatten()}
        self.model: nn.Module = nn.Sequential(OrderedDict(layers)).to(memory_format=torch.channels_last)
        weights.load_into(self.model)
        self.prepare(Preprocessing(size, crop_share=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
        if frozen:
            self.requires_grad_(False)
            self.model.eval()

    @property
    def has_fixed_size(self) -> bool:
        """True: its vector has a place for each position."""
        return True


def _block(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(out), nn.ReLU(inplace=True))
