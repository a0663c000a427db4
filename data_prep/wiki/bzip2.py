"""Reads a .bz2 file from any of its blocks, so that several processes can share one file, with one stream or many.

    starts = block_starts(Path("enwiki.xml.bz2"))                    # where blocks begin, in bits
    for block in read_blocks(path, starts[10], starts[20]): ...      # ten blocks, decompressed; a Damage in place of a broken one

A stream is a sequence of independent blocks of about 900 kB. Each begins, at any bit of a byte, with a 48-bit mark (the digits of pi) and
its checksum; a stream ends with another 48-bit mark (the square root of pi). Each block is decompressed as a stream of its own. Hadoop
splits such files in the same way.
For a file of 22 GB, such a mark occurs inside a block by chance with probability 1 in 1,600. That block is then reported as damaged.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_BLOCK, _END = 0x314159265359, 0x177245385090
_MARK_BITS, _CHECK_BITS = 48, 32
_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Damage:
    """A block that cannot be decompressed. start: its place in the file, in bits."""

    start: int
    reason: str


def is_bzip2(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(3) == b"BZh"


def block_starts(path: Path) -> list[int]:
    """Where the blocks of a file begin, in bits, ascending. Reads the file once, at some 100 MB a second, without decompressing it."""
    with open(path, "rb") as file:
        return [at for at, mark in _marks(file, 0) if mark == _BLOCK]


def read_blocks(path: Path, start: int, stop: int | None = None) -> Iterator[bytes | Damage]:
    """The content of the blocks that begin in [start, stop), both in bits; to the end of the file if stop is None."""
    with open(path, "rb") as marks, open(path, "rb") as file:
        size = path.stat().st_size * 8
        begun: int | None = None
        for at, mark in _marks(marks, start // 8):
            if begun is not None:
                yield _decompress(file, begun, at)
                begun = None
            if mark == _BLOCK and at >= start:
                if stop is not None and at >= stop:
                    return
                begun = at
        if begun is not None:
            yield Damage(begun, "the file ends in it") if size - begun < _MARK_BITS + _CHECK_BITS else _decompress(file, begun, size)


def _decompress(file: IO[bytes], start: int, stop: int) -> bytes | Damage:
    """A block [start, stop) as a stream of its own: header, the block's bits, end mark, and its checksum as that of the stream."""
    file.seek(start // 8)
    content = file.read(-(-stop // 8) - start // 8)
    num_bits = stop - start
    bits = int.from_bytes(content) >> (-stop % 8) & ((1 << num_bits) - 1)
    check = bits >> (num_bits - _MARK_BITS - _CHECK_BITS) & ((1 << _CHECK_BITS) - 1)
    bits = ((bits << _MARK_BITS | _END) << _CHECK_BITS) | check
    num_bits += _MARK_BITS + _CHECK_BITS
    padding = -num_bits % 8
    try:
        return bz2.decompress(b"BZh9" + (bits << padding).to_bytes((num_bits + padding) // 8))
    except (OSError, ValueError) as error:  # ValueError: it ends before its end mark
        return Damage(start, str(error))


def _patterns() -> list[tuple[bytes, int, int]]:
    """For each mark and each bit at which it may begin: the bytes that it covers completely, the mark, the bit."""
    found = []
    for mark in (_BLOCK, _END):
        for shift in range(8):
            whole = (mark << (8 - shift)).to_bytes(7)
            found.append((whole[:6] if shift == 0 else whole[1:6], mark, shift))
    return found


_PATTERNS = _patterns()


def _marks(file: IO[bytes], start: int) -> Iterator[tuple[int, int]]:
    """(bit, mark) for each mark from a byte on, ascending."""
    file.seek(start)
    offset, window, late = start, b"", list[tuple[int, int]]()
    while chunk := file.read(_READ_BYTES):
        window += chunk
        found = []
        for pattern, mark, shift in _PATTERNS:
            at = window.find(pattern)
            while at >= 0:
                first = at - (shift > 0)
                if (
                    first >= 0
                    and int.from_bytes(window[first : first + 7].ljust(7, b"\0")) >> (8 - shift) & ((1 << _MARK_BITS) - 1) == mark
                ):
                    found.append(((offset + first) * 8 + shift, mark))
                at = window.find(pattern, at + 1)
        # A mark may cross the end of the window: those that begin in its last 7 bytes are searched again with the next chunk.
        keep = max(len(window) - 7, 0)
        offset, window = offset + keep, window[keep:]
        late = sorted(one for one in found if one[0] >= offset * 8)
        yield from sorted(one for one in found if one[0] < offset * 8)
    yield from late
