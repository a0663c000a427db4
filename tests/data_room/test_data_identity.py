"""Which rows of a batch hold the same picture or the same text."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.data import Captions, ColumnRows, PairLoader, Pixels, Rows, Shuffled, Side
from multimodal.data.conformance import assert_exact_resume
from multimodal.pairs import Batch, Pair
from multimodal.shards import JoinedShards, ShardSet, ShardWriter
from multimodal.shards.columns import ColumnWriter

PICTURES = [0, 1, 0, 2, 3, 4, 5, 1, 6]
"""Which picture each pair has: pair 2 that of pair 0, pair 7 that of pair 1."""
TEXTS = [
    ["a dog"],
    ["a cat", "an animal"],
    ["a wolf"],
    ["a dog"],
    ["a bird", "an animal"],
    ["A dog"],
    ["ein Hündchen"],
    ["a fish"],
    ["a dog"],
]
NUM = len(TEXTS)


def write(path: Path, order: list[int], pairs_per_shard: int = 4) -> ShardSet:
    """The pairs in some order, with features that differ in every row, and columns of texts and of pairs that do too."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (12, 14, 3), dtype=np.uint8) for _ in range(max(PICTURES) + 1)]
    with ShardWriter(path, pairs_per_shard=pairs_per_shard) as writer:
        for place, number in enumerate(order):
            encoded = io.BytesIO()
            Image.fromarray(pictures[PICTURES[number]]).save(encoded, "PNG")
            writer.write(Pair(f"{place}.png", encoded.getvalue(), "png", tuple(TEXTS[number]), f"group {place}"))
    shards = ShardSet(path)
    for name, unit in (("features", "pair"), ("of_pairs", "pair"), ("of_texts", "text")):
        with ColumnWriter(shards, name, dim=2, unit=unit, dtype="float32", config={}, made_from={}) as writer:
            for shard in writer.missing():
                counts = np.array([len(shards.texts(id)) if unit == "text" else 1 for id in shard.ids])
                writer.write(shard, rng.normal(size=(counts.sum(), 2)).astype(np.float32), counts if unit == "text" else None)
    return shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return write(tmp_path_factory.mktemp("identity") / "set", list(range(NUM)))


def equal_rows(batch: Batch, column: int) -> set[tuple[int, int]]:
    """The pairs of ids (smaller, larger) that have the same number."""
    assert batch.identity is not None and batch.identity.dtype == torch.int64 and batch.identity.shape == (len(batch.id), 2)
    numbers = dict(zip(batch.id[batch.valid].tolist(), batch.identity[batch.valid, column].tolist(), strict=True))
    return {(i, j) for i in numbers for j in numbers if i < j and numbers[i] == numbers[j]}


SAME_PICTURE = {(0, 2), (1, 7)}
SAME_MAIN_TEXT = {(0, 3), (0, 8), (3, 8)}


FEATURES = ColumnRows("features")


@pytest.mark.parametrize(
    ("image", "text", "num_workers"),
    [
        (Pixels(8), Captions(), 0),
        (Pixels(8), Captions(), 1),
        (Pixels(8), ColumnRows("of_pairs"), 0),
        (FEATURES, Captions(), 0),
        (FEATURES, ColumnRows("of_pairs"), 1),
        (FEATURES, ColumnRows("of_texts"), 0),
    ],
)
def test_equal_files_and_equal_texts_have_equal_numbers_whatever_the_rows(
    shards: ShardSet, image: Side, text: Side, num_workers: int
) -> None:
    together = PairLoader(shards, np.arange(NUM), image, text, NUM, seed=0, shuffle=False, identify=True, num_workers=num_workers)
    (batch,) = together
    assert equal_rows(batch, 0) == SAME_PICTURE
    assert equal_rows(batch, 1) == SAME_MAIN_TEXT


def test_without_being_asked_a_batch_has_no_identity(shards: ShardSet) -> None:
    (batch,) = PairLoader(shards, np.arange(NUM), FEATURES, Captions(), NUM, seed=0)
    assert batch.identity is None


def test_the_text_that_was_drawn_counts_as_string_and_as_row(shards: ShardSet) -> None:
    loaders = [
        PairLoader(shards, np.arange(NUM), FEATURES, text, NUM, seed=0, identify=True) for text in (Captions(), ColumnRows("of_texts"))
    ]
    found = []
    for _ in range(12):
        ((captions,), (rows,)) = (list(loader) for loader in loaders)
        drawn = dict(zip(captions.id.tolist(), captions.target, strict=True))
        expected = {(i, j) for i in drawn for j in drawn if i < j and drawn[i] == drawn[j]}
        assert equal_rows(captions, 1) == equal_rows(rows, 1) == expected
        found.append((1, 4) in expected)  # both drew "an animal"
    assert any(found) and not all(found)


def test_numbers_are_the_same_on_every_rank_and_a_run_goes_on_with_them(shards: ShardSet) -> None:
    def make(batch_size: int, rank: int, world_size: int) -> PairLoader:
        return PairLoader(
            shards, np.arange(NUM), Pixels(8), Captions(), batch_size, seed=0, rank=rank, world_size=world_size, identify=True
        )

    (one,), (left,), (right,) = make(10, 0, 1), make(5, 0, 2), make(5, 1, 2)
    numbers = {id: row for batch in (left, right) for id, row in zip(batch.id.tolist(), batch.identity.tolist(), strict=True)}
    assert numbers == dict(zip(one.id.tolist(), one.identity.tolist(), strict=True))
    assert_exact_resume(make, batch_size=2, world_size=1, world_size_after=2)
    *_, last = make(4, 1, 2)  # of 9 pairs in steps of 8, this rank has none of the last
    assert not last.valid.any() and last.identity.shape == (4, 2)


def test_a_shuffled_side_has_the_identity_of_what_it_gives(shards: ShardSet) -> None:
    sides = Shuffled(Pixels(8)), Shuffled(Captions(), seed=3)
    (batch,) = PairLoader(shards, np.arange(NUM), *sides, NUM, seed=0, shuffle=False, identify=True)
    texts, pictures = list(batch.target), [bytes(picture.numpy()) for picture in batch.image]
    for column, content in ((0, pictures), (1, texts)):
        assert equal_rows(batch, column) == {(i, j) for i in range(NUM) for j in range(NUM) if i < j and content[i] == content[j]}


def test_a_picture_and_a_text_of_two_sets_are_the_same(tmp_path: Path, shards: ShardSet) -> None:
    joined = JoinedShards({"one": shards, "other": write(tmp_path / "other", [8, 0])})  # ids 9 and 10
    (batch,) = PairLoader(joined, np.arange(NUM + 2), Pixels(8), Captions(), NUM + 2, seed=0, shuffle=False, identify=True)
    assert equal_rows(batch, 0) - SAME_PICTURE == {(8, 9), (0, 10), (2, 10)}
    assert {(0, 9), (9, 10)} <= equal_rows(batch, 1)


@dataclass(frozen=True)
class Lengths(Side):
    """A side of one's own: how long each text is."""

    def open(self, shards, ids):  # type: ignore[no-untyped-def]
        return lambda ids, words: Rows(np.array([[float(len(shards.texts(id)[0]))] for id in ids]), np.ones(len(ids), bool))


def test_rows_of_another_text_side_count_as_they_are(shards: ShardSet) -> None:
    (batch,) = PairLoader(shards, np.arange(NUM), FEATURES, Lengths(), NUM, seed=0, shuffle=False, identify=True)
    lengths = [len(texts[0]) for texts in TEXTS]
    assert equal_rows(batch, 1) == {(i, j) for i in range(NUM) for j in range(NUM) if i < j and lengths[i] == lengths[j]}


def test_pairs_behind_a_cut_are_nobodys_duplicates(shards: ShardSet, tmp_path: Path) -> None:
    copy = ShardSet(shutil.copytree(shards.path, tmp_path / "cut"))
    os.truncate(copy.path / "000000.tar", 600)  # inside the first pair of ids 0 to 3
    (batch,) = PairLoader(copy, np.arange(4), FEATURES, ColumnRows("of_pairs"), 4, seed=0, shuffle=False, identify=True)
    assert batch.valid.all()
    assert equal_rows(batch, 0) == equal_rows(batch, 1) == set()
