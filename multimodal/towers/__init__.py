"""Networks that turn one side of a pair into a vector, and where their weights come from."""

import multimodal.machine.torch_pair  # noqa: F401  before timm
from multimodal.pictures.preprocessing import Preprocessing
from multimodal.towers.augment import AffineJitter, ColourJitter, RandomErasing
from multimodal.towers.clip import ClipTextTower, ClipTrunk, OpenClipTrunk
from multimodal.towers.convnet import ConvTrunk
from multimodal.towers.fold import folded
from multimodal.towers.head import Head, Standardise
from multimodal.towers.image import ImageTower
from multimodal.towers.lenet import LeNet
from multimodal.towers.striped import StripedTrunk
from multimodal.towers.text import FolderEncoder, HubEncoder, PackageEncoder, TextTower
from multimodal.towers.trunk import Trunk
from multimodal.towers.tuning import Locked, LockedNorms, Lora, Tuning
from multimodal.towers.weights import FileWeights, HubWeights, NoWeights, PackageWeights, Weights

__all__ = [
    "AffineJitter",
    "ClipTextTower",
    "ClipTrunk",
    "ColourJitter",
    "ConvTrunk",
    "FileWeights",
    "FolderEncoder",
    "Head",
    "HubEncoder",
    "HubWeights",
    "ImageTower",
    "LeNet",
    "Locked",
    "LockedNorms",
    "Lora",
    "NoWeights",
    "OpenClipTrunk",
    "PackageEncoder",
    "PackageWeights",
    "Preprocessing",
    "RandomErasing",
    "Standardise",
    "StripedTrunk",
    "TextTower",
    "Trunk",
    "Tuning",
    "Weights",
    "folded",
]
