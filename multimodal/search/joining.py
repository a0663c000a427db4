"""The live pictures of many segments as one segment, written piece by piece: what `StoreWriter.compact` does.

facts = write_joined(store.path / "segments/000007", store)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.boxes import atomic_write, box_file, reading
from multimodal.boxes.arrays import write_array
from multimodal.search.segments import METADATA_GROUP, THUMBNAIL_GROUP, describe_segment

if TYPE_CHECKING:
    from multimodal.search.segments import SegmentReader
    from multimodal.search.store import Store

ROWS_TOGETHER = 1 << 14


def schema_of(store: Store) -> pa.Schema:
    """The metadata columns that any segment has, in order of appearance, with their types; null where no picture has a value."""
    fields: dict[str, pa.Field] = {}
    for segment in store.segments:
        path = box_file(segment.folder, "metadata.parquet")
        with reading(path):
            for field in pq.read_schema(path):
                if field.name not in fields or pa.types.is_null(fields[field.name].type):
                    fields[field.name] = field
    return pa.schema(list(fields.values()))


def write_joined(folder: Path, store: Store) -> dict[str, Any]:
    """Make the folder of a segment with all live pictures of a store, in its order, and return the facts that its manifest keeps."""
    live = store.live_positions
    folder.mkdir(parents=True)
    write_array(folder / "ids.npy", store.ids)
    with atomic_write(folder / "rows.npy") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (len(store.ids), store.dim)})
        for segment, positions in live:
            rows = segment.rows()
            for start in range(0, len(positions), ROWS_TOGETHER):
                file.write(np.ascontiguousarray(rows[positions[start : start + ROWS_TOGETHER]]).tobytes())
    schema = schema_of(store)
    _write_table(folder / "metadata.parquet", schema, (table for one in live for table in _metadata(*one, schema)), METADATA_GROUP, "zstd")
    if any(segment.has_thumbnails for segment, _ in live):
        pictures = pa.schema({"id": pa.int64(), "image": pa.binary()})
        tables = (table for segment, positions in live for table in _thumbnails(segment, positions))
        _write_table(folder / "thumbnails.parquet", pictures, tables, THUMBNAIL_GROUP, "none")
    return describe_segment(folder, len(store.ids), schema)


def _metadata(segment: SegmentReader, positions: np.ndarray, schema: pa.Schema) -> Iterator[pa.Table]:
    live = np.zeros(len(segment.ids), dtype=bool)
    live[positions] = True
    done = 0
    for batch in segment.batches(ROWS_TOGETHER):
        table = pa.Table.from_batches([batch]).filter(pa.array(live[done : done + len(batch)]))
        done += len(batch)
        there = table.column_names
        columns = [table[field.name].cast(field.type) if field.name in there else pa.nulls(len(table), field.type) for field in schema]
        yield pa.table(columns, schema=schema)


def _thumbnails(segment: SegmentReader, positions: np.ndarray) -> Iterator[pa.Table]:
    for start in range(0, len(positions), METADATA_GROUP):
        some = positions[start : start + METADATA_GROUP]
        yield pa.table({"id": pa.array(segment.ids[some]), "image": pa.array(segment.thumbnails(some), pa.binary())})


def _write_table(path: Path, schema: pa.Schema, tables: Iterator[pa.Table], group: int, compression: str) -> None:
    """In row groups of the same size however the tables are cut."""
    with atomic_write(path) as file, pq.ParquetWriter(file, schema, compression=compression, store_schema=False) as writer:
        left = schema.empty_table()
        for table in tables:
            left = pa.concat_tables([left, table])
            whole = len(left) - len(left) % group
            if whole:
                writer.write_table(left.slice(0, whole), row_group_size=group)
                left = left.slice(whole).combine_chunks()
        if len(left):
            writer.write_table(left, row_group_size=group)
