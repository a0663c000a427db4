"""Pictures by their class: a folder for each class, as torchvision's ImageFolder reads them; or CIFAR's binary files, or a .npz of arrays.

    data-prep make-shards classes birds --output shards/birds

    birds/<class>/<picture>           split by a hash of the picture; with --group-by-class of the class, so that whole classes are held out
    birds/train/<class>/<picture>     with train and test, val or valid: these are the splits
    cifar-10-batches-bin/data_batch_1.bin ... test_batch.bin batches.meta.txt         CIFAR-10, "binary version"
    cifar-100-binary/train.bin test.bin fine_label_names.txt coarse_label_names.txt   CIFAR-100, with `coarse` beside `label`
    cifar10.npz                       x_train, x_test (n, h, w, 3) uint8, y_train, y_test (n,), names

A pair has no text; its metadata has `label`, the class. CIFAR's "python version" is pickle, which could run any code, and is not read:
download the binary version, from www.cs.toronto.edu/~kriz/cifar.html. To train on the names of classes as texts, use the source `folder`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.pictures.formats import offer
from data_prep.sources import check_listing, cut, input_fingerprint
from data_prep.sources._images import walk_pictures
from data_prep.sources._labelled_arrays import pairs_of, parts_of
from data_prep.sources._layout import first_names, folder_names, names_digest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures.arrays import LabelledArrays, read_npz
from multimodal.shards import Ledger

SPLITS = ("train", "test", "val", "valid", "validation", "dev")
SIDE_PX = 32
CIFAR10 = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR100 = {"train": ["train.bin"], "test": ["test.bin"]}
NAMES10, NAMES100, COARSE100 = "batches.meta.txt", "fine_label_names.txt", "coarse_label_names.txt"
PICKLED = ("data_batch_1", "batches.meta", "train", "meta")
"""Files of CIFAR's python version."""


def classes(input: Path, group_by_class: bool = False, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The pictures in the order of split, class and name; or those of CIFAR in the order of its files.

    input: the folder of classes or of splits, the folder of CIFAR's binary files, or a .npz.
    group_by_class: make the pictures of a class a group, so that a split by hash holds out whole classes; splits of the input's own win.
    """
    arrays = _arrays(input)
    if arrays is not None:
        for pair in pairs_of(arrays.arrays, part, ledger, str(input)):
            row = int(pair.name.rpartition("-")[2].removesuffix(".png"))
            metadata = {**pair.metadata, **{name: of_split[pair.split][row] for name, of_split in arrays.more.items()}}
            yield replace(pair, metadata=metadata, group=metadata["label"] if group_by_class else pair.group)
        return
    listed = _listed(input) if part is None else _checked(input, part["listing"])
    for name in listed[slice(None) if part is None else slice(part["start"], part["stop"])]:
        called = name.removeprefix("./")
        try:
            if name.endswith("/"):
                os.listdir(input / name)
                continue
            image = (input / name).read_bytes()
        except OSError as error:  # a broken link, a file or folder without permission
            ledger.bad(str(input), called, f"cannot be read: {error.strerror}")
            continue
        split, label = _split_and_class(name)
        group = label if group_by_class else called
        yield from offer(ledger, str(input), called, image, [], group, split, {"label": label}, needs_text=False)


def plan(pairs_per_shard: int, input: Path, group_by_class: bool = False) -> list[dict[str, Any]]:
    """Ranges of the sorted names, or of the rows of each split."""
    arrays = _arrays(input)
    if arrays is not None:
        return parts_of(arrays.arrays, pairs_per_shard)
    names = _listed(input)
    return cut(len(names), pairs_per_shard, listing=names_digest(names))


def inputs(input: Path, group_by_class: bool) -> dict[str, str]:
    """Fingerprint of the pictures' names and sizes, or of the files of arrays."""
    if _cifar(input) is not None or not input.is_dir():
        return {"input": input_fingerprint(input, None if input.is_file() else _cifar_files(input))}
    return {"input": input_fingerprint(input, [input / name for name in _listed(input)])}


def _listed(input: Path) -> list[str]:
    """The pictures' paths relative to the folder, in order. InputError if they are not in folders of classes."""
    if not input.is_dir():
        raise InputError(f"{input}: does not exist. Give a folder with a folder for each class")
    if pickled := [name for name in PICKLED if (input / name).is_file()]:
        raise InputError(
            f"{input}: {pickled[0]} is of CIFAR's python version, which is pickle: it could run any code, and is not read. Download the "
            "binary version: www.cs.toronto.edu/~kriz/cifar.html"
        )
    walk = walk_pictures(input)
    names = sorted(picture.relative_to(input).as_posix() for picture in walk.pictures)
    if not names:
        raise InputError(f"{input}: no picture (jpg, png, webp, avif) in it, only {first_names(input)}. Give a folder of classes")
    own = [folder for folder in folder_names(input) if folder.lower() in SPLITS]
    others = [folder for folder in folder_names(input) if folder not in own]
    has_splits = "train" in (folder.lower() for folder in own) and len(own) > 1
    if has_splits and others:
        raise InputError(f"{input}: has {', '.join(own)} and {', '.join(others[:3])}, so it is unclear what a class is. Move one of them")
    depth = 3 if has_splits else 2
    if loose := [name for name in names if name.count("/") < depth - 1]:
        wanted = f"{input}/{'train/' if has_splits else ''}<class>/<picture>"
        raise InputError(f"{input}: {loose[0]} is in no folder of a class; expected {wanted}. For pictures without classes: source folder")
    # A folder that cannot be listed is an item as well, so that the ledger lists it.
    names += [f"{folder.relative_to(input).as_posix()}/" for folder in walk.unreadable]
    return [f"{'' if has_splits else './'}{name}" for name in names]


def _split_and_class(name: str) -> tuple[str, str]:
    """train/cat/3.jpg -> train, cat; ./cat/3.jpg, without splits -> "", cat."""
    split, label, _ = name.split("/", 2)
    return ("" if split == "." else split.lower()), label


@lru_cache(maxsize=1)
def _checked(input: Path, listing: str) -> list[str]:
    """As `_listed`, listed once per process. InputError if pictures were added or removed since the plan was made."""
    names = _listed(input)
    check_listing(input, names_digest(names), listing)
    return names


# -- CIFAR ---------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Arrays:
    """more: another name in the metadata -> split -> its value for each row."""

    arrays: LabelledArrays
    more: Mapping[str, Mapping[str, list[str]]]


def _arrays(input: Path) -> _Arrays | None:
    """None for a folder of pictures."""
    if input.is_file() or input.suffix == ".npz":
        return _of_npz(input)
    found = _cifar(input)
    return None if found is None else _of_cifar(input)


@lru_cache(maxsize=1)
def _of_npz(input: Path) -> _Arrays:
    return _Arrays(read_npz(input), {})


def _cifar(input: Path) -> Mapping[str, list[str]] | None:
    """The split -> its files, if the folder is of CIFAR's binary version."""
    for files, names in ((CIFAR10, NAMES10), (CIFAR100, NAMES100)):
        if input.is_dir() and any((input / one).is_file() for of_split in files.values() for one in of_split):
            missing = [one for one in (*files["train"], *files["test"], names) if not (input / one).is_file()]
            if missing:
                raise InputError(f"{input}: is CIFAR's binary version without {', '.join(missing)}. Unpack the whole archive")
            return files
    return None


def _cifar_files(input: Path) -> list[Path]:
    files = _cifar(input) or {}
    names = [one for one in (NAMES10, NAMES100, COARSE100) if (input / one).is_file()]
    return [input / one for one in (*(file for of_split in files.values() for file in of_split), *names)]


@lru_cache(maxsize=1)  # 184 MB, for all parts in a process
def _of_cifar(input: Path) -> _Arrays:
    files = _cifar(input)
    assert files is not None, "called for its folder only"
    is_100 = files is CIFAR100
    names = _names(input / (NAMES100 if is_100 else NAMES10))
    coarse = _names(input / COARSE100) if is_100 else ()
    images, labels, of_coarse = {}, {}, {}
    for split, of_split in files.items():
        rows = np.concatenate([_rows(input / file, 2 if is_100 else 1) for file in of_split])
        images[split] = rows[:, 2 if is_100 else 1 :].reshape(-1, 3, SIDE_PX, SIDE_PX).transpose(0, 2, 3, 1)
        labels[split] = rows[:, 1 if is_100 else 0].astype(np.int64)
        if labels[split].max(initial=0) >= len(names):
            raise InputError(
                f"{input / of_split[0]}: has the class {labels[split].max()}, and there are {len(names)} names. Download it again"
            )
        if is_100:
            if rows[:, 0].max(initial=0) >= len(coarse):
                raise InputError(f"{input / of_split[0]}: has more coarse classes than the {len(coarse)} names. Download it again")
            of_coarse[split] = [coarse[number] for number in rows[:, 0].tolist()]
    return _Arrays(LabelledArrays(images, labels, names), {"coarse": of_coarse} if is_100 else {})


def _rows(path: Path, num_labels: int) -> np.ndarray:
    """(n, labels and pixels) uint8, as CIFAR's binary files have them: labels, then the red, the green and the blue pixels."""
    content, size = path.read_bytes(), num_labels + 3 * SIDE_PX * SIDE_PX
    if not content or len(content) % size:
        raise InputError(f"{path}: has {len(content):,} bytes, which is no multiple of the {size:,} of a picture. Download it again")
    return np.frombuffer(content, np.uint8).reshape(-1, size)


def _names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise InputError(f"{path}: does not exist. Unpack the whole archive")
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text. Download it again") from None
