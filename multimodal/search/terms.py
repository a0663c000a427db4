"""A query as it is being typed: its terms in their roles, with what the text space knows of them.

    typed = understand(store, "woman + scientst without")
    typed.parts, typed.error, typed.position

A query that does not parse yet is described as far as it does, with the error and its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from multimodal.errors import InputError
from multimodal.search.algebra import Part, Place, at_home, number_of, parts_of, term_vector
from multimodal.search.calibration import unit
from multimodal.search.grammar import MAX_WEIGHT, Expression, QueryError, Term, parse_places
from multimodal.text.space import NamesDimensions

Role = Literal["wanted", "subtracted", "without", "swap"]
NUM_TOPIC_WORDS = 8
NUM_SPELLINGS = 5
_TRIED = 4
"""Words that are left out at the end of a query that does not parse, one after the other."""


@dataclass(frozen=True, slots=True, eq=False)
class TypedPart:
    """A term, or a swap, of a query.

    old: the label of the term that a swap replaces. known: whether it counts; unknown: its unknown words -> near spellings.
    spellings: what the term could be instead, its unknown words replaced. words: those of a topic. position: in the query, from 0.
    step: of a series, 0 for its first end and 1 for its last.
    """

    term: Term
    role: Role
    old: str | None = None
    known: bool = True
    unknown: Mapping[str, list[str]] = field(default_factory=dict)
    spellings: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    position: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Typed:
    """parts: in the order of the query. vector: (d,), the sum of what it wants of this store, or None if that is nothing. num_steps: of a
    series, else 1. error, position: why the rest does not parse, and where."""

    parts: tuple[TypedPart, ...]
    vector: np.ndarray | None
    num_steps: int = 1
    error: str | None = None
    position: int | None = None


def understand(
    store: Place,
    query: str,
    images: Mapping[str, np.ndarray] | None = None,
    joined: Mapping[str, Place] | None = None,
) -> Typed:
    """What a query says so far. Never an error: what is wrong is part of the answer.

    images: content of image terms that are no ids -> their vectors (d,). joined: as for `look_up`.
    """
    error, position = None, None
    try:
        steps, begins = parse_places(query)
    except QueryError as wrong:
        error, position = str(wrong), wrong.column - 1
        steps, begins = _beginning(query, position)
    places: dict[str, Place] = {"": store, **(joined or {})}
    parts: list[TypedPart] = []
    total = np.zeros(store.dim)
    for step, expression in enumerate([steps[0], steps[-1]] if len(steps) > 1 else steps):
        for described, vector in _described(expression, places, {} if images is None else images):
            parts.append(replace(described, position=begins.get(described.term.at(1.0), 0), step=step))
            if vector is not None:
                total += min(described.term.weight, MAX_WEIGHT) * vector
    parts.sort(key=lambda part: (part.step, part.position))
    return Typed(tuple(parts), unit(total) if total.any() else None, max(len(steps), 1), error, position)


def _beginning(query: str, position: int) -> tuple[tuple[Expression, ...], Mapping[Term, int]]:
    """The longest beginning, in whole words, that parses."""
    ends = [word.end() for word in re.finditer(r"\S+", query[:position])]
    for end in reversed(ends[-_TRIED:]):
        try:
            return parse_places(query[:end])
        except QueryError:
            continue
    return (), {}


def _described(
    expression: Expression, places: Mapping[str, Place], images: Mapping[str, np.ndarray]
) -> list[tuple[TypedPart, np.ndarray | None]]:
    """Each part; and its vector, where it is one of the store itself that is wanted."""
    found = []
    for term in expression.terms:
        role: Role = "wanted" if term.weight > 0 else "subtracted"
        found.append(_part(Part(term.at(abs(term.weight)), term.label, term.weight < 0), role, places, images))
    found += [_part(Part(term, term.label, True), "without", places, images) for term in expression.without]
    for swap in expression.swaps:
        new, old = parts_of(Expression((), (), (swap,)))
        described, vector = _part(new, "swap", places, images)
        replaced, _ = _part(old, "swap", places, images)
        found.append((replace(described, old=old.term.label, unknown={**described.unknown, **replaced.unknown}), vector))
    return found


def _part(part: Part, role: Role, places: Mapping[str, Place], images: Mapping[str, np.ndarray]) -> tuple[TypedPart, np.ndarray | None]:
    term = part.term
    try:
        part = at_home(part, places)
        place = places[part.home]
        vector = term_vector(term, place, images if part.home == "" else {}, calibrated=True)
    except InputError:  # a store, a topic or a picture that does not exist
        return TypedPart(term, role, known=False), None
    unknown = place.query_space.unknown_words(term.content) if term.kind == "text" else {}
    words: tuple[str, ...] = ()
    if term.kind == "topic" and isinstance(place.query_space, NamesDimensions):
        words = tuple(place.query_space.top_words(NUM_TOPIC_WORDS)[number_of(term)])
    described = TypedPart(term, role, None, bool(vector.any()), unknown, _spellings(term.content, unknown), words)
    return described, vector if part.home == "" and not part.is_without and vector.any() else None


def _spellings(content: str, unknown: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The content with its unknown words replaced by their nearest spellings: by the first of each, the second of each ..."""
    if not any(unknown.values()):
        return ()
    found = []
    for rank in range(NUM_SPELLINGS):
        words = [next(iter(near[min(rank, len(near) - 1) :]), word) if (near := _near(word, unknown)) else word for word in content.split()]
        found.append(" ".join(words))
    return tuple(dict.fromkeys(found))


def _near(word: str, unknown: Mapping[str, list[str]]) -> list[str]:
    return unknown.get(word) or unknown.get(word.lower()) or []
