"""Stores that the tests of the server make."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal.boxes import fingerprint_bytes
from multimodal.search.segments import Segment
from multimodal.search.writing import StoreWriter, create_store

WORDS = ("beach", "sunset", "snow", "dog", "people", "street", "tree", "red")
DIM = 6
NUM = 60


def encoded(number: int, form: str = "jpeg") -> bytes:
    """A picture that depends on the number alone."""
    file = io.BytesIO()
    low = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(low).resize((48, 36), Image.Resampling.BICUBIC).save(file, form)
    return file.getvalue()


def photos(ids: list[int], **columns: list) -> Segment:
    """Photographs whose every value depends on the id alone; columns: some in place of these."""
    rows = np.stack([np.random.default_rng([1, id]).standard_normal(DIM) for id in ids])
    metadata = {
        "name": [f"IMG_{id}.jpg" for id in ids],
        "text": [f"picture {id}" for id in ids],
        "path": [f"{('', '2023/', '2024/june/', '50%_off/')[id % 4]}IMG_{id}.jpg" for id in ids],
        "camera": [('X "100"', "EOS, R5", "Pixel 7", None)[id % 4] for id in ids],
        "size": [1000 * id for id in ids],
        "angle": [id / 7 if id % 5 else None for id in ids],
        "flash": [id % 3 == 0 for id in ids],
        "date": [datetime(2020 + id % 5, 1 + id % 12, 1 + id % 28, 12) if id % 6 else None for id in ids],
        "width": [48] * len(ids),
        "height": [36] * len(ids),
    }
    return Segment(np.array(ids), rows, metadata | columns, [encoded(id) for id in ids])


def write_files_store(store: Path, space: Path, folder: Path, paths: list[str], contents: list[bytes]) -> None:
    """A store that names files, as `index --pictures` makes one; paths may be anything."""
    settings = {"pictures": {"folders": [str(folder)], "export": str(folder.parent / "E")}}
    create_store(store, space, family="wordvec", export="e" * 64, settings=settings)
    columns = {
        "path": paths,
        "folder": [str(folder)] * len(paths),
        "content": [fingerprint_bytes(content) for content in contents],
        "size": [len(content) for content in contents],
    }
    with StoreWriter(store) as writer:
        writer.append(photos(list(range(len(paths))), **columns))
