"""From an encoded file to pixels, the same for whoever asks: training, embedding, serving.

    pixels = centre(shards.image_bytes(7), size=224, crop_share=0.875)        # (3, 224, 224) uint8, as timm's evaluation transform cuts it

Needs Pillow alone. What is not a picture raises `BadPicture` with the reason, and nothing else does.
"""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from multimodal.data.order import uniforms

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

MAX_PIXELS = 89_478_485
"""Pillow's own first limit: a quarter of a gigabyte as RGB. A file of a few kilobytes can claim to be much more."""
MAX_ASPECT = 100
"""Longer side over shorter. Brought to 256 pixels on the shorter side, a line of 10,000 x 1 would be 2.5 million wide."""
CROP_ATTEMPTS = 10


class BadPicture(ValueError):
    """These bytes are not a picture that can be used; the message says why."""


def picture(encoded: bytes) -> Image.Image:
    """The picture in a file as it is meant to be seen: upright by its EXIF orientation, RGB with 8 bits, transparency on white, the first
    frame.

    16-bit greyscale is brought to 8 bits by its full range; colour profiles are not applied. Raises BadPicture: not an image, cut off, more
    than MAX_PIXELS, thinner than MAX_ASPECT, or without a defined range (32-bit float).
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        _check_size(*image.size)
        image.load()
        return _rgb(ImageOps.exif_transpose(image))
    except BadPicture:
        raise
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise BadPicture(f"not an image in a format that is known ({len(encoded)} bytes, starts with {encoded[:8]!r})") from None
    except Exception as error:  # a decoder meets the world here: Pillow raises OSError, SyntaxError, ValueError, struct.error ... by format
        raise BadPicture(f"{type(error).__name__}: {error}") from error


def centre(encoded: bytes, size: int, crop_share: float = 0.875, interpolation: Interpolation = "bicubic") -> np.ndarray:
    """The middle of a picture -> (3, size, size) uint8.

    The shorter side is brought to floor(size / crop_share), antialiased, and the middle square cut out: what timm's evaluation transform
    does with crop_pct = crop_share, to the last bit. Raises BadPicture.
    """
    if not 0 < crop_share <= 1:
        raise ValueError(f"crop_share={crop_share} must be above 0 and at most 1")
    image = picture(encoded)
    shorter = math.floor(size / crop_share)
    width, height = image.size
    if width <= height:
        width, height = shorter, int(shorter * height / width)
    else:
        width, height = int(shorter * width / height), shorter
    image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    left, top = int(round((width - size) / 2)), int(round((height - size) / 2))
    return _pixels(image.crop((left, top, left + size, top + size)))


def random_crop(
    encoded: bytes,
    size: int,
    word: int,
    scale: tuple[float, float] = (0.35, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bicubic",
) -> np.ndarray:
    """A rectangle of the picture, chosen by a random word, brought to (3, size, size) uint8, antialiased.

    word: 64 random bits; the same word cuts the same rectangle. scale: share of the area, ratio: width over height, both as torchvision's
    RandomResizedCrop has them. Raises BadPicture.
    """
    image = picture(encoded)
    left, top, width, height = crop_box(*image.size, word, scale, ratio)
    # cut first: resize(box=...) would let the filter look at pixels beyond the rectangle, and be another picture than torchvision's
    cut = image.crop((left, top, left + width, top + height))
    return _pixels(cut.resize((size, size), Image.Resampling[interpolation.upper()]))


def crop_box(width: int, height: int, word: int, scale: tuple[float, float], ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random crop, by the geometry of torchvision's RandomResizedCrop.get_params with our numbers.

    Ten tries at an area and a ratio that fit; after that the whole picture, cut at the centre to the nearest ratio allowed.
    """
    numbers = uniforms(word, 2 * CROP_ATTEMPTS + 2)
    for attempt in range(CROP_ATTEMPTS):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * numbers[2 * attempt])
        log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(log_low + (log_high - log_low) * numbers[2 * attempt + 1])
        w, h = int(round(math.sqrt(area * aspect))), int(round(math.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            return int(numbers[-2] * (width - w + 1)), int(numbers[-1] * (height - h + 1)), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = int(round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = int(round(height * ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadPicture(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadPicture(f"{width} x {height} is a line, not a picture: one side is more than {MAX_ASPECT} times the other")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadPicture("32-bit float pixels, which say nothing of their range")
    if image.mode.startswith("I"):  # 16-bit grey, in one of Pillow's spellings; its own convert("RGB") would clip at 255
        full_range = np.clip(np.asarray(image, dtype=np.float64), 0, 65535)
        return Image.fromarray(np.rint(full_range / 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _pixels(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
