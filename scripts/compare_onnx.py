"""Vectors by onnxruntime beside torch's, of the pictures and all texts of a part of a set, and what retrieval is worth with each.

    python scripts/compare_onnx.py --exports exports/photos exports/photos-int8 --shards shards/photos --part dev

The exports are of one model, each with ONNX (`multimodal export --onnx`). Prints for each the largest difference of a coordinate of unit
vectors from torch's, R@1, R@5 and R@10 in per cent in both directions, and how many of the first ten hits are torch's. A line for torch
comes first. 1,000 pictures and 5,000 texts take some minutes of one core; on a busy machine set OMP_NUM_THREADS=1, or threads of torch
wait for each other.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multimodal.errors import InputError
from multimodal.evaluate.figures import align, look_up
from multimodal.export.light import light_tower
from multimodal.export.model import QUERY, load_export
from multimodal.metrics import recall_at, unit
from multimodal.onnx import FOLDER
from multimodal.shards import ShardSet, Split
from multimodal.text import open_space

BATCH_SIZE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Unit vectors of pictures (n, d) and texts (t, d), both float64."""

    pictures: np.ndarray
    texts: np.ndarray


def by_torch(export: Path, encoded: list[bytes], texts: list[str]) -> Vectors:
    """What `index` and `evaluate` compute where there is no ONNX."""
    opened = load_export(export)
    rows = [opened.embed_encoded(encoded[first : first + BATCH_SIZE]) for first in range(0, len(encoded), BATCH_SIZE)]
    with tempfile.TemporaryDirectory() as scratch:
        query = shutil.copytree(export / QUERY, Path(scratch, QUERY), ignore=shutil.ignore_patterns(FOLDER))
        return Vectors(unit(np.concatenate(rows)), unit(open_space(query).embed(texts)))


def by_onnx(export: Path, encoded: list[bytes], texts: list[str]) -> Vectors:
    """What `search` computes without torch."""
    tower, space = light_tower(export), load_export(export).query
    if tower is None:
        raise InputError(f"{export}: has no ONNX. Make it: multimodal export --output {export} --onnx")
    return Vectors(unit(tower.encode_image(encoded)), unit(space.embed(texts)))


def line(name: str, found: Vectors, wanted: Vectors, owners: np.ndarray) -> list[str]:
    """A line of the table. owners (t,): the picture of each text."""
    num = len(found.pictures)
    differences = (np.abs(getattr(found, side) - getattr(wanted, side)).max() for side in ("pictures", "texts"))
    to_image = look_up("text->image", found.texts, found.pictures, owners, np.arange(num), owners, owners).first
    to_text = look_up("image->text", found.pictures, found.texts, np.arange(num), owners, np.arange(num), np.arange(num)).first
    recalls = (f"{100 * recall_at(first, k):.2f}" for first in (to_image, to_text) for k in (1, 5, 10))
    shared = np.mean([len(np.intersect1d(*pair)) for pair in zip(first_ten(found), first_ten(wanted), strict=True)])
    return [name, *(f"{one:.1e}" for one in differences), *recalls, f"{shared:.2f}"]


def first_ten(vectors: Vectors) -> Iterator[np.ndarray]:
    """The first ten pictures for each text."""
    yield from np.argsort(-(vectors.texts @ vectors.pictures.T), axis=1, kind="stable")[:, :10]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exports", type=Path, nargs="+", required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--part", default="all")
    given = parser.parse_args()
    shards = ShardSet(given.shards)
    ids = Split().ids(shards, given.part).tolist()
    encoded, texts = [shards.image_bytes(id) for id in ids], [shards.texts(id) for id in ids]
    owners, every = np.repeat(np.arange(len(ids)), [len(some) for some in texts]), [text for some in texts for text in some]
    wanted = by_torch(given.exports[0], encoded, every)
    lines = [line("torch", wanted, wanted, owners)]
    lines += [line(str(export), by_onnx(export, encoded, every), wanted, owners) for export in given.exports]
    recalls = [f"{direction} R@{k}" for direction in ("text->image", "image->text") for k in (1, 5, 10)]
    print(f"{len(ids):,} pictures, {len(every):,} texts")
    print(align(["vectors by", "pictures", "texts", *recalls, "of ten"], lines, num_left=1))


if __name__ == "__main__":
    main()
