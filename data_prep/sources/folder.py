"""A folder of pictures, with all folders in it; the text is a .txt beside the picture, or else the picture's own name.

    data-prep make-shards folder photos --output shards/photos

`woman_in-red dress-003.jpg` reads "woman in red dress". A picture whose name holds no words (`IMG_1234.jpg`) needs an
`IMG_1234.txt` beside it. A table of texts that lies in the folder is mentioned, and read by the source `captions`.
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

from data_prep.pictures import offer
from data_prep.sources import check_listing, cut, input_fingerprint
from data_prep.sources._device_names import is_device_name
from data_prep.sources._images import pictures_below, walk_pictures
from data_prep.sources._layout import names_digest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger
from multimodal.system_files import is_system_name

_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})
_TABLE_NAMES = re.compile(r"(captions?|metadata|labels?|annotations?|descriptions?|results?|texts?|tags?|dataset)([_.-].*)?", re.IGNORECASE)
_OTHER_TABLE_SUFFIXES = frozenset({".txt", ".json"})


def folder(input: Path, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The pictures in a folder and below it, in the order of their paths.

    input: the folder.
    Files and folders that are hidden, or that a system left behind (@eaDir, __MACOSX, waste bins), are passed over. Pictures that share a
    folder and the words of their name share a group (`dress-001.jpg`, `dress-002.jpg`: nothing but the number tells them apart); a picture
    with a .txt of its own stands alone.
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
        except OSError as error:  # a link that leads nowhere, somebody else's file or folder, one that was removed meanwhile
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
    """Ranges of the sorted paths. Says on stderr what in the folder is not read."""
    names = _names(input)
    num_passed_over = walk_pictures(input).num_passed_over
    if num_passed_over:
        print(f"{input}: {num_passed_over} pictures are passed over: hidden, or in folders like @eaDir and __MACOSX", file=sys.stderr)
    for table in _tables(input, names):
        print(
            f"{table}: is not read here, where names and .txt files are the texts. If it holds texts of these pictures, use it: "
            f"data-prep make-shards captions {shlex.quote(str(table))} --output ..., or multimodal demo --data {shlex.quote(str(table))}",
            file=sys.stderr,
        )
    return cut(len(names), pairs_per_shard, listing=names_digest(names))


def inputs(input: Path) -> dict[str, str]:
    """The pictures and the texts beside them, for telling a set that was made of them."""
    files = (file for picture in pictures_below(input) for file in (picture, _sidecar(picture)) if file is not None and file.is_file())
    return {"input": input_fingerprint(input, files)}


def text_of_name(stem: str) -> str:
    """The words of a file name without its suffix: separators become blanks, a number at the end goes; "" where no words are left."""
    if is_device_name(stem):
        return ""
    words = re.split(r"[\s_\-.]+", stem.strip())
    while words and not re.search(r"[^\W\d]", words[-1]):
        words.pop()
    return " ".join(word for word in words if word)


def _names(input: Path) -> list[str]:
    """The pictures' paths below the folder, in order. InputError where there is none."""
    if not input.is_dir():
        raise InputError(f"{input}: is not a folder" if input.exists() else f"{input}: does not exist; a folder of pictures is wanted")
    walk = walk_pictures(input)
    names = [picture.relative_to(input).as_posix() for picture in walk.pictures]
    if not names:
        hint = (
            f". It holds .tar files: use the source img2dataset, or: multimodal shards index {input}"
            if any(input.glob("*.tar"))
            else ". Give the folder that holds them"
        )
        raise InputError(f"{input}: no picture (jpg, png, webp, avif) lies in it or below it{hint}")
    # A folder that cannot be listed is an item as well, so that it is named in the ledger.
    return names + [f"{folder.relative_to(input).as_posix()}/" for folder in walk.unreadable]


@lru_cache(maxsize=1)
def _listed(input: Path, listing: str) -> list[str]:
    """As `_names`, walked once a process. InputError where pictures came or went since the plan was made."""
    names = _names(input)
    check_listing(input, names_digest(names), listing)
    return names


def _text(picture: Path) -> tuple[str, Path | None]:
    """The text, and the sidecar that it is from; None where the picture's name is all there is."""
    sidecar = _sidecar(picture)
    if sidecar is None:
        return text_of_name(picture.stem), None
    content = sidecar.read_bytes()
    # Notepad's "Unicode" begins with either of these marks, which no UTF-8 does
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return " ".join(content.decode(encoding).split()), sidecar


def _sidecar(picture: Path) -> Path | None:
    """The .txt beside a picture, its suffix in small letters or in capitals, as the picture's own may be."""
    return next((one for one in map(picture.with_suffix, (".txt", ".TXT", ".Txt")) if one.is_file()), None)


def _tables(input: Path, names: list[str]) -> list[Path]:
    """Files in the folder that look like a table of texts, and are no sidecar."""
    stems = {name.rpartition(".")[0] for name in names}
    return sorted(
        path
        for path in input.iterdir()
        if path.stem not in stems
        and not is_system_name(path.name)
        and (path.suffix.lower() in _TABLE_SUFFIXES or (path.suffix.lower() in _OTHER_TABLE_SUFFIXES and _TABLE_NAMES.fullmatch(path.stem)))
        and path.is_file()
    )
