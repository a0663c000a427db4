"""Shared by the benchmarks: rows of a table, the median of alternating runs, and the table, printed and saved as JSON.

speeds = alternate({"ours": timed(read_ours), "theirs": timed(read_theirs), "the limit": timed(decode_alone)}, runs=3)
yield from compare("a case", speeds, "pictures/s", speeds["ours"], speeds["the limit"])
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from multimodal.boxes import atomic_write
from multimodal.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ours_to_it: how many times as fast ours is; share: of the limit."""

    case: str
    system: str
    value: float
    unit: str
    ours_to_it: float | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """The command line's arguments. data: the folder of data sets. out: a folder for intermediate files, which are reused.

    runs: turns of each system. quick: only test that everything works. img2dataset: the interpreter of an environment that has it; None:
    no row for it.
    """

    data: Path
    out: Path
    runs: int
    quick: bool = False
    img2dataset: Path | None = None


def alternate(systems: Mapping[str, Callable[[], float]], runs: int) -> dict[str, float]:
    """The speed of each system, in items per second, the median of `runs`; they take turns, after one turn each to warm up.

    A system makes one pass and returns its speed: `timed`, or by its own clock.
    """
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for run in range(runs + 1):
        for name, one_pass in systems.items():
            speed = one_pass()
            if run:
                speeds[name].append(speed)
    return {name: median(values) for name, values in speeds.items()}


def timed(work: Callable[[], int]) -> Callable[[], float]:
    """Items per second of `work`, which returns its number of items."""

    def one_pass() -> float:
        begun = time.perf_counter()
        num = work()
        return num / (time.perf_counter() - begun)

    return one_pass


def compare(case: str, speeds: Mapping[str, float], unit: str, ours: float, limit: float) -> Iterator[Row]:
    """A row for each system, with its ratio to our speed and to the limit."""
    for name, value in speeds.items():
        yield Row(case, name, value, unit, ours / value, value / limit)


def seconds(work: Callable[[], Any], runs: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """The median time of one call by a clock, after one call to warm up."""
    work()
    taken = []
    for _ in range(runs):
        begun = clock()
        work()
        taken.append(clock() - begun)
    return median(taken)


def report(rows: Iterable[Row], json_file: Path | None, setup: Mapping[str, Any]) -> list[Row]:
    """Print each row as it comes, write them all to the JSON file with the setup, and return them. An InputError ends the program."""
    reported: list[Row] = []
    print(f"{'case':34}  {'system':52}  {'value':>9}  {'unit':10}  {'ours/it':>9}  {'share':>8}")
    try:
        for row in rows:
            print(_line(row), flush=True)
            reported.append(row)
    except InputError as error:
        sys.exit(f"error: {error}")
    if json_file:
        with atomic_write(json_file) as file:
            file.write(json.dumps({**setup, "rows": [asdict(row) for row in reported]}, indent=1).encode())
    return reported


def _line(row: Row) -> str:
    ratio = "" if row.ours_to_it is None else f"{row.ours_to_it:.2f}"
    share = "" if row.share is None else f"{row.share:.0%}"
    return f"{row.case:34}  {row.system:52}  {row.value:9,.1f}  {row.unit:10}  {ratio:>9}  {share:>8}"
