"""Training: the one room that knows Lightning. `multimodal fit --help` teaches the rest."""

import multimodal.torch_pair  # noqa: F401  before Lightning, which cannot say what is wrong with a mixed pair
from multimodal.training.callbacks import KeepCheckpoints, Progress, SeedSteps, Selection
from multimodal.training.datamodule import PairData
from multimodal.training.loggers import MetricsFile, WeightsAndBiases
from multimodal.training.module import AdamWCosine, HeldOut, PairModule
from multimodal.training.preflight import Preflight

__all__ = [
    "AdamWCosine",
    "HeldOut",
    "KeepCheckpoints",
    "MetricsFile",
    "PairData",
    "PairModule",
    "Preflight",
    "Progress",
    "SeedSteps",
    "Selection",
    "WeightsAndBiases",
]
