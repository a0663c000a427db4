"""What a killed process has started ends with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from multimodal.machine.parents import end_with_parent

def work(path):
    while True:
        Path(path).write_text(str(os.getpid()))
        time.sleep(0.05)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=end_with_parent) as pool:
        pool.submit(work, sys.argv[1]).result()
"""


def test_a_process_ends_with_the_killed_one_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(SCRIPT)
    beat = tmp_path / "beat"
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(beat)]) as parent:
        while not beat.exists():
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
    for _ in range(200):
        beat.unlink(missing_ok=True)
        time.sleep(0.3)
        if not beat.exists():
            return
    raise AssertionError("it still works a minute later")
