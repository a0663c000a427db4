"""The cache: a bound that holds, files that are whole, and nothing taken away from who reads it, whoever else is there."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from multimodal.errors import InputError
from multimodal.shards.cache import Cache

SIZE = 1000


def content_of(name: str) -> bytes:
    return (name.encode() * SIZE)[:SIZE]


def writing(name: str, fetched: list[str] | None = None) -> Callable[[IO[bytes]], None]:
    def fetch(file: IO[bytes]) -> None:
        if fetched is not None:
            fetched.append(name)
        file.write(content_of(name))

    return fetch


def read(cache: Cache, name: str, fetched: list[str] | None = None) -> bytes:
    with cache.opened(name, SIZE, writing(name, fetched)) as descriptor:
        return os.pread(descriptor, 2 * SIZE, 0)


def files(cache: Cache) -> set[str]:
    return {file.name for file in cache.folder.iterdir() if not file.name.startswith(".")}


def test_a_file_is_fetched_once_and_read_as_it_was_written(tmp_path: Path) -> None:
    cache, fetched = Cache(tmp_path / "cache", 10 * SIZE), []
    assert [read(cache, name, fetched) for name in ("a", "b", "a")] == [content_of(name) for name in ("a", "b", "a")]
    assert fetched == ["a", "b"]


def test_a_file_that_is_there_is_fetched_again_where_that_is_asked_and_kept_where_it_fails(tmp_path: Path) -> None:
    cache, fetched = Cache(tmp_path, 2 * SIZE), []
    with cache.opened("a", SIZE, writing("a", fetched)) as open_before:
        with cache.opened("a", SIZE, writing("b", fetched), again=True) as descriptor:
            assert os.pread(descriptor, 2 * SIZE, 0) == content_of("b")
        assert os.pread(open_before, 2 * SIZE, 0) == content_of("a"), "who has it open goes on reading it"

    def fail(file: IO[bytes]) -> None:
        raise InputError("the line is down")

    with pytest.raises(InputError, match="the line is down"), cache.opened("a", SIZE, fail, again=True):
        pass
    assert read(cache, "a", fetched) == content_of("b") and fetched == ["a", "b"]
    assert files(cache) == {"a"}


def test_what_was_opened_longest_ago_makes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    for number, name in enumerate("abc"):
        read(cache, name)
        os.utime(tmp_path / name, (number, number))  # the clock of a file system is too coarse to tell apart what is done at once
    for name in "ad":
        read(cache, name)
    assert files(cache) == {"a", "c", "d"}


def test_what_is_open_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    with cache.opened("a", SIZE, writing("a")) as descriptor:
        for name in ("b", "c", "d"):
            read(cache, name)
        assert files(cache) == {"a", "d"}
        assert os.pread(descriptor, SIZE, 0) == content_of("a")


def test_who_finds_everything_open_waits_until_something_is_closed(tmp_path: Path) -> None:
    cache, got = Cache(tmp_path, SIZE), []
    with cache.opened("a", SIZE, writing("a")):
        waiting = threading.Thread(target=lambda: got.append(read(cache, "b")))
        waiting.start()
        waiting.join(0.2)
        assert not got and files(cache) == {"a"}
    waiting.join()
    assert got == [content_of("b")] and files(cache) == {"b"}


def test_a_file_larger_than_the_bound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a file of 1000 bytes does not fit into a cache of 999"):
        read(Cache(tmp_path, SIZE - 1), "a")


def test_a_download_that_fails_leaves_nothing_and_is_reported(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE)

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise InputError("the line is dead")

    with pytest.raises(InputError, match="the line is dead"), cache.opened("a", SIZE, fail):
        pass
    assert not list(tmp_path.glob("*a*.part")) and not files(cache)
    assert read(cache, "a") == content_of("a")


KILLED = """
import sys, time
from pathlib import Path
from multimodal.shards.cache import Cache

def fetch(file):
    file.write(b"half")
    print("begun", flush=True)
    time.sleep(60)

with Cache(Path(sys.argv[1]), 1000).opened("a", 1000, fetch): pass
"""


def test_a_process_that_was_killed_in_a_fetch_holds_neither_the_file_nor_its_room(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGKILL)
    cache = Cache(tmp_path, SIZE)
    assert read(cache, "b") == content_of("b")
    assert read(cache, "a") == content_of("a")
    assert not list(tmp_path.glob(".*.part"))


def _reads(folder: Path, seed: int, told: multiprocessing.Queue) -> None:
    cache, fetched, chance = Cache(folder, 4 * SIZE), [], random.Random(seed)
    largest = 0
    for _ in range(60):
        name = chance.choice("abcdefgh")
        assert read(cache, name, fetched) == content_of(name)
        largest = max(largest, len(files(cache)))
    told.put((len(fetched), largest))


def test_processes_that_share_a_small_cache_read_what_is_right_and_keep_the_bound(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    processes = [context.Process(target=_reads, args=(tmp_path, seed, told)) for seed in range(3)]
    for process in processes:
        process.start()
    results = [told.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes)
    assert max(largest for _, largest in results) <= 4


def test_threads_that_want_the_same_file_fetch_it_once(tmp_path: Path) -> None:
    cache, fetched = Cache(tmp_path, 2 * SIZE), []

    def slowly(file: IO[bytes]) -> None:
        fetched.append(1)
        time.sleep(0.05)
        file.write(content_of("a"))

    def want() -> None:
        with cache.opened("a", SIZE, slowly) as descriptor:
            assert os.pread(descriptor, SIZE, 0) == content_of("a")

    threads = [threading.Thread(target=want) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
