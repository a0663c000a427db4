"""Two hundred pairs whose texts are all different, 24 articles of four subjects, and stores of their pictures whose rows are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest

from multimodal.pairs import Pair
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.shards import ShardSet, ShardWriter
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.space import BoxedSpace
from multimodal.text.topics import TopicSpace
from multimodal.text.words import WordSpace

WORDS = tuple("beach sunset woman man scientist dog snow people tree river cat house car boat horse bread lamp chair".split())
NUM, DIM = 200, 24
SUBJECTS = {"animals": "dog cat horse", "nature": "tree river snow", "people": "woman man scientist", "things": "house boat lamp"}
NUM_ARTICLES, NUM_OF_EACH = 24, 3


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    path = tmp_path_factory.mktemp("evaluate") / "set"
    with ShardWriter(path, pairs_per_shard=70) as writer:
        for number, words in enumerate(islice(combinations(WORDS, 3), NUM)):
            text = " ".join(words)
            writer.write(Pair(f"{number}.png", b"unread", "png", (text, "another text"), f"group {number}"))
    return ShardSet(path)


@pytest.fixture(scope="session")
def articles(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """24 articles of four subjects, three pictures each, with the article as the main text and a caption beside it. An article holds the
    words of its subject and one of its own; pictures of one article do not lie side by side.
    """
    path, subjects = tmp_path_factory.mktemp("evaluate") / "articles", list(SUBJECTS)
    with ShardWriter(path, pairs_per_shard=25) as writer:
        for number in range(NUM_ARTICLES * NUM_OF_EACH):
            article = number % NUM_ARTICLES
            subject = subjects[article % len(subjects)]
            texts = (f"{SUBJECTS[subject]} {WORDS[article % len(WORDS)]} number{article}", f"people on a picture {number}")
            metadata = {"subject": subject, "book": "one", "chapter": article, "weight": 0.5, "page": number}
            writer.write(Pair(f"{number}.png", b"unread", "png", texts, f"article {article}", metadata=metadata))
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

    without: ids that are left out, as pictures that could not be read are. of: another shard set. rows: (n, d) the pictures' rows, by id.
    """

    def make(
        name: str,
        belongs: np.ndarray | None = None,
        without: tuple[int, ...] = (),
        family: str = "wordvec",
        of: ShardSet = shards,
        rows: np.ndarray | None = None,
    ) -> Store:
        space = spaces[family]
        space.save(tmp_path / f"space {name}")
        create_store(tmp_path / name, tmp_path / f"space {name}", family, export="e" * 64)
        belongs = np.arange(len(of)) if belongs is None else belongs
        if rows is None:
            rows = space.embed([of.texts(int(belongs[id]))[0] for id in range(len(of))])  # type: ignore[attr-defined]
        with StoreWriter(tmp_path / name) as writer:
            for shard in of.shards:
                ids = [id for id in shard.ids if id not in without]
                texts = [of.texts(id)[0] for id in ids]
                thumbnails = [b"\xff\xd8\xff" + bytes([id % 256]) for id in ids]
                names = {"name": [of.names[id] for id in ids], "text": texts}
                writer.append(Segment(np.array(ids), rows[ids], names, thumbnails), made_from={f"set/{shard.name}": shard.fingerprint})
        return Store(tmp_path / name)

    return make
