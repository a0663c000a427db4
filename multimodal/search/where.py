"""The grammar of filters: tests of columns, joined by and, or and not, as a tree.

    parse_where('date >= 2024-06 and (camera = "X100" or not path like "Screenshots/%")')

    where  = both { "or" both }
    both   = one { "and" one }
    one    = "not" one | "(" where ")" | test
    test   = column ( compare value | [ "not" ] ( "like" value | "in" "(" [ value { "," value } ] ")" | "between" value "and" value
           | "inside" value ) | "is" [ "not" ] "missing" )
    compare = "=" | "!=" | "<" | "<=" | ">" | ">="
    column = word | backticks
    value  = word | quoted

A word has no space, quote, parenthesis, comma or sign of comparison in it; what has one is quoted, with quotes of either kind, and such a
quote within is written twice. Backticks are around the name of a column that is no word. Keywords are in any case; `and`, `or` and `not`
are words only within quotes or backticks, the others where no operator can be. What a value means depends on what its column holds, so the
tree keeps it as it was written: see `multimodal.search.filters`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NoReturn

from multimodal.errors import InputError
from multimodal.search.pointing import PointedError, brief

Where = str | Sequence[str] | Mapping[str, Any]
"""A filter; several, which must all be met; or a mapping, see `where_of`."""

MAX_CHARACTERS = 1_000_000
"""A list of a hundred thousand names; a server takes far shorter filters."""
MAX_DEPTH = 50
MAX_LIKES = 20
MAX_PATTERN = 200
"""Characters of a pattern: with MAX_LIKES it bounds what a filter costs, since a pattern is compared with the text of every picture."""
OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
_OPPOSITE = {
    "!=": "=",
    "not in": "in",
    "not like": "like",
    "not between": "between",
    "not inside": "inside",
    "is not missing": "is missing",
}
_WORD = r"[^\s\"“”'`()=<>!,]+"
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<column>`[^`]+`)
    |(?P<quoted>"(?:""|[^"])*"|'(?:''|[^'])*'|“[^“”]*”)
    |(?P<odd>==|<>|=<|=>)
    |(?P<compare>[<>!]=|[<>=])
    |(?P<bracket>[()])
    |(?P<comma>,)
    |(?P<word>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ ][0-9]{{2}}:{_WORD}|{_WORD})""",
    re.VERBOSE,
)
_UNCLOSED = {"`": "these backticks are never closed, or have no name between them", "”": "this quote was never opened"}
_JOINED_ELSEWHERE = {"&&": "and", "&": "and", "||": "or", "|": "or"}
_INSTEAD = {"==": "=", "<>": "!=", "=<": "<=", "=>": ">="}


class WhereError(PointedError):
    """The filter does not parse, or asks of a column what it does not have; see `PointedError`."""

    def __init__(self, where: str, position: int, problem: str) -> None:
        super().__init__("where", where, position, problem)


@dataclass(frozen=True, slots=True)
class Written:
    """The name of a column, or a value, as it is written in a filter, without its quotes. position: in the filter, from 0."""

    text: str
    position: int
    is_quoted: bool = False


@dataclass(frozen=True, slots=True)
class Test:
    """One column, compared with values. operator: one of `OPERATORS` but `!=`, or in, like, between, is missing; at: its position."""

    column: Written
    operator: str
    values: tuple[Written, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Not:
    part: Tree


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts that must all be met, or any of them. by: "and" or "or"."""

    by: str
    parts: tuple[Tree, ...]


Tree = Test | Not | Joined


def parse_where(where: str) -> Tree:
    """The tree of a filter; WhereError, an InputError that points at the column, if it does not parse."""
    if len(where) > MAX_CHARACTERS:
        raise WhereError(where, MAX_CHARACTERS, f"a filter has at most {MAX_CHARACTERS:,} characters, and this one has {len(where):,}")
    try:
        where.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair: command-line bytes that are not UTF-8
        raise WhereError(where, error.start, "the filter is not valid UTF-8 here") from None
    return _Parser(where).parse()


def where_of(conditions: Mapping[str, Any]) -> str:
    """The filter of a mapping, column -> the value, or a list, tuple or set of allowed values, None for a missing one.

    InputError for a value that no filter can name.
    """
    return " and ".join(_condition(f"`{name}`", wanted) for name, wanted in conditions.items())


def _condition(name: str, wanted: Any) -> str:
    if name.count("`") > 2 or name == "``":
        raise InputError(f"where: no column is called {name[1:-1]!r}")
    allowed = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    present = f"{name} in ({', '.join(_as_written(value) for value in allowed if value is not None)})"
    return f"({present} or {name} is missing)" if None in allowed else present


def _as_written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime | date):
        return quoted(value.isoformat())
    if hasattr(value, "item"):  # a number of numpy
        return _as_written(value.item())
    raise InputError(f"where: {value!r} is no text, number, truth value or date, which are what a column is compared with")


def composed(text: str) -> str:
    """The text in Unicode's form NFC: macOS writes an umlaut in a file's name as two characters, and a keyboard as one."""
    return unicodedata.normalize("NFC", text)


def quoted(text: str) -> str:
    """A text as a value of a filter."""
    return '"' + text.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int

    @property
    def keyword(self) -> str:
        """The word in lower case; "" for anything else."""
        return self.text.lower() if self.kind == "word" else ""


class _Parser:
    """Recursive descent, one method per rule, at most MAX_DEPTH deep."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.tokens = self._tokens()
        self.next = 0
        self.num_likes = 0

    def parse(self) -> Tree:
        if self.peek.kind == "end":
            self._fail(0, 'the filter is empty. Write a test such as camera = "X100"')
        tree = self._either(0)
        if self.peek.kind != "end":
            self._fail_at_rest()
        return tree

    @property
    def peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self) -> _Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def _either(self, depth: int) -> Tree:
        parts = [self._both(depth)]
        while self.peek.keyword == "or":
            self._take()
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Joined("or", tuple(parts))

    def _both(self, depth: int) -> Tree:
        parts = [self._one(depth)]
        while self.peek.keyword == "and":
            self._take()
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else Joined("and", tuple(parts))

    def _one(self, depth: int) -> Tree:
        token = self.peek
        if depth > MAX_DEPTH:
            self._fail(token.position, f"more than {MAX_DEPTH} nested parentheses and nots")
        if token.keyword == "not":
            self._take()
            return Not(self._one(depth + 1))
        if token.text == "(":
            self._take()
            tree = self._either(depth + 1)
            if self.peek.kind == "end":
                self._fail(token.position, "this parenthesis is never closed")
            if self.peek.text != ")":
                self._fail_at_rest()
            self._take()
            return tree
        return self._test()

    def _test(self) -> Tree:
        column = self._column()
        token = self._take()
        operator = token.text if token.kind == "compare" else token.keyword
        if operator == "not":
            operator = f"not {self._take().keyword}"
            if operator not in _OPPOSITE:
                self._fail(self.tokens[self.next - 1].position, "in, like, between or inside is missing after not")
        if operator == "is":
            operator = self._is()
        values = self._values(operator, token)
        test = Test(column, _OPPOSITE.get(operator, operator), values, token.position)
        return Not(test) if operator in _OPPOSITE else test

    def _column(self) -> Written:
        token = self._take()
        if token.kind == "column":
            return Written(token.text[1:-1], token.position, is_quoted=True)
        if token.kind == "word" and token.keyword not in ("and", "or", "not"):
            return Written(token.text, token.position)
        hint = ""
        if token.kind == "quoted":
            hint = f". This is a value; the name of a column has backticks: `{brief(self._content(token))}`"
        elif token.kind == "word":
            hint = f". If it is called {token.text}, write `{token.text}`"
        self._fail(token.position, f"a column is missing {self._before(token)}{hint}")

    def _is(self) -> str:
        token = self._take()
        negated = token.keyword == "not"
        if negated:
            token = self._take()
        operator = "is not missing" if negated else "is missing"
        if token.keyword != "missing":
            self._fail(token.position, f"only missing comes after is: write {operator}, or = for a value")
        return operator

    def _values(self, operator: str, token: _Token) -> tuple[Written, ...]:
        plain = operator.removeprefix("not ")
        if plain in OPERATORS:
            return (self._value(),)
        if plain == "like":
            return (self._pattern(),)
        if plain == "in":
            return self._list()
        if plain == "between":
            least = self._value()
            if self.peek.keyword != "and":
                self._fail(self.peek.position, "between has two ends: between 2 and 5")
            self._take()
            return least, self._value()
        if plain == "inside":
            return (self._value(),)
        if operator.startswith("is "):
            return ()
        hint = f", such as {_INSTEAD[token.text]} for {token.text}" if token.kind == "odd" else ""
        operators = f"{', '.join(OPERATORS)}, in, like, between, inside, is missing"
        self._fail(token.position, f"an operator is missing {self._before(token)}{hint}. There are {operators}")

    def _pattern(self) -> Written:
        value = self._value()
        self.num_likes += 1
        if self.num_likes > MAX_LIKES:
            self._fail(value.position, f"more than {MAX_LIKES} patterns in one filter. Leave some out")
        if len(value.text) > MAX_PATTERN:
            self._fail(value.position, f"a pattern has at most {MAX_PATTERN} characters, and this one has {len(value.text):,}")
        if re.search(r"(?<!\\)(?:\\\\)*\\(?![%_\\])", value.text):
            self._fail(value.position, r"in a pattern, a backslash is before %, _ or another backslash: \% for the sign itself")
        return value

    def _list(self) -> tuple[Written, ...]:
        opening = self._take()
        if opening.text != "(":
            self._fail(opening.position, "in has a list in parentheses: in (a, b)")
        values: list[Written] = []
        while self.peek.text != ")":
            if self.peek.kind == "end":
                self._fail(opening.position, "this parenthesis is never closed")
            values.append(self._value())
            if self.peek.kind == "comma":
                self._take()
            elif self.peek.text != ")" and self.peek.kind != "end":
                self._fail(self.peek.position, "a comma is missing between two values, or quotes around both words of one value")
        self._take()
        return tuple(values)

    def _value(self) -> Written:
        token = self._take()
        if token.kind == "quoted":
            return Written(composed(self._content(token)), token.position, is_quoted=True)
        if token.kind == "word" and token.keyword not in ("and", "or", "not"):
            return Written(composed(token.text), token.position)
        hint = ""
        if token.kind == "column":
            hint = ". Backticks are around the names of columns; put a value in quotes"
        elif token.kind == "word":
            hint = f'. Write "{token.text}" if it is one'
        self._fail(token.position, f"a value is missing {self._before(token)}{hint}")

    def _content(self, token: _Token) -> str:
        quote = token.text[0]
        return token.text[1:-1] if quote == "“" else token.text[1:-1].replace(quote * 2, quote)

    def _before(self, token: _Token) -> str:
        at = self.tokens.index(token)
        return f"after {brief(self.tokens[at - 1].text)}" if at else "at the start"

    def _fail_at_rest(self) -> NoReturn:
        """A test has ended, and neither the end, a parenthesis, nor a keyword that joins it with another follows."""
        token = self.peek
        if token.text == ")":
            self._fail(token.position, "this parenthesis was never opened")
        if token.kind == "comma":
            self._fail(token.position, "a comma is only between values of a list: in (a, b). Numbers have a point and no comma: 47.5, 1000")
        if word := _JOINED_ELSEWHERE.get(token.text):
            self._fail(token.position, f"write {word} for {token.text}")
        phrase = self._phrase_around(token)
        hint = f', or quotes around a value of several words: "{brief(phrase)}"' if " " in phrase else ""
        self._fail(token.position, f"and or or is missing between two tests{hint}")

    def _phrase_around(self, token: _Token) -> str:
        """The words from the one before a token on, without one that is the column of a test; "" if they are no words."""
        first = last = self.tokens.index(token) - 1
        while self.tokens[last].kind == "word" and self.tokens[last].keyword not in ("and", "or", "not"):
            last += 1
        is_column = self.tokens[last].kind in ("compare", "odd")
        return " ".join(one.text for one in self.tokens[first : last - is_column])

    def _fail(self, position: int, problem: str) -> NoReturn:
        raise WhereError(self.where, position, problem)

    def _tokens(self) -> list[_Token]:
        tokens, position = [], 0
        while position < len(self.where):
            match = _TOKEN.match(self.where, position)
            if match is None:
                sign = self.where[position]
                if sign == "!":
                    self._fail(position, "! is no operator. Write !=, or not before a test")
                self._fail(position, _UNCLOSED.get(sign, "this quote is never closed"))
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match.group(), position))
            position = match.end()
        return [*tokens, _Token("end", "", len(self.where))]
