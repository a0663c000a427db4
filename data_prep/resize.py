"""Pictures brought to a size on their way into a shard: smaller, never larger, and those that are no larger keep their bytes.

    data-prep make-shards folder photos --output shards/photos --resize 256
    Resize(shortest_px=256)(pair)         # the pair, its picture a JPEG whose shorter side has 256 pixels

A JPEG is what it becomes, so that what was transparent lies on white, and what EXIF turns is turned; its colour profile and its EXIF are
left behind. Which way a picture goes is decided by its bytes alone:

    for                                                 decoder
    a plain JPEG (`multimodal.pictures`)                simplejpeg, at 1/2, 1/4 or 1/8 of its size where 1.5 times the pixels wanted stay
    all else: PNG, WebP, AVIF, CMYK, turned by EXIF     Pillow

Both are resized by torch, antialiased, with Pillow's filters and vector instructions: bicubic, and by Lanczos what was decoded at a part of
its size. 500 x 375 pixels take it 0.3 ms, Pillow 2.3 ms, and OpenCV's INTER_AREA 1.2 ms for a picture further from a Lanczos filter's.
The process that resizes imports torch when the first picture comes, in 1.3 s of its time. `scripts/bench_prep_pictures.py` compares all of
it with img2dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np

from multimodal.errors import InputError, missing_extra
from multimodal.pairs import Pair
from multimodal.pictures import check_decodes, claimed_size, picture, plain_jpeg_size

ENOUGH = 1.5
"""A JPEG is decoded smaller only where this many times the pixels wanted are left, each way. There the inverse DCT's filter, which cuts off
a little early, and Lanczos', which keeps more than bicubic, are together as near to a Lanczos filter of the whole picture as bicubic
alone (mean SSIM of photographs, with the JPEG that is made: 0.973 both at 1.5; 0.974 and 0.972 at 2; at 1.3 0.971 and 0.973), in three
quarters of the time.
"""
QUALITY = 95
NEEDED = ("torch", "simplejpeg")
TORCH = (2, 15)
"""The release whose Lanczos was tried; those of early 2026 had none."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Makes the picture of a pair smaller; the same pair gives the same bytes. BadPicture where it does not decode.

    shortest_px: what the shorter side becomes where it is longer. quality: of the JPEG, 1 to 100.
    """

    shortest_px: int
    quality: int = QUALITY

    def __post_init__(self) -> None:
        if self.shortest_px < 1:
            raise InputError(f"resize is {self.shortest_px}; it is the pixels that the shorter side gets, 1 or more")
        if not 1 <= self.quality <= 100:
            raise InputError(f"quality is {self.quality}; a JPEG's quality is a number from 1 to 100")
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            raise missing_extra("resize", f"resizing needs {' and '.join(missing)}", otherwise="leave out --resize")
        if tuple(int(part) for part in version("torch").split(".")[:2]) < TORCH:
            raise missing_extra("resize", f"resizing needs torch {'.'.join(map(str, TORCH))}; this is {version('torch')}")

    def __call__(self, pair: Pair) -> Pair:
        image = smaller(pair.image, self.shortest_px, self.quality)
        return pair if image is pair.image else replace(pair, image=image, extension="jpg")


def smaller(encoded: bytes, shortest_px: int, quality: int = QUALITY) -> bytes:
    """The picture as a JPEG whose shorter side has `shortest_px` pixels, the longer one by its ratio, to half a pixel.

    One that has no more gives the very bytes back. BadPicture: it does not decode, or is nothing that could be trained on.
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
        shortest_px = min(image.size)  # a JPEG of more pixels than are decoded, and hardly smaller than half of its size
    return _encoded(_resized(np.array(image), image.size, shortest_px), quality)


def target_size(width: int, height: int, shortest_px: int) -> tuple[int, int]:
    """(width, height) with the shorter of both at shortest_px."""
    if width <= height:
        return shortest_px, round(height * shortest_px / width)
    return round(width * shortest_px / height), shortest_px


def _decoded(encoded: bytes, size: tuple[int, int], shortest_px: int) -> np.ndarray | None:
    """(h, w, 3) uint8 of a plain JPEG of (width, height), as small as will do; None for one that is damaged, which Pillow is to judge."""
    import simplejpeg

    # 8, 4 and 2 are the parts whose inverse DCT has vector instructions; at 3/4 a picture takes longer than at its full size
    part = next((part for part in (8, 4, 2) if min(size) >= ENOUGH * part * shortest_px), 1)
    try:
        # fastupsample: chroma that was halved is repeated, not interpolated, since making it smaller smooths it anyway: 5 % less time, for
        # an SSIM that is 0.0002 better.
        return simplejpeg.decode_jpeg(encoded, fastupsample=True, min_width=-(-size[0] // part), min_height=-(-size[1] // part))
    except ValueError:
        return None


def _resized(decoded: np.ndarray, size: tuple[int, int], shortest_px: int) -> np.ndarray:
    """decoded (h, w, 3) uint8, of a picture of (width, height) that may have been larger -> (h', w', 3) uint8."""
    import torch

    width, height = target_size(*size, shortest_px)
    # Decoded at a part, the last row and column may stick out: 375 rows at 1/2 are 188. The steps are those of the whole picture.
    part_across, part_down = (round(whole / decoded_at) for whole, decoded_at in zip(size, decoded.shape[1::-1], strict=True))
    steps = height * part_down / size[1], width * part_across / size[0]
    resize = torch.ops.aten._upsample_bicubic2d_aa if part_down == part_across == 1 else torch.ops.aten._upsample_lanczos2d_aa
    made = np.empty((height, width, 3), np.uint8)
    # (1, c, h, w) whose channels lie last, for which there are vector instructions
    pixels, out = (torch.from_numpy(array)[None].permute(0, 3, 1, 2) for array in (decoded, made))
    resize.out(pixels, [height, width], False, *steps, out=out)
    return made


def _encoded(pixels: np.ndarray, quality: int) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(pixels, quality, "RGB", "420")  # chroma halved, as Pillow, OpenCV and img2dataset have it
