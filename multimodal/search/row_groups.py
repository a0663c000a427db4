"""A few rows of a Parquet file that does not change: the row groups that hold them are read, and those that were read last are kept.

    groups = RowGroups(path_of=lambda: path, num_rows=20_000)
    groups.values(["name", "text"], positions)         # {"name": [...], "text": [...]}

A server shows the same pictures again and again, and to open a file and decode a group takes a thousand times as long as to look a value up
in it. A file's footer, which says where its groups are, may take longer to read than a group. What is kept of both is bounded in bytes,
for all files of the process together.
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
"""The number of a file, that of a group in it (-1: its footer), and columns."""
_FOOTER = -1
_FOOTER_GROWS = 12
"""A footer in memory takes so many times its size on disk, as measured."""


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
        with reading(path), self._opened(path) as file:
            if file.metadata.num_rows != self._num_rows:
                raise ValueError(f"holds {file.metadata.num_rows} rows; expected {self._num_rows}")
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            self._names = list(file.schema_arrow.names)
            self._stops = np.cumsum([0, *sizes])

    def _read(self, groups: Sequence[int], columns: tuple[str, ...]) -> dict[int, pa.Table]:
        found: dict[int, pa.Table | None] = {group: _kept.get((self._file, group, columns)) for group in groups}
        missing = [group for group, table in found.items() if table is None]
        if missing:
            path = self._path_of()
            with reading(path), self._opened(path) as file:
                for group in missing:
                    # in this thread: to hand a group to others takes as long as to read it
                    table = file.read_row_group(group, columns=list(columns), use_threads=False)
                    found[group] = table
                    _kept.put((self._file, group, columns), table, table.nbytes)
        return {group: table for group, table in found.items() if table is not None}

    def _opened(self, path: Path) -> pq.ParquetFile:
        key = (self._file, _FOOTER, ())
        file = pq.ParquetFile(path, memory_map=True, metadata=_kept.get(key))
        _kept.put(key, file.metadata, _FOOTER_GROWS * file.metadata.serialized_size)
        return file


class _Kept:
    """Tables and footers, of which the least recently used go first."""

    def __init__(self) -> None:
        self._values: OrderedDict[_Key, tuple[Any, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def get(self, key: _Key) -> Any | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: _Key, value: Any, num_bytes: int) -> None:
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self._num_bytes += num_bytes - before
            self._values[key] = (value, num_bytes)
            while self._num_bytes > KEPT_BYTES and len(self._values) > 1:
                _, (_, freed) = self._values.popitem(last=False)
                self._num_bytes -= freed


_kept = _Kept()
_files = itertools.count()
