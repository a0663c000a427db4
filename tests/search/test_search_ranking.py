"""What holds for every way to combine terms: scores equal a slow loop, and depend on what is asked and on nothing else."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.search.calibration import frequent_words
from multimodal.search.conformance import brute_force
from multimodal.search.engine import Neighbours, ScoresAll
from multimodal.search.flat import FlatEngine
from multimodal.search.fusion import CalibratedProduct, Fusion, NothingToFind, TermScores, VectorSum
from multimodal.search.query import ScoreAll, answer
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store


@dataclass(frozen=True, slots=True)
class MeanStandard:
    """A way of one's own: the weighted mean of the terms' standard scores; those of unwanted terms are subtracted."""

    centred: ClassVar[bool] = True
    is_product: ClassVar[bool] = False

    def combine(self, terms: TermScores) -> np.ndarray:
        return self._signed(terms)[:, None] * terms.standard

    def slopes(self, terms: TermScores) -> np.ndarray:
        return np.abs(self._signed(terms)) / terms.std

    def _signed(self, terms: TermScores) -> np.ndarray:
        return np.where(terms.without, -terms.weights, terms.weights) / terms.weights.sum()


PRODUCTS = st.builds(
    CalibratedProduct,
    centred=st.booleans(),
    sharpness=st.floats(0.2, 3),
    threshold=st.floats(-2, 2),
    absence_sharpness=st.floats(0.2, 3),
    absence_threshold=st.floats(-2, 2),
    absence=st.floats(0.1, 2),
    picture=st.floats(0.1, 2),
)
WAYS = st.one_of(st.just(CalibratedProduct()), PRODUCTS, st.just(VectorSum()), st.just(MeanStandard()))

WORDS = ("beach", "sunset", "red snow", "man woman", "image:7", "image:25", '"dog + people"', "near:12")
ROLES = ("+", "-", "without", "instead")
Asked = list[tuple[str, float, str, str]]
"""Of each term its role, weight, content, and the content that it takes the place of."""
QUERIES = st.lists(
    st.tuples(st.sampled_from(ROLES), st.sampled_from([0.5, 1.0, 1.5, 3.0]), st.sampled_from(WORDS), st.sampled_from(WORDS)).filter(
        lambda term: term[2] != term[3]
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda term: term[2],
)


def _written(terms: Asked) -> str:
    return " ".join(
        f"without {weight}*{one}"
        if role == "without"
        else f"{role if role == '-' else '+'} {weight}*{one}" + (f" instead of {other}" if role == "instead" else "")
        for role, weight, one, other in terms
    )


@pytest.fixture(scope="module")
def store(store_of_forty) -> Store:
    return Store(store_of_forty)


def _hits(store: Store, query: str, fusion: Fusion, k: int = 10, where: dict | None = None) -> list[tuple[int, float]] | str:
    """(id, score) best first, or "nothing" where the terms cancel."""
    try:
        return [(hit.id, hit.score) for hit in answer(store, query, k, where=where, fusion=fusion).hits]
    except InputError as error:
        assert "cancels" in str(error)
        return "nothing"


@settings(max_examples=40)  # times two families
@given(terms=QUERIES, random=st.randoms(), way=WAYS)
def test_the_order_of_terms_does_not_change_a_bit(store, terms, random, way):
    assert _hits(store, _written(terms), way) == _hits(store, _written(random.sample(terms, len(terms))), way)


@settings(max_examples=25)
@given(terms=QUERIES, way=WAYS)
def test_a_plus_a_is_twice_a(store, terms, way):
    summed = [(role, weight, one, other) for role, weight, one, other in terms if role != "without"]  # twice excluded is not excluded more
    if summed:
        written = _written(summed)
        assert _hits(store, f"{written} + ({written})", way) == _hits(store, f"2*({written})", way)


@pytest.mark.parametrize("way", [CalibratedProduct(), VectorSum(), MeanStandard()], ids=lambda way: type(way).__name__)
def test_a_picture_alone_finds_itself_first(store, way):
    for id in store.ids.tolist():
        assert _hits(store, f"image:{id}", way, 1)[0][0] == id
    assert [id for id, _ in _hits(store, "image:25", way, 2)] == [25, 5]  # which have equal rows


@pytest.mark.parametrize("way", [CalibratedProduct(), VectorSum(), MeanStandard()], ids=lambda way: type(way).__name__)
def test_weights_as_large_as_the_grammar_allows_are_weights(store, way):
    large = "1000000*" * 44
    once, much = (_hits(store, query, way) for query in ("beach + snow - dog", f"{large}(beach + snow - dog)"))
    assert [id for id, _ in once] == [id for id, _ in much] and all(math.isfinite(score) for _, score in much)
    if not way.is_product:
        assert [score for _, score in once] == pytest.approx([score for _, score in much], abs=2e-6)


@settings(max_examples=25)
@given(terms=QUERIES, way=WAYS, at=st.integers(0, 5), role=st.sampled_from(["+", "-", "without"]))
def test_an_unknown_word_changes_nothing(store, terms, way, at, role):
    longer = [*terms[:at], (role, 3.0, "zxqv", ""), *terms[at:]]
    assert _hits(store, _written(longer), way) == _hits(store, _written(terms), way)


@settings(max_examples=40)
@given(terms=QUERIES, way=WAYS, k=st.integers(1, 45), even=st.booleans())
def test_k_hits_are_the_first_k_of_more_also_of_those_that_a_filter_lets_through(store, terms, way, k, even):
    where = {"set": "noto"} if even else None
    everything = _hits(store, _written(terms), way, 100, where)
    if everything == "nothing":
        return
    assert len(everything) == (20 if even else len(store))
    assert [score for _, score in everything] == sorted((score for _, score in everything), reverse=True)
    assert _hits(store, _written(terms), way, k, where) == everything[:k]
    if even:
        assert everything == [(id, score) for id, score in _hits(store, _written(terms), way, 100) if id % 2 == 0]


@settings(max_examples=40)
@given(terms=QUERIES, way=WAYS)
def test_scores_of_all_pictures_have_the_order_of_the_hits(store, terms, way):
    hits = _hits(store, _written(terms), way, 100)
    if hits == "nothing":
        return
    scores = dict(zip(store.ids.tolist(), ScoreAll(store, way)(_written(terms)).tolist(), strict=True))
    assert sorted(scores) == sorted(id for id, _ in hits)
    ordered = [scores[id] for id, _ in hits]
    assert ordered == sorted(ordered, reverse=True)
    shown = [float(np.exp(total)) for total in ordered] if way.is_product else ordered
    assert shown == [score for _, score in hits]


@settings(max_examples=40)
@given(terms=QUERIES, way=WAYS)
def test_what_terms_do_makes_the_score_and_a_swap_is_one_of_them(store, terms, way):
    try:
        found = answer(store, _written(terms), 5, fusion=way)
    except InputError:
        return
    together = math.prod if way.is_product else sum
    for hit in found.hits:
        assert tuple(hit.why) == found.steps[0].labels and len(set(found.steps[0].labels)) == len(terms)
        assert together(hit.why.values()) == pytest.approx(hit.score, abs=1e-5)


# -- a slow loop -----------------------------------------------------------------------------------------------------------------------


def _unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _slow(store: Store, terms: Asked, way: CalibratedProduct | VectorSum) -> dict[int, float]:
    """Id -> its score, its logarithm for a product, from the formula that the way states, one picture after another."""
    rows = {id: _unit(row) for id, row in zip(store.ids.tolist(), store.rows.astype(float).tolist(), strict=True)}
    words = frequent_words(store.column("text"), store.query_space)
    embedded = [_unit(row) for row in store.query_space.embed(words).astype(float).tolist()]
    middle = [sum(values) / len(embedded) for values in zip(*embedded, strict=True)]

    def vector(content: str) -> list[float]:
        kind, _, number = content.partition(":")
        if kind == "image":
            return rows[int(number)]
        if kind == "near":
            nearest = sorted(rows, key=lambda id: -_cosine(rows[id], rows[int(number)]))[:9]
            return _unit([sum(values) / 9 for values in zip(*(rows[id] for id in nearest), strict=True)])
        word = _unit(store.query_space.embed([content.strip('"')])[0].astype(float).tolist())
        if not way.centred:
            return word
        return _unit([a - b for a, b in zip(word, middle, strict=True)])

    parts = []
    for role, weight, one, other in terms:
        parts.append((one, weight, role in ("-", "without")))
        if role == "instead":
            parts.append((other, weight, True))
    if isinstance(way, VectorSum):
        signed = [[(-weight if is_without else weight) * x for x in vector(content)] for content, weight, is_without in parts]
        direction = _unit([sum(values) for values in zip(*signed, strict=True)])
        return {id: _cosine(row, direction) for id, row in rows.items()}
    totals = dict.fromkeys(rows, 0.0)
    for content, weight, is_without in parts:
        cosines = {id: _cosine(row, vector(content)) for id, row in rows.items()}
        mean = sum(cosines.values()) / len(cosines)
        std = max(math.sqrt(sum((cosine - mean) ** 2 for cosine in cosines.values()) / len(cosines)), 1e-3)
        for id, cosine in cosines.items():
            z, z_self = (cosine - mean) / std, (1 - mean) / std
            if is_without:
                factor = (1 + math.exp(way.absence_sharpness * (z - way.absence_threshold))) ** -way.absence
            elif content.startswith(("image:", "near:")):
                factor = math.exp(-way.picture * (z_self - z))
            else:
                factor = 1 / (1 + math.exp(-way.sharpness * (z - way.threshold)))
            totals[id] += weight * math.log(factor)
    return totals


@settings(max_examples=30)
@given(terms=QUERIES, way=st.one_of(PRODUCTS, st.just(VectorSum())), k=st.integers(1, 12))
def test_scores_equal_a_slow_loop_over_pictures(store, terms, way, k):
    try:
        hits = answer(store, _written(terms), k, fusion=way).hits
    except NothingToFind:  # of a sum
        return
    totals = _slow(store, terms, way)
    assert [math.log(hit.score) if way.is_product else hit.score for hit in hits] == pytest.approx(
        [totals[hit.id] for hit in hits], abs=2e-4
    )  # near: is a float32 mean
    worst, found = min(totals[hit.id] for hit in hits), {hit.id for hit in hits}  # of the k best, in any order of equal ones
    assert len(found) == k and all(total <= worst + 4e-4 for id, total in totals.items() if id not in found)


# -- how a store is cut, and what else is in it --------------------------------------------------------------------------------------------


def _made(path: Path, space: Path, parts: list[list[int]], calibrated: bool = True) -> Store:
    """A store of pictures that depend on their ids alone, in the given segments."""
    create_store(path, space, family="wordvec", export="e" * 64)
    with StoreWriter(path) as writer:
        for ids in parts:
            rows = np.stack([np.random.default_rng([7, id]).standard_normal(8) for id in ids])
            texts = [("a beach", "snow on a dog", "a sunset")[id % 3] for id in ids]
            writer.append(Segment(np.array(ids), rows, {"name": [f"{id}.png" for id in ids], "text": texts}))
        if calibrated:
            writer.calibrate()
    return Store(path)


ASKED = (
    "beach",
    "beach + snow",
    "2*beach - dog + image:3",
    "near:5 + snow without image:8",
    "image:4 + snow instead of beach",
    "between beach and snow + near:9 in 4",
)


@pytest.mark.parametrize("way", [CalibratedProduct(), VectorSum(), MeanStandard()], ids=lambda way: type(way).__name__)
def test_hits_do_not_depend_on_how_a_store_is_cut_into_segments_or_on_the_order_of_its_ids(tmp_path, space_boxes, way):
    space = space_boxes["wordvec"]
    ids = list(range(60))
    shuffled = np.random.default_rng(1).permutation(60).tolist()
    whole, cut, turned = (
        _made(tmp_path / name, space, parts)
        for name, parts in (("whole", [ids]), ("cut", [ids[:7], ids[7:8], ids[8:]]), ("turned", [shuffled[:33], shuffled[33:]]))
    )
    for query in ASKED:
        assert _hits(whole, query, way) == _hits(cut, query, way) == _hits(turned, query, way)


@pytest.mark.parametrize("way", [CalibratedProduct(), VectorSum(), MeanStandard()], ids=lambda way: type(way).__name__)
def test_a_picture_that_is_added_changes_no_score_of_another_while_the_constants_are_kept(tmp_path, space_boxes, way):
    store = _made(tmp_path / "store", space_boxes["wordvec"], [list(range(50))])
    before = {query: _hits(store, query, way, 100) for query in ASKED[:3] + ASKED[4:5]}  # what is near 5 changes with what is there
    with StoreWriter(tmp_path / "store") as writer:
        rows = np.random.default_rng(3).standard_normal((5, 8))
        writer.append(Segment(np.arange(90, 95), rows, {"name": ["new"] * 5, "text": ["snow"] * 5}))
    for query, hits in before.items():
        assert [hit for hit in _hits(Store(tmp_path / "store"), query, way, 100) if hit[0] < 90] == hits


# -- topics, joined stores, series -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair_of_stores(tmp_path, space_boxes) -> tuple[Store, Store]:
    """Two stores of the same thirty pictures, of words and of topics, with other rows."""
    words = _made(tmp_path / "words", space_boxes["wordvec"], [list(range(30))])
    create_store(tmp_path / "topics", space_boxes["topic"], family="topic", export="f" * 64)
    with StoreWriter(tmp_path / "topics") as writer:
        rows = np.random.default_rng(5).dirichlet(np.full(8, 0.3), size=30)
        writer.append(Segment(np.arange(30)[::-1].copy(), rows, {"name": ["t"] * 30, "text": ["snow"] * 30}))
        writer.calibrate()
    return words, Store(tmp_path / "topics")


def test_a_topic_finds_the_pictures_that_have_most_of_it(pair_of_stores):
    words, topics = pair_of_stores
    rows = {id: row / np.linalg.norm(row) for id, row in zip(topics.ids.tolist(), topics.rows.astype(float), strict=True)}
    best = sorted(rows, key=lambda id: -rows[id][3])[:5]
    assert [hit.id for hit in answer(topics, "topic:3", 5).hits] == best
    assert [hit.id for hit in answer(words, "topic:3", 5, joined={"mine": topics}).hits] == best
    with pytest.raises(InputError, match="topic:8: the store has the topics 0 to 7"):
        answer(topics, "topic:8")
    with pytest.raises(InputError, match=r"topic:3: the store is of the family wordvec, which has no topics.*--join STORE"):
        answer(words, "topic:3")
    with pytest.raises(InputError, match="export:mine:topic:3: the store mine is of the family wordvec|mine is of the family wordvec"):
        answer(topics, "export:mine:topic:3", joined={"mine": words})


@settings(max_examples=15)
@given(way=WAYS, k=st.integers(1, 30))
def test_a_joined_store_scores_its_terms_as_it_would_by_itself(tmp_path_factory, space_boxes, way, k):
    folder = tmp_path_factory.mktemp("joined")
    words = _made(folder / "words", space_boxes["wordvec"], [list(range(30))])
    other = _made(folder / "other", space_boxes["topic"], [list(range(29, -1, -1))])
    alone = ScoreAll(other, way)("dog")
    hits = answer(words, "export:o:dog", 30, joined={"o": other}, fusion=way).hits
    by_itself = dict(zip(other.ids.tolist(), alone.tolist(), strict=True))
    shown = {hit.id: math.log(hit.score) if way.is_product else hit.score for hit in hits}
    assert shown == pytest.approx(by_itself, abs=1e-6)
    both = answer(words, "beach + 2*export:o:dog without snow", 30, joined={"o": other}, fusion=way).hits
    assert answer(words, "beach + 2*export:o:dog without snow", k, joined={"o": other}, fusion=way).hits == both[:k]
    assert set(both[0].why) == {"beach", "export:o:dog", "without snow"}
    if way.is_product:  # factors are those of each store alone
        of_words = dict(zip(words.ids.tolist(), ScoreAll(words, way)("beach").tolist(), strict=True))
        for hit in both:
            assert math.log(hit.why["beach"]) == pytest.approx(of_words[hit.id], abs=1e-5)
            assert math.log(hit.why["export:o:dog"]) == pytest.approx(2 * by_itself[hit.id], abs=1e-5)


def test_a_joined_store_must_have_the_pictures_that_are_searched(tmp_path, space_boxes):
    space = space_boxes["wordvec"]
    words = _made(tmp_path / "words", space, [list(range(30))])
    fewer = _made(tmp_path / "fewer", space, [list(range(28))])
    create_store(tmp_path / "none", space, family="wordvec", export="e" * 64)
    for query in ("export:o:dog", "beach + export:o:dog"):
        with pytest.raises(InputError, match="the joined store o has no picture 28, 29. Join a store of the same pictures"):
            answer(words, query, joined={"o": fewer})
        with pytest.raises(InputError, match="the joined store o has no picture 0, 1"):
            answer(words, query, joined={"o": Store(tmp_path / "none")})
        where = {"name": [f"{id}.png" for id in range(20)]}  # those that are not searched need not be there
        assert len(answer(words, query, 30, where=where, joined={"o": fewer}).hits) == 20


@pytest.mark.parametrize("way", [CalibratedProduct(), VectorSum(), MeanStandard()], ids=lambda way: type(way).__name__)
def test_a_series_goes_from_the_best_of_one_to_one_of_the_other_without_repeating_a_picture(store, way):
    found = answer(store, "between beach and snow in 7", fusion=way)
    ids = [hit.id for hit in found.hits]
    assert len(ids) == len(set(ids)) == len(found.steps) == 7
    first, last = ([hit.id for hit in answer(store, word, 40, fusion=way).hits] for word in ("beach", "snow"))
    assert ids[0] == first[0]
    assert ids[-1] == next(id for id in last if id not in ids[:-1])
    assert set(found.hits[3].why) == {"beach", "snow"} and set(found.hits[0].why) == {"beach"}


def test_a_series_with_more_steps_than_pictures_has_every_picture_once(tmp_path, space_boxes):
    store = _made(tmp_path / "store", space_boxes["wordvec"], [[3, 4, 5]])
    assert sorted(hit.id for hit in answer(store, "between beach and snow in 9").hits) == [3, 4, 5]


# -- an approximate engine --------------------------------------------------------------------------------------------------------------


class Nearest:
    """An engine that finds neighbours, and cannot score all rows."""

    def __init__(self, engine: FlatEngine) -> None:
        self.engine = engine

    def __len__(self) -> int:
        return len(self.engine)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        return self.engine.search(queries, k)

    def filter(self, ids: np.ndarray) -> Self:
        return type(self)(self.engine.filter(ids))


@pytest.fixture(scope="module")
def large(tmp_path_factory, space_boxes) -> Store:
    """Nine hundred pictures, and an engine that finds neighbours only."""
    store = _made(tmp_path_factory.mktemp("large") / "store", space_boxes["wordvec"], [list(range(900))])
    store.__dict__["engine"] = Nearest(store.engine)
    assert not isinstance(store.engine, ScoresAll)
    return store


@pytest.mark.parametrize("way", [CalibratedProduct(), VectorSum(), MeanStandard()], ids=lambda way: type(way).__name__)
@pytest.mark.parametrize("k", [3, 12])
def test_an_approximate_engine_s_neighbours_are_candidates_and_the_answer_says_so(large, way, k):
    query = "2*beach + snow without dog"
    found = answer(large, query, k, fusion=way)
    depth = max(200, 20 * k)
    embed = large.calibration.embed if way.centred else lambda word, space: _array_unit(space.embed([word])[0])
    beach, snow, dog = (embed(word, large.query_space) for word in ("beach", "snow", "dog"))
    rows = _array_unit(large.rows)
    candidates = set(brute_force(large.ids, rows, np.stack([2 * beach + snow - dog, beach, snow]), depth).ids.ravel().tolist())
    assert (
        found.candidates == f"the {depth} nearest pictures of each wanted term and of the sum of all, {len(candidates)} in all"
        and depth < len(candidates) < 900
    )
    scores = dict(zip(large.ids.tolist(), ScoreAll(large, way)(query).tolist(), strict=True))
    assert [hit.id for hit in found.hits] == sorted(candidates, key=lambda id: (-scores[id], id))[:k]


def test_an_approximate_engine_answers_one_term_by_its_neighbours_and_refuses_what_only_others_score(large, tmp_path, space_boxes):
    heavy = "1000000*" * 44
    wanted = [hit.id for hit in answer(large, "beach + snow", 5).hits]
    assert [hit.id for hit in answer(large, f"{heavy}(beach + snow)", 5).hits] == wanted
    assert answer(large, "beach", 5).candidates == "the nearest of all 900 pictures"
    few = large.ids[:250].tolist()
    found = answer(large, "beach + image:3", 4, where={"name": [f"{id}.png" for id in few]})
    assert {hit.id for hit in found.hits} <= set(few)
    exact = _made(tmp_path / "other", space_boxes["wordvec"], [list(range(900))])
    with pytest.raises(InputError, match="no term is scored by this store itself. Add a word"):
        answer(large, "export:o:dog", joined={"o": exact})
    assert len(answer(large, "beach + export:o:dog", 4, joined={"o": exact}).hits) == 4
    assert len(answer(exact, "beach + export:o:dog", 4, joined={"o": large}).hits) == 4


def _array_unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# -- constants -----------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(way=WAYS, num=st.integers(1, 5), seed=st.integers(0, 1000), data=st.data())
def test_slopes_bound_what_a_small_change_does(way, num, seed, data):
    random = np.random.default_rng(seed)
    units = _array_unit(random.standard_normal((num, 12)))
    without, pictures = random.random((2, num)) < 0.4
    terms = TermScores(
        random.uniform(-1, 1, (num, 20)),
        random.uniform(0.1, 3, num),
        without,
        pictures,
        random.normal(0, 0.1, num),
        random.uniform(0.01, 0.5, num),
        units @ units.T,
    )
    size, at = data.draw(st.sampled_from([1e-6, 1e-3, 0.1])), data.draw(st.integers(0, num - 1))
    moved = terms.cosines.copy()
    moved[at] += size
    change = way.combine(replace(terms, cosines=moved)).sum(axis=0) - way.combine(terms).sum(axis=0)
    assert (np.abs(change) <= way.slopes(terms)[at] * size * (1 + 1e-9) + 1e-9).all()
    alone = way.combine(replace(terms, cosines=terms.cosines[:, 7:8]))
    np.testing.assert_array_equal(alone, way.combine(terms)[:, 7:8])  # a column depends on no other, to the bit


@pytest.mark.parametrize("constants", [{"sharpness": 0.0}, {"absence": -1.0}, {"threshold": math.nan}, {"picture": math.inf}])
def test_constants_that_make_no_sense_are_refused_by_name(constants):
    [(name, value)] = constants.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}: expected a (positive|finite) number"):
        CalibratedProduct(**constants)


def test_the_way_is_chosen_by_the_query_else_by_the_store(store_of_forty, tmp_path):
    path = Path(shutil.copytree(store_of_forty, tmp_path / "store"))
    product, added = (answer(Store(path), "beach - snow", fusion=way) for way in ("product", "sum"))
    assert product.is_product and not added.is_product and [hit.score for hit in product.hits] != [hit.score for hit in added.hits]
    assert answer(Store(path), "beach - snow").hits == product.hits
    with StoreWriter(path) as writer:
        writer.calibrate(fusion=VectorSum())
    assert answer(Store(path), "beach - snow").hits == added.hits
    assert answer(Store(path), "beach - snow", fusion="product").hits == product.hits
    with pytest.raises(InputError, match="its class nobody.Way cannot be imported"):
        answer(Store(path), "beach", fusion="nobody.Way")
    with pytest.raises(InputError, match=r"fusion 'softmax': expected product, sum, or the path of a class"):
        answer(Store(path), "beach", fusion="softmax")


@pytest.mark.parametrize("k", [2.5, "3", None])
def test_a_number_of_hits_that_is_not_whole_is_an_error(store, k):
    with pytest.raises(InputError, match="it must be a whole number"):
        answer(store, "beach + snow", k=k)


def test_a_joined_store_without_a_name_does_not_take_the_place_of_the_searched_one(store):
    with pytest.raises(InputError, match="a joined store needs a name"):
        answer(store, "beach", joined={"": store})


@pytest.mark.parametrize("vector", [np.array(["a"] * 8), np.array([None] * 8), np.full(8, 1j)])
def test_a_vector_that_holds_no_numbers_is_an_error(store, vector):
    with pytest.raises(InputError, match="expected a vector of 8 numbers"):
        store.search(vector)
