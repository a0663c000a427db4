"""Approximate search keeps the contract of an engine at the recall that it states, and is tuned to reach it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from multimodal.boxes import read_manifest, write_manifest
from multimodal.errors import InputError
from multimodal.search import kept, layered
from multimodal.search.conformance import brute_force, check_engine
from multimodal.search.engine import EngineRecipe
from multimodal.search.ivf import IvfEngine
from multimodal.search.kept import describe_index, exact_engine, index_part
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store

FINE = EngineRecipe("multimodal.search.ivf.IvfEngine", {"min_rows": 200})


@pytest.mark.parametrize("min_rows", [100, 100_000])
def test_the_contract_holds_with_few_rows_and_with_lists(tmp_path, min_rows):
    check_engine(partial(IvfEngine, min_rows=min_rows), tmp_path, min_recall=0.95)


def _clusters(random: np.random.Generator, n: int, dim: int) -> np.ndarray:
    centres = random.standard_normal((40, dim))
    rows = centres[random.integers(40, size=n)] + 0.7 * random.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_tuning_reaches_the_recall_that_is_asked_for_and_reads_fewer_lists_for_less():
    random = np.random.default_rng(0)
    rows = _clusters(random, 4000, 24)
    queries = _clusters(random, 200, 24) + 0.3  # off the rows, as texts are
    nearest, read = brute_force(np.arange(4000), rows, queries, 10).ids, []
    for recall in (0.6, 0.95):
        engine = IvfEngine(24, recall=recall, min_rows=1000)
        engine.add(np.arange(4000), rows)
        figures = engine.tune(queries, nearest)
        found = engine.search(queries[1::2], 10 * engine.oversampling).ids
        measured = np.mean([np.isin(wanted, there).mean() for wanted, there in zip(nearest[1::2], found, strict=True)])
        assert figures["recall"] == round(float(measured), 4) and figures["recall"] >= recall - 0.03 and figures["queries"] == 100
        read.append(figures["lists_read"] * figures["oversampling"])
    assert read[0] < read[1]


def test_a_saved_index_answers_as_before_and_one_whose_arrays_do_not_fit_is_refused(tmp_path):
    random = np.random.default_rng(0)
    rows, queries = _clusters(random, 700, 9), _clusters(random, 20, 9)
    engine = IvfEngine(9, min_rows=200)
    engine.add(3 * np.arange(700), rows)
    engine.tune(queries, brute_force(3 * np.arange(700), rows, queries, 10).ids)
    engine.save(tmp_path)
    again = IvfEngine(9, min_rows=200).load(tmp_path)
    for k in (1, 30, 700):
        one, other = engine.search(queries, k), again.search(queries, k)
        assert (one.ids == other.ids).all() and (one.scores == other.scores).all()
    sizes, codes = np.load(tmp_path / "sizes.npy"), np.load(tmp_path / "codes.npy")
    fewer, negative = sizes.copy(), sizes.copy()
    fewer[0] -= 1
    negative[:2] += [-10 * sizes[0], 10 * sizes[0]]
    for name, wrong in (
        ("sizes", fewer),
        ("sizes", negative),
        ("sizes", sizes[1:]),
        ("sizes", np.append(sizes, 0)),
        ("sizes", np.append(sizes[:-1], 2**62)),
        ("sizes", sizes.astype(np.int32)),
        ("codes", codes[:-1]),
        ("codes", codes.astype(np.int8)),
        ("centroids", np.load(tmp_path / "centroids.npy")[:, 1:]),
        ("codebooks", np.load(tmp_path / "codebooks.npy")[1:]),
        ("ids", np.arange(699)),
        ("places", np.load(tmp_path / "places.npy") + 1),
        ("places", np.load(tmp_path / "places.npy") - 1),
        ("places", np.zeros(700, np.int64)),
    ):
        right = np.load(tmp_path / f"{name}.npy")
        np.save(tmp_path / f"{name}.npy", wrong)
        with pytest.raises(ValueError, match="hold"):
            IvfEngine(9).load(tmp_path)
        np.save(tmp_path / f"{name}.npy", right)
    manifest = read_manifest(tmp_path, "index")
    for setting, value in (("num_probes", 10**9), ("oversampling", 0), ("oversampling", 10**12)):
        write_manifest(tmp_path, replace(manifest, config={**manifest.config, setting: value}))
        with pytest.raises(ValueError, match=f"reads .*{value}"):
            IvfEngine(9).load(tmp_path)


def test_a_recall_that_is_no_share_is_refused():
    with pytest.raises(InputError, match=r"recall = 98; expected a share"):
        IvfEngine(8, recall=98)


@pytest.fixture
def store(tmp_path, space_boxes, segment) -> Store:
    """Three hundred pictures in two segments, with an approximate index, and ten more beside it."""
    create_store(tmp_path / "store", space_boxes["wordvec"], "wordvec", "e" * 64, engine=FINE)
    with StoreWriter(tmp_path / "store") as writer:
        for ids in (range(200), range(200, 300)):
            writer.append(segment(ids))
        writer.build_index()
        writer.append(segment(range(300, 310)))
    return Store(tmp_path / "store")


def test_a_store_keeps_the_recall_of_its_index_for_queries_in_words(store):
    _, facts = index_part(store.manifest.parts)
    assert facts["figures"]["recall"] > 0.9 and facts["figures"]["neighbours"] == 10
    assert f"recall {facts['figures']['recall']}" in repr(store)
    assert describe_index(store).startswith("search is approximate: it finds ")


def test_narrow_filters_of_an_approximate_store_are_exact(store, monkeypatch):
    queries = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    exact = exact_engine(store.dim, store.live_positions)
    chosen = np.arange(0, 310, 3)
    monkeypatch.setattr(layered, "NARROW", 200)
    for one, other in ((store.engine, exact), (store.engine.filter(np.arange(305)), exact.filter(np.arange(305)))):
        found, wanted = one.filter(chosen).search(queries, 12), other.filter(chosen).search(queries, 12)
        assert (found.ids == wanted.ids).all() and (found.scores == wanted.scores).all()


def test_a_large_store_that_names_no_engine_gets_an_approximate_one_and_keeps_exact_search_if_it_is_chosen(
    tmp_path, space_boxes, segment, monkeypatch
):
    monkeypatch.setattr(kept, "APPROXIMATE_FROM", 30)
    path, box = tmp_path / "store", space_boxes["wordvec"]
    create_store(path, box, "wordvec", "e" * 64)
    with StoreWriter(path) as writer:
        writer.append(segment(range(20)))
        writer.build_index()
        assert "engine" not in writer.store.manifest.config
        writer.append(segment(range(20, 40)))
        writer.build_index()
        assert writer.store.manifest.config["engine"]["class_path"] == "multimodal.search.ivf.IvfEngine"
        create_store(path, box, "wordvec", "e" * 64)  # as `multimodal index` does again: what it gets for its size is no other engine
        writer.build_index(EngineRecipe("multimodal.search.flat.FlatEngine"))
        create_store(path, box, "wordvec", "e" * 64)
        writer.build_index()
        assert index_part(writer.store.manifest.parts) is None and not kept.is_needed(writer.store)
