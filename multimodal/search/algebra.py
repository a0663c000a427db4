"""From an expression to vectors: each term of a query becomes a unit vector in the space of the store that scores it.

    terms = look_up(parse("woman + scientist without man"), store, {}, calibrated=True)
    terms.units, terms.parts, terms.unknown

A phrase is left out if the space knows none of its words; it is reported with near spellings. The other terms keep their weights,
so an unknown word moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multimodal.errors import InputError
from multimodal.search.calibration import Calibration, unit
from multimodal.search.engine import Engine
from multimodal.search.fusion import NothingToFind
from multimodal.search.grammar import Expression, Term
from multimodal.search.segments import unit_rows
from multimodal.text import TextSpace

NUM_NEAR = 8
"""Neighbours of a picture that `near:<id>` averages with it."""

MAX_DIGITS = 30
"""Digits of an id in a query; 64-bit integers have at most 19, and Python refuses to convert more than 4,300."""


class Place(Protocol):
    """A store whose space a term is looked up in."""

    @property
    def family(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def query_space(self) -> TextSpace: ...
    @property
    def calibration(self) -> Calibration: ...
    def take(self, ids: Sequence[int] | np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A term in its role. Its weight is positive.

    label: what a page calls it, see `Expression.labels`; both terms of a swap have the swap's.
    is_without: whether it should be absent: it is excluded, subtracted, or swapped for another term.
    home: the name of the joined store that scores it; "" for the store that is searched.
    """

    term: Term
    label: str
    is_without: bool
    home: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class QueryTerms:
    """What a query asks for, as vectors.

    parts: the t terms that count. units: of each, its unit vector (d,) float64, d being that of its home.
    left_out: phrases with no known word. unknown: each unknown word of the query, also in phrases with known words -> near spellings.
    """

    parts: tuple[Part, ...]
    units: tuple[np.ndarray, ...]
    left_out: tuple[Term, ...]
    unknown: Mapping[str, list[str]]


def parts_of(expression: Expression) -> list[Part]:
    """The terms of an expression in their roles; a swap is two of them."""
    labels = iter(expression.labels)
    parts = [Part(term.at(abs(term.weight)), next(labels), term.weight < 0) for term in expression.terms]
    parts += [Part(term, next(labels), True) for term in expression.without]
    for swap in expression.swaps:
        label = next(labels)
        parts += [Part(swap.new, label, False), Part(swap.old, label, True)]
    return parts


def look_up(
    expression: Expression,
    store: Place,
    images: Mapping[str, np.ndarray],
    calibrated: bool,
    joined: Mapping[str, Place] | None = None,
) -> QueryTerms:
    """The vectors of an expression's terms.

    images: content of each image term that is scored by the store itself -> its vector (d,), any length but zero.
    calibrated: embed short phrases by the store's calibration, in its template and centred; else as they are.
    joined: name -> another store of the same pictures, for terms such as `export:<name>:beach`.
    InputError: no term is left, or none is known (with near spellings); a store, a topic or a picture does not exist.
    """
    if "" in (joined or {}):
        raise InputError("a joined store needs a name: --join NAME=STORE, in Python joined={'name': store}")
    places: dict[str, Place] = {"": store, **(joined or {})}
    used, units, left_out = [], [], []
    unknown: dict[str, list[str]] = {}
    for part in parts_of(expression):
        part = at_home(part, places)
        place, term = places[part.home], part.term
        if term.kind == "text":
            unknown |= place.query_space.unknown_words(term.content)
        vector = term_vector(term, place, images if part.home == "" else {}, calibrated)
        if vector.any():
            used.append(part)
            units.append(vector)
        else:
            left_out.append(term)
    if not used and left_out:
        raise NothingToFind(_nothing_known(left_out, unknown))
    if not used:
        raise NothingToFind(
            f"the query cancels to nothing: {str(expression) or 'its terms cancel each other out'}. Leave a term out or change a weight"
        )
    return QueryTerms(tuple(used), tuple(units), tuple(left_out), unknown)


def at_home(part: Part, places: Mapping[str, Place]) -> Part:
    """With the store that scores it: the one it names, or for a topic the one that has topics."""
    home, term = part.term.export, part.term
    if home and home not in places:
        names = ", ".join(name for name in places if name) or "none"
        raise InputError(f"{term.label}: no store is joined as {home}; joined are: {names}. Add: --join {home}=STORE")
    if term.kind == "topic" and places[home].family != "topic":
        of_topics = [name for name, place in places.items() if place.family == "topic"]
        if home or not of_topics:
            raise InputError(
                f"{term.label}: the store {'is' if not home else home + ' is'} of the family {places[home].family}, which has no topics. "
                "Search a store of topics, or join one: --join STORE"
            )
        home = of_topics[0]
    return Part(term, part.label, part.is_without, home)


def term_vector(term: Term, place: Place, images: Mapping[str, np.ndarray], calibrated: bool) -> np.ndarray:
    """(d,) float64 of unit length, or zeros for a phrase without a known word."""
    if term.kind == "text":
        if calibrated:
            return place.calibration.embed(term.content, place.query_space)
        return unit(place.query_space.embed([term.content])[0])
    if term.kind == "topic":
        number = number_of(term)
        if number >= place.dim:
            raise InputError(f"{term.label}: the store has the topics 0 to {place.dim - 1}")
        return np.eye(place.dim)[number]
    if term.kind == "near":
        id = number_of(term)
        [row] = unit_rows(place.take([id]), np.array([id]))
        found = place.engine.search(row[None], 1 + NUM_NEAR).ids[0]
        return unit(unit_rows(place.take(found), found).astype(np.float64).mean(axis=0))
    if term.content in images:
        return unit(images[term.content])
    return unit(place.take([number_of(term)])[0])


def is_id(content: str) -> bool:
    """Whether `image:<content>` names a picture of a store rather than a file."""
    return content.isascii() and content.isdigit()


def number_of(term: Term) -> int:
    """The id of a picture, or the number of a topic. InputError if it is none."""
    if not is_id(term.content):
        raise InputError(f"{term.label}: a joined store knows its pictures by their ids: export:{term.export}:image:17")
    if len(term.content) > MAX_DIGITS:
        what = "topic has a number" if term.kind == "topic" else "picture has an id"
        raise InputError(f"{term.kind}:{term.content[:MAX_DIGITS]}...: no {what} of {len(term.content):,} digits")
    return int(term.content)


def _nothing_known(left_out: list[Term], unknown: Mapping[str, list[str]]) -> str:
    phrases = ", ".join(f'"{term.content}"' for term in left_out)
    return f"the text space knows no word of {phrases}. {describe_unknown(unknown)}".rstrip()


def describe_unknown(unknown: Mapping[str, list[str]]) -> str:
    """`Near spellings: beech: beach, breech; zxqv: none`, or "" if every word is known. Several words, such as a text's end, have none."""
    named = "; ".join(f"{word}: {', '.join(near) or 'none'}" for word, near in unknown.items() if near or " " not in word)
    return f"Near spellings: {named}" if named else ""
