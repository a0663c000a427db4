"""The grammar of queries: words with signs and weights, exclusions and swaps, flattened into an expression.

    parse("2*(beach + sunset) - image:17 without people").terms
    # Term("image", "17", -1.0), Term("text", "beach", 2.0), Term("text", "sunset", 2.0)
    parse_steps("between summer and winter in 5")  # five expressions, from summer to winter

    query   = sum | "between" sum "and" sum "in" number
    sum     = ( factor | without ) { sign factor | without }
    without = "without" factor
    factor  = sign factor | number "*" factor | "(" sum ")" | term [ "instead of" term ]
    term    = word { word } | [ "export:" name ":" ] one
    one     = quoted | word | ( "image:" | "near:" | "topic:" ) ( quoted | word )

Adjacent words are one phrase. A hyphen inside a word belongs to it (`t-shirt`); at the start of a term it is a minus,
and so is the en dash that some editors replace it with. U+2212 is a minus anywhere. A phrase that contains + * ( ) must be quoted.

Keywords are in any case, since a phone begins a query with a capital. They are words within quotes, which keep `"a man without a hat"`
one phrase; `instead` is a word where no `of` follows. `between` is a keyword only as the first word of a query that goes on with `and`,
outside parentheses, and ends in `in` and a number. A series that is only part of a query is an error: as words it would find nothing
that its author meant.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, NoReturn, TypeVar, cast

from multimodal.search.pointing import PointedError, brief

MAX_WEIGHT = 1e6
MAX_DEPTH = 50
MAX_STEPS = 100
_MAX_PRODUCT = 2.0**900  # of nested weights: sums stay finite, and `_number` writes them with fewer than MAX_DEPTH factors

_QUOTED = '(?:"[^"]*"|“[^“”]*”)'
_WORD = r'[^\s"“”()+*−]+'
_NAME = r"[\w.-]+"
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<weight>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*\*)
    |(?P<without>(?ai:without)(?!{_WORD}))
    |(?P<instead>(?ai:instead)\s+(?ai:of)(?!{_WORD}))
    |(?P<export>(?ai:export):(?:(?:{_QUOTED}|{_NAME}):(?=\S))?)
    |(?P<named>(?ai:image|near|topic):(?:{_QUOTED}|{_WORD})?)
    |(?P<quoted>{_QUOTED})
    |(?P<sign>[+\-–−])
    |(?P<bracket>[()])
    |(?P<word>{_WORD})""",
    re.VERBOSE,
)
_DIGITS = re.compile("[0-9]+")
_NUMBER = re.compile(r"\.?[0-9][0-9.,]*")

Kind = Literal["image", "near", "text", "topic"]
_Part = TypeVar("_Part", "Term", "Swap")


class QueryError(PointedError):
    """The query does not parse; see `PointedError`."""

    def __init__(self, query: str, position: int, problem: str) -> None:
        super().__init__("query", query, position, problem)


@dataclass(frozen=True, slots=True, order=True)
class Term:
    """One thing that is looked for.

    kind: "text", the content is embedded by the text space; "image", the content is an id of the store or the path of a picture;
    "near", the neighbourhood of the picture with that id; "topic", the topic with that number.
    weight: the product of the query's signs, weights and parentheses; signed in a sum, positive in exclusions and swaps.
    export: the name of the joined store or family that scores the term; "" for the store that is searched.
    """

    kind: Kind
    content: str
    weight: float
    export: str = ""

    def at(self, weight: float) -> Term:
        """The same term with another weight."""
        return Term(self.kind, self.content, weight, self.export)

    @property
    def label(self) -> str:
        """The term as written in a query, without its weight: `red dress`, `"rock + roll"`, `image:17`, `export:trips:topic:7`."""
        if self.kind == "text":
            written = self.content if _is_phrase(self.content) and not (self.export and " " in self.content) else _quoted(self.content)
        else:
            written = f"{self.kind}:{self.content if re.fullmatch(_WORD, self.content) else _quoted(self.content)}"
        if not self.export:
            return written
        return f"export:{self.export if re.fullmatch(_NAME, self.export) else _quoted(self.export)}:{written}"


@dataclass(frozen=True, slots=True, order=True)
class Swap:
    """One term in the place of another. Both have the weight of the swap, which is positive."""

    new: Term
    old: Term

    @property
    def weight(self) -> float:
        return self.new.weight

    def at(self, weight: float) -> Swap:
        """The same swap with another weight."""
        return Swap(self.new.at(weight), self.old.at(weight))

    @property
    def label(self) -> str:
        """The swap as written in a query, without its weight: `woman instead of man`."""
        return f"{self.new.label} instead of {self.old.label}"


@dataclass(frozen=True, slots=True)
class Expression:
    """A query, flat: each part once, in a fixed order, no weight zero. Queries that mean the same are bitwise equal.

    terms: what is added and subtracted; weights of equal terms are added.
    without: what is excluded; of equal terms the largest weight counts, since what is excluded twice is not excluded more.
    swaps: weights of equal swaps are added.
    """

    terms: tuple[Term, ...]
    without: tuple[Term, ...] = ()
    swaps: tuple[Swap, ...] = ()

    @property
    def every_term(self) -> tuple[Term, ...]:
        """All terms of all parts: what a query names, in whatever role."""
        return (*self.terms, *self.without, *(term for swap in self.swaps for term in (swap.new, swap.old)))

    @property
    def labels(self) -> tuple[str, ...]:
        """For each of terms, without and swaps, in this order, what a page calls it: `beach`, `- man`, `without people`,
        `woman instead of man`. No label occurs twice."""
        terms = (("- " if term.weight < 0 else "") + term.label for term in self.terms)
        return (*terms, *(f"without {term.label}" for term in self.without), *(swap.label for swap in self.swaps))

    def __str__(self) -> str:
        """A query that parses to this expression again."""
        terms = [("- " if term.weight < 0 else "+ ") + _number(abs(term.weight)) + term.label for term in self.terms]
        swaps = [f"+ {_number(swap.weight)}{swap.label}" for swap in self.swaps]
        without = [f"without {_number(term.weight)}{term.label}" for term in self.without]
        return " ".join([*terms, *swaps, *without]).removeprefix("+ ")


def parse(query: str) -> Expression:
    """The expression of a query; QueryError, an InputError that points at the column, if it does not parse or is a series (`between`).

    `a - a` parses to an expression without terms: whether anything is left to search for is not a question of grammar.
    """
    steps = parse_steps(query)
    if len(steps) > 1:
        start = len(query) - len(query.lstrip())
        raise QueryError(query, start, f"this is a series of {len(steps)} queries, and one is wanted here. Quote it if it is a phrase")
    return steps[0]


def parse_steps(query: str) -> tuple[Expression, ...]:
    """The expressions of a series from its first to its last, or the one of any other query; QueryError as for `parse`.

    In step i of n the weight of each part is (n - 1 - i) / (n - 1) of its weight in the first query plus i / (n - 1) of that in the last.
    """
    return _parser(query).parse()


def parse_places(query: str) -> tuple[tuple[Expression, ...], Mapping[Term, int]]:
    """What `parse_steps` returns; and for each term, at weight 1, the position at which the query first names it."""
    parser = _parser(query)
    return parser.parse(), parser.places


def _parser(query: str) -> _Parser:
    try:
        query.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair: command-line bytes that are not UTF-8
        raise QueryError(query, error.start, "the query is not valid UTF-8 here") from None
    return _Parser(query)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


class _Parser:
    """Recursive descent, one method per rule; each takes the weight accumulated by the rules around it, and whether they exclude."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.tokens = list(self._tokens())
        self.next = 0
        self.places: dict[Term, int] = {}

    def parse(self) -> tuple[Expression, ...]:
        if self.peek.kind == "end":
            self._fail(0, "the query is empty")
        self._mark_series()
        if self.peek.kind != "between":
            return (self._expression("end"),)
        self._take()
        first = self._expression("and")
        self._take()
        last = self._expression("in")
        self._take()
        return _series(first, last, self._num_steps())

    @property
    def peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self) -> _Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def _expression(self, end: str) -> Expression:
        # the weights of each part, whose own is 1
        self.terms: dict[Term, list[float]] = defaultdict(list)
        self.without: dict[Term, list[float]] = defaultdict(list)
        self.swaps: dict[Swap, list[float]] = defaultdict(list)
        self._sum(1.0, 0, excluded=False)
        if self.peek.kind != end:
            self._fail_at_rest()
        # fsum rounds once, so the sum does not depend on the order of equal terms
        return Expression(
            _weighted({term: math.fsum(weights) for term, weights in self.terms.items()}),
            _weighted({term: max(weights) for term, weights in self.without.items()}),
            _weighted({swap: math.fsum(weights) for swap, weights in self.swaps.items()}),
        )

    def _sum(self, weight: float, depth: int, excluded: bool) -> None:
        if self.peek.kind != "without":
            self._factor(weight, depth, excluded)
        while self.peek.kind in ("sign", "without"):
            if self.peek.kind == "without":
                self._exclusion(weight, depth, excluded)
            else:
                self._factor(weight, depth, excluded)  # takes the sign

    def _exclusion(self, weight: float, depth: int, excluded: bool) -> None:
        token = self._take()
        if excluded:
            self._fail(token.position, 'what is excluded cannot exclude. Leave this "without" out, or quote the phrase')
        if weight < 0:
            self._fail(token.position, "an exclusion cannot be subtracted. Write it outside the difference: x - a without b")
        self._factor(weight, depth, excluded=True)

    def _factor(self, weight: float, depth: int, excluded: bool) -> None:
        token = self.peek
        if depth > MAX_DEPTH:
            self._fail(token.position, f"more than {MAX_DEPTH} nested signs, weights and parentheses")
        if token.kind == "sign":
            self._take()
            return self._factor(weight if token.text == "+" else -weight, depth + 1, excluded)
        if token.kind == "weight":
            self._take()
            return self._factor(self._multiplied(token, weight), depth + 1, excluded)
        if token.text == "(":
            return self._group(weight, depth, excluded)
        term = self._placed_term()
        if self.peek.kind == "instead":
            self._swap(term, token.position, weight, excluded)
        elif not excluded:
            self.terms[term].append(weight)
        elif weight < 0:
            self._fail(token.position, "what is excluded has no minus: write without b to exclude b, + b to look for it")
        else:
            self.without[term].append(weight)
        return None

    def _group(self, weight: float, depth: int, excluded: bool) -> None:
        opening = self._take()
        self._sum(weight, depth + 1, excluded)
        if self.peek.kind == "end":
            self._fail(opening.position, "this parenthesis is never closed")
        if self.peek.text != ")":
            self._fail_at_rest()
        self._take()
        if self.peek.kind == "instead":
            self._fail_at_side(opening.position)

    def _swap(self, new: Term, start: int, weight: float, excluded: bool) -> None:
        token = self._take()
        if excluded:
            self._fail(token.position, "what is excluded cannot be a swap. Write the swap first, as in b instead of c without a")
        if self.peek.kind in ("sign", "weight") or self.peek.text == "(":
            self._fail_at_side(self.peek.position)
        old = self._placed_term()
        if self.peek.kind == "instead":
            self._fail(self.peek.position, "one swap has two sides. Join swaps with +: a instead of b + a instead of c")
        if weight < 0:
            other = f"{brief(old.label)} instead of {brief(new.label)}"
            self._fail(start, f"a swap cannot be subtracted. Write it the other way round: {other}")
        if new == old:
            self._fail(start, f"{brief(new.label)} cannot take its own place. Name another term on one side")
        self.swaps[Swap(new, old)].append(weight)

    def _fail_at_side(self, position: int) -> NoReturn:
        self._fail(position, 'each side of "instead of" is one term, without parentheses; a weight is before both: 2*woman instead of man')

    def _placed_term(self) -> Term:
        """One term, whose place is kept."""
        position = self.peek.position
        term = self._term()
        self.places.setdefault(term, position)
        return term

    def _term(self) -> Term:
        """One term, with weight 1."""
        token = self._take()
        if token.kind == "export":
            name = self._export_name(token)
            term = replace(self._one(self._take()), export=name)
            if self.peek.kind == "word":
                self._fail(self.peek.position, f'{brief(token.text)} is for one term: quote a phrase, as in export:trips:"hiking trip"')
            return term
        term = self._one(token)
        if token.kind != "word":
            return term
        words = [token.text]
        while self.peek.kind == "word":
            words.append(self._take().text)
        return replace(term, content=" ".join(words))

    def _one(self, token: _Token) -> Term:
        if token.kind == "word":
            return Term("text", token.text, 1.0)
        if token.kind == "quoted":
            return Term("text", " ".join(self._content(token, token.text, "a phrase").split()), 1.0)
        if token.kind == "named":
            kind, _, written = token.text.partition(":")
            return self._named(token, cast(Kind, kind.lower()), written)
        before = f"after {brief(self.tokens[self.next - 2].text.strip())}" if self.next > 1 else "at the start"
        hints = {"without": "Write a without b, not a + without b; quote", "instead": "Quote"}
        hint = f'. {hints[token.kind]} "{token.text.lower()}" if it is part of a phrase' if token.kind in hints else ""
        self._fail(token.position, f"a word, a phrase or an image is missing {before}{hint}")

    def _named(self, token: _Token, kind: Kind, written: str) -> Term:
        if kind == "image":
            return Term(kind, self._content(token, written, "an id or a path"), 1.0)
        content = self._content(token, written, "a whole number")
        if not _DIGITS.fullmatch(content):
            what = "the id of a picture" if kind == "near" else "the number of a topic"
            position = token.position + len(kind) + 1
            self._fail(position, f"{kind}: needs {what}, a whole number: {kind}:7. Put quotes around it if it is a phrase")
        return Term(kind, content.lstrip("0") or "0", 1.0)

    def _export_name(self, token: _Token) -> str:
        name = token.text.partition(":")[2].removesuffix(":")
        if not name:
            self._fail(token.position, "export: needs a name and a term: export:trips:beach. Letters, digits, _ - . or a quoted name")
        return self._content(token, name, "the name of a joined store")

    def _content(self, token: _Token, written: str, wanted: str) -> str:
        content = written[1:-1] if written[:1] in ('"', "“") else written
        if not content.strip():
            self._fail(token.position, f"{brief(token.text)} is empty; write {wanted} there")
        return content

    def _multiplied(self, token: _Token, weight: float) -> float:
        number = float(token.text.rstrip("*").strip())
        if number > MAX_WEIGHT:
            self._fail(token.position, f"a weight must be at most {MAX_WEIGHT:,.0f}")
        if abs(weight * number) > _MAX_PRODUCT:
            self._fail(token.position, f"nested weights multiply to more than {_MAX_PRODUCT:.0e}. Leave some out")
        return weight * number

    def _mark_series(self) -> None:
        """Gives `between`, `and` and `in` of a series a kind of their own; in other queries they stay words. One pass."""
        marks: list[list[int]] = [[]]  # for each open parenthesis the places of a first `between`, and of each `and` after it
        for at, token in enumerate(self.tokens):
            word = token.text.lower() if token.kind == "word" else ""
            is_first = at == 0 or self.tokens[at - 1].kind != "word"
            if (word == "and" and marks[-1]) or (word == "between" and is_first and not marks[-1]):
                marks[-1].append(at)
            elif token.text == "(":
                marks.append([])
            elif token.text == ")" or token.kind == "end":
                places = marks.pop()
                if bool(marks) == (token.kind == "end"):  # a parenthesis that is not closed, or was not opened: its rule reports it
                    return
                ending = self._place_of_in(at)
                if len(places) > 1 and ending is not None:
                    self._mark(places, ending, is_whole=places[0] == 0 and token.kind == "end")

    def _place_of_in(self, end: int) -> int | None:
        """Where `in` is, if the tokens before `end` are `in` and a number."""
        place = end - (3 if self.tokens[end - 2].kind == "sign" else 2)  # a negative number is reported as one
        number, word = self.tokens[end - 1], self.tokens[place]
        is_ending = number.kind == word.kind == "word" and word.text.lower() == "in" and _NUMBER.fullmatch(number.text)
        return place if is_ending else None

    def _mark(self, places: list[int], ending: int, is_whole: bool) -> None:
        between, *ands = places
        if not is_whole:
            problem = "a series must be the whole query: between a + c and b + c in 5. Quote it if it is a phrase"
            self._fail(self.tokens[between].position, problem)
        if len(ands) > 1:
            self._fail(self.tokens[ands[1]].position, 'a second "and". Quote phrases with "and", or put each side in parentheses')
        for at, kind in ((between, "between"), (ands[0], "and"), (ending, "in")):
            self.tokens[at] = replace(self.tokens[at], kind=kind)

    def _num_steps(self) -> int:
        token = self.peek
        digits = token.text.lstrip("0")
        if not (_DIGITS.fullmatch(digits) and len(digits) <= len(str(MAX_STEPS)) and 2 <= int(digits) <= MAX_STEPS):
            self._fail(token.position, f"a series has from 2 to {MAX_STEPS} steps, a whole number. Quote the query if it is a phrase")
        return int(digits)

    def _fail_at_rest(self) -> NoReturn:
        """A term has ended, and neither the end of the query nor a sign follows."""
        token = self.peek
        if token.text == ")":
            self._fail(token.position, "this parenthesis was never opened")
        self._fail(token.position, "two adjacent terms: join them with + or -, or quote them as one phrase")

    def _fail(self, position: int, problem: str) -> NoReturn:
        raise QueryError(self.query, position, problem)

    def _tokens(self) -> list[_Token]:
        tokens, position = [], 0
        while position < len(self.query):
            match = _TOKEN.match(self.query, position)
            if match is None:
                if self.query[position] == "*":
                    self._fail(position, "a weight is a number before a term: 2*beach. Quote a * that belongs to a phrase")
                self._fail(position, "this quote is never closed" if self.query[position] in '"“' else "this quote was never opened")
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match.group(), position))
            position = match.end()
        return [*tokens, _Token("end", "", len(self.query))]


def _order(part: Term | Swap) -> tuple:
    """That of Term and Swap; as a key it is computed once for each."""
    return (_order(part.new), _order(part.old)) if isinstance(part, Swap) else (part.kind, part.content, part.weight, part.export)


def _weighted(parts: Mapping[_Part, float]) -> tuple[_Part, ...]:
    return tuple(sorted((part.at(weight) for part, weight in parts.items() if weight), key=_order))


def _series(first: Expression, last: Expression, num: int) -> tuple[Expression, ...]:
    """The steps from first to last; those from last to first are the same ones reversed, to the last bit."""

    def mixed(one: Iterable[_Part], other: Iterable[_Part], step: int) -> tuple[_Part, ...]:
        begin, end = ({part.at(1.0): part.weight for part in parts} for parts in (one, other))
        pairs = {part: (begin.get(part, 0.0), end.get(part, 0.0)) for part in begin | end}
        return _weighted({part: a if a == b else (a * (num - 1 - step) + b * step) / (num - 1) for part, (a, b) in pairs.items()})

    inner = (
        Expression(mixed(first.terms, last.terms, step), mixed(first.without, last.without, step), mixed(first.swaps, last.swaps, step))
        for step in range(1, num - 1)
    )
    return (first, *inner, last)


def _is_phrase(text: str) -> bool:
    """Whether a text is one phrase, wherever it is in a query, when it is written without quotes."""
    words = [match.group() for match in _TOKEN.finditer(text) if match.lastgroup == "word"]
    return " ".join(words) == text and words[0].lower() != "between"


def _quoted(text: str) -> str:
    return f"“{text}”" if '"' in text else f'"{text}"'  # no content holds both kinds, since each ends at its own


def _number(weight: float) -> str:
    """The weight before a term: nothing for 1, else the shortest digits that parse to the same float, without an exponent.

    What only a product or a sum can reach is written as a product. Its factors are powers of two, so that it is exact.
    """
    num_powers = 0
    while weight > MAX_WEIGHT:
        weight, num_powers = weight / 2**19, num_powers + 1
    return f"{2**19}*" * num_powers + ("" if weight == 1 else f"{Decimal(repr(weight)).normalize():f}*")
