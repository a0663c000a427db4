"""Progress that a person can plan by: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere.

for id in track(ids, "embedding", unit="image"): ...
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

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
    """Yield the items and tell on stderr how far it is, how fast, and how long it still takes.

    weight: units an item stands for (64 for a batch of 64); total: in units, taken from the items' length where they have one.
    note: asked for a few words more whenever progress is told, "" for none.
    """
    if total is None and isinstance(items, Sized):
        total = len(items) * weight
    if sys.stderr.isatty():
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
    if total is None:
        return f"{label}: {done} {unit}s, {rate:.1f}/s{more}"
    left_s = (total - done) / rate if rate else float("inf")
    return f"{label}: {done}/{total} {unit}s, {rate:.1f}/s, " + ("done" if done >= total else f"{left_s:.0f} s left") + more
