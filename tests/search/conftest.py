"""Small real text spaces of the two families that open without torch, and stores over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimodal.search.segments import Segment
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.topics import TopicSpace
from multimodal.text.words import WordSpace

WORDS = ("beach", "sunset", "woman", "man", "scientist", "dog", "snow", "people")
DIM = 8


@pytest.fixture(scope="session")
def space_boxes(tmp_path_factory) -> dict[str, Path]:
    """Family -> a text space over WORDS in DIM dimensions."""
    folder = tmp_path_factory.mktemp("spaces")
    normaliser, vocabulary = Normaliser(), Vocabulary(WORDS, np.arange(1, 9), 20)
    random = np.random.default_rng(0)
    WordSpace(normaliser, vocabulary, random.standard_normal((len(WORDS), DIM)).astype(np.float32)).save(folder / "wordvec")
    topics = random.dirichlet(np.full(len(WORDS), 0.2), size=DIM).astype(np.float32)
    TopicSpace(normaliser, vocabulary, topics, np.full(DIM, 0.1, np.float32)).save(folder / "topic")
    return {family: folder / family for family in ("wordvec", "topic")}


@pytest.fixture(scope="session", params=["wordvec", "topic"])
def space_box(request, space_boxes) -> Path:
    """A test that asks for it, or for a store over it, runs once for each family."""
    return space_boxes[request.param]


def make_segment(ids, seed: int = 0, thumbnails: bool = False, **metadata) -> Segment:
    """Rows that depend on the id and the seed alone."""
    rows = np.stack([np.random.default_rng([seed, id]).standard_normal(DIM) for id in ids]) if len(ids) else np.empty((0, DIM))
    names = {"name": [f"{id}.png" for id in ids], "text": [f"picture {id}" for id in ids]}
    pictures = [None if id % 3 == 0 else b"\x89PNG" + bytes([id % 251]) for id in ids] if thumbnails else None
    return Segment(np.array(ids, dtype=np.int64), rows, names | metadata, pictures)


@pytest.fixture
def segment():
    return make_segment


@pytest.fixture
def empty_store(tmp_path, space_box) -> Path:
    create_store(tmp_path / "store", space_box, family="wordvec", export="e" * 64)
    return tmp_path / "store"


@pytest.fixture(scope="session")
def store_of_forty(tmp_path_factory, space_box) -> Path:
    """Forty pictures in two segments, two of them equal (5 and 25), one deleted (3), with thumbnails and a column `set`."""
    path = tmp_path_factory.mktemp("stores") / "forty"
    create_store(path, space_box, family=space_box.name, export="e" * 64)
    with StoreWriter(path) as writer:
        for ids in (range(20), range(20, 40)):
            made = make_segment(list(ids), thumbnails=True, set=["emoji" if id % 2 else "noto" for id in ids])
            made.rows[5] = 1.0
            writer.append(made)
        writer.delete([3])
    return path
