"""From terms to one direction: each term's vector at unit length, weighted, added, and brought to unit length again.

    query = combine(parse("woman + scientist - man"), space, images={})
    query.vector, query.unknown, query.why(row)

A phrase of which the space knows no word is left out by rule and named with near spellings. The other terms keep their weights,
so an unknown word moves nothing. (Mikolov et al., 2013, add and subtract word vectors; bringing each to unit length first
makes the weights mean the same for frequent and rare words, whose vectors differ in length.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from multimodal.errors import InputError
from multimodal.search.grammar import Expression, Term
from multimodal.text import TextSpace

CANCELLED = 1e-6  # norm of the sum over the sum of |weights|: float32 vectors that should cancel leave about 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class QueryVector:
    """Where a query points, and what took it there."""

    vector: np.ndarray
    """(d,) float32, unit length."""
    used: tuple[Term, ...]
    """The t terms that count, in the expression's order."""
    parts: np.ndarray
    """(t, d) float64: what each term adds to the vector; they sum to it."""
    left_out: tuple[Term, ...]
    """Phrases of which no word is known."""
    unknown: Mapping[str, list[str]]
    """Each unknown word of the query, also of phrases that count by their other words -> near spellings."""

    def why(self, row: np.ndarray) -> dict[str, float]:
        """Term label -> what it adds to the cosine with a row (d,) of unit length; the values sum to that cosine."""
        return {term.label: float(part @ row.astype(np.float64)) for term, part in zip(self.used, self.parts, strict=True)}


def combine(expression: Expression, space: TextSpace, images: Mapping[str, np.ndarray]) -> QueryVector:
    """The unit vector of an expression.

    images: content of each image term -> its vector (d,), any length but zero.
    InputError when no term is known (with near spellings), and when the terms cancel each other to nothing.
    """
    used, units, left_out = [], [], []
    unknown: dict[str, list[str]] = {}
    for term in expression.terms:
        # one text a call: in a batch, an encoder's padding would let one term move the last bits of another
        given = images[term.content] if term.kind == "image" else space.embed([term.content])[0]
        if term.kind == "text":
            unknown |= space.unknown_words(term.content)
        vector = np.asarray(given, dtype=np.float64)  # a store's float16 row would get a float16 norm, wrong by 1e-4
        norm = float(np.linalg.norm(vector))
        if norm > 0:
            used.append(term)
            units.append(vector / norm)
        else:
            left_out.append(term)
    if not used and left_out:
        raise InputError(_nothing_known(left_out, unknown))
    weights = np.array([term.weight for term in used])
    weighted = weights[:, None] * np.array(units).reshape(len(used), space.dim)
    total = weighted.sum(axis=0)
    norm = float(np.linalg.norm(total))
    if norm <= CANCELLED * np.abs(weights).sum():  # also 0 <= 0, where no term is left
        raise InputError(
            f"the query cancels to nothing: {str(expression) or 'its terms take each other away'}. Leave a term out or change a weight"
        )
    return QueryVector((total / norm).astype(np.float32), tuple(used), weighted / norm, tuple(left_out), unknown)


def _nothing_known(left_out: list[Term], unknown: Mapping[str, list[str]]) -> str:
    phrases = ", ".join(f'"{term.content}"' for term in left_out)
    return f"the text space knows no word of {phrases}. {describe_unknown(unknown)}".rstrip()


def describe_unknown(unknown: Mapping[str, list[str]]) -> str:
    """`Near spellings: beech: beach, breech; zxqv: none`, or "" when nothing is unknown."""
    named = "; ".join(f"{word}: {', '.join(near) or 'none'}" for word, near in unknown.items())
    return f"Near spellings: {named}" if named else ""
