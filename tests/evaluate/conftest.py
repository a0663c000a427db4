"""Two hundred pairs whose texts are all different, and stores of their pictures whose rows are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest

from multimodal.pairs import Pair
from multimodal.search.segments import Segment
from multimodal.search.store import Store, StoreWriter, create_store
from multimodal.shards import ShardSet, ShardWriter
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.space import BoxedSpace
from multimodal.text.topics import TopicSpace
from multimodal.text.words import WordSpace

WORDS = tuple("beach sunset woman man scientist dog snow people tree river cat house car boat horse bread lamp chair".split())
NUM, DIM = 200, 24


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    path = tmp_path_factory.mktemp("evaluate") / "set"
    with ShardWriter(path, pairs_per_shard=70) as writer:
        for number, words in enumerate(islice(combinations(WORDS, 3), NUM)):
            text = " ".join(words)
            writer.write(Pair(f"{number}.png", b"unread", "png", (text, "another text"), f"group {number}"))
    return ShardSet(path)


@pytest.fixture(scope="session")
def spaces() -> dict[str, BoxedSpace]:
    """Family -> a text space over WORDS."""
    normaliser, vocabulary = Normaliser(), Vocabulary(WORDS, np.ones(len(WORDS), np.int64), NUM)
    random = np.random.default_rng(0)
    topics = random.dirichlet(np.full(len(WORDS), 0.2), size=4).astype(np.float32)
    return {
        "wordvec": WordSpace(normaliser, vocabulary, random.standard_normal((len(WORDS), DIM)).astype(np.float32)),
        "topic": TopicSpace(normaliser, vocabulary, topics, np.full(4, 0.1, np.float32)),
    }


MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(tmp_path: Path, shards: ShardSet, spaces: dict[str, BoxedSpace]) -> MakeStore:
    """Makes a store of the shards: each picture's row is that of the main text of pair `belongs[id]`, its own by default.

    without: ids that are left out, as pictures that could not be read are.
    """

    def make(name: str, belongs: np.ndarray | None = None, without: tuple[int, ...] = (), family: str = "wordvec") -> Store:
        space = spaces[family]
        space.save(tmp_path / f"space {name}")
        create_store(tmp_path / name, tmp_path / f"space {name}", family, export="e" * 64)
        belongs = np.arange(NUM) if belongs is None else belongs
        with StoreWriter(tmp_path / name) as writer:
            for shard in shards.shards:
                ids = [id for id in shard.ids if id not in without]
                rows = space.embed([shards.texts(int(belongs[id]))[0] for id in ids])  # type: ignore[attr-defined]
                texts = [shards.texts(id)[0] for id in ids]
                thumbnails = [b"\xff\xd8\xff" + bytes([id]) for id in ids]
                names = {"name": [shards.names[id] for id in ids], "text": texts}
                writer.append(Segment(np.array(ids), rows, names, thumbnails), made_from={f"set/{shard.name}": shard.fingerprint})
        return Store(tmp_path / name)

    return make
