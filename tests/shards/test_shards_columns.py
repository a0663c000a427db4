from __future__ import annotations

from pathlib import Path

import numpy as np

from multimodal.pairs import Pair
from multimodal.shards import Column, ColumnWriter, ShardSet, ShardWriter


def make_set(path: Path, num_pairs: int = 7, pairs_per_shard: int = 3) -> ShardSet:
    with ShardWriter(path, pairs_per_shard) as writer:
        for number in range(num_pairs):
            texts = tuple(f"{number} {text}" for text in range(1 + number % 3))
            writer.write(Pair(f"{number}", b"\xff\xd8\xff", "jpg", texts, f"{number}"))
    return ShardSet(path)


def test_rows_of_several_texts_a_pair_are_taken_by_choice(tmp_path: Path) -> None:
    shards = make_set(tmp_path / "set")
    expected = {id: np.array([[id, text] for text in range(len(shards.texts(id)))], np.float32) for id in range(len(shards))}
    with ColumnWriter(shards, "made", 2, "text", "float32", {}, {"text-space": "1"}) as writer:
        for shard in writer.missing():
            rows = [expected[id] for id in shard.ids]
            writer.write(shard, np.concatenate(rows), np.array([len(row) for row in rows]))
    column = Column.of(shards, "made")
    for id in range(len(shards)):
        assert np.array_equal(column.rows(id), expected[id])
    ids = np.array([6, 0, 2, 2, 5])
    assert np.array_equal(column.take(ids), np.stack([expected[id][0] for id in ids]))
    choice = np.array([2**64 - 1, 5, 7, 1, 3], np.uint64)
    assert np.array_equal(
        column.take(ids, choice),
        np.stack([expected[id][int(word) % len(expected[id])] for id, word in zip(ids.tolist(), choice, strict=True)]),
    )
