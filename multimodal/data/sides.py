"""Where a batch's two sides come from, picked in a config by class path: rows of a column, pixels, captions, or a control.

    data:
      image: {class_path: multimodal.data.Pixels, init_args: {size: 224}}
      text: {class_path: multimodal.data.ColumnRows, init_args: {name: lda40}}

To add one, write a `Side`: settings in `__init__`, and `open`, which gives a `Reader` for a set of shards. A reader is asked for ids and
gives their rows; what it chooses at random it draws from the words that it is given, one for each id, so that a row is a function of (seed,
epoch, id). Where sets are mixed a side is opened on each of them, and knows nothing of the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from multimodal.data.decode import BadPicture, Decoded, Interpolation, centre, random_crop
from multimodal.data.order import Order, word_from
from multimodal.errors import InputError
from multimodal.shards import BrokenPair, JoinedShards, ShardSet
from multimodal.shards.columns import Column
from multimodal.shards.ledger import NO_WORDS


class Rows(NamedTuple):
    """What a reader gives for n ids, in their order."""

    values: np.ndarray | Sequence[str]
    """(n, ...) array, or n strings. Zeros, or "", where a row could not be read."""
    ok: np.ndarray
    """(n,) bool; False where a row could not be read."""
    reasons: Sequence[str] = ()
    """Why not, one for each row that is not ok, in their order."""


Reader = Callable[[np.ndarray, "np.ndarray | None"], Rows]
"""(ids (n,) int64, words (n,) uint64 or None) -> rows. None asks for no chance at all, for evaluation. n may be 0. Picklable: workers hold
one.
"""


class InPlace(ABC):
    """A `Reader` of large rows of one size, which writes them where it is told: in workers, into memory that the trainer shares."""

    @property
    @abstractmethod
    def row_bytes(self) -> int:
        """Of one row."""

    @abstractmethod
    def rows_in(self, memory: np.ndarray) -> np.ndarray:
        """memory (n * row_bytes,) uint8 -> the rows (n, ...) that lie in it, without a copy."""

    @abstractmethod
    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        """The rows of ids, as a reader gives them; their values are out (n, ...), of which nothing is left as it was."""

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        return self.read(ids, words, self.rows_in(np.empty(len(ids) * self.row_bytes, np.uint8)))


class Side(Protocol):
    """Settings of a source of rows."""

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        """A reader over these shards; ids (m,) int64 are all it will ever be asked for. InputError where it cannot be."""
        ...


@dataclass(frozen=True)
class ColumnRows:
    """Rows of a column: targets of a text space, features of a trunk. (n, d) float32.

    A pair with several rows gives the one that its word picks, or the first without words. A row that is not finite is not ok.
    """

    name: str

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _ColumnReader(Column.of(shards, self.name))


@dataclass(frozen=True)
class Pixels:
    """Decoded pictures, (n, 3, size, size) uint8: a random rectangle of each, perhaps mirrored; without words the middle.

    scale, ratio: of the rectangle, as in torchvision's RandomResizedCrop. flip: mirror every second one. crop_share: of the shorter side,
    for the middle (timm's crop_pct). Give what the trunk's own preprocessing says for size, crop_share and interpolation. exact: cut as
    Pillow and torchvision do to the last bit, in three times the time (see `random_crop`); the middle always is.
    """

    size: int = 224
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    crop_share: float = 0.875
    interpolation: Interpolation = "bicubic"
    exact: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"Pixels: size={self.size} must be at least 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"Pixels: scale={self.scale} must be two shares of the area, the smaller first, above 0 and at most 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise InputError(f"Pixels: ratio={self.ratio} must be two ratios of width to height, the smaller first")
        if not 0 < self.crop_share <= 1:
            raise InputError(f"Pixels: crop_share={self.crop_share} must be above 0 and at most 1")

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _PixelReader(self, shards)

    def of(self, encoded: bytes | Decoded, word: int | None, out: np.ndarray | None = None) -> np.ndarray:
        """(3, size, size) uint8 of one file, written to out where that is given; BadPicture where it is none."""
        if word is not None:
            mirrored = self.flip and bool(word_from(word, 1) & 1)
            crop = word_from(word, 0), self.scale, self.ratio, self.interpolation
            return random_crop(encoded, self.size, *crop, exact=self.exact, mirrored=mirrored, out=out)
        middle = centre(encoded, self.size, self.crop_share, self.interpolation)
        if out is None:
            return middle
        out[:] = middle
        return out


@dataclass(frozen=True)
class Captions:
    """The texts themselves, for a text tower: n strings. The one that its word picks, or the main one without words."""

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _CaptionReader(shards)


@dataclass(frozen=True)
class Shuffled:
    """The control: another side with its rows dealt to the wrong pairs, once and for all.

    What is learnt from it is what can be had without any tie between picture and text. Every row is used as often as before, and no pair
    keeps its own (from two pairs on): the part's pairs form one random ring, and each has the row of the next.
    """

    side: Side
    seed: int = 0

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        ids = np.sort(ids)
        ring = Order(self.seed, len(ids)).ids(epoch=0, start=0, stop=len(ids))
        partner = np.empty_like(ids)
        partner[ring] = ids[np.roll(ring, -1)]
        reader = self.side.open(shards, ids)
        shuffled = _ShuffledReader(reader, ids, partner)
        return _InPlaceAs(reader, shuffled.read) if isinstance(reader, InPlace) else shuffled


def open_side(side: Side, shards: ShardSet | JoinedShards, ids: np.ndarray) -> Reader:
    """A reader over one set, or over several that are joined. InputError too where a column of theirs does not mean the same in all."""
    if isinstance(shards, ShardSet):
        return side.open(shards, ids)
    for name in column_names(side):
        shards.columns(name)
    readers = {part.name: side.open(part.shards, part.ids) for part in shards.parts(ids)}
    joined, of_one = _JoinedReader(shards, readers), next(iter(readers.values()))
    return _InPlaceAs(of_one, joined.read) if isinstance(of_one, InPlace) else joined


def column_names(side: Side) -> Iterator[str]:
    """The columns that a side reads."""
    if isinstance(side, ColumnRows):
        yield side.name
    if isinstance(side, Shuffled):
        yield from column_names(side.side)


def reads_tars(side: Side) -> bool:
    """Whether it reads, for each id that it is asked for, the tar that holds it. A side of one's own is taken to."""
    return not isinstance(side, ColumnRows | Shuffled)  # a shuffled side reads other ids than these


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
        if "text-space" in self.column.manifest.made_from and np.isnan(row).all():  # what `data-prep make-columns` says it by
            return f"{NO_WORDS}its text (column {self.column.name})"
        return f"its row of column {self.column.name} is not finite"


@dataclass(frozen=True)
class _PixelReader(InPlace):
    pixels: Pixels
    shards: ShardSet

    @property
    def row_bytes(self) -> int:
        return 3 * self.pixels.size**2

    def rows_in(self, memory: np.ndarray) -> np.ndarray:
        # in memory the channels lie last, as decoders write them and as the trunk's convolutions want them
        return memory.reshape(-1, self.pixels.size, self.pixels.size, 3).transpose(0, 3, 1, 2)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        ok = np.ones(len(ids), bool)
        reasons = []
        for row, (id, word) in enumerate(zip(ids.tolist(), [None] * len(ids) if words is None else words.tolist(), strict=True)):
            try:
                self.pixels.of(self.shards.image_bytes(id), word, out[row])
            except (BadPicture, BrokenPair) as error:
                out[row] = 0
                ok[row] = False
                reasons.append(_told(error))
        return Rows(out, ok, reasons)


def _told(error: BadPicture | BrokenPair) -> str:
    return error.reason if isinstance(error, BrokenPair) else str(error)


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
            else:
                chosen[row] = own[word % len(own)]
        return Rows(chosen, ok, reasons)


@dataclass(frozen=True)
class _ShuffledReader:
    reader: Reader
    ids: np.ndarray
    partner: np.ndarray

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        return self.reader(self._partners(ids), words)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        assert isinstance(self.reader, InPlace)
        return self.reader.read(self._partners(ids), words, out)

    def _partners(self, ids: np.ndarray) -> np.ndarray:
        return self.partner[np.searchsorted(self.ids, ids)]


@dataclass(frozen=True)
class _JoinedReader:
    shards: JoinedShards
    readers: Mapping[str, Reader]

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        return self.read(ids, words, None)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray | None) -> Rows:
        ok = np.empty(len(ids), bool)
        told: dict[int, str] = {}
        read = [
            (part.rows, self.readers[part.name](part.ids, None if words is None else words[part.rows])) for part in self.shards.parts(ids)
        ]
        for places, rows in read:
            ok[places] = rows.ok
            told |= dict(zip(places[~rows.ok].tolist(), rows.reasons, strict=True))
        return Rows(_placed([(places, rows.values) for places, rows in read], len(ids), out), ok, [told[place] for place in sorted(told)])


def _placed(parts: Sequence[tuple[np.ndarray, np.ndarray | Sequence[str]]], num: int, out: np.ndarray | None) -> np.ndarray | Sequence[str]:
    """The values of each part, at their places (m,) among num; arrays in out, where that is given."""
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
    """What reads by readers that are in place is so too, in rows that are laid as those of one of them."""

    one: InPlace
    fill: Callable[[np.ndarray, np.ndarray | None, np.ndarray], Rows]

    @property
    def row_bytes(self) -> int:
        return self.one.row_bytes

    def rows_in(self, memory: np.ndarray) -> np.ndarray:
        return self.one.rows_in(memory)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        return self.fill(ids, words, out)
