"""Freed memory stays with the process while a network runs on the CPU.

    with freed_memory_kept(): trainer.fit(...)

A network on the CPU frees tensors of many megabytes and asks for as many again, layer by layer. glibc hands blocks of more than 32 MB, and
whatever lies free at the end of its heap, back to the kernel, which clears each page anew when it is touched next.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # of glibc's malloc.h, see mallopt(3)
NEVER = 2**31 - 1
MIB = 2**20
BEFORE = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * MIB, M_TRIM_THRESHOLD: 64 * MIB}
"""What glibc arrives at by itself in a process that has freed large blocks; once it was told something, it no longer adapts."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Until its end malloc returns nothing to the kernel, and gives all threads memory from one place; then all that is free goes back.

    For the whole process, whose size stays at its highest meanwhile. Where malloc is not glibc's (macOS, musl) nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_ARENA_MAX, 1)  # of another arena each emptied block of 64 MB goes back at once, whatever else is set
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        for setting, value in BEFORE.items():
            libc.mallopt(setting, value)
        libc.malloc_trim(0)
