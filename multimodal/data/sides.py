"""Where a batch's two sides come from, chosen in a config by class path: rows of a column, pixels, captions, or a control.

    data:
      image: {class_path: multimodal.data.Pixels, init_args: {size: 224}}
      target: {class_path: multimodal.data.ColumnRows, init_args: {name: lda40}}

To add one, derive from `Side`: settings in `__init__`, and `open`, which returns a `Reader` for a shard set. A reader takes ids and returns
their rows. It takes its random choices from the words that it is given, one for each id, so that a row is a function of (seed, epoch, id).
In a mixture, a side is opened on each set, and knows nothing of the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from multimodal.data.decode import BadPicture, Decoded, Interpolation, Resize, centre, random_crop
from multimodal.data.order import Order, word_from
from multimodal.errors import InputError
from multimodal.pictures.preprocessing import Size, height_width
from multimodal.shards import BrokenPair, JoinedShards, ShardSet
from multimodal.shards.columns import Column
from multimodal.shards.ledger import NO_WORDS


class Rows(NamedTuple):
    """What a reader returns for n ids, in their order."""

    values: np.ndarray | Sequence[str]
    """(n, ...) array, or n strings. Zeros, or "", in unreadable rows."""
    ok: np.ndarray
    """(n,) bool; False for unreadable rows."""
    reasons: Sequence[str] = ()
    """Why, for each row that is not ok, in their order."""
    target: np.ndarray | None = None
    """(n, ...) array of what the rows are asked about, if the side makes it along with them (`multimodal.data.pretext`)."""


Reader = Callable[[np.ndarray, "np.ndarray | None"], Rows]
"""(ids (n,) int64, words (n,) uint64 or None) -> rows. None means no random choices, for evaluation. n may be 0. Picklable: each worker has
one.
"""


class InPlace(ABC):
    """A `Reader` of large rows of equal size, which writes them into given memory: in workers, into memory shared with the trainer."""

    @property
    @abstractmethod
    def row_bytes(self) -> int:
        """Bytes of one row."""

    @abstractmethod
    def rows_in(self, memory: np.ndarray) -> np.ndarray:
        """memory (n * row_bytes,) uint8 -> the rows (n, ...) in it, without a copy."""

    @abstractmethod
    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        """The rows of ids, as a reader returns them. Their values are `out` (n, ...), all of which is overwritten."""

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        return self.read(ids, words, self.rows_in(np.empty(len(ids) * self.row_bytes, np.uint8)))


class Side(ABC):
    """Settings of a source of rows. One of your own derives from it, so that a recipe may name it; its parameters may have any names."""

    reads_tars: ClassVar[bool] = True
    """Whether, for each id, it reads the tar with that pair: of a set at a URL, tars are then fetched ahead."""

    @abstractmethod
    def open(self, shards: ShardSet, ids: np.ndarray, /) -> Reader:
        """A reader over these shards; it will be asked for no ids but these, (m,) int64. InputError if the shards lack what it reads."""


@dataclass(frozen=True)
class ColumnRows(Side):
    """Rows of a column: targets of a text space, features of a trunk. (n, d) float32.

    Of a pair with several rows, its word selects one; without words it is the first. A row that is not finite is not ok.
    """

    name: str
    reads_tars: ClassVar[bool] = False

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _ColumnReader(Column.of(shards, self.name))


@dataclass(frozen=True)
class Pixels(Side):
    """Decoded pictures, (n, 3, h, w) uint8: a random crop of each; without words the centre crop.

    size: height and width in pixels, or (height, width): `ratio`, width over height of what is cut out, should then be around theirs.
    scale, ratio: of the random crop, as in torchvision's RandomResizedCrop. flip: mirror half of the random crops. crop_share: the share of
    the shorter side that the centre crop keeps (timm's crop_pct). resize, fill: how the centre crop is made, see `centre`. Give size,
    crop_share, interpolation, resize and fill as in the trunk's own preprocessing. exact: the same pixels as Pillow and torchvision, in
    three times the time (see `random_crop`); the centre crop always is.
    kept: the centre crop in training too, decoded once and kept in memory, 3 * size**2 bytes each: for small pictures that the image tower
    augments. scale, ratio, flip and exact then mean nothing.
    """

    size: Size = 224
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    crop_share: float = 0.875
    interpolation: Interpolation = "bicubic"
    exact: bool = False
    resize: Resize = "shortest"
    fill: int = 0
    kept: bool = False

    def __post_init__(self) -> None:
        if min(height_width(self.size)) < 1:
            raise InputError(f"Pixels: size={self.size} must be at least 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"Pixels: scale={self.scale} must be two shares of the area, above 0 and at most 1, the smaller first")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise InputError(f"Pixels: ratio={self.ratio} must be two ratios of width to height, the smaller first")
        if not 0 < self.crop_share <= 1:
            raise InputError(f"Pixels: crop_share={self.crop_share} must be above 0 and at most 1")
        if self.resize != "shortest" and self.crop_share != 1:
            raise InputError(f"Pixels: resize={self.resize!r} keeps the whole picture, so crop_share must be 1, not {self.crop_share}")

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _PixelReader(self, shards)

    def of(self, encoded: bytes | Decoded, word: int | None, out: np.ndarray | None = None) -> np.ndarray:
        """(3, h, w) uint8 of one file, written to out if that is given; BadPicture if the file is not a picture."""
        if word is not None and not self.kept:
            mirrored = self.flip and bool(word_from(word, 1) & 1)
            crop = word_from(word, 0), self.scale, self.ratio, self.interpolation
            return random_crop(encoded, self.size, *crop, exact=self.exact, mirrored=mirrored, out=out)
        middle = centre(encoded, self.size, self.crop_share, self.interpolation, self.resize, self.fill)
        if out is None:
            return middle
        out[:] = middle
        return out


@dataclass(frozen=True)
class TowerPixels(Side):
    """Decoded pictures of the size, and centre-cropped in the way, that the image tower expects: `Pixels` with its preprocessing.

    scale, ratio, flip, exact: of the random crops, see `Pixels`; by default those with which open_clip trains. kept: see `Pixels`.
    """

    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    exact: bool = False
    kept: bool = False

    def pixels(self, size: Size, crop_share: float, interpolation: Interpolation, resize: Resize, fill: int) -> Pixels:
        """For a tower with this preprocessing."""
        return Pixels(size, self.scale, self.ratio, self.flip, crop_share, interpolation, self.exact, resize, fill, self.kept)

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        raise InputError(
            "multimodal.data.TowerPixels takes its preprocessing from an image tower with a trunk, and there is none. Use "
            "multimodal.data.Pixels, or ColumnRows for a head on a column"
        )


@dataclass(frozen=True)
class Captions(Side):
    """The texts themselves, for a text tower: n strings. Of a pair's texts, its word selects one; without words it is the main one.

    A pair without a text is not ok.
    """

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _CaptionReader(shards)


@dataclass(frozen=True)
class Shuffled(Side):
    """A control: another side with its rows permuted across pairs, the same way in every epoch.

    What a run learns from it does not depend on which text belongs to which picture, so it should score at chance. Every row is used as
    often as before, and no pair keeps its own (given at least two pairs): the pairs of a split form one random ring, and each gets the row
    of the next.
    """

    side: Side
    seed: int = 0
    reads_tars: ClassVar[bool] = False  # it reads other tars than those of its ids

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        reader = self.side.open(shards, ids)
        shuffled = _ShuffledReader(reader, Partners(ids, self.seed))
        return _InPlaceAs(reader, shuffled.read) if isinstance(reader, InPlace) else shuffled


class Partners:
    """Another pair for each of several, by one random ring: each is the partner of exactly one, and none its own (given at least two).

    ids (n,) of all pairs, in any order.
    """

    def __init__(self, ids: np.ndarray, seed: int) -> None:
        self.ids = np.sort(ids)
        ring = Order(seed, len(ids)).ids(epoch=0, start=0, stop=len(ids))
        self.next = np.empty_like(self.ids)
        self.next[ring] = self.ids[np.roll(ring, -1)]

    def of(self, ids: np.ndarray) -> np.ndarray:
        """ids (b,), each one of all. Returns their partners, (b,)."""
        return self.next[np.searchsorted(self.ids, ids)]


def open_side(side: Side, shards: ShardSet | JoinedShards, ids: np.ndarray) -> Reader:
    """A reader over one set, or over several joined sets. InputError also if a column does not mean the same in all of them."""
    if isinstance(shards, ShardSet):
        return side.open(shards, ids)
    for name in column_names(side):
        shards.columns(name)
    readers = {part.name: side.open(part.shards, part.ids) for part in shards.parts(ids)}
    joined, of_one = _JoinedReader(shards, readers), next(iter(readers.values()))
    return _InPlaceAs(of_one, joined.read) if isinstance(of_one, InPlace) else joined


def for_tower(side: Side, **preprocessing: Any) -> Side:
    """The side with `TowerPixels`, also in a control, made into `Pixels`. preprocessing: the arguments of `TowerPixels.pixels`."""
    if isinstance(side, TowerPixels):
        return side.pixels(**preprocessing)
    return replace(side, side=for_tower(side.side, **preprocessing)) if isinstance(side, Shuffled) else side


def column_names(side: Side) -> Iterator[str]:
    """The columns that a side reads."""
    if isinstance(side, ColumnRows):
        yield side.name
    if isinstance(side, Shuffled):
        yield from column_names(side.side)


@dataclass(frozen=True)
class _ColumnReader:
    column: Column

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        values = self.column.take(ids, words)
        ok = np.isfinite(values).all(axis=1)
        if ok.all():
            return Rows(values, ok)
        reasons = [self._reason(row) for row in values[~ok]]
        values[~ok] = 0
        return Rows(values, ok, reasons)

    def _reason(self, row: np.ndarray) -> str:
        if "text-space" in self.column.manifest.made_from and np.isnan(row).all():  # how `data-prep make-columns` marks such rows
            return f"{NO_WORDS}its text (column {self.column.name})"
        return f"its row of column {self.column.name} is not finite"


@dataclass(frozen=True)
class _PixelReader(InPlace):
    pixels: Pixels
    shards: ShardSet
    kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    """id -> its pixels, if they are kept."""

    @property
    def row_bytes(self) -> int:
        tall, wide = height_width(self.pixels.size)
        return 3 * tall * wide

    def rows_in(self, memory: np.ndarray) -> np.ndarray:
        # channels-last in memory, as decoders write them and as the trunk's convolutions want them
        return memory.reshape(-1, *height_width(self.pixels.size), 3).transpose(0, 3, 1, 2)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        ok = np.ones(len(ids), bool)
        reasons = []
        for row, (id, word) in enumerate(zip(ids.tolist(), [None] * len(ids) if words is None else words.tolist(), strict=True)):
            try:
                if not self.pixels.kept:
                    self.pixels.of(self.shards.image_bytes(id), word, out[row])
                    continue
                if id not in self.kept:
                    self.kept[id] = self.pixels.of(self.shards.image_bytes(id), None)
                out[row] = self.kept[id]
            except (BadPicture, BrokenPair) as error:
                out[row] = 0
                ok[row] = False
                reasons.append(error.reason if isinstance(error, BrokenPair) else str(error))
        return Rows(out, ok, reasons)


@dataclass(frozen=True)
class _CaptionReader:
    shards: ShardSet

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        choice = np.zeros(len(ids), np.uint64) if words is None else words
        chosen, ok, reasons = [""] * len(ids), np.ones(len(ids), bool), []
        for row, (id, word) in enumerate(zip(ids.tolist(), choice.tolist(), strict=True)):
            try:
                own = self.shards.texts(id)
            except BrokenPair as error:
                ok[row] = False
                reasons.append(error.reason)
                continue
            if own:
                chosen[row] = own[word % len(own)]
            else:
                ok[row] = False
                reasons.append("has no text")
        return Rows(chosen, ok, reasons)


@dataclass(frozen=True)
class _ShuffledReader:
    reader: Reader
    partners: Partners

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        return self.reader(self.partners.of(ids), words)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        assert isinstance(self.reader, InPlace)
        return self.reader.read(self.partners.of(ids), words, out)


@dataclass(frozen=True)
class _JoinedReader:
    shards: JoinedShards
    readers: Mapping[str, Reader]

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        return self.read(ids, words, None)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray | None) -> Rows:
        ok = np.empty(len(ids), bool)
        reasons: dict[int, str] = {}
        read = [
            (part.rows, self.readers[part.name](part.ids, None if words is None else words[part.rows])) for part in self.shards.parts(ids)
        ]
        for places, rows in read:
            ok[places] = rows.ok
            reasons |= dict(zip(places[~rows.ok].tolist(), rows.reasons, strict=True))
        values = _placed([(places, rows.values) for places, rows in read], len(ids), out)
        made = [(places, rows.target) for places, rows in read if rows.target is not None]
        target = np.asarray(_placed(made, len(ids), None)) if made else None
        return Rows(values, ok, [reasons[place] for place in sorted(reasons)], target)


def _placed(parts: Sequence[tuple[np.ndarray, np.ndarray | Sequence[str]]], num: int, out: np.ndarray | None) -> np.ndarray | Sequence[str]:
    """The values of each set at their places (m,) among num; arrays are written to out if that is given."""
    first = parts[0][1]
    if not isinstance(first, np.ndarray):
        texts = {place: text for places, values in parts for place, text in zip(places.tolist(), values, strict=True)}
        return [texts[place] for place in range(num)]
    joined = np.empty((num, *first.shape[1:]), first.dtype) if out is None else out
    for places, values in parts:
        joined[places] = values
    return joined


@dataclass(frozen=True)
class _InPlaceAs(InPlace):
    """An in-place reader made of in-place readers; its rows have the layout of one of them."""

    one: InPlace
    fill: Callable[[np.ndarray, np.ndarray | None, np.ndarray], Rows]

    @property
    def row_bytes(self) -> int:
        return self.one.row_bytes

    def rows_in(self, memory: np.ndarray) -> np.ndarray:
        return self.one.rows_in(memory)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        return self.fill(ids, words, out)
