"""Choose how a store combines terms, by what serves on validation queries.

    chosen = fit(Store(path), ids, make_tasks(texts, names, ids, find_concepts(texts), "validation"))
    with StoreWriter(path) as writer: writer.calibrate(chosen.template, chosen.fusion, chosen.figures)

Constants are chosen, one after the other, each by the task that it serves; the others are the same in every store.

    template, centred, sharpness    the highest mean average precision of "a + b"
    absence                         the highest precision of "a without b" of those that show b at most half as often as a alone does
    picture                         the highest mean average precision of "picture + b instead of a"
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from multimodal.evaluate.arithmetic_tasks import Query, Task, TaskName
from multimodal.search.calibration import Calibration, unit
from multimodal.search.fusion import CalibratedProduct, TermScores, default_fusion
from multimodal.search.segments import unit_rows
from multimodal.search.store import Store

MIN_QUERIES = 10
"""A constant whose task has fewer queries keeps its default."""
MAX_QUERIES = 500
MAX_LEAKAGE = 0.5
"""Of an exclusion: the most that its first ten may show what is excluded, as a share of what a alone shows."""

TEMPLATES = ("{}", "a {}", "a photo of {}")
SHARPNESS = (0.25, 0.5, 1.0)
ABSENCE = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1, 1.6)
PICTURE = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Fitted:
    """figures: of each constant that was chosen, what its task had with it; JSON values."""

    template: str
    fusion: CalibratedProduct
    figures: Mapping[str, Any]


def fit(store: Store, ids: np.ndarray, tasks: Mapping[TaskName, Task], templates: Sequence[str] | None = None) -> Fitted:
    """The constants that serve best on the tasks, which are over the pictures `ids` (n,) of the store and hold validation queries.

    templates: those to choose from; by default TEMPLATES for a contrastive store, and "{}" for spaces that average words.
    """
    kept = store.calibration.template
    if templates is None:
        templates = TEMPLATES if store.family == "contrastive" else ("{}",)
    templates = tuple(dict.fromkeys([kept, *templates]))  # the store's own first: it stays where there is nothing to choose by
    some = {name: _some(task) for name, task in tasks.items()}
    words = sorted({word for task in some.values() for query in task.queries for word in (query.a, query.b)})
    rows = unit_rows(store.take(ids), ids).astype(np.float64)
    fusion, figures = default_fusion(store.family), {}
    ways = [*((template, True) for template in templates), (templates[0], False)]
    calibrations = {template: store.calibrated(template) for template in templates}
    every = {(template, centred): _Terms(store, rows, words, calibrations[template], centred) for template, centred in ways}
    way, both = (templates[0], fusion.centred), some["both"]
    if len(both) >= MIN_QUERIES:
        tried = {
            (one, sharpness): _mean_average_precision(both, _both(both, every[one], replace(fusion, sharpness=sharpness)))
            for one in ways
            for sharpness in SHARPNESS
        }
        way, sharpness = max(tried, key=lambda key: tried[key])
        fusion = replace(fusion, sharpness=sharpness, centred=way[1])
        figures["both"] = {"queries": len(both), "mAP": round(100 * tried[way, sharpness], 2)}
    template, terms = way[0], every[way]
    without = some["without"]
    if len(without) >= MIN_QUERIES:
        alone = _mean(without, terms.raw(without.queries, lambda query: query.a), "leakage")
        served = {}
        for absence in ABSENCE:
            one = replace(fusion, absence=absence)
            scores = _without(without, terms, one)
            served[absence] = _mean(without, scores, "leakage"), _mean(without, scores, "precision")
        few = {absence: value for absence, value in served.items() if value[0] <= MAX_LEAKAGE * alone} or {ABSENCE[-1]: served[ABSENCE[-1]]}
        absence = max(few, key=lambda key: few[key][1])
        fusion = replace(fusion, absence=absence)
        leakage, precision = served[absence]
        figures["without"] = {
            "queries": len(without),
            "P@10": round(100 * precision, 2),
            "leakage": round(100 * leakage, 2),
            "leakage_alone": round(100 * alone, 2),
        }
    instead = some["instead"]
    if len(instead) >= MIN_QUERIES:
        near = {
            picture: _mean_average_precision(instead, _instead(instead, rows, ids, terms, replace(fusion, picture=picture)))
            for picture in PICTURE
        }
        picture = max(near, key=lambda key: near[key])
        fusion = replace(fusion, picture=picture)
        figures["instead"] = {"queries": len(instead), "mAP": round(100 * near[picture], 2)}
    return Fitted(template, fusion, figures)


def describe(fitted: Fitted) -> str:
    """What was chosen, in lines for people."""
    constants = ", ".join(f"{name} {value:g}" for name, value in asdict(fitted.fusion).items() if name != "centred")
    lines = [f'template "{fitted.template}", {"centred" if fitted.fusion.centred else "not centred"}; {constants}']
    for task, figures in fitted.figures.items():
        lines.append(f"{task} on validation words: " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    if not fitted.figures:
        lines.append(f"no task has {MIN_QUERIES} validation queries, so these are the defaults")
    return "\n".join(lines)


class _Terms:
    """The words of queries, as one calibration embeds them or as they are, and their cosines with the pictures."""

    def __init__(self, store: Store, rows: np.ndarray, words: Sequence[str], calibration: Calibration, centred: bool) -> None:
        self.calibration = calibration
        self._places = {word: place for place, word in enumerate(words)}
        none = np.empty((0, store.dim))
        raw = np.array([unit(vector) for vector in store.query_space.embed(list(words))]) if words else none
        units = np.array([calibration.embed(word, store.query_space) for word in words]) if words and centred else raw
        self._cosines, self._raw = units @ rows.T, raw @ rows.T
        self._moments = calibration.moments(units)

    def scores(self, queries: Sequence[Query], word: Callable[[Query], str], without: bool) -> TermScores:
        """One word of each of the q queries: (q, n) cosines."""
        at = np.array([self._places[word(query)] for query in queries])
        mean, std = self._moments
        return _terms(self._cosines[at], mean[at], std[at], without=without, pictures=False)

    def raw(self, queries: Sequence[Query], word: Callable[[Query], str]) -> np.ndarray:
        """(q, n): the cosines of the words as they are."""
        return self._raw[[self._places[word(query)] for query in queries]]


def _terms(cosines: np.ndarray, mean: np.ndarray, std: np.ndarray, without: bool, pictures: bool) -> TermScores:
    """One term of each of q queries. A fusion that treats terms one by one may be given those of many queries at once."""
    num = len(cosines)
    return TermScores(cosines, np.ones(num), np.full(num, without), np.full(num, pictures), mean, std, np.eye(num))


def _both(task: Task, terms: _Terms, fusion: CalibratedProduct) -> np.ndarray:
    a = fusion.combine(terms.scores(task.queries, lambda query: query.a, without=False))
    return a + fusion.combine(terms.scores(task.queries, lambda query: query.b, without=False))


def _without(task: Task, terms: _Terms, fusion: CalibratedProduct) -> np.ndarray:
    a = fusion.combine(terms.scores(task.queries, lambda query: query.a, without=False))
    return a + fusion.combine(terms.scores(task.queries, lambda query: query.b, without=True))


def _instead(task: Task, rows: np.ndarray, ids: np.ndarray, terms: _Terms, fusion: CalibratedProduct) -> np.ndarray:
    row_of = {id: row for row, id in enumerate(ids.tolist())}
    pictures = rows[[row_of[query.picture] for query in task.queries]]
    near = fusion.combine(_terms(pictures @ rows.T, *terms.calibration.moments(pictures), without=False, pictures=True))
    new = fusion.combine(terms.scores(task.queries, lambda query: query.b, without=False))
    return near + new + fusion.combine(terms.scores(task.queries, lambda query: query.a, without=True))


def _mean_average_precision(task: Task, scores: np.ndarray) -> float:
    return _mean(task, scores, "average_precision")


def _mean(task: Task, scores: np.ndarray, figure: str) -> float:
    return task.mean(getattr(task.figures(scores), figure))


def _some(task: Task) -> Task:
    """At most MAX_QUERIES of a task's queries, chosen by a hash."""
    keys = [hashlib.blake2b(f"{query.words} {query.picture}".encode(), digest_size=8).digest() for query in task.queries]
    chosen = np.zeros(len(task), bool)
    chosen[sorted(range(len(task)), key=lambda at: keys[at])[:MAX_QUERIES]] = True
    return task.only(chosen)
