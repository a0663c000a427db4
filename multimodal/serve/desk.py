"""What all requests share: the stores, the lanes in which work is done, what was answered before, uploads, counters.

    desk = Desk(stores, Settings())
    reply = await desk.answer(served, ("search", asked, 48, 0), lambda store: json_of(store, asked))

Two requests that ask the same of one generation are one piece of work: who comes second waits for the first, and who comes later gets what
was kept. The memory for that is bounded in bytes, and a new generation forgets it.
"""

from __future__ import annotations

import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np

from multimodal.search.store import Store
from multimodal.search.words import Words
from multimodal.serve.judgements import Judgements
from multimodal.serve.limits import Lane, Places, Turns
from multimodal.serve.metrics import Metrics, series
from multimodal.serve.originals import Original, original
from multimodal.serve.served import Served, Stores
from multimodal.serve.uploads import CONTENT, Upload, Uploads

T = TypeVar("T")

QUERY_THREADS = 64
FILE_THREADS = 4
MAX_WAITING_UPLOADS = 4
KEPT_BYTES = 64 << 20


@dataclass(frozen=True)
class Settings:
    """limit_s: the most that a query may take. max_waiting: requests that may wait, in each lane, before others are refused.

    shared: a folder that the workers of a server share, and secret the key of its names; made anew for a server of one process.
    worker, num_workers: which of them this is.
    """

    limit_s: float = 10.0
    max_waiting: int = 256
    shared: Path | None = None
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    worker: int = 0
    num_workers: int = 1


class Desk:
    """Of one worker."""

    def __init__(self, stores: Stores, settings: Settings) -> None:
        self.stores, self.settings = stores, settings
        self._own: tempfile.TemporaryDirectory | None = None
        shared = settings.shared
        if shared is None:
            self._own = tempfile.TemporaryDirectory(prefix="multimodal-serve-")
            shared = Path(self._own.name)
        self.metrics = Metrics(shared if settings.num_workers > 1 else None, settings.worker)
        self.uploads = Uploads(shared, settings.secret)
        turns = Turns()
        self.queries = Lane("queries", QUERY_THREADS, settings.max_waiting, settings.limit_s, turns)
        self.files = Lane("files", FILE_THREADS, settings.max_waiting, settings.limit_s)
        self.pictures = Lane("uploads", 1, MAX_WAITING_UPLOADS, max(settings.limit_s, 60.0))
        self.upload_places = Places(1 + MAX_WAITING_UPLOADS)
        self.background = Lane("background", 1, len(stores), 600.0, turns)
        self._kept = Kept(KEPT_BYTES)
        self._begun: dict[Hashable, Future[tuple[bytes, float]]] = {}
        self._words: dict[str, Future[tuple[Words, float]]] = {}
        self._lock = Lock()

    async def ask(self, served: Served, ask: Callable[[Store], T]) -> T:
        """What `ask` says of the newest generation, when it is its turn. Busy, TooLong, or what it raises."""
        found, seconds = await self.queries.timed(lambda: served.newest.answered(ask))
        self.metrics.engine(served.name, seconds)
        return found

    async def asking(self, store: str, ask: Callable[[Store], T], is_query: bool = True) -> T:
        """The same by the store's name; what only reads files need not be a query, and waits for none."""
        served = self.stores.find(store)
        return await (self.ask if is_query else self.read)(served, ask)

    async def answer(self, served: Served, what: Hashable, ask: Callable[[Store], bytes]) -> bytes:
        """The same, of what many may ask, for a reply. what: the question; equal ones of one generation have one answer."""
        key = (served.name, served.newest.state, what)
        if (kept := self._kept.get(key)) is not None:
            self.metrics.count("kept_answers")
            return kept
        with self._lock:
            begun = self._begun.get(key)
            if is_first := begun is None:
                begun = self._begun[key] = self.queries.begin(lambda: served.newest.answered(ask))
                begun.add_done_callback(lambda _: self._begun.pop(key, None))
        assert begun is not None
        reply, seconds = await self.queries.end_of(begun)
        if is_first:
            self._kept.put(key, reply)
            self.metrics.engine(served.name, seconds)
        else:
            self.metrics.count("kept_answers")
        return reply

    async def read(self, served: Served, read: Callable[[Store], T]) -> T:
        """What `read` reads of the newest generation's files, while queries go on."""
        return await self.files.run(lambda: served.newest.answered(read))

    async def original(self, served: Served, id: int) -> Original | None:
        """The picture's own file."""
        return await self.read(served, lambda store: original(store, id))

    async def upload(self, served: Served, encoded: bytes) -> Upload:
        """Keep a picture, one at a time."""
        assert served.pictures is not None
        encoder = served.pictures
        kept = await self.pictures.run(lambda: self.uploads.add(encoded, encoder))
        self.metrics.count("uploads")
        self.metrics.count("upload_bytes", len(encoded))
        return kept

    def uploaded(self, served: Served) -> Mapping[str, np.ndarray]:
        """Content of an upload -> its vector (d,) in the space of a store; looked up when it is asked for."""
        return _Uploaded(self.uploads, served)

    def judgements(self, served: Served) -> Judgements:
        return Judgements(served.path)

    def words(self, served: Served) -> Future[tuple[Words, float]]:
        """The words of a store's text space, which are embedded in the background when they are first wanted."""
        with self._lock:
            found = self._words.get(served.name)
            if found is None or (found.done() and (found.cancelled() or found.exception() is not None)):
                found = self._words[served.name] = self.background.begin(lambda: served.newest.answered(Words.of))
            return found

    def gauges(self) -> dict[str, float]:
        """What is so now."""
        lanes = (self.queries, self.files, self.pictures)
        found: dict[str, float] = {series("waiting", lane=lane.name): lane.num_at_once for lane in lanes}
        found[series("workers")] = self.settings.num_workers
        for served in self.stores:
            store = served.newest.current()
            found[series("generation", store=served.name)] = store.manifest.counts["generation"]
            found[series("pictures", store=served.name)] = len(store)
        return found

    def close(self) -> None:
        """No more work is begun, and what was shared is gone."""
        for lane in (self.queries, self.files, self.pictures, self.background):
            lane.close()
        self.metrics.share()
        if self._own is not None:
            self._own.cleanup()


class _Uploaded(Mapping[str, np.ndarray]):
    """Those of which a store's own tower made a vector. It cannot be gone through."""

    def __init__(self, uploads: Uploads, served: Served) -> None:
        self._uploads, self._served = uploads, served

    def __getitem__(self, content: str) -> np.ndarray:
        known = self._served.pictures is not None and CONTENT.fullmatch(content)
        vector = self._uploads.vector(content, self._served.pictures.fingerprint) if known and self._served.pictures else None
        if vector is None:
            raise KeyError(content)
        return vector

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Kept:
    """Replies by question, bounded in bytes: the least recently used goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._replies: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._replies:
                self._replies.move_to_end(key)
            return self._replies.get(key)

    def put(self, key: Hashable, reply: bytes) -> None:
        with self._lock:
            self._num_bytes += len(reply) - len(self._replies.pop(key, b""))
            self._replies[key] = reply
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= len(self._replies.popitem(last=False)[1])
