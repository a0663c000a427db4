"""Arrays as `.npy` files: written whole or not at all, read from any thread, never by pickle.

write_array(box / "rows.npy", rows)
read_array(box / "rows.npy", mapped=True)     # (n, d), read from the disk where it is looked at
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from multimodal.boxes import atomic_write

_reading = threading.Lock()
"""One thread reads a header at a time, in the whole process: numpy reads it through `ast`, and CPython 3.11 fails when two threads are in
there at once (SystemError: AST constructor recursion depth mismatch; python/cpython 106905)."""


def write_array(path: Path, array: np.ndarray) -> None:
    """Write the file, whole or not at all."""
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """The array in a file; mapped: read-only, and read where it is looked at. FileNotFoundError, or ValueError where it is none or cut."""
    with _reading:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array
