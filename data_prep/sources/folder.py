"""A folder of pictures, including subfolders; the text is a .txt beside the picture, or else the picture's own name.

    data-prep make-shards folder photos --output shards/photos

`woman_in-red dress-003.jpg` gives the text "woman in red dress". A picture whose name has no words (`IMG_1234.jpg`) needs an
`IMG_1234.txt` beside it. If the folder has a table of texts, a note says so: the source `captions` reads it.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.pictures.formats import offer
from data_prep.sources import check_listing, cut, input_fingerprint
from data_prep.sources._device_names import is_device_name
from data_prep.sources._images import pictures_below, walk_pictures
from data_prep.sources._layout import names_digest
from multimodal.errors import InputError
from multimodal.machine.system_files import is_system_name
from multimodal.pairs import Pair
from multimodal.shards import Ledger

_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})
_TABLE_NAMES = re.compile(r"(captions?|metadata|labels?|annotations?|descriptions?|results?|texts?|tags?|dataset)([_.-].*)?", re.IGNORECASE)
_OTHER_TABLE_SUFFIXES = frozenset({".txt", ".json"})


def folder(input: Path, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The pictures in a folder and its subfolders, in the order of their paths.

    input: the folder.
    Hidden files and folders, and those of the system (@eaDir, __MACOSX, recycle bins), are skipped. Pictures in one folder whose names have
    the same words share a group (`dress-001.jpg`, `dress-002.jpg`: only the number differs); a picture with its own .txt is its own group.
    """
    for name in _names(input) if part is None else _listed(input, part["listing"])[part["start"] : part["stop"]]:
        try:
            name.encode()
            if name.endswith("/"):
                os.listdir(input / name)
                continue
            text, sidecar = _text(input / name)
            image = (input / name).read_bytes()
        except UnicodeEncodeError:
            ledger.bad(str(input), name, "its name is not UTF-8. Rename it")
            continue
        except UnicodeDecodeError as error:
            sidecar_name = (_sidecar(input / name) or Path(name)).name
            ledger.bad(str(input), name, f"{sidecar_name} is not UTF-8 (byte {error.start}). Save it as UTF-8")
            continue
        except OSError as error:  # a broken link, a file or folder without permission, one that was removed meanwhile
            ledger.bad(str(input), name, f"{Path(error.filename or name).name} cannot be read: {error.strerror}")
            continue
        if not text:
            wanted = Path(name).with_suffix(".txt").name
            reason = f"no words in its name, and no {wanted}" if sidecar is None else f"{sidecar.name} is blank"
            ledger.bad(str(input), name, f"has no text: {reason}")
            continue
        group = (Path(name).parent / text.lower()).as_posix() if sidecar is None else name.removesuffix(Path(name).suffix)
        yield from offer(ledger, str(input), name, image, [text], group)


def plan(pairs_per_shard: int, input: Path) -> list[dict[str, Any]]:
    """Ranges of the sorted paths. Reports on stderr what in the folder is not read."""
    names = _names(input)
    num_passed_over = walk_pictures(input).num_passed_over
    if num_passed_over:
        print(f"{input}: {num_passed_over} pictures are skipped: hidden, or in folders like @eaDir and __MACOSX", file=sys.stderr)
    for table in _tables(input, names):
        print(
            f"{table}: is not read: the texts are names and .txt files. If it holds texts of these pictures, use it: "
            f"data-prep make-shards captions {shlex.quote(str(table))} --output ..., or multimodal demo --data {shlex.quote(str(table))}",
            file=sys.stderr,
        )
    return cut(len(names), pairs_per_shard, listing=names_digest(names))


def inputs(input: Path) -> dict[str, str]:
    """Fingerprint of the pictures and the texts beside them."""
    files = (file for picture in pictures_below(input) for file in (picture, _sidecar(picture)) if file is not None and file.is_file())
    return {"input": input_fingerprint(input, files)}


def text_of_name(stem: str) -> str:
    """The words of a file name without its suffix: separators become blanks, a final number is dropped; "" if no words are left."""
    if is_device_name(stem):
        return ""
    words = re.split(r"[\s_\-.]+", stem.strip())
    while words and not re.search(r"[^\W\d]", words[-1]):
        words.pop()
    return " ".join(word for word in words if word)


def _names(input: Path) -> list[str]:
    """The pictures' paths relative to the folder, in order. InputError if there is none."""
    if not input.is_dir():
        raise InputError(f"{input}: {'is not a folder' if input.exists() else 'does not exist'}; give a folder of pictures")
    walk = walk_pictures(input)
    names = [picture.relative_to(input).as_posix() for picture in walk.pictures]
    if not names:
        hint = (
            f". It holds .tar files: use the source img2dataset, or: multimodal shards index {input}"
            if any(input.glob("*.tar"))
            else ". Give the folder that holds them"
        )
        raise InputError(f"{input}: no picture (jpg, png, webp, avif) in it or its subfolders{hint}")
    # A folder that cannot be listed is an item as well, so that the ledger lists it.
    return names + [f"{folder.relative_to(input).as_posix()}/" for folder in walk.unreadable]


@lru_cache(maxsize=1)
def _listed(input: Path, listing: str) -> list[str]:
    """As `_names`, listed once per process. InputError if pictures were added or removed since the plan was made."""
    names = _names(input)
    check_listing(input, names_digest(names), listing)
    return names


def _text(picture: Path) -> tuple[str, Path | None]:
    """The text, and the sidecar that it is from; None if it is from the picture's name."""
    sidecar = _sidecar(picture)
    if sidecar is None:
        return text_of_name(picture.stem), None
    content = sidecar.read_bytes()
    # Notepad's "Unicode" begins with one of these marks; UTF-8 never does
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return " ".join(content.decode(encoding).split()), sidecar


def _sidecar(picture: Path) -> Path | None:
    """The .txt beside a picture, with its suffix in lower or upper case."""
    return next((one for one in map(picture.with_suffix, (".txt", ".TXT", ".Txt")) if one.is_file()), None)


def _tables(input: Path, names: list[str]) -> list[Path]:
    """Files in the folder that look like a table of texts and are not a sidecar."""
    stems = {name.rpartition(".")[0] for name in names}
    return sorted(
        path
        for path in input.iterdir()
        if path.stem not in stems
        and not is_system_name(path.name)
        and (path.suffix.lower() in _TABLE_SUFFIXES or (path.suffix.lower() in _OTHER_TABLE_SUFFIXES and _TABLE_NAMES.fullmatch(path.stem)))
        and path.is_file()
    )
