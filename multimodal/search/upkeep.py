"""`multimodal store delete` and `multimodal store compact`: a finished store, made smaller.

multimodal store delete stores/photos --ids 3 5
multimodal store compact stores/photos
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from multimodal.errors import InputError
from multimodal.search.folders import DELETED, FILE, LEFT_OUT_SCHEMA, left_out
from multimodal.search.generation import PICTURES
from multimodal.search.joining import MAX_ROWS
from multimodal.search.writing import StoreWriter


def delete(store: Path, ids: Sequence[int] = (), where: str | None = None, trust: Sequence[str] = ()) -> None:
    """Delete pictures from a store. Files are not touched, and ids are not given again.

    Of a store of folders, `multimodal rescan` leaves the files out from then on; `multimodal rescan --restore` takes them again.
    The vectors stay on disk until `multimodal store compact`.

      multimodal store delete stores/photos --ids 3 5
      multimodal store delete stores/photos --where 'path like "Screenshots/%"'

    Args:
        store: the store's folder.
        ids: of the pictures, as `multimodal search` prints them.
        where: the pictures that meet this filter, as in `multimodal search --where`; with ids, those too.
        trust: packages whose engine the store names. Their code is run.
    """
    if not ids and where is None:
        raise InputError("which pictures? Give --ids, or --where with a filter. See: multimodal store delete --help")
    with StoreWriter(store, trust) as writer:
        going = sorted({*ids, *(writer.store.select(where).tolist() if where is not None else ())})
        if not going:
            raise InputError(f"{store}: no picture meets the filter {where!r}, so nothing was deleted")
        remember(writer, going)
        left = len(writer.store)
    print(f"{store}: {len(going):,} pictures deleted, {left:,} left", file=sys.stderr)


def remember(writer: StoreWriter, ids: Sequence[int]) -> None:
    """Delete pictures; of a store of folders, keep their files out of it from then on. InputError if an id is not in the store."""
    if PICTURES not in writer.store.manifest.config:
        writer.delete(ids)
        return
    tables = [left_out(writer.store)]
    for segment, live in writer.store.live_positions:
        at = live[np.isin(segment.ids[live], ids)]
        table = segment.table(FILE).take(pa.array(at)).append_column("reason", pa.array([DELETED] * len(at), pa.string()))
        tables.append(table.select(LEFT_OUT_SCHEMA.names))
    writer.change(delete=ids, left_out=pa.concat_tables(tables))


def compact(store: Path, trust: Sequence[str] = ()) -> None:
    """Rewrite a store without its deleted pictures, as one segment, or few large ones. Ids stay, and are not given again.

    A search that is running goes on: the old files stay until the next change.

      multimodal store compact stores/photos

    Args:
        store: the store's folder.
        trust: packages whose engine the store names. Their code is run.
    """
    with StoreWriter(store, trust) as writer:
        num = len(writer.store.segments)
        deleted = len(writer.store.deleted)
        if deleted or num > -(-len(writer.store) // MAX_ROWS):
            writer.compact()
        now = len(writer.store.segments)
        print(
            f"{store}: {len(writer.store):,} pictures; segments: {num:,} before, {now:,} now; {deleted:,} deleted rows removed",
            file=sys.stderr,
        )
