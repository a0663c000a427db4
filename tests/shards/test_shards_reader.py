from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import BrokenPair, ShardSet, ShardWriter, tars

DESCRIPTORS = Path("/proc/self/fd")


def picture(number: int) -> bytes:
    return b"\xff\xd8\xff" + number.to_bytes(4, "big") * (1 + number % 50)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "set", 3) as writer:
        for number in range(40):
            writer.write(Pair(f"n{number}", picture(number), "jpg", (f"t{number}",), f"g{number % 7}", "dev" if number > 30 else ""))
    return tmp_path / "set"


def read_some(shards: ShardSet, ids: list[int]) -> list[bytes]:
    return [shards.image_bytes(id) for id in ids]


def test_any_id_is_read_in_any_order(path: Path) -> None:
    shards = ShardSet(path)
    ids = np.random.default_rng(0).permutation(40).tolist() * 2
    assert read_some(shards, ids) == [picture(id) for id in ids]
    assert [shards.texts(id) for id in ids] == [(f"t{id}",) for id in ids]


def test_groups_splits_names_and_keys_come_from_the_index_alone(path: Path) -> None:
    for tar in path.glob("*.tar"):
        tar.unlink()
    shards = ShardSet(path)
    assert list(shards.groups) == [f"g{number % 7}" for number in range(40)]
    assert shards.splits[28:33] == ["", "", "", "dev", "dev"]
    assert shards.names[-1] == "n39"
    assert shards.keys()[3] == shards.key(3) == "000000003"
    assert (shards.find("000000003"), shards.find("3")) == (3, None)
    assert shards.splits.distinct() == {"": 31, "dev": 9}


def test_offsets_are_read_from_the_map_without_a_copy(path: Path) -> None:
    sizes = ShardSet(path).image_sizes
    assert not sizes.flags.owndata and not sizes.flags.writeable
    assert sizes.tolist() == [len(picture(number)) for number in range(40)]


def test_it_pickles_as_its_paths_and_reads_again(path: Path) -> None:
    shards = ShardSet(path)
    shards.image_bytes(5)
    packed = pickle.dumps(shards)
    assert len(packed) < 1000
    again = pickle.loads(packed)
    assert read_some(again, [39, 5]) == [picture(39), picture(5)]
    assert again.fingerprint == shards.fingerprint


def test_forked_processes_and_threads_read_through_one_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MAX_OPEN_FILES", 2)  # so that files are closed while others read
    shards = ShardSet(path)
    rng = np.random.default_rng(1)
    jobs = [rng.permutation(40).tolist() for _ in range(8)]
    expected = [[picture(id) for id in job] for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_some, [shards] * 8, jobs)) == expected
    with get_context("spawn").Pool(1) as pool:
        assert pool.starmap(ShardSet.image_bytes, [(shards, id) for id in range(5)]) == [picture(id) for id in range(5)]
    pid = os.fork()
    if not pid:
        os._exit(int(read_some(shards, jobs[0]) != expected[0]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert read_some(shards, jobs[1]) == expected[1]


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="counts open files in /proc/self/fd, which Linux has")
def test_many_shards_do_not_mean_many_open_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MAX_OPEN_FILES", 4)
    before = len(list(DESCRIPTORS.iterdir()))
    shards = ShardSet(path)
    opened = len(list(DESCRIPTORS.iterdir()))
    assert opened - before <= 1  # the index's map; no tar yet
    read_some(shards, list(range(40)))
    assert len(list(DESCRIPTORS.iterdir())) == opened + 4
    del shards
    assert len(list(DESCRIPTORS.iterdir())) == before


@pytest.mark.parametrize("id", [-1, 40])
def test_an_id_outside_the_set_is_an_index_error(path: Path, id: int) -> None:
    with pytest.raises(IndexError, match=f"id {id} is outside 0..39"):
        ShardSet(path).image_bytes(id)


def test_a_folder_that_is_no_set_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: expected a shard set here, but the folder does not exist"):
        ShardSet(tmp_path / "nowhere")
    (tmp_path / "00000.tar").touch()
    with pytest.raises(InputError, match=f"but no index. Run: multimodal shards index {tmp_path}"):
        ShardSet(tmp_path)


@pytest.mark.parametrize("cut_bytes", range(0, 10240, 768))
def test_a_tar_that_was_cut_costs_the_pairs_behind_the_cut_by_name_and_no_others(path: Path, cut_bytes: int) -> None:
    whole = ShardSet(path)
    ends = {
        id: max(row.image_offset + row.image_size, row.json_offset + row.json_size)
        for id, row in zip((6, 7, 8), whole.rows(whole.shards[2]), strict=True)
    }
    os.truncate(path / "000002.tar", cut_bytes)
    shards = ShardSet(path)
    for id, end in ends.items():
        if end <= cut_bytes:
            assert shards.image_bytes(id) == picture(id) and shards.texts(id) == (f"t{id}",)
        else:
            with pytest.raises(
                BrokenPair, match=rf"set: shard 000002, pair 00000000{id}: its .* truncated .*multimodal shards verify"
            ) as told:
                shards.pair(id)
            assert "is beyond the end of the tar" in told.value.reason
            assert pickle.loads(pickle.dumps(told.value)).reason == told.value.reason  # as it comes from a worker
    assert shards.image_bytes(9) == picture(9)


def test_another_shorter_tar_in_the_place_of_one_gives_no_pair_the_bytes_of_another(path: Path) -> None:
    shards = ShardSet(path)
    (path / "000013.tar").replace(path / "000002.tar")  # its only pair lies where the first of the other did
    for id in (6, 7, 8):
        with pytest.raises(BrokenPair, match="is not where the index says|beyond the end"):
            shards.image_bytes(id)


def test_a_tar_that_grew_or_went_missing_is_named(path: Path) -> None:
    with open(path / "000002.tar", "ab") as file:
        file.write(bytes(512))
    (path / "000003.tar").unlink()
    shards = ShardSet(path)
    with pytest.raises(InputError, match=r"000002.tar: has \d+ bytes and had .*multimodal shards verify"):
        shards.image_bytes(6)
    with pytest.raises(InputError, match=r"000003.tar: the shard is missing"):
        shards.image_bytes(9)
    assert shards.image_bytes(0) == picture(0)


def test_a_damaged_or_missing_index_is_named(path: Path) -> None:
    whole = (path / "index.arrow").read_bytes()
    (path / "index.arrow").write_bytes(whole[:200])
    with pytest.raises(InputError, match="index.arrow: the index is damaged"):
        ShardSet(path)
    (path / "index.arrow").write_bytes((path / "000000.arrow").read_bytes())
    with pytest.raises(InputError, match="index.arrow: the index is damaged or was replaced"):
        ShardSet(path)
    (path / "index.arrow").unlink()
    with pytest.raises(InputError, match="the index is missing"):
        ShardSet(path)


def test_broken_json_is_named_by_shard_and_key(path: Path) -> None:
    tar = (path / "000001.tar").read_bytes()
    (path / "000001.tar").write_bytes(tar.replace(b'"texts": ["t4"]', b'"texts": ["t4 ]'))
    with pytest.raises(InputError, match="shard 000001, pair 000000004: its JSON cannot be read"):
        ShardSet(path).texts(4)
