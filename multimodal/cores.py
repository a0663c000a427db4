"""The machine's cores: which of them this process may use, and work that is done on all of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> list[int]:
    """Their numbers, ascending: fewer than there are under a scheduler, in a container, or where the process was pinned.

    Where the system does not say (macOS, Windows), as many as there are.
    """
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def map_in_threads(
    work: Callable[[T], R],
    items: Iterable[T],
    num_threads: int | None = None,
    ahead: int | None = None,
    begin: Callable[[], None] | None = None,
) -> Iterator[R]:
    """`work` on each item, in threads; the results in the order of the items. What work raises is raised here, in its turn.

    num_threads: by default one for each core. ahead: no more items are taken than these before the oldest result is handed on, which
    bounds the memory; by default 64, or 4 for each thread where that is more. begin: called in each thread first.
    """
    num_threads = num_threads or len(usable_cores())
    ahead = ahead or max(64, 4 * num_threads)
    with ThreadPoolExecutor(num_threads, initializer=begin) as threads:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(threads.submit(work, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
