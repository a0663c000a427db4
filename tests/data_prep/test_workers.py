from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import made_source
import pytest
import worker_tasks

from data_prep.shards.job import make_shards
from data_prep.shards.workers import Failed, LocalWorkers, RayWorkers, Workers, peak_rss_bytes, workers_of
from multimodal.errors import InputError, install_command

HERE = Path(__file__).parent
NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra ray brings it")


@pytest.fixture(autouse=True)
def _tasks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By processes that do not take over this one's sys.path, such as those of Ray."""
    monkeypatch.setenv("PYTHONPATH", python_path())


def python_path() -> str:
    return os.pathsep.join([str(HERE), *filter(None, sys.path)])


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return False


def wait_for(happens: Callable[[], bool], what: str, timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < end, f"{what} did not happen in {timeout_s} s"
        time.sleep(0.02)


def pids_in(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


@pytest.mark.parametrize(("num_processes", "num_items"), [(1, 4), (3, 7), (3, 1), (2, 0)])
def test_each_item_has_its_result_once(num_processes: int, num_items: int) -> None:
    items = list(range(10, 10 + num_items))
    results = list(LocalWorkers(num_processes).run(worker_tasks.square, items))
    assert sorted(results) == [(position, item**2) for position, item in enumerate(items)]


def test_a_worker_that_dies_is_replaced_and_its_item_done(tmp_path: Path) -> None:
    results = LocalWorkers(2).run(partial(worker_tasks.die_once_at_three, tmp_path), range(6))
    assert sorted(results) == [(n, n * n) for n in range(6)]  # type: ignore[type-var]
    assert (tmp_path / "died").exists()


def test_an_item_that_kills_two_workers_is_given_up_and_the_others_are_done() -> None:
    results = dict(LocalWorkers(2).run(worker_tasks.die_at_three, range(6)))
    assert results.pop(3) == Failed("the process that worked on it was ended by SIGKILL, 2 times")
    assert results == {n: n * n for n in (0, 1, 2, 4, 5)}


def test_what_a_task_raises_is_raised_here_as_it_was() -> None:
    with pytest.raises(InputError, match="three is refused"):
        list(LocalWorkers(2).run(worker_tasks.refuse_three, range(6)))
    with pytest.raises(FileNotFoundError) as error:
        list(LocalWorkers(1).run(worker_tasks.read_nothing, [5]))
    assert error.value.filename == "nowhere/5" and "in a worker process" in error.value.__notes__[0]


def test_an_error_that_cannot_travel_keeps_its_message_and_its_kind() -> None:
    with pytest.raises(InputError, match="^5 is odd") as error:
        list(LocalWorkers(1).run(worker_tasks.raise_odd, [5]))
    assert type(error.value) is InputError and str(error.value) == "5 is odd"
    assert "worker_tasks.Odd: 5 is odd" in error.value.__notes__[0]


def test_a_job_that_is_closed_early_leaves_no_process(tmp_path: Path) -> None:
    def task_runs() -> bool:
        return len(pids_in(tmp_path)) == 1

    script = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
from functools import partial; from pathlib import Path
import worker_tasks; from data_prep.shards.workers import LocalWorkers
if __name__ == "__main__":
    list(LocalWorkers(1).run(partial(worker_tasks.say_and_sleep, Path({str(tmp_path)!r})), [0]))
"""
    (tmp_path / "job.py").write_text(script)
    for ending in (signal.SIGINT, signal.SIGKILL):
        job = subprocess.Popen([sys.executable, tmp_path / "job.py"], stderr=subprocess.DEVNULL)
        wait_for(task_runs, "the task")
        [pid] = pids_in(tmp_path)
        job.send_signal(ending)
        job.wait(timeout=300)
        wait_for(lambda pid=pid: not is_running(pid), f"the end of the worker after {ending.name}")  # type: ignore[misc]
        (tmp_path / f"{pid}.pid").unlink()


def test_closing_the_results_stops_the_tasks_that_run() -> None:
    with closing(LocalWorkers(2).run(worker_tasks.square, range(100))) as results:
        next(results)
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
    assert not any(map(is_running, workers))


def test_a_script_that_cannot_be_imported_is_refused_with_the_remedy(tmp_path: Path) -> None:
    script = "from data_prep.shards.workers import LocalWorkers\nprint(list(LocalWorkers(1).run(abs, [-1])))\n"
    (tmp_path / "job.py").write_text(script)
    done = subprocess.run([sys.executable, tmp_path / "job.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "InputError: a worker process ended with status 1 before it could start" in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr


def test_the_peak_of_memory_is_that_of_this_process() -> None:
    before = peak_rss_bytes()
    block = b"x" * (before + 50_000_000)
    assert peak_rss_bytes() > len(block) > before > 5_000_000


def test_a_command_line_names_workers_and_settings_of_the_other_kind_are_refused() -> None:
    assert workers_of() == LocalWorkers() and workers_of("local", 3) == LocalWorkers(3)
    assert workers_of("ray", ray_address="auto") == RayWorkers("auto")
    with pytest.raises(InputError, match="--num-processes needs --engine local"):
        workers_of("ray", num_processes=2)
    with pytest.raises(InputError, match="--ray-address needs --engine ray"):
        workers_of(ray_address="auto")
    with pytest.raises(InputError, match="num_processes is 0; it must be at least 1"):
        workers_of(num_processes=0)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_error_says_what_to_install() -> None:
    with pytest.raises(InputError, match=re.escape(install_command("ray"))):
        list(RayWorkers().run(worker_tasks.square, [1]))


# -- Ray -----------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, a core each. Slow to start, so the tests share it; the last one takes `second` away."""
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path())
        patch.setenv("RAY_worker_niceness", "0")  # by default 15: on a busy machine its processes would hardly start
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
        cluster.second = cluster.add_node(num_cpus=1, **memory)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@NEEDS_RAY
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nowhere"])
def test_a_ray_cluster_that_does_not_answer_is_an_error_that_says_so(address: str) -> None:
    with pytest.raises(InputError, match=f"no Ray cluster answers at {address}: .* Start one"):
        list(RayWorkers(address).run(worker_tasks.square, [1]))


@NEEDS_RAY
def test_ray_gives_the_results_and_errors_of_local_workers(cluster: Any) -> None:
    import ray

    ray.init(cluster.address, logging_level="ERROR")  # the workers use the existing connection, and keep it open
    workers: Workers = RayWorkers()
    assert sorted(workers.run(worker_tasks.square, range(5))) == [(n, n * n) for n in range(5)]  # type: ignore[type-var]
    with pytest.raises(InputError, match="three is refused"):
        list(workers.run(worker_tasks.refuse_three, range(6)))
    results = dict(workers.run(worker_tasks.die_at_three, [3, 4]))
    assert results[1] == 16
    assert isinstance(results[0], Failed) and results[0].reason.startswith("it was lost 4 times: ")
    ray.shutdown()


@NEEDS_RAY
@pytest.mark.slow
def test_a_ray_cluster_that_loses_a_node_makes_the_same_bytes(tmp_path: Path, cluster: Any) -> None:
    make_shards(made_source.made, {"num": 60, "delay_s": 0.1}, tmp_path / "local", pairs_per_shard=5, max_bad_share=0.5)
    command = "make-shards made_source:made --num 60 --delay-s 0.1 --pairs-per-shard 5 --max-bad-share 0.5 --engine ray --ray-address"
    with open(tmp_path / "log", "w") as log:
        job = subprocess.Popen(
            [sys.executable, "-m", "data_prep", *command.split(), cluster.address, "--output", tmp_path / "ray"], stdout=log, stderr=log
        )
        wait_for(lambda: job.poll() is not None or len(list((tmp_path / "ray" / "parts").glob("0*.json"))) >= 3, "three shards", 200)
        assert job.poll() is None, (tmp_path / "log").read_text()
        cluster.remove_node(cluster.second, allow_graceful=False)
        status = job.wait(timeout=300)
    assert status == 0, (tmp_path / "log").read_text()
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
