"""The records that rooms exchange: a pair for a shard, a batch for a training step, a hit of a search.

Pair(name="1f469-200d-1f52c.webp", image=encoded, extension="webp", texts=("woman scientist",), group="scientist")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from multimodal.errors import InputError, needing

if TYPE_CHECKING:  # for annotations only: shards and search use these records without torch
    from PIL import Image
    from torch import Tensor

IMAGE_EXTENSIONS = ("jpg", "png", "webp", "avif")


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture, still encoded, with what came with it: texts, or a class or an identity where there is no text.

    name: the source's own file name or identifier, unique within the source.
    image: the encoded file, byte for byte.
    extension: one of `IMAGE_EXTENSIONS`.
    texts: none of them blank; `texts[0]` is the main one. Empty where the source has none.
    group: pairs that a split must keep together (of an article, a user, one thing drawn in several variants).
    split: the source's own split ("train", "test", ...), or "" if it has none and a hash of the group decides.
    metadata: anything else, JSON values only. `label` is the picture's class, `identity` whom or what it shows, `camera` what took it.
    """

    name: str
    image: bytes = field(repr=False)
    extension: str
    texts: tuple[str, ...]
    group: str
    split: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.extension not in IMAGE_EXTENSIONS:
            raise ValueError(f"pair {self.name}: extension {self.extension!r} is not one of {', '.join(IMAGE_EXTENSIONS)}")
        if not all(text.strip() for text in self.texts):
            raise ValueError(f"pair {self.name}: has a blank text among its {len(self.texts)}; a picture without any has texts=()")
        if not self.image:
            raise ValueError(f"pair {self.name}: the image has no bytes")
        if not self.group:
            raise ValueError(f"pair {self.name}: the group is empty; if each picture is its own group, use its name")

    @property
    def picture(self) -> Image.Image:
        """The image decoded: RGB, upright, as everything here sees it. Raises BadPicture where it cannot be."""
        return _decoded(self.image)


class Batch(NamedTuple):
    """The rows of one rank in one step. Rows that are not `valid` keep their places and are ignored.

    A NamedTuple, because PyTorch collates and pins those, and Lightning moves them to the device.
    """

    id: Tensor
    """(b,) int64, the pair's id in its shard set; -1 for padding."""
    image: Tensor
    """(b, 3, h, w) uint8 pictures, or (b, d) float rows of a feature column."""
    target: Tensor | Sequence[str]
    """What the picture is taught by: (b, d) float rows of a column, b strings for a text tower, or (b,) int64 labels."""
    valid: Tensor
    """(b,) bool; False for padding and for samples that could not be read."""
    identity: Tensor | None = None
    """(b, 2) int64, a number for the row's picture and one for its target, equal for equal ones on all ranks; None unless the loader was
    asked for it.
    """


class Pictures(Protocol):
    """What has the pictures of hits by their ids, as a store has."""

    def thumbnails(self, ids: Sequence[int]) -> list[bytes | None]:
        """The encoded thumbnails, None where there is none."""
        ...

    def picture_bytes(self, id: int) -> bytes | None:
        """The encoded picture, as large as it can be had; None where there is none at all."""
        ...


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer to a query."""

    id: int
    """The row's id in the store."""
    score: float
    """How well the picture meets the query: a product of factors in (0, 1], or the cosine with a sum of vectors; see `search.fusion`."""
    name: str
    """The source's own name for the picture."""
    text: str
    """The picture's own caption, if its metadata has one; else the main text of its pair."""
    why: Mapping[str, float] = field(default_factory=dict)
    """What each term of the query does to the score: its factor, or what it adds."""
    rank: int = field(default=0, compare=False)
    """Its place by score among those that are shown, from 1; the place in a list may be by another order."""
    like: tuple[int, ...] = ()
    """The ids of the pictures that were folded into it, since they nearly equal it."""
    path: str | None = None
    """Its file, where the store was made from a folder of pictures."""
    pictures: Pictures | None = field(default=None, repr=False, compare=False)
    """What has its picture: the store that was searched."""

    @property
    def thumbnail(self) -> bytes | None:
        """The encoded thumbnail, None where the store keeps none."""
        return None if self.pictures is None else self.pictures.thumbnails([self.id])[0]

    @property
    def image(self) -> Image.Image:
        """The picture, RGB and upright: the whole one where the store knows its shard set (`Store.attach`), else the thumbnail.

        InputError where there is neither. Raises BadPicture where it cannot be decoded.
        """
        encoded = None if self.pictures is None else self.pictures.picture_bytes(self.id)
        if encoded is None:
            raise InputError(
                f"picture {self.id}, {self.name}: the store keeps no thumbnail of it, and knows no shard set. Attach the set that it was "
                "made from: store.attach(shards)"
            )
        return _decoded(encoded)


def _decoded(encoded: bytes) -> Image.Image:
    with needing("search", "showing a picture"):
        from multimodal.pictures.decode import picture
    return picture(encoded)
