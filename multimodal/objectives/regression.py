"""Regression objectives: the target is a vector, such as a text's mean word vector.

loss, parts = Cosine()(image_rows, text_rows, batch.valid)      # (b, d), (b, d), (b,)
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from multimodal.objectives.base import RowObjective


def cosine_distance(image: Tensor, target: Tensor) -> Tensor:
    """1 - the cosine of each row with its target, in [0, 2]. image (b, d), target (b, d). Returns (b,)."""
    return 1 - F.cosine_similarity(image, target, dim=1)


def mean_squared_error(image: Tensor, target: Tensor) -> Tensor:
    """The squared distance of each row to its target, divided by d. image (b, d), target (b, d). Returns (b,)."""
    return (image - target).square().mean(dim=1)


class Cosine(RowObjective):
    """Compares the direction alone, as a search does; the length of the image's vector is free."""

    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        return cosine_distance(image, target)


class MeanSquaredError(RowObjective):
    """Compares direction and length. With targets of length one its values are small, about 1/d: raise the learning rate accordingly."""

    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        return mean_squared_error(image, target)
