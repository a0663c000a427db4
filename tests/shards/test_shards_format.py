from __future__ import annotations

import hashlib
import io
import json
import runpy
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.pairs import Pair
from multimodal.pictures.formats import picture_format
from multimodal.shards import Column, ShardSet
from multimodal.shards.format import decode_record, encode_record, split_member, tar_header, tar_padding
from multimodal.shards.table import INDEX, open_table

DATA = Path(__file__).resolve().parents[1] / "data" / "shards"
GOLDEN = DATA / "golden"
PICTURES = DATA / "pictures"

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts, st.lists)


@pytest.fixture(scope="module")
def golden() -> dict[str, object]:
    return runpy.run_path(str(DATA / "make_golden.py"))


def no_text() -> bytes:
    raise AssertionError("the .txt is read although the JSON has texts")


def test_the_golden_pairs_give_the_golden_bytes(golden: dict, tmp_path: Path) -> None:
    golden["write_golden"](tmp_path / "set")
    files = [path.relative_to(GOLDEN) for path in sorted(GOLDEN.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(tmp_path / "set") for path in sorted((tmp_path / "set").rglob("*")) if path.is_file()]
    for file in files:
        if file.suffix == ".arrow":  # its bytes may differ between releases of Arrow, what it says may not
            assert open_table(tmp_path / "set" / file).batch.equals(open_table(GOLDEN / file).batch, check_metadata=True), file
        elif file.as_posix() == "manifest.json":  # the golden one is of a release that did not yet say what the index is
            manifest = json.loads((tmp_path / "set" / file).read_bytes())
            index = (tmp_path / "set" / INDEX).read_bytes()
            assert manifest["parts"].pop(INDEX) == {"size_bytes": len(index), "fingerprint": hashlib.sha256(index).hexdigest()}
            assert manifest == json.loads((GOLDEN / file).read_bytes())
        else:
            assert (tmp_path / "set" / file).read_bytes() == (GOLDEN / file).read_bytes(), file


def test_the_golden_set_is_still_read(golden: dict) -> None:
    shards = ShardSet(GOLDEN)
    assert [shards.pair(id) for id in range(len(shards))] == golden["golden_pairs"]()
    column = Column.of(shards, "tiny")
    assert column.take(np.arange(5), np.full(5, 1, np.uint64)).tolist() == [[0, 1, 0.5], [1, 0, 0.5], [2, 1, 0.5], [3, 0, 0.5], [4, 0, 0.5]]


def test_the_golden_tar_is_what_the_page_on_formats_says() -> None:
    with tarfile.open(GOLDEN / "000001.tar") as tar:
        members = tar.getmembers()
        content = {member.name: tar.extractfile(member).read() for member in members}
    assert [member.name for member in members] == [
        *("000000002.webp", "000000002.txt", "000000002.json"),
        *("000000003.avif", "000000003.txt", "000000003.json"),
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert content["000000002.webp"] == (PICTURES / "tiny.webp").read_bytes()
    assert content["000000002.txt"] == b"woman scientist"
    assert json.loads(content["000000002.json"]) == {
        "texts": ["woman scientist", "👩‍🔬"],
        "group": "scientist",
        "name": "1f469-200d-1f52c.webp",
        "split": "",
        "metadata": {},
    }


@given(texts=st.lists(texts, min_size=1), group=texts, name=texts, split=st.just("") | texts, metadata=st.dictionaries(texts, values))
def test_a_record_comes_back_as_it_was(texts: list[str], group: str, name: str, split: str, metadata: dict) -> None:
    pair = Pair(name, b"1", "jpg", tuple(texts), group, split, metadata)
    expected = {"texts": texts, "group": group, "name": name, "split": split, "metadata": metadata}
    assert decode_record(encode_record(pair), no_text, "", "") == expected


def test_the_order_in_which_metadata_was_put_in_changes_no_byte() -> None:
    one = Pair("n", b"1", "jpg", ("t",), "g", metadata={"a": 1, "b": {"c": 2, "d": 3}})
    two = Pair("n", b"1", "jpg", ("t",), "g", metadata={"b": {"d": 3, "c": 2}, "a": 1})
    assert encode_record(one) == encode_record(two)


@pytest.mark.parametrize(
    ("record", "text", "expected"),
    [
        (b"", b"only the text", {"texts": ["only the text"], "group": "g", "name": "n", "split": "", "metadata": {}}),
        (
            b'{"url": "http://u", "caption": "c", "width": 3}',
            b"c",
            {"texts": ["c"], "group": "http://u", "name": "n", "split": "", "metadata": {"url": "http://u", "caption": "c", "width": 3}},
        ),
        (
            b'{"texts": ["a", " ", "b"], "split": null, "group": 7}',
            b"-",
            {"texts": ["a", "b"], "group": "g", "name": "n", "split": "", "metadata": {}},
        ),
        (b'{"texts": []}', b"ignored", {"texts": [], "group": "g", "name": "n", "split": "", "metadata": {}}),
    ],
)
def test_other_writers_records_are_brought_into_our_shape(record: bytes, text: bytes, expected: dict) -> None:
    assert decode_record(record, lambda: text, name="n", group="g") == expected


@pytest.mark.parametrize(
    ("record", "text", "reason"),
    [
        (b"", b"", "has no text"),
        (b"", b" \n", "has no text"),
        (b'{"texts": [" "]}', b"ignored", "has no text"),
        (b"", b"\xff\xfe", "no UTF-8"),
        (b"{", b"t", "JSON cannot be read"),
        (b"[]", b"t", "is a list, not an object"),
        (b'{"texts": "one"}', b"t", "no list of strings"),
        (b'{"metadata": [1]}', b"t", "`metadata` in its JSON"),
    ],
)
def test_a_malformed_record_says_what_is_wrong(record: bytes, text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_record(record, lambda: text, "n", "g")


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "avif"])
def test_a_picture_is_known_by_its_first_bytes(extension: str) -> None:
    assert picture_format((PICTURES / f"tiny.{extension}").read_bytes()[:12]) == extension


def test_an_avif_may_say_so_in_a_later_brand_and_a_heic_is_none() -> None:
    assert picture_format(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "avif"
    assert picture_format(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"avif") == ""  # behind the end of the brands


@pytest.mark.parametrize("content", [b"", b"\xff", b"<html>", b"RIFF....WAVE", b"GIF89a"])
def test_what_is_no_picture_of_ours_is_none(content: bytes) -> None:
    assert picture_format(content) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000000001.jpg", ("000000001", "jpg")),
        ("a/b.c/0001.seg.PNG", ("a/b.c/0001", "seg.png")),
        ("README", ("README", "")),
        (".hidden", ("", "hidden")),
    ],
)
def test_keys_are_cut_where_webdataset_cuts_them(name: str, expected: tuple[str, str]) -> None:
    assert split_member(name) == expected


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 2**33 - 1])
def test_headers_and_padding_make_a_tar(size: int) -> None:
    header = tar_header("000000001.jpg", size)
    assert len(header) == 512
    assert header == tar_header("000000001.jpg", size)
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (info.name, info.size, info.mode) == ("000000001.jpg", size, 0o644)
    if size < 1000:
        whole = io.BytesIO(header + b"x" * size + tar_padding(size) + bytes(1024))
        with tarfile.open(fileobj=whole) as tar:
            assert tar.extractfile("000000001.jpg").read() == b"x" * size


@given(name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=100), size=st.integers(0, 8**11 - 1))
def test_a_header_is_the_one_that_tarfile_makes(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    try:
        wanted = info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)):
            tar_header(name, size)
    else:
        assert tar_header(name, size) == wanted
