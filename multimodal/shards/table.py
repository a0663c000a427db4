"""The index of a set as an Arrow table with one row per pair: the offsets of its members in the tars, and what splits and listings need.

    table = open_table(box / "index.arrow")
    table.integers("image_offset"), table.strings("group")

Each shard has a sidecar (`000000.arrow`) beside its tar. `index.arrow` is their concatenation, with the shard's number as another column,
in a single record batch, so that columns are read from the memory map without a copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
import pyarrow as pa

from multimodal.boxes import atomic_write
from multimodal.errors import InputError

INDEX = "index.arrow"
SIDECAR = ".arrow"


@dataclass(frozen=True, slots=True)
class Row:
    """One pair in its tar. Offsets and sizes are in bytes; an absent member has size 0."""

    key: str
    group: str
    split: str
    name: str
    extension: str
    num_texts: int
    image_offset: int
    image_size: int
    json_offset: int
    json_size: int
    txt_offset: int
    txt_size: int


# large_string: the names in one record batch of many millions of rows take more than 2 GiB
SCHEMA = pa.schema([(field.name, pa.large_string() if field.type == "str" else pa.int64()) for field in fields(Row)])
INDEX_SCHEMA = SCHEMA.append(pa.field("shard", pa.int32()))
_STRINGS = tuple(field.name for field in SCHEMA if field.type == pa.large_string())


def string_digest(value: str) -> bytes:
    """An 8-byte hash of a string. A million take 8 MB; two of a million collide in fewer than one of 10^7 sets."""
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()


class Strings(Sequence[str]):
    """A column of strings, read from the index one by one; never a Python list of all of them."""

    def __init__(self, array: pa.LargeStringArray) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self._array[index].to_pylist()
        return self._array[int(index)].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 4096):
            yield from self._array[start : start + 4096].to_pylist()

    def to_numpy(self) -> np.ndarray:
        """(n,) array of str."""
        return np.array(self._array.to_pylist(), dtype=np.str_) if len(self) else np.zeros(0, np.str_)

    def distinct(self) -> dict[str, int]:
        """Value -> the number of rows with it, in order of first appearance."""
        return {entry["values"]: entry["counts"] for entry in self._array.value_counts().to_pylist()}

    def content(self) -> tuple[np.ndarray, np.ndarray]:
        """The end offset of each string, (n,) int64, and the UTF-8 bytes of all strings, (m,) uint8; the bytes are a view of the file."""
        _, ends, content = self._array.buffers()
        places = np.frombuffer(ends or bytes(8), np.int64)[self._array.offset : self._array.offset + len(self) + 1]
        return places[1:] - places[0], np.frombuffer(content or b"", np.uint8)[places[0] : places[-1]]

    def digests(self) -> np.ndarray:
        """(n,) uint64, the `string_digest` of each string."""
        return np.frombuffer(b"".join(map(string_digest, self)), np.uint64)

    def find(self, value: str) -> int | None:
        """The first row with the value, None if there is none."""
        row = self._array.index(value).as_py()
        return None if row < 0 else row


class IndexTable:
    """The columns of a sidecar or an index, memory-mapped."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return self.batch.num_rows

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the schema; in a sidecar num_pairs, and size_bytes and sha256 of its tar."""
        return {key.decode(): value.decode() for key, value in (self.batch.schema.metadata or {}).items()}

    def integers(self, column: str) -> np.ndarray:
        """(n,) int64 (`shard`: int32), a read-only view of the file."""
        array = self.batch.column(column)
        # Not array.to_numpy(): pyarrow imports pandas for it where that is installed, a third of a second before the first batch.
        values = np.frombuffer(array.buffers()[1] or b"", array.type.to_pandas_dtype())
        values = values[array.offset : array.offset + len(array)]
        values.flags.writeable = False
        return values

    def strings(self, column: str) -> Strings:
        """One column of strings."""
        return Strings(self.batch.column(column))

    def rows(self, start: int = 0, num: int | None = None) -> list[Row]:
        """The rows start to start + num - 1, by default all, as `Row` objects. Use it for one shard, not for a whole set."""
        part = self.batch.slice(start, num)
        return [Row(*values) for values in zip(*(part.column(field.name).to_pylist() for field in fields(Row)), strict=True)]


def make_table(rows: Sequence[Row], size_bytes: int, sha256: str) -> IndexTable:
    """The index of one tar, with the size and sha256 of the tar in the schema's metadata."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in SCHEMA]
    facts = {"num_pairs": str(len(rows)), "size_bytes": str(size_bytes), "sha256": sha256}
    return IndexTable(pa.RecordBatch.from_arrays(columns, schema=SCHEMA.with_metadata(facts)))


def merge(tables: Iterable[IndexTable]) -> IndexTable:
    """The index of a set from the indexes of its shards, which are numbered in the order given.

    Iterates twice, first for the sizes of the columns and then for their content, and keeps no table: of tables on disk, one is mapped at
    a time.
    """
    num_rows, num_bytes = 0, dict.fromkeys(_STRINGS, 0)
    for table in tables:
        num_rows += len(table)
        for name in _STRINGS:
            num_bytes[name] += table.strings(name).content()[1].size
    integers = {field.name: np.empty(num_rows, field.type.to_pandas_dtype()) for field in INDEX_SCHEMA if field.name not in _STRINGS}
    strings = {name: (np.zeros(num_rows + 1, np.int64), np.empty(size, np.uint8)) for name, size in num_bytes.items()}
    start = 0
    for number, table in enumerate(tables):
        stop = start + len(table)
        for name, column in integers.items():
            column[start:stop] = number if name == "shard" else table.integers(name)
        for name, (ends, content) in strings.items():
            own_ends, own_content = table.strings(name).content()
            before = ends[start]
            ends[start + 1 : stop + 1] = own_ends + before
            content[before : before + own_content.size] = own_content
        start = stop
    buffers = {name: [column] for name, column in integers.items()} | {name: list(column) for name, column in strings.items()}
    arrays = [
        pa.Array.from_buffers(field.type, num_rows, [None, *map(pa.py_buffer, buffers[field.name])], null_count=0) for field in INDEX_SCHEMA
    ]
    return IndexTable(pa.RecordBatch.from_arrays(arrays, schema=INDEX_SCHEMA))


def write_table(path: Path, table: IndexTable) -> dict[str, Any]:
    """Write a sidecar or an index atomically. Returns what `write_batch` returns."""
    with atomic_write(path) as file:
        return write_batch(file, table)


def write_batch(file: IO[bytes], table: IndexTable) -> dict[str, Any]:
    """Write a sidecar or an index into an open, empty file. Returns its size_bytes and fingerprint, for the manifest."""
    with pa.ipc.new_file(file, table.batch.schema) as writer:
        writer.write_batch(table.batch)
    file.flush()
    file.seek(0)
    fingerprint = file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return {"size_bytes": file.tell(), "fingerprint": fingerprint}


def open_table(path: Path, facts: Mapping[str, Any] | None = None) -> IndexTable:
    """Memory-map a sidecar or index; InputError if it is damaged or has another schema.

    facts: its size_bytes and fingerprint in the manifest. Columns are read from the map without validating each value, so the content must
    be what was written: the whole file is hashed once, with sha256. Without facts, every value is checked to be within its column, but
    a valid file with other content is not noticed.
    """
    try:
        if facts is not None:
            _check_content(path, facts)
        with pa.memory_map(str(path)) as source:
            return read_table(source, str(path), is_checked=facts is not None)
    except FileNotFoundError:
        raise InputError(f"{path}: the index is missing. Run: multimodal shards index {path.parent}") from None


def read_table(source: pa.Buffer | pa.NativeFile, name: str, is_checked: bool = False) -> IndexTable:
    """A sidecar or index from memory or an open file; InputError with the name if it is damaged or has another schema."""
    try:
        reader = pa.ipc.open_file(source)
        batch = reader.get_batch(0) if reader.num_record_batches == 1 else None
        schema = reader.schema.remove_metadata()
        if batch is not None and not is_checked:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise InputError(f"{name}: the index is damaged ({error}). Make the shards, or the index, again") from None
    if batch is None or schema not in (SCHEMA, INDEX_SCHEMA) or any(column.null_count for column in batch.columns):
        raise InputError(f"{name}: an Arrow file, but not the index of a shard set")
    return IndexTable(batch)


_content_checked: set[tuple[object, ...]] = set()
"""The files whose content was checked, in this process and those it forks; a file that is modified has another time stamp."""


def _check_content(path: Path, facts: Mapping[str, Any]) -> None:
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
        state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, facts["fingerprint"])
        if state in _content_checked:
            return
        if stat.st_size != facts["size_bytes"] or file_digest(file, "sha256").hexdigest() != facts["fingerprint"]:
            raise InputError(
                f"{path}: the index is damaged or was replaced: its content differs from what the manifest beside it says. "
                "Restore it, or make it again with: multimodal shards index"
            )
    _content_checked.add(state)
