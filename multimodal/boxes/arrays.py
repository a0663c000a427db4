"""Arrays as `.npy` files: written whole or not at all, read from any thread, never by pickle.

write_array(box / "rows.npy", rows)
read_array(box / "rows.npy", mapped=True)     # (n, d), read from disk when accessed
"""

from __future__ import annotations

import mmap
import threading
from pathlib import Path
from tokenize import TokenError

import numpy as np

from multimodal.boxes import atomic_write

_reading = threading.Lock()
"""One thread reads a header at a time, in the whole process: numpy parses it with `ast`, and CPython 3.11 fails when two threads do that
at once (SystemError: AST constructor recursion depth mismatch; python/cpython 106905)."""


def write_array(path: Path, array: np.ndarray) -> None:
    """Write the file, whole or not at all."""
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """The array in a file; mapped: read-only, and read when accessed. FileNotFoundError; ValueError if it is not an array or cut off."""
    with _reading:
        try:
            array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (TokenError, SyntaxError) as error:  # of numpy's second look at a header that it cannot parse, as Python 2 wrote them
            raise ValueError(f"Cannot parse header: {error}") from error
    return array


def let_go(array: np.ndarray) -> None:
    """Give the memory of a part of a mapped array back. The system keeps the content in its cache, and maps it again at the next access.

    Pages that the part shares with others stay. Does nothing to an array in memory, or on a system that has no such call.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED") or not array.flags.c_contiguous:
        return
    begin = array.__array_interface__["data"][0] - np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    first, end = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, (begin + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        base.madvise(mmap.MADV_DONTNEED, first, end - first)
