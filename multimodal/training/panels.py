"""Panels shown after each validation beside the curves: what fixed queries find, the topics of a topic run, the hardest triplets.

    trainer:
      logger:
        class_path: multimodal.training.WeightsAndBiases
        init_args: {panels: {queries: {class_path: multimodal.training.panels.Queries}}}

A panel is made from thumbnails and the vectors that validation has computed anyway. It does not depend on W&B, and is made only if a logger
shows it. To add one, derive from `Panel`: settings in `__init__`, and `open`, which returns what is called after each validation.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from multimodal.data import Captions, Order, Shuffled, Side
from multimodal.data.decode import BadPicture, picture
from multimodal.data.sides import column_names, open_side
from multimodal.errors import InputError
from multimodal.metrics import hardest_triplets, nearest, ranks
from multimodal.objectives.base import Distance
from multimodal.pictures.thumbnails import thumbnail
from multimodal.shards import BrokenPair, JoinedShards, ShardSet
from multimodal.shards.columns import command_of
from multimodal.shards.recent import Recent
from multimodal.training.datamodule import PairData
from multimodal.training.module import HeldOut, PairModule

MAX_THUMBNAILS = 2048  # 57 MB of 96 x 96 pixels
MARGIN_PX, FRAME_PX, LINE_PX = 4, 3, 14
BACKGROUND, FOREGROUND, OWN, UNREADABLE = "white", "black", "limegreen", "lightgrey"

Cell = str | int | float | list[int] | list[float]


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture composed of thumbnails, and its caption."""

    picture: Image.Image
    caption: str


@dataclass(frozen=True, slots=True)
class View:
    """What a panel shows of one validation. columns: names, one for each cell of a row. pictures: all of one size."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    pictures: Sequence[Shown]


Show = Callable[[HeldOut], View]


class Panel(ABC):
    """Settings of a panel. A panel of your own derives from it, so that a recipe may name it; its parameters may have any names."""

    @abstractmethod
    def open(self, module: PairModule, data: PairData, /) -> Show | None:
        """A function that makes the view of a validation of this run; None if the panel does not apply to it.

        InputError if the settings do not fit the run. Called on every rank before the first step; the function that it returns reads
        pictures, and is called only on rank zero.
        """


@dataclass(frozen=True)
class Queries(Panel):
    """The texts of some validation pairs, and the top pictures for each among all validation pairs, with their scores.

    queries: how many, drawn by data.seed; or the ids of the pairs. k: pictures shown. size_px: of a thumbnail.
    A row has the rank of the text's own picture, by the same rule as val/R@k, and the ids and cosines of the first k. In the composed
    picture, the own one is apart on the left, and is framed where it is among the first k. Not for runs whose target is a label.
    """

    queries: int | list[int] = 8
    k: int = 8
    size_px: int = 96

    def __post_init__(self) -> None:
        num = self.queries if isinstance(self.queries, int) else len(self.queries)
        _check_settings(self, queries=num, k=self.k, size_px=self.size_px)

    def open(self, module: PairModule, data: PairData) -> Show | None:
        if not module.objective.compares_with_texts:
            return None  # its pairs may have no texts
        ids = self._ids(data)
        texts = open_side(_words_of(data.target), data.shards, data.validation_ids)(ids, None).values
        return _ShowQueries(dict(zip(ids.tolist(), texts, strict=True)), self.k, Thumbnails(data.shards, self.size_px))

    def _ids(self, data: PairData) -> np.ndarray:
        """(q,) int64, ascending if they are drawn, else in the given order."""
        ids = data.validation_ids
        if isinstance(self.queries, int):
            return np.sort(ids[Order(data.seed, len(ids)).ids(epoch=0, start=0, stop=min(self.queries, len(ids)))])
        absent = sorted(set(self.queries) - set(ids.tolist()))
        if absent:
            raise InputError(
                f"panel Queries: queries {absent} are not among the {len(ids)} pairs that this run validates on. "
                f"Give ids such as {ids[:3].tolist()}, or how many to draw"
            )
        return np.array(self.queries, np.int64)


@dataclass(frozen=True)
class Topics(Panel):
    """The topics of a topic run: the words of each, its share, and the pictures in which the network sees most of it.

    k: pictures shown. max_pictured: topics that get a picture, those with the largest share in the texts; all topics get a row.
    size_px: of a thumbnail. Only for runs whose targets are rows of a column that names its dimensions (`Column.top_words`).
    Shares are of the mass of all validation pairs: how much the network predicts for the pictures, and how much the texts have.
    """

    k: int = 8
    max_pictured: int = 20
    size_px: int = 96

    def __post_init__(self) -> None:
        _check_settings(self, k=self.k, max_pictured=self.max_pictured, size_px=self.size_px)

    def open(self, module: PairModule, data: PairData) -> Show | None:
        names = list(column_names(data.target))
        if not names or not isinstance(module.target_side, nn.Identity):
            return None
        joined = JoinedShards.of(data.shards)
        of, column = next(iter(joined.columns(names[0]).items()))  # it means the same in all sets
        words = column.top_words()
        if words is None:
            if column.manifest.config.get("family") == "topic":
                command = command_of(column.path, joined.sets[of])
                print(f"panel Topics: left out, because {column.path} does not list its topics' words. Run: {command}", file=sys.stderr)
            return None
        return _ShowTopics([", ".join(of_topic) for of_topic in words], self.k, self.max_pictured, Thumbnails(data.shards, self.size_px))


@dataclass(frozen=True)
class Triplets(Panel):
    """The hardest triplets of a run that labels teach: the validation pictures that are least nearer to all of their class than to others.

    triplets: how many; each has another anchor. size_px: of a thumbnail.
    A row has the ids of anchor, positive and negative, their classes, and the two distances; in the composed picture they are side by side,
    the positive framed. What is wrong in many of them is often a label.
    """

    triplets: int = 8
    size_px: int = 96

    def __post_init__(self) -> None:
        _check_settings(self, triplets=self.triplets, size_px=self.size_px)

    def open(self, module: PairModule, data: PairData) -> Show | None:
        if data.classes is None:
            return None
        return _ShowTriplets(self.triplets, module.objective.distance, data.classes.names, Thumbnails(data.shards, self.size_px))


def _check_settings(panel: Panel, **settings: int) -> None:
    for setting, value in settings.items():
        if value < 1:
            raise InputError(
                f"panel {type(panel).__name__}: {setting}={value} must be at least 1. To turn the panel off, leave it out of `panels`"
            )


class Thumbnails:
    """Thumbnails of shards, each decoded once; the last `MAX_THUMBNAILS` of them are kept."""

    def __init__(self, shards: ShardSet | JoinedShards, size_px: int) -> None:
        self.shards, self.size_px = shards, size_px
        self._recent: Recent[int, Image.Image] = Recent(MAX_THUMBNAILS)

    def of(self, id: int) -> Image.Image:
        """RGB, at most size_px on its longer side; a grey square if the picture cannot be read."""
        return self._recent.get(id, self._decode)

    def _decode(self, id: int) -> Image.Image:
        try:
            return thumbnail(picture(self.shards.image_bytes(id)), self.size_px)
        except (BadPicture, BrokenPair):
            return Image.new("RGB", (self.size_px, self.size_px), UNREADABLE)


@dataclass(frozen=True, slots=True)
class Tile:
    """A place in a composed picture. caption: drawn under the thumbnail. framed: in the colour of a query's own picture."""

    thumbnail: Image.Image
    caption: str = ""
    framed: bool = False


def compose(tiles: Sequence[Tile | None], size_px: int) -> Image.Image:
    """Tiles from left to right, each in a square of size_px with its caption below; None leaves a gap."""
    pitch = size_px + 2 * MARGIN_PX
    composed = Image.new("RGB", (pitch * len(tiles), pitch + LINE_PX), BACKGROUND)
    drawing, font = ImageDraw.Draw(composed), ImageFont.load_default(LINE_PX - 3)
    for place, tile in enumerate(tiles):
        if tile is None:
            continue
        left, middle = place * pitch, place * pitch + pitch // 2
        if tile.framed:
            drawing.rectangle((left, 0, left + pitch - 1, pitch - 1), outline=OWN, width=FRAME_PX)
        width, height = tile.thumbnail.size
        composed.paste(tile.thumbnail, (middle - width // 2, (pitch - height) // 2))
        drawing.text((middle, pitch), tile.caption, FOREGROUND, font, anchor="ma")
    return composed


@dataclass(frozen=True, slots=True)
class _ShowQueries:
    texts: dict[int, str]
    k: int
    thumbnails: Thumbnails

    def __call__(self, held_out: HeldOut) -> View:
        place = {id: row for row, id in enumerate(held_out.ids.tolist())}
        ids = [id for id in self.texts if id in place]  # an unreadable pair has no vectors
        own = np.array([place[id] for id in ids], np.int64)
        first = ranks(held_out.target[own], held_out.image, own)
        found, cosines = nearest(held_out.target[own], held_out.image, self.k)
        found_ids = held_out.ids[found]
        rows = [
            (id, self.texts[id], int(rank), len(held_out), of_query.tolist(), scores.tolist())
            for id, rank, of_query, scores in zip(ids, first, found_ids, cosines, strict=True)
        ]
        return View(("id", "query", "rank", "of", "found", "scores"), rows, [self._picture(*row) for row in rows])

    def _picture(self, id: int, query: str, rank: int, num: int, found: list[int], scores: list[float]) -> Shown:
        tiles: list[Tile | None] = [Tile(self.thumbnails.of(id), "own"), None]
        tiles += [Tile(self.thumbnails.of(other), f"{score:.3f}", framed=other == id) for other, score in zip(found, scores, strict=True)]
        tiles += [None] * (self.k - len(found))
        return Shown(compose(tiles, self.thumbnails.size_px), f"{query} | rank {rank} of {num}")


@dataclass(frozen=True, slots=True)
class _ShowTopics:
    words: list[str]
    k: int
    max_pictured: int
    thumbnails: Thumbnails

    def __call__(self, held_out: HeldOut) -> View:
        in_pictures, in_texts = _shares(held_out.image), _shares(held_out.target)
        most = np.argsort(-held_out.image, axis=0, kind="stable")[: self.k].T  # (K, k) rows
        shares = np.take_along_axis(held_out.image.T, most, axis=1)
        rows = [
            (topic, words, float(in_pictures[topic]), float(in_texts[topic]), held_out.ids[most[topic]].tolist(), shares[topic].tolist())
            for topic, words in enumerate(self.words)
        ]
        pictured = np.sort(np.argsort(-in_texts, kind="stable")[: self.max_pictured])  # the same at every validation
        columns = ("topic", "words", "share in pictures", "share in texts", "pictures", "shares")
        return View(columns, rows, [self._picture(*rows[topic]) for topic in pictured.tolist()])

    def _picture(self, topic: int, words: str, in_pictures: float, in_texts: float, ids: list[int], shares: list[float]) -> Shown:
        tiles: list[Tile | None] = [Tile(self.thumbnails.of(id), f"{share:.0%}") for id, share in zip(ids, shares, strict=True)]
        tiles += [None] * (self.k - len(ids))
        caption = f"topic {topic}: {words} | {in_pictures:.1%} of the pictures, {in_texts:.1%} of the texts"
        return Shown(compose(tiles, self.thumbnails.size_px), caption)


@dataclass(frozen=True, slots=True)
class _ShowTriplets:
    num: int
    distance: Distance
    classes: Sequence[str]
    thumbnails: Thumbnails

    def __call__(self, held_out: HeldOut) -> View:
        found = hardest_triplets(held_out.image, held_out.target, self.num, self.distance)
        rows = []
        for at in range(len(found)):
            places = [int(of[at]) for of in (found.anchors, found.positives, found.negatives)]
            ids = held_out.ids[places].tolist()
            own, _, other = (self.classes[held_out.target[place]] for place in places)
            rows.append((*ids, own, other, float(found.to_positive[at]), float(found.to_negative[at])))
        columns = ("anchor", "positive", "negative", "class", "negative's class", "to positive", "to negative")
        return View(columns, rows, [self._picture(*row) for row in rows])

    def _picture(self, anchor: int, positive: int, negative: int, own: str, other: str, far: float, near: float) -> Shown:
        tiles: list[Tile | None] = [
            Tile(self.thumbnails.of(anchor), own),
            Tile(self.thumbnails.of(positive), f"{far:.3g}", framed=True),
            Tile(self.thumbnails.of(negative), f"{near:.3g} {other}"),
        ]
        return Shown(compose(tiles, self.thumbnails.size_px), f"{own}: another of it is at {far:.3g}, one of {other} at {near:.3g}")


def _shares(rows: np.ndarray) -> np.ndarray:
    """(n, K) amounts of topics -> (K,) float64, the share of each in the sum of all."""
    mass = rows.sum(axis=0, dtype=np.float64)
    return mass / mass.sum()


def _words_of(side: Side) -> Side:
    """The texts that a side's rows were made from, permuted as the side permutes its rows."""
    return Shuffled(_words_of(side.side), side.seed) if isinstance(side, Shuffled) else Captions()
