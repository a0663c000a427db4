"""The routes of the JSON API. What they do is in the rooms below; here it is asked for, and written as JSON.

add_api(app, desk)
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Query, Request, Response

from multimodal.doors.printable import json_text
from multimodal.errors import InputError
from multimodal.pictures.decode import BadPicture, claimed_size, plain_jpeg_size
from multimodal.search.algebra import is_id
from multimodal.search.answer import Answer
from multimodal.search.choosing import BY_SCORE
from multimodal.search.facets import KINDS, Facet, facets
from multimodal.search.fusion import names_product
from multimodal.search.grammar import Term, parse_steps
from multimodal.search.query import answer, as_values
from multimodal.search.store import Store
from multimodal.search.terms import Typed, TypedPart, understand
from multimodal.search.words import Near
from multimodal.serve import schemas
from multimodal.serve.desk import Desk
from multimodal.serve.judgements import plain
from multimodal.serve.limits import Refused
from multimodal.serve.originals import has_originals
from multimodal.serve.page import EXAMPLES, Asked
from multimodal.serve.served import Served
from multimodal.serve.uploads import CONTENT
from multimodal.text.space import NamesDimensions

MAX_QUERY = 1000
"""Characters of a query."""
MAX_WHERE = 100_000
"""Characters of a filter: one that names ten thousand pictures."""
FUSIONS = ("", "product", "sum")
"""Ways to combine terms that a visitor may ask for: "" is the store's own. A class path would be code."""
NUM_WORDS = 10
NUM_TOPICS = 5
NUM_SUGGESTIONS = 8
MAX_ROWS = 10_000
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": meaning}
    for status, meaning in {
        400: "Something in the request is wrong; `error` says what.",
        404: "There is no such store, picture or file.",
        429: "Too many requests wait already; `Retry-After` says when to ask again.",
        503: "It took longer than the server's limit, and was stopped.",
    }.items()
}
POSTED = PROBLEMS | {
    408: {"model": schemas.Problem, "description": "The body did not come in time."},
    413: {"model": schemas.Problem, "description": "The body is larger than this route takes."},
}

StoreName = Annotated[str, Query(description="One of the stores that are served; by default the first.", max_length=64)]
Where = Annotated[str, Query(description="A filter, as `multimodal search --where` takes it.")]
Number = Annotated[str, Path(description="The picture's id, a whole number.", max_length=40)]


def add_api(app: FastAPI, desk: Desk) -> None:
    """The routes below `/api`."""

    @app.get("/api/stores", response_model=list[schemas.StoreFacts], responses=PROBLEMS, tags=["stores"])
    async def stores() -> Response:
        """The stores that are served, and what can be asked of each."""
        facts = [await desk.answer(served, "facts", partial(facts_json, served)) for served in desk.stores]
        return Response(b"[" + b",".join(facts) + b"]", media_type="application/json")

    async def _search(asked: Asked, k: int, offset: int) -> Response:
        served = desk.stores.find(asked.store)
        reply = await desk.answer(served, ("search", asked, k, offset), lambda store: found_json(desk, served, store, asked, k, offset))
        return Response(reply, media_type="application/json")

    @app.get("/api/search", response_model=schemas.Found, responses=PROBLEMS, tags=["search"])
    async def search(
        q: Annotated[str, Query(description="A query, as `multimodal search` takes it.")] = "",
        k: Annotated[int, Query(ge=1, le=schemas.MAX_HITS, description="How many hits.")] = schemas.PAGE_HITS,
        offset: Annotated[int, Query(ge=0, le=schemas.MAX_REACHED, description="Leave out the first so many.")] = 0,
        where: Where = "",
        order: Annotated[str, Query(description="A column, after a minus from the largest to the smallest.")] = "",
        cut_off: Annotated[str, Query(description="A share of random queries, such as 0.5.")] = "",
        fold: Annotated[str, Query(description="true: fold near duplicates.")] = "",
        fusion: Annotated[str, Query(description="product or sum; by default the store's own.")] = "",
        store: StoreName = "",
    ) -> Response:
        """The pictures that meet a query, best first."""
        return await _search(Asked(q, where=where, order=order, cut_off=cut_off, fold=fold, fusion=fusion, store=store), k, offset)

    @app.post("/api/search", response_model=schemas.Found, responses=POSTED, tags=["search"])
    async def search_by_post(request: schemas.SearchRequest) -> Response:
        """The same, for queries and filters that are too long for an address."""
        cut_off, fold = str(request.cut_off), str(request.fold).lower()
        given = {"where": request.where, "order": request.order, "fusion": request.fusion, "store": request.store}
        asked = Asked(request.q, cut_off=cut_off, fold=fold, **given)
        return await _search(asked, request.k, request.offset)

    @app.get("/api/similar", response_model=schemas.Found, responses=PROBLEMS, tags=["search"])
    async def similar(
        id: Annotated[int, Query(description="The picture's id.")],
        k: Annotated[int, Query(ge=1, le=schemas.MAX_HITS)] = schemas.PAGE_HITS,
        offset: Annotated[int, Query(ge=0, le=schemas.MAX_REACHED)] = 0,
        where: Where = "",
        order: str = "",
        fold: str = "",
        store: StoreName = "",
    ) -> Response:
        """The pictures that are most like one of the store."""
        if id < 0:
            raise InputError(f"id = {id}; ids are whole numbers from 0")
        return await _search(Asked(f"image:{id}", where=where, order=order, fold=fold, store=store), k, offset)

    async def _terms(q: str, store: str) -> bytes:
        served = desk.stores.find(store)
        asked = checked(Asked(q, store=store))
        words = desk.words(served)
        is_ready = words.done() and not words.cancelled() and words.exception() is None
        if not q.strip():
            return json_text({"parts": [], "series": None, "suggestions": [], "error": None, "position": None}).encode()

        def ask(opened: Store) -> bytes:
            typed = understand(opened, asked.query, desk.uploaded(served), desk.stores.others(served))
            near = words.result()[0].akin(typed.vector[None], 4 * NUM_SUGGESTIONS)[0] if is_ready and typed.vector is not None else []
            return json_text(terms_values(typed, near)).encode()

        return await desk.answer(served, ("terms", q, is_ready), ask)

    @app.get("/api/terms", response_model=schemas.Terms, responses=PROBLEMS, tags=["search"])
    async def terms(q: str = "", store: StoreName = "") -> Response:
        """How a query is understood while it is being typed, with near spellings of unknown words and terms that are near."""
        return Response(await _terms(q, store), media_type="application/json")

    @app.get("/api/typed", response_model=schemas.Typed, responses=PROBLEMS, tags=["search"])
    async def typed(
        q: str = "",
        k: Annotated[int, Query(ge=1, le=schemas.MAX_HITS)] = schemas.PAGE_HITS,
        where: Where = "",
        order: str = "",
        cut_off: str = "",
        fold: str = "",
        fusion: str = "",
        store: StoreName = "",
    ) -> Response:
        """Both at once, for each key: how a query is understood, and what it finds if it can be read and a term of it is known."""
        understood = await _terms(q, store)
        told = json.loads(understood)
        found = b"null"
        is_known = not told["parts"] or any(part["known"] for part in told["parts"])
        if q.strip() and told["error"] is None and is_known:
            asked = Asked(q, where=where, order=order, cut_off=cut_off, fold=fold, fusion=fusion, store=store)
            found = bytes((await _search(asked, k, 0)).body)
        return Response(b'{"terms":' + understood + b',"found":' + found + b"}", media_type="application/json")

    @app.get("/api/pictures/{id}", response_model=schemas.PictureFacts, responses=PROBLEMS, tags=["pictures"])
    async def picture(id: Number, store: StoreName = "") -> Response:
        """What is known of a picture: its metadata, and the words and topics that are nearest to it."""
        served, number = desk.stores.find(store), picture_id(id)
        words, _ = await desk.background.end_of(desk.words(served))

        def ask(opened: Store) -> bytes:
            return json_text(picture_values(opened, number, words.near(opened.take([number]), NUM_WORDS)[0])).encode()

        try:
            return Response(await desk.answer(served, ("picture", number), ask), media_type="application/json")
        except InputError as error:
            raise Refused(404, str(error)) from None

    @app.get("/api/facets", response_model=list[schemas.FacetColumn], responses=PROBLEMS, tags=["stores"])
    async def facets_of(where: Where = "", store: StoreName = "") -> Response:
        """What the columns of the pictures that meet a filter hold, counted."""
        served = desk.stores.find(store)
        asked = checked(Asked("", where=where, store=store))
        condition = asked.where if asked.where.strip() else None

        def ask(opened: Store) -> bytes:
            return json_text([facet_values(facet) for facet in facets(opened, condition)]).encode()

        return Response(await desk.answer(served, ("facets", where), ask), media_type="application/json")

    @app.post(
        "/api/pictures",
        response_model=schemas.Uploaded,
        responses=POSTED
        | {
            409: {"model": schemas.Problem, "description": "This server has no image tower for the store."},
            413: {"model": schemas.Problem, "description": "Too many bytes or pixels."},
            415: {"model": schemas.Problem, "description": "The body is no picture that can be read."},
        },
        openapi_extra={"requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
        tags=["pictures"],
    )
    async def upload(request: Request, store: StoreName = "") -> Response:
        """Give a picture, the body being its file; then `image:<content>` is a term of a query."""
        served = desk.stores.find(store)
        if served.pictures is None:
            raise Refused(409, no_tower(served))
        with desk.upload_places.taken():
            kept = await desk.upload(served, await request.body())
        return _json(asdict(kept))

    @app.post("/api/judgements", status_code=201, response_model=schemas.JudgementKept, responses=POSTED, tags=["judgements"])
    async def judge(judgement: schemas.Judgement) -> Response:
        """Keep whether a picture is relevant for a query, or whether two pictures are of the same thing."""
        served = desk.stores.find(judgement.store)

        def keep(store: Store) -> dict[str, Any]:
            values = judged(store, judgement)
            return {"number": desk.judgements(served).add(values), **values}

        return _json(await desk.read(served, keep), 201)

    @app.get("/api/judgements", response_model=list[schemas.JudgementKept], responses=PROBLEMS, tags=["judgements"])
    async def judgements(q: str | None = None, store: StoreName = "") -> Response:
        """What was judged, the oldest first; with a query, of pictures for it."""
        served = desk.stores.find(store)
        rows = await desk.read(served, lambda _: desk.judgements(served).rows(None if q is None else plain(q)))
        return _json(rows[-MAX_ROWS:])

    @app.delete("/api/judgements/last", response_model=schemas.JudgementKept, responses=PROBLEMS, tags=["judgements"])
    async def undo(
        store: StoreName = "", number: Annotated[int | None, Query(ge=1, description="Only if it is the last one still.")] = None
    ) -> Response:
        """Take the last judgement back."""
        served = desk.stores.find(store)
        undone = await desk.read(served, lambda _: desk.judgements(served).undo(number))
        if undone is None:
            raise Refused(404, "there is no judgement to undo" if number is None else f"judgement {number} is not the last one")
        return _json(undone)


# -- what is asked of a store -------------------------------------------------------------------------------------------------------------


def checked(asked: Asked) -> Asked:
    """InputError if something is too long or no Unicode, or a way to combine terms is not one of `FUSIONS`."""
    for what, text, most in (("query", asked.query, MAX_QUERY), ("filter", asked.where, MAX_WHERE)):
        if len(text) > most:
            raise InputError(f"the {what} has {len(text):,} characters; this server accepts at most {most:,}")
        if re.search("[\ud800-\udfff]", text):  # which JSON can write
            raise InputError(f"the {what} has half a surrogate pair in it, which is no character")
    if asked.fusion not in FUSIONS:
        raise InputError(f"fusion {asked.fusion[:30]!r}: product or sum, or nothing for the store's own way to combine terms")
    return asked


def find(desk: Desk, served: Served, store: Store, asked: Asked, k: int, offset: int = 0) -> Answer:
    """Like `answer`, for untrusted queries: InputError for `image:<path>`, which would read this machine's files."""
    checked(asked)
    reached = k + offset
    if reached > schemas.MAX_REACHED:
        raise InputError(f"offset + k = {reached:,}; this server goes to {schemas.MAX_REACHED:,}. Make the query narrower, or filter it")
    images, joined = images_of(desk, served, asked.query), joined_of(desk, served, asked.query)
    return answer(
        store,
        asked.query,
        reached,
        where=asked.where if asked.where.strip() else None,
        vectors=images,
        fusion=asked.fusion or None,
        joined=joined,
        order=asked.order or BY_SCORE,
        cut_off=asked.share,
        fold=asked.is_folded,
        offset=offset,
    )


def found_json(desk: Desk, served: Served, store: Store, asked: Asked, k: int, offset: int) -> bytes:
    """The reply to a search; see `schemas.Found`."""
    begun = time.perf_counter()
    found = find(desk, served, store, asked, k, offset)
    values = as_values(asked.query, found)
    for hit, facts in zip(values["hits"], sizes_of(store, [hit.id for hit in found.hits]), strict=True):
        hit |= facts
    values |= {"store": served.name, **generation_of(store), "num_found": found.num_found}
    values["time_ms"] = round(1000 * (time.perf_counter() - begun), 2)
    return json_text(values).encode()


def sizes_of(store: Store, ids: Sequence[int]) -> list[dict[str, Any]]:
    """has_thumbnail, width and height of pictures: of the picture if the store has such columns, else of its thumbnail, which has the same
    proportions; None where neither is known."""
    if {"width", "height"} <= set(store.columns):
        pictured, records = store.may_have_thumbnails(ids), store.records(ids, ("width", "height"))
        sizes = [(_whole(record["width"]), _whole(record["height"])) for record in records]
    else:
        thumbnails = store.thumbnails(ids)  # which the page asks for next, and are at hand then
        pictured, sizes = [one is not None for one in thumbnails], [_size(one) for one in thumbnails]
    return [{"has_thumbnail": there, "width": width, "height": height} for there, (width, height) in zip(pictured, sizes, strict=True)]


def _size(thumbnail: bytes | None) -> tuple[int | None, int | None]:
    if thumbnail is None:
        return None, None
    try:
        return plain_jpeg_size(thumbnail) or claimed_size(thumbnail)
    except BadPicture:
        return None, None


def facts_json(served: Served, store: Store) -> bytes:
    """One store of the reply of `/api/stores`."""
    return json_text(store_facts(served, store)).encode()


def store_facts(served: Served, store: Store) -> dict[str, Any]:
    """See `schemas.StoreFacts`."""
    kinds = {name: KINDS.get(store.filter_columns.column(name).kind) for name in store.columns}
    return {
        "name": served.name,
        "num_pictures": len(store),
        "family": store.family,
        "dim": store.dim,
        **generation_of(store),
        "columns": [{"name": name, "kind": kind} for name, kind in kinds.items() if kind is not None],
        "fusions": _fusions(store),
        "takes_pictures": served.pictures is not None,
        "takes_pictures_not": None if served.pictures is not None else no_tower(served),
        "has_map": len(store) > 0,
        "has_files": has_originals(store),
        "has_thumbnails": any(segment.has_thumbnails for segment in store.segments),
        "examples": [example for example in EXAMPLES if _is_known(store, example)],
    }


def generation_of(store: Store) -> dict[str, Any]:
    """The number of a store's generation, and what it is known by in caches."""
    return {"generation": store.manifest.counts["generation"], "version": store.version}


def terms_values(typed: Typed, near: list[Near]) -> dict[str, Any]:
    """See `schemas.Terms`."""
    said = {word for part in typed.parts for word in part.term.content.lower().split()}
    return {
        "parts": [_part_values(part) for part in typed.parts],
        "series": typed.num_steps if typed.num_steps > 1 else None,
        "suggestions": [{"text": one.word, "why": "near"} for one in near if one.word not in said][:NUM_SUGGESTIONS],
        "error": typed.error,
        "position": typed.position,
    }


def picture_values(store: Store, id: int, near: list[Near]) -> dict[str, Any]:
    """See `schemas.PictureFacts`."""
    [record] = store.records([id], store.columns)
    [size] = sizes_of(store, [id])
    path = str(store.file_of(record["folder"], record["path"])) if store.has_files else None
    shown = {name: _scalar(value) for name, value in record.items() if value is not None and name not in ("name", "text")}
    topics = []
    if store.family == "topic" and isinstance(store.query_space, NamesDimensions):
        row = store.take([id])[0].astype(np.float64)
        shares = np.maximum(row, 0) / max(np.maximum(row, 0).sum(), 1e-12)
        words = store.query_space.top_words(8)
        topics = [
            {"number": number, "words": words[number], "share": round(float(shares[number]), 4)}
            for number in np.argsort(-shares, kind="stable")[:NUM_TOPICS].tolist()
        ]
    return {
        "id": id,
        "name": record["name"],
        "text": record["text"],
        "path": path,
        "metadata": shown,
        "words": [{"text": one.word, "score": round(one.nearness, 3)} for one in near],
        "topics": topics,
        "has_file": has_originals(store),
        **size,
    }


def facet_values(facet: Facet) -> dict[str, Any]:
    """See `schemas.FacetColumn`."""
    return {
        "column": facet.column,
        "kind": facet.kind,
        "values": [asdict(value) for value in facet.values],
        "bins": [{"from": one.start, "to": one.stop, "count": one.count, "where": one.where} for one in facet.bins],
        "num_values": facet.num_values,
        "missing": facet.missing,
    }


def judged(store: Store, judgement: schemas.Judgement) -> dict[str, Any]:
    """What is kept of a judgement. InputError if it is neither of a query nor of a pair, or a picture does not exist."""
    of_query = (judgement.query, judgement.id, judgement.relevant)
    of_pair = (judgement.a, judgement.b, judgement.same)
    if None not in of_query and of_pair == (None, None, None):
        query, id, relevant = of_query
        assert query is not None and id is not None
        if not plain(query):
            raise InputError("a judgement needs the query that the picture was found by")
        checked(Asked(query))
        [record] = store.records([id], ("name",))
        return {"query": plain(query), "id": id, "name": plain(record["name"]), "relevant": relevant}
    if None not in of_pair and of_query == (None, None, None):
        a, b, same = of_pair
        assert a is not None and b is not None
        if a == b:
            raise InputError("a pair is two pictures")
        store.records([a, b], ("name",))
        return {"a": a, "b": b, "same": same}
    raise InputError("a judgement is query, id and relevant; or a, b and same")


def picture_id(written: str) -> int:
    """The id in an address. Refused (404) if it is no whole number."""
    if not re.fullmatch(r"[0-9]{1,30}", written, re.ASCII):
        raise Refused(404, "a picture has a whole number as its id")
    return int(written)


def no_tower(served: Served) -> str:
    """Why a store takes no pictures."""
    return f"pictures are embedded by the export that the store {served.name} was made from: start the server with --export EXPORT"


def images_of(desk: Desk, served: Served, query: str) -> dict[str, np.ndarray]:
    """The vectors of the query's uploaded pictures. InputError for a picture that is neither uploaded nor an id."""
    found, uploaded = {}, desk.uploaded(served)
    for term in _every_term(query):
        if term.kind != "image" or is_id(term.content):
            continue
        if not CONTENT.fullmatch(term.content):
            raise InputError(f"{term.label}: name a picture by its id, as in image:17; this server reads no files")
        if term.content not in uploaded:
            raise InputError(f"{term.label}: this server has no such picture for the store {served.name}, or not any more. Give it again")
        if not term.export:  # a joined store refuses it
            found[term.content] = uploaded[term.content]
    return found


def joined_of(desk: Desk, served: Served, query: str) -> dict[str, Store]:
    """The other stores that are served, if the query may be about them."""
    wanted = any(term.export or term.kind == "topic" for term in _every_term(query))
    return desk.stores.others(served) if wanted else {}


def _every_term(query: str) -> list[Term]:
    """Of a query that parses; none of another, which `answer` will refuse."""
    try:
        return [term for step in parse_steps(query) for term in step.every_term]
    except InputError:
        return []


def _fusions(store: Store) -> list[dict[str, str]]:
    own = "every term must be met" if names_product(store.fitted) or store.fusion.is_product else "a sum"
    return [
        {"name": "", "title": f"as the store keeps it: {own}"},
        {"name": "product", "title": "every term must be met"},
        {"name": "sum", "title": "the sum of the terms' vectors"},
    ]


def _is_known(store: Store, query: str) -> bool:
    words = [term.content for step in parse_steps(query) for term in step.every_term if term.kind == "text"]
    return not any(store.query_space.unknown_words(word) for word in words)


def _part_values(part: TypedPart) -> dict[str, Any]:
    return {
        "label": part.term.at(1.0).label,
        "kind": part.term.kind,
        "content": part.term.content,
        "weight": abs(part.term.weight),
        "role": part.role,
        "old": part.old,
        "export": part.term.export,
        "known": part.known,
        "unknown": dict(part.unknown),
        "spellings": list(part.spellings),
        "words": list(part.words),
        "position": part.position,
        "step": part.step,
    }


def _whole(value: Any) -> int | None:
    """A number of pixels; None if it is none."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**31 else None


def _scalar(value: Any) -> Any:
    """A value of a column as JSON has it."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_text(value), status, media_type="application/json")
