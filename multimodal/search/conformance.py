"""What every search engine must hold; a test hands its engine over in one line.

def test_flat_keeps_the_contract(tmp_path): check_engine(FlatEngine, tmp_path)
def test_hnsw_keeps_the_contract(tmp_path): check_engine(HnswEngine, tmp_path, min_recall=0.95)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from multimodal.errors import InputError
from multimodal.search.engine import Engine, Neighbours


def brute_force(ids: np.ndarray, rows: np.ndarray, queries: np.ndarray, k: int) -> Neighbours:
    """The reference: every inner product in float64, rounded to float32; best first, among equals the smaller id."""
    found_ids, found_scores = [], []
    for query in np.asarray(queries, dtype=np.float32).astype(np.float64):
        scores = (np.asarray(rows, np.float32) * query).sum(axis=1).astype(np.float32)
        order = sorted(range(len(ids)), key=lambda at: (-scores[at], ids[at]))[:k]
        found_ids.append([ids[at] for at in order])
        found_scores.append([scores[at] for at in order])
    shape = (len(queries), min(k, len(ids)))
    return Neighbours(np.array(found_ids, np.int64).reshape(shape), np.array(found_scores, np.float32).reshape(shape))


def check_engine(make: Callable[[int], Engine], folder: Path, min_recall: float = 1.0, seed: int = 0) -> None:
    """AssertionError, with what was wanted, where an engine does not keep the contract.

    make: dim -> an empty engine. folder: an empty one to save into. min_recall: 1.0 for an exact engine, which must also
    give the reference's order and scores; below it, the share of the reference's neighbours that must be found.
    """
    random = np.random.default_rng(seed)
    for n, dim, k in ((0, 8, 5), (1, 8, 5), (40, 8, 40), (40, 8, 50), (300, 32, 10)):
        ids = random.permutation(10 * n + 1)[:n].astype(np.int64)
        rows = _units(random, n, dim)
        rows[: n // 4] = rows[:1]  # equal rows, so that ties happen
        queries = np.concatenate([_units(random, 70, dim), rows[:3]])
        engine = make(dim)
        for start in range(0, n, 128):  # in parts, as segments come
            engine.add(ids[start : start + 128], rows[start : start + 128])
        where = f"n={n} dim={dim} k={k}"
        found = engine.search(queries, k)
        _check(found, brute_force(ids, rows, queries, k), min_recall, where)
        assert engine.search(queries[:0], k).ids.shape == (0, min(k, n)), f"{where}: no queries give no rows"
        _check_alone(engine, queries, k, found, where)
        _check_filter(engine, ids, rows, queries, k, min_recall, random, where)
        _check_reload(engine, folder / where.replace(" ", "-"), queries, k, found, where)
        _check_refusals(engine, ids, rows, where)


def _check(found: Neighbours, reference: Neighbours, min_recall: float, where: str) -> None:
    assert found.ids.shape == reference.ids.shape, f"{where}: {found.ids.shape} neighbours, wanted {reference.ids.shape}"
    assert found.ids.dtype == np.int64 and found.scores.dtype == np.float32, f"{where}: ids are int64 and scores float32"
    assert (np.diff(found.scores, axis=1) <= 0).all(), f"{where}: best first"
    assert all(len(set(row)) == len(row) for row in found.ids.tolist()), f"{where}: an id comes once"
    if min_recall == 1.0:
        assert (found.ids == reference.ids).all(), f"{where}: other neighbours, or another order of equal scores, than brute force"
        assert (found.scores == reference.scores).all(), f"{where}: other scores than brute force"
    elif reference.ids.size:
        recall = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.ids.tolist(), reference.ids.tolist(), strict=True)])
        assert recall >= min_recall, f"{where}: recall {recall:.3f}, stated {min_recall}"


def _check_alone(engine: Engine, queries: np.ndarray, k: int, together: Neighbours, where: str) -> None:
    """A query's answer does not depend on the queries beside it."""
    for index in (0, len(queries) - 1):
        alone = engine.search(queries[index : index + 1], k)
        assert (alone.ids[0] == together.ids[index]).all(), f"{where}: query {index} alone has other neighbours than among others"


def _check_filter(
    engine: Engine,
    ids: np.ndarray,
    rows: np.ndarray,
    queries: np.ndarray,
    k: int,
    min_recall: float,
    random: np.random.Generator,
    where: str,
) -> None:
    for share in (0.0, 0.3, 1.0):
        allowed = ids[random.random(len(ids)) < share]
        strange = np.array([10**9], dtype=np.int64)  # an id that the engine does not have
        found = engine.filter(np.concatenate([allowed, strange])).search(queries, k)
        assert set(found.ids.ravel().tolist()) <= set(allowed.tolist()), f"{where}: a filter lets other ids through"
        _check(found, brute_force(allowed, rows[np.isin(ids, allowed)], queries, k), min_recall, f"{where} filter {share}")
    everything = engine.search(queries, k)
    assert everything.ids.shape[1] == min(k, len(ids)), f"{where}: a filter must leave the engine that it was made from as it is"


def _check_reload(engine: Engine, folder: Path, queries: np.ndarray, k: int, before: Neighbours, where: str) -> None:
    engine.save(folder)
    after = type(engine).load(folder).search(queries, k)
    assert (after.ids == before.ids).all() and (after.scores == before.scores).all(), f"{where}: other answers after save and load"


def _check_refusals(engine: Engine, ids: np.ndarray, rows: np.ndarray, where: str) -> None:
    if len(ids):
        assert _refuses(lambda: engine.add(ids[:1], rows[:1])), f"{where}: an id that is there already must be an InputError"
    assert _refuses(lambda: engine.search(np.zeros((1, rows.shape[1] + 1), np.float32), 1)), (
        f"{where}: another dimension must be an InputError"
    )
    assert _refuses(lambda: engine.search(np.zeros((1, rows.shape[1]), np.float32), 0)), f"{where}: k = 0 must be an InputError"


def _refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except InputError:
        return True
    return False


def _units(random: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = random.standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
