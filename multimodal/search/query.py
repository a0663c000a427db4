"""From a query in words to hits.

search(Store("runs/demo/wordvec/store"), "2*beach - people", k=20)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from multimodal.doors.printable import json_text
from multimodal.errors import InputError
from multimodal.pairs import Hit, Pictures
from multimodal.search.algebra import QueryTerms, at_home, is_id, look_up, number_of, parts_of, term_vector
from multimodal.search.answer import Answer
from multimodal.search.calibration import unit
from multimodal.search.choosing import BY_SCORE, by_column, check_order
from multimodal.search.choosing import fold as fold_hits
from multimodal.search.cutoff import Judge, Reach, check_cut_off
from multimodal.search.fusion import Fusion, default_fusion, make_fusion, names_product
from multimodal.search.grammar import Expression, Term, parse, parse_steps
from multimodal.search.hits import Hits
from multimodal.search.pausing import may_pause
from multimodal.search.ranking import Rankable, Ranking, rank, totals_of
from multimodal.search.segments import unit_rows
from multimodal.search.where import Where

if TYPE_CHECKING:
    from multimodal.search.filters import FilterColumns

ImageEncoder = Callable[[Sequence[Path]], np.ndarray]
"""Paths of p pictures -> (p, d) float32, in the space of the store's rows."""


class Searchable(Rankable, Pictures, Protocol):
    """What a query searches: a `Store`."""

    @property
    def path(self) -> Path: ...
    @property
    def trust(self) -> Sequence[str]: ...
    @property
    def fusion(self) -> Fusion: ...
    @property
    def fitted(self) -> Mapping[str, Any] | None: ...
    @property
    def columns(self) -> list[str]: ...
    @property
    def has_files(self) -> bool: ...
    @property
    def filter_columns(self) -> FilterColumns: ...
    @property
    def reach(self) -> Reach: ...
    def select(self, where: Where) -> np.ndarray: ...
    def file_of(self, folder: str, path: str) -> Path: ...
    def records(self, ids: Sequence[int] | np.ndarray, columns: Sequence[str] = ...) -> list[dict[str, Any]]: ...


def search(store: Searchable, query: str, k: int = 10, image_encoder: ImageEncoder | None = None, where: Where | None = None) -> Hits:
    """The k pictures nearest to a query, best first; see `multimodal.search.grammar` for how a query is written.

    image_encoder: encodes `image:<path>`; `image:<id>` needs none. where: a filter, see `Store.select`.
    Words that the text space does not know are left out with a warning; `answer` returns them as data.
    InputError: the query does not parse, none of its words is known, its terms cancel, or an id or a column does not exist.
    """
    found = answer(store, query, k, image_encoder, where)
    if found.notes:
        warnings.warn(found.notes, stacklevel=2)
    return Hits(found.hits, query, found)


def answer(
    store: Searchable,
    query: str,
    k: int = 10,
    image_encoder: ImageEncoder | None = None,
    where: Where | None = None,
    vectors: Mapping[str, np.ndarray] | None = None,
    fusion: str | Fusion | None = None,
    joined: Mapping[str, Searchable] | None = None,
    order: str = BY_SCORE,
    cut_off: float | None = None,
    fold: bool = False,
    offset: int = 0,
) -> Answer:
    """Like `search`, with the query as it was understood and the unknown words beside the hits.

    vectors: name -> the vector (d,) that `image:<name>` stands for in the query.
    fusion: how terms are combined: product, sum, a class path, or an object; by default as the store keeps it.
    joined: name -> another store of the same pictures, which scores terms such as `export:<name>:beach`.
    order: the column in whose order hits are shown, after a minus from the largest to the smallest; they are chosen by score.
    cut_off: hide the pictures that this share of random queries for something finds as good ones of; see `multimodal.search.cutoff`.
    fold: show a picture that nearly equals a better one as `Hit.like` of that one; see `multimodal.search.choosing`.
    offset: leave out the first so many of the k pictures, which costs less than to leave them out afterwards.
    A series (`between a and b in 5`) has a hit for each step, in place of k: the best picture that no earlier step has, while there is one.
    """
    if not hasattr(k, "__index__"):  # from Python: a float would fail far from here
        raise InputError(f"k = {k!r}; it must be a whole number")
    if k < 1:
        raise InputError(f"k = {k}; it must be at least 1")
    if not 0 <= offset:
        raise InputError(f"offset = {offset}; it must be at least 0")
    if offset and order != BY_SCORE:
        raise InputError(f"an order by {order} is that of the best k pictures: ask for them at once, with a larger k and no offset")
    steps = parse_steps(query)
    is_series = len(steps) > 1
    if is_series and (order != BY_SCORE or cut_off is not None or fold):
        raise InputError("a series has one hit for each step, in the order of its steps: leave order, cut-off and fold out")
    if order != BY_SCORE:
        check_order(store, order)
    if cut_off is not None:
        check_cut_off(cut_off)
    way = fusion_of(store, fusion)
    images, named = images_of(store, query, steps, image_encoder, vectors or {})
    allowed = store.select(where) if where else None
    hits: list[Hit] = []
    candidates = remark = ""
    seen: dict[str, QueryTerms] = {}
    num_found: int | None = None
    for step in steps:
        may_pause()
        terms = look_up(step, store, images, way.centred, joined)
        seen[str(step)] = terms
        if cut_off is not None and len(store.ids):
            allowed, remark = _above(store, terms, way, allowed, cut_off, named, joined)

        ranked = partial(rank, store, terms, way, named=named, allowed=allowed, joined=joined)
        if fold:
            found, places, like = fold_hits(store, ranked, k, store.engine if allowed is None else store.engine.filter(allowed))
            hits += _hits(store, terms, found, places, way.is_product, like, offset)
        else:
            found = ranked(len(hits) + 1 if is_series else k)
            places = [at for at, id in enumerate(found.ids.tolist()) if not is_series or id not in {hit.id for hit in hits}]
            hits += _hits(store, terms, found, places[: 1 if is_series else None], way.is_product, offset=0 if is_series else offset)
            num_found = len(store.ids) if allowed is None else len(allowed)
        candidates = found.candidates
    if is_series:
        num_found = len(hits)
        hits = [replace(hit, rank=step) for step, hit in enumerate(hits, start=1)][offset:]
    elif order != BY_SCORE:
        hits = [hits[place] for place in by_column(store, [hit.id for hit in hits], order)]
    left_out = dict.fromkeys(term for terms in seen.values() for term in terms.left_out)
    unknown = {word: near for terms in seen.values() for word, near in terms.unknown.items()}
    return Answer(steps, hits, tuple(left_out), unknown, candidates, way.is_product, remark, num_found)


def _above(
    store: Searchable,
    terms: QueryTerms,
    way: Fusion,
    allowed: np.ndarray | None,
    cut_off: float,
    named: frozenset[int],
    joined: Mapping[str, Searchable] | None,
) -> tuple[np.ndarray, str]:
    """Those of the allowed pictures that are above a cut-off; and a remark if there are none, with the share of the best one."""
    judge = Judge(store, terms)
    engine = store.engine if allowed is None else store.engine.filter(allowed)
    above = judge.above(engine, cut_off)
    if len(above) or not len(engine):
        return above, ""
    best = rank(store, terms, way, 1, named, allowed, joined).ids
    [share] = judge.share(unit_rows(store.take(best), best))
    return above, f"nothing is above the cut-off of {cut_off:g}: the best picture is as good as what {share:.0%} of random queries find"


class ScoreAll:
    """A function from a query to how well each picture of a store meets it, for evaluations that ask many queries of the same terms.

    scores = ScoreAll(store); scores("dog without grass")      # (n,), in the order of store.ids

    Only the order of the values has a meaning; equal rows have equal ones. Pictures are named by id. It keeps the cosines of every term.
    """

    def __init__(self, store: Searchable, fusion: str | Fusion | None = None) -> None:
        self._store, self._fusion = store, fusion_of(store, fusion)
        self._rows = unit_rows(store.take(store.ids), store.ids).astype(np.float64)
        self._units: dict[Term, np.ndarray] = {}
        self._cosines: dict[Term, np.ndarray] = {}

    def embed(self, phrases: Sequence[str]) -> None:
        """Embed phrases together, which is faster than one by one, if this way compares them as they are."""
        if not self._fusion.centred:
            vectors = self._store.query_space.embed(list(phrases))
            self._units |= {Term("text", phrase, 1.0): unit(vector) for phrase, vector in zip(phrases, vectors, strict=True)}

    def __call__(self, query: str) -> np.ndarray:
        """(n,) float64. InputError: it does not parse, or is a series; NothingToFind: no word is known, or its terms cancel."""
        parts = [at_home(part, {"": self._store}) for part in parts_of(parse(query))]
        parts = [part for part in parts if self._unit(part.term.at(1.0)).any()]
        if not parts:
            look_up(parse(query), self._store, {}, self._fusion.centred)  # raises, and says why
        terms = QueryTerms(tuple(parts), tuple(self._unit(part.term.at(1.0)) for part in parts), (), {})
        cosines = np.stack([self._cosines_of(part.term.at(1.0)) for part in parts])
        return totals_of(self._store, terms, self._fusion, cosines)

    def _unit(self, term: Term) -> np.ndarray:
        if term not in self._units:
            self._units[term] = term_vector(term, self._store, {}, self._fusion.centred)
        return self._units[term]

    def _cosines_of(self, term: Term) -> np.ndarray:
        if term not in self._cosines:
            self._cosines[term] = (self._rows * self._unit(term)).sum(axis=1)  # not a matrix product: equal rows then tie at any place
        return self._cosines[term]


def fusion_of(store: Searchable, fusion: str | Fusion | None) -> Fusion:
    """The way that is asked for. Whoever names a class here means it to be run, so its package is trusted."""
    if fusion is None:
        return store.fusion
    if fusion == "product":  # with the store's constants, if it has any; whatever class it names instead is not needed
        return store.fusion if names_product(store.fitted) else default_fusion(store.family)
    if isinstance(fusion, str):
        return make_fusion(fusion, store.path, (*store.trust, fusion.partition(".")[0]))
    return fusion


def images_of(
    store: Searchable,
    query: str,
    steps: Sequence[Expression],
    image_encoder: ImageEncoder | None,
    vectors: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], frozenset[int]]:
    """Content of each picture that the store itself scores -> its vector; and the ids among them."""
    own = [term for step in steps for term in step.every_term if not term.export]
    pictures = {term.content: term for term in own if term.kind == "image"}
    if unused := sorted(vectors.keys() - pictures.keys()):
        raise InputError(f"images names {', '.join(unused)}, and the query {query!r} has no image:{unused[0]}")
    named = {content: number_of(term) for content, term in pictures.items() if is_id(content) and content not in vectors}
    paths = [content for content in pictures if content not in named and content not in vectors]
    rows = store.take(list(named.values()))
    images = {**vectors, **dict(zip(named, rows, strict=True)), **_encode(store, paths, image_encoder)}
    near = {number_of(term) for term in own if term.kind == "near"}
    return images, frozenset({*named.values(), *near})


def _file_of(path: str) -> Path | None:
    """The picture file that a query names, or None if no such file exists."""
    try:
        file = Path(path).expanduser()  # RuntimeError: the home of an unknown user
        return file if file.is_file() else None
    except (RuntimeError, ValueError, OSError):  # a name that contains NUL, is too long, or may not be accessed
        return None


def _encode(store: Searchable, paths: Sequence[str], image_encoder: ImageEncoder | None) -> dict[str, np.ndarray]:
    """Content of each `image:<path>` term -> its vector (d,)."""
    if not paths:
        return {}
    files = [_file_of(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        if file is None:
            raise InputError(
                f"image:{path} is neither an id of the store nor a file. Ids are whole numbers; quote a path that has spaces or signs in it"
            )
    if image_encoder is None:
        raise InputError(
            f"image:{paths[0]} needs the image tower that the store was made with, and a store has none. Add --export <folder>, "
            "in Python model=<export>"
        )
    vectors = np.asarray(image_encoder([file for file in files if file is not None]))
    if vectors.shape != (len(paths), store.dim):
        raise InputError(f"the image encoder returned shape {vectors.shape}; this store needs ({len(paths)}, {store.dim})")
    for path, vector in zip(paths, vectors, strict=True):
        if not (np.isfinite(vector).all() and vector.any()):
            raise InputError(f"image:{path}: the image encoder's vector is zero or not finite")
    return dict(zip(paths, vectors, strict=True))


def _hits(
    store: Searchable,
    terms: QueryTerms,
    found: Ranking,
    places: Sequence[int],
    is_product: bool,
    like: Sequence[tuple[int, ...]] = (),
    offset: int = 0,
) -> list[Hit]:
    """The pictures at some places of a ranking, without the first `offset` of them.

    Terms that share a label, as those of a swap do, are shown together.
    """
    added: dict[str, np.ndarray] = {}
    for part, values in zip(terms.parts, found.added, strict=True):
        added[part.label] = added.get(part.label, 0.0) + values
    show = np.exp if is_product else np.asarray
    files = ("folder", "path") if store.has_files else ()
    like = (like or [()] * len(places))[offset:]
    places = places[offset:]
    records = store.records(found.ids[list(places)], ("name", "text", *files))
    return [
        Hit(
            id=int(found.ids[at]),
            score=float(show(found.totals[at])),
            name=record["name"],
            text=record["text"],
            why={label: float(show(values[at])) for label, values in added.items()},
            rank=rank,
            like=nearly_equal,
            path=str(store.file_of(record["folder"], record["path"])) if files else None,
            pictures=store,
        )
        for rank, (at, record, nearly_equal) in enumerate(zip(places, records, like, strict=True), start=1 + offset)
    ]


FACTS = ("rank", "id", "score", "name", "text", "why", "like", "path")


def as_values(query: str, found: Answer) -> dict[str, Any]:
    """As JSON values: query, means, unknown, left_out, candidates, remark, why_is (product or sum), hits."""
    return {
        "query": query,
        "means": " | ".join(map(str, found.steps)),
        "unknown": dict(found.unknown),
        "left_out": [term.label for term in found.left_out],
        "candidates": found.candidates,
        "remark": found.remark,
        "why_is": "product" if found.is_product else "sum",
        "hits": [{name: getattr(hit, name) for name in FACTS} for hit in found.hits],
    }


def as_json(query: str, found: Answer) -> str:
    """`as_values` as one JSON object."""
    return json_text(as_values(query, found), indent=1)


def as_json_lines(found: Answer) -> str:
    """The hits alone, each as JSON on a line of its own."""
    return "".join(json_text({name: getattr(hit, name) for name in FACTS}) + "\n" for hit in found.hits)
