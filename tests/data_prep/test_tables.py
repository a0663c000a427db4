"""Tables as spreadsheets, pandas and people write them: separators, encodings, names of columns, broken rows, names of pictures."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tarfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.conformance import check_parts, read_all
from data_prep.files import text_files
from data_prep.files.columns import CAPTIONS, FILES, Column
from data_prep.files.lines import BadLine, json_object, lines_from, text_of_line
from data_prep.files.tables import layout_of, rows
from data_prep.shards.job import make_shards
from data_prep.sources.articles import articles
from data_prep.sources.captions import captions, inputs
from multimodal.errors import InputError
from multimodal.shards import ShardSet
from multimodal.shards.index import index_tars

COLUMNS = [Column("pictures", "--file-column", FILES), Column("captions", "--caption-column", CAPTIONS)]
TEXTS = ("a red dog, at noon; or later", "a blue boat – café", "„über“ a | road")


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def folder(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(seed))
    return root


def told(root: Path, name: str, content: str | bytes, **options: Any) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    """(picture, texts) of a file of captions in that folder, and what the ledger says."""
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    pairs, ledger = read_all(captions, {"input": root / name, **options})
    return [(pair.name, pair.texts) for pair in pairs], [f"{bad.where}: {bad.reason}" for bad in ledger.entries]


def said(root: Path, name: str, content: str | bytes, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    """What is written to stderr of how such a file is read."""
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    named = dict.fromkeys(["images", "file_column", "caption_column", "split_column", "columns", "encoding"])
    inputs(root / name, **named | {"allow_outside": False} | options)  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert not out
    return err.replace(f"{root}/", "")


# -- separators, quotes and encodings ------------------------------------------------------------------------------------------------------


def written(table: Sequence[Sequence[str]], separator: str, end: str = "\r\n") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end).writerows(table)
    return text.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "mac_roman"])
def test_a_table_is_read_with_any_separator_and_encoding(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    table = [("file", "caption"), *((f"{n}.png", text) for n, text in enumerate(TEXTS))]
    content = written(table, separator, end).encode(encoding)
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert [row.fields for row in rows(path, layout_of(path, COLUMNS))] == [list(row) for row in table[1:]]


field = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.text('ab,;|\t"\n é', max_size=8)


@settings(max_examples=200, deadline=None)
@given(table=st.lists(st.tuples(field, field, field), max_size=6), separator=st.sampled_from(",;\t|"))
def test_what_pythons_csv_writes_is_read_as_python_reads_it(tmp_path_factory: pytest.TempPathFactory, table: Any, separator: str) -> None:
    path = tmp_path_factory.getbasetemp() / "t.csv"
    path.write_bytes(written([("file", "caption", "x"), *table], separator).encode())
    wanted = [[value.strip() for value in row] for row in table if any(value.strip() for value in row)]
    layout = layout_of(path, COLUMNS)
    if layout.is_quoted or not any('"' in value or "\n" in value or "\r" in value for row in table for value in row):
        assert [row.fields for row in rows(path, layout)] == wanted


def test_a_tab_separated_caption_keeps_its_quotes_where_not_all_fields_are_quoted_ones(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png")
    raw = 'file\tcaption\na.png\t"Hello" she said\nb.png\t"quoted"\n'
    assert told(tmp_path, "t.tsv", raw)[0] == [("a.png", ('"Hello" she said',)), ("b.png", ('"quoted"',))]
    excel = 'file\tcaption\r\na.png\t"a ""red"" dog, at noon"\r\nb.png\ta cat\r\n'
    assert told(tmp_path, "t.txt", excel)[0] == [("a.png", ('a "red" dog, at noon',)), ("b.png", ("a cat",))]


def test_excels_line_that_names_the_separator_is_no_header(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    for content in ("sep=;\r\nfile;caption\r\na.png;a cat\r\n", "\ufeffSEP=:\nfile:caption\na.png:a cat\n"):
        assert told(tmp_path, "t.csv", content) == ([("a.png", ("a cat",))], [])


def test_a_header_with_blanks_behind_its_separators_is_read_as_flickr30ks(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png")
    content = "image_name| comment_number| comment\na.png| 0| A cat .\na.png| 1   It runs .\nb.png| 0| A dog .\n"
    assert told(tmp_path, "results.csv", content) == (
        [("a.png", ("A cat .",)), ("b.png", ("A dog .",))],
        ["results.csv line 3: 2 fields where the header has 3: image_name, comment_number, comment"],
    )
    assert told(tmp_path, "t.csv", 'file, caption\na.png, "a cat, at noon"\n')[0] == [("a.png", ("a cat, at noon",))]


def test_a_broken_caption_of_a_picture_that_has_others_does_not_count_as_a_bad_pair(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text("file,caption\na.png,one\na.png,two,three\na.png,\n")
    shards = make_shards(captions, {"input": tmp_path / "t.csv"}, tmp_path / "set", max_bad_share=0)
    assert len(shards) == 1 and (tmp_path / "set/bad.csv").read_text().count("t.csv line") == 2


def test_how_a_table_was_read_is_said_in_one_line_on_stderr_and_not_where_it_is_as_documented(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path, "a.png")
    assert said(tmp_path, "t.csv", "file,caption\na.png,a cat\n", capsys) == ""
    assert said(tmp_path, "t.csv", "Image;Title;text\na.png;x;a café\n".encode("cp1252"), capsys) == (
        "t.csv: read as Windows-1252 (Western European; --encoding names another), fields separated by semicolons; "
        "pictures in column 'Image', captions in 'text'; not used: 'Title' (--caption-column)\n"
    )
    assert said(tmp_path, "t.tsv", "a.png\ta cat\n", capsys) == (
        "t.tsv: read as UTF-8, fields separated by tabs, no header line; pictures in column 'file', captions in 'caption'\n"
    )
    assert "read as UTF-16;" in said(tmp_path, "t.jsonl", '{"file": "a.png", "caption": "a"}'.encode("utf-16"), capsys)


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_json_is_read_in_the_encodings_that_windows_writes(tmp_path: Path, name: str, encoding: str) -> None:
    folder(tmp_path, "a.png")
    row = json.dumps({"file_name": "a.png", "text": "a café – “noon”"}, ensure_ascii=False)
    content = (f"[{row}]" if name == "t.json" else f"{row}\r\n").encode(encoding)
    assert told(tmp_path, name, content) == ([("a.png", ("a café – “noon”",))], [])


def test_a_damaged_byte_in_utf_8_costs_its_row_and_not_the_encoding(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png")
    content = "file,caption\na.png,café über\nb.png,".encode() + b"caf\xe9\n"
    assert told(tmp_path, "t.csv", content) == (
        [("a.png", ("café über",))],
        ["t.csv line 3: is not valid in its encoding (byte 0xe9 at character 4)"],
    )


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "shift_jis", "cp1250"])
def test_text_in_another_encoding_is_refused_until_the_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    folder(tmp_path, "a.png")
    text = {"shift_jis": "湖の青い船", "cp1250": "łódka na jeziorze, późną nocą, ławka żółta"}.get(encoding, "синяя лодка на озере")
    content = f"file;caption\na.png;{text}\n".encode(encoding)
    with pytest.raises(InputError, match=r"t.csv line 2: is neither UTF-8 \(byte 0x..\).*--encoding"):
        told(tmp_path, "t.csv", content)
    assert told(tmp_path, "t.csv", content, encoding=encoding) == ([("a.png", (text,))], [])
    with pytest.raises(InputError, match="--encoding klingon: unknown text encoding"):
        told(tmp_path, "t.csv", content, encoding="klingon")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_articles_in_any_encoding_make_the_same_in_parts(tmp_path: Path, encoding: str) -> None:
    folder(tmp_path, *(f"{n}.png" for n in range(4)))
    lines = [{"id": n, "text": f"café {n} – über", "images": [{"file": f"{n}.png"}]} for n in range(4)]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\r\n" for line in lines).encode(encoding)
    for name, packed in {"a.jsonl": content, "a.jsonl.gz": gzip.compress(content)}.items():
        (tmp_path / name).write_bytes(packed)
        assert len(check_parts(articles, {"input": tmp_path / name}, 1)) == 4
        assert [pair.texts[0] for pair in read_all(articles, {"input": tmp_path / name})[0]] == [line["text"] for line in lines]


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_parts_of_a_table_in_any_encoding_make_what_the_table_makes(tmp_path: Path, encoding: str) -> None:
    folder(tmp_path, *(f"{n}.png" for n in range(5)))
    (tmp_path / "t.csv").write_bytes(written([("image", "title"), *((f"{n}.png", f"über,\n{n}") for n in range(5))], ";").encode(encoding))
    assert len(check_parts(captions, {"input": tmp_path / "t.csv"}, 2)) == 3


# -- columns -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["file", "FILE_NAME", " Image ", "img", "filepath", "File Path", "filename", "path", "name", "photo", "image-name", "images"]
)
@pytest.mark.parametrize("caption", ["caption", "TEXT", "title", "Description", "sentence", "comment", "alt text", "captions"])
def test_columns_are_known_by_their_usual_names(tmp_path: Path, file: str, caption: str) -> None:
    folder(tmp_path, "a.png")
    assert told(tmp_path, "t.csv", f"x,{caption},{file}\n1,a cat,a.png\n") == ([("a.png", ("a cat",))], [])


def test_an_option_wins_over_usual_names_and_the_order_of_columns_is_no_matter(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png")
    content = "image,file,title,caption\na.png,b.png,one,two\n"
    assert told(tmp_path, "t.csv", content)[0] == [("b.png", ("two",))]
    assert told(tmp_path, "t.csv", content, file_column="image", caption_column="TITLE")[0] == [("a.png", ("one",))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,caption,caption\na.png,x,y\n", "more than one column 'caption'.*Rename all but one"),
        ("caption\na cat\n", "t.csv line 1: has no column 'file' of pictures.* are caption. Give its name with --file-column"),
        ("file;caption\n", "has a header line and no row below it"),
        ("bild;satz\na.png;x\n", "the columns are bild, satz. Give its name with --file-column"),
        ("a.png,a cat,7\n", "line 1: is a row, not a header: a.png,a cat,7. Name its columns, in order: --columns file caption"),
        (" \n\n", "is empty"),
    ],
)
def test_a_header_that_lacks_what_is_needed_is_an_error_that_names_the_remedy(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        told(tmp_path, "t.csv", content)


def test_a_table_without_a_header_is_recognised_by_its_content_or_the_names_given(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    assert told(tmp_path, "t.csv", "a.png,a cat\n") == ([("a.png", ("a cat",))], [])
    assert told(tmp_path, "t.tsv", "a cat; at noon\ta.png\n") == ([("a.png", ("a cat; at noon",))], [])
    assert told(tmp_path, "t.csv", "7,a.png,a cat\n", columns=["id", "file", "caption"]) == ([("a.png", ("a cat",))], [])


@pytest.mark.parametrize(
    ("header", "value", "split"),
    [("split", "Train", "train"), ("split", "0", "0"), ("Set", "validation", "validation"), ("partition", "1", "1"), ("set", "castle", "")],
)
def test_splits_are_taken_from_the_columns_that_hold_them(tmp_path: Path, header: str, value: str, split: str) -> None:
    folder(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text(f"file,caption,{header}\na.png,a cat,{value}\n")
    [pair] = read_all(captions, {"input": tmp_path / "t.csv"})[0]
    assert pair.split == split


# -- broken rows ---------------------------------------------------------------------------------------------------------------------------


def test_rows_of_nothing_but_separators_are_no_rows_and_nameless_columns_may_be_left_out(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png", "c.png")
    content = "file,caption,,\na.png,one,,\n,,,\n , ,,\n\nb.png,two\n,,,,,,\nc.png,three,,,,\n"
    assert told(tmp_path, "t.csv", content) == ([("a.png", ("one",)), ("b.png", ("two",)), ("c.png", ("three",))], [])


def test_a_row_whose_quotes_are_broken_costs_itself_alone(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png", "c.png", "d.png")
    content = 'file,caption\na.png,"never closed\nb.png,"Mind" the gap\nc.png,"two\nlines"\nd.png,"open\n'
    pairs, bad = told(tmp_path, "t.csv", content)
    assert pairs == [("c.png", ("two\nlines",))]
    assert [line.partition(";")[0] for line in bad] == [
        "t.csv line 2: has text behind a closing quote",
        "t.csv line 3: has text behind a closing quote",
        "t.csv line 6: opens a quote that is never closed",
    ]


def test_a_long_field_is_read_and_the_csv_modules_own_limit_stays_as_it_was(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    before, text = csv.field_size_limit(), "word " * 40_000
    for separator in ",\t":
        assert told(tmp_path, "t.csv", f"file{separator}caption\na.png{separator}{text}\n")[0] == [("a.png", (text.strip(),))]
    assert csv.field_size_limit() == before


def test_a_line_beyond_the_bound_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("data_prep.files.lines", "data_prep.files.tables", "data_prep.files.text_files"):
        monkeypatch.setattr(f"{module}.MAX_LINE_BYTES", 100)
    folder(tmp_path, "a.png", "b.png")
    long = "x" * 1000
    assert told(tmp_path, "t.csv", f'file,caption\na.png,one\nb.png,{long}\nb.png,two\nb.png,"' + "y\n" * 200) == (
        [("a.png", ("one",)), ("b.png", ("two",))],
        [
            "t.csv line 3: is longer than 100 characters",
            "t.csv line 5: opens a quote that is never closed; inside of quotes, a quote is written twice",
        ]
        + [f"t.csv line {line}: 1 fields where the header has 2: file, caption" for line in range(6, 205)],
    )
    (tmp_path / "l.txt").write_text(f"one\n{long}\n{long}")
    lines = list(lines_from(tmp_path / "l.txt"))
    assert [(line.number, line.start) for line in lines] == [(1, 0), (2, 4), (3, 1005)]
    with pytest.raises(BadLine, match="is longer than 100 bytes"):
        text_of_line(lines[1].content)


def test_a_packed_line_of_many_times_the_bound_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("data_prep.files.lines", "data_prep.files.text_files"):
        monkeypatch.setattr(f"{module}.MAX_LINE_BYTES", 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"x" * 10_000_000 + b"\nshort\n"))
    assert [len(line.content) for line in lines_from(tmp_path / "a.jsonl.gz")] == [1001, 6]
    assert text_files.MAX_LINE_BYTES == 1000


def test_nan_in_a_line_of_json_is_what_null_is(tmp_path: Path) -> None:
    assert json_object(b'{"a": NaN, "b": [Infinity, -Infinity, 1e999, 1.5], "c": 2}') == {"a": None, "b": [None, None, None, 1.5], "c": 2}
    folder(tmp_path, "a.png")
    line = '{"id": "a", "text": "b", "score": NaN, "images": [{"file": "a.png", "w": Infinity}]}'
    (tmp_path / "a.jsonl").write_text(line)
    make_shards(articles, {"input": tmp_path / "a.jsonl"}, tmp_path / "set")
    assert ShardSet(tmp_path / "set").pair(0).metadata == {"score": None, "w": None}


@pytest.mark.parametrize("column", ["file", "caption"])
def test_nulls_and_numbers_in_parquet_are_taken_as_in_a_table(tmp_path: Path, column: str) -> None:
    folder(tmp_path, "a.png", "b.png", "c.png")
    table = {
        "file": ["a.png", "b.png", "c.png"],
        "caption": [["one", None], [None, ""], ["two"]],
        "split": pa.array([0, 1, None], pa.float64()),
        "image": [{"bytes": b"x"}] * 3,
    }
    table[column] = pa.array([None, *table[column][1:]])  # type: ignore[index]
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    pairs, ledger = read_all(captions, {"input": tmp_path / "t.parquet"})
    assert [(pair.name, pair.split) for pair in pairs] == [("c.png", "")]
    assert [str(bad) for bad in ledger.entries] == [
        "t.parquet row 1: names no picture" if column == "file" else "t.parquet row 1 a.png: has no text",
        "t.parquet row 2 b.png: has no text",
    ]
    with pytest.raises(InputError, match="its column 'image' holds struct.*, not file names. Name another with --file-column"):
        read_all(captions, {"input": tmp_path / "t.parquet", "file_column": "image"})


def test_ids_of_coco_are_equal_as_numbers_and_as_strings(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png")
    held = {
        "images": [{"id": "1", "file_name": "a.png"}, {"id": 2.0, "file_name": "b.png"}],
        "annotations": [{"image_id": 1, "caption": "one"}, {"image_id": "2", "caption": "two"}, {"image_id": 2, "caption": "three"}],
    }
    assert told(tmp_path, "t.json", json.dumps(held)) == ([("a.png", ("one",)), ("b.png", ("two", "three"))], [])
    with pytest.raises(InputError, match="t.json: is JSON that is nested too deeply"):
        told(tmp_path, "t.json", "[" * 100_000)


@pytest.mark.parametrize("half", ["\\ud83d", "\\udc00", "\\udcff"])
@pytest.mark.parametrize("field", ["file", "caption", "split"])
def test_half_of_a_surrogate_pair_is_stopped_at_the_door(tmp_path: Path, field: str, half: str) -> None:
    folder(tmp_path, "a.png", "b.png")
    row = json.dumps({"file": "a.png", "caption": "one", "split": "train"} | {field: "HALF"}).replace("HALF", half)
    pairs, bad = told(tmp_path, "t.jsonl", f'{row}\n{{"file": "b.png", "caption": "two"}}\n')
    assert pairs == [("b.png", ("two",))] and len(bad) == 1 and ("surrogate" in bad[0] or "not valid" in bad[0])


def test_half_of_a_surrogate_pair_in_metadata_or_in_a_strangers_tar_is_stopped_too(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    line = '{"id": "a", "text": "b", "by": "\\ud83d", "images": [{"file": "a.png"}]}'
    (tmp_path / "a.jsonl").write_text(line)
    pairs, ledger = read_all(articles, {"input": tmp_path / "a.jsonl"})
    assert not pairs and "its metadata holds half of a surrogate pair" in ledger.entries[0].reason
    (tmp_path / "tars").mkdir()
    records = {"0": b'{"caption": "\\ud83d x"}', "1": b"[" * 100_000, "2": b'{"texts": ["ok \\ud83d\\ude00"]}'}
    with tarfile.open(tmp_path / "tars/0.tar", "w") as tar:
        for key, record in records.items():
            for suffix, content in {"png": picture(1), "txt": b"words", "json": record}.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    index_tars(tmp_path / "tars", max_bad_share=1)
    shards = ShardSet(tmp_path / "tars")
    assert [shards.texts(id) for id in range(len(shards))] == [("ok 😀",)]


# -- names of pictures ---------------------------------------------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café über.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("is_tar", [False, True])
@pytest.mark.parametrize(
    ("there", "named"),
    [
        (DECOMPOSED, COMPOSED),
        (COMPOSED, DECOMPOSED),
        ("IMG_1.png", "IMG_1.PNG"),
        ("x/a.png", "x\\a.png"),
        ("x/a.png", "./x/a.png"),
        ("x/a.png", "C:\\Users\\me\\x\\a.png"),
        ("x/a.png", "X\\A.PNG"),
        ("x/a b.png", "x/a%20b.png"),
        ("a.png", "/home/someone/photos/a.png"),
        ("a.png", " a.png "),
    ],
)
def test_a_picture_is_found_by_its_name_however_another_system_spells_it(tmp_path: Path, there: str, named: str, is_tar: bool) -> None:
    folder(tmp_path / "photos", there)
    if is_tar:
        with tarfile.open(tmp_path / "photos/0.tar", "w") as tar:
            tar.add(tmp_path / "photos" / there, there)
        (tmp_path / "photos" / there).unlink()
    (tmp_path / "t.csv").write_text(f'file,caption\n"{named}",a cat\n')
    settings = {"input": tmp_path / "t.csv", "images": tmp_path / "photos"}
    pairs, ledger = read_all(captions, settings)
    assert [pair.image for pair in pairs] == [picture(0)], ledger.entries
    if not is_tar:  # a set is told to have changed where such a picture has
        before = make_shards(captions, settings, tmp_path / "set").manifest.config["inputs"]
        (tmp_path / "photos" / there).write_bytes(picture(0) + b"longer")
        with pytest.raises(InputError, match="was made with other settings or inputs: inputs.images"):
            make_shards(captions, settings, tmp_path / "set")
        assert set(before) == {"input", "images"}


def test_a_name_that_could_be_two_pictures_is_neither(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "A.png", "b.png", "x/c.png")
    content = "file,caption\na.PNG,one\na.png,two\nB.png,three\nb.png,four\nC:\\p\\c.png,five\nD:\\x\\c.png,six\n"
    pairs, bad = told(tmp_path, "t.csv", content)
    assert [name for name, _ in pairs] == ["a.png", "b.png", "D:\\x\\c.png"]
    assert [line.partition(" in ")[0] for line in bad] == [
        "t.csv line 2: could be A.png or a.png",
        "t.csv line 4: could be b.png",
        "t.csv line 6: no such picture",
    ]


def test_spellings_of_one_picture_are_one_pair(tmp_path: Path) -> None:
    folder(tmp_path, "x/a.png")
    assert told(tmp_path, "t.csv", "file,caption\nx/a.png,one\nx\\a.png,two\n./x/a.png,three\n")[0] == [
        ("x/a.png", ("one", "two", "three"))
    ]


def test_a_name_that_no_file_can_have_costs_its_row(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    (tmp_path / "folder.png").mkdir()
    os.symlink("loop.png", tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    names = ["x" * 310, "nul\0.png", "folder.png", "loop.png", "pipe.png", "a.png/b.png", "https://h/a.png", "~nobody/a.png"]
    pairs, bad = told(tmp_path, "t.csv", "file,caption\na.png,one\n" + "".join(f"{name},two\n" for name in names))
    assert pairs == [("a.png", ("one",))]
    assert [line.partition(": ")[0] for line in bad] == [f"t.csv line {number}" for number in range(3, 3 + len(names))]
    assert "is an address and no file" in bad[6]


@pytest.mark.parametrize("named", ["../secret.png", "x/../../secret.png", "..\\secret.png", "{root}/secret.png"])
def test_a_picture_outside_the_folder_is_read_only_where_that_is_allowed(tmp_path: Path, named: str) -> None:
    folder(tmp_path, "secret.png", "photos/a.png")
    content = f"file,caption\n{named.format(root=tmp_path)},one\na.png,two\n"
    pairs, bad = told(tmp_path / "photos", "t.csv", content)
    assert [name for name, _ in pairs] == ["a.png"] and "lies outside of" in bad[0] and "--allow-outside" in bad[0]
    pairs, bad = told(tmp_path / "photos", "t.csv", content, allow_outside=True)
    assert len(pairs) == 2 and not bad


def test_an_absolute_path_into_the_folder_and_a_link_in_it_are_followed(tmp_path: Path) -> None:
    folder(tmp_path, "elsewhere/b.png", "photos/a.png")
    os.symlink(tmp_path / "elsewhere/b.png", tmp_path / "photos/link.png")
    os.symlink(tmp_path / "photos", tmp_path / "way")
    content = f"file,caption\n{tmp_path}/photos/a.png,one\nlink.png,two\n"
    assert len(told(tmp_path / "photos", "t.csv", content)[0]) == 2
    assert len(told(tmp_path / "way", "t.csv", content)[0]) == 2


def test_a_broken_row_whose_first_field_is_blank_is_named(tmp_path: Path) -> None:
    folder(tmp_path, "b.png")
    pairs, bad = told(tmp_path, "t.csv", 'file,caption\n,"a cat that never ends\nb.png,a dog\n')
    assert pairs == [("b.png", ("a dog",))]
    assert bad == ["t.csv line 2: opens a quote that is never closed; inside of quotes, a quote is written twice"]


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"image": "a.png", "conversations": []}, "'caption' (--caption-column names another)"),
        ({"text": "a dog", "bild": "a.png"}, "'file' (--file-column names another)"),
        ({"bild": "a.png", "conversations": []}, "'file' (--file-column names another), nor 'caption' (--caption-column names another)"),
    ],
)
def test_of_an_object_only_the_field_that_is_missing_is_named(tmp_path: Path, fields: dict[str, Any], missing: str) -> None:
    folder(tmp_path, "a.png")
    pairs, [reason] = told(tmp_path, "t.jsonl", json.dumps(fields) + "\n")
    assert not pairs and reason == f"t.jsonl line 1: has no field {missing}; its fields are {', '.join(fields)}"


def test_a_list_of_one_file_names_a_picture_and_a_list_of_two_names_none(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png")
    lines = [{"images": ["a.png"], "text": "one"}, {"images": ["a.png", "b.png"], "text": "two"}]
    pairs, bad = told(tmp_path, "t.jsonl", "\n".join(map(json.dumps, lines)))
    assert (pairs, bad) == ([("a.png", ("one",))], ["t.jsonl line 2: names no picture"])


@pytest.mark.parametrize("spelling", ["utf8", "UTF-8", "u8"])
def test_an_encoding_is_the_same_in_any_spelling(tmp_path: Path, spelling: str) -> None:
    folder(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text("file,caption\na.png,a café\n", encoding="utf-8")
    assert text_files.encoding_of(tmp_path / "t.csv", spelling) == "utf-8"
    assert told(tmp_path, "t.csv", "file,caption\na.png,a café\n", encoding=spelling) == ([("a.png", ("a café",))], [])
