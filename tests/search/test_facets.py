"""What columns hold, counted: each count is that of the filter beside it, whatever the numbers are."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.search.facets import MAX_BINS, facets
from multimodal.search.filters import FilterColumns

INT64 = st.integers(-(2**63), 2**63 - 1)
COLUMNS = {
    "numbers": st.lists(st.floats() | st.none() | st.floats(0.1, 0.9).map(lambda value: round(value, 2)), min_size=1, max_size=40),
    "near numbers": st.lists(st.integers(-50, 50).map(lambda value: 0.1 * value), min_size=1, max_size=40),
    "numbers far from zero": st.lists(st.floats(1e9, 1e9 + 1e3), min_size=1, max_size=40),
    "whole numbers": st.lists(INT64 | st.none(), min_size=1, max_size=40),
    "whole numbers far from zero": st.lists(st.integers(2**62, 2**62 + 99), min_size=1, max_size=40),
    "dates": st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)) | st.none(), min_size=1, max_size=40),
    "truth values": st.lists(st.booleans() | st.none(), min_size=1, max_size=40),
    "text": st.lists(st.sampled_from(["a", 'say "hi"', "% _", "<b>", "\\", "and", "", "ü", "1 < 2"]) | st.none(), min_size=1, max_size=40),
}
NAMES = st.sampled_from(["size", "exif:make", "a b", "größe", "and", "<i>", "__proto__", "100%", "it's"])


@dataclass
class Columns:
    """A store of one column, as far as facets ask."""

    name: str
    values: pa.ChunkedArray
    columns: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = [self.name]
        self.ids = np.arange(len(self.values))
        self.filter_columns = FilterColumns(self)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.values)

    def arrow_column(self, name: str) -> pa.ChunkedArray:
        return self.values


@pytest.mark.parametrize("kind", COLUMNS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_count_is_that_of_its_filter(kind: str, data: st.DataObject) -> None:
    values = data.draw(COLUMNS[kind])
    store = Columns(data.draw(NAMES), pa.chunked_array([pa.array(values)]))
    for facet in facets(store):
        for one in (*facet.values, *facet.bins):
            assert int(store.filter_columns.meeting(one.where).sum()) == one.count, one
        assert len(facet.bins) <= MAX_BINS + 2 or kind == "dates"
        if kind not in ("text", "truth values"):
            counted = [value for value in values if value is not None and not (isinstance(value, float) and not np.isfinite(value))]
            assert sum(one.count for one in facet.bins) == len(counted)
