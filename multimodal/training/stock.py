"""Lightning's own callbacks, loggers and profilers in a run of ours: where they write, which cannot work, and what went wrong in one.

place(config.trainer, run)                                      # what they write lies in the run's folder
refuse_what_cannot_work(callbacks, objective, accumulate=2)     # InputError with the reason
reason_of(error)                                                # one line, where such a part is to blame for it
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)

from multimodal.errors import InputError
from multimodal.objectives import Objective
from multimodal.objectives.base import RowObjective

MODEL_CHECKPOINTS = Path("checkpoints", "lightning")
"""Where ModelCheckpoint writes by default: not beside our `last.ckpt`, which it can be told to write too."""
PLACES = ("save_dir", "dirpath", "dir", "root_dir")
"""Arguments of Lightning's classes that say where they write."""
CANNOT_WORK: Mapping[type[Callback], str] = {
    BatchSizeFinder: "the number of pairs in a step is part of what a run learns from. Set data.batch_size",
    LearningRateFinder: "the rate rises and falls through the whole run, from model.optimiser. Set model.optimiser.lr; "
    "the preflight says where it is far too low",
    StochasticWeightAveraging: "it averages the weights after the last checkpoint was written, so the average would be in no file. "
    "Use EMAWeightAveraging, whose average is what the checkpoints hold",
    GradientAccumulationScheduler: "the learning rate and trainer/pairs_seen need steps of one size through the whole run. "
    "Set trainer.accumulate_grad_batches",
    BackboneFinetuning: "it wants a model.backbone, and the towers are model.image_tower and model.text_side. "
    "Train from another run's weights, with frozen: false in the tower's trunk",
}
THEIRS = re.compile(r"lightning\.pytorch\.(callbacks|loggers|profilers|tuner)(\.|$)")


def place(trainer: Namespace, run: Path) -> None:
    """Make what Lightning's own callbacks, loggers and profilers write start from the run's folder; changes the config.

    An absolute path, or one that leads into the run's folder already, stays. So a config.yaml is good for another run too.
    """
    for part in _parts(trainer):
        arguments = part.get("init_args") or Namespace()
        if part.class_path.endswith(".ModelCheckpoint") and arguments.get("dirpath", "") is None:
            arguments.dirpath = str(run / MODEL_CHECKPOINTS)
        for name in PLACES:
            given = arguments.get(name)
            if isinstance(given, str | os.PathLike) and not _leads_into(Path(given), run):
                arguments[name] = os.path.normpath(run / given)


def plain(value: Any) -> Any:
    """A config's value with plain strings where Lightning has an enum as a default (Timer's interval), which YAML cannot write."""
    if isinstance(value, Namespace):
        return Namespace(**{name: plain(inner) for name, inner in vars(value).items()})
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.value if isinstance(value, str) and isinstance(value, Enum) else value


def refuse_what_cannot_work(callbacks: Sequence[Callback], objective: Objective, accumulate: int) -> None:
    """InputError where a callback cannot do here what it promises, or gradients would be accumulated for another objective.

    accumulate: batches of one optimiser step.
    """
    for callback in callbacks:
        for kind, reason in CANNOT_WORK.items():
            if isinstance(callback, kind):
                raise InputError(f"trainer.callbacks: {type(callback).__name__} cannot work here: {reason}")
    if accumulate > 1 and not isinstance(objective, RowObjective):
        raise InputError(
            f"trainer.accumulate_grad_batches={accumulate}: {type(objective).__name__} compares the pairs of a batch with each other, and "
            f"pairs of {accumulate} batches never meet: it would be another objective than that of one batch {accumulate} times as large. "
            "Raise data.batch_size instead"
        )


def reason_of(error: BaseException) -> str | None:
    """What to say of an error that was raised in one of Lightning's own parts, in one line; None where it was raised elsewhere.

    A missing package, a figure that does not exist, a login that nobody gave: Lightning says it in exceptions of all kinds.
    """
    blamed = None
    for module in _modules(error.__traceback__):
        if module.startswith("multimodal."):
            blamed = None
        elif THEIRS.match(module):
            blamed = module
    if blamed is None or isinstance(error, InputError | OSError):
        return None
    login = " To log without one: --config trainer/wandb.yaml, or WANDB_MODE=offline" if blamed.endswith(".wandb") else ""
    return f"trainer: {blamed}: {' '.join(str(error).split()).rstrip('.')}.{login}"


def _parts(trainer: Namespace) -> Iterator[Namespace]:
    for slot in ("logger", "callbacks", "profiler"):
        given = trainer.get(slot)
        for part in given if isinstance(given, list) else [given]:
            if isinstance(part, Namespace) and str(part.get("class_path", "")).startswith("lightning."):
                yield part


def _leads_into(path: Path, run: Path) -> bool:
    return path.is_absolute() or Path(os.path.abspath(path)).is_relative_to(os.path.abspath(run))


def _modules(trace: TracebackType | None) -> Iterator[str]:
    """The modules of a traceback's frames, the innermost last."""
    while trace is not None:
        yield trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
