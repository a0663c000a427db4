"""Which rows of a batch hold the same picture or the same target, as numbers that ranks can exchange.

    Identities(shards, ids, Pixels(224), Captions())(ids, words)         # (n, 2) int64

They are made from files and texts, not from the rows that a model sees: two crops of a picture differ, and an encoder's vectors of equal
texts may differ in their last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from multimodal.data.sides import Captions, ColumnRows, Reader, Rows, Shuffled, Side, open_side
from multimodal.shards import BrokenPair, JoinedShards, ShardSet
from multimodal.shards.columns import Column


class Identities:
    """A number for each pair's picture, and one for its target, equal for equal ones; a row of a column counts as the text it is made from.

    shards, ids: as for `open_side`. image, target: the two sides of the batch.
    """

    def __init__(self, shards: ShardSet | JoinedShards, ids: np.ndarray, image: Side, target: Side) -> None:
        self._pictures = open_side(PictureIdentity.of(image), shards, ids)
        self._targets = open_side(TargetIdentity.of(target), shards, ids)

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> np.ndarray:
        """ids (n,) int64, and the random words by which their targets are drawn -> (n, 2) int64."""
        return np.stack([_numbers(ids, self._pictures(ids, None)), _numbers(ids, self._targets(ids, words))], axis=1)


@dataclass(frozen=True)
class PictureIdentity(Side):
    """For each pair a hash of its picture's file."""

    @classmethod
    def of(cls, side: Side) -> Side:
        """Of the pictures of an image side: features count as their pictures."""
        return Shuffled(cls.of(side.side), side.seed) if isinstance(side, Shuffled) else cls()

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _FileReader(shards)


@dataclass(frozen=True)
class TargetIdentity(Side):
    """For each pair the text that its row of a column was made from."""

    column: str

    @classmethod
    def of(cls, side: Side) -> Side:
        """Of the texts of a target side. The rows of a side that is neither a column nor captions count as they are."""
        if isinstance(side, Shuffled):
            return Shuffled(cls.of(side.side), side.seed)
        return cls(side.name) if isinstance(side, ColumnRows) else side

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        captions = Captions().open(shards, ids)
        return captions if Column.of(shards, self.column).unit == "text" else _MainTextReader(captions)


@dataclass(frozen=True)
class _FileReader:
    shards: ShardSet

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        digests, ok, reasons = [""] * len(ids), np.ones(len(ids), bool), []
        for row, id in enumerate(ids.tolist()):
            try:
                digests[row] = blake2b(self.shards.image_bytes(id), digest_size=16).hexdigest()
            except BrokenPair as error:
                ok[row] = False
                reasons.append(error.reason)
        return Rows(digests, ok, reasons)


@dataclass(frozen=True)
class _MainTextReader:
    captions: Reader

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        return self.captions(ids, None)


def _numbers(ids: np.ndarray, rows: Rows) -> np.ndarray:
    """ids (n,) int64 and their rows -> (n,) int64, equal for equal rows; an unreadable row is equal only to that of the same id.

    64 bits of BLAKE2b: among 32,768 pairs, two different rows get the same number with a probability of 3e-11.
    """
    contents = []
    for id, value, ok in zip(ids.tolist(), rows.values, rows.ok.tolist(), strict=True):
        if not ok:
            contents.append(b"unreadable %d" % id)
        else:
            contents.append(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else np.ascontiguousarray(value).tobytes())
    return np.frombuffer(b"".join(blake2b(content, digest_size=8).digest() for content in contents), np.int64)
