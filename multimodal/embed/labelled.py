"""Pictures with class labels, split into train and test: the data of probes and of zero-shot classification.

pictures = open_labelled("cifar10.npz")
pictures.classes[pictures.labels[0]], pictures.read(0)          # "frog", b"\x89PNG..."
embed_labelled(pictures, np.flatnonzero(pictures.is_test), trunk, 224, 8).rows
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.data.decode import Decoded
from multimodal.embed.pictures import as_batches, embed_pictures
from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.machine.system_files import is_system_name
from multimodal.pictures.arrays import PARTS, png, read_npz
from multimodal.shards.split import Split
from multimodal.towers import Trunk

_SUFFIXES = frozenset("jpg jpeg jpe jfif png webp avif".split())  # of the formats that can be read, in lower case
NUM_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPictures:
    """n pictures. classes: their names. labels: (n,) int64, indices into classes. is_test: (n,) bool. names: the name of each picture.

    read: index -> encoded picture; may be called from several threads.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    is_test: np.ndarray
    names: Sequence[str]
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.labels)


def open_labelled(path: Path, split: Split) -> LabelledPictures:
    """Open a .npz of arrays, a folder `<split>/<class>/<picture>` with train and test, or a folder `<class>/<picture>`.

    A .npz holds x_train, x_test (n, h, w, 3) uint8, y_train, y_test (n,) integers, and names, the class name of each integer; it is read
    without pickle. A folder with both `train` and `test` has these two splits, and other folders in it are ignored; otherwise its folders
    are classes, and pictures are split by `<class>/<picture>`. InputError: it is neither, something in it is invalid, or a split is empty.
    """
    path = Path(path)
    pictures = _of_folder(path, split) if path.is_dir() else _of_arrays(path)
    for part, there in zip(PARTS, (~pictures.is_test, pictures.is_test), strict=True):
        if not there.any():
            raise InputError(
                f"{path}: no picture is in {part} (split seed {split.seed}, held out {split.held_out}). "
                "Add pictures, or choose another --split"
            )
    return pictures


def _of_arrays(path: Path) -> LabelledPictures:
    arrays = read_npz(path)
    images = [arrays.images[part] for part in PARTS]
    num_train = len(images[0])

    def read(place: int) -> bytes:
        return png(images[0][place] if place < num_train else images[1][place - num_train])

    return LabelledPictures(
        classes=arrays.names,
        labels=np.concatenate([arrays.labels[part] for part in PARTS]),
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
                    f"{folder}: holds no picture (jpg, png, webp, avif). Expected {path}/<class>/<picture>, "
                    f"or {path}/train/<class>/<picture> and {path}/test/<class>/<picture>"
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


# -- features ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The features of n labelled pictures.

    rows: (n, d) float32; NaN for unreadable pictures. is_readable: (n,) bool. extras: the result of `also` for each picture.
    """

    rows: np.ndarray
    is_readable: np.ndarray
    extras: list[Any]


def embed_labelled(
    pictures: LabelledPictures,
    ids: np.ndarray,
    trunk: Trunk,
    size: int,
    batch_size: int,
    num_threads: int | None = None,
    max_bad_share: float = 0.05,
    also: Callable[[Decoded], Any] | None = None,
) -> Embedded:
    """The trunk's features of the pictures `ids` (n,), in their order; unreadable ones are listed on stderr.

    A picture's shorter side is scaled to `size` pixels, up or down (bicubic, antialiased), and the centre square is taken: the same pixels
    for every trunk. also: see `embed_pictures`. InputError: a larger share than max_bad_share cannot be read, or none can.
    """
    preprocessing = replace(trunk.preprocessing, size=size, crop_share=1.0, interpolation="bicubic")
    batches = as_batches(ids, batch_size)
    embedded = embed_pictures(pictures.read, batches, trunk, preprocessing, num_threads, also=also)
    done = list(track(embedded, f"embedding at {size} px", unit="picture", total=len(ids), weight=batch_size))
    bad = {id: reason for batch in done for id, reason in batch.bad.items()}
    _report_bad([f"{pictures.names[id]}: {reason}" for id, reason in bad.items()], len(ids), max_bad_share)
    rows = np.concatenate([batch.rows for batch in done])
    return Embedded(rows, ~np.isin(ids, list(bad)), [extra for batch in done for extra in batch.extras])


def pick_size(trunk: Trunk, size: int | None) -> int:
    """The height and width in pixels of the squares that a trunk is given: this size, or its own. InputError if it cannot take them."""
    own = trunk.preprocessing.size
    if size is None:
        if not isinstance(own, int):
            tall, wide = own
            raise InputError(f"{trunk.architecture} takes pictures of {tall} x {wide} here, and these are cut square. Add --size {wide}")
        return own
    if size < 1:
        raise InputError(f"size={size} must be at least 1")
    if trunk.has_fixed_size and size != own:
        raise InputError(f"size={size}: {trunk.architecture} takes pictures of {own} pixels only. Leave --size out")
    return size


def _report_bad(bad: Sequence[str], num: int, max_bad_share: float) -> None:
    """List the unreadable pictures on stderr; InputError if they are too many."""
    if not bad:
        return
    if len(bad) / num > max_bad_share or len(bad) == num:
        named = "; ".join(bad[:NUM_NAMED]) + (f"; and {len(bad) - NUM_NAMED} more" if len(bad) > NUM_NAMED else "")
        raise InputError(f"{len(bad)} of {num} pictures cannot be read, more than --max-bad-share {max_bad_share}: {named}")
    for one in bad:
        print(f"left out: {one}", file=sys.stderr)
