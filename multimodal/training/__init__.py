"""Training: the only room that imports Lightning. See `multimodal fit --help`."""

import multimodal.machine.torch_pair  # noqa: F401  before Lightning, which cannot explain a mismatched pair
from multimodal.training.callbacks import KeepCheckpoints, Progress, SeedSteps, Selection
from multimodal.training.collapse import CollapseAlarm
from multimodal.training.datamodule import PairData
from multimodal.training.embeddings import KeepEmbeddings
from multimodal.training.forgetting import Forgetting
from multimodal.training.loggers import MetricsFile, WeightsAndBiases
from multimodal.training.module import HeldOut, PairModule
from multimodal.training.optimisers import AdamWCosine, Optimiser, ScheduleFreeAdamW, SGDSteps, TorchOptimiser
from multimodal.training.preflight import Preflight
from multimodal.training.unlock import Unlock

__all__ = [
    "AdamWCosine",
    "CollapseAlarm",
    "Forgetting",
    "HeldOut",
    "KeepCheckpoints",
    "KeepEmbeddings",
    "MetricsFile",
    "Optimiser",
    "PairData",
    "PairModule",
    "Preflight",
    "Progress",
    "SGDSteps",
    "ScheduleFreeAdamW",
    "SeedSteps",
    "Selection",
    "TorchOptimiser",
    "Unlock",
    "WeightsAndBiases",
]
