"""Run one task over many items: in processes of this machine, or on a Ray cluster. A process that dies costs nothing but its time.

    for number, result in LocalEngine(num_processes=4).run(make_one, items):
        if isinstance(result, Failed): ...    # result.reason

The task and its items travel to other processes, so the task is a function of a module, or a `functools.partial` of one. In a script of
your own, call it below `if __name__ == "__main__":`, since the processes import that script.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import socket
import sys
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from multimodal.cores import usable_cores
from multimodal.errors import InputError, missing_extra

T = TypeVar("T")
R = TypeVar("R")

MAX_DEATHS = 2  # one may be bad luck (the kernel short of memory, an operator); of a second the item is the likely cause
MAX_STARTS_LOST = 10  # processes killed while they were still starting, before we ask what kills them
RAY_RETRIES = 3  # a node that goes takes its tasks with it, whatever they are
ANSWER_S = 20.0  # in which a cluster that is there has answered
RAY_AHEAD = 4  # tasks handed to the cluster for each of its cores


@dataclass(frozen=True, slots=True)
class Failed:
    """An item that was given up: whatever ran it died, more than once. The reason is for a ledger."""

    reason: str


Results = Generator[tuple[int, R | Failed], None, None]
"""(position of the item, its result), in the order in which they end. Closing it stops what still runs."""


class Engine(Protocol):
    """Where a job's tasks run."""

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Results[R]:
        """The results, each item's once.

        What a task raises is raised here, and the others are stopped: it is no matter of one item. A task may have run more than once, or
        in part, so what it writes has to be whole or absent, and the same every time.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Processes of this machine, each started afresh. One that dies is replaced and its item tried once more.

    num_processes: None for one for each core that this process may use.
    """

    num_processes: int | None = None

    def __post_init__(self) -> None:
        if self.num_processes is not None and self.num_processes < 1:
            raise InputError(f"num_processes is {self.num_processes}; at least 1 is needed")

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Results[R]:
        """See `Engine.run`."""
        waiting, deaths, starts_lost = deque(range(len(items))), Counter[int](), 0
        workers: dict[Any, _Worker] = {}
        try:
            for _ in range(min(self.num_processes or len(usable_cores()), len(items))):
                _start(workers, task)
            while workers:
                for connection in wait(list(workers)):
                    worker = workers[connection]
                    number, answer = worker.number, worker.receive()
                    if isinstance(answer, _Raised):
                        raise answer.error
                    if answer is None:  # it died: of its item, or before it had one
                        del workers[connection]
                        ended = worker.end()
                        if number is None:
                            starts_lost += 1
                            _check_start(worker.process.exitcode, starts_lost)
                        else:
                            deaths[number] += 1
                            if deaths[number] < MAX_DEATHS:
                                waiting.appendleft(number)
                            else:
                                yield number, Failed(f"the process that worked on it {ended}, {deaths[number]} times")
                        if waiting:
                            _start(workers, task)
                        continue
                    if waiting:  # before the result is handed on: whoever takes it may take a while
                        worker.give(waiting.popleft(), items)
                    else:
                        del workers[connection]
                        worker.end()
                    if isinstance(answer, _Done):
                        assert number is not None, "only a worker with an item has a result"
                        yield number, answer.result
        finally:
            for worker in workers.values():
                worker.process.kill()
                worker.end()


@dataclass(frozen=True, slots=True)
class RayEngine:
    """A Ray cluster: the one at an address, or one that is started on this machine for the job. A lost task is run again elsewhere.

    address: "auto", "host:6379" or "ray://host:10001"; None starts one here. Every node needs this package, and sees the source, and
    the output unless that is a URL, under the same names. Ray runs its processes at a niceness of 15: on a machine that is busy otherwise
    start it with RAY_worker_niceness=0.
    """

    address: str | None = None

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Results[R]:
        """See `Engine.run`."""
        try:
            import ray
            from ray.exceptions import RayError, RayTaskError
        except ModuleNotFoundError:
            raise missing_extra("ray", "the engine ray needs the package ray") from None
        is_ours = not ray.is_initialized()
        if is_ours:
            self._connect(ray)
        waiting = deque(range(len(items)))
        pending: dict[Any, int] = {}
        remote: Any = ray.remote(_in_folder).options(num_cpus=1, max_retries=RAY_RETRIES)
        try:
            while waiting or pending:
                ahead = RAY_AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)  # asked again: nodes come and go
                while waiting and len(pending) < ahead:
                    number = waiting.popleft()
                    pending[remote.remote(os.getcwd(), task, items[number])] = number
                for ref in ray.wait(list(pending), num_returns=1)[0]:
                    number = pending.pop(ref)
                    try:
                        result: Any = ray.get(ref)
                    except RayTaskError as error:
                        raise error.cause from error
                    except RayError as error:  # of the process, its node or its memory; Ray has tried again by itself
                        result = Failed(f"it was lost {RAY_RETRIES + 1} times: {str(error).strip().splitlines()[0]}")
                    yield number, result
        finally:
            for ref in pending:
                ray.cancel(ref, force=True)
            if is_ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        if self.address is None:
            ray.init("local", include_dashboard=False, num_cpus=len(usable_cores()), logging_level="ERROR")
            return
        try:
            host, _, port = self.address.removeprefix("ray://").rpartition(":")
            if port.isdecimal():  # asked first: Ray itself goes on asking for many minutes
                socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
            ray.init(self.address, logging_level="ERROR")
        except (OSError, ValueError) as error:
            remedy = "Start one (ray start --head), or leave the address out"
            raise InputError(f"no Ray cluster answers at {self.address}: {error}. {remedy}") from None


def engine_of(engine: Literal["local", "ray"] = "local", num_processes: int | None = None, ray_address: str | None = None) -> Engine:
    """The engine that a command line names.

    engine: where shards are made: local, in processes of this machine, or ray, as tasks of a Ray cluster.
    num_processes: of the local engine; by default one for each core that may be used.
    ray_address: of a Ray cluster that is there ("auto", "host:6379"); by default one is started on this machine.
    """
    if engine == "ray":
        if num_processes is not None:
            raise InputError("--num-processes is of --engine local; a Ray cluster runs a task for each of its cores")
        return RayEngine(ray_address)
    if ray_address is not None:
        raise InputError("--ray-address is of --engine ray; add that, or leave the address out")
    return LocalEngine(num_processes)


def peak_rss_bytes() -> int:
    """The most memory that this process had at a time. Asked of Linux itself: getrusage also counts the process that started this one."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# -- what runs in a worker -----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Worker:
    """A process, our end of the pipe to it, and the item that it works on; None while it starts."""

    process: BaseProcess
    connection: Connection
    number: int | None = None

    def give(self, number: int, items: Sequence[Any]) -> None:
        """Send it an item. One that died meanwhile has it all the same, and is found dead when it is asked for the result."""
        self.number = number
        with suppress(BrokenPipeError):
            self.connection.send(items[number])

    def receive(self) -> _Ready | _Done | _Raised | None:
        """What it says; None where it died."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None

    def end(self) -> str:
        """Close the pipe, on which an idle process ends, and wait for it; how it ended, in words."""
        self.connection.close()
        self.process.join()
        code = self.process.exitcode or 0
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


@dataclass(frozen=True, slots=True)
class _Ready:
    """A process has started."""


@dataclass(frozen=True, slots=True)
class _Done:
    result: Any


@dataclass(frozen=True, slots=True)
class _Raised:
    error: Exception


def _start(workers: dict[Any, _Worker], task: Callable[[Any], Any]) -> None:
    context = multiprocessing.get_context("spawn")  # not fork: libraries that hold threads and locks do not survive one
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, task), daemon=True)
    process.start()
    theirs.close()  # else the pipe would not end with the process
    workers[ours] = _Worker(process, ours)


def _check_start(exitcode: int | None, starts_lost: int) -> None:
    if (exitcode or 0) >= 0:
        raise InputError(
            f"a worker process ended with status {exitcode} before it could start; what it says is above. "
            'In a script of your own, start the job below: if __name__ == "__main__":'
        )
    if starts_lost > MAX_STARTS_LOST:
        raise InputError(f"{starts_lost} worker processes were killed while they started. Is there too little memory? See --num-processes")


def _serve(connection: Connection, task: Callable[[Any], Any]) -> None:
    """The worker: answers each item with a result, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection.send(_Ready())
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer: _Done | _Raised = _Done(task(item))
        except Exception as error:  # told to the parent, which stops the job with it
            answer = _Raised(_portable(error))
        connection.send(answer)


def _portable(error: Exception) -> Exception:
    """The error as it can travel, with its traceback as a note. A class that takes more than a message does not survive being pickled."""
    try:
        pickle.loads(pickle.dumps(error))
        travels = error
    except Exception:  # whatever its class does wrong
        travels = InputError(str(error)) if isinstance(error, InputError) else RuntimeError(f"{type(error).__name__}: {error}")
    travels.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    return travels


def _end_with_parent() -> None:
    """A job that was killed must not leave workers that write into a folder where the next one goes on."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


def _in_folder(folder: str, task: Callable[[T], R], item: T) -> R:
    """Relative paths mean on a node of a cluster what they mean to the job."""
    try:
        os.chdir(folder)
    except FileNotFoundError:
        raise InputError(
            f"{socket.gethostname()} has no folder {folder}, where the job was started. Start it in one that all nodes have"
        ) from None
    return task(item)
