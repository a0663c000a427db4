"""The store format: what was written once is read for ever, and is written the same today."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from multimodal.search.store import Store
from multimodal.verify import problems_of

DATA = Path(__file__).parents[1] / "data" / "store"


@pytest.mark.parametrize("name", ["golden", "golden_parquet_thumbnails"])
def test_the_golden_stores_are_read_as_they_were_written(name):
    """That of today, and one from before thumbnails had a file of their own format."""
    store = Store(DATA / name)
    assert (store.dim, store.family, store.columns) == (4, "wordvec", ["name", "set", "text", "year"])
    assert store.ids.tolist() == [5, 2, 9]
    assert store.rows.tolist() == np.float16([[1, 0, 0, 0], [0, 0, 1, 0], [2 / 3, 0, 2 / 3, 1 / 3]]).tolist()
    assert store.records([9, 5], store.columns) == [
        {"name": "both.jpg", "set": "tiny", "text": "a dog on a beach", "year": None},
        {"name": "beach.png", "set": "tiny", "text": "a beach", "year": 1999},
    ]
    assert store.thumbnails([5, 2, 9]) == [None, b"\xff\xd8\xffdog", None]
    assert store.sources == {"tiny/000000": "a" * 64, "tiny/000001": "b" * 64}
    assert not list(problems_of(DATA / name))


def test_the_golden_store_gives_the_answers_that_it_gave():
    hits = Store(DATA / "golden").search("dog - beach", k=3, fusion="sum")
    # both: (2/3 - 2/3) / sqrt 2; beach: -1 / sqrt 2
    assert [(hit.id, hit.name, hit.score) for hit in hits] == [(2, "dog.jpg", 0.707107), (9, "both.jpg", 0.0), (5, "beach.png", -0.707107)]


def test_the_same_store_is_written_today(tmp_path):
    specification = importlib.util.spec_from_file_location("make_golden_store", DATA / "make_golden.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.make(tmp_path / "store")
    golden, made = (_described(path) for path in (DATA / "golden", tmp_path / "store"))
    assert made == golden
    for name in golden["files"]:
        if name.suffix != ".parquet" and name.name != "manifest.json":  # a Parquet file names the release of pyarrow that wrote it
            assert (tmp_path / "store" / name).read_bytes() == (DATA / "golden" / name).read_bytes(), name


def _described(path: Path) -> dict:
    """The manifest, less what depends on the bytes of Parquet files, and the names of the files."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name, facts in manifest["parts"].items():
        if name.startswith("segments/"):
            del facts["fingerprint"], facts["size_bytes"]
    return manifest | {"files": sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())}
