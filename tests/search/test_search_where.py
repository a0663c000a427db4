"""Filters: what each means is compared with a slow evaluator, one picture at a time; and errors point at the place where they are."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest

from multimodal.search.filters import FilterColumns
from multimodal.search.query import answer
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.where import MAX_CHARACTERS, MAX_DEPTH, MAX_LIKES, MAX_PATTERN, WhereError, parse_where, where_of
from multimodal.search.writing import StoreWriter, create_store

DIM = 8
Row = dict[str, object]
Met = Callable[[Row], bool]
NUM_ROWS = 240
CAMERAS = ["X100", "x100", "Canon EOS", 'the "big" one', "it's", "été", "ÉTÉ", "50%", "a_b", "a\\b", "", " ", None, "not", "日本", "a\nb"]
EXIF = "%Y:%m:%d %H:%M:%S"


def _rows(random_: random.Random) -> list[Row]:
    """Rows as the metadata of pictures is: what came with shards is text, what a folder has is typed."""
    rows = []
    for _ in range(NUM_ROWS):
        moment = datetime(2023, 11, 1) + timedelta(
            days=random_.randrange(300), seconds=random_.randrange(86400), microseconds=random_.choice((0, 0, 250_000))
        )
        rows.append(
            {
                "name": f"{random_.randrange(40)}.png",
                "text": "",
                "camera": random_.choice(CAMERAS),
                "year": random_.choice(["1999", "2004", "-3", "0", "9007199254740993", "9007199254740992", "", None]),
                "share": random_.choice(["0.5", "1e-3", "3", "NaN", " ", "-2.25", "0.1", None]),
                "taken": random_.choice(
                    [moment.strftime(EXIF), moment.isoformat(), moment.date().isoformat(), f"{moment:%Y-%m-%d %H:%M}Z", None]
                ),
                "code": random_.choice(["007", "7", "12", "x"]),
                "sunny": random_.choice(["true", "false", None]),
                "size": random_.choice([0, 1, 5000, -(2**63), 2**63 - 1, 2**53 + 1, None]),
                "lens mm": random_.choice([35.0, 50.5, float("nan"), float("inf"), None]),
                "shared": random_.choice([True, False, None]),
                "date": random_.choice([moment, moment.replace(microsecond=0), datetime(1969, 12, 31, 23, 59, 59, 999_999), None]),
                "day": random_.choice([moment.date(), date(1, 1, 1), date(9999, 12, 31), None]),
            }
        )
    return rows


LATER = ("camera", "day")
"""Columns that the first of the segments does not have."""


@pytest.fixture(scope="module")
def made(tmp_path_factory, space_boxes) -> tuple[Store, list[Row]]:
    """A store in three segments, some pictures deleted, and the rows of those that are left, in its order."""
    path = tmp_path_factory.mktemp("where") / "store"
    rows = _rows(random.Random(1))
    for row in rows[:80]:
        row |= dict.fromkeys(LATER)
    vectors = np.random.default_rng(0).standard_normal((NUM_ROWS, DIM))
    create_store(path, space_boxes["wordvec"], family="wordvec", export="e" * 64)
    with StoreWriter(path) as writer:
        for start in (0, 80, 160):
            some = rows[start : start + 80]
            columns = [name for name in some[0] if start or name not in LATER]
            metadata = {name: [row[name] for row in some] for name in columns}
            writer.append(Segment(np.arange(start, start + 80), vectors[start : start + 80], metadata))
        writer.delete([3, 100, 101, 239])
    store = Store(path)
    return store, [rows[id] for id in store.ids.tolist()]


# -- the slow evaluator --------------------------------------------------------------------------------------------------------------------


def _like(text: str, pattern: str) -> bool:
    """Character by character, ignoring case: the places of the text that can be reached."""
    places = {0}
    signs = iter(pattern.lower())
    text = text.lower()
    for sign in signs:
        if sign == "%":
            places = set(range(min(places), len(text) + 1)) if places else set()
            continue
        wanted = next(signs) if sign == "\\" else None if sign == "_" else sign
        places = {at + 1 for at in places if at < len(text) and (wanted is None or text[at] == wanted)}
    return len(text) in places


def _instant(value: object) -> str | None:
    """A date as text that is ordered as it is; what a picture's metadata may have in its place."""
    if isinstance(value, datetime):
        return f"{value.isoformat(' ')}{'' if value.microsecond else '.000000'}"
    if isinstance(value, date):
        return f"{value.isoformat()} 00:00:00.000000"
    if not isinstance(value, str):
        return None
    text = value.removesuffix("Z").replace("T", " ")
    text = text[:10].replace(":", "-") + text[10:]
    return text + "0000-00-00 00:00:00.000000"[len(text) :]


def _ordered(operator: str, one: object, other: object) -> bool:
    return {
        "=": lambda: one == other,
        "<": lambda: one < other,  # type: ignore[operator]
        "<=": lambda: one <= other,  # type: ignore[operator]
        ">": lambda: one > other,  # type: ignore[operator]
        ">=": lambda: one >= other,  # type: ignore[operator]
    }[operator]()


def _value_of(row: Row, name: str, kind: str) -> object:
    """The value as its column compares it, None where it is missing."""
    value = row[name]
    if value is None or kind == "text":
        return value
    if isinstance(value, str) and value.strip() in ("", "NaN"):
        return None
    if kind == "whole":
        return Fraction(int(value))  # type: ignore[call-overload]
    if kind == "number":
        return None if float(value) != float(value) else float(value)  # type: ignore[arg-type]
    if kind == "truth":
        return {"true": True, "false": False}[str(value).lower()]
    return _instant(value)


def _test_of(name: str, kind: str, operator: str, literal: str) -> Met:
    def met(row: Row) -> bool:
        value = _value_of(row, name, kind)
        if value is None:
            return False
        if kind == "date":
            assert isinstance(value, str)
            return _ordered(operator, value[: len(literal)], literal)
        wanted = {"text": str, "whole": Fraction, "number": float, "truth": lambda text: text.lower() == "true"}[kind](literal)
        return _ordered(operator, value, wanted)

    return met


COLUMNS = {
    "name": "text",
    "camera": "text",
    "year": "whole",
    "share": "number",
    "taken": "date",
    "code": "text",
    "sunny": "truth",
    "size": "whole",
    "lens mm": "number",
    "shared": "truth",
    "date": "date",
    "day": "date",
}
LITERALS = {
    "text": ["X100", "x100", "Canon EOS", 'the "big" one', "it's", "été", "", " ", "007", "12", "3.png", "not", "日本", "zz", "a\nb"],
    "whole": ["1999", "2004", "-3", "0", "-0", "1999.5", "9007199254740993", "9007199254740992.0", "9" * 40, "-9e40", "5e3", "1e-30"],
    "number": ["0.5", "0.001", "3", "-2.25", "0.1", "35", "1e400", "-1e400", "50.50"],
    "truth": ["true", "false", "TRUE"],
    "date": [
        "2023",
        "2024-02",
        "2024-02-29",
        "2024-03-01 12",
        "2024-01-15 10:30",
        "2023-12-24 00:00:00",
        "0001",
        "9999-12",
        "1969-12-31",
        "1969-12-31 23:59:59.99",
    ],
}
PATTERNS = [
    "X%",
    "%0",
    "%o%",
    "_100",
    "____",
    "%",
    "",
    "50\\%",
    "a\\_b",
    "a\\\\b",
    "%É%",
    "3_.png",
    '%"%',
    "a_b",
    "%%n_n%",
    ".*",
    "日_",
    "[x]",
]
PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-+%_\\éÉ日本")


def _written(text: str, random_: random.Random, operator: str = "=") -> str:
    is_word = text and set(text) <= PLAIN and text.lower() not in ("and", "or", "not")
    if is_word and random_.random() < 0.5 and (operator == "=" or not text[0].isdigit()):
        return text
    quote = random_.choice("\"'")
    return quote + text.replace(quote, quote * 2) + quote


def _case(word: str, random_: random.Random) -> str:
    return random_.choice((word, word.upper(), word.capitalize()))


def _random_test(random_: random.Random) -> tuple[str, Met]:
    name = random_.choice(list(COLUMNS))
    kind = COLUMNS[name]
    shown = f"`{name}`" if " " in name or random_.random() < 0.2 else name
    form = random_.random()
    if form < 0.12:
        negated = random_.random() < 0.5
        told = f"{shown} {_case('is', random_)} {'not ' if negated else ''}{_case('missing', random_)}"
        return told, lambda row: (_value_of(row, name, kind) is None) != negated
    if form < 0.3 and kind == "text":
        pattern, negated = random_.choice(PATTERNS), random_.random() < 0.3
        told = f"{shown} {'not ' if negated else ''}{_case('like', random_)} {_written(pattern, random_)}"
        return told, lambda row: (row[name] is not None and _like(str(row[name]), pattern)) != negated
    if form < 0.45:
        chosen = random_.choices(LITERALS[kind], k=random_.randrange(4))
        negated = random_.random() < 0.3
        tests = [_test_of(name, kind, "=", literal) for literal in chosen]
        told = f"{shown} {'not ' if negated else ''}in ({', '.join(_written(literal, random_) for literal in chosen)})"
        return told, lambda row: any(test(row) for test in tests) != negated
    if form < 0.55 and kind != "truth":
        least, most = random_.choices(LITERALS[kind], k=2)
        negated = random_.random() < 0.3
        above, below = _test_of(name, kind, ">=", least), _test_of(name, kind, "<=", most)
        ends = f"{_written(least, random_, '>')} {_case('and', random_)} {_written(most, random_, '>')}"
        told = f"{shown} {'not ' if negated else ''}between {ends}"
        return told, lambda row: (above(row) and below(row)) != negated
    operator = "=" if kind == "truth" else random_.choice(("=", "<", "<=", ">", ">="))
    literal = random_.choice(LITERALS[kind])
    met = _test_of(name, kind, operator, literal)
    space = random_.choice(("", " "))
    if operator == "=" and random_.random() < 0.4:
        return f"{shown}{space}!={space}{_written(literal, random_)}", lambda row: not met(row)
    return f"{shown}{space}{operator}{space}{_written(literal, random_, operator)}", met


def random_where(random_: random.Random, depth: int = 3) -> tuple[str, Met]:
    """A filter, and whether a row meets it."""
    if depth == 0 or random_.random() < 0.3:
        return _random_test(random_)
    if random_.random() < 0.2:
        inner, met = random_where(random_, depth - 1)
        return f"{_case('not', random_)} ({inner})", lambda row: not met(row)
    parts = [random_where(random_, depth - 1) for _ in range(random_.randrange(2, 4))]
    by = random_.choice(("and", "or"))
    text = f" {_case(by, random_)} ".join(f"({part})" for part, _ in parts)
    together = all if by == "and" else any
    return text, lambda row: together(met(row) for _, met in parts)


@pytest.mark.parametrize("seed", range(8))
def test_random_filters_equal_a_slow_evaluator(made, seed):
    """2,000 in all, over text, numbers, truth values and dates, typed or read from text, with missing values and deleted pictures."""
    store, rows = made
    random_ = random.Random(seed)
    columns = FilterColumns(store)
    num_partial = 0
    for _ in range(250):
        where, met = random_where(random_)
        wanted = np.array([met(row) for row in rows])
        found = columns.meeting(where)
        odd = np.flatnonzero(found != wanted)
        assert not odd.size, f"{where}\n{len(odd)} rows differ, the first one {rows[odd[0]]}: {found[odd[0]]}"
        num_partial += bool(0 < wanted.sum() < len(wanted))
    assert num_partial > 100  # else it would compare nothing with nothing


def test_and_binds_tighter_than_or_and_not_tighter_than_and(made):
    store, _ = made
    for short, long in (
        ("year = 0 or size = 1 and sunny = true", "year = 0 or (size = 1 and sunny = true)"),
        ("not year = 0 and size = 1", "(not year = 0) and size = 1"),
        ("not not year = 0", "year = 0"),
        ("size between 0 and 1 and sunny = true", "(size between 0 and 1) and sunny = true"),
    ):
        assert (store.select(short) == store.select(long)).all()


def test_every_picture_meets_a_test_or_its_opposite(made):
    store, _ = made
    for test in ("camera = X100", "date > 2024", "year is missing", 'camera like "%0"', "size in (1, 5000)", "`lens mm` between 1 and 40"):
        met, other = store.select(test), store.select(f"not {test}")
        assert len(np.intersect1d(met, other)) == 0 and len(met) + len(other) == len(store)


@pytest.mark.parametrize("seed", range(3))
def test_k_hits_are_found_whenever_k_pictures_meet_the_filter(made, seed):
    """They are the first ones of the list without a filter, with the same scores."""
    store, rows = made
    random_ = random.Random(seed)
    for query in ("beach", "beach + snow", "woman without man"):
        everything = answer(store, query, len(store)).hits
        for _ in range(12):
            where, _ = random_where(random_)
            passing = set(store.select(where).tolist())
            for k in (1, 10, len(store)):
                assert answer(store, query, k, where=where).hits == [hit for hit in everything if hit.id in passing][:k]


# -- errors --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "under", "problem"),
    [
        ("", "", "the filter is empty"),
        ("  ", "", "the filter is empty"),
        ("camra = X100", "camra", "there is no column camra. Did you mean camera?"),
        ("(date > 2024 and camra = 1)", "camra", "no column camra"),
        ("camera X100", "X100", "an operator is missing after camera"),
        ("camera", "", "an operator is missing after camera"),
        ("camera == X100", "==", "such as = for =="),
        ("camera <> X100", "<>", "such as != for <>"),
        ("camera = ", "", "a value is missing after ="),
        ("camera = and", "and", 'Write "and" if it is one'),
        ("camera = `X100`", "`X100`", "put a value in quotes"),
        ('"camera" = X100', '"camera"', "backticks: `camera`"),
        ("camera = Canon EOS", "EOS", 'quotes around a value of several words: "Canon EOS"'),
        ("camera = Canon EOS 5D and date > 2024", "EOS", 'quotes around a value of several words: "Canon EOS 5D"'),
        ("camera = Canon EOS date > 2024", "EOS", 'quotes around a value of several words: "Canon EOS"'),
        ("camera = X100 && date > 2024", "&&", "write and for &&"),
        ("camera = X100 || date > 2024", "||", "write or for ||"),
        ("width >= 47,5", ",", "Numbers have a point and no comma"),
        ("camera = X100 date > 2024", "date", "and or or is missing between two tests"),
        ("camera = X100 and", "", "a column is missing after and"),
        ("or camera = X100", "or", "a column is missing at the start"),
        ("(camera = X100", "(", "this parenthesis is never closed"),
        ("camera = X100)", ")", "this parenthesis was never opened"),
        ('camera = "X100', '"', "this quote is never closed"),
        ("camera = X100”", "”", "this quote was never opened"),
        ("`lens mm = 3", "`", "these backticks are never closed"),
        ("!camera = X100", "!", "! is no operator"),
        ("camera in X100", "X100", "in has a list in parentheses"),
        ("camera in (X100 x100)", "x100", "a comma is missing"),
        ("camera in (X100, ", "(", "this parenthesis is never closed"),
        ("camera in (X100", "(", "this parenthesis is never closed"),
        ("camera is null", "null", "only missing comes after is"),
        ("camera not X100", "X100", "in, like, between or inside is missing after not"),
        ("size between 1 or 3", "or", "between has two ends"),
        ("size like 5%", "like", "size holds whole numbers, which have =, !=, <, <=, >, >=, in, between, is missing"),
        ("shared > true", ">", "shared holds truth values, which have =, !=, in, is missing"),
        ("size = large", "large", 'size holds whole numbers, and "large" is not a number'),
        ("`lens mm` < wide", "wide", "holds numbers"),
        ("shared = 1", "1", '"1" is not true or false'),
        ("date > yesterday", "yesterday", 'date holds dates, and "yesterday" is not a date: 2024, 2024-06, 2024-06-01'),
        ("date > 2024-6-1", "2024-6-1", "is not a date"),
        ("date > 2024-06-31", "2024-06-31", "no date of the calendar"),
        ("taken in (2024, 0000)", "0000", "no date of the calendar"),
        ("code >= 8", "8", '" is not a number. To compare as text, write "8"'),
        ("camera < 2024-06-01", "2024-06-01", "is not a date"),
        (r'camera like "a\b"', r'"a\b"', "a backslash is before %"),
        (r'camera like "a\\\"', r'"a\\\"', "a backslash is before %"),
        ("camera like " + "x" * (MAX_PATTERN + 1), "x" * (MAX_PATTERN + 1), f"at most {MAX_PATTERN} characters"),
    ],
)
def test_an_error_points_at_its_column(made, where, under, problem):
    store, _ = made
    with pytest.raises(WhereError) as raised:
        store.select(where)
    assert problem in str(raised.value)
    assert raised.value.column == (where.rindex(under) + 1 if under and where.strip() else 1 if not where.strip() else len(where) + 1)
    first, shown, caret = str(raised.value).split("\n")
    assert first.startswith(f"where, column {raised.value.column}: ")
    if len(where) < 60:
        assert shown == f"  {where}" and caret == " " * (raised.value.column + 1) + "^"


def test_depth_and_patterns_are_bounded_and_long_lists_are_not(made):
    store, _ = made
    deep = "(" * MAX_DEPTH + "size = 1" + ")" * MAX_DEPTH
    assert (store.select(deep) == store.select("size = 1")).all()
    for too_deep in (f"({deep})", "not " * 5000 + "size = 1", "(" * 100_000, "not " * 100_000):
        with pytest.raises(WhereError, match=f"more than {MAX_DEPTH} nested"):
            parse_where(too_deep)
    with pytest.raises(WhereError, match=f"more than {MAX_LIKES} patterns"):
        parse_where(" or ".join(["name like x"] * (MAX_LIKES + 1)))
    with pytest.raises(WhereError, match=f"at most {MAX_CHARACTERS:,} characters"):
        parse_where("(" * (MAX_CHARACTERS + 1))
    long = " or ".join(f"size = {number}" for number in range(3000))
    assert (store.select(long) == store.select({"size": list(range(3000))})).all()


def test_damaged_filters_are_errors_that_point_into_them_or_mean_something_else(made):
    store, _ = made
    random_ = random.Random(0)
    signs = "()\"'`“”,=<>! \\%\n\x00and or not like"
    num_errors = 0
    for _ in range(400):
        where, _ = random_where(random_, depth=2)
        for _ in range(random_.randrange(1, 4)):
            at = random_.randrange(len(where) + 1)
            where = where[:at] + random_.choice(("", random_.choice(signs))) + where[at + random_.randrange(3) :]
        try:
            store.select(where)
        except WhereError as error:
            num_errors += 1
            assert 1 <= error.column <= len(where) + 1 and len(str(error).split("\n")) == 3
    assert num_errors > 200


def test_a_mapping_is_a_filter_of_its_values(made):
    store, rows = made
    for value in (*CAMERAS, ["X100", None, 'the "big" one'], (), {"été"}):
        wanted = list(value) if isinstance(value, list | tuple | set) else [value]
        met = [id for id, row in zip(store.ids.tolist(), rows, strict=True) if row["camera"] in wanted]
        assert store.select({"camera": value}).tolist() == met
    assert (store.select({"size": 5000, "shared": True}) == store.select("size = 5000 and shared = true")).all()
    assert (store.select({"date": datetime(1969, 12, 31, 23, 59, 59, 999_999)}) == store.select("date = 1969")).all()
    assert (store.select({"size": np.int64(1)}) == store.select({"size": 1.0})).all()
    assert where_of({"lens mm": 35, "camera": [None, "a"]}) == '`lens mm` in (35) and (`camera` in ("a") or `camera` is missing)'
    for odd in ({"camera": b"X100"}, {"camera": ["\ud800"]}, {"`": 1}):
        with pytest.raises(ValueError, match="where"):
            store.select(odd)


def test_a_column_of_text_is_read_as_what_all_its_values_are(made):
    store, _ = made
    kinds = {name: store.filter_columns.column(name).kind for name in COLUMNS}
    assert kinds == {
        name: {"whole": "whole numbers", "number": "numbers", "truth": "truth values", "date": "dates"}.get(kind, kind)
        for name, kind in COLUMNS.items()
    }


def test_filters_of_an_empty_store_find_nothing(empty_store):
    assert Store(empty_store).select("anything = 1 and not other is missing").tolist() == []
