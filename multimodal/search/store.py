"""A store: a folder of vectors with their pictures' metadata, and the text space that embeds queries. It is searched without its export.

    create_store("S", query=export / "query", family="wordvec", export=read_manifest(export, "export").fingerprint)
    with StoreWriter("S") as writer:
        writer.append(Segment(ids, rows, {"name": names, "text": texts}), made_from={"emoji/000000": shard.fingerprint})
    store = Store("S"); store.ids, store.rows, store.records([3, 5])

    S/manifest.json            the generation: its segments and tombstones; written last, by atomic replace
    S/query/                   a copy of the export's text space
    S/segments/000000/         see `multimodal.search.segments`
    S/tombstones/000002.npy    (t, 2) int64: segment number and id of each row that is deleted but still in its segment
    S/fusion/000004.npy        (d + 2, d) float64, see `multimodal.search.calibration`; the manifest names the way to combine terms

A reader sees the generation that it opened. The files of a generation stay until the second commit after it, so a reader that is busy
during one commit can finish; a longer-lived one checks `is_current()` and opens the store again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.boxes import (
    MANIFEST,
    Manifest,
    State,
    box_file,
    check_values,
    copy_box,
    fingerprint_bytes,
    fingerprint_json,
    finished_box,
    is_whole,
    read_manifest,
    reading,
    state_of,
    write_manifest,
)
from multimodal.boxes.arrays import read_array, write_array
from multimodal.errors import InputError
from multimodal.machine.portable import lock_file
from multimodal.onnx import KIND as NETWORK
from multimodal.onnx import network_boxes
from multimodal.search.asking import ask
from multimodal.search.calibration import TEMPLATES, Calibration, calibrate
from multimodal.search.fusion import Fusion, default_fusion, describe_fusion, make_fusion
from multimodal.search.hits import Hits
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
    from PIL import Image

    from multimodal.export.model import Export
    from multimodal.search.engine import Engine, EngineRecipe
    from multimodal.shards import ShardSet

QUERY = "query"
SEGMENTS = "segments/"
TOMBSTONES = "tombstones/"
FUSION = "fusion/"
_PART = re.compile(rf"{SEGMENTS}[0-9]{{6,18}}|(?:{TOMBSTONES}|{FUSION})[0-9]{{6,18}}\.npy")
_MAX_ID = np.iinfo(np.int64).max
MAX_DIM = 1_000_000
"""No vectors are longer, and memory is taken before the rows of a damaged store are read."""
_FACTS: Mapping[str, Mapping[str, type]] = {
    "segments": {"rows": int, "columns": dict, "fingerprint": str},
    "tombstones": {"ids": int, "fingerprint": str},
    "fusion": {"rows": int, "template": str, "class_path": str, "init_args": dict, "figures": dict, "fingerprint": str},
}
"""The facts that a manifest keeps of each part, by the folder that it is in."""


def create_store(
    path: str | Path,
    query: str | Path,
    family: str,
    export: str,
    trust: Sequence[str] = (),
    engine: EngineRecipe | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Make an empty store.

    query: the text-space box that embeds queries; it is copied. family: the export's. export: the fingerprint of the export's manifest.
    trust: packages whose text spaces and engines may be loaded; see `open_space`.
    engine: what searches the store; None for `FlatEngine`. settings: more entries for the manifest's config.
    An existing store that was made for the same export is kept as it is; one made for another export is an InputError.
    """
    path = Path(path)
    space = read_manifest(query, kind="text-space")
    made_from = {"export": export, QUERY: space.fingerprint}
    found = finished_box(path, kind="store")
    before = None if found is None else {name: found.made_from.get(name) for name in made_from}
    # Vectors of two exports cannot be compared, so one cannot replace the other.
    if state_of(path, made_from, before, remedies=("choose another --output", "delete this store")) is State.FINISHED:
        _check_engine(path, engine)
        _copy_networks(Path(query), path / QUERY)
        return
    dim = open_space(query, trust).dim  # first: nothing is copied that may not be opened
    config: dict[str, Any] = {"family": family, "dim": dim, **(settings or {})}
    if engine is not None:
        engine.make(dim, path, trust)  # fails before anything is embedded
        config["engine"] = engine.as_json()
    copy_box(query, path / QUERY)
    counts = {"rows": 0, "deleted": 0, "generation": 0, "next_segment": 0}
    write_manifest(path, Manifest(kind="store", config=config, counts=counts, made_from=made_from))


def _copy_networks(query: Path, target: Path) -> None:
    """Give an existing store the ONNX of its export, if that was made, or made anew, since. Nothing is written if it has it."""
    for folder in network_boxes(query):
        place = folder.relative_to(query).as_posix()
        there = box_file(target, place)
        if not is_whole(there) or read_manifest(there, NETWORK) != read_manifest(folder, NETWORK):
            copy_box(folder, there)


def _check_engine(path: Path, engine: EngineRecipe | None) -> None:
    """InputError if the existing store has another engine than the one requested."""
    before, now = read_manifest(path, kind="store").config.get("engine"), None if engine is None else engine.as_json()
    if before != now:
        named = "exact search" if before is None else _named(before)
        wanted = "exact search" if now is None else _named(now)
        raise InputError(f"{path}: its engine is {named}, but {wanted} was requested. Give the same --engine, or choose another folder")


def _named(engine: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name}={value!r}" for name, value in engine["init_args"].items())
    return f"{engine['class_path']}({settings})"


def segment_name(number: int) -> str:
    """Its name in the manifest's parts, and its folder."""
    return f"{SEGMENTS}{number:06d}"


def is_segment(name: str) -> bool:
    """Whether a part of a store's manifest is a segment."""
    return name.startswith(SEGMENTS)


def _is_tombstones(name: str) -> bool:
    return name.startswith(TOMBSTONES)


def is_fusion(name: str) -> bool:
    """Whether a part of a store's manifest is its calibration."""
    return name.startswith(FUSION)


def fusion_fingerprint(array: np.ndarray, facts: Mapping[str, Any]) -> str:
    """Of a calibration and of what the manifest says of it: constants, template and figures."""
    said = {name: value for name, value in facts.items() if name != "fingerprint"}
    return fingerprint_bytes(array.tobytes(), fingerprint_json(said).encode())


def _check_manifest(path: Path, manifest: Manifest) -> None:
    """InputError, naming the entry, if something that a store reads from its manifest is missing or has another type."""
    check_values(path, "config", manifest.config, {"dim": int, "family": str})
    if not 1 <= manifest.config["dim"] <= MAX_DIM:
        raise InputError(f"{path / MANIFEST}: config.dim is {manifest.config['dim']}; expected 1 to {MAX_DIM:,}. Make the store again")
    check_values(path, "counts", manifest.counts, dict.fromkeys(("rows", "deleted", "generation", "next_segment"), int))
    check_values(path, "made_from", manifest.made_from, {"export": str, QUERY: str})
    if "engine" in manifest.config:
        check_values(path, "config", manifest.config, {"engine": dict})
        check_values(path, "config.engine", manifest.config["engine"], {"class_path": str, "init_args": dict})
    for name, facts in manifest.parts.items():
        box_file(path, name, may_link=True)  # whether a link leads out of the box is checked when it is opened
        if not _PART.fullmatch(name):
            raise InputError(f"{path / MANIFEST}: lists {name!r}, which is not a part of a store. Make the store again")
        check_values(path, f"parts.{name}", facts, _FACTS[name.partition("/")[0]])
        made_from = facts.get("made_from", {})
        if not isinstance(made_from, dict):
            raise InputError(f"{path / MANIFEST}: parts.{name}.made_from is {made_from!r}; expected a dict. Make the store again")
        check_values(path, f"parts.{name}.made_from", made_from, dict.fromkeys(made_from, str))
        check_values(path, f"parts.{name}.columns", facts.get("columns", {}), dict.fromkeys(facts.get("columns", {}), str))


class Store:
    """One generation of a store, to read. Opening reads the ids; rows and metadata are mapped and read when asked for.

    `ids` (n,) int64 are the live pictures, segment by segment; everything else comes in that order.
    """

    def __init__(self, path: str | Path, before: Store | None = None, trust: Sequence[str] = ()) -> None:
        """before: an earlier generation of the same store, whose segments are not read again. trust: packages whose text spaces and
        engines may be loaded; see `open_space`.
        """
        self.path = Path(path)
        self.trust = tuple(trust)
        self.shards: ShardSet | None = None
        """The set that the pictures came from, if it was attached."""
        known = {} if before is None else {segment.number: segment for segment in before.segments}
        while True:
            self.manifest = read_manifest(self.path, kind="store")
            try:
                self._open(known)
                return
            except FileNotFoundError as error:  # a writer replaced the generation between our two reads, or the store is damaged
                if self.is_current():
                    raise InputError(
                        f"{self.path}: {error.filename} is named in the manifest but does not exist. Make the store again"
                    ) from None

    def _open(self, known: Mapping[int, SegmentReader]) -> None:
        _check_manifest(self.path, self.manifest)
        segments = {int(name.removeprefix(SEGMENTS)): facts["rows"] for name, facts in self.manifest.parts.items() if is_segment(name)}
        self.segments: list[SegmentReader] = [
            known.get(number) or SegmentReader(box_file(self.path, segment_name(number)), num_rows, self.dim)
            for number, num_rows in segments.items()
        ]
        removed = [self._tombstones(name, facts) for name, facts in self.manifest.parts.items() if _is_tombstones(name)]
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
        """What the segments were made from: name, as given to `append` -> fingerprint."""
        return {name: fingerprint for facts in self.manifest.parts.values() for name, fingerprint in facts.get("made_from", {}).items()}

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        attached = f", of {self.shards.place!r}" if self.shards is not None else ""
        return f"Store({str(self.path)!r}: {len(self):,} pictures, {self.family}, {self.dim} dimensions{attached})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.trust, self.shards)

    def search(
        self,
        query: str | Image.Image | np.ndarray,
        k: int = 10,
        model: Export | str | Path | None = None,
        where: Mapping[str, Any] | None = None,
        images: Mapping[str, Any] | None = None,
        fusion: str | Fusion | None = None,
        joined: Mapping[str, Store] | None = None,
    ) -> Hits:
        """The k pictures nearest to a query, best first, as a list that displays itself in a notebook.

        query: words with signs and weights, as in `multimodal search`: "2*beach without people", "image:17 + snow"; or one picture (a
        Pillow picture, or a uint8 array (h, w, 3)); or one vector (d,).
        model: the export that the store was made from, opened or as a folder; it encodes `image:<path>` and pictures.
        where: column -> value or values that a hit must have.
        images: name -> picture, file, or vector that `image:<name>` stands for in the query.
        fusion: how terms are combined: product, sum, or a class path; by default as the store keeps it.
        joined: name -> another store of the same pictures, which scores terms such as `export:<name>:beach`.
        Words that the text space does not know are left out with a warning.
        InputError: the query does not parse, none of its words is known, its terms cancel, or an id, a file or a column does not exist.
        """
        return ask(self, query, k, model, where, images, fusion, joined)

    def attach(self, shards: ShardSet) -> None:
        """Let hits show whole pictures, from the shard set that the store was made from. InputError if its shards are others."""
        there = set(shards.fingerprints.values())
        if missing := [name for name, fingerprint in self.sources.items() if fingerprint not in there]:
            raise InputError(
                f"{shards.place}: {self.path} was made from {len(missing)} shards that are not in this set or have changed, the first "
                f"one {missing[0]}. Attach the set that it was made from, or make the store again"
            )
        self.shards = shards

    def picture_bytes(self, id: int) -> bytes | None:
        """The encoded picture of an id: the whole one if a shard set is attached, else its thumbnail, or None if it has none.

        InputError if the order of the set's shards has changed since the store was made.
        """
        if self.shards is None:
            return self.thumbnails([id])[0]
        [record] = self.records([id], ("name", "key"))
        there = {"name": self.shards.names[id], "key": self.shards.key(id)} if id < len(self.shards) else {}
        if any(record[name] not in (None, there.get(name)) for name in record):
            raise InputError(
                f"{self.shards.place}: picture {id} of {self.path} is {record['name']}, but this set has another picture with that id: "
                "the order of its shards has changed. Make the store again"
            )
        return self.shards.image_bytes(id)

    def live(self) -> list[tuple[SegmentReader, np.ndarray]]:
        """Each segment with its live ids."""
        return [(segment, segment.ids[live]) for segment, live in zip(self.segments, self._live, strict=True)]

    def is_current(self) -> bool:
        """Whether this is still the newest generation: no writer has committed since it was opened."""
        return read_manifest(self.path, kind="store") == self.manifest

    @cached_property
    def query_space(self) -> TextSpace:
        """The text space that embeds the store's queries; InputError if it is not the one that the store was made with."""
        query = box_file(self.path, QUERY)
        found, wanted = read_manifest(query, kind="text-space").fingerprint, self.manifest.made_from[QUERY]
        if found != wanted:
            raise InputError(f"{query}: this text space is {found[:12]} and the store was made with {wanted[:12]}. Make the store again")
        return open_space(query, self.trust)

    @cached_property
    def engine(self) -> Engine:
        """Every live row in the store's engine, an exact one if its manifest names none.

        Rows have unit length in float32: float16's rounding leaves lengths off by up to 1e-3. InputError if the engine is not trusted.
        """
        engine = self._empty_engine()
        for segment, live in zip(self.segments, self._live, strict=True):
            engine.add(segment.ids[live], unit_rows(segment.rows()[live], segment.ids[live]))
        return engine

    @property
    def fitted(self) -> Mapping[str, Any] | None:
        """What the manifest keeps of the way to combine terms: rows, template, class_path, init_args, figures; None in an older store."""
        return next((facts for name, facts in self.manifest.parts.items() if is_fusion(name)), None)

    @cached_property
    def fusion(self) -> Fusion:
        """The way in which the terms of a query are combined. InputError if its class is not trusted."""
        described = self.fitted
        if described is None:
            return default_fusion(self.family)
        made = make_fusion({name: described[name] for name in ("class_path", "init_args")}, self.path, self.trust)
        _ = self.calibration  # checks that the constants are those that were written
        return made

    @cached_property
    def calibration(self) -> Calibration:
        """What makes the scores of terms comparable, as the store keeps it; computed here for an older store, which keeps none."""
        for name, facts in self.manifest.parts.items():
            if is_fusion(name):
                array = self._statistics(name, facts)
                try:
                    return Calibration.from_array(array, facts["template"])
                except InputError as error:
                    raise InputError(f"{self.path / MANIFEST}: parts.{name}: {error}") from None
        return self.calibrated()

    def _statistics(self, name: str, facts: Mapping[str, Any]) -> np.ndarray:
        """(d + 2, d) float64, see `Calibration.as_array`."""
        path = box_file(self.path, name)
        try:
            with reading(path):
                array = read_array(path)
                if fusion_fingerprint(array, facts) != facts["fingerprint"]:
                    raise ValueError(f"with what {MANIFEST} says, such as the constants, it is not the calibration that was written")
                if array.dtype != np.float64 or array.shape != (self.dim + 2, self.dim) or not np.isfinite(array).all():
                    raise ValueError(
                        f"a calibration is {self.dim + 2} x {self.dim} finite numbers, and this is {array.shape} {array.dtype}"
                    )
        except FileNotFoundError:
            raise InputError(f"{path} is gone: the store has changed since it was opened, or is damaged. Open it again") from None
        return array

    def calibrated(self, template: str | None = None) -> Calibration:
        """The calibration of the rows as they are now. template: by default that of the store, or of its family."""
        if template is None:
            template = TEMPLATES.get(self.family, "{}") if self.fitted is None else self.fitted["template"]
        texts = [text or "" for text in self.column("text")] if "text" in self.columns else [""] * len(self)
        return calibrate(self.ids, self.rows, texts, self.query_space, template)

    def _empty_engine(self) -> Engine:
        described = self.manifest.config.get("engine")
        if described is not None:
            from multimodal.search.engine import EngineRecipe

            return EngineRecipe(**described).make(self.dim, self.path, self.trust)
        from multimodal.search.flat import FlatEngine  # imported here: reading a store for something else loads no FAISS

        return FlatEngine(self.dim)

    @property
    def rows(self) -> np.ndarray:
        """(n, d) float16 of unit length up to float16's rounding; memory-mapped if the store is one whole segment."""
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
        """The encoded thumbnails of some ids, None for a picture without one."""
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
        """One metadata column, n values in the order of `ids`; InputError if no segment has it."""
        if len(self) and name not in self.columns:
            raise InputError(f"{self.path}: no column {name}; it has {', '.join(self.columns)}")
        values: list[Any] = []
        for segment, live in zip(self.segments, self._live, strict=True):
            whole = segment.metadata([name])[name]
            values += [whole[position] for position in live.tolist()]
        return values

    def select(self, where: Mapping[str, Any]) -> np.ndarray:
        """The ids whose metadata matches every condition: column -> the value, or a list, tuple or set of allowed ones."""
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


def _reopened(path: Path, trust: Sequence[str], shards: ShardSet | None) -> Store:
    store = Store(path, trust=trust)
    store.shards = shards
    return store


class StoreWriter:
    """Changes a store, one writer at a time; each call is one generation, written whole or not at all.

    A context manager: the lock is released at the end, also if the process dies.
    """

    def __init__(self, path: str | Path, trust: Sequence[str] = ()) -> None:
        """trust: packages whose classes the store names; `calibrate` needs its text space."""
        self.path = Path(path)
        self.trust = tuple(trust)
        read_manifest(self.path, kind="store")

    def __enter__(self) -> StoreWriter:
        for name in (SEGMENTS, TOMBSTONES, FUSION, QUERY):  # a link may lead to other people's files, and a writer removes old ones
            if (self.path / name.rstrip("/")).is_symlink():
                raise InputError(f"{self.path / name}: is a link, and a store with links cannot be changed. Copy the store")
        try:
            self._lock = lock_file(self.path / ".lock", wait=False)
        except BlockingIOError:
            raise InputError(f"{self.path}: another process is writing to this store. Wait until it has finished") from None
        try:
            self.store = Store(self.path, trust=self.trust)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def append(self, segment: Segment, made_from: Mapping[str, str] | None = None) -> None:
        """Add pictures. InputError if an id is in the store already.

        made_from: name -> fingerprint of what the rows were computed from (a shard); `Store.sources` returns it, so that a job that is
        run again knows what is done.
        """
        if segment.rows.shape[1] != self.store.dim:
            raise InputError(f"{self.path}: rows have {segment.rows.shape[1]} dimensions, the store has {self.store.dim}")
        if repeated := np.intersect1d(segment.ids, self.store.ids).tolist():
            raise InputError(f"{self.path}: ids must be unique in a store; these are in it already: {name_some(repeated)}")
        self._check_types(segment)
        rows = unit_rows(segment.rows, segment.ids).astype(np.float16)
        name, facts = self._write(replace(segment, rows=rows))
        self._commit({**self.store.manifest.parts, name: {**facts, "made_from": dict(made_from or {})}})

    def delete(self, ids: Sequence[int] | np.ndarray) -> None:
        """Delete pictures. Their rows stay on disk, unused, until `compact`. InputError if an id is not in the store."""
        going = np.unique(np.asarray(ids, dtype=np.int64))
        if missing := np.setdiff1d(going, self.store.ids).tolist():
            raise InputError(f"{self.path}: no picture with id {name_some(missing)}")
        by_segment = [(segment.number, np.intersect1d(going, ids)) for segment, ids in self.store.live()]
        new = [np.stack([np.full_like(ids, number), ids], axis=1) for number, ids in by_segment]
        tombstones = np.concatenate([self.store.deleted, *new])
        name = f"{TOMBSTONES}{self.store.manifest.counts['generation'] + 1:06d}.npy"
        write_array(self.path / name, tombstones)
        kept = {part: facts for part, facts in self.store.manifest.parts.items() if not _is_tombstones(part)}
        self._commit({**kept, name: {"ids": len(tombstones), "fingerprint": fingerprint_bytes(tombstones.tobytes())}})

    def compact(self) -> None:
        """Rewrite the live rows as one segment, in their order, without tombstones. Metadata and thumbnails pass through memory."""
        store = self.store
        metadata = {name: store.column(name) for name in store.columns}
        thumbnails = store.thumbnails(store.ids)
        kept = {part: facts for part, facts in store.manifest.parts.items() if is_fusion(part)}
        if not len(store):
            self._commit(kept)
            return
        given = thumbnails if any(thumbnail is not None for thumbnail in thumbnails) else None
        name, facts = self._write(Segment(store.ids, store.rows, metadata, given))
        self._commit({name: {**facts, "made_from": store.sources}, **kept})

    def calibrate(self, template: str | None = None, fusion: Fusion | None = None, figures: Mapping[str, Any] | None = None) -> None:
        """Keep the calibration of the rows as they are now, and the way to combine terms. Pictures added later do not change it.

        template, fusion: by default those that the store has. figures: what was measured with them, JSON values; by default those kept.
        """
        store = self.store
        calibration = store.calibrated(template)
        array = calibration.as_array()
        name = f"{FUSION}{store.manifest.counts['generation'] + 1:06d}.npy"
        write_array(self.path / name, array)
        facts = {
            "rows": len(store),
            "template": calibration.template,
            **describe_fusion(store.fusion if fusion is None else fusion),
            "figures": dict((store.fitted or {}).get("figures", {}) if figures is None else figures),
        }
        facts["fingerprint"] = fusion_fingerprint(array, facts)
        kept = {part: facts for part, facts in store.manifest.parts.items() if not is_fusion(part)}
        self._commit({**kept, name: facts})

    def _check_types(self, segment: Segment) -> None:
        """A column has one type over all segments, so that filters mean the same everywhere and `compact` can join them."""
        types = {column: column_type(values, column) for column, values in segment.metadata.items()}
        for name, facts in self.store.manifest.parts.items():
            for column, before in facts.get("columns", {}).items():
                now = types.get(column, "null")
                if "null" not in (before, now) and before != now:
                    raise InputError(f"{self.path}: metadata column {column} is {now} here and {before} in {name}")

    def _write(self, segment: Segment) -> tuple[str, dict[str, Any]]:
        """Write a segment under a number that no generation has used. Files that a killed writer left under it are removed first."""
        name = segment_name(self.store.manifest.counts["next_segment"])
        folder = self.path / name
        if folder.is_symlink():
            raise InputError(f"{folder}: is a link to {folder.resolve()}, and a new segment would be written there. Remove the link")
        if folder.exists():
            shutil.rmtree(folder)
        try:
            return name, write_segment(folder, segment)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _commit(self, parts: Mapping[str, Mapping[str, Any]]) -> None:
        """Make the parts the next generation; then remove the files that neither it nor the previous one names."""
        before = self.store.manifest
        segments = [facts["rows"] for name, facts in parts.items() if is_segment(name)]
        deleted = sum(facts["ids"] for name, facts in parts.items() if _is_tombstones(name))
        used = [int(name.removeprefix(SEGMENTS)) + 1 for name in parts if is_segment(name)]
        counts = {
            "rows": sum(segments) - deleted,
            "deleted": deleted,
            "generation": before.counts["generation"] + 1,
            "next_segment": max([before.counts["next_segment"], *used]),
        }
        write_manifest(self.path, Manifest("store", before.config, counts, before.made_from, parts))
        for folder in (SEGMENTS, TOMBSTONES, FUSION):
            for path in (self.path / folder).glob("[0-9]*"):
                if folder + path.name not in {*parts, *before.parts} and _PART.fullmatch(folder + path.name):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.store = Store(self.path, before=self.store, trust=self.trust)
