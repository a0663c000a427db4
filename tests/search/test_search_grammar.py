"""Queries parse to what they mean, equal ones to equal expressions, and a wrong one says at which column."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.search.grammar import MAX_DEPTH, Expression, QueryError, Swap, Term, parse, parse_steps


def _texts(query: str) -> dict[str, float]:
    """Text content -> weight, of a query without images."""
    terms = parse(query).terms
    assert all(term.kind == "text" for term in terms)
    return {term.content: term.weight for term in terms}


@pytest.mark.parametrize(
    ("query", "means"),
    [
        ("beach", {"beach": 1}),
        ("red summer dress", {"red summer dress": 1}),
        ("  red \t dress ", {"red dress": 1}),
        ('"rock + roll"', {"rock + roll": 1}),
        ("“rock + roll”", {"rock + roll": 1}),
        ('"red  dress"', {"red dress": 1}),
        ("woman + scientist - man", {"woman": 1, "scientist": 1, "man": -1}),
        ("2*beach - 0.5*people", {"beach": 2, "people": -0.5}),
        ("2 * beach", {"beach": 2}),
        (".5*a + 3.*b", {"a": 0.5, "b": 3}),
        ("2*red dress", {"red dress": 2}),
        ("2*(a + b) - c", {"a": 2, "b": 2, "c": -1}),
        ("a - (b - c)", {"a": 1, "b": -1, "c": 1}),
        ("2*(a - 3*(b + c))", {"a": 2, "b": -6, "c": -6}),
        ("-people + beach", {"people": -1, "beach": 1}),
        ("beach -people", {"beach": 1, "people": -1}),
        ("(-a)", {"a": -1}),
        ("2*-a", {"a": -2}),
        ("t-shirt", {"t-shirt": 1}),
        ("a-b - c-d", {"a-b": 1, "c-d": -1}),
        ("a − b", {"a": 1, "b": -1}),
        ("a−b", {"a": 1, "b": -1}),
        ("a – b", {"a": 1, "b": -1}),
        ("a+b", {"a": 1, "b": 1}),
        ("route 66 + 3 dogs", {"route 66": 1, "3 dogs": 1}),
        ("don't", {"don't": 1}),
        ("a + a", {"a": 2}),
        ("a - a + b", {"b": 1}),
        ("0*a + b", {"b": 1}),
        ("a - a", {}),
        ("犬 + 猫", {"犬": 1, "猫": 1}),
    ],
)
def test_a_query_means_its_signed_terms(query, means):
    assert _texts(query) == means


@pytest.mark.parametrize(
    ("query", "content"),
    [
        ("image:17", "17"),
        ("image:photos/me-2.jpg", "photos/me-2.jpg"),
        ('image:"my photos/a (1).jpg"', "my photos/a (1).jpg"),
        ("image:“a b.jpg”", "a b.jpg"),
    ],
)
def test_an_image_is_an_id_or_a_path_that_may_be_quoted(query, content):
    assert parse(f"2*{query} - hat").terms == (Term("image", content, 2.0), Term("text", "hat", -1.0))


def test_a_quoted_phrase_that_looks_like_an_image_is_words():
    assert parse('"image:17"').terms == (Term("text", "image:17", 1.0),)


def _text(content: str, weight: float = 1.0, export: str = "") -> Term:
    return Term("text", content, weight, export)


def _swap(new: Term, old: Term, weight: float = 1.0) -> Swap:
    return Swap(replace(new, weight=weight), replace(old, weight=weight))


@pytest.mark.parametrize(
    ("query", "means"),
    [
        ("beach without people", Expression((_text("beach"),), (_text("people"),))),
        ("without people", Expression((), (_text("people"),))),
        ("(without people)", Expression((), (_text("people"),))),
        ("a without b c", Expression((_text("a"),), (_text("b c"),))),
        ("a without b without c", Expression((_text("a"),), (_text("b"), _text("c")))),
        ("a without (b + c)", Expression((_text("a"),), (_text("b"), _text("c")))),
        ("a without b - c", Expression((_text("a"), _text("c", -1)), (_text("b"),))),
        ("a without b + c", Expression((_text("a"), _text("c")), (_text("b"),))),
        ("2*(a without b)", Expression((_text("a", 2),), (_text("b", 2),))),
        ("2*a without b", Expression((_text("a", 2),), (_text("b"),))),
        ("a without 2*(b + 3*c)", Expression((_text("a"),), (_text("b", 2), _text("c", 6)))),
        ("a without +b", Expression((_text("a"),), (_text("b"),))),
        ("a - - (b without c)", Expression((_text("a"), _text("b")), (_text("c"),))),
        ("a without 0*b", Expression((_text("a"),))),
        ("0*(a without b) + c", Expression((_text("c"),))),
        ("a without near:3 without image:7", Expression((_text("a"),), (Term("image", "7", 1.0), Term("near", "3", 1.0)))),
        ("a man without a hat", Expression((_text("a man"),), (_text("a hat"),))),
        ('"a man without a hat"', Expression((_text("a man without a hat"),))),
        ("A man Without a hat", Expression((_text("A man"),), (_text("a hat"),))),
        ("WITHOUT a", Expression((), (_text("a"),))),
        ("within withouts with-out without-b", Expression((_text("within withouts with-out without-b"),))),
        ("woman instead of man", Expression((), (), (_swap(_text("woman"), _text("man")),))),
        ("old woman instead of young man", Expression((), (), (_swap(_text("old woman"), _text("young man")),))),
        (
            "image:7 + woman Instead \t OF man",
            Expression((Term("image", "7", 1.0),), (), (_swap(_text("woman"), _text("man")),)),
        ),
        ("2*(woman instead of man)", Expression((), (), (_swap(_text("woman"), _text("man"), 2),))),
        ("2*woman instead of man", Expression((), (), (_swap(_text("woman"), _text("man"), 2),))),
        ('image:3 instead of "a - b"', Expression((), (), (_swap(Term("image", "3", 1.0), _text("a - b")),))),
        ("a instead of b without c", Expression((), (_text("c"),), (_swap(_text("a"), _text("b")),))),
        (
            "a instead of b + b instead of a",
            Expression((), (), (_swap(_text("a"), _text("b")), _swap(_text("b"), _text("a")))),
        ),
        ("0*(a instead of b) + c", Expression((_text("c"),))),
        ("--a instead of b", Expression((), (), (_swap(_text("a"), _text("b")),))),
        ("a instead", Expression((_text("a instead"),))),
        ("instead a of b", Expression((_text("instead a of b"),))),
        ('"a instead of b"', Expression((_text("a instead of b"),))),
    ],
)
def test_a_query_means_its_exclusions_and_swaps(query, means):
    assert parse(query) == means
    assert parse(str(means)) == means


@pytest.mark.parametrize(
    ("query", "term"),
    [
        ("near:12", Term("near", "12", 1.0)),
        ("near:012", Term("near", "12", 1.0)),
        ("topic:0", Term("topic", "0", 1.0)),
        ('topic:"7"', Term("topic", "7", 1.0)),
        ("Topic:7", Term("topic", "7", 1.0)),
        ("Image:A.jpg", Term("image", "A.jpg", 1.0)),
        ('"topic:7"', _text("topic:7")),
        ("nearby", _text("nearby")),
        ("export:trips:beach", _text("beach", export="trips")),
        ('export:trips:"hiking trip"', _text("hiking trip", export="trips")),
        ("Export:a-b_c.d9:beach", _text("beach", export="a-b_c.d9")),
        ('export:"my trips":beach', _text("beach", export="my trips")),
        ("export:“my trips”:beach", _text("beach", export="my trips")),
        ("export:topic:topic:7", Term("topic", "7", 1.0, "topic")),
        ("export:topic:7", _text("7", export="topic")),
        ("export:a:near:3", Term("near", "3", 1.0, "a")),
        ('export:a:image:"b c.jpg"', Term("image", "b c.jpg", 1.0, "a")),
        ('export:a:"without"', _text("without", export="a")),
        ('"export:a:b"', _text("export:a:b")),
        ("export:été:犬", _text("犬", export="été")),
    ],
)
def test_a_term_is_written_with_its_kind_and_the_export_that_scores_it(query, term):
    assert parse(f"2*{query} - hat").terms == tuple(sorted((replace(term, weight=2.0), _text("hat", -1))))
    assert parse(f"a without {query}").without == (term,)
    assert parse(f"{query} instead of hat").swaps == (Swap(term, _text("hat")),)
    assert parse(term.label).terms == (term,)


def test_the_same_words_in_two_exports_are_two_terms():
    assert parse("export:a:dog + dog + export:b:dog + dog").terms == (_text("dog", 1, "a"), _text("dog", 1, "b"), _text("dog", 2))


def test_equal_terms_and_swaps_add_and_what_is_excluded_twice_is_excluded_once():
    assert parse("a without b without b") == parse("a without b")
    assert parse("a without b without 3*b") == parse("a without 3*b")
    assert parse("a instead of b + 2*(a instead of b)") == parse("3*a instead of b")
    assert parse("a instead of b + a instead of c") == parse("a instead of c + a instead of b")


def test_labels_say_the_role_of_every_part_in_its_order():
    expression = parse("2*beach - man + image:7 without 3*people + woman instead of man")
    assert expression.labels == ("image:7", "beach", "- man", "without people", "woman instead of man")
    assert [term.content for term in expression.every_term] == ["7", "beach", "man", "people", "woman", "man"]


def test_a_straight_quote_within_curly_ones_survives_being_written_out():
    expression = parse('“a 6" nail” - image:“6".jpg”')
    assert expression.terms == (Term("image", '6".jpg', -1.0), _text('a 6" nail'))
    assert parse(str(expression)) == expression


@pytest.mark.parametrize(
    "query", ["1000000*" * 45 + "a", "1000000*(1000000*(0.3*a)) without 999999*(999999*b)", "1000000*a + 1000000*a", "0.000001*" * 40 + "a"]
)
def test_weights_that_no_single_number_may_have_survive_being_written_out(query):
    assert parse(str(parse(query))) == parse(query)


def test_a_series_goes_evenly_from_its_first_query_to_its_last():
    steps = parse_steps("between image:3 + snow and image:9 in 5")
    assert steps[0] == parse("image:3 + snow") and steps[-1] == parse("image:9")
    assert steps[1:-1] == tuple(parse(f"{1 - t}*image:3 + {1 - t}*snow + {t}*image:9") for t in (0.25, 0.5, 0.75))
    assert parse_steps("Between a And b In 2") == (parse("a"), parse("b"))
    assert all(_text("c", 0.1) in step.terms for step in parse_steps("between a + 0.1*c and b + 0.1*c in 50"))
    assert parse_steps("between 2*a without c and d instead of e without c in 3")[1] == parse("a + 0.5*d instead of e without c")


def test_parentheses_and_quotes_keep_an_and_within_a_side():
    assert parse_steps('between (salt and pepper) and "sugar and spice" in 2') == (parse("salt and pepper"), parse('"sugar and spice"'))


@pytest.mark.parametrize(
    "query",
    [
        "between two trees",
        "between two trees and a house",
        "between a and b in winter",
        "between a and b 5",
        "between a in 5",
        "trees between a and b in 5",
        '"between a and b in 5"',
    ],
)
def test_between_is_a_word_where_no_series_follows(query):
    assert parse_steps(query) == (parse(query),) == (Expression((_text(query.strip('"')),)),)


def test_one_query_is_wanted_where_a_series_is_given():
    with pytest.raises(QueryError, match="column 2: this is a series of 5 queries, and one is wanted"):
        parse(" between a and b in 5")


@pytest.mark.parametrize(
    ("query", "column", "problem"),
    [
        ("x - (a without b)", 8, "outside the difference: x - a without b"),
        ("-(without b)", 3, "outside the difference"),
        ("a without -b", 12, "write without b to exclude b, + b to look for it"),
        ("a without (b - c)", 16, "write without b to exclude b"),
        ("a without (b without c)", 14, "cannot exclude"),
        ("a without b instead of c", 13, "Write the swap first"),
        ("a without", 10, "missing after without"),
        ("a + without b", 5, "missing after +. Write a without b"),
        ("without without b", 9, "missing after without"),
        ("x - (b instead of c)", 6, "the other way round: c instead of b"),
        ("-b instead of c", 2, "the other way round: c instead of b"),
        ("a instead of (b + c)", 14, "each side of"),
        ("(a + b) instead of c", 1, "each side of"),
        ("a instead of 2*b", 14, "each side of"),
        ("a instead of -b", 14, "each side of"),
        ("a instead of b instead of c", 16, "Join swaps with +"),
        ("a + 2*a instead of a", 7, "cannot take its own place"),
        ("instead of b", 1, 'missing at the start. Quote "instead of"'),
        ("a instead of", 13, "missing after instead of"),
        ("a instead of b c d + )", 22, "missing after +"),
        ("near:x", 6, "the id of a picture, a whole number"),
        ("a + near:-5", 10, "the id of a picture, a whole number"),
        ("topic:2.5", 7, "the number of a topic, a whole number"),
        ("topic:sports", 7, "Put quotes around it if it is a phrase"),
        ("topic:٣", 7, "a whole number"),
        ("export:a:topic:b", 16, "a whole number"),
        ("near:", 1, "is empty; write a whole number"),
        ("export:a", 1, "a name and a term"),
        ("export:", 1, "a name and a term"),
        ("export:a: b", 1, "a name and a term"),
        ("export::b", 1, "a name and a term"),
        ('export:" ":b', 1, "the name of a joined store"),
        ("export:a:b c", 12, "quote a phrase"),
        ("export:a:2*b", 10, "missing after export:a:"),
        ("export:a:(b)", 10, "missing after export:a:"),
        ("export:a:export:b:c", 10, "missing after export:a:"),
        ("between a and b in 1", 20, "from 2 to 100 steps"),
        ("between a and b in 101", 20, "from 2 to 100 steps"),
        ("between a and b in 0", 20, "from 2 to 100 steps"),
        ("between a and b in -3", 20, "from 2 to 100 steps"),
        ("between a and b in 2.5", 20, "from 2 to 100 steps"),
        ("between a and b in " + "9" * 30, 20, "from 2 to 100 steps"),
        ("between a and b and c in 5", 17, 'a second "and"'),
        ("between and b in 5", 9, "missing after between"),
        ("between a and in 5", 15, "missing after and"),
        ("between a + and b in 5", 13, "missing after +"),
        ('between a "b" and c in 5', 11, "two adjacent terms"),
        ("between a and b + in 5", 19, "missing after +"),
        ("(between a and b in 5)", 2, "must be the whole query"),
        ("c + between a + d and b in 5", 5, "must be the whole query"),
        ("between (between a and b in 5) and c in 5", 10, "must be the whole query"),
        ("(between a and b in 5", 1, "never closed"),
        ("between a) and b in 5", 10, "never opened"),
        ("1000000*" * 46 + "a", 361, "multiply to more than"),
    ],
)
def test_a_wrong_exclusion_swap_series_or_term_names_its_column_and_what_to_do(query, column, problem):
    with pytest.raises(QueryError) as raised:
        parse_steps(query)
    assert raised.value.column == column
    assert problem in str(raised.value)
    _, shown, caret = str(raised.value).splitlines()
    at = caret.index("^")
    assert len(shown) <= 64 and shown[at : at + 1] == query[column - 1 : column]


@pytest.mark.parametrize(
    ("query", "column", "problem"),
    [
        ("", 1, "empty"),
        ("   ", 1, "empty"),
        ("a +", 4, "missing after +"),
        ("+", 2, "missing after +"),
        ("a + ) b", 5, "missing after +"),
        ("a + (b - c", 5, "never closed"),
        ("a) + b", 2, "never opened"),
        ("()", 2, "missing after ("),
        ('a + "b', 5, "quote is never closed"),
        ("a”", 2, "quote was never opened"),
        ('a + ""', 5, "is empty; write"),
        ("a + image: 3", 5, "is empty; write"),
        ("a*2", 2, "a number before a term"),
        ("2*", 3, "missing after 2*"),
        ("2(a + b)", 2, "two adjacent terms"),
        ('a "b c"', 3, "two adjacent terms"),
        ("image:3 beach", 9, "two adjacent terms"),
        ("a + 1000001*b", 5, "at most 1,000,000"),
        ("(" * 60, MAX_DEPTH + 2, "more than 50"),
    ],
)
def test_a_wrong_query_names_its_column_and_points_at_it(query, column, problem):
    with pytest.raises(InputError, match="query, column") as raised:
        parse(query)
    assert isinstance(raised.value, QueryError)
    assert raised.value.column == column
    headline, shown, caret = str(raised.value).splitlines()
    assert problem in headline and f"column {column}:" in headline
    assert shown[2:] == query  # all of it, up to 60 characters
    assert caret.index("^") - 2 == column - 1


def test_the_caret_stands_under_its_character_after_wide_ones():
    with pytest.raises(QueryError) as raised:
        parse("犬 + )")
    assert raised.value.column == 5
    assert str(raised.value).splitlines()[-1] == "  " + " " * 5 + "^"  # 犬 fills two columns of a terminal


@pytest.mark.parametrize("at", [0, 20, 50_000, 99_980, 99_999])
def test_a_long_query_is_shown_near_its_column_only(at):
    query = "a" * at + "*" + "犬" * (99_999 - at)
    with pytest.raises(QueryError) as raised:
        parse(query)
    assert raised.value.column == at + 1
    _, shown, caret = str(raised.value).splitlines()
    assert len(shown) <= 64 and shown[caret.index("^")] == "*"
    assert (shown[2] == "…") == (at > 30) and (shown[-1] == "…") == (at < 99_970)


# Queries with their meaning, built side by side: a tree, the text that a person would write for it, and the parts that it flattens to.
TERMS = {
    "beach": _text("beach"),
    "t-shirt": _text("t-shirt"),
    "red  dress": _text("red dress"),
    '"rock + roll"': _text("rock + roll"),
    '"without hat"': _text("without hat"),
    "“go instead of”": _text("go instead of"),
    '“a " b”': _text('a " b'),
    '"between a and b in 3"': _text("between a and b in 3"),
    "image:7": Term("image", "7", 1.0),
    'image:"a b.jpg"': Term("image", "a b.jpg", 1.0),
    "Near:7": Term("near", "7", 1.0),
    "topic:07": Term("topic", "7", 1.0),
    "3": _text("3"),
    "犬": _text("犬"),
    "export:trips:beach": _text("beach", export="trips"),
    'export:"my trips":"red dress"': _text("red dress", export="my trips"),
    "export:trips:topic:7": Term("topic", "7", 1.0, "trips"),
}
WEIGHTS = [0.0, 0.25, 0.5, 1.0, 2.0, 3.0]  # sums and products of these are exact, so that any order gives the same bits
# a term; ("swap", new, old); or ("sum", [(sign or "without", weight, child), ...])
Tree = str | tuple

_WITHOUT, _INSTEAD = st.sampled_from(["without", "Without", "WITHOUT "]), st.sampled_from(["instead of", "Instead Of", "INSTEAD\tof"])
_TERM = st.sampled_from(sorted(TERMS))
_SWAP = st.tuples(st.just("swap"), _TERM, _TERM, _INSTEAD).filter(lambda swap: TERMS[swap[1]] != TERMS[swap[2]])


def _sums(*children: tuple[st.SearchStrategy[str], st.SearchStrategy[Tree]]) -> st.SearchStrategy[Tree]:
    one = st.one_of([st.tuples(sign, st.sampled_from(WEIGHTS), child) for sign, child in children])
    return st.tuples(st.just("sum"), st.lists(one, min_size=1, max_size=4))


_PLUS, _SIGN = st.just("+"), st.sampled_from("+-−")
_EXCLUDED = st.recursive(_TERM, lambda child: _sums((_PLUS, child)), max_leaves=3)
SUMS = st.recursive(_TERM, lambda child: _sums((_SIGN, child)), max_leaves=6)  # may be subtracted
TREES = st.recursive(_TERM | _SWAP, lambda child: _sums((_PLUS, child), (_SIGN, SUMS), (_WITHOUT, _EXCLUDED)), max_leaves=8)


def _write(tree: Tree) -> str:
    if isinstance(tree, str):
        return tree
    if tree[0] == "swap":
        return f"{tree[1]} {tree[3]} {tree[2]}"
    parts = (f"{sign} {'' if weight == 1 else f'{weight:g}*'}{_write(child)}" for sign, weight, child in tree[1])
    return f"({' '.join(parts)})"


def _parts(tree: Tree, weight: float = 1.0, excluded: bool = False) -> list[tuple[str, Term | Swap, float]]:
    """(role, part with weight 1, weight) of each leaf."""
    if isinstance(tree, str):
        return [("without" if excluded else "terms", TERMS[tree], weight)]
    if tree[0] == "swap":
        return [("swaps", Swap(TERMS[tree[1]], TERMS[tree[2]]), weight)]
    parts = []
    for sign, factor, child in tree[1]:
        parts += _parts(child, weight * factor * (-1 if sign in "-−" else 1), excluded or sign.lower().strip() == "without")
    return parts


def _meaning(tree: Tree) -> Expression:
    """The slow reference: every part is looked up among all leaves."""
    leaves = _parts(tree)

    def merged(role: str, merge: Callable[[list[float]], float]) -> tuple:
        found = {
            part: merge([w for other, same, w in leaves if (other, same) == (role, part)]) for which, part, _ in leaves if which == role
        }
        return tuple(
            sorted(_swap(part.new, part.old, w) if isinstance(part, Swap) else replace(part, weight=w) for part, w in found.items() if w)
        )

    return Expression(merged("terms", sum), merged("without", max), merged("swaps", sum))


@given(TREES)
def test_signs_weights_exclusions_and_swaps_distribute_over_any_nesting(tree):
    assert parse(_write(tree)) == _meaning(tree)


@given(TREES)
def test_an_expression_written_out_parses_to_itself(tree):
    expression = parse(_write(tree))
    if expression.labels:
        assert parse(str(expression)) == expression
        assert parse_steps(str(expression)) == (expression,)


@given(TREES)
def test_labels_name_each_part_once(tree):
    expression = parse(_write(tree))
    assert len(expression.labels) == len(expression.terms) + len(expression.without) + len(expression.swaps)
    assert len(set(expression.labels)) == len(expression.labels)
    for label, term in zip(expression.labels, expression.terms, strict=False):
        assert parse(label).terms == (replace(term, weight=-1.0 if term.weight < 0 else 1.0),)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.sampled_from(["+", "-", "without"]), _TERM | _SWAP), min_size=1, max_size=8), st.randoms())
def test_the_order_of_parts_is_irrelevant_to_the_last_bit(parts, random):
    def written(parts: list[tuple[float, str, Tree]]) -> str:
        # what has no role before a swap is added, since a swap is only added
        return "0*a " + " ".join(f"{'+' if isinstance(part, tuple) else sign} {weight:.20f}*{_write(part)}" for weight, sign, part in parts)

    assert parse(written(parts)) == parse(written(random.sample(parts, len(parts))))


@given(TREES)
def test_twice_a_query_is_the_query_added_to_itself_and_excludes_once(tree):
    written = _write(tree)
    twice, added = parse(f"2*{written}"), parse(f"{written} + {written}")
    assert (twice.terms, twice.swaps) == (added.terms, added.swaps)
    assert added.without == parse(written).without


@given(TREES, TREES, st.integers(2, 100))
def test_a_series_is_linear_in_both_queries_and_its_reverse_is_the_series_backwards(one, other, num):
    first, last = parse(_write(one)), parse(_write(other))
    steps = parse_steps(f"between {_write(one)} and {_write(other)} in {num}")
    assert len(steps) == num and steps[0] == first and steps[-1] == last
    assert steps[::-1] == parse_steps(f"between {_write(other)} and {_write(one)} in {num}")
    if one == other:
        assert set(steps) == {first}
    step = num // 2
    for role in ("terms", "without", "swaps"):
        weights = [{_unit(part): part.weight for part in getattr(expression, role)} for expression in (first, last, steps[step])]
        for part in set().union(*weights):
            begin, end, middle = (each.get(part, 0.0) for each in weights)
            assert middle == pytest.approx((1 - step / (num - 1)) * begin + step / (num - 1) * end, abs=1e-12)  # float64 weights up to 1e3
    if steps[step].labels:
        assert parse(str(steps[step])) == steps[step]


def _unit(part: Term | Swap) -> Term | Swap:
    return part.at(1.0)


def _check_total(query: str) -> None:
    """It is expressions, which can be written out, or an error that points into the query."""
    try:
        steps = parse_steps(query)
    except QueryError as error:
        assert 1 <= error.column <= len(query) + 1
        assert len(str(error)) < 500 + 2 * 60  # never the whole of a long query
        return
    for expression in (steps[0], steps[-1]):
        assert len(set(expression.labels)) == len(expression.labels)
        if expression.labels:
            assert parse(str(expression)) == expression


WORDS = ["a", "b", "犬", "5", "100", "between", "and", "in", "In", "of", "instead", "near", "2.5"]
MARKS = [
    *'+-−–*()"“”',
    "without",
    "Without",
    "instead of",
    "2*",
    "0.5*",
    "near:3",
    "topic:",
    "image:",
    "image:7",
    "export:a:",
    "export:",
    '"c d"',
]
SOUP = st.lists(st.sampled_from(WORDS) | st.sampled_from(MARKS), max_size=25)


@given(st.text(alphabet='ab12 ."“”()+-−–*:image\t', max_size=25))
def test_any_text_is_an_expression_or_an_error_that_points_into_it(query):
    _check_total(query)


@settings(max_examples=300)
@given(SOUP, st.sampled_from([" ", " ", ""]))
def test_any_sequence_of_signs_and_keywords_is_an_expression_or_an_error_that_points_into_it(tokens, between):
    _check_total(between.join(tokens))


@given(st.binary(max_size=60))
def test_any_bytes_of_a_command_line_are_an_expression_or_an_error(query):
    _check_total(query.decode("utf-8", "surrogateescape"))


def _read(query: str) -> None:
    try:
        parse_steps(query)
    except QueryError:
        pass


@settings(max_examples=50)
@given(soup=SOUP.filter(bool), end=st.sampled_from(["", "a", ")", " and b in 3"]), start=st.sampled_from(["", "between ", "(", "a + "]))
def test_the_work_on_a_query_grows_with_its_length(assert_linear, soup, start, end):
    unit = " ".join(soup) + " "
    assert_linear(_read, lambda length: start + unit * (length // len(unit)) + end)


@pytest.mark.parametrize(
    "part",
    [
        "a + ",
        "a without b without ",
        "a instead of b + ",
        "(a) + ",
        "(",
        "-",
        "2*",
        '"',
        "“",
        'export:"',
        "export:",
        "export:a:b + ",
        "image:“ ",
    ]
    + ["instead ", " ", "1", "0.", "between ", "between a and ", "and ", "(between a and b in 3) + ", "near:1 + ", "犬 "],
)
def test_a_query_of_a_hundred_thousand_characters_takes_steps_that_grow_with_its_length(part, assert_linear):
    for start, end in (("", ""), ("between ", " and b in 3"), ("a + ", "*c")):
        assert_linear(_read, lambda length: start + part * (length // len(part)) + end)  # noqa: B023
        _read(start + part * (100_000 // len(part)) + end)


def test_the_work_on_many_different_terms_grows_with_their_number(assert_linear):
    names = random.Random(0).sample(range(100_000), 4_000)
    assert_linear(_read, lambda length: " + ".join(f"w{name}" for name in names[:length]))
    assert_linear(_read, lambda length: "between b and " + " without ".join(f"w{name}" for name in names[:length]) + " in 4")
