"""Lightning's own callbacks, loggers and profilers in a run: where they write, which cannot work, and their errors.

place(config.trainer, run)                                      # they write into the run's folder
refuse_what_cannot_work(callbacks, objective, 2, "ddp")     # InputError with the reason
reason_of(error)                                                # one line, if such a part raised it
raised_by_an_optimiser(error, trainer.optimizers)               # whether a step of an optimiser or a schedule failed
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch import distributed
from torch.optim import Optimizer

from multimodal.errors import InputError
from multimodal.objectives import Objective
from multimodal.objectives.base import RowObjective
from multimodal.pairs import Batch

MODEL_CHECKPOINTS = Path("checkpoints", "lightning")
"""Where ModelCheckpoint writes by default: not beside our `last.ckpt`, since it can write a file of that name too."""
PLACES = ("save_dir", "dirpath", "dir", "root_dir")
"""Arguments of Lightning's classes that say where they write."""
CANNOT_WORK: Mapping[type[Callback], str] = {
    BatchSizeFinder: "the batch size is part of a run's recipe: a contrastive objective has its pairs as negatives. "
    "Set data.batch_size, and if memory is too small for it, model.micro_batch_size",
    LearningRateFinder: "model.optimiser has its own schedule over the whole run. Set model.optimiser.lr; "
    "the preflight reports a rate that is far too low",
    StochasticWeightAveraging: "it averages the weights after the last checkpoint is written, so no file would hold the average. "
    "Use EMAWeightAveraging, whose average the checkpoints hold",
    GradientAccumulationScheduler: "the learning rate and trainer/pairs_seen need steps of one size through the whole run. "
    "Set trainer.accumulate_grad_batches",
    BackboneFinetuning: "it needs a model.backbone, but the towers are model.image_tower and model.target_side. "
    "Use multimodal.training.Unlock, which locks any part of them for the first steps",
}
LOST = re.compile(r"Connection (closed|reset) by peer|remote process exited|Broken pipe")
"""In the error of a rank whose collective lost another one."""
SHARDING = ("fsdp", "deepspeed")
"""Lightning's names of strategies that cut a model's weights into parts for each GPU begin so."""
THEIRS = re.compile(r"lightning\.pytorch\.(callbacks|loggers|profilers|tuner)(\.|$)")


def num_pairs(batch: Batch) -> int:
    """The pairs of one rank in one step: the `batch_size_fn` of Lightning's ThroughputMonitor, which cannot know it."""
    return len(batch.id)


def place(trainer: Namespace, run: Path) -> None:
    """Make what Lightning's own callbacks, loggers and profilers write start from the run's folder; changes the config.

    An absolute path, or one that is in the run's folder already, is kept. So a config.yaml works for another run too.
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
    """A config's value with plain strings for Lightning's enum defaults (Timer's interval), which YAML cannot write."""
    if isinstance(value, Namespace):
        return Namespace(**{name: plain(inner) for name, inner in vars(value).items()})
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.value if isinstance(value, str) and isinstance(value, Enum) else value


def refuse_what_cannot_work(
    callbacks: Sequence[Callback], objective: Objective, accumulate: int, strategy: str | Strategy = "auto"
) -> None:
    """InputError if a callback or a strategy cannot work here, or accumulating gradients would change the objective.

    accumulate: batches of one optimiser step. strategy: the trainer's.
    """
    for callback in callbacks:
        if isinstance(callback, Timer) and callback.time_remaining() is not None:
            raise InputError(
                "trainer.callbacks: Timer's duration ends a run for good, wherever it is. Set trainer.max_time, which pauses it: "
                "the same command resumes it"
            )
        for kind, reason in CANNOT_WORK.items():
            if isinstance(callback, kind):
                raise InputError(f"trainer.callbacks: {type(callback).__name__} cannot work here: {reason}")
    is_named = isinstance(strategy, str) and strategy.startswith(SHARDING)
    if is_named or isinstance(strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
        raise InputError(
            f"trainer.strategy={strategy if is_named else type(strategy).__name__}: cannot work here: it gives each rank a part of the "
            "weights, but the preflight, checkpoints and averages need whole ones, and the scale of Clip and SigLip is a single number, "
            "which PyTorch does not divide. Use ddp, and if memory is too small, model.micro_batch_size"
        )
    if accumulate > 1 and not isinstance(objective, RowObjective):
        raise InputError(
            f"trainer.accumulate_grad_batches={accumulate}: {type(objective).__name__} compares the pairs of a batch with each other, but "
            f"not those of {accumulate} batches: the objective would differ from that of one batch {accumulate} times as large. "
            "Raise data.batch_size instead, and if memory is too small for it, set model.micro_batch_size, the pairs to encode at a time"
        )


def reason_of(error: BaseException) -> str | None:
    """The message for an error raised in one of Lightning's own parts, in one line; None if it was raised elsewhere.

    A missing package, a figure that does not exist, a missing login: Lightning raises exceptions of all kinds. Also for the error of a rank
    that waited for one which has ended.
    """
    if isinstance(error, RuntimeError) and distributed.is_initialized() and LOST.search(str(error)):
        return (
            f"rank {distributed.get_rank()}: another rank has ended; if it could say why, it has. The same command resumes the run from "
            "its last checkpoint"
        )
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


def raised_by_an_optimiser(error: BaseException, optimisers: Sequence[Optimizer]) -> bool:
    """Whether the update of the weights failed, and not the forward or backward pass that an optimiser calls inside its step.

    A rate that float32 cannot hold, gradients that the optimiser does not support, a schedule that is shorter than the run. optimisers: the
    trainer's, which may be those of a package.
    """
    if not isinstance(error, RuntimeError | ArithmeticError | ValueError) or isinstance(error, InputError | torch.OutOfMemoryError):
        return False
    theirs = {type(one).__module__ for one in optimisers}
    is_theirs = False
    for module in _modules(error.__traceback__):
        if module.startswith(("multimodal.", "lightning.")):
            is_theirs = False
        elif module in theirs or module.startswith("torch.optim."):
            is_theirs = True
    return is_theirs


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
