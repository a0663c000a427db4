"""The vectors of a shard set's pictures, from a network that runs now or from a store that was made before: what protocols compare.

vectors = vectors_of(source, ids, export=Path("exports/lite0"))
vectors.ids, vectors.rows                    # the pictures that could be read (n,), and (n, d) float32
embedded(source, ids, trunk, trunk.preprocessing)      # the same of any network
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from multimodal.embed.pictures import as_batches, embed_pictures, pick_batch_size, pick_device
from multimodal.embed.stores import features_of
from multimodal.errors import InputError
from multimodal.export.model import Export, load_export
from multimodal.machine.progress import track
from multimodal.pictures.preprocessing import Preprocessing, height_width
from multimodal.search.store import Store
from multimodal.shards.reader import ShardSet

NUM_NAMED = 3
PIXELS_AT_ONCE = 8 * 224 * 224
"""On a CPU: small pictures come in larger batches. With 8 drawings of 28 pixels at a time, most of the time would be overhead."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """ids (n,) int64, ascending, of the pictures that could be read; rows (n, d) float32."""

    ids: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Vectors(Embedded):
    """rows: as the model gives them; from a store of length one. family: of the model."""

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
        if column is None:
            found = embedded(source, ids, opened.network, opened.preprocessing, batch_size)
        else:
            found = embedded_column(opened, source, ids, column, opened.embed_features, batch_size)
        return Vectors(found.ids, found.rows, opened.card.family)
    assert store is not None  # mypy
    if column is not None:
        raise InputError("--column belongs to --export; a store has the vectors already. Leave it out")
    kept = Store(store, trust=trust)
    if unseen := [shard.name for shard in source.shards if shard.fingerprint not in set(kept.sources.values())]:
        raise InputError(
            f"{store}: has no pictures from {source.place}'s shard {unseen[0]}. Run: multimodal index --shards {source.argument}"
        )
    there = np.isin(ids, kept.ids)
    _leave_out(source, ids, there, "are not in the store", {})
    return Vectors(ids[there], kept.take(ids[there]).astype(np.float32), kept.family)


def embedded(
    source: ShardSet,
    ids: np.ndarray,
    network: nn.Module,
    preprocessing: Preprocessing,
    batch_size: int | None = None,
    num_threads: int | None = None,
    max_bad_share: float = 1.0,
) -> Embedded:
    """The vectors of the pictures ids (n,), ascending, by a network on the device that it is on. Unreadable ones are left out, and named.

    InputError: none is left, or more than max_bad_share cannot be read; or vectors are not finite.
    """
    device = next(network.parameters()).device
    if batch_size is None and device.type == "cpu":
        tall, wide = height_width(preprocessing.size)
        batch_size = max(8, PIXELS_AT_ONCE // (tall * wide))
    batches = as_batches(ids, pick_batch_size(batch_size, device))
    made = embed_pictures(source.image_bytes, batches, network, preprocessing, num_threads)
    done = list(track(made, f"embedding {source.name}", unit="picture", total=len(ids), weight=len(batches[0])))
    rows = np.concatenate([batch.rows for batch in done])
    bad = {id: reason for batch in done for id, reason in batch.bad.items()}
    return _readable(source, ids, rows, ~np.isin(ids, list(bad)), bad, max_bad_share)


def embedded_column(
    opened: Export,
    source: ShardSet,
    ids: np.ndarray,
    column: str,
    network: Callable[[np.ndarray], np.ndarray],
    batch_size: int | None = None,
) -> Embedded:
    """As `embedded`, from features of the export's trunk that are there already. network: (b, d) float32 -> (b, dim_out) float32."""
    features = features_of(opened, source, column)
    batches = as_batches(ids, pick_batch_size(batch_size, opened.device))
    parts = [np.stack([features.rows(id)[0] for id in some.tolist()]).astype(np.float32) for some in batches]
    is_read = np.concatenate([np.isfinite(one).all(axis=1) for one in parts])
    return _readable(source, ids, np.concatenate([network(one) for one in parts]), is_read, {})


def _readable(
    source: ShardSet, ids: np.ndarray, rows: np.ndarray, is_read: np.ndarray, reasons: Mapping[int, str], max_bad_share: float = 1.0
) -> Embedded:
    _leave_out(source, ids, is_read, "cannot be read", reasons, max_bad_share)
    if not np.isfinite(rows[is_read]).all():
        raise InputError("its vectors are not finite; the training may have diverged. Choose another export")
    return Embedded(ids[is_read], rows[is_read])


def _leave_out(
    source: ShardSet, ids: np.ndarray, kept: np.ndarray, why: str, reasons: Mapping[int, str], max_bad_share: float = 1.0
) -> None:
    """Tell which are not kept, (n,) bool, naming the first with its reason; InputError if none or too few are left."""
    missing = ids[~kept].tolist()
    if not missing:
        return
    named = ", ".join(source.key(id) + (f" ({reasons[id]})" if id in reasons else "") for id in missing[:NUM_NAMED])
    told = f"{source.place}: {len(missing)} of {len(ids)} pictures {why}, such as {named}"
    if len(missing) == len(ids):
        raise InputError(f"{told}. Choose another --part, or make the store of this one")
    if len(missing) > max_bad_share * len(ids):
        raise InputError(f"{told}: more than --max-bad-share {max_bad_share}")
    print(f"{told}. They are left out", file=sys.stderr)
