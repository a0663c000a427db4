"""Exact search equals sums in float64 over all rows, also where rows stay in mapped float16 files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from multimodal.boxes.arrays import read_array, write_array
from multimodal.errors import InputError
from multimodal.search import flat
from multimodal.search.conformance import brute_force
from multimodal.search.engine import SLACK
from multimodal.search.flat import FlatEngine
from multimodal.search.segments import unit_rows


def test_equal_scores_come_in_the_order_of_ids_even_when_all_rows_are_equal():
    engine = FlatEngine(4)
    ids = np.random.default_rng(0).permutation(500)
    engine.add(ids, np.tile(np.float32([0.5, 0.5, 0.5, 0.5]), (500, 1)))
    found = engine.search(np.eye(4, dtype=np.float32), k=7)
    assert found.ids.tolist() == [list(range(7))] * 4


def test_rows_and_queries_of_any_length_are_ranked_exactly():
    random = np.random.default_rng(1)
    rows = (random.standard_normal((200, 16)) * 1000).astype(np.float32)
    queries = (random.standard_normal((5, 16)) * 0.01).astype(np.float32)
    engine = FlatEngine(16)
    engine.add(np.arange(200), rows)
    wanted = brute_force(np.arange(200), rows, queries, 20)
    found = engine.search(queries, 20)
    assert (found.ids == wanted.ids).all() and (found.scores == wanted.scores).all()


def test_a_filter_of_a_filter_lets_only_the_common_ids_through():
    engine = FlatEngine(2)
    engine.add(np.arange(10), np.ones((10, 2), np.float32))
    view = engine.filter(np.array([1, 2, 3, 4])).filter(np.array([3, 4, 5]))
    assert len(view) == 2
    assert view.search(np.ones((1, 2), np.float32), 9).ids.tolist() == [[3, 4]]


def test_adding_to_a_filtered_view_is_refused():
    with pytest.raises(ValueError, match="view"):
        FlatEngine(2).filter(np.array([1])).add(np.array([1]), np.ones((1, 2), np.float32))


def test_rows_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"wanted \(2, 3\)"):
        FlatEngine(3).add(np.arange(2), np.ones((2, 4), np.float32))


def _units(random: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = random.standard_normal((n, dim)) + 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def small_tasks(monkeypatch):
    """Many tasks for few rows, so that threads share the work."""
    monkeypatch.setattr(flat, "_BYTES_AT_ONCE", 2048)


@pytest.mark.parametrize("dim", [1, 7, 33, 512])
@pytest.mark.parametrize("num", [1, 3, 70])
def test_float16_rows_of_a_mapped_file_are_searched_at_unit_length(small_tasks, tmp_path, dim, num):
    random = np.random.default_rng(dim)
    rows = _units(random, 600, dim).astype(np.float16)
    rows[100:160], rows[200:400] = rows[0], rows[1]  # ties, more of them than neighbours
    write_array(tmp_path / "rows.npy", rows)
    ids = random.permutation(1000)[:600]
    queries = _units(random, num, dim) * random.uniform(0.01, 50, (num, 1)).astype(np.float32)
    queries[0] = rows[1]
    engine = FlatEngine(dim)
    for start in range(0, 600, 150):
        mapped = read_array(tmp_path / "rows.npy", mapped=True)[start : start + 150]
        engine.add_mapped(ids[start : start + 150], mapped, once=start < 300)
    units = unit_rows(rows, ids)
    for k in (1, 30, 600, 1000):
        wanted, found = brute_force(ids, units, queries, k), engine.search(queries, k)
        assert (found.ids == wanted.ids).all() and (found.scores == wanted.scores).all()
    for chosen in (ids[::3], ids[5:7], ids[::40]):
        view, kept = engine.filter(chosen), np.isin(ids, chosen)
        wanted, found = brute_force(ids[kept], units[kept], queries, 20), view.search(queries, 20)
        assert (found.ids == wanted.ids).all() and (found.scores == wanted.scores).all()
        named, scores = view.scores(queries)
        exact = (unit_rows(rows[kept], ids[kept]).astype(np.float64) @ queries.T.astype(np.float64)).T
        off = np.abs(scores - exact) / np.linalg.norm(queries, axis=1, keepdims=True)
        assert (named == ids[kept]).all() and off.max() <= max(SLACK * dim, 2.0**-22)


def test_deleted_rows_of_a_mapped_file_are_not_searched(small_tasks):
    random = np.random.default_rng(3)
    rows, ids, queries = _units(random, 500, 24).astype(np.float16), np.arange(500) * 7, _units(random, 5, 24)
    for live in (np.arange(500)[::2], np.array([3, 4, 490]), np.arange(499), np.array([], np.int64)):
        engine = FlatEngine(24)
        engine.add_mapped(ids[live], rows, live)
        wanted, found = brute_force(ids[live], unit_rows(rows[live], ids[live]), queries, 9), engine.search(queries, 9)
        assert len(engine) == len(live) and (found.ids == wanted.ids).all() and (found.scores == wanted.scores).all()
        named, scores = engine.scores(queries)
        assert (named == ids[live]).all() and np.allclose(scores, (unit_rows(rows[live], ids[live]) @ queries.T).T, atol=1e-5)


def test_mapped_and_added_rows_are_searched_together(small_tasks):
    random = np.random.default_rng(4)
    rows, more, queries = _units(random, 80, 16).astype(np.float16), _units(random, 90, 16) * 3, _units(random, 4, 16)
    engine = FlatEngine(16)
    engine.add_mapped(np.arange(80), rows)
    engine.add(np.arange(80, 170), more)
    wanted = brute_force(np.arange(170), np.concatenate([unit_rows(rows, np.arange(80)), more]), queries, 12)
    found = engine.search(queries, 12)
    assert (found.ids == wanted.ids).all() and (found.scores == wanted.scores).all()


def test_mapped_rows_that_are_not_finite_are_named(small_tasks):
    rows = np.full((100, 4), 0.5, np.float16)
    rows[41] = np.nan
    engine = FlatEngine(4)
    engine.add_mapped(np.arange(100) + 1000, rows)
    with pytest.raises(InputError, match="not finite.* 1041$"):
        engine.search(np.ones((1, 4), np.float32), 3)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")
def test_rows_that_are_searched_once_do_not_stay_in_memory(tmp_path):
    write_array(tmp_path / "rows.npy", _units(np.random.default_rng(0), 40_000, 256).astype(np.float16))  # 20 MB
    resident = []
    for once in (True, False):
        engine, rows = FlatEngine(256), read_array(tmp_path / "rows.npy", mapped=True)
        engine.add_mapped(np.arange(40_000), rows, once=once)
        engine.search(np.ones((1, 256), np.float32), 3)
        engine.scores(np.ones((2, 256), np.float32))
        resident.append(_resident_bytes(tmp_path / "rows.npy"))
        del engine, rows
    assert resident[0] < 1_000_000 < 20_000_000 < resident[1]


def _resident_bytes(path: Path) -> int:
    """Of a file that is mapped into this process."""
    of_file = Path("/proc/self/smaps").read_text().split(f"{path}\n")[1:]
    return 1024 * sum(int(re.search(r"^Rss: +(\d+) kB", facts, re.MULTILINE)[1]) for facts in of_file)
