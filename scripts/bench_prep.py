"""How fast data is prepared: our code against its peers, on the same files and the same cores, in one run.

    python scripts/bench_prep.py --data ../shared/data --out /tmp/bench --json prep.json --img2dataset /tmp/img2dataset/bin/python
    python scripts/bench_prep.py --data ../shared/data --out /tmp/bench --case wikipedia --quick

A case is a file beside this one, `bench_prep_<case>.py`, with a function `rows(given: Given) -> Iterator[Row]`: it checks that all systems
do the same work, and runs them in turn. Its docstring says what it measures, and against what limit. img2dataset's pins conflict with ours:

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

from bench_rows import Given, Row, report

PREFIX = "bench_prep_"
PACKAGES = {"gensim": "gensim", "numba": "numba", "numpy": "numpy", "pillow": "PIL", "simplejpeg": "simplejpeg"}
"""The packages whose versions matter, and the module of each."""


def cases() -> list[str]:
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def bench(names: Sequence[str], given: Given) -> Iterator[Row]:
    """The rows of the cases, one after another, each with its own folder for intermediate files."""
    for name in names:
        (given.out / name).mkdir(parents=True, exist_ok=True)
        yield from importlib.import_module(PREFIX + name).rows(replace(given, out=given.out / name))


def setup(runs: int) -> dict[str, Any]:
    """The setup of the measurement."""
    versions = {name: version(name) for name, module in PACKAGES.items() if importlib.util.find_spec(module)}
    return {"runs": runs, "cores": len(os.sched_getaffinity(0)), "versions": versions}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the data sets")
    parser.add_argument("--out", type=Path, required=True, help="a folder for intermediate files, which the next call reuses")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--case", action="append", choices=cases(), help="only this case; can be given several times (default: all)")
    parser.add_argument("--runs", type=int, default=3, help="turns of each system; the median is reported")
    parser.add_argument("--quick", action="store_true", help="one run, to test that it works; not a measurement")
    parser.add_argument("--img2dataset", type=Path, help="the interpreter of an environment that has img2dataset")
    arguments = parser.parse_args()
    given = Given(arguments.data, arguments.out, 1 if arguments.quick else arguments.runs, arguments.quick, arguments.img2dataset)
    report(bench(arguments.case or cases(), given), arguments.json, setup(given.runs))
