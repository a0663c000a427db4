"""Pictures with a class each, in a part to learn from and a part to judge by: what probes are made with.

pictures = open_labelled("cifar10.npz")
pictures.classes[pictures.labels[0]], pictures.read(0)          # "frog", b"\x89PNG..."
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal.errors import InputError
from multimodal.shards.split import Split
from multimodal.system_files import is_system_name

PARTS = ("train", "test")
_SUFFIXES = frozenset("jpg jpeg jpe jfif png webp avif".split())  # of the formats that are read, in lower case
ARRAYS = ("x_train", "y_train", "x_test", "y_test", "names")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPictures:
    """n pictures. classes: their names. labels: (n,) int64, places in classes. is_test: (n,) bool. names: what to call each picture.

    read: place -> encoded picture; may be called from several threads.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    is_test: np.ndarray
    names: Sequence[str]
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.labels)


def open_labelled(path: Path, split: Split) -> LabelledPictures:
    """Open a .npz of arrays, a folder `<part>/<class>/<picture>` with the parts train and test, or a folder `<class>/<picture>`.

    A .npz holds x_train, x_test (n, h, w, 3) uint8, y_train, y_test (n,) integers and names, the class of each integer; it is read
    without pickle. A folder that holds both `train` and `test` is one of parts, of which no other is read; in one of classes alone the
    split cuts by `<class>/<picture>`. InputError: it is neither, something in it does not fit, or a part has no picture.
    """
    path = Path(path)
    pictures = _of_folder(path, split) if path.is_dir() else _of_arrays(path)
    for part, there in zip(PARTS, (~pictures.is_test, pictures.is_test), strict=True):
        if not there.any():
            raise InputError(f"{path}: no picture is in {part} (seed {split.seed}, held out {split.held_out})")
    return pictures


def _of_arrays(path: Path) -> LabelledPictures:
    if not path.is_file():
        raise InputError(f"{path}: is not there. Wanted a .npz with {', '.join(ARRAYS)}, or a folder of classes")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in ARRAYS if name in file}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # TypeError: a .npy, which is one array
        raise InputError(f"{path}: cannot be read as a .npz of plain arrays ({error})") from None
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise InputError(f"{path}: holds no {' and no '.join(missing)}. Wanted are {', '.join(ARRAYS)}")
    images, labels = [arrays[f"x_{part}"] for part in PARTS], [arrays[f"y_{part}"] for part in PARTS]
    names = arrays["names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(f"{path}: names is {names.shape} {names.dtype}; wanted one string a class")
    for part, x, y in zip(PARTS, images, labels, strict=True):
        if x.ndim != 4 or x.shape[3] != 3 or x.dtype != np.uint8:
            raise InputError(f"{path}: x_{part} is {x.shape} {x.dtype}; wanted pictures (n, h, w, 3) uint8")
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise InputError(f"{path}: y_{part} is {y.shape} {y.dtype}; wanted one integer for each of the {len(x)} pictures of x_{part}")
        if len(y) and not 0 <= y.min() <= y.max() < len(names):
            raise InputError(f"{path}: y_{part} goes from {y.min()} to {y.max()}, and there are names for 0 to {len(names) - 1}")
    num_train = len(images[0])

    def read(place: int) -> bytes:
        image = images[0][place] if place < num_train else images[1][place - num_train]
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "png", compress_level=1)  # lossless: from here on it is a picture like any other
        return encoded.getvalue()

    return LabelledPictures(
        classes=tuple(names.tolist()),
        labels=np.concatenate(labels).astype(np.int64),
        is_test=np.arange(num_train + len(images[1])) >= num_train,
        names=[f"{part}[{row}]" for part, x in zip(PARTS, images, strict=True) for row in range(len(x))],
        read=read,
    )


def _of_folder(path: Path, split: Split) -> LabelledPictures:
    has_parts = all((path / part).is_dir() for part in PARTS)
    of_class: dict[str, list[tuple[str, Path]]] = {}
    for part in PARTS if has_parts else ("",):
        folders = sorted(folder for folder in (path / part).iterdir() if folder.is_dir() and not is_system_name(folder.name))
        for folder in folders:
            files = [file for file in sorted(folder.iterdir()) if _is_picture(file)]
            if not files:
                raise InputError(
                    f"{folder}: no picture (jpg, png, webp, avif) lies in it, so it is no class. Wanted {path}/<class>/<picture>, "
                    f"or {path}/train/<class>/<picture> and the same under test"
                )
            own = of_class.setdefault(folder.name, [])
            own += [(part or split.part_of(f"{folder.name}/{file.name}"), file) for file in files]
    classes = tuple(sorted(of_class))
    files = [file for name in classes for _, file in of_class[name]]
    return LabelledPictures(
        classes=classes,
        labels=np.array([label for label, name in enumerate(classes) for _ in of_class[name]], dtype=np.int64),
        is_test=np.array([part == "test" for name in classes for part, _ in of_class[name]], dtype=bool),
        names=[str(file.relative_to(path)) for file in files],
        read=lambda place: files[place].read_bytes(),
    )


def _is_picture(path: Path) -> bool:
    return not is_system_name(path.name) and path.suffix.lower().removeprefix(".") in _SUFFIXES
