"""A network for small grey pictures such as handwritten digits, trained from random weights in minutes.

tower = ImageTower(LeNet(), Head(256, 2))
tower(pictures)                                             # (b, 3, 28, 28) uint8 -> (b, 2)
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from multimodal.errors import InputError
from multimodal.pictures.preprocessing import Preprocessing
from multimodal.towers.trunk import Trunk
from multimodal.towers.weights import NoWeights, Weights

NO_WEIGHTS: Weights = NoWeights()
SMALLEST = 16
"""Pixels: of 16, the last map has one position left."""
LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue in grey, as Pillow has it (ITU-R 601)."""
MEAN, STD = 0.1307, 0.3081
"""Of the pixels of MNIST's 60,000 training digits."""


class LeNet(Trunk):
    """Two convolutions and two dense layers, as LeNet-5 has them (LeCun et al., 1998), with PReLU: (b, 3, size, size) uint8 -> (b, 256).

    Convolution to 32 maps by 5 x 5, PReLU, max-pool; convolution to 64 maps by 5 x 5, PReLU, max-pool; dense 256, PReLU; dense 256, PReLU.
    Nothing is padded. Colour is not seen. With 28 pixels and a head of two dimensions on top, it is the network with which siamese and
    triplet losses are usually shown on MNIST.

    weights: NoWeights, with a seed. frozen: see `Trunk`. size: height and width of its input, in pixels.
    """

    def __init__(self, weights: Weights = NO_WEIGHTS, frozen: bool = False, size: int = 28) -> None:
        super(Trunk, self).__init__()
        if size < SMALLEST:
            raise InputError(f"LeNet: size={size} must be at least {SMALLEST} pixels")
        self.architecture, self.dim, self.num_maps = "lenet", 256, 0
        self.weights, self.frozen, self.size = weights, frozen, size
        side = ((size - 4) // 2 - 4) // 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.seed)
            self.model: nn.Module = nn.Sequential(
                OrderedDict(
                    grey=Grey(),
                    conv1=nn.Conv2d(1, 32, 5),
                    prelu1=nn.PReLU(),
                    pool1=nn.MaxPool2d(2),
                    conv2=nn.Conv2d(32, 64, 5),
                    prelu2=nn.PReLU(),
                    pool2=nn.MaxPool2d(2),
                    flatten=nn.Flatten(),
                    dense1=nn.Linear(64 * side * side, 256),
                    prelu3=nn.PReLU(),
                    dense2=nn.Linear(256, 256),
                    prelu4=nn.PReLU(),
                )
            )
        weights.load_into(self.model)
        self.prepare(Preprocessing(size, crop_share=1.0, interpolation="bilinear", mean=(MEAN,) * 3, std=(STD,) * 3))
        if frozen:
            self.requires_grad_(False)
            self.model.eval()

    @property
    def has_fixed_size(self) -> bool:
        """True: its first dense layer has a weight for each position."""
        return True


class Grey(nn.Module):
    """Three channels as one, (b, 3, h, w) -> (b, 1, h, w)."""

    def forward(self, pixels: Tensor) -> Tensor:
        red, green, blue = (share * pixels[:, channel : channel + 1] for channel, share in enumerate(LUMA))
        return (red + green + blue).contiguous()
