"""The suites for engines and for ways to combine terms accept right ones, and reject each mistake with a message that names it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest

from multimodal.boxes.arrays import write_array
from multimodal.errors import InputError
from multimodal.search.conformance import check_engine, check_fusion
from multimodal.search.engine import Neighbours
from multimodal.search.flat import FlatEngine
from multimodal.search.fusion import CalibratedProduct, Fusion, TermScores, VectorSum
from tests.search.kept_engines import Codes, Hnsw, KeptFlat, Retaining


class Unfound(FlatEngine):
    """Misses the best row."""

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        found = super().search(queries, k + 1 if k else k)
        return found if found.ids.shape[1] <= k else Neighbours(found.ids[:, 1:], found.scores[:, 1:])


class Uncounted(Hnsw):
    """Has no length, which search asks for."""

    __len__ = None  # type: ignore[assignment]


class Frozen(FlatEngine):
    """Builds what it searches at the first search, and not again."""

    built: FlatEngine | None = None

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if self.built is None:
            self.built = FlatEngine(self.dim)
            self.built.add(self._ids, self._rows(np.arange(len(self._ids))))
        return self.built.search(queries, k) if self._allowed is None else super().search(queries, k)


class Unsaved(KeptFlat):
    """Keeps in memory what it says that it saves."""

    kept: ClassVar[dict[Path, Self]] = {}

    def save(self, path: Path) -> None:
        self.kept[path] = self

    def load(self, path: Path) -> Self:
        return self.kept[path]


class Elsewhere(KeptFlat):
    """Saves under a path of its own, which the next one to be saved overwrites; the folder holds a note."""

    last: ClassVar[list[Self]] = []

    def save(self, path: Path) -> None:
        write_array(path / "note.npy", np.zeros(1))
        self.last[:] = [self]

    def load(self, path: Path) -> Self:
        return self.last[0]


class HalfKept(FlatEngine):
    """Can be saved, and not loaded."""

    save = KeptFlat.save


class Finished(KeptFlat):
    """Takes no more rows once it was loaded."""

    loaded: FlatEngine | None = None

    def load(self, path: Path) -> Self:
        self.loaded = KeptFlat(self.dim).load(path)
        return super().load(path)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        return super().search(queries, k) if self.loaded is None or self._allowed is not None else self.loaded.search(queries, k)


class Overwriting(KeptFlat):
    """Writes what is added into the folder that it was loaded from."""

    folder: Path | None = None

    def load(self, path: Path) -> Self:
        super().load(path)
        self.folder = path
        return self

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        super().add(ids, rows)
        if self.folder is not None:
            self.save(self.folder)


class Repeating(KeptFlat):
    """Does not know, once it was loaded, which ids it has."""

    is_loaded = False

    def load(self, path: Path) -> Self:
        super().load(path)
        self.is_loaded = True
        return self

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if self.is_loaded:
            new = ~np.isin(ids, self._ids)
            ids, rows = ids[new], rows[new]
        super().add(ids, rows)


class Unfilled(FlatEngine):
    """Filters what it found, so that a narrow filter leaves too few."""

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if self._allowed is None or len(self._allowed) >= 0.05 * len(self._ids) or len(self._allowed) < 5:
            return super().search(queries, k)
        return super().search(queries, k - 1)


class Removing(Retaining):
    """Removes what it should retain."""

    def retain(self, ids: np.ndarray) -> None:
        super().retain(np.setdiff1d(self._ids, ids))


class Remembering(Retaining):
    """Removes rows, and still refuses their ids."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.seen: set[int] = set()

    def retain(self, ids: np.ndarray) -> None:
        self.seen |= set(np.setdiff1d(self._ids, ids).tolist())
        super().retain(ids)

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        new = np.array([id not in self.seen for id in ids.tolist()], dtype=bool)
        super().add(ids[new], rows[new])


class Loose(FlatEngine):
    """A filter of a filter forgets the first."""

    def filter(self, ids: np.ndarray) -> Self:
        whole = super().filter(self._ids) if self._allowed is not None else self
        whole._allowed = None
        return FlatEngine.filter(whole, self._ids if self._allowed is not None else ids)


class Unit(FlatEngine):
    """Gives cosines, whatever the length of a query."""

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        return super().search(queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-9), k)


class Distances(Hnsw):
    """Gives distances, best first, and calls them scores."""

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        found = super().search(queries, k)
        return Neighbours(found.ids, (2 * found.scores - 2).astype(np.float32))


class Borrowed(FlatEngine):
    """Keeps the caller's own array until it is searched."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        super().add(ids, rows)
        self.parts.append((ids, rows))

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if self._allowed is not None:
            return super().search(queries, k)
        engine = FlatEngine(self.dim)
        for ids, rows in self.parts:
            engine.add(ids, rows)
        return engine.search(queries, k)


class Unfiltered(FlatEngine):
    """Scores every row, also those that a filter keeps back."""

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._ids, np.asarray(queries, np.float32) @ self._rows(np.arange(len(self._ids))).T


class Half(FlatEngine):
    """Scores in half precision."""

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, scores = super().scores(queries)
        return ids, scores.astype(np.float16).astype(np.float32)


class Shuffled(FlatEngine):
    """Names the rows in another order than their scores."""

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, scores = super().scores(queries)
        return np.sort(ids), scores


class Double(FlatEngine):
    """Scores in double precision, which takes twice the memory."""

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, scores = super().scores(queries)
        return ids, scores.astype(np.float64)


WRONG = {
    Unfiltered: "scores must name each searched row once",
    Half: "a score is off by .* from the inner product",
    Shuffled: "a score is off by .* from the inner product",
    Double: "scores are float64 .*, wanted float32",
    Unfound: "other neighbours.* than brute force",
    Uncounted: "this one has no __len__",
    Frozen: "a search after an earlier search does not see all of them",
    Unsaved: "save wrote no file into",
    HalfKept: "an engine that is kept has save and load, and this one has only save",
    Finished: "grown after load: ",
    Overwriting: "must leave the folder as it is",
    Repeating: "an id that is there already must be an InputError",
    Unfilled: "rows pass a filter, 10 are wanted, and 9 are found",
    Removing: "retained: other neighbours",
    Remembering: "added again",
    Elsewhere: "rows were saved, and 0 loaded|other answers after save and load",
    Loose: "a filter of a filter lets through what both let through",
    Unit: "other scores than brute force",
    Borrowed: "other (neighbours|scores).* than brute force",
}


@pytest.mark.parametrize("engine", WRONG, ids=lambda engine: engine.__name__)
def test_the_suite_rejects_a_wrong_engine_and_says_what_is_wrong(engine, tmp_path):
    with pytest.raises(AssertionError, match=WRONG[engine]):
        check_engine(engine, tmp_path)


@pytest.mark.parametrize("engine", [Frozen, Unsaved, Elsewhere, Loose, Borrowed], ids=lambda engine: engine.__name__)
def test_a_stated_recall_excuses_no_mistake_but_neighbours_that_are_missed(engine, tmp_path):
    with pytest.raises(AssertionError, match=WRONG[engine] + "|is off by"):
        check_engine(engine, tmp_path, min_recall=0.1)


def test_scores_that_are_no_inner_products_are_rejected_also_of_an_approximate_engine(tmp_path):
    with pytest.raises(AssertionError, match=r"a score is off by .* from the inner product"):
        check_engine(Distances, tmp_path, min_recall=0.1)


def test_an_exact_and_an_approximate_engine_keep_the_contract(tmp_path):
    check_engine(FlatEngine, tmp_path / "flat")
    check_engine(KeptFlat, tmp_path / "kept")
    check_engine(Retaining, tmp_path / "retaining")
    check_engine(Codes, tmp_path / "codes", min_recall=0.7)
    check_engine(partial(Hnsw, links=32), tmp_path / "hnsw", min_recall=0.95)


def test_an_engine_is_held_to_the_recall_that_it_states(tmp_path):
    check_engine(Unfound, tmp_path / "loose", min_recall=0.0)
    with pytest.raises(AssertionError, match=r"recall 0\.\d+, stated 0.99"):
        check_engine(Unfound, tmp_path / "tight", min_recall=0.99)


class OtherOfEqualRows(FlatEngine):
    """Exact in its scores; among equal rows it takes those with the larger ids, as an approximate engine may."""

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        found = super().search(queries, max(len(self), 1))
        order = np.lexsort((-found.ids, -found.scores), axis=1)[:, : max(k, 0)]
        if k < 1:
            raise InputError("k is at least 1")
        return Neighbours(np.take_along_axis(found.ids, order, 1), np.take_along_axis(found.scores, order, 1))


def test_any_of_several_equal_rows_is_a_hit(tmp_path):
    check_engine(OtherOfEqualRows, tmp_path, min_recall=0.999)


# -- ways to combine terms -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BestOfAll(CalibratedProduct):
    """Compares a picture with the best one."""

    def combine(self, terms: TermScores) -> np.ndarray:
        added = CalibratedProduct.combine(self, terms)
        return added - added.max(axis=1, keepdims=True, initial=-1e3)


@dataclass(frozen=True, slots=True)
class Farthest(VectorSum):
    """Finds what is least alike."""

    def combine(self, terms: TermScores) -> np.ndarray:
        return -VectorSum.combine(self, terms)


@dataclass(frozen=True, slots=True)
class Stepped(CalibratedProduct):
    """A picture has a term or has it not."""

    def combine(self, terms: TermScores) -> np.ndarray:
        return terms.weights[:, None] * np.where(terms.standard > 1, 0.0, -1.0)


@dataclass(frozen=True, slots=True)
class TooFlat(CalibratedProduct):
    """Bounds the change per standard deviation, not per cosine."""

    def slopes(self, terms: TermScores) -> np.ndarray:
        return CalibratedProduct.slopes(self, terms) * terms.std


@dataclass(frozen=True, slots=True)
class FirstOfAll(CalibratedProduct):
    """The first term counts twice."""

    def combine(self, terms: TermScores) -> np.ndarray:
        return CalibratedProduct.combine(self, replace(terms, weights=terms.weights * (1 + (np.arange(len(terms.weights)) == 0))))

    def slopes(self, terms: TermScores) -> np.ndarray:
        return 2 * CalibratedProduct.slopes(self, terms)


@dataclass(frozen=True, slots=True)
class Squared(CalibratedProduct):
    """An unwanted term counts by the square of its weight."""

    def combine(self, terms: TermScores) -> np.ndarray:
        return CalibratedProduct.combine(self, self._squared(terms))

    def slopes(self, terms: TermScores) -> np.ndarray:
        return CalibratedProduct.slopes(self, self._squared(terms))

    def _squared(self, terms: TermScores) -> TermScores:
        return replace(terms, weights=np.where(terms.without, terms.weights**2, terms.weights))


@dataclass(frozen=True, slots=True)
class Logarithm(VectorSum):
    """The logarithm of a cosine, which may be negative."""

    def combine(self, terms: TermScores) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.log(terms.cosines)


@dataclass(frozen=True, slots=True)
class Totals(VectorSum):
    """Gives scores, not what each term adds."""

    def combine(self, terms: TermScores) -> np.ndarray:
        return VectorSum.combine(self, terms).sum(axis=0)


@dataclass(frozen=True, slots=True)
class Scaled(VectorSum):
    """Scales what it was given, in place."""

    def combine(self, terms: TermScores) -> np.ndarray:
        terms.cosines[:] *= terms.weights[:, None]
        return terms.cosines.copy()


@dataclass(frozen=True, slots=True)
class Unbounded(VectorSum):
    """One slope for all terms."""

    def slopes(self, terms: TermScores) -> np.ndarray:
        return VectorSum.slopes(self, terms).max()


@dataclass(frozen=True, slots=True)
class Undecided(VectorSum):
    """Does not say what its scores are."""

    is_product: ClassVar[None] = None  # type: ignore[assignment]


class Unkept:
    """Has constants that a store cannot keep."""

    centred, is_product = True, True
    combine, slopes = CalibratedProduct.combine, CalibratedProduct.slopes


class Slopeless:
    """Says no slopes."""

    centred, is_product, combine = True, True, CalibratedProduct.combine


WRONG_WAYS = {
    BestOfAll: "must not depend on the pictures beside it",
    Farthest: "the higher cosine must have the higher score|its slope is",
    Stepped: "its slope is|the higher cosine must have the higher score",
    TooFlat: "A slope is the most that a score changes",
    FirstOfAll: "must not depend on its place among the terms",
    Squared: "it must order pictures in the same way",
    Logarithm: "not finite",
    Totals: "expected what each term adds to each picture",
    Scaled: "combine changes what it is given",
    Unbounded: "expected a finite number for each",
    Undecided: "is_product is None; expected True or False",
    Unkept: "is a dataclass, whose fields a store keeps",
    Slopeless: "this one has no slopes",
}


@pytest.mark.parametrize("way", WRONG_WAYS, ids=lambda way: way.__name__)
def test_the_suite_rejects_a_wrong_way_to_combine_and_says_what_is_wrong(way):
    with pytest.raises(AssertionError, match=WRONG_WAYS[way]):
        check_fusion(way())


@pytest.mark.parametrize(
    "way",
    [
        CalibratedProduct(),
        CalibratedProduct(centred=False, sharpness=2.0, threshold=-1.0, absence_sharpness=0.3, absence_threshold=2.0, picture=2.0),
        CalibratedProduct(absence=3.0, picture=0.1),
        VectorSum(),
    ],
    ids=["product", "sharper product", "stricter product", "sum"],
)
def test_the_built_in_ways_keep_the_contract(way: Fusion):
    for seed in range(5):
        check_fusion(way, seed)
