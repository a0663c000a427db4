"""Colourisation: what colours had a grey picture? To answer, a network must know what things are.

data: {image: {class_path: multimodal.data.GreyViews, init_args: {pixels: {size: 48}}}, target: {class_path: multimodal.data.ViewsTarget}}
model: {objective: {class_path: multimodal.objectives.Colourisation, init_args: {dim_in: 512, shape: [2, 6, 6]}}}
"""

from __future__ import annotations

from multimodal.objectives.pretext import PretextRegression


class Colourisation(PretextRegression):
    """The squared error of a* and b* in squares of a picture (Zhang, Isola and Efros, ECCV 2016, arXiv 1603.08511, equation 1).

    dim_in: features of a picture. shape: of an answer, as the views make it. hidden: see `PretextRegression`.
    """
