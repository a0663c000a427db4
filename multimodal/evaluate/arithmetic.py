"""Query arithmetic: do `a + b`, `a without b` and `picture + b instead of a` find pictures that are as the words say?

    multimodal evaluate arithmetic --store S --shards flickr8k --part dev          # with the constants that the store keeps
    multimodal evaluate arithmetic --store S --shards flickr8k --part dev --fit    # choose them on half of the words, report on the others

Queries are made from the texts of held-out pictures, which also say which pictures are right: see `multimodal.evaluate.arithmetic_tasks`.
Each task has a baseline that does no arithmetic: the better one of two words, the word a alone, the picture alone. A way of combining terms
is worth its name if it beats that baseline, so each line of the table has the difference from it.

To evaluate a model of your own, a function from a query to scores is enough:

    tasks = make_tasks(texts, names, ids, find_concepts(texts), "test")
    answered = compare(tasks, np.arange(len(ids)), my_scores)       # my_scores("dog") -> (n,)
    print(as_table([ArithmeticRow.of(one, "mine", "mine", "flickr8k", "test") for one in answered], answered))
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.boxes import atomic_write
from multimodal.errors import InputError
from multimodal.evaluate.arithmetic_fit import describe
from multimodal.evaluate.arithmetic_fit import fit as fit_constants
from multimodal.evaluate.arithmetic_tasks import FIGURES, Figures, K, Query, Task, TaskName, make_tasks, scores_of
from multimodal.evaluate.concepts import MIN_PICTURES, Half, find_concepts, read_concepts
from multimodal.evaluate.figures import FigureRow, align, judged_ids, per_cent, queries_path, write_rows
from multimodal.metrics import Interval, chance_average_precision, word_intervals
from multimodal.search.fusion import FUSIONS, NothingToFind, VectorSum
from multimodal.search.query import ScoreAll
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter
from multimodal.shards import Part, SetPath, Split, open_set

System = Callable[[str], np.ndarray]
"""A query, as one writes it for `multimodal search` -> scores (n,) of all pictures of a store, in the order of its ids; larger: nearer."""

BASELINES: Mapping[TaskName, str] = {"both": "best single", "without": "a alone", "instead": "picture alone"}
FIELDS = (*FIGURES, "precision_over", "average_precision_over")


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What one system answered to the q queries of a task; entry i of every sequence is query i's.

    queries: as the system was asked. words: the concepts of each. pictures: the given picture's id, or None. units: see `Task`.
    figures: name of FIELDS -> (q,) float64; `..._over` is the difference from the task's baseline, for the same query.
    num_relevant, num_ranked: (q,) int64, the relevant pictures of each query, and all that were ranked.
    """

    task: TaskName
    system: str
    num_pictures: int
    queries: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    pictures: tuple[int | None, ...]
    units: np.ndarray
    figures: Mapping[str, np.ndarray]
    num_relevant: np.ndarray
    num_ranked: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)

    def of_units(self) -> np.ndarray:
        """(u, f): the mean of each of FIELDS over the queries of each unit."""
        sizes = np.bincount(self.units)
        return np.stack([np.bincount(self.units, weights=self.figures[name]) / sizes for name in FIELDS], axis=1)

    def words_of_units(self) -> list[tuple[str, ...]]:
        """The words of each unit."""
        _, first = np.unique(self.units, return_index=True)
        return [self.words[number] for number in first]

    def mean(self, values: np.ndarray) -> float:
        """The mean of values (q,) over units."""
        return float((np.bincount(self.units, weights=values) / np.bincount(self.units)).mean())


@dataclass(frozen=True, slots=True)
class ArithmeticRow(FigureRow):
    """One line of a table of figures. Shares are in per cent; None where a figure has no meaning for the task.

    half: of the concepts. num_units: the combinations of words, over which figures are averaged. num_words: the concepts in them.
    precision_10, mean_average_precision, leakage_10, kept_10: see `multimodal.evaluate.arithmetic_tasks.Figures`.
    precision_10_over, mean_average_precision_over: the difference from the task's baseline, for the same queries.
    ..._low, ..._high: 95 % bootstrap intervals over the words (see `word_intervals`).
    control: whether the run was trained with texts shuffled across pictures, so that it should score at chance.
    """

    recipe: str
    family: str
    trunk: str
    gallery: str
    half: Half
    task: TaskName
    system: str
    num_pictures: int
    num_queries: int
    num_units: int
    num_words: int
    precision_10: float
    mean_average_precision: float
    leakage_10: float | None
    kept_10: float | None
    precision_10_over: float
    mean_average_precision_over: float
    chance_precision_10: float
    chance_average_precision: float
    precision_10_low: float
    precision_10_high: float
    mean_average_precision_low: float
    mean_average_precision_high: float
    precision_10_over_low: float
    precision_10_over_high: float
    mean_average_precision_over_low: float
    mean_average_precision_over_high: float
    seed: int
    control: bool

    keys: ClassVar[Mapping[str, str]] = {
        "precision_10": "P@10",
        "mean_average_precision": "mAP",
        "leakage_10": "leakage@10",
        "kept_10": "kept@10",
        "precision_10_over": "P@10_over",
        "mean_average_precision_over": "mAP_over",
        "chance_precision_10": "chance_P@10",
        "chance_average_precision": "chance_mAP",
        "precision_10_low": "P@10_low",
        "precision_10_high": "P@10_high",
        "mean_average_precision_low": "mAP_low",
        "mean_average_precision_high": "mAP_high",
        "precision_10_over_low": "P@10_over_low",
        "precision_10_over_high": "P@10_over_high",
        "mean_average_precision_over_low": "mAP_over_low",
        "mean_average_precision_over_high": "mAP_over_high",
    }

    @classmethod
    def of(
        cls,
        answered: Answered,
        recipe: str,
        family: str,
        gallery: str,
        half: Half,
        trunk: str = "pretrained",
        seed: int = 0,
        control: bool = False,
    ) -> ArithmeticRow:
        """From what one system answered; see `compare`."""
        mean = {name: _per_cent(answered.mean(answered.figures[name])) for name in FIELDS}
        bounds = _intervals([answered])
        return cls(
            recipe=recipe,
            family=family,
            trunk=trunk,
            gallery=gallery,
            half=half,
            task=answered.task,
            system=answered.system,
            num_pictures=answered.num_pictures,
            num_queries=len(answered),
            num_units=int(answered.units.max()) + 1,
            num_words=len({word for words in answered.words for word in words}),
            precision_10=mean["precision"] or 0.0,
            mean_average_precision=mean["average_precision"] or 0.0,
            leakage_10=mean["leakage"],
            kept_10=mean["kept"],
            precision_10_over=mean["precision_over"] or 0.0,
            mean_average_precision_over=mean["average_precision_over"] or 0.0,
            chance_precision_10=per_cent(answered.mean(answered.num_relevant / answered.num_ranked)),
            chance_average_precision=per_cent(answered.mean(_chance(answered))),
            precision_10_low=bounds["precision"].low,
            precision_10_high=bounds["precision"].high,
            mean_average_precision_low=bounds["average_precision"].low,
            mean_average_precision_high=bounds["average_precision"].high,
            precision_10_over_low=bounds["precision_over"].low,
            precision_10_over_high=bounds["precision_over"].high,
            mean_average_precision_over_low=bounds["average_precision_over"].low,
            mean_average_precision_over_high=bounds["average_precision_over"].high,
            seed=seed,
            control=control,
        )


# -- systems -------------------------------------------------------------------------------------------------------------------------------


def system_of(scores: ScoreAll, num: int) -> System:
    """A way of combining terms as a system. A query of terms that cancel, as two words of one topic do, finds nothing: all scores are 0."""

    def ask(query: str) -> np.ndarray:
        try:
            return scores(query)
        except NothingToFind:
            return np.zeros(num)

    return ask


def compare(
    tasks: Mapping[TaskName, Task], rows: np.ndarray, vectors: System, others: Mapping[str, System] | None = None
) -> list[Answered]:
    """What several systems answer to the queries of each task, its baseline first.

    rows: (n,) the place of each of the tasks' pictures among a system's scores.
    vectors: scores of single terms, phrases, and sums of terms with signs (`dog - frisbee`, `image:7 + woman - man`): from it come each
    task's baseline, "sum" and "phrase" (for "instead": the given picture's caption with b in place of a).
    others: name -> what is asked each query as a wish: `dog + ball`, `dog without frisbee`, `image:7 + woman instead of man`. Of an
        exclusion it is also asked the wanted word alone, since a way may find single words better, too.
    Tasks without queries are left out.
    """
    answered = []
    for task in tasks.values():
        if not len(task):
            continue
        forms = _forms(task.name)

        def asked(form: Callable[[Query], str], system: System = vectors, task: Task = task) -> tuple[tuple[str, ...], Figures]:
            queries = tuple(form(query) for query in task.queries)
            return queries, task.figures(scores_of(system, queries, rows))

        base_queries, base = asked(forms[BASELINES[task.name]])
        if task.name == "both":  # the higher figure of the two words: no single word is better
            second_queries, second = asked(lambda query: _quoted(query.b))
            base_queries = tuple(" | ".join(both) for both in zip(base_queries, second_queries, strict=True))
            base = Figures(**{name: np.maximum(getattr(base, name), getattr(second, name)) for name in FIGURES})
        answered.append(_answered(task, BASELINES[task.name], base_queries, base, base))
        for name in forms:
            if name != BASELINES[task.name]:
                answered.append(_answered(task, name, *asked(forms[name]), base))
        for name, system in (others or {}).items():
            if task.name == "without":
                answered.append(_answered(task, f"a alone, {name}", *asked(lambda query: _quoted(query.a), system), base))
            answered.append(_answered(task, name, *asked(lambda query: query.wish, system), base))
    return answered


def _forms(task: TaskName) -> dict[str, Callable[[Query], str]]:
    """System -> how it is asked."""
    if task == "both":
        return {
            "best single": lambda query: _quoted(query.a),
            "sum": lambda query: query.difference,
            "phrase": lambda query: _quoted(f"{query.a} {query.b}"),
        }
    if task == "without":
        return {
            "a alone": lambda query: _quoted(query.a),
            "sum": lambda query: query.difference,
            "phrase": lambda query: _quoted(f"{query.a} without {query.b}"),
        }
    return {
        "picture alone": lambda query: f"image:{query.picture}",
        "sum": lambda query: query.difference,
        "caption": lambda query: _quoted(query.caption),
    }


def _bare(phrase: str) -> str:
    """Without quotes, so that it can be quoted."""
    return " ".join(phrase.translate({ord(mark): " " for mark in '"“”'}).split())


def _quoted(phrase: str) -> str:
    """A phrase in which no sign means anything."""
    return f'"{_bare(phrase)}"'


def _answered(task: Task, system: str, queries: tuple[str, ...], found: Figures, base: Figures) -> Answered:
    figures = {name: getattr(found, name) for name in FIGURES}
    for name in ("precision", "average_precision"):
        figures[f"{name}_over"] = figures[name] - getattr(base, name)
    return Answered(
        task=task.name,
        system=system,
        num_pictures=len(task.ids),
        queries=queries,
        words=tuple(query.words for query in task.queries),
        pictures=tuple(query.picture for query in task.queries),
        units=task.units,
        figures=figures,
        num_relevant=task.relevant.sum(axis=1),
        num_ranked=task.ranked.sum(axis=1),
    )


# -- the verb ------------------------------------------------------------------------------------------------------------------------------


def evaluate(
    store: Path,
    shards: SetPath,
    part: Part = "test",
    split: Split = Split(),  # noqa: B008 (frozen)
    half: Half = "test",
    fit: bool = False,
    concepts: Path | None = None,
    min_pictures: int = MIN_PICTURES,
    gallery: str = "unseen",
    recipe: str | None = None,
    trunk: str = "pretrained",
    control: bool = False,
    output: Path | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
) -> list[ArithmeticRow]:
    """Ask for pictures with two things, with one but not another, and with one thing in place of another; print figures and baselines.

    Args:
        store: made by `multimodal index` from the shard set.
        shards: the shard set, a folder or a URL, whose texts say what each picture shows.
        part: which split to evaluate; pairs of "test" were held out of all fitting.
        split: how pairs are split; must be as in training.
        half: test, for figures to report; validation, the other concepts, for choosing weights and constants.
        fit: first choose the store's constants on the validation half, and keep them in the store, so that searching uses them.
        concepts: a file of the words to use, one concept a line: dog, dogs, puppy. By default the words of the texts, without stop words.
        min_pictures: leave out concepts that fewer pictures show.
        gallery: the name of these pictures in the table.
        recipe: the name of the run in the table; by default its family.
        trunk: the name of the trunk's weights in the table, such as imagenet or random.
        control: mark the rows as a control, trained with texts shuffled across pictures.
        output: also write the rows to this JSON file, and the figures of each query to a .queries.parquet beside it.
        cache: for a set at a URL, the folder for its tars and columns; by default one in the user's cache folder.
        cache_bytes: the most bytes that tars may take there; by default 20 GiB.
        trust: your own packages whose classes the store names. Their code is run; without this option, nothing is imported because a
            folder names it.
    """
    opened, source = Store(store, trust=trust), open_set(shards, cache, cache_bytes)
    chosen = split.ids(source, part)
    ids = judged_ids(opened, source, chosen)
    if len(ids) < len(chosen):
        print(f"{store}: lacks {len(chosen) - len(ids)} of {len(chosen)} pictures, which are left out", file=sys.stderr)
    source.need_texts(ids, "arithmetic with words")
    texts, names = [source.texts(id) for id in ids.tolist()], [source.names[id] for id in ids.tolist()]
    every = find_concepts(texts) if concepts is None else read_concepts(concepts)
    if fit:
        if half == "validation":
            raise InputError("--fit chooses constants on the validation half, so --half validation would report what was chosen on")
        fitted = fit_constants(opened, ids, _known(make_tasks(texts, names, ids, every, "validation", min_pictures), opened))
        with StoreWriter(store, trust) as writer:
            writer.calibrate(fitted.template, fitted.fusion, fitted.figures)
        print(f"{store}: keeps {describe(fitted)}", file=sys.stderr)
        opened = Store(store, trust=trust)
    tasks = _known(make_tasks(texts, names, ids, every, half, min_pictures), opened)
    for name in [name for name, task in tasks.items() if not len(task)]:
        print(f"{source.place}: no query of the task {name}; more pictures are needed for it", file=sys.stderr)
    if not any(map(len, tasks.values())):
        if fit:
            if output is not None:
                write_answered(output, [], [])
            return []
        raise InputError(
            f"{source.place}: the texts of these {len(ids)} pictures give no query with words of the {half} half. Evaluate more pictures, "
            "or lower --min-pictures"
        )
    row_of = {id: row for row, id in enumerate(opened.ids.tolist())}
    vectors, kept = ScoreAll(opened, "sum"), ScoreAll(opened)
    vectors.embed(list(dict.fromkeys(_bare(query.caption) for query in tasks["instead"].queries)))
    systems = {name_of(opened): system_of(kept, len(opened))} if not isinstance(opened.fusion, VectorSum) else {}
    answered = compare(tasks, np.array([row_of[id] for id in ids.tolist()]), system_of(vectors, len(opened)), systems)
    named = recipe or opened.family
    rows = [ArithmeticRow.of(one, named, opened.family, gallery, half, trunk, split.seed, control) for one in answered]
    if output is not None:
        write_answered(output, rows, answered)
    print(as_table(rows, answered))
    return rows


def name_of(store: Store) -> str:
    """What the table calls a store's own way of combining terms."""
    kind = type(store.fusion)
    return next((name for name, one in FUSIONS.items() if one is kind), kind.__name__)


def _known(tasks: Mapping[TaskName, Task], store: Store) -> dict[TaskName, Task]:
    """Without the queries with a concept that the store's text space does not know; their number is printed."""
    words = sorted({word for task in tasks.values() for word in task.words})
    vectors = store.query_space.embed(words)
    unknown = {word for word, vector in zip(words, vectors, strict=True) if not vector.any()}
    left = {name: task.only(np.array([unknown.isdisjoint(query.words) for query in task.queries])) for name, task in tasks.items()}
    if unknown:
        lost = ", ".join(f"{len(tasks[name]) - len(task)} of {len(tasks[name])} of {name}" for name, task in left.items())
        print(
            f"{store.path}: its text space does not know {len(unknown)} of {len(words)} words: {', '.join(sorted(unknown)[:8])}. "
            f"Queries left out: {lost}",
            file=sys.stderr,
        )
    return left


# -- files ---------------------------------------------------------------------------------------------------------------------------------


def write_answered(output: Path, rows: Sequence[ArithmeticRow], answered: Sequence[Answered]) -> None:
    """Write the rows as JSON, and a Parquet table beside it: one line for each query and system, with its words and figures."""
    lines: dict[str, list[Any]] = {
        "task": [one.task for one in answered for _ in range(len(one))],
        "system": [one.system for one in answered for _ in range(len(one))],
        "num_pictures": [one.num_pictures for one in answered for _ in range(len(one))],
        "query": [query for one in answered for query in one.queries],
        "words": [list(words) for one in answered for words in one.words],
        "picture": [picture for one in answered for picture in one.pictures],
    }
    whole = ("units", "num_relevant", "num_ranked")
    numbers = {name: np.concatenate([np.empty(0, np.int64), *(getattr(one, name) for one in answered)]) for name in whole}
    figures = {name: np.concatenate([np.empty(0), *(one.figures[name] for one in answered)]) for name in FIELDS}
    types = {"words": pa.list_(pa.string()), "picture": pa.int64(), "num_pictures": pa.int64()}
    table = pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in lines.items()} | numbers | figures)
    with atomic_write(queries_path(output)) as file:
        pq.write_table(table, file)
    write_rows(output, rows)  # last: if the rows exist, so does the table of queries


def read_answered(output: Path) -> list[Answered]:
    """What the systems answered behind the rows in `output`, in their order. InputError if the file is missing."""
    path = queries_path(output)
    if not path.is_file():
        raise InputError(f"{path}: is missing; it holds the figures of each query of {output}. Run again the command that wrote {output}")
    columns = pq.read_table(path).to_pydict()
    members: dict[tuple[TaskName, str], list[int]] = {}
    for number, key in enumerate(zip(columns["task"], columns["system"], strict=True)):
        members.setdefault(key, []).append(number)

    def of(name: str, numbers: Sequence[int]) -> list[Any]:
        return [columns[name][number] for number in numbers]

    return [
        Answered(
            task=task,
            system=system,
            num_pictures=columns["num_pictures"][numbers[0]],
            queries=tuple(of("query", numbers)),
            words=tuple(tuple(words) for words in of("words", numbers)),
            pictures=tuple(of("picture", numbers)),
            units=np.array(of("units", numbers), np.int64),
            figures={name: np.array(of(name, numbers), np.float64) for name in FIELDS},
            num_relevant=np.array(of("num_relevant", numbers), np.int64),
            num_ranked=np.array(of("num_ranked", numbers), np.int64),
        )
        for (task, system), numbers in members.items()
    ]


# -- tables --------------------------------------------------------------------------------------------------------------------------------


def as_table(rows: Sequence[ArithmeticRow], answered: Sequence[Answered]) -> str:
    """The rows as text; rows that differ only in seed and figures become one line, with the mean over seeds.

    answered: what each row was made from. The differences from the baseline have 95 % intervals of their mean over seeds, with words drawn
    together with their queries of all seeds; the smallest and largest mAP of the seeds show the variation between seeds.
    """
    if len(rows) != len(answered):
        raise ValueError(f"{len(rows)} rows and the answers of {len(answered)}; expected one for each row")
    members: dict[Hashable, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(_without_seed(row), []).append(number)
    header = ["recipe", "trunk", "gallery", "half", "task", "system", "queries", "words", f"P@{K}", "mAP", "seeds", "leakage", "kept"]
    header += [f"P@{K} over", "95 % interval", "mAP over", "95 % interval", f"chance P@{K}", "chance mAP"]
    lines = [_cells([rows[number] for number in numbers], [answered[number] for number in numbers]) for numbers in members.values()]
    for column in (header.index(name) for name in ("trunk", "gallery", "half")):
        if len({line[column] for line in lines}) == 1:  # says nothing, and the table is wide
            for line in lines:
                line[column] = ""
    return align(header, lines, num_left=6)


def by_word(answered: Sequence[Answered], system: str, figure: str = "precision_over") -> list[tuple[str, int, float]]:
    """For each concept that occurs in the queries of a system, of all seeds: its name, its queries, and the mean of a figure of FIELDS.

    Largest first: the words that arithmetic helps, then those that it hurts.
    """
    found: dict[str, list[float]] = {}
    for one in answered:
        if one.system == system:
            for words, value in zip(one.words, one.figures[figure].tolist(), strict=True):
                for word in set(words):
                    found.setdefault(word, []).append(value)
    means = [(word, len(values), per_cent(float(np.mean(values)))) for word, values in found.items()]
    return sorted(means, key=lambda line: (-line[2], line[0]))


def _cells(rows: Sequence[ArithmeticRow], answered: Sequence[Answered]) -> list[str]:
    first = rows[0]

    def mean(field: str, sign: str = "") -> str:
        values = [getattr(row, field) for row in rows]
        return "" if None in values else f"{np.mean(values):{sign}.1f}"

    of_seeds = [row.mean_average_precision for row in rows]
    bounds, is_base = _intervals(answered), first.system == BASELINES[first.task]
    return [
        first.recipe + (" shuffled" if first.control else ""),
        first.trunk,
        first.gallery,
        first.half,
        first.task,
        first.system,
        f"{np.mean([row.num_queries for row in rows]):.0f}",
        f"{np.mean([row.num_words for row in rows]):.0f}",
        mean("precision_10"),
        mean("mean_average_precision"),
        f"{min(of_seeds):.1f}..{max(of_seeds):.1f} of {len(rows)}" if len(rows) > 1 else "",
        mean("leakage_10"),
        mean("kept_10"),
        "" if is_base else mean("precision_10_over", "+"),
        "" if is_base else _between(bounds["precision_over"]),
        "" if is_base else mean("mean_average_precision_over", "+"),
        "" if is_base else _between(bounds["average_precision_over"]),
        mean("chance_precision_10"),
        mean("chance_average_precision"),
    ]


def _without_seed(row: ArithmeticRow) -> tuple[Hashable, ...]:
    return row.recipe, row.trunk, row.gallery, row.half, row.task, row.system, row.control


def _intervals(answered: Sequence[Answered]) -> dict[str, Interval]:
    """Of the mean over one or several seeds of each of FIELDS, in per cent."""
    words = [words for one in answered for words in one.words_of_units()]
    numbers = {word: number for number, word in enumerate(sorted({word for of_one in words for word in of_one}))}
    width = max(map(len, words))
    table = np.array([[*map(numbers.__getitem__, of_one), *[-1] * (width - len(of_one))] for of_one in words])
    values = [one.of_units() for one in answered]
    weights = np.concatenate([np.full(len(of_one), 1 / len(of_one)) for of_one in values])
    bounds = word_intervals(np.concatenate(values), table, weights)
    return {name: Interval(per_cent(low), per_cent(high)) for name, (low, high) in zip(FIELDS, bounds, strict=True)}


def _chance(answered: Answered) -> np.ndarray:
    """(q,): the average precision of each query in a random order."""
    pairs = np.stack([answered.num_ranked, answered.num_relevant], axis=1)
    different, which = np.unique(pairs, axis=0, return_inverse=True)
    each = np.array([chance_average_precision(num_ranked, num_relevant) for num_ranked, num_relevant in different.tolist()])
    return each[which.reshape(-1)]


def _per_cent(share: float) -> float | None:
    return None if np.isnan(share) else per_cent(share)


def _between(bounds: Interval) -> str:
    return f"[{bounds.low:+.1f}, {bounds.high:+.1f}]"
