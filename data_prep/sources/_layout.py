"""Data sets in the folders that their owners ship: what has to lie there, listings of large folders, and the ranges a job is cut into.

check_layout(Path("InstaCities1M"), "InstaCities1M", ["img_resized_1M/cities_instagram"])
names = file_names(Path("InstaCities1M/img_resized_1M/cities_instagram/london"), (".jpg",))     # 100,000 of them in some 0.1 s
list(ranges(len(names), pairs_per_shard=1000))                                                  # [(0, 1000), (1000, 2000), ...]
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from multimodal.errors import InputError

_NAMES_TOLD = 8
_FOLDERS_KEPT = 4  # listings a process keeps: parts are read folder by folder, of pictures and of texts


def check_layout(input: Path, called: str, wanted: Sequence[str]) -> None:
    """InputError where a file or folder that the data set has is not in `input`: what was looked for, and what lies there instead.

    called: the data set, for the message. wanted: paths relative to `input`.
    """
    if not input.is_dir():
        raise InputError(f"{input}: {'is a file' if input.exists() else 'does not exist'}; the folder of {called} is wanted")
    missing = [path for path in wanted if not (input / path).exists()]
    if not missing:
        return
    near = next(
        (folder for folder in (*_folders(input), *input.resolve().parents) if all((folder / path).exists() for path in wanted)), None
    )
    hint = f". They lie in {near}: give that folder" if near else f". Give the folder of {called} that holds {' and '.join(wanted)}"
    raise InputError(f"{input}: is not laid out as {called}: looked for {', '.join(missing)}, and found {told_names(input)}{hint}")


def told_names(folder: Path) -> str:
    """The first names in a folder, for a message."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder))
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return f"{', '.join(names[:_NAMES_TOLD])}{more}" if names else "nothing"


def folder_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted by code point; those that begin with a dot are passed over."""
    return sorted(path.name for path in _folders(folder))


def file_names(folder: Path, suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the files in a folder that end in one of the suffixes, sorted by code point; () where there is no folder.

    No file is looked at, and a process keeps the listing: every part of the same folder asks for it. A file that comes or goes changes
    the folder's own time, by which the listing is then made anew.
    """
    try:
        changed_ns = folder.stat().st_mtime_ns
    except FileNotFoundError:
        return ()
    return _file_names(folder, suffixes, changed_ns)


@lru_cache(_FOLDERS_KEPT)
def _file_names(folder: Path, suffixes: tuple[str, ...], changed_ns: int) -> tuple[str, ...]:
    with os.scandir(folder) as entries:
        return tuple(sorted(entry.name for entry in entries if entry.name.endswith(suffixes) and not entry.name.startswith(".")))


def listing_fingerprint(folders: Iterable[tuple[str, Path]]) -> str:
    """sha256 of the names and sizes of the files in each folder, (what it is called, where it lies); the content is not read.

    For data sets of millions of small files, where reading every text would take as long as the job.
    """
    digest = sha256()
    for called, folder in folders:
        with os.scandir(folder) as entries:
            sizes = sorted((os.fsencode(entry.name), entry.stat().st_size) for entry in entries if entry.is_file())
        digest.update(repr((called, sizes)).encode())
    return digest.hexdigest()


def ranges(num: int, pairs_per_shard: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive runs of `pairs_per_shard` positions, the last one shorter. InputError below 1."""
    if pairs_per_shard < 1:
        raise InputError(f"pairs_per_shard is {pairs_per_shard}; at least 1 is needed")
    for start in range(0, num, pairs_per_shard):
        yield start, min(start + pairs_per_shard, num)


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))
