"""Print an offline W&B run as text, without network: its config, its figures, and the tables of a validation.

.venv/bin/python scripts/wandb_report.py runs/topic
.venv/bin/python scripts/wandb_report.py runs/topic --step 439     # with the tables of that validation instead of the last one
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multimodal.boxes import flat
from multimodal.errors import InputError
from multimodal.training.loggers import PAIRS_SEEN, STEP
from multimodal.training.offline_wandb import OfflineRun, Table, read_offline

TABLE = "table-file"
MAX_CELL = 60
BEST = {"max": max, "min": min}


def lines(run: OfflineRun, step: int | None = None) -> Iterator[str]:
    """The report; the tables are those of the validation at a step, or the last one's."""
    yield "config"
    yield from (f"  {key}: {value}" for key, value in sorted(flat(run.config).items()) if not key.startswith("_wandb"))
    history = run.history()
    if not history:
        return
    yield f"figures until step {history[-1][STEP]}, {history[-1][PAIRS_SEEN]:,} pairs seen"
    figures = {name for row in history for name, value in row.items() if "/" in name and isinstance(value, int | float)}
    for name in sorted(figures - {STEP, PAIRS_SEEN}):
        values = [(row[name], row[STEP]) for row in history if name in row]
        yield f"  {name}: {values[-1][0]:.4g}" + _best(values, _summary(run, name))
    names = sorted({name for row in history for name, value in row.items() if isinstance(value, dict) and value.get("_type") == TABLE})
    for name in names:
        at = run.steps(name)[-1] if step is None else step
        if at not in run.steps(name):
            raise InputError(f"{name}: nothing was logged at step {at}. Steps with it: {', '.join(map(str, run.steps(name)))}")
        yield f"{name} at step {at}"
        yield from _as_text(run.table(name, at))
    if not run.is_finished:
        yield "the run's end was not written: it is still running, or was killed"


def _summary(run: OfflineRun, name: str) -> str | None:
    fitting = [best for pattern, best in run.summaries.items() if name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1]))]
    return fitting[0] if fitting else None


def _best(values: list[tuple[float, int]], summary: str | None) -> str:
    if summary is None:
        return ""
    numbers = [value for value, _ in values if not math.isnan(value)]
    if not numbers:
        return " (never a number)"
    best = BEST[summary](numbers)
    return f" (best {best:.4g}, first at step {next(step for value, step in values if value == best)})"


def _as_text(table: Table) -> Iterator[str]:
    cells = [table.columns, *([_cell(value) for value in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    yield from ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 3]}..."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder, as given to multimodal fit --run")
    parser.add_argument("--step", type=int, help="step of the validation whose tables are printed; by default the last one")
    given = parser.parse_args()
    try:
        for line in lines(read_offline(given.run), given.step):
            print(line)
    except InputError as error:
        sys.exit(f"error: {error}")
