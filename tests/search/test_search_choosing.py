"""Order, cut-off, folding, and the forms in which hits are printed for other programs."""

from __future__ import annotations

import io
import json
import shutil
from datetime import datetime
from itertools import product

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.search.calibration import EVERYDAY
from multimodal.search.choosing import NEARLY_EQUAL
from multimodal.search.cutoff import MAX_TERMS, QUANTILES, Reach, reach_of
from multimodal.search.door import search_verb
from multimodal.search.engine import Neighbours
from multimodal.search.query import answer
from multimodal.search.segments import Segment, unit_rows
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.verify import problems_of

DIM = 8
NUM = 60


def _units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory, space_boxes):
    """Sixty pictures of a folder, in two segments; 1 and 41 are copies of 0, and 50 is one of 20. The store keeps its calibration."""
    path = tmp_path_factory.mktemp("choosing") / "store"
    rows = _units(np.random.default_rng(3).standard_normal((NUM, DIM)))
    for copy, of in ((1, 0), (41, 0), (50, 20)):
        rows[copy] = rows[of] + 0.02 * rows[(copy + 7) % NUM]
    folders = {"pictures": {"folders": ["/photos", "/other"], "export": "e" * 64}}
    create_store(path, space_boxes["wordvec"], family="wordvec", export="e" * 64, settings=folders)
    with StoreWriter(path) as writer:
        for ids in (range(40), range(40, NUM)):
            metadata = {
                "name": [f"{id * 37 % NUM}.jpg" for id in ids],
                "text": ["" for _ in ids],
                "date": [None if id % 5 == 0 else datetime(2020 + id % 3, 1, 1) for id in ids],
                "size": [str(id * 7 % 11) for id in ids],
                "folder": ["/photos" if id % 2 else "/other" for id in ids],
                "path": [f"trip {id}/{id}.jpg" for id in ids],
            }
            writer.append(Segment(np.array(ids), rows[list(ids)], metadata))
        writer.calibrate()
    return path


@pytest.fixture(scope="module")
def store(path):
    return Store(path)


# -- order ---------------------------------------------------------------------------------------------------------------------------------


def test_an_order_is_of_the_hits_that_are_chosen_by_score(store):
    by_score = answer(store, "beach + snow", 12).hits
    assert [hit.rank for hit in by_score] == list(range(1, 13))
    for name in ("name", "date", "size"):
        key = {record["id"]: record[name] for record in _records(store, name)}
        if name == "size":  # text that reads as numbers is ordered as numbers
            key = {id: int(value) for id, value in key.items()}
        for sign in ("", "-"):
            shown = answer(store, "beach + snow", 12, order=sign + name).hits
            assert sorted(shown, key=lambda hit: hit.rank) == by_score
            values = [key[hit.id] for hit in shown]
            present = [value for value in values if value is not None]
            assert present == sorted(present, reverse=bool(sign)) and values[len(present) :] == [None] * (12 - len(present))
            for one, other in zip(shown, shown[1:], strict=False):
                assert key[one.id] != key[other.id] or one.rank < other.rank


def _records(store, name):
    return [{"id": id} | record for id, record in zip(store.ids.tolist(), store.records(store.ids, [name]), strict=True)]


def test_an_order_by_what_the_store_does_not_have_is_refused(store, empty_store):
    with pytest.raises(InputError, match="order: there is no column dat. Did you mean date"):
        answer(store, "beach", order="-dat")
    assert answer(Store(empty_store), "beach", order="date").hits == []


def test_a_series_has_an_order_of_its_own(store):
    for given in ({"order": "name"}, {"cut_off": 0.5}, {"fold": True}):
        with pytest.raises(InputError, match="a series has one hit for each step"):
            answer(store, "between beach and snow in 3", **given)
    assert [hit.rank for hit in answer(store, "between beach and snow in 3").hits] == [1, 2, 3]


# -- cut-off -------------------------------------------------------------------------------------------------------------------------------

WORDS = ("beach", "sunset", "woman", "man", "scientist", "dog", "snow", "people")


def _levels(store, *words):
    vectors = np.stack([store.calibration.embed(word, store.query_space) for word in words])
    return (unit_rows(store.take(store.ids), store.ids).astype(np.float64) @ vectors.T).min(axis=1)


def test_a_store_keeps_what_random_queries_of_its_words_reach(store):
    """For one word each is a query; for two, the kept distribution is that of random pairs, here near that of all pairs."""
    words = [word for word in WORDS if word in EVERYDAY]  # what a store without texts is measured by, as far as its space knows them
    best = np.sort([_levels(store, word).max() for word in words])
    np.testing.assert_allclose(store.reach.levels[0], np.quantile(best, np.linspace(0, 1, QUANTILES + 1)), atol=1e-4)
    pairs = np.sort([_levels(store, *pair).max() for pair in product(words, words)])
    off = store.reach.levels[1] - np.quantile(pairs, np.linspace(0, 1, QUANTILES + 1))
    assert np.abs(off).mean() < 0.03
    assert (np.diff(store.reach.levels, axis=0)[:, 50] < 0).all()  # the more terms, the lower the least of them


@pytest.mark.parametrize("query", ["beach", "beach + snow", "2*dog + woman - man", "people + sunset without snow + image:3"])
@pytest.mark.parametrize("where", [None, "date is missing"])
def test_above_a_cut_off_are_the_pictures_whose_level_is(store, query, where):
    wanted = [word for word in WORDS if word in query and word not in ("man", "snow")] + (["snow"] if query == "beach + snow" else [])
    levels = dict(zip(store.ids.tolist(), _levels(store, *wanted), strict=True))
    everything = answer(store, query, NUM, where=where).hits
    shown = NUM
    for cut_off in (1.0, 0.9, 0.5, 0.1, 0.01):
        bar = store.reach.bar(len(wanted), cut_off)
        above = [hit for hit in everything if levels[hit.id] > bar]
        assert answer(store, query, NUM, where=where, cut_off=cut_off).hits == above
        assert answer(store, query, 2, where=where, cut_off=cut_off).hits == above[:2]
        assert len(above) <= shown
        shown = len(above)
    assert len(answer(store, query, NUM, where=where, cut_off=1.0).hits) == len(everything)


class NeighboursOnly:
    """The exact engine of a store, by its nearest neighbours alone."""

    def __init__(self, engine) -> None:
        self._engine = engine

    def __len__(self) -> int:
        return len(self._engine)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        return self._engine.search(queries, k)

    def filter(self, ids: np.ndarray):
        return NeighboursOnly(self._engine.filter(ids))


def test_an_engine_that_does_not_score_everything_finds_the_same_above_a_cut_off(path):
    exact, other = Store(path), Store(path)
    other.__dict__["engine"] = NeighboursOnly(exact.engine)
    for cut_off, query in product((0.9, 0.5, 0.2), ("beach", "beach + snow", "dog without man")):
        one, two = (answer(store, query, NUM, cut_off=cut_off).hits for store in (exact, other))
        assert {hit.id for hit in one} == {hit.id for hit in two}


def test_nothing_above_a_cut_off_is_said_with_the_share_of_the_best(store, capsys):
    found = answer(store, "beach + scientist + man + dog", cut_off=0.01)
    assert found.hits == [] and found.remark in found.notes
    assert found.remark.startswith("nothing is above the cut-off of 0.01: the best picture is as good as what ")
    search_verb("beach + scientist + man + dog", store.path, cut_off=0.01)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == found.remark + "\n"


def test_a_cut_off_that_judges_nothing_or_is_no_share_is_refused(store, empty_store):
    for query in ("image:3", "without beach", "near:3 - dog"):
        with pytest.raises(InputError, match="a cut-off judges the words that a query wants, and this one has none"):
            answer(store, query, cut_off=0.5)
    for cut_off in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="a share of the random queries, above 0 and at most 1"):
            answer(store, "beach", cut_off=cut_off)
    assert answer(Store(empty_store), "beach", cut_off=0.5).hits == []


def test_what_is_kept_is_what_is_computed_and_a_changed_one_is_found(path, tmp_path, space_boxes):
    store = Store(path)
    fresh = store.reached(store.calibrated())
    assert fresh.as_json() == store.fitted["reach"] == Reach.from_json(store.fitted["reach"]).as_json()
    create_store(tmp_path / "older", space_boxes["wordvec"], family="wordvec", export="e" * 64)
    with StoreWriter(tmp_path / "older") as writer:  # as a release before this left it: it keeps nothing
        writer.append(Segment(store.ids, store.rows, {"name": [""] * NUM, "text": [""] * NUM}))
    assert Store(tmp_path / "older").reach.as_json() == fresh.as_json()
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    [facts] = [facts for name, facts in manifest["parts"].items() if name.startswith("fusion/")]
    facts["reach"][0][50] += 0.001
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="not the calibration that was written"):
        answer(Store(copy), "beach", cut_off=0.5)
    assert list(problems_of(copy))


def test_a_share_is_the_inverse_of_a_bar_and_needs_pictures_and_words():
    random = np.random.default_rng(0)
    rows, words = (_units(random.standard_normal((num, DIM))) for num in (50, 200))
    reach = reach_of([rows[:20], rows[20:]], words)
    for num, share in product((1, 2, MAX_TERMS, MAX_TERMS + 3), (0.9, 0.5, 0.1)):
        assert reach.share(num, reach.bar(num, share)) == pytest.approx(share, abs=1e-9)
    assert reach.bar(2, 1.0) == -np.inf and reach.share(1, 1.1) == 0 and reach.share(1, -1.1) == 1
    found = (words @ rows.T).max(axis=1)
    assert (found > reach.bar(1, 0.25)).mean() == pytest.approx(0.25, abs=0.01)
    assert reach_of([], np.eye(3)) is None and reach_of([np.eye(3)], np.empty((0, 3))) is None
    for odd in ([[1.0]], [[0.0] * QUANTILES + [float("nan")]] * MAX_TERMS, [[1.0] + [0.0] * QUANTILES] * MAX_TERMS):
        with pytest.raises(ValueError, match="ascending"):
            Reach.from_json(odd)


# -- folding -------------------------------------------------------------------------------------------------------------------------------


def _folded_slowly(store, everything, k):
    """One picture after the other: into the best one shown that it nearly equals, else shown."""
    rows = dict(zip(store.ids.tolist(), unit_rows(store.take(store.ids), store.ids).astype(np.float64), strict=True))
    shown: list[tuple[int, list[int]]] = []
    for hit in everything:
        near = [like for id, like in shown if rows[id] @ rows[hit.id] >= NEARLY_EQUAL["wordvec"]]
        if near:
            near[0].append(hit.id)
        else:
            shown.append((hit.id, []))
    return [(id, sorted(like)) for id, like in shown[:k]]


@pytest.mark.parametrize("where", [None, "size in (0, 1, 7)", "name != 37.jpg"])
@pytest.mark.parametrize("query", ["image:0", "image:20 + beach", "beach", "snow + dog"])
def test_a_picture_is_folded_into_the_best_one_that_it_nearly_equals_and_k_are_shown(store, query, where):
    everything = answer(store, query, NUM, where=where).hits
    for k in (1, 3, 10, NUM):
        hits = answer(store, query, k, where=where, fold=True).hits
        assert [(hit.id, sorted(hit.like)) for hit in hits] == _folded_slowly(store, everything, k)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1)) and len(hits) == min(k, len(hits))


def test_copies_are_folded(store, capsys):
    [first, *_] = answer(store, "image:0", 5, fold=True).hits
    assert first.id == 0 and sorted(first.like) == [1, 41] and len(answer(store, "image:0", NUM, fold=True).hits) == NUM - 3
    search_verb("image:0", store.path, k=1, fold=True)
    assert capsys.readouterr().out.endswith("+2 like it\n")


# -- printed for other programs ------------------------------------------------------------------------------------------------------------


def test_paths_are_printed_alone_one_a_line_or_ended_by_nul(store, capsys):
    hits = answer(store, "beach", 4).hits
    paths = [f"/{'photos' if hit.id % 2 else 'other'}/trip {hit.id}/{hit.id}.jpg" for hit in hits]
    assert [hit.path for hit in hits] == paths
    search_verb("beach", store.path, k=4, paths=True)
    assert capsys.readouterr().out == "".join(f"{path}\n" for path in paths)
    search_verb("beach", store.path, k=4, paths=True, null=True)
    assert capsys.readouterr().out == "".join(f"{path}\0" for path in paths)


def test_json_lines_are_the_hits_of_json(store, capsys):
    search_verb("image:0 + beach", store.path, k=3, fold=True, json=True)
    whole = json.loads(capsys.readouterr().out)
    search_verb("image:0 + beach", store.path, k=3, fold=True, jsonl=True)
    assert [json.loads(line) for line in io.StringIO(capsys.readouterr().out)] == whole["hits"]
    assert set(whole["hits"][0]) == {"rank", "id", "score", "name", "text", "why", "like", "path"}


def test_a_store_of_shards_has_no_paths_and_one_form_is_printed(store_of_forty, path):
    with pytest.raises(InputError, match="came from shards, and are no files of their own"):
        search_verb("beach", store_of_forty, paths=True)
    for given in ({"json": True, "paths": True}, {"jsonl": True, "json": True}, {"null": True}):
        with pytest.raises(InputError, match="give one of --json, --jsonl and --paths; --null is for --paths"):
            search_verb("beach", path, **given)
