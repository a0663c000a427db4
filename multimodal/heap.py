"""Freed memory stays with the process while a network runs on the CPU.

    with freed_memory_kept(): trainer.fit(...)

A network on the CPU frees tensors of many megabytes and asks for as many again, layer by layer. glibc hands blocks of more than 32 MB, and
whatever lies free at the end of its heap, back to the kernel, which clears each page anew when it is touched next.
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
"""What glibc arrives at by itself in a process that has freed large blocks; once it was told something, it no longer adapts."""

_depth = 0
_changing = threading.Lock()


def one_arena() -> None:
    """Threads that begin from now on have memory from one place with all others, until the process ends.

    glibc gives each some blocks of 64 MB of its own otherwise, and each of those goes back as soon as it is empty, whatever else is set. To
    be called before libraries are imported that make threads: a place that is there already is used again. Nothing where malloc is not
    glibc's.
    """
    _set({M_ARENA_MAX: 1})


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Until its end malloc returns nothing to the kernel; then all that is free goes back.

    For the whole process, whose size stays at its highest meanwhile, and for processes that are forked meanwhile, until their end. Threads
    that do not share the main thread's memory (see `one_arena`) still return some. Where malloc is not glibc's (macOS, musl) nothing is
    changed.
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
