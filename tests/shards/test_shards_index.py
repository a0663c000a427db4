from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest

from multimodal.boxes import read_manifest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter
from multimodal.shards.index import index_tars
from multimodal.shards.table import Row, make_table, merge, open_table

PICTURE = (Path(__file__).resolve().parents[1] / "data" / "shards" / "pictures" / "tiny.jpg").read_bytes()


def write_tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> dict[str, int]:
    """A tar as Python writes it, at another time by somebody; name -> where the member's content begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(content), 1_700_000_000, "somebody"
            tar.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as tar:
        return {member.name: member.offset_data for member in tar}


def pair(number: int) -> list[tuple[str, bytes]]:
    return [(f"{number:09d}.jpg", PICTURE + b"%d" % number), (f"{number:09d}.txt", b"text %d" % number)]


def pairs(numbers: range) -> list[tuple[str, bytes]]:
    return [member for number in numbers for member in pair(number)]


def bad(path: Path) -> list[tuple[str, str, str]]:
    with open(path / "bad.csv", newline="", encoding="utf-8") as file:
        return [(row["where"], row["key"], row["reason"]) for row in csv.DictReader(file)]


def texts(shards: ShardSet) -> list[str]:
    return [shards.texts(id)[0] for id in range(len(shards))]


def test_img2dataset_tars_are_read_without_a_copy(tmp_path: Path) -> None:
    about = {"caption": "a dog", "url": "http://x/1.jpg", "key": "000000001", "status": "success", "width": 4, "exif": "{}"}
    write_tar(
        tmp_path / "00000.tar",
        [*pair(0), ("000000001.jpg", PICTURE), ("000000001.json", json.dumps(about).encode()), ("000000001.txt", b"a dog")],
    )
    write_tar(tmp_path / "00001.tar", pair(10000))
    manifest = index_tars(tmp_path)
    assert manifest.counts["pairs"] == 3 and not (tmp_path / "bad.csv").exists()
    shards = ShardSet(tmp_path)
    assert shards.pair(1) == Pair("000000001.jpg", PICTURE, "jpg", ("a dog",), group="http://x/1.jpg", metadata=about)
    assert shards.pair(2) == Pair("000010000.jpg", PICTURE + b"10000", "jpg", ("text 10000",), group="000010000")
    assert shards.keys().tolist() == ["000000000", "000000001", "000010000"]


def test_pictures_and_names_may_be_spelled_in_other_ways(tmp_path: Path) -> None:
    long_name = "a/very/long/folder/" * 10 + "Größe"
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        folder = tmp_path / str(format)
        members = [("a/1.JPEG", PICTURE), ("a/1.TXT", b"one"), (f"{long_name}.jpe", PICTURE), (f"{long_name}.txt", b"two"), ("3.cls", b"7")]
        write_tar(folder / "x.tar", [*members, ("3.jfif", PICTURE), ("3.json", b'{"texts": ["three", "drei"], "group": "g"}')], format)
        index_tars(folder)
        shards = ShardSet(folder)
        assert texts(shards) == ["one", "two", "three"]
        assert shards.keys().tolist() == ["a/1", long_name, "3"]
        assert list(shards.extensions) == ["jpg"] * 3
        assert {shards.image_bytes(id) for id in range(3)} == {PICTURE}
        assert shards.texts(2) == ("three", "drei") and shards.groups[2] == "g"


def test_the_index_of_a_read_only_set_lies_elsewhere(tmp_path: Path) -> None:
    write_tar(tmp_path / "set" / "00000.tar", pairs(range(3)))
    before = sorted((tmp_path / "set").iterdir())
    index_tars(tmp_path / "set", tmp_path / "index")
    assert sorted((tmp_path / "set").iterdir()) == before
    with pytest.raises(InputError, match="but no index"):
        ShardSet(tmp_path / "set")
    assert texts(ShardSet(tmp_path / "set", index=tmp_path / "index")) == ["text 0", "text 1", "text 2"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ([("x.jpg", PICTURE)], "has no text"),
        ([("x.jpg", PICTURE), ("x.txt", b"  ")], "has no text"),
        ([("x.txt", b"t")], "has no picture; its members are txt"),
        ([("x.jpg", b""), ("x.txt", b"t")], "has no picture"),
        ([("x.gif", b"GIF89a"), ("x.txt", b"t")], "its gif: unsupported format: gif"),
        ([("x.jpg", b"GIF89a"), ("x.txt", b"t")], "its jpg: unsupported format: gif"),
        ([("x.jpg", b"<html>"), ("x.txt", b"t")], "its jpg: not a picture"),
        ([("x.mp3", b"ID3"), ("x.txt", b"t")], "has no picture; its members are mp3, txt"),
        ([("x.jpg", PICTURE), ("x.json", b"[" * 100_000)], "its JSON cannot be read: it is nested too deeply"),
        ([("x.jpg", PICTURE), ("x.json", b'{"caption": "a boat \\ud83d"}')], "half of a surrogate pair"),
        ([("x.jpg", PICTURE), ("x.txt", b"t"), ("x.json", b'{"url": "http://x/\\udc00"}')], "half of a surrogate pair"),
        ([("x.jpg", PICTURE), ("x.txt", b"\xff")], "no UTF-8"),
        ([("x.jpg", PICTURE), ("x.json", b"{")], "JSON cannot be read"),
        ([("x.jpg", PICTURE), ("x.json", b'{"texts": ["t"], "group": "\\ud83d"}')], "half of a surrogate pair"),
    ],
)
def test_a_pair_without_text_or_picture_costs_only_itself(tmp_path: Path, broken: list[tuple[str, bytes]], reason: str) -> None:
    write_tar(tmp_path / "00000.tar", [*pairs(range(2)), *broken, *pairs(range(2, 4))])
    index_tars(tmp_path, max_bad_share=0.2)
    assert texts(ShardSet(tmp_path)) == ["text 0", "text 1", "text 2", "text 3"]
    ((where, key, told),) = bad(tmp_path)
    assert (where, key) == ("00000.tar", "x") and reason in told


def test_a_cut_tar_costs_the_pair_at_the_cut_and_what_came_after(tmp_path: Path) -> None:
    starts = write_tar(tmp_path / "00000.tar", pairs(range(4)))
    write_tar(tmp_path / "00001.tar", pairs(range(4, 6)))
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole[: starts["000000002.jpg"] + 100])
    index_tars(tmp_path, max_bad_share=0.5)
    assert texts(ShardSet(tmp_path)) == ["text 0", "text 1", "text 4", "text 5"]
    assert [(where, key) for where, key, _ in bad(tmp_path)] == [("00000.tar", ""), ("00000.tar", "000000002")]
    assert "cut" in bad(tmp_path)[0][2] and "its jpg is cut off: the tar ends" in bad(tmp_path)[1][2]


@pytest.mark.parametrize("cut", range(0, 512 * 14, 256))
def test_wherever_a_tar_is_cut_the_whole_pairs_before_are_read(tmp_path: Path, cut: int) -> None:
    starts = write_tar(tmp_path / "00000.tar", pairs(range(4)))
    ends = [starts[f"{number:09d}.txt"] + len(b"text 0") for number in range(4)]
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole[:cut])
    num_whole = sum(end <= cut for end in ends)
    if not num_whole:
        with pytest.raises(InputError, match="nothing good is left"):
            index_tars(tmp_path, max_bad_share=1.0)
        return
    index_tars(tmp_path, max_bad_share=1.0)
    assert texts(ShardSet(tmp_path)) == [f"text {number}" for number in range(num_whole)]
    assert bad(tmp_path)[0][1:] == ("", "ends without an end mark: it was cut, and what came after is lost")


def test_a_broken_header_costs_the_member_behind_it_and_the_walk_goes_on(tmp_path: Path) -> None:
    starts = write_tar(tmp_path / "00000.tar", pairs(range(4)))
    content = bytearray((tmp_path / "00000.tar").read_bytes())
    content[starts["000000001.txt"] - 400] ^= 0xFF
    (tmp_path / "00000.tar").write_bytes(content)
    index_tars(tmp_path, max_bad_share=0.5)
    assert texts(ShardSet(tmp_path)) == ["text 0", "text 2", "text 3"]
    entries = [(key, reason.split(" at ")[0]) for _, key, reason in bad(tmp_path)]
    assert entries == [("", "broken header"), ("000000001", "has no text")]


def test_too_much_bad_fails_and_leaves_no_index(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", [*pairs(range(3)), ("x.txt", b"t")])
    with pytest.raises(InputError, match=r"1 of 4 are bad .*00000.tar x: has no picture"):
        index_tars(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.tar", "bad.csv"]


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.tar").write_bytes(b"hello" * 1000)
    with pytest.raises(InputError, match="notes.tar: broken header at byte 0"):
        index_tars(tmp_path)


def test_a_folder_without_tars_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no .tar"):
        index_tars(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        index_tars(tmp_path / "nowhere")


def test_our_own_index_made_again_is_the_same(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 3, {"source": "made"}) as writer:
        for number in range(8):
            writer.write(Pair(f"n{number}", PICTURE, "jpg", ("t", "u")[: 1 + number % 2], f"g{number % 3}", "dev" * (number % 2)))
    index, manifest = open_table(tmp_path / "index.arrow").batch, read_manifest(tmp_path, "shards")
    (tmp_path / "index.arrow").unlink()
    index_tars(tmp_path)
    assert open_table(tmp_path / "index.arrow").batch.equals(index)
    assert read_manifest(tmp_path, "shards") == manifest


@pytest.mark.parametrize("sizes", [[], [0], [3], [2, 0, 5, 1]])
def test_the_index_of_a_set_holds_the_rows_of_its_shards_one_after_the_other(sizes: list[int]) -> None:
    rows = [[Row(f"{n}{i}", "é" * i, "", f"{n}/{i}.jpg", "jpg", i, *range(i, i + 6)) for i in range(size)] for n, size in enumerate(sizes)]
    merged = merge([make_table(some, 0, "") for some in rows])
    assert merged.rows() == [row for some in rows for row in some]
    assert merged.integers("shard").tolist() == [number for number, size in enumerate(sizes) for _ in range(size)]
    merged.batch.validate(full=True)


def test_a_tar_that_is_filled_with_zeros_is_whole_and_other_bytes_behind_its_end_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", pairs(range(2)))
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole + bytes(1 << 17))
    index_tars(tmp_path)
    assert not (tmp_path / "bad.csv").exists()
    (tmp_path / "00000.tar").write_bytes(whole + bytes(1 << 17) + b"more")
    index_tars(tmp_path, max_bad_share=0.5)
    assert "bytes lie behind the end mark" in bad(tmp_path)[0][2]


@pytest.mark.parametrize("first", [("0.gif", b"GIF89a"), ("0.heic", b"\0\0\0\x18ftypheic"), ("0.png", b""), ("0.jpeg", b"<html>")])
def test_of_several_pictures_of_a_pair_the_first_that_can_be_read_is_taken(tmp_path: Path, first: tuple[str, bytes]) -> None:
    write_tar(tmp_path / "00000.tar", [first, ("0.jpg", PICTURE), ("0.txt", b"a dog")])
    index_tars(tmp_path)
    shards = ShardSet(tmp_path)
    assert shards.image_bytes(0) == PICTURE and texts(shards) == ["a dog"]
