"""The map of a store over HTTP: places as bytes, and regions and the query's terms as JSON.

add_map(app, desk)

GET /api/map is 8 bytes that say how long its header is, a header in JSON, ids and places: see `pack`. A browser uses it as it comes,
without parsing 100,000 numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from multimodal.search.places import SIDE, map_part
from multimodal.search.placing import PlacedTerm, place
from multimodal.search.regions import Regions, make_regions
from multimodal.search.store import Store
from multimodal.serve.api import POSTED, PROBLEMS, StoreName, Where, checked, images_of, joined_of
from multimodal.serve.desk import Desk
from multimodal.serve.page import Asked
from multimodal.serve.schemas import Strict

MAGIC = b"MAP1"
BYTES = "application/octet-stream"
EDGE = 0.005 * SIDE
"""How far outside of a region its filter goes, for the pictures that are its corners."""
_BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {BYTES: {}}, "description": "A header in JSON, and arrays."}}


class Placing(Strict):
    """A query to be drawn on the map; the names are those of the page's address."""

    q: str = ""
    where: str = ""
    fusion: str = ""
    store: str = ""


class TermPlace(BaseModel):
    """A term of the query. x, y: from 0 to 65,535. share: how much its nearest pictures agree on the place. ids: these pictures."""

    label: str
    kind: str
    content: str
    weight: float
    is_without: bool
    x: int
    y: int
    share: float
    ids: list[int]


class Placed(BaseModel):
    """ids: the query's best pictures, best first."""

    generation: int
    version: str
    terms: list[TermPlace]
    ids: list[int]


class RegionFacts(BaseModel):
    """A region. outline: the corners of its hull; where: the filter that keeps its pictures."""

    x: int
    y: int
    num: int
    id: int
    name: str
    words: list[tuple[str, float]]
    outline: list[tuple[int, int]]
    where: str


class RegionLevels(BaseModel):
    """levels: from the largest regions to the smallest."""

    generation: int
    version: str
    levels: list[list[RegionFacts]]


def add_map(app: FastAPI, desk: Desk) -> None:
    """The routes below `/api/map`."""

    @app.get("/api/map", response_class=Response, responses=PROBLEMS | _BYTES, tags=["map"])
    async def places(store: StoreName = "", if_none_match: Annotated[str, Header()] = "") -> Response:
        """Where every picture is, as bytes: see `multimodal.serve.map.pack_map`."""
        served = desk.stores.find(store)

        def packed(opened: Store) -> tuple[str, bytes | None]:
            tag = '"{version}-{generation}"'.format(**_named(opened))
            return tag, None if tag in if_none_match else pack_map(opened)

        tag, body = await desk.read(served, packed)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        return Response(status_code=304, headers=headers) if body is None else Response(body, media_type=BYTES, headers=headers)

    @app.get("/api/map/passing", response_class=Response, responses=PROBLEMS | _BYTES, tags=["map"])
    async def passing(where: Where, store: StoreName = "") -> Response:
        """Which pictures meet a filter: one bit each, in the order of the map, the lowest bit of a byte first."""
        served = desk.stores.find(store)
        asked = checked(Asked("", where=where, store=store))

        def packed(opened: Store) -> bytes:
            passes = opened.filter_columns.meeting(asked.where)
            header = {"num": len(opened), "num_passing": int(passes.sum()), **_named(opened)}
            return pack(header, [np.packbits(passes, bitorder="little")])

        return Response(await desk.read(served, packed), media_type=BYTES)

    @app.get("/api/map/regions", response_model=RegionLevels, responses=PROBLEMS, tags=["map"])
    async def regions(store: StoreName = "") -> Response:
        """The names of the map's regions. Of a map that is not kept in the store they are found first, which may take some seconds."""
        served = desk.stores.find(store)
        is_kept = map_part((await run_in_threadpool(served.newest.current)).manifest.parts) is not None
        words = None if is_kept else (await desk.background.end_of(desk.words(served)))[0]

        def found(opened: Store) -> bytes:
            made = opened.map.regions or make_regions(opened, opened.map.points, words)
            return described(opened, made).model_dump_json().encode()

        return Response(await desk.answer(served, "regions", found), media_type="application/json")

    @app.post("/api/map/place", response_model=Placed, responses=POSTED, tags=["map"])
    async def placed(given: Placing) -> Response:
        """Where the terms of a query are on the map, and its best pictures. A term is where the pictures nearest to it are densest."""
        served = desk.stores.find(given.store)
        asked = checked(Asked(given.q, where=given.where, fusion=given.fusion, store=given.store))

        def found(opened: Store) -> bytes:
            images, joined = images_of(desk, served, asked.query), joined_of(desk, served, asked.query)
            condition = asked.where if asked.where.strip() else None
            placed = place(opened, asked.query, condition, images, asked.fusion or None, joined)
            terms = [_described(term) for term in placed.terms]
            reply = Placed(**_named(opened), terms=terms, ids=list(placed.ids))
            return reply.model_dump_json().encode()

        return Response(await desk.answer(served, ("place", asked), found), media_type="application/json")


def pack_map(store: Store) -> bytes:
    """Where the pictures of a store are: ids as "u4", or as "f8" if they need more, then x and y of each as "u2", little-endian.

    The header has num, generation, method ("umap" or "pca"), version, num_placed, and ids, which is "u4" or "f8".
    """
    found = store.map
    kind = "u4" if not len(store) or 0 <= store.ids.min() and store.ids.max() < 1 << 32 else "f8"
    header = {
        "num": len(store),
        **_named(store),
        "method": found.method,
        "num_placed": found.num_placed,
        "ids": kind,
    }
    return pack(header, [store.ids.astype(f"<{kind}"), found.points.astype("<u2")])


def pack(header: dict[str, Any], arrays: Sequence[np.ndarray]) -> bytes:
    """MAGIC, the length of the header as uint32, the header as JSON with spaces up to a multiple of 8, then the arrays, one by one."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([MAGIC, struct.pack("<I", len(text)), text, *(array.tobytes() for array in arrays)])


def described(store: Store, regions: Regions) -> RegionLevels:
    """As they are sent."""
    version = store.map.version
    levels = [
        [
            RegionFacts(
                x=region.x,
                y=region.y,
                num=region.num,
                id=region.id,
                name=region.name,
                words=list(region.words),
                outline=list(region.outline),
                where=as_filter(version, region.outline),
            )
            for region in level
        ]
        for level in regions.levels
    ]
    return RegionLevels(**_named(store), levels=levels)


def as_filter(version: str, outline: Sequence[tuple[int, int]]) -> str:
    """The filter of the pictures within the outline of a region, and of those on it; "" if it has no area."""
    if len(outline) < 3:
        return ""
    corners = np.array(outline, np.float64)
    outwards = corners - corners.mean(axis=0)
    wider = corners + outwards * (EDGE / np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1))
    written = ", ".join(" ".join(f"{value:.1f}" for value in corner) for corner in np.clip(1000 * wider / SIDE, 0, 1000))
    return f'map inside "{version}: {written}"'


def _described(term: PlacedTerm) -> TermPlace:
    x, y = term.point
    return TermPlace(
        label=term.part.term.label,
        kind=term.part.term.kind,
        content=term.part.term.content,
        weight=term.part.term.weight,
        is_without=term.part.is_without,
        x=x,
        y=y,
        share=term.share,
        ids=list(term.ids),
    )


def _named(store: Store) -> dict[str, Any]:
    """What tells a map from others."""
    return {"generation": int(store.manifest.counts["generation"]), "version": store.map.version}
