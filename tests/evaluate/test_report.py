from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.report import Answered, Curve, Picture, Report, Topic, ask, curves_of, render, topics_of
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.search.store import Store

if TYPE_CHECKING:
    from tests.conftest import Road

MakeStore = Callable[..., Store]
HOSTILE = """<script>alert('x')</script> & "quoted" <img src=http://evil/x.png onerror=alert(1)>"""
JPEG = b"\xff\xd8\xff\xe0 a picture"


class Page(HTMLParser):
    """What a browser would make of it: the tags, their attributes, and the text."""

    VOID = ("meta", "img", "line", "polyline", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, *names: str) -> list[str]:
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in names]


def row(recall_10: float = 40.0, seed: int = 0, control: bool = False, gallery: str = "unseen", recipe: str = "topic") -> RetrievalRow:
    figures = (5.0, 20.0, recall_10, 17.0, 13.0, 4.2, 30.0, 41.0)
    return RetrievalRow(recipe, "topic", "pretrained", gallery, "text->image", 240, 240, *figures, seed, control)


def full_report(text: str) -> Report:
    """Every kind of content, with the text wherever a text of somebody can be."""
    pictures = [Picture(JPEG, text), Picture(None, text)]
    return Report(
        title=text,
        facts=[text],
        rows=[row(recipe=text, gallery=text), row(3.0, control=True, recipe=text, gallery=text)],
        answers=[Answered(text, text, pictures), Answered(text, "other", (), note=text)],
        topics=[Topic([text, "dog"], 0.25, pictures)],
        curves=[Curve(text, text, [0, 1, 2], [1.0, 0.5, 0.25])],
        commands=[text],
    )


def test_the_page_holds_everything_it_shows() -> None:
    page = Page(render(full_report("dog")))
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    sources = page.attributes("src", "href", "srcset", "xlink:href", "action", "poster")
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "@import" not in page.text and "url(" not in page.text
    assert base64.b64decode(sources[0].partition("base64,")[2]) == JPEG


def test_texts_and_queries_are_shown_as_they_are_and_never_run() -> None:
    page = Page(render(full_report(HOSTILE)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not page.attributes("onerror")
    assert all(source.startswith("data:image/") for source in page.attributes("src", "href"))
    assert HOSTILE in page.attributes("title") and HOSTILE in page.attributes("alt")
    assert page.text.count(HOSTILE) >= 7  # title twice, fact, table, query, refusal, command ...


def test_no_markup_changes_with_what_the_texts_say() -> None:
    plain, hostile = Page(render(full_report("dog"))), Page(render(full_report(HOSTILE)))
    assert [(tag, sorted(attributes)) for tag, attributes in plain.tags] == [(tag, sorted(attributes)) for tag, attributes in hostile.tags]


def test_figures_are_means_over_seeds_with_spread_chance_and_control() -> None:
    rows = [row(30.0), row(36.0, seed=1), row(4.5, control=True), row(70.0, gallery="noto")]
    page = Page(render(Report("demo", [], rows, [], [], [], [])))
    assert "33.0" in page.text and "30.0–36.0" in page.text
    assert "4.2" in page.text and "4.5" in page.text
    assert "mean over 2 splits" in page.text
    bars = [style for style in page.attributes("style") if style.startswith("width:")]
    assert [bar.partition(";")[0] for bar in bars] == ["width:33.0%", "width:70.0%"]
    assert page.text.index("unseen") < page.text.index("noto")


def test_a_report_of_nothing_is_a_page_with_a_title() -> None:
    page = Page(render(Report("demo", [], [], [], [], [], [])))
    assert "demo" in page.text and "h2" not in {tag for tag, _ in page.tags}


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [1e-9, 1e9]])
def test_a_curve_stays_inside_its_chart(values: list[float]) -> None:
    page = render(Report("demo", [], [], [], [], [Curve("topic", "train/loss", list(range(len(values))), values)], []))
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', page).groups())  # type: ignore[union-attr]
    points = re.search(r'points="([^"]*)"', page)[1].split()  # type: ignore[index]
    assert len(points) == len(values)
    for x, y in (map(float, point.split(",")) for point in points):
        assert 0 <= x <= width and 0 <= y <= height


# -- from real boxes -----------------------------------------------------------------------------------------------------------------------


def test_topics_come_with_their_words_share_and_pictures(make_store: MakeStore) -> None:
    store = make_store("store", family="topic")
    topics = topics_of(store, num_words=3, num_pictures=2)
    assert len(topics) == store.dim
    assert sum(topic.share for topic in topics) == pytest.approx(1, abs=1e-3)
    assert [topic.share for topic in topics] == sorted((topic.share for topic in topics), reverse=True)
    top_words = [list(words) for words in store.query_space.top_words(3)]  # type: ignore[attr-defined]
    assert sorted(list(topic.words) for topic in topics) == sorted(top_words)
    rows = np.asarray(store.rows, np.float64)
    rows /= rows.sum(axis=1, keepdims=True)
    texts = store.column("text")
    for topic in topics:
        number = top_words.index(list(topic.words))
        assert topic.share == pytest.approx(rows[:, number].mean(), abs=1e-3)
        assert topic.pictures[0].text == texts[int(rows[:, number].argmax())]
        assert len(topic.pictures) == 2 and all(picture.thumbnail for picture in topic.pictures)


def test_a_store_without_topics_says_so(make_store: MakeStore) -> None:
    with pytest.raises(InputError, match="is a wordvec store and has no topics"):
        topics_of(make_store("store"))


def test_answers_hold_pictures_or_the_reason_why_there_are_none(make_store: MakeStore) -> None:
    found, unknown, cancelled = ask(make_store("store"), "wordvec", ["beach + dog", "zxqv", "dog - dog"], k=3)
    assert len(found.pictures) == 3 and not found.note
    assert {"beach", "dog"} & set(found.pictures[0].text.split())
    assert not unknown.pictures and 'knows no word of "zxqv"' in unknown.note
    assert not cancelled.pictures and "cancels to nothing" in cancelled.note


def test_curves_are_read_from_a_run(road: Road) -> None:
    loss, recall = curves_of(road.folder / "run", "tiny")
    assert (loss.recipe, loss.figure, recall.figure) == ("tiny", "train/loss", "val/R@10")
    assert list(loss.steps) == [0, 1, 2, 3, 4, 5] and loss.values[-1] < loss.values[0]
    assert list(recall.steps) == [2, 5] and all(0 <= value <= 100 for value in recall.values)
    assert curves_of(road.folder / "run", "tiny", ["val/none"]) == []
    page = render(Report("demo", [], [], [], [], [loss, recall], []))
    assert page.count("<polyline") == 2


def test_the_page_of_a_whole_road_is_whole(road: Road) -> None:
    store = Store(road.folder / "store")
    answers = ask(store, "tiny", ["red + circle", "zxqv"], k=4)
    page = render(Report("road", ["45 drawings"], [row()], answers, [], curves_of(road.folder / "run", "tiny"), []))
    parsed = Page(page)
    assert len([source for source in parsed.attributes("src") if source.startswith("data:image/jpeg;base64,")]) == 4
