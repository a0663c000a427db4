"""Training objectives (losses): one file for each kind, each an `Objective` that a config names by its class path; and miners of triplets.

model:
  objective: {class_path: multimodal.objectives.SoftCrossEntropy}
"""

from __future__ import annotations

from multimodal.objectives.base import Objective, RowObjective
from multimodal.objectives.colourisation import Colourisation
from multimodal.objectives.contrastive import Clip, SigLip
from multimodal.objectives.inpainting import Inpainting
from multimodal.objectives.jigsaw import Jigsaw
from multimodal.objectives.labels import LabelObjective
from multimodal.objectives.metric_learning import PytorchMetricLearning
from multimodal.objectives.miners import All, BatchHard, Easy, Hard, HardestPositives, Miner, Schedule, SemiHard, Violating
from multimodal.objectives.pretext import PretextClasses, PretextObjective, PretextRegression
from multimodal.objectives.regression import Cosine, MeanSquaredError
from multimodal.objectives.relative_position import RelativePosition
from multimodal.objectives.rotation import Rotation
from multimodal.objectives.siamese import Siamese, SiameseSquared
from multimodal.objectives.soft_targets import KLDivergence, SigmoidCrossEntropy, SoftCrossEntropy
from multimodal.objectives.supervised_contrastive import SupervisedContrastive
from multimodal.objectives.triplets import Triplet, TripletApart

__all__ = [
    "All",
    "BatchHard",
    "Clip",
    "Colourisation",
    "Cosine",
    "Easy",
    "Hard",
    "HardestPositives",
    "Inpainting",
    "Jigsaw",
    "KLDivergence",
    "LabelObjective",
    "MeanSquaredError",
    "Miner",
    "Objective",
    "PretextClasses",
    "PretextObjective",
    "PretextRegression",
    "PytorchMetricLearning",
    "RelativePosition",
    "Rotation",
    "RowObjective",
    "Schedule",
    "SemiHard",
    "Siamese",
    "SiameseSquared",
    "SigLip",
    "SigmoidCrossEntropy",
    "SoftCrossEntropy",
    "SupervisedContrastive",
    "Triplet",
    "TripletApart",
    "Violating",
]
