"""`multimodal index`: put the pictures of a shard set through an export into a store that is searched by itself.

    multimodal index --export exports/topic --shards data/wiki --output stores/topic

One segment a shard: a job that was stopped goes on at the first shard that is missing, and a set that grew is indexed by the same command.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal.boxes import box_file
from multimodal.data.decode import Decoded
from multimodal.embed.pictures import EmbeddedBatch, as_batches, embed_pictures, in_order, pick_batch_size, pick_device, recall
from multimodal.errors import InputError
from multimodal.export.model import QUERY, Export, load_export
from multimodal.progress import track
from multimodal.search.segments import Segment
from multimodal.search.store import Store, StoreWriter, create_store
from multimodal.shards.columns import Column
from multimodal.shards.ledger import Ledger
from multimodal.shards.reader import Shard, ShardSet
from multimodal.shards.remote import SetPath, open_set
from multimodal.shards.split import Part, Split

THUMBNAIL_PX = 96
THUMBNAIL_QUALITY = 85


def index(
    export: Path,
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
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
) -> Path:
    """Embed the pictures of a shard set and keep the vectors, with names, texts and thumbnails, as a store.

    Ids in the store are ids in the shard set. A picture that cannot be read is left out, and named in the store's bad.csv.

    Args:
        export: what turns pictures and queries into vectors; see `multimodal export`.
        shards: the shard set, a folder or a URL.
        output: the store, made where there is none yet and added to where it was made from the same export.
        part: train, test or all.
        split: how the parts are cut; seed 0 and a fifth held out by default.
        column: a feature column that the export's own trunk made (checked): only the head runs then.
        thumbnails: keep a small JPEG of each picture, so that hits can be shown without the shards.
        batch_size: pictures that go through the network together; by default 8 on a CPU and 256 on an accelerator.
        num_threads: pictures are decoded (and on a CPU computed) in so many threads; by default one for each core.
        device: cpu, cuda:0 ...; by default the accelerator where there is one.
        max_bad_share: fail where a larger share of the pictures cannot be read.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
        trust: your own package, or packages, whose classes the export names. Their code is run; without this nothing is imported
            because a folder names it.
    """
    opened, source = load_export(export, pick_device(device), trust), open_set(shards, cache, cache_bytes)
    ids = split.ids(source, part)
    if not len(ids):
        raise InputError(f"{source.place}: no pair is in part {part!r} with seed {split.seed} and held_out {split.held_out}")
    features = None if column is None else _features(opened, source, column)
    create_store(output, box_file(export, QUERY), opened.card.family, opened.fingerprint, trust)
    cut = "" if part == "all" else f" {part} (seed {split.seed}, held out {split.held_out})"
    store = Store(output)
    is_there = all(_is_there(store, f"{source.name}/{shard.name}{cut}", shard) for shard in source.shards)
    # A store with nothing to add may lie where nothing can be written, not even a lock.
    with nullcontext() if is_there else StoreWriter(output) as writer, Ledger(Path(output) / "bad.csv", max_bad_share) as ledger:
        store = writer.store if writer else store
        missing = [shard for shard in source.shards if not _is_there(store, f"{source.name}/{shard.name}{cut}", shard)]
        _check_places(store, source)
        recall(ledger, {f"{source.name}/{shard.name}{cut}" for shard in missing})
        ledger.good(len(store))
        batch_size = pick_batch_size(batch_size, opened.device)
        ids_of = {shard.name: ids[np.searchsorted(ids, shard.ids.start) : np.searchsorted(ids, shard.ids.stop)] for shard in missing}
        batches = [as_batches(ids_of[shard.name], batch_size) for shard in missing]
        every = [batch for of_one in batches for batch in of_one]
        also = thumbnail if thumbnails else None
        if features is None:
            embedded = embed_pictures(source.image_bytes, every, opened.network, opened.preprocessing, num_threads, also)
        else:
            embedded = _embed_features(opened, source, every, features, num_threads, also)
        results = track(embedded, f"indexing {source.name}", unit="picture", total=sum(map(len, every)), weight=batch_size)
        for shard, of_one in zip(missing, batches, strict=True):
            name = f"{source.name}/{shard.name}{cut}"
            segment = _segment([next(results) for _ in of_one], name, source, opened.card.dim, ledger, thumbnails)
            ledger.write()  # before the segment: a job that goes on finds there what it must not forget
            assert writer is not None
            writer.append(segment, made_from={name: shard.fingerprint})
        for _ in results if missing else ():  # lets the progress say that it is done
            pass
        done = f"{len(writer.store)} pictures" if writer and missing else "is there already"
    print(f"{output}: {done}" + (f", {ledger.num_bad} left out: {ledger.path}" if ledger.num_bad else ""), file=sys.stderr)
    return Path(output)


def thumbnail(decoded: Decoded) -> bytes:
    """A JPEG of the whole picture, at most THUMBNAIL_PX on its longer side. Raises BadPicture."""
    small = decoded.image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "jpeg", quality=THUMBNAIL_QUALITY)
    return file.getvalue()


def _is_there(store: Store, name: str, shard: Shard) -> bool:
    before = store.sources.get(name)
    if before not in (None, shard.fingerprint):
        raise InputError(
            f"{store.path}: holds pictures of {name} as it was, {before[:12]}; it is {shard.fingerprint[:12]} now. "
            "Choose another folder, or delete this store"
        )
    return before is not None


def _check_places(store: Store, source: ShardSet) -> None:
    """InputError where a picture of the set lies in the store under an id that is another pair's by now: a shard went, or came before."""
    if not len(store) or not {"set", "key", "name"} <= set(store.columns):
        return
    for id, of, key, name in zip(store.ids.tolist(), *map(store.column, ("set", "key", "name")), strict=True):
        if of == source.name and id < len(source) and (key, name) != (source.key(id), source.names[id]):
            raise InputError(
                f"{store.path}: picture {id} is {name} there and {source.names[id]} in {source.place}, whose shards have changed places "
                "since. Choose another folder, or delete this store"
            )


def _features(opened: Export, source: ShardSet, name: str) -> Column:
    """The column of that name; InputError where it is of other shards, or where another trunk made it."""
    column = Column.of(source, name)
    made_by, wanted = column.manifest.made_from.get("trunk"), opened.manifest.made_from["trunk"]
    if made_by != wanted:
        maker = f"the trunk {made_by[:12]}" if made_by else "no trunk"
        raise InputError(
            f"{column.path}: made by {maker}, and the export {opened.path} has the trunk {wanted[:12]}. "
            "Leave --column out, and the export's own trunk sees the pictures"
        )
    return column


def _embed_features(
    opened: Export,
    source: ShardSet,
    batches: Sequence[np.ndarray],
    column: Column,
    num_threads: int | None,
    also: Callable[[Decoded], bytes] | None,
) -> Iterator[EmbeddedBatch]:
    """As `embed_pictures`, with the trunk's features read from a column."""

    def embed(ids: np.ndarray) -> EmbeddedBatch:
        features = column.take(ids)
        readable = np.isfinite(features).all(axis=1)
        rows = opened.embed_features(np.where(readable[:, None], features, 0))
        rows[~readable] = np.nan
        bad = {int(id): f"its row of column {column.name} is not finite" for id in ids[~readable]}
        extras = [also(Decoded(source.image_bytes(id))) if id not in bad else None for id in ids.tolist()] if also else []
        return EmbeddedBatch(ids, rows, bad, extras)

    return in_order(embed, batches, num_threads)


def _segment(batches: Sequence[EmbeddedBatch], where: str, source: ShardSet, dim: int, ledger: Ledger, thumbnails: bool) -> Segment:
    """The pictures of one shard that have a direction, with what a hit shows; the others go to the ledger."""
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
        # an article is about more than its figure, whose own caption ends in the credit that has to be shown with it
        "text": [str(record["metadata"].get("caption") or record["texts"][0]) for record in records],
        "group": [record["group"] for record in records],
        "key": [source.key(id) for id in ids[good].tolist()],
        "set": [source.name] * len(records),
    }
    kept = [extras[place] for place in np.flatnonzero(good)] if thumbnails else None
    return Segment(ids[good], rows[good], metadata, kept)
