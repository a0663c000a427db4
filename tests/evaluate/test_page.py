from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np

from multimodal.evaluate.classes import Confusion
from multimodal.evaluate.page import SHOWN_CHARACTERS, render
from multimodal.evaluate.report import (
    Answered,
    Curve,
    Failures,
    Figure,
    HardTriplet,
    HardTriplets,
    HeatMap,
    LearningCurve,
    Lookup,
    MiningShares,
    Neighbours,
    NeighboursOf,
    Picture,
    Report,
    Scatter,
    Table,
    Topic,
    ask,
    curves_of,
    failures_of,
)
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.search.store import Store
from multimodal.shards import ShardSet

if TYPE_CHECKING:
    from tests.conftest import Road

MakeStore = Callable[..., Store]
HOSTILE = """<script>alert('x')</script> & "quoted" <img src=http://evil/x.png onerror=alert(1)>"""
JPEG = b"\xff\xd8\xff\xe0 a picture"


class Page(HTMLParser):
    """What a browser would make of it: the tags, their attributes, and the text."""

    VOID = ("meta", "img", "line", "polyline", "br", "input")

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

    def shown(self) -> str:
        """The text as a browser shows it, lines aside: blanks of any number are one."""
        return " ".join(self.text.split())

    def attributes(self, *names: str) -> list[str]:
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in names]


def row(recall_10: float = 40.0, seed: int = 0, control: bool = False, gallery: str = "unseen", recipe: str = "topic") -> RetrievalRow:
    return RetrievalRow(
        recipe=recipe,
        family="topic",
        trunk="pretrained",
        gallery=gallery,
        direction="text->image",
        num_pairs=240,
        num_queries=240,
        recall_1=5.0,
        recall_5=20.0,
        recall_10=recall_10,
        median_rank=17.0,
        mean_average_precision=13.0,
        chance_recall_10=4.2,
        low=30.0,
        high=41.0,
        seed=seed,
        control=control,
    )


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
        tables=[Table(text, text, [text, "mAP"], [[text, Figure(40.0, 8.3, 38.0, 42.0)], [text, text]])],
        learning=[LearningCurve(text, [10, 20], [20.0, 30.0], [18.0, 28.0], [22.0, 32.0], 4.2, figure=text)],
        failures=[Failures(text, text, 9, 9, *3 * [[Lookup(text, pictures[0], 2, pictures), Lookup(text, pictures[1], 9, (), note=text)]])],
        hard_triplets=[HardTriplets(text, text, 9, [HardTriplet(pictures[0], pictures[1], pictures[0], 0.75, 0.25)])],
        scatters=[
            Scatter(text, text, pictures[:1] * 3, [0, 1, 9], np.full((2, 3, 2), 0.25), [text, "50"], [1.0, 2.0]),
            Scatter(text, text, pictures, [0, 1], np.full((1, 2, 2), 0.25), [""], [1.0], is_ink=True),
        ],
        mining=[MiningShares(text, [1, 10, 100], [0.25, 0.5, 0.9], [0.5, 0.25, 0.1], [0.25, 0.25, 0.0])],
        neighbours=[Neighbours(text, [NeighboursOf(pictures[0], pictures, 1, text), NeighboursOf(pictures[1], pictures, None, text)])],
        heat_maps=[HeatMap(text, Confusion([text, "b"], np.array([[0.75, 0.25], [0.5, 0.5]])), text, text, np.array([0.5, 0.5]))],
    )


def test_the_page_holds_everything_it_shows() -> None:
    page = Page(render(full_report("dog")))
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    sources = page.attributes("src", "href", "srcset", "xlink:href", "action", "poster")
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "@import" not in page.text and page.text.count("url(") == page.text.count("url(data:image/jpeg;base64,") == 1, (
        "each picture once"
    )
    assert base64.b64decode(sources[0].partition("base64,")[2]) == JPEG


def test_a_scatter_moves_without_scripts_and_only_if_asked() -> None:
    moments = [f"step {number}" for number in (0, 10, 1200)]
    places = np.array([[[0.5, 0.5]] * 2, [[0.25, 1.0], [0.0, 0.75]], [[0.1, 0.2], [0.9, 0.3]]])
    one = Scatter("digits", "", [Picture(JPEG, "7"), Picture(JPEG, "8")], [0, 1], places, moments, [1.0, 2.0, 3.0])
    page = Page(render(Report("demo", [], [], [], [], [], [], scatters=[one])))
    dots = [attributes for tag, attributes in page.tags if tag == "i"]
    assert [dot["title"] for dot in dots] == ["7", "8"] and len({dot["class"] for dot in dots}) == 2
    assert dots[0]["style"] == "--m0:50.0cqw 50.0cqw;--m1:25.0cqw 0.0cqw;--m2:10.0cqw 80.0cqw;", "from above, as a page counts"
    chosen = ["checked" in attributes for tag, attributes in page.tags if tag == "input"]
    assert chosen == [False, False, True, False], "the last moment; all in turn is the last choice"
    assert all(moment in page.text for moment in moments)
    still, moving = page.text.partition("@media (prefers-reduced-motion: no-preference)")[::2]
    assert "@keyframes" not in still and moving.count("@keyframes course3") == 1


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
    rows = [row(30.0), row(36.0, seed=1), row(4.5, control=True), row(70.0, gallery="noto"), row(70.0, gallery="noto", seed=1)]
    page = Page(render(Report("demo", [], rows, [], [], [], [])))
    assert "33.0" in page.text and "30.0–36.0" in page.text
    assert "4.2" in page.text and "4.5" in page.text
    assert "mean over 2 seeds" in page.text
    bars = [style for style in page.attributes("style") if style.startswith("width:")]
    assert [bar.partition(";")[0] for bar in bars] == ["width:33.0%", "width:70.0%"]
    assert page.text.index("unseen") < page.text.index("noto")


def test_one_seed_among_several_is_explained_to_have_an_interval() -> None:
    assert "one seed, with its 95 % interval" in Page(render(Report("demo", [], [row()], [], [], [], []))).text
    page = Page(render(Report("demo", [], [row(), row(seed=1), row(recipe="other")], [], [], [], [])))
    assert "mean over seeds, with the smallest and largest; for a single seed, its 95 % interval" in page.text


def cells_of(page: str, recipe: str) -> list[str]:
    """The texts of the cells in the row of a recipe."""
    line = next(line for line in re.findall("<tr>(.*?)</tr>", page) if line.startswith(f'<td title="{recipe}">'))
    return [re.sub("<[^>]*>", "", cell).replace("&ndash;", "–") for cell in re.findall("<td[^>]*>(.*?)</td>", line)]


def test_both_directions_stand_side_by_side_each_with_its_controls() -> None:
    there = [row(40.0), row(3.0, control=True), replace(row(11.0), trunk="random"), replace(row(2.0, control=True), trunk="random")]
    back = [replace(one, direction="image->text", recall_10=one.recall_10 + 1, num_queries=48) for one in there]
    page = render(Report("demo", [], [*there, *back, row(50.0, recipe="alone")], [], [], [], []))
    assert cells_of(page, "topic") == [
        *("topic", "240"),
        *("5.0", "20.0", "40.0 30.0–41.0", "4.2", "3.0", "11.0", "17"),
        *("5.0", "20.0", "41.0 30.0–41.0", "4.2", "4.0", "12.0", "17"),
    ]
    assert cells_of(page, "alone") == ["alone", "240", "5.0", "20.0", "50.0 30.0–41.0", "4.2", "–", "–", "17", *7 * "–"]
    heads = re.findall("<th[^>]*>([^<]*)</th>", page)
    assert [head for head in heads if "→" in head] == ["text → image", "image → text"] and heads.count("random trunk") == 2
    assert "image → text: 48 queries" in page
    assert "random trunk" not in render(Report("demo", [], [row()], [], [], [], []))


def test_trunks_of_several_kinds_are_rows_of_their_own() -> None:
    page = render(Report("demo", [], [row(40.0), replace(row(30.0), trunk="resnet18")], [], [], [], []))
    assert cells_of(page, "topic (pretrained)")[4].startswith("40.0")
    assert cells_of(page, "topic (resnet18)")[4].startswith("30.0")


def test_a_random_trunk_with_nothing_beside_it_is_shown_as_what_it_is() -> None:
    page = render(Report("demo", [], [replace(row(11.0), trunk="random")], [], [], [], []))
    assert cells_of(page, "topic")[4].startswith("11.0")


def test_a_report_of_nothing_is_a_page_with_a_title() -> None:
    page = Page(render(Report("demo", [], [], [], [], [], [])))
    assert "demo" in page.text and "h2" not in {tag for tag, _ in page.tags}


def test_a_long_text_is_cut_and_whole_where_the_pointer_is_held() -> None:
    long = " ".join(f"word{number}" for number in range(100))
    failures = Failures("topic", "unseen", 9, 9, [Lookup(long, Picture(JPEG, long), 9, ())], [], [])
    page = Page(render(replace(full_report("dog"), failures=[failures])))
    assert long in page.attributes("title") and long not in page.text
    assert long[:100] in page.text
    assert all(len(alt) <= SHOWN_CHARACTERS for alt in page.attributes("alt"))


def test_a_failure_shows_its_rank_beside_chance_and_frames_the_own_picture_among_those_found() -> None:
    pictures = [Picture(JPEG, text) for text in ("wrong", "right", "other")]
    near, best = Lookup("a dog", pictures[1], 2, pictures), Lookup("a cat", pictures[0], 1, ())
    failures = Failures("topic", "unseen", 1200, 1001, [], [near], [best])
    page = Page(render(Report("demo", [], [], [], [], [], [], failures=[failures])))
    assert "2 of 1,001" in page.shown() and "1,200 texts, 1,001 pictures; the median rank by chance is 501" in page.shown()
    pictures_shown = [attributes for tag, attributes in page.tags if tag == "img"]
    framed = [attributes["title"] for attributes in pictures_shown if "own" in attributes["class"].split()]
    assert framed == ["right", "right"] and len(pictures_shown) == 5
    assert "Near misses" in page.text and "Best" in page.text and "Worst" not in page.text


def test_a_heat_map_marks_its_diagonal_and_ends_in_chance() -> None:
    shares = np.array([[0.5, 0.496, 0.004], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    heat_map = HeatMap("topic", Confusion(["a", "b", "c"], shares), "asked", "found", np.array([0.25, 0.25, 0.5]))
    page = render(Report("demo", [], [], [], [], [], [], heat_maps=[heat_map]))
    cells = re.findall(r'<td( class=own)? style="--share:(\d+)%"[^>]*>([^<]*)</td>', page)
    assert [number for _, _, number in cells] == ["50", "50", "", "20", "80", "", "", "", "100", "25", "25", "50"]
    assert [at for at, (own, _, _) in enumerate(cells) if own] == [0, 4, 8]
    assert [share for _, share, _ in cells[:4]] == ["50", "50", "0", "20"]
    assert "Own class, mean over rows: 76.7; by chance 33.3" in Page(page).shown()


def test_a_table_draws_its_figures_beside_chance() -> None:
    table = Table("Classes", "note", ["recipe", "mAP", "gain"], [["topic", Figure(3.0, 1.0, 2.5, 3.5, top=4.0), Figure(9.0, 0.0, top=4.0)]])
    page = Page(render(Report("demo", [], [], [], [], [], [], tables=[table])))
    assert "3.0 2.5–3.5" in page.text and "chance 1.0" in page.text
    assert [style.partition(";")[0] for style in page.attributes("style")] == ["width:75.0%", "left:25.0%", "width:100.0%", "left:0.0%"]


def test_learning_curves_say_what_the_last_doubling_gave() -> None:
    curves = [
        LearningCurve("topic", [750, 1500, 6000], [10.0, 14.0, 20.0], [9.0, 13.0, 19.0], [11.0, 15.0, 21.0], 1.0),
        LearningCurve("wordvec", [750, 1500, 6000], [10.0, 14.0, 12.0], [9.0, 13.0, 11.0], [11.0, 15.0, 13.0], 1.0),
    ]
    page = render(Report("demo", [], [], [], [], [], [], learning=curves))
    assert "R@10 at 1/8, 1/4 and all of 6,000 training pairs." in page
    assert "From 1,500 to 6,000, for each doubling: topic +3.0, wordvec -1.0." in page
    assert page.count("<polyline") == 2 and page.count("<circle") == 6 and ">chance 1.0</text>" in page


def test_photographs_are_drawn_larger_than_emoji() -> None:
    large, small = (render(replace(full_report("dog"), photographs=photographs)) for photographs in (True, False))
    assert '<body class="report photographs">' in large and '<body class="report drawings">' in small


def test_the_page_of_a_whole_road_is_whole(road: Road) -> None:
    store = Store(road.folder / "store")
    answers = ask(store, "tiny", ["red + circle", "zxqv"], k=4)
    page = render(Report("road", ["45 drawings"], [row()], answers, [], curves_of(road.folder / "run", "tiny"), []))
    parsed = Page(page)
    assert len([source for source in parsed.attributes("src") if source.startswith("data:image/jpeg;base64,")]) == 4


def test_a_page_of_failures_shows_thumbnails_of_the_store(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store", np.random.default_rng(0).permutation(200))
    found = failures_of(store, shards, np.arange(200), num=3, num_found=2)
    page = Page(render(Report("demo", [], [], [], [], [], [], failures=[found])))
    shown = len(found.best) + sum(1 + len(one.found) for one in [*found.worst, *found.near])
    assert len([source for source in page.attributes("src") if source.startswith("data:image/jpeg;base64,")]) == shown >= 18


def test_points_of_a_learning_curve_that_are_missing_are_said_on_the_page() -> None:
    report = Report("demo", [], [], [], [], [], [], not_measured=["topic on 0.25 of the training pairs (preflight: <no>)"])
    assert "<p>Not measured: topic on 0.25 of the training pairs (preflight: &lt;no&gt;).</p>" in render(report)
