"""A store over HTTP: a search page for the browser, the same as JSON, and the thumbnails.

multimodal serve --store runs/demo/wordvec/store
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from multimodal.errors import InputError
from multimodal.pages import media_type
from multimodal.search.algebra import is_id
from multimodal.search.answer import Answer
from multimodal.search.choosing import BY_SCORE
from multimodal.search.grammar import parse_steps
from multimodal.search.query import answer, as_json
from multimodal.search.store import Store
from multimodal.serve.connections import Impatient, KnownHosts
from multimodal.serve.generations import Newest
from multimodal.serve.page import Asked, search_page

T = TypeVar("T")

PAGE_HITS = 48
MAX_HITS = 1000
MAX_QUERY = 1000
"""Characters of a query, and of a filter."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


def serve(
    store: Path, host: str = "127.0.0.1", port: int = 8000, allowed_hosts: list[str] | None = None, trust: Sequence[str] = ()
) -> None:
    """Search a store of pictures in a browser, until Ctrl-C.

    Pictures that are added or removed later (`multimodal index`, `multimodal rescan`) are seen without a restart. There is no login: anyone
    who can reach the address sees the store's thumbnails and texts, but no other file.

    Args:
        store: the store's folder.
        host: the address to listen on; 127.0.0.1 is for this machine only, 0.0.0.0 for every network that it is in.
        port: the port to listen on; 0 picks a free one.
        allowed_hosts: further host names that the server accepts. It always accepts localhost, this machine's own name and any IP address.
        trust: your own packages whose classes the store names. Their code is run; without this option, nothing is imported
            because a folder names it.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: a port is a number from 0 to 65535")
    app = make_app(Store(store, trust=trust), [host, *(allowed_hosts or [])])
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listening.getsockname()[1]}/  (press Ctrl-C to stop)", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):  # uvicorn shuts down cleanly, then raises it again
            uvicorn.Server(uvicorn.Config(app, log_level="warning", http=Impatient, ws="none")).run(sockets=[listening])


def make_app(store: Store, hosts: Sequence[str] | None = None) -> FastAPI:
    """The application over a store, always its newest generation.

    hosts: host names that it accepts, see `KnownHosts`; None if the server around it checks them. One query runs at a time, in its own
    thread: text spaces and engines are never called from two threads, and thumbnails do not wait for a query.
    """
    app = FastAPI(title="multimodal", docs_url=None, redoc_url=None, openapi_url=None)  # FastAPI's own pages load scripts from a CDN
    if hosts is not None:
        app.add_middleware(KnownHosts, hosts=hosts)
    one_at_a_time, stores = asyncio.Lock(), Newest(store)

    async def answered(ask: Callable[[Store], T]) -> T:
        async with one_at_a_time:
            return await run_in_threadpool(stores.answered, ask)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        return JSONResponse({"error": "\n".join(problems)}, status_code=400, headers=HEADERS)

    @app.get("/")
    async def page(q: str = "", where: str = "", order: str = "", cut_off: str = "", fold: str = "") -> HTMLResponse:
        asked = Asked(q, where, order, cut_off, fold)
        if not q.strip():
            store = await run_in_threadpool(stores.current)
            return HTMLResponse(search_page(asked, len(store), store.columns), headers=HEADERS)
        try:
            return HTMLResponse(await answered(lambda store: _page(store, asked)), headers=HEADERS)
        except InputError as error:
            store = await run_in_threadpool(stores.current)
            return HTMLResponse(search_page(asked, len(store), store.columns, error=str(error)), status_code=400, headers=HEADERS)

    @app.get("/api/search")
    async def search(
        q: str = "",
        k: Annotated[int, Query(ge=1, le=MAX_HITS)] = 10,
        where: str = "",
        order: str = "",
        cut_off: str = "",
        fold: str = "",
    ) -> Response:
        try:
            asked = Asked(q, where, order, cut_off, fold)
            found = await answered(lambda store: _answer(store, asked, k))
            return Response(as_json(q, found), media_type="application/json", headers=HEADERS)
        except InputError as error:
            return JSONResponse({"error": str(error)}, status_code=400, headers=HEADERS)

    @app.get("/thumbnails/{id}")
    async def thumbnail(id: str) -> Response:
        try:
            number = int(id)
            [picture] = await run_in_threadpool(stores.answered, lambda store: store.thumbnails([number]))
        except InputError as error:  # not an id of the store, or its file is damaged
            return JSONResponse({"error": str(error)}, status_code=404, headers=HEADERS)
        except ValueError:  # not a number
            picture = None
        if picture is None:
            raise HTTPException(404, "no thumbnail")
        return Response(picture, media_type=media_type(picture), headers=HEADERS)

    return app


def _page(store: Store, asked: Asked) -> str:
    found = _answer(store, asked, PAGE_HITS)
    there = [thumbnail is not None for thumbnail in store.thumbnails([hit.id for hit in found.hits])]
    return search_page(asked, len(store), store.columns, found, there)


def _answer(store: Store, asked: Asked, k: int) -> Answer:
    """Like `answer`, for untrusted queries: InputError for `image:<path>`, which would read this machine's files."""
    for what, text in (("query", asked.query), ("filter", asked.where)):
        if len(text) > MAX_QUERY:
            raise InputError(f"the {what} has {len(text):,} characters; this server accepts at most {MAX_QUERY:,}")
    for term in (term for step in parse_steps(asked.query) for term in step.every_term):
        if term.kind == "image" and not is_id(term.content):
            raise InputError(f"{term.label}: name a picture by its id, as in image:17; this server reads no files")
    where = asked.where if asked.where.strip() else None
    return answer(store, asked.query, k, where=where, order=asked.order or BY_SCORE, cut_off=asked.share, fold=asked.is_folded)
