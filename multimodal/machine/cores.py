"""The machine's cores: which of them this process may use, and a function to use them all."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use, ascending: a scheduler, a container or pinning may restrict them.

    All cores on systems without that information (macOS, Windows).
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
    """Call `work` on each item, in threads; yields the results in the order of the items. An error is raised here, in its turn.

    num_threads: by default one per core. ahead: at most this many items are taken before the oldest result is returned, which bounds the
    memory; by default 64, or 4 per thread if that is more. begin: called first in each thread.
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
