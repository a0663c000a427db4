"""Wiki markup: every construct by itself, and properties that hold for any markup whatever."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.wiki.wikitext import _SLOW_WORD, Illustration, _quick_word, file_name, hashed_path, read_wikitext, words_of
from data_prep.wiki.words import words_of_language

AssertLinear = Callable[[Callable[[str], object], Callable[[int], str]], None]


def text(markup: str) -> str:
    return read_wikitext(markup).text


@pytest.mark.parametrize(
    ("markup", "seen"),
    [
        ("'''Tides''' are ''high'' and '''''low'''''.", "Tides are high and low."),
        ("The [[Moon]] and the [[Sun|star]]s, [[w:Sea (water)|sea]], [[:Category:Seas]].", "The Moon and the stars, sea, Category:Seas."),
        ("See [http://a.org the page] and [//c.org ''c''].[https://b.org]", "See the page and c."),
        ("A [[link with {{nowrap|a template}}|label]] and a [[long\nlabel]].", "A label and a long\nlabel."),
        ("Before {{Infobox|a={{b|{{{c|d}}}}}|e}} after.", "Before after."),
        ("One{{dot}}two, {{a}}, {{{b}}}(c).", "One two, , (c)."),
        ("Said.<ref>{{cite|}}</ref> So<ref name=a/>. <REF name='b'>A <br/> break</REF >Next", "Said. So. Next"),
        ("Hid<!-- [[not]] {{seen -->den. <!-- never ended", "Hidden."),
        ("One<br>two<br />three H<sub>2</sub>O <span style='x'>kept</span>", "One\ntwo\nthree H2O kept"),
        ("<math>x^2</math> squared <timeline>bar:a</timeline>", "squared"),
        ("<nowiki>[[as]] {{it}} ''is''</nowiki> &amp; &lt;b&gt; &eacute;&nbsp;&#8211; AT&T;", "[[as]] {{it}} ''is'' & <b> é – AT&T;"),
        ("<pre>\n| a {{b}}\n</pre>", "| a {{b}}"),
        (
            "== Head ==\n=== Of [[level]] 3 ===\n* one\n** two\n# three\n; term\n: said\n----\nend",
            "Head\nOf level 3\none\ntwo\nthree\nterm\nsaid\nend",
        ),
        ("a\n\n\n  b {{x}} c \n__NOTOC__", "a\nb c"),
        ("{| class=x\n|+ Title\n|-\n! A !! scope=col | B\n|-\n| 1 || style='a' | 2\n|align=left|[[x|3]]<br>y || 4\n|}\nafter", None),
        (":{|\n|a\n{|\n|inner\n|}\n|b\n|}", "a\ninner\nb"),
        ('{|\n| colspan="2" {{Yes}} || bgcolor=red|{{No}}||c\n|}', "c"),
        ("[[File:A.jpg|thumb|200px|A [[small|tiny]] ''cat''.<ref>x</ref>]]\nText [[Category:Cats|{{PAGENAME}}]].", "A tiny cat.\nText ."),
        ("[[File:A.jpg]] [[image:b.png|thumb|alt=described]]", ""),
        ("<gallery>\nFile:A.jpg|One [[cat]]\nb.jpg\n\nC.jpg|Three\n</gallery>", "One cat\nThree"),
        ("Text\n[[de:Gezeiten]]\n[[zh-min-nan:Tiau]]\n", "Text"),
    ],
)
def test_a_reader_sees(markup: str, seen: str | None) -> None:
    assert text(markup) == (seen if seen is not None else "Title\nA\nB\n1\n2\n3\ny\n4\nafter")


@pytest.mark.parametrize(
    ("markup", "seen"),
    [
        ("A {{b never ends. [[C]] stays.", "A b never ends. C stays."),
        ("A }}and ]]of nothing", "A and of nothing"),
        ("A [[link never ends, [[b|c]] stays", "A link never ends, c stays"),
        ("{{a|[[b}} after", "after"),
        ("<ref>never ends, <ref>a</ref> stays", "stays"),
        ("p < 0.05 and q > 0.1", "p < 0.05 and q > 0.1"),
        ("<ref never closed", "<ref never closed"),
        ("<math>a <math>b", "a b"),
    ],
)
def test_what_never_ends_is_text(markup: str, seen: str) -> None:
    assert text(markup) == seen


def test_pictures_come_with_their_captions_each_once() -> None:
    markup = """{{Infobox settlement
| image_skyline = low tide.jpg | image_caption = The  ''[[quay|harbour]]'' {{small|x}}
| image_flag = Flag.svg
| module = {{Infobox|image=[[File:inner.png|30px]]|caption=Inside}}
}}
{{multiple image|image1=One.JPG|caption1=First|image2 = File:two_b.jpeg}}
[[File:Low tide.jpg|thumb|Again]] [[Image: third.jpg |upright=1.2|left|The [[File:icon.png|20px]] third|alt=x]]
<gallery>fourth.jpg|Fourth &amp; last</gallery> [[:File:Linked.jpg]] [[Media:Heard.ogg]] <ref>[[File:hidden.jpg]]</ref>"""
    assert {one.file: one.caption for one in read_wikitext(markup).illustrations} == {
        "Inner.png": "Inside",
        "Low_tide.jpg": "The harbour",
        "One.JPG": "First",
        "Two_b.jpeg": "",
        "Icon.png": "",
        "Third.jpg": "The third",
        "Fourth.jpg": "Fourth & last",
    }


def test_a_picture_without_a_caption_gets_that_of_its_second_place() -> None:
    article = read_wikitext("{{Infobox|image=A.jpg}} [[File:A.jpg|thumb|Now]] [[File:A.jpg|Later]]")
    assert article.illustrations == (Illustration("A.jpg", "Now"),)


def test_a_wiki_has_its_own_names_for_files_and_categories() -> None:
    markup = "[[Файл:море.jpg|мини|Море]] [[Категория:Море]] [[Soubor bez:x.jpg|Popisek]]"
    words = words_of_language("", file=("Файл", "Soubor bez"), category=("Категория",))
    article = read_wikitext(markup, words)
    assert article.text == "Море\nPopisek" and [one.file for one in article.illustrations] == ["Море.jpg", "X.jpg"]
    assert "Категория" in read_wikitext(markup).text


def test_files_are_named_and_placed_as_mediawiki_does() -> None:
    assert file_name(" low  tide_at&amp;sea.jpg_") == "Low_tide_at&sea.jpg"
    assert file_name(" _ ") == ""
    assert hashed_path("Example.jpg") == "a/a9/Example.jpg"  # mediawiki.org/wiki/Manual:$wgHashedUploadDirectory


def test_quick_words_are_those_of_the_plain_pattern() -> None:
    every = "".join(map(chr, range(0xD800))) + "".join(map(chr, range(0xE000, 1 << 16)))
    shuffled = "".join(random.Random(0).choices(every, k=100_000))
    for letters in (every, shuffled):
        assert _quick_word().findall(letters) == _SLOW_WORD.findall(letters)
    assert words_of("𝔄𝔟 two") == ["𝔄𝔟", "two"]


def test_words_are_those_that_gensim_counts() -> None:
    assert words_of("A Tide's two-fold 2nd, _x_ Ébb; pneumonoultramicroscopic") == ["tide", "two", "fold", "nd", "ébb"]


# Any markup -------------------------------------------------------------------------------------------------------------------------------

_WORD = st.text("abcé ", min_size=1, max_size=6)
_PLAIN_LABEL = st.text("abcé ", min_size=1, max_size=6)


def _around(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(inner, min_size=1, max_size=3).map(" ".join)
    return st.one_of(
        several,
        several.map(lambda one: f"{{{{t|a={one}}}}}"),
        several.map(lambda one: f"{{{{{{p|{one}}}}}}}"),
        several.map(lambda one: f"[[File:f.jpg|thumb|{one}]]"),
        several.map(lambda one: f"<ref name=x>{one.replace('<ref', '').replace('</ref>', '')}</ref>"),
        several.map(lambda one: f"<div class=x>{one}</div>"),
        several.map(lambda one: f"\n{{| class=x\n|-\n| a=b | {one}\n|}}\n"),
        several.map(lambda one: f"'''{one}'''"),
        _PLAIN_LABEL.map(lambda one: f"[[target|{one}]]"),
        _PLAIN_LABEL.map(lambda one: f"<!-- {one} -->[http://x.org {one}]"),
    )


@settings(deadline=None, max_examples=300)
@given(st.recursive(_WORD, _around, max_leaves=12))
def test_balanced_markup_never_leaks(markup: str) -> None:
    article = read_wikitext(markup)
    for seen in (article.text, *(one.caption for one in article.illustrations)):
        assert not re.search(r"\{\{|\}\}|\{\||\|\}|\[|\]|<|>|''|[\0\1]|class=|target|http", seen), seen


_SIGNS = st.sampled_from(
    "{{ }} {{{ }}} [[ ]] [ ] | || {| |} |- <ref> </ref> <ref/> <!-- --> <nowiki> </nowiki> <gallery> \n ! = == ' '' & &lt; \0 a".split(" ")
)


@settings(deadline=None, max_examples=500)
@given(
    st.lists(st.one_of(_SIGNS, st.sampled_from(["[[File:", "[[Category:", "image=a.jpg", "\n* ", " ", "http://"])), max_size=30).map(
        "".join
    )
)
def test_no_markup_whatever_raises_and_lines_come_out_tidy(markup: str) -> None:
    for line in text(markup).split("\n"):
        assert line == line.strip()
    assert "\n\n" not in text(markup)


@settings(deadline=None)
@given(st.text())
def test_no_text_whatever_raises(markup: str) -> None:
    text(markup)


_HOSTILE = "{{ {{{ {{a| {| [[ [[a| [[File: [[File:a|{{ [[Category: }} ]] <ref> <a <!-- </ref".split(" ")
_HOSTILE += "'' [http://a __A &amp; ||| == ! <gallery> <nowiki>[".split(" ")
_ONCE_AND_LONG = ["{{x| image|", "[[File:a|1|", "[http://a", "\n|a=b c|", "[[ab:c|", "<ref name=|", "=|", "{{x|image=a.jpg|"]


def _assert_tidy(markup: str) -> None:
    seen = text(markup)
    assert len(seen) <= len(markup) and "\n\n" not in seen
    assert all(line == line.strip() for line in seen.split("\n"))


@pytest.mark.parametrize("sign", [*_HOSTILE, "\n|a=b", "\n[[ab:", " \n", "\n= ", "\0", "\n* "])
def test_a_megabyte_of_the_same_sign_takes_steps_that_grow_with_its_length(sign: str, assert_linear: AssertLinear) -> None:
    for begin, end in (("", ""), ("{{x|", "}}")):
        assert_linear(text, lambda length: begin + sign * (length // len(sign)) + end)  # noqa: B023
        _assert_tidy(begin + sign * (1_000_000 // len(sign)) + end)


@pytest.mark.parametrize("begin", [*_ONCE_AND_LONG, ""])
@pytest.mark.parametrize("sign", [" ", "1", "a", "=", "a.jpg", "\t", "_", "-", "é"])
def test_a_megabyte_within_one_construct_takes_steps_that_grow_with_its_length(begin: str, sign: str, assert_linear: AssertLinear) -> None:
    for end in ("", "}}", "]]"):
        assert_linear(text, lambda length: begin.rstrip("|") + sign * (length // len(sign)) + end)  # noqa: B023
        _assert_tidy(begin.rstrip("|") + sign * (1_000_000 // len(sign)) + end)
