"""What holds for every page: strangers' words stay words, nothing is asked of a network, and what stands in colour can be read."""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from multimodal.evaluate.charts import FAMILIES, training_chart
from multimodal.evaluate.report import Curve
from multimodal.pages import media_type, render
from multimodal.pairs import Hit
from multimodal.search.page import NUM_HUES, Card, Chip, hues_of
from multimodal.serve.page import Asked

HOSTILE = """</p></title><script>alert('x')</script> & "quoted" {{ 7 * 7 }} <img src=http://evil/x.png onerror=alert(1)>"""
BAR = r'<rect width="(\d+)%"'
FOLDER = files("multimodal.pages")
TEMPLATES = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".jinja"))
SERVED = ("api.html.jinja", "login.html.jinja", "search.html.jinja")
"""Pages with stylesheets and modules beside them; every other one is a single file."""
STYLESHEET = (FOLDER / "pages.css").read_text("utf-8")


class Seen(HTMLParser):
    """The tags of a page with the names of their attributes, and its text with their values."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.values.append(data)


def hits_page(text: str, is_product: bool = False) -> str:
    why = {text: 0.5, f"{text} too": -0.25}
    cards = [Card(Hit(7, 0.25, text, text, why), None), Card(Hit(8, 0.2, text, text, why), f"thumbnails/{text}", f"?q={text}")]
    chips = [Chip(text, "2", "hue-0"), Chip(text, "", "hue-minus")]
    return render("hits.html.jinja", title=text, notes=[text], is_product=is_product, cards=cards, chips=chips, hues=hues_of(chips))


def search_page(text: str, error: str = "", is_product: bool = True) -> str:
    cards = [Card(Hit(7, 0.25, text, text, {text: 0.5, "b": -0.25}), f"thumbnails/{text}", f"?q={text}")]
    asked = Asked(text, text, text, text)
    given = {"title": text, "asked": asked, "num_pictures": 9, "columns": [text], "examples": [(text, text)], "notes": [text]}
    given |= {"modules": ["main.js"], "chips": [Chip(text, "", "hue-0")], "hues": hues_of([])}
    return render("search.html.jinja", **given, is_product=is_product, found=not error, cards=cards, error=error)


def look_alikes_page(text: str) -> str:
    picture = {"address": text, "set": text, "part": text, "key": text, "bits": 3, "leaks": True, "text": text}
    groups = [{"leaks": True, "pictures": [picture, picture], "num_more": 2}]
    return render("look_alikes.html.jinja", title=text, counts=text, num_groups=9, groups=groups)


PAGES = [
    hits_page,
    partial(hits_page, is_product=True),
    search_page,
    partial(search_page, is_product=False),
    lambda text: search_page(text, error=text),
    look_alikes_page,
]


@pytest.mark.parametrize(
    "page", PAGES, ids=["hits: sum", "hits: product", "search: product", "search: sum", "search: error", "look-alikes"]
)
def test_no_markup_changes_with_the_query_the_name_the_text_or_the_set(page) -> None:
    plain, hostile = Seen(page("zebra")), Seen(page(HOSTILE))
    assert plain.tags == hostile.tags
    assert sum(HOSTILE in value for value in hostile.values) == sum("zebra" in value for value in plain.values) >= 4


def test_a_chart_is_markup_and_its_labels_are_escaped() -> None:
    chart = training_chart(Curve(HOSTILE, HOSTILE, [0, 1], [1.0, 0.5]))
    assert isinstance(chart, Markup) and "<script" not in chart
    assert any(HOSTILE in value for value in Seen(chart).values)


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_turns_escaping_off_or_asks_anything_of_a_network(name: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|//", text)
    if name in SERVED:
        assert all(address.startswith("web/") for address in re.findall(r'<(?:script|link)[^>]* (?:src|href)="([^"]*)"', text))
        assert not re.search(r"<script(?![^>]* src=)|\sstyle=|\son[a-z]+=", text)  # what the page's Content-Security-Policy would not run
    else:
        assert not re.search(r"<script|<link", text)


def test_a_name_that_a_template_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="chips"):
        render("hits.html.jinja", title="dog", is_product=False, cards=[])


def test_a_page_shows_factors_of_a_product_and_signed_numbers_of_a_sum() -> None:
    factors = {"dog": 0.5, "without cat": 0.25}
    card = Card(Hit(7, 0.125, "a.png", "a dog", factors), None)
    given = {"title": "dog", "notes": [], "cards": [card], "chips": [], "hues": hues_of([])}
    product, added = (render("hits.html.jinja", is_product=which, **given) for which in (True, False))
    assert "how well they meet every term" in product and "by cosine" in added
    assert re.findall(r"<dd>(.*?)</dd>", product) == ["×0.500", "×0.250"] and re.findall(BAR, product) == ["50", "25"]
    assert re.findall(r"<dd>(.*?)</dd>", added) == ["+0.500", "+0.250"] and re.findall(BAR, added) == ["100", "50"]
    assert "<span>0.1250</span>" in product and "<span>+0.1250</span>" in added


def test_the_stylesheet_is_whole_in_a_page_and_fetches_nothing() -> None:
    assert f"<style>\n{STYLESHEET}</style>" in hits_page("dog")
    assert not re.search(r"url\(|@import|<|//", STYLESHEET)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_words_in_colour_can_be_read_on_the_ground_and_on_cards(mode: str) -> None:
    pairs = re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{3,6}), (#[0-9a-f]{3,6})\);", STYLESHEET)
    colours = {name: light if mode == "light" else dark for name, light, dark in pairs}
    for word in ("ink", "soft", "plus", "minus", "other", *(f"hue-{number}" for number in range(NUM_HUES)), *FAMILIES):
        for behind in ("ground", "card"):
            assert contrast(colours[word], colours[behind]) > 4.5, (word, behind)


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2 defines it."""
    lighter, darker = sorted(map(luminance, (one, other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    part = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    return float(np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def test_a_pictures_media_type_is_read_from_its_first_bytes() -> None:
    assert [media_type(start + bytes(9)) for start in (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"\0\0\0 ftypavif")] == [
        *("image/jpeg", "image/png", "image/webp", "image/avif")
    ]
