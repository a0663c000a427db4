"""How long a filter takes over a million pictures, cold and warm, beside SQLite with the same rows in memory and a Python loop.

    .venv/bin/python scripts/bench_filters.py --out /tmp/bench_filters              # a minute on one core, about 1 GB of memory
    .venv/bin/python scripts/bench_filters.py --out /tmp/bench_filters --num 100000

Columns as in a store of a folder of photographs (path, date, camera, size) and as in one of shards, where every column is text (year). Cold
is a store that was just opened: the column is read, told its kind and compared. Warm is another value of the same column; again is the same
filter, as a page asks it with each query. The limit is numpy's comparison of as many whole numbers. Medians, in milliseconds.
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

import numpy as np

from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace

DIM = 2
FILTERS: tuple[tuple[str, str, str, str], ...] = (
    ("a text", 'camera = "X100"', 'camera = "Pixel 7"', "camera = 'Pixel 7'"),
    ("a list", 'camera in ("X100", "EOS R5")', 'camera in ("Pixel 7", "EOS R5")', "camera in ('Pixel 7', 'EOS R5')"),
    ("a number", "size > 1000000", "size > 2000000", "size > 2000000"),
    ("a month", "date = 2021-03", "date = 2022-06", "date >= '2022-06-01' and date < '2022-07-01'"),
    ("text that reads as numbers", "year >= 2005", "year >= 2010", "cast(year as integer) >= 2010"),
    ("a beginning", 'path like "Screenshots/%"', 'path like "2019/%"', "path like '2019/%'"),
    ("a part", 'path like "%/IMG_%7.jpg"', 'path like "%/DSC_%3.jpg"', "path like '%/DSC_%3.jpg'"),
    (
        "all of them",
        'date >= 2021 and (camera = "X100" or not path like "Screenshots/%")',
        'date >= 2022 and (camera = "EOS R5" or not path like "2019/%")',
        "date >= '2022-01-01' and (camera = 'EOS R5' or path not like '2019/%')",
    ),
)
"""What it is, a filter, another one with other values, and that in SQL."""


def make(path: Path, num: int) -> None:
    """A store of `num` pictures; an existing one is kept."""
    if (path / "store" / "manifest.json").is_file():
        return
    vectors = np.eye(DIM, dtype=np.float32)
    WordSpace(Normaliser(), Vocabulary(("beach", "snow"), np.array([2, 1]), 3), vectors).save(path / "space")
    create_store(path / "store", path / "space", family="wordvec", export="e" * 64)
    random = np.random.default_rng(0)
    cameras, folders = ["X100", "EOS R5", "Pixel 7", None], ["2018", "2019", "2020", "Screenshots"]
    kinds = random.integers(0, 4, (2, num))
    seconds = random.integers(0, 6 * 365 * 86400, num).tolist()
    metadata = {
        "name": [f"{id}.jpg" for id in range(num)],
        "text": [""] * num,
        "path": [f"{folders[kind]}/{'IMG' if id % 3 else 'DSC'}_{id}.jpg" for id, kind in enumerate(kinds[0].tolist())],
        "camera": [cameras[kind] for kind in kinds[1].tolist()],
        "date": [datetime(2018, 1, 1) + timedelta(seconds=second) for second in seconds],
        "size": random.integers(10_000, 8_000_000, num).tolist(),
        "year": [str(year) for year in random.integers(1990, 2025, num).tolist()],
    }
    with StoreWriter(path / "store") as writer:
        writer.append(Segment(np.arange(num), np.ones((num, DIM), np.float16), metadata))


def in_sqlite(store: Store) -> sqlite3.Connection:
    """The same columns as a table, indexed by nothing, as ours are."""
    names = ["path", "camera", "date", "size", "year"]
    table = sqlite3.connect(":memory:")
    table.execute("create table pictures (path text, camera text, date text, size integer, year text)")
    columns = [store.column(name) for name in names]
    columns[2] = [str(value) for value in columns[2]]
    table.executemany("insert into pictures values (?, ?, ?, ?, ?)", zip(*columns, strict=True))
    return table


def ms(call: Callable[[], object], times: int = 5) -> float:
    """The median time of a call, in milliseconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


def main() -> None:
    """Make the store, measure, and print a line for each filter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the store")
    parser.add_argument("--num", type=int, default=1_000_000, help="pictures")
    given = parser.parse_args()
    make(given.out, given.num)
    path = given.out / "store"
    store = Store(path)
    store.select("size = 0")  # imports Arrow's compute functions
    table = in_sqlite(store)
    numbers = np.arange(given.num)
    print(f"{given.num:,} pictures; numpy compares as many whole numbers in {ms(lambda: numbers > 5):.1f} ms")
    print(f"{'filter':28}{'passes':>10}{'cold':>8}{'warm':>8}{'again':>8}{'sqlite':>8}  sqlite / warm")
    for what, one, other, sql in FILTERS:
        cold = ms(lambda one=one: Store(path).select(one), 3)
        store.select(one)
        again = ms(lambda one=one: store.select(one))

        def warm(other: str = other) -> None:
            store.filter_columns._met.clear()
            store.select(other)

        theirs = f"select count(*) from pictures where {sql}"
        found, wanted = len(store.select(other)), table.execute(theirs).fetchone()[0]
        assert found == wanted, f"{other}: {found} pictures, and SQLite finds {wanted}"
        taken, sqlite = ms(warm), ms(lambda theirs=theirs: table.execute(theirs).fetchone(), 3)
        print(f"{what:28}{found:>10,}{cold:>8.0f}{taken:>8.1f}{again:>8.1f}{sqlite:>8.0f}  {sqlite / taken:.1f}")
    cameras = store.column("camera")
    print(f"a Python loop over one column: {ms(lambda: [value == 'X100' for value in cameras], 3):.0f} ms, reading it as a list apart")


if __name__ == "__main__":
    main()
