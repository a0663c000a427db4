"""Relative position: where does one patch lie beside another? To answer, a network must know the parts of things: an ear is above a face.

data: {image: {class_path: multimodal.data.PositionViews}, target: {class_path: multimodal.data.ViewsTarget}}
model: {objective: {class_path: multimodal.objectives.RelativePosition, init_args: {dim_in: 1024}}}
"""

from __future__ import annotations

from multimodal.objectives.pretext import PretextClasses


class RelativePosition(PretextClasses):
    """The cross-entropy of eight neighbours (Doersch, Gupta and Efros, ICCV 2015, arXiv 1505.05192).

    dim_in: features of both patches together. hidden: units of the layer that compares them; a linear head could only add their votes.
    """

    def __init__(self, dim_in: int, hidden: int | None = 512) -> None:
        super().__init__(dim_in, 8, hidden)
