"""Training objectives (losses): one file for each kind, each an `Objective` that a config names by its class path; and miners of triplets.

model:
  objective: {class_path: multimodal.objectives.SoftCrossEntropy}
"""

from __future__ import annotations

from multimodal.objectives.base import Objective, RowObjective
from multimodal.objectives.contrastive import Clip, SigLip
from multimodal.objectives.labels import LabelObjective
from multimodal.objectives.metric_learning import PytorchMetricLearning
from multimodal.objectives.miners import All, BatchHard, Easy, Hard, HardestPositives, Miner, Schedule, SemiHard, Violating
from multimodal.objectives.regression import Cosine, MeanSquaredError
from multimodal.objectives.siamese import Siamese, SiameseSquared
from multimodal.objectives.soft_targets import KLDivergence, SigmoidCrossEntropy, SoftCrossEntropy
from multimodal.objectives.triplets import Triplet, TripletApart

__all__ = [
    "All",
    "BatchHard",
    "Clip",
    "Cosine",
    "Easy",
    "Hard",
    "HardestPositives",
    "KLDivergence",
    "LabelObjective",
    "MeanSquaredError",
    "Miner",
    "Objective",
    "PytorchMetricLearning",
    "RowObjective",
    "Schedule",
    "SemiHard",
    "Siamese",
    "SiameseSquared",
    "SigLip",
    "SigmoidCrossEntropy",
    "SoftCrossEntropy",
    "Triplet",
    "TripletApart",
    "Violating",
]
