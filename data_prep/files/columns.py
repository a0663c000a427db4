"""Choose a column of a table, or a field of JSON Lines: the one that an option names, or the first with a usual name.

    picked = pick("captions.csv line 1", ["image", "caption"], FILES)       # 0

Usual names are compared ignoring case, and blanks, hyphens and underscores between words: "Image Path" is `image_path`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from multimodal.errors import InputError

NAMES_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Column:
    """A column to look for. what: its content, for messages. option: the option that names another column. usual: usual names, best first.
    given: the name given by the option.
    """

    what: str
    option: str
    usual: tuple[str, ...]
    given: str | None = None


_FILE = (
    "file file_name filename file_path filepath image image_file image_name image_path images img img_name img_path picture photo path name"
)
_CAPTION = "caption captions text texts description sentence sentences comment title alt alt_text alttext"
_URL = "url image_url img_url photo_image_url urls link image_link href src"

FILES = tuple(_FILE.split())
CAPTIONS = tuple(_CAPTION.split())
URLS = tuple(_URL.split())
UNSURE_SPLIT = Column("splits", "--split-column", ("set", "partition", "subset"))
"""Names that other columns have as well: such a column counts only if the value in its first row is one of `SPLIT_VALUES`."""
SPLIT_VALUES = frozenset("train training val valid validation dev test testing 0 1 2".split())


def pick(where: str, names: Sequence[str], column: Column, advice: str = "") -> int:
    """The column's position. InputError, with `where` and `advice`, if no column matches, or several have the name."""
    found = matches(names, column)
    if not found:
        wanted = repr(column.given or column.usual[0])
        others = "" if column.given is not None else f" of {column.what}, nor {', '.join(column.usual[1:7])} or the like"
        raise InputError(
            f"{where}: has no column {wanted}{others}; the columns are {', '.join(names)[:NAMES_SHOWN]}. "
            f"Give its name with {column.option}{advice}"
        )
    if len(found) > 1 and names[found[0]] == names[found[1]]:
        raise InputError(
            f"{where}: has more than one column {names[found[0]]!r}; the columns are {', '.join(names)[:NAMES_SHOWN]}. "
            f"Rename all but one in the file, or give another name with {column.option}"
        )
    return found[0]


def matches(names: Sequence[str], column: Column) -> list[int]:
    """The positions of all columns that match, best first."""
    if column.given is not None:
        exact = [at for at, name in enumerate(names) if name == column.given]
        return exact or [at for at, name in enumerate(names) if _plain(name) == _plain(column.given)]
    plain = [_plain(name) for name in names]
    return [at for usual in column.usual for at in sorted(_where(plain, usual), key=lambda at: names[at] != usual)]


def pick_split(where: str, names: Sequence[str], given: str | None, first: Sequence[object]) -> int | None:
    """The position of the column with the source's own split, or None. first: the values of the first row."""
    column = Column("splits", "--split-column", ("split",), given)
    if given is not None or matches(names, column):
        return pick(where, names, column)
    return next((at for at in matches(names, UNSURE_SPLIT) if at < len(first) and str(first[at]).strip().lower() in SPLIT_VALUES), None)


def _where(plain: Sequence[str], name: str) -> list[int]:
    return [at for at, one in enumerate(plain) if one == name]


def _plain(name: str) -> str:
    return re.sub(r"[\s\-_]+", "_", name.strip().casefold())
