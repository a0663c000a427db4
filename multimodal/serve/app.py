"""Stores over HTTP: a search page for the browser, a typed JSON API, thumbnails and original files.

multimodal serve --store runs/demo/wordvec/store
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import compress
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from multimodal.doors.printable import json_text
from multimodal.errors import InputError
from multimodal.pages import media_type, render
from multimodal.search.pointing import PointedError
from multimodal.search.store import Store
from multimodal.serve import schemas
from multimodal.serve.api import PROBLEMS, Number, StoreName, add_api, find, picture_id
from multimodal.serve.api_page import api_page
from multimodal.serve.connections import KnownHosts
from multimodal.serve.desk import Desk, Settings
from multimodal.serve.guards import Bounded, Counted, Headed, SameOrigin, TokenNeeded, read_token
from multimodal.serve.limits import Busy, Refused, TooLong
from multimodal.serve.map import BYTES, add_map
from multimodal.serve.page import Asked, search_page
from multimodal.serve.running import run
from multimodal.serve.served import Stores
from multimodal.serve.static import StaticFiles
from multimodal.serve.uploads import CONTENT, MAX_BYTES

PAGE_HITS = schemas.PAGE_HITS
A_YEAR_S = 31_536_000
FIXED = f"private, max-age={A_YEAR_S}, immutable"
MAX_THUMBNAILS = 200
PICTURE_CSP = "default-src 'none'; sandbox"
"""Of a file from a store, should a browser ever take it for a page."""


def serve(
    store: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    export: Sequence[str] = (),
    shards: Sequence[str] = (),
    originals: bool = True,
    workers: int = 1,
    time_limit: float = 10.0,
    max_waiting: int = 256,
    token_file: Path | None = None,
    allowed_hosts: Sequence[str] = (),
    trust: Sequence[str] = (),
) -> None:
    """Search stores of pictures in a browser, until Ctrl-C.

    multimodal serve --store S
    multimodal serve --store topics=S1 --store clip=S2 --export E2

    Pictures that are added or removed later (`multimodal index`, `multimodal rescan`) are seen without a restart. Without --token-file
    there is no login: anyone who can reach the address sees the stores' pictures and texts, can judge hits, and sees no other file.
    docs/serving.md has the API and the limits.

    Args:
        store: a store's folder, or NAME=FOLDER; several may be given, and the first is shown where an address names none.
        host: the address to listen on; 127.0.0.1 is for this machine only, 0.0.0.0 for every network that it is in.
        port: the port to listen on; 0 picks a free one.
        export: the export that a store was made from, whose image tower then takes pictures that visitors give; one for each store.
        shards: the shard set that a store was made from, so that its pictures are shown as they are. A store of folders knows its files.
        originals: whether pictures are shown as their own files, with what cameras write into them, and not only as thumbnails.
        workers: processes that answer. Each opens the stores for itself.
        time_limit: the most seconds that a query may take.
        max_waiting: requests that may wait in each process; others get 429.
        token_file: a file with a token, which every request must then have: as Authorization: Bearer, or by the page's login.
        allowed_hosts: further host names that the server accepts. It always accepts localhost, this machine's own name and any IP address.
        trust: your own packages whose classes the store names. Their code is run; without this option, nothing is imported
            because a folder names it.
    """
    making = Making(tuple(store), tuple(export), tuple(shards), originals, time_limit, max_waiting, token_file, tuple(trust))
    run(making, host, port, workers, allowed_hosts)


@dataclass(frozen=True)
class Making:
    """What an application is made of: the options of `serve`. Called in each worker, with what only that worker has."""

    store: tuple[str, ...]
    export: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    originals: bool = True
    time_limit: float = 10.0
    max_waiting: int = 256
    token_file: Path | None = None
    trust: tuple[str, ...] = ()

    def check(self, opens: bool) -> None:
        """InputError for what is wrong in an option; opens: or in what it names."""
        if not 0 < self.time_limit < 3600:
            raise InputError(f"--time-limit {self.time_limit:g}: seconds, above 0")
        if self.max_waiting < 0:
            raise InputError(f"--max-waiting {self.max_waiting}: a number of requests")
        if opens:
            self._opened()

    def __call__(self, hosts: Sequence[str], settings: Settings) -> FastAPI:
        stores, token = self._opened()
        stores.make_ready()
        return make_app(stores, hosts, replace(settings, limit_s=self.time_limit, max_waiting=self.max_waiting), token)

    def _opened(self) -> tuple[Stores, str | None]:
        token = None if self.token_file is None else read_token(self.token_file)
        return Stores.open(self.store, self.export, self.shards, self.originals, self.trust), token


def make_app(
    stores: Store | Mapping[str, Store] | Stores,
    hosts: Sequence[str] | None = None,
    settings: Settings | None = None,
    token: str | None = None,
) -> FastAPI:
    """The application over stores, always their newest generations.

    hosts: host names that it accepts, see `KnownHosts`; None if the server around it checks them. token: what requests must have. One query
    runs at a time, see `multimodal.serve.limits`; thumbnails and files do not wait for queries.
    """
    if isinstance(stores, Store):
        stores = {"store": stores}
    desk = Desk(stores if isinstance(stores, Stores) else Stores(stores), settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="multimodal",
        description="Search pictures in words, with arithmetic.",
        docs_url=None,  # FastAPI's own pages load scripts from a CDN
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.desk = desk
    _add_errors(app, desk)
    _add_page(app, desk)
    add_api(app, desk)
    add_map(app, desk)
    _add_pictures(app, desk)
    _add_rest(app, desk)
    # the last one is the outermost
    app.add_middleware(Bounded, larger={"/api/pictures": MAX_BYTES})
    app.add_middleware(SameOrigin)
    if token is not None:
        app.add_middleware(TokenNeeded, token=token, login_page=_login_page)
    if hosts is not None:
        app.add_middleware(KnownHosts, hosts=hosts)
    app.add_middleware(Counted, answered=desk.metrics.answered)
    app.add_middleware(Headed)
    return app


def _add_errors(app: FastAPI, desk: Desk) -> None:
    """Every error is JSON, `schemas.Problem`. A store is called there as it is served: its folder is no visitor's business."""

    def _problem(error: str, status: int, headers: Mapping[str, str] | None = None, position: int | None = None) -> Response:
        values = {"error": desk.stores.without_paths(error), "position": position}
        return Response(json_text(values), status, headers=headers, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        return _problem("\n".join(problems), 400)

    @app.exception_handler(InputError)
    async def wrong(_: Request, error: InputError) -> Response:
        return _problem(str(error), 400, position=error.column - 1 if isinstance(error, PointedError) else None)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        if isinstance(error, Busy | TooLong):
            desk.metrics.count("refused" if isinstance(error, Busy) else "too_long")
        return _problem(str(error), error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def of_starlette(_: Request, error: HTTPException) -> Response:
        return _problem(error.detail, error.status_code, error.headers)


def _add_page(app: FastAPI, desk: Desk) -> None:
    @app.get("/", response_class=HTMLResponse, responses=PROBLEMS, tags=["page"])
    async def page(
        q: str = "",
        where: str = "",
        order: str = "",
        cut_off: str = "",
        fold: str = "",
        store: StoreName = "",
        fusion: str = "",
        view: str = "",
        columns: str = "",
    ) -> Response:
        """The page, with the hits of the query in it."""
        given = {"where": where, "order": order, "cut_off": cut_off, "fold": fold, "store": store, "fusion": fusion}
        asked = Asked(q, view=view, columns=columns, **given)
        served = desk.stores.find(store)

        def empty(opened: Store, error: str = "") -> bytes:
            return search_page(asked, len(opened), opened.columns, error=error).encode()

        def filled(opened: Store) -> bytes:
            found = find(desk, served, opened, asked, PAGE_HITS)
            there = [thumbnail is not None for thumbnail in opened.thumbnails([hit.id for hit in found.hits])]
            return search_page(asked, len(opened), opened.columns, found, there, version=opened.version).encode()

        if not q.strip():
            return HTMLResponse(await desk.read(served, empty))
        try:
            return HTMLResponse(await desk.answer(served, ("page", asked), filled))
        except InputError as error:
            message = desk.stores.without_paths(str(error))
            return HTMLResponse(await desk.read(served, lambda opened: empty(opened, message)), status_code=400)
        except (Busy, TooLong) as error:
            desk.metrics.count("refused" if isinstance(error, Busy) else "too_long")
            message = str(error)
            page = search_page(asked, len(served.newest.current()), [], error=message)
            return HTMLResponse(page, status_code=error.status, headers=error.headers)


def _add_pictures(app: FastAPI, desk: Desk) -> None:
    @app.get("/thumbnails/{id}", response_class=Response, responses=PROBLEMS | _PICTURES, tags=["pictures"])
    async def thumbnail(request: Request, id: str, store: StoreName = "", v: str = "") -> Response:
        """A picture's thumbnail. v: the store's `version`, with which it never changes."""
        served = desk.stores.find(store)
        if CONTENT.fullmatch(id):
            picture, is_fixed = await desk.files.run(lambda: desk.uploads.thumbnail(id)), True
        else:
            number = picture_id(id)

            def read(opened: Store) -> tuple[bytes | None, bool]:
                return opened.thumbnails([number])[0], v == opened.version

            try:
                picture, is_fixed = await desk.read(served, read)
            except InputError as error:  # not an id of the store, or its file is damaged
                raise Refused(404, str(error)) from None
        if picture is None:
            raise Refused(404, "no thumbnail")
        return _picture(request, picture, media_type(picture), blake2b(picture, digest_size=8).hexdigest(), is_fixed)

    @app.get("/api/thumbnails", response_class=Response, responses=PROBLEMS | _MANY, tags=["pictures"])
    async def thumbnails(
        ids: Annotated[str, Query(description=f"Ids with commas between, at most {MAX_THUMBNAILS}.", max_length=21 * MAX_THUMBNAILS)],
        store: StoreName = "",
        v: str = "",
    ) -> Response:
        """Thumbnails of several pictures. v: the store's `version`, with which they never change."""
        served = desk.stores.find(store)
        numbers = [picture_id(one) for one in ids.split(",")]
        if len(numbers) > MAX_THUMBNAILS:
            raise InputError(f"{len(numbers)} ids; this server sends at most {MAX_THUMBNAILS} thumbnails at once")

        def read(opened: Store) -> tuple[bytes, bool]:
            there = opened.has(numbers).tolist()
            found = iter(opened.thumbnails(list(compress(numbers, there))))
            pictures = [(next(found) if is_there else None) or b"" for is_there in there]
            lengths = struct.pack(f"<{len(pictures)}I", *map(len, pictures))
            return b"".join([lengths, *pictures]), v == opened.version

        body, is_fixed = await desk.read(served, read)
        headers = {"Cache-Control": FIXED if is_fixed else "no-cache", "Content-Security-Policy": PICTURE_CSP}
        return Response(body, media_type=BYTES, headers=headers)

    @app.get("/image/{id}", response_class=Response, responses=PROBLEMS | _PICTURES, tags=["pictures"])
    async def image(request: Request, id: Number, store: StoreName = "", v: str = "") -> Response:
        """A picture's own file, where the store names one that is there and has not changed."""
        served, number = desk.stores.find(store), picture_id(id)
        try:
            found = await desk.original(served, number)
        except InputError as error:
            raise Refused(404, str(error)) from None
        if found is None:
            raise Refused(404, "no file of this picture can be sent: the store knows none, or it is gone or has changed")
        is_fixed = v == served.newest.current().version
        return _picture(request, found.content, found.media_type, blake2b(found.content, digest_size=8).hexdigest(), is_fixed)


def _add_rest(app: FastAPI, desk: Desk) -> None:
    files = StaticFiles.of_package()

    @app.get("/web/{name:path}", include_in_schema=False)
    async def web(request: Request, name: str) -> Response:
        file = files.get(name)
        if file is None:
            raise Refused(404, "no such file")
        headers = {"ETag": file.etag, "Cache-Control": FIXED if file.is_fixed else "no-cache"}
        if _is_known(request, file.etag):
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    @app.get("/healthz", response_model=schemas.Health, tags=["server"])
    async def healthz() -> Response:
        """Whether it answers, and the number of pictures in each store."""
        return _json({"status": "ok", "stores": {served.name: len(served.newest.current()) for served in desk.stores}})

    @app.get("/metrics", response_class=PlainTextResponse, tags=["server"])
    async def metrics() -> Response:
        """Counters and histograms of all workers, as Prometheus reads them."""
        text = desk.metrics.text(await desk.files.run(desk.gauges))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return _json(described(app))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(api_page(described(app)))


_MANY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The length of each as uint32, little-endian, 0 for none, and then all of them.",
        "content": {BYTES: {}},
    }
}
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture.", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "It is the one that `If-None-Match` names."},
}


def described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI of an application. What FastAPI refuses with 422, this server refuses with 400."""
    if app.openapi_schema is None:
        schema = app.openapi()
        for methods in schema["paths"].values():
            for route in methods.values():
                route["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema.get("components", {}).get("schemas", {}).pop(name, None)
    assert app.openapi_schema is not None
    return app.openapi_schema


def _picture(request: Request, content: bytes, kind: str, digest: str, is_fixed: bool) -> Response:
    etag = f'"{digest}"'
    headers = {"ETag": etag, "Cache-Control": FIXED if is_fixed else "no-cache", "Content-Security-Policy": PICTURE_CSP}
    if _is_known(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def _is_known(request: Request, etag: str) -> bool:
    """Whether the client has this content already."""
    return etag in (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(","))


def _login_page(to: str, is_wrong: bool) -> str:
    return render("login.html.jinja", title="This server asks for its token", to=to, is_wrong=is_wrong)


def _json(value: Any) -> Response:
    return Response(json_text(value), media_type="application/json")
