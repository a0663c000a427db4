"""Fetch the tars of a remote set in the order in which coming steps read them, while earlier steps are used.

with Ahead(shards, shards.remote, steps, window_bytes=2**30) as ahead:     # steps: the ids of each step, in order
    for number in range(num_steps):
        ...
        ahead.reached(number)                               # steps up to this one need no tar any more
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType

import numpy as np

from multimodal.shards import RemoteShards, ShardSet


class Ahead:
    """A thread that runs ahead by as many tars as window_bytes hold, beginning with those of the step that is waited for.

    It only has tars in the cache before they are asked for: what it is late for is fetched by who reads it.
    """

    def __init__(self, shards: ShardSet, remote: RemoteShards, steps: Iterable[np.ndarray], window_bytes: int) -> None:
        self._shards, self._remote, self._steps, self._window_bytes = shards, remote, steps, window_bytes
        self._window: dict[int, int] = {}
        """Number of a shard -> the last step known to read it."""
        self._done = -1
        self._stopped = False
        self._error: Exception | None = None
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="fetch ahead", daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Fetch no other tar. One that is on its way comes to its end, for others may want it."""
        with self._moved:
            self._stopped = True
            self._moved.notify()

    def reached(self, step: int) -> None:
        """Steps up to this one have been read. Raises what ended the thread: a tar that could not be fetched."""
        with self._moved:
            self._done = step
            self._moved.notify()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for step, ids in enumerate(self._steps):
                numbers, first = np.unique(self._shards.shard_numbers(ids), return_index=True)
                for number in numbers[np.argsort(first)].tolist():
                    if not self._enters(number, step):
                        return
        except Exception as error:  # told where the steps are asked for
            self._error = error

    def _enters(self, number: int, step: int) -> bool:
        """Fetch the shard as soon as the window has room for it; False where there is no need any more."""
        is_there = number in self._window
        shard = self._shards.shards[number]
        with self._moved:
            self._moved.wait_for(lambda: self._stopped or is_there or self._has_room(shard.size_bytes))
            self._window[number] = step
        if not is_there and not self._stopped and step > self._done:
            self._remote.fetch(shard)
        return not self._stopped

    def _has_room(self, size_bytes: int) -> bool:
        self._window = {number: last for number, last in self._window.items() if last > self._done}
        return not self._window or sum(self._shards.shards[number].size_bytes for number in self._window) + size_bytes <= self._window_bytes
