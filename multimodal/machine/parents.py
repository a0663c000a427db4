"""Processes that end with the process that started them.

ProcessPoolExecutor(2, get_context("spawn"), initializer=end_with_parent)
"""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process of multiprocessing as soon as its parent is gone, even if that was killed.

    What was killed must not leave processes that write into a folder in which the next try continues.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a process that multiprocessing has started"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
