"""Jobs that are cut into parts: killed at any moment, and the same to the byte."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import made_source
import pytest
from made_source import made

from data_prep.__main__ import main
from data_prep.shards.job import make_shards
from data_prep.shards.plan import Piece, ShardJob, make_piece, read_plan, repeated_names
from data_prep.shards.workers import LocalWorkers
from multimodal.boxes import is_whole
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, write_shard
from multimodal.shards.folder import folder_of

HERE = Path(__file__).parent
NUM_KILLS = 8


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def bad_rows(folder: Path) -> list[list[str]]:
    with open(folder / "bad.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def make(output: Path, num: int = 40, processes: int = 2, max_bad_share: float = 0.5, **settings: object) -> ShardSet:
    return make_shards(made, {"num": num, **settings}, output, 4, max_bad_share, workers=LocalWorkers(processes))


def start(output: Path, *more: str) -> subprocess.Popen[str]:
    """The same job as `make` with a delay, as a command in a process group of its own."""
    arguments = "make-shards made_source:made --num 40 --delay-s 0.04 --pairs-per-shard 4 --max-bad-share 0.5 --num-processes 2 --output"
    return subprocess.Popen(
        [sys.executable, "-m", "data_prep", *arguments.split(), str(output), *more],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(happens: Callable[[], bool], timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.01)


def marker(output: Path, shard: str) -> Path:
    return output / "parts" / f"{shard}.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of `make`, undisturbed."""
    return make(tmp_path_factory.mktemp("parts"), processes=1).path


# -- killed --------------------------------------------------------------------------------------------------------------------------------


def test_a_job_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "set"
    make(whole, delay_s=0.04)
    wanted = files(whole)
    assert "bad.csv" in wanted and not wanted.keys() & {"plan.json", "parts/000000.json"}
    moments = random.Random(0)
    num_kills = num_kept = 0
    while num_kills < NUM_KILLS:
        kept = {path.name: path.stat().st_mtime_ns for path in output.glob("*.tar") if marker(output, path.stem).is_file()}
        num_kept += len(kept)
        job = start(output)
        num_wanted = len(kept) + moments.randrange(4)
        wait_for(lambda: job.poll() is not None or len(list(output.glob("parts/0*.json"))) >= num_wanted or is_whole(output))  # noqa: B023
        try:
            status = job.wait(timeout=moments.uniform(0, 0.2))
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            num_kills += 1
            job.communicate(timeout=300)
        else:
            assert status == 0, job.communicate()[1]
        now = {path.name: path.stat().st_mtime_ns for path in output.glob("*.tar")}
        assert kept.items() <= now.items(), "a finished shard was made again"
        if is_whole(output):
            make(output, delay_s=0.04)  # clears what a kill behind the manifest left
            assert files(output) == wanted
            shutil.rmtree(output)
    assert num_kept > NUM_KILLS, "hardly any kill came between two shards"
    make(output, delay_s=0.04)
    assert files(output) == wanted


def test_a_worker_that_dies_costs_nothing(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(made_source.DIE_AT, "18")
    monkeypatch.setenv(made_source.DIED, str(tmp_path / "died"))
    make(tmp_path / "set")
    assert (tmp_path / "died").exists()
    assert files(tmp_path / "set") == files(whole)


def test_a_shard_that_kills_two_workers_is_left_out_and_named(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(made_source.DIE_AT, "18")
    shards = make(tmp_path / "set")
    wanted = tars(whole)
    del wanted["000004.tar"]
    assert tars(tmp_path / "set") == wanted
    assert ["made", "shard 000004", "the process that worked on it was ended by SIGKILL, 2 times"] in bad_rows(tmp_path / "set")
    assert len(shards) == 40 - 6 - 3


class LosesAWorker:
    """Workers of which the first is killed while it writes its shard, and no process that starts later tidies up after it."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def run(self, task: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        killed = "import os; from multimodal.boxes import atomic_write\nwith atomic_write('000002.tar'): os.kill(os.getpid(), 9)"
        assert subprocess.run([sys.executable, "-c", killed], cwd=self._output).returncode == -signal.SIGKILL
        assert list(self._output.glob(".000002.tar.*.part"))
        yield from ((position, task(item)) for position, item in enumerate(items))


def test_the_unfinished_file_of_a_dead_worker_is_not_left_in_the_set(tmp_path: Path, whole: Path) -> None:
    make_shards(made, {"num": 40}, tmp_path / "set", 4, 0.5, workers=LosesAWorker(tmp_path / "set"))
    assert files(tmp_path / "set") == files(whole)


def test_a_shard_given_up_counts_in_full_and_is_tried_again_by_the_same_command(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(made_source.DIE_AT, "18")
    # 5 broken ones elsewhere, and the 4 of the shard. The job ends as soon as the shards left cannot change that: of how many, varies.
    with pytest.raises(InputError, match=r"9 of \d+ are bad"):
        make(tmp_path / "set", max_bad_share=0.2)
    monkeypatch.delenv(made_source.DIE_AT)
    make(tmp_path / "set", max_bad_share=0.2)
    assert files(tmp_path / "set") == files(whole)


# -- the same whoever makes it -------------------------------------------------------------------------------------------------------------


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    for processes in (1, 3):
        make(tmp_path / str(processes), num=30, processes=processes)
    assert files(tmp_path / "1") == files(tmp_path / "3")
    assert [row[1] for row in bad_rows(tmp_path / "3")] == ["3.png", "10.png", "17.png", "24.png"]


def test_a_part_made_alone_elsewhere_is_the_shard_of_the_set(tmp_path: Path) -> None:
    make(tmp_path / "set")
    done = make_piece(
        ShardJob("made_source:made", {"num": 40, "delay_s": 0.0, "repeat": 0}, tmp_path / "alone", 4), Piece(7, {"start": 28, "stop": 32})
    )
    assert tars(tmp_path / "alone") == {"000007.tar": tars(tmp_path / "set")["000007.tar"]}
    assert (done.num_pairs, [bad.key for bad in done.bad]) == (3, ["31.png"])


def test_a_part_of_which_nothing_survives_has_no_shard(tmp_path: Path) -> None:
    shards = make_shards(made, {"num": 8}, tmp_path / "set", pairs_per_shard=1, max_bad_share=0.5)
    assert sorted(tars(tmp_path / "set")) == [f"{number:06d}.tar" for number in range(8) if number != 3]
    assert [shards.key(id) for id in range(7)] == [f"{number:09d}" for number in range(8) if number != 3]


def test_names_that_come_again_in_a_later_part_are_left_out_there(tmp_path: Path) -> None:
    shards = make(tmp_path / "set", num=20, repeat=3)  # 17, 18 and 19 are called 0, 1 and 2; 17 is broken
    assert list(shards.names) == [f"{n}.png" for n in range(17) if n % 7 != 3]
    assert bad_rows(tmp_path / "set")[-3:-1] == [
        ["made", "1.png", "a pair of this name came before, in shard 000000"],
        ["made", "2.png", "a pair of this name came before, in shard 000000"],
    ]
    make(tmp_path / "again", num=20, repeat=3, processes=3)
    assert files(tmp_path / "again") == files(tmp_path / "set")


def test_repeated_names_are_those_that_a_loop_finds(tmp_path: Path) -> None:
    random_names = random.Random(1)
    names = [[f"n{random_names.randrange(60)}" for _ in range(10)] for _ in range(6)]
    for number, shard in enumerate(names):
        write_shard(tmp_path, number, [Pair(name, b"x", "png", ("t",), "g") for name in shard], first_key=10 * number)
    first: dict[str, int] = {}
    wanted: dict[int, dict[str, str]] = {}
    for number, shard in enumerate(names):
        for name in shard:
            if first.setdefault(name, number) != number:
                wanted.setdefault(number, {})[name] = f"{first[name]:06d}"
    assert wanted and repeated_names(folder_of(tmp_path), range(6)) == wanted
    assert repeated_names(folder_of(tmp_path), []) == {}


def test_a_part_with_more_pairs_than_planned_has_keys_of_its_own(tmp_path: Path) -> None:
    for number in range(3):
        write_shard(tmp_path, number, [Pair(f"{number}-{n}", b"x", "png", ("t",), "g") for n in range(5)], number * 2, num_keys=2)
    from multimodal.shards import finish

    finish(tmp_path, {})
    shards = ShardSet(tmp_path)
    assert [shards.key(id) for id in range(5, 9)] == ["000000002", "000000003", "2000000000002", "2000000000003"]
    assert len(set(shards.keys())) == 15


def test_memory_does_not_grow_with_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peaks = []
    for num in (1_000, 10_000):
        make_shards(made, {"num": num}, tmp_path / str(num), 500, 0.5, json=True, workers=LocalWorkers(1))
        peaks.append(json.loads(capsys.readouterr().out)["peak_rss_bytes"])
    few, many = peaks
    assert many - few < 10e6  # the pictures of the larger one are 50 MB


# -- going on, and not ---------------------------------------------------------------------------------------------------------------------


def interrupted(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that stopped with an error at its last shard."""
    with monkeypatch.context() as patch:
        patch.setenv(made_source.DIE_AT, "39")
        with pytest.raises(InputError, match="are bad"):
            make(output, processes=1, max_bad_share=0.21)


def test_a_job_that_goes_on_says_so_and_makes_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "set", monkeypatch)
    capsys.readouterr()
    make(tmp_path / "set", max_bad_share=0.21)
    told = capsys.readouterr().err
    assert "going on, 9 of 10 shards are there" in told and "\n1 shards made in" in told


def test_a_shard_that_was_cut_since_it_was_done_is_made_again(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path / "set", monkeypatch)
    os.truncate(tmp_path / "set" / "000002.tar", 1000)
    make(tmp_path / "set")
    assert files(tmp_path / "set") == files(whole)


def test_the_unfinished_shards_of_another_job_are_replaced_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "set"
    interrupted(output, monkeypatch)
    before = files(output)
    wanted = r"is not finished, and was begun with other settings or inputs: settings.num was 40 and is 20 now. Finish it .* --overwrite"
    with pytest.raises(InputError, match=wanted):
        make(output, num=20)
    assert files(output) == before
    make_shards(made, {"num": 20}, output, 4, 0.5, overwrite=True)
    make(tmp_path / "whole", num=20)
    assert files(output) == files(tmp_path / "whole")


def test_a_job_whose_input_is_too_bad_stops_before_it_has_read_all_of_it(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(InputError, match=r"more than --max-bad-share 0.01"):
        make(tmp_path / "set", num=40, processes=1, max_bad_share=0.01)
    plan = read_plan(folder_of(tmp_path / "set"))
    assert plan is not None and len(plan.parts) == 10
    assert len(list((tmp_path / "set" / "parts").iterdir())) < 5
    make(tmp_path / "set")  # a higher share: what is there serves
    assert files(tmp_path / "set") == files(whole)


def test_only_the_parts_that_hold_the_first_pairs_are_made_where_so_many_are_asked_for(tmp_path: Path) -> None:
    shards = make_shards(made, {"num": 40}, tmp_path / "set", 4, 0.5, max_pairs=6)
    assert list(shards.names) == ["0.png", "1.png", "2.png", "4.png", "5.png"]  # 3 is broken: six were read
    assert [shard.num_pairs for shard in shards.shards] == [3, 2]


def test_a_summary_is_printed_as_json_whether_the_set_is_made_or_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        f"make-shards made_source:made --num 20 --pairs-per-shard 4 --max-bad-share 0.5 --num-processes 1 --json --output {tmp_path}/set"
    )
    summaries = []
    for _ in range(2):
        assert main(command.split()) == 0
        summaries.append(json.loads(capsys.readouterr().out))
    made_now, there = summaries
    assert made_now["peak_rss_bytes"] > 1e7 and made_now["seconds"] > 0
    size_bytes = sum(map(len, tars(tmp_path / "set").values()))
    counts = {"output": f"{tmp_path}/set", "pairs": 17, "bad": 3, "shards": 5, "bytes": size_bytes}
    assert counts.items() <= made_now.items() and counts.items() <= there.items()
    assert (made_now["shards_made"], there["shards_made"]) == (5, 0)
