"""Dumps cut anywhere: whatever the file is and wherever it is cut, each article comes once, and damage costs what it hits."""

from __future__ import annotations

import bz2
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_prep.wiki.bzip2 import Damage, block_starts, read_blocks
from data_prep.wiki.dump import Dump, Page, extracted_articles, extracted_files, is_dump
from multimodal.errors import InputError

Bad = list[tuple[str, str, str]]
ENGLISH = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


@pytest.fixture(scope="session")
def real(shared_data: Path) -> Path:
    """The folder of small real dumps."""
    folder = shared_data / "wikidump"
    if not (folder / ENGLISH).is_file():
        pytest.skip(f"the real dumps are absent: {folder}")
    return folder


@pytest.fixture(scope="session")
def english(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The English dump as its owners name such files, .xml.bz2."""
    path = tmp_path_factory.mktemp("wiki") / "enwiki-pages-articles.xml.bz2"
    path.symlink_to(real / ENGLISH)
    return path


@pytest.fixture(scope="session")
def multistream(english: Path) -> Path:
    """The same pages as Wikipedia ships them: a stream for the head, one for each 10 pages, one for the end, and the index beside it."""
    xml = bz2.decompress(english.read_bytes())
    begin, end = xml.index(b"  <page>"), xml.rindex(b"</page>\n") + len(b"</page>\n")
    pages = re.findall(rb"  <page>.*?</page>\n", xml[begin:end], re.DOTALL)
    return write_multistream(english.with_name("enwiki-pages-articles-multistream.xml.bz2"), xml[:begin], pages, xml[end:])


def write_multistream(path: Path, head: bytes, pages: Sequence[bytes], end: bytes, pages_a_stream: int = 10) -> Path:
    lines = []
    with open(path, "wb") as file:
        file.write(bz2.compress(head))
        for first in range(0, len(pages), pages_a_stream):
            stream = pages[first : first + pages_a_stream]
            for page in stream:
                title, id = (re.search(rb"<%s>(.*?)</" % name, page)[1].decode() for name in (b"title", b"id"))  # type: ignore[index]
                lines.append(f"{file.tell()}:{id}:{title}\n")
            file.write(bz2.compress(b"".join(stream)))
        file.write(bz2.compress(end))
    index = path.with_name(path.name.replace(".xml.bz2", "-index.txt.bz2"))
    index.write_bytes(bz2.compress("".join(lines).encode()))
    return path


def read(dump: Dump, start: int = 0, stop: int | None = None) -> tuple[list[Page], Bad]:
    bad: Bad = []
    return list(dump.articles(start, stop, bad=lambda *entry: bad.append(entry))), bad


def in_parts(dump: Dump, cuts: Sequence[int]) -> list[Page]:
    return [page for start, stop in zip(cuts, cuts[1:], strict=False) for page in read(dump, start, stop)[0]]


def bad_in_parts(dump: Dump, cuts: Sequence[int]) -> Bad:
    return [entry for start, stop in zip(cuts, cuts[1:], strict=False) for entry in read(dump, start, stop)[1]]


# bzip2 ------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 9])
def test_blocks_by_themselves_are_the_whole_file(tmp_path: Path, level: int) -> None:
    content = random.Random(level).randbytes(400_000) + b"tide " * 300_000
    path = tmp_path / "a.bz2"
    path.write_bytes(bz2.compress(content, level) + bz2.compress(b"") + bz2.compress(content[::-1], level))
    starts = block_starts(path)
    assert len(starts) >= (10 if level == 1 else 4)
    blocks = list(read_blocks(path, 0))
    assert b"".join(block for block in blocks if isinstance(block, bytes)) == content + content[::-1]
    assert [next(read_blocks(path, start)) for start in starts] == blocks
    assert [list(read_blocks(path, *both)) for both in zip(starts, starts[1:], strict=False)] == [[block] for block in blocks[:-1]]


def test_a_damaged_block_costs_itself(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(450_000)
    whole = bz2.compress(content, 1)
    path = tmp_path / "a.bz2"
    path.write_bytes(whole[:150_000] + bytes([whole[150_000] ^ 255]) + whole[150_001:])
    blocks = list(read_blocks(path, 0))
    [damage] = [block for block in blocks if isinstance(block, Damage)]
    assert damage == Damage(block_starts(path)[1], "Invalid data stream")
    assert content == b"".join(content[99_981:199_962] if isinstance(block, Damage) else block for block in blocks)


# Real pages -------------------------------------------------------------------------------------------------------------------------------


def test_one_stream_many_streams_and_plain_xml_hold_the_same_articles(english: Path, multistream: Path, tmp_path: Path) -> None:
    plain = tmp_path / "enwiki.xml"
    plain.write_bytes(bz2.decompress(english.read_bytes()))
    no_index = tmp_path / "other.xml.bz2"
    no_index.symlink_to(multistream)
    articles, bad = read(Dump(english))
    assert len(articles) == 106 and not bad
    assert articles[0].id == "12" and articles[0].title == "Anarchism" and articles[0].markup.startswith("{{")
    for path, least_cuts in {english: 8, multistream: 22, no_index: 22, plain: 6}.items():
        dump = Dump(path)
        cuts = dump.cuts()
        assert len(cuts) >= least_cuts and cuts == sorted(set(cuts))
        assert (dump.index is not None) == (path == multistream)
        assert read(dump) == (articles, [])
        assert in_parts(dump, cuts) == articles


def test_a_plain_dump_may_be_cut_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "small.xml"
    path.write_text(small_dump([("1", "A", "one"), ("2", "B", "two"), ("3", "C", "three")]))
    dump, size = Dump(path), path.stat().st_size
    whole = read(dump)[0]
    assert [page.markup for page in whole] == ["one", "two", "three"]
    assert all(in_parts(dump, [0, cut, size]) == whole for cut in range(1, size))


def test_gensims_own_reader_finds_the_same_markup(real: Path) -> None:
    gensim = pytest.importorskip("gensim.corpora.wikicorpus")
    for path in sorted(real.glob("*.bz2")):
        theirs = {id: (title, text.strip()) for title, text, id in gensim.extract_pages(bz2.BZ2File(path), ("0",))}
        ours, bad = read(Dump(path))
        assert ours and not bad
        assert all(theirs[page.id] == (page.title, page.markup) for page in ours)
        left_out = [text for id, (_, text) in theirs.items() if id not in {page.id for page in ours}]
        assert all(not text or text.lower().startswith(("#redirect", "#виж", "#пренасочване")) for text in left_out)


def test_a_dump_in_utf_16_is_read_and_says_what_its_wiki_calls_things(real: Path) -> None:
    dump = Dump(real / "bgwiki-latest-pages-articles-shortened.xml.bz2")
    assert dump.language == "bg" and dump.words.file[:2] == ("Файл", "Картинка") and dump.words.category[0] == "Категория"
    assert len(dump.cuts()) == 2
    [page] = in_parts(dump, dump.cuts())
    assert page.title == "Григориански календар"


def test_a_damaged_stream_costs_its_pages_and_is_named(multistream: Path, tmp_path: Path) -> None:
    content = bytearray(multistream.read_bytes())
    dump = Dump(multistream)
    start, stop = next(both for both in zip(dump.cuts()[9:], dump.cuts()[10:], strict=False) if read(dump, *both)[0])
    content[(start + stop) // 16] ^= 255
    damaged = tmp_path / multistream.name
    damaged.write_bytes(content)
    lost = {page.id for page in read(dump, start, stop)[0]}
    articles, bad = read(Dump(damaged))
    assert lost and articles == [page for page in read(dump)[0] if page.id not in lost]
    assert len(bad) == 1 and bad[0][0].startswith(f"{damaged.name} at bit ") and bad[0][2] == "its bzip2 is damaged: Invalid data stream"


def test_a_damaged_block_costs_its_pages_wherever_the_file_is_cut(english: Path, tmp_path: Path) -> None:
    content = bytearray(english.read_bytes())
    cuts = Dump(english).cuts()
    content[(cuts[3] + cuts[4]) // 16] ^= 255
    damaged = tmp_path / "damaged.xml.bz2"
    damaged.write_bytes(content)
    whole = read(Dump(english))[0]
    articles, bad = read(Dump(damaged))
    assert in_parts(Dump(damaged), cuts) == articles and articles == [page for page in whole if page in articles]
    assert 50 < len(articles) < len(whole)
    assert sorted(bad_in_parts(Dump(damaged), cuts)) == sorted(bad)
    assert [reason for _, _, reason in bad] == [
        "its bzip2 is damaged: Invalid data stream",
        "the page has no end: the dump is damaged or cut off there",
    ]
    assert bad[1][1] in {page.title for page in whole}


# Made-up pages ----------------------------------------------------------------------------------------------------------------------------


def small_dump(pages: Sequence[tuple[str, str, str]]) -> str:
    """A dump of (id, title, what stands in <text>)."""
    entries = "".join(
        f"  <page>\n    <title>{title}</title>\n    <ns>0</ns>\n    <id>{id}</id>\n"
        f'    <revision>\n      <id>9{id}</id>\n      <text bytes="7">{text}</text>\n    </revision>\n  </page>\n'
        for id, title, text in pages
    )
    return f'<mediawiki xml:lang="en">\n  <siteinfo><namespaces></namespaces></siteinfo>\n{entries}</mediawiki>\n'


def test_escaped_signs_come_out_once(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(small_dump([("1", "A &amp; B", "&lt;b&gt; &amp;nbsp; &amp;lt; &quot;q&quot; &#233;&#xe9;&#38;lt;")]))
    assert read(Dump(tmp_path / "a.xml"))[0] == [Page("1", "A & B", '<b> &nbsp; &lt; "q" éé&lt;')]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<title>B</title>", "", "the page has no title"),
        ("<id>2</id>", "<id>two</id>", None),
        ('<text bytes="7">two</text>', "", "the page has no text"),
        ("two", "caf\xe9", "is not UTF-8 (byte 0xe9 at place 4)"),
        ("two</text>\n    </revision>\n  </page>", "two", "the page has no end: the dump is damaged or cut off there"),
    ],
)
def test_a_broken_page_costs_itself_and_is_named(tmp_path: Path, old: str, new: str, reason: str | None) -> None:
    xml = small_dump([("1", "A", "one"), ("2", "B", "two"), ("3", "C", "three")])
    (tmp_path / "a.xml").write_bytes(xml.replace(old, new).encode("latin-1"))
    articles, bad = read(Dump(tmp_path / "a.xml"))
    assert [page.title for page in articles] == (["A", "C"] if reason else ["A", "B", "C"])
    assert [entry[1:] for entry in bad] == ([("" if "title" in old else "B", reason)] if reason else [])


def test_a_dump_that_is_cut_off_names_the_page_it_ends_in(tmp_path: Path) -> None:
    xml = small_dump([("1", "A", "one"), ("2", "B", "two")])
    (tmp_path / "a.xml").write_text(xml[: xml.index("two")])
    articles, bad = read(Dump(tmp_path / "a.xml"))
    assert [page.title for page in articles] == ["A"]
    assert bad == [("a.xml", "B", "the page has no end: the dump is damaged or cut off there")]


@pytest.mark.parametrize(
    ("dump", "index"),
    [
        ("enwiki-20250101-pages-articles-multistream.xml.bz2", "enwiki-20250101-pages-articles-multistream-index.txt.bz2"),
        ("enwiki-latest-pages-articles-multistream1.xml-p1p41242.bz2", "enwiki-latest-pages-articles-multistream-index1.txt-p1p41242.bz2"),
        ("bgwiki-pages-articles-multistream.xml.bz2", "bgwiki-pages-articles-multistream-index.txt"),
        ("enwiki-20250101-pages-articles.xml.bz2", None),
    ],
)
def test_the_index_beside_a_multistream_dump_is_found(tmp_path: Path, dump: str, index: str | None) -> None:
    (tmp_path / dump).write_bytes(bz2.compress(b"<mediawiki>"))
    assert Dump(tmp_path / dump).index is None
    (tmp_path / (index or "other-multistream-index.txt.bz2")).touch()
    assert Dump(tmp_path / dump).index == (tmp_path / index if index else None) and is_dump(tmp_path / dump)


def test_redirects_and_other_namespaces_are_passed_over(tmp_path: Path) -> None:
    xml = small_dump([("1", "A", "one"), ("2", "Talk:A", "two"), ("3", "C", "#REDIRECT [[A]]"), ("4", "D", "")])
    xml = xml.replace("<title>Talk:A</title>\n    <ns>0<", "<title>Talk:A</title>\n    <ns>1<")
    xml = xml.replace("<id>3</id>", '<id>3</id>\n    <redirect title="A" />')
    (tmp_path / "a.xml").write_text(xml)
    assert [page.title for page in read(Dump(tmp_path / "a.xml"))[0]] == ["A", "D"]


def test_what_is_no_dump_or_not_its_index_is_an_error(tmp_path: Path, multistream: Path) -> None:
    (tmp_path / "a.xml").write_text("<html>")
    with pytest.raises(InputError, match=r"a.xml: is not a MediaWiki dump: it does not begin with <mediawiki>"):
        read(Dump(tmp_path / "a.xml"))
    (tmp_path / "b.xml").write_text('<?xml version="1.0" encoding="ISO-8859-1"?><mediawiki>')
    with pytest.raises(InputError, match="b.xml: its XML is in ISO-8859-1"):
        Dump(tmp_path / "b.xml").cuts()
    with pytest.raises(InputError, match="nowhere.xml: does not exist"):
        Dump(tmp_path / "nowhere.xml")
    for content, message in {
        "7:1:A\n": "names a stream at byte 7",
        "A:1\n": "line 1: does not begin with a byte offset",
    }.items():
        (tmp_path / "index.txt").write_text(content)
        with pytest.raises(InputError, match=message):
            Dump(multistream, tmp_path / "index.txt").cuts()


# WikiExtractor ----------------------------------------------------------------------------------------------------------------------------


def test_what_wikiextractor_wrote_is_read_as_elements_and_as_json(tmp_path: Path) -> None:
    (tmp_path / "AA").mkdir()
    url = "https://en.wikipedia.org/wiki?curid="
    elements = f'<doc id="1" url="{url}1" title="A &amp; "B"">\nA & "B"\n\nOne &lt;1&gt;.\nTwo.\n</doc>\n'
    elements += f'<doc id="2" url="{url}2" title="Moved">\nMoved\n\n</doc>\n'
    (tmp_path / "AA" / "wiki_00").write_text(elements)
    record = {"id": "3", "revid": "7", "url": f"{url}3", "title": "C", "text": "Three."}
    (tmp_path / "AA" / "wiki_01").write_text(json.dumps(record) + "\n" + "no article\n" + '<doc id="4" url="" title="D">\nFour')
    bad: Bad = []
    files = extracted_files(tmp_path)
    found = [article for file in files for article in extracted_articles(file, lambda *entry: bad.append(entry))]
    assert [file.name for file in files] == ["wiki_00", "wiki_01"]
    assert [(one.id, one.title, one.text, one.language) for one in found] == [
        ("1", 'A & "B"', "One <1>.\nTwo.", "en"),
        ("3", "C", "Three.", "en"),
    ]
    assert bad == [
        ("AA/wiki_01 line 2", "", "is neither <doc id=... url=... title=...> nor a JSON object; is this WikiExtractor's output?"),
        ("AA/wiki_01", "D", "the article has no </doc>: the file is cut off there"),
    ]
