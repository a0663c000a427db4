"""The road from columns to figures, as the commands that a person would type: train, export, index, evaluate.

    training = Training("wordvec", "experiment/wordvec_emoji.yaml", folder, shards, space, "wordllama", [Gallery("unseen", shards, "test")])
    for command in commands(training):
        run(command)                                 # printed, then run in this process
    run_side_by_side({Path("log.txt"): commands(training)})   # several lists at a time, a core each

What is whole is reused by the commands themselves, so a road that was stopped goes on when it is walked again.
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

from multimodal.cores import usable_cores
from multimodal.door import Verbs, dispatch
from multimodal.errors import InputError
from multimodal.progress import track

FINAL = "data/fixed_epochs.yaml"
"""Recipes are chosen by validation on a part of train; what is judged on held-out pairs trains on all of it."""
EXIT_BUG = 1
LINES_TOLD = 5
"""Of the output of a list that failed."""

Command = tuple[str, ...]
"""A program and its arguments."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures in which a trained model is searched.

    name: what tables call it. shards, part: the shard set, and the part of it whose texts are the queries.
    store: the folder of its store, in that of a training. stored: the part whose pictures go into it.
    protocols: what is asked of it: a name for the file of figures -> the verb of `multimodal evaluate`, and its options.
    """

    name: str
    shards: Path
    part: str
    store: str = "store"
    stored: str = "all"
    protocols: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"retrieval": ("retrieval",)})


@dataclass(frozen=True, slots=True)
class Training:
    """One run, and what it is judged by.

    recipe: what tables call it; experiment: the recipe's file. folder: where run, export, stores and figures go.
    shards: what it learns from; text: the column that its text side reads; space: the text space which that is made with.
    seed: of the split, and of all chance in training. control: texts are shuffled between pictures.
    column, trunk: the feature column, None where pixels are trained on; and what tables call the network that makes the features.
    thumbnails: keep pictures in the stores, for people to look at. settings: more options of `multimodal fit`.
    """

    recipe: str
    experiment: str
    folder: Path
    shards: Path
    space: Path
    text: str
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
                *(*column, "--output", store, *thumbnails),
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
    """Where one protocol's rows are written."""
    return training.folder / f"{gallery.name}-{protocol}.json"


def run(command: Command) -> None:
    """Print one command and run it in this process; SystemExit, with its status, where it fails: it has said what is wrong."""
    program, *arguments = command
    _show(command)
    status = _door(program)(arguments)
    if status:
        raise SystemExit(status)


def attempt(command: Command) -> None:
    """As `run`, of a command that the road can do without: where its input is wrong, print what it says and raise that InputError."""
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
    """Run lists of commands, each in its order, as many at a time as there are cores, each on a core of its own.

    lists: a file -> commands, whose output goes into it, with the seconds that each command took. One list, or all where there is one
    core, is run in this process; several are run in processes of their own. Heads over columns are so small that a
    core each is worth more than threads that wait for each other. The first list that fails, or Ctrl-C, ends it after the commands that
    run: InputError with the end of its file.
    """
    cores = usable_cores()
    num_processes = min(num_processes or len(cores), max(1, len(lists)))
    if num_processes == 1:  # a process for it would only import everything again
        with _on_one_core(cores[0]):
            for log, line in track(lists.items(), "runs", unit="run", total=len(lists)):
                _must_succeed(log, _run_list(log, line))
        return
    context = multiprocessing.get_context("spawn")  # what was imported here may hold threads, which a fork would not have
    free = context.SimpleQueue()
    for number in range(num_processes):
        free.put(cores[number % len(cores)])
    with ProcessPoolExecutor(num_processes, context, initializer=_use_one_core, initargs=(free,)) as pool:
        tasks = {pool.submit(_run_list, log, tuple(line)): log for log, line in lists.items()}
        try:
            for task in track(as_completed(tasks), "runs", unit="run", total=len(tasks)):
                _must_succeed(tasks[task], task.result())
        except BrokenProcessPool:
            raise InputError(f"a process was killed (by the system, for want of memory?); what it did is in {_folder_of(lists)}") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # without it all that wait would still be run


def _sides(training: Training) -> Iterator[str]:
    if training.column is not None:
        yield from ("--data.image.init_args.name", training.column)
    if not training.control:
        yield from ("--data.text.init_args.name", training.text)
        return
    yield from ("--data.text.class_path", "multimodal.data.Shuffled", "--data.text.init_args.seed", str(training.seed))
    yield from ("--data.text.init_args.side.class_path", "multimodal.data.ColumnRows")
    yield from ("--data.text.init_args.side.init_args.name", training.text)


def _run_list(log: Path, line: Sequence[Command]) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            for command in line:
                began = time.monotonic(), time.process_time()
                run(command)
                took, of_core = time.monotonic() - began[0], time.process_time() - began[1]
                print(f"# took {took:.0f} s, {of_core:.0f} s of one core", file=file)
        except SystemExit as stopped:
            return int(stopped.code or 0)
        except Exception:  # a bug of ours: the parent tells the end of this file
            traceback.print_exc()
            return EXIT_BUG
    return 0


def _must_succeed(log: Path, status: int) -> None:
    """InputError with the end of a list's file where one of its commands failed."""
    if status:
        end = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-LINES_TOLD:])
        raise InputError(f"{log}: a command failed with status {status}. The end of it:\n{end.rstrip()}")


@contextmanager
def _on_one_core(core: int) -> Iterator[None]:
    """This thread, and all that it starts, as a worker is after `_use_one_core`; afterwards as it was."""
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
    _pin(free.get())


def _pin(core: int) -> None:
    """Everything that counts cores (torch, BLAS, our own threads) then finds one. Threads alone where there is no pinning."""
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
