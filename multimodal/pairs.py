"""The records that travel between rooms: a pair on its way into a shard, a batch on its way to a step, a hit on its way to a reader.

Pair(name="1f469-200d-1f52c.webp", image=encoded, extension="webp", texts=("woman scientist",), group="scientist")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # torch is named, never imported: shards and search read these records without it
    from torch import Tensor

IMAGE_EXTENSIONS = ("jpg", "png", "webp", "avif")


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture, still encoded, with the texts that came with it.

    name: the source's own file name or identifier, unique within the source.
    image: the encoded file, byte for byte.
    extension: one of `IMAGE_EXTENSIONS`.
    texts: at least one, none of them blank; `texts[0]` is the main one.
    group: what a split must not cut (an article, a user, one thing drawn in several variants).
    split: the source's own split ("train", "test", ...), or "" where it has none and a hash of the group decides.
    metadata: anything else, JSON values only.
    """

    name: str
    image: bytes
    extension: str
    texts: tuple[str, ...]
    group: str
    split: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.extension not in IMAGE_EXTENSIONS:
            raise ValueError(f"pair {self.name}: extension {self.extension!r} is none of {', '.join(IMAGE_EXTENSIONS)}")
        if not self.texts or not all(text.strip() for text in self.texts):
            raise ValueError(f"pair {self.name}: has no text, or a blank one among its {len(self.texts)}")
        if not self.image:
            raise ValueError(f"pair {self.name}: the image has no bytes")
        if not self.group:
            raise ValueError(f"pair {self.name}: the group is empty; use the name where each picture stands alone")


class Batch(NamedTuple):
    """What one rank sees in one step. Rows that are not `valid` keep their place and count for nothing.

    A NamedTuple because PyTorch collates and pins those and Lightning moves them to the device.
    """

    id: Tensor
    """(b,) int64, the pair's id in its shard set; -1 where the row is padding."""
    image: Tensor
    """(b, 3, h, w) uint8 pictures, or (b, d) float rows of a feature column."""
    text: Tensor | Sequence[str]
    """(b, d) float rows of a column, or b strings for a text tower."""
    valid: Tensor
    """(b,) bool; False for padding and for samples that could not be read."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer to a query."""

    id: int
    """The row's id in the store."""
    score: float
    """Cosine between the query's vector and the row, in [-1, 1]."""
    name: str
    """The source's own name of the picture."""
    text: str
    """Its own caption, where its metadata have one, or else the main text that came with it."""
    why: Mapping[str, float] = field(default_factory=dict)
    """What each term of the query adds to the score; the values sum to it."""
