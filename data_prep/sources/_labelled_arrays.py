"""Pairs of pictures that are arrays with a class each: what the sources of such data sets have in common.

yield from pairs_of(arrays, part, ledger, str(input))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.pictures.formats import offer
from data_prep.sources import cut
from multimodal.pairs import Pair
from multimodal.pictures.arrays import LabelledArrays, png
from multimodal.shards import Ledger


def pairs_of(arrays: LabelledArrays, part: Mapping[str, Any] | None, ledger: Ledger, where: str) -> Iterator[Pair]:
    """train-00000.png, train-00001.png ...: each its own group, with its class as `label`. part: as `parts_of` has it; None: all."""
    for one in parts_of(arrays, 1000) if part is None else [part]:
        split = one["split"]
        for row in range(one["start"], one["stop"]):
            name = f"{split}-{row:05}"
            label = arrays.names[arrays.labels[split][row]]
            image = png(arrays.images[split][row])
            yield from offer(ledger, where, f"{name}.png", image, [], name, split, {"label": label}, needs_text=False)


def parts_of(arrays: LabelledArrays, pairs_per_shard: int) -> list[dict[str, Any]]:
    """Ranges of rows, each within one split."""
    return [part for split, rows in arrays.labels.items() for part in cut(len(rows), pairs_per_shard, split=split)]
