"""What a query means: words with signs and weights, flattened into terms.

    parse("2*(beach + sunset) - image:17").terms
    # Term("image", "17", -1.0), Term("text", "beach", 2.0), Term("text", "sunset", 2.0)

    query  = factor { sign factor }
    factor = sign factor | number "*" factor | "(" query ")" | quoted | image | word { word }
    image  = "image:" (quoted | word)

Words that stand side by side are one phrase. A hyphen inside a word belongs to it (`t-shirt`); at the start of a term it is a minus,
and so is the en dash that some editors make of it. U+2212 is a minus wherever it stands. What holds + * ( ) as part of itself is quoted.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NoReturn

from multimodal.errors import InputError

MAX_WEIGHT = 1e6
MAX_DEPTH = 50  # nested weights multiply: 50 of them stay below 1e300, far from overflow

_WORD = r'[^\s"“”()+*−]+'
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<weight>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*\*)
    |(?P<image>image:(?:"[^"]*"|“[^"“”]*”|{_WORD})?)
    |(?P<quoted>"[^"]*"|“[^"“”]*”)
    |(?P<sign>[+\-–−])
    |(?P<bracket>[()])
    |(?P<word>{_WORD})""",
    re.VERBOSE,
)


class QueryError(InputError):
    """The query does not parse. `column` counts characters from 1; the message shows the query with a caret under that character."""

    def __init__(self, query: str, position: int, problem: str) -> None:
        shown = "".join(" " if character.isspace() else character for character in query)
        super().__init__(f"query, column {position + 1}: {problem}\n  {shown}\n  {' ' * _width(shown[:position])}^")
        self.column = position + 1


@dataclass(frozen=True, slots=True, order=True)
class Term:
    """One thing that is added or taken away.

    kind: "text", content goes through the store's text space; "image", content is an id of the store or the path of a picture.
    weight: signed, as the query's signs, weights and parentheses make it.
    """

    kind: Literal["image", "text"]
    content: str
    weight: float

    @property
    def label(self) -> str:
        """The term as a query writes it, without its weight: `red dress`, `"rock + roll"`, `image:17`."""
        if self.kind == "image":
            return "image:" + (self.content if re.fullmatch(_WORD, self.content) else f'"{self.content}"')
        bare = all(re.fullmatch(_WORD, word) and not word.startswith(("-", "–", "image:")) for word in self.content.split(" "))
        return self.content if bare else f'"{self.content}"'


@dataclass(frozen=True, slots=True)
class Expression:
    """A query, flat: each content once, ordered by kind and content, no weight zero. Queries that mean the same are equal bit for bit."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        """A query that parses to this expression again."""
        written = " ".join(("- " if term.weight < 0 else "+ ") + _number(abs(term.weight)) + term.label for term in self.terms)
        return written.removeprefix("+ ")


def parse(query: str) -> Expression:
    """The terms of a query; QueryError, an InputError that points at the column, where it is not one.

    `a - a` parses, to an expression without terms: whether anything is left to look for is not a question of grammar.
    """
    try:
        query.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair: bytes of a command line that are no UTF-8
        raise QueryError(query, error.start, "this is no letter: the query is not UTF-8") from None
    weights: dict[tuple[Literal["image", "text"], str], list[float]] = defaultdict(list)
    for term in _Parser(query).parse():
        weights[term.kind, term.content].append(term.weight)
    # fsum rounds once, so the sum does not depend on the order in which equal terms were written
    merged = (Term(kind, content, math.fsum(parts)) for (kind, content), parts in weights.items())
    return Expression(tuple(sorted(term for term in merged if term.weight != 0)))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


class _Parser:
    """Recursive descent, one method a rule; each takes the weight that the rules around it have gathered."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.tokens = list(self._tokens())
        self.next = 0

    def parse(self) -> list[Term]:
        if self.peek.kind == "end":
            self._fail(0, "the query is empty")
        terms = self._sum(1.0, 0)
        if self.peek.kind != "end":
            self._fail_at_rest()
        return terms

    @property
    def peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self) -> _Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def _sum(self, weight: float, depth: int) -> list[Term]:
        terms = self._factor(weight, depth)
        while self.peek.kind == "sign":
            terms += self._factor(weight, depth)  # takes the sign
        return terms

    def _factor(self, weight: float, depth: int) -> list[Term]:
        token = self._take()
        if depth > MAX_DEPTH:
            self._fail(token.position, f"more than {MAX_DEPTH} signs, weights and parentheses inside each other")
        if token.kind == "sign":
            return self._factor(weight if token.text == "+" else -weight, depth + 1)
        if token.kind == "weight":
            return self._factor(weight * self._weight(token), depth + 1)
        if token.text == "(":
            return self._group(token, weight, depth)
        if token.kind == "image":
            return [Term("image", self._content(token, token.text.removeprefix("image:"), "an id or a path"), weight)]
        if token.kind == "quoted":
            return [Term("text", " ".join(self._content(token, token.text, "a phrase").split()), weight)]
        if token.kind == "word":
            words = [token.text]
            while self.peek.kind == "word":
                words.append(self._take().text)
            return [Term("text", " ".join(words), weight)]
        before = f"after {self.tokens[self.next - 2].text.strip()}" if self.next > 1 else "at the start"
        self._fail(token.position, f"a word, a phrase or an image is missing {before}")

    def _group(self, opening: _Token, weight: float, depth: int) -> list[Term]:
        terms = self._sum(weight, depth + 1)
        if self.peek.kind == "end":
            self._fail(opening.position, "this parenthesis is never closed")
        if self.peek.text != ")":
            self._fail_at_rest()
        self._take()
        return terms

    def _weight(self, token: _Token) -> float:
        weight = float(token.text.rstrip("*").strip())
        if weight > MAX_WEIGHT:
            self._fail(token.position, f"a weight is at most {MAX_WEIGHT:,.0f}")
        return weight

    def _content(self, token: _Token, written: str, wanted: str) -> str:
        content = written[1:-1] if written[:1] in ('"', "“") else written
        if not content.strip():
            self._fail(token.position, f"{token.text} holds nothing; {wanted} is wanted there")
        return content

    def _fail_at_rest(self) -> NoReturn:
        """A term has ended, and what follows is neither the end nor a sign."""
        token = self.peek
        if token.text == ")":
            self._fail(token.position, "this parenthesis was never opened")
        self._fail(token.position, "two terms stand side by side: join them with + or -, or quote them as one phrase")

    def _fail(self, position: int, problem: str) -> NoReturn:
        raise QueryError(self.query, position, problem)

    def _tokens(self) -> list[_Token]:
        tokens, position = [], 0
        while position < len(self.query):
            match = _TOKEN.match(self.query, position)
            if match is None:
                if self.query[position] == "*":
                    self._fail(position, "a weight is a number and stands in front: 2*beach. Quote a * that belongs to a phrase")
                self._fail(position, "this quote is never closed" if self.query[position] in '"“' else "this quote was never opened")
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match.group(), position))
            position = match.end()
        return [*tokens, _Token("end", "", len(self.query))]


def _number(weight: float) -> str:
    """In front of a term: nothing for 1, else the shortest digits that read back to the same float, without an exponent."""
    return "" if weight == 1 else f"{Decimal(repr(weight)).normalize():f}*"


def _width(text: str) -> int:
    """Columns of a terminal that the text fills, so that the caret stands under its character in any script."""
    return sum(0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
