"""The three tasks of query arithmetic, made from the texts of held-out pictures, and the figures of scores for their queries.

    tasks = make_tasks(texts, names, ids, find_concepts(texts), half="validation")
    task = tasks["without"]
    task.queries[0].wish                                   # "dog without frisbee"
    found = task.figures(scores)                           # scores (q, n): of the n pictures for each query, from any model
    task.mean(found.average_precision)

- both: pictures that show a and b.
- without: pictures that show a and for which b is absent.
- instead: pictures like a given one, with b in place of a and the rest kept. SIMAT's task (Couairon, Douze, Cord and Schwenk, 2022,
  "Embedding arithmetic of multimodal queries for image retrieval").

`multimodal.evaluate.concepts` says when a picture shows a concept. A picture for which one of a query's concepts is unclear is not ranked.
Scores may be fitted on the validation half of the concepts and are reported for the test half; a query is in a half if all its concepts
are.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, permutations
from typing import Literal

import numpy as np

from multimodal.evaluate.concepts import (
    MANY_TEXTS,
    MAX_SHARE,
    MIN_PICTURES,
    Concept,
    Half,
    Judged,
    frequent,
    judge,
    shared_frames,
    word_sets,
)
from multimodal.metrics import average_precisions, shares_among

TaskName = Literal["both", "without", "instead"]
TASKS: tuple[TaskName, ...] = ("both", "without", "instead")
K = 10
"""Figures are of the first 10 pictures."""

# These were chosen so that 1,000 photographs with five captions give hundreds of queries of each task; no scores were looked at.
MIN_BOTH = 5
MAX_IMPLIED = 0.5
"""both: neither concept is shown by more than this share of the other's pictures, or one of them alone would do."""
MIN_LEFT_OUT, MIN_WITHOUT = 5, 10
"""without: pictures that show both, so that something can be left out, and pictures that show a without b."""
MIN_INSTEAD = 3
MAX_TOGETHER = 0.1
"""instead: a and b are alternatives, shown together in at most this share of the pictures of the rarer one."""
MIN_FRAMES = 8
"""instead: and words of one category, which occur in this many frames of words together; see `shared_frames`."""
MAX_PICTURES = 4
"""instead: query pictures for one (a, b, rest)."""
_CHUNK = 1 << 19
"""Scores that are sorted at once."""


def _written(name: str) -> str:
    """A concept as a term of a query: quoted, unless it is one plain word, so that nothing in it is a sign or a keyword."""
    return name if name.isalpha() and name.lower() not in ("without", "between", "instead") else f'"{name}"'


@dataclass(frozen=True, slots=True)
class Query:
    """One query. words: the names of its concepts: (a, b), or (a, b, rest) if a rest of one concept is kept.

    picture: instead: the id of the given picture. caption: the first of its texts that names a, with b in its place.
    """

    task: TaskName
    words: tuple[str, ...]
    picture: int | None = None
    caption: str = ""

    @property
    def a(self) -> str:
        return self.words[0]

    @property
    def b(self) -> str:
        return self.words[1]

    @property
    def wish(self) -> str:
        """The query as one writes it for `multimodal search`."""
        a, b = _written(self.a), _written(self.b)
        if self.task == "both":
            return f"{a} + {b}"
        return f"{a} without {b}" if self.task == "without" else f"image:{self.picture} + {b} instead of {a}"

    @property
    def difference(self) -> str:
        """The query as a sum of vectors with signs."""
        a, b = _written(self.a), _written(self.b)
        if self.task == "both":
            return f"{a} + {b}"
        return f"{a} - {b}" if self.task == "without" else f"image:{self.picture} + {b} - {a}"


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Of q queries, each (q,) float64 in [0, 1]; NaN where a figure has no meaning for a task.

    precision: the share of the first 10 that are relevant. average_precision: over the whole ranking.
    leakage: the share of the first 10 that still show what was to go (b of without, a of instead).
    kept: the share of the first 10 that show what was to stay (a of without, the rest of instead).
    """

    precision: np.ndarray
    average_precision: np.ndarray
    leakage: np.ndarray
    kept: np.ndarray


FIGURES = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """q queries over n pictures. ids: (n,) int64.

    relevant, ranked, leaks, kept: (q, n) bool, see `Figures`; relevant items are ranked. leaks, kept: None for "both".
    units: (q,) int64 from 0; the queries of one unit are those with the same words (a, b, rest), and are averaged before anything else, so
    that a frequent combination does not count more than a rare one.
    """

    name: TaskName
    ids: np.ndarray
    queries: tuple[Query, ...]
    relevant: np.ndarray
    ranked: np.ndarray
    leaks: np.ndarray | None
    kept: np.ndarray | None
    units: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def words(self) -> list[str]:
        """The names of all concepts of the queries, ascending."""
        return sorted({word for query in self.queries for word in query.words})

    def only(self, chosen: np.ndarray) -> Task:
        """The queries that are chosen by a mask (q,)."""
        numbers = np.flatnonzero(chosen)
        return Task(
            name=self.name,
            ids=self.ids,
            queries=tuple(self.queries[number] for number in numbers),
            relevant=self.relevant[numbers],
            ranked=self.ranked[numbers],
            leaks=None if self.leaks is None else self.leaks[numbers],
            kept=None if self.kept is None else self.kept[numbers],
            units=np.unique(self.units[numbers], return_inverse=True)[1].reshape(-1),
        )

    def figures(self, scores: np.ndarray) -> Figures:
        """scores (q, n), larger is nearer, finite; of the pictures `ids` for each query. Ties count against the model."""
        if scores.shape != self.ranked.shape:
            raise ValueError(f"task {self.name}: scores have shape {scores.shape}; expected {self.ranked.shape}, (queries, pictures)")
        found: dict[str, list[np.ndarray]] = {name: [] for name in FIGURES}
        step = max(1, _CHUNK // max(1, scores.shape[1]))
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            some, ranked = scores[rows], self.ranked[rows]
            found["precision"].append(shares_among(some, self.relevant[rows], ranked, K, "few"))
            found["average_precision"].append(average_precisions(some, self.relevant[rows], ranked))
            nothing = np.full(len(some), np.nan)
            found["leakage"].append(nothing if self.leaks is None else shares_among(some, self.leaks[rows], ranked, K, "many"))
            found["kept"].append(nothing if self.kept is None else shares_among(some, self.kept[rows], ranked, K, "few"))
        return Figures(**{name: np.concatenate([np.empty(0), *parts]) for name, parts in found.items()})

    def of_units(self, values: np.ndarray) -> np.ndarray:
        """The mean of values (q,) over the queries of each unit; (u,)."""
        means: np.ndarray = np.bincount(self.units, weights=values) / np.bincount(self.units)
        return means

    def mean(self, values: np.ndarray) -> float:
        """The mean of values (q,) over units."""
        return float(self.of_units(values).mean())


def make_tasks(
    texts: Sequence[Sequence[str]],
    names: Sequence[str],
    ids: np.ndarray,
    concepts: Sequence[Concept],
    half: Half,
    min_pictures: int = MIN_PICTURES,
    max_share: float = MAX_SHARE,
) -> dict[TaskName, Task]:
    """The tasks of n pictures, from those of the concepts that are in the half, and frequent enough (see `frequent`).

    texts: those of each picture, the main one first. names: of the pictures; they decide which of many pictures queries start from.
    ids: (n,) int64, the pictures' ids in the store. A task without queries has none: `len(task) == 0`.
    """
    judged = frequent(judge(texts, concepts).of_half(half), min_pictures, max_share)
    ids = np.asarray(ids, np.int64)
    if max(map(len, texts), default=0) >= MANY_TEXTS:
        instead = _instead_of_captions(judged, shared_frames(texts, judged.concepts), names)
    else:
        instead = _instead_of_names(judged, word_sets(texts, judged.concepts), names)
    made: dict[TaskName, list[_Made]] = {"both": list(_both(judged)), "without": list(_without(judged)), "instead": list(instead)}
    captions = _Captions(texts, judged.concepts)
    return {name: _task(name, made[name], captions, ids) for name in TASKS}


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """One query; picture: the row of the given one. rest: what it keeps, to tell units apart."""

    words: tuple[str, ...]
    relevant: np.ndarray
    ranked: np.ndarray
    leaks: np.ndarray | None = None
    kept: np.ndarray | None = None
    picture: int | None = None
    rest: frozenset[str] = frozenset()


class _Captions:
    """Texts of pictures with one concept in place of another."""

    def __init__(self, texts: Sequence[Sequence[str]], concepts: Sequence[Concept]) -> None:
        self._texts = texts
        self._patterns = {
            concept.name: re.compile(rf"\b(?:{'|'.join(re.escape(form) for form in sorted(concept.forms, key=len, reverse=True))})\b", re.I)
            for concept in concepts
        }

    def of(self, picture: int, a: str, b: str) -> str:
        """The first text of the picture that names a, with b in its place; its main text if none has it in this spelling."""
        named = (text for text in self._texts[picture] if self._patterns[a].search(text))
        return self._patterns[a].sub(b, next(named, self._texts[picture][0]))


def _task(name: TaskName, made: Sequence[_Made], captions: _Captions, ids: np.ndarray) -> Task:
    unit_numbers: dict[tuple[tuple[str, ...], frozenset[str]], int] = {}
    units = [unit_numbers.setdefault((one.words, one.rest), len(unit_numbers)) for one in made]
    queries = tuple(
        Query(name, one.words)
        if one.picture is None
        else Query(name, one.words, int(ids[one.picture]), captions.of(one.picture, one.words[0], one.words[1]))
        for one in made
    )

    def stacked(masks: list[np.ndarray]) -> np.ndarray:
        return np.array(masks, dtype=bool).reshape(len(masks), len(ids))

    is_both = name == "both"
    return Task(
        name=name,
        ids=ids,
        queries=queries,
        relevant=stacked([one.relevant for one in made]),
        ranked=stacked([one.ranked for one in made]),
        leaks=None if is_both else stacked([one.leaks for one in made if one.leaks is not None]),
        kept=None if is_both else stacked([one.kept for one in made if one.kept is not None]),
        units=np.array(units, np.int64),
    )


def _both(judged: Judged) -> Iterator[_Made]:
    shows, clear = judged.shows, judged.shows | judged.lacks
    counts, together = _counts(shows), _together(shows, shows)
    for a, b in combinations(range(len(judged.concepts)), 2):
        if together[a, b] >= MIN_BOTH and together[a, b] <= MAX_IMPLIED * min(counts[a], counts[b]):
            words = (judged.concepts[a].name, judged.concepts[b].name)
            yield _Made(words, shows[:, a] & shows[:, b], clear[:, a] & clear[:, b])


def _without(judged: Judged) -> Iterator[_Made]:
    shows, lacks, clear = judged.shows, judged.lacks, judged.shows | judged.lacks
    together, apart = _together(shows, shows), _together(shows, lacks)
    for a, b in permutations(range(len(judged.concepts)), 2):
        if together[a, b] >= MIN_LEFT_OUT and apart[a, b] >= MIN_WITHOUT:
            words = (judged.concepts[a].name, judged.concepts[b].name)
            ranked = clear[:, a] & clear[:, b]
            yield _Made(words, shows[:, a] & lacks[:, b], ranked, leaks=shows[:, b], kept=shows[:, a])


def _instead_of_captions(judged: Judged, frames: np.ndarray, names: Sequence[str]) -> Iterator[_Made]:
    """The rest is one concept r: from pictures that show a and r, but not b, to those that show b and r, but not a."""
    shows, lacks, clear = judged.shows, judged.lacks, judged.shows | judged.lacks
    counts, together = _counts(shows), _together(shows, shows)
    concepts = [concept.name for concept in judged.concepts]
    for a, b in permutations(range(len(concepts)), 2):
        if frames[a, b] < MIN_FRAMES or together[a, b] > MAX_TOGETHER * min(counts[a], counts[b]):
            continue
        before, after = shows[:, a] & lacks[:, b], shows[:, b] & lacks[:, a]
        for r in range(len(concepts)):
            given, relevant = np.flatnonzero(before & shows[:, r]), after & shows[:, r]
            if r in (a, b) or not len(given) or relevant.sum() < MIN_INSTEAD:
                continue
            words = (concepts[a], concepts[b], concepts[r])
            ranked = clear[:, a] & clear[:, b] & clear[:, r]
            for picture in _some(given.tolist(), names, words):
                others = ranked.copy()
                others[picture] = False
                yield _Made(words, relevant, others, leaks=shows[:, a], kept=shows[:, r], picture=picture)


def _instead_of_names(judged: Judged, sets: Sequence[frozenset[str]], names: Sequence[str]) -> Iterator[_Made]:
    """The rest are all the other words: from `man running` to pictures whose words are those of `woman running`, in any order."""
    concepts = {concept.name: number for number, concept in enumerate(judged.concepts)}
    by_rest: dict[frozenset[str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, words in enumerate(sets):
        for a in sorted(words & concepts.keys()):
            if len(words) > 1:
                by_rest[words - {a}][a].append(row)
    everything = np.ones(len(sets), dtype=bool)
    for rest, of_word in by_rest.items():
        keeps = np.array([rest <= words for words in sets], dtype=bool) if len(of_word) > 1 else everything
        for a, b in permutations(sorted(of_word), 2):
            relevant = np.zeros(len(sets), dtype=bool)
            relevant[of_word[b]] = True
            for picture in _some(of_word[a], names, (a, b, *sorted(rest))):
                others = everything.copy()
                others[picture] = False
                yield _Made((a, b), relevant, others, judged.shows[:, concepts[a]], keeps, picture, rest)


def _counts(shows: np.ndarray) -> np.ndarray:
    counts: np.ndarray = shows.sum(axis=0)
    return counts


def _together(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(c, c): in how many pictures concept i of the first and concept j of the second are both true."""
    return first.T.astype(np.int64) @ second.astype(np.int64)


def _some(pictures: Sequence[int], names: Sequence[str], words: Sequence[str]) -> list[int]:
    """At most MAX_PICTURES of them, chosen by a hash of the words and of their names."""

    def mark(picture: int) -> bytes:
        return hashlib.blake2b("\0".join([*words, names[picture]]).encode("utf-8", "surrogatepass"), digest_size=8).digest()

    return sorted(pictures, key=mark)[:MAX_PICTURES]


def scores_of(system: Callable[[str], np.ndarray], queries: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """(q, n): what a system says of the pictures `rows` of its store for each query. Each different query is asked once."""
    asked: dict[str, np.ndarray] = {}
    for query in queries:
        if query not in asked:
            asked[query] = np.asarray(system(query), np.float64)[rows]
    return np.array([asked[query] for query in queries]).reshape(len(queries), len(rows))
