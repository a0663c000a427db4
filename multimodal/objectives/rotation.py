"""Rotation: by how many quarter turns was a picture rotated? To answer, a network must know which way up things are.

data: {image: {class_path: multimodal.data.RotationViews}, target: {class_path: multimodal.data.ViewsTarget}}
model: {objective: {class_path: multimodal.objectives.Rotation, init_args: {dim_in: 512}}}
"""

from __future__ import annotations

from multimodal.objectives.pretext import PretextClasses


class Rotation(PretextClasses):
    """The cross-entropy of four rotations (RotNet: Gidaris, Singh and Komodakis, ICLR 2018, arXiv 1803.07728, equation 3).

    dim_in: features of a picture. hidden: see `PretextClasses`.
    """

    def __init__(self, dim_in: int, hidden: int | None = None) -> None:
        super().__init__(dim_in, 4, hidden)
