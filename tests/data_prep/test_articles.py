"""Articles with illustrations: each picture with the text around it, once, and in the group of its article."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.conformance import check_broken_items, check_parts, check_source, read_all
from data_prep.shards.job import make_shards
from data_prep.sources.articles import articles, holds_articles
from multimodal.errors import InputError
from multimodal.shards import Ledger, Split


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


PICTURES = {name: picture(seed) for seed, name in enumerate(["tide-1.png", "tide-2.png", "moss.png", "rust.png"])}


def whole_articles() -> list[dict[str, Any]]:
    tides = [{"file": "tide-1.png", "caption": " Low tide. "}, {"file": "tide-2.png", "caption": "High tide.", "credit": "A. Person"}]
    return [
        {"id": "tides", "title": "Tides", "text": "The moon pulls.\nThe sea follows.\n", "images": tides, "subject": "physics"},
        {"id": "none", "title": "Without pictures", "text": "Words.", "images": []},
        {"id": 7, "title": "Moss", "text": "It is green.", "images": [{"file": "moss.png", "caption": "A stone."}], "split": "test"},
        {"id": "rust", "text": "Iron and air.", "images": [{"file": "rust.png"}], "split": None},
    ]


def write(folder: Path, listed: list[Any], pictures: dict[str, bytes] = PICTURES) -> dict[str, Path]:
    """A folder with articles and pictures beside them -> the settings that read it. What is no JSON value is written as it is."""
    folder.mkdir(exist_ok=True)
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in listed]
    (folder / "articles.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    return {"input": folder / "articles.jsonl"}


def test_each_picture_comes_with_its_article_and_what_else_is_known(tmp_path: Path) -> None:
    pairs = check_source(articles, write(tmp_path, whole_articles()))
    assert [(pair.name, pair.texts, pair.group, pair.split) for pair in pairs] == [
        ("tide-1.png", ("Tides\nThe moon pulls.\nThe sea follows.",), "tides", ""),
        ("tide-2.png", ("Tides\nThe moon pulls.\nThe sea follows.",), "tides", ""),
        ("moss.png", ("Moss\nIt is green.",), "7", "test"),
        ("rust.png", ("Iron and air.",), "rust", ""),
    ]
    assert [pair.metadata for pair in pairs] == [
        {"subject": "physics", "title": "Tides", "caption": "Low tide."},
        {"subject": "physics", "title": "Tides", "caption": "High tide.", "credit": "A. Person"},
        {"title": "Moss", "caption": "A stone."},
        {},
    ]


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("article", [("Tides\nThe moon pulls.",), ("Tides\nThe moon pulls.",)]),
        ("caption", [("Low tide.",), ("High tide.",)]),
        ("both", [("Low tide.", "Tides\nThe moon pulls."), ("High tide.", "Tides\nThe moon pulls.")]),
    ],
)
def test_a_picture_is_paired_with_its_article_its_caption_or_both(tmp_path: Path, text: str, texts: list[tuple[str, ...]]) -> None:
    settings = write(tmp_path, [whole_articles()[0] | {"text": "The moon pulls."}])
    pairs = check_source(articles, settings | {"text": text})
    assert [pair.texts for pair in pairs] == texts
    assert [(pair.metadata["title"], pair.metadata["caption"]) for pair in pairs] == [("Tides", "Low tide."), ("Tides", "High tide.")]


def test_what_a_picture_is_to_be_paired_with_has_to_be_there(tmp_path: Path) -> None:
    settings = write(tmp_path, [*whole_articles(), {"id": "bare", "images": [{"file": "bare.png", "caption": "Captioned."}]}])
    (tmp_path / "bare.png").write_bytes(picture(9))
    lost = {}
    for text in ("article", "caption", "both"):
        _, ledger = read_all(articles, settings | {"text": text})
        lost[text] = {bad.key: bad.reason for bad in ledger.entries}
    no_article, no_caption = {"bare.png": "its article has no text"}, {"rust.png": "has no caption"}
    assert lost == {"article": no_article, "caption": no_caption, "both": no_article | no_caption}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("name", ["articles.jsonl", "articles.jsonl.gz"])
def test_ranges_of_the_pictures_make_what_the_file_makes(tmp_path: Path, size: int, name: str) -> None:
    files = [f"{n}.png" for n in range(6)]
    for seed, file in enumerate(files):
        (tmp_path / file).write_bytes(picture(seed))

    def line(id: str, text: str, *names: str) -> str:
        return json.dumps({"id": id, "title": id, "text": text, "images": [{"file": one, "caption": one} for one in names]})

    lines = [
        "{not json",
        line("a", "first", "0.png", "1.png", "2.png"),
        "",
        line("b", "second", "1.png", "gone.png", ""),  # repeated, missing, unnamed
        line("none", "no picture"),
        line("c", "", "3.png"),  # no text: does not take the picture from d
        '{"id": 7}',
        line("d", "fourth", "3.png", "4.png", "0.png", "5.png"),
        "[]",
    ]
    content = ("\ufeff" + "\n".join(lines)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    parts = check_parts(articles, {"input": tmp_path / name}, size)
    assert len(parts) == -(-14 // size)  # 11 pictures that lines name, and 3 lines that name none
    pairs, _ = read_all(articles, {"input": tmp_path / name})
    assert [pair.name for pair in pairs] == files


def test_articles_may_be_gzipped_and_their_pictures_lie_in_tars_elsewhere(tmp_path: Path) -> None:
    plain = check_source(articles, write(tmp_path, whole_articles()))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "articles.jsonl").read_bytes()))
    (tmp_path / "tars").mkdir()
    for number, name in enumerate(PICTURES):
        with tarfile.open(tmp_path / "tars" / f"{number % 2}.tar", "a") as tar:
            tar.add(tmp_path / name, f"figures/{name}")
    assert check_source(articles, {"input": tmp_path / "a.jsonl.gz", "images": tmp_path / "tars"}) == plain


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": " \n "}, "its article has no text"),
        ({"text": None}, "its article has no text"),
        ({"text": 7}, "its `text`: expected a string, got a int"),
        ({"title": ["Tides"]}, "its `title`: expected a string, got a list"),
        ({"id": ""}, "its article has no `id`, a string or a number"),
        ({"id": None}, "its article has no `id`, a string or a number"),
        ({"split": 1}, "its `split`: expected a string, got a int"),
    ],
)
def test_a_broken_article_costs_only_its_pictures_and_each_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    whole = write(tmp_path / "whole", whole_articles())
    broken = write(tmp_path / "broken", [whole_articles()[0] | change, *whole_articles()[1:]])
    check_broken_items(articles, whole, broken, ["tide-1.png", "tide-2.png"])
    _, ledger = read_all(articles, broken)
    assert [(bad.where, bad.reason) for bad in ledger.entries] == [("articles.jsonl line 1", reason)] * 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "tides", "te', "is not JSON: Unterminated string"),
        (b"[1, 2]", "expected one JSON object per line, got a list"),
        (b'{"id": "caf\xe9 \xc3\xa9\xc3\xa9"}', "is not UTF-8"),
        (b"[" * 100_000, "is JSON that is nested too deeply"),
        (b'{"id": "a", "text": "b", "images": "tide-1.png"}', "has no list `images`; its fields are id, text, images"),
        (b'{"id": "a", "text": "b", "images": [{"caption": "c"}]}', "a picture of its `images` names no `file`"),
        (b'{"id": "a", "text": "b", "images": ["tide-1.png"]}', "a picture of its `images` names no `file`"),
    ],
)
def test_a_line_that_cannot_be_read_costs_only_itself(tmp_path: Path, line: bytes, reason: str) -> None:
    rest = whole_articles()[1:]
    settings = write(tmp_path, [b"", line, *rest])
    pairs, ledger = read_all(articles, settings)
    assert pairs == read_all(articles, write(tmp_path / "rest", rest))[0]
    [bad] = ledger.entries
    assert bad.where == "articles.jsonl line 2" and bad.reason.startswith(reason)


def test_a_missing_and_a_broken_picture_cost_only_themselves(tmp_path: Path) -> None:
    whole, broken = write(tmp_path / "whole", whole_articles()), write(tmp_path / "broken", whole_articles())
    (tmp_path / "broken" / "tide-1.png").unlink()
    (tmp_path / "broken" / "moss.png").write_bytes(PICTURES["moss.png"][:60])
    check_broken_items(articles, whole, broken, ["tide-1.png", "moss.png"])
    _, ledger = read_all(articles, broken)
    assert f"articles.jsonl line 1 tide-1.png: no such picture in {tmp_path / 'broken'}" in map(str, ledger.entries)


def test_a_picture_of_two_articles_stays_with_the_first_so_that_no_split_cuts_it(tmp_path: Path) -> None:
    again = {"id": "again", "text": "The sea, again.", "images": [{"file": "moss.png"}, {"file": "new.png"}, {"file": "new.png"}]}
    settings = write(tmp_path, [*whole_articles(), again], PICTURES | {"new.png": picture(9)})
    pairs, ledger = read_all(articles, settings)
    assert [(pair.name, pair.group) for pair in pairs][2:] == [("moss.png", "7"), ("rust.png", "rust"), ("new.png", "again")]
    assert [str(bad) for bad in ledger.entries] == [
        "articles.jsonl line 5 moss.png: came in line 3, and stays with that article alone",
        "articles.jsonl line 5 new.png: came in line 5, and stays with that article alone",
    ]


@pytest.mark.parametrize(("content", "message"), [(b"", "names no picture"), (b'{"id": "a", "images": []}\n', "names no picture")])
def test_articles_without_any_picture_are_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_all(articles, {"input": tmp_path / "a.jsonl"})
    with pytest.raises(InputError, match="nowhere.jsonl: does not exist"):
        read_all(articles, {"input": tmp_path / "nowhere.jsonl"})


def test_shards_of_articles_are_whole_until_a_picture_or_a_word_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write(tmp_path / "data", whole_articles())
    shards = make_shards(articles, settings, tmp_path / "data" / "set")
    assert [shards.pair(id) for id in range(len(shards))] == check_source(articles, settings)
    make_shards(articles, settings, tmp_path / "data" / "set")
    assert "is there already, 4 pairs" in capsys.readouterr().err
    (tmp_path / "data" / "rust.png").write_bytes(picture(9) + b"longer")
    with pytest.raises(InputError, match="inputs.images"):
        make_shards(articles, settings, tmp_path / "data" / "set")
    write(tmp_path / "data", [*whole_articles()[:3], whole_articles()[3] | {"text": "Iron and rain."}])
    with pytest.raises(InputError, match="inputs.input"):
        make_shards(articles, settings, tmp_path / "data" / "set")


def test_lines_of_articles_and_of_captions_are_distinguished(tmp_path: Path) -> None:
    assert holds_articles(write(tmp_path / "one", [b"{broken", *whole_articles()])["input"])
    assert not holds_articles(write(tmp_path / "other", [{"file": "a.png", "caption": "one"}])["input"])
    assert not holds_articles(write(tmp_path / "none", [b"nothing"])["input"])
    assert not holds_articles(write(tmp_path / "names", [{"images": ["a.png"], "text": "one"}])["input"])


def test_the_textbook_goes_through_whole(shared_data: Path) -> None:
    book = shared_data / "textbook" / "articles.jsonl.gz"
    if not book.is_file():
        pytest.skip(f"the textbook articles are absent: {book}")
    ledger = Ledger(Path("bad.csv"))
    pairs = list(articles(book, ledger=ledger))
    stated = re.search(r"(\d+) articles, (\d+) images, (\d+) subjects", (book.parent / "README.md").read_text())
    assert stated is not None and not ledger.entries
    counts = [len({pair.group for pair in pairs}), len(pairs), len({pair.metadata["subject"] for pair in pairs})]
    assert counts == [int(count) for count in stated.groups()]
    parts: dict[str, set[str]] = {}
    for pair in pairs:
        parts.setdefault(pair.group, set()).add(Split().part_of(pair.group, pair.split))
        assert pair.texts[0].startswith(f"{pair.metadata['title']}\n") and pair.metadata["caption"] and pair.metadata["book"]
    assert all(len(of_article) == 1 for of_article in parts.values())
