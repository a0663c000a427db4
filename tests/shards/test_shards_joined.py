"""Several sets under one numbering."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import JoinedShards, ShardSet, ShardWriter, open_sets


def write_set(path: Path, num: int) -> ShardSet:
    with ShardWriter(path, pairs_per_shard=2) as writer:
        for i in range(num):
            writer.write(Pair(f"{i}.png", f"{path.name} {i}".encode(), "png", ("a text",), "group"))
    return ShardSet(path)


@pytest.fixture
def joined(tmp_path: Path) -> JoinedShards:
    return JoinedShards({"b": write_set(tmp_path / "second", 3), "a": write_set(tmp_path / "first", 5)})


def test_ids_go_on_from_set_to_set_in_the_order_of_their_names(joined: JoinedShards) -> None:
    assert len(joined) == 8 and joined.starts == {"a": 0, "b": 5}
    assert [joined.image_bytes(id).decode() for id in range(8)] == [*(f"first {i}" for i in range(5)), *(f"second {i}" for i in range(3))]
    assert [joined.where(id) for id in (0, 4, 5, 7)] == ["a/000000", "a/000002", "b/000000", "b/000001"]
    assert joined.key(6) == joined.sets["b"].key(1)


def test_pairs_are_distinguished_by_set_and_keep_their_places(joined: JoinedShards) -> None:
    ids = np.array([7, 0, 5, 7, 4])
    parts = {part.name: (part.rows.tolist(), part.ids.tolist()) for part in joined.parts(ids)}
    assert parts == {"a": ([1, 4], [0, 4]), "b": ([0, 2, 3], [2, 0, 2])}
    assert [len(part.ids) for part in joined.parts(ids[:0])] == [0, 0]


def test_one_set_alone_keeps_its_name_and_ids(joined: JoinedShards) -> None:
    alone = JoinedShards.of(joined.sets["b"])
    assert alone.where(2) == "second/000001" and alone.starts == {"second": 0}
    assert JoinedShards.of(joined) is joined


def test_a_fingerprint_is_of_all_sets_and_their_names_and_not_of_their_order_or_place(joined: JoinedShards, tmp_path: Path) -> None:
    again = JoinedShards({"a": joined.sets["a"], "b": joined.sets["b"]})
    assert again.fingerprint == joined.fingerprint == pickle.loads(pickle.dumps(joined)).fingerprint
    for other in ({"a": joined.sets["a"]}, {"a": joined.sets["b"], "b": joined.sets["a"]}, {"c": joined.sets["a"], "b": joined.sets["b"]}):
        assert JoinedShards(other).fingerprint != joined.fingerprint
    (tmp_path / "first").rename(tmp_path / "moved")
    moved = open_sets({"a": tmp_path / "moved", "b": tmp_path / "second"})
    assert moved.fingerprint == joined.fingerprint and str(moved) == f"{tmp_path / 'moved'}, {tmp_path / 'second'}"


def test_ids_outside_and_no_sets_at_all_are_refused(joined: JoinedShards) -> None:
    with pytest.raises(IndexError, match=r"id 8 is outside 0\.\.7"):
        joined.key(8)
    with pytest.raises(IndexError, match=r"ids -1\.\.3 are outside 0\.\.7"):
        joined.parts(np.array([3, -1]))
    with pytest.raises(InputError, match="no set is given"):
        JoinedShards({})
