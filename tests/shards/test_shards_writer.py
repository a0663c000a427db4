from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.boxes import read_manifest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter, finish, write_shard


def pair(number: int, size: int | None = None) -> Pair:
    return Pair(
        name=f"p{number}.jpg",
        image=b"\xff\xd8\xff" + bytes([number % 256]) * (number * 37 % 1500 if size is None else size),
        extension="jpg",
        texts=(f"text {number}", "zwei: ä")[: 1 + number % 2],
        group=f"g{number // 3}",
        split=("", "train", "test")[number % 3],
        metadata={"b": number, "a": [1.5, None]},
    )


def write(output: Path, num_pairs: int, pairs_per_shard: int = 4) -> Path:
    with ShardWriter(output, pairs_per_shard, {"source": "made"}) as writer:
        for number in range(num_pairs):
            writer.write(pair(number))
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond this size: the kernel refuses the write in the middle, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@settings(max_examples=15, deadline=None)
@given(num_pairs=st.integers(1, 9), pairs_per_shard=st.integers(1, 10))
def test_what_was_written_is_read_back_whatever_the_sizes(num_pairs: int, pairs_per_shard: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = ShardSet(write(Path(folder), num_pairs, pairs_per_shard))
        assert [shards.pair(id) for id in range(len(shards))] == [pair(number) for number in range(num_pairs)]
        assert [shard.num_pairs for shard in shards.shards[:-1]] == [pairs_per_shard] * ((num_pairs - 1) // pairs_per_shard)
        assert shards.keys().tolist() == [f"{number:09d}" for number in range(num_pairs)]


def test_same_pairs_same_bytes(tmp_path: Path) -> None:
    assert contents(write(tmp_path / "one", 10)) == contents(write(tmp_path / "two", 10))


def test_the_manifest_counts_and_names_the_parts(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "set", 10), kind="shards")
    sizes = {file: (tmp_path / "set" / file).stat().st_size for file in ("000000.tar", "000001.tar", "000002.tar")}
    assert manifest.config == {"source": "made", "pairs_per_shard": 4}
    assert manifest.counts == {"pairs": 10, "texts": 15, "groups": 4, "shards": 3, "size_bytes": sum(sizes.values())}
    index = {"index.arrow": (tmp_path / "set" / "index.arrow").stat().st_size}
    assert {file: part["size_bytes"] for file, part in manifest.parts.items()} == sizes | index


def test_shards_written_side_by_side_make_the_same_set(tmp_path: Path) -> None:
    whole, parts = write(tmp_path / "whole", 10), tmp_path / "parts"
    for number in (2, 0, 1):
        write_shard(parts, number, [pair(one) for one in range(number * 4, min(number * 4 + 4, 10))], first_key=number * 4)
    finish(parts, {"source": "made", "pairs_per_shard": 4})
    assert contents(parts) == contents(whole)


def test_shards_may_end_up_of_any_size_even_empty(tmp_path: Path) -> None:
    for number, size in enumerate((2, 0, 3)):
        write_shard(tmp_path, number, [pair(number * 10 + one) for one in range(size)], first_key=number * 10)
    finish(tmp_path, {})
    shards = ShardSet(tmp_path)
    assert [shards.names[id] for id in range(len(shards))] == ["p0.jpg", "p1.jpg", "p20.jpg", "p21.jpg", "p22.jpg"]
    assert [shards.pair(id).name for id in range(len(shards))] == list(shards.names)
    assert [shards.shard_of(id).name for id in range(len(shards))] == ["000000"] * 2 + ["000002"] * 3


def test_a_shard_added_to_a_finished_set_is_read_after_finishing_again(tmp_path: Path) -> None:
    write(tmp_path, 8)
    before = ShardSet(tmp_path)
    write_shard(tmp_path, 2, [pair(8)], first_key=8)
    finish(tmp_path, {})
    after = ShardSet(tmp_path)
    assert (len(before), len(after)) == (8, 9)
    assert list(after.fingerprints.items())[:2] == list(before.fingerprints.items())
    assert after.fingerprint != before.fingerprint


def test_finish_refuses_a_shard_without_its_tar(tmp_path: Path) -> None:
    write(tmp_path, 8)
    (tmp_path / "000001.tar").unlink()
    with pytest.raises(InputError, match=r"000001.arrow were not finished"):
        finish(tmp_path, {})


def test_an_exception_in_the_body_leaves_no_manifest_and_no_part_of_a_shard(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="source broke"), ShardWriter(tmp_path, 4) as writer:
        for number in range(6):
            writer.write(pair(number))
        raise RuntimeError("source broke")
    assert sorted(contents(tmp_path)) == ["000000.arrow", "000000.tar"]
    with pytest.raises(InputError, match="has not finished. Run it again"):
        ShardSet(tmp_path)


def test_a_disk_that_fills_in_the_middle_leaves_nothing_half_written(tmp_path: Path) -> None:
    pairs = [pair(number, size=3000 * number) for number in range(8)]
    with pytest.raises(OSError), ShardWriter(tmp_path, 4) as writer, disk_of(40_000):
        for one in pairs:
            writer.write(one)
    assert sorted(contents(tmp_path)) == ["000000.arrow", "000000.tar"]
    with ShardWriter(tmp_path, 4) as writer:
        for one in pairs:
            writer.write(one)
    assert [ShardSet(tmp_path).pair(id) for id in range(8)] == pairs


def test_a_killed_writer_is_run_again_to_the_same_bytes(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from multimodal.pairs import Pair
from multimodal.shards import ShardWriter
with ShardWriter(Path(sys.argv[1]), 2) as writer:
    for number in range(5):
        writer.write(Pair(f"{number}", b"1" * 100_000, "jpg", ("t",), "g"))
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = [subprocess.run([sys.executable, "-c", program, tmp_path / "set", stop], env=environment).returncode for stop in ("4", "99")]
    assert run == [-signal.SIGKILL, 0]
    with ShardWriter(tmp_path / "never_killed", 2) as writer:
        for number in range(5):
            writer.write(Pair(f"{number}", b"1" * 100_000, "jpg", ("t",), "g"))
    assert contents(tmp_path / "set") == contents(tmp_path / "never_killed")


def test_a_shorter_run_after_a_killed_one_takes_nothing_of_it_over(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, 2) as writer:
        for number in range(9):
            writer.write(pair(number))
        raise KeyboardInterrupt
    assert len(ShardSet(write(tmp_path, 3, 2))) == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Pair("n", b"1", "jpg", ("t", "half a pair: \ud83d"), "g"), "half of a surrogate pair"),
        (Pair("n", b"1", "jpg", ("t",), "g", metadata={"x": float("nan")}), "not JSON compliant"),
        (Pair("n", b"1", "jpg", ("t",), "g", metadata={"x": b"bytes"}), "cannot be written as JSON"),
    ],
)
def test_a_pair_that_cannot_be_stored_is_refused_and_shifts_no_other(tmp_path: Path, bad: Pair, reason: str) -> None:
    with ShardWriter(tmp_path, 4, {"source": "made"}) as writer:
        for number in range(6):
            with pytest.raises(InputError, match=f"pair 'n' cannot be stored: .*{reason}"):
                writer.write(bad)
            writer.write(pair(number))
    assert [ShardSet(tmp_path).pair(id) for id in range(6)] == [pair(number) for number in range(6)]


def test_a_folder_with_something_in_it_is_not_written_over(tmp_path: Path) -> None:
    write(tmp_path / "set", 3)
    before = contents(tmp_path / "set")
    with pytest.raises(InputError, match="already holds something finished"):
        write(tmp_path / "set", 2)
    assert contents(tmp_path / "set") == before
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "00000.tar").write_bytes(b"precious")
    with pytest.raises(InputError, match="holds 00000.tar, which this program did not write"):
        write(tmp_path / "theirs", 2)
    assert contents(tmp_path / "theirs") == {"00000.tar": b"precious"}


def test_a_set_of_no_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pair was written"):
        write(tmp_path / "set", 0)
    assert not (tmp_path / "set").exists()


def test_no_pair_a_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pairs_per_shard is 0"):
        ShardWriter(tmp_path, 0)
