"""Memory that a process keeps: blocks that are freed and asked for again cost no page fault, and all goes back at the end."""

import platform
import subprocess
import sys

import pytest

CHURN = """
import resource
import torch
from multimodal.heap import freed_memory_kept

def churn():
    for _ in range(20):
        blocks = [torch.ones(12 * 2**20), torch.ones(30 * 2**20)]  # 48 and 120 MiB: by themselves, both go back to the kernel
        del blocks

def faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

churn()
before = resident()
with freed_memory_kept():
    churn()
    kept = faults(churn)
    held = resident() - before
print(faults(churn), kept, held, resident() - before)
"""
PAGES_A_ROUND = 168 * 2**20 // 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's here, and is left as it is")
def test_freed_blocks_stay_with_the_process_and_go_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, check=True, timeout=100)
    given_back, kept, held, left = map(int, done.stdout.split())
    assert given_back > PAGES_A_ROUND, "blocks of this size stay with the process anyhow, and nothing is shown"
    assert kept < PAGES_A_ROUND / 10
    assert held > 0.9 * PAGES_A_ROUND
    assert left < held / 2
