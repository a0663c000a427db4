from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter, read_leave_out, write_leave_out


def make_set(path: Path, num: int, first: int = 0) -> ShardSet:
    with ShardWriter(path, pairs_per_shard=10) as writer:
        for number in range(first, first + num):
            writer.write(Pair(f"{number}", b"picture %d" % number, "jpg", ("text",), f"{number}"))
    return ShardSet(path)


@pytest.mark.parametrize("ids", [[], [0], [34], [3, 9, 10, 29, 30], list(range(35))])
def test_what_was_written_is_read(tmp_path: Path, ids: list[int]) -> None:
    shards = make_set(tmp_path / "set", 35)
    write_leave_out(tmp_path / "list.json", shards, reversed(ids), "for a test")
    read = read_leave_out(tmp_path / "list.json", shards)
    assert read.dtype == np.int64 and read.tolist() == ids


def test_shards_that_were_added_change_nothing(tmp_path: Path) -> None:
    write_leave_out(tmp_path / "list.json", make_set(tmp_path / "small", 20), [3, 17], "")
    assert read_leave_out(tmp_path / "list.json", make_set(tmp_path / "large", 40)).tolist() == [3, 17]


def test_a_list_of_shards_that_were_made_anew_is_refused(tmp_path: Path) -> None:
    write_leave_out(tmp_path / "list.json", make_set(tmp_path / "then", 20), [3], "")
    with pytest.raises(InputError, match=r"shard 000000 was \w{8}\.\. when it was written and is \w{8}\.\. now .*data-prep dedup"):
        read_leave_out(tmp_path / "list.json", make_set(tmp_path / "now", 20, first=1))


def test_a_list_of_another_set_and_an_unknown_key_are_refused(tmp_path: Path) -> None:
    shards = make_set(tmp_path / "set", 20)
    write_leave_out(tmp_path / "list.json", make_set(tmp_path / "larger", 30), [25], "")
    with pytest.raises(InputError, match="lists pairs of shard 000002, which .* does not have"):
        read_leave_out(tmp_path / "list.json", shards)
    listed = {"000001": {"fingerprint": shards.fingerprints["000001"], "keys": [shards.key(11), "77"]}}
    (tmp_path / "list.json").write_text(json.dumps({"kind": "leave-out", "shards": listed}))
    with pytest.raises(InputError, match="no pair of shard 000001 has the key '77'; its keys go from 000000010 to 000000019"):
        read_leave_out(tmp_path / "list.json", shards)


@pytest.mark.parametrize("text", ["", "[]", "3\n4\n", '{"kind": "column"}', '{"kind": "leave-out", "shards": {"000000": ["1"]}}'])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match="is not a list of pairs to leave out"):
        read_leave_out(tmp_path / "list.json", make_set(tmp_path / "set", 5))


def test_a_list_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_leave_out(tmp_path / "list.json", make_set(tmp_path / "set", 5))
