"""Sets that are made at a URL: the bytes of the folder, and no mark of what was not uploaded whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec", reason="sets at a URL need the extra remote")

import faulty_storage  # noqa: E402  (needs fsspec)
import made_source  # noqa: E402

from data_prep.__main__ import main  # noqa: E402
from data_prep.shards.job import make_shards  # noqa: E402
from data_prep.shards.workers import LocalWorkers  # noqa: E402
from multimodal.errors import InputError  # noqa: E402
from multimodal.pairs import Pair  # noqa: E402
from multimodal.shards import Ledger, ShardSet, folder  # noqa: E402
from multimodal.urls import Transport  # noqa: E402

HERE = Path(__file__).parent
SETTINGS = {"num": 40, "repeat": 3}  # three names come again: a part is made twice


class InThisProcess:
    """An engine for storage that no other process sees, and for tests that kill nothing: no process has to start."""

    def run(self, task: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for position, item in enumerate(items):
            yield position, task(item)


def in_turn(num: int, *, ledger: Ledger) -> Iterator[Pair]:
    """A source without a plan."""
    return made_source.made(num, ledger=ledger)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make(output: str | Path, source: Any = made_source.made, **options: Any) -> ShardSet:
    return make_shards(source, SETTINGS, output, 4, 0.5, **{"workers": InThisProcess(), **options})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folder, "TRANSPORT", Transport(tries=3, wait_s=0.001))
    monkeypatch.setattr(faulty_storage.FaultyStorage, "num_broken", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("local")).path


@pytest.fixture
def own_whole(tmp_path: Path) -> Path:
    """The same of the source whose storage breaks: its name is in the manifest."""
    return make(tmp_path / "whole", faulty_storage.made).path


def test_a_set_at_a_url_is_the_folder_to_the_byte_and_is_read_there(tmp_path: Path, whole: Path) -> None:
    shards = make((tmp_path / "set").as_uri(), workers=LocalWorkers(2))
    assert files(tmp_path / "set") == files(whole) and not (tmp_path / "set" / "parts").exists()
    local = ShardSet(whole)
    assert [shards.pair(id) for id in range(len(shards))] == [local.pair(id) for id in range(len(local))]


def test_storage_of_one_process_holds_the_same(whole: Path) -> None:
    system = fsspec.filesystem("memory")
    try:
        make("memory://bucket/set/")
        found = {path.removeprefix("/bucket/set/"): system.cat_file(path) for path in system.find("/bucket/set")}
    finally:
        system.store.clear()
    assert found == files(whole)


def test_a_source_that_is_read_in_turn_is_written_to_a_url_too(tmp_path: Path) -> None:
    make_shards(in_turn, {"num": 10}, (tmp_path / "set").as_uri(), 4, 0.5)
    make_shards(in_turn, {"num": 10}, tmp_path / "whole", 4, 0.5)
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def test_a_job_at_a_url_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, url = tmp_path / "set", (tmp_path / "set").as_uri()
    arguments = "make-shards made_source:made --num 40 --repeat 3 --delay-s 0.1 --pairs-per-shard 4 --max-bad-share 0.5 --output"
    job = subprocess.Popen(
        [sys.executable, "-m", "data_prep", *arguments.split(), url, "--num-processes", "2"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    end = time.monotonic() + 300
    while len(list(output.glob("parts/0*.json"))) < 3:
        assert job.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate(timeout=300)
    kept = {path.name: path.stat().st_mtime_ns for path in output.glob("*.tar") if (output / "parts" / f"{path.stem}.json").is_file()}
    assert main([*arguments.split(), url]) == 0
    assert "going on, " in capsys.readouterr().err
    now = {path.name: path.stat().st_mtime_ns for path in output.glob("*.tar")}
    assert kept.items() - now.items() <= {("000009.tar", kept.get("000009.tar"))}, "only the part with names that came before is made again"
    local = make_shards(made_source.made, SETTINGS | {"delay_s": 0.1}, tmp_path / "slow", 4, 0.5, workers=InThisProcess())
    assert files(output) == files(local.path)


@pytest.mark.parametrize("protocol", ["faulty", "oss"])
@pytest.mark.parametrize("suffix", [".tar", ".arrow", ".json"])
def test_an_upload_that_breaks_off_leaves_no_mark_and_is_made_again(
    tmp_path: Path, own_whole: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, suffix: str
) -> None:
    output, url = tmp_path / "set", f"{protocol}://{tmp_path}/set"
    monkeypatch.setenv(faulty_storage.BREAKS_AT, f"000002{suffix}")
    with pytest.raises(
        InputError,
        match=rf"{url}/.*000002{suffix}: could not be written in 3 tries. .*ConnectionResetError: the line went down",
    ):
        make(url, faulty_storage.made)
    left = files(output)
    assert {"plan.json", "parts/000000.json", "parts/000001.json"} <= left.keys()
    assert not any("000002" in name or name.endswith(".part") for name in left), left.keys()
    monkeypatch.delenv(faulty_storage.BREAKS_AT)
    make(url, faulty_storage.made)
    assert files(output) == files(own_whole)


@pytest.mark.parametrize("protocol", ["faulty", "oss"])
@pytest.mark.parametrize("name", ["plan.json", "000002.tar", "000002.arrow", "000002.json", "manifest.json"])
def test_an_upload_that_breaks_off_twice_costs_time_only(
    tmp_path: Path, own_whole: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, name: str
) -> None:
    monkeypatch.setenv(faulty_storage.BREAKS_AT, name)
    monkeypatch.setenv(faulty_storage.BREAKS, "2")
    make(f"{protocol}://{tmp_path}/set", faulty_storage.made)
    assert faulty_storage.FaultyStorage.num_broken == 2
    assert files(tmp_path / "set") == files(own_whole)


@pytest.mark.parametrize("name", ["index.arrow", "manifest.json", "bad.csv"])
def test_a_set_whose_end_was_not_uploaded_is_no_set_yet(
    tmp_path: Path, own_whole: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(faulty_storage.BREAKS_AT, name)
    with pytest.raises(InputError, match=f"set/{name}: could not be written in 3 tries"):
        make(f"faulty://{tmp_path}/set", faulty_storage.made)
    assert not (tmp_path / "set" / "manifest.json").exists()
    monkeypatch.delenv(faulty_storage.BREAKS_AT)
    make(f"faulty://{tmp_path}/set", faulty_storage.made)
    assert "going on, 10 of 10 shards are there" in capsys.readouterr().err
    assert files(tmp_path / "set") == files(own_whole)


def test_a_finished_set_at_a_url_is_used_as_it_is_and_another_replaces_it_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = (tmp_path / "set").as_uri()
    for num in (8, 8):
        make_shards(made_source.made, {"num": num}, url, 4, 0.5, workers=InThisProcess())
    assert f"{url}: is there already, 7 pairs" in capsys.readouterr().err
    with pytest.raises(InputError, match=rf"{url}: was made with other settings or inputs: settings.num was 8 and is 9 now"):
        make_shards(made_source.made, {"num": 9}, url, 4, 0.5, workers=InThisProcess())
    assert len(make_shards(made_source.made, {"num": 9}, url, 4, 0.5, overwrite=True, workers=InThisProcess())) == 8


def test_a_url_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/set/plan.json: cannot be written .NotADirectoryError: .*Check the URL"):
        make((tmp_path / "file" / "set").as_uri())
    with pytest.raises(InputError, match=r"nowhere://bucket/set/manifest.json: fsspec knows no protocol nowhere://"):
        make("nowhere://bucket/set")
    with pytest.raises(InputError, match="a URL converted to a Path; give it as a string"):
        make(Path("s3://bucket/set"))
