"""From an encoded file to the picture as it is meant to be seen, the same for training, embedding, serving and making shards.

    image = picture(shards.image_bytes(7))        # upright, RGB, 8 bits, by Pillow
    check_decodes(encoded)                        # BadPicture exactly where `picture` would raise it, in a fraction of the time
    plain_jpeg_size(encoded)                      # (500, 375): any decoder decodes this file as Pillow does; None for all others

A file that is not a picture raises `BadPicture` with the reason; nothing else does. This module alone decides which formats are read, and
how large and how thin a picture may be, so the code that makes shards and the code that reads them cannot disagree.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from multimodal.errors import install_command
from multimodal.pictures.formats import MAX_SCANS, exif_orientation, has_too_many_scans, jpeg_orientation, jpeg_segments, pixels_alone

MAX_PIXELS = 89_478_485
"""Of a decoded picture; Pillow's own first limit. That is a quarter of a gigabyte as RGB, and up to 2 GB while decoding 16 bits or
transparency. A file of a few kilobytes can claim to be much larger.
"""
MAX_JPEG_PIXELS = 250_000_000
"""Of a JPEG file: phones write 108 and 200 million. One above MAX_PIXELS is decoded at half its size, so it needs no more memory."""
MAX_ASPECT = 100
"""Longer side over shorter. Resized to 256 pixels on the shorter side, a line of 10,000 x 1 would be 2.5 million wide."""

# Listed one by one, and opened without Image.open: that tries all of Pillow's 40 formats, one of which passes files to Ghostscript, and
# prints warnings about large pictures, which we judge ourselves.
_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadPicture(ValueError):
    """These bytes are not a usable picture; the message says why."""


NEEDS_HEIF = "is HEIC, which needs pillow-heif. Run: "
"""How the reason for a HEIC picture begins where the package that decodes it is not installed."""


def picture(encoded: bytes) -> Image.Image:
    """The picture in a file as it is meant to be seen: upright by its EXIF orientation, RGB with 8 bits, transparency on white, the first
    frame. A JPEG of more than MAX_PIXELS is decoded at half its size.

    16-bit greyscale is scaled to 8 bits by its full range; colour profiles are not applied. EXIF, profiles and texts may be damaged or
    large. Raises BadPicture: not an image, cut off, too many pixels (MAX_PIXELS, MAX_JPEG_PIXELS) or scans (MAX_SCANS), thinner than
    MAX_ASPECT, or without a defined range (32-bit float).
    """
    with _decoding():
        image, orientation = _opened(encoded)
        if image.width * image.height > MAX_PIXELS:
            image.draft(image.mode, (image.width // 2, image.height // 2))
        image.load()
        return _rgb(image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image)


def shown(image: Image.Image) -> Image.Image:
    """A picture that Pillow opened or made, as `picture` shows its file: upright by its EXIF orientation, RGB, transparency on white.

    However many pixels it has, they are in memory already. Raises BadPicture: cut off, thinner than MAX_ASPECT, 32-bit float.
    """
    with _decoding():
        if not all(image.size) or _is_line(*image.size):
            raise BadPicture(f"{image.width} x {image.height} is a line, not a picture: one side is more than {MAX_ASPECT} times the other")
        return _rgb(ImageOps.exif_transpose(image))


def check_decodes(encoded: bytes) -> None:
    """Decode the whole picture; BadPicture with the reason if that fails.

    For a JPEG, every coefficient is read but the picture is computed at an eighth of its size: that finds damage in a fraction of the time.
    """
    with _decoding():
        image, _ = _opened(encoded)
        if image.format == "JPEG":
            image.draft(image.mode, (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()
        if image.mode == "F":
            _rgb(image)


def small_grey(encoded: bytes, shortest_px: int) -> Image.Image:
    """A JPEG's luminance, not turned upright, at 1/2, 1/4 or 1/8 of its size if that leaves enough pixels; its colours are not computed.
    BadPicture as by `picture`.
    """
    with _decoding():
        image, _ = _opened(encoded)
        image.draft("L", (shortest_px, shortest_px))
        return image.convert("L")


def claimed_size(encoded: bytes) -> tuple[int, int]:
    """(width, height) by the header alone, before it is turned upright; may be over the limits. BadPicture if the header has none."""
    with _decoding():
        return _image(encoded)[0].size


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its pixels. width, height: in pixels, of the picture turned upright. exif: as it is, a TIFF structure."""

    width: int
    height: int
    exif: bytes = field(repr=False)


def header(encoded: bytes) -> Header:
    """Size and EXIF of a picture, without decoding it. BadPicture if it cannot be opened."""
    with _decoding():
        image, orientation = _image(encoded)
        width, height = image.size if orientation < 5 else image.size[::-1]
        return Header(width, height, _exif(image, encoded))


def plain_jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG that any decoder decodes as `picture` does; None for all other files, which are left to `picture`.

    A plain file ends as a JPEG does (it is not cut off), has one frame of Huffman-coded 8-bit samples, baseline or progressive, grey or of
    three colours, is not turned by its EXIF or XMP, and is within the limits, so that it is decoded whole.
    """
    if encoded[:2] != b"\xff\xd8" or encoded[-2:] != b"\xff\xd9":
        return None
    size, tagged = None, False
    for marker, start, stop in jpeg_segments(encoded):
        if marker == 0xDA:  # the pixels begin
            return None if (tagged and jpeg_orientation(encoded) != 1) or has_too_many_scans(encoded) else size
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of a frame; those three are tables and a reserve
            if stop - start < 10:
                return None
            precision, height, width, channels = struct.unpack_from(">BHHB", encoded, start + 4)
            if marker > 0xC2 or precision != 8 or channels not in (1, 3) or not width or not height or size is not None:
                return None
            if width * height > MAX_PIXELS or _is_line(width, height):
                return None
            size = width, height
        tagged |= marker == 0xE1  # APP1: EXIF or XMP
    return None


def _opened(encoded: bytes) -> tuple[ImageFile.ImageFile, int]:
    """The picture, within all limits but not decoded yet, and its EXIF orientation."""
    image, orientation = _image(encoded)
    width, height = image.size
    is_jpeg = image.format == "JPEG"
    limit = MAX_JPEG_PIXELS if is_jpeg else MAX_PIXELS
    if width * height > limit:
        raise BadPicture(f"{width} x {height} is more than {limit:,} pixels{'' if is_jpeg else f' (a JPEG may have {MAX_JPEG_PIXELS:,})'}")
    if _is_line(width, height):
        raise BadPicture(f"{width} x {height} is a line, not a picture: one side is more than {MAX_ASPECT} times the other")
    if is_jpeg and has_too_many_scans(encoded):
        raise BadPicture(f"a JPEG of more than {MAX_SCANS} scans, each of which takes the time of a whole picture")
    return image, orientation


def _image(encoded: bytes) -> tuple[ImageFile.ImageFile, int]:
    file = pixels_alone(encoded)
    if file is None:
        raise BadPicture(f"not an image in a format that is known ({len(encoded)} bytes, starts with {encoded[:8]!r})")
    image = _heif(file.encoded) if file.format == "HEIF" else _OPENERS[file.format](io.BytesIO(file.encoded))
    if file.format == "AVIF":  # Pillow puts the orientation that the file's own property gives into EXIF
        return image, exif_orientation(image.info.get("exif", b"")) or 1
    return image, file.orientation


def _exif(image: ImageFile.ImageFile, encoded: bytes) -> bytes:
    """For the two formats in which only a decoder finds it, by the decoder; of AVIF, it was taken out before (`pixels_alone`)."""
    if image.format == "AVIF":
        try:
            image = AvifImagePlugin.AvifImageFile(io.BytesIO(encoded))
        except Exception:  # damaged EXIF costs the picture what it said, and no more
            return b""
    elif image.format != "HEIF":
        file = pixels_alone(encoded)
        return b"" if file is None else file.exif
    return image.info.get("exif") or b""


def _heif(encoded: bytes) -> ImageFile.ImageFile:
    """libheif turns the pixels upright itself, and pillow-heif takes the orientation out of the EXIF."""
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ModuleNotFoundError:
        raise BadPicture(f"{NEEDS_HEIF}{install_command('heic')}") from None
    image: ImageFile.ImageFile = HeifImageFile(io.BytesIO(encoded))
    return image


def _is_line(width: int, height: int) -> bool:
    return max(width, height) > MAX_ASPECT * min(width, height)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except BadPicture:
        raise
    except Image.DecompressionBombError:  # a WebP, whose size Pillow judges as it opens it
        raise BadPicture(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # files from anywhere are decoded here: Pillow raises OSError, SyntaxError, ValueError, struct.error ...
        raise BadPicture(f"does not decode: {str(error) or type(error).__name__}") from error


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
