"""The map of a store over HTTP: places as bytes, and regions and the query's terms as JSON.

    app.include_router(map_routes(ask))

GET /api/map is 8 bytes that say how long its header is, a header in JSON, ids and places: see `pack`. A browser uses it as it comes,
without parsing 100,000 numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict

from multimodal.boxes import fingerprint_bytes
from multimodal.search.places import SIDE
from multimodal.search.placing import PlacedTerm, place
from multimodal.search.regions import Embed, Regions, embedding, make_regions
from multimodal.search.store import Store

T = TypeVar("T")
MAGIC = b"MAP1"
BYTES = "application/octet-stream"


class Ask(Protocol):
    """What answers a question about the newest generation of a store, in a thread. is_query: it uses the text space or the engine, which
    one thread does at a time."""

    def __call__(self, store: str, work: Callable[[Store], T], is_query: bool) -> Awaitable[T]: ...


class Placing(BaseModel):
    """A query to be drawn on the map; the names are those of the page's address."""

    model_config = ConfigDict(extra="forbid")
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


def map_routes(ask: Ask) -> APIRouter:
    """The routes, over whatever answers for the stores of a server."""
    routes = APIRouter(prefix="/api/map", tags=["map"])
    naming = _Naming()

    @routes.get("", response_class=Response, responses={200: {"content": {BYTES: {}}}})
    async def places(store: str = "", if_none_match: Annotated[str, Header()] = "") -> Response:
        """Where every picture is, as bytes: see `multimodal.serve.map.pack`."""

        def packed(of: Store) -> tuple[str, bytes | None]:
            tag = f'"{of.map.version}-{_generation(of)}"'
            return tag, None if tag in if_none_match else pack_map(of)

        tag, body = await ask(store, packed, False)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        return Response(status_code=304, headers=headers) if body is None else Response(body, media_type=BYTES, headers=headers)

    @routes.get("/passing", response_class=Response, responses={200: {"content": {BYTES: {}}}})
    async def passing(where: str, store: str = "") -> Response:
        """Which pictures meet a filter: one bit each, in the order of the map, the first the lowest of the first byte."""

        def packed(of: Store) -> bytes:
            passes = of.filter_columns.meeting(where)
            header = {"num": len(of), "num_passing": int(passes.sum()), "generation": _generation(of), "version": of.map.version}
            return pack(header, [np.packbits(passes, bitorder="little")])

        return Response(await ask(store, packed, False), media_type=BYTES, headers={"Cache-Control": "no-cache"})

    @routes.get("/regions")
    async def regions(store: str = "") -> RegionLevels:
        """The names of the map's regions. Of a map that is not kept in the store they are found first, which may take some seconds."""

        def found(of: Store) -> RegionLevels:
            return described(of, of.map.regions or naming.regions(of))

        return await ask(store, found, True)

    @routes.post("/place")
    async def placed(given: Placing) -> Placed:
        """Where the terms of a query are on the map, and its best pictures. A term is where the pictures nearest to it are densest."""

        def found(of: Store) -> Placed:
            placed = place(of, given.q, given.where or None, fusion=given.fusion or None)
            terms = [_described(term) for term in placed.terms]
            return Placed(generation=_generation(of), version=of.map.version, terms=terms, ids=list(placed.ids))

        return await ask(given.store, found, True)

    return routes


class _Naming:
    """The regions of maps that are not kept in their stores. Words are embedded once: their vectors depend on the calibration alone."""

    def __init__(self) -> None:
        self._vectors: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        self._regions: dict[str, tuple[int, str, Regions]] = {}

    def regions(self, store: Store) -> Regions:
        path, now = str(store.path), (_generation(store), store.map.version)
        made = self._regions.get(path)
        if made is None or made[:2] != now:
            made = (*now, make_regions(store, store.map.points, self._embedding(store)))
            self._regions[path] = made
        return made[2]

    def _embedding(self, store: Store) -> Embed:
        """As `regions.embedding`. A request that is stopped because it takes too long leaves what it has to the next."""
        calibration = fingerprint_bytes(store.calibration.mean_term.tobytes())
        self._vectors = {key: known for key, known in self._vectors.items() if key[0] != str(store.path) or key[1] == calibration}
        known = self._vectors.setdefault((str(store.path), calibration), {})
        fresh = embedding(store)

        def embed(words: Sequence[str]) -> np.ndarray:
            for word in words:
                if word not in known:
                    known[word] = fresh([word])[0]
            return np.array([known[word] for word in words]).reshape(len(words), store.dim)

        return embed


def pack_map(store: Store) -> bytes:
    """Where the pictures of a store are: ids as "u4", or as "f8" if they need more, then x and y of each as "u2", little-endian.

    The header has num, generation, method ("umap" or "pca"), version, num_placed, and ids, which is "u4" or "f8".
    """
    found = store.map
    kind = "u4" if not len(store) or 0 <= store.ids.min() and store.ids.max() < 1 << 32 else "f8"
    header = {
        "num": len(store),
        "generation": _generation(store),
        "method": found.method,
        "version": found.version,
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
    return RegionLevels(generation=_generation(store), version=version, levels=levels)


def as_filter(version: str, outline: Sequence[tuple[int, int]]) -> str:
    """The filter of the pictures within a polygon of places; "" if it has no area."""
    if len(outline) < 3:
        return ""
    corners = ", ".join(" ".join(f"{1000 * value / SIDE:.1f}" for value in corner) for corner in outline)
    return f'map inside "{version}: {corners}"'


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


def _generation(store: Store) -> int:
    return int(store.manifest.counts["generation"])
