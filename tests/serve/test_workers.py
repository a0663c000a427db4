"""The verb with several processes: they share uploads, counters and judgements, and a killed one is replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from multimodal import cli
from tests.serve.stores import NUM, encoded

QUERIES = ("beach", "dog + snow - red", "image:3", "between dog and tree in 3")


@contextmanager
def server(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The verb in a process of its own: its address, and the process."""
    command = [sys.executable, "-m", "multimodal.cli", "serve", "--port", "0", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[0], process
        finally:
            process.send_signal(signal.SIGINT)


def ask(address: str, query: str) -> dict:
    from urllib.parse import quote

    with urlopen(f"{address}api/search?q={quote(query)}", timeout=60) as reply:
        answer = json.load(reply)
    answer.pop("time_ms")
    return answer


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(pid: int) -> list[int]:
    """Those that answer: multiprocessing has a process of its own beside them."""
    return [child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.skipif(sys.platform != "linux", reason="the workers are found in /proc")
def test_workers_answer_alike_count_together_and_are_replaced(photo_store: Path) -> None:
    with server("--store", str(photo_store), "--workers", "2") as (address, process):
        before = {query: ask(address, query) for query in QUERIES}
        assert len(before["beach"]["hits"]) == 48
        both = workers(process.pid)
        assert len(both) == 2
        for pid in both:
            os.kill(pid, signal.SIGKILL)
        assert {query: ask(address, query) for query in QUERIES} == before, "their sockets wait for those that come after them"
        assert process.poll() is None and not set(workers(process.pid)) & set(both)
        told: set[str] = set()
        assert process.stderr is not None
        while len(told) < 2:
            told.add(process.stderr.readline())
        assert all("is started again" in line for line in told)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0 and process.stderr.read() == ""


def worker_of(client: HTTPConnection, workers: list[int]) -> int:
    """The process at the other end of a connection."""
    port, own = client.sock.getpeername()[1], client.sock.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *rest = line.split()
        if (int(local[-4:], 16), int(remote[-4:], 16)) == (port, own):
            socket = f"socket:[{rest[6]}]"
            return next(pid for pid in workers if socket in map(os.readlink, Path(f"/proc/{pid}/fd").iterdir()))
    raise AssertionError("no such connection")


@pytest.mark.slow  # 30 s of processor time: two workers, each with torch and a tower
@pytest.mark.skipif(sys.platform != "linux", reason="the worker of a connection is found in /proc")
def test_a_picture_that_one_worker_was_given_is_a_term_for_the_other(clip_store: Path, clip_export: Path) -> None:
    with server("--store", f"mine={clip_store}", "--export", str(clip_export), "--workers", "2") as (address, process):
        ask(address, "image:3")
        of_worker: dict[int, HTTPConnection] = {}
        while len(of_worker) < 2:  # the system divides connections as it likes
            client = HTTPConnection(urlsplit(address).netloc, timeout=60)
            client.request("GET", "/healthz")
            client.getresponse().read()
            of_worker.setdefault(worker_of(client, workers(process.pid)), client)
        one, other = of_worker.values()
        one.request("POST", "/api/pictures", encoded(4))
        content = json.load(one.getresponse())["content"]
        for client in (other, one):
            client.request("GET", f"/api/search?q=image:{content}")
            best = json.load(client.getresponse())["hits"][0]
            assert best["name"] == "4.jpg" and best["score"] > 0.99
            client.request("GET", f"/thumbnails/{content}")
            assert client.getresponse().read().startswith(b"\xff\xd8")
        one.request("GET", "/metrics")
        assert "multimodal_uploads_total 1\n" in one.getresponse().read().decode()


def test_a_server_that_was_killed_answers_the_same_when_it_is_started_again(photo_store: Path) -> None:
    with server("--store", str(photo_store)) as (address, process):
        before = {query: ask(address, query) for query in QUERIES}
        judged = Request(f"{address}api/search", method="POST", data=b'{"q": "beach"}', headers={"Content-Type": "application/json"})
        with urlopen(judged, timeout=60) as reply:
            assert len(json.load(reply)["hits"]) == 48
        process.kill()
    with server("--store", str(photo_store)) as (address, _):
        assert {query: ask(address, query) for query in QUERIES} == before
        with urlopen(f"{address}healthz", timeout=60) as reply:
            assert json.load(reply)["stores"] == {photo_store.name: NUM}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--workers", "0"], "at least 1"),
        (["--time-limit", "0"], "seconds, above 0"),
        (["--token-file", "nothing"], "No such file"),
        (["--export", "nothing"], "expected an export here"),
        (["--shards", "nothing"], "expected a shard set here"),
    ],
)
def test_a_wrong_option_is_a_message(photo_store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert cli.main(["serve", "--store", str(photo_store), *arguments]) == 2
    assert told in capsys.readouterr().err
