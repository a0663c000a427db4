"""`multimodal index --shards`: embed the pictures of a shard set with an export, into a store that can be searched without the shards.

One segment per shard: a stopped job continues at the first missing shard, and the same command indexes what was added to a set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from multimodal.boxes import State, box_file, state_of
from multimodal.data.decode import Decoded
from multimodal.embed.metadata import MetadataColumns
from multimodal.embed.pictures import EmbeddedBatch, as_batches, embed_pictures, in_order, pick_batch_size, pick_device, recall
from multimodal.errors import InputError
from multimodal.export.model import QUERY, Export, load_export
from multimodal.machine.progress import track
from multimodal.pictures.thumbnails import thumbnail_jpeg
from multimodal.search.engine import EngineRecipe
from multimodal.search.generation import PICTURES, VIEWS
from multimodal.search.kept import describe_index, is_needed
from multimodal.search.places import describe_map
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.shards.columns import Column
from multimodal.shards.ledger import Ledger
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import SetPath, open_set
from multimodal.shards.split import Part, Split
from multimodal.shards.tars import Shard

METADATA = "metadata"
"""In the manifest of a store that keeps what came with its pictures; absent in one that was begun before, or without."""
THUMBNAIL_PX = 192
"""As high as a row of the search page. 10.9 kB each for 200 photographs of Flickr8k, where 96 pixels took 3.7 kB; stores may hold both."""


def index(
    export: str | Path,
    shards: SetPath,
    output: Path,
    part: Part = "all",
    split: Split = Split(),  # noqa: B008 (frozen)
    column: str | None = None,
    thumbnails: bool = True,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    max_bad_share: float = 0.05,
    engine: EngineRecipe | None = None,
    template: str | None = None,
    metadata: bool | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
    views: int = 1,
) -> Path:
    """Embed the pictures of a shard set and keep the vectors, with names, texts and thumbnails, as a store.

    Ids in the store are ids in the shard set. Unreadable pictures are left out, and listed in the store's bad.csv.

    The settings are those of `multimodal index --shards`, see `multimodal.embed.door`.
    """
    if views < 1:
        raise InputError(f"views={views} must be at least 1")
    opened, source = load_export(export, pick_device(device), trust), open_set(shards, cache, cache_bytes)
    ids = split.ids(source, part)
    if not len(ids):
        raise InputError(
            f"{source.place}: no pair is in {part!r} (split seed {split.seed}, held out {split.held_out}). Choose another --part or --split"
        )
    features = None if column is None else features_of(opened, source, column, views)
    trusted = [*trust, *([] if engine is None else [engine.package])]  # whoever names a class means it to be run
    settings = {**({} if metadata is False else {METADATA: True}), **({} if views == 1 else {VIEWS: views})}
    create_store(output, box_file(opened.path, QUERY), opened.card.family, opened.fingerprint, trusted, engine, settings)
    cut = "" if part == "all" else f" {part} (seed {split.seed}, held out {split.held_out})"
    store = Store(output, trust=trusted)
    if PICTURES in store.manifest.config:
        raise InputError(f"{output}: holds folders of pictures, and a store is either of those or of shards. Choose another --output")
    keeps = bool(store.manifest.config.get(METADATA))
    if metadata not in (None, keeps):
        raise InputError(
            f"{output}: was begun {'with' if keeps else 'without'} metadata, and goes on so. Leave --metadata out, or choose another folder"
        )
    if (begun := store.manifest.config.get(VIEWS, 1)) != views:
        raise InputError(f"{output}: its pictures have --views {begun}, so others need that too. Give it, or choose another folder")
    columns = MetadataColumns() if keeps else None
    is_there = (
        all(_is_there(store, f"{source.name}/{shard.name}{cut}", shard) for shard in source.shards)
        and _is_calibrated(store, template)
        and not is_needed(store)
    )
    # A store with nothing to add may be read-only: write nothing, not even a lock.
    with nullcontext() if is_there else StoreWriter(output, trusted) as writer, Ledger(Path(output) / "bad.csv", max_bad_share) as ledger:
        store = writer.store if writer else store
        missing = [shard for shard in source.shards if not _is_there(store, f"{source.name}/{shard.name}{cut}", shard)]
        _check_places(store, source)
        recall(ledger, {f"{source.name}/{shard.name}{cut}" for shard in missing})
        ledger.good(len(store))
        batch_size = pick_batch_size(batch_size, opened.device, views)
        ids_of = {shard.name: ids[np.searchsorted(ids, shard.ids.start) : np.searchsorted(ids, shard.ids.stop)] for shard in missing}
        batches = [as_batches(ids_of[shard.name], batch_size) for shard in missing]
        every = [batch for of_one in batches for batch in of_one]
        also = thumbnail if thumbnails else None
        if features is None:
            embedded = embed_pictures(source.image_bytes, every, opened.network, opened.preprocessing, num_threads, also, views)
        else:
            embedded = _embed_features(opened, source, every, features, num_threads, also, views)
        embedded = (replace(batch, rows=mean_of_views(batch.rows, views)) for batch in embedded)
        results = track(embedded, f"indexing {source.name}", unit="picture", total=sum(map(len, every)), weight=batch_size)
        for shard, of_one in zip(missing, batches, strict=True):
            name = f"{source.name}/{shard.name}{cut}"
            segment = _segment([next(results) for _ in of_one], name, source, opened.card.dim, ledger, thumbnails, columns)
            ledger.write()  # before the segment: a resumed job reads the earlier entries from it
            assert writer is not None
            writer.append(segment, made_from={name: shard.fingerprint})
        for _ in results if missing else ():  # lets the progress report that it is done
            pass
        if writer and not _is_calibrated(writer.store, template):
            writer.calibrate(template)
        if writer:
            writer.build_index()
            store = writer.store
        done = f"{len(writer.store)} pictures" if writer and missing else "is there already"
    print(f"{output}: {done}" + (f", {ledger.num_bad} left out: {ledger.path}" if ledger.num_bad else ""), file=sys.stderr)
    for told in filter(None, (describe_index(store), describe_map(store))):
        print(f"{output}: {told}", file=sys.stderr)
    if columns is not None and columns.left_out:
        print(f"{output}: of the metadata, these are no columns: {columns.left_out}", file=sys.stderr)
    return Path(output)


def thumbnail(decoded: Decoded) -> bytes:
    """What a store keeps of a picture: a JPEG of at most THUMBNAIL_PX on its longer side. Raises BadPicture."""
    return thumbnail_jpeg(decoded.image, THUMBNAIL_PX)


def _is_calibrated(store: Store, template: str | None) -> bool:
    """Whether the store keeps a calibration of the pictures that it has now, with the template if one is given."""
    kept = store.fitted
    return kept is not None and store.is_calibrated and template in (None, kept["template"])


def _is_there(store: Store, name: str, shard: Shard) -> bool:
    """Whether the store holds the pictures of a shard. InputError where it holds them as the shard was before it changed."""
    before = store.sources.get(name)
    then, remedies = None if before is None else {name: before}, ("choose another --output", "delete this store")
    return state_of(store.path, {name: shard.fingerprint}, then, remedies=remedies) is State.FINISHED


def _check_places(store: Store, source: ShardSet) -> None:
    """InputError if an id in the store now belongs to another pair of the set: a shard was removed, or inserted before it."""
    if not len(store) or not {"set", "key", "name"} <= set(store.columns):
        return
    for id, of, key, name in zip(store.ids.tolist(), *map(store.column, ("set", "key", "name")), strict=True):
        if of == source.name and id < len(source) and (key, name) != (source.key(id), source.names[id]):
            raise InputError(
                f"{store.path}: picture {id} is {name} in the store and {source.names[id]} in {source.place}: the shards have been removed "
                "or reordered since. Choose another --output, or delete this store"
            )


def features_of(opened: Export, source: ShardSet, name: str, views: int = 1) -> Column:
    """The column of that name; InputError if it was made from other shards, by another trunk, or with fewer views."""
    column = Column.of(source, name)
    made_by, wanted = column.manifest.made_from.get("trunk"), opened.manifest.made_from["trunk"]
    if made_by != wanted:
        maker = f"the trunk {made_by[:12]}" if made_by else "no trunk"
        raise InputError(
            f"{column.path}: made by {maker}, and the export {opened.path} has the trunk {wanted[:12]}. "
            "Leave --column out to run the export's own trunk on the pictures"
        )
    if views > (made := column.manifest.config.get(VIEWS, 1)):
        raise InputError(f"{column.path}: has {made} views of each picture, and --views {views} needs as many. Make them: multimodal embed")
    return column


def _embed_features(
    opened: Export,
    source: ShardSet,
    batches: Sequence[np.ndarray],
    column: Column,
    num_threads: int | None,
    also: Callable[[Decoded], bytes] | None,
    views: int,
) -> Iterator[EmbeddedBatch]:
    """As `embed_pictures`, with the trunk's features read from a column."""

    def embed(ids: np.ndarray) -> EmbeddedBatch:
        features = np.concatenate([column.rows(id)[:views] for id in ids.tolist()]).astype(np.float32)
        readable = np.all(np.isfinite(features), axis=1)
        rows = opened.embed_features(np.where(readable[:, None], features, 0))
        rows[~readable] = np.nan
        bad = {int(id): f"its row of column {column.name} is not finite" for id in ids[~readable.reshape(-1, views).all(axis=1)]}
        extras = [also(Decoded(source.image_bytes(id))) if id not in bad else None for id in ids.tolist()] if also else []
        return EmbeddedBatch(ids, rows, bad, extras)

    return in_order(embed, batches, num_threads)


def mean_of_views(rows: np.ndarray, views: int) -> np.ndarray:
    """(n * views, d), the views of one picture adjacent -> (n, d)."""
    return rows.reshape(-1, views, rows.shape[1]).mean(axis=1) if views > 1 else rows


def _segment(
    batches: Sequence[EmbeddedBatch],
    where: str,
    source: ShardSet,
    dim: int,
    ledger: Ledger,
    thumbnails: bool,
    columns: MetadataColumns | None,
) -> Segment:
    """The pictures of one shard that have a vector, with what a hit shows; the others go to the ledger."""
    ids = np.concatenate([np.empty(0, np.int64), *(batch.ids for batch in batches)])
    rows = np.concatenate([np.empty((0, dim), np.float32), *(batch.rows for batch in batches)])
    extras = [extra for batch in batches for extra in batch.extras]
    reasons = {id: reason for batch in batches for id, reason in batch.bad.items()}
    good = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    for id in ids[~good].tolist():
        ledger.bad(where, source.key(id), reasons.get(id, "its vector is zero or not finite"))
    ledger.good(int(good.sum()))
    records = [source.record(id) for id in ids[good].tolist()]
    metadata = {
        "name": [record["name"] for record in records],
        # an article is about more than its figure; the figure's own caption ends with the credit that must be shown with it
        "text": [str(record["metadata"].get("caption") or "".join(record["texts"][:1])) for record in records],
        "group": [record["group"] for record in records],
        "key": [source.key(id) for id in ids[good].tolist()],
        "set": [source.name] * len(records),
        **({} if columns is None else columns.of(records)),
    }
    kept = [extras[place] for place in np.flatnonzero(good)] if thumbnails else None
    return Segment(ids[good], rows[good], metadata, kept)
