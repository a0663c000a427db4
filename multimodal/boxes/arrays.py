"""Arrays as `.npy` files: written whole or not at all, read from any thread, never by pickle.

write_array(box / "rows.npy", rows)
read_array(box / "rows.npy", mapped=True)     # (n, d), read from disk when accessed
"""

from __future__ import annotations

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
