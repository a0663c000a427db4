"""What came with pictures beside their texts (class, date, camera, licence, split ...), as columns of a store that hits are filtered by.

    columns = MetadataColumns()
    columns.of([source.record(id) for id in ids])     # {"camera": ["X100", None, ...], "year": ["1999", "2004", ...]}
    columns.left_out                                  # "tags (a list or object: 60 pictures)"

Each value is kept as text, as `--where column=value` compares it: a string as it is, a number or a truth value as JSON writes it. A shard
set has no schema, a camera may be "X100" in one shard and 100 in the next, and a column must have one type over all that a store will hold.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MAX_CHARACTERS = 1000
"""Of a value: a longer one is a document and nothing to filter by."""
MAX_COLUMNS = 100
"""Of a segment: a source whose keys are data themselves would make one for each picture."""
OWN = ("name", "text", "group", "key", "set")
"""Columns that every store has; a key of the metadata that is called so becomes `metadata.name`."""
_SHOWN = 5


class MetadataColumns:
    """Makes the columns of one segment after the other, and counts what it leaves out."""

    def __init__(self) -> None:
        self._left_out: Counter[tuple[str, str]] = Counter()

    def of(self, records: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
        """Column -> n texts, None where a picture has none. records: n, as `ShardSet.record` gives them."""
        found: dict[str, list[str | None]] = {}
        for row, record in enumerate(records):
            values = {"split": record.get("split") or None, **record["metadata"]}
            for name, value in values.items():
                if name == "caption":  # the store's `text`
                    continue
                text, reason = _as_text(name, value)
                column = f"metadata.{name}" if name in OWN else name
                if text is not None and column not in found and len(found) == MAX_COLUMNS:
                    text, reason = None, f"more than {MAX_COLUMNS} columns"
                if reason:
                    self._left_out[name, reason] += 1
                if text is not None:
                    found.setdefault(column, [None] * len(records))[row] = text
        return found

    @property
    def left_out(self) -> str:
        """Keys, with the reason and the number of pictures, in one line; "" where nothing was left out."""
        told = [f"{name[:40]} ({reason}: {num} pictures)" for (name, reason), num in self._left_out.most_common()]
        return ", ".join(told[:_SHOWN]) + (f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")


def _as_text(name: str, value: Any) -> tuple[str | None, str]:
    """A value as a column keeps it, or None; and why it is left out, "" where it is not."""
    if value is None:
        return None, ""
    if isinstance(value, Mapping | list | tuple):
        return None, "a list or object"
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > MAX_CHARACTERS:
        return None, f"longer than {MAX_CHARACTERS:,} characters"
    try:
        (name + text).encode()
    except UnicodeEncodeError:
        return None, "no valid Unicode"
    return text, ""
