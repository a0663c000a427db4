"""Wikipedia: each picture with its article and caption, in any number of parts, from dumps of every kind or from a table of WIT."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.conformance import check_broken_items, check_source, read_all
from data_prep.shards.job import make_shards
from data_prep.sources.wikipedia import plan, wikipedia
from data_prep.wiki.dump import Dump
from data_prep.wiki.wikitext import hashed_path, read_wikitext, words_of
from multimodal.errors import InputError
from multimodal.pairs import Pair

WORDS = " ".join(["tide"] * 60)


@dataclass(frozen=True)
class Written:
    """A page as it stands in a dump."""

    id: str
    title: str
    markup: str
    namespace: int = 0
    head: str = ""


PAGES = [
    Written("10", "Tides", f"{{{{Infobox|image=High tide.jpg|caption=High}}}} [[File:Low_tide.png|thumb|A [[beach]].]] {WORDS}"),
    Written("11", "Tide", "#REDIRECT [[Tides]] [[File:Low_tide.png]]", head='<redirect title="Tides" />'),
    Written("12", "Talk:Tides", f"[[File:Low_tide.png]] {WORDS}", namespace=1),
    Written("13", "Stub", "[[File:Low_tide.png|thumb|Not enough words]]"),
    Written("14", "Moss & stone", f"[[Image:moss.jpg]] [[File:Moss.jpg|thumb|Again]] [[File:Icon.png]] [[File:Nobody has it.jpg]] {WORDS}"),
    Written("15", "Sounds", f"[[File:Moss.svg]] [[File:Moss.ogg]] {WORDS}"),
    Written("16", "Shore", f"[[File:Low tide.png|The same]] {WORDS}"),
]
SIZES = {"High_tide.jpg": (300, 256), "Low tide.png": (256, 400), "Moss.jpg": (320, 320), "Icon.png": (400, 255)}


def picture(seed: int, size: tuple[int, int], kind: str) -> bytes:
    file = io.BytesIO()
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(small).resize(size).save(file, kind)
    return file.getvalue()


PICTURES = {name: picture(seed, size, "JPEG" if name.endswith("jpg") else "PNG") for seed, (name, size) in enumerate(SIZES.items())}


def xml(pages: Sequence[Written]) -> bytes:
    def escaped(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;")

    entries = "".join(
        f"  <page>\n    <title>{escaped(page.title)}</title>\n    <ns>{page.namespace}</ns>\n    <id>{page.id}</id>\n    {page.head}\n"
        f"    <revision>\n      <text>{escaped(page.markup)}</text>\n    </revision>\n  </page>\n"
        for page in pages
    )
    spaces = '<namespace key="6">File</namespace><namespace key="14">Category</namespace>'
    return f'<mediawiki xml:lang="en">\n  <siteinfo>{spaces}</siteinfo>\n{entries}</mediawiki>\n'.encode()


def write(folder: Path, pages: Sequence[Written] = PAGES, pictures: dict[str, bytes] = PICTURES) -> dict[str, Any]:
    """A dump, a stream for each page, and a folder with pictures -> the settings that read them."""
    (folder / "images").mkdir(parents=True)
    for name, content in pictures.items():
        (folder / "images" / name).write_bytes(content)
    parts = re.split(rb"(?=  <page>)", xml(pages))
    (folder / "wiki.xml.bz2").write_bytes(b"".join(map(bz2.compress, parts)))
    return {"input": folder / "wiki.xml.bz2", "images": folder / "images"}


def in_parts(settings: dict[str, Any], pairs_per_shard: int) -> list[list[Pair]]:
    return [read_all(wikipedia, settings | {"part": part})[0] for part in plan(pairs_per_shard, **settings)]


def test_each_picture_comes_with_its_article_and_its_caption(tmp_path: Path) -> None:
    pairs = check_source(wikipedia, write(tmp_path))
    tides, moss = f"Tides\nA beach.\n{WORDS}", f"Moss & stone\nAgain\n{WORDS}"
    assert [(pair.name, pair.texts, pair.group, pair.metadata) for pair in pairs] == [
        ("10/High_tide.jpg", (tides, "High"), "10", {"title": "Tides", "article": "10", "caption": "High"}),
        ("10/Low_tide.png", (tides, "A beach."), "10", {"title": "Tides", "article": "10", "caption": "A beach."}),
        ("14/Moss.jpg", (moss, "Again"), "14", {"title": "Moss & stone", "article": "14", "caption": "Again"}),
        ("16/Low_tide.png", (f"Shore\nThe same\n{WORDS}", "The same"), "16", {"title": "Shore", "article": "16", "caption": "The same"}),
    ]
    assert all(
        pair.image == PICTURES[name]
        for pair, name in zip(pairs, ["High_tide.jpg", "Low tide.png", "Moss.jpg", "Low tide.png"], strict=True)
    )


def test_how_large_a_picture_and_how_long_an_article_must_be_is_a_setting(tmp_path: Path) -> None:
    settings = write(tmp_path)
    names = {
        key: [pair.name for pair in check_source(wikipedia, settings | {key: value})]
        for key, value in {"min_side_px": 255, "min_words": 3}.items()
    }
    assert names["min_side_px"] == ["10/High_tide.jpg", "10/Low_tide.png", "14/Moss.jpg", "14/Icon.png", "16/Low_tide.png"]
    assert names["min_words"] == ["10/High_tide.jpg", "10/Low_tide.png", "13/Low_tide.png", "14/Moss.jpg", "16/Low_tide.png"]


@pytest.mark.parametrize(("pairs_per_shard", "num_parts"), [(1, range(15, 21)), (4, range(4, 7)), (100, range(1, 2))])
def test_parts_one_after_the_other_are_the_whole(tmp_path: Path, pairs_per_shard: int, num_parts: range) -> None:
    pages = [replace(page, id=f"{page.id}{copy}") for copy in range(5) for page in PAGES]
    settings = write(tmp_path, pages)
    whole = check_source(wikipedia, settings)
    parts = in_parts(settings, pairs_per_shard)
    assert [pair for part in parts for pair in part] == whole and len(whole) == 20
    assert len(parts) in num_parts
    assert plan(pairs_per_shard, **settings) == plan(pairs_per_shard, **settings)


def test_pictures_may_be_in_mediawikis_hashed_folders_or_in_tars(tmp_path: Path) -> None:
    plain = check_source(wikipedia, write(tmp_path))
    for name, content in PICTURES.items():
        path = tmp_path / "hashed" / hashed_path(name.replace(" ", "_"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(tmp_path / "hashed", "commons")
    for images in (tmp_path / "hashed", tmp_path / "all.tar"):
        assert check_source(wikipedia, {"input": tmp_path / "wiki.xml.bz2", "images": images}) == plain


def test_a_broken_picture_and_a_broken_page_cost_only_themselves(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    damaged = write(tmp_path / "damaged", pictures=PICTURES | {"Moss.jpg": PICTURES["Moss.jpg"][:600]})
    check_broken_items(wikipedia, whole, damaged, ["14/Moss.jpg"])
    content = b"".join(map(bz2.compress, re.split(rb"(?=  <page>)", xml(PAGES).replace(b"<id>16</id>", b""))))
    damaged["input"].write_bytes(content)
    pairs, ledger = read_all(wikipedia, damaged)
    assert [pair.name for pair in pairs] == ["10/High_tide.jpg", "10/Low_tide.png"]
    assert "wiki.xml.bz2 Shore: the page has no id" in map(str, ledger.entries)


WIT_COLUMNS = "language page_url image_url page_title caption_reference_description caption_alt_text_description".split()
COMMONS = "https://upload.wikimedia.org/wikipedia/commons"
WIT = [
    ("en", "", f"{COMMONS}/a/ab/Moss.jpg", "Tides", "Of the table", "For the blind"),
    ("de", "", f"{COMMONS}/c/cd/High_tide.jpg", "Tides", "Auf Deutsch", ""),
    ("en", "", f"{COMMONS}/e/ef/Low%20tide.png", "Shore", "", "For the blind"),
    ("en", "", f"{COMMONS}/e/ef/Low_tide.png", "Shore", "Twice", ""),
    ("en", "", f"{COMMONS}/e/ef/Low_tide.png", "Not there", "", ""),
]


def write_wit(path: Path) -> Path:
    content = "".join("\t".join(row) + "\n" for row in (WIT_COLUMNS, *WIT)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["wit.tsv", "wit.tsv.gz"])
def test_a_table_of_wit_says_which_pictures_an_article_has(tmp_path: Path, name: str) -> None:
    settings = write(tmp_path) | {"wit": write_wit(tmp_path / name)}
    pairs = check_source(wikipedia, settings)
    assert [(pair.name, pair.texts) for pair in pairs] == [
        ("10/Moss.jpg", (f"Tides\nA beach.\n{WORDS}", "Of the table")),
        ("16/Low_tide.png", (f"Shore\nThe same\n{WORDS}", "For the blind")),
    ]
    assert [pair for part in in_parts(settings, 1) for pair in part] == pairs


def test_text_of_wikiextractor_needs_such_a_table(tmp_path: Path) -> None:
    settings = write(tmp_path)
    for folder, page in zip(("AA", "AB"), (PAGES[0], PAGES[-1]), strict=True):
        (tmp_path / "text" / folder).mkdir(parents=True)
        url = f"https://en.wikipedia.org/wiki?curid={page.id}"
        lines = f'<doc id="{page.id}" url="{url}" title="{page.title}">\n{page.title}\n\n{WORDS}\n</doc>\n'
        (tmp_path / "text" / folder / "wiki_00").write_text(lines)
    settings |= {"input": tmp_path / "text"}
    with pytest.raises(InputError, match="do not say which pictures an article has: give a table with --wit"):
        read_all(wikipedia, settings)
    settings |= {"wit": write_wit(tmp_path / "wit.tsv")}
    pairs = check_source(wikipedia, settings)
    assert [(pair.name, pair.texts[0]) for pair in pairs] == [("10/Moss.jpg", f"Tides\n{WORDS}"), ("16/Low_tide.png", f"Shore\n{WORDS}")]
    assert [pair for part in in_parts(settings, 1) for pair in part] == pairs


def test_what_is_no_table_of_wit_is_an_error(tmp_path: Path) -> None:
    settings = write(tmp_path)
    (tmp_path / "a.tsv").write_text("page\turl\n")
    with pytest.raises(InputError, match=r"a.tsv: has no column language, page_title, image_url; .* is: page, url"):
        read_all(wikipedia, settings | {"wit": tmp_path / "a.tsv"})
    (tmp_path / "b.tsv").write_bytes(b"language\tpage_title\timage_url\nen\tcaf\xe9\tb\n")
    with pytest.raises(InputError, match=r"b.tsv line 2: is not UTF-8"):
        read_all(wikipedia, settings | {"wit": tmp_path / "b.tsv"})


@pytest.mark.parametrize(
    ("last", "reason"),
    [("en\tTid", r"row 2: has 2 fields for 3 columns"), ("en\tTi\rdes\ta.jpg", "is not a table of WIT: new-line")],
)
def test_a_table_of_wit_that_is_cut_off_or_damaged_is_an_error_and_no_smaller_set(tmp_path: Path, last: str, reason: str) -> None:
    settings = write(tmp_path)
    (tmp_path / "cut.tsv").write_bytes(f"language\tpage_title\timage_url\nen\tTides\tMoss.jpg\n{last}".encode())
    with pytest.raises(InputError, match=rf"cut.tsv.*{reason}.*Download the table again"):
        read_all(wikipedia, settings | {"wit": tmp_path / "cut.tsv"})


def test_a_folder_of_dumps_and_an_index_of_no_dump_are_reported(tmp_path: Path) -> None:
    settings = write(tmp_path)
    with pytest.raises(InputError, match=r"is a folder without WikiExtractor's files .* or a dump: one file"):
        read_all(wikipedia, settings | {"input": tmp_path})
    (tmp_path / "text" / "AA").mkdir(parents=True)
    (tmp_path / "text" / "AA" / "wiki_00").write_text("")
    with pytest.raises(InputError, match="--index is for a multistream dump. Leave it out"):
        read_all(
            wikipedia,
            settings | {"input": tmp_path / "text", "wit": write_wit(tmp_path / "wit.tsv"), "index": tmp_path / "index.txt"},
        )


def test_a_dump_without_its_pictures_and_a_zim_file_without_libzim_are_reported(tmp_path: Path) -> None:
    settings = write(tmp_path)
    with pytest.raises(InputError, match=r"wiki.xml.bz2: contains no pictures \(only ZIM files do\); give the folder .* with --images"):
        make_shards(wikipedia, {"input": settings["input"]}, tmp_path / "set")
    try:
        import libzim  # noqa: F401
    except ModuleNotFoundError:
        (tmp_path / "wiki.zim").write_bytes(b"ZIM\x04")
        with pytest.raises(InputError, match=r'needs the package libzim, which is not installed. Run: pip install "/.*\[zim\]"'):
            make_shards(wikipedia, {"input": tmp_path / "wiki.zim"}, tmp_path / "set")


def test_shards_in_the_folder_of_the_pictures_are_recognised_as_made_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write(tmp_path)
    for _ in range(2):
        make_shards(wikipedia, settings, settings["images"] / "shards")
    assert "is there already, 4 pairs" in capsys.readouterr().err


def test_shards_of_a_dump_are_whole_until_a_picture_or_the_dump_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write(tmp_path)
    shards = make_shards(wikipedia, settings, tmp_path / "set")
    assert [shards.pair(id) for id in range(len(shards))] == check_source(wikipedia, settings)
    make_shards(wikipedia, settings, tmp_path / "set")
    assert "is there already, 4 pairs" in capsys.readouterr().err
    (settings["images"] / "Icon.png").unlink()
    with pytest.raises(InputError, match="inputs.images"):
        make_shards(wikipedia, settings, tmp_path / "set")


def test_pairs_of_a_real_dump_in_parts(shared_data: Path, tmp_path: Path) -> None:
    dump = shared_data / "wikidump" / "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    if not dump.is_file():
        pytest.skip(f"the real dump is absent: {dump}")
    articles = {page.id: read_wikitext(page.markup) for page in Dump(dump).articles(bad=print)}
    wanted = {
        f"{id}/{one.file}": one.caption
        for id, article in articles.items()
        for one in article.illustrations
        if one.file.lower().endswith((".jpg", ".jpeg", ".png")) and len(words_of(article.text)) >= 50
    }
    assert len(wanted) > 900 and sum(map(bool, wanted.values())) > 0.9 * len(wanted)
    (tmp_path / "images").mkdir()
    for name in wanted:
        (tmp_path / "images" / name.partition("/")[2]).write_bytes(PICTURES["Moss.jpg"])
    settings = {"input": dump, "images": tmp_path / "images"}
    pairs = check_source(wikipedia, settings)
    assert {pair.name: pair.metadata.get("caption", "") for pair in pairs} == wanted
    parts = in_parts(settings, 300)
    assert [pair for part in parts for pair in part] == pairs and len(parts) > 2


def test_a_picture_that_two_members_of_tars_may_be_is_named_and_the_others_stay(tmp_path: Path) -> None:
    settings = write(tmp_path)
    (tmp_path / "tars").mkdir()
    for name in ("one.tar", "two.tar"):
        with tarfile.open(tmp_path / "tars" / name, "w") as tar:
            tar.add(tmp_path / "images" / "Moss.jpg", f"{name}/Moss.jpg")
    (tmp_path / "tars" / "High_tide.jpg").write_bytes(PICTURES["High_tide.jpg"])
    pairs, ledger = read_all(wikipedia, settings | {"images": tmp_path / "tars"})
    assert [pair.name for pair in pairs] == ["10/High_tide.jpg"]
    assert [(bad.where, bad.key) for bad in ledger.entries] == [("wiki.xml.bz2 article 14", "14/Moss.jpg")]
    assert "several members of its tars are called Moss.jpg" in ledger.entries[0].reason
