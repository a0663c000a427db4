"""The newest generation of a store that others change: a request is answered by one generation, and the next one by the newest there is.

    stores = Newest(Store("S"))
    store = stores.current()            # opened again if a writer has committed since; called from any thread

Opening the next generation reads what is new in it. It is made ready to be searched before it takes the place of the one before, which
answers what was begun with it. A store that cannot be opened any more is said so, once, and the last good generation goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeVar

from multimodal.boxes import MANIFEST
from multimodal.doors.printable import printable
from multimodal.errors import InputError
from multimodal.search.store import Store

T = TypeVar("T")


class Newest:
    """A store, opened again whenever its manifest is another file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen = self._state()
        if not store.is_current():  # it changed before we looked
            self._seen = None
        self._opening = Lock()

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def state(self) -> tuple[int, int, int] | None:
        """What tells this generation from the next, without opening it."""
        return self._state()

    def current(self) -> Store:
        """The newest generation. Whoever asks while it is being opened waits for it."""
        if self._state() == self._seen:
            return self._store
        with self._opening:
            while (state := self._state()) != self._seen:
                try:
                    store = Store(self._store.path, before=self._store, trust=self._store.trust)
                    store.shards, store.folders = self._store.shards, self._store.folders
                    _ = store.engine, store.calibration
                    self._store = store
                except (InputError, OSError) as error:
                    if self._state() != state:  # changed while it was read
                        continue
                    said = f"{self._store.path}: cannot be opened again, so what was there before is served on: {error}"
                    print(printable(said), file=sys.stderr)
                self._seen = state  # only now: whoever asks meanwhile has to wait
            return self._store

    def answered(self, ask: Callable[[Store], T]) -> T:
        """What `ask` says of the newest generation; asked again for as long as writers remove files of the one that it is asking."""
        store = self.current()
        while True:
            try:
                return ask(store)
            except (InputError, FileNotFoundError):
                newer = self.current()
                if newer is store:
                    raise
                store = newer

    def _state(self) -> tuple[int, int, int] | None:
        """What tells one manifest from the next, since each is a new file."""
        try:
            facts = os.stat(self._store.path / MANIFEST)
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size
