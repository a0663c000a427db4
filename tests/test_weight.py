"""What a room weighs: a fresh process imports every module of it, and what must stay out is not among the modules loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"gensim", "lightning", "numba", "open_clip", "pytorch_lightning", "timm", "torch", "torchvision", "transformers", "wandb"}
LIGHTNING = {"lightning", "pytorch_lightning", "torchmetrics"}

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    room = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(room, "__path__", ()), name + "."):
        importlib.import_module(module.name)
print(*sorted({module.partition(".")[0] for module in sys.modules}))
"""


def loaded_by(*rooms: str) -> set[str]:
    """Top-level names of all that a fresh process holds after it imported these rooms, each with all its modules."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *rooms], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "room",
    [
        "multimodal.pairs",
        "multimodal.metrics",
        "multimodal.shards",
        "multimodal.text",
        "multimodal.export.card",
        "multimodal.export.run",
        "multimodal.jobs",
        "multimodal.opening",
        "multimodal.search",
        "multimodal.serve",
        "multimodal.cli",
        "data_prep",
    ],
)
def test_what_only_reads_loads_nothing_that_trains(room: str) -> None:
    loaded = loaded_by(room)
    assert "multimodal" in loaded or room == "data_prep"
    assert not loaded & HEAVY


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys; before = set(sys.modules); import multimodal; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["multimodal"]


def test_asking_what_there_is_and_opening_a_set_loads_nothing_that_trains() -> None:
    shards = Path(__file__).parent / "data" / "shards" / "golden"
    code = "import sys, multimodal as mm; dir(mm); mm.open(sys.argv[1])[0]; mm.fit, mm.fit_topics, mm.export, mm.index, mm.evaluate; "
    done = subprocess.run([sys.executable, "-c", code + "print(*sys.modules)", str(shards)], capture_output=True, text=True, check=True)
    assert "multimodal.jobs" in done.stdout.split()
    assert not {module.partition(".")[0] for module in done.stdout.split()} & HEAVY


def test_only_training_loads_lightning() -> None:
    rooms = ["data", "towers", "objectives", "export", "embed", "evaluate"]
    loaded = loaded_by(*(f"multimodal.{room}" for room in rooms))
    assert "torch" in loaded
    assert not loaded & LIGHTNING


def test_opening_a_set_loads_no_pandas() -> None:
    """pyarrow imports it for some conversions where it is installed, a third of a second before the first batch."""
    shards = Path(__file__).parent / "data" / "shards" / "golden"
    code = "import sys; from multimodal.shards import ShardSet; ShardSet(sys.argv[1]).image_bytes(0); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(shards)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
