"""How fast data is prepared: ours beside its peers, on the same files and the same cores, in one run.

    python scripts/bench_prep.py --data ../shared/data --out /tmp/bench --json prep.json --img2dataset /tmp/img2dataset/bin/python
    python scripts/bench_prep.py --data ../shared/data --out /tmp/bench --case wikipedia --quick

A case is a file beside this one, `bench_prep_<case>.py`, with a function `rows(given: Given) -> Iterator[Row]`: it checks that the work is
equal, and lets every system take its turn. Its docstring says what it measures, and against what limit. img2dataset's pins clash with ours:

    uv venv /tmp/img2dataset && uv pip install --python /tmp/img2dataset/bin/python img2dataset==1.47.0
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_rows import Given, Row, tell

PREFIX = "bench_prep_"
PACKAGES = {"gensim": "gensim", "numba": "numba", "numpy": "numpy", "pillow": "PIL", "simplejpeg": "simplejpeg"}
"""Those whose releases matter, and the module of each."""


def cases() -> list[str]:
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def bench(names: Sequence[str], given: Given) -> Iterator[Row]:
    """The rows of the cases, one after the other, each with a folder of its own for what it makes."""
    for name in names:
        (given.out / name).mkdir(parents=True, exist_ok=True)
        yield from importlib.import_module(PREFIX + name).rows(replace(given, out=given.out / name))


def setup(runs: int) -> dict[str, Any]:
    """What the figures hold for."""
    versions = {name: version(name) for name, module in PACKAGES.items() if importlib.util.find_spec(module)}
    return {"runs": runs, "cores": len(os.sched_getaffinity(0)), "versions": versions}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the data sets")
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is made; used again by the next call")
    parser.add_argument("--json", type=Path, help="the rows go there too")
    parser.add_argument("--case", action="append", choices=cases(), help="only this one; may be given again (default: all)")
    parser.add_argument("--runs", type=int, default=3, help="turns of each system, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="one run: does it work, not how fast is it")
    parser.add_argument("--img2dataset", type=Path, help="the interpreter of an environment that has img2dataset")
    said = parser.parse_args()
    given = Given(said.data, said.out, 1 if said.quick else said.runs, said.quick, said.img2dataset)
    tell(bench(said.case or cases(), given), said.json, setup(given.runs))
