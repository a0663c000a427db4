"""A page of a wiki as HTML: what stays of it, and which caption is of which picture."""

from __future__ import annotations

import pytest

from data_prep.wiki.html import read_html
from data_prep.wiki.wikitext import read_wikitext


def captions(html: str) -> dict[str, str]:
    return {one.file: one.caption for one in read_html(html).illustrations}


def test_paragraphs_headings_items_and_captions_are_lines_and_blanks_of_any_number_are_one() -> None:
    article = read_html(
        "<p>They <b>rise</b>\n  and&nbsp;fall<br>twice.</p><h2>Where &lt;</h2><ul><li>in <a href=x>bays</a></li><li>at sea</li></ul>"
        '<figure><a><img src="a.jpg"></a><figcaption>A <i>beach</i>.</figcaption></figure>K<sub>a</sub>'
    )
    assert article.text == "They rise and fall\ntwice.\nWhere <\nin bays\nat sea\nA beach.\nKa"


@pytest.mark.parametrize(
    "gone",
    [
        "<h1>Tides</h1>",
        "<script>if (a < b) { '<p>no' }</script><style>p {}</style>",
        '<sup class="mw-ref reference"><a>[1]</a></sup>',
        '<div class="reflist"><ol class="references"><li>Moon, <cite>1999</cite></li></ol></div>',
        "<table><caption>Table</caption><tr><td>1</td><th>2</th></tr></table>",
        '<table class="infobox"><tr><td>Height <table><tr><td>3 m</td></tr></table></td></tr></table>',
        '<div role="navigation" class="navbox"><p>Seas</p></div>',
        '<div class="hatnote">For the soap see</div>',
        '<span style="color: red; display: none">hidden</span>',
        '<span class="mwe-math-element"><math><mi>x</mi></math><img src="x.svg"></span>',
        '<div id="toc"><ul><li>Contents</li></ul></div>',
        '<!--htdig_noindex--><div><img src="logo.png"><div>This article is issued from Wikipedia.</div></div><!--/htdig_noindex-->',
        "<!-- a note -->",
    ],
)
def test_what_is_no_text_of_the_article_goes(gone: str) -> None:
    article = read_html(f"<html><head><title>Tides</title></head><body><p>before{gone}after</p></body></html>")
    assert article.text.replace("\n", "") == "beforeafter"
    assert article.illustrations == ()


@pytest.mark.parametrize(
    "html",
    [
        '<figure><a><img src="a.jpg"></a><figcaption>A beach.<sup class="reference">[2]</sup></figcaption></figure>',
        '<figure typeof="mw:File"><figcaption>A beach.</figcaption><img src="a.jpg"></figure>',
        '<div class="thumb tright"><div class="thumbinner"><a><img src="a.jpg"></a><div class="thumbcaption"><div class="magnify"><a>+</a>'
        "</div>A beach.</div></div></div>",
        '<ul class="gallery"><li class="gallerybox"><div class="thumb"><img src="a.jpg"></div>'
        '<div class="gallerytext"><p>A beach.</p></div></li></ul>',
        '<table class="infobox vcard"><tr><td class="infobox-image"><img src="a.jpg"><div class="infobox-caption">A beach.</div></td>'
        "</tr></table>",
        '<table class="infobox_v2"><tr><td colspan="2"><a><img src="a.jpg"></a><br>A <a>beach</a>.</td></tr><tr><td>3 m</td></tr></table>',
    ],
)
def test_a_caption_stands_in_a_figure_a_thumb_a_gallery_or_the_pictures_cell_of_an_infobox(html: str) -> None:
    assert captions(f'<p>Tides</p>{html}<p>rise <img src="b.jpg"> and fall.</p>') == {"a.jpg": "A beach.", "b.jpg": ""}


def test_each_of_several_pictures_in_a_frame_has_its_own_caption_and_else_that_of_the_frame() -> None:
    single = '<div class="tsingle"><div class="thumbimage"><img src="{0}.jpg"></div><div class="thumbcaption">{1}</div></div>'
    html = f'<div class="thumb tmulti">{single.format("a", "High")}{single.format("b", "")}<div class="thumbcaption">Both</div></div>'
    assert captions(html) == {"a.jpg": "High", "b.jpg": "Both"}


def test_a_picture_that_comes_twice_has_its_first_caption_not_blank() -> None:
    figure = '<figure><img src="a.jpg"><figcaption>{0}</figcaption></figure>'
    assert captions('<img src="a.jpg">' + figure.format("One") + figure.format("Two")) == {"a.jpg": "One"}


def test_pictures_in_tables_stay_and_those_in_what_goes_do_not() -> None:
    html = '<table><tr><td><img src="a.jpg"> text</td></tr></table><div class="navbox"><img src="b.jpg"></div><img alt="no address">'
    assert captions(html) == {"a.jpg": ""}


@pytest.mark.parametrize(
    ("markup", "html"),
    [
        (
            "'''Tides''' rise.<ref>Moon</ref>\n[[File:Low tide.jpg|thumb|A [[beach]] at low tide.]]\n== Where ==\n* in bays\n* at sea",
            '<p><b>Tides</b> rise.<sup class="reference">[1]</sup></p><figure><img src="Low_tide.jpg">'
            "<figcaption>A <a>beach</a> at low tide.</figcaption></figure><h2>Where</h2><ul><li>in bays</li><li>at sea</li></ul>",
        ),
        (
            "{{Infobox|image=A.jpg|caption=High}}\nOne.\n<gallery>\nB.jpg|Two [[seas]]\nC.jpg\n</gallery>",
            '<table class="infobox"><tr><td><img src="A.jpg"><div class="infobox-caption">High</div></td></tr></table><p>One.</p>'
            '<ul class="gallery"><li class="gallerybox"><div class="thumb"><img src="B.jpg"></div>'
            '<div class="gallerytext">Two <a>seas</a></div></li>'
            '<li class="gallerybox"><div class="thumb"><img src="C.jpg"></div><div class="gallerytext"></div></li></ul>',
        ),
    ],
)
def test_an_article_reads_the_same_as_html_and_as_wikitext(markup: str, html: str) -> None:
    assert read_html(html) == read_wikitext(markup)


@pytest.mark.parametrize(
    "html",
    ["", "<p>", "</div></p>text<table><figure><img src='a.jpg'>", "<" * 100, "&#1;&amp;", "<div>" * 5000]
    + ["<p" * 20000, "<!--" * 20000, "</a " * 20000],  # html.parser by itself takes minutes for these
)
def test_a_page_that_ends_early_or_is_no_page_is_read_as_far_as_it_goes(html: str) -> None:
    read_html(html)


def test_a_declaration_that_no_html_has_is_a_comment_as_in_browsers() -> None:
    assert read_html("<p>a<![what b]> c <![CDATA[d]]></p><!doctype x>").text == "a c"
