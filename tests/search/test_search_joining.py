"""What compacting writes is what was there, however it is cut into pieces."""

from __future__ import annotations

import numpy as np

from multimodal.search.joining import in_turn, schema_of, write_joined
from multimodal.search.segments import SegmentReader
from multimodal.search.store import Store


def test_compacting_goes_piece_by_piece_and_changes_nothing(tmp_path, store_of_forty):
    """Rows, metadata and thumbnails in their order, in as many segments as are needed, whatever the pieces are."""
    store = Store(store_of_forty)
    for most in (1, 7, 20, 39, 1000):
        pieces = list(in_turn(store.live_positions, most))
        assert [sum(len(positions) for _, positions in piece) for piece in pieces[:-1]] == [most] * (len(pieces) - 1)
        readers = []
        for number, live in enumerate(pieces):
            folder = tmp_path / str(most) / "segments" / f"{number:06d}"
            readers.append(SegmentReader(folder, write_joined(folder, live, schema_of(store), store.dim)["rows"], store.dim))
        assert np.concatenate([one.ids for one in readers]).tolist() == store.ids.tolist()
        assert np.concatenate([one.rows() for one in readers]).tobytes() == store.take(store.ids).tobytes()
        for column in store.columns:
            assert [value for one in readers for value in one.metadata([column])[column]] == store.column(column)
        assert [small for one in readers for small in one.thumbnails(np.arange(len(one.ids)))] == store.thumbnails(store.ids)
