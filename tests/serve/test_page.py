"""The page in a real browser: what people do with it, by mouse, by keyboard and by address, wide and narrow, in light and in dark."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from multimodal.search.places import are_inside
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.serve.app import make_app
from multimodal.serve.served import Stores
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace
from tests.serve.browsing import DESK, HAND, Visit, served, visiting

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 200)}
WORDS = (*COLOURS, "dog", "cat", "beach", "snow", "night")
NUM = 600
CAMERAS = ('X "100"', "EOS, R5", "Pixel 7", None)
SIZES = ((96, 64), (64, 96), (72, 72))
VECTORS = np.eye(len(WORDS), 12, dtype=np.float32) + 0.03
EVIL = '<img src=x onerror="document.title=1"><b>bold</b>'


class MeanColour:
    """An image tower for these pictures: how red, green and blue one is."""

    fingerprint = "e" * 64

    def picture(self, image: Image.Image) -> np.ndarray:
        mean = np.asarray(image.convert("RGB"), np.float32).mean(axis=(0, 1))
        return (mean - mean.min()) @ VECTORS[:3]


def drawn(words: list[str], number: int) -> bytes:
    """A picture of its words: a ground of its colour, with a mark for each other word."""
    image = Image.new("RGB", SIZES[number % 3], COLOURS[words[0]])
    for word in words[1:]:
        place = 6 * WORDS.index(word) + number % 5
        image.paste((240, 240, 240), (place, place, place + 9, place + 9))
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90)
    return file.getvalue()


def write_store(path: Path, space: Path, random: np.random.Generator) -> None:
    create_store(path, space, family="wordvec", export=MeanColour.fingerprint)
    words = [[WORDS[id % 3], WORDS[3 + id % 2], WORDS[5 + id // 7 % 3]] for id in range(NUM)]
    rows = np.stack([VECTORS[[WORDS.index(word) for word in some]].sum(axis=0) for some in words])
    rows += 0.1 * random.standard_normal(rows.shape)
    rows[6] = rows[0]  # a copy, to be folded
    metadata = {
        "name": [f"IMG_{id}.jpg" for id in range(NUM)],
        "text": [EVIL if id == 0 else f"a {' '.join(some)}" for id, some in enumerate(words)],
        "camera": [CAMERAS[id % 4] for id in range(NUM)],
        "date": [datetime(2018 + id % 6, 1 + id % 12, 1 + id % 28) for id in range(NUM)],
        "width": [SIZES[id % 3][0] for id in range(NUM)],
        "height": [SIZES[id % 3][1] for id in range(NUM)],
    }
    with StoreWriter(path) as writer:
        writer.append(Segment(np.arange(NUM), rows, metadata, [drawn(some, id) for id, some in enumerate(words)]))
        writer.calibrate()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with two stores of the same pictures, which takes pictures."""
    folder = tmp_path_factory.mktemp("page")
    WordSpace(Normaliser(), Vocabulary(WORDS, np.arange(1, len(WORDS) + 1), 9), VECTORS).save(folder / "space")
    for name, seed in (("first", 0), ("second", 1)):
        write_store(folder / name, folder / "space", np.random.default_rng(seed))
    stores = Stores({name: Store(folder / name) for name in ("first", "second")}, {"first": MeanColour()})  # type: ignore[dict-item]
    with served(make_app(stores)) as address:
        yield address


@pytest.fixture(params=[DESK], ids=["desk"])
def visit(request: pytest.FixtureRequest, site: str, browser: Browser) -> Iterator[Visit]:
    with visiting(site, browser, request.param) as made:
        yield made


def test_what_is_typed_becomes_chips_and_pictures(visit):
    page = visit.open()
    visit.type("red + beach")
    assert visit.labels == ["red", "beach"] and visit.asked == {"q": "red + beach"}
    assert all("red" in visit.text_of(id) and "beach" in visit.text_of(id) for id in visit.ids(8) if id)
    visit.type("red + beach without dog")
    assert visit.labels == ["red", "beach", "without dog"]
    assert sum("dog" in visit.text_of(id) for id in visit.ids(8)) < 3 < sum("cat" in visit.text_of(id) for id in visit.ids(8))
    page.fill("#q", "red + (beach")
    page.wait_for_selector("#error")
    assert "this parenthesis is never closed" in page.inner_text("#error") and visit.labels == ["red", "beach", "without dog"]
    visit.type("red + (beach)")
    assert page.locator("#error").count() == 0


def test_an_unknown_word_is_marked_and_its_spelling_is_one_click_away(visit):
    page = visit.open()
    visit.type("red + beech")
    page.click(".chip.unknown .spelling >> text=beach")
    visit.shows("red + beach")
    assert visit.labels == ["red", "beach"] and page.input_value("#q") == "red + beach"


def test_a_slider_weights_a_term_and_back_undoes_it(visit):
    page = visit.open(f"?q={quote('red + snow')}")
    visit.shows("red + snow")
    slider = page.get_by_label("Weight of snow")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    visit.shows("red + 1.5*snow")
    assert page.input_value("#q") == "red + 1.5*snow" and page.evaluate("document.activeElement.type") == "range"
    slider.blur()
    page.go_back()
    visit.shows("red + snow")


def test_a_chip_excludes_and_swaps_its_term(visit):
    page = visit.open(f"?q={quote('red + snow')}")
    visit.shows("red + snow")
    page.click('.chip:has-text("snow") [data-does=without]')
    visit.shows("red without snow")
    page.click('.chip:has-text("snow") [data-does=want]')
    visit.shows("red + snow")
    page.click('.chip:has-text("snow") [data-does=instead]')
    page.fill(".chip .old", "night")
    page.press(".chip .old", "Enter")
    visit.shows("red + snow instead of night")
    page.click(".chip [data-does=reverse]")
    visit.shows("red + night instead of snow")
    page.click('.chip:has-text("red") [data-does=remove]')
    visit.shows("night instead of snow")


def test_a_suggestion_is_added_by_a_click(visit):
    page = visit.open()
    visit.type("red")
    page.wait_for_selector("#near .suggestion")
    word = page.locator("#near .suggestion").first.inner_text()
    page.locator("#near .suggestion").first.click()
    visit.shows(f"red + {word}")


@pytest.mark.parametrize("way", ["chosen", "dropped", "pasted"])
def test_a_picture_becomes_a_term(visit, way):
    page = visit.open()
    picture = drawn(["blue"], 0)
    if way == "chosen":
        page.set_input_files("#file", {"name": "sea.jpg", "mimeType": "image/jpeg", "buffer": picture})
    else:
        data = page.evaluate_handle(
            """bytes => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], 'sea.jpg', {type: 'image/jpeg'}));
                return data;
            }""",
            list(picture),
        )
        name = "dataTransfer" if way == "dropped" else "clipboardData"
        if way == "dropped":
            page.dispatch_event("main", "drop", {name: data})
        else:
            page.evaluate("data => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}))", data)
    page.wait_for_selector('.chip .face[src^="blob:"]')
    assert re.fullmatch("image:up-[0-9a-f]{16}", visit.asked["q"])
    visit.shows(visit.asked["q"])
    assert all("blue" in visit.text_of(id) for id in visit.ids(8))


def test_a_store_without_a_tower_says_so(visit):
    page = visit.open("?store=second")
    page.set_input_files("#file", {"name": "sea.jpg", "mimeType": "image/jpeg", "buffer": drawn(["blue"], 0)})
    page.wait_for_selector("#toast")
    assert "--export" in page.inner_text("#toast")


def test_a_hit_opens_large_with_what_is_known_of_it(visit):
    page = visit.open(f"?q={quote('red + beach')}")
    visit.shows("red + beach")
    first, second = visit.ids(2)
    page.click(f'.tile[data-id="{first}"]')
    page.wait_for_selector(".viewer[open] .facts-table")
    assert page.locator(".viewer .why rect").count() >= 2 and "camera" in page.inner_text(".facts-table")
    assert page.locator(".viewer .words li").count() > 0
    page.keyboard.press("ArrowRight")
    page.wait_for_function("id => location.hash === `#picture=${id}`", arg=second)
    page.keyboard.press("Escape")
    page.wait_for_selector(".viewer:not([open])", state="attached")
    assert page.evaluate("document.activeElement.closest('.tile')?.dataset.id") == str(second) and "#" not in page.url
    page.click(f'.tile[data-id="{first}"]')
    page.wait_for_selector(".viewer[open]")
    page.go_back()
    page.wait_for_selector(".viewer:not([open])", state="attached")


@pytest.mark.parametrize(
    ("button", "query"), [("More like this", "image:{}"), ("Less like this", "red without image:{}"), ("Add as term", "red + image:{}")]
)
def test_a_hit_becomes_a_query(visit, button, query):
    page = visit.open("?q=red")
    visit.shows("red")
    [first] = visit.ids(1)
    page.click(f'.tile[data-id="{first}"]')
    page.click(f".viewer >> text={button}")
    visit.shows(query.format(first))
    assert not page.locator(".viewer[open]").count()


def test_judging_and_taking_it_back(visit):
    page = visit.open("?q=green")
    visit.shows("green")
    first, second, *_ = visit.ids(2)
    page.click(f'.tile[data-id="{first}"]')
    page.wait_for_selector(".viewer[open]")
    page.keyboard.press("y")
    page.wait_for_selector('.viewer .yes[aria-pressed="true"]')
    page.keyboard.press("ArrowRight")
    page.click(".viewer .no")
    page.wait_for_selector('.viewer .no[aria-pressed="true"]')
    page.wait_for_selector("#toast")
    page.reload()
    page.wait_for_selector(f'.tile[data-id="{first}"] .judged.yes', state="attached")
    page.wait_for_selector(f'.tile[data-id="{second}"] .judged.no', state="attached")
    page.focus(f'.tile[data-id="{second}"]')  # not Escape, which may go to the line, where u is a letter
    page.keyboard.press("u")
    page.wait_for_selector(f'.tile[data-id="{second}"] .judged', state="detached")
    assert page.locator(f'.tile[data-id="{first}"] .judged.yes').count() == 1


def test_everything_by_keyboard_alone(visit):
    page = visit.open()
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("blue + night")
    visit.shows("blue + night")
    page.keyboard.press("ArrowDown")
    first, second = visit.ids(2)
    focused = "document.activeElement.closest('.tile')?.dataset.id"
    assert page.evaluate(focused) == str(first)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == str(second)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_selector(".viewer[open] .facts-table")
    page.keyboard.press("m")
    visit.shows(f"image:{first}")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    page.wait_for_selector(".keys[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector(".keys:not([open])", state="attached")


def test_facets_write_the_filter_and_the_filter_can_be_typed(visit):
    page = visit.open("?q=red")
    visit.shows("red")
    page.click("#filters")
    page.click('.facet[data-column=camera] label:has-text("EOS, R5")')
    visit.asks("where", 'camera = "EOS, R5"')
    page.click(".facet[data-column=camera] label:has-text('X \"100\"')")
    visit.asks("where", 'camera in ("EOS, R5", "X ""100""")')
    page.click('.facet[data-column=date] .bin[aria-label^="2019"]')
    visit.asks("where", 'camera in ("EOS, R5", "X ""100""") and date = 2019')
    page.wait_for_function(
        "() => {const all = [...document.querySelectorAll('.tile[data-id]')].map(one => one.dataset.id);"
        "return all.length && all.every(id => id % 4 < 2 && id % 6 === 1)}"
    )
    page.fill("#where", "date = 2020")
    page.press("#where", "Enter")
    page.wait_for_function("() => [...document.querySelectorAll('.tile[data-id]')].every(one => one.dataset.id % 6 === 2)")
    page.go_back()
    page.wait_for_function("""() => document.getElementById('where').value.startsWith('camera in')""")


def test_order_cut_off_and_folding(visit):
    page = visit.open("?q=red")
    visit.shows("red")
    page.select_option("#order", "-date")
    page.wait_for_function("() => document.querySelector('.tile').dataset.id % 6 === 5")
    page.select_option("#order", "")
    page.check("#fold")
    page.wait_for_selector(".tile .like", state="attached")
    page.focus("#cut-off")
    page.keyboard.press("Home")
    visit.asks("cut_off", "0.05")
    assert "fewer than 5 %" in page.inner_text("#cut-off-words")
    page.goto(f"{visit.site}?q=red&where={quote('date = 1999')}")
    page.wait_for_selector("#empty:not([hidden]) button")
    page.click("#empty button")
    visit.shows("red")
    page.wait_for_selector(".tile[data-id]")
    assert visit.asked == {"q": "red"}


def test_the_grid_is_endless_and_holds_what_is_on_the_screen(visit):
    page = visit.open("?q=red")
    visit.shows("red")
    page.wait_for_function(
        """() => {
            scrollTo(0, document.body.scrollHeight);
            const last = [...document.querySelectorAll('.tile[data-id]')].at(-1);
            return last?.ariaPosInSet === '600' && last.ariaSetSize === '600';
        }"""
    )
    assert page.locator(".tile").count() < NUM / 2


def test_stores_side_by_side(visit):
    page = visit.open("?q=red&view=columns")
    page.wait_for_function("() => [...document.querySelectorAll('.column-hits')].map(one => one.children.length).join() === '24,24'")
    page.select_option("[aria-label='Store of column 2']", "first")
    page.select_option("[aria-label='How column 2 combines terms']", "sum")
    visit.asks("columns", "first,first:sum")
    page.locator(".column-hits button").first.click()
    page.wait_for_selector(".viewer[open] .facts-table")


def test_an_address_shares_everything_and_the_command_says_the_same(visit):
    page = visit.open()
    visit.type("red + 2*snow without dog")
    page.check("#fold")
    visit.asks("fold", "true")
    address = page.url
    page.click("#copy-command")
    page.wait_for_selector("#toast")
    other = page.context.new_page()
    other.goto(address)
    other.wait_for_selector(".chip >> nth=2")
    assert other.input_value("#q") == "red + 2*snow without dog" and other.is_checked("#fold")
    other.close()
    page.go_back()
    visit.asks("fold", None)
    assert not page.is_checked("#fold")
    page.go_forward()
    page.wait_for_function("() => document.getElementById('fold').checked")


def test_markup_in_a_caption_is_text(visit):
    page = visit.open("?q=red#picture=0")
    page.wait_for_selector(".viewer[open] .facts-table")
    assert page.inner_text(".viewer h2") == EVIL and page.locator(".viewer b").count() == 0 and page.title() == "red"


def test_a_stale_answer_is_never_shown(visit):
    page = visit.open("?q=red")
    visit.shows("red")
    held = []
    page.route(re.compile("api/search.*q=green"), lambda route: held.append(route))
    page.fill("#q", "green")
    page.wait_for_function("() => location.search === '?q=green'")
    visit.type("blue")
    for route in held:
        route.continue_()
    page.wait_for_load_state("networkidle")
    assert page.locator(".sheet").get_attribute("data-query") == "blue" and all(id % 3 == 2 for id in visit.ids(8))


def test_a_server_that_is_not_ready_is_asked_again_and_one_that_stays_so_when_somebody_says(visit):
    page, refusals = visit.page, {"stores": 1, "typed": 3}

    def answer(route):
        name = urlsplit(route.request.url).path.removeprefix("/api/")
        if refusals.get(name):
            refusals[name] -= 1
            return route.fulfill(status=503, json={"error": "not answered within 10 s", "position": None})
        return route.fallback()

    page.route("**/api/*", answer)
    page.goto(f"{visit.site}?q=red")
    page.click("#error >> text=Try again")
    visit.shows("red")
    page.wait_for_selector("#order option >> nth=2", state="attached")
    assert not page.locator("#error").count() and len(visit.wrong) == 4 and all("503" in told for told in visit.wrong)
    visit.wrong.clear()


@pytest.mark.parametrize(("visit", "scheme"), [(DESK, "light"), (HAND, "dark")], ids=["desk, light", "hand, dark"], indirect=["visit"])
def test_axe_finds_no_serious_fault_and_nothing_is_wider_than_the_screen(visit, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    visit.page.emulate_media(color_scheme=scheme)
    page = visit.open()
    page.wait_for_selector(".example img")
    faults = [("start", axe.run(page))]
    visit.type("red + beech without snow")
    page.click("#filters")
    page.wait_for_selector(".facet")
    for seen in ("light", "dark"):
        page.emulate_media(color_scheme=seen)
        faults.append((f"found, {seen}", axe.run(page)))
    page.emulate_media(color_scheme=scheme)
    page.click("#facets [aria-label='Close the filters']")
    page.click(".tile >> nth=1")
    page.wait_for_selector(".viewer[open] .facts-table")
    faults.append(("large", axe.run(page)))
    page.goto(f"{visit.site}?q=red&view=columns")
    page.wait_for_selector(".column-hits img")
    faults.append(("side by side", axe.run(page)))
    on_map(visit, "&q=red")
    page.wait_for_selector(".map-names span", state="attached")
    page.click(".map-listing summary")
    for seen in ("light", "dark"):
        page.emulate_media(color_scheme=seen)
        faults.append((f"map, {seen}", axe.run(page)))
    serious = [
        (where, fault["id"], [node["html"] for node in fault["nodes"]])
        for where, found in faults
        for fault in found.response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert not serious
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_colours_can_be_chosen_and_are_kept(visit):
    visit.page.emulate_media(color_scheme="light")
    page = visit.open()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    for _ in range(2):
        page.click("#theme")
    dark = page.evaluate(ground)
    page.reload()
    assert dark != light and page.evaluate(ground) == dark


def test_without_script_the_page_is_a_form_with_pictures(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}?q={quote('red + beach')}&fold=true")
    assert page.locator(".hits img").count() == 48 and page.is_checked("[name=fold]")
    page.fill("#q", "blue")
    page.click("#go")
    assert "q=blue" in page.url and "fold=true" in page.url and page.locator(".hits img").count() == 48
    context.close()


# -- the map -------------------------------------------------------------------------------------------------------------------------------


def on_map(visit: Visit, address: str = "") -> Page:
    page = visit.open(f"?view=map{address}")
    page.wait_for_function("() => performance.getEntriesByName('map-drawn').length > 0")
    return page


def kept_by(site: str, where: str) -> set[int]:
    """Ids of the pictures that meet a filter, by the API."""
    reply = json.loads(urlopen(f"{site}api/search?k=1000&q=red&where={quote(where)}").read())
    return {hit["id"] for hit in reply["hits"]}


def places(page: Page) -> dict[int, tuple[float, float]]:
    """Id -> x and y from 0 to 1, as the API sends them."""
    content = page.evaluate("async () => [...new Uint8Array(await (await fetch('api/map')).arrayBuffer())]")
    start = 8 + int.from_bytes(bytes(content[4:8]), "little")
    rest = np.array(content[start:], np.uint8).tobytes()
    points = np.frombuffer(rest, "<u2", 2 * NUM, 4 * NUM).reshape(-1, 2) / 65535
    return dict(zip(np.frombuffer(rest, "<u4", NUM).tolist(), map(tuple, points.tolist()), strict=True))


def test_the_map_names_its_regions_and_shows_where_the_query_is(visit):
    page = on_map(visit, f"&q={quote('red without snow')}")
    page.wait_for_selector(".map-pin b >> nth=1")
    assert sorted(page.locator(".map-pin b").all_inner_texts()) == ["red", "− snow"]
    page.wait_for_function("() => /600 pictures.*words are where their/.test(document.querySelector('.map-status').textContent)")
    page.wait_for_selector(".map-names span:not(.map-covered)")
    assert set(" ".join(page.locator(".map-names span").all_inner_texts()).replace(",", "").split()) <= set(WORDS)


def test_the_map_is_moved_and_zoomed_by_mouse_and_keys(visit):
    page = on_map(visit, "&q=red")
    pin = page.locator(".map-pin").first

    def where() -> tuple[float, float]:
        page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        box = pin.locator("i").bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    canvas = page.locator(".map-canvas").bounding_box()
    assert canvas is not None
    middle = (canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2)
    page.wait_for_selector(".map-pin b")
    x, y = where()
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 90, middle[1] + 40, steps=4)
    page.mouse.up()
    moved = where()
    assert moved == pytest.approx((x + 90, y + 40), abs=3)
    page.mouse.move(*moved)
    page.mouse.wheel(0, -300)
    assert where() == pytest.approx(moved, abs=3)  # what is under the pointer stays there
    page.focus(".map-canvas")
    page.keyboard.press("0")
    assert where() == pytest.approx((x, y), abs=3)
    page.keyboard.press("ArrowRight")
    assert where() == pytest.approx((x - 80, y), abs=3)


def test_what_is_drawn_around_is_a_filter_in_words(visit):
    page = on_map(visit)
    box = page.locator(".map-canvas").bounding_box()
    assert box is not None
    page.click("text=Lasso")
    corners = [(0.2, 0.15), (0.5, 0.1), (0.55, 0.85), (0.25, 0.9), (0.2, 0.15)]
    path = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*path[0])
    page.mouse.down()
    for spot in path[1:]:
        page.mouse.move(*spot, steps=6)
    page.mouse.up()
    page.wait_for_function("() => new URLSearchParams(location.search).get('where')?.startsWith('map inside')")
    where = visit.asked["where"]
    drawn = [[float(value) / 1000 for value in corner.split()] for corner in where.split(":")[1].strip(' "').split(",")]
    inside = are_inside(np.array(list(places(page).values())), np.array(drawn))
    assert kept_by(visit.site, where) == {id for id, is_in in zip(places(page), inside, strict=True) if is_in}
    assert 0 < inside.sum() < NUM
    page.click(".map-tools >> text=Clear")
    visit.asks("where", None)


def test_the_map_without_a_mouse(visit):
    page = on_map(visit, f"&where={quote('width = 96')}")
    page.wait_for_selector(".map-names span")
    page.click(".map-listing summary")
    page.locator(".map-keep").first.press("Enter")
    page.wait_for_function("() => new URLSearchParams(location.search).get('where')?.includes(' and map inside')")
    assert visit.asked["where"].startswith("width = 96 and map inside")
    page.focus(".map-canvas")
    page.keyboard.press("Escape")
    visit.asks("where", "width = 96")
    page.keyboard.press("+")
    page.keyboard.press("k")
    page.wait_for_function("() => new URLSearchParams(location.search).get('where')?.includes(' and map inside')")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.startsWith('#picture=')")


def test_without_webgl_the_map_says_so(site, browser):
    context = browser.new_context(viewport=DESK)
    page = context.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(f"{site}?view=map&q=red")
    page.wait_for_selector(".map-sorry")
    assert "needs WebGL2" in page.inner_text(".map-sorry")
    context.close()
