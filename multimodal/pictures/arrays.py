"""Small pictures that are given out as arrays, in a .npz: CIFAR and the like, with the class of each.

arrays = read_npz(Path("cifar10.npz"))
arrays.names[arrays.labels["train"][0]], png(arrays.images["train"][0])          # "frog", b"\x89PNG..."
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal.errors import InputError

PARTS = ("train", "test")
ARRAYS = ("x_train", "y_train", "x_test", "y_test", "names")


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """images: part -> (n, h, w) or (n, h, w, 3) uint8. labels: part -> (n,) int64, indices into names. names: of the classes."""

    images: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    names: tuple[str, ...]


def read_npz(path: Path) -> LabelledArrays:
    """x_train, x_test (n, h, w, 3) uint8, y_train, y_test (n,) integers, and names, the class name of each integer; read without pickle.

    InputError: it is not such a file.
    """
    if not path.is_file():
        raise InputError(f"{path}: does not exist. Give a .npz with {', '.join(ARRAYS)}, or a folder of classes")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in ARRAYS if name in file}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # TypeError: a .npy, which is one array
        raise InputError(f"{path}: cannot be read as a .npz of plain arrays ({error})") from None
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise InputError(f"{path}: has no {' and no '.join(missing)}. Needed are {', '.join(ARRAYS)}")
    images, labels = ({part: arrays[f"{letter}_{part}"] for part in PARTS} for letter in "xy")
    names = arrays["names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(f"{path}: names is {names.shape} {names.dtype}; expected one string per class")
    for part in PARTS:
        x, y = images[part], labels[part]
        if x.ndim != 4 or x.shape[3] != 3 or x.dtype != np.uint8:
            raise InputError(f"{path}: x_{part} is {x.shape} {x.dtype}; expected pictures (n, h, w, 3) uint8")
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise InputError(f"{path}: y_{part} is {y.shape} {y.dtype}; expected one integer for each of the {len(x)} pictures of x_{part}")
        if len(y) and not 0 <= y.min() <= y.max() < len(names):
            raise InputError(f"{path}: y_{part} ranges from {y.min()} to {y.max()}, but there are names for 0 to {len(names) - 1} only")
    return LabelledArrays(images, {part: y.astype(np.int64) for part, y in labels.items()}, tuple(names.tolist()))


def png(pixels: np.ndarray) -> bytes:
    """(h, w) or (h, w, 3) uint8 -> a PNG file, without loss: from then on it is handled like any picture."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "png", compress_level=1)
    return encoded.getvalue()
