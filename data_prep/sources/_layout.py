"""Data sets in their original folders: checks that the expected files are there, and listings of large folders.

check_layout(Path("InstaCities1M"), "InstaCities1M", ["img_resized_1M/cities_instagram"])
names = file_names(Path("InstaCities1M/img_resized_1M/cities_instagram/london"), (".jpg",))     # 100,000 names in some 0.1 s
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from multimodal.boxes import fingerprint_bytes
from multimodal.errors import InputError
from multimodal.machine.system_files import is_system_name

_NAMES_SHOWN = 8


def check_layout(input: Path, called: str, wanted: Sequence[str]) -> None:
    """InputError if a file or folder of the data set is missing in `input`; says what was expected, and what is there instead.

    called: name of the data set, for the message. wanted: paths relative to `input`.
    """
    if not input.is_dir():
        raise InputError(f"{input}: {'is a file' if input.exists() else 'does not exist'}; give the folder of {called}")
    missing = [path for path in wanted if not (input / path).exists()]
    if not missing:
        return
    near = next(
        (folder for folder in (*_folders(input), *input.resolve().parents) if all((folder / path).exists() for path in wanted)), None
    )
    hint = f". They are in {near}: give that folder" if near else f". Give the folder of {called} that holds {' and '.join(wanted)}"
    raise InputError(f"{input}: is not laid out as {called}: expected {', '.join(missing)}, and found {first_names(input)}{hint}")


def first_names(folder: Path) -> str:
    """The first names in a folder, for a message."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder))
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{', '.join(names[:_NAMES_SHOWN])}{more}" if names else "nothing"


def folder_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted by code point, without hidden and system folders."""
    return sorted(path.name for path in _folders(folder))


def file_names(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The names of the files in a folder that end in one of the suffixes, sorted by code point; [] if there is no folder.

    Files are not opened. Hidden and system files are skipped.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name.endswith(suffixes) and not is_system_name(entry.name))


def names_digest(names: Iterable[str]) -> str:
    """Digest of a listing, for a plan: a process that reads one of its parts lists again, and must find the same."""
    return fingerprint_bytes(*(os.fsencode(name) + b"\0" for name in names))[:16]


def listing_fingerprint(folders: Iterable[tuple[str, Path]]) -> str:
    """sha256 of the names and sizes of the files in each folder, given as (name, path); the content is not read.

    For data sets of millions of small files, where reading every text would take as long as the job itself.
    """
    digest = sha256()
    for called, folder in folders:
        with os.scandir(folder) as entries:
            sizes = sorted((os.fsencode(entry.name), entry.stat().st_size) for entry in entries if entry.is_file())
        digest.update(repr((called, sizes)).encode())
    return digest.hexdigest()


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not is_system_name(entry.name))
