from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, door, finish, write_shard
from multimodal.shards.verify import find_problems

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "shards" / "golden"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the golden set: three shards of 2, 2 and 1 pairs, and the column `tiny`."""
    return shutil.copytree(GOLDEN, tmp_path / "golden")


def member(path: Path, shard: str, name: str) -> tuple[int, int]:
    with tarfile.open(path / f"{shard}.tar") as tar:
        info = tar.getmember(name)
        return info.offset_data, info.size


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(content)


def spoil_text(path: Path) -> None:
    overwrite(path / "000000.tar", member(path, "000000", "000000001.txt")[0], b"X")


def spoil_json(path: Path) -> None:
    overwrite(path / "000000.tar", member(path, "000000", "000000001.json")[0], b"[")


def spoil_picture(path: Path) -> None:
    overwrite(path / "000001.tar", member(path, "000001", "000000002.webp")[0], b"<html>")


def spoil_pixels(path: Path) -> None:
    offset, size = member(path, "000001", "000000002.webp")
    overwrite(path / "000001.tar", offset + size - 8, b"X")


def spoil_header(path: Path) -> None:
    overwrite(path / "000001.tar", member(path, "000001", "000000003.avif")[0] - 512, b"X")


def cut(path: Path) -> None:
    os.truncate(path / "000002.tar", 1000)  # the picture is whole, its texts are gone


def lose(path: Path) -> None:
    (path / "000002.tar").unlink()


def spoil_column(path: Path) -> None:
    overwrite(path / "columns" / "tiny" / "000000.npy", 130, b"XX")


def spoil_offsets(path: Path) -> None:
    overwrite(path / "columns" / "tiny" / "000001.offsets.npy", 136, b"\x07")


def lose_column_file(path: Path) -> None:
    (path / "columns" / "tiny" / "000001.npy").unlink()


def test_a_whole_set_has_no_problems(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    door.verify(path)
    assert f"{path}: 3 shards, 5 pairs, 1 columns: all well" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (spoil_text, [("000000", "", "its sha256 is"), ("000000", "000000001", "its .txt is not the first of its texts")]),
        (spoil_json, [("000000", "", "its sha256 is"), ("000000", "000000001", "its JSON cannot be read")]),
        (spoil_picture, [("000001", "", "its sha256 is"), ("000001", "000000002", "its webp: not a picture")]),
        (spoil_pixels, [("000001", "", "its sha256 is")]),
        (spoil_header, [("000001", "", "its sha256 is"), ("000001", "", "broken header"), ("000001", "000000003", "has no picture")]),
        (cut, [("000002", "", "has 1000 bytes"), ("000002", "", "ends without an end mark"), ("000002", "000000004", "has no text")]),
        (lose, [("000002", "", "the tar is missing")]),
        (spoil_column, [("tiny", "", "column file 000000.npy has changed")]),
        (spoil_offsets, [("tiny", "", "column file 000001.offsets.npy has changed")]),
        (lose_column_file, [("tiny", "", "column file 000001.npy is missing")]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_damage_is_named_by_shard_and_key(
    path: Path, damage: Callable[[Path], None], expected: list[tuple[str, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(path)
    problems = list(find_problems(ShardSet(path)))
    assert [(problem.where, problem.key) for problem in problems] == [(where, key) for where, key, _ in expected]
    for problem, (_, _, reason) in zip(problems, expected, strict=True):
        assert reason in problem.reason
    with pytest.raises(InputError, match=f"is broken in {len(expected)} places: {expected[0][0]}"):
        door.verify(path, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [(one["where"], one["key"]) for one in printed["problems"]] == [(where, key) for where, key, _ in expected]
    with pytest.raises(InputError, match="Make these again"):
        door.verify(path)
    assert expected[0][2] in capsys.readouterr().out


def test_a_column_of_other_shards_is_a_problem(path: Path) -> None:
    for name in ("000002.tar", "000002.arrow"):
        (path / name).unlink()
    finish(path, {})
    (problem,) = find_problems(ShardSet(path))
    assert problem.where == "tiny" and "shard 000002 was" in problem.reason and "is gone now" in problem.reason


def test_what_the_index_of_others_tars_left_out_is_no_problem(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil_json(path)
    for file in path.glob("*.arrow"):
        file.unlink()
    shutil.rmtree(path / "columns")
    (path / "manifest.json").unlink()
    door.index(path, max_bad_share=0.5)
    assert "4 pairs in 3 shards" in capsys.readouterr().out
    door.index(path, max_bad_share=0.5, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"index": str(path), "shards": 3, "pairs": 4, "texts": 6, "groups": 3} | {"size_bytes": printed["size_bytes"]}
    door.verify(path)
    assert "all well" in capsys.readouterr().out


def test_stats_counts(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    door.stats(path, json=True)
    facts = json.loads(capsys.readouterr().out)
    assert {name: facts[name] for name in ("pairs", "texts", "shards", "groups", "largest_group", "groups_cut_by_own_splits")} == {
        **{"pairs": 5, "texts": 7, "shards": 3, "groups": 3},
        **{"largest_group": 2, "groups_cut_by_own_splits": 0},
    }
    assert facts["splits"] == {"train": 2, "(by hash)": 2, "test": 1}
    assert facts["formats"] == {"jpg": 2, "png": 1, "webp": 1, "avif": 1}
    assert facts["image_bytes"] == {"smallest": 56, "median": int(np.median([287, 82, 56, 310, 287])), "largest": 310}
    read = [text for id in range(5) for text in ShardSet(path).texts(id)]
    lengths, words = sorted(map(len, read)), sorted(len(text.split()) for text in read)
    assert facts["text_characters"] == {"smallest": lengths[0], "median": lengths[3], "largest": lengths[6]}
    assert facts["text_words"] == {"smallest": words[0], "median": words[3], "largest": words[6]}
    assert facts["broken_pairs"] == 0
    assert facts["columns"] == {"tiny": "7 rows of 3, one per text"}
    door.stats(path)
    assert "jpg 2, png 1, webp 1, avif 1" in capsys.readouterr().out


@pytest.mark.parametrize(("damage", "num_broken"), [(cut, 1), (lose, 1), (spoil_json, 1), (spoil_pixels, 0)])
def test_stats_and_ls_count_and_show_what_is_broken(
    path: Path, damage: Callable[[Path], None], num_broken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(path)
    door.stats(path, json=True)
    assert json.loads(capsys.readouterr().out)["broken_pairs"] == num_broken
    if damage is not lose:
        door.ls(path)
        assert capsys.readouterr().out.count("(broken: its") == num_broken


def test_verify_counts_the_pairs_that_it_names(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil_text(path)
    cut(path)
    with pytest.raises(InputError, match="is broken in 5 places"):
        door.verify(path, json=True)
    assert json.loads(capsys.readouterr().out)["broken_pairs"] == 2


def test_ls_lists_a_part(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    door.ls(path, start=1, num=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "key", "split", "group", "name", "bytes", "text"]
    assert lines[1].split() == ["1", "000000001", "train", "article-1", "sign.png", "82", *"Schild „Halt“ zweite Zeile".split()]
    assert lines[3] == "... 5 pairs in all; continue with --start 3"
    door.ls(path, part="test", json=True)
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert 3 in [one["id"] for one in listed]
    with pytest.raises(InputError, match="--start -1"):
        door.ls(path, start=-1)


def test_cat_prints_a_pair_by_id_or_key_and_writes_its_picture(
    path: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for asked in ("3", "000000003"):
        door.cat(path, asked, picture=tmp_path / "out.avif")
        printed = json.loads(capfdbinary.readouterr().out)
        assert printed == {
            **{"id": 3, "key": "000000003", "shard": "000001", "extension": "avif"},
            **{"texts": ["dots in the name"], "group": "a.b.c", "name": "a.b.c.avif", "split": "test", "metadata": {}},
        }
        assert (tmp_path / "out.avif").read_bytes() == ShardSet(path).image_bytes(3)
    door.cat(path, "3", picture=Path("-"))
    assert capfdbinary.readouterr().out == ShardSet(path).image_bytes(3)


@pytest.mark.parametrize("asked", ["5", "000000005", "-1", "sign.png", "²"])
def test_a_pair_that_is_not_there_is_refused_with_what_is(path: Path, asked: str) -> None:
    with pytest.raises(InputError, match="no pair has the key or id .*keys 000000000 to 000000004, ids 0 to 4"):
        door.cat(path, asked)


def test_keys_of_more_than_nine_digits_and_ids_are_distinguished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(tmp_path, 0, [Pair(f"n{number}", b"\xff\xd8\xff", "jpg", ("t",), "g") for number in range(3)], first_key=10**9)
    write_shard(tmp_path, 1, [Pair("last", b"\xff\xd8\xff", "jpg", ("t",), "g")], first_key=10**9 + 3)
    finish(tmp_path, {})
    for asked, name in (("1", "n1"), ("1000000001", "n1"), ("1000000003", "last"), ("3", "last")):
        door.cat(tmp_path, asked)
        assert json.loads(capsys.readouterr().out)["name"] == name
