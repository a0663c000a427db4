"""Extract an article from the HTML of a wiki page: its visible text, and its pictures with their captions.

    article = read_html('<h1>Tides</h1><p>They <b>rise</b>.<sup class="reference">[1]</sup></p><figure><img src="../I/a.jpg">'
                        "<figcaption>A beach.</figcaption></figure>")
    article.text              # "They rise.\\nA beach."
    article.illustrations     # (Illustration(file="../I/a.jpg", caption="A beach."),)

Each paragraph, heading, list item and caption is a line, as in `read_wikitext`; the title is left out. Removed are what templates put
around an article (references, navigation boxes, hatnotes, the table of contents), formulas, scripts, and tables, whose pictures are
kept. The caption of a picture is in the same `<figure>`, `.thumb` or gallery box, or in the same cell of an infobox. The classes are
those of MediaWiki and the English Wikipedia, which other wikis have adopted.

Every element is assumed to be closed, as a browser or mwoffliner writes it. The time is linear in the length of the page, however deeply
it is nested: the state of the enclosing elements is updated as they open and close, and an unterminated last comment or tag is closed
first, since html.parser would search for its end from every position where one could begin.

A parser in C would take a fraction of the time, but builds the tree that HTML5 defines, whose size can be quadratic in that of the page:
for 37 kB (unclosed <b> before many paragraphs) lexbor builds 4 million nodes in 1.4 GB, and a call of it cannot be interrupted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal

from data_prep.wiki.wikitext import Article, Illustration

Kind = Literal["plain", "gone", "table", "infobox", "cell", "frame", "caption"]
"""gone: removed. table, infobox: only the pictures are kept. cell: of an infobox. frame: an element with a picture and its caption."""

_BREAK = "\1"  # where a new line begins; removed from the input
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_BREAKS = frozenset(
    (
        "p div section article li ul ol dl dt dd blockquote pre center figure figcaption h2 h3 h4 h5 h6 details summary"
        " table caption tr td th"
    ).split()
)
_GONE_TAGS = frozenset(
    "head script style template noscript nav footer h1 math svg audio video iframe object form select button textarea".split()
)
_GONE_CLASSES = frozenset(
    (
        "reference references mw-references-wrap reflist refbegin citation error noprint metadata navbox vertical-navbox sidebar"
        " hatnote dablink ambox mbox-small side-box toc mw-editsection magnify subpages catlinks mw-category-generated page-list-home"
        " mwe-math-element zim-footer"
    ).split()
)
_GONE_IDS = frozenset({"toc", "contentSub", "siteSub", "catlinks"})
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_CAPTIONS = frozenset({"thumbcaption", "gallerytext", "infobox-caption"})
_FRAMES = frozenset({"thumb", "tsingle", "gallerybox"})  # tsingle: one of several pictures in a thumb
_INFOBOX = re.compile(r"infobox(_v\d)?")
_FORMULA = "mwe-math-fallback-image"
_NO_LETTER = re.compile(r"&#(?:[0-9]{8}[0-9]*+|[xX][0-9a-fA-F]{8}[0-9a-fA-F]*+);?")  # int() of thousands of digits is an error in Python
_MAX_NESTING = 20  # of captions in captions: their text is copied once per level
_NO_INDEX = "htdig_noindex"  # between this comment and its end mwoffliner names the source of the page


def read_html(html: str) -> Article:
    """The text and the pictures of a page, in page order; a picture that occurs twice has its first caption that is not blank.

    The `file` of a picture is its `src`, unchanged.
    """
    reader = _Reader()
    reader.feed(_ended(_NO_LETTER.sub("\ufffd", html.replace(_BREAK, ""))))
    reader.close()
    reader.close_all()
    captions: dict[str, str] = {}
    for one in reader.pictures:
        captions[one.src] = captions.get(one.src) or one.caption
    return Article(_lines(reader.text), tuple(Illustration(src, caption) for src, caption in captions.items()))


def _ended(html: str) -> str:
    if html.rfind("<!--") > html.rfind("-->"):
        html += "-->"
    return html + ">" if html.rfind("<") > html.rfind(">") else html


@dataclass(slots=True)
class _Picture:
    src: str
    caption: str = ""


@dataclass(slots=True)
class _Open:
    """An open element.

    around: the text of the element around it. first: the number of pictures before it. caption: the caption found in it so far.
    """

    tag: str
    kind: Kind
    around: list[str]
    first: int
    caption: str = ""


class _Reader(HTMLParser):
    """text: the pieces so far of the innermost open element with a text of its own.

    _tables, _holders: the open elements that are tables or infoboxes, and those that may get a caption. _num_open: the number of open
    elements per tag. _without_caption: the indices of pictures without a caption, ascending.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.pictures: list[_Picture] = []
        self._open: list[_Open] = []
        self._tables: list[_Open] = []
        self._holders: list[_Open] = []
        self._num_open: Counter[str] = Counter()
        self._without_caption: list[int] = []
        self._num_gone = self._num_captions = 0
        self._no_index: tuple[list[str], int, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            if tag == "img":
                self._see(dict(attrs))
            elif tag in ("br", "hr"):
                self.text.append(_BREAK)
            return
        kind = "plain" if self._num_gone else self._kind(tag, dict(attrs))
        if tag in _BREAKS:
            self.text.append(_BREAK)
        one = _Open(tag, kind, self.text, len(self.pictures))
        self._open.append(one)
        self._num_open[tag] += 1
        self._num_gone += kind == "gone"
        self._num_captions += kind == "caption"
        if (around := self._around(kind)) is not None:
            around.append(one)
        if kind not in ("plain", "frame"):
            self.text = []

    def handle_endtag(self, tag: str) -> None:
        if self._num_open[tag]:  # else no search, however many elements are open
            self._close_down_to(next(place for place in range(len(self._open) - 1, -1, -1) if self._open[place].tag == tag))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        if data.strip() == _NO_INDEX:
            self._no_index = (self.text, len(self.text), len(self.pictures))
        elif data.strip() == f"/{_NO_INDEX}" and self._no_index is not None:
            text, before, first = self._no_index
            del text[before:], self.pictures[first:]
            while self._without_caption and self._without_caption[-1] >= first:
                self._without_caption.pop()
            self._no_index = None

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """`<![` is a comment up to the next >, as in browsers; html.parser would search for the end of an XML section."""
        return self.parse_bogus_comment(i, bool(report))

    def close_all(self) -> None:
        """Close the elements that are still open."""
        self._close_down_to(0)

    def _kind(self, tag: str, attrs: dict[str, str | None]) -> Kind:
        classes = frozenset((attrs.get("class") or "").split())
        if tag in _GONE_TAGS or classes & _GONE_CLASSES or attrs.get("id") in _GONE_IDS or _HIDDEN.search(attrs.get("style") or ""):
            return "gone"
        if tag == "figcaption" or classes & _CAPTIONS:
            return "caption" if self._num_captions < _MAX_NESTING else "plain"
        if tag == "figure" or classes & _FRAMES:
            return "frame"
        if tag in ("table", "div", "aside") and any(map(_INFOBOX.fullmatch, classes)):
            return "infobox"
        if tag == "table":
            return "table"
        if tag in ("td", "th") and self._tables and self._tables[-1].kind == "infobox":
            return "cell"
        return "plain"

    def _around(self, kind: Kind) -> list[_Open] | None:
        """The second list that holds open elements of this kind, if there is one."""
        return self._tables if kind in ("table", "infobox") else self._holders if kind in ("frame", "cell") else None

    def _see(self, attrs: dict[str, str | None]) -> None:
        if (src := attrs.get("src")) and not self._num_gone and _FORMULA not in (attrs.get("class") or ""):
            self._without_caption.append(len(self.pictures))
            self.pictures.append(_Picture(src.strip()))

    def _close_down_to(self, place: int) -> None:
        while len(self._open) > place:
            one = self._open.pop()
            self._num_open[one.tag] -= 1
            if (around := self._around(one.kind)) is not None:
                around.pop()
            if one.kind not in ("plain", "frame"):
                content, self.text = _lines(self.text), one.around
                self._end(one, " ".join(content.split()))
            elif one.kind == "frame":
                self._give(one.caption, one.first)
            if one.tag in _BREAKS:
                self.text.append(_BREAK)

    def _end(self, one: _Open, content: str) -> None:
        """Close an element with a text of its own."""
        if one.kind == "gone":
            self._num_gone -= 1
        elif one.kind == "cell":
            self._give(one.caption or content, one.first)
        elif one.kind == "caption":
            self._num_captions -= 1
            self.text += (_BREAK, content, _BREAK)
            if self._holders:
                self._holders[-1].caption = self._holders[-1].caption or content

    def _give(self, caption: str, first: int) -> None:
        """Give the caption to the pictures from index `first` on that have none."""
        while caption and self._without_caption and self._without_caption[-1] >= first:
            self.pictures[self._without_caption.pop()].caption = caption


def _lines(pieces: Sequence[str]) -> str:
    """The text as a browser shows it: white space collapses, and lines end at _BREAK only."""
    return "\n".join(filter(None, (" ".join(line.split()) for line in "".join(pieces).split(_BREAK))))
