"""What every search engine, and every way to combine terms, must satisfy. A test passes its own in one line.

def test_product_keeps_the_contract(): check_fusion(CalibratedProduct(sharpness=2.0))
def test_flat_keeps_the_contract(tmp_path): check_engine(FlatEngine, tmp_path)
def test_hnsw_keeps_the_contract(tmp_path): check_engine(HnswEngine, tmp_path, min_recall=0.95)
def test_hnsw_with_links_keeps_it_too(tmp_path): check_engine(partial(HnswEngine, links=16), tmp_path, min_recall=0.95)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from multimodal.errors import InputError
from multimodal.search.engine import CALLS, KEEPING, Coarse, Engine, Kept, Neighbours, Retains, ScoresAll
from multimodal.search.fusion import MEMBERS, Fusion, TermScores
from multimodal.search.layered import Rescored

SCORE_TOLERANCE = 1e-4
"""For an approximate engine's scores. They are inner products like an exact engine's: search compares them with those of its rows."""
SUM_TOLERANCE = 1e-9
"""For what terms add, in float64, and for sums of it: relative, and absolute near 0. A search rounds scores to six decimals."""


def brute_force(ids: np.ndarray, rows: np.ndarray, queries: np.ndarray, k: int) -> Neighbours:
    """The reference: every inner product in float64, rounded to float32; best first, and the smaller id first among equals."""
    found_ids, found_scores = [], []
    for query in np.asarray(queries, dtype=np.float32).astype(np.float64):
        scores = (np.asarray(rows, np.float32) * query).sum(axis=1).astype(np.float32)
        order = sorted(range(len(ids)), key=lambda at: (-scores[at], ids[at]))[:k]
        found_ids.append([ids[at] for at in order])
        found_scores.append([scores[at] for at in order])
    shape = (len(queries), min(k, len(ids)))
    return Neighbours(np.array(found_ids, np.int64).reshape(shape), np.array(found_scores, np.float32).reshape(shape))


def check_engine(make: Callable[[int], Engine], folder: Path, min_recall: float = 1.0, seed: int = 0, num_queries: int = 70) -> None:
    """AssertionError, with what was expected, if an engine breaks the contract.

    make: dim -> an empty engine; a store passes `dim` by keyword. One on a server makes a table of its own each time.
    folder: an empty folder to save into. num_queries: fewer for an engine that takes long over each.
    min_recall: 1.0 for an exact engine, which must also give the reference's order and scores; below it, the share of neighbours that must
    be hits: rows whose score is no lower than that of the reference's last neighbour, so that any of several equal rows is one.
    """
    missing = [name for name in CALLS if not callable(getattr(make(8), name, None))]
    assert not missing, f"an engine has {', '.join(CALLS)}, and this one has no {', '.join(missing)}"
    halves = [name for name in KEEPING if callable(getattr(make(8), name, None))]
    assert len(halves) != 1, f"an engine that is kept has {' and '.join(KEEPING)}, and this one has only {halves[0]}"
    random = np.random.default_rng(seed)
    for n, dim, k in ((0, 8, 5), (1, 8, 5), (40, 8, 40), (40, 8, 50), (300, 32, 10)):
        ids = random.permutation(10 * n + 1)[:n].astype(np.int64)
        rows = _units(random, n, dim)
        # Equal rows, so that ties happen; but so few that they cannot split a graph of near neighbours in two.
        rows[: n // 4 if min_recall == 1.0 else min(n // 4, k + 2)] = rows[:1]
        queries = np.concatenate([_units(random, num_queries, dim), rows[:3]])
        queries[1] *= 3  # an inner product grows with the query
        where = f"n={n} dim={dim} k={k}"
        engine = _made(make, ids, rows)
        step = max(n // 3, 1)
        for start in range(0, n, step):  # in parts, as a store adds its segments
            part = rows[start : start + step].copy()
            engine.add(ids[start : start + step], part)
            there = min(start + step, n)
            assert len(engine) == there, f"{where}: len is {len(engine)} after {there} rows were added"
            found = engine.search(queries, k)
            assert found.ids.shape[1] == min(k, there) and (there > k or set(found.ids[0].tolist()) == set(ids[:there].tolist())), (
                f"{where}: {there} rows were added, and a search after an earlier search does not see all of them"
            )
            part[:] = 0  # the caller may overwrite its memory after `add`
        found = engine.search(queries, k)
        _check(found, ids, rows, queries, k, min_recall, where)
        _check_scores(engine, ids, rows, queries, where)
        assert engine.search(queries[:0], k).ids.shape == (0, min(k, n)), f"{where}: no queries must give no rows"
        _check_alone(engine, queries, k, found, min_recall, where)
        _check_filter(engine, ids, rows, queries, k, min_recall, random, where)
        _check_refusals(engine, ids, rows, where)
        if halves:
            _check_kept(make, engine, ids, rows, folder / where.replace(" ", "-"), queries, k, found, min_recall, where)
    _check_narrow_filters(make, min_recall, random)


def _made(make: Callable[[int], Engine], ids: np.ndarray, rows: np.ndarray, saved: Path | None = None) -> Engine:
    """An empty engine, or the one that was saved; one of codes as a store uses it, which scores candidates again with its rows."""
    engine = make(rows.shape[1])
    if saved is not None:
        engine = cast(Engine, cast(Kept, engine).load(saved))
    by_id = np.argsort(ids)
    return Rescored(engine, lambda wanted: rows[by_id[np.searchsorted(ids[by_id], wanted)]]) if isinstance(engine, Coarse) else engine


def _check(found: Neighbours, ids: np.ndarray, rows: np.ndarray, queries: np.ndarray, k: int, min_recall: float, where: str) -> None:
    reference = brute_force(ids, rows, queries, k)
    assert found.ids.shape == reference.ids.shape, f"{where}: {found.ids.shape} neighbours, wanted {reference.ids.shape}"
    assert found.ids.dtype == np.int64 and found.scores.dtype == np.float32, f"{where}: ids must be int64 and scores float32"
    assert (np.diff(found.scores, axis=1) <= 0).all(), f"{where}: best first"
    assert all(len(set(row)) == len(row) for row in found.ids.tolist()), f"{where}: an id must come only once"
    if min_recall == 1.0:
        assert (found.ids == reference.ids).all(), f"{where}: other neighbours, or another order of equal scores, than brute force"
        assert (found.scores == reference.scores).all(), f"{where}: other scores than brute force"
    elif reference.ids.size:
        assert set(found.ids.ravel().tolist()) <= set(ids.tolist()), f"{where}: ids that were never added"
        every = brute_force(ids, rows, queries, len(ids))  # (q, n): the score of each row, best first
        score_of = [dict(zip(a, b, strict=True)) for a, b in zip(every.ids.tolist(), every.scores.tolist(), strict=True)]
        own = np.array([[scores[id] for id in line] for scores, line in zip(score_of, found.ids.tolist(), strict=True)])
        off = float(np.abs(own - found.scores).max())
        assert off <= SCORE_TOLERANCE, f"{where}: a score is off by {off:.2g} from the inner product of query and row"
        recall = float((own >= reference.scores[:, -1:]).mean())
        assert recall >= min_recall, f"{where}: recall {recall:.3f}, stated {min_recall}"


def _check_scores(engine: Engine, ids: np.ndarray, rows: np.ndarray, queries: np.ndarray, where: str) -> None:
    """Of an engine that scores all rows: each once, and off by no more than float32 sums are."""
    if not isinstance(engine, ScoresAll):
        return
    found, scores = engine.scores(queries)
    assert found.dtype == np.int64 and sorted(found.tolist()) == sorted(ids.tolist()), (
        f"{where}: scores must name each searched row once, {len(ids)} in all, and it names {len(found)}"
    )
    assert scores.shape == (len(queries), len(ids)) and scores.dtype == np.float32, (
        f"{where}: scores are {scores.dtype} {scores.shape}, wanted float32 ({len(queries)}, {len(ids)})"
    )
    if not ids.size:
        return
    of_ids = np.argsort(ids)[np.searchsorted(ids, found, sorter=np.argsort(ids))]
    exact = np.stack([(rows[of_ids].astype(np.float64) * query).sum(axis=1) for query in queries.astype(np.float64)])
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows[of_ids], axis=1)
    off = np.abs(scores - exact) / np.maximum(lengths, 1e-30)
    assert off.max() <= 2.0**-23 * rows.shape[1], f"{where}: a score is off by {off.max():.2g} from the inner product of query and row"


def _check_alone(engine: Engine, queries: np.ndarray, k: int, together: Neighbours, min_recall: float, where: str) -> None:
    """A query's answer does not depend on the queries beside it; an approximate engine may choose among equal rows."""
    for index in (0, len(queries) - 1):
        alone = engine.search(queries[index : index + 1], k)
        same = (alone.ids[0] == together.ids[index]).all() or (
            min_recall < 1 and np.allclose(alone.scores[0], together.scores[index], atol=SCORE_TOLERANCE)
        )
        assert same, f"{where}: query {index} alone has other neighbours than among others"


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
        view = engine.filter(np.concatenate([allowed, strange]))
        assert len(view) == len(allowed), f"{where}: len is {len(view)} where a filter lets {len(allowed)} rows through"
        found = view.search(queries, k)
        assert set(found.ids.ravel().tolist()) <= set(allowed.tolist()), f"{where}: a filter lets other ids through"
        _check(found, allowed, rows[np.isin(ids, allowed)], queries, k, min_recall, f"{where} filter {share}")
        _check_scores(view, allowed, rows[np.isin(ids, allowed)], queries, f"{where} filter {share}")
        both = allowed[::2]
        twice = view.filter(np.concatenate([both, np.setdiff1d(ids, allowed)]))
        let_through = set(twice.search(queries, k).ids.ravel().tolist())
        assert let_through <= set(both.tolist()) and len(twice) == len(both), (
            f"{where}: a filter of a filter lets through what both let through, {len(both)} rows, and here it is {len(twice)}"
        )
    everything = engine.search(queries, k)
    assert everything.ids.shape[1] == min(k, len(ids)) == min(k, len(engine)), (
        f"{where}: a filter must leave the engine that it was made from as it is"
    )


def _check_narrow_filters(make: Callable[[int], Engine], min_recall: float, random: np.random.Generator) -> None:
    """Filters that keep 10, 1 and 0.1 %: k rows are found whenever so many pass, and the recall is that which is stated."""
    n, dim, k = 3000, 16, 10
    ids, rows, queries = random.permutation(n).astype(np.int64), _units(random, n, dim), _units(random, 20, dim)
    engine = _made(make, ids, rows)
    engine.add(ids, rows)
    for share in (0.1, 0.01, 0.001):
        chosen = np.sort(random.choice(n, round(share * n), replace=False))
        where = f"n={n} dim={dim} k={k} filter {share:.1%}"
        view = engine.filter(ids[chosen])
        found = view.search(queries, k)
        assert found.ids.shape == (len(queries), min(k, len(chosen))), (
            f"{where}: {len(chosen)} rows pass a filter, {k} are wanted, and {found.ids.shape[1]} are found"
        )
        _check(found, ids[chosen], rows[chosen], queries, k, min_recall, where)


def _check_kept(
    make: Callable[[int], Engine],
    engine: Engine,
    ids: np.ndarray,
    rows: np.ndarray,
    folder: Path,
    queries: np.ndarray,
    k: int,
    before: Neighbours,
    min_recall: float,
    where: str,
) -> None:
    """What was saved is loaded from a copy elsewhere, after another engine was saved; it grows without a change to the folder."""
    saved, moved = folder / "saved", folder / "moved"
    saved.mkdir(parents=True)
    cast(Kept, engine).save(saved)
    assert any(path.is_file() for path in saved.rglob("*")), f"{where}: save wrote no file into {saved}"
    another = make(rows.shape[1])
    (folder / "another").mkdir()
    cast(Kept, another).save(folder / "another")
    shutil.move(saved, moved)
    content = _content(moved)
    loaded = _made(make, ids, rows, moved)
    assert len(loaded) == len(engine), f"{where}: {len(engine)} rows were saved, and {len(loaded)} loaded"
    after = loaded.search(queries, k)
    same = after.ids.shape == before.ids.shape and (after.ids == before.ids).all() and (after.scores == before.scores).all()
    assert same, f"{where}: other answers after save and load"
    _check_filter(loaded, ids, rows, queries, k, min_recall, np.random.default_rng(0), f"{where} loaded")
    _check_refusals(loaded, ids, rows, f"{where} loaded")
    more = ids.max(initial=0) + 1 + np.arange(20)
    every, all_rows = np.concatenate([ids, more]), np.concatenate([rows, _units(np.random.default_rng(1), 20, rows.shape[1])])
    grown = _made(make, every, all_rows, moved)
    grown.add(more, all_rows[len(ids) :])
    found = grown.search(queries, k)
    assert len(grown) == len(every), f"{where}: {len(ids)} rows were loaded and 20 added, and there are {len(grown)}"
    _check(found, every, all_rows, queries, k, min_recall, f"{where} grown after load")
    assert _content(moved) == content, f"{where}: to load an engine and add to it must leave the folder as it is"
    if isinstance(grown, Retains):
        _check_retain(grown, every, all_rows, queries, k, min_recall, where)


def _check_retain(engine: Engine, ids: np.ndarray, rows: np.ndarray, queries: np.ndarray, k: int, min_recall: float, where: str) -> None:
    kept, gone = ids[::2], ids[1::2]
    cast(Retains, engine).retain(np.concatenate([kept, [10**9]]))  # an id that the engine does not have
    assert len(engine) == len(kept), f"{where}: {len(kept)} rows are retained, and there are {len(engine)}"
    _check(engine.search(queries, k), kept, rows[::2], queries, k, min_recall, f"{where} retained")
    engine.add(gone, rows[1::2])
    _check(engine.search(queries, k), ids, rows, queries, k, min_recall, f"{where} added again")
    cast(Retains, engine).retain(ids[:0])
    assert len(engine) == 0, f"{where}: nothing is retained, and there are {len(engine)} rows"


def _content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


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


def check_fusion(fusion: Fusion, seed: int = 0) -> None:
    """AssertionError, with what was expected, if a way to combine terms breaks the contract.

    fusion: with its constants; check those that you will use.
    """
    missing = [name for name in MEMBERS if not hasattr(fusion, name)]
    assert not missing, f"a way to combine terms has {', '.join(MEMBERS)}, and this one has no {', '.join(missing)}"
    described: object = fusion
    assert is_dataclass(described), "a way to combine terms is a dataclass, whose fields a store keeps: @dataclass(frozen=True, slots=True)"
    for name in ("centred", "is_product"):
        assert isinstance(getattr(fusion, name), bool), f"{name} is {getattr(fusion, name)!r}; expected True or False"
    random = np.random.default_rng(seed)
    for where, terms in _queries(random):
        before = {field.name: getattr(terms, field.name).copy() for field in fields(terms)}
        added = fusion.combine(terms)
        num, n = terms.cosines.shape
        assert added.shape == (num, n), f"{where}: combine gives {added.shape}; expected what each term adds to each picture, ({num}, {n})"
        assert np.isfinite(added).all(), f"{where}: combine gives numbers that are not finite"
        assert all((getattr(terms, name) == value).all() for name, value in before.items()), f"{where}: combine changes what it is given"
        _check_columns(fusion, terms, added, where)
        _check_slopes(fusion, terms, added, random, where)
        _check_order_of_terms(fusion, terms, added, random, where)
        _check_doubling(fusion, terms, added, where)
        if num == 1 and not terms.without[0]:
            _check_one_term(fusion, terms, where)


def _queries(random: np.random.Generator, n: int = 60, dim: int = 24) -> Iterator[tuple[str, TermScores]]:
    """Queries of one to five terms in all roles, over pictures and a calibration that are made up. The first term is wanted."""
    rows = _units(random, n, dim).astype(np.float64)
    for num in (1, 1, 2, 3, 4, 5):
        for weights in (np.ones(num), random.choice([0.25, 0.5, 1.5, 3.0], num)):
            units = _units(random, num, dim).astype(np.float64)
            units = units + (num > 1) * units.mean(axis=0)  # terms of a query are often near to each other
            units /= np.linalg.norm(units, axis=1, keepdims=True)
            without, pictures = random.random(num) < 0.4, random.random(num) < 0.3
            without[0] = False
            cosines = units @ rows.T
            mean, std = cosines.mean(axis=1) + random.normal(0, 0.02, num), cosines.std(axis=1) * random.uniform(0.7, 1.4, num)
            where = f"weights {weights.tolist()}, without {without.tolist()}, pictures {pictures.tolist()}"
            yield where, TermScores(cosines, weights, without, pictures, mean, std, units @ units.T)


def _is_near(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=SUM_TOLERANCE, atol=SUM_TOLERANCE)


def _check_columns(fusion: Fusion, terms: TermScores, added: np.ndarray, where: str) -> None:
    """A search scores some pictures alone, and none to learn the slopes."""
    for chosen in (slice(0, 1), slice(7, 8), slice(3, 20), slice(None, None, -1)):
        alone = fusion.combine(replace(terms, cosines=terms.cosines[:, chosen]))
        assert _is_near(alone, added[:, chosen]), f"{where}: what terms add to a picture must not depend on the pictures beside it"
    none = fusion.combine(replace(terms, cosines=terms.cosines[:, :0]))
    assert none.shape == (len(added), 0), f"{where}: of no pictures, combine gives {none.shape}; expected ({len(added)}, 0)"


def _check_order_of_terms(fusion: Fusion, terms: TermScores, added: np.ndarray, random: np.random.Generator, where: str) -> None:
    order = random.permutation(len(terms.weights))
    moved = {field.name: getattr(terms, field.name)[order] for field in fields(terms)}
    other = TermScores(**(moved | {"gram": terms.gram[np.ix_(order, order)]}))
    same = _is_near(fusion.combine(other), added[order]) and _is_near(fusion.slopes(other), fusion.slopes(terms)[order])
    assert same, f"{where}: what a term adds must not depend on its place among the terms"


def _check_slopes(fusion: Fusion, terms: TermScores, added: np.ndarray, random: np.random.Generator, where: str) -> None:
    slopes = fusion.slopes(replace(terms, cosines=terms.cosines[:, :0]))  # a bound for all pictures: it is asked for without any
    assert slopes.shape == terms.weights.shape and np.isfinite(slopes).all(), (
        f"{where}: slopes are {slopes.tolist()}; expected a finite number for each of {len(terms.weights)} terms"
    )
    for at, slope in enumerate(slopes.tolist()):
        for size in (1e-4, 0.01, 0.1):
            cosines = terms.cosines.copy()
            cosines[at] += random.choice([-size, size], cosines.shape[1])
            change = np.abs(fusion.combine(replace(terms, cosines=cosines)).sum(axis=0) - added.sum(axis=0)).max()
            assert change <= slope * size * (1 + 1e-6) + SUM_TOLERANCE, (
                f"{where}: the cosine of term {at} changed by {size}, the score by {change:.3g}, and its slope is {slope:.3g}. "
                "A slope is the most that a score changes, over the change of the cosine"
            )


def _check_doubling(fusion: Fusion, terms: TermScores, added: np.ndarray, where: str) -> None:
    doubled = fusion.combine(replace(terms, weights=2 * terms.weights)).sum(axis=0)
    once = added.sum(axis=0)
    gaps, others = (np.subtract.outer(totals, totals) for totals in (once, doubled))
    swapped = (gaps > 1e-6) & (others < -1e-6)
    assert not swapped.any(), f"{where}: twice all weights is the same query, and it must order pictures in the same way"


def _check_one_term(fusion: Fusion, terms: TermScores, where: str) -> None:
    """Its nearest neighbours are the answer, so the order must be that of its cosines."""
    cosines = terms.mean + np.linspace(-4, 4, 81)[None] * terms.std  # a tenth of a standard deviation apart
    totals = fusion.combine(replace(terms, cosines=cosines)).sum(axis=0)
    assert (np.diff(totals) > 0).all(), f"{where}: of a single wanted term, a picture with the higher cosine must have the higher score"
