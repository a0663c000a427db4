"""The terms of a query as vectors: of unit length, in their roles, by the store that scores them; unknown words move nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.search.algebra import QueryTerms, look_up, parts_of
from multimodal.search.fusion import NothingToFind
from multimodal.search.grammar import parse
from multimodal.search.query import ScoreAll, answer
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import Doc2VecSpace, Normaliser, Vocabulary


@pytest.fixture(scope="module")
def store(store_of_forty) -> Store:
    return Store(store_of_forty)


def _unit(vector: np.ndarray) -> np.ndarray:
    vector = np.asarray(vector, dtype=np.float64)
    return vector / np.linalg.norm(vector)


def _direction(terms: QueryTerms) -> np.ndarray:
    """(d,) of unit length: the sum of the terms, of which those that should be absent are subtracted."""
    signs = [-part.term.weight if part.is_without else part.term.weight for part in terms.parts]
    return _unit(sum(sign * one for sign, one in zip(signs, terms.units, strict=True)))


def test_each_term_is_a_unit_vector_with_its_weight_and_its_role(store):
    beach, people = (_unit(row) for row in store.query_space.embed(["beach", "people"]))
    image = np.array([3.0, 0, 0, 0, 0, 0, 0, 4.0])
    terms = look_up(parse("2*beach - 0.5*people + image:9"), store, {"9": image}, calibrated=False)
    assert [(part.label, part.term.weight, part.is_without) for part in terms.parts] == [
        ("image:9", 1.0, False),
        ("beach", 2.0, False),
        ("- people", 0.5, True),
    ]
    for one, wanted in zip(terms.units, (image / 5, beach, people), strict=True):
        np.testing.assert_allclose(one, wanted, atol=1e-12)
        assert one.dtype == np.float64


def test_a_swap_is_two_terms_with_one_label_and_what_is_excluded_comes_before_it():
    parts = parts_of(parse("beach + 2*woman instead of man without 3*dog"))
    assert [(part.term.content, part.term.weight, part.label, part.is_without) for part in parts] == [
        ("beach", 1.0, "beach", False),
        ("dog", 3.0, "without dog", True),
        ("woman", 2.0, "woman instead of man", False),
        ("man", 2.0, "woman instead of man", True),
    ]


def test_calibrated_short_phrases_lose_what_frequent_words_have_in_common_and_long_ones_do_not(store):
    calibration, space = store.calibration, store.query_space
    short, long = "man woman", "man woman beach dog"
    terms = look_up(parse(f'"{short}" + "{long}"'), store, {}, calibrated=True)
    wanted = {short: _unit(_unit(space.embed([short])[0]) - calibration.mean_term), long: _unit(space.embed([long])[0])}
    for part, one in zip(terms.parts, terms.units, strict=True):
        np.testing.assert_allclose(one, wanted[part.term.content], atol=1e-9)


def test_near_is_the_mean_of_a_picture_and_its_neighbours(store):
    rows = {id: _unit(row) for id, row in zip(store.ids.tolist(), store.rows, strict=True)}
    nearest = sorted(rows, key=lambda id: -float(rows[id] @ rows[11]))[:9]
    [one] = look_up(parse("near:11"), store, {}, calibrated=True).units
    np.testing.assert_allclose(one, _unit(np.mean([rows[id] for id in nearest], axis=0)), atol=1e-6)  # rows are float16


TERMS = st.lists(
    st.tuples(st.sampled_from([-2.0, -0.5, 0.3, 1.0, 3.0]), st.sampled_from(["beach", "snow", "red dog", "man woman", "zxqv"])),
    min_size=1,
    max_size=5,
)


def _written(terms: list[tuple[float, str]]) -> str:
    return " ".join(f"{'-' if weight < 0 else '+'} {abs(weight)}*{text}" for weight, text in terms)


def _bits(query: str, store: Store, calibrated: bool = True) -> list[tuple[bytes, str, float]] | str:
    """The bits of each term's vector, or "nothing" where there is none."""
    try:
        terms = look_up(parse(query), store, {}, calibrated)
    except InputError:
        return "nothing"
    return [(one.tobytes(), part.label, part.term.weight) for part, one in zip(terms.parts, terms.units, strict=True)]


@given(terms=TERMS, random=st.randoms(), calibrated=st.booleans())
def test_the_order_of_terms_does_not_move_a_bit(store, terms, random, calibrated):
    assert _bits(_written(terms), store, calibrated) == _bits(_written(random.sample(terms, len(terms))), store, calibrated)


@given(terms=TERMS, weight=st.sampled_from([-3.0, 0.7, 1e5]), unknown=st.sampled_from(["qqxx", "!!", "wxyz vwxy"]), at=st.integers(0, 5))
def test_an_inserted_unknown_word_does_not_move_a_bit(store, terms, weight, unknown, at):
    longer = [*terms[:at], (weight, f'"{unknown}"'), *terms[at:]]
    assert _bits(_written(longer), store) == _bits(_written(terms), store)


@given(terms=TERMS)
def test_a_vector_sum_scores_by_the_cosine_with_the_sum_and_its_bits_do_not_depend_on_a_factor(store, terms):
    written = _written(terms)
    try:
        scores = ScoreAll(store, fusion="sum")(written)
    except InputError:
        return
    direction = _direction(look_up(parse(written), store, {}, calibrated=False))
    np.testing.assert_allclose(scores, [float(_unit(row) @ direction) for row in store.rows], atol=2e-6)
    assert scores.tobytes() == ScoreAll(store, fusion="sum")(f"2*({written})").tobytes()
    assert scores.tobytes() == ScoreAll(store, fusion="sum")(f"({written}) + ({written})").tobytes()


def test_an_unknown_word_is_left_out_and_reported_with_near_spellings(store):
    terms = look_up(parse("beech + sunset"), store, {}, calibrated=True)
    assert [term.content for term in terms.left_out] == ["beech"] and "beach" in terms.unknown["beech"]
    assert [part.term.content for part in terms.parts] == ["sunset"]


def test_an_unknown_word_in_a_known_phrase_is_reported_and_the_phrase_stays(store):
    terms = look_up(parse("zxqv sunset"), store, {}, calibrated=False)
    np.testing.assert_allclose(terms.units[0], _unit(store.query_space.embed(["sunset"])[0]), atol=1e-9)
    assert terms.left_out == () and set(terms.unknown) == {"zxqv"}


@pytest.mark.parametrize("query", ["beech - zxqv", "beech without zxqv", "beech instead of zxqv"])
def test_a_query_of_unknown_words_alone_is_refused_with_near_spellings(store, query):
    with pytest.raises(InputError, match='knows no word of "beech", "zxqv". Near spellings: beech: beach.*; zxqv: none'):
        look_up(parse(query), store, {}, calibrated=True)


@pytest.mark.parametrize("query", ["beach - beach", "0*beach", "beach + snow - beach - snow"])
def test_what_cancels_to_nothing_is_refused(store, query):
    for fusion in ("product", "sum"):
        with pytest.raises(NothingToFind, match="cancels to nothing.*Leave a term out or change a weight"):
            answer(store, query, fusion=fusion)
        with pytest.raises(NothingToFind, match="its terms cancel"):
            ScoreAll(store, fusion)(query)


@pytest.mark.parametrize("query", ["Beach - beach", "zxqv + Dog - dog"])
def test_a_sum_of_equal_vectors_cancels_and_a_product_of_them_wants_both(store, query):
    with pytest.raises(InputError, match="cancels to nothing"):
        ScoreAll(store, "sum")(query)
    assert len(ScoreAll(store, "product")(query)) == len(store)


def test_an_image_that_cancels_a_word_is_refused_by_the_sum(store):
    row = store.query_space.embed(["beach"])[0]
    with pytest.raises(InputError, match="cancels to nothing"):
        answer(store, "beach - image:me", vectors={"me": row}, fusion="sum")


def test_a_small_difference_of_large_weights_is_no_cancellation(store):
    terms = look_up(parse("1000*beach - 999.5*beach + 0.001*snow"), store, {}, calibrated=False)
    assert _direction(terms) @ _unit(store.query_space.embed(["beach"])[0]) > 0.9


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("export:trips:beach", "no store is joined as trips; joined are: none. Add: --join trips=STORE"),
        ("export:self:image:me.jpg", "a joined store knows its pictures by their ids: export:self:image:17"),
        ("export:self:image:1000", "no picture with id 1000"),
        ("export:self:near:" + "9" * 5000, "no picture has an id of 5,000 digits"),
        ("topic:" + "9" * 5000, "no topic has a number of 5,000 digits|which has no topics"),
        ("near:" + "9" * 5000, "no picture has an id of 5,000 digits"),
        ("near:1000", "no picture with id 1000"),
    ],
)
def test_a_term_that_no_store_can_score_is_refused_and_named(store, query, said):
    with pytest.raises(InputError, match=said):
        look_up(parse(query), store, {}, calibrated=True, joined={"self": store} if "self" in query else None)


@pytest.mark.parametrize("query", ["export:trips:beach", "export:trips:image:7 + beach", "topic:3", "topic:8"])
def test_scores_of_all_pictures_are_of_this_store_alone(store, query):
    if query == "topic:3" and store.family == "topic":
        assert len(ScoreAll(store)(query)) == len(store)
        return
    with pytest.raises(InputError, match="no store is joined as trips|has no topics|the store has the topics 0 to 7"):
        ScoreAll(store)(query)


def test_among_paragraph_vectors_words_are_added_and_a_phrase_is_inferred(tmp_path):
    words = ["haircut", "woman", "man", "red"]
    vectors, output = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    space = Doc2VecSpace(Normaliser(), Vocabulary(words, np.ones(4), 9), vectors, output, np.array([9, 4, 2, 1]))
    space.save(tmp_path / "space")
    create_store(tmp_path / "store", tmp_path / "space", family="doc2vec", export="e" * 64)
    with StoreWriter(tmp_path / "store") as writer:
        writer.append(Segment(np.array([7]), np.ones((1, 6)), {"name": ["a"], "text": ["b"]}))
    store = Store(tmp_path / "store")
    haircut, woman, man = (_unit(vector) for vector in vectors[:3])
    summed = look_up(parse("haircut + woman - man"), store, {}, calibrated=False)
    np.testing.assert_allclose(_direction(summed), _unit(haircut + woman - man), atol=1e-6)
    phrase = look_up(parse("red haircut - man"), store, {}, calibrated=False)
    np.testing.assert_allclose(_direction(phrase), _unit(_unit(space.infer(np.array([3, 0]))) - man), atol=1e-6)
