"""How much a server takes on: a bounded number of requests, each for a bounded time, and the shortest first.

    lane = Lane("queries", num_threads=256, max_waiting=256, limit_s=10, turns=Turns())
    reply = await lane.run(lambda: store.search("beach"))      # Busy if too many wait already; TooLong after limit_s

Text spaces and engines are asked by one thread at a time (`Turns`): of two queries at once neither would be faster, since an engine uses
all cores by itself. A long query lets others go first at each of its pauses (`multimodal.search.pausing`), so that it holds nobody up
for longer than one call of the engine. After limit_s the client gets 503, and the query ends at its next pause.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock
from typing import TypeVar

from multimodal.search.pausing import pausing

T = TypeVar("T")

LEAST_TURN_S = 0.1
"""A query goes on for at least so long before another gets its turn: most are done by then."""
PATIENCE = 4.0
"""A query that has had the turn for a second lets those go first that come within so many seconds of it, and no later ones."""
MAX_RETRY_S = 30


class Refused(Exception):
    """A request that is not done, for a reason that is no fault in what it says. status: of HTTP; headers: further ones."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class Busy(Refused):
    """Too many requests wait already. retry_after_s: when to ask again."""

    def __init__(self, num_waiting: int, retry_after_s: int) -> None:
        message = f"{num_waiting} requests are waiting already. Ask again in {retry_after_s} s"
        super().__init__(429, message, {"Retry-After": str(retry_after_s)})


class TooLong(Refused):
    """A request was not done in time."""

    def __init__(self, limit_s: float) -> None:
        message = f"not answered within {limit_s:g} s, so it was stopped. Make the query or the filter simpler, or ask for fewer pictures"
        super().__init__(503, message, {"Retry-After": "1"})


class Turns:
    """One thread at a time. Next is the one that came first, where a query that has had the turn counts as one that came later, by PATIENCE
    times as long: so a new query goes before a long one, and however many new ones come, the long one goes on too.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_taken = False
        self._waiting: list[tuple[float, int, Event]] = []
        self._number = itertools.count()

    def run(self, work: Callable[[], T], deadline: float, limit_s: float) -> tuple[T, float]:
        """What `work` returns, and the seconds that it had the turn. TooLong after the deadline, by `time.monotonic`."""
        turn = _Turn(self, deadline, limit_s)
        turn.begin()
        try:
            with pausing(turn.pause):
                return work(), turn.used_s
        finally:
            turn.end()

    def take(self, rank: float, timeout_s: float) -> bool:
        """Wait for the turn, behind those with a lower rank; False if it did not come in time."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return True
            mine = (rank, next(self._number), Event())
            heapq.heappush(self._waiting, mine)
        if mine[2].wait(max(timeout_s, 0)):
            return True
        with self._lock:
            if mine[2].is_set():  # it came at the last moment
                return True
            self._waiting.remove(mine)
            heapq.heapify(self._waiting)
        return False

    def give(self) -> None:
        """The turn, to whoever is next."""
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._is_taken = False

    def is_wanted(self, rank: float) -> bool:
        """Whether somebody waits with a lower rank."""
        with self._lock:
            return bool(self._waiting) and self._waiting[0][0] < rank


class _Turn:
    """The turns that one query has had."""

    def __init__(self, turns: Turns, deadline: float, limit_s: float) -> None:
        self._turns, self._deadline, self._limit_s = turns, deadline, limit_s
        self._came = time.monotonic()
        self._before_s = self._since = 0.0
        self._is_ours = False

    @property
    def used_s(self) -> float:
        return self._before_s + (time.monotonic() - self._since if self._is_ours else 0.0)

    @property
    def rank(self) -> float:
        return self._came + PATIENCE * self.used_s

    def begin(self) -> None:
        if not self._turns.take(self.rank, self._deadline - time.monotonic()):
            raise TooLong(self._limit_s)
        self._is_ours, self._since = True, time.monotonic()

    def end(self) -> None:
        if self._is_ours:
            self._before_s, self._is_ours = self.used_s, False
            self._turns.give()

    def pause(self) -> None:
        """Called by the search between two calls of the engine."""
        now = time.monotonic()
        if now > self._deadline:
            raise TooLong(self._limit_s)
        if now - self._since > LEAST_TURN_S and self._turns.is_wanted(self.rank):
            self.end()
            self.begin()


class Places:
    """A bounded number of places: who finds none free is refused."""

    def __init__(self, num: int) -> None:
        self.num, self.num_taken = num, 0
        self._lock = Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One of them. Busy if none is free."""
        with self._lock:
            if self.num_taken >= self.num:
                raise Busy(self.num_taken, 1)
            self.num_taken += 1
        try:
            yield
        finally:
            with self._lock:
                self.num_taken -= 1


class Lane:
    """Work in threads, of which a bounded number is begun or waits.

    num_threads: how many at once. max_waiting: how many more may wait. turns: they take turns in these, or None if they need not.
    """

    def __init__(self, name: str, num_threads: int, max_waiting: int, limit_s: float, turns: Turns | None = None) -> None:
        self.name, self.limit_s, self.turns = name, limit_s, turns
        self.max_at_once = num_threads + max_waiting
        self.num_at_once = self.num_refused = self.num_too_long = 0
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._num_at_work = num_threads if turns is None else 1
        self._mean_s = 0.01  # of late
        self._lock = Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns. Busy, TooLong, or what it raises."""
        return (await self.timed(work))[0]

    async def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """The same, and the seconds that the work itself took."""
        begun = self.begin(work)
        return await self.end_of(begun)

    def begin(self, work: Callable[[], T]) -> Future[tuple[T, float]]:
        """Begin it, or let it wait for a thread. Busy if too much waits already, or if it would wait for longer than limit_s."""
        with self._lock:
            wait_s = self.num_at_once * self._mean_s / self._num_at_work
            if self.num_at_once >= self.max_at_once or wait_s > self.limit_s:
                self.num_refused += 1
                raise Busy(self.num_at_once, min(MAX_RETRY_S, max(1, math.ceil(wait_s))))
            self.num_at_once += 1
        deadline = time.monotonic() + self.limit_s
        begun = self._threads.submit(contextvars.copy_context().run, self._do, work, deadline)
        begun.add_done_callback(self._done)
        return begun

    async def end_of(self, begun: Future[tuple[T, float]]) -> tuple[T, float]:
        """What comes of work that was begun, perhaps for another request too. TooLong after limit_s."""
        wrapped = asyncio.wrap_future(begun)
        wrapped.add_done_callback(_looked_at)
        try:
            return await asyncio.wait_for(asyncio.shield(wrapped), self.limit_s + LEAST_TURN_S)
        except TimeoutError:
            begun.cancel()  # if it waits for a thread; else it ends at its next pause, and is counted until then
            raise TooLong(self.limit_s) from None

    def close(self) -> None:
        """Nothing more is begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _do(self, work: Callable[[], T], deadline: float) -> tuple[T, float]:
        if self.turns is not None:
            return self.turns.run(work, deadline, self.limit_s)
        if (begun := time.monotonic()) > deadline:
            raise TooLong(self.limit_s)
        return work(), time.monotonic() - begun

    def _done(self, begun: Future[tuple[T, float]]) -> None:
        with self._lock:
            self.num_at_once -= 1
            if begun.cancelled() or isinstance(begun.exception(), TooLong):
                self.num_too_long += 1
            elif begun.exception() is None:
                self._mean_s += 0.05 * (begun.result()[1] - self._mean_s)


def _looked_at(done: asyncio.Future) -> None:
    """What is not looked at is printed by asyncio: here, an error that came when the client had been told that it took too long."""
    if not done.cancelled():
        done.exception()
