"""What a server has done, as Prometheus reads it: counters and histograms of all its workers together.

    metrics = Metrics(folder, worker=0)
    metrics.answered("/api/search", "GET", 200, seconds=0.004)
    metrics.text({series("waiting", lane="queries"): 3})

A worker counts in memory and writes its numbers to the shared folder, at most once in SHARED_EVERY_S, where whichever worker is asked finds
them. A worker that is started in place of one that died goes on from what that one wrote, so that no counter falls.
"""

from __future__ import annotations

import bisect
import json
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHARED_EVERY_S = 1.0
_HELP = {
    "multimodal_requests_total": ("counter", "Requests that were answered, by route, method and status."),
    "multimodal_request_seconds": ("histogram", "From the first byte of a request to the last of its answer, by route."),
    "multimodal_engine_seconds": ("histogram", "What text space and engine took for a query, without waiting for their turn, by store."),
    "multimodal_kept_answers_total": ("counter", "Queries that were answered from what the same query found before."),
    "multimodal_uploads_total": ("counter", "Pictures that visitors gave."),
    "multimodal_upload_bytes_total": ("counter", "Bytes of these pictures."),
    "multimodal_refused_total": ("counter", "Requests that were refused since too many waited."),
    "multimodal_too_long_total": ("counter", "Requests that were stopped since they took too long."),
    "multimodal_waiting": ("gauge", "Requests that are being answered or wait for it, by lane."),
    "multimodal_generation": ("gauge", "The generation of a store."),
    "multimodal_pictures": ("gauge", "The pictures of a store."),
    "multimodal_workers": ("gauge", "Processes that answer."),
}


class Metrics:
    """The counters of one worker, beside those of the others."""

    def __init__(self, folder: Path | None = None, worker: int = 0) -> None:
        """folder: shared by the workers; None for a single one. worker: its number."""
        self._path = None if folder is None else folder / f"metrics-{worker}.json"
        self._lock = Lock()
        self._counts: dict[str, float] = defaultdict(float)
        self._buckets: dict[str, list[float]] = {}
        self._shared_at = 0.0
        if self._path is not None:
            counts, self._buckets = _read(self._path)
            self._counts.update(counts)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        with self._lock:
            self._counts[_series("multimodal_requests_total", route=route, method=method, status=str(status))] += 1
            self._observe(_series("multimodal_request_seconds", route=route), seconds)
        self._share()

    def engine(self, store: str, seconds: float) -> None:
        """A query took so long."""
        with self._lock:
            self._observe(_series("multimodal_engine_seconds", store=store), seconds)

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[_series(f"multimodal_{name}_total", **labels)] += by

    def text(self, gauges: Mapping[str, float]) -> str:
        """All of it in Prometheus's text format. gauges: series -> value now, of this worker."""
        counts, buckets = self._together()
        lines: dict[str, list[str]] = defaultdict(list)
        for series, value in sorted({**counts, **gauges}.items()):
            lines[series.partition("{")[0]].append(f"{series} {value:.12g}")
        for series, numbers in sorted(buckets.items()):
            name, _, labels = series.partition("{")
            labels = labels.rstrip("}")
            *inside, total_s = numbers
            running = 0.0
            for bound, number in zip([*map(str, BUCKETS_S), "+Inf"], inside, strict=True):
                running += number
                lines[name].append(f'{name}_bucket{{{labels},le="{bound}"}} {running:.12g}')
            lines[name] += [f"{name}_sum{{{labels}}} {total_s:.12g}", f"{name}_count{{{labels}}} {running:.12g}"]
        parts = []
        for name, several in lines.items():
            kind, meaning = _HELP[name]
            parts += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *several]
        return "\n".join(parts) + "\n"

    def share(self) -> None:
        """Write the numbers for the other workers now."""
        if self._path is None:
            return
        with self._lock:
            content = json.dumps({"counts": self._counts, "buckets": self._buckets})
            self._shared_at = time.monotonic()
        temporary = self._path.with_suffix(".part")
        temporary.write_text(content)
        os.replace(temporary, self._path)

    def _share(self) -> None:
        if self._path is not None and time.monotonic() - self._shared_at > SHARED_EVERY_S:
            self.share()

    def _observe(self, series: str, seconds: float) -> None:
        numbers = self._buckets.setdefault(series, [0.0] * (len(BUCKETS_S) + 2))
        numbers[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        numbers[-1] += seconds

    def _together(self) -> tuple[dict[str, float], dict[str, list[float]]]:
        with self._lock:
            counts, buckets = dict(self._counts), {series: list(numbers) for series, numbers in self._buckets.items()}
        if self._path is None:
            return counts, buckets
        others = [_read(path) for path in sorted(self._path.parent.glob("metrics-*.json")) if path != self._path]
        for other_counts, other_buckets in others:
            for series, value in other_counts.items():
                counts[series] = counts.get(series, 0) + value
            for series, numbers in other_buckets.items():
                buckets[series] = [a + b for a, b in zip(buckets.get(series, [0.0] * len(numbers)), numbers, strict=True)]
        return counts, buckets


def series(name: str, **labels: str) -> str:
    """`name{label="value"}`."""
    return _series(f"multimodal_{name}", **labels)


def _series(name: str, **labels: str) -> str:
    inside = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
    return f"{name}{{{inside}}}" if inside else name


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _read(path: Path) -> tuple[dict[str, float], dict[str, list[float]]]:
    with suppress(FileNotFoundError):
        values = json.loads(path.read_text())
        return values["counts"], values["buckets"]
    return {}, {}
