"""Relative position: where does one patch lie beside another? To answer, a network must know the parts of things: an ear is above a face.

data: {image: {class_path: multimodal.data.PositionViews}, target: {class_path: multimodal.data.ViewsTarget}}
model: {objective: {class_path: multimodal.objectives.RelativePosition, init_args: {dim_in: 512}}}
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.objectives.base import Parts
from multimodal.objectives.pretext import PretextObjective, answered, clean_asked, head

PATCHES, POSITIONS = 9, 8


def neighbours() -> tuple[list[int], list[int], list[int]]:
    """The 40 ordered pairs of neighbours in a grid of 3 x 3: the first, the second, and where this lies about the first, 0 to 7 by rows."""
    found = []
    for one in range(PATCHES):
        for other in range(PATCHES):
            down, across = other // 3 - one // 3, other % 3 - one % 3
            if one != other and abs(down) <= 1 and abs(across) <= 1:
                place = 3 * (down + 1) + across + 1
                found.append((one, other, place - (place > 4)))
    firsts, seconds, places = ([*column] for column in zip(*found, strict=True))
    return firsts, seconds, places


class RelativePosition(PretextObjective):
    """The cross-entropy of eight neighbours (Doersch, Gupta and Efros, ICCV 2015, arXiv 1505.05192), the mean over a picture's patches.

    The paper asks about one pair of patches of a picture, the middle one and a neighbour. Here all 40 ordered pairs of neighbours among its
    nine patches are asked, for nine passes of the trunk. Chance is 15 %: each side is the answer to six of them, each corner to four.

    dim_in: features of one patch. hidden: units of a layer that compares two. None is a linear head, which adds the
    votes of both: it answers fewer questions, and the trunk learns more (docs/pretext.md).
    """

    def __init__(self, dim_in: int, hidden: int | None = None) -> None:
        super().__init__()
        self.dim_in = dim_in
        self.head = head(2 * dim_in, POSITIONS, hidden)
        self._firsts, self._seconds, self._places = neighbours()
        self.chances = {"accuracy": 100 * max(self._places.count(place) for place in range(POSITIONS)) / len(self._places)}

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        """image (b, 9 * dim_in); target (b, 9) int64, the cell of each patch; valid (b,) bool -> (scalar, detached scalars to log)."""
        image, cells = clean_asked(image, target, valid, PATCHES * self.dim_in)
        order = self._order(cells, valid)
        patches = image.view(len(image), PATCHES, self.dim_in).to(next(self.head.parameters()).dtype)
        patches = patches.gather(1, order[:, :, None].expand_as(patches))  # in the order of their cells
        logits = self.head(torch.cat([patches[:, self._firsts], patches[:, self._seconds]], dim=2))
        places = torch.tensor(self._places, device=logits.device).expand(len(logits), -1)
        with torch.autocast(image.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            losses = F.cross_entropy(logits.transpose(1, 2), places, reduction="none").mean(dim=1)
        return answered(losses, (logits.argmax(dim=2) == places).to(losses.dtype).mean(dim=1), valid)

    def _order(self, cells: Tensor, valid: Tensor) -> Tensor:
        """(b, 9) int64, which patch lies in each cell."""
        in_order = torch.arange(PATCHES, device=cells.device)
        if cells.dtype != torch.int64 or cells.shape[1:] != in_order.shape or (cells.sort(dim=1).values[valid] != in_order).any():
            raise ValueError(
                f"the target is {cells.dtype} of shape {tuple(cells.shape)}; RelativePosition takes the cells of nine patches, 0 to 8 "
                "each once. Set data.image to multimodal.data.PositionViews"
            )
        return cells.argsort(dim=1)
