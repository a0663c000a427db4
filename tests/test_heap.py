"""Memory that a process keeps: blocks that are freed and asked for again cost no page fault, and all goes back at the end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()), reason="malloc is not glibc's here, and is left as it is"
)

COMMON = """
import ctypes, resource, threading
from multimodal.machine.heap import freed_memory_kept, one_arena
one_arena()
import numpy as np, pyarrow

def churn(sizes=(48, 120)):
    for _ in range(20):
        blocks = [np.full(size * 2**20, 1, np.uint8) for size in sizes]  # by themselves, these go back to the kernel
        del blocks

def faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def pages(column):
    with open("/proc/self/statm") as file:
        return int(file.read().split()[column])

VIRTUAL, RESIDENT = 0, 1
"""
PAGES_A_ROUND = 168 * 2**20 // 4096


def told(code: str) -> list[int]:
    """The numbers that a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", COMMON + code], capture_output=True, text=True, check=True, timeout=300)
    return [int(word) for word in done.stdout.split()]


def test_freed_blocks_stay_with_the_process_and_go_back_at_the_end() -> None:
    given_back, kept, held, left = told("""
churn()
before = pages(RESIDENT)
with freed_memory_kept():
    churn()
    kept = faults(churn)
    held = pages(RESIDENT) - before
print(faults(churn), kept, held, pages(RESIDENT) - before)
""")
    assert given_back > 10_000, "blocks of this size stay with the process anyhow, and nothing is shown"
    assert kept < given_back / 10
    assert held > 0.9 * PAGES_A_ROUND
    assert left < held / 2


def test_threads_keep_what_they_free_too() -> None:
    alone, together = told("""
def threads():
    barrier = threading.Barrier(2)
    def work():
        barrier.wait()
        churn((48, 48))
    both = [threading.Thread(target=work) for _ in range(2)]
    for one in both: one.start()
    for one in both: one.join()
threads()
given_back = faults(threads)
with freed_memory_kept():
    threads()
    threads()
    print(given_back, faults(threads))
""")
    assert alone > 10_000
    assert together < alone / 10


def test_more_than_two_gigabytes_are_kept_until_the_outermost_end() -> None:
    inner, outer, after = told("""
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def grown(num_bytes=3 * 2**30):  # never touched, so it is no memory
    libc.free(libc.malloc(num_bytes))
    return pages(VIRTUAL) - before
before = pages(VIRTUAL)
with freed_memory_kept():
    with freed_memory_kept():
        inner = grown()
    outer = grown()
print(inner, outer, grown())
""")
    three_gigabytes = 3 * 2**30 // 4096
    assert inner >= three_gigabytes and outer >= three_gigabytes
    assert after < three_gigabytes / 2
