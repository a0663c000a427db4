"""A store: a folder of vectors with their pictures' metadata, and the text space that queries go through, searched by itself.

    create_store("S", query=export / "query", family="wordvec", export=read_manifest(export, "export").fingerprint)
    with StoreWriter("S") as writer:
        writer.append(Segment(ids, rows, {"name": names, "text": texts}), made_from={"emoji/000000": shard.fingerprint})
    store = Store("S"); store.ids, store.rows, store.records([3, 5])

    S/manifest.json            the generation: which segments and which tombstones there are; written last, by atomic replace
    S/query/                   a copy of the export's text space
    S/segments/000000/         see `multimodal.search.segments`
    S/tombstones/000002.npy    (t, 2) int64: segment number and id of each row that is deleted and still lies in its segment

A reader sees the generation that it opened. Files of a generation stay until the second commit after it, so a reader that is at work
during one commit finishes; a longer-lived one asks `is_current()` and opens the store again.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.arrays import read_array, write_array
from multimodal.boxes import (
    MANIFEST,
    Manifest,
    box_file,
    check_values,
    copy_box,
    fingerprint_bytes,
    is_whole,
    read_manifest,
    reading,
    write_manifest,
)
from multimodal.errors import InputError
from multimodal.search.segments import (
    Segment,
    SegmentReader,
    column_type,
    name_some,
    unit_rows,
    write_segment,
)
from multimodal.text import TextSpace, open_space

if TYPE_CHECKING:
    from multimodal.search.flat import FlatEngine

QUERY = "query"
SEGMENTS = "segments/"
TOMBSTONES = "tombstones/"
_PART = re.compile(rf"{SEGMENTS}[0-9]{{6,18}}|{TOMBSTONES}[0-9]{{6,18}}\.npy")
_MAX_ID = np.iinfo(np.int64).max


def create_store(path: str | Path, query: str | Path, family: str, export: str, trust: Sequence[str] = ()) -> None:
    """Make an empty store.

    query: the text-space box that queries go through, copied in. family: the export's. export: the fingerprint of the export's manifest.
    trust: packages whose text spaces may be loaded; see `open_space`.
    A store that is there already and was made for the same export stays as it is; one made for another is an InputError.
    """
    path = Path(path)
    space = read_manifest(query, kind="text-space")
    made_from = {"export": export, QUERY: space.fingerprint}
    if is_whole(path):
        before = read_manifest(path, kind="store").made_from
        for name, fingerprint in made_from.items():
            if before[name] != fingerprint:
                raise InputError(
                    f"{path}: made with {name} {before[name][:12]} and now asked for with {fingerprint[:12]}. "
                    "Vectors of two exports do not compare: choose another folder, or delete this one"
                )
        return
    dim = open_space(query, trust).dim  # first: what may not be opened is not copied
    copy_box(query, path / QUERY)
    counts = {"rows": 0, "deleted": 0, "generation": 0, "next_segment": 0}
    write_manifest(path, Manifest(kind="store", config={"family": family, "dim": dim}, counts=counts, made_from=made_from))


def segment_name(number: int) -> str:
    """Its name in the manifest's parts, and its folder."""
    return f"{SEGMENTS}{number:06d}"


def is_segment(name: str) -> bool:
    """Whether a part of a store's manifest is a segment; else it is a file of tombstones."""
    return name.startswith(SEGMENTS)


def _check_manifest(path: Path, manifest: Manifest) -> None:
    """InputError, naming the entry, where something that a store reads from its manifest is missing or of another type."""
    check_values(path, "config", manifest.config, {"dim": int, "family": str})
    check_values(path, "counts", manifest.counts, dict.fromkeys(("rows", "deleted", "generation", "next_segment"), int))
    check_values(path, "made_from", manifest.made_from, {"export": str, QUERY: str})
    for name, facts in manifest.parts.items():
        box_file(path, name, may_link=True)  # whether it leads out by a link is looked at when it is opened
        if not _PART.fullmatch(name):
            raise InputError(f"{path / MANIFEST}: lists {name!r}, which is no part of a store. Make the store again")
        wanted = {"rows": int, "columns": dict, "fingerprint": str} if is_segment(name) else {"ids": int, "fingerprint": str}
        check_values(path, f"parts.{name}", facts, wanted)
        made_from = facts.get("made_from", {})
        if not isinstance(made_from, dict):
            raise InputError(f"{path / MANIFEST}: parts.{name}.made_from is {made_from!r}, and dict is wanted. Make the store again")
        check_values(path, f"parts.{name}.made_from", made_from, dict.fromkeys(made_from, str))
        check_values(path, f"parts.{name}.columns", facts.get("columns", {}), dict.fromkeys(facts.get("columns", {}), str))


class Store:
    """One generation of a store, to read. Opening reads the ids; rows and metadata are mapped and read when asked for.

    `ids` (n,) int64 are the live pictures, segment by segment; everything else comes in that order.
    """

    def __init__(self, path: str | Path, before: Store | None = None, trust: Sequence[str] = ()) -> None:
        """before: an earlier generation of the same store, whose segments are not read again. trust: packages whose text spaces may be
        loaded; see `open_space`.
        """
        self.path = Path(path)
        self.trust = tuple(trust)
        known = {} if before is None else {segment.number: segment for segment in before.segments}
        while True:
            self.manifest = read_manifest(self.path, kind="store")
            try:
                self._open(known)
                return
            except FileNotFoundError as error:  # a writer replaced the generation between our two reads, or the store is damaged
                if self.is_current():
                    raise InputError(
                        f"{self.path}: {error.filename} is named in the manifest and is not there. Make the store again"
                    ) from None

    def _open(self, known: Mapping[int, SegmentReader]) -> None:
        _check_manifest(self.path, self.manifest)
        segments = {int(name.removeprefix(SEGMENTS)): facts["rows"] for name, facts in self.manifest.parts.items() if is_segment(name)}
        self.segments: list[SegmentReader] = [
            known.get(number) or SegmentReader(box_file(self.path, segment_name(number)), num_rows, self.dim)
            for number, num_rows in segments.items()
        ]
        removed = [self._tombstones(name, facts) for name, facts in self.manifest.parts.items() if not is_segment(name)]
        self.deleted: np.ndarray = np.concatenate([np.empty((0, 2), np.int64), *removed])
        self._live: list[np.ndarray] = []
        for segment in self.segments:
            dead = self.deleted[self.deleted[:, 0] == segment.number, 1]
            self._live.append(np.flatnonzero(~np.isin(segment.ids, dead)))
        self.ids: np.ndarray = np.concatenate([np.empty(0, np.int64), *(ids for _, ids in self.live())])

    def _tombstones(self, name: str, facts: Mapping[str, Any]) -> np.ndarray:
        path = box_file(self.path, name)
        with reading(path):
            tombstones = read_array(path)
            if fingerprint_bytes(tombstones.tobytes()) != facts["fingerprint"] or tombstones.shape != (facts["ids"], 2):
                raise ValueError("it is not the list of deleted pictures that was written")
        return tombstones

    @cached_property
    def _by_id(self) -> np.ndarray:
        return np.argsort(self.ids)

    @property
    def dim(self) -> int:
        return int(self.manifest.config["dim"])

    @property
    def family(self) -> str:
        return str(self.manifest.config["family"])

    @property
    def sources(self) -> dict[str, str]:
        """What the segments were made from: name as given to `append` -> fingerprint."""
        return {name: fingerprint for facts in self.manifest.parts.values() for name, fingerprint in facts.get("made_from", {}).items()}

    def __len__(self) -> int:
        return len(self.ids)

    def live(self) -> list[tuple[SegmentReader, np.ndarray]]:
        """Each segment with its live ids."""
        return [(segment, segment.ids[live]) for segment, live in zip(self.segments, self._live, strict=True)]

    def is_current(self) -> bool:
        """Whether no writer has committed since this was opened."""
        return read_manifest(self.path, kind="store") == self.manifest

    @cached_property
    def query_space(self) -> TextSpace:
        """The text space that the store's queries go through; InputError when it is not the one that the store was made with."""
        query = box_file(self.path, QUERY)
        found, wanted = read_manifest(query, kind="text-space").fingerprint, self.manifest.made_from[QUERY]
        if found != wanted:
            raise InputError(f"{query}: this text space is {found[:12]} and the store was made with {wanted[:12]}. Make the store again")
        return open_space(query, self.trust)

    @cached_property
    def engine(self) -> FlatEngine:
        """Every live row in an exact engine, at unit length in float32: float16's rounding leaves lengths off by up to 1e-3."""
        from multimodal.search.flat import FlatEngine  # who reads a store for something else loads no FAISS

        engine = FlatEngine(self.dim)
        for segment, live in zip(self.segments, self._live, strict=True):
            engine.add(segment.ids[live], unit_rows(segment.rows()[live], segment.ids[live]))
        return engine

    @property
    def rows(self) -> np.ndarray:
        """(n, d) float16 of unit length up to float16's rounding; memory-mapped where one whole segment is all there is."""
        if len(self.segments) == 1 and len(self._live[0]) == len(self.segments[0].ids):
            return self.segments[0].rows()
        parts = [segment.rows()[live] for segment, live in zip(self.segments, self._live, strict=True)]
        return np.concatenate([np.empty((0, self.dim), np.float16), *parts])

    def __contains__(self, id: int) -> bool:
        return bool(np.isin(id, self.ids))

    def take(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The rows of some ids, (r, d) float16, in their order."""
        taken = np.empty((len(ids), self.dim), dtype=np.float16)
        for segment, places, positions in self._places(ids):
            taken[places] = segment.rows()[positions]
        return taken

    def records(self, ids: Sequence[int] | np.ndarray, columns: Sequence[str] = ("name", "text")) -> list[dict[str, Any]]:
        """The metadata of some ids, in their order; None in columns that a row does not have."""
        found: list[dict[str, Any]] = [{} for _ in ids]
        for segment, places, positions in self._places(ids):
            values = segment.metadata(columns, positions)
            for index, place in enumerate(places.tolist()):
                found[place] = {name: column[index] for name, column in values.items()}
        return found

    def thumbnails(self, ids: Sequence[int] | np.ndarray) -> list[bytes | None]:
        """The encoded thumbnails of some ids, None where there is none."""
        found: list[bytes | None] = [None] * len(ids)
        for segment, places, positions in self._places(ids):
            for place, thumbnail in zip(places.tolist(), segment.thumbnails(positions), strict=True):
                found[place] = thumbnail
        return found

    @property
    def columns(self) -> list[str]:
        """The metadata columns that any segment has, in order of appearance."""
        return list(dict.fromkeys(name for facts in self.manifest.parts.values() for name in facts.get("columns", [])))

    def column(self, name: str) -> list[Any]:
        """One metadata column, n values in the order of `ids`; InputError where no segment has it."""
        if len(self) and name not in self.columns:
            raise InputError(f"{self.path}: no column {name}; it has {', '.join(self.columns)}")
        values: list[Any] = []
        for segment, live in zip(self.segments, self._live, strict=True):
            whole = segment.metadata([name])[name]
            values += [whole[position] for position in live.tolist()]
        return values

    def select(self, where: Mapping[str, Any]) -> np.ndarray:
        """The ids whose metadata has every value asked for: column -> the value, or a list, tuple or set of allowed ones."""
        chosen = np.ones(len(self), dtype=bool)
        for name, wanted in where.items():
            allowed = wanted if isinstance(wanted, list | tuple | set | frozenset) else (wanted,)
            chosen &= np.fromiter((value in allowed for value in self.column(name)), dtype=bool, count=len(self))
        return self.ids[chosen]

    def _places(self, ids: Sequence[int] | np.ndarray) -> list[tuple[SegmentReader, np.ndarray, np.ndarray]]:
        """For each segment with any of the ids: the segment, their places in `ids`, their positions in the segment."""
        if beyond := [int(id) for id in ids if abs(int(id)) > _MAX_ID]:
            raise InputError(f"{self.path}: no picture with id {name_some(beyond)}; it has {len(self):,}")
        asked = np.asarray(ids, dtype=np.int64)
        rank = np.searchsorted(self.ids, asked, sorter=self._by_id)
        if missing := [
            id for id, at in zip(asked.tolist(), rank.tolist(), strict=True) if at == len(self) or self.ids[self._by_id[at]] != id
        ]:
            raise InputError(f"{self.path}: no picture with id {name_some(missing)}; it has {len(self):,}")
        flat = self._by_id[rank]
        stops = np.cumsum([0, *map(len, self._live)])
        owner = np.searchsorted(stops, flat, side="right") - 1
        found = []
        for index in np.unique(owner).tolist():
            places = np.flatnonzero(owner == index)
            found.append((self.segments[index], places, self._live[index][flat[places] - stops[index]]))
        return found


class StoreWriter:
    """Changes a store, one writer at a time; each call is one generation, whole or not there at all.

    A context manager: the lock is freed at the end, also when the process dies.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        read_manifest(self.path, kind="store")

    def __enter__(self) -> StoreWriter:
        for name in (SEGMENTS, TOMBSTONES, QUERY):  # what a link leads to is somebody's, and a writer removes old files
            if (self.path / name.rstrip("/")).is_symlink():
                raise InputError(f"{self.path / name}: is a link, and a store that is written to has folders of its own. Copy the store")
        self._lock = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise InputError(f"{self.path}: another process is writing to this store. Wait until it has finished") from None
        try:
            self.store = Store(self.path)
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def append(self, segment: Segment, made_from: Mapping[str, str] | None = None) -> None:
        """Add pictures. InputError when an id is in the store already.

        made_from: name -> fingerprint of what the rows were computed from (a shard); `Store.sources` gives it back, so that a job
        which is run again knows what is there.
        """
        if segment.rows.shape[1] != self.store.dim:
            raise InputError(f"{self.path}: rows have {segment.rows.shape[1]} dimensions, the store has {self.store.dim}")
        if repeated := np.intersect1d(segment.ids, self.store.ids).tolist():
            raise InputError(f"{self.path}: ids are unique in a store, and these are there already: {name_some(repeated)}")
        self._check_types(segment)
        rows = unit_rows(segment.rows, segment.ids).astype(np.float16)
        name, facts = self._write(replace(segment, rows=rows))
        self._commit({**self.store.manifest.parts, name: {**facts, "made_from": dict(made_from or {})}})

    def delete(self, ids: Sequence[int] | np.ndarray) -> None:
        """Take pictures out. Their rows stay on disk, unseen, until `compact`. InputError when an id is not in the store."""
        going = np.unique(np.asarray(ids, dtype=np.int64))
        if missing := np.setdiff1d(going, self.store.ids).tolist():
            raise InputError(f"{self.path}: no picture with id {name_some(missing)}")
        by_segment = [(segment.number, np.intersect1d(going, ids)) for segment, ids in self.store.live()]
        new = [np.stack([np.full_like(ids, number), ids], axis=1) for number, ids in by_segment]
        tombstones = np.concatenate([self.store.deleted, *new])
        name = f"{TOMBSTONES}{self.store.manifest.counts['generation'] + 1:06d}.npy"
        write_array(self.path / name, tombstones)
        kept = {part: facts for part, facts in self.store.manifest.parts.items() if is_segment(part)}
        self._commit({**kept, name: {"ids": len(tombstones), "fingerprint": fingerprint_bytes(tombstones.tobytes())}})

    def compact(self) -> None:
        """One segment of the live rows, in their order, and no tombstones. Metadata and thumbnails pass through memory."""
        store = self.store
        metadata = {name: store.column(name) for name in store.columns}
        thumbnails = store.thumbnails(store.ids)
        if not len(store):
            self._commit({})
            return
        given = thumbnails if any(thumbnail is not None for thumbnail in thumbnails) else None
        name, facts = self._write(Segment(store.ids, store.rows, metadata, given))
        self._commit({name: {**facts, "made_from": store.sources}})

    def _check_types(self, segment: Segment) -> None:
        """A column has one type over all segments, so that filters mean the same everywhere and `compact` can join them."""
        types = {column: column_type(values, column) for column, values in segment.metadata.items()}
        for name, facts in self.store.manifest.parts.items():
            for column, before in facts.get("columns", {}).items():
                now = types.get(column, "null")
                if "null" not in (before, now) and before != now:
                    raise InputError(f"{self.path}: metadata column {column} is {now} here and {before} in {name}")

    def _write(self, segment: Segment) -> tuple[str, dict[str, Any]]:
        """A segment's files under a number that no generation has used; what a killed writer left under it is removed first."""
        name = segment_name(self.store.manifest.counts["next_segment"])
        folder = self.path / name
        if folder.is_symlink():
            raise InputError(f"{folder}: is a link to {folder.resolve()}, and a new segment is to be written there. Remove the link")
        if folder.exists():
            shutil.rmtree(folder)
        try:
            return name, write_segment(folder, segment)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _commit(self, parts: Mapping[str, Mapping[str, Any]]) -> None:
        """Make the parts the next generation; then remove what neither it nor the one before it names."""
        before = self.store.manifest
        segments = [facts["rows"] for name, facts in parts.items() if is_segment(name)]
        deleted = sum(facts["ids"] for name, facts in parts.items() if not is_segment(name))
        used = [int(name.removeprefix(SEGMENTS)) + 1 for name in parts if is_segment(name)]
        counts = {
            "rows": sum(segments) - deleted,
            "deleted": deleted,
            "generation": before.counts["generation"] + 1,
            "next_segment": max([before.counts["next_segment"], *used]),
        }
        write_manifest(self.path, Manifest("store", before.config, counts, before.made_from, parts))
        for folder in (SEGMENTS, TOMBSTONES):
            for path in (self.path / folder).glob("[0-9]*"):
                if folder + path.name not in {*parts, *before.parts} and _PART.fullmatch(folder + path.name):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.store = Store(self.path, before=self.store)
