"""Keep freed memory in the process while a network runs on the CPU.

    with freed_memory_kept(): trainer.fit(...)

A network on the CPU frees tensors of many megabytes and allocates as many again, layer by layer. glibc returns blocks of more than 32 MB,
and the free end of its heap, to the kernel, which has to clear each page again at its next use.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # of glibc's malloc.h, see mallopt(3)
MIB = 2**20
KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
GIVEN_BACK = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * MIB, M_TRIM_THRESHOLD: 64 * MIB}
"""What glibc itself reaches in a process that has freed large blocks; once any of these is set, it no longer adapts them."""

_depth = 0
_changing = threading.Lock()


def one_arena() -> None:
    """From now on, new threads allocate from the main arena, until the process ends.

    Otherwise glibc gives threads arenas of their own, in blocks of 64 MB, and returns each block as soon as it is empty, regardless of
    other settings. Call this before importing libraries that start threads: existing arenas are reused. Does nothing if malloc is not
    glibc's.
    """
    _set({M_ARENA_MAX: 1})


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While it is open, malloc returns no memory to the kernel; at the end it returns all free memory.

    Applies to the whole process, whose size stays at its peak meanwhile, and to processes that are forked meanwhile, until they end.
    Threads with an arena of their own (see `one_arena`) still return some memory. Does nothing if malloc is not glibc's (macOS, musl).
    """
    global _depth
    with _changing:
        _depth += 1
        if _depth == 1:
            _set(KEPT)
    try:
        yield
    finally:
        with _changing:
            _depth -= 1
            if not _depth:
                _set(GIVEN_BACK)
                if _is_glibc():
                    ctypes.CDLL(None).malloc_trim(0)


def _set(settings: Mapping[int, int]) -> None:
    if _is_glibc():
        for setting, value in settings.items():
            ctypes.CDLL(None).mallopt(setting, value)


def _is_glibc() -> bool:
    return "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", ())
