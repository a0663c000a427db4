"""A server in a process of its own, and a visit to it in the system's Chromium."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import uvicorn

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from starlette.types import ASGIApp

DESK, HAND = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Its address.

    A process, not a thread: CPython 3.11 fails if pytest and numpy parse something at once (python/cpython 106905). Forked, so that it has
    the stores and their tower.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    process = multiprocessing.get_context("fork").Process(target=server.run, kwargs={"sockets": [listening]})
    process.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        process.terminate()
        process.join()


@dataclass
class Visit:
    """A page, with what must not happen on it."""

    site: str
    page: Page
    wrong: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, address: str = "") -> Page:
        self.page.goto(self.site + address)
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def shows(self, query: str) -> None:
        """Wait until the grid is that of a query."""
        self.page.wait_for_selector(f".sheet[data-query={quoted(query)}]:not([aria-busy=true])")

    def type(self, query: str) -> None:
        self.page.fill("#q", query)
        self.shows(query)

    def asks(self, name: str, value: str | None) -> None:
        """Wait until the address says so."""
        self.page.wait_for_function("([name, value]) => new URLSearchParams(location.search).get(name) === value", arg=[name, value])

    @property
    def asked(self) -> dict[str, str]:
        return {name: value for name, [value] in parse_qs(urlsplit(self.page.url).query).items()}

    @property
    def labels(self) -> list[str]:
        return [" ".join(text.split()) for text in self.page.locator(".chip .label").all_inner_texts()]

    def ids(self, num: int = 10) -> list[int]:
        return [int(value) for value in self.page.locator(".tile[data-id]").evaluate_all("all => all.map(one => one.dataset.id)")[:num]]

    def text_of(self, id: int) -> str:
        return self.page.locator(f'.tile[data-id="{id}"] .caption').text_content() or ""


def quoted(text: str) -> str:
    """A text as a value in a selector."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextmanager
def visiting(site: str, browser: Browser, viewport: dict[str, int] = DESK) -> Iterator[Visit]:
    """A page of its own; at the end, nothing went wrong on it, and nothing was asked of another server."""
    context = browser.new_context(viewport=viewport, reduced_motion="reduce")  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    made = Visit(site, context.new_page())
    made.page.on("console", lambda told: made.wrong.append(told.text) if told.type in ("error", "warning") else None)
    made.page.on("pageerror", lambda error: made.wrong.append(str(error)))
    made.page.on("request", lambda asked: None if asked.url.startswith((site, "blob:" + site, "data:")) else made.foreign.append(asked.url))
    yield made
    context.close()
    assert not made.wrong and not made.foreign, (made.wrong, made.foreign)
