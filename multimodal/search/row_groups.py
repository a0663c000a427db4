"""A few rows of a Parquet file that does not change: the row groups that hold them are read, and those that were read last are kept.

    groups = RowGroups(path_of=lambda: path, num_rows=20_000)
    groups.values(["name", "text"], positions)         # {"name": [...], "text": [...]}

A server shows the same pictures again and again, and to open a file and decode a group takes a thousand times as long as to look a value up
in it. What is kept is bounded in bytes, for all files of the process together.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.boxes import reading

KEPT_BYTES = 64 << 20
_Key = tuple[int, int, tuple[str, ...]]
"""The number of a file, that of a group in it, and columns."""


class RowGroups:
    """Of one file."""

    def __init__(self, path_of: Callable[[], Path], num_rows: int) -> None:
        """path_of: where the file is, asked for whenever it is opened. num_rows: how many rows it has to have."""
        self._path_of, self._num_rows = path_of, num_rows
        self._file = next(_files)
        self._names: list[str] = []
        self._stops: np.ndarray | None = None

    def values(self, columns: Sequence[str] | None, positions: np.ndarray) -> dict[str, list[Any]]:
        """Column -> values at some positions; None in a column that the file does not have. InputError if the file is damaged."""
        if self._stops is None:
            self._look()
        assert self._stops is not None
        names = list(self._names if columns is None else columns)
        present = tuple(name for name in names if name in self._names)
        groups = np.searchsorted(self._stops, positions, side="right") - 1
        tables = self._read(np.unique(groups).tolist(), present)
        places = [(tables[group], at) for group, at in zip(groups.tolist(), (positions - self._stops[groups]).tolist(), strict=True)]
        # by scalar, not Table.take: that imports pyarrow.compute, 40 ms of a cold search for ten values
        return {name: [table.column(name)[at].as_py() if name in present else None for table, at in places] for name in names}

    def _look(self) -> None:
        """Where each group begins."""
        path = self._path_of()
        with reading(path), pq.ParquetFile(path, memory_map=True) as file:
            if file.metadata.num_rows != self._num_rows:
                raise ValueError(f"holds {file.metadata.num_rows} rows; expected {self._num_rows}")
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            self._names = list(file.schema_arrow.names)
            self._stops = np.cumsum([0, *sizes])

    def _read(self, groups: Sequence[int], columns: tuple[str, ...]) -> dict[int, pa.Table]:
        found = {group: _kept.get((self._file, group, columns)) for group in groups}
        missing = [group for group, table in found.items() if table is None]
        if missing:
            path = self._path_of()
            with reading(path), pq.ParquetFile(path, memory_map=True) as file:
                for group in missing:
                    table = file.read_row_group(group, columns=list(columns))
                    found[group] = table
                    _kept.put((self._file, group, columns), table)
        return {group: table for group, table in found.items() if table is not None}


class _Kept:
    """Tables, of which the least recently used goes first."""

    def __init__(self) -> None:
        self._tables: OrderedDict[_Key, pa.Table] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def get(self, key: _Key) -> pa.Table | None:
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
            return self._tables.get(key)

    def put(self, key: _Key, table: pa.Table) -> None:
        with self._lock:
            before = self._tables.pop(key, None)
            self._num_bytes += table.nbytes - (0 if before is None else before.nbytes)
            self._tables[key] = table
            while self._num_bytes > KEPT_BYTES:
                _, oldest = self._tables.popitem(last=False)
                self._num_bytes -= oldest.nbytes


_kept = _Kept()
_files = itertools.count()
