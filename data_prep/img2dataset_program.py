"""img2dataset, the downloader of the field, run as a program in an environment of its own: its requirements exclude ours (pandas below 3,
webdataset below 0.3, albumentations below 2).

program = find_program(None, Path("i2d"), create=True)          # i2d/bin/img2dataset; made where it is not there, from PyPI
fetch(program, Path("list.parquet"), Path("downloads"), num_rows=120_000, rows_a_tar=1000, settings=FetchSettings())

R. Beaumont, img2dataset, 2021: github.com/rom1504/img2dataset.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from multimodal.cores import usable_cores
from multimodal.errors import InputError
from multimodal.progress import track

REQUIREMENTS = ("img2dataset==1.47.0", "webdataset==0.2.111", "pandas==2.3.3", "albumentations==1.4.24", "wandb==0.31.0")
"""The release that the tests ran with, and of what it is made of those whose next releases are likely to break it."""

TARS = "tars"  # a folder of their own: img2dataset takes every .json beside them for statistics of a tar
LOG = "img2dataset.log"
LOCK = ".lock"
ADDITIONAL_COLUMNS = ("place", "refused")
"""Columns of the list that img2dataset hands through, beside `url` and `caption`."""

_POLL_S = 0.5
_LINES_TOLD = 5


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How pictures are fetched and stored.

    side_px: the shortest side is brought to this where it is longer, as JPEG of quality 95; None keeps every file as the server sent it.
    timeout_s: a server that sends nothing for so long is given up; every address is asked twice at most.
    threads: connections at once of each process, of which there is one a core.
    """

    side_px: int | None = 256
    timeout_s: int = 10
    threads: int = 32

    def __post_init__(self) -> None:
        for name in ("side_px", "timeout_s", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; at least 1 is needed")


def find_program(program: Path | None, environment: Path | None, create: bool = False) -> Path:
    """The program given, or the one in the environment. InputError, with what to run, where it is not there.

    create: make the environment where it is not there. Fetches from PyPI.
    """
    if (program is None) == (environment is None):
        raise InputError("say where img2dataset is: either --img2dataset PATH/TO/img2dataset or --environment DIR, a Python environment")
    if program is not None:
        found = Path(program)
        advice = "Give the path of the program"
    else:
        assert environment is not None
        found = environment / "bin" / "img2dataset"
        if create and not found.exists():
            make_environment(environment)
        advice = (
            f"Add --create-environment, which fetches it from PyPI into {environment} (700 MB on disk), or run: {_commands(environment)}"
        )
    if not os.access(found, os.X_OK):
        raise InputError(f"{found}: there is no such program. {advice}")
    return found


def make_environment(environment: Path) -> None:
    """A Python environment with img2dataset in it, made by uv, from PyPI. InputError where there is no uv, or it fails."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise InputError("an environment for img2dataset is made with uv, and there is none on PATH. pip install uv")
    print(f"fetching img2dataset and what it needs from PyPI into {environment}", file=sys.stderr, flush=True)
    for command in (["venv", "--python", sys.executable, str(environment)], ["pip", "install", *_target(environment), *REQUIREMENTS]):
        done = subprocess.run([uv, *command, "--quiet"], capture_output=True, text=True, env=_environment())
        if done.returncode:
            raise InputError(f"uv {command[0]} failed with status {done.returncode}: {_last_lines(done.stderr)}")


def tar_names(num_rows: int, rows_a_tar: int) -> list[str]:
    """What img2dataset calls the tars of a list, without their suffix."""
    return [f"{number:05d}" for number in range(-(-num_rows // rows_a_tar))]


def unfinished(downloads: Path, num_rows: int, rows_a_tar: int) -> list[str]:
    """The tars that are not done. img2dataset writes the statistics of a tar last."""
    folder = downloads / TARS
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    return [name for name in tar_names(num_rows, rows_a_tar) if f"{name}_stats.json" not in there]


def fetch(program: Path, listed: Path, downloads: Path, num_rows: int, rows_a_tar: int, settings: FetchSettings) -> None:
    """Let img2dataset fetch what a list names into <downloads>/tars, a tar for each run of `rows_a_tar` rows.

    Tars that were finished before are not fetched again, so a call that was stopped goes on. listed: Parquet with the columns url, caption
    and `ADDITIONAL_COLUMNS`. InputError: another call is fetching into the folder, or img2dataset ended before all tars were done.
    """
    # The program holds the lock as well as we do: where we are killed it goes on alone, and a second one would write the same tars.
    with open(downloads / LOCK, "w") as lock, open(downloads / LOG, "ab") as log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{downloads}: an img2dataset is fetching into this folder already. Wait for it, or end it") from None
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
            start_new_session=True,  # it starts processes of its own, which have to end with it
        ) as process:
            try:
                for _ in track(_finishing(process, num_done), f"fetching {downloads.name}", unit="tar", total=num_tars):
                    pass
            except BaseException:  # an interrupt is one
                os.killpg(process.pid, signal.SIGTERM)
                raise
        if process.returncode or num_done() < num_tars:
            told = _last_lines((downloads / LOG).read_text(errors="replace"))
            raise InputError(
                f"{downloads}: img2dataset ended with status {process.returncode}, and {num_tars - num_done()} of {num_tars} tars are not "
                f"done. Run the same command again to go on. It said, in {downloads / LOG}: {told}"
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
    """One item for each tar that is done, as it gets done, until the program ends."""
    told = 0
    while True:
        ended = process.poll() is not None
        done = num_done()
        yield from (None for _ in range(done - told))
        told = done
        if ended:
            return
        time.sleep(_POLL_S)


def _environment() -> dict[str, str]:
    """Ours without what would put our packages into another Python's path; albumentations would ask PyPI for its newest release."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    return {name: value for name, value in os.environ.items() if name not in ours} | {"NO_ALBUMENTATIONS_UPDATE": "1"}


def _target(environment: Path) -> list[str]:
    return ["--python", str(environment / "bin" / "python")]


def _commands(environment: Path) -> str:
    return f"uv venv {environment} && uv pip install {' '.join([*_target(environment), *REQUIREMENTS])}"


def _last_lines(text: str) -> str:
    return " | ".join([line.strip() for line in text.splitlines() if line.strip(" ~^")][-_LINES_TOLD:]) or "nothing"
