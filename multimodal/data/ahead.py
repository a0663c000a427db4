"""Fetch the tars of a remote set ahead of the steps that read them, while earlier steps are being used.

with Ahead(shards, shards.remote, steps, window_bytes=2**30) as ahead:     # steps: the ids of each step, in order
    for number in range(num_steps):
        ...
        ahead.reached(number)                               # steps up to this one no longer need a tar
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType

import numpy as np

from multimodal.shards.reader import ShardSet
from multimodal.shards.tars import RemoteTars


class Ahead:
    """A thread that fetches ahead, as many tars as fit into window_bytes, starting with those of the next step.

    It only fills the cache. A tar that it is late for is fetched by its reader.
    """

    def __init__(self, shards: ShardSet, remote: RemoteTars, steps: Iterable[np.ndarray], window_bytes: int) -> None:
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
        """Fetch no further tar. A download in progress is finished, since other processes may want the tar."""
        with self._moved:
            self._stopped = True
            self._moved.notify()

    def reached(self, step: int) -> None:
        """Mark the steps up to this one as read. Raises the error that ended the thread: a tar that could not be fetched."""
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
        except Exception as error:  # raised in `reached`
            self._error = error

    def _enters(self, number: int, step: int) -> bool:
        """Fetch the shard as soon as the window has room for it; False once the loader has stopped."""
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
