"""img2dataset, the usual downloader, run as a program in its own environment: its requirements conflict with ours (pandas below 3,
webdataset below 0.3, albumentations below 2).

program = find_program(None, Path("i2d"), create=True)          # i2d/bin/img2dataset; installed from PyPI if it is missing
fetch(program, Path("list.parquet"), Path("downloads"), num_rows=120_000, rows_a_tar=1000, settings=FetchSettings())

R. Beaumont, img2dataset, 2021: github.com/rom1504/img2dataset.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import lock_descriptor

from multimodal.errors import InputError
from multimodal.machine.cores import usable_cores
from multimodal.machine.progress import track

REQUIREMENTS = ("img2dataset==1.47.0", "webdataset==0.2.111", "pandas==2.3.3", "albumentations==1.4.24", "wandb==0.31.0")
"""The release that the tests ran with, and those of its dependencies whose next releases are likely to break it."""

TARS = "tars"  # a separate folder: img2dataset takes every .json beside the tars for statistics
LOG = "img2dataset.log"
LOCK = ".lock"
ADDITIONAL_COLUMNS = ("place", "refused")
"""Columns of the list that img2dataset passes on, besides `url` and `caption`."""

_POLL_S = 0.5
_LINES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How pictures are downloaded and stored.

    side_px: resize pictures whose shorter side is longer to this, as JPEG of quality 95; None keeps every file as the server sent it.
    timeout_s: give up on a server that sends nothing for this long; each address is tried at most twice.
    threads: connections at once per process; there is one process per core.
    """

    side_px: int | None = 256
    timeout_s: int = 10
    threads: int = 32

    def __post_init__(self) -> None:
        for name in ("side_px", "timeout_s", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")


def find_program(program: Path | None, environment: Path | None, create: bool = False) -> Path:
    """The program given, or the one in the environment. InputError, with what to run, if it is missing.

    create: make the environment if it is missing. Downloads from PyPI.
    """
    if (program is None) == (environment is None):
        raise InputError("where is img2dataset? Give either --img2dataset PATH/TO/img2dataset or --environment DIR, a Python environment")
    if program is not None:
        found = Path(program)
        advice = "Give the path of the program"
    else:
        assert environment is not None
        found = environment / "bin" / "img2dataset"
        if create and not found.exists():
            make_environment(environment)
        advice = (
            f"Add --create-environment, which installs it from PyPI into {environment} (700 MB on disk), or run: {_commands(environment)}"
        )
    if not os.access(found, os.X_OK):
        raise InputError(f"{found}: no such program. {advice}")
    return found


def make_environment(environment: Path) -> None:
    """Make a Python environment with img2dataset from PyPI, using uv. InputError if uv is missing or fails."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise InputError("making an environment for img2dataset needs uv, which is not on PATH. Run: pip install uv")
    print(f"installing img2dataset and its dependencies from PyPI into {environment}", file=sys.stderr, flush=True)
    for command in (["venv", "--python", sys.executable, str(environment)], ["pip", "install", *_target(environment), *REQUIREMENTS]):
        done = subprocess.run([uv, *command, "--quiet"], capture_output=True, text=True, env=_environment())
        if done.returncode:
            raise InputError(f"uv {command[0]} failed with status {done.returncode}: {_last_lines(done.stderr)}")


def tar_names(num_rows: int, rows_a_tar: int) -> list[str]:
    """img2dataset's names for the tars of a list, without their suffix."""
    return [f"{number:05d}" for number in range(-(-num_rows // rows_a_tar))]


def unfinished(downloads: Path, num_rows: int, rows_a_tar: int) -> list[str]:
    """The tars that are not finished: those without statistics, which img2dataset writes last."""
    folder = downloads / TARS
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    return [name for name in tar_names(num_rows, rows_a_tar) if f"{name}_stats.json" not in there]


def fetch(program: Path, listed: Path, downloads: Path, num_rows: int, rows_a_tar: int, settings: FetchSettings) -> None:
    """Let img2dataset download the pictures of a list into <downloads>/tars, one tar for each `rows_a_tar` rows.

    Finished tars are not downloaded again, so a stopped call can be continued. listed: Parquet with the columns url, caption and
    `ADDITIONAL_COLUMNS`. InputError: another call is downloading into the folder, or img2dataset ended before all tars were done.
    """
    # The program holds the lock too: if we are killed it continues alone, and a second one would write the same tars.
    with open(downloads / LOCK, "w") as lock, open(downloads / LOG, "ab") as log:
        if not lock_descriptor(lock.fileno(), blocking=False):
            raise InputError(f"{downloads}: another img2dataset is downloading into this folder. Wait for it, or stop it")
        command = [str(program), *_arguments(listed, downloads, rows_a_tar, settings)]
        num_tars = len(tar_names(num_rows, rows_a_tar))

        def num_done() -> int:
            return num_tars - len(unfinished(downloads, num_rows, rows_a_tar))

        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            pass_fds=[lock.fileno()],
            start_new_session=True,  # it starts further processes, which have to end with it
        ) as process:
            try:
                for _ in track(_finishing(process, num_done), f"fetching {downloads.name}", unit="tar", total=num_tars):
                    pass
            except BaseException:  # an interrupt is one
                os.killpg(process.pid, signal.SIGTERM)
                raise
        if process.returncode or num_done() < num_tars:
            log_end = _last_lines((downloads / LOG).read_text(errors="replace"))
            raise InputError(
                f"{downloads}: img2dataset ended with status {process.returncode}, and {num_tars - num_done()} of {num_tars} tars are not "
                f"done. Run the same command again to continue. The end of {downloads / LOG}: {log_end}"
            )


def _arguments(listed: Path, downloads: Path, rows_a_tar: int, settings: FetchSettings) -> list[str]:
    as_sent = ["--resize_mode=no", "--disable_all_reencoding=True"]
    resized = ["--resize_mode=keep_ratio", f"--image_size={settings.side_px}", "--resize_only_if_bigger=True", "--encode_quality=95"]
    return [
        f"--url_list={listed}",
        "--input_format=parquet",
        "--url_col=url",
        "--caption_col=caption",
        f"--save_additional_columns=[{','.join(ADDITIONAL_COLUMNS)}]",
        "--output_format=webdataset",
        f"--output_folder={downloads / TARS}",
        f"--number_sample_per_shard={rows_a_tar}",
        f"--processes_count={len(usable_cores())}",
        f"--thread_count={settings.threads}",
        f"--timeout={settings.timeout_s}",
        "--retries=1",
        *(as_sent if settings.side_px is None else resized),
    ]


def _finishing(process: subprocess.Popen[bytes], num_done: Callable[[], int]) -> Iterator[None]:
    """Yields once for each tar when it is done, until the program ends."""
    num_yielded = 0
    while True:
        ended = process.poll() is not None
        done = num_done()
        yield from (None for _ in range(done - num_yielded))
        num_yielded = done
        if ended:
            return
        time.sleep(_POLL_S)


def _environment() -> dict[str, str]:
    """Our environment, without what would put our packages on its path; and albumentations must not ask PyPI for updates."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    return {name: value for name, value in os.environ.items() if name not in ours} | {"NO_ALBUMENTATIONS_UPDATE": "1"}


def _target(environment: Path) -> list[str]:
    return ["--python", str(environment / "bin" / "python")]


def _commands(environment: Path) -> str:
    return f"uv venv {environment} && uv pip install {' '.join([*_target(environment), *REQUIREMENTS])}"


def _last_lines(text: str) -> str:
    return " | ".join([line.strip() for line in text.splitlines() if line.strip(" ~^")][-_LINES_SHOWN:]) or "nothing"
