"""The folder of a run: what it holds, whether it was finished, and whether a command is the one that began it.

    state = look_at(Path("runs/topic"), config, overwrite=False)     # fresh, unfinished or finished; InputError where the folder is another run's

runs/topic/config.yaml        everything the run was given, resolved: multimodal fit --config runs/topic/config.yaml --run runs/again
runs/topic/checkpoints/       last.ckpt to go on from, best.ckpt the epoch that validation liked best (none without validation)
runs/topic/metrics.csv        one row for each step at which something was logged
runs/topic/bad.csv            pairs that could not be read, where there are any
runs/topic/manifest.json      written last: a run with it is finished
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from multimodal.boxes import MANIFEST, Manifest, atomic_write, is_whole, read_manifest
from multimodal.errors import InputError
from multimodal.training.callbacks import CHECKPOINTS

CONFIG = "config.yaml"
NUM_KEYS_TOLD = 5

WHERE_NOT_WHAT = (
    "run",
    "overwrite",
    "data.num_workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.precision",
    "trainer.logger",
    "trainer.enable_progress_bar",
)
"""Keys that say where a run is computed and who hears of it, not what is computed: a run may go on with others."""


class State(Enum):
    """What a run's folder says of it."""

    FRESH = "fresh"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


def look_at(run: Path, config: Mapping[str, Any], overwrite: bool) -> State:
    """What to do in this folder; config is the resolved one of the command. InputError where the folder was begun by another command."""
    if overwrite or not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return State.FRESH
    if not (run / CONFIG).is_file():
        if run.is_dir() and (run / CHECKPOINTS).is_dir():
            return State.FRESH  # stopped before its first line was written
        raise InputError(f"{run}: is there, and is no run: it has no {CONFIG}. Choose another --run")
    begun_with = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    different = differences(begun_with, config)
    if different:
        told = ", ".join(different[:NUM_KEYS_TOLD]) + (
            f" and {len(different) - NUM_KEYS_TOLD} more" if len(different) > NUM_KEYS_TOLD else ""
        )
        raise InputError(f"{run}: holds a run with another config; different: {told}. Choose another --run, or --overwrite to replace it")
    return State.FINISHED if is_whole(run) else State.UNFINISHED


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The dotted keys, sorted, whose values differ and that say what is computed."""
    left, right = dict(flat(one)), dict(flat(other))
    ignored = tuple(f"{key}." for key in WHERE_NOT_WHAT)
    keys = (key for key in left.keys() | right.keys() if not f"{key}.".startswith(ignored))
    missing = object()
    return sorted(key for key in keys if left.get(key, missing) != right.get(key, missing))


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with dotted keys."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def clear(run: Path) -> None:
    """Remove what a run has written, its manifest first, and nothing else that lies there."""
    (run / MANIFEST).unlink(missing_ok=True)
    for name in ("metrics.csv", "bad.csv", "wandb-id", CONFIG):
        (run / name).unlink(missing_ok=True)
    for folder in (CHECKPOINTS, "wandb"):
        if (run / folder).is_dir():
            shutil.rmtree(run / folder)


def write_config(run: Path, text: str) -> None:
    with atomic_write(run / CONFIG) as file:
        file.write(text.encode())


def run_manifest(config: Mapping[str, Any], made_from: Mapping[str, str], counts: Mapping[str, int]) -> Manifest:
    """The manifest of a finished run. Paths and machines are left out of its config: equal runs have equal ones."""
    kept = {key: value for key, value in flat(config) if not f"{key}.".startswith(tuple(f"{where}." for where in WHERE_NOT_WHAT))}
    kept.pop("data.shards", None)
    return Manifest(kind="run", config=kept, counts=counts, made_from=made_from)


def check_made_from(run: Path, made_from: Mapping[str, str]) -> None:
    """InputError where a finished run learnt from boxes that have changed since."""
    then = read_manifest(run, kind="run").made_from
    for name in sorted(then.keys() | made_from.keys()):
        if then.get(name) != made_from.get(name):
            raise InputError(
                f"{run}: its {name} was {str(then.get(name))[:12]} when it was trained and is {str(made_from.get(name))[:12]} now. "
                "Choose another --run, or --overwrite to train again"
            )
