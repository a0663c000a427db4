"""A store keeps the index of its engine: it is made once, grows, and never hides a picture or shows one that is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.search.engine import EngineRecipe
from multimodal.search.kept import index_part, is_needed
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.verify import problems_of
from tests.search import random_changes

TRUST = ["tests"]
EXACT = EngineRecipe("tests.search.kept_engines.KeptFlat")
CODES = EngineRecipe("tests.search.kept_engines.Codes")
REMOVING = EngineRecipe("tests.search.kept_engines.Retaining")
LISTS = EngineRecipe("multimodal.search.ivf.IvfEngine", {"min_rows": 100})
UNKEPT = EngineRecipe("multimodal.search.flat.FlatEngine")
QUERIES = np.random.default_rng(5).standard_normal((6, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def space_box(space_boxes) -> Path:
    return space_boxes["wordvec"]


@pytest.fixture
def store(tmp_path, space_box, segment) -> Path:
    """Thirty pictures in two segments, with the index of an exact engine."""
    path = tmp_path / "store"
    create_store(path, space_box, family="wordvec", export="e" * 64, trust=TRUST, engine=EXACT)
    with StoreWriter(path, TRUST) as writer:
        writer.append(segment(range(0, 20)))
        writer.append(segment(range(20, 30)))
        writer.build_index()
    return path


def hits(path: Path, k: int = 7, ids: list[int] | None = None) -> list[list[int]]:
    engine = Store(path, trust=TRUST).engine
    engine = engine if ids is None else engine.filter(np.array(ids))
    return engine.search(QUERIES, k).ids.tolist()


def exact_hits(path: Path, k: int = 7, ids: list[int] | None = None) -> list[list[int]]:
    """What a store that has these rows, and names no engine, finds."""
    from multimodal.search.kept import exact_engine

    store = Store(path, trust=TRUST)
    engine = exact_engine(store.dim, store.live_positions)
    engine = engine if ids is None else engine.filter(np.array(ids))
    return engine.search(QUERIES, k).ids.tolist()


def covered(path: Path) -> set[str]:
    _, facts = index_part(Store(path).manifest.parts)
    return set(facts["segments"])


def test_what_was_added_since_is_found_and_what_was_deleted_is_not(store, segment):
    with StoreWriter(store, TRUST) as writer:
        writer.append(segment(range(40, 60), seed=3))
        writer.delete([*range(0, 12), 45])
        assert covered(store) == {"segments/000000", "segments/000001"}
    for ids in (None, [13, 14, 41, 42, 45, 3, 999], []):
        for k in (1, 7, 100):
            assert hits(store, k, ids) == exact_hits(store, k, ids)


def test_an_id_that_comes_back_is_found_by_its_new_row(store, segment):
    with StoreWriter(store, TRUST) as writer:
        writer.delete(range(0, 25))
        writer.append(segment(range(0, 25), seed=9))
    assert hits(store, 30) == exact_hits(store, 30)
    with StoreWriter(store, TRUST) as writer:
        writer.build_index()
    assert hits(store, 30) == exact_hits(store, 30)


def test_an_index_grows_by_what_it_does_not_cover_and_is_made_anew_when_much_of_it_is_gone(store, segment):
    with StoreWriter(store, TRUST) as writer:
        writer.append(segment(range(40, 50)))
        before = writer.store.manifest.counts["generation"]
        writer.build_index()
        writer.build_index()
        assert writer.store.manifest.counts["generation"] == before + 1, "a second time there is nothing to do"
    _, facts = index_part(Store(store).manifest.parts)
    assert (facts["rows"], facts["made_with"]) == (40, 30) and len(facts["segments"]) == 3
    with StoreWriter(store, TRUST) as writer:
        writer.delete(range(0, 9))
        assert not is_needed(writer.store)
        writer.delete(range(9, 12))
        assert is_needed(writer.store)
        writer.build_index()
    _, facts = index_part(Store(store).manifest.parts)
    assert (facts["rows"], facts["made_with"]) == (28, 28)
    with StoreWriter(store, TRUST) as writer:
        writer.append(segment(range(100, 140)))
        writer.build_index()
    _, facts = index_part(Store(store).manifest.parts)
    assert (facts["rows"], facts["made_with"]) == (68, 68), "twice the rows that it was made with"
    assert hits(store) == exact_hits(store)


@pytest.mark.parametrize("engine", [EXACT, REMOVING, CODES], ids=["exact", "removing", "codes"])
def test_a_compacted_store_has_its_index_in_the_same_generation(store, segment, engine):
    with StoreWriter(store, TRUST) as writer:
        writer.build_index(engine)
        writer.delete(range(0, 8))
        writer.append(segment(range(40, 60), seed=3))
        before = writer.store.manifest.counts["generation"]
        writer.compact()
        assert writer.store.manifest.counts["generation"] == before + 1
        assert covered(store) == {"segments/000003"}
    assert {id for line in hits(store, 42) for id in line} == set(Store(store).ids.tolist())
    if engine != CODES:
        assert hits(store) == exact_hits(store)
    with StoreWriter(store, TRUST) as writer:
        writer.delete(Store(store).ids)
        writer.compact()
    assert hits(store) == [[]] * len(QUERIES)


def test_a_reader_of_an_older_generation_finds_its_own_pictures_only(store, segment):
    for engine in (EXACT, REMOVING):
        with StoreWriter(store, TRUST) as writer:
            writer.build_index(engine)
            reader = Store(store, trust=TRUST)
            there = set(reader.ids.tolist())
            first = reader.engine.search(QUERIES, 100).ids.tolist()
            start = max(there) + 1
            writer.append(segment(range(start, start + 20), seed=3))
            writer.build_index()
        assert reader.engine.search(QUERIES, 100).ids.tolist() == first
        assert {id for line in first for id in line} == there


def test_scores_of_codes_are_inner_products_of_the_rows_and_candidates_are_several_times_k(store):
    with StoreWriter(store, TRUST) as writer:
        writer.build_index(CODES)
    opened = Store(store, trust=TRUST)
    found = opened.engine.search(QUERIES, 2)
    rows = np.stack([opened.take(line) for line in found.ids]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    np.testing.assert_allclose(found.scores, (rows * QUERIES[:, None]).sum(axis=2), atol=1e-5)
    assert found.ids.tolist() == exact_hits(store, 2)


def test_the_engine_of_a_store_is_changed_without_its_pictures(store):
    before = Store(store).ids.tolist()
    with StoreWriter(store, TRUST) as writer:
        writer.build_index(UNKEPT)
        assert writer.store.manifest.config["engine"] == UNKEPT.as_json() and index_part(writer.store.manifest.parts) is None
    assert hits(store) == exact_hits(store)
    with StoreWriter(store, TRUST) as writer:
        writer.build_index(EXACT)
        assert writer.store.manifest.config["engine"] == EXACT.as_json()
    assert hits(store) == exact_hits(store) and Store(store).ids.tolist() == before


def test_what_is_missing_or_stale_is_refused_with_the_command_that_mends_it(tmp_path, store, space_box, segment):
    path = tmp_path / "my store"
    create_store(path, space_box, family="wordvec", export="e" * 64, trust=TRUST, engine=EXACT)
    assert hits(path) == [[]] * len(QUERIES), "an empty store needs no index"
    with StoreWriter(path, TRUST) as writer:
        writer.append(segment(range(3)))
    command = f"multimodal store build-index '{path}' --trust tests"
    with pytest.raises(InputError, match="not made yet. Run: " + command):
        _ = Store(path, trust=TRUST).engine
    with StoreWriter(path, TRUST) as writer:
        writer.build_index()
    with pytest.raises(InputError, match="add: --trust tests"):
        _ = Store(path).engine
    manifest = path / "manifest.json"
    whole = manifest.read_text()
    name, _ = index_part(Store(path).manifest.parts)
    manifest.write_text(whole.replace('"segments/000000": "', '"segments/000000": "0'))
    with pytest.raises(InputError, match="made of segments/000000, which is no longer in the store. Make it again: " + command):
        _ = Store(path, trust=TRUST).engine
    manifest.write_text(whole)
    (path / name / "rows.npy").write_bytes(b"damaged")
    with pytest.raises(InputError, match="index/.* damaged"):
        _ = Store(path, trust=TRUST).engine
    assert [problem.where for problem in problems_of(path)] == [name]
    with StoreWriter(path, TRUST) as writer:
        writer.build_index(anew=True)
    assert hits(path) == exact_hits(path) and not list(problems_of(path))


def test_what_a_killed_writer_left_of_an_index_is_replaced(store, segment):
    with StoreWriter(store, TRUST) as writer:
        writer.append(segment(range(40, 45)))
        left = store / f"index/{writer.store.manifest.counts['generation'] + 1:06d}"
        shutil.copytree(store / next(name for name in writer.store.manifest.parts if name.startswith("index/")), left)
        (left / "half").touch()
        writer.build_index()
    assert not (left / "half").exists() and hits(store) == exact_hits(store)


@pytest.mark.parametrize("engine", [None, EXACT, REMOVING, CODES, LISTS], ids=["none named", "exact", "removing", "codes", "lists"])
def test_a_store_equals_one_made_at_once_after_any_changes(engine, tmp_path):
    done = random_changes.run(tmp_path, engine, num=40, seed=2, is_exact=engine not in (CODES, LISTS))
    assert set(done) == set(random_changes.OPERATIONS)


def test_naming_exact_search_is_naming_none(tmp_path, space_box):
    create_store(tmp_path / "store", space_box, family="wordvec", export="e" * 64, engine=UNKEPT)
    assert "engine" not in Store(tmp_path / "store").manifest.config
    create_store(tmp_path / "store", space_box, family="wordvec", export="e" * 64)
