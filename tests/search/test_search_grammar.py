"""Queries parse to what they mean, equal ones to equal expressions, and a wrong one says at which column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.search.grammar import MAX_DEPTH, Expression, QueryError, Term, parse


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
        ('a + ""', 5, "holds nothing"),
        ("a + image: 3", 5, "holds nothing"),
        ("a*2", 2, "stands in front"),
        ("2*", 3, "missing after 2*"),
        ("2(a + b)", 2, "side by side"),
        ('a "b c"', 3, "side by side"),
        ("image:3 beach", 9, "side by side"),
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
    assert shown[2:] == query
    assert caret.index("^") - 2 == column - 1


def test_the_caret_stands_under_its_character_after_wide_ones():
    with pytest.raises(QueryError) as raised:
        parse("犬 + )")
    assert raised.value.column == 5
    assert str(raised.value).splitlines()[-1] == "  " + " " * 5 + "^"  # 犬 fills two columns of a terminal


# Queries with their meaning, built side by side: a tree, the text that a person would write for it, and the weights it flattens to.
WORDS = ["beach", "t-shirt", "red dress", '"rock + roll"', "image:7", 'image:"a b.jpg"', "3", "犬"]
WEIGHTS = [0.0, 0.25, 0.5, 1.0, 2.0, 3.0]  # sums and products of these are exact, so that any order gives the same bits
Tree = str | tuple[str, list[tuple[str, float, "Tree"]]]


def _signed(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.tuples(
        st.just("sum"), st.lists(st.tuples(st.sampled_from("+-−"), st.sampled_from(WEIGHTS), children), min_size=1, max_size=4)
    )


TREES = st.recursive(st.sampled_from(WORDS), _signed, max_leaves=8)


def _write(tree: Tree) -> str:
    if isinstance(tree, str):
        return tree
    return "(" + " ".join(f"{sign} {'' if weight == 1 else f'{weight:g}*'}{_write(child)}" for sign, weight, child in tree[1]) + ")"


def _flatten(tree: Tree, weight: float = 1.0) -> dict[str, float]:
    if isinstance(tree, str):
        return {tree: weight}
    total: dict[str, float] = {}
    for sign, factor, child in tree[1]:
        for word, part in _flatten(child, weight * factor * (1 if sign == "+" else -1)).items():
            total[word] = total.get(word, 0.0) + part
    return total


@given(TREES)
def test_signs_and_weights_distribute_over_any_nesting(tree):
    assert {term.label: term.weight for term in parse(_write(tree)).terms} == {word: w for word, w in _flatten(tree).items() if w != 0}


@given(TREES)
def test_an_expression_written_out_parses_to_itself(tree):
    expression = parse(_write(tree))
    if expression.terms:
        assert parse(str(expression)) == expression


@given(st.lists(st.tuples(st.floats(0, 1e6), st.sampled_from(WORDS)), min_size=1, max_size=8), st.randoms())
def test_the_order_of_terms_is_irrelevant_to_the_last_bit(terms, random):
    shuffled = random.sample(terms, len(terms))
    one, other = (" + ".join(f"{weight:.20f}*{word}" for weight, word in each) for each in (terms, shuffled))
    assert parse(one) == parse(other)


@given(TREES)
def test_twice_a_query_is_the_query_added_to_itself(tree):
    written = _write(tree)
    assert parse(f"2*{written}") == parse(f"{written} + {written}")


@given(st.text(alphabet='ab12 ."“”()+-−–*:image\t', max_size=25))
def test_any_text_is_an_expression_or_an_error_that_points_into_it(query):
    try:
        expression = parse(query)
    except QueryError as error:
        assert 1 <= error.column <= len(query) + 1
    else:
        assert isinstance(expression, Expression)
        if expression.terms:
            assert parse(str(expression)) == expression
