"""Shared by the retrieval protocols: the results of each query, their file, lines that combine seeds, and the table.

    found = look_up("text->image", texts, pictures, query_marks, gallery_marks, ids, groups)
    write_figures("figures.json", [row.as_json()], [found])      # and figures.queries.parquet, one line per query
    read_found("figures.json")

Intervals need the result of each query, and rows hold only means: so a protocol writes both, and a table is made from both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.boxes import atomic_write, write_output
from multimodal.errors import InputError
from multimodal.metrics import Interval, average_precision, interval, relevant_ranks, score_blocks
from multimodal.search.store import Store
from multimodal.shards import ShardSet

_COLUMNS = ("ids", "groups", "first", "precision", "num_relevant")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One line of a table of figures: a dataclass, and the keys of its fields in a JSON file."""

    keys: ClassVar[Mapping[str, str]] = {}
    """Field -> its key in JSON, if that differs."""

    def as_json(self) -> dict[str, Any]:
        """The values by their keys in a JSON file."""
        return {self.keys.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`."""
        return cls(**{field.name: values[cls.keys.get(field.name, field.name)] for field in fields(cls)})


J = TypeVar("J", bound=FigureRow)


class Grouped(Protocol):
    """The results of n queries, or predictions for n pictures. groups: (n,) str, which a resample draws as wholes."""

    @property
    def groups(self) -> np.ndarray: ...
    def __len__(self) -> int: ...


F = TypeVar("F", bound=Grouped)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The results of n queries in one direction; entry i of every array is query i's.

    direction: from query to gallery, such as "text->image". num_gallery: the number of items in the gallery.
    ids: (n,) int64, the picture that the query belongs to. groups: (n,) str, that picture's group, which a resample draws as a whole.
    first: (n,) int64, the 1-based rank of its first relevant item. precision: (n,) float64, its average precision.
    num_relevant: (n,) int64, the number of items that are relevant to it.
    """

    direction: str
    num_gallery: int
    ids: np.ndarray
    groups: np.ndarray
    first: np.ndarray
    precision: np.ndarray
    num_relevant: np.ndarray

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.direction}: every array needs one entry per query; their lengths are {lengths}")

    def __len__(self) -> int:
        return len(self.ids)


def look_up(
    direction: str,
    queries: np.ndarray,
    gallery: np.ndarray,
    query_marks: np.ndarray,
    gallery_marks: np.ndarray,
    ids: np.ndarray,
    groups: np.ndarray,
) -> Found:
    """Rank a gallery (m, d) for each of the queries (n, d) by inner product; an item is relevant if its mark equals the query's.

    query_marks (n,), gallery_marks (m,): integers, of pictures or classes; every query's mark is among the gallery's. Ties count against
    the model. ids, groups: (n,), see `Found`.
    """
    found = [
        relevant_ranks(line, gallery_marks == query_marks[number])
        for start, scores in score_blocks(queries, gallery)
        for number, line in enumerate(scores, start)
    ]
    return Found(
        direction=direction,
        num_gallery=len(gallery),
        ids=np.asarray(ids, np.int64),
        groups=groups,
        first=np.array([one[0] for one in found], np.int64),
        precision=np.array([average_precision(one) for one in found]),
        num_relevant=np.array([len(one) for one in found], np.int64),
    )


def judged_ids(store: Store, shards: ShardSet, ids: np.ndarray) -> np.ndarray:
    """Those of the ids (n,) of one split of a shard set whose pictures are in the store, in their order.

    Unreadable pictures are listed in the store's bad.csv, and are not in the gallery.
    InputError: the store was made from other shards, or from another split, or there are too few pairs or groups.
    """
    unseen = [shard.name for shard in shards.shards if shard.fingerprint not in set(store.sources.values())]
    if unseen:
        raise InputError(
            f"{store.path}: has no pictures from {shards.place}'s shard {unseen[0]}. Run: multimodal index --shards {shards.argument}"
        )
    if len(ids) < 2:
        raise InputError(
            f"{shards.place}: {len(ids)} pairs in this split; retrieval needs at least 2. To list the splits of its {len(shards)} pairs: "
            f"multimodal shards stats {shards.argument}"
        )
    held = ids[np.isin(ids, store.ids)]
    if len(held) < 2:
        raise InputError(
            f"{store.path}: holds {len(held)} of the {len(ids)} pictures of this split of {shards.place}. Index that split, "
            "or give the --part and --split that the store was made with"
        )
    for id, record in zip(held.tolist(), store.records(held, ["name"]), strict=True):
        if record["name"] != shards.names[id]:
            raise InputError(
                f"{store.path}: picture {id} is {record['name']} in the store and {shards.names[id]} in {shards.place}, whose shards have "
                "been removed or reordered since. Make the store again"
            )
    groups = {shards.groups[id] for id in held.tolist()}
    if len(groups) < 2:
        raise InputError(
            f"{shards.place}: all {len(held)} pairs of this split are in one group, {groups.pop()!r}. Pairs of one group count as one "
            "observation, so there is no interval: evaluate on a split with at least 2 groups"
        )
    return held


def groups_of(shards: ShardSet, ids: np.ndarray) -> np.ndarray:
    """(n,) str: the group of each pair."""
    return np.array([shards.groups[id] for id in np.asarray(ids).tolist()])


# -- files ---------------------------------------------------------------------------------------------------------------------------------


def write_rows(output: Path, rows: Sequence[FigureRow]) -> None:
    """The rows as JSON, in a file that the user named."""
    _write_json(output, [row.as_json() for row in rows])


def write_figures(output: Path, rows: Sequence[Mapping[str, Any]], found: Sequence[Found]) -> None:
    """Write the rows as JSON, and the results of each query to a Parquet table beside it, with the columns of `Found`."""
    table = pa.table(
        {
            "direction": pa.array([one.direction for one in found for _ in range(len(one))], pa.string()),
            "num_gallery": np.concatenate([np.full(len(one), one.num_gallery) for one in found]),
            **{name: np.concatenate([getattr(one, name) for one in found]) for name in _COLUMNS if name != "groups"},
            "groups": pa.array([group for one in found for group in one.groups.tolist()], pa.string()),
        }
    )
    with atomic_write(queries_path(output)) as file:
        pq.write_table(table, file)
    _write_json(output, list(rows))  # last: if the rows exist, so does the table of queries


def _write_json(output: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with write_output(output) as file:
        file.write((json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())


def read_found(output: Path) -> list[Found]:
    """The results of the queries behind the rows in `output`, one `Found` per row, in their order. InputError if the file is missing."""
    path = queries_path(output)
    if not path.is_file():
        raise InputError(f"{path}: is missing; it holds the results of each query of {output}. Run again the command that wrote {output}")
    table = pq.read_table(path)
    columns = {name: np.array(table[name].to_pylist()) for name in ("direction", "num_gallery", *_COLUMNS)}
    found = []
    for direction in dict.fromkeys(columns["direction"].tolist()):
        chosen = columns["direction"] == direction
        of_one = {name: columns[name][chosen] for name in _COLUMNS}
        found.append(Found(direction=direction, num_gallery=int(columns["num_gallery"][chosen][0]), **of_one))
    return found


def read_rows(files: Sequence[Path], kind: type[J]) -> tuple[list[J], list[Found]]:
    """The rows of files of figures, as records of the protocol's kind, and the query results of each row."""
    rows = [kind.from_json(values) for file in files for values in json.loads(file.read_text(encoding="utf-8"))]
    return rows, [found for file in files for found in read_found(file)]


def queries_path(output: Path) -> Path:
    """Where the queries of `figures.json` are: `figures.queries.parquet` beside it."""
    return Path(output).with_suffix(".queries.parquet")


# -- tables --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line(Generic[R]):
    """Rows that differ only in their seed, as one line of a table. interval: 95 %, of the mean of the main figure, in per cent."""

    rows: tuple[R, ...]
    interval: Interval

    def mean(self, field: str) -> float:
        """The mean of a figure over seeds."""
        return float(np.mean([getattr(row, field) for row in self.rows]))

    def between(self, field: str) -> str:
        """Its smallest and largest value over the seeds, as "30.0..36.0 of 3"; "" for a single seed."""
        values = [getattr(row, field) for row in self.rows]
        return f"{min(values):.1f}..{max(values):.1f} of {len(values)}" if len(values) > 1 else ""


def lines_of(rows: Sequence[R], found: Sequence[F], key: Callable[[R], Hashable], score: Callable[[F], np.ndarray]) -> list[Line[R]]:
    """Combine the rows of equal key. found: the query results of each row; score: their scores (n,), whose mean is the main figure.

    The interval of a line is that of the mean over its seeds, with groups drawn together with their results from all seeds (see
    `interval`): the uncertainty from the choice of pictures. The smallest and largest value show the variation between seeds.
    """
    if len(rows) != len(found):
        raise ValueError(f"{len(rows)} rows and query results of {len(found)}; expected one for each row")
    members: dict[Hashable, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(key(row), []).append(number)
    lines = []
    for numbers in members.values():
        of_line = [found[number] for number in numbers]
        low, high = interval(
            np.concatenate([score(one) for one in of_line]),
            np.concatenate([one.groups for one in of_line]),
            np.concatenate([np.full(len(one), 1 / len(one)) for one in of_line]),
        )
        lines.append(Line(tuple(rows[number] for number in numbers), Interval(per_cent(low), per_cent(high))))
    return lines


def align(header: Sequence[str], lines: Sequence[Sequence[str]], num_left: int) -> str:
    """A table as text: the first num_left columns left-aligned, the others right-aligned; empty columns are left out."""
    kept = [column for column in range(len(header)) if any(line[column] for line in lines)]
    widths = {column: max(len(line[column]) for line in [header, *lines]) for column in kept}
    return "\n".join(
        "  ".join(line[column].ljust(widths[column]) if column < num_left else line[column].rjust(widths[column]) for column in kept)
        for line in [header, *lines]
    )


def per_cent(share: float) -> float:
    """A share in per cent, rounded as in rows."""
    return round(100 * share, 2)
