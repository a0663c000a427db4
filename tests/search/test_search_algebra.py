"""The direction of a query: unit terms, weighted and added; unknown words move nothing; what cancels is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.search.algebra import combine
from multimodal.search.grammar import parse
from multimodal.text import Doc2VecSpace, Normaliser, Vocabulary, open_space


@pytest.fixture(scope="module")
def space(space_box):
    return open_space(space_box)


def _unit(vector: np.ndarray) -> np.ndarray:
    vector = np.asarray(vector, dtype=np.float64)
    return vector / np.linalg.norm(vector)


def test_each_term_counts_at_unit_length_times_its_weight(space):
    beach, people = (_unit(row) for row in space.embed(["beach", "people"]))
    image = np.array([3.0, 0, 0, 0, 0, 0, 0, 4.0])
    query = combine(parse("2*beach - 0.5*people + image:9"), space, {"9": image})
    np.testing.assert_allclose(query.vector, _unit(2 * beach - 0.5 * people + image / 5), atol=1e-7)  # float32 holds 1e-7
    assert query.vector.dtype == np.float32
    assert [term.label for term in query.used] == ["image:9", "beach", "people"]


TERMS = st.lists(
    st.tuples(st.sampled_from([-2.0, -0.5, 0.3, 1.0, 3.0]), st.sampled_from(["beach", "snow", "red dog", "man woman", "zxqv"])),
    min_size=1,
    max_size=5,
)


def _written(terms: list[tuple[float, str]]) -> str:
    return " ".join(f"{'-' if weight < 0 else '+'} {abs(weight)}*{text}" for weight, text in terms)


def _vector(query: str, space) -> bytes | str:
    """The bits of a query's vector, or "nothing" where there is none."""
    try:
        return combine(parse(query), space, {}).vector.tobytes()
    except InputError:
        return "nothing"


@given(terms=TERMS, random=st.randoms())
def test_the_order_of_terms_does_not_move_a_bit(space, terms, random):
    assert _vector(_written(terms), space) == _vector(_written(random.sample(terms, len(terms))), space)


@given(terms=TERMS)
def test_twice_a_query_points_where_the_query_points_bit_for_bit(space, terms):
    written = _written(terms)
    assert _vector(f"2*({written})", space) == _vector(f"({written}) + ({written})", space) == _vector(written, space)


@given(terms=TERMS, weight=st.sampled_from([-3.0, 0.7, 1e5]), unknown=st.sampled_from(["qqxx", "!!", "wxyz vwxy"]), at=st.integers(0, 5))
def test_an_inserted_unknown_word_does_not_move_a_bit(space, terms, weight, unknown, at):
    longer = [*terms[:at], (weight, f'"{unknown}"'), *terms[at:]]
    assert _vector(_written(longer), space) == _vector(_written(terms), space)


@given(terms=TERMS, seed=st.integers(0, 100))
def test_what_the_terms_add_sums_to_the_cosine(space, terms, seed):
    try:
        query = combine(parse(_written(terms)), space, {})
    except InputError:
        return
    row = _unit(np.random.default_rng(seed).standard_normal(space.dim))
    assert sum(query.why(row).values()) == pytest.approx(float(query.vector @ row), abs=1e-6)  # the vector is float32
    np.testing.assert_allclose(query.parts.sum(axis=0), query.vector, atol=1e-6)


def test_an_unknown_word_is_named_with_near_spellings_and_its_term_left_out(space):
    query = combine(parse("beech + sunset"), space, {})
    assert [term.label for term in query.used] == ["sunset"]
    assert [term.label for term in query.left_out] == ["beech"]
    assert "beach" in query.unknown["beech"]


def test_a_phrase_counts_by_the_words_that_are_known_and_names_the_others(space):
    query = combine(parse("sunset zxqv"), space, {})
    np.testing.assert_allclose(query.vector, _unit(space.embed(["sunset"])[0]), atol=1e-6)
    assert query.left_out == () and set(query.unknown) == {"zxqv"}


def test_a_query_of_unknown_words_alone_is_refused_with_near_spellings(space):
    with pytest.raises(InputError, match='knows no word of "beech", "zxqv". Near spellings: beech: beach.*; zxqv: none'):
        combine(parse("beech - zxqv"), space, {})


@pytest.mark.parametrize("query", ["beach - beach", "0*beach", "Beach - beach", "beach + snow - beach - snow", "zxqv + Dog - dog"])
def test_what_cancels_to_nothing_is_refused(space, query):
    with pytest.raises(InputError, match="cancels to nothing"):
        combine(parse(query), space, {})


def test_a_small_difference_of_large_weights_is_no_cancellation(space):
    query = combine(parse("1000*beach - 999.5*beach + 0.001*snow"), space, {})
    assert query.why(_unit(space.embed(["beach"])[0]))["beach"] > 0.9


def test_an_image_that_cancels_a_word_is_refused(space):
    with pytest.raises(InputError, match="cancels to nothing"):
        combine(parse("beach - image:1"), space, {"1": space.embed(["beach"])[0]})


def test_among_paragraph_vectors_words_are_added_and_a_phrase_is_inferred():
    words = ["haircut", "woman", "man", "red"]
    vectors, output = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    space = Doc2VecSpace(Normaliser(), Vocabulary(words, np.ones(4), 9), vectors, output, np.array([9, 4, 2, 1]))
    haircut, woman, man = (_unit(vector) for vector in vectors[:3])
    np.testing.assert_allclose(combine(parse("haircut + woman - man"), space, {}).vector, _unit(haircut + woman - man), atol=1e-6)
    phrase = combine(parse("red haircut - man"), space, {}).vector
    np.testing.assert_allclose(phrase, _unit(_unit(space.infer(np.array([3, 0]))) - man), atol=1e-6)
