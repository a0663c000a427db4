"""From an encoded file to pixels, the same for training, embedding and serving.

    pixels = centre(shards.image_bytes(7), size=224, crop_share=0.875)        # (3, 224, 224) uint8, as timm's evaluation transform cuts it
    pixels = random_crop(shards.image_bytes(7), size=224, word=random_words(seed, epoch, ids)[0])       # for training

A file that is not a picture raises `BadPicture` with the reason; nothing else does.

Two decoders give the same picture. The bytes alone decide which one is used:

    for                                                                     decoder
    `picture`, `centre`, `random_crop(exact=True)`: embedding, serving      Pillow
    `random_crop`, in training, of a plain JPEG (see `plain_jpeg_size`)     simplejpeg, at 1/2, 1/4 or 1/8 of its size where that is enough
    `random_crop` of anything else: PNG, WebP, AVIF, CMYK, turned by EXIF,  Pillow
    or of more pixels than are decoded whole

Unless exact=True, torch resizes a crop (bilinear or bicubic, antialiased): Pillow's filters with vector instructions, within 50 dB (PSNR)
of Pillow's pixels or better. Other filters use Pillow throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from PIL import Image

from multimodal.data.order import uniform
from multimodal.pictures.decode import BadPicture, picture, plain_jpeg_size
from multimodal.pictures.preprocessing import Interpolation, Resize, Size, centre_of, height_width

CROP_ATTEMPTS = 10
ANTIALIASED: dict[str, Callable[..., torch.Tensor]] = {
    "bilinear": torch._C._nn._upsample_bilinear2d_aa,
    "bicubic": torch._C._nn._upsample_bicubic2d_aa,
}
"""torch's resizes that equal Pillow's. `torch.nn.functional.interpolate` calls them, but passes on neither `out` nor both size and step."""
ENOUGH = 1.5
"""A picture is decoded at a reduced size only if the rectangle keeps this many times the pixels asked for, each way. The worst of 1,094
crops of 512-pixel photographs had 33 dB with 1 (the DCT's filter is not Pillow's), 34 with 1.25, 36.4 with 1.5.
"""
MAX_SHIFT = 1 / 16
"""In pixels of the reduced picture: how far a rectangle may move to start on a whole pixel. Half a pixel, plain rounding, costs 10 dB."""
MAX_EXTRA = 16
"""The most columns or rows that are computed and discarded so that a rectangle starts on a whole pixel."""


class Decoded:
    """A picture's file, decoded once, when its pixels are first needed: all crops of one picture share them."""

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded
        self._jpegs: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, image: Image.Image) -> Decoded:
        """A picture that has no file, already as `picture` shows one."""
        decoded = cls(b"")
        decoded.image = image
        return decoded

    @cached_property
    def image(self) -> Image.Image:
        """As `picture` returns it; do not modify it. Raises BadPicture."""
        return picture(self.encoded)

    @cached_property
    def plain_jpeg_size(self) -> tuple[int, int] | None:
        """See `multimodal.pictures.decode.plain_jpeg_size`."""
        return plain_jpeg_size(self.encoded)

    def jpeg(self, part: int) -> np.ndarray:
        """(h, w, 3) uint8: a plain JPEG at 1/part of its size. Raises BadPicture."""
        if part not in self._jpegs:
            assert self.plain_jpeg_size is not None, "not a plain JPEG"
            min_width, min_height = (-(-side // part) for side in self.plain_jpeg_size)
            try:
                # strict=False: a damaged file is decoded as far as it goes, as Pillow does; truncation was checked before
                self._jpegs[part] = simplejpeg.decode_jpeg(self.encoded, min_width=min_width, min_height=min_height, strict=False)
            except ValueError as error:
                raise BadPicture(f"JPEG: {error}") from None
        return self._jpegs[part]


def centre(
    encoded: bytes | Decoded,
    size: Size,
    crop_share: float = 0.875,
    interpolation: Interpolation = "bicubic",
    resize: Resize = "shortest",
    fill: int = 0,
) -> np.ndarray:
    """A picture for evaluation, or its middle -> (3, h, w) uint8, antialiased. Raises BadPicture.

    The settings are those of `multimodal.pictures.preprocessing.centre_of`.
    """
    return centre_of(_decoded(encoded).image, size, crop_share, interpolation, resize, fill)


def random_crop(
    encoded: bytes | Decoded,
    size: Size,
    word: int,
    scale: tuple[float, float] = (0.35, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bicubic",
    exact: bool = False,
    mirrored: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A rectangle of the picture, chosen by a random word, resized to (3, h, w) uint8, antialiased; may be channels-last in memory.

    word: 64 random bits; the same word gives the same rectangle. scale: share of the area, ratio: width over height, both as in
    torchvision's RandomResizedCrop. exact: Pillow's pixels to the last bit, in three times the time. Without it they are close to Pillow's:
    50 dB (PSNR) or more on photographs, 35 or more where a large JPEG is decoded at a reduced size. mirrored: flip left and right.
    out: where to write the pixels, (3, h, w) uint8; fastest if it is channels-last in memory. Raises BadPicture.
    """
    tall, wide = height_width(size)
    if out is None:
        out = np.empty((tall, wide, 3), np.uint8).transpose(2, 0, 1)
    fast = not exact and interpolation in ANTIALIASED
    decoded = _decoded(encoded)
    jpeg = decoded.plain_jpeg_size if fast else None
    if jpeg is not None:
        part, across, down = _jpeg_part(crop_box(*jpeg, word, scale, ratio), tall, wide)
        return _resized(decoded.jpeg(part), across, down, interpolation, mirrored, out)
    image = decoded.image
    left, top, width, height = crop_box(*image.size, word, scale, ratio)
    # crop first: resize(box=...) would let the filter see pixels outside the rectangle, and differ from torchvision
    cut = image.crop((left, top, left + width, top + height))
    if fast:
        across, down = _Span(0, width, 0, width / wide), _Span(0, height, 0, height / tall)
        return _resized(np.array(cut), across, down, interpolation, mirrored, out)
    pixels = np.asarray(cut.resize((wide, tall), Image.Resampling[interpolation.upper()])).transpose(2, 0, 1)
    out[:] = pixels[:, :, ::-1] if mirrored else pixels
    return out


def crop_box(width: int, height: int, word: int, scale: tuple[float, float], ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random crop: torchvision's RandomResizedCrop.get_params with our random numbers.

    Ten tries at an area and a ratio that fit; after that the whole picture, centre-cropped to the nearest ratio allowed.
    """
    for attempt in range(CROP_ATTEMPTS):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * uniform(word, 2 * attempt))
        log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(log_low + (log_high - log_low) * uniform(word, 2 * attempt + 1))
        w, h = int(round(math.sqrt(area * aspect))), int(round(math.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            left, top = uniform(word, 2 * CROP_ATTEMPTS), uniform(word, 2 * CROP_ATTEMPTS + 1)
            return int(left * (width - w + 1)), int(top * (height - h + 1)), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = int(round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = int(round(height * ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h


class _Span(NamedTuple):  # made twice a picture: a frozen dataclass takes four times as long
    """How one axis of a decoded picture is resized: pixels start .. stop-1, `step` of them for each output pixel. The first `extra` output
    pixels are discarded.
    """

    start: int
    stop: int
    extra: int
    step: float


def _decoded(encoded: bytes | Decoded) -> Decoded:
    return encoded if isinstance(encoded, Decoded) else Decoded(encoded)


def _jpeg_part(box: tuple[int, int, int, int], tall: int, wide: int) -> tuple[int, _Span, _Span]:
    """The smallest fraction 1/part of its size at which a JPEG can be decoded, and the rectangle (left, top, width, height) there."""
    left, top, width, height = box
    for part in (8, 4, 2):  # the fractions whose inverse DCT has vector instructions; at 3/4 a picture takes longer than at its full size
        # below 8 pixels several fractions give the same size
        if min(width, height) < 8 or width < ENOUGH * wide * part or height < ENOUGH * tall * part:
            continue
        across, down = _span(left, width, part, wide), _span(top, height, part, tall)
        if across and down:
            return part, across, down
    return 1, _Span(left, left + width, 0, width / wide), _Span(top, top + height, 0, height / tall)


def _span(start: int, length: int, part: int, size: int) -> _Span | None:
    """Pixels start .. start+length-1 of a picture's axis, in the picture decoded at 1/part.

    There they start and end at fractional positions, start / part and (start + length) / part. torch can resize by any step, but only from
    a whole pixel. So the output starts a few of its pixels earlier, where that position is within MAX_SHIFT of a whole pixel. None if no
    such position exists.
    """
    step = length / part / size
    for extra in range(MAX_EXTRA + 1):
        begin = start / part - extra * step
        if begin < -MAX_SHIFT:
            return None
        if abs(begin - round(begin)) <= MAX_SHIFT:
            return _Span(round(begin), -(-(start + length) // part), extra, step)
    return None


def _resized(decoded: np.ndarray, across: _Span, down: _Span, interpolation: str, mirrored: bool, out: np.ndarray) -> np.ndarray:
    """The spans of decoded (h, w, 3) uint8, resized into out (3, h, w)."""
    # numpy makes a view in a third of torch's time. The layout is channels_last, for which torch has vector instructions.
    cut = torch.from_numpy(decoded[None, down.start : down.stop, across.start : across.stop].transpose(0, 3, 1, 2))
    made, (tall, wide) = torch.from_numpy(out[None]), out.shape[1:]
    resize, steps = ANTIALIASED[interpolation], (1 / down.step, 1 / across.step)
    if not across.extra and not down.extra:
        # Flip before resizing, not after: the result then needs no further copy, and the filter is symmetric.
        resize(cut.flip(3) if mirrored else cut, (tall, wide), False, *steps, out=made)
        return out
    larger = resize(cut, (down.extra + tall, across.extra + wide), False, *steps)[:, :, down.extra :, across.extra :]
    made.copy_(larger.flip(3) if mirrored else larger)
    return out
