"""Files of captions in every format that is read, and what is told of those that are none."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.conformance import check_broken_items, check_parts, check_source, read_all
from data_prep.shards.job import make_shards
from data_prep.sources.captions import SUFFIXES, captions
from data_prep.sources.captions import plan as captions_plan
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger


def picture(seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write_files(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


TABLE = 'file\tsplit\tcaption\nb.jpg\ttrain\tA dog .\nb.jpg\ttrain\tA "brown" dog .\na.jpg\tdev\tTwo cats .\nb.jpg\ttrain\tIt runs .\n'


def test_rows_of_one_picture_become_its_texts_in_their_order(tmp_path: Path) -> None:
    write_files(tmp_path, {"captions.tsv": TABLE, "a.jpg": picture(1), "b.jpg": picture(2)})
    pairs = check_source(captions, {"input": tmp_path / "captions.tsv"})
    assert [(pair.name, pair.split, pair.texts, pair.group) for pair in pairs] == [
        ("b.jpg", "train", ("A dog .", 'A "brown" dog .', "It runs ."), "b.jpg"),
        ("a.jpg", "dev", ("Two cats .",), "a.jpg"),
    ]


@pytest.mark.parametrize("size", [1, 2, 10])
def test_ranges_of_a_table_make_what_the_table_makes(tmp_path: Path, size: int) -> None:
    rows = ["b.jpg,a dog", "a.jpg,a cat", "b.jpg,it runs", "gone.jpg,not there", ",no picture", "c.jpg,a cow", "a.jpg,"]
    table = write_files(tmp_path, {"t.csv": "file,caption\n" + "\n".join(rows)}) / "t.csv"
    write_files(tmp_path, {f"{name}.jpg": picture(seed) for seed, name in enumerate("abc")})
    parts = check_parts(captions, {"input": table}, size)
    assert len(parts) == -(-4 // size)
    _, ledger = read_all(captions, {"input": table, "part": parts[0]})
    assert {bad.where for bad in ledger.entries} >= {"t.csv line 6", "t.csv line 8"}  # rows of no picture are told by the first part


def test_a_table_that_changes_under_a_plan_is_noticed(tmp_path: Path) -> None:
    table = write_files(tmp_path, {"t.csv": "file,caption\na.jpg,a cat\n", "a.jpg": picture(1)}) / "t.csv"
    [part] = captions_plan(100, table, None, "file", "caption", None)
    table.write_text("file,caption\na.jpg,a hat\n")
    with pytest.raises(InputError, match="has changed since this job was started"):
        read_all(captions, {"input": table, "part": part})


def test_pictures_in_tars_are_found_by_path_or_by_bare_name(tmp_path: Path) -> None:
    table = write_files(tmp_path, {"t.csv": 'image,caption\nb.jpg,"a dog, running"\nx/a.jpg,a cat\n'}) / "t.csv"
    write_tar(tmp_path / "images" / "0.tar", {"x/b.jpg": picture(1)})
    write_tar(tmp_path / "images" / "1.tar", {"./x/a.jpg": picture(2), "y/a.jpg": picture(3)})
    settings = {"input": table, "images": tmp_path / "images", "file_column": "image"}
    pairs = check_source(captions, settings)
    assert [(pair.texts[0], pair.image) for pair in pairs] == [("a dog, running", picture(1)), ("a cat", picture(2))]
    table.write_text("image,caption\na.jpg,a cat\n")
    pairs, ledger = read_all(captions, settings)
    assert not pairs and "several members of its tars are called a.jpg" in ledger.entries[0].reason


def test_rows_and_pictures_that_are_broken_cost_only_themselves(tmp_path: Path) -> None:
    images = {name: picture(seed) for seed, name in enumerate(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])}
    lines = ["file,caption", "a.jpg,one", "b.jpg,two", "c.jpg,three", "d.jpg,four"]
    whole = write_files(tmp_path / "whole", {"t.csv": "\n".join(lines), **images})
    damaged = write_files(tmp_path / "damaged", {"t.csv": "\n".join([*lines[:2], "b.jpg,two,extra", "c.jpg, ", lines[4]]), **images})
    (damaged / "a.jpg").unlink()
    check_broken_items(captions, {"input": whole / "t.csv"}, {"input": damaged / "t.csv"}, ["a.jpg", "b.jpg", "c.jpg"])
    _, ledger = read_all(captions, {"input": damaged / "t.csv"})
    assert [str(bad) for bad in ledger.entries] == [
        "t.csv line 3 b.jpg: 3 fields where the header has 2: file, caption",
        "t.csv line 4 c.jpg: has no text",
        f"t.csv line 2 a.jpg: no such picture in {damaged}",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (
            b"bild\ttext\na.jpg\ta\n",
            "line 1: has no column 'file' of pictures.*; the columns are bild, text. Give its name with --file-column",
        ),
        (b"file\tcaption\na.jpg\t\xcc\xee\xf0\xe5\n", r"line 2: is neither UTF-8 \(byte 0xcc\).*--encoding"),
        (b"file,caption,split\na.jpg,x,train\na.jpg,y,test\n", "line 3: a.jpg is in split 'test' here and in 'train' at line 2"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_all(captions, {"input": tmp_path / "t.csv"})


def test_a_table_may_begin_with_a_byte_order_mark_and_end_lines_as_windows_does(tmp_path: Path) -> None:
    write_files(tmp_path, {"t.tsv": "\ufefffile\tcaption\r\na.jpg\ta\r\n", "a.jpg": picture()})
    assert [pair.texts for pair in check_source(captions, {"input": tmp_path / "t.tsv"})] == [("a",)]


def test_flickr8k_goes_through_whole(shared_data: Path) -> None:
    table = shared_data / "flickr8k" / "captions.tsv"
    if not table.is_file():
        pytest.skip(f"Flickr8k absent: {table}")
    ledger = Ledger(Path("bad.csv"))
    pairs = list(captions(table, ledger=ledger))
    assert not ledger.entries
    assert len(pairs) == 7000 and sum(len(pair.texts) for pair in pairs) == 35000
    assert {pair.split for pair in pairs} == {"train", "dev"}
    assert pairs[0].name == "1000268201_693b08cb0e.jpg" and pairs[0].texts[1] == "A girl going into a wooden building ."


# -- the same captions in every format -----------------------------------------------------------------------------------------------------

ROWS = [("b.jpg", "A dog .", "train"), ("b.jpg", "It runs .", "train"), ("a.jpg", "Two cats .", "test")]
PICTURES = {"a.jpg": picture(1), "b.jpg": picture(2)}


def of_rows(*names: str) -> list[dict[str, str]]:
    return [dict(zip(names, row, strict=False)) for row in ROWS]


def json_lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(rows: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def coco() -> dict[str, Any]:
    images = [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}]
    notes = [(7, "A dog ."), (3, "Two cats ."), (7, "It runs .")]
    return {"info": {}, "images": images, "annotations": [{"image_id": id, "id": 0, "caption": caption} for id, caption in notes]}


def karpathy(*splits: str) -> dict[str, Any]:
    first = {"filename": "b.jpg", "split": splits[0], "sentences": [{"raw": "A dog .", "tokens": []}, {"raw": "It runs ."}]}
    return {"images": [first, {"filename": "a.jpg", "split": splits[1], "sentences": [{"raw": "Two cats ."}]}], "dataset": "flickr8k"}


LISTS = [
    {"file": "b.jpg", "caption": ["A dog .", "It runs ."], "split": "train"},
    {"file": "a.jpg", "caption": "Two cats .", "split": "test"},
]
LISTS_ALONE = [row | {"caption": list(np.atleast_1d(row["caption"]))} for row in LISTS]  # a column of Parquet has one type
WITH_SPLIT: dict[str, bytes | str] = {
    "t.tsv": "file\tcaption\tsplit\n" + "\n".join("\t".join(row) for row in ROWS),
    "t.csv": "caption,split,file\n" + "\n".join(f"{caption},{split},{file}" for file, caption, split in ROWS),
    "t.tsv.gz": gzip.compress(("file\tcaption\tsplit\n" + "\n".join("\t".join(row) for row in ROWS)).encode()),
    "t.CSV.gz": gzip.compress(("file;caption;split\n" + "\n".join(";".join(row) for row in ROWS)).encode("utf-16")),
    "t.txt": "file,caption,split\n" + "\n".join(",".join(row) for row in ROWS),
    "rows.jsonl": json_lines(of_rows("file", "caption", "split")),
    "lists.JSONL.gz": gzip.compress(json_lines(LISTS).encode()),
    "rows.parquet": parquet(of_rows("file", "caption", "split")),
    "lists.parquet": parquet(LISTS_ALONE),
    "karpathy.json": json.dumps(karpathy("restval", "test")),
}
WITHOUT_SPLIT: dict[str, bytes | str] = {
    "captions_train2017.json": json.dumps(coco()),
    "Flickr8k.token.txt": "b.jpg#0\tA dog .\r\nb.jpg#1\tIt runs .\r\na.jpg#0\tTwo cats .\r\n",
    "results_20130124.token": "b.jpg#0\tA dog .\nb.jpg#1\tIt runs .\na.jpg#0\tTwo cats .\n",
    "t.jsonl": json_lines(of_rows("file", "caption")),
    "list.json": json.dumps(of_rows("image", "caption")),
    "t.parquet": parquet(of_rows("file", "caption")),
}


@pytest.mark.parametrize("name", [*WITH_SPLIT, *WITHOUT_SPLIT])
def test_equal_captions_in_any_format_are_equal_pairs(tmp_path: Path, name: str) -> None:
    has_split = name in WITH_SPLIT
    table = write_files(tmp_path, {name: (WITH_SPLIT | WITHOUT_SPLIT)[name], **PICTURES}) / name
    assert check_source(captions, {"input": table}) == [
        Pair("b.jpg", PICTURES["b.jpg"], "jpg", ("A dog .", "It runs ."), "b.jpg", "train" if has_split else ""),
        Pair("a.jpg", PICTURES["a.jpg"], "jpg", ("Two cats .",), "a.jpg", "test" if has_split else ""),
    ]


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_columns_of_other_names_are_named(tmp_path: Path, suffix: str) -> None:
    rows = of_rows("bild", "satz", "teil")
    content = {
        ".tsv": "\n".join(["bild\tsatz\tteil", *("\t".join(row) for row in ROWS)]),
        ".jsonl": json_lines(rows),
        ".parquet": parquet(rows),
    }
    table = write_files(tmp_path, {f"t{suffix}": content[suffix], **PICTURES}) / f"t{suffix}"
    settings = {"input": table, "file_column": "bild", "caption_column": "satz", "split_column": "teil"}
    assert [(pair.texts, pair.split) for pair in check_source(captions, settings)] == [
        (("A dog .", "It runs ."), "train"),
        (("Two cats .",), "test"),
    ]
    with pytest.raises(InputError, match="has no (column|field) 'file'.* are bild, satz, teil"):
        make_shards(captions, {"input": table}, tmp_path / "set")


@pytest.mark.parametrize("name", ["captions_train2017.json", "karpathy.json", "Flickr8k.token.txt"])
def test_columns_named_for_a_format_that_has_its_own_names_are_refused(tmp_path: Path, name: str) -> None:
    table = write_files(tmp_path, {name: (WITH_SPLIT | WITHOUT_SPLIT)[name]}) / name
    with pytest.raises(InputError, match="whose field names are fixed; leave out --file-column"):
        read_all(captions, {"input": table, "caption_column": "text"})


def test_cocos_pictures_are_in_one_folder_and_karpathys_in_one_for_each_split(tmp_path: Path) -> None:
    two_parts = karpathy("train", "val")
    for image, part in zip(two_parts["images"], ("train2014", "val2014"), strict=True):
        image["filepath"] = part
    files = {"notes/captions.json": json.dumps(coco()), "notes/karpathy.json": json.dumps(two_parts)}
    write_files(tmp_path, {**files, "train2014/b.jpg": picture(2), "train2014/a.jpg": picture(1), "val2014/a.jpg": picture(3)})
    by_coco = check_source(captions, {"input": tmp_path / "notes/captions.json", "images": tmp_path / "train2014"})
    by_karpathy = check_source(captions, {"input": tmp_path / "notes/karpathy.json", "images": tmp_path})
    assert [(pair.name, pair.image) for pair in by_coco] == [("b.jpg", picture(2)), ("a.jpg", picture(1))]
    assert [(pair.name, pair.image, pair.split) for pair in by_karpathy] == [
        ("train2014/b.jpg", picture(2), "train"),
        ("val2014/a.jpg", picture(3), "val"),
    ]


def test_a_table_may_name_pictures_by_absolute_paths(tmp_path: Path) -> None:
    write_files(tmp_path, {"photos/a.jpg": picture(), "tables/t.csv": f"file,caption\n{tmp_path}/photos/a.jpg,a cat\n"})
    with pytest.raises(InputError, match="line 2 .*/photos/a.jpg: lies outside of .*/tables; such pictures are read with --allow-outside"):
        make_shards(captions, {"input": tmp_path / "tables/t.csv"}, tmp_path / "set")
    assert len(make_shards(captions, {"input": tmp_path / "tables/t.csv", "allow_outside": True}, tmp_path / "set")) == 1
    assert len(make_shards(captions, {"input": tmp_path / "tables/t.csv", "images": tmp_path / "photos"}, tmp_path / "other")) == 1


# -- what is broken in them ----------------------------------------------------------------------------------------------------------------


def damaged(name: str, content: bytes | str) -> bytes | str:
    """The file with one caption of b.jpg, the first in it, made blank."""
    if name.endswith(".parquet"):
        rows = [row | {"caption": "  "} if row["caption"] == "A dog ." else row for row in of_rows("file", "caption")]
        return parquet(rows)
    assert isinstance(content, str) and content.count("A dog .") == 1
    return content.replace("A dog .", "  ")


@pytest.mark.parametrize("name", [*WITHOUT_SPLIT, "t.tsv", "rows.jsonl"])
def test_a_blank_caption_costs_only_itself_and_is_named_by_its_place(tmp_path: Path, name: str) -> None:
    table = write_files(tmp_path, {name: damaged(name, (WITH_SPLIT | WITHOUT_SPLIT)[name]), **PICTURES}) / name
    pairs, ledger = read_all(captions, {"input": table})
    assert [pair.texts for pair in pairs] == [("It runs .",), ("Two cats .",)]
    place = "[0]" if name == "list.json" else {".json": "annotations[0]", ".parquet": "row 1", ".tsv": "line 2"}.get(table.suffix, "line 1")
    [bad] = ledger.entries
    assert (bad.where, bad.reason) == (f"{name} {place}", "has no text")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"file": "b.jpg", "caption": 7}', "its captions: expected a string or a list of strings, got 7"),
        ('{"file": "b.jpg", "caption": ["one", 7]}', "its captions: expected a string or a list of strings, got ['one', 7]"),
        ('{"file": "b.jpg", "caption": [null]}', "has no text"),
        ('{"file": "b.jpg", "caption": NaN}', "has no text"),
        ('{"file": "b.jpg", "caption": []}', "has no text"),
        ('{"file": "b.jpg", "caption": "x", "split": [3]}', "its split: expected a string or a number, got [3]"),
        ('{"file": "b.jpg", "text": "x"}', "has no field 'caption' (--caption-column names another); its fields are file, text"),
        ('{"file": "gone/b.jpg", "caption": "x"}', "no such picture in"),
    ],
)
def test_an_object_that_cannot_be_used_costs_only_its_picture(tmp_path: Path, line: str, reason: str) -> None:
    lines = ['{"file": "a.jpg", "caption": "one"}', '{"file": "b.jpg", "caption": "two"}', '{"file": "c.jpg", "caption": "three"}']
    images = {name: picture(seed) for seed, name in enumerate(["a.jpg", "b.jpg", "c.jpg"])}
    whole = write_files(tmp_path / "whole", {"t.jsonl": "\n".join(lines), **images})
    broken = write_files(tmp_path / "broken", {"t.jsonl": "\n".join([lines[0], line, "", lines[2]]), **images})
    check_broken_items(captions, {"input": whole / "t.jsonl"}, {"input": broken / "t.jsonl"}, ["b.jpg"])
    _, ledger = read_all(captions, {"input": broken / "t.jsonl"})
    assert [bad.where for bad in ledger.entries] == ["t.jsonl line 2"] and ledger.entries[0].reason.startswith(reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"file": "b.jpg", ', "is not JSON: Expecting property name enclosed in double quotes at character 18"),
        (b'["b.jpg", "two"]', "expected one JSON object per line, got a list"),
        (b'{"file": "b.jpg", "caption": "caf\xe9"}', "is not UTF-8 (byte 0xe9 at place 34)"),
        (b"[" * 100_000, "is JSON that is nested too deeply"),
        (b'{"file": "b.jpg", "caption": "two", "n": ' + b"1" * 5000 + b"}", "is JSON that cannot be read: Exceeds the limit"),
    ],
)
def test_a_line_that_is_no_json_object_costs_only_itself(tmp_path: Path, line: bytes, reason: str) -> None:
    content = b'\xef\xbb\xbf{"file": "a.jpg", "caption": "one"}\n\n' + line + b'\n{"file": "b.jpg", "caption": "two"}\n'
    pairs, ledger = read_all(captions, {"input": write_files(tmp_path, {"t.jsonl": content, **PICTURES}) / "t.jsonl"})
    assert [pair.texts for pair in pairs] == [("one",), ("two",)]
    [bad] = ledger.entries
    assert bad.where == "t.jsonl line 3" and bad.reason.startswith(reason)


def test_coco_names_what_does_not_belong_together(tmp_path: Path) -> None:
    held = coco()
    held["images"] += [{"id": 9, "file_name": "c.jpg"}, {"id": 3, "file_name": "d.jpg"}, {"file_name": "e.jpg"}]
    held["annotations"] += [{"image_id": 100, "caption": "of no picture"}, {"caption": "neither"}]
    pairs, ledger = read_all(captions, {"input": write_files(tmp_path, {"t.json": json.dumps(held), **PICTURES}) / "t.json"})
    assert [pair.name for pair in pairs] == ["b.jpg", "a.jpg"]
    assert [str(bad) for bad in ledger.entries] == [
        "t.json annotations[3]: no picture has its image_id, 100",
        "t.json annotations[4]: no picture has its image_id, None",
        "t.json images[2] c.jpg: has no text",
        "t.json images[3] d.jpg: another picture before it has its id, 3",
        "t.json images[4] e.jpg: has no id",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xml", "<captions/>", "is not a file of captions, by its name. They end in .tsv, .csv, .txt"),
        ("t.txt", "It was a dark night.\n", "t.txt line 1: has no column 'file' of pictures.*; the columns are It was a dark night."),
        ("t.json", "{", "t.json line 1: is not JSON"),
        ("t.json", '{"file": "a.jpg"}\n{"file": "b.jpg"}\n', "line 2: is not JSON: Extra data. .* rename it to end in .jsonl"),
        ("t.json", '["a.jpg"]', "holds a list; expected COCO's captions .*, Karpathy's"),
        ("t.json", '{"images": [{"id": 1}], "info": {}}', "holds an object with images, info; expected COCO's captions"),
        ("instances.json", '{"images": [], "annotations": [{"bbox": []}]}', "none of its annotations has a `caption`"),
        ("t.json", '{"images": [], "annotations": []}', "t.json: holds no caption"),
        ("t.jsonl", "\n", "t.jsonl: holds no caption"),
        ("t.jsonl.gz", gzip.compress(b'{"file": "a.jpg", "caption": "a"}\n' * 9)[:-20], "its gzip is damaged"),
        ("t.parquet", b"PAR1 and nothing more", "is not a valid Parquet file"),
        (
            "t.parquet",
            parquet([{"image": "a.jpg"}]),
            "has no column 'caption' of captions.*; the columns are image. Give its name with --caption-column",
        ),
        ("t.parquet", parquet(of_rows("file", "caption"))[:-30], "is not a valid Parquet file"),
        ("t.jsonl", json_lines([LISTS[0], LISTS[0] | {"split": "test"}]), "line 2: b.jpg is in split 'test' here and in 'train' at line 1"),
    ],
)
def test_a_file_of_no_known_format_is_an_error_that_says_so(tmp_path: Path, name: str, content: bytes | str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_all(captions, {"input": write_files(tmp_path, {name: content}) / name})


def test_every_suffix_is_tried_here() -> None:
    tried = {suffix for suffix in SUFFIXES for name in [*WITH_SPLIT, *WITHOUT_SPLIT] if name.lower().endswith(suffix)}
    assert tried == set(SUFFIXES)


def pictures_in_a_tar(folder: Path) -> tuple[dict[str, Any], bytes, int]:
    """Settings for captions of pictures in images/0.tar, that tar as Python writes it, and where the content of its last member begins."""
    write_files(folder, {"t.csv": "file,caption\na.jpg,a dog\nb.jpg,a cat\n"})
    tar = folder / "images" / "0.tar"
    write_tar(tar, {"a.jpg": picture(1), "b.jpg": picture(2)})
    with tarfile.open(tar) as opened:
        last = opened.getmember("b.jpg").offset_data
    return {"input": folder / "t.csv", "images": folder / "images"}, tar.read_bytes(), last


def test_a_tar_that_is_filled_with_zeros_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, content, _ = pictures_in_a_tar(tmp_path)
    (tmp_path / "images" / "0.tar").write_bytes(content + bytes(1 << 17))  # as `tar -b 128` does
    assert len(make_shards(captions, settings, tmp_path / "set")) == 2
    assert "not whole" not in capsys.readouterr().err and not (tmp_path / "set" / "bad.csv").exists()


def test_a_tar_without_an_end_mark_serves_and_is_mentioned_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, content, last = pictures_in_a_tar(tmp_path)
    size = len(picture(2))
    (tmp_path / "images" / "0.tar").write_bytes(content[: last + size + -size % 512])
    assert len(make_shards(captions, settings, tmp_path / "set")) == 2
    assert capsys.readouterr().err.count("0.tar: is damaged; its readable files are used: ends without an end mark") == 1


def test_a_member_that_a_tar_cuts_off_costs_only_itself(tmp_path: Path) -> None:
    settings, content, last = pictures_in_a_tar(tmp_path)
    (tmp_path / "images" / "0.tar").write_bytes(content[: last + 10])
    pairs, ledger = read_all(captions, settings)
    assert [pair.name for pair in pairs] == ["a.jpg"]
    assert [(bad.key, bad.reason) for bad in ledger.entries] == [
        ("b.jpg", f"is cut off: 0.tar ends {len(picture(2)) - 10} bytes too early")
    ]


def test_what_is_no_tar_at_all_is_an_error(tmp_path: Path) -> None:
    settings, content, _ = pictures_in_a_tar(tmp_path)
    (tmp_path / "images" / "0.tar").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match="0.tar: is not an uncompressed tar: .*Unpack it, or download it again"):
        read_all(captions, settings)


def test_a_summary_counts_the_same_captions_left_out_when_the_set_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_files(tmp_path, {"t.csv": "file,caption\na.jpg,a dog\na.jpg,\nb.jpg,a cat\n", **PICTURES}) / "t.csv"
    counts = []
    for _ in range(2):
        make_shards(captions, {"input": table}, tmp_path / "set", json=True)
        counts.append(json.loads(capsys.readouterr().out)["bad"])
    assert counts == [1, 1]
