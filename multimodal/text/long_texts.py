"""Texts that are longer than an encoder reads: cut, or split into pieces whose vectors are averaged.

    split("One sentence. Another one.", room=4, count=count_tokens)           # ["One sentence.", "Another one."]
    average(rows, weights, owners, num_texts)                                 # a row per text from the rows of its pieces

A text that is short enough is one piece, so its vector is the same either way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from multimodal.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

LongTexts = Literal["cut", "pool"]
"""cut: only the beginning counts. pool: all pieces do; the mean of their unit vectors, weighted by their numbers of tokens."""
LONG_TEXTS: tuple[str, ...] = get_args(LongTexts)

_UNITS = (
    re.compile(r"\S.*?(?:[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]]*(?=\s|$)|(?=\n)|$)", re.DOTALL),  # sentences, and lines
    re.compile(r"\S+"),  # words
    re.compile(r"\S"),  # letters
)
_Span = tuple[int, int]


def check_long_texts(value: object, where: object = "settings") -> None:
    """InputError unless it is one of LONG_TEXTS. where: what the value came from, for the message."""
    if value not in LONG_TEXTS:
        raise InputError(f"{where}: long_texts is {value!r}; expected {' or '.join(LONG_TEXTS)}")


def split(text: str, room: int, count: Callable[[str], int]) -> list[str]:
    """A text in pieces of at most room tokens, in its order. They end where sentences or lines end; inside a longer sentence, where words
    end; inside a longer word, after any letter. Nothing but white space between pieces is lost.

    count: the number of tokens of a string, without special ones and without a limit. A single letter of more tokens is a piece.
    """
    return [text[start:stop] for start, stop in _pieces(text, (0, len(text)), 0, room, count)]


def average(rows: np.ndarray, weights: Sequence[float], owners: Sequence[int], num_texts: int) -> np.ndarray:
    """The vectors of texts from those of their pieces. rows (p, d), at unit length or zero, of any float. weights: numbers of tokens.
    owners: the text of each piece. Returns (num_texts, d) float64, rows of unit length; the row of a text of one piece is that piece's.
    """
    places = np.asarray(owners, np.int64)
    sums = np.zeros((num_texts, rows.shape[1]))
    np.add.at(sums, places, rows.astype(np.float64) * np.asarray(weights, np.float64)[:, None])
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    found = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
    alone = np.bincount(places, minlength=num_texts)[places] == 1
    found[places[alone]] = rows[alone]
    return found


def average_tensors(rows: Tensor, weights: Sequence[float], owners: Sequence[int], num_texts: int) -> Tensor:
    """`average` in torch, so that gradients pass: rows (p, d) float of any length; (num_texts, d) of unit length, but the row of a text of
    one piece is that piece's as it is."""
    from torch.nn.functional import normalize

    places = rows.new_tensor(owners).long()
    if len(owners) == num_texts:
        return rows
    weighted = normalize(rows, dim=-1) * rows.new_tensor(weights)[:, None]
    means = normalize(rows.new_zeros(num_texts, rows.shape[1]).index_add(0, places, weighted), dim=-1)
    counts = places.bincount(minlength=num_texts)
    alone = counts[places] == 1
    return means.masked_scatter((counts == 1)[:, None], rows[alone])


def _pieces(text: str, span: _Span, level: int, room: int, count: Callable[[str], int]) -> Iterator[_Span]:
    """Units of one level, as many together as fit; a unit that does not fit, as units of the next level."""
    waiting: list[_Span] = []
    used = 0
    for match in _UNITS[level].finditer(text, *span):
        unit = match.span()
        length = count(text[slice(*unit)])
        if length > room or used + length > room:
            yield from _joined(text, waiting, room, count)
            waiting, used = [], 0
        if length > room and level + 1 < len(_UNITS):
            yield from _pieces(text, unit, level + 1, room, count)
        else:
            waiting.append(unit)
            used += length
    yield from _joined(text, waiting, room, count)


def _joined(text: str, units: list[_Span], room: int, count: Callable[[str], int]) -> Iterator[_Span]:
    """The units as one span; as two, where a tokenizer makes more tokens of them together than of each alone."""
    if not units:
        return
    whole = units[0][0], units[-1][1]
    if len(units) == 1 or count(text[slice(*whole)]) <= room:
        yield whole
        return
    middle = len(units) // 2
    yield from _joined(text, units[:middle], room, count)
    yield from _joined(text, units[middle:], room, count)
