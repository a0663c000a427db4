"""Runs an application until Ctrl-C: one process, or several that share the port.

    run(making, "127.0.0.1", 8000, num_workers=2, hosts=["photos.example"])

Each worker is a process with its own stores, engines and counts of what waits. Shared are only files: uploads and counters, in a folder
that is gone at the end, and judgements, in the stores. On Linux each worker has a listening socket of its own on the same port, among
which the system divides the connections; elsewhere they share one. A worker that dies is started again, and its socket waits for it.
"""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from multimodal.errors import InputError
from multimodal.serve.connections import Impatient
from multimodal.serve.desk import Settings

GOODBYE_S = 10
"""Requests that are being answered may go on for so long after Ctrl-C."""
MIN_LIFE_S, MAX_DEATHS = 10.0, 3
"""A server whose workers die so often within so short a time of their start ends too."""


class Makes(Protocol):
    """What makes the application in each worker. It is pickled."""

    def check(self, opens: bool) -> None: ...
    def __call__(self, hosts: Sequence[str], settings: Settings) -> ASGIApp: ...


def run(make: Makes, host: str, port: int, num_workers: int = 1, hosts: Sequence[str] = ()) -> None:
    """Serve until Ctrl-C. hosts: further names that are accepted. InputError: an option, or what a worker needs, is wrong."""
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: a port is a number from 0 to 65535")
    if num_workers < 1:
        raise InputError(f"--workers {num_workers}: at least 1")
    make.check(opens=num_workers > 1)  # so that what is wrong is said once, and here
    hosts = [host, *hosts]
    if num_workers == 1:
        app = make(hosts, Settings())
        with _listening(host, port, 1) as sockets, suppress(KeyboardInterrupt):  # uvicorn shuts down cleanly, then raises it again
            _answer(app, sockets[0])
        return
    with tempfile.TemporaryDirectory(prefix="multimodal-serve-") as shared:
        given = [Settings(shared=Path(shared), secret=secrets.token_bytes(32), worker=0, num_workers=num_workers)]
        given += [Settings(shared=Path(shared), secret=given[0].secret, worker=n, num_workers=num_workers) for n in range(1, num_workers)]
        with _listening(host, port, num_workers) as sockets:
            _supervise(make, hosts, given, sockets)


def _answer(app: ASGIApp, listening: socket.socket) -> None:
    config = uvicorn.Config(app, log_level="warning", http=Impatient, ws="none", timeout_graceful_shutdown=GOODBYE_S)
    uvicorn.Server(config).run(sockets=[listening])


def _work(make: Makes, hosts: Sequence[str], settings: Settings, listening: socket.socket) -> None:
    """A worker's whole life."""
    with suppress(KeyboardInterrupt):
        _answer(make(hosts, settings), listening)


@contextmanager
def _listening(host: str, port: int, num: int) -> Iterator[list[socket.socket]]:
    """As many sockets as workers, on the same port. OSError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_divided = num > 1 and sys.platform == "linux"  # elsewhere the last of them gets every connection
    sockets = [socket.create_server((host, port), family=family)]
    try:
        if is_divided:  # the first has shown that nobody else has the port
            port = sockets[0].getsockname()[1]
            sockets.pop().close()
            sockets += [socket.create_server((host, port), family=family, reuse_port=True) for _ in range(num)]
        else:
            sockets *= num
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{sockets[0].getsockname()[1]}/  (press Ctrl-C to stop)", file=sys.stderr, flush=True)
        yield sockets
    finally:
        for one in sockets:
            one.close()


def _supervise(make: Makes, hosts: Sequence[str], given: Sequence[Settings], sockets: Sequence[socket.socket]) -> None:
    """Keep a worker for each of the settings, until Ctrl-C or SIGTERM."""
    context = multiprocessing.get_context("spawn")  # engines and towers have threads, which a fork would lose
    begun: dict[int, tuple[BaseProcess, float]] = {}
    num_deaths = 0

    def start(number: int) -> None:
        process = context.Process(target=_work, args=(make, hosts, given[number], sockets[number]), name=f"worker-{number}", daemon=False)
        process.start()
        begun[number] = (process, time.monotonic())

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for number in range(len(given)):
            start(number)
        while True:
            wait([process.sentinel for process, _ in begun.values()])
            for number, (process, since) in list(begun.items()):
                if process.is_alive():
                    continue
                num_deaths = num_deaths + 1 if time.monotonic() - since < MIN_LIFE_S else 0
                if num_deaths > MAX_DEATHS:
                    raise InputError(f"worker {number} ended with {process.exitcode} as soon as it was started, as others before it")
                print(f"worker {number} ended with {process.exitcode}, and is started again", file=sys.stderr, flush=True)
                start(number)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        _end([process for process, _ in begun.values()])


def _end(processes: Sequence[BaseProcess]) -> None:
    """Ask them to end, and end those that do not."""
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join(GOODBYE_S + 5)
        if process.is_alive():
            process.kill()
            process.join()
