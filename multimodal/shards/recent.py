"""Files and maps that are kept open for reuse, up to a limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Opened things, at most `limit` of them: the least recently used is dropped first.

    A dropped one is closed when its last user releases it (reference counting), so that a thread in the middle of a read keeps its file.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._opened: dict[K, V] = {}
        self._lock, self._opening = threading.Lock(), threading.Lock()

    def __len__(self) -> int:
        return len(self._opened)

    def get(self, key: K, open: Callable[[K], V]) -> V:
        """The thing under the key, opened if necessary; only once, even if several threads request it."""
        value = self._find(key)
        if value is not None:
            return value
        with self._opening:
            value = self._find(key)
            if value is not None:
                return value
            value = open(key)
            with self._lock:
                self._opened[key] = value
                while len(self._opened) > self.limit:
                    self._opened.pop(next(iter(self._opened)))
            return value

    def _find(self, key: K) -> V | None:
        with self._lock:
            value = self._opened.pop(key, None)
            if value is not None:
                self._opened[key] = value  # a dict keeps insertion order: the most recent is last
            return value
