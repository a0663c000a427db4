"""MNIST: 70,000 handwritten digits of 28 x 28 pixels, and sets in the same files: Fashion-MNIST, KMNIST (IDX files, gzipped or not).

    data-prep make-shards mnist mnist --output shards/mnist

    mnist/train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz        60,000 digits, split train
    mnist/t10k-images-idx3-ubyte.gz   t10k-labels-idx1-ubyte.gz         10,000 digits, split test

A pair has no text; its metadata has `label`, the digit ("7"). Pictures become PNGs of one channel. For another set in such files, name its
classes in the order of their numbers: --names T-shirt Trouser Pullover ... Files that are cut off, of another kind, or that do not belong
together are an error.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86, 1998.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from data_prep.sources import input_fingerprint
from data_prep.sources._labelled_arrays import pairs_of, parts_of
from data_prep.sources._layout import first_names
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures.arrays import LabelledArrays
from multimodal.shards import Ledger

FILES = {"train": "train", "test": "t10k"}
"""The split -> how the names of its files begin."""
MAX_BYTES = 4 << 30
"""Of the pictures in a file, which says itself how many there are."""


def mnist(input: Path, names: list[str] | None = None, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The digits in the order of the files, first those to train on.

    input: the folder of the four files; two are enough, such as those of the test.
    names: what the classes 0, 1, ... are called; by default their numbers.
    """
    yield from pairs_of(_read(input, None if names is None else tuple(names)), part, ledger, str(input))


def plan(pairs_per_shard: int, input: Path, names: list[str] | None = None) -> list[dict[str, Any]]:
    """Ranges of rows, each within one split."""
    return parts_of(_read(input, None if names is None else tuple(names)), pairs_per_shard)


def inputs(input: Path, names: list[str] | None) -> dict[str, str]:
    """Fingerprint of the files' content."""
    files = [file for pair in _files(input).values() for file in pair]
    return {file.name.removesuffix(".gz"): input_fingerprint(file) for file in files}


@lru_cache(maxsize=1)  # 47 MB of MNIST, for all parts in a process
def _read(input: Path, names: tuple[str, ...] | None) -> LabelledArrays:
    images, labels = {}, {}
    for split, (of_images, of_labels) in _files(input).items():
        images[split], labels[split] = read_idx(of_images, 3), read_idx(of_labels, 1).astype(np.int64)
        if len(images[split]) != len(labels[split]):
            raise InputError(
                f"{of_images}: has {len(images[split])} pictures, and {of_labels.name} {len(labels[split])} labels. Download both again"
            )
    num = 1 + max(int(rows.max(initial=-1)) for rows in labels.values())
    if names is not None and len(names) != num:
        raise InputError(f"{input}: has labels from 0 to {num - 1}, and --names gives {len(names)} names. Give one for each")
    return LabelledArrays(images, labels, tuple(map(str, range(num))) if names is None else names)


def _files(input: Path) -> dict[str, tuple[Path, Path]]:
    """The split -> its pictures and its labels. InputError if a file is missing, or there twice."""
    if not input.is_dir():
        raise InputError(f"{input}: {'is a file' if input.exists() else 'does not exist'}; give the folder of MNIST's files")
    found = {}
    for split, begins in FILES.items():
        pair = [_one_of(input, f"{begins}-{what}", f"idx{dim}-ubyte") for what, dim in (("images", 3), ("labels", 1))]
        there = [file for file in pair if file is not None]
        if len(there) == 1:
            raise InputError(f"{there[0]}: lacks {begins}-{'labels-idx1' if pair[1] is None else 'images-idx3'}-ubyte beside it")
        if there:
            found[split] = there[0], there[1]
    if not found:
        raise InputError(
            f"{input}: is not laid out as MNIST: expected train-images-idx3-ubyte and train-labels-idx1-ubyte, with or without .gz, "
            f"and found {first_names(input)}"
        )
    return found


def _one_of(input: Path, begins: str, ends: str) -> Path | None:
    """train-images-idx3-ubyte, also with .gz, and with a dot as unpackers write it."""
    names = [f"{begins}{joint}{ends}{gz}" for joint in "-." for gz in ("", ".gz")]
    there = [input / name for name in names if (input / name).is_file()]
    if len(there) > 1:
        raise InputError(f"{input}: has {there[0].name} and {there[1].name}, which are one file. Remove one of them")
    return there[0] if there else None


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file, (n,) or (n, h, w) uint8: a big-endian magic number, the sizes, then the content.

    InputError: it is another file, or damaged.
    """
    with open(path, "rb") as plain:
        is_gzipped = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        file = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if is_gzipped else plain
        try:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != bytes([0, 0, 8, dimensions]):
                raise InputError(
                    f"{path}: is no IDX file of {'labels' if dimensions == 1 else 'pictures'}: it begins with {header[:4].hex(' ')}, "
                    f"expected 00 00 08 0{dimensions}. Download it again"
                )
            sizes = [int.from_bytes(header[at : at + 4], "big") for at in range(4, 4 + 4 * dimensions, 4)]
            num_bytes = int(np.prod(np.array(sizes, object)))
            if len(header) < 4 + 4 * dimensions or (dimensions > 1 and 0 in sizes[1:]):
                raise InputError(f"{path}: its header is damaged. Download it again")
            if num_bytes > MAX_BYTES:
                raise InputError(f"{path}: says that it has {num_bytes:,} bytes; at most {MAX_BYTES:,} are read")
            content = file.read(num_bytes)
            more = file.read(1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: cannot be unpacked ({error}). Download it again") from None
    if len(content) < num_bytes:
        raise InputError(f"{path}: is cut off: it has {len(content):,} of {num_bytes:,} bytes. Download it again")
    if more:
        raise InputError(f"{path}: has more bytes than the {num_bytes:,} of its header. Download it again")
    return np.frombuffer(content, np.uint8).reshape(sizes)
