"""Retrieval by class: pictures retrieve articles of their class, and articles pictures; mean average precision.

    multimodal evaluate classes --store S --shards textbook --label subject --part test
    multimodal evaluate classes --store S --shards textbook --label subject --distance kl        # topics, as in the paper

The multi-modal retrieval experiment of TextTopicNet (Gomez, Patel et al., 2017; Patel et al., arXiv 1807.02110), after Rasiwasia et al.
(2010): a hit is relevant if its class is the query's, and average precision covers the whole ranking. An article is the text that the
pictures of one group share. A picture's own article is in the gallery, as in the papers.

There are two chance levels. `chance` is that of a random order. `permuted` is the mAP of the same rankings permuted across queries: in any
text space articles of one class are near each other, so every query finds them one after another, which alone scores above a random
order. A run that learned nothing, such as a shuffled control, scores at `permuted`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from multimodal.errors import InputError
from multimodal.evaluate.figures import FigureRow, Found, Line, align, groups_of, judged_ids, lines_of, look_up, per_cent, write_figures
from multimodal.metrics import chance_average_precision, interval, permuted_average_precision, score_blocks, shares_among_first, unit
from multimodal.metrics.confusion import confusion as confusion_between
from multimodal.search.store import Store
from multimodal.shards import Part, SetPath, ShardSet, Split, open_set
from multimodal.shards.labels import label_of
from multimodal.text.space import report_cut
from multimodal.text.topics import TopicSpace

Direction = Literal["image->article", "article->image"]
Distance = Literal["cosine", "kl"]

DIRECTIONS: tuple[Direction, ...] = ("image->article", "article->image")
LEAST_SHARE = 2.0**-24
"""The smallest number above 0 in float16, the type of a store's rows."""


@dataclass(frozen=True, slots=True, eq=False)
class ByClass:
    """What the queries of one direction found, the number of classes, and the mAP of the same rankings permuted across queries."""

    found: Found
    num_classes: int
    permuted: float


@dataclass(frozen=True, slots=True)
class ClassRow(FigureRow):
    """One line of a table of figures by class. Shares are in per cent, as `as_json` writes them.

    trunk: the weights of the run's trunk, such as "imagenet" or "random".
    label: the key of the class in a pair's metadata. distance: see `retrieve_classes`.
    chance_average_precision: of a random order. permuted_average_precision: of the same rankings permuted across queries.
    low, high: the 95 % bootstrap interval of mAP over the queries, articles resampled with all their pictures.
    control: whether the run was trained with texts shuffled across pictures, so that it should score at chance.
    """

    recipe: str
    family: str
    trunk: str
    gallery: str
    direction: Direction
    label: str
    distance: Distance
    num_classes: int
    num_queries: int
    num_gallery: int
    mean_average_precision: float
    chance_average_precision: float
    permuted_average_precision: float
    low: float
    high: float
    seed: int
    control: bool

    keys: ClassVar[Mapping[str, str]] = {
        "mean_average_precision": "mAP",
        "chance_average_precision": "chance_mAP",
        "permuted_average_precision": "dealt_mAP",  # the key in files of all releases
        "low": "mAP_low",
        "high": "mAP_high",
    }

    @classmethod
    def of(
        cls,
        judged: ByClass,
        recipe: str,
        family: str,
        gallery: str,
        label: str,
        distance: Distance = "cosine",
        trunk: str = "pretrained",
        seed: int = 0,
        control: bool = False,
    ) -> ClassRow:
        """From what the queries of one direction found; see `retrieve_classes`."""
        found = judged.found
        low, high = interval(found.precision, found.groups)
        return cls(
            recipe=recipe,
            family=family,
            trunk=trunk,
            gallery=gallery,
            direction=found.direction,  # type: ignore[arg-type]
            label=label,
            distance=distance,
            num_classes=judged.num_classes,
            num_queries=len(found),
            num_gallery=found.num_gallery,
            mean_average_precision=per_cent(float(found.precision.mean())),
            chance_average_precision=per_cent(chance_average_precision(found.num_gallery, found.num_relevant)),
            permuted_average_precision=per_cent(judged.permuted),
            low=per_cent(low),
            high=per_cent(high),
            seed=seed,
            control=control,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """The classes of the hits, by the class of the query.

    names: the c classes. shares: (c, c), row i the share of each class among the first hits of the queries of class i; rows sum to one.
    """

    names: tuple[str, ...]
    shares: np.ndarray

    def __post_init__(self) -> None:
        if self.shares.shape != (len(self.names), len(self.names)):
            raise ValueError(
                f"shares of {len(self.names)} classes must have shape ({len(self.names)}, {len(self.names)}), not {self.shares.shape}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """Rows (n, d), nearer to a row of the other side the larger their inner product; their classes (n,) int64, ids (n,) and groups (n,)."""

    rows: np.ndarray
    classes: np.ndarray
    ids: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    images: _Side
    articles: _Side
    names: tuple[str, ...]

    def of(self, direction: Direction) -> tuple[_Side, _Side]:
        """The queries and the gallery."""
        return (self.images, self.articles) if direction == "image->article" else (self.articles, self.images)


def retrieve_classes(
    store: Store, shards: ShardSet, ids: np.ndarray, label: str, text_index: int = 0, distance: Distance = "cosine"
) -> list[ByClass]:
    """What the pictures of the pairs `ids` (n,) find among their articles, and the articles among the pictures; in the order of DIRECTIONS.

    label: the key of the class in each pair's metadata, a word or a whole number. text_index: which of a pair's texts is its article;
    it must be the same text for all pairs of a group. Pairs whose picture is not in the store are left out (see `judged_ids`).

    distance: "cosine"; or "kl", for topics: the picture's distribution i is nearer to the article's t if KL(t || i) = sum over k of
    t_k log(t_k / i_k) is smaller, in both directions, as in the authors' published code. A store's rows have length one in float16: they
    are scaled back to sum to one, and shares are at least the smallest float16. An article without a known word ranks last by kl; by cosine
    it has 0 with everything.

    Ties count against the model: among equally near items those of the right class come last.
    InputError: a pair has no such label, all are of one class, a group has several articles or classes, kl without topics, or `judged_ids`.
    """
    return _look_up_both(_sides(store, shards, ids, label, text_index, distance))


def confusion(
    store: Store,
    shards: ShardSet,
    ids: np.ndarray,
    label: str,
    text_index: int = 0,
    distance: Distance = "cosine",
    direction: Direction = "image->article",
    k: int = 10,
) -> Confusion:
    """For each class, the share of every class among the first k hits of its queries, mean over the queries. Otherwise as
    `retrieve_classes`, except that equally near items share the last of the k places.
    """
    sides = _sides(store, shards, ids, label, text_index, distance)
    queries, gallery = sides.of(direction)
    blocks = score_blocks(queries.rows, gallery.rows)
    shares = np.concatenate([shares_among_first(scores, gallery.classes, len(sides.names), k) for _, scores in blocks])
    return Confusion(sides.names, confusion_between(shares, queries.classes))


def evaluate(
    store: Path,
    shards: SetPath,
    label: str,
    part: Part = "test",
    split: Split = Split(),  # noqa: B008 (frozen)
    text_index: int = 0,
    distance: Distance = "cosine",
    gallery: str = "unseen",
    recipe: str | None = None,
    trunk: str = "pretrained",
    control: bool = False,
    output: Path | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
) -> list[ClassRow]:
    """Retrieve articles by pictures, and pictures by articles, of the same class; print mean average precision and two chance levels.

    `chance` is the mAP of a random order; `permuted` that of the same rankings permuted across queries, where a run that learned nothing
    scores.

    Args:
        store: made by `multimodal index` from the shard set.
        shards: the shard set, a folder or a URL; the pictures of one group share one article.
        label: the key of the class in a pair's metadata, for example subject.
        part: which split to evaluate; pairs of "test" were held out of all fitting.
        split: how pairs are split; must be as in training.
        text_index: which of a pair's texts is its article; 0 is the main one, -1 the last.
        distance: cosine; or kl, for topics: the divergence of the picture's mixture from the article's.
        gallery: the name of these pictures in the table.
        recipe: the name of the run in the table; by default its family.
        trunk: the name of the trunk's weights in the table, such as imagenet or random.
        control: mark the rows as a control, trained with texts shuffled across pictures.
        output: also write the rows to this JSON file, and what each query found to a .queries.parquet beside it.
        cache: for a set at a URL, the folder for its tars and columns; by default one in the user's cache folder.
        cache_bytes: the most bytes that tars may take there; by default 20 GiB.
        trust: your own packages whose classes the store names. Their code is run; without this option, nothing is imported because a
            folder names it.
    """
    opened, source = Store(store, trust=trust), open_set(shards, cache, cache_bytes)
    ids = split.ids(source, part)
    sides = _sides(opened, source, ids, label, text_index, distance)
    if (num_judged := len(sides.images.ids)) < len(ids):
        print(f"{store}: lacks {len(ids) - num_judged} of {len(ids)} pictures, which are left out", file=sys.stderr)
    judged, family = _look_up_both(sides), opened.family
    found = [one.found for one in judged]
    rows = [ClassRow.of(one, recipe or family, family, gallery, label, distance, trunk, split.seed, control) for one in judged]
    if output is not None:
        write_figures(output, [row.as_json() for row in rows], found)
    print(as_table(rows, found))
    return rows


def as_table(rows: Sequence[ClassRow], found: Sequence[Found]) -> str:
    """The rows as text; rows that differ only in seed and figures become one line, with the smallest and largest mAP of the seeds.

    found: what the queries of each row found, from which the interval of a line's mean mAP is computed (see `lines_of`). A control whose
    interval contains `permuted` is at chance.
    """
    header = ["recipe", "trunk", "gallery", "direction", "distance", "classes", "queries", "among"]
    header += ["mAP", "95 % interval", "seeds", "permuted", "chance"]
    return align(header, [_cells(line) for line in lines_of(rows, found, _without_seed, lambda one: one.precision)], num_left=5)


def _cells(line: Line[ClassRow]) -> list[str]:
    row = line.rows[0]
    return [
        row.recipe + (" shuffled" if row.control else ""),
        row.trunk,
        row.gallery,
        row.direction,
        row.distance,
        f"{row.num_classes}",
        f"{line.mean('num_queries'):.0f}",
        f"{line.mean('num_gallery'):.0f}",
        f"{line.mean('mean_average_precision'):.1f}",
        f"[{line.interval.low:.1f}, {line.interval.high:.1f}]",
        line.between("mean_average_precision"),
        f"{line.mean('permuted_average_precision'):.1f}",
        f"{line.mean('chance_average_precision'):.1f}",
    ]


def _without_seed(row: ClassRow) -> tuple[str, str, str, str, str, str, bool]:
    return row.recipe, row.trunk, row.gallery, row.direction, row.label, row.distance, row.control


# -- both sides ----------------------------------------------------------------------------------------------------------------------------


def _sides(store: Store, shards: ShardSet, ids: np.ndarray, label: str, text_index: int, distance: Distance) -> _Sides:
    ids = judged_ids(store, shards, ids)
    shards.need_texts(ids, "the comparison of pictures with articles of their class")
    records = [shards.record(id) for id in ids.tolist()]
    where = [f"{shards.place}: pair {id}, {record['name']}" for id, record in zip(ids.tolist(), records, strict=True)]
    of_each = [_class_of(record["metadata"], label, place) for record, place in zip(records, where, strict=True)]
    texts = [_text_of(record["texts"], text_index, place) for record, place in zip(records, where, strict=True)]
    groups = groups_of(shards, ids)
    _, firsts, group_of = np.unique(groups, return_index=True, return_inverse=True)  # a pair of each group; the group of each pair
    for number, first in enumerate(firsts[group_of].tolist()):
        together = f"{where[first]}, and pair {ids[number]} are in one group"
        if texts[number] != texts[first]:
            raise InputError(
                f"{together} but have different texts, so the group has no single article. Choose the text that a group's pictures "
                "share, with --text-index"
            )
        if of_each[number] != of_each[first]:
            raise InputError(
                f"{together}, but {label} is {of_each[first]!r} and {of_each[number]!r}. An article has one class: choose a --label that "
                "its pictures share"
            )
    names = sorted(set(of_each))
    if len(names) < 2:
        raise InputError(
            f"{shards.place}: {label} is {names[0]!r} for all {len(ids)} pairs of this split, and at least 2 classes are needed. "
            "Choose another --label or --part"
        )
    classes = np.array([names.index(name) for name in of_each], np.int64)
    read = [texts[first] for first in firsts.tolist()]
    report_cut(store.query_space, read)
    articles = store.query_space.embed(read)
    article_rows, image_rows = _comparable(store, articles, store.take(ids), distance)
    return _Sides(_Side(image_rows, classes, ids, groups), _Side(article_rows, classes[firsts], ids[firsts], groups[firsts]), tuple(names))


def _class_of(metadata: Mapping[str, Any], label: str, where: str) -> str:
    try:
        return label_of(metadata, label)
    except ValueError as error:
        raise InputError(f"{where}: {error}. Choose another --label") from None


def _text_of(texts: Sequence[str], text_index: int, where: str) -> str:
    if not -len(texts) <= text_index < len(texts):
        raise InputError(f"{where}, has {len(texts)} texts, and --text-index {text_index} is out of range")
    return texts[text_index]


def _look_up_both(sides: _Sides) -> list[ByClass]:
    judged, num_classes = [], len(sides.names)
    for direction in DIRECTIONS:
        queries, gallery = sides.of(direction)
        found = look_up(direction, queries.rows, gallery.rows, queries.classes, gallery.classes, queries.ids, queries.groups)
        shares = np.bincount(queries.classes, minlength=num_classes) / len(queries.classes)
        blocks = score_blocks(queries.rows, gallery.rows)
        permuted = np.concatenate([permuted_average_precision(scores, gallery.classes, shares) for _, scores in blocks])
        judged.append(ByClass(found, num_classes, float(permuted.mean())))
    return judged


# -- distances -----------------------------------------------------------------------------------------------------------------------------


def _comparable(store: Store, articles: np.ndarray, images: np.ndarray, distance: Distance) -> tuple[np.ndarray, np.ndarray]:
    """Both sides (a, d), (n, d) as rows whose inner product is larger the nearer they are."""
    if distance == "cosine":
        return unit(articles), unit(images)
    if not isinstance(store.query_space, TopicSpace):
        raise InputError(f"{store.path}: is a {store.family} store, and --distance kl needs topics. Leave --distance kl out")
    if (images < 0).any():
        raise InputError(
            f"{store.path}: some of its rows have negative numbers, so they are not mixtures of topics, which kl needs. "
            "Leave --distance kl out, or train with an objective whose output is a mixture, such as SoftCrossEntropy"
        )
    return kl_sides(articles, distributions(np.maximum(images, LEAST_SHARE)))


def distributions(rows: np.ndarray) -> np.ndarray:
    """Rows (n, K) of any length, none of them zero, scaled to sum to one; float64."""
    rows = np.asarray(rows, np.float64)
    shares: np.ndarray = rows / rows.sum(axis=1, keepdims=True)
    return shares


def kl_sides(target: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (a, K + 1) and (n, K + 1) whose inner products are -KL(t || i) = sum over k of t_k log i_k - sum over k of t_k log t_k, in nats.

    target t (a, K): rows sum to one; rows of zeros get inner products below those of all others.
    estimate i (n, K): rows sum to one, every number above 0.
    """
    target, log_estimate = np.asarray(target, np.float64), np.log(estimate)
    own = np.zeros_like(target)
    np.log(target, out=own, where=target > 0)
    beyond = 1 - log_estimate.min(initial=0)  # larger than any divergence, which is a mean of -log i minus an entropy
    negative_entropy = np.where(target.any(axis=1), (target * own).sum(axis=1), beyond)
    return np.column_stack([target, -negative_entropy]), np.column_stack([log_estimate, np.ones(len(estimate))])
