"""How fast a store is searched, beside FAISS, numpy and rclip, and beside what memory allows, in one run.

    python scripts/bench_search.py --store runs/best/contrastive/store --queries captions.txt --out /tmp/bench --json bench.json
    python scripts/bench_search.py --store S --queries captions.txt --out /tmp/bench --num 100000 --rclip rclip-env/bin/python

The pictures are grown from those of a real store, so that their vectors have its structure: each one lies among the neighbours of a real
picture (`grow`), which keeps the covariance, the distances between neighbours and where texts lie; the first rows of the table compare the
two. Queries are texts that the store does not have, one per line, which its own text space embeds; words are the store's frequent ones, as
a search embeds them. Systems take turns, so that the load of the machine is the same for all; a share is of the speed at which the same
cores read as many bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import faiss
import numpy as np
from bench_rows import Row, report

from multimodal.boxes import read_manifest
from multimodal.machine.cores import usable_cores
from multimodal.search.calibration import frequent_words
from multimodal.search.engine import Engine, EngineRecipe
from multimodal.search.kept import exact_engine, index_part
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store

K = 10
NEIGHBOURS, SPREAD = 96, 0.8
PER_SEGMENT = 100_000
RCLIP = 100_000
"""Pictures in rclip's database."""


def grow(rows: np.ndarray, num: int, seed: int = 0) -> np.ndarray:
    """(num, d) float16 of unit length, with the structure of rows (n, d) float32.

    A smoothed bootstrap that keeps the covariance (Silverman, 1986, 6.4.1), applied where each row lies: around the mean of its 96 nearest
    neighbours, it is drawn in by sqrt(1 - 0.8^2), and 0.8 times a random vector with these neighbours' covariance is added.
    """
    random = np.random.default_rng(seed)
    near = nearest(rows, NEIGHBOURS)[0]
    grown = np.empty((num, rows.shape[1]), np.float16)
    for base, places in enumerate(np.array_split(random.permutation(num), len(rows))):
        around = rows[near[base]]
        centre = around.mean(axis=0)
        noise = random.standard_normal((len(places), NEIGHBOURS), dtype=np.float32) * SPREAD / NEIGHBOURS**0.5
        new = centre + (1 - SPREAD**2) ** 0.5 * (rows[base] - centre) + noise @ (around - centre)
        grown[places] = new / np.linalg.norm(new, axis=1, keepdims=True)
    return grown


def nearest(rows: np.ndarray, k: int, queries: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(q, k) positions and cosines, best first; of the rows themselves, each without itself, if no queries are given."""
    asked = rows if queries is None else queries
    positions, cosines = np.empty((len(asked), k), np.int64), np.empty((len(asked), k), np.float32)
    for start in range(0, len(asked), 1000):
        scores = asked[start : start + 1000] @ rows.T
        if queries is None:
            scores[np.arange(len(scores)), start + np.arange(len(scores))] = -2
        found = np.argpartition(scores, -k, axis=1)[:, -k:]
        found = np.take_along_axis(found, np.argsort(-np.take_along_axis(scores, found, 1), axis=1), 1)
        positions[start : start + 1000], cosines[start : start + 1000] = found, np.take_along_axis(scores, found, 1)
    return positions, cosines


def structure(system: str, rows: np.ndarray, texts: np.ndarray) -> Iterator[Row]:
    """What grown and real pictures have in common, among as many of each."""
    distances = np.sqrt(np.maximum(2 - 2 * nearest(rows, K)[1], 1e-12))
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T.astype(np.float64)))[::-1]
    cosines = nearest(rows, K, texts)[1]
    of = f"{len(rows):,} pictures"
    yield Row(of, f"{system}: to the nearest one x 1000", 1000 * float(np.median(distances[:, 0])), "distance")
    yield Row(of, f"{system}: to the tenth x 1000", 1000 * float(np.median(distances[:, -1])), "distance")
    # Levina and Bickel (2004)
    dimension = float(np.median(1 / np.log(distances[:, -1:] / distances[:, :-1]).mean(axis=1)))
    yield Row(of, f"{system}: intrinsic dimension", dimension, "")
    yield Row(of, f"{system}: variance in 10 directions", 100 * float(eigenvalues[:10].sum() / eigenvalues.sum()), "%")
    yield Row(of, f"{system}: from a text to the tenth x 1000", 1000 * float(np.median(cosines[:, -1])), "cosine")


def make_store(real: Store, path: Path, num: int) -> None:
    """A store of pictures grown from a real one's, with its text space, and with a real picture's text each."""
    manifest = real.manifest
    create_store(path, real.path / "query", real.family, manifest.made_from["export"])
    rows, texts = unit(real.rows), real.column("text")
    grown = grow(rows, num)
    with StoreWriter(path) as writer:
        for start in range(0, num, PER_SEGMENT):
            ids = np.arange(start, min(start + PER_SEGMENT, num))
            names = [f"{id // 1000:04d}/{id:07d}.jpg" for id in ids.tolist()]
            writer.append(Segment(ids, grown[ids], {"name": names, "text": [texts[id % len(texts)] for id in ids.tolist()]}))
        writer.calibrate()


def unit(rows: np.ndarray) -> np.ndarray:
    """(n, d) float32 of unit length."""
    exact = rows.astype(np.float32)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)


class Turns:
    """Systems that take turns; each call is timed by itself, by the clock and in processor time, which other processes do not lengthen."""

    def __init__(self, systems: dict[str, Callable[[], object]], runs: int) -> None:
        self.taken: dict[str, list[float]] = {name: [] for name in systems}
        self.worked: dict[str, list[float]] = {name: [] for name in systems}
        for run in range(runs + 1):
            for name, call in systems.items():
                begun, before = time.perf_counter(), time.process_time()
                call()
                if run:  # the first turn warms up
                    self.taken[name].append(time.perf_counter() - begun)
                    self.worked[name].append(time.process_time() - before)

    def rows(self, case: str, ours: str, limit: float) -> Iterator[Row]:
        """The median and the best turn of each system. limit: seconds."""
        for name, taken in self.taken.items():
            yield Row(
                case, f"{name} (best {1000 * min(taken):,.1f})", 1000 * median(taken), "ms", median(taken) / median(self.taken[ours]),
                limit / median(taken),
            )  # fmt: skip

    def best(self, name: str) -> float:
        return min(self.taken[name])


def reading(rows: np.ndarray) -> Callable[[], object]:
    """Reads all rows on all cores, as fast as numpy can: the largest number, as int32, which vector instructions find."""
    flat = rows.view(np.ndarray).reshape(-1).view(np.int32)
    parts = np.array_split(flat, 16 * len(usable_cores()))
    threads = ThreadPoolExecutor(len(usable_cores()))
    return lambda: list(threads.map(np.max, parts))


def best_of(scores: np.ndarray) -> np.ndarray:
    found = np.argpartition(scores, -K)[-K:]
    return found[np.argsort(-scores[found])]


def exact_rows(store: Store, rows: np.ndarray, queries: np.ndarray, runs: int) -> Iterator[Row]:
    """One query, and sixty-four. rows: (n, d) float16, all of them."""
    engine = exact_engine(store.dim, store.live_positions)
    turn = iter(range(10**9))

    def query() -> np.ndarray:
        return queries[next(turn) % len(queries)][None]

    whole = unit(rows)
    flat = faiss.IndexFlatIP(store.dim)
    flat.add(whole)
    half = faiss.IndexScalarQuantizer(store.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    half.is_trained = True
    half.add_sa_codes(np.ascontiguousarray(rows).view(np.uint8))
    name = "ours, mapped float16"
    systems = {
        "numpy reads the same bytes": reading(rows),
        name: lambda: engine.search(query(), K),
        "FAISS flat, float32, twice the bytes": lambda: flat.search(query(), K),
        "FAISS scalar quantizer, float16": lambda: half.search(query(), K),
        "numpy, float32, twice the bytes": lambda: best_of(whole @ query()[0]),
    }
    turns = Turns(systems, runs)
    limit = median(turns.taken["numpy reads the same bytes"])
    yield Row("bandwidth", "numpy reads the same bytes", rows.nbytes / 1e9 / limit, "GB/s")
    yield from turns.rows("exact, one query", name, limit)
    yield Row("exact, one query", "ours, of the best reading", 100 * turns.best("numpy reads the same bytes") / turns.best(name), "%")
    reads = median(turns.worked["numpy reads the same bytes"])
    for system, worked in turns.worked.items():
        yield Row("exact, one query, processor time", system, 1000 * median(worked), "ms", None, reads / median(worked))
    many = {
        name: lambda: engine.search(queries[:64], K),
        "FAISS flat, float32, twice the bytes": lambda: flat.search(queries[:64], K),
    }
    yield from Turns(many, max(runs // 5, 1)).rows("exact, 64 queries", name, 64 * limit)
    found, wanted = engine.search(queries[:64], K).ids, flat.search(queries[:64], K)[1]
    yield Row("exact, 64 queries", "the same neighbours as FAISS flat", 100 * float((found == store.ids[wanted]).mean()), "%")


def approximate_rows(store: Store, asked: dict[str, np.ndarray]) -> Iterator[Row]:
    """Single queries, one after the other, and filters that keep a part. asked: kind of queries -> (q, d)."""
    exact, engine = exact_engine(store.dim, store.live_positions), store.engine
    found = index_part(store.manifest.parts)
    assert found is not None
    for figure, value in found[1]["figures"].items():
        yield Row("approximate, measured when made", figure, float(value), "")
    for kind, queries in asked.items():
        wanted = exact.search(queries, K)
        yield from _one_by_one(f"approximate, {kind}", engine, queries, wanted.ids)
    random = np.random.default_rng(0)
    kind, queries = next(iter(asked.items()))
    for share in (0.5, 0.1, 0.01, 0.001):
        kept = store.ids[random.random(len(store)) < share]
        some = queries[:100]
        view = engine.filter(kept)
        yield from _one_by_one(f"approximate, {kind}, filter keeps {share:.1%}", view, some, exact.filter(kept).search(some, K).ids)


def _one_by_one(case: str, engine: Engine, queries: np.ndarray, wanted: np.ndarray) -> Iterator[Row]:
    taken, hits = [], []
    for query, ids in zip(queries, wanted, strict=True):
        begun = time.perf_counter()
        found = engine.search(query[None], K).ids[0]
        taken.append(time.perf_counter() - begun)
        hits.append(np.isin(ids, found).mean())
        assert len(found) == len(ids), f"{case}: {len(found)} neighbours, wanted {len(ids)}"
    for percent in (50, 95):
        yield Row(case, f"ours, p{percent} of {len(queries)}", 1000 * float(np.percentile(taken, percent)), "ms")
    yield Row(case, "ours, recall@10 against exact", 100 * float(np.mean(hits)), "%")


MEASURED = """
import sys, time
from multimodal.cli import main
sys.argv = ["multimodal", "search", *sys.argv[1:]]
try:
    main()
finally:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(*(f"{name}={status[name].split()[0]}" for name in ("VmHWM", "RssAnon", "RssFile")), file=sys.stderr)
"""


def process_rows(store: Path, query: str, case: str, runs: int) -> Iterator[Row]:
    """From the start of a process to its end, and its memory."""
    taken, worked, memory = [], [], {}
    for _ in range(runs):
        begun, before = time.perf_counter(), os.times()
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "--store", str(store), query], capture_output=True, text=True, check=True, env=_environment()
        )
        taken.append(time.perf_counter() - begun)
        after = os.times()
        worked.append(after.children_user + after.children_system - before.children_user - before.children_system)
        memory = dict(part.split("=") for part in done.stderr.split()[-3:])
    yield Row(case, f"ours, process start to end (best {1000 * min(taken):,.0f})", 1000 * median(taken), "ms")
    yield Row(case, "ours, time of all cores together", 1000 * median(worked), "ms")
    yield Row(case, "ours, private memory at the end", int(memory["RssAnon"]) / 1024, "MiB")
    yield Row(case, "ours, pages of mapped files at the end", int(memory["RssFile"]) / 1024, "MiB")
    yield Row(case, "ours, peak of both", int(memory["VmHWM"]) / 1024, "MiB")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


# In rclip's environment, its own database and search; a vector from a file replaces its text tower, and ours takes one of its rows.
FILL = """
import sys, numpy as np
from rclip.db import DB
database, rows = DB(sys.argv[1]), np.load(sys.argv[2]).astype(np.float32)
for at, row in enumerate(rows):
    path = f"/pictures/{at // 1000:04d}/{at:07d}.jpg"
    database.upsert_image({"filepath": path, "modified_at": 0.0, "size": 1, "vector": row.tobytes(), "hash": str(at)}, commit=False)
database.close()
"""
ASK = """
import sys, numpy as np
from rclip.db import DB
from rclip.main import RClip
from rclip.model import Model
class Given(Model):
    def compute_features_for_queries(self, queries):
        return np.load(sys.argv[2]).astype(np.float32) * (1 if queries else 0)
found = RClip(Given(), DB(sys.argv[1]), 8, None).search("query", "/pictures", 10)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(*(hit.filepath.split("/")[-1] for hit in found), "VmHWM=" + status["VmHWM"].split()[0])
"""


def rclip_rows(python: Path, out: Path, store: Store, runs: int) -> Iterator[Row]:
    """rclip 3 on the same vectors, without its text tower: process start to end of one query, beside ours."""
    database, vectors, vector = out / "rclip.db", out / "rclip.npy", out / "query.npy"
    rows = unit(store.rows)
    np.save(vectors, rows)
    np.save(vector, rows[17])
    if not database.is_file():
        subprocess.run([python, "-c", FILL, database, vectors], check=True, env=_environment())
    ours, theirs, memory, found = [], [], "", []
    for _ in range(runs):
        begun = time.perf_counter()
        done = subprocess.run([python, "-c", ASK, database, vector], capture_output=True, text=True, check=True, env=_environment())
        theirs.append(time.perf_counter() - begun)
        *found, memory = done.stdout.split()
        begun = time.perf_counter()
        mine = subprocess.run(
            [sys.executable, "-c", "from multimodal.cli import main; main()", "search", "--store", str(store.path), "--json", "image:17"],
            capture_output=True, text=True, check=True, env=_environment(),
        )  # fmt: skip
        ours.append(time.perf_counter() - begun)
    same = [hit["name"].split("/")[-1] for hit in json.loads(mine.stdout)["hits"]] == found
    case = f"{len(store):,} pictures, process start to end"
    yield Row(case, "ours", 1000 * median(ours), "ms", 1.0)
    yield Row(case, "rclip, without its text tower", 1000 * median(theirs), "ms", median(theirs) / median(ours))
    yield Row(case, "rclip, peak memory", int(memory.removeprefix("VmHWM=")) / 1024, "MiB")
    yield Row(case, "the same ten pictures", 100.0 * same, "%")
    yield Row(case, "rclip, its database", database.stat().st_size / 2**20, "MiB")
    yield Row(case, "ours, rows on disk", store.rows.nbytes / 2**20, "MiB")


def measured(given: argparse.Namespace) -> Iterator[Row]:
    real = Store(given.store)
    path = given.out / f"store{given.num}"
    if not (path / "manifest.json").is_file() or len(Store(path)) < given.num:
        make_store(real, path, given.num)
    create_store(path, given.store / "query", real.family, read_manifest(given.store, kind="store").made_from["export"])  # its ONNX, if new
    store = Store(path)
    texts = [line.strip() for line in given.queries.read_text().splitlines() if line.strip()][: given.texts]
    words = frequent_words([text or "" for text in real.column("text")], real.query_space, is_slow=True)
    asked = {
        "texts": unit(store.query_space.embed(texts)),
        "words": np.stack([store.calibration.embed(word, store.query_space) for word in words]).astype(np.float32),
    }
    rows = np.concatenate([segment.rows() for segment, _ in store.live_positions])
    some = np.random.default_rng(1).choice(len(rows), min(len(real), len(rows)), replace=False)
    yield from structure("real", unit(real.rows), asked["texts"])
    yield from structure("grown", unit(rows[np.sort(some)]), asked["texts"])
    yield from process_rows(path, "image:17", "one search, exact", given.runs)
    yield from process_rows(path, "a dog jumps over a fence", "one search in words, exact", given.runs)
    yield from exact_rows(store, rows, asked["texts"], given.runs)
    del rows
    with StoreWriter(path) as writer:
        begun = time.perf_counter()
        writer.build_index(EngineRecipe("multimodal.search.ivf.IvfEngine"))
        yield Row("approximate", "index made in", time.perf_counter() - begun, "s")
    yield from approximate_rows(Store(path), asked)
    yield from process_rows(path, "image:17", "one search, approximate", given.runs)
    if given.rclip is not None:
        small = given.out / f"store{RCLIP}"
        if not (small / "manifest.json").is_file():
            make_store(real, small, RCLIP)
        yield from rclip_rows(given.rclip, given.out, Store(small), given.runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="a store of real pictures with texts, whose structure is copied")
    parser.add_argument("--queries", type=Path, required=True, help="texts that the store does not have, one per line")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the stores that are made, which are reused")
    parser.add_argument("--num", type=int, default=1_000_000, help="how many pictures")
    parser.add_argument("--texts", type=int, default=500, help="how many of the queries")
    parser.add_argument("--runs", type=int, default=15, help="turns of each system")
    parser.add_argument("--rclip", type=Path, help="the interpreter of an environment that has rclip 3")
    parser.add_argument("--json", type=Path, help="write the table to this file too")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{len(usable_cores())} cores, load {load}")
    report(measured(given), given.json, {"num": given.num, "cores": len(usable_cores()), "load": load})
