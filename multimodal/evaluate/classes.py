"""Retrieval by class: each picture looks for the articles of its class, and each article for the pictures; mean average precision.

    multimodal evaluate classes --store S --shards textbook --label subject --part test
    multimodal evaluate classes --store S --shards textbook --label subject --distance kl        # topics, as in the paper

The multi-modal retrieval experiment of TextTopicNet (Gomez, Patel et al., 2017; Patel et al., arXiv 1807.02110), after Rasiwasia et al.
(2010): what is found is right where it is of the class of what looked, and average precision is taken down to the end of the ranking. An
article is what the pictures of one group came with. A picture's own article is in the gallery, as in the papers.

Two figures stand for chance. `chance` is that of a random order. `dealt` is what the very same rankings give where they are dealt to
queries at random: articles of one class lie together in any text space, and are found one after the other by whatever looks for them,
which alone is worth more than a random order. A run that learnt nothing, a shuffled control, is at `dealt`.
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
from multimodal.metrics import chance_average_precision, dealt_average_precision, interval, score_blocks, shares_among_first, unit
from multimodal.metrics.confusion import confusion as confusion_between
from multimodal.search.store import Store
from multimodal.shards import Part, SetPath, ShardSet, Split, open_set
from multimodal.text.topics import TopicSpace

Direction = Literal["image->article", "article->image"]
Distance = Literal["cosine", "kl"]

DIRECTIONS: tuple[Direction, ...] = ("image->article", "article->image")
LEAST_SHARE = 2.0**-24
"""The least number above 0 that float16, in which stores keep rows, can hold."""


@dataclass(frozen=True, slots=True, eq=False)
class ByClass:
    """What the queries of one direction found, among items of how many classes, and the mAP of the same rankings dealt at random."""

    found: Found
    num_classes: int
    dealt: float


@dataclass(frozen=True, slots=True)
class ClassRow(FigureRow):
    """One line of a table of figures by class. Shares are in per cent, as `as_json` writes them.

    trunk: what the features under the run came from, "imagenet" or "random" for instance.
    label: the key of the class in a pair's metadata. distance: what near means, see `retrieve_classes`.
    chance_average_precision: of a random order. dealt_average_precision: of the same rankings dealt to queries at random.
    low, high: the 95 % bootstrap interval of mAP over the queries, articles resampled with all their pictures.
    control: whether the run was trained with texts shuffled between pictures, so that it should stay at chance.
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
    dealt_average_precision: float
    low: float
    high: float
    seed: int
    control: bool

    keys: ClassVar[Mapping[str, str]] = {
        "mean_average_precision": "mAP",
        "chance_average_precision": "chance_mAP",
        "dealt_average_precision": "dealt_mAP",
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
            dealt_average_precision=per_cent(judged.dealt),
            low=per_cent(low),
            high=per_cent(high),
            seed=seed,
            control=control,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """What is found where something of one class was looked for.

    names: the c classes. shares: (c, c), row i the share of each class among the first hits of the queries of class i; rows sum to one.
    """

    names: tuple[str, ...]
    shares: np.ndarray

    def __post_init__(self) -> None:
        if self.shares.shape != (len(self.names), len(self.names)):
            raise ValueError(f"shares of {len(self.names)} classes are ({len(self.names)}, {len(self.names)}), not {self.shares.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """Rows (n, d) whose inner products with those of the other side say how near; classes (n,) int64; ids (n,) and groups (n,) of each."""

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
        """What looks, and where."""
        return (self.images, self.articles) if direction == "image->article" else (self.articles, self.images)


def retrieve_classes(
    store: Store, shards: ShardSet, ids: np.ndarray, label: str, text_index: int = 0, distance: Distance = "cosine"
) -> list[ByClass]:
    """What the pictures of the pairs `ids` (n,) find among their articles, and the articles among the pictures; in the order of DIRECTIONS.

    label: the key of the class in each pair's metadata, a word or a whole number. text_index: which of a pair's texts is its article;
    it has to be the same for all pairs of a group. Pairs whose picture is not in the store are left out (see `judged_ids`).

    distance: "cosine"; or "kl", for topics, where the picture's distribution i is the nearer to the article's t the smaller
    KL(t || i) = sum over k of t_k log(t_k / i_k) is, in both directions, as the authors' published code has it. A store's rows are of
    length one in float16: they are brought back to a sum of one, and no share counts as less than float16 can hold. An article of which
    no word is known is the last that is found, by kl; by cosine it has 0 with everything.

    Ties count against: among equally near items those of the right class come last.
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
    """For each class, the share of every class among the first k that its queries find, mean over the queries. Else as `retrieve_classes`.

    Equally near items share the last of the k places.
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
    """Look for articles by pictures and for pictures by articles of the same class, and print mean average precision beside chance.

    chance is that of a random order; dealt that of the same rankings dealt to queries at random, where a run that learnt nothing stays.

    Args:
        store: made by `multimodal index` from the shard set.
        shards: the shard set, a folder or a URL; pictures of one group came with one article.
        label: which entry of a pair's metadata is its class, subject for instance.
        part: which part of it; pairs of "test" were held out of everything fitted.
        split: how the parts were cut; the one that training used.
        text_index: which of a pair's texts is its article; 0 is the main one, -1 the last.
        distance: what near means; cosine, or for topics kl, the divergence of the picture's mixture from the article's.
        gallery: what to call these pictures in the table.
        recipe: what to call the run in the table; the family's name by default.
        trunk: what to call the weights that the features under the run came from, such as imagenet or random.
        control: mark the rows as a control, whose texts were shuffled between pictures in training.
        output: also write the rows into this JSON file, and what each query found into a .queries.parquet beside it.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
        trust: your own package, or packages, whose classes the store names. Their code is run; without this nothing is imported
            because a folder names it.
    """
    opened, source = Store(store, trust=trust), open_set(shards, cache, cache_bytes)
    ids = split.ids(source, part)
    sides = _sides(opened, source, ids, label, text_index, distance)
    if (num_judged := len(sides.images.ids)) < len(ids):
        print(f"{store}: {len(ids) - num_judged} of {len(ids)} pictures are not in it; the others are searched", file=sys.stderr)
    judged, family = _look_up_both(sides), opened.family
    found = [one.found for one in judged]
    rows = [ClassRow.of(one, recipe or family, family, gallery, label, distance, trunk, split.seed, control) for one in judged]
    if output is not None:
        write_figures(output, [row.as_json() for row in rows], found)
    print(as_table(rows, found))
    return rows


def as_table(rows: Sequence[ClassRow], found: Sequence[Found]) -> str:
    """The rows as text; rows that are equal but for seed and figures become one line, with the smallest and largest mAP of the seeds.

    found: what the queries of each row found; the interval of a line, of its mean mAP, is made of that (see `lines_of`). A control whose
    interval holds `dealt` is at chance.
    """
    header = ["recipe", "trunk", "gallery", "direction", "distance", "classes", "queries", "among"]
    header += ["mAP", "95 % interval", "seeds", "dealt", "chance"]
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
        f"{line.mean('dealt_average_precision'):.1f}",
        f"{line.mean('chance_average_precision'):.1f}",
    ]


def _without_seed(row: ClassRow) -> tuple[str, str, str, str, str, str, bool]:
    return row.recipe, row.trunk, row.gallery, row.direction, row.label, row.distance, row.control


# -- both sides ----------------------------------------------------------------------------------------------------------------------------


def _sides(store: Store, shards: ShardSet, ids: np.ndarray, label: str, text_index: int, distance: Distance) -> _Sides:
    ids = judged_ids(store, shards, ids)
    records = [shards.record(id) for id in ids.tolist()]
    where = [f"{shards.place}: pair {id}, {record['name']}" for id, record in zip(ids.tolist(), records, strict=True)]
    of_each = [_class_of(record["metadata"], label, told) for record, told in zip(records, where, strict=True)]
    texts = [_text_of(record["texts"], text_index, told) for record, told in zip(records, where, strict=True)]
    groups = groups_of(shards, ids)
    _, firsts, place = np.unique(groups, return_index=True, return_inverse=True)  # a pair of each group; the group of each pair
    for number, first in enumerate(firsts[place].tolist()):
        together = f"{where[first]}, and pair {ids[number]} are of one group"
        if texts[number] != texts[first]:
            raise InputError(
                f"{together} and came with different texts, so that there is no one article to find. Choose the text that a group's "
                "pictures share, with --text-index"
            )
        if of_each[number] != of_each[first]:
            raise InputError(
                f"{together}, and {label} is {of_each[first]!r} and {of_each[number]!r}. An article has one class: choose a --label that "
                "its pictures share"
            )
    names = sorted(set(of_each))
    if len(names) < 2:
        raise InputError(f"{shards.place}: {label} is {names[0]!r} for all {len(ids)} pairs of this part; at least 2 classes are needed")
    classes = np.array([names.index(name) for name in of_each], np.int64)
    articles = store.query_space.embed([texts[first] for first in firsts.tolist()])
    article_rows, image_rows = _comparable(store, articles, store.take(ids), distance)
    return _Sides(_Side(image_rows, classes, ids, groups), _Side(article_rows, classes[firsts], ids[firsts], groups[firsts]), tuple(names))


def _class_of(metadata: Mapping[str, Any], label: str, where: str) -> str:
    value = metadata.get(label)
    if value is None or value == "":
        raise InputError(
            f"{where}, has no {label} in its metadata, which holds {', '.join(sorted(metadata)) or 'nothing'}. Choose a --label"
        )
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: {label} is {value!r}; a class is a word or a whole number. Choose a --label")
    return str(value)


def _text_of(texts: Sequence[str], text_index: int, where: str) -> str:
    if not -len(texts) <= text_index < len(texts):
        raise InputError(f"{where}, came with {len(texts)} texts, and --text-index {text_index} is none of them")
    return texts[text_index]


def _look_up_both(sides: _Sides) -> list[ByClass]:
    judged, num_classes = [], len(sides.names)
    for direction in DIRECTIONS:
        queries, gallery = sides.of(direction)
        found = look_up(direction, queries.rows, gallery.rows, queries.classes, gallery.classes, queries.ids, queries.groups)
        shares = np.bincount(queries.classes, minlength=num_classes) / len(queries.classes)
        blocks = score_blocks(queries.rows, gallery.rows)
        dealt = np.concatenate([dealt_average_precision(scores, gallery.classes, shares) for _, scores in blocks])
        judged.append(ByClass(found, num_classes, float(dealt.mean())))
    return judged


# -- what near means -----------------------------------------------------------------------------------------------------------------------


def _comparable(store: Store, articles: np.ndarray, images: np.ndarray, distance: Distance) -> tuple[np.ndarray, np.ndarray]:
    """Both sides (a, d), (n, d) as rows whose inner product is the larger the nearer."""
    if distance == "cosine":
        return unit(articles), unit(images)
    if not isinstance(store.query_space, TopicSpace):
        raise InputError(
            f"{store.path}: is a {store.family} store, and kl is a divergence between mixtures of topics. Leave --distance kl out"
        )
    if (images < 0).any():
        raise InputError(
            f"{store.path}: some of its rows have negative numbers and are no mixtures of topics, for which kl is defined. "
            "Leave --distance kl out, or train with an objective that gives mixtures, such as SoftCrossEntropy"
        )
    return kl_sides(articles, distributions(np.maximum(images, LEAST_SHARE)))


def distributions(rows: np.ndarray) -> np.ndarray:
    """Rows (n, K) of any length, none of them zero, brought back to a sum of one; float64."""
    rows = np.asarray(rows, np.float64)
    shares: np.ndarray = rows / rows.sum(axis=1, keepdims=True)
    return shares


def kl_sides(target: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (a, K + 1) and (n, K + 1) whose inner products are -KL(t || i) = sum over k of t_k log i_k - sum over k of t_k log t_k, in nats.

    target t (a, K): rows sum to one, or are all zeros, and then their inner products are lower than any divergence can be.
    estimate i (n, K): rows sum to one, every number above 0.
    """
    target, log_estimate = np.asarray(target, np.float64), np.log(estimate)
    own = np.zeros_like(target)
    np.log(target, out=own, where=target > 0)
    beyond = 1 - log_estimate.min(initial=0)  # a divergence, a mean of -log i less an entropy, is smaller
    negative_entropy = np.where(target.any(axis=1), (target * own).sum(axis=1), beyond)
    return np.column_stack([target, -negative_entropy]), np.column_stack([log_estimate, np.ones(len(estimate))])
