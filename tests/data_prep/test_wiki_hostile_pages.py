"""Pages that were written to end a job: each costs at most itself, and work grows with the length of a page, however deep it nests."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.sources.wikipedia import _read_or_name
from data_prep.wiki.dump import Dump
from data_prep.wiki.html import read_html
from data_prep.wiki.wikitext import Illustration, read_wikitext
from multimodal.shards import open_set
from multimodal.shards.ledger import Ledger

WORDS = " ".join(["tide"] * 60)


def lines_run(work: Callable[[], Any]) -> int:
    """How many lines of Python the work runs, each turn of a loop counted."""
    count = 0

    def count_line(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return count_line

    before = sys.gettrace()
    sys.settrace(count_line)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def check_linear(read: Callable[[str], Any], page: Callable[[int], str]) -> None:
    few, many = (lines_run(lambda number=number: read(page(number))) for number in (200, 800))
    assert many < 6 * few


@pytest.mark.parametrize("number", [1_000, 100_000])
@pytest.mark.parametrize("sign", ["|}", "*|}", "|} ", ":|}"])
def test_a_line_of_ends_of_tables_is_read_without_recursion(sign: str, number: int) -> None:
    assert read_wikitext(f"before\n{sign * number}after").text == "before\nafter"


@pytest.mark.parametrize(
    "sign",
    ["{{", "[[", "{|", "<ref", "<!--", "<td>", "<div>", "''", "{{a|", "[[File:a.jpg|", "{{x|image=a.jpg|", "|a=[[File:b.jpg]]", "|}\n"]
    + ["{{!}}", "[[Datei:a.jpg|mini|", "\ufdd0", "__A", "|image1=a.jpg|caption1=b"],
)
def test_wikitext_of_one_sign_over_and_over_takes_work_in_proportion(sign: str) -> None:
    for begin, end in (("", ""), ("{{x|image=", "}}"), ("[[File:a.jpg|", "]]")):
        check_linear(read_wikitext, lambda number, begin=begin, end=end: begin + number * sign + end)
    check_linear(read_wikitext, lambda number: number * sign + number * "}}" + number * "]]")


@pytest.mark.parametrize(
    "sign",
    ["<td>", "<div>", "<figure>", "<figcaption>a", "<table class=infobox><td>", "<figure><img src=a><figcaption>b", "<![CDATA[>", "<p"]
    + ["</span>", "<img src=a>", "<!--", "<!--htdig_noindex--><!--/htdig_noindex-->", "<div class=thumb><img src=b>", "<a b='"],
)
def test_html_of_one_tag_over_and_over_takes_work_in_proportion(sign: str) -> None:
    check_linear(read_html, lambda number: number * sign)
    check_linear(read_html, lambda number: "<div>" * number + number * sign + number * "</i>")
    check_linear(
        read_html, lambda number: "<table class=infobox>" + number * "<tr>" + number * sign + number * "</figure></td></figcaption>"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS limits nothing elsewhere")
def test_what_is_never_closed_is_not_copied_into_each_paragraph_after_it() -> None:
    """The tree that HTML5 defines for these 58 kB has 10 million nodes."""
    code = """
import resource
from data_prep.wiki.html import read_html
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
page = "<p>" + "".join(f"<b id={number}>" for number in range(3000)) + "</p>" + "<p>x</p>" * 3000
assert read_html(page).text.split() == 3000 * ["x"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_captions_within_captions_of_any_depth_are_all_read() -> None:
    article = read_html("".join(f"<figure><img src='{number}'><figcaption>c{number} " for number in range(1000)))
    assert len(article.illustrations) == 1000 and article.illustrations[0].caption.startswith("c0 c1 ")
    assert article.text.split() == [f"c{number}" for number in range(1000)]


@pytest.mark.parametrize("number", ["1" * 5000, "x" + "9" * 5000, "xD800", "0"])
def test_a_numbered_sign_that_is_none_is_no_error(number: str) -> None:
    read_wikitext(f"[[File:&#{number};.jpg|&#{number};]] &#{number}; {{{{x|image=&#{number};.jpg}}}}")
    assert read_html(f"<p>a&#{number};</p><img src='&#{number};'>").text == "a\ufffd"


def test_control_signs_and_ends_of_strings_leave_no_names_or_markup() -> None:
    article = read_wikitext("a\0b \1c [[File:d\0.jpg|thumb|e\1f]]")
    assert article.text == "ab c\nef" and article.illustrations == (Illustration("D.jpg", "ef"),)


PAGES = {
    "Ends": "|}" * 1000 + WORDS,
    "Deep": "{{a|" * 20_000 + "[[File:Tide.jpg|" * 2_000 + WORDS,
    "Long name": f"[[File:{'a' * 3000}.jpg|thumb]] [[File:../images/Tide.jpg]] [[File:/etc/x.jpg]] {WORDS}",
    "Number": f"[[File:&#{'1' * 5000};.jpg|x]] {WORDS}",
    "Good": f"[[File:Tide.jpg|thumb|At sea]] {WORDS}",
}


def dump(pages: dict[str, str]) -> str:
    entries = "".join(
        f"<page><title>{title}</title><ns>0</ns><id>{id}</id><revision><id>9</id><text>{escape(markup)}</text></revision></page>\n"
        for id, (title, markup) in enumerate(pages.items(), 1)
    )
    return f'<mediawiki xml:lang="en"><siteinfo></siteinfo>\n{entries}</mediawiki>'


def test_a_hostile_page_costs_itself_and_the_job_ends_with_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xml = dump(PAGES | {"Broken": "BROKEN", "Last": PAGES["Good"]}).replace("BROKEN", f"{WORDS} &#xD800; \0")
    (tmp_path / "wiki.xml").write_text(xml)
    (tmp_path / "images").mkdir()
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (20, 90, 200)).save(file, "JPEG")
    (tmp_path / "images" / "Tide.jpg").write_bytes(file.getvalue())
    monkeypatch.chdir(tmp_path)
    command = "make-shards wikipedia wiki.xml --images images --min-side-px 1 --num-processes 1 --max-bad-share 0.5 --output set"
    assert main(command.split()) == 0
    shards = open_set(tmp_path / "set")
    assert [(shards.pair(id).name, shards.pair(id).metadata["caption"]) for id in range(len(shards))] == [
        ("5/Tide.jpg", "At sea"),
        ("7/Tide.jpg", "At sea"),
    ]
    [bad] = Ledger(tmp_path / "set" / "bad.csv").written()
    assert bad.key == "Broken" and "its XML is broken" in bad.reason


def test_what_nobody_thought_of_in_a_page_is_named_and_costs_itself(tmp_path: Path) -> None:
    told: list[tuple[str, str, str]] = []

    def read() -> Any:
        raise RecursionError("too deep")

    assert _read_or_name(read, "wiki.xml", "A page", lambda *entry: told.append(entry)) is None
    assert told == [("wiki.xml", "A page", "the page cannot be read: RecursionError: too deep")]


@pytest.mark.parametrize("head", [f'<namespace key="{"6" * 5000}">A</namespace>', '<namespace key="6"' * 1000, "<mediawiki " * 1000])
def test_the_head_of_a_dump_may_hold_anything(tmp_path: Path, head: str) -> None:
    (tmp_path / "wiki.xml").write_text(dump({"A": "b"}).replace("<siteinfo>", f"<siteinfo>{head}"))
    opened = Dump(tmp_path / "wiki.xml")
    assert [page.title for page in opened.articles(bad=print)] == ["A"] and opened.words.file[-2:] == ("File", "Image")
