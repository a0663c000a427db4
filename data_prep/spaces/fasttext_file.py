"""The binary files of Facebook's FastText program (`cc.en.300.bin`), read front to back, so that a compressed one can be read as a stream.

    with open("cc.en.300.bin", "rb") as stream:
        model = FastTextFile.read(stream, Path("cc.en.300.bin"))
        rows, ngram_vectors = model.matrix([0, 1])      # of words 0 and 1; and of the n-grams, None if the file has none

The layout is that of `FastText::saveModel`: a header, the words, and one matrix with a row for each word and then each n-gram bucket. The
counts in the header are not trusted: memory is allocated as the bytes arrive.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from multimodal.errors import InputError

MAGIC = (793712314).to_bytes(4, "little")
LONGEST_WORD = 1000
"""Bytes; anything longer is not a word, and the file is not a file of word vectors."""
MOST_DIMENSIONS = 1 << 16
_HEADER = struct.Struct("<14id")  # magic, version, then FastText's Args: dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket ...
_COUNTS = struct.Struct("<3i2q")  # words and labels, words, labels, tokens, size of the index of a pruned model
_SIZE = struct.Struct("<2q")
_CLASSIFIER = 3
_BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class FastTextFile:
    """What precedes the matrix. words: in the file's order. min_letters, max_letters: of n-grams; max is 0 if the file has none."""

    words: Sequence[str]
    dim: int
    num_buckets: int
    min_letters: int
    max_letters: int
    _bytes: _Bytes

    @classmethod
    def read(cls, stream: IO[bytes], file: Path) -> FastTextFile:
        """The header and the words. InputError for a classifier, a quantised model, and a file that is cut off or damaged."""
        source = _Bytes(stream, file)
        _, _, dim, _, _, _, _, _, _, model, buckets, shortest, longest, _, _ = _HEADER.unpack(source.take(_HEADER.size, "header"))
        num_entries, num_words, num_labels, _, num_pruned = _COUNTS.unpack(source.take(_COUNTS.size, "header"))
        if model == _CLASSIFIER or num_labels > 0:
            raise InputError(
                f"{file}: is a FastText classifier (such as lid.176.bin), not a file of word vectors. "
                "Use word vectors, such as cc.en.300.bin"
            )
        if not 1 <= dim <= MOST_DIMENSIONS or buckets < 0 or num_words < 0 or num_entries != num_words:
            source.damaged(f"its header says {num_words} words, {dim} dimensions and {buckets} n-gram vectors")
        words = []
        for number in range(1, num_words + 1):
            words.append(source.until_zero(f"word {number} of {num_words}").decode("utf-8", "replace"))
            source.take(9, f"word {number} of {num_words}")  # how often it was seen, and what kind of entry it is
        source.skip(8 * max(0, num_pruned), "index")
        if source.take(1, "vectors") != b"\0":
            raise InputError(
                f"{file}: is a quantised FastText model (.ftz), whose vectors are not stored as numbers. Use the .bin it was made from"
            )
        num_rows, width = _SIZE.unpack(source.take(_SIZE.size, "vectors"))
        if (num_rows, width) != (num_words + buckets, dim):
            source.damaged(f"{num_rows} vectors of {width} numbers for {num_words} words and {buckets} n-gram vectors of {dim}")
        has_ngrams = buckets > 0 and longest > 0 and shortest <= longest  # -maxn 0: words only, even if the header has buckets
        return cls(words, dim, buckets if has_ngrams else 0, max(1, shortest), longest if has_ngrams else 0, source)

    def matrix(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """The matrix's rows for the words at `rows` (n,), ascending, and those of the n-grams (buckets, d) or None; float32. Call it once.

        FastText averages them: a word's vector is the mean of its row and its n-grams' rows. InputError if the file ends early.
        """
        found = np.empty((len(rows), self.dim), np.float32)
        at = 0
        for place, row in enumerate(rows):
            self._bytes.skip(4 * self.dim * (row - at), "vectors")
            found[place] = np.frombuffer(self._bytes.take(4 * self.dim, "vectors"), "<f4")
            at = row + 1
        self._bytes.skip(4 * self.dim * (len(self.words) - at), "vectors")
        if not self.num_buckets:
            return found, None
        content = self._bytes.take(4 * self.dim * self.num_buckets, "vectors of n-grams")
        return found, np.frombuffer(content, "<f4").reshape(self.num_buckets, self.dim)


class _Bytes:
    """Reads a stream in pieces of given sizes; if it ends early, the error says in which part the file was cut off."""

    def __init__(self, stream: IO[bytes], file: Path) -> None:
        self._stream = stream
        self._file = file
        self._buffer = b""
        self._at = 0

    def take(self, num: int, part: str) -> bytes | bytearray:
        if len(self._buffer) - self._at >= num:
            self._at += num
            return self._buffer[self._at - num : self._at]
        taken = bytearray(self._buffer[self._at :])  # grows with the bytes that exist, not with what the header claims
        self._buffer, self._at = b"", 0
        while len(taken) < num:
            more = self._stream.read(min(num - len(taken), _BYTES_AT_ONCE))
            if not more:
                self.damaged(f"it ends in its {part}")
            taken += more
        return taken

    def skip(self, num: int, part: str) -> None:
        while num > 0:
            num -= len(self.take(min(num, _BYTES_AT_ONCE), part))

    def until_zero(self, part: str) -> bytes:
        """The bytes before the next zero byte, which is skipped."""
        while (end := self._buffer.find(b"\0", self._at)) < 0:
            more = self._stream.read(_BYTES_AT_ONCE) if len(self._buffer) - self._at <= LONGEST_WORD else b""
            if not more:
                self.damaged(f"it ends in, or has no end of, its {part}")
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        found = self._buffer[self._at : end]
        self._at = end + 1
        if len(found) > LONGEST_WORD:
            self.damaged(f"{len(found)} bytes as its {part}")
        return found

    def damaged(self, found: str) -> NoReturn:
        raise InputError(f"{self._file}: is a FastText file that is cut off or damaged ({found}). Download it again")
