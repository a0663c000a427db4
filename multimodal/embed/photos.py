"""`multimodal index --pictures` and `multimodal rescan`: people's own pictures, in folders as they are and without captions, as a store.

    index_pictures("exports/clip", ["/home/me/Photos"], Path("stores/photos"))
    rescan(Path("stores/photos"))               # what was added, changed, moved and removed since

The files are read, never written. Pictures are committed `segment_size` files at a time, in the order of their paths: a stopped job goes on
where it was, and ends in the same store. Torch is loaded when there is a picture to embed, and not before.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from multimodal.boxes import MANIFEST, box_file, fingerprint_bytes, read_manifest
from multimodal.embed.scan import CANNOT_READ, Scan, ToDo, compare, place_of, scan
from multimodal.errors import InputError
from multimodal.export.card import read_card
from multimodal.export.hub import local
from multimodal.machine.progress import track
from multimodal.pictures.decode import BadPicture, header
from multimodal.pictures.exif import Taken, read_exif
from multimodal.search.engine import EngineRecipe
from multimodal.search.folders import COLUMNS, DELETED, LEFT_OUT_SCHEMA, folders_of, left_out
from multimodal.search.generation import PICTURES, QUERY, VIEWS
from multimodal.search.kept import describe_index, is_needed
from multimodal.search.places import describe_map
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.shards.ledger import Ledger

if TYPE_CHECKING:
    from multimodal.data.decode import Decoded
    from multimodal.embed.pictures import EmbeddedBatch

SEGMENT_SIZE = 1024
MAX_FILE_BYTES = 1 << 30
"""A larger file is not read into memory; the largest picture that is decoded has a quarter of it as pixels."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What was done, in pictures, of `total` that there are now.

    unreadable, deleted: files that are left out, as they cannot be read, or since they were deleted from the store by hand.
    away: folder that is not there -> its pictures, which were kept.
    """

    total: int
    added: int
    changed: int
    moved: int
    removed: int
    unreadable: int
    deleted: int
    away: Mapping[str, int]

    def __str__(self) -> str:
        counts = {"added": self.added, "changed": self.changed, "moved": self.moved, "removed": self.removed}
        told = [f"{num:,} {what}" for what, num in counts.items() if num]
        return f"{self.total:,} pictures, " + (", ".join(told) or "nothing new")


@dataclass(frozen=True, slots=True)
class _Work:
    """How pictures are embedded."""

    num_threads: int | None
    batch_size: int | None
    device: str | None
    template: str | None
    trust: Sequence[str]
    segment_size: int

    def __post_init__(self) -> None:
        if self.segment_size < 1:
            raise InputError(f"segment_size={self.segment_size} must be at least 1")


def index_pictures(
    export: str | Path,
    pictures: Sequence[str | Path],
    output: Path,
    thumbnails: bool = True,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    engine: EngineRecipe | None = None,
    template: str | None = None,
    trust: Sequence[str] = (),
    views: int = 1,
    segment_size: int = SEGMENT_SIZE,
) -> Path:
    """Embed the pictures in folders with an export, and keep the vectors with path, date, camera and place as a store.

    The settings are those of `multimodal index --pictures`. An existing store gets the folders that it does not have, and what has changed
    in these; its others are not looked at.
    """
    if views < 1:
        raise InputError(f"views={views} must be at least 1")
    trusted = (*trust, *(() if engine is None else (engine.package,)))  # whoever names a class means it to be run
    work = _Work(num_threads, batch_size, device, template, trusted, segment_size)
    folder, folders = local(export), [os.path.abspath(os.path.expanduser(one)) for one in pictures]
    made_by = read_manifest(folder, kind="export")
    for one in folders:
        if not os.path.isdir(one):
            raise InputError(f"{one}: {'is not a folder' if os.path.exists(one) else 'does not exist'}. Give a folder of pictures")
    _check_apart(folders)
    found = None
    if not (output / MANIFEST).is_file():  # nothing is made for a folder without pictures
        found = _scan(folders, output)
        if not len(found.table):
            raise InputError(_nothing(folders))
    settings = {
        PICTURES: {"folders": folders, "export": str(folder.absolute()), "thumbnails": thumbnails},
        **({} if views == 1 else {VIEWS: views}),
    }
    create_store(output, box_file(folder, QUERY), read_card(folder).family, made_by.fingerprint, trusted, engine, settings)
    store = Store(output, trust=trusted)
    before = folders_of(store)
    if (begun := store.manifest.config.get(VIEWS, 1)) != views:
        raise InputError(f"{output}: its pictures have --views {begun}, so others need that too. Give it, or choose another folder")
    every = list(dict.fromkeys([*before, *folders]))
    _check_apart(every, f"{output} has one of them, and keeps it. Index the other into another --output")
    config = {**store.manifest.config[PICTURES], "folders": every, "export": str(folder.absolute())}
    done = _update(store, found or _scan(folders, output), config, work)
    _tell(output, done)
    if not done.total and done.unreadable:
        first = _unreadable(left_out(Store(output)))[0]
        raise InputError(f"{output}: no picture can be read. {first['path']}: {first['reason']}. All of them: {output / 'bad.csv'}")
    return Path(output)


def rescan(
    store: Path,
    export: str | Path | None = None,
    remove_missing_folders: bool = False,
    restore: bool = False,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    template: str | None = None,
    trust: Sequence[str] = (),
    segment_size: int = SEGMENT_SIZE,
) -> Changes:
    """Make a store of folders equal to them again: what is new or has changed is embedded, what is gone is removed, what moved is kept.

    The settings are those of `multimodal rescan`.
    """
    work = _Work(num_threads, batch_size, device, template, tuple(trust), segment_size)
    opened = Store(store, trust=trust)
    folders, config = folders_of(opened), dict(opened.manifest.config[PICTURES])
    if export is not None:
        config["export"] = str(local(export).absolute())
        _check_export(opened, Path(config["export"]))
    done = _update(opened, _scan(folders, store), config, work, remove_missing_folders, restore)
    _tell(store, done)
    return done


def _scan(folders: Sequence[str], store: Path) -> Scan:
    found = scan(folders, leave_out=[store])
    for note in found.notes:
        print(note, file=sys.stderr)
    return found


def _update(
    store: Store, found: Scan, config: Mapping[str, Any], work: _Work, remove_missing_folders: bool = False, restore: bool = False
) -> Changes:
    """Do what is to do. A store with nothing to do may be read-only: then nothing is written, not even a lock."""
    todo = compare(store, found, remove_missing_folders, restore)
    if len(todo.new):
        _check_export(store, Path(config["export"]))
    has_folders = set(config["folders"]) <= set(folders_of(store))
    is_done = not todo and has_folders and _is_calibrated(store, work.template) and not is_needed(store)
    num_new = 0
    with nullcontext() if is_done else StoreWriter(store.path, work.trust) as writer:
        if writer is not None:
            if writer.store.manifest != store.manifest:  # another one wrote before we had the lock
                todo = compare(writer.store, found, remove_missing_folders, restore)
            _remove_and_move(writer, todo, config)
            num_new = _add(writer, found, todo, config, work)
            if not _is_calibrated(writer.store, work.template):
                writer.calibrate(work.template)
            writer.build_index()
            store = writer.store
    out = left_out(store)
    _write_ledger(store.path, out)
    unreadable = len(_unreadable(out))
    num_changed = min(todo.num_changed, num_new)
    return Changes(
        total=len(store),
        added=num_new - num_changed,
        changed=num_changed,
        moved=todo.num_moved,
        removed=todo.num_removed,
        unreadable=unreadable,
        deleted=len(out) - unreadable,
        away=todo.away,
    )


def _is_calibrated(store: Store, template: str | None) -> bool:
    return store.is_calibrated and template in (None, (store.fitted or {}).get("template"))


def _remove_and_move(writer: StoreWriter, todo: ToDo, config: Mapping[str, Any]) -> None:
    """In one generation, so that a search never sees a picture twice, or not at all."""
    is_new = config["folders"] != writer.store.manifest.config[PICTURES]["folders"]
    if is_new or todo.deleted or len(todo.described) or todo.has_other_left_out:
        writer.change(
            delete=todo.deleted,
            describe=todo.described if len(todo.described) else None,
            left_out=todo.left_out if todo.has_other_left_out else None,
            pictures=config,
        )


def _add(writer: StoreWriter, found: Scan, todo: ToDo, config: Mapping[str, Any], work: _Work) -> int:
    """Embed the new pictures, and commit them a segment at a time; how many could be read."""
    if not len(todo.new):
        return 0
    from multimodal.embed.pictures import as_batches, embed_pictures, pick_batch_size, pick_device
    from multimodal.export.model import load_export

    opened = load_export(Path(config["export"]), pick_device(work.device), work.trust)
    views = int(writer.store.manifest.config.get(VIEWS, 1))
    batch_size = pick_batch_size(work.batch_size, opened.device, views)
    first = writer.store.next_id
    reader = _Reader(found.table, todo.new, first, bool(config.get("thumbnails", True)))
    ids = np.arange(first, first + len(todo.new))
    segments = [as_batches(some, batch_size) for some in as_batches(ids, work.segment_size)]
    every = [batch for of_one in segments for batch in of_one]
    embedded = embed_pictures(
        reader.read, every, opened.network, opened.preprocessing, work.num_threads, reader.describe, views, exact=True
    )
    results = track(embedded, "indexing", unit="picture", total=len(ids), weight=batch_size)
    out, num = todo.left_out, 0
    for of_one in segments:
        segment, bad = reader.segment([next(results) for _ in of_one], opened.card.dim, views)
        out = pa.concat_tables([out, bad])
        num += len(segment.ids)
        writer.change(
            add=segment if len(segment.ids) else None,
            left_out=out if len(bad) else None,
            next_id=int(of_one[-1][-1]) + 1,
            pictures=config,
        )
    for _ in results:  # lets the progress report that it is done
        pass
    return num


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a store keeps of a picture beside its vector."""

    content: str
    width: int
    height: int
    taken: Taken
    thumbnail: bytes | None


class _Reader:
    """The files of new pictures, by the ids that these get. files: a scan's table; rows: the places of the new ones in it."""

    def __init__(self, files: pa.Table, rows: np.ndarray, first: int, thumbnails: bool) -> None:
        self._files, self._rows, self._first, self._thumbnails = files, rows, first, thumbnails

    def row(self, id: int) -> int:
        return int(self._rows[id - self._first])

    def read(self, id: int) -> bytes:
        """The file's bytes; BadPicture if they cannot be read."""
        try:
            with open(place_of(self._files, self.row(id)), "rb") as file:
                encoded = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise BadPicture(f"{CANNOT_READ}{error.strerror or error}") from None
        if len(encoded) > MAX_FILE_BYTES:
            raise BadPicture(f"larger than {MAX_FILE_BYTES >> 30} GiB")
        return encoded

    def describe(self, decoded: Decoded) -> _Facts:
        """Called with a picture that was decoded."""
        from multimodal.embed.stores import thumbnail

        said = header(decoded.encoded)
        small = thumbnail(decoded) if self._thumbnails else None
        return _Facts(fingerprint_bytes(decoded.encoded), said.width, said.height, read_exif(said.exif), small)

    def segment(self, batches: Sequence[EmbeddedBatch], dim: int, views: int) -> tuple[Segment, pa.Table]:
        """The pictures that have a vector, and the files that are left out."""
        from multimodal.embed.stores import mean_of_views

        ids = np.concatenate([batch.ids for batch in batches])
        rows = mean_of_views(np.concatenate([batch.rows for batch in batches]), views)
        facts = [one for batch in batches for one in batch.extras]
        reasons = {id: reason for batch in batches for id, reason in batch.bad.items()}
        good = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
        told = self._files.take(pa.array([self.row(id) for id in ids[good].tolist()], pa.int64()))
        kept = [one for one, is_good in zip(facts, good.tolist(), strict=True) if is_good]
        bad = self._files.take(pa.array([self.row(id) for id in ids[~good].tolist()], pa.int64()))
        why = [reasons.get(id, "its vector is zero or not finite") for id in ids[~good].tolist()]
        segment = Segment(ids[good], rows[good], _metadata(told, kept), [one.thumbnail for one in kept] if self._thumbnails else None)
        return segment, bad.append_column("reason", pa.array(why, pa.string())).select(LEFT_OUT_SCHEMA.names)


def _metadata(files: pa.Table, facts: Sequence[_Facts]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": [path.rpartition("/")[2] for path in files["path"].to_pylist()],
        "text": [""] * len(facts),
        **{name: files[name].combine_chunks() for name in ("path", "folder", "size", "modified")},
        **{name: [getattr(one.taken, name) for one in facts] for name in ("date", "camera", "latitude", "longitude")},
        **{name: [getattr(one, name) for one in facts] for name in ("width", "height", "content")},
    }
    return {name: value if isinstance(value, pa.Array) else pa.array(value, COLUMNS[name]) for name, value in values.items()}


def _check_apart(folders: Sequence[str], remedy: str = "Give the outer folder alone") -> None:
    """InputError if a folder is in another one: each picture would be there twice."""
    for one in folders:
        for other in folders:
            if one != other and Path(os.path.realpath(one)).is_relative_to(os.path.realpath(other)):
                raise InputError(f"{one}: is in {other}, so its pictures would be there twice. {remedy}")


def _check_export(store: Store, export: Path) -> None:
    """InputError if it is not there, or not the export that the store was made from."""
    wanted = store.manifest.made_from["export"]
    if not (export / MANIFEST).is_file():
        raise InputError(
            f"{export}: the export that {store.path} was made from is not there, and is needed to embed pictures. Give it: --export"
        )
    found = read_manifest(export, kind="export").fingerprint
    if found != wanted:
        raise InputError(
            f"{export}: this export is {found[:12]}, and {store.path} was made from {wanted[:12]}. Give that one: --export, or make the "
            "store again"
        )


def _unreadable(out: pa.Table) -> list[dict[str, Any]]:
    return [row for row in out.to_pylist() if row["reason"] != DELETED]


def _write_ledger(path: Path, out: pa.Table) -> None:
    ledger = Ledger(path / "bad.csv")
    for row in _unreadable(out):
        ledger.bad(row["folder"], row["path"], row["reason"])
    ledger.write()


def _tell(path: Path, done: Changes) -> None:
    for line in _lines(path, done):
        print(line, file=sys.stderr)
    store = Store(path)
    for told in filter(None, (describe_index(store), describe_map(store))):
        print(f"{path}: {told}", file=sys.stderr)


def _lines(path: Path, done: Changes) -> Iterator[str]:
    for folder, num in done.away.items():
        yield (
            f"{folder}: is not there, or has no picture: the {num:,} pictures of it are kept. Is its disk connected? To remove them: "
            f"multimodal rescan {shlex.quote(str(path))} --remove-missing-folders"
        )
    if done.deleted:
        left, back = ("file is left out since it was", "it") if done.deleted == 1 else ("files are left out since they were", "them")
        command = f"multimodal rescan {shlex.quote(str(path))} --restore"
        yield f"{path}: {done.deleted:,} {left} deleted from the store. To have {back} back: {command}"
    yield f"{path}: {done}" + (f"; {done.unreadable:,} cannot be read: {path / 'bad.csv'}" if done.unreadable else "")


def _nothing(folders: Sequence[str]) -> str:
    tars = next((folder for folder in folders if any(Path(folder).glob("*.tar"))), None)
    if tars is not None:
        return f"{tars}: no picture in it or its subfolders, but .tar files. Index them as a shard set: multimodal shards index {tars}"
    kinds = "jpg, png, webp, avif, heic, gif, bmp, tiff"
    return f"{', '.join(folders)}: no picture ({kinds}) in it or its subfolders. Give the folder that holds them"
