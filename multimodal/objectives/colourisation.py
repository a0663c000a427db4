"""Colourisation: what colours had a grey picture? To answer, a network must know what things are.

data: {image: {class_path: multimodal.data.GreyViews, init_args: {pixels: {size: 48}}}, target: {class_path: multimodal.data.ViewsTarget}}
model: {objective: {class_path: multimodal.objectives.Colourisation, init_args: {dim_in: 512, shape: [3, 3]}}}
"""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal.objectives.base import Parts, sum_over_ranks
from multimodal.objectives.pretext import PretextClasses


class Colourisation(PretextClasses):
    """The cross-entropy of the colour's bin in squares of a picture (Zhang, Isola and Efros, ECCV 2016, arXiv 1603.08511, equation 2).

    The mean over a picture's squares, all of one weight. A squared error, as in equation 1, taught a trunk less (docs/changelog.md).

    dim_in: features of a picture. shape: of an answer, as the views make it. num_colours: bins. hidden: units of a hidden layer of the
    head, with ReLU; None for a linear head.

    The parts have `explained`, in per cent: by how much the loss is below that of always saying how common each colour was in the training
    so far, which explains 0.
    """

    seen: Tensor

    def __init__(self, dim_in: int, shape: list[int], num_colours: int = 121, hidden: int | None = None) -> None:
        super().__init__(dim_in, num_colours, hidden, shape)
        self.register_buffer("seen", torch.ones(num_colours))  # one of each to begin with, so that none is impossible
        self.chances = {"explained": 0.0}

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        """image (b, dim_in), target (b, *shape) int64 in [0, num_colours), valid (b,) bool -> (scalar, detached scalars to log)."""
        loss, parts = super().forward(image, target, valid)
        counts = sum_over_ranks(torch.bincount(target[valid].flatten(), minlength=self.num_classes).to(loss.dtype))
        if self.training:
            self.seen += counts
        plain = -(counts * (self.seen / self.seen.sum()).log()).sum() / counts.sum().clamp(min=1)
        explained = torch.where(plain > 0, 100 * (1 - loss.detach() / plain), 0.0)
        return loss, {"loss": parts["loss"], "rows": parts["rows"], "explained": explained}
