"""The road from columns to figures as shell commands: train, export, index, evaluate.

    training = Training("wordvec", "experiment/wordvec_emoji.yaml", folder, shards, space, "wordllama", [Gallery("unseen", shards, "test")])
    for command in commands(training):
        run(command)                                 # printed, then run in this process
    run_side_by_side({Path("log.txt"): commands(training)})   # several lists in parallel, one core each

The commands reuse what is finished, so to continue after a stop, run the same commands again.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from multimodal.doors.dispatch import Verbs, dispatch
from multimodal.errors import InputError
from multimodal.machine.cores import usable_cores
from multimodal.machine.parents import end_with_parent
from multimodal.machine.progress import track

FINAL = "data/fixed_epochs.yaml"
"""Recipes are chosen by validation on a part of train; runs that are evaluated on held-out pairs train on all of it."""
EXIT_BUG = 1
LINES_SHOWN = 5
"""Of the log of a list that failed."""

Command = tuple[str, ...]
"""A program and its arguments."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """A set of pictures to evaluate a trained model on.

    name: its name in tables. shards, part: the shard set, and the split whose texts are the queries.
    store: the folder of its store, inside that of a training. stored: the split whose pictures go into it.
    protocols: a name for the file of figures -> the verb of `multimodal evaluate`, and its options.
    settings: more options of `multimodal index`.
    """

    name: str
    shards: Path
    part: str
    store: str = "store"
    stored: str = "all"
    protocols: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"retrieval": ("retrieval",)})
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Training:
    """One run, and what it is evaluated on.

    recipe: its name in tables; experiment: the recipe's file. folder: where run, export, stores and figures go.
    shards: the training set; target: the column of its target side; space: the text space of that column.
    seed: of the split and of the training. control: texts are shuffled across pictures.
    column: the feature column, None to train from pixels. trunk: the name in tables of the network behind the features.
    thumbnails: keep thumbnails in the stores, for the page. settings: more options of `multimodal fit`.
    """

    recipe: str
    experiment: str
    folder: Path
    shards: Path
    space: Path
    target: str
    galleries: Sequence[Gallery]
    seed: int = 0
    control: bool = False
    column: str | None = "trunk"
    trunk: str = "pretrained"
    thumbnails: bool = False
    settings: tuple[str, ...] = ()


def commands(training: Training) -> list[Command]:
    """Train, export, then index and evaluate in every gallery."""
    folder, seed = training.folder, str(training.seed)
    line: list[Command] = [
        (
            *("multimodal", "fit", "--config", training.experiment, "--config", FINAL, "--run", str(folder / "run")),
            *("--data.shards", str(training.shards), "--data.split.seed", seed, "--seed_everything", seed),
            *_sides(training),
            *training.settings,
        ),
        ("multimodal", "export", "--run", str(folder / "run"), "--space", str(training.space), "--output", str(folder / "export")),
    ]
    for gallery in training.galleries:
        shards, split = ("--shards", str(gallery.shards)), ("--split.seed", seed)
        store = str(folder / gallery.store)
        column = () if training.column is None else ("--column", training.column)
        thumbnails = () if training.thumbnails else ("--thumbnails", "false")
        line.append(
            (
                *("multimodal", "index", "--export", str(folder / "export"), *shards, "--part", gallery.stored, *split),
                *(*column, "--output", store, *thumbnails, *gallery.settings),
            )
        )
        for protocol, (verb, *options) in gallery.protocols.items():
            line.append(
                (
                    *("multimodal", "evaluate", verb, "--store", store, *shards, "--part", gallery.part, *split, *options),
                    *("--gallery", gallery.name, "--recipe", training.recipe, "--trunk", training.trunk),
                    *(("--control",) if training.control else ()),
                    *("--output", str(figures(training, gallery, protocol))),
                )
            )
    return line


def figures(training: Training, gallery: Gallery, protocol: str) -> Path:
    """The file that one protocol's rows are written to."""
    return training.folder / f"{gallery.name}-{protocol}.json"


def run(command: Command) -> None:
    """Print one command and run it in this process; SystemExit with its status if it fails, as it has printed its own error."""
    program, *arguments = command
    _show(command)
    status = _door(program)(arguments)
    if status:
        raise SystemExit(status)


def attempt(command: Command) -> None:
    """As `run`, for a command that the road can do without: print its error and raise it as InputError."""
    program, *arguments = command
    _show(command)
    try:
        dispatch(_verbs(program), program, arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise


def _show(command: Command) -> None:
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)


def run_side_by_side(lists: Mapping[Path, Sequence[Command]], num_processes: int | None = None) -> None:
    """Run lists of commands in parallel, as many lists at a time as there are cores, each on its own core and in order.

    lists: log file -> commands; the log gets their output, and the seconds that each command took, after those of earlier tries. A single
    list, or all lists if there is one core, runs in this process; several run in processes of their own. Heads on columns are so small that
    one core each is faster than threads that wait for each other. If a list fails, or on Ctrl-C, running commands finish and the rest is
    cancelled: InputError with the end of that list's log. If this process is killed, its commands are too.
    """
    cores = usable_cores()
    num_processes = min(num_processes or len(cores), max(1, len(lists)))
    if num_processes == 1:  # another process would only import everything again
        with _on_one_core(cores[0]):
            for log, line in track(lists.items(), "runs", unit="run", total=len(lists)):
                _must_succeed(log, _run_list(log, line))
        return
    context = multiprocessing.get_context("spawn")  # libraries imported here may have threads, which a fork would lack
    free = context.SimpleQueue()
    for number in range(num_processes):
        free.put(cores[number % len(cores)])
    with ProcessPoolExecutor(num_processes, context, initializer=_use_one_core, initargs=(free,)) as pool:
        tasks = {pool.submit(_run_list, log, tuple(line)): log for log, line in lists.items()}
        try:
            for task in track(as_completed(tasks), "runs", unit="run", total=len(tasks)):
                _must_succeed(tasks[task], task.result())
        except BrokenProcessPool:
            raise InputError(f"a process was killed (by the system, out of memory?); see the logs in {_folder_of(lists)}") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # else the waiting lists would still run


def _sides(training: Training) -> Iterator[str]:
    if training.column is not None:
        yield from ("--data.image.init_args.name", training.column)
    if not training.control:
        yield from ("--data.target.init_args.name", training.target)
        return
    yield from ("--data.target.class_path", "multimodal.data.Shuffled", "--data.target.init_args.seed", str(training.seed))
    yield from ("--data.target.init_args.side.class_path", "multimodal.data.ColumnRows")
    yield from ("--data.target.init_args.side.init_args.name", training.target)


def _run_list(log: Path, line: Sequence[Command]) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            for command in line:
                began = time.monotonic(), time.process_time()
                run(command)
                took, of_core = time.monotonic() - began[0], time.process_time() - began[1]
                print(f"# took {took:.0f} s, {of_core:.0f} s of one core", file=file)
        except SystemExit as stopped:
            return int(stopped.code or 0)
        except Exception:  # a bug of ours: the parent shows the end of this file
            traceback.print_exc()
            return EXIT_BUG
    return 0


def _must_succeed(log: Path, status: int) -> None:
    """InputError with the end of a list's log if one of its commands failed."""
    if status:
        end = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-LINES_SHOWN:])
        raise InputError(f"{log}: a command failed with status {status}. The last lines of this log:\n{end.rstrip()}")


@contextmanager
def _on_one_core(core: int) -> Iterator[None]:
    """Pin this thread, and all that it starts, to one core, as `_use_one_core` does; restore the old state at the end."""
    import torch

    cores, num_threads = usable_cores(), torch.get_num_threads()
    _pin(core)
    try:
        yield
    finally:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(num_threads)


def _use_one_core(free: SimpleQueue[int]) -> None:
    end_with_parent()
    _pin(free.get())


def _pin(core: int) -> None:
    """Everything that counts cores (torch, BLAS, our own threads) then finds one. Without pinning, only torch's threads are limited."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import torch

    torch.set_num_threads(1)


def _folder_of(lists: Mapping[Path, Sequence[Command]]) -> Path:
    return next(iter(lists)).parent


def _door(program: str) -> Callable[[list[str]], int]:
    if program == "data-prep":
        from data_prep.__main__ import main

        return main
    from multimodal.cli import main as multimodal_main

    return multimodal_main


def _verbs(program: str) -> Verbs:
    if program == "data-prep":
        from data_prep.__main__ import VERBS

        return VERBS
    from multimodal.cli import VERBS as OURS

    return OURS
