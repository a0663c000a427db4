from __future__ import annotations

from pathlib import Path

from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter


def pair(number: int) -> Pair:
    return Pair(
        name=f"p{number}.jpg",
        image=b"\xff\xd8\xff" + bytes([number % 256]) * (number * 37 % 1500),
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


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    shards = ShardSet(write(tmp_path / "set", 10))
    assert [shards.pair(id) for id in range(len(shards))] == [pair(number) for number in range(10)]
    assert [(shard.num_pairs, shard.start) for shard in shards.shards] == [(4, 0), (4, 4), (2, 8)]


def test_same_pairs_same_bytes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", 10), write(tmp_path / "two", 10)
    files = sorted(path.name for path in one.iterdir())
    assert files == sorted(path.name for path in two.iterdir())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
