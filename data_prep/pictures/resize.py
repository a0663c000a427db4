"""Pictures resized on their way into a shard. They are only made smaller; a picture that is small enough keeps its bytes.

    data-prep make-shards folder photos --output shards/photos --resize 256
    Resize(shortest_px=256)(pair)         # the pair, its picture a JPEG whose shorter side has 256 pixels

The result is a JPEG: transparency is put on white, the EXIF orientation is applied, and colour profile and EXIF are dropped. A picture's
bytes alone decide which decoder is used:

    for                                              decoder
    a plain JPEG (`multimodal.pictures.decode`)      simplejpeg, at 1/2, 1/4 or 1/8 of its size if that leaves 1.5 times the target's pixels
    all else: PNG, WebP, AVIF, CMYK, turned by EXIF  Pillow

torch resizes both, antialiased, with Pillow's filters and vector instructions: bicubic, or Lanczos if the picture was decoded at a reduced
size. 500 x 375 pixels take 0.3 ms, against 2.3 ms with Pillow, and 1.2 ms with OpenCV's INTER_AREA, which is further from a Lanczos filter.
A process imports torch at its first picture, which takes 1.3 s. `scripts/bench_prep_pictures.py` compares it with img2dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np

from multimodal.errors import InputError, missing_extra
from multimodal.pairs import Pair
from multimodal.pictures.decode import check_decodes, claimed_size, picture, plain_jpeg_size

ENOUGH = 1.5
"""A JPEG is decoded at a reduced size only if that leaves this many times the target's pixels, each way. The inverse DCT's filter, which
cuts off a little early, combined with Lanczos, which keeps more than bicubic, is then as near to a Lanczos filter of the whole picture as
bicubic alone (mean SSIM of photographs, including the JPEG encoding: 0.973 both at 1.5; 0.974 and 0.972 at 2; at 1.3 0.971 and 0.973), in
three quarters of the time.
"""
QUALITY = 95
NEEDED = ("torch", "simplejpeg")
TORCH = (2, 15)
"""The release whose Lanczos resize was tested; those of early 2026 had none."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Makes the picture of a pair smaller; the same pair gives the same bytes. BadPicture if it does not decode.

    shortest_px: the new length of the shorter side, if it was longer. quality: of the JPEG, 1 to 100.
    """

    shortest_px: int
    quality: int = QUALITY

    def __post_init__(self) -> None:
        if self.shortest_px < 1:
            raise InputError(f"resize is {self.shortest_px}; it is the new length of the shorter side in pixels, and must be at least 1")
        if not 1 <= self.quality <= 100:
            raise InputError(f"quality is {self.quality}; a JPEG's quality must be from 1 to 100")
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            raise missing_extra("resize", f"resizing needs {' and '.join(missing)}", otherwise="leave out --resize")
        if tuple(int(part) for part in version("torch").split(".")[:2]) < TORCH:
            raise missing_extra("resize", f"resizing needs torch {'.'.join(map(str, TORCH))}; this is {version('torch')}")

    def __call__(self, pair: Pair) -> Pair:
        image = smaller(pair.image, self.shortest_px, self.quality)
        return pair if image is pair.image else replace(pair, image=image, extension="jpg")


def smaller(encoded: bytes, shortest_px: int, quality: int = QUALITY) -> bytes:
    """The picture as a JPEG whose shorter side has `shortest_px` pixels; the longer one keeps the ratio, to half a pixel.

    If the picture is no larger, returns `encoded` itself. BadPicture: it does not decode, or exceeds the limits.
    """
    jpeg = plain_jpeg_size(encoded)
    if jpeg is not None:
        if min(jpeg) <= shortest_px:
            check_decodes(encoded)
            return encoded
        decoded = _decoded(encoded, jpeg, shortest_px)
        if decoded is not None:
            return _encoded(_resized(decoded, jpeg, shortest_px), quality)
    image = picture(encoded)
    if min(image.size) <= shortest_px:
        if min(claimed_size(encoded)) <= shortest_px:
            return encoded
        shortest_px = min(image.size)  # a JPEG so large that it is decoded at half its size, and the target is hardly smaller
    return _encoded(_resized(np.array(image), image.size, shortest_px), quality)


def target_size(width: int, height: int, shortest_px: int) -> tuple[int, int]:
    """(width, height) scaled so that the shorter one is shortest_px."""
    if width <= height:
        return shortest_px, round(height * shortest_px / width)
    return round(width * shortest_px / height), shortest_px


def _decoded(encoded: bytes, size: tuple[int, int], shortest_px: int) -> np.ndarray | None:
    """(h, w, 3) uint8 of a plain JPEG of (width, height), at the smallest sufficient size; None if damaged: Pillow then decides."""
    import simplejpeg

    # 8, 4 and 2 are the fractions whose inverse DCT has vector instructions; at 3/4 a picture takes longer than at its full size
    part = next((part for part in (8, 4, 2) if min(size) >= ENOUGH * part * shortest_px), 1)
    try:
        # fastupsample: repeat halved chroma, not interpolate it, since downsizing smooths it anyway: 5 % less time, 0.0002 more SSIM.
        return simplejpeg.decode_jpeg(encoded, fastupsample=True, min_width=-(-size[0] // part), min_height=-(-size[1] // part))
    except ValueError:
        return None


def _resized(decoded: np.ndarray, size: tuple[int, int], shortest_px: int) -> np.ndarray:
    """decoded (h, w, 3) uint8, of a picture of (width, height) that may have been larger -> (h', w', 3) uint8."""
    import torch

    width, height = target_size(*size, shortest_px)
    # At a reduced size, the last row and column may extend beyond the picture: 375 rows at 1/2 are 188. Steps refer to the whole picture.
    part_across, part_down = (round(whole / decoded_at) for whole, decoded_at in zip(size, decoded.shape[1::-1], strict=True))
    steps = height * part_down / size[1], width * part_across / size[0]
    resize = torch.ops.aten._upsample_bicubic2d_aa if part_down == part_across == 1 else torch.ops.aten._upsample_lanczos2d_aa
    made = np.empty((height, width, 3), np.uint8)
    # (1, c, h, w), channels-last in memory, for which there are vector instructions
    pixels, out = (torch.from_numpy(array)[None].permute(0, 3, 1, 2) for array in (decoded, made))
    resize.out(pixels, [height, width], False, *steps, out=out)
    return made


def _encoded(pixels: np.ndarray, quality: int) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(pixels, quality, "RGB", "420")  # chroma halved, as in Pillow, OpenCV and img2dataset
