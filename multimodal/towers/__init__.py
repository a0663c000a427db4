"""Networks that turn one side of a pair into a vector, and where their weights come from."""

import multimodal.torch_pair  # noqa: F401  before timm
from multimodal.towers.augment import ColourJitter
from multimodal.towers.fold import folded
from multimodal.towers.head import Head, Standardise
from multimodal.towers.image import ImageTower
from multimodal.towers.text import FolderEncoder, HubEncoder, PackageEncoder, TextTower
from multimodal.towers.trunk import Preprocessing, Trunk
from multimodal.towers.weights import FileWeights, HubWeights, NoWeights, PackageWeights, Weights

__all__ = [
    "ColourJitter",
    "FileWeights",
    "FolderEncoder",
    "Head",
    "HubEncoder",
    "HubWeights",
    "ImageTower",
    "NoWeights",
    "PackageEncoder",
    "PackageWeights",
    "Preprocessing",
    "Standardise",
    "TextTower",
    "Trunk",
    "Weights",
    "folded",
]
