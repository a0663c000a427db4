"""The live pictures of many segments as few, written piece by piece: what `StoreWriter.compact` does.

for number, live in enumerate(in_turn(store.live_positions), start=7):
    facts = write_joined(store.path / segment_name(number), live, schema_of(store), store.dim)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.boxes import atomic_write, box_file, reading
from multimodal.boxes.arrays import write_array
from multimodal.search.blobs import write_blobs
from multimodal.search.segments import METADATA_FILE, METADATA_GROUP, THUMBNAILS, describe_segment

if TYPE_CHECKING:
    from multimodal.search.segments import SegmentReader
    from multimodal.search.store import Store

    Live: TypeAlias = Sequence[tuple[SegmentReader, np.ndarray]]

ROWS_TOGETHER = 1 << 14
MAX_ROWS = 1 << 16
"""Of a joined segment: whoever reads of its metadata reads first where each group of rows lies in its file."""


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


def in_turn(live: Live, max_rows: int = MAX_ROWS) -> Iterator[Live]:
    """The same rows in the same order, at most max_rows together."""
    some: list[tuple[SegmentReader, np.ndarray]] = []
    room = max_rows
    for segment, positions in live:
        while len(positions):
            some.append((segment, positions[:room]))
            positions, room = positions[room:], room - len(some[-1][1])
            if not room:
                yield some
                some, room = [], max_rows
    if some:
        yield some


def write_joined(folder: Path, live: Live, schema: pa.Schema, dim: int) -> dict[str, Any]:
    """Make the folder of a segment with these rows, and return the facts that a store's manifest keeps."""
    ids = np.concatenate([segment.ids[positions] for segment, positions in live])
    folder.mkdir(parents=True)
    write_array(folder / "ids.npy", ids)
    with atomic_write(folder / "rows.npy") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (len(ids), dim)})
        for segment, positions in live:
            rows = segment.rows()
            for start in range(0, len(positions), ROWS_TOGETHER):
                file.write(np.ascontiguousarray(rows[positions[start : start + ROWS_TOGETHER]]).tobytes())
    _write_metadata(folder / "metadata.parquet", schema, (table for one in live for table in _metadata(*one, schema)))
    if any(segment.has_thumbnails for segment, _ in live):
        write_blobs(folder / THUMBNAILS, (small for one in live for small in _thumbnails(*one)))
    return describe_segment(folder, len(ids), schema)


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


def _thumbnails(segment: SegmentReader, positions: np.ndarray) -> Iterator[bytes | None]:
    for start in range(0, len(positions), METADATA_GROUP):
        yield from segment.thumbnails(positions[start : start + METADATA_GROUP])


def _write_metadata(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """In row groups of the same size however the tables are cut."""
    with atomic_write(path) as file, pq.ParquetWriter(file, schema, **METADATA_FILE) as writer:
        left = schema.empty_table()
        for table in tables:
            left = pa.concat_tables([left, table])
            whole = len(left) - len(left) % METADATA_GROUP
            if whole:
                writer.write_table(left.slice(0, whole), row_group_size=METADATA_GROUP)
                left = left.slice(whole).combine_chunks()
        if len(left):
            writer.write_table(left, row_group_size=METADATA_GROUP)
