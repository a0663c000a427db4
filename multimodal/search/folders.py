"""What a store of people's own pictures knows of their files, so that `multimodal rescan` finds out what has changed without reading them.

    known(store)            # a table: id, path, folder, size, modified, content of every picture
    left_out(store)         # a table: files in the same folders that the store has no picture of, and why

Both are Arrow tables: a million files take 100 MB, and are compared without a loop in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.boxes import MANIFEST, atomic_write, box_file, fingerprint_bytes, fingerprint_file, reading
from multimodal.errors import InputError
from multimodal.search.generation import PICTURES, is_left_out

if TYPE_CHECKING:
    from multimodal.search.store import Store

TIME = pa.timestamp("us")
COLUMNS: Mapping[str, pa.DataType] = {
    "name": pa.string(),
    "text": pa.string(),
    "path": pa.string(),
    "folder": pa.string(),
    "size": pa.int64(),
    "modified": TIME,
    "date": TIME,
    "camera": pa.string(),
    "latitude": pa.float64(),
    "longitude": pa.float64(),
    "width": pa.int64(),
    "height": pa.int64(),
    "content": pa.string(),
}
"""The columns of such a store, which has them in every segment, however empty they are there.

name: of the file; text: "", since a name is no caption. path: relative to its folder, with / between folders; folder: absolute.
size: in bytes. modified: of the file, UTC. date: when it was taken, the camera's local time, by EXIF alone. camera: its model.
latitude, longitude: degrees. width, height: pixels, upright. content: sha256 of the file.
"""
FILE = ("path", "folder", "size", "modified", "content")
LEFT_OUT_SCHEMA = pa.schema({"path": pa.string(), "folder": pa.string(), "size": pa.int64(), "modified": TIME, "reason": pa.string()})
DELETED = "deleted from the store by hand; to have it back: multimodal rescan --restore"
"""The reason why a file that can be read is left out."""


def folders_of(store: Store) -> list[str]:
    """The folders that the store was made of, absolute. InputError if it was made of something else."""
    if PICTURES not in store.manifest.config:
        raise InputError(
            f"{store.path}: was made of a shard set, and knows no folder of pictures. What was added to the set is indexed by: "
            "multimodal index --shards"
        )
    return list(store.manifest.config[PICTURES]["folders"])


def known(store: Store) -> pa.Table:
    """A row for each picture: its id (int64), and `FILE`. In the store's order."""
    tables = []
    for segment, live in store.live_positions:
        table = segment.table(FILE).take(pa.array(live))
        tables.append(pa.table({"id": pa.array(segment.ids[live], pa.int64()), **{name: _column(store, table, name) for name in FILE}}))
    schema = pa.schema({"id": pa.int64(), **{name: COLUMNS[name] for name in FILE}})
    return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()


def left_out(store: Store) -> pa.Table:
    """See `LEFT_OUT_SCHEMA`. InputError if the file of it is damaged."""
    for name, facts in store.manifest.parts.items():
        if is_left_out(name):
            path = box_file(store.path, name)
            with reading(path):
                if fingerprint_file(path) != facts["fingerprint"]:
                    raise ValueError("it is not the list of files that was written")
                table = pq.read_table(path)
                if table.schema != LEFT_OUT_SCHEMA or len(table) != facts["files"]:
                    raise ValueError("it is no list of files")
            return table
    return LEFT_OUT_SCHEMA.empty_table()


def write_left_out(path: Path, table: pa.Table) -> dict[str, Any]:
    """Write it, and return the facts that the store's manifest keeps."""
    with atomic_write(path) as file:
        pq.write_table(table.cast(LEFT_OUT_SCHEMA), file, store_schema=False, compression="zstd")
    return {"files": len(table), "fingerprint": fingerprint_file(path)}


def places(table: pa.Table) -> pa.Array:
    """The absolute path of each row's file."""
    import pyarrow.compute as pc

    joined = pc.binary_join_element_wise(table["folder"], table["path"], "/")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _column(store: Store, table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names or table.schema.field(name).type != COLUMNS[name]:
        raise InputError(
            f"{store.path / MANIFEST}: it was made of folders of pictures, but has no column {name} of type {COLUMNS[name]}. "
            "Make the store again"
        )
    return table[name]


def attached(store: Store, folder: str | Path | Mapping[str, str | Path]) -> dict[str, Path]:
    """Folder as the store calls it -> where it is. InputError if it is not one of the store's, or not there."""
    of_store = folders_of(store)
    if not isinstance(folder, Mapping):
        if len(of_store) > 1 and str(folder) not in of_store:
            named = {of_store[0]: str(folder)}
            raise InputError(f"{store.path}: has several folders, so say which one this is: store.attach(folder={named})")
        folder = {str(folder) if str(folder) in of_store else of_store[0]: folder}
    if unknown := [name for name in folder if name not in of_store]:
        raise InputError(f"{store.path}: was not made of the folder {unknown[0]}. Its folders are: {', '.join(of_store)}")
    found = {name: Path(place).expanduser() for name, place in folder.items()}
    if absent := [place for place in found.values() if not place.is_dir()]:
        raise InputError(f"{absent[0]}: is no folder. Give the folder that the pictures are in now")
    return found


def whole_picture(store: Store, id: int) -> bytes | None:
    """The file of a picture, None if its folder is not attached. InputError if it is gone, or not the one that was indexed.

    A store may be somebody else's: its paths stay inside the attached folder, and a file is given out by its content alone.
    """
    [record] = store.records([id], ("folder", "path", "content"))
    place = store.folders.get(record["folder"])
    if place is None:
        return None
    path = box_file(place, record["path"], may_link=True)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. What has changed in the folder is found by: multimodal rescan {store.path}") from None
    if fingerprint_bytes(content) != record["content"]:
        raise InputError(f"{path}: has changed since it was indexed. Run: multimodal rescan {store.path}")
    return content
