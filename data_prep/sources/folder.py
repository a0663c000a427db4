"""A folder of pictures, with all folders in it; the text is a .txt beside the picture, or else the picture's own name.

    data-prep make-shards folder photos --output shards/photos

`woman_in-red dress-003.jpg` reads "woman in red dress". A picture whose name holds no words (`IMG_1234.jpg`) needs an
`IMG_1234.txt` beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.pictures import offer
from data_prep.sources import check_listing, cut, input_fingerprint
from data_prep.sources._images import pictures_below
from data_prep.sources._layout import names_digest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger

_CAMERA_NAME = re.compile(
    r"(img|imag|image|dsc|dscn|dscf|pxl|mvimg|gopr|photo|picture|screenshot|p|wa)?[\W\d_]*(wa)?[\W\d_]*", re.IGNORECASE
)


def folder(input: Path, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The pictures in a folder and below it, in the order of their paths; files and folders that begin with a dot are passed over.

    input: the folder.
    Pictures that share a folder and the words of their name share a group (`dress-001.jpg`, `dress-002.jpg`: nothing but the number tells
    them apart); a picture with a .txt of its own stands alone.
    """
    for name in _names(input) if part is None else _listed(input, part["listing"])[part["start"] : part["stop"]]:
        picture = input / name
        try:
            text, is_own = _text(picture)
            image = picture.read_bytes()
        except UnicodeDecodeError as error:
            ledger.bad(str(input), name, f"{picture.with_suffix('.txt').name} is not UTF-8 (byte {error.start})")
            continue
        except (FileNotFoundError, PermissionError) as error:  # a link that leads nowhere, or somebody else's file
            ledger.bad(str(input), name, f"{Path(error.filename).name} cannot be read: {error.strerror}")
            continue
        if not text:
            sidecar = picture.with_suffix(".txt").name
            ledger.bad(
                str(input), name, f"has no text: {sidecar} is blank" if is_own else f"has no text: no words in its name, and no {sidecar}"
            )
            continue
        group = name.removesuffix(picture.suffix) if is_own else (Path(name).parent / text.lower()).as_posix()
        yield from offer(ledger, str(input), name, image, [text], group)


def plan(pairs_per_shard: int, input: Path) -> list[dict[str, Any]]:
    """Ranges of the sorted paths."""
    names = _names(input)
    return cut(len(names), pairs_per_shard, listing=names_digest(names))


def inputs(input: Path) -> dict[str, str]:
    """The pictures and the texts beside them, for telling a set that was made of them."""
    files = (file for picture in pictures_below(input) for file in (picture, picture.with_suffix(".txt")) if file.is_file())
    return {"input": input_fingerprint(input, files)}


def text_of_name(stem: str) -> str:
    """The words of a file name without its suffix: separators become blanks, a number at the end goes; "" where no words are left."""
    if _CAMERA_NAME.fullmatch(stem):
        return ""
    words = re.split(r"[\s_\-.]+", stem.strip())
    while words and not re.search(r"[^\W\d]", words[-1]):
        words.pop()
    return " ".join(word for word in words if word)


def _names(input: Path) -> list[str]:
    """The pictures' paths below the folder, in order. InputError where there is none."""
    if not input.is_dir():
        raise InputError(f"{input}: is not a folder" if input.exists() else f"{input}: does not exist; a folder of pictures is wanted")
    names = [picture.relative_to(input).as_posix() for picture in pictures_below(input)]
    if not names:
        hint = (
            f". It holds .tar files: use the source img2dataset, or: multimodal shards index {input}"
            if any(input.glob("*.tar"))
            else ". Give the folder that holds them"
        )
        raise InputError(f"{input}: no picture (jpg, png, webp, avif) lies in it or below it{hint}")
    return names


@lru_cache(maxsize=1)
def _listed(input: Path, listing: str) -> list[str]:
    """As `_names`, walked once a process. InputError where pictures came or went since the plan was made."""
    names = _names(input)
    check_listing(input, names_digest(names), listing)
    return names


def _text(picture: Path) -> tuple[str, bool]:
    """The text, and whether it is the picture's own (from a sidecar)."""
    sidecar = picture.with_suffix(".txt")
    if sidecar.is_file():
        return " ".join(sidecar.read_text(encoding="utf-8-sig").split()), True
    return text_of_name(picture.stem), False
