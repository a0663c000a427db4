"""From shards to batches: the order of an epoch, decoding, the two sides of a batch, and the loader. torch, no Lightning.

loader = PairLoader(shards, Split().ids(shards, "train"), Pixels(224), ColumnRows("lda40"), batch_size=64, seed=0)
for batch in loader: ...
"""

from __future__ import annotations

from multimodal.data.by_label import PxK
from multimodal.data.decode import BadPicture
from multimodal.data.labels import Labels
from multimodal.data.loader import PairLoader
from multimodal.data.mixture import Mixture
from multimodal.data.order import Order, random_words
from multimodal.data.pretext import (
    Colours,
    DropColours,
    GreyViews,
    HoleViews,
    JigsawViews,
    OneChannel,
    PositionViews,
    ProjectColours,
    RotationViews,
    Views,
    ViewsTarget,
)
from multimodal.data.shuffle import BlockShuffle, FullShuffle, Shuffle, how_mixed
from multimodal.data.sides import Captions, ColumnRows, InPlace, Pixels, Reader, Rows, Shuffled, Side, TowerPixels
from multimodal.data.stream import Stream, StreamLoader

__all__ = [
    "BadPicture",
    "BlockShuffle",
    "Captions",
    "Colours",
    "ColumnRows",
    "DropColours",
    "FullShuffle",
    "GreyViews",
    "HoleViews",
    "InPlace",
    "JigsawViews",
    "Labels",
    "Mixture",
    "OneChannel",
    "Order",
    "PairLoader",
    "Pixels",
    "PositionViews",
    "ProjectColours",
    "PxK",
    "Reader",
    "RotationViews",
    "Rows",
    "Shuffle",
    "Shuffled",
    "Side",
    "Stream",
    "StreamLoader",
    "TowerPixels",
    "Views",
    "ViewsTarget",
    "how_mixed",
    "random_words",
]
