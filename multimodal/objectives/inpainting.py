"""In-painting: what was in the hole? To answer, a network must know what goes with what is around it.

data: {image: {class_path: multimodal.data.HoleViews, init_args: {pixels: {size: 48}}}, target: {class_path: multimodal.data.ViewsTarget}}
model: {objective: {class_path: multimodal.objectives.Inpainting, init_args: {dim_in: 512, shape: [3, 12, 12]}}}
"""

from __future__ import annotations

from multimodal.objectives.pretext import PretextRegression


class Inpainting(PretextRegression):
    """The squared error of the hole's colours (the L2 loss of context encoders: Pathak et al., CVPR 2016, arXiv 1604.07379, equation 1).

    dim_in: features of a picture. shape: of an answer, as the views make it. hidden: see `PretextRegression`. The answer is read from the
    pooled features, the bottleneck that an export keeps. No adversarial loss, which the paper found to be for the eye.
    """
