"""The records of the API, as they are sent. docs/serving.md tells what they mean; `/openapi.json` is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_HITS = 1000
MAX_REACHED = 10_000
"""How far `offset` and `k` reach together."""
PAGE_HITS = 48


class Strict(BaseModel):
    """What clients send: an unknown name is an error."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Why a request was not answered. position: of the character in the query or the filter, from 0, if it is one."""

    error: str
    position: int | None = None


class StoreColumn(BaseModel):
    name: str
    kind: Literal["text", "number", "date", "boolean"]


class FusionChoice(BaseModel):
    """A way to combine terms. name: for `fusion`; "" is the store's own."""

    name: str
    title: str


class StoreFacts(BaseModel):
    """A store that is served. version: changes whenever anything of it does; generation: counts its writers' commits."""

    name: str
    num_pictures: int
    family: str
    dim: int
    generation: int
    version: str
    columns: list[StoreColumn]
    fusions: list[FusionChoice]
    takes_pictures: bool
    takes_pictures_not: str | None
    has_map: bool
    has_files: bool
    has_thumbnails: bool
    examples: list[str]


class FoundHit(BaseModel):
    """A picture. why: what each term does to its score, a factor or an addend (`why_is`). like: near duplicates folded into it."""

    id: int
    rank: int
    score: float
    name: str
    text: str
    why: dict[str, float]
    like: list[int]
    path: str | None
    has_thumbnail: bool
    width: int | None
    height: int | None


class Found(BaseModel):
    """The answer to a query. num_found: how many pictures pass the filter and the cut-off, null where that is not known. time_ms: what the
    answer took when it was computed."""

    query: str
    means: str
    unknown: dict[str, list[str]]
    left_out: list[str]
    candidates: str
    remark: str
    why_is: Literal["product", "sum"]
    hits: list[FoundHit]
    store: str
    generation: int
    version: str
    num_found: int | None
    time_ms: float


class SearchRequest(Strict):
    """A query, by POST; the names are those of the page's address."""

    q: str = ""
    k: Annotated[int, Field(ge=1, le=MAX_HITS)] = PAGE_HITS
    offset: Annotated[int, Field(ge=0, le=MAX_REACHED)] = 0
    where: str = ""
    order: str = ""
    cut_off: str | float = ""
    fold: str | bool = ""
    fusion: str = ""
    store: str = ""


class QueryPart(BaseModel):
    """A term of a query, as a chip. spellings: contents that it could have instead, its unknown words replaced. position: in the query,
    from 0. step: of a series, 0 for its first end and 1 for its last."""

    label: str
    kind: Literal["text", "image", "near", "topic"]
    content: str
    weight: float
    role: Literal["wanted", "subtracted", "without", "swap"]
    old: str | None
    export: str
    known: bool
    unknown: dict[str, list[str]]
    spellings: list[str]
    words: list[str]
    position: int
    step: int


class Suggestion(BaseModel):
    text: str
    why: str


class Terms(BaseModel):
    """How a query is understood so far; of one that does not parse, the part before `position` that does. series: the number of its steps,
    or null if it is no series."""

    parts: list[QueryPart]
    series: int | None
    suggestions: list[Suggestion]
    error: str | None
    position: int | None


class Typed(BaseModel):
    """found: null if the query cannot be read so far, or none of its terms is known."""

    terms: Terms
    found: Found | None


class NearWord(BaseModel):
    text: str
    score: float


class TopicShare(BaseModel):
    number: int
    words: list[str]
    share: float


class PictureFacts(BaseModel):
    id: int
    name: str
    text: str
    path: str | None
    metadata: dict[str, Any]
    words: list[NearWord]
    topics: list[TopicShare]
    has_file: bool
    has_thumbnail: bool
    width: int | None
    height: int | None


class FacetValue(BaseModel):
    """where: the filter that keeps these pictures."""

    value: str | bool
    count: int
    where: str


class FacetBin(BaseModel):
    from_: Annotated[float | str, Field(alias="from")]
    to: float | str
    count: int
    where: str

    model_config = ConfigDict(populate_by_name=True)


class FacetColumn(BaseModel):
    column: str
    kind: Literal["text", "number", "date", "boolean"]
    values: list[FacetValue]
    bins: list[FacetBin]
    num_values: int
    missing: int


class Uploaded(BaseModel):
    """content: for a query, as image:<content>."""

    content: str
    width: int
    height: int


class Judgement(Strict):
    """Either query, id and relevant, or a, b and same."""

    store: str = ""
    query: str | None = None
    id: int | None = None
    relevant: bool | None = None
    a: int | None = None
    b: int | None = None
    same: bool | None = None


class JudgementKept(BaseModel):
    """A judgement as it is kept. number: counts those of the store, from 1."""

    number: int
    query: str | None = None
    id: int | None = None
    name: str | None = None
    relevant: bool | None = None
    a: int | None = None
    b: int | None = None
    same: bool | None = None


class Health(BaseModel):
    status: Literal["ok"]
    stores: dict[str, int]
