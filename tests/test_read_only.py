"""A finished box may lie where nothing can be written: the command that made it says that it is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multimodal.shards import Ledger

if TYPE_CHECKING:
    from tests.conftest import Road

NOBODY = 65534


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be written, by root neither, who becomes somebody else."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(OSError):
            (folder / "new").touch()
        yield
    finally:
        os.seteuid(user)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_every_command_finds_its_finished_box_where_nothing_can_be_written(
    road: Road, road_commands: dict[str, str], open_folder: Path
) -> None:
    copy = type(road)(Path(shutil.copytree(road.folder, open_folder / "road")))
    with read_only(copy.folder):
        for command in road_commands.values():
            told = copy.run(command)
            assert told.status == 0, f"{command}\n{told.err}"
            assert "is there already" in told.err or "is finished" in told.err, command


def test_a_ledger_with_nothing_new_to_say_does_not_write(open_folder: Path) -> None:
    def entries() -> Ledger:
        ledger = Ledger(open_folder / "bad.csv", max_bad_share=1)
        ledger.good()
        ledger.bad("000000", "one", "is cut off")
        return ledger

    entries().close()
    with read_only(open_folder):
        entries().close()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="mounting a disk that is read-only needs Linux")
def test_a_ledger_does_not_write_on_a_disk_that_is_mounted_read_only(open_folder: Path) -> None:
    """Such a disk refuses to remove a file even if there is none."""
    code = "import sys; from multimodal.shards import Ledger; Ledger(sys.argv[1] + '/bad.csv').write(); print('done')"
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77; exec "$2" -c "$3" "$1"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(open_folder), sys.executable, code]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip(f"this user may mount nothing: {ran.stderr.strip()}")
    assert ran.stdout == "done\n", ran.stderr
