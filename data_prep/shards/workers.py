"""Run one task on many items: in processes of this machine, or on a Ray cluster. A process that dies costs only its time.

    for number, result in LocalWorkers(num_processes=4).run(make_one, items):
        if isinstance(result, Failed): ...    # result.reason

The task and its items are sent to other processes, so the task must be a function of a module, or a `functools.partial` of one. In your own
script, call it below `if __name__ == "__main__":`, because the processes import that script.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from multimodal.errors import InputError, missing_extra
from multimodal.machine.cores import usable_cores
from multimodal.machine.parents import end_with_parent

T = TypeVar("T")
R = TypeVar("R")

MAX_DEATHS = 2  # one may be bad luck (the kernel short of memory, an operator); after a second the item is the likely cause
MAX_STARTS_LOST = 10  # processes killed while starting, before we give up
RAY_RETRIES = 3  # a node that fails loses its tasks through no fault of theirs
ANSWER_S = 20.0  # a running cluster answers within this time
RAY_AHEAD = 4  # tasks handed to the cluster for each of its cores


@dataclass(frozen=True, slots=True)
class Failed:
    """An item that was given up, because its process died more than once. The reason is for a ledger."""

    reason: str


Results = Generator[tuple[int, R | Failed], None, None]
"""(position of the item, its result), in order of completion. Closing it stops the tasks that still run."""


class Workers(Protocol):
    """Where a job's tasks run."""

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Results[R]:
        """The results, one for each item.

        An exception in a task is raised here, and all other tasks are stopped. A task may run more than once, or only partly, so its output
        must be written atomically, and be the same every time.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalWorkers:
    """Freshly started processes on this machine. One that dies is replaced, and its item is tried once more.

    num_processes: None is one per core that this process may use.
    """

    num_processes: int | None = None

    def __post_init__(self) -> None:
        if self.num_processes is not None and self.num_processes < 1:
            raise InputError(f"num_processes is {self.num_processes}; it must be at least 1")

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Results[R]:
        """See `Workers.run`."""
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
                    if answer is None:  # it died: because of its item, or before it had one
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
                    if waiting:  # before yielding the result, whose consumer may take a while
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
class RayWorkers:
    """A Ray cluster: the one at an address, or one started on this machine for the job. A lost task is run again elsewhere.

    address: "auto", "host:6379" or "ray://host:10001"; None starts one here. Every node needs this package, and must see the source (and
    the output, unless that is a URL) under the same paths. Ray runs its processes at a niceness of 15: on a busy machine, start it with
    RAY_worker_niceness=0.
    """

    address: str | None = None

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Results[R]:
        """See `Workers.run`."""
        try:
            import ray
            from ray.exceptions import RayError, RayTaskError
        except ModuleNotFoundError:
            raise missing_extra("ray", "--engine ray needs the package ray") from None
        is_ours = not ray.is_initialized()
        if is_ours:
            self._connect(ray)
        waiting = deque(range(len(items)))
        pending: dict[Any, int] = {}
        remote: Any = ray.remote(_in_folder).options(num_cpus=1, max_retries=RAY_RETRIES)
        try:
            while waiting or pending:
                ahead = RAY_AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)  # each time, as nodes come and go
                while waiting and len(pending) < ahead:
                    number = waiting.popleft()
                    pending[remote.remote(os.getcwd(), task, items[number])] = number
                for ref in ray.wait(list(pending), num_returns=1)[0]:
                    number = pending.pop(ref)
                    try:
                        result: Any = ray.get(ref)
                    except RayTaskError as error:
                        raise error.cause from error
                    except RayError as error:  # of the process, its node or its memory, after Ray's own retries
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
            if port.isdecimal():  # checked first: Ray itself keeps trying for many minutes
                socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
            ray.init(self.address, logging_level="ERROR")
        except (OSError, ValueError) as error:
            remedy = "Start one (ray start --head), or leave out --ray-address"
            raise InputError(f"no Ray cluster answers at {self.address}: {error}. {remedy}") from None


def workers_of(engine: Literal["local", "ray"] = "local", num_processes: int | None = None, ray_address: str | None = None) -> Workers:
    """The workers that a command line names.

    engine: where shards are made: local, in processes on this machine; or ray, as tasks on a Ray cluster.
    num_processes: processes of --engine local; by default one per usable core.
    ray_address: address of a running Ray cluster ("auto", "host:6379"); by default one is started on this machine.
    """
    if engine == "ray":
        if num_processes is not None:
            raise InputError("--num-processes needs --engine local; a Ray cluster runs one task per core. Leave it out")
        return RayWorkers(ray_address)
    if ray_address is not None:
        raise InputError("--ray-address needs --engine ray; add that, or leave the address out")
    return LocalWorkers(num_processes)


def peak_rss_bytes() -> int:
    """The peak memory of this process. Read from Linux's /proc, because getrusage also counts the process that started this one."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# -- what runs in a worker -----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Worker:
    """A process, our end of the pipe to it, and the number of its current item; None while it starts."""

    process: BaseProcess
    connection: Connection
    number: int | None = None

    def give(self, number: int, items: Sequence[Any]) -> None:
        """Send it an item. If it has died, that is noticed when its result is read."""
        self.number = number
        with suppress(BrokenPipeError):
            self.connection.send(items[number])

    def receive(self) -> _Ready | _Done | _Raised | None:
        """Its next message; None if it died."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None

    def end(self) -> str:
        """Close the pipe, which ends an idle process, and wait for it; returns in words how it ended."""
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
    theirs.close()  # else the pipe would stay open when the process ends
    workers[ours] = _Worker(process, ours)


def _check_start(exitcode: int | None, starts_lost: int) -> None:
    if (exitcode or 0) >= 0:
        raise InputError(
            f"a worker process ended with status {exitcode} before it could start; its error is above. "
            'In your own script, start the job below: if __name__ == "__main__":'
        )
    if starts_lost > MAX_STARTS_LOST:
        raise InputError(f"{starts_lost} worker processes were killed while starting, perhaps out of memory. Try fewer: --num-processes")


def _serve(connection: Connection, task: Callable[[Any], Any]) -> None:
    """The worker: answers each item with a result, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us
    end_with_parent()
    connection.send(_Ready())
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer: _Done | _Raised = _Done(task(item))
        except Exception as error:  # sent to the parent, which stops the job with it
            answer = _Raised(_portable(error))
        connection.send(answer)


def _portable(error: Exception) -> Exception:
    """The error in a form that can be pickled, with its traceback as a note. A class that takes more than a message may not unpickle."""
    try:
        pickle.loads(pickle.dumps(error))
        travels = error
    except Exception:  # unpickling runs the code of the error's class, which may raise anything
        travels = InputError(str(error)) if isinstance(error, InputError) else RuntimeError(f"{type(error).__name__}: {error}")
    travels.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    return travels


def _in_folder(folder: str, task: Callable[[T], R], item: T) -> R:
    """Run a task in the job's folder, so that relative paths mean the same on every node."""
    try:
        os.chdir(folder)
    except FileNotFoundError:
        raise InputError(
            f"{socket.gethostname()} has no folder {folder}, where the job was started. Start it in a folder that all nodes have"
        ) from None
    return task(item)
