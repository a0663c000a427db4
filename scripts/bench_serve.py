"""How a server bears many clients: `multimodal serve` as it is run, 200 connections on loopback that ask without a pause.

    .venv/bin/python scripts/bench_serve.py --out /tmp/bench_serve                    # 60 s a load, 100,000 pictures
    .venv/bin/python scripts/bench_serve.py --out /tmp/bench_serve --growing          # 10,000 pictures are added meanwhile
    .venv/bin/python scripts/bench_serve.py --out /tmp/bench_serve --seconds 10 --workers 2

Loads: queries of two words, each another one, so that none is answered from what another found; the same by one visitor; words of which
some are frequent (Zipf), so that equal ones are answered once; the first beside 200 connections that say nothing; and thumbnails. Beside
each: what text space and engine took by themselves in the same run, by the server's own histogram, and the server's processor time for each
reply, both in milliseconds. A request is lost if its connection ends without a reply. Clients are one process, on the same cores as the
server, and each checks the reply's hits.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace

DIM = 256
NUM_WORDS = 20_000
SEGMENT = 10_000
GROWN, STEP, EVERY_S = 10_000, 500, 1.0


def make(path: Path, num: int) -> None:
    """A store of `num` pictures; an existing one is kept."""
    if (path / "store" / "manifest.json").is_file() and len(Store(path / "store")) == num:
        return
    generator = np.random.default_rng(0)
    words = [spelt(number) for number in range(NUM_WORDS)]
    vectors = generator.standard_normal((NUM_WORDS, DIM)).astype(np.float32)
    WordSpace(Normaliser(), Vocabulary(words, np.arange(NUM_WORDS, 0, -1), NUM_WORDS), vectors).save(path / "space")
    create_store(path / "store", path / "space", family="wordvec", export="e" * 64)
    with StoreWriter(path / "store") as writer:
        for start in range(0, num, SEGMENT):
            writer.append(pictures(start, min(SEGMENT, num - start)))
        writer.calibrate()  # as index does


def spelt(number: int) -> str:
    """A word of letters for each number."""
    letters = "bcdfghklmnprstvz"
    return "".join(letters[number // 16**place % 16] + "aeio"[number // 4**place % 4] for place in range(4))


def pictures(start: int, num: int) -> Segment:
    rows = np.random.default_rng([1, start]).standard_normal((num, DIM)).astype(np.float32)
    ids = np.arange(start, start + num)
    metadata = {"name": [f"IMG_{id}.jpg" for id in ids.tolist()], "text": [f"picture {id} of a street in summer" for id in ids.tolist()]}
    columns = {"camera": [("X100", "EOS R5", "Pixel 7")[id % 3] for id in ids.tolist()]}
    return Segment(ids, rows, metadata | columns, [thumbnail(id) for id in ids.tolist()])


@cache
def drawn() -> bytes:
    """A JPEG of 128 x 96, 5 kB, as thumbnails of photographs have."""
    file, low = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(low).resize((128, 96), Image.Resampling.BICUBIC).save(file, "jpeg", quality=85)
    return file.getvalue()


def thumbnail(id: int) -> bytes:
    """The same for every picture, but for a comment."""
    return drawn()[:2] + b"\xff\xfe\x00\x0a" + id.to_bytes(8, "big") + drawn()[2:]


@contextmanager
def served(store: Path, workers: int) -> Iterator[tuple[int, int]]:
    """The real command: its port and its process."""
    command = [sys.executable, "-m", "multimodal.cli", "serve", "--store", str(store), "--port", "0", "--workers", str(workers)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        said: list[str] = []
        reading = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
        reading.start()
        try:
            yield int(line.split(":")[2].split("/")[0]), process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            reading.join(10)
            if said:
                print("the server printed:", "".join(said[:40]), sep="\n")


@dataclass
class Seen:
    """What clients saw. seconds: of each reply; statuses: of each; lost: connections that ended without one."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    wrong: int = 0


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def get(self, address: str) -> tuple[int, bytes]:
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        self.writer.write(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        size = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        return int(head.split(b" ", 2)[1]), await self.reader.readexactly(size)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


async def load(port: int, num_clients: int, seconds: float, address_of: Callable[[], str], is_right: Callable[[bytes], bool]) -> Seen:
    """Clients that ask again as soon as they are answered."""
    seen, end = Seen(), time.monotonic() + seconds

    async def one() -> None:
        client = Client(port)
        while time.monotonic() < end:
            begun = time.perf_counter()
            try:
                status, body = await client.get(address_of())
            except (OSError, asyncio.IncompleteReadError):
                seen.lost += 1
                client.close()
                continue
            seen.seconds.append(time.perf_counter() - begun)
            seen.statuses[status] += 1
            seen.wrong += status == 200 and not is_right(body)
            if status in (429, 503):
                await asyncio.sleep(1)
        client.close()

    await asyncio.gather(*(one() for _ in range(num_clients)))
    return seen


async def idle(port: int, num: int) -> list[Client]:
    """Connections of which half say nothing, and half have been answered once and stay."""
    clients = [Client(port) for _ in range(num)]
    for number, client in enumerate(clients):
        if number % 2:
            await client.get("/healthz")
        else:
            client.reader, client.writer = await asyncio.open_connection("127.0.0.1", port)
    return clients


async def engine_of(port: int) -> tuple[float, float]:
    """Queries that were computed, and the seconds that text space and engine took for them."""
    _, body = await Client(port).get("/metrics")
    values = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
    series = [name for name in values if name.startswith("multimodal_engine_seconds")]
    count = sum(float(values[name]) for name in series if "_count" in name)
    return count, sum(float(values[name]) for name in series if "_sum" in name)


def processes(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def processor_s(pid: int) -> float:
    """The processor time of a server so far: unlike the clock, it says what a request costs also where others keep the cores busy."""
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in processes(pid)]
    return sum(int(ticks) for several in fields for ticks in several[11:13]) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Of a server, without the files that it maps."""
    lines = [line for one in processes(pid) for line in Path(f"/proc/{one}/status").read_text().splitlines() if line.startswith("RssAnon")]
    return sum(int(line.split()[1]) for line in lines) / 1024


@dataclass(frozen=True)
class State:
    """engine: queries that were computed, and the seconds for them. processor_s, memory_mb: of the server."""

    engine: tuple[float, float]
    processor_s: float
    memory_mb: float

    @classmethod
    async def now(cls, port: int, pid: int) -> State:
        await asyncio.sleep(1.2)  # workers write their counters once a second
        return cls(await engine_of(port), processor_s(pid), memory_mb(pid))


def printed(name: str, seen: Seen, seconds: float, before: State, after: State) -> str:
    times = np.array(seen.seconds or [np.nan]) * 1000
    num = after.engine[0] - before.engine[0]
    own = 1000 * (after.engine[1] - before.engine[1]) / num if num else float("nan")
    errors = {status: count for status, count in seen.statuses.items() if status >= 400}
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    num_replies, memory = len(seen.seconds), f"{before.memory_mb:.0f} -> {after.memory_mb:.0f}"
    processor = 1000 * (after.processor_s - before.processor_s) / max(num_replies, 1)
    return (
        f"{name:<36} {num_replies / seconds:>8.0f} {p50:>8.1f} {p95:>8.1f} {p99:>8.1f} {own:>8.2f} {num:>8.0f} {num_replies:>8} "
        f"{processor:>9.2f} {seen.lost:>5} {sum(errors.values()):>6} {seen.wrong:>6}  {memory} {errors or ''}"
    )


HEADER = (
    f"{'load':<36} {'a second':>8} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'engine':>8} {'computed':>8} {'replies':>8} "
    f"{'processor':>9} {'lost':>5} {'errors':>6} {'wrong':>6}  memory, MB"
)


def has_hits(body: bytes) -> bool:
    return len(json.loads(body)["hits"]) == 48


async def measure(port: int, pid: int, num_clients: int, seconds: float, num_pictures: int) -> None:
    given = random.Random(0)
    numbers = itertools.count()

    def distinct() -> str:
        number = next(numbers)
        return f"/api/search?q={spelt(number % NUM_WORDS)}+%2B+{spelt(number * 7919 // NUM_WORDS % NUM_WORDS)}"

    def zipf() -> str:
        return f"/api/search?q={spelt(min(int(given.paretovariate(0.7)), NUM_WORDS) - 1)}"

    def small() -> str:
        return f"/thumbnails/{given.randrange(num_pictures)}"

    await engine_of(port)
    print(HEADER)
    loads: list[tuple[str, int, Callable[[], str], Callable[[bytes], bool], int]] = [
        (f"{num_clients} clients, distinct queries", num_clients, distinct, has_hits, 0),
        ("1 client, distinct queries", 1, distinct, has_hits, 0),
        (f"{num_clients} clients, queries by Zipf", num_clients, zipf, has_hits, 0),
        (f"{num_clients} clients beside 200 idle ones", num_clients, distinct, has_hits, 200),
        (f"{num_clients} clients, thumbnails", num_clients, small, lambda body: len(body) == len(drawn()) + 12, 0),
    ]
    for name, num, address_of, is_right, num_idle in loads:
        waiting = await idle(port, num_idle)
        before = await State.now(port, pid)
        lasting = seconds if num > 1 else min(seconds, 10)
        seen = await load(port, num, lasting, address_of, is_right)
        print(printed(name, seen, lasting, before, await State.now(port, pid)), flush=True)
        for client in waiting:
            client.close()


async def grow(port: int, pid: int, store: Path, num_clients: int, first: int) -> None:
    """Steps of new pictures while clients search: what the clients saw, and how long each step took to be found."""
    numbers, given = itertools.count(), random.Random(1)
    found_s: list[float] = []

    def query() -> str:
        return f"/api/search?q={spelt(next(numbers) % NUM_WORDS)}+%2B+{spelt(given.randrange(NUM_WORDS))}"

    async def add() -> None:
        client = Client(port)
        for start in range(first, first + GROWN, STEP):
            await asyncio.to_thread(append, store, start)
            committed = time.perf_counter()
            while True:
                status, body = await client.get(f"/api/search?q=image:{start + STEP - 1}&k=1")
                if status == 200 and json.loads(body)["hits"][0]["id"] == start + STEP - 1:
                    break
                await asyncio.sleep(0.005)
            found_s.append(time.perf_counter() - committed)
            await asyncio.sleep(EVERY_S)

    adding = asyncio.create_task(add())
    seconds = GROWN / STEP * (EVERY_S + 1)
    before = await State.now(port, pid)
    seen = await load(port, num_clients, seconds, query, has_hits)
    await adding
    print(HEADER)
    print(printed(f"{num_clients} clients while it grows", seen, seconds, before, await State.now(port, pid)))
    print(f"{GROWN:,} pictures added in {len(found_s)} steps; statuses {dict(seen.statuses)}")
    print(f"from commit to found: median {median(found_s):.2f} s, most {max(found_s):.2f} s")


def append(store: Path, start: int) -> None:
    with StoreWriter(store) as writer:
        writer.append(pictures(start, STEP))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the store; it is kept")
    parser.add_argument("--num", type=int, default=100_000, help="pictures")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--growing", action="store_true", help=f"add {GROWN:,} pictures while clients search, instead of the other loads")
    given = parser.parse_args()
    make(given.out, given.num)
    store = given.out / "store"
    print(f"{given.num:,} pictures of {DIM} dimensions, {given.workers} worker(s), {os.cpu_count()} cores shared with the clients")
    with served(store, given.workers) as (port, pid):
        if given.growing:
            asyncio.run(grow(port, pid, store, given.clients, given.num))
        else:
            asyncio.run(measure(port, pid, given.clients, given.seconds, given.num))


if __name__ == "__main__":
    main()
