"""What people judged of pictures: a CSV of pairs that are the same or different, or of triplets.

a,b,same                                   ids, places, same = read_places(Path("judged.csv"), shards, ids, PAIR)
0002_c1s1_000451_03.jpg,17,1
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multimodal.errors import InputError
from multimodal.shards.reader import ShardSet

PAIR, TRIPLET = ("a", "b"), ("anchor", "same", "different")
SAME = {"1": True, "true": True, "yes": True, "same": True, "0": False, "false": False, "no": False, "different": False}


def read_places(path: Path, source: ShardSet, ids: np.ndarray, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a CSV with a picture in each of some columns: the ids that it names, ascending; each line's pictures as places among them, (m, c);
    and whether they are the same, (m,) bool, of PAIR, which has a column that says so. InputError that names file and line.

    Of several lines for two pictures the last one counts. Lines that compare a picture with itself say nothing, and are left out.
    """
    allowed = set(ids.tolist())
    by_name: dict[str, int] = {source.names[id]: id for id in ids.tolist()}
    told: dict[tuple[int, ...], bool] = {}
    wanted = (*columns, "same") if columns == PAIR else columns
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            missing = [name for name in wanted if name not in (lines.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: has no column {', '.join(missing)}; expected {', '.join(wanted)}")
            for line in lines:
                where = f"{path}, line {lines.line_num}"
                value = (line["same"] or "").strip().lower() if columns == PAIR else "1"
                if value not in SAME:
                    raise InputError(f"{where}: same is {line['same']!r}; expected 1 or 0")
                pictures = tuple(_picture(line[name] or "", by_name, source, allowed, where) for name in columns)
                if len(set(pictures)) == len(pictures):
                    told[tuple(sorted(pictures)) if columns == PAIR else pictures] = SAME[value]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV in UTF-8: {error}") from None
    named, places = np.unique(np.array(list(told), np.int64).reshape(-1, len(columns)), return_inverse=True)
    return named, places.reshape(-1, len(columns)), np.array(list(told.values()), bool)


def _picture(written: str, by_name: dict[str, int], source: ShardSet, allowed: set[int], where: str) -> int:
    """The id of a picture by its name, its key, or the id itself."""
    found = by_name.get(written)
    if found is None:
        found = source.find(written)
    if found is None and written.isascii() and written.isdigit() and int(written) < len(source):
        found = int(written)
    if found is None:  # the name may be one of another part
        found = next((id for id, name in enumerate(source.names) if name == written), None)
    if found is None:
        raise InputError(f"{where}: {written!r} is no picture of {source.place}, by its name, its key or its id")
    if found not in allowed:
        raise InputError(f"{where}: {written!r} is a picture of another part of {source.place}. Choose another --part, such as all")
    return found
