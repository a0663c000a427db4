"""The folder of a run: what it holds, whether it was finished, and whether a command is the one that began it.

    state = look_at(Path("runs/topic"), config, overwrite=False)     # fresh, unfinished or finished; InputError where it is another run's

runs/topic/config.yaml        everything the run was given, resolved: multimodal fit --config runs/topic/config.yaml --run runs/again
runs/topic/checkpoints/       last.ckpt to go on from, best.ckpt the epoch that validation liked best (none without validation)
runs/topic/metrics.csv        one row for each step at which something was logged
runs/topic/bad.csv            pairs that could not be read, where there are any
runs/topic/no_words.csv       pairs of whose text the space knows no word, where there are any
runs/topic/made_from.json     fingerprints of the shards and columns that it learns from
runs/topic/manifest.json      written last: a run with it is finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback

from multimodal.boxes import MANIFEST, Manifest, atomic_write, is_unfinished, is_whole, read_manifest
from multimodal.errors import InputError
from multimodal.shards.ledger import NO_WORDS_FILE
from multimodal.training.callbacks import CHECKPOINTS
from multimodal.training.datamodule import BAD
from multimodal.training.loggers import METRICS, WANDB_ID
from multimodal.urls import url_in

CONFIG = "config.yaml"
MADE_FROM = "made_from.json"
NUM_KEYS_TOLD = 5

WHERE_NOT_WHAT = (
    "run",
    "overwrite",
    "num_threads",
    "checkpoint_every_n_steps",
    "checkpoint_every_s",
    "data.shards",  # their content is compared by fingerprint
    "data.leave_out",
    "data.cache",
    "data.cache_bytes",
    "data.num_workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.precision",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "preflight",
)
"""Keys that say where a run is computed, who hears of it and what is looked at before, not what is computed: a run may go on with
others.
"""


class State(Enum):
    """What a run's folder says of it."""

    FRESH = "fresh"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


class StaysThere(Callback):
    """Stops a run whose folder is taken away or replaced, at the next step at which something is logged: no run would be left at its end.

    Rank zero, which alone writes, looks.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._begun: tuple[int, int] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._begun = self._identity()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.check()

    def on_validation_end(self, *args: Any, **kwargs: Any) -> None:
        self.check()

    def check(self) -> None:
        """InputError where the folder is not the one that the run began in, or has lost its config."""
        if self._begun is not None and self._identity() != self._begun:
            raise InputError(
                f"{self.run}: the run's folder was removed or replaced while it was being trained. Run the same command again to train anew"
            )

    def _identity(self) -> tuple[int, int] | None:
        try:
            (self.run / CONFIG).stat()
            folder = self.run.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return folder.st_dev, folder.st_ino


def look_at(run: Path, config: Mapping[str, Any], overwrite: bool) -> State:
    """What to do in this folder; config is the resolved one of the command. InputError where the folder was begun by another command.

    overwrite: train again where a run lies here. Only a run is ever written over.
    """
    if url := url_in(run):
        raise InputError(f"--run {url}: is a URL, and only a folder on this machine can be given here")
    # A file on its way to its name is another rank's, which is just beginning the run.
    if not run.exists() or (run.is_dir() and all(is_unfinished(path) for path in run.iterdir())):
        return State.FRESH
    if is_whole(run):
        read_manifest(run, kind="run")
    if not (run / CONFIG).is_file():
        if (run / CHECKPOINTS).is_dir() or (run / MADE_FROM).is_file():
            return State.FRESH  # stopped before its first line was written
        raise InputError(f"{run}: is there, and is no run: it has no {CONFIG}. Choose another --run")
    if overwrite:
        return State.FRESH
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
    absent = object()
    return sorted(key for key in left.keys() | right.keys() if _says_what(key) and left.get(key, absent) != right.get(key, absent))


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with dotted keys."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def clear(run: Path) -> None:
    """Remove what a run has written, its manifest first, and nothing else that lies there."""
    for name in (MANIFEST, CONFIG, MADE_FROM, METRICS, BAD, NO_WORDS_FILE, WANDB_ID):
        (run / name).unlink(missing_ok=True)
    for folder in (CHECKPOINTS, "wandb"):
        if (run / folder).is_dir():
            shutil.rmtree(run / folder)


def write_beginning(run: Path, config: str, made_from: Mapping[str, str]) -> None:
    """Write what the run is, the config last: a folder with a config holds a run."""
    with atomic_write(run / MADE_FROM) as file:
        file.write((json.dumps(made_from, indent=1, sort_keys=True) + "\n").encode())
    with atomic_write(run / CONFIG) as file:
        file.write(config.encode())


def check_made_from(run: Path, made_from: Mapping[str, str]) -> None:
    """InputError where a run that was begun, or finished, learnt from boxes that have changed since."""
    then = json.loads((run / MADE_FROM).read_text(encoding="utf-8"))
    for name in sorted(then.keys() | made_from.keys()):
        if then.get(name) != made_from.get(name):
            raise InputError(
                f"{run}: its {name} was {_short(then.get(name))} when it was begun and is {_short(made_from.get(name))} now. "
                "Choose another --run, or --overwrite to train again"
            )


def run_manifest(config: Mapping[str, Any], made_from: Mapping[str, str], counts: Mapping[str, int]) -> Manifest:
    """The manifest of a finished run. Paths and machines are left out of its config: equal runs have equal ones."""
    return Manifest(kind="run", config=_what(config), counts=counts, made_from=made_from)


def _what(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if _says_what(f"{prefix}{key}")}
    return {key: _what(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value for key, value in kept.items()}


def _says_what(key: str) -> bool:
    return not f"{key}.".startswith(tuple(f"{where}." for where in WHERE_NOT_WHAT))


def _short(fingerprint: str | None) -> str:
    return "not there" if fingerprint is None else f"{fingerprint[:12]}.."
