"""Documents without pictures: read as a stream, told by their content, and a broken line stops the job with its place."""

from __future__ import annotations

import bz2
import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from data_prep.spaces.extra_texts import documents, text_files, texts_fingerprint
from multimodal.errors import InputError

TEXTS = ["Albedo\nLight that comes back.", "No title here.", "A title\nwith\nlines"]
OBJECTS = [
    {"id": "1", "title": "Albedo", "text": "Light that comes back.\n"},
    {"text": " No title here. ", "title": None},
    {"title": "", "text": ""},
    {"title": "A title", "text": "with\nlines", "other": 3},
]
LINES = "".join(json.dumps(one) + "\n" for one in OBJECTS)


@pytest.mark.parametrize("name", ["wiki.jsonl", "wiki.jsonl.gz", "WIKI.JSONL"])
def test_a_title_is_put_before_its_text_and_blank_documents_are_passed_over(tmp_path: Path, name: str) -> None:
    content = LINES.replace("\n", "\n\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert list(documents(text_files(tmp_path / name))) == TEXTS


@pytest.mark.parametrize("name", ["wiki.txt", "wiki.txt.gz"])
def test_a_line_of_text_is_a_document(tmp_path: Path, name: str) -> None:
    content = "\ufeffone document\r\n\n  another, café \nlast".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert list(documents(text_files(tmp_path / name))) == ["one document", "another, café", "last"]


def test_a_folder_is_read_in_the_order_of_its_files_and_all_else_is_left_alone(tmp_path: Path) -> None:
    for name, text in {
        "b.txt": "third",
        "a.txt": "second",
        "B.jsonl": '{"text": "first"}',
        "README.md": "no",
        "space/vocab.txt": "no",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(documents(text_files(tmp_path))) == ["first", "second", "third"]


def test_no_more_is_read_than_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n" + b"\xff\n")
    assert list(islice(documents([tmp_path / "a.txt"]), 2)) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("a.jsonl", b'{"text": "b"', "line 2: is not JSON: Expecting ',' delimiter at character 13"),
        ("a.jsonl", b'"b"', "line 2: expected one JSON object per line, got a str"),
        ("a.jsonl", b'{"title": "b"}', "line 2: has no `text`; its fields are title"),
        ("a.jsonl", b'{"text": ["b"]}', "line 2: its `text`: expected a string, got a list"),
        ("a.txt", b"caf\xe9", "line 2: is not UTF-8 .byte 0xe9 at place 4"),
    ],
)
def test_a_broken_line_is_an_error_with_file_and_line(tmp_path: Path, name: str, line: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(b'{"text": "a"}\n' + line + b"\n")
    with pytest.raises(InputError, match=f"{tmp_path / name} {message}"):
        list(documents(text_files(tmp_path / name)))


def test_a_gzip_cut_off_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a line of words\n" * 9)[:-9])
    with pytest.raises(InputError, match="its gzip is damaged"):
        list(documents(text_files(tmp_path / "a.txt.gz")))


def test_what_is_no_file_of_texts_is_an_error_that_says_what_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a")
    for path, problem in {
        tmp_path: "holds no such file",
        tmp_path / "a.csv": "is not such a file",
        tmp_path / "b": "does not exist",
    }.items():
        with pytest.raises(InputError, match=f"{path}: {problem}; extra texts are files that end in .jsonl, .jsonl.gz, .txt, .txt.gz"):
            text_files(path)


def test_the_fingerprint_is_of_the_content_in_order_and_not_of_the_names(tmp_path: Path) -> None:
    for folder, names in {"one": ("a.txt", "b.txt"), "other": ("c.txt", "d.txt"), "turned": ("b.txt", "a.txt")}.items():
        (tmp_path / folder).mkdir()
        for name, text in zip(names, ("first", "second"), strict=True):
            (tmp_path / folder / name).write_text(text)
    one, other, turned = (texts_fingerprint(text_files(tmp_path / folder)) for folder in ("one", "other", "turned"))
    assert one == other != turned


def test_wikipedia_goes_through_whole(shared_data: Path) -> None:
    wiki = shared_data / "enwiki" / "articles.jsonl.gz"
    if not wiki.is_file():
        pytest.skip(f"the Wikipedia articles are absent: {wiki}")
    texts = list(documents(text_files(wiki.parent)))
    assert len(texts) == 4224 and texts[0].startswith("Albedo\nAlbedo ()")


def test_the_articles_of_a_dump_and_of_wikiextractor_are_documents(tmp_path: Path) -> None:
    entry = "<page><title>{}</title><ns>{}</ns><id>1</id><revision><text>{}</text></revision></page>"
    pages = (
        entry.format("Tides", 0, "The [[Moon|moon]] ''pulls''.{{cite}}")
        + entry.format("Talk:Tides", 1, "No")
        + entry.format("Bare", 0, "{{x}}")
    )
    (tmp_path / "wiki.xml.bz2").write_bytes(bz2.compress(f"<mediawiki>{pages}</mediawiki>".encode()))
    (tmp_path / "AA").mkdir()
    (tmp_path / "AA" / "wiki_00").write_text('<doc id="2" url="" title="Moss">\nMoss\n\nIt is green.\n</doc>\n')
    (tmp_path / "AA" / "vocab.txt").write_text("no")
    assert list(documents(text_files(tmp_path))) == ["Tides\nThe moon pulls.", "Moss\nIt is green."]
    (tmp_path / "AA" / "wiki_00").write_text("plain\n")
    with pytest.raises(InputError, match="AA/wiki_00 line 1: is neither <doc"):
        list(documents(text_files(tmp_path)))


def test_a_real_dump_goes_through_whole(shared_data: Path) -> None:
    dumps = shared_data / "wikidump"
    if not dumps.is_dir():
        pytest.skip(f"the real dumps are absent: {dumps}")
    texts = list(documents(text_files(dumps)))
    assert len(texts) == 1 + 106 + 5 and sum(text.startswith("Anarchism\n") for text in texts) == 1
