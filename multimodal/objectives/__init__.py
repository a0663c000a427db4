"""Training objectives (losses): one file for each kind, each an `Objective` that a config names by its class path.

model:
  objective: {class_path: multimodal.objectives.SoftCrossEntropy}
"""

from __future__ import annotations

from multimodal.objectives.base import Objective, RowObjective
from multimodal.objectives.contrastive import Clip, SigLip
from multimodal.objectives.regression import Cosine, MeanSquaredError
from multimodal.objectives.soft_targets import KLDivergence, SigmoidCrossEntropy, SoftCrossEntropy

__all__ = [
    "Clip",
    "Cosine",
    "KLDivergence",
    "MeanSquaredError",
    "Objective",
    "RowObjective",
    "SigLip",
    "SigmoidCrossEntropy",
    "SoftCrossEntropy",
]
