"""Case memory: the peak memory of the processes of `data-prep make-shards wikipedia`, by the size of the dump.

Dumps of 1,000 and of 100,000 articles, multistream with 100 pages per stream, like Wikipedia's: the articles of `enwiki` repeated, with new
ids and titles, each with one of 200 pictures. The real command makes shards of them with two processes. It first checks that each article
became a pair. A process that makes shards should have the same memory in both rows, and the main process should grow only by the index of
the set.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from bench_prep_wikipedia import ENWIKI, HEAD, wrapped, write_dump
from bench_rows import Given, Row
from PIL import Image

from multimodal.errors import InputError

PROCESSES = 2
SIZES = (1_000, 100_000)
QUICK = (1_000, 5_000)
NUM_PICTURES = 200
SIDE_PX = 256
COMMAND = """
import sys
from data_prep.__main__ import main
from data_prep.shards.workers import peak_rss_bytes

status = main(sys.argv[1:])
print(peak_rss_bytes())
sys.exit(status)
"""  # the command, and the peak memory of its own process


def rows(given: Given) -> Iterator[Row]:
    with gzip.open(given.data / ENWIKI) as lines:
        articles = [json.loads(line) for line in lines]
    pictures = _write_pictures(given.out / "pictures")
    for size in QUICK if given.quick else SIZES:
        dump = write_dump(given.out / f"{size}-multistream.xml.bz2", HEAD, islice(_pages(articles), size))
        yield from _measure(f"memory, {size:,} articles", dump, pictures, given.out / "shards", size)


def _measure(case: str, dump: Path, pictures: Path, output: Path, size: int) -> Iterator[Row]:
    shutil.rmtree(output, ignore_errors=True)
    arguments = ["make-shards", "wikipedia", dump, "--images", pictures, "--output", output, "--num-processes", PROCESSES, "--json"]
    done = subprocess.run([sys.executable, "-c", COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    shutil.rmtree(output)
    said, own = done.stdout.splitlines()
    made = json.loads(said)
    if made["pairs"] != size:
        raise InputError(f"{case}: {made['pairs']} pairs from {size} articles with a picture each: not the intended work")
    yield Row(case, "a process that makes shards, at most", made["peak_rss_bytes"] / 1e6, "MB")
    yield Row(case, "the main process, at most", int(own) / 1e6, "MB")
    yield Row(case, "pairs", size / made["seconds"], "pairs/s")


def _pages(articles: Sequence[dict[str, str]]) -> Iterator[bytes]:
    """Endless."""
    for number, article in enumerate(cycle(articles)):
        picture = f"[[File:Picture {number % NUM_PICTURES}.png|thumb|A picture of {article['title']}]]\n"
        yield wrapped({"title": f"{article['title']} ({number})", "text": picture + article["text"]})


def _write_pictures(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(NUM_PICTURES):
        small = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST).save(file, "PNG")
        (folder / f"Picture_{number}.png").write_bytes(file.getvalue())
    return folder
