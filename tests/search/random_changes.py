"""A store that grows, shrinks and is compacted while it is searched, beside a dictionary of what it should hold.

python -m tests.search.random_changes --num 10000 --engine multimodal.search.pgvector.PgVector --url postgresql:///test
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from multimodal.search.conformance import SCORE_TOLERANCE
from multimodal.search.engine import EngineRecipe
from multimodal.search.flat import FlatEngine
from multimodal.search.query import search
from multimodal.search.segments import Segment, unit_rows
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace

DIM = 8
OPERATIONS = {
    "append": 24,
    "delete": 12,
    "change": 8,
    "compact": 2,
    "build index": 9,
    "search": 24,
    "search with a filter": 14,
    "search an older generation": 4,
    "open again": 3,
}
"""How often each comes, of 100."""
TRUST = ["tests"]


def run(folder: Path, recipe: EngineRecipe | None, num: int, seed: int = 0, is_exact: bool = True) -> Counter[str]:
    """Do so many operations; how many of each there were. AssertionError if a search finds anything but what it should.

    is_exact: whether hits must be those of exact search; else each must be a picture that is there, with its score, and k of them found.
    """
    random = np.random.default_rng(seed)
    space = folder / "space"
    words = ("beach", "sunset", "snow", "dog", "people", "red")
    vectors = random.standard_normal((len(words), DIM)).astype(np.float32)
    WordSpace(Normaliser(), Vocabulary(words, np.arange(1, 1 + len(words)), 9), vectors).save(space)
    path = folder / "store"
    create_store(path, space, family="wordvec", export="e" * 64, trust=TRUST, engine=recipe)
    rows: dict[int, np.ndarray] = {}
    done: Counter[str] = Counter()
    names, weights = list(OPERATIONS), np.array(list(OPERATIONS.values())) / 100
    writer = StoreWriter(path, TRUST).__enter__()
    writer.build_index()
    older: tuple[Store, dict[int, np.ndarray]] | None = None
    try:
        for _ in range(num):
            operation = str(random.choice(names, p=weights))
            done[operation] += 1
            if operation in ("append", "delete", "change", "compact", "build index"):
                older = (Store(path, trust=TRUST), dict(rows))
                _change(writer, operation, rows, random)
                _ = older[0].engine  # opened after the commit: its files, and its rows on a server, are still there
            elif operation == "open again":
                writer.__exit__()
                writer = StoreWriter(path, TRUST).__enter__()
            else:
                store, expected = (writer.store, rows) if operation != "search an older generation" or older is None else older
                ids = None
                if operation == "search with a filter" and expected:
                    ids = random.choice(sorted(expected), max(1, int(len(expected) * random.choice([0.01, 0.1, 0.5]))), replace=False)
                _search(store, expected, random, ids, is_exact)
        writer.build_index()
        _compare_with_one_made_at_once(writer.store, rows, folder / "at once", space, is_exact)
    finally:
        writer.__exit__()
    return done


def _change(writer: StoreWriter, operation: str, rows: dict[int, np.ndarray], random: np.random.Generator) -> None:
    if operation == "append":
        free = np.setdiff1d(np.arange(600), list(rows))
        _append(writer, random.choice(free, min(len(free), int(random.integers(1, 12))), replace=False), rows, random)
    elif operation == "compact":
        writer.compact()
    elif operation == "build index":
        writer.build_index()
    elif rows:
        ids = random.choice(sorted(rows), min(len(rows), int(random.integers(1, 16))), replace=False)
        writer.delete(ids)
        for id in ids.tolist():
            del rows[id]
        if operation == "change":
            _append(writer, ids, rows, random)


def _append(writer: StoreWriter, ids: np.ndarray, rows: dict[int, np.ndarray], random: np.random.Generator) -> None:
    new = random.standard_normal((len(ids), DIM))
    writer.append(_segment(ids, new))
    rows |= dict(zip(ids.tolist(), new, strict=True))


def _kept(rows: dict[int, np.ndarray], ids: list[int]) -> np.ndarray:
    """(n, d) float32: the rows as a store keeps them."""
    given = np.stack([rows[id] for id in ids]) if ids else np.empty((0, DIM))
    return unit_rows(unit_rows(given, np.array(ids)).astype(np.float16), np.array(ids))


def _segment(ids: np.ndarray, rows: np.ndarray) -> Segment:
    return Segment(ids.astype(np.int64), rows, {"name": [f"{id}.png" for id in ids], "text": [f"picture {id}" for id in ids]})


def _search(store: Store, rows: dict[int, np.ndarray], random: np.random.Generator, only: np.ndarray | None, is_exact: bool) -> None:
    queries = random.standard_normal((3, DIM)).astype(np.float32)
    k = int(random.choice([1, 5, 50]))
    engine = store.engine if only is None else store.engine.filter(only)
    found = engine.search(queries, k)
    held = sorted(rows) if only is None else sorted(only.tolist())
    assert len(engine) == len(held), f"{len(engine)} pictures are searched, expected {len(held)}"
    assert found.ids.shape == (3, min(k, len(held))), f"{found.ids.shape[1]} of {len(held)} pictures are found, {k} were wanted"
    exact = FlatEngine(DIM)
    exact.add(np.array(held, np.int64), _kept(rows, held))
    wanted = exact.search(queries, k)
    if is_exact:
        assert (found.ids == wanted.ids).all() and np.allclose(found.scores, wanted.scores, atol=1e-6), "other hits than exact search"
        return
    for ids, scores, query in zip(found.ids.tolist(), found.scores, queries, strict=True):
        assert len(set(ids)) == len(ids) and set(ids) <= set(held), "a hit is not there, or there twice"
        own = _kept(rows, ids) @ query
        assert np.allclose(own, scores, atol=SCORE_TOLERANCE), "a score is not that of the picture"


def _compare_with_one_made_at_once(store: Store, rows: dict[int, np.ndarray], path: Path, space: Path, is_exact: bool) -> None:
    create_store(path, space, family="wordvec", export="e" * 64)
    with StoreWriter(path) as writer:
        ids = np.array(sorted(rows), np.int64)
        writer.append(_segment(ids, np.stack([rows[id] for id in ids.tolist()])))
    one = Store(path)
    assert sorted(store.ids.tolist()) == ids.tolist() and (store.take(ids) == one.take(ids)).all()
    for query in ("beach", "dog + snow", "red without people"):
        hits, wanted = search(store, query, 10), search(one, query, 10)
        assert len(hits) == len(wanted)
        if is_exact:
            assert [hit.id for hit in hits] == [hit.id for hit in wanted], query
            assert np.allclose([hit.score for hit in hits], [hit.score for hit in wanted], atol=1e-5), query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default=None)
    parser.add_argument("--url", default=None)
    parser.add_argument("--approximate", action="store_true")
    given = parser.parse_args()
    recipe = None if given.engine is None else EngineRecipe(given.engine, {} if given.url is None else {"url": given.url})
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder), recipe, given.num, given.seed, not given.approximate)
    print(f"{given.engine or 'exact'}: {given.num} operations in {time.monotonic() - start:.0f} s: {dict(done)}")


if __name__ == "__main__":
    main()
