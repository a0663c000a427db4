"""Places in a long search where it may be stopped, or let others go first.

    with pausing(turn.pause):            # called at every such place of this thread; what it raises ends the search
        answer(store, "between summer and winter in 100")

A search is many calls of its engine. Between two of them nothing of the store is half changed, so a server may then end a query that has
taken too long, or answer another first (`multimodal.serve.limits`). Everybody else searches without a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_pause: ContextVar[Callable[[], None] | None] = ContextVar("pause", default=None)


@contextmanager
def pausing(pause: Callable[[], None]) -> Iterator[None]:
    """Call `pause` at each place of the searches within."""
    token = _pause.set(pause)
    try:
        yield
    finally:
        _pause.reset(token)


def may_pause() -> None:
    """Such a place."""
    pause = _pause.get()
    if pause is not None:
        pause()
