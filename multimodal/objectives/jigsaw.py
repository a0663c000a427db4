"""Jigsaw: how were the tiles of a picture shuffled? To answer, a network must know which parts belong side by side.

data: {image: {class_path: multimodal.data.JigsawViews}, target: {class_path: multimodal.data.ViewsTarget}}
model: {objective: {class_path: multimodal.objectives.Jigsaw, init_args: {dim_in: 4608, num_permutations: 64}}}
"""

from __future__ import annotations

from multimodal.objectives.pretext import PretextClasses


class Jigsaw(PretextClasses):
    """The cross-entropy of a fixed set of permutations (Noroozi and Favaro, ECCV 2016, arXiv 1603.09246).

    dim_in: features of all tiles together, in the order shown. num_permutations: as of the views. hidden: units of the layer that compares
    the tiles.
    """

    def __init__(self, dim_in: int, num_permutations: int, hidden: int | None = 512) -> None:
        super().__init__(dim_in, num_permutations, hidden)
