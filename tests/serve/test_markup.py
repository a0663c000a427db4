"""Markup in every name, caption, word, column, path, query and judgement is text in every view, served or in a file of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pytest

from multimodal import cli
from multimodal.boxes import fingerprint_bytes
from multimodal.evaluate.page import render as render_report
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.where import quoted as filter_value
from multimodal.search.writing import StoreWriter, create_store
from multimodal.serve.app import make_app
from multimodal.serve.served import Stores
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.topics import TopicSpace
from multimodal.text.words import WordSpace
from tests.evaluate.test_page import full_report
from tests.serve.browsing import HAND, Visit, served, visiting
from tests.serve.stores import encoded
from tests.test_pages import hits_page, look_alikes_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

EVIL = """<x-evil onclick=x><img src=x onerror="document.title='ran'"><script>ran=1</script>'&lt;{{7*7}}"""
"""No blank in its tag's name, so that a vocabulary's word can be like it; no slash in front of a quote."""
WORD = EVIL.replace(" ", "\N{NO-BREAK SPACE}")
WORDS = ("red", "dog", WORD, f"{WORD}ed", "__proto__", "constructor", "2024", "beach")
PHRASE = f"“red {EVIL}”"
"""A term of a query: a word that is known, and the markup, which is left out."""
NUM = 48
DIM = 12
TRACES = """() => [...document.querySelectorAll('x-evil, img[src="x"], script:not([src]), [onclick], [onerror]')].map(one => one.outerHTML)
    .concat(globalThis.ran ? ['it ran'] : []).concat(document.title === 'ran' ? ['its handler ran'] : [])"""


def columns(folder: Path) -> dict[str, list]:
    """Of the pictures, with markup in each name and value, and names that JavaScript's objects have."""
    inside = EVIL.replace("/", "|")
    return {
        "name": [f"{EVIL}{id}.jpg" for id in range(NUM)],
        "text": [f"{EVIL} {id}" for id in range(NUM)],
        EVIL: [f"{EVIL}{id % 3}" for id in range(NUM)],
        "__proto__": ["polluted"] * NUM,
        "constructor": [f"{EVIL}{id % 2}" for id in range(NUM)],
        "exif:make": [f"make {id // 2 % 2}" for id in range(NUM)],
        "folder": [str(folder)] * NUM,
        "path": [f"{inside}{id % 2}/{id}.jpg" for id in range(NUM)],
        "content": [fingerprint_bytes(encoded(id)) for id in range(NUM)],
        "size": [len(encoded(id)) for id in range(NUM)],
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One of a folder of files in a space of words, one of topics."""
    folder = tmp_path_factory.mktemp("markup")
    photos = folder / EVIL.replace("/", "|")
    held = columns(photos)
    for id, path in enumerate(held["path"]):
        (photos / path).parent.mkdir(parents=True, exist_ok=True)
        (photos / path).write_bytes(encoded(id))
    random = np.random.default_rng(0)
    normaliser, vocabulary = Normaliser(), Vocabulary(WORDS, np.arange(1, len(WORDS) + 1), 9)
    vectors = np.eye(len(WORDS), DIM, dtype=np.float32) + 0.03
    WordSpace(normaliser, vocabulary, vectors).save(folder / "words")
    topics = random.dirichlet(np.full(len(WORDS), 0.2), size=DIM).astype(np.float32)
    TopicSpace(normaliser, vocabulary, topics, np.full(DIM, 0.1, np.float32)).save(folder / "topics")
    settings = {"pictures": {"folders": [str(photos)], "export": EVIL}}
    rows = {"words": vectors[np.arange(NUM) % len(WORDS)] + 0.05 * random.standard_normal((NUM, DIM))}
    rows["topics"] = random.dirichlet(np.full(DIM, 0.3), size=NUM)
    for family in rows:
        create_store(folder / family[0], folder / family, family=EVIL if family == "words" else "topic", export="e" * 64, settings=settings)
        with StoreWriter(folder / family[0]) as writer:
            writer.append(Segment(np.arange(NUM), rows[family], held, [encoded(id) for id in range(NUM)]))
            writer.calibrate()
    return folder / "w", folder / "t"


@pytest.fixture(scope="module")
def site(stores: tuple[Path, Path]) -> Iterator[str]:
    with served(make_app(Stores.open([f"words={stores[0]}", f"topics={stores[1]}"]))) as address:
        yield address


def with_markup(route: Route) -> None:
    """The server's reply, with markup for each word that is near, and for each region's name."""
    reply = route.fetch()
    told = reply.json()
    for level in told.get("levels", []):
        for region in level:
            region |= {"name": EVIL, "words": [[EVIL, 1.0]]}
    typed = told.get("terms", {})
    for part in typed.get("parts", []):
        part["spellings"] = [] if part["known"] else [EVIL]
    if typed:
        typed["suggestions"] = [{"text": EVIL, "why": EVIL}]
    if "words" in told:
        told["words"] = [{"text": EVIL, "score": 1.0}]
    route.fulfill(response=reply, json=told)


def only_refusals(visit: Visit) -> None:
    """Nothing went wrong but what was asked for wrongly, which a browser tells as errors: not a word of a policy that was broken."""
    assert all("status of 40" in told for told in visit.wrong), visit.wrong
    visit.wrong.clear()


def assert_text(page: Page, *selectors: str, least: int = 1) -> None:
    """In each of these the markup can be read, and nowhere in the document did it become anything else."""
    for selector in selectors:
        page.wait_for_selector(selector, state="attached")
        texts = page.locator(selector).evaluate_all(
            "all => all.map(one => [one.textContent, one.title, one.value, one.ariaLabel, one.alt].join(' '))"
        )
        assert sum("x-evil" in text for text in texts) >= least, (selector, texts[:3])
    assert not page.evaluate(TRACES)


def test_in_every_view_of_the_server_markup_is_text(site: str, browser: Browser) -> None:
    with visiting(site, browser) as visit:
        page = visit.open()
        page.wait_for_selector(".example, #welcome h1")
        visit.type(f"dog + {PHRASE} + 2024")
        assert_text(page, ".chip .label", ".tile .caption", ".tile .open")
        assert page.locator(".chip .label").all_inner_texts()[2] == "2024"
        page.click("#filters")
        assert_text(page, ".facet h3", ".facet .value .text", '.facet[data-column="constructor"] .text', '.facet[data-column="path"] .text')
        page.locator('.facet[data-column="constructor"] .value').first.click()
        page.wait_for_function("() => new URLSearchParams(location.search).get('where')?.startsWith('constructor = ')")
        assert_text(page, "#where", ".facet .value .text")
        page.click('.facet[data-column="exif:make"] .value >> nth=0')
        page.wait_for_function("() => / and exif:make = /.test(new URLSearchParams(location.search).get('where'))")
        page.click('.facet[data-column="exif:make"] .value >> nth=0')
        page.wait_for_function("() => !/exif/.test(new URLSearchParams(location.search).get('where'))")
        page.click(".tile >> nth=0")
        assert_text(page, ".viewer h2", ".viewer .why dt", ".viewer .facts-table dt", ".viewer .facts-table dd")
        assert "polluted" in page.inner_text(".viewer .facts-table")
        page.wait_for_function("() => document.querySelector('.viewer .large').src.includes('/image/')")
        page.keyboard.press("y")
        page.wait_for_selector('.viewer .yes[aria-pressed="true"]')
        page.keyboard.press("Escape")
        page.click("#copy-command")
        page.wait_for_selector("#toast")
        visit.open(f"?q={quote('red + (<x-evil>')}")
        assert_text(page, "#error")
        visit.open(f"?q=red&where={quote(f'`{EVIL}` = 3 and nothing < 4')}")
        assert_text(page, "#error")
        visit.open(f"?q=red&where={quote('constructor = ' + filter_value(EVIL))}")
        assert_text(page, "#empty button")
        visit.open(f"?q={quote(WORD[:-1])}")
        assert_text(page, ".chip.unknown .label")
        visit.open(f"?store=topics&q={quote(PHRASE)}&order=__proto__#picture=3")
        assert_text(page, ".viewer h2", ".viewer .why .link")
        visit.open(f"?view=columns&q={quote(PHRASE)}")
        assert_text(page, ".column-hits .picture-button", least=2)
        visit.open(f"?view=columns&q=red&columns={quote('<x-evil>')}")
        assert_text(page, ".column", ".column [role=alert]")
        only_refusals(visit)
    with visiting(site, browser) as visit:
        # near words and names of regions are letters alone when they are made here, but a box may be somebody else's
        visit.page.route("**/api/map/regions*", with_markup)
        visit.page.route("**/api/typed*", with_markup)
        visit.page.route("**/api/pictures/*", with_markup)
        page = visit.open(f"?view=map&q={quote(PHRASE)}")
        assert_text(page, ".map-names span", ".map-pin b")
        page.click(".map-listing summary")
        assert_text(page, ".map-region", ".map-keep")
        page.focus(".map-canvas")
        page.keyboard.press("Enter")
        assert_text(page, ".viewer h2", ".viewer .words button", "#near .suggestion")
        visit.open(f"?q={quote(WORD[:-1])}")
        assert_text(page, ".chip.unknown .label", ".chip .spelling")
        only_refusals(visit)


def test_as_a_document_of_its_own_no_reply_is_markup(site: str, browser: Browser, stores: tuple[Path, Path]) -> None:
    context = browser.new_context(viewport=HAND, java_script_enabled=True)
    page = context.new_page()
    asked = quote(f"dog + {PHRASE}")
    for address in (
        f"?q={quote(EVIL)}",
        f"?q={asked}&where={quote(EVIL)}&order={quote(EVIL)}&store={quote(EVIL)}",
        f"api/search?q={asked}",
        f"api/terms?q={quote(EVIL)}",
        f"api/search?q={quote('(' + EVIL)}",
        f"api/stores?{quote(EVIL)}",
        f"api/facets?where={quote(EVIL)}",
        "api/facets",
        "api/pictures/3",
        f"thumbnails/{quote(EVIL)}",
        f"{quote(EVIL)}",
        "metrics",
        "docs",
        "healthz",
    ):
        page.goto(site + address)
        assert not page.evaluate(TRACES), address
    context.close()
    plain = browser.new_context(java_script_enabled=False)
    page = plain.new_page()
    page.goto(f"{site}?q={asked}&where={quote('`__proto__` = polluted')}")
    assert "x-evil" in page.inner_text(".hits") and page.locator("x-evil").count() == 0
    plain.close()
    guarded = browser.new_context()
    page = guarded.new_page()
    with served(make_app(Store(stores[0]), token="a token of this test".replace(" ", "-"))) as address:
        page.goto(f"{address}?q={quote(EVIL)}")
        assert page.locator("form[action^='login?to=']").count() == 1 and not page.evaluate(TRACES)
        page.fill("[name=token]", "a-token-of-this-test")
        page.click("button")
        page.wait_for_selector("html[data-ready]")
        assert page.input_value("#q") == EVIL and not page.evaluate(TRACES)
    guarded.close()


def test_in_pages_that_are_files_markup_is_text(browser: Browser, stores: tuple[Path, Path], tmp_path: Path) -> None:
    assert cli.main(["search", "--store", str(stores[0]), f"dog + {PHRASE}", "--html", str(tmp_path / "found.html")]) == 0
    (tmp_path / "report.html").write_text(render_report(full_report(EVIL)))
    (tmp_path / "hits.html").write_text(hits_page(EVIL))
    (tmp_path / "look-alikes.html").write_text(look_alikes_page(EVIL))
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in sorted(tmp_path.glob("*.html")):
        page.goto(path.as_uri())
        assert "x-evil" in page.inner_text("body") and not page.evaluate(TRACES), path.name
        page.evaluate("() => {const made = document.createElement('script'); made.text = 'ran = 1'; document.body.append(made)}")
        assert not page.evaluate("() => globalThis.ran"), f"{path.name} would run a script"
    assert all(url.startswith(("file:", "data:")) for url in asked)
    context.close()


def test_in_a_terminal_no_caption_steers(stores: tuple[Path, Path], tmp_path: Path, spaces: dict[str, Path], capsys) -> None:
    steer = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e\rrank 1"
    create_store(tmp_path / steer, spaces["wordvec"], family="wordvec", export="e" * 64)
    with StoreWriter(tmp_path / steer) as writer:
        rows = np.random.default_rng(0).standard_normal((3, 6))
        held = {"name": [f"{steer}{id}" for id in range(3)], "text": [f"{steer} {id}\n1  +9.9  0" for id in range(3)], steer: [steer] * 3}
        writer.append(Segment(np.arange(3), rows, held, [None] * 3))
    store = str(tmp_path / steer)
    for given in (
        ["beach", "--why"],
        [f"beach {steer}"],
        ["beach", "--where", f"`{steer}` = 3 and ("],
        ["beach", "--json"],
        ["beach", "--jsonl"],
    ):
        cli.main(["search", "--store", store, *given])
        told = "".join(capsys.readouterr())
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", told), told
        assert "--json" in given or told.count("\n") <= 6, told
