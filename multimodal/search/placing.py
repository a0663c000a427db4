"""A query on the map of a store: where each of its terms is, and which pictures light up.

    found = place(store, "dog + beach")
    found.terms[0].point                 # (x, y), where the pictures nearest to "dog" are densest

Words have no place of their own: in a contrastive space all texts lie together, far from every picture (Liang et al., 2022), so on a map of
both they would be a heap beside it. A term is therefore shown where its nearest pictures are, and how far these agree is said with it. A
picture of the store is where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from multimodal.search.algebra import Part, is_id, look_up, number_of
from multimodal.search.fusion import Fusion
from multimodal.search.grammar import Term, parse_steps
from multimodal.search.pausing import may_pause
from multimodal.search.places import SIDE, consensus
from multimodal.search.query import Searchable, fusion_of, images_of
from multimodal.search.ranking import rank
from multimodal.search.store import Store
from multimodal.search.where import Where

NUM_NEAR = 32
"""Pictures by which a term is placed."""
NUM_LIT = 300


@dataclass(frozen=True, slots=True)
class PlacedTerm:
    """A term on the map. point: x and y, 0 to `places.SIDE`. share: how much of its nearest pictures' weight is around the point; 1 if it
    is a picture of the store. ids: its nearest pictures, best first.
    """

    part: Part
    point: tuple[int, int]
    share: float
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlacedQuery:
    """terms: those of every step that this store scores, each once. ids: the best pictures, best first; of a series, step by step."""

    terms: tuple[PlacedTerm, ...]
    ids: tuple[int, ...]


def place(
    store: Store,
    query: str,
    where: Where | None = None,
    vectors: Mapping[str, np.ndarray] | None = None,
    fusion: str | Fusion | None = None,
    joined: Mapping[str, Searchable] | None = None,
    k: int = NUM_LIT,
) -> PlacedQuery:
    """The arguments are those of `multimodal.search.query.answer`. InputError: as there. A filter does not move a term."""
    steps = parse_steps(query)
    way = fusion_of(store, fusion)
    images, named = images_of(store, query, steps, None, vectors or {})
    allowed = store.select(where) if where else None
    terms: dict[tuple[Term, bool], PlacedTerm] = {}
    best: list[int] = []
    for step in steps:
        found = look_up(step, store, images, way.centred, joined)
        for part, unit in zip(found.parts, found.units, strict=True):
            key = (part.term.at(1.0), part.is_without)
            if part.home == "" and key not in terms and len(store):
                may_pause()
                terms[key] = _placed(store, part, unit, frozenset(named) if part.term.content not in (vectors or {}) else frozenset())
        best += rank(store, found, way, max(1, k // len(steps)), named, allowed, joined).ids.tolist()
    return PlacedQuery(tuple(terms.values()), tuple(dict.fromkeys(best)))


def _placed(store: Store, part: Part, unit: np.ndarray, own: frozenset[int]) -> PlacedTerm:
    """own: ids of the pictures that the query names."""
    near = store.engine.search(unit[None].astype(np.float32), NUM_NEAR).ids[0]
    if part.term.kind == "image" and is_id(part.term.content) and number_of(part.term) in own:
        [[x, y]] = points_of(store, np.array([number_of(part.term)])).tolist()
        return PlacedTerm(part, (x, y), 1.0, tuple(near.tolist()))
    found = consensus(points_of(store, near), np.linspace(1, 0.3, len(near)))
    x, y = np.clip(found.point.round(), 0, SIDE).astype(int).tolist()
    return PlacedTerm(part, (x, y), round(found.share, 3), tuple(near.tolist()))


def points_of(store: Store, ids: np.ndarray) -> np.ndarray:
    """(k, 2) uint16: where pictures of the store are on its map."""
    return store.map.points[store.positions(ids)]
