"""Whatever Python users pass as a picture: a Pillow picture, a file, its bytes, or an array of pixels.

[image] = decoded_pictures("me.jpg")
decoded_pictures([Image.open("me.jpg"), "you.png", png_bytes, np.zeros((48, 48, 3), np.uint8)])
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multimodal.errors import InputError
from multimodal.pictures.decode import BadPicture, picture, shown
from multimodal.urls import is_url

PictureLike = Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray
"""A Pillow picture; the path of a file, or its bytes; or pixels (h, w, 3) uint8."""
_ONE = (Image.Image, str, os.PathLike, bytes, bytearray, memoryview, np.ndarray)


def decoded_pictures(pictures: PictureLike | Iterable[PictureLike]) -> Iterator[Image.Image]:
    """Each picture in turn; a single one counts as a list of one, and an array (n, h, w, 3) is n pictures.

    A file is decoded as everywhere in this project, and a Pillow picture likewise: rotated by its EXIF orientation, transparency on white.
    InputError, with the name or position, if one is not a picture.
    """
    is_one = isinstance(pictures, _ONE) and not (isinstance(pictures, np.ndarray) and pictures.ndim == 4)
    several: Iterable[Any] = [pictures] if is_one else pictures  # type: ignore[assignment]
    for place, one in enumerate(several):
        called = f"{one}" if isinstance(one, str | os.PathLike) else f"picture {place}"
        try:
            image = _image(one, called)
        except BadPicture as reason:
            raise InputError(f"{called}: {reason}") from None
        yield image


def _image(one: Any, called: str) -> Image.Image:
    if isinstance(one, Image.Image):
        return shown(one)
    if isinstance(one, bytes | bytearray | memoryview):
        return picture(bytes(one))
    if isinstance(one, str | os.PathLike):
        if is_url(one):
            raise InputError(f"{called}: is a URL, and pictures are not downloaded. Download it, and give its bytes or its file")
        return picture(Path(one).read_bytes())
    if isinstance(one, np.ndarray) and one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3:
        return shown(Image.fromarray(one))
    what = f"an array {one.shape} of {one.dtype}" if isinstance(one, np.ndarray) else f"a {type(one).__name__}"
    raise InputError(f"{called}: expected a Pillow picture, a path, the bytes of a file, or an array (h, w, 3) of uint8, got {what}")
