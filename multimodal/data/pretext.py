"""Pretext tasks: an input side that makes views of a picture and asks about them, so that a picture without text or label can teach.

    data:
      image: {class_path: multimodal.data.RotationViews, init_args: {pixels: {size: 48}}}
      target: {class_path: multimodal.data.ViewsTarget}

Views and answer are made together from one random word, in training and in validation, where the crop is the centre one and the question is
a function of the picture's id. To add a task, derive from `Views`; the objective with the same answer is in `multimodal.objectives`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache
from itertools import permutations
from typing import ClassVar

import numpy as np

from multimodal.data.decode import BadPicture
from multimodal.data.order import random_words, word_from
from multimodal.data.sides import InPlace, Partners, Pixels, Reader, Rows, Side
from multimodal.errors import InputError
from multimodal.shards import BrokenPair, ShardSet

QUESTION = 2
"""Which of a pair's random words the question is drawn from: 0 and 1 are the crop's."""
MEAN_COLOUR = (124, 116, 104)
"""Of ImageNet's pictures, which networks see as zero."""
HOLE_SPREAD = 64
"""About the standard deviation, in photographs, of what a hole hides, of 0 to 255. Answers are divided by it: the steps of Adam that suit a
trunk change a head by more than an answer that is much below 1."""
COLOUR_EDGES = (-20, -12, -7, -3, 0, 3, 7, 12, 20, 30)
"""Between bins of a* and of b*: narrow ones near grey, where most colours are. Of 16 x 16 squares of Flickr8k, 4.8 % have the commonest
pair of bins."""
NUM_COLOURS = (len(COLOUR_EDGES) + 1) ** 2
MAX_PERMUTATIONS = 1000
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
"""From linear sRGB (IEC 61966-2-1) to CIE XYZ."""


@dataclass(frozen=True)
class Views(Side):
    """An input side that makes one or several views of each picture, and with them what they are asked about (`ViewsTarget`).

    pixels: how the picture is cropped first. permuted: a control, in which each picture's answers are those about another picture's views,
    so that nothing can be learned but what every answer is like.
    """

    pixels: Pixels = field(default_factory=Pixels)
    permuted: bool = field(default=False, kw_only=True)

    answer_dtype: ClassVar[type] = np.int64

    @property
    def side(self) -> int:
        """Height and width of the cropped picture, in pixels; InputError if they differ."""
        if not isinstance(self.pixels.size, int):
            raise InputError(f"{type(self).__name__}: pixels.size={self.pixels.size} must be one number: its pictures are square")
        return self.pixels.size

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of a picture's views: (3, h, w), or (v, 3, h, w) for v of them."""

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Of the answer to one question; () for a number."""
        return ()

    @abstractmethod
    def ask(self, picture: np.ndarray, word: int, views: np.ndarray) -> int | np.ndarray:
        """Write the views (`shape`) of a cropped picture (3, size, size) uint8, and return the answer. word: 64 random bits."""

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _ViewsReader(self, shards, Partners(ids, seed=0) if self.permuted else None)


@dataclass(frozen=True)
class ViewsTarget(Side):
    """The target that `Views` make along with their views; it reads nothing itself."""

    reads_tars: ClassVar[bool] = False

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _nothing


@dataclass(frozen=True)
class RotationViews(Views):
    """The picture rotated by 0, 90, 180 or 270 degrees against the clock; the answer, 0 to 3, is by how many quarter turns.

    RotNet (Gidaris, Singh and Komodakis, ICLR 2018, arXiv 1803.07728). There a batch holds all four rotations of a picture; here one is
    drawn for each epoch, so that a batch holds four times as many pictures.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, self.side, self.side)

    def ask(self, picture: np.ndarray, word: int, views: np.ndarray) -> int:
        turns = word & 3
        views[:] = np.rot90(picture, turns, axes=(1, 2))
        return turns


class Colours(ABC):
    """How the colours of a patch are changed, so that they do not tell where in the picture it was."""

    @abstractmethod
    def change(self, patch: np.ndarray, word: int) -> None:
        """patch (3, h, w) uint8, changed in place. word: 64 random bits."""


@dataclass(frozen=True)
class DropColours(Colours):
    """Two of the three channels, at random, become noise around a mean colour, whose deviation is a hundredth of the third one's.

    Between the channels of a patch, nothing is left to compare (Doersch, Gupta and Efros, ICCV 2015, arXiv 1505.05192, section 3).
    """

    def change(self, patch: np.ndarray, word: int) -> None:
        kept = word % 3
        generator = np.random.default_rng(word)
        deviation = patch[kept].std() / 100
        for channel in {0, 1, 2} - {kept}:
            patch[channel] = np.rint(MEAN_COLOUR[channel] + deviation * generator.standard_normal(patch.shape[1:])).clip(0, 255)


@dataclass(frozen=True)
class OneChannel(Colours):
    """One of the three channels, at random, takes the place of all: as with `DropColours`, nothing is left to compare.

    The patch is a grey picture then, as bright as it was. A network taught on one channel and noise is excited three times as much by a
    whole picture; this one is not, which matters if its features stay as they are.
    """

    def change(self, patch: np.ndarray, word: int) -> None:
        patch[:] = patch[word % 3].copy()


@dataclass(frozen=True)
class ProjectColours(Colours):
    """A pixel's part along the axis from green to magenta is taken away: B = I - a'a / (aa') with a = (-1, 2, -1) (the same section)."""

    def change(self, patch: np.ndarray, word: int) -> None:
        red, green, blue = patch.astype(np.int16)
        along = (2 * green - red - blue) / 6
        for channel, (plain, factor) in enumerate(((red, 1), (green, -2), (blue, 1))):
            patch[channel] = np.rint(plain + factor * along).clip(0, 255)


@dataclass(frozen=True)
class PositionViews(Views):
    """The nine patches of a 3 x 3 grid, in a random order; the answer, (9,), is the cell of each, row by row.

    Relative position (Doersch, Gupta and Efros, ICCV 2015, arXiv 1505.05192). patch: width and height in pixels. gap: between neighbours,
    so that no edge runs on from one to the other. jitter: the most by which each patch is moved, in both directions. pixels: whose size is
    3 * patch + 2 * gap + 2 * jitter. colours: closes the chromatic shortcut, for each patch by itself; null leaves it open: a lens that
    shifts red and blue outwards tells a network where a patch was, without looking at what it shows.
    """

    pixels: Pixels = field(default_factory=lambda: Pixels(size=180, scale=(0.5, 1.0)))
    patch: int = 40
    gap: int = 20
    jitter: int = 10
    colours: Colours | None = field(default_factory=DropColours)

    def __post_init__(self) -> None:
        for name in ("patch", "gap", "jitter"):
            if (value := getattr(self, name)) < (name == "patch"):
                raise InputError(f"PositionViews: {name}={value} must be at least {int(name == 'patch')}")
        if 2 * self.jitter > self.gap:
            raise InputError(f"PositionViews: jitter={self.jitter} is more than half of gap={self.gap}, so that patches could overlap")
        _check_size(self, 3 * self.patch + 2 * self.gap + 2 * self.jitter, "3 * patch + 2 * gap + 2 * jitter")

    @property
    def shape(self) -> tuple[int, ...]:
        return (9, 3, self.patch, self.patch)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        return (9,)

    def ask(self, picture: np.ndarray, word: int, views: np.ndarray) -> np.ndarray:
        cells = np.random.default_rng(word_from(word, 18)).permutation(9)
        for cell, view in zip(cells.tolist(), views, strict=True):
            top, left = self.corner(cell, word_from(word, cell))
            view[:] = picture[:, top : top + self.patch, left : left + self.patch]
            if self.colours is not None:
                self.colours.change(view, word_from(word, 9 + cell))
        return cells

    def corner(self, cell: int, word: int) -> tuple[int, int]:
        """The top and left of the patch in a cell of the grid, 0 to 8 row by row."""
        pitch, moves = self.patch + self.gap, 2 * self.jitter + 1
        return (cell // 3) * pitch + word_from(word, 0) % moves, (cell % 3) * pitch + word_from(word, 1) % moves


@dataclass(frozen=True)
class JigsawViews(Views):
    """The tiles of a grid, shuffled; the answer is by which of a fixed set of permutations.

    Jigsaw puzzles (Noroozi and Favaro, ECCV 2016, arXiv 1603.09246). View k of permutation p shows tile p[k], tiles being numbered row by
    row. grid: tiles in a row and in a column. tile: width and height in pixels. gap: by how much a cell is larger than its tile, which lies
    anywhere in it, so that no edge runs on from one tile to the next. num_permutations: see `far_permutations`. pixels: whose size is
    grid * (tile + gap).
    """

    pixels: Pixels = field(default_factory=lambda: Pixels(size=144, scale=(0.5, 1.0)))
    grid: int = 3
    tile: int = 40
    gap: int = 8
    num_permutations: int = 64

    def __post_init__(self) -> None:
        if self.grid not in (2, 3):
            raise InputError(f"JigsawViews: grid={self.grid} must be 2 or 3: of 4 x 4 tiles there are 2e13 permutations to choose from")
        if self.tile < 1 or self.gap < 0:
            raise InputError(f"JigsawViews: tile={self.tile} must be at least 1, and gap={self.gap} at least 0")
        _check_size(self, self.grid * (self.tile + self.gap), "grid * (tile + gap)")
        most = math.factorial(self.grid**2)
        if not 2 <= self.num_permutations <= min(most, MAX_PERMUTATIONS):
            raise InputError(f"JigsawViews: num_permutations={self.num_permutations} must be from 2 to {min(most, MAX_PERMUTATIONS)}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.grid**2, 3, self.tile, self.tile)

    def ask(self, picture: np.ndarray, word: int, views: np.ndarray) -> int:
        arranged = far_permutations(self.grid**2, self.num_permutations)
        answer = word_from(word, 0) % len(arranged)
        cell = self.tile + self.gap
        for number, (one, view) in enumerate(zip(arranged[answer].tolist(), views, strict=True)):
            moved = word_from(word, 1 + number)
            top, left = (place * cell + word_from(moved, axis) % (self.gap + 1) for axis, place in enumerate(divmod(one, self.grid)))
            view[:] = picture[:, top : top + self.tile, left : left + self.tile]
        return answer


@cache
def far_permutations(num_tiles: int, num: int) -> np.ndarray:
    """(num, num_tiles) uint8, permutations that are far from each other: each next one has the largest Hamming distance to its nearest.

    Greedy, from the identity on; ties are broken by the larger mean distance, then by lexicographic order. A puzzle whose permutations
    differ in many tiles cannot be solved by looking at two of them (Noroozi and Favaro, algorithm 1; they start at random).
    """
    every = np.array([*permutations(range(num_tiles))], np.uint8)
    chosen = [0]
    nearest, total = np.full(len(every), num_tiles + 1), np.zeros(len(every), np.int64)
    while len(chosen) < num:
        distances = (every != every[chosen[-1]]).sum(axis=1)
        nearest, total = np.minimum(nearest, distances), total + distances
        chosen.append(int(np.argmax(nearest * (num_tiles * num + 1) + total)))
    return every[chosen]


@dataclass(frozen=True)
class HoleViews(Views):
    """The picture with a hole in its middle; the answer is what was there, in squares of `block` pixels, each by its mean colour.

    In-painting (context encoders: Pathak et al., CVPR 2016, arXiv 1604.07379). The hole has half of the picture's width and height, and the
    mean colour of what is around it. The answer (3, n, n) float32, n = size / (2 * block), is the difference to that colour, by
    HOLE_SPREAD: to fill the hole with it, as it is shown, is an answer of zeros.
    """

    block: int = 2
    answer_dtype: ClassVar[type] = np.float32

    def __post_init__(self) -> None:
        if self.block < 1 or self.side % (4 * self.block):
            raise InputError(
                f"HoleViews: pixels.size={self.pixels.size} must be a multiple of 4 * block={4 * self.block}: half of it is the hole, in "
                "the middle, with whole blocks"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, self.side, self.side)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        num = self.side // (2 * self.block)
        return (3, num, num)

    def ask(self, picture: np.ndarray, word: int, views: np.ndarray) -> np.ndarray:
        size = self.side
        hole = (slice(None), slice(size // 4, size - size // 4), slice(size // 4, size - size // 4))
        views[:] = picture
        inside, whole = picture[hole].sum(axis=(1, 2), dtype=np.int64), picture.sum(axis=(1, 2), dtype=np.int64)
        around = np.rint((whole - inside) / (size**2 - picture[hole][0].size))
        views[hole] = around[:, None, None]
        return ((block_means(picture[hole], self.block) - around[:, None, None]) / HOLE_SPREAD).astype(np.float32)


@dataclass(frozen=True)
class GreyViews(Views):
    """The picture without its colours; the answer is what they were, in squares of `block` pixels.

    Colourisation (Zhang, Isola and Efros, ECCV 2016, arXiv 1603.08511). The answer (n, n) int64, n = size / block, is the bin of the mean
    colour of each square, from 0 to NUM_COLOURS - 1: 11 times that of a* in CIELAB, and that of b* (COLOUR_EDGES). In the paper,
    pixels are answered, in even bins, and rare ones weigh more; here bins are narrower where colours are common.
    """

    block: int = 16

    def __post_init__(self) -> None:
        if self.block < 1 or self.side % self.block:
            raise InputError(f"GreyViews: pixels.size={self.pixels.size} must be a multiple of block={self.block}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, self.side, self.side)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        num = self.side // self.block
        return (num, num)

    def ask(self, picture: np.ndarray, word: int, views: np.ndarray) -> np.ndarray:
        views[:] = grey(picture)
        a_bin, b_bin = np.digitize(lab(block_means(picture, self.block))[1:].round(6), COLOUR_EDGES)  # greys are 0 but for rounding
        return a_bin * (len(COLOUR_EDGES) + 1) + b_bin


def block_means(picture: np.ndarray, block: int) -> np.ndarray:
    """picture (c, h, w), its sides multiples of block -> (c, h / block, w / block) float64, the mean of each square."""
    channels, height, width = picture.shape
    return picture.reshape(channels, height // block, block, width // block, block).mean(axis=(2, 4))


def grey(picture: np.ndarray) -> np.ndarray:
    """picture (3, h, w) uint8 -> (h, w) uint8, its luma (ITU-R 601-2), as Pillow's mode L."""
    red, green, blue = picture.astype(np.uint32)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)


def lab(colours: np.ndarray) -> np.ndarray:
    """colours (3, ...) of sRGB from 0 to 255 -> (3, ...) float64, their L*, a* and b* (CIE 1976, white D65)."""
    share = np.asarray(colours, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    x, y, z = np.tensordot(TO_XYZ / TO_XYZ.sum(axis=1, keepdims=True), linear, axes=1)
    fx, fy, fz = (np.where(one > (6 / 29) ** 3, np.cbrt(one), one / (3 * (6 / 29) ** 2) + 4 / 29) for one in (x, y, z))
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def _check_size(views: Views, size: int, rule: str) -> None:
    if views.pixels.size != size:
        raise InputError(f"{type(views).__name__}: pixels.size={views.pixels.size} must be {rule} = {size}")


@dataclass(frozen=True)
class _ViewsReader(InPlace):
    views: Views
    shards: ShardSet
    partners: Partners | None
    kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    """id -> its pixels, if they are kept (`Pixels.kept`)."""

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.views.shape))

    def rows_in(self, memory: np.ndarray) -> np.ndarray:
        *several, channels, height, width = self.views.shape
        rows = memory.reshape(-1, *several, height, width, channels)  # channels-last in memory, as of `Pixels`
        return np.moveaxis(rows, -1, -3)

    def read(self, ids: np.ndarray, words: np.ndarray | None, out: np.ndarray) -> Rows:
        ok, reasons = np.ones(len(ids), bool), []
        answers: np.ndarray = np.zeros((len(ids), *self.views.answer_shape), self.views.answer_dtype)
        questions = random_words(0, 0, ids) if words is None else words
        others, spare = ids if self.partners is None else self.partners.of(ids), np.empty(self.views.shape, np.uint8)
        for row, (id, other, question) in enumerate(zip(ids.tolist(), others.tolist(), questions.tolist(), strict=True)):
            try:
                picture = self._picture(id, None if words is None else question)
                answers[row] = self.views.ask(picture, word_from(question, QUESTION), out[row])
                if self.partners is not None:
                    picture = self._picture(other, None if words is None else word_from(question, QUESTION + 2))
                    answers[row] = self.views.ask(picture, word_from(question, QUESTION + 1), spare)
            except (BadPicture, BrokenPair) as error:
                out[row], answers[row], ok[row] = 0, 0, False
                reasons.append(error.reason if isinstance(error, BrokenPair) else str(error))
        return Rows(out, ok, reasons, answers)

    def _picture(self, id: int, word: int | None) -> np.ndarray:
        pixels = self.views.pixels
        if not pixels.kept:
            return pixels.of(self.shards.image_bytes(id), word)
        if id not in self.kept:
            self.kept[id] = pixels.of(self.shards.image_bytes(id), None)
        return self.kept[id]


def _nothing(ids: np.ndarray, words: np.ndarray | None) -> Rows:
    return Rows(np.zeros((len(ids), 0), np.float32), np.ones(len(ids), bool))
