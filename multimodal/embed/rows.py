"""The vectors of a shard set's pictures, from an export that runs now or from a store that was made before: what protocols compare.

vectors = vectors_of(source, ids, export=Path("exports/lite0"))
vectors.ids, vectors.rows                    # the pictures that could be read (n,), and (n, d) float32
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multimodal.embed.pictures import as_batches, embed_pictures, pick_batch_size, pick_device
from multimodal.embed.stores import features_of
from multimodal.errors import InputError
from multimodal.export.model import Export, load_export
from multimodal.machine.progress import track
from multimodal.search.store import Store
from multimodal.shards.reader import ShardSet

NUM_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """ids: (n,) int64, ascending. rows: (n, d) float32, as the model gives them; from a store of length one. family: of the model."""

    ids: np.ndarray
    rows: np.ndarray
    family: str


def vectors_of(
    source: ShardSet,
    ids: np.ndarray,
    export: str | Path | None = None,
    store: Path | None = None,
    column: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
) -> Vectors:
    """The vectors of the pictures ids (n,), ascending. Those that cannot be read, or are not in the store, are left out, and named.

    export: a folder or hf://user/name, run on the pictures, or on the features of a column made by its trunk. InputError: neither or both
    of export and store are given; the store was made of other shards; no picture is left.
    """
    if (export is None) == (store is None):
        raise InputError("give --export E, a model to run on the pictures, or --store T, where its vectors are; one of the two")
    if export is not None:
        opened = load_export(export, pick_device(device), trust)
        rows = _embedded(opened, source, ids, column, batch_size)
        good, family = np.isfinite(rows).all(axis=1), opened.card.family
        ids, missing, rows, why = ids[good], ids[~good], rows[good], "cannot be read"
    else:
        assert store is not None  # mypy
        if column is not None:
            raise InputError("--column belongs to --export; a store has the vectors already. Leave it out")
        kept = Store(store, trust=trust)
        if unseen := [shard.name for shard in source.shards if shard.fingerprint not in set(kept.sources.values())]:
            raise InputError(
                f"{store}: has no pictures from {source.place}'s shard {unseen[0]}. Run: multimodal index --shards {source.argument}"
            )
        there = np.isin(ids, kept.ids)
        ids, missing, family, why = ids[there], ids[~there], kept.family, "are not in the store"
        rows = kept.take(ids).astype(np.float32)
    if len(missing):
        named = ", ".join(source.key(id) for id in missing[:NUM_NAMED].tolist())
        told = f"{source.place}: {len(missing)} of {len(ids) + len(missing)} pictures {why}, such as {named}"
        if not len(ids):
            raise InputError(f"{told}. Choose another --part, or make the store of this one")
        print(f"{told}. They are left out", file=sys.stderr)
    return Vectors(ids, rows, family)


def _embedded(opened: Export, source: ShardSet, ids: np.ndarray, column: str | None, batch_size: int | None) -> np.ndarray:
    """(n, d) float32; NaN for pictures that cannot be read."""
    batches = as_batches(ids, pick_batch_size(batch_size, opened.device))
    if column is None:
        embedded = embed_pictures(source.image_bytes, batches, opened.network, opened.preprocessing)
        found = track(embedded, f"embedding {source.name}", unit="picture", total=len(ids), weight=len(batches[0]))
        return np.concatenate([batch.rows for batch in found])
    features = features_of(opened, source, column)
    return np.concatenate(
        [opened.embed_features(np.stack([features.rows(id)[0] for id in some.tolist()]).astype(np.float32)) for some in batches]
    )
