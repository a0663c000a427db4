"""What a page about a run shows, as records, and the functions that read them out of stores, runs and rows of figures.

failures_of(Store("runs/demo/wordvec/store"), ShardSet("runs/demo/shards/fluent"), ids).worst[0].rank

`multimodal.evaluate.page` draws them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from multimodal.errors import InputError
from multimodal.evaluate.classes import Confusion
from multimodal.evaluate.figures import judged_ids
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.metrics import ranks, unit
from multimodal.pairs import Hit
from multimodal.search.query import answer
from multimodal.search.store import Store
from multimodal.shards import ShardSet
from multimodal.text.topics import TopicSpace


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail with what stands under it."""

    thumbnail: bytes | None
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """One query and what one recipe found for it. note: words that it does not know, or why it found nothing; "" where all is plain."""

    query: str
    recipe: str
    pictures: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic by its words, the share of the pictures' mass that it holds (None: of no pictures), and the pictures that hold most of it."""

    words: Sequence[str]
    share: float | None
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure of one recipe over the steps of its training. chance: what the figure is by chance, where that says anything."""

    recipe: str
    figure: str
    steps: Sequence[float]
    values: Sequence[float]
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """A figure of one recipe over the number of pairs that it was trained on: values, and low to high around each; n of each.

    num_pairs ascend. chance: what the figure is by chance, whatever it was trained on.
    """

    recipe: str
    num_pairs: Sequence[int]
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    chance: float
    figure: str = "R@10"
    family: str = ""

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.num_pairs, self.values, self.low, self.high)}
        if len(lengths) > 1 or not self.num_pairs or list(self.num_pairs) != sorted({*self.num_pairs}):
            raise ValueError(f"learning curve {self.recipe}: wanted ascending num_pairs, and values, low and high for each; got {self}")


@dataclass(frozen=True, slots=True)
class Lookup:
    """One text that looked for its own picture.

    rank: of the own picture, from 1; whatever scores the same stands before it. found: the pictures that came first, best first, so that
    found[rank - 1] is the own one where it is among them. note: why nothing was found; "" where all is plain.
    """

    query: str
    own: Picture
    rank: int
    found: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Failures:
    """How single texts of one recipe did among the num_pictures pictures of a gallery.

    worst: the largest ranks first. near: the own picture was just not the first. best: it was, by the widest margins.
    """

    recipe: str
    gallery: str
    num_queries: int
    num_pictures: int
    worst: Sequence[Lookup]
    near: Sequence[Lookup]
    best: Sequence[Lookup]


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """A confusion and what it says.

    rows, columns: what the two axes mean. chance (c,): the share that each class would have among the hits of any query by chance.
    """

    title: str
    confusion: Confusion
    rows: str
    columns: str
    chance: np.ndarray

    def __post_init__(self) -> None:
        c = len(self.confusion.names)
        if self.confusion.shares.shape != (c, c) or np.shape(self.chance) != (c,):
            raise ValueError(
                f"heat map {self.title}: {c} names, shares of shape {self.confusion.shares.shape}, chance of {np.shape(self.chance)}"
            )


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure in a cell of a table, drawn as a bar whose full length is `top`. low, high: its interval, where there is one.

    chance: marked on the bar, and what a figure that means nothing is; called `mark`, where that is another chance than a random order's.
    """

    value: float
    chance: float
    low: float | None = None
    high: float | None = None
    top: float = 100.0
    family: str = ""
    mark: str = "chance"


@dataclass(frozen=True, slots=True)
class Table:
    """Figures of any other protocol. note: what they are, under the title. Each row has a cell for each word of the header."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Figure]]

    def __post_init__(self) -> None:
        if wrong := [row for row in self.rows if len(row) != len(self.header)]:
            raise ValueError(f"table {self.title}: {len(self.header)} columns ({', '.join(self.header)}) and a row of {len(wrong[0])}")


@dataclass(frozen=True, slots=True)
class Report:
    """What the page shows; a section of which there is nothing is left out.

    facts: sentences for the head of the page. not_measured: why points of the learning curves are missing. commands: what printed the
    figures. printed: the tables as they were printed. photographs: whether the pictures are drawn larger than emoji need.
    """

    title: str
    facts: Sequence[str]
    rows: Sequence[RetrievalRow]
    answers: Sequence[Answered]
    topics: Sequence[Topic]
    curves: Sequence[Curve]
    commands: Sequence[str]
    tables: Sequence[Table] = ()
    learning: Sequence[LearningCurve] = ()
    failures: Sequence[Failures] = ()
    heat_maps: Sequence[HeatMap] = ()
    photographs: bool = False
    printed: str = ""
    not_measured: Sequence[str] = ()


def ask(store: Store, recipe: str, queries: Sequence[str], k: int = 8) -> list[Answered]:
    """Each query's first k pictures; where the store refuses one (no word of it is known, say), the reason."""
    answers = []
    for query in queries:
        try:
            found = answer(store, query, k)
        except InputError as error:
            answers.append(Answered(query, recipe, (), str(error)))
            continue
        answers.append(
            Answered(
                query, recipe, pictures_of(store, found.hits), f"unknown: {', '.join(found.query.unknown)}" if found.query.unknown else ""
            )
        )
    return answers


def pictures_of(store: Store, hits: Sequence[Hit]) -> list[Picture]:
    """Thumbnails of hits, in their order."""
    thumbnails = store.thumbnails([hit.id for hit in hits])
    return [Picture(thumbnail, hit.text) for thumbnail, hit in zip(thumbnails, hits, strict=True)]


def topics_of(store: Store, num_words: int = 8, num_pictures: int = 6) -> list[Topic]:
    """Every topic of a topic store, the largest share of the pictures first."""
    space = store.query_space
    if not isinstance(space, TopicSpace):
        raise InputError(f"{store.path}: is a {store.family} store and has no topics")
    rows = np.asarray(store.rows, dtype=np.float32)
    rows = rows / rows.sum(axis=1, keepdims=True)  # stored at unit length; back to distributions
    shares = rows.mean(axis=0)
    words = space.top_words(num_words)
    topics = []
    for topic in np.argsort(-shares):
        best = store.ids[np.argsort(-rows[:, topic], kind="stable")[:num_pictures]]
        topics.append(Topic([str(word) for word in words[topic]], float(shares[topic]), _pictures_of_ids(store, best)))
    return topics


def curves_of(run: Path, recipe: str, figures: Sequence[str] = ("train/loss", "val/R@10")) -> list[Curve]:
    """The named columns of a run's metrics.csv, with the last value of the column of their chance where there is one."""
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    curves = []
    for figure in figures:
        chance = "/chance_".join(figure.rsplit("/", 1))
        points = [(float(line["step"]), float(line[figure])) for line in lines if line.get(figure)]
        if points:
            steps, values = zip(*points, strict=True)
            chances = [float(line[chance]) for line in lines if line.get(chance)]
            curves.append(Curve(recipe, figure, steps, values, chances[-1] if chances else None))
    return curves


def learning_curves_of(rows: Mapping[int, Sequence[RetrievalRow]]) -> list[LearningCurve]:
    """R@10 of each recipe against the number of training pairs.

    rows: number of training pairs -> rows of one gallery and direction; controls and random trunks among them are left out. The value is
    the mean over seeds between the smallest and the largest; of one seed, between the ends of its interval.
    """
    trained = {num: [row for row in rows[num] if not row.control and row.trunk != "random"] for num in sorted(rows)}
    every = [row for of_num in trained.values() for row in of_num]
    if len(kinds := {(row.gallery, row.direction) for row in every}) > 1:
        raise ValueError(f"a learning curve compares rows of one gallery and direction; these are of {sorted(kinds)}")
    curves = []
    for recipe in dict.fromkeys(row.recipe for row in every):
        ours = {num: mine for num, of_num in trained.items() if (mine := [row for row in of_num if row.recipe == recipe])}
        spreads = [spread_of(mine) for mine in ours.values()]
        one = next(iter(ours.values()))[0]
        chance = float(np.mean([row.chance_recall_10 for mine in ours.values() for row in mine]))
        curves.append(
            LearningCurve(
                recipe,
                list(ours),
                [spread.value for spread in spreads],
                [spread.low for spread in spreads],
                [spread.high for spread in spreads],
                chance,
                family=one.family,
            )
        )
    return curves


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean, and how far it may be off."""

    value: float
    low: float
    high: float


def spread_of(rows: Sequence[RetrievalRow]) -> Spread:
    """R@10 over seeds: the mean, the smallest and the largest; of one seed, the figure and its interval over queries."""
    tens = [row.recall_10 for row in rows]
    low, high = (min(tens), max(tens)) if len(rows) > 1 else (rows[0].low, rows[0].high)
    return Spread(float(np.mean(tens)), low, high)


def failures_of(
    store: Store,
    shards: ShardSet,
    ids: np.ndarray,
    recipe: str | None = None,
    gallery: str = "unseen",
    num: int = 8,
    num_found: int = 5,
    queries: Literal["main", "all"] = "main",
) -> Failures:
    """The texts of `ids` (n,) whose own picture came last, nearly first, and first, each with what was found; see `judged_ids`.

    recipe: the store's family by default. num: at most so many of each kind, none of them twice, and one text a picture in each kind.
    num_found: at most so many pictures are shown of what was found. queries: "main" looks up `texts[0]` of each pair, "all" every text.

    Worst are the largest ranks, near misses the smallest ranks but the first, best the first; among equal ranks the own picture that is
    furthest behind the best other one comes first among the worst, and the one that is furthest ahead elsewhere.
    """
    ids = judged_ids(store, shards, ids)
    texts = [shards.texts(int(id))[: 1 if queries == "main" else None] for id in ids]
    own = np.repeat(np.arange(len(ids)), [len(of_pair) for of_pair in texts])  # the place in ids of each query's picture
    asked = [text for of_pair in texts for text in of_pair]
    vectors = store.query_space.embed(asked)
    first = ranks(vectors, store.take(ids), relevant=own)
    margins, others = _others(store, vectors, ids, own, num_found)

    down, up = np.lexsort((margins, -first)), np.lexsort((-margins, first))
    worst = _chosen(down[first[down] > 1], own, num)
    near = _chosen(up[(first[up] > 1) & ~np.isin(up, worst)], own, num)
    best = _chosen(up[first[up] == 1], own, num)

    def lookup(query: int) -> Lookup:
        known = bool(vectors[query].any())
        rank, found = int(first[query]), others[query].tolist() if known else []
        if known and rank <= num_found:
            found = [*found[: rank - 1], int(ids[own[query]]), *found[rank - 1 :]][:num_found]
        picture, *pictures = _pictures_of_ids(store, [int(ids[own[query]]), *found])
        return Lookup(asked[query], picture, rank, pictures, "" if known else "the text space knows no word of it")

    return Failures(
        recipe or store.family,
        gallery,
        len(asked),
        len(ids),
        *([lookup(query) for query in chosen] for chosen in (worst, near, best)),
    )


def _others(store: Store, vectors: np.ndarray, ids: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each query (q, d): how far the own picture is ahead of the best other one, in cosine (q,); the first k others, (q, min(k, m - 1)).

    ids (m,) of the gallery; own (q,) the place in it of each query's picture.
    """
    units, rows = unit(vectors), unit(store.take(ids))
    nearest = store.engine.filter(ids).search(units, k + 1)
    # The own picture goes to the end of each line, which is then cut; where it is not in the line, the last one goes.
    order = np.argsort(nearest.ids == ids[own][:, None], axis=1, kind="stable")[:, : min(k, len(ids) - 1)]
    others, scores = np.take_along_axis(nearest.ids, order, axis=1), np.take_along_axis(nearest.scores, order, axis=1)
    return (units * rows[own]).sum(axis=1) - scores[:, 0], others


def _chosen(queries: np.ndarray, own: np.ndarray, num: int) -> list[int]:
    """The first `num` of the queries, of those that share a picture the first alone."""
    _, firsts = np.unique(own[queries], return_index=True)
    return queries[np.sort(firsts)][:num].tolist()


def _pictures_of_ids(store: Store, ids: Sequence[int] | np.ndarray) -> list[Picture]:
    return [Picture(thumbnail, str(record["text"])) for thumbnail, record in zip(store.thumbnails(ids), store.records(ids), strict=True)]
