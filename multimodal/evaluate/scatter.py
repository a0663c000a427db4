"""Pictures drawn at their places in an embedding, at its end or in the course of a training, for the page.

scatter_of(rows, ids, shards, "label", "triplet: 10,000 unseen digits")
course_of("runs/mnist/run", shards, "label", "triplet")                  # of a run with the callback KeepEmbeddings
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from multimodal.errors import InputError
from multimodal.evaluate.report import Picture, Scatter, small_picture
from multimodal.export.run import read_embeddings
from multimodal.metrics import spread
from multimodal.pictures.decode import BadPicture, picture
from multimodal.shards import BrokenPair, ShardSet
from multimodal.shards.labels import in_order, read_labels

INK_PX = 28
"""The longest side of a drawing's mask."""
WITHIN = 0.98
"""The share of the pictures that is within the square; others are drawn at its edge."""
MARGIN = 0.03
"""Of the square's side, left free around the pictures."""


def course_of(run: Path, shards: ShardSet, label: str, title: str, note: str = "", ink: bool = False) -> Scatter:
    """Where the pictures that KeepEmbeddings has kept were after each of its steps; the run need not be finished.

    label: the name in the metadata that says what a picture is of. ink: draw dark on light, or light on dark, as lines alone.
    """
    kept = read_embeddings(run)
    return _scatter(kept.rows, kept.ids, shards, label, title, note, [f"{step:,}" for step in kept.steps.tolist()], ink)


def scatter_of(rows: np.ndarray, ids: np.ndarray, shards: ShardSet, label: str, title: str, note: str = "", ink: bool = False) -> Scatter:
    """Where the pictures ids (n,) are whose rows are (n, d), at one moment."""
    return _scatter(rows[None], ids, shards, label, title, note, [""], ink)


def plane(rows: np.ndarray) -> np.ndarray:
    """(t, n, d) -> (t, n, 2): two dimensions as they are; of more, the two principal components of the last moment, for all of them."""
    if rows.shape[2] == 1:
        return np.concatenate([rows, np.zeros_like(rows)], axis=2)
    if rows.shape[2] == 2:
        return rows
    last = rows[-1] - rows[-1].mean(axis=0)
    _, _, directions = np.linalg.svd(last, full_matrices=False)
    if len(directions) < 2:
        raise InputError(f"{rows.shape[1]} picture has no plane. Show at least 2")
    first = directions[:2] * np.sign(directions[:2].sum(axis=1, keepdims=True) + 1e-12)  # the sign of a component is arbitrary
    return np.asarray(rows @ first.T)


def fitted(places: np.ndarray) -> np.ndarray:
    """(t, n, 2) -> the same in [0, 1]: each moment moved and scaled alike in both directions, so that nearly all are in the square."""
    middle = np.median(places, axis=1, keepdims=True)
    apart = places - middle
    reach = np.quantile(np.abs(apart).max(axis=2), WITHIN, axis=1)[:, None, None]
    return np.clip(0.5 + (0.5 - MARGIN) * apart / np.where(reach > 0, reach, 1.0), 0.0, 1.0)


def ink_of(encoded: bytes) -> bytes:
    """A drawing as a PNG mask whose opacity is its ink: what differs from its ground, which is the brightness of most of its border."""
    grey = picture(encoded).convert("L")
    grey.thumbnail((INK_PX, INK_PX), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > 127:
        grey = ImageOps.invert(grey)
    mask = Image.merge("LA", (Image.new("L", grey.size), ImageOps.autocontrast(grey)))
    file = io.BytesIO()
    mask.save(file, "png", optimize=True)
    return file.getvalue()


def _scatter(
    rows: np.ndarray, ids: np.ndarray, shards: ShardSet, label: str, title: str, note: str, moments: Sequence[str], ink: bool
) -> Scatter:
    names = [value or "" for value in read_labels(shards, ids, label).values]
    number = {value: at for at, value in enumerate(in_order(names))}
    thumbnails = [_ink(shards, id) if ink else small_picture(shards, id) for id in ids.tolist()]
    return Scatter(
        title,
        note,
        [Picture(small, name) for small, name in zip(thumbnails, names, strict=True)],
        [number[name] for name in names],
        fitted(plane(np.asarray(rows, np.float64))),
        moments,
        [spread(of_moment) for of_moment in rows],
        ink,
    )


def _ink(shards: ShardSet, id: int) -> bytes | None:
    try:
        return ink_of(shards.image_bytes(id))
    except (BadPicture, BrokenPair):
        return None
