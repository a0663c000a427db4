"""What a training changes in its process, and gives back: warnings, torch's threads, the signal at which it pauses.

with quiet(), threads(1), pausing(signal.SIGUSR1, pause): ...
"""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from multimodal.training.callbacks import Pause

ON_PURPOSE = (
    r"\s*By default only one JsonargparseDeprecationWarning.*",  # from calls that Lightning makes
    r"\s*``\w+`` was deprecated in v4.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 beside torch 2.15
    ".*does not have many workers.*",  # columns need none
    ".*smaller than the logging interval.*",
    ".*in eval mode at the start of training.*",  # frozen trunks
    ".*It is recommended to use `self.log.*sync_dist=True.*",  # figures are already those of all ranks
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Total length of `CombinedLoader` across ranks is zero.*",
)


@contextmanager
def pausing(signum: signal.Signals, pause: Pause) -> Iterator[None]:
    """Pauses at the signal that a cluster sends before it ends a job; Lightning's own handler would write its own files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(*args: Any) -> None:
        pause.signal = signum.name

    before = signal.signal(signum, ask)
    try:
        yield
    finally:
        signal.signal(signum, before)


@contextmanager
def threads(num: int | None) -> Iterator[None]:
    """So many threads inside torch's operations; None: as many as there were."""
    before = torch.get_num_threads()
    torch.set_num_threads(num or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's tips and without warnings about things that are intended; other warnings are still shown."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    asked_for = [logging.getLogger(f"lightning.pytorch.{name}") for name in ("callbacks", "profilers")]
    """ModelSummary and the profilers report through logging."""
    levels = [logger.level for logger in loggers + asked_for]
    interrupt = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    with warnings.catch_warnings():
        for message in ON_PURPOSE:
            warnings.filterwarnings("ignore", message=message)
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            for logger in asked_for:
                logger.setLevel(logging.INFO)
            yield
        finally:
            for logger, level in zip(loggers + asked_for, levels, strict=True):
                logger.setLevel(level)
            if interrupt is not None:  # Lightning leaves Ctrl-C disabled after the first one
                signal.signal(signal.SIGINT, interrupt)
