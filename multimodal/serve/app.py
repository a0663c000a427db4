"""A store over HTTP: a page to search in a browser, the same as JSON, and the thumbnails.

multimodal serve --store runs/demo/wordvec/store
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from multimodal.errors import InputError
from multimodal.search.grammar import parse
from multimodal.search.page import media_type
from multimodal.search.query import Answer, answer, as_json, is_id
from multimodal.search.store import Store
from multimodal.serve.connections import Impatient, KnownHosts
from multimodal.serve.page import error_html, form_page, hits_html

PAGE_HITS = 48
MAX_HITS = 1000
MAX_QUERY = 1000  # characters
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


def serve(
    store: Path, host: str = "127.0.0.1", port: int = 8000, allowed_hosts: list[str] | None = None, trust: Sequence[str] = ()
) -> None:
    """Search a store of pictures in a browser, until Ctrl-C.

    The store is served as it is now; start again to see what was added since. There is no log-in: whoever reaches the address sees the
    store's thumbnails and texts, and no other file.

    Args:
        store: the store's folder.
        host: the address to listen at; 127.0.0.1 is this machine alone, 0.0.0.0 every network that it is in.
        port: the port to listen at; 0 takes a free one.
        allowed_hosts: names that the server answers to, beside localhost, this machine's own and every address, where others reach it by
            a name.
        trust: your own package, or packages, whose classes the store names. Their code is run; without this nothing is imported
            because a folder names it.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: a port is a number from 0 to 65535")
    app = make_app(Store(store, trust=trust), [host, *(allowed_hosts or [])])
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listening.getsockname()[1]}/  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):  # uvicorn has ended in order and raises it again
            uvicorn.Server(uvicorn.Config(app, log_level="warning", http=Impatient, ws="none")).run(sockets=[listening])


def make_app(store: Store, hosts: Sequence[str] | None = None) -> FastAPI:
    """The application over one generation of a store.

    hosts: names that it answers to, see `KnownHosts`; None where the server around it looks after that. One query runs at a time, in a
    thread of its own: text spaces and engines are not asked from two threads, and whoever wants a thumbnail does not wait for it.
    """
    app = FastAPI(title="multimodal", docs_url=None, redoc_url=None, openapi_url=None)  # its documentation pages load scripts from a CDN
    if hosts is not None:
        app.add_middleware(KnownHosts, hosts=hosts)
    one_at_a_time = asyncio.Lock()

    async def answered(query: str, k: int) -> Answer:
        async with one_at_a_time:
            return await run_in_threadpool(_answer, store, query, k)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        return JSONResponse({"error": "\n".join(problems)}, status_code=400, headers=HEADERS)

    @app.get("/")
    async def page(q: str = "") -> HTMLResponse:
        if not q.strip():
            return HTMLResponse(form_page("", "", len(store)), headers=HEADERS)
        try:
            found = await answered(q, PAGE_HITS)
            there = [thumbnail is not None for thumbnail in store.thumbnails([hit.id for hit in found.hits])]
        except InputError as error:
            return HTMLResponse(form_page(q, error_html(str(error)), len(store)), status_code=400, headers=HEADERS)
        return HTMLResponse(form_page(q, hits_html(q, found, there), len(store)), headers=HEADERS)

    @app.get("/api/search")
    async def search(q: str = "", k: Annotated[int, Query(ge=1, le=MAX_HITS)] = 10) -> Response:
        try:
            return Response(as_json(q, await answered(q, k)), media_type="application/json", headers=HEADERS)
        except InputError as error:
            return JSONResponse({"error": str(error)}, status_code=400, headers=HEADERS)

    @app.get("/thumbnails/{id}")
    async def thumbnail(id: str) -> Response:
        try:
            [picture] = store.thumbnails([int(id)])
        except InputError as error:  # no id of the store, or its file is damaged
            return JSONResponse({"error": str(error)}, status_code=404, headers=HEADERS)
        except ValueError:  # no number
            picture = None
        if picture is None:
            raise HTTPException(404, "no thumbnail")
        return Response(picture, media_type=media_type(picture), headers=HEADERS)

    return app


def _answer(store: Store, query: str, k: int) -> Answer:
    """As `answer`, for a stranger: InputError for `image:<path>`, which would read this machine's files."""
    if len(query) > MAX_QUERY:
        raise InputError(f"the query has {len(query):,} characters; at most {MAX_QUERY:,} are taken here")
    for term in parse(query).terms:
        if term.kind == "image" and not is_id(term.content):
            raise InputError(f"{term.label}: a picture is named by its id here, as image:17; files of the server are not read")
    return answer(store, query, k)
