"""The folder of a run: what it holds, whether it is finished, and whether a command is the one that started it.

    state = look_at(Path("runs/topic"), config, overwrite=False)     # fresh, unfinished or finished; InputError if it is another run's

runs/topic/config.yaml        all settings of the run, resolved: multimodal fit --config runs/topic/config.yaml --run runs/again
runs/topic/checkpoints/       last.ckpt to resume from, best.ckpt of the best epoch by validation (none without validation)
runs/topic/metrics.csv        one row for each step at which something was logged
runs/topic/forgetting.html    what it learned and what it forgot, if that is measured
runs/topic/embeddings.npz     where some pictures were after some steps, with the callback KeepEmbeddings
runs/topic/bad.csv            pairs that could not be read, if there are any
runs/topic/no_words.csv       pairs whose text has no word that the space knows, if there are any
runs/topic/models/             what its CLIP models are, without weights, if it has any
runs/topic/classes.json       the numbers of the classes, if the target is a label
runs/topic/made_from.json     fingerprints of the shards and columns that it learns from
runs/topic/manifest.json      written last: a run with it is finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback

from multimodal.boxes import MANIFEST, Manifest, State, atomic_write, is_unfinished, is_whole, read_manifest, state_of
from multimodal.errors import InputError
from multimodal.export.run import EMBEDDINGS, MODELS
from multimodal.shards.ledger import NO_WORDS_FILE
from multimodal.towers.pretrained import ClipModel
from multimodal.training.callbacks import CHECKPOINTS, CLASSES
from multimodal.training.datamodule import BAD
from multimodal.training.forgetting import PAGE
from multimodal.training.loggers import METRICS, WANDB_ID
from multimodal.urls import url_in

CONFIG = "config.yaml"
MADE_FROM = "made_from.json"
REMEDIES = ("choose another --run", "train again with --overwrite")

WHERE_NOT_WHAT = (
    "run",
    "overwrite",
    "extend",
    "init_from",  # its weights are compared by fingerprint
    "num_threads",
    "checkpoint_every_n_steps",
    "checkpoint_every_s",
    "clip",
    "model.image_tower.init_args.trunk.init_args.model",  # so are the models of open_clip
    "model.target_side.init_args.model",
    "data.shards",  # their content is compared by fingerprint
    "data.leave_out",
    "data.cache",
    "data.cache_bytes",
    "data.num_workers",
    "model.micro_batch_size",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.precision",
    "trainer.logger",
    "trainer.max_time",
    "trainer.enable_progress_bar",
    "preflight",
    *(f"forgetting.{name}" for name in ("pairs", "classes", "names", "templates", "space")),  # their content is compared by fingerprint
    "forgetting.min_kept",
)
"""Keys that decide where a run is computed, what it reports and what is checked before, but not what is computed: a run may resume with
other values.
"""


class StaysThere(Callback):
    """Stops a run whose folder is removed or replaced, at the next step that logs something: otherwise it would end without a run.

    Only rank zero checks, since only it writes.
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
        """InputError if the folder is not the one that the run started in, or has lost its config."""
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


def look_at(run: Path, config: Mapping[str, Any], overwrite: bool, read: Callable[[str], Mapping[str, Any]] = yaml.safe_load) -> State:
    """What to do in this folder; config: the command's resolved config. InputError if another command started the folder.

    overwrite: train again if there is a run. Only a run is ever overwritten. read: the text of a run's config -> its content.
    """
    if url := url_in(run):
        raise InputError(f"--run {url}: is a URL; give a folder on this machine")
    # A temporary file is another rank's, which is just starting the run.
    if not run.exists() or (run.is_dir() and all(is_unfinished(path) for path in run.iterdir())):
        return State.FRESH
    if is_whole(run):
        read_manifest(run, kind="run")
    if not (run / CONFIG).is_file():
        if (run / CHECKPOINTS).is_dir() or (run / MADE_FROM).is_file():
            return State.FRESH  # stopped before its first line was written
        raise InputError(f"{run}: exists but is not a run: it has no {CONFIG}. Choose another --run")
    learned_nothing = not any((run / name).exists() for name in (MANIFEST, METRICS, CHECKPOINTS))
    if overwrite or learned_nothing:  # rejected before its first step: the corrected command begins it anew
        return State.FRESH
    return _compare(run, _what(config), _what(read((run / CONFIG).read_text(encoding="utf-8"))))


def clear(run: Path) -> None:
    """Remove what a run has written, its manifest first, and nothing else."""
    for name in (MANIFEST, CONFIG, MADE_FROM, CLASSES, METRICS, EMBEDDINGS, PAGE, BAD, NO_WORDS_FILE, WANDB_ID):
        (run / name).unlink(missing_ok=True)
    for folder in (CHECKPOINTS, MODELS, "wandb"):
        if (run / folder).is_dir():
            shutil.rmtree(run / folder)


def write_beginning(run: Path, config: str, made_from: Mapping[str, str], models: Mapping[str, ClipModel]) -> None:
    """Write the run's description, the config last: a folder with a config holds a run. models: by the parts of the run's model."""
    for part, model in models.items():
        model.write(run / MODELS / part)
    with atomic_write(run / MADE_FROM) as file:
        file.write((json.dumps(made_from, indent=1, sort_keys=True) + "\n").encode())
    with atomic_write(run / CONFIG) as file:
        file.write(config.encode())


def check_made_from(run: Path, made_from: Mapping[str, str]) -> None:
    """InputError if a started or finished run learned from boxes that have changed since."""
    _compare(run, made_from, json.loads((run / MADE_FROM).read_text(encoding="utf-8")))


def _compare(run: Path, asked: Mapping[str, Any], then: Mapping[str, Any]) -> State:
    finished, unfinished = (then, None) if is_whole(run) else (None, then)
    # config.yaml has every setting, so that null is a value like any other.
    return state_of(run, asked, finished, unfinished, remedies=REMEDIES, null_is_absent=False)


def run_manifest(config: Mapping[str, Any], made_from: Mapping[str, str], counts: Mapping[str, int]) -> Manifest:
    """The manifest of a finished run. Paths and machines are left out of its config: equal runs have equal ones."""
    return Manifest(kind="run", config=_what(config), counts=counts, made_from=made_from)


def _what(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if _says_what(f"{prefix}{key}")}
    return {key: _what(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value for key, value in kept.items()}


def _says_what(key: str) -> bool:
    return not f"{key}.".startswith(tuple(f"{where}." for where in WHERE_NOT_WHAT))
