"""Tars that are read from front to back give the pairs that an index gives, wherever they are, and nothing that they name is run."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from multimodal.cli import main
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import RemoteShards, ShardSet, open_set
from multimodal.shards.index import index_tars
from multimodal.shards.scan import OpenTar
from multimodal.shards.streamed import StreamedTar, open_tar, pairs_in, tars_of
from multimodal.shards.verify import find_problems
from multimodal.urls import PIECE_BYTES, Transport

pytest.importorskip("braceexpand", reason="patterns of tars need the extra `train`")

PICTURE = (Path(__file__).resolve().parents[1] / "data" / "shards" / "pictures" / "tiny.jpg").read_bytes()
Members = list[tuple[str, bytes]]


def write_tar(path: Path, members: Members) -> dict[str, int]:
    """Name -> where the member's content begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as tar:
        return {member.name: member.offset_data for member in tar}


def pair(number: int, tar: int = 0) -> Members:
    about = {"caption": f"text {number}", "url": f"http://x/{number // 2}", "status": "success"}
    key = f"{tar:05d}{number:04d}"
    return [(f"{key}.jpg", PICTURE + b"%d" % number), (f"{key}.txt", b"text %d" % number), (f"{key}.json", json.dumps(about).encode())]


def write_damaged(folder: Path) -> None:
    """Four tars: one that is whole, one with samples that are no pairs, one with a broken header, and one that is cut."""
    write_tar(folder / "0.tar", [member for number in range(6) for member in pair(number)])
    odd = [
        ("a.txt", b"no picture"),
        ("__MACOSX/x.jpg", b""),
        ("b.jpg", b"GIF89a"),
        ("b.txt", b"a text"),
        ("c.jpg", PICTURE),
        ("c.json", b"{"),
    ]
    write_tar(folder / "1.tar", [*pair(0, 1), *odd, *pair(1, 1)])
    for name, harm in (("2.tar", "broken"), ("3.tar", "cut")):
        starts = write_tar(folder / name, [member for number in range(4) for member in pair(number, 2)])
        content = bytearray((folder / name).read_bytes())
        if harm == "broken":
            content[starts["000020001.txt"] - 400] ^= 0xFF
        else:
            content = content[: starts["000020002.json"] + 3]
        (folder / name).write_bytes(content)


def streamed(where: str) -> tuple[list[Pair], list[tuple[str, str, str]]]:
    tar = OpenTar(open_tar(where))
    return [one.pair for one in pairs_in(tar) if one is not None], [(bad.where, bad.key, bad.reason) for bad in tar.bad]


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for number in range(3):
        write_tar(tmp_path / "tars" / f"{number:05d}.tar", pair(0, number) + pair(1, number))
    return tmp_path / "tars"


def test_a_pattern_names_tars_in_its_order(tars: Path) -> None:
    assert tars_of(f"{tars}/{{00001..00002}}.tar") == [f"{tars}/00001.tar", f"{tars}/00002.tar"]
    assert tars_of(f"{tars}/{{00002,00000}}.tar::{tars}/00001.tar") == [f"{tars}/{name}.tar" for name in ("00002", "00000", "00001")]
    assert tars_of(f"{tars}/*.tar") == [f"{tars}/{number:05d}.tar" for number in range(3)]
    assert tars_of("s3://b/cc12m/{00000..01242}.tar")[-1] == "s3://b/cc12m/01242.tar"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{tars}/{{7..9}}.tar", "there is no such tar"),
        ("{tars}/x*.tar", "there is no such tar"),
        ("{tars}/{{00001..00004}}.tar", "2 of 4 tars are missing: .*/00003.tar, .*/00004.tar$"),
        ("{tars}/{{00001..00002.tar", "its braces cannot be read: Unbalanced"),
        ("{tars}/00001.tar::{tars}", "which does not end in .tar"),
        ("s3://bucket/*.tar", r"\* matches local files only. Use braces"),
        ("pipe:touch {tars}/run; cat {tars}/00000.tar", "pipe: runs a shell command, and none is run here"),
        ("{tars}/00001.tar::pipe:touch {tars}/run.tar", "pipe: runs a shell command"),
    ],
)
def test_a_pattern_that_names_no_tars_is_refused(pattern: str, message: str, tars: Path) -> None:
    with pytest.raises(InputError, match=message):
        tars_of(pattern.format(tars=tars))
    assert not (tars / "run").exists() and not (tars / "run.tar").exists()


def test_a_stream_has_the_pairs_of_the_index_and_leaves_out_the_same(tmp_path: Path, serve: Callable[..., object]) -> None:
    write_damaged(tmp_path / "set")
    index_tars(tmp_path / "set", tmp_path / "index", max_bad_share=0.9)
    shards = ShardSet(tmp_path / "set", tmp_path / "index")
    with open(tmp_path / "index" / "bad.csv", newline="") as file:
        left_out = [(row["where"], row["key"], row["reason"]) for row in csv.DictReader(file)]
    server = serve(tmp_path / "set")
    for folder in (str(tmp_path / "set"), server.url):  # type: ignore[attr-defined]
        read = [streamed(f"{folder}/{number}.tar") for number in range(4)]
        assert [one for pairs, _ in read for one in pairs] == list(shards)
        assert sorted(bad for _, found in read for bad in found) == sorted(left_out)
    assert len(shards) == 6 + 2 + 4 + 2


def test_pairs_that_are_not_wanted_are_passed_over(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [member for number in range(6) for member in pair(number)])
    found = list(pairs_in(OpenTar(tmp_path / "0.tar"), lambda group, split: group == "http://x/1"))
    assert [one and (one.place, one.key, one.pair.texts) for one in found] == [
        None, None, (2, "000000002", ("text 2",)), (3, "000000003", ("text 3",)), None, None
    ]  # fmt: skip


def test_a_tar_at_a_url_is_held_in_memory_a_few_pieces_at_a_time(tmp_path: Path) -> None:
    large = PICTURE + bytes(1_000_000)
    members = [(f"{number}.{extension}", content) for number in range(30) for extension, content in (("jpg", large), ("txt", b"t"))]
    write_tar(tmp_path / "0.tar", members)
    tar = StreamedTar((tmp_path / "0.tar").as_uri())
    most = 0
    for one in pairs_in(OpenTar(tar)):
        assert one is not None and one.pair.image == large
        most = max(most, len(tar._held))
    assert most < 2 * PIECE_BYTES < tar.size_bytes
    assert tar.fingerprint() == OpenTar(tmp_path / "0.tar")._tar.fingerprint()


def test_a_piece_that_fails_is_asked_for_again_and_a_tar_that_is_gone_is_named(tars: Path, serve: Callable[..., object]) -> None:
    server = serve(tars)
    server.faults["00000.tar"] = ["503", "truncate"]  # type: ignore[attr-defined]
    url = f"{server.url}/00000.tar"  # type: ignore[attr-defined]
    tar = OpenTar(StreamedTar(url, Transport(tries=3, wait_s=0)))
    assert len(list(pairs_in(tar))) == 2 and not tar.bad
    with pytest.raises(InputError, match="/nowhere.tar: is not there. Check the URL"):
        open_tar(f"{server.url}/nowhere.tar")  # type: ignore[attr-defined]


def test_a_server_without_range_requests_will_do(tars: Path, serve: Callable[..., object]) -> None:
    server = serve(tars, knows_ranges=False)
    assert streamed(f"{server.url}/00002.tar") == streamed(str(tars / "00002.tar"))  # type: ignore[attr-defined]


def test_tars_at_a_url_are_indexed_into_the_cache_and_then_read_by_id(
    tars: Path, tmp_path: Path, serve: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    url, cache = serve(tars).url, tmp_path / "cache"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=f"is not there.*If they are tars of another program: multimodal shards index {url}"):
        open_set(url, cache)
    assert main(["shards", "index", f"{url}/{{00000..00002}}.tar", "--cache", str(cache)]) == 0
    assert "6 pairs in 3 shards, 1 groups" in capsys.readouterr().out
    shards = open_set(url, cache)
    index_tars(tars, tmp_path / "index")
    assert list(shards) == list(ShardSet(tars, tmp_path / "index")) and shards.fingerprint == ShardSet(tars, tmp_path / "index").fingerprint
    assert not list(find_problems(shards))
    write_tar(tars / "00001.tar", pair(0, 1) + pair(5, 1))
    with pytest.raises(InputError, match="its sha256 is .* in the manifest.*index the set again"):
        list(open_set(url, tmp_path / "new cache", index=RemoteShards(url, cache).folder))


def test_a_url_that_lists_its_files_is_indexed_without_a_pattern(tars: Path, tmp_path: Path, serve: Callable[..., object]) -> None:
    index_tars(tars.as_uri(), cache=tmp_path / "cache")
    assert len(open_set(tars.as_uri(), tmp_path / "cache")) == 6
    assert sorted(path.name for path in tars.iterdir()) == ["00000.tar", "00001.tar", "00002.tar"]
    with pytest.raises(InputError, match=r"no .tar is listed there. Name them by a pattern: http.*/set/\{00000..00042\}.tar"):
        index_tars(serve(tmp_path / "tars").url)  # type: ignore[attr-defined]


def test_an_index_is_of_one_folder(tars: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "others" / "0.tar", pair(0))
    with pytest.raises(InputError, match="names tars in 2 folders"):
        index_tars(f"{tars}/00000.tar::{tmp_path}/others/0.tar")
    index_tars(f"{tars}/{{00000,00002}}.tar", tmp_path / "index")
    assert [shard.name for shard in ShardSet(tars, tmp_path / "index").shards] == ["00000", "00002"]


def test_where_a_set_is_expected_a_pattern_is_refused_with_the_command_that_indexes_it(tars: Path) -> None:
    with pytest.raises(
        InputError, match=rf"names tars, and the folder of a shard set is expected.*shards index '{tars}/\{{00000..00002\}}.tar'"
    ):
        open_set(f"{tars}/{{00000..00002}}.tar")
