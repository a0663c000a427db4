"""From an encoded file to the picture that it is meant to show, the same for whoever asks: training, embedding, serving, making shards.

    image = picture(shards.image_bytes(7))        # upright, RGB, 8 bits, by Pillow
    plain_jpeg_size(encoded)                      # (500, 375): any decoder shows this file as Pillow does; None for all others

What is not a picture raises `BadPicture` with the reason, and nothing else does.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Pillow's own first limit: a quarter of a gigabyte as RGB. A file of a few kilobytes can claim to be much more."""
MAX_ASPECT = 100
"""Longer side over shorter. Brought to 256 pixels on the shorter side, a line of 10,000 x 1 would be 2.5 million wide."""


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
        check_size(*image.size)
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


def plain_jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG that any decoder shows as `picture` does; None for all else, which is Pillow's.

    Plain is a file that ends as a JPEG does (one that was cut off does not), has one frame of Huffman-coded 8-bit samples, baseline or
    progressive, grey or of three colours, and is not turned by its EXIF or XMP.
    """
    if encoded[:2] != b"\xff\xd8" or encoded[-2:] != b"\xff\xd9":
        return None
    size, tagged, at = None, False, 2
    while at + 10 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = struct.unpack_from(">BH", encoded, at + 1)
        if marker == 0xDA:  # the pixels begin
            return None if tagged and _is_turned(encoded) else size
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of a frame; those three are tables and a reserve
            precision, height, width, channels = struct.unpack_from(">BHHB", encoded, at + 4)
            if marker > 0xC2 or precision != 8 or channels not in (1, 3) or not width or not height or size is not None:
                return None
            size = width, height
        tagged |= marker == 0xE1  # APP1: EXIF or XMP
        at += 2 + length
    return None


def check_size(width: int, height: int) -> None:
    """BadPicture for more than MAX_PIXELS, or thinner than MAX_ASPECT."""
    if width * height > MAX_PIXELS:
        raise BadPicture(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadPicture(f"{width} x {height} is a line, not a picture: one side is more than {MAX_ASPECT} times the other")


def _is_turned(encoded: bytes) -> bool:
    try:
        return Image.open(io.BytesIO(encoded)).getexif().get(0x0112, 1) != 1
    except Exception:  # EXIF that cannot be read, or no picture at all: Pillow says what it makes of it
        return True


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
