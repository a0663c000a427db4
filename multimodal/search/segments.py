"""One immutable part of a store: ids, rows, metadata and thumbnails of pictures that were added together.

    write_segment(store / "segments/000000", Segment(ids, rows, metadata={"name": names, "text": texts}, thumbnails=jpegs))

Plain files: `ids.npy` (n,) int64, `rows.npy` (n, d) float16 of unit length, `metadata.parquet` with a row per picture, and, if there are
any, `thumbnails.bin` and `thumbnails.npy`, see `multimodal.search.blobs`; before 0.2 they were `thumbnails.parquet` (id, image). A segment
named in a store's manifest is never changed in place.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.boxes import atomic_write, box_file, fingerprint_file, fingerprint_json, reading
from multimodal.boxes.arrays import read_array, write_array
from multimodal.errors import InputError
from multimodal.search.blobs import Blobs, write_blobs
from multimodal.search.row_groups import RowGroups

REQUIRED_COLUMNS = ("name", "text")
METADATA_GROUP = 1024  # rows in a Parquet row group: as many are read for one hit
METADATA_FILE = {"compression": "zstd", "store_schema": False}
THUMBNAILS = "thumbnails"


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """What goes into a segment; row i of everything belongs to ids[i].

    ids: (n,) integers, unique. rows: (n, d) float, finite, none of them zero; a store normalises them to unit length.
    metadata: column -> n scalars (str, int, float, bool, datetime or None) or an Arrow array, which keeps its type even if all are None; at
        least "name" and "text". Pictures of a shard set also have "group", "key" and "set", those of folders what `search.folders` says.
    thumbnails: n encoded pictures (JPEG, WebP, PNG or AVIF bytes, or None for a picture without one), or None for no thumbnails at all.
    """

    ids: np.ndarray
    rows: np.ndarray
    metadata: Mapping[str, Sequence[Any]]
    thumbnails: Sequence[bytes | None] | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.rows.ndim != 2 or len(self.rows) != n:
            raise InputError(f"{n} ids and rows of shape {self.rows.shape}; wanted ({n}, d)")
        if missing := [name for name in REQUIRED_COLUMNS if name not in self.metadata]:
            raise InputError(f"metadata without {', '.join(missing)}; a store needs {' and '.join(REQUIRED_COLUMNS)} for every picture")
        for name, values in (*self.metadata.items(), *([("thumbnails", self.thumbnails)] if self.thumbnails is not None else [])):
            if len(values) != n:
                raise InputError(f"{n} ids and {len(values)} values of {name}; wanted one for each")
        if repeated := duplicates(self.ids):
            raise InputError(f"ids must be unique in a store; these come twice: {name_some(repeated)}")


def unit_rows(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The rows (n, d) at unit length, float32; InputError that names the ids whose rows are zero or not finite."""
    exact = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    broken = ~(np.isfinite(norms) & (norms > 0))[:, 0]
    if broken.any():
        raise InputError(f"rows that are zero or not finite cannot be searched; their ids: {name_some(ids[broken].tolist())}")
    return (exact / norms).astype(np.float32)


def write_segment(folder: Path, segment: Segment) -> dict[str, Any]:
    """Make the folder, write the files, rows as they are in float16, and return the facts that the store's manifest keeps."""
    ids = np.asarray(segment.ids, dtype=np.int64)
    metadata = pa.table({name: _column(name, values) for name, values in segment.metadata.items()})
    folder.mkdir(parents=True)
    write_array(folder / "ids.npy", ids)
    write_array(folder / "rows.npy", np.asarray(segment.rows, dtype=np.float16))
    with atomic_write(folder / "metadata.parquet") as file:
        pq.write_table(metadata, file, row_group_size=METADATA_GROUP, **METADATA_FILE)
    if segment.thumbnails is not None:
        write_blobs(folder / THUMBNAILS, segment.thumbnails)
    return describe_segment(folder, len(ids), metadata.schema)


def describe_segment(folder: Path, num_rows: int, schema: pa.Schema) -> dict[str, Any]:
    """The facts that a store's manifest keeps of a segment that was written: rows, columns with their types, size, and a fingerprint."""
    return {
        "rows": num_rows,
        "columns": {column.name: str(column.type) for column in schema},
        "size_bytes": sum(path.stat().st_size for path in _files(folder)),
        "fingerprint": fingerprint_segment(folder),
    }


def fingerprint_segment(folder: Path) -> str:
    """A fingerprint over the content and the names of all its files."""
    return fingerprint_json({path.name: fingerprint_file(path) for path in _files(folder)})


class SegmentReader:
    """A segment on disk. Opening reads only the ids; every other call maps the file it needs and releases it, so thousands are cheap.

    What was read of a few rows is kept for a while, see `multimodal.search.row_groups`.
    """

    def __init__(self, folder: Path, num_rows: int, dim: int) -> None:
        """num_rows, dim: n and d, from the store's manifest. InputError if the ids are damaged."""
        self.folder = folder
        self.number = int(folder.name)
        self.dim = dim
        self._paths: dict[str, Path] = {}
        self._metadata = RowGroups(partial(self._file, "metadata.parquet"), num_rows)
        self._thumbnails: Blobs | RowGroups | None = None
        self._mapped: Callable[[], np.ndarray | None] = lambda: None
        self.places: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        """Of `multimodal.search.places`: the version of a map -> where all its rows are on it."""
        path = box_file(folder, "ids.npy")
        with reading(path):
            self.ids: np.ndarray = read_array(path)
            _check_array(self.ids, (num_rows,), np.int64)

    def rows(self) -> np.ndarray:
        """(n, d) float16, memory-mapped. While somebody has them, as an engine does, others get the same ones."""
        mapped = self._mapped()
        if mapped is not None:
            return mapped
        path = self._file("rows.npy")
        with reading(path):
            rows = read_array(path, mapped=True)
            _check_array(rows, (len(self.ids), self.dim), np.float16)
        self._mapped = weakref.ref(rows)
        return rows

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The metadata as an Arrow table of n rows: all columns, or those of the given ones that this segment has."""
        path = self._file("metadata.parquet")
        with reading(path), pq.ParquetFile(path) as file:
            if file.metadata.num_rows != len(self.ids):
                raise ValueError(f"holds {file.metadata.num_rows} rows; expected {len(self.ids)}")
            there = file.schema_arrow.names
            return file.read(columns=there if columns is None else [name for name in columns if name in there])

    def batches(self, num_rows: int) -> Iterator[pa.RecordBatch]:
        """All metadata, a few rows at a time."""
        path = self._file("metadata.parquet")
        with reading(path), pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=num_rows)

    def metadata(self, columns: Sequence[str] | None = None, positions: np.ndarray | None = None) -> dict[str, list[Any]]:
        """Column -> values at the positions (None for all); a column that this segment does not have is all None."""
        if positions is None:
            return _read_whole(self._file("metadata.parquet"), columns, len(self.ids))
        values = self._metadata.values(columns, positions)
        with reading(self.folder / "metadata.parquet"):
            return _checked(values)

    def arrow_column(self, name: str) -> pa.ChunkedArray:
        """One column (n,) as Arrow has it; of nulls if this segment does not have it."""
        path = self._file("metadata.parquet")
        with reading(path), pq.ParquetFile(path, memory_map=True) as file:
            if file.metadata.num_rows != len(self.ids):
                raise ValueError(f"holds {file.metadata.num_rows} rows; expected {len(self.ids)}")
            if name not in file.schema_arrow.names:
                return pa.chunked_array([pa.nulls(len(self.ids))])
            return file.read(columns=[name]).column(name)

    @property
    def has_thumbnails(self) -> bool:
        return self._file(f"{THUMBNAILS}.bin").is_file() or self._file(f"{THUMBNAILS}.parquet").is_file()

    def thumbnails(self, positions: np.ndarray) -> list[bytes | None]:
        """The encoded pictures at the positions, None for a picture without one."""
        if not self.has_thumbnails:
            return [None] * len(positions)
        if self._thumbnails is None:
            content = self._file(f"{THUMBNAILS}.bin")
            if content.is_file():
                self._thumbnails = Blobs(content, self._file(f"{THUMBNAILS}.npy"), len(self.ids))
            else:
                self._thumbnails = RowGroups(partial(self._file, f"{THUMBNAILS}.parquet"), len(self.ids))
        if isinstance(self._thumbnails, Blobs):
            return self._thumbnails.values(positions)
        return self._thumbnails.values(["image"], positions)["image"]

    def _file(self, name: str) -> Path:
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: the store changed twice since it was opened, and this segment is gone. Open it again")
        if name not in self._paths:  # to follow all links again takes as long as to read a few rows
            self._paths[name] = box_file(self.folder, name)
        return self._paths[name]


def _check_array(array: np.ndarray, shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"holds {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape}")


def column_type(values: Sequence[Any], name: str) -> str:
    """The Arrow type that a metadata column would have, as text; "null" if every value is None."""
    return str(_column(name, values).type)


def duplicates(ids: np.ndarray) -> list[int]:
    """The ids that occur more than once, ascending."""
    values, counts = np.unique(np.asarray(ids), return_counts=True)
    return values[counts > 1].tolist()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    try:
        array = values if isinstance(values, pa.Array) else pa.array(list(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InputError(f"metadata column {name}: wanted values of one scalar type: {error}") from None
    if pa.types.is_nested(array.type):
        raise InputError(f"metadata column {name}: holds {array.type}; a column holds scalars. Join the values, or leave the column out")
    return array


def _read_whole(path: Path, columns: Sequence[str] | None, num_rows: int) -> dict[str, list[Any]]:
    """Values by column. InputError if the file is damaged."""
    with reading(path), pq.ParquetFile(path, memory_map=True) as file:
        if file.metadata.num_rows != num_rows:
            raise ValueError(f"holds {file.metadata.num_rows} rows; expected {num_rows}")
        names = list(file.schema_arrow.names if columns is None else columns)
        present = [name for name in names if name in file.schema_arrow.names]
        table = file.read(columns=present)
        return _checked({name: table.column(name).to_pylist() if name in present else [None] * num_rows for name in names})


def _checked(values: dict[str, list[Any]]) -> dict[str, list[Any]]:
    for name in values.keys() & set(REQUIRED_COLUMNS):
        if not all(isinstance(value, str) for value in values[name]):
            raise ValueError(f"column {name} holds a value that is not a string")
    return values


def name_some(ids: Sequence[int], shown: int = 10) -> str:
    return ", ".join(map(str, ids[:shown])) + (f" and {len(ids) - shown} more" if len(ids) > shown else "")
