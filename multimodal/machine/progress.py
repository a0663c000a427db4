"""Progress with rate and time left: a bar on a terminal, elsewhere a plain line every few seconds.

for id in track(ids, "embedding", unit="image"): ...
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

PLAIN_INTERVAL_S = 10.0


def track(
    items: Iterable[T],
    label: str,
    unit: str = "item",
    total: int | None = None,
    weight: int = 1,
    note: Callable[[], str] = lambda: "",
) -> Iterator[T]:
    """Yield the items, and report progress, rate and time left on stderr.

    weight: units per item (64 for a batch of 64); total: in units, by default from the items' length if they have one.
    note: called for a few extra words whenever progress is printed; "" for none.
    """
    if total is None and isinstance(items, Sized):
        total = len(items) * weight
    if sys.stderr.isatty():
        from tqdm import tqdm  # here: most commands never show progress, and a search has to start fast

        with tqdm(total=total, desc=label, unit=unit, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.set_postfix_str(note(), refresh=False)
                bar.update(min(weight, total - bar.n) if total is not None else weight)
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done = min(done + weight, total) if total is not None else done + weight
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL_S:
            last = now
            print(_line(label, unit, done, total, now - start, note()), file=sys.stderr, flush=True)
    print(_line(label, unit, done, total, time.monotonic() - start, note()), file=sys.stderr, flush=True)


def _line(label: str, unit: str, done: int, total: int | None, elapsed_s: float, note: str) -> str:
    rate = done / max(elapsed_s, 1e-9)
    more = f", {note}" if note else ""
    pace = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
    if total is None:
        return f"{label}: {done} {unit}s, {pace}{more}"
    left = "done" if done >= total else f"{_duration((total - done) / rate)} left" if rate else "nothing yet"
    return f"{label}: {done}/{total} {unit}s, {pace}, {left}{more}"


def _duration(seconds: float) -> str:
    """In a readable unit: "90 s", "12 min", "7.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
