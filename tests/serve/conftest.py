"""Small real stores, and their applications."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fastapi.testclient import TestClient

from multimodal.embed.photos import index_pictures
from multimodal.export.model import export_pretrained
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.serve.app import make_app
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.topics import TopicSpace
from multimodal.text.words import WordSpace
from tests.serve.stores import DIM, NUM, WORDS, encoded, photos, write_files_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, or that of the variable CHROMIUM."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[dev]'")
    known = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, known)), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=path, args=["--use-angle=swiftshader", "--enable-unsafe-swiftshader"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> a text space over WORDS."""
    folder = tmp_path_factory.mktemp("serve-spaces")
    normaliser, vocabulary = Normaliser(), Vocabulary(WORDS, np.arange(1, len(WORDS) + 1), 20)
    random = np.random.default_rng(0)
    WordSpace(normaliser, vocabulary, random.standard_normal((len(WORDS), DIM)).astype(np.float32)).save(folder / "wordvec")
    topics = random.dirichlet(np.full(len(WORDS), 0.2), size=DIM).astype(np.float32)
    TopicSpace(normaliser, vocabulary, topics, np.full(DIM, 0.1, np.float32)).save(folder / "topic")
    return {family: folder / family for family in ("wordvec", "topic")}


@pytest.fixture(scope="session")
def photo_store(tmp_path_factory: pytest.TempPathFactory, spaces: dict[str, Path]) -> Path:
    """NUM photographs in two segments."""
    path = tmp_path_factory.mktemp("serve-stores") / "photos"
    create_store(path, spaces["wordvec"], family="wordvec", export="e" * 64)
    with StoreWriter(path) as writer:
        writer.append(photos(list(range(NUM // 2))))
        writer.append(photos(list(range(NUM // 2, NUM))))
    return path


@pytest.fixture(scope="session")
def topic_store(tmp_path_factory: pytest.TempPathFactory, spaces: dict[str, Path]) -> Path:
    """The same pictures by topics, without thumbnails."""
    path = tmp_path_factory.mktemp("serve-stores") / "topics"
    create_store(path, spaces["topic"], family="topic", export="f" * 64)
    rows = np.random.default_rng(3).dirichlet(np.full(DIM, 0.3), size=NUM)
    with StoreWriter(path) as writer:
        writer.append(Segment(np.arange(NUM), rows, {"name": [f"{id}" for id in range(NUM)], "text": ["t"] * NUM}))
    return path


@pytest.fixture(scope="session")
def clip_export(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> Path:
    """One with an image tower."""
    return export_pretrained(str(tiny_clip), tmp_path_factory.mktemp("serve-exports") / "tiny")


@pytest.fixture(scope="session")
def clip_store(tmp_path_factory: pytest.TempPathFactory, clip_export: Path) -> Path:
    """Of a folder of six pictures, by it."""
    folder = tmp_path_factory.mktemp("serve-indexed")
    (folder / "Photos").mkdir()
    for id in range(6):
        (folder / "Photos" / f"{id}.jpg").write_bytes(encoded(id))
    return index_pictures(clip_export, [folder / "Photos"], folder / "S", device="cpu", num_threads=1)


@pytest.fixture(scope="session")
def client(photo_store: Path, topic_store: Path) -> Iterator[TestClient]:
    """Both stores, the photographs first."""
    with TestClient(make_app({"photos": Store(photo_store), "topics": Store(topic_store)})) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path, spaces: dict[str, Path]) -> Path:
    """A store of a folder of four pictures, which is beside it: tmp_path/store, tmp_path/Photos."""
    contents = [encoded(id) for id in range(4)]
    folder = tmp_path / "Photos"
    (folder / "sub").mkdir(parents=True)
    paths = [f"{'sub/' if id % 2 else ''}{id}.jpg" for id in range(4)]
    for path, content in zip(paths, contents, strict=True):
        (folder / path).write_bytes(content)
    write_files_store(tmp_path / "store", spaces["wordvec"], folder, paths, contents)
    return tmp_path / "store"
