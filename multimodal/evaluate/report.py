"""The contents of a page about a run, as records, and the functions that read them from stores, runs and rows of figures.

failures_of(Store("runs/demo/wordvec/store"), ShardSet("runs/demo/shards/fluent"), ids).worst[0].rank

`multimodal.evaluate.page` renders them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

from multimodal.boxes import reading
from multimodal.errors import InputError
from multimodal.evaluate.classes import Confusion
from multimodal.evaluate.figures import judged_ids
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.export.run import CONFIG
from multimodal.metrics import Distance, hardest_triplets, ranks, unit
from multimodal.pages import both_sides
from multimodal.pairs import Hit
from multimodal.pictures.decode import BadPicture, picture
from multimodal.pictures.thumbnails import thumbnail_jpeg
from multimodal.search.query import answer
from multimodal.search.store import Store
from multimodal.shards import BrokenPair, ShardSet
from multimodal.shards.labels import read_labels
from multimodal.text.topics import TopicSpace

THUMBNAIL_PX = 96
OWN_AND_FOREIGN = ("val/R@10", "val/foreign_R@10", "val/zero_shot")
"""Figures of both sides of a fine-tuning; the first is that of the own pairs."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail and its caption."""

    thumbnail: bytes | None
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """One query and what one recipe found for it. note: words that it does not know, or why it found nothing; "" otherwise."""

    query: str
    recipe: str
    pictures: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its words, its mean share over the pictures (None without pictures), and the pictures with the largest shares of it."""

    words: Sequence[str]
    share: float | None
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure of one recipe over the steps of its training. chance: the figure's chance level, if it has one."""

    recipe: str
    figure: str
    steps: Sequence[float]
    values: Sequence[float]
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """A figure of one recipe over the number of its training pairs: n values, each with an interval from low to high.

    num_pairs ascend. chance: the figure's chance level, which does not depend on the training. unit: what there are more of, if not pairs.
    """

    recipe: str
    num_pairs: Sequence[int]
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    chance: float
    figure: str = "R@10"
    family: str = ""
    unit: str = "pairs"

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.num_pairs, self.values, self.low, self.high)}
        if len(lengths) > 1 or not self.num_pairs or list(self.num_pairs) != sorted({*self.num_pairs}):
            raise ValueError(f"learning curve {self.recipe}: needs ascending num_pairs, and values, low and high for each; got {self}")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a run learned and what it forgot. steps: optimiser steps done at each measurement. best: those of best.ckpt."""

    title: str
    steps: Sequence[int]
    curves: Sequence[both_sides.Curve]
    best: int | None = None


@dataclass(frozen=True, slots=True)
class TradeOff:
    """Two figures in per cent of several models, one against the other, joined by a line.

    own, other: what the two figures are. points: (name of the model, own figure, other figure). chances: of the two. note: under the chart.
    """

    title: str
    own: str
    other: str
    points: Sequence[tuple[str, float, float]]
    own_chance: float
    other_chance: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """One text as a query for its own picture.

    rank: of the own picture, from 1; pictures with the same score rank before it. found: the first pictures, best first; found[rank - 1] is
    the own one if it is among them. note: why nothing was found; "" otherwise.
    """

    query: str
    own: Picture
    rank: int
    found: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Failures:
    """Results of single texts of one recipe, among the num_pictures pictures of a gallery.

    worst: largest ranks first. near: the own picture was nearly first. best: it was first, widest margins first.
    """

    recipe: str
    gallery: str
    num_queries: int
    num_pictures: int
    worst: Sequence[Lookup]
    near: Sequence[Lookup]
    best: Sequence[Lookup]


@dataclass(frozen=True, slots=True)
class HardTriplet:
    """A picture that is nearer to one of another class than to one of its own. positive: the farthest of its class, negative: the nearest
    of another. to_positive, to_negative: the distances.
    """

    anchor: Picture
    positive: Picture
    negative: Picture
    to_positive: float
    to_negative: float


@dataclass(frozen=True, slots=True)
class HardTriplets:
    """The hardest triplets of one recipe among the num_pictures pictures of a gallery, hardest first. A picture's text is its class.

    distance: what the distances are.
    """

    recipe: str
    gallery: str
    num_pictures: int
    triplets: Sequence[HardTriplet]
    distance: Distance = "cosine"


@dataclass(frozen=True, slots=True)
class MiningShares:
    """The shares in [0, 1] of easy, semi-hard and hard triplets among all of a batch, over the steps of a training, counted from 1."""

    recipe: str
    steps: Sequence[float]
    easy: Sequence[float]
    semi_hard: Sequence[float]
    hard: Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class Scatter:
    """Pictures at their places in two dimensions: at one moment, or at several of a training, between which the page can move them.

    pictures (n): each with its class as text. places (t, n, 2) in [0, 1]: from left to right, and from below to above. moments (t): what
    each is called, such as "50". spreads (t): the root mean square distance from the mean there, which the places do not show, as those of
    each moment fill the square. classes (n,): a number of each picture's class, which is its colour.
    is_ink: thumbnails are masks; their opacity is what to draw, in the colour of the class.
    """

    title: str
    note: str
    pictures: Sequence[Picture]
    classes: Sequence[int]
    places: np.ndarray
    moments: Sequence[str]
    spreads: Sequence[float]
    is_ink: bool = False

    def __post_init__(self) -> None:
        t, n = len(self.moments), len(self.pictures)
        if self.places.shape != (t, n, 2) or len(self.spreads) != t or len(self.classes) != n or not t:
            raise ValueError(
                f"scatter {self.title}: {n} pictures and {t} moments, with places {self.places.shape}, {len(self.spreads)} spreads and "
                f"{len(self.classes)} classes"
            )


@dataclass(frozen=True, slots=True)
class NeighboursOf:
    """A picture and what is nearest to it, nearest first. own: the index of the one that is right, None if it is not among them."""

    picture: Picture
    nearest: Sequence[Picture]
    own: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Some pictures, each with its nearest ones."""

    title: str
    of: Sequence[NeighboursOf]


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """A confusion matrix and its labels.

    rows, columns: the labels of the two axes. chance (c,): the share of each class among the hits of any query by chance.
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
    """A figure in a cell of a table, drawn as a bar whose full length is `top`. low, high: its interval, if there is one.

    chance: the chance level, marked on the bar. mark: its name, if it is not that of a random order.
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
    """Figures of any other protocol. note: a description under the title. Each row has one cell for each column of the header."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Figure]]

    def __post_init__(self) -> None:
        if wrong := [row for row in self.rows if len(row) != len(self.header)]:
            raise ValueError(
                f"table {self.title}: {len(self.header)} columns ({', '.join(self.header)}) but a row of {len(wrong[0])} cells"
            )


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of the page; empty sections are left out.

    facts: sentences for the top of the page. not_measured: why points of the learning curves are missing. commands: those that produced the
    figures. cmc: of each run, the share of the queries, per cent, with a match among so many ranks (`steps`). roc: of each run, the share
    of same pairs that are accepted where so many different ones (`steps`) are, per cent. printed: the tables as they were printed.
    photographs: draw the pictures larger than emoji.
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
    scatters: Sequence[Scatter] = ()
    mining: Sequence[MiningShares] = ()
    hard_triplets: Sequence[HardTriplets] = ()
    neighbours: Sequence[Neighbours] = ()
    heat_maps: Sequence[HeatMap] = ()
    forgotten: Sequence[Forgotten] = ()
    cmc: Sequence[Curve] = ()
    roc: Sequence[Curve] = ()
    trade_offs: Sequence[TradeOff] = ()
    photographs: bool = False
    printed: str = ""
    not_measured: Sequence[str] = ()


def ask(store: Store, recipe: str, queries: Sequence[str], k: int = 8) -> list[Answered]:
    """Each query's first k pictures; or, if the store refuses the query (for example because it has no known word), the reason."""
    answers = []
    for query in queries:
        try:
            found = answer(store, query, k)
        except InputError as error:
            answers.append(Answered(query, recipe, (), str(error)))
            continue
        answers.append(
            Answered(query, recipe, pictures_of(store, found.hits), f"unknown: {', '.join(found.unknown)}" if found.unknown else "")
        )
    return answers


def pictures_of(store: Store, hits: Sequence[Hit]) -> list[Picture]:
    """Thumbnails of hits, in their order."""
    thumbnails = store.thumbnails([hit.id for hit in hits])
    return [Picture(thumbnail, hit.text) for thumbnail, hit in zip(thumbnails, hits, strict=True)]


def topics_of(store: Store, num_words: int = 8, num_pictures: int = 6) -> list[Topic]:
    """Every topic of a topic store, the topic with the largest mean share over the pictures first."""
    space = store.query_space
    if not isinstance(space, TopicSpace):
        raise InputError(f"{store.path}: is a {store.family} store, which has no topics")
    rows = np.asarray(store.rows, dtype=np.float32)
    rows = rows / rows.sum(axis=1, keepdims=True)  # they are stored at unit length: back to distributions
    shares = rows.mean(axis=0)
    words = space.top_words(num_words)
    topics = []
    for topic in np.argsort(-shares):
        best = store.ids[np.argsort(-rows[:, topic], kind="stable")[:num_pictures]]
        topics.append(Topic([str(word) for word in words[topic]], float(shares[topic]), _pictures_of_ids(store, best)))
    return topics


def curves_of(run: Path, recipe: str, figures: Iterable[str] = ("train/loss", "val/R@10")) -> list[Curve]:
    """The named columns of a run's metrics.csv, with the last value of their chance column if there is one."""
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


def forgotten_of(run: Path, title: str) -> Forgotten:
    """What a run that measures it learned and forgot, from its config and its metrics.csv; the run need not be finished."""
    with reading(run / CONFIG, yaml.YAMLError):
        config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
        monitor, mode, min_kept = config["selection"]["monitor"], config["selection"]["mode"], config["forgetting"]["min_kept"]
    curves = {curve.figure: curve for curve in curves_of(run, title, dict.fromkeys((*OWN_AND_FOREIGN, "val/trade_off", monitor)))}
    if "val/trade_off" not in curves:
        raise InputError(f"{run}: does not measure what it forgets. Train it with --forgetting.pairs or --forgetting.classes")
    chosen = curves[monitor]
    shown = []
    for name in OWN_AND_FOREIGN:
        if name in curves:
            curve = curves[name]
            chance = curve.chance or 0.0
            floor = chance + min_kept / 100 * (curve.values[0] - chance) if name != OWN_AND_FOREIGN[0] and min_kept else None
            shown.append(both_sides.Curve(name, curve.values, chance, floor))
    # In metrics.csv steps count from 0, and -1 is before the first.
    best = int(chosen.steps[int(np.argmax(chosen.values) if mode == "max" else np.argmin(chosen.values))]) + 1
    return Forgotten(title, [int(step) + 1 for step in curves["val/trade_off"].steps], shown, best)


def learning_curves_of(rows: Mapping[int, Sequence[RetrievalRow]]) -> list[LearningCurve]:
    """R@10 of each recipe against the number of training pairs.

    rows: number of training pairs -> rows of one gallery and direction; controls and random trunks are left out. The value is the mean over
    seeds, with the smallest and the largest; for one seed, with the ends of its interval.
    """
    trained = {num: [row for row in rows[num] if not row.control and row.trunk != "random"] for num in sorted(rows)}
    every = [row for of_num in trained.values() for row in of_num]
    if len(kinds := {(row.gallery, row.direction) for row in every}) > 1:
        raise ValueError(f"a learning curve needs rows of one gallery and direction; these are of {sorted(kinds)}")
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
    """A mean and its spread."""

    value: float
    low: float
    high: float


def spread_of(rows: Sequence[RetrievalRow]) -> Spread:
    """R@10 over seeds: the mean, the smallest and the largest; for one seed, the figure and its interval over queries."""
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

    recipe: by default the store's family. num: the most lookups of each kind; none appears twice, and a picture once per kind.
    num_found: the most pictures to show for a lookup. queries: "main" looks up `texts[0]` of each pair, "all" every text.

    The worst have the largest ranks, near misses the smallest ranks above 1, and the best have rank 1. Equal ranks are ordered by how far
    the own picture is behind the best other one: largest lag first among the worst, largest lead first elsewhere.
    """
    ids = judged_ids(store, shards, ids)
    shards.need_texts(ids, "looking pictures up by their texts")
    texts = [shards.texts(int(id))[: 1 if queries == "main" else None] for id in ids]
    own = np.repeat(np.arange(len(ids)), [len(of_pair) for of_pair in texts])  # the index in ids of each query's picture
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


def mining_of(run: Path, recipe: str, num: int = 60) -> MiningShares | None:
    """The mining shares in a run's metrics.csv, as means of at most num stretches that are evenly long on a logarithmic scale of steps.

    None if the run has none: its objective has no triplets. The run need not be finished.
    """
    shares = [curve for kind in ("easy", "semi_hard", "hard") for curve in curves_of(run, recipe, [f"train/share_{kind}"])]
    if len(shares) < 3:
        return None
    steps = 1 + np.array(shares[0].steps)
    stretch = np.floor(num * np.log(steps) / max(np.log(steps[-1]), 1e-9) * (1 - 1e-9)).astype(np.int64)
    _, members = np.unique(stretch, return_inverse=True)
    counts = np.bincount(members)
    of_stretch = [(np.bincount(members, np.array(values)) / counts).tolist() for values in (steps, *(one.values for one in shares))]
    return MiningShares(recipe, *of_stretch)


def hard_triplets_of(
    rows: np.ndarray,
    ids: np.ndarray,
    shards: ShardSet,
    label: str,
    recipe: str,
    gallery: str = "unseen",
    num: int = 8,
    distance: Distance = "cosine",
) -> HardTriplets:
    """The hardest triplets among the pictures `ids` (n,) with rows (n, d), by the classes that their metadata names `label`.

    num: the most triplets. Pictures without a class are left out. Those of a store: hard_triplets_of(store.take(ids), ids, ...).
    """
    labels = read_labels(shards, ids, label).values
    has_one = np.array([value is not None for value in labels], bool)
    if not has_one.any():
        raise InputError(f"{shards.place}: none of {len(ids)} pairs has a {label} in its metadata. Choose another label for the triplets")
    ids, rows, names = ids[has_one], rows[has_one], [value for value in labels if value is not None]
    _, classes = np.unique(names, return_inverse=True)
    found = hardest_triplets(rows, classes, num, distance)
    triplets = []
    for at in range(len(found)):
        of = [int(one[at]) for one in (found.anchors, found.positives, found.negatives)]
        anchor, positive, negative = (Picture(small_picture(shards, int(ids[row])), names[row]) for row in of)
        triplets.append(HardTriplet(anchor, positive, negative, float(found.to_positive[at]), float(found.to_negative[at])))
    return HardTriplets(recipe, gallery, len(ids), triplets, distance)


def small_picture(shards: ShardSet, id: int, longest_px: int = THUMBNAIL_PX) -> bytes | None:
    """A thumbnail of a pair's picture, as a page shows it; None if it cannot be read."""
    try:
        return thumbnail_jpeg(picture(shards.image_bytes(id)), longest_px)
    except (BadPicture, BrokenPair):
        return None


def _others(store: Store, vectors: np.ndarray, ids: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """For each query (q, d): the lead of its own picture over the best other one, in cosine (q,); the first k others, (q, min(k, m - 1)).

    ids (m,) of the gallery; own (q,) the index in it of each query's picture.
    """
    units, rows = unit(vectors), unit(store.take(ids))
    nearest = store.engine.filter(ids).search(units, k + 1)
    # Move the own picture to the end of each line, and cut the line there; without the own picture, this drops the last one.
    order = np.argsort(nearest.ids == ids[own][:, None], axis=1, kind="stable")[:, : min(k, len(ids) - 1)]
    others, scores = np.take_along_axis(nearest.ids, order, axis=1), np.take_along_axis(nearest.scores, order, axis=1)
    return (units * rows[own]).sum(axis=1) - scores[:, 0], others


def _chosen(queries: np.ndarray, own: np.ndarray, num: int) -> list[int]:
    """The first `num` of the queries, at most one per picture."""
    _, firsts = np.unique(own[queries], return_index=True)
    return queries[np.sort(firsts)][:num].tolist()


def _pictures_of_ids(store: Store, ids: Sequence[int] | np.ndarray) -> list[Picture]:
    return [Picture(thumbnail, str(record["text"])) for thumbnail, record in zip(store.thumbnails(ids), store.records(ids), strict=True)]
