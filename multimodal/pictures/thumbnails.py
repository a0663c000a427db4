"""Small pictures, the same ones wherever a person looks at some: in stores, on pages, in panels of a run.

small = thumbnail(picture(encoded), longest_px=96)      # an image
kept = thumbnail_jpeg(picture(encoded), longest_px=96)  # its file
"""

from __future__ import annotations

import io

from PIL import Image

JPEG_QUALITY = 85


def thumbnail(image: Image.Image, longest_px: int) -> Image.Image:
    """The whole picture, at most `longest_px` on its longer side; a smaller one as it is. The image given is not changed."""
    small = image.copy()
    small.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return small


def thumbnail_jpeg(image: Image.Image, longest_px: int) -> bytes:
    """A JPEG of `thumbnail`. image: RGB."""
    file = io.BytesIO()
    thumbnail(image, longest_px).save(file, "jpeg", quality=JPEG_QUALITY)
    return file.getvalue()
