"""Check the files of a finished demo: stores equal exports, figures follow from stores alone, query algebra, speed of a cold search.

    .venv/bin/python scripts/check_demo.py runs/demo
    .venv/bin/python scripts/check_demo.py runs/demo --python /tmp/search-only/bin/python     # an environment with wordsight[search] only

Prints one line per check, and exits with 1 if any fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from multimodal.errors import InputError
from multimodal.export.model import load_export
from multimodal.search.query import answer
from multimodal.search.store import Store
from multimodal.shards import ShardSet, Split

NUM_PICTURES = 200
NUM_QUERIES = 50
NUM_COLD = 7
COLD_LIMIT_S = 1.0
MIN_COSINE = 0.999
HEADLINE, HEADLINE_ANSWER = "haircut + woman - man", "woman getting haircut"
HEAVY = ("torch", "lightning", "open_clip", "transformers", "gensim")
FAMILIES = ("contrastive", "wordvec", "topic")
GALLERIES = {"unseen": ("store", "fluent", "test"), "noto": ("store_noto", "noto", "train")}
PROBE = """
import sys
from multimodal.cli import main
status = main(["search", "--store", sys.argv[1], sys.argv[2]])
print("loaded:", ",".join(name for name in %r if name in sys.modules), file=sys.stderr)
sys.exit(status)
"""

Check = tuple[str, str, bool]
"""What is checked, what was found, whether it passes."""


def stores_equal_exports(demo: Path) -> Iterator[Check]:
    """Pictures embedded again by the export have the direction of the store's rows."""
    for family in FAMILIES:
        export, store = load_export(demo / family / "export"), Store(demo / family / "store")
        shards = ShardSet(demo / "shards" / "fluent")
        ids = store.ids[:: max(1, len(store.ids) // NUM_PICTURES)][:NUM_PICTURES]
        by_hand = export.embed_encoded([shards.image_bytes(int(id)) for id in ids]).astype(np.float64)
        rows = store.take(ids).astype(np.float64)
        cosine = (by_hand * rows).sum(1) / (np.linalg.norm(by_hand, axis=1) * np.linalg.norm(rows, axis=1))
        yield f"{family}: {len(ids)} pictures encoded again, smallest cosine", f"{cosine.min():.6f}", bool(cosine.min() >= MIN_COSINE)


def figures_come_from_stores(demo: Path) -> Iterator[Check]:
    """R@10 computed from a store's rows, texts, groups and query side, by a full sort, equals the figure in results.json."""
    rows = json.loads((demo / "results.json").read_text(encoding="utf-8"))
    for row in rows:
        if row["seed"] != 0 or row["control"] or row["gallery"] not in GALLERIES or row["direction"] != "text->image":
            continue
        folder, _, part = GALLERIES[row["gallery"]]
        store, split = Store(demo / row["family"] / folder), Split(seed=0)
        mine = np.array([split.part_of(group) == part for group in store.column("group")])
        texts = [text for text, chosen in zip(store.column("text"), mine, strict=True) if chosen]
        gallery = np.asarray(store.rows, dtype=np.float64)[mine]
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
        scores = store.query_space.embed(texts).astype(np.float64) @ gallery.T
        found = [own in np.argsort(-line, kind="stable")[:10] for own, line in enumerate(scores)]
        again = round(100 * float(np.mean(found)), 2)
        yield (
            f"{row['family']}, {row['gallery']}: R@10 from the store alone, and in results.json",
            f"{again} {row['R@10']}",
            again == row["R@10"],
        )


def algebra_holds(demo: Path) -> Iterator[Check]:
    """Order and repetition make no difference, unknown words change nothing, a picture finds itself first."""
    for family in FAMILIES:
        store = Store(demo / family / "store")
        generator = np.random.default_rng(0)
        words = _known_words(store)
        held = {"a + b = b + a": 0, "2*a = a + a": 0, "an unknown word changes nothing": 0, "image:<id> finds itself first": 0}
        for _ in range(NUM_QUERIES):
            a, b = generator.choice(words, 2, replace=False)
            id = int(generator.choice(store.ids))
            held["a + b = b + a"] += _hits(store, f"{a} + {b}") == _hits(store, f"{b} + {a}")
            held["2*a = a + a"] += _hits(store, f"2*{a} - {b}") == _hits(store, f"{a} + {a} - {b}")
            held["an unknown word changes nothing"] += _hits(store, f"{a} + \U0001f9ff + {b}") == _hits(store, f"{a} + {b}")
            held["image:<id> finds itself first"] += answer(store, f"image:{id}", 1).hits[0].id == id
        for what, count in held.items():
            yield f"{family}: {what}", f"{count} of {NUM_QUERIES}", count == NUM_QUERIES


def the_headline_is_true(demo: Path) -> Iterator[Check]:
    """The query at the top of README.md finds first what its picture shows."""
    first = answer(Store(demo / "contrastive" / "store"), HEADLINE, k=1).hits[0].text
    yield f"first hit of {HEADLINE!r}", first.partition(".")[0], first.startswith(HEADLINE_ANSWER)


def searches_start_fast(demo: Path, python: Path) -> Iterator[Check]:
    """A new process answers in time and loads none of the heavy packages."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for family in ("wordvec", "topic"):
        command = [str(python), "-c", PROBE % (HEAVY,), str(demo / family / "store"), "woman + scientist - man"]
        took = []
        for _ in range(NUM_COLD):
            start = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            took.append(time.perf_counter() - start)
            if done.returncode:
                yield f"{family}: a search from a cold start", done.stderr.strip()[-200:], False
                return
        loaded = done.stderr.rpartition("loaded:")[2].strip()
        median = statistics.median(took)
        seen = f"{median:.2f} s (median of {NUM_COLD}; slowest {max(took):.2f}), heavy packages loaded: {loaded or 'none'}"
        yield f"{family}: a search from a cold start", seen, median <= COLD_LIMIT_S and not loaded


def _known_words(store: Store) -> list[str]:
    """Words of the store's own texts that its text space knows."""
    words = sorted({word.strip(".,:") for text in store.column("text") for word in text.lower().split()})
    plain = [word for word in words if word.isascii() and word.isalpha() and len(word) > 2]
    vectors = store.query_space.embed(plain)
    return [word for word, known in zip(plain, np.abs(vectors).sum(1) > 0, strict=True) if known]


def _hits(store: Store, query: str) -> list[int] | str:
    try:
        return [hit.id for hit in answer(store, query, 20).hits]
    except InputError as error:  # both sides of an equation may be refused, for the same reason
        return str(error).split(":")[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the demo's folder")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the Python to search with; by default this one")
    options = parser.parse_args()
    failed = 0
    for checks in (stores_equal_exports, figures_come_from_stores, algebra_holds, the_headline_is_true):
        failed += _report(checks(options.demo))
    failed += _report(searches_start_fast(options.demo, options.python))
    print(f"{failed} failed" if failed else "all passed")
    return 1 if failed else 0


def _report(checks: Iterator[Check]) -> int:
    failed = 0
    for what, seen, holds in checks:
        failed += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {what}: {seen}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
