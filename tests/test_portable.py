"""What only reads works on a system that lacks what Windows lacks, and says the same there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from multimodal.machine.portable import held, hold, lock_file, unheld

DATA = Path(__file__).parent / "data"

LACKING = """
import os, sys
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None        # an import of it is an ImportError
for name in ("pread", "pwrite", "sched_getaffinity", "O_NOFOLLOW", "O_CLOEXEC", "fchmod", "fork", "geteuid", "killpg", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
isdir = os.path.isdir
os.path.isdir = lambda path: not str(path).startswith("/dev/fd") and isdir(path)

def refusing(call):
    def checked(*paths, **named):
        held = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        held |= {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if line.count("/")}
        if any(isinstance(path, str | os.PathLike) and os.path.realpath(path) in held for path in paths):
            raise PermissionError(13, "is used by a process", str(paths[0]))
        return call(*paths, **named)
    return checked

if os.path.isdir("/proc/self/fd"):  # what is open, or mapped, is neither removed nor replaced
    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, refusing(getattr(os, name)))
"""

READ = """
import sys
from multimodal.cli import main
sys.exit(main(sys.argv[1:]))
"""

WRITE = """
import sys
from pathlib import Path
import numpy as np
from multimodal.boxes import atomic_write
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter
from multimodal.shards import ShardSet, ShardWriter, open_set
from multimodal.shards.cache import Cache

folder, golden = Path(sys.argv[1]), sys.argv[2]
for content in (b"one", b"two"):
    with atomic_write(folder / "file") as file: file.write(content)
    print((folder / "file").read_bytes(), sorted(path.name for path in folder.iterdir()))
with ShardWriter(folder / "set", pairs_per_shard=2) as writer:
    for pair in map(ShardSet(golden).pair, range(3)): writer.write(pair)
print([ShardSet(folder / "set").pair(id) == ShardSet(golden).pair(id) for id in range(3)])
with StoreWriter(folder / "store") as writer:
    writer.append(Segment(np.array([77]), np.ones((1, 4)), {"name": ["new.png"], "text": ["new"]}))
    writer.delete([77])
    writer.compact()
print(Store(folder / "store").ids)
cache = Cache(folder / "cache", 10)
for name in "abca":
    with cache.opened(name, 5, lambda file: file.write(name.encode() * 5)) as descriptor: print(name, descriptor > 0)
with cache.opened("a", 5, lambda file: None):
    for name in "bc":
        with cache.opened(name, 5, lambda file: file.write(name.encode() * 5)): pass
print(sorted(path.name for path in (folder / "cache").iterdir() if not path.name.startswith(".")))
"""


def run(code: str, *arguments: str, lacking: bool, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {"HOME": str(cwd)}
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", (LACKING if lacking else "") + code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment | {"PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["search", "--store", "{store}", "dog - beach"],
        ["search", "--store", "{store}", "image:9 + dog", "--json", "--why"],
        ["search", "--store", "{store}", "dog", "--html", "hits.html"],
        ["verify", "{store}"],
        ["shards", "verify", "{shards}"],
        ["shards", "stats", "{shards}", "--json"],
        ["shards", "ls", "{shards}"],
        ["serve", "--help"],
    ],
    ids=" ".join,
)
def test_the_doors_that_read_say_the_same_where_windows_lacks_something(command: list[str], tmp_path: Path) -> None:
    filled = [part.format(store=DATA / "store" / "golden", shards=DATA / "shards" / "golden") for part in command]
    there = {}
    for lacking in (False, True):
        (cwd := tmp_path / str(lacking)).mkdir()
        there[lacking] = run(READ, *filled, lacking=lacking, cwd=cwd), {path.name: path.read_bytes() for path in cwd.glob("*.html")}
    assert there[True] == there[False] and there[True][0]


def test_what_is_written_is_the_same_where_windows_lacks_something(tmp_path: Path) -> None:
    said = []
    for lacking in (False, True):
        folder = tmp_path / str(lacking)
        shutil.copytree(DATA / "store" / "golden", folder / "store")
        said.append(run(WRITE, str(folder), str(DATA / "shards" / "golden"), lacking=lacking, cwd=tmp_path))
    assert said[0] == said[1] and "['a', 'c']" in said[0]


def test_what_only_reads_imports_no_fcntl(tmp_path: Path) -> None:
    code = "import sys, multimodal.search.door, multimodal.shards.door, multimodal.verify; print('fcntl' in sys.modules)"
    before = run("import sys, numpy, pyarrow, tempfile; print('fcntl' in sys.modules)", lacking=False, cwd=tmp_path)
    assert run(code, lacking=False, cwd=tmp_path) == before


def test_a_lock_file_is_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with lock_file(path), pytest.raises(BlockingIOError):
        lock_file(path, wait=False)
    with lock_file(path, wait=False):
        pass


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / ".lock").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError):
        lock_file(tmp_path / ".lock", wait=False)
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_a_file_in_use_is_reported_until_its_last_user_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    one, other = (os.open(path, os.O_RDONLY) for _ in range(2))
    with held(one, shared=True):
        hold(other, shared=True)
        with pytest.raises(BlockingIOError), unheld(path):
            pass
    with pytest.raises(BlockingIOError), unheld(path):
        pass
    os.close(other)
    with unheld(path) as found:
        assert found.st_size == 0
