"""Making a store, and changing it: each change is one generation, written whole or not at all.

create_store("S", query=export / "query", family="wordvec", export=read_manifest(export, "export").fingerprint)
with StoreWriter("S") as writer:
    writer.append(Segment(ids, rows, {"name": names, "text": texts}), made_from={"emoji/000000": shard.fingerprint})
    writer.delete([3, 5])
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from multimodal.boxes import (
    Manifest,
    State,
    box_file,
    copy_box,
    fingerprint_bytes,
    finished_box,
    is_whole,
    read_manifest,
    state_of,
    write_manifest,
)
from multimodal.boxes.arrays import write_array
from multimodal.errors import InputError
from multimodal.machine.portable import lock_file
from multimodal.machine.system_files import is_system_name
from multimodal.onnx import KIND as NETWORK
from multimodal.onnx import network_boxes
from multimodal.pictures.formats import PICTURE_SUFFIXES
from multimodal.search.folders import write_left_out
from multimodal.search.fusion import Fusion, describe_fusion
from multimodal.search.generation import (
    FUSION,
    INDEX,
    LEFT_OUT,
    MAP,
    NEXT_ID,
    PART,
    PICTURES,
    QUERY,
    SEGMENTS,
    TOMBSTONES,
    fusion_fingerprint,
    is_fusion,
    is_index,
    is_left_out,
    is_map,
    is_segment,
    is_tombstones,
    segment_name,
)
from multimodal.search.joining import in_turn, schema_of, write_joined
from multimodal.search.kept import APPROXIMATE, Covered, is_needed, recipe_for, recipe_of, write_index
from multimodal.search.places import MIN_COVERED, REGIONS, Kept, is_whole_map, map_part, read_kept, write_map
from multimodal.search.segments import Segment, SegmentReader, column_type, name_some, unit_rows, write_segment
from multimodal.search.store import Store
from multimodal.text import open_space

if TYPE_CHECKING:
    from multimodal.search.engine import EngineRecipe
    from multimodal.search.regions import Regions

EXACT = "multimodal.search.flat.FlatEngine"
_PARTS = (SEGMENTS, TOMBSTONES, FUSION, INDEX, MAP, LEFT_OUT)
_OWN = frozenset({QUERY, "bad.csv", "no_words.csv", ".lock", *(part.rstrip("/") for part in _PARTS)})
"""What a store that lost its manifest, or never got one, has in its folder."""
"""The engine of a store that names none."""


DESCRIBED_TOGETHER = 1024
"""Pictures of one new segment, when many get other metadata."""


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
    engine = None if engine is not None and engine.class_path == EXACT else engine
    space = read_manifest(query, kind="text-space")
    made_from = {"export": export, QUERY: space.fingerprint}
    found = finished_box(path, kind="store")
    before = None if found is None else {name: found.made_from.get(name) for name in made_from}
    # Vectors of two exports cannot be compared, so one cannot replace the other.
    if state_of(path, made_from, before, remedies=("choose another --output", "delete this store")) is State.FINISHED:
        _check_engine(path, engine)
        _copy_networks(Path(query), path / QUERY)
        return
    _check_own(path)
    dim = open_space(query, trust).dim  # first: nothing is copied that may not be opened
    config: dict[str, Any] = {"family": family, "dim": dim, **(settings or {})}
    if engine is not None:
        engine.make(dim, path, trust)  # fails before anything is embedded
        config["engine"] = engine.as_json()
    copy_box(query, path / QUERY)
    counts = {"rows": 0, "deleted": 0, "generation": 0, "next_segment": 0}
    write_manifest(path, Manifest(kind="store", config=config, counts=counts, made_from=made_from))


def _check_own(path: Path) -> None:
    """InputError if there is anything in the folder that no unfinished store leaves: a writer removes old files in its subfolders."""
    if not path.is_dir():
        return
    foreign = sorted(one.name for one in path.iterdir() if one.name not in _OWN and not is_system_name(one.name))
    folders = [path / name for name in sorted(_OWN) if (path / name).is_dir()]
    pictures = (one for folder in folders for one in folder.rglob("*") if one.suffix.lower().removeprefix(".") in PICTURE_SUFFIXES)
    foreign += sorted(one.relative_to(path).as_posix() for one in pictures)  # a store keeps its pictures in tables
    if foreign:
        named = ", ".join(foreign[:3]) + ", ..." * (len(foreign) > 3)
        raise InputError(f"{path}: holds other files ({named}), and a store needs a folder of its own. Choose another --output")


def _copy_networks(query: Path, target: Path) -> None:
    """Give an existing store the ONNX of its export, if that was made, or made anew, since. Nothing is written if it has it."""
    for folder in network_boxes(query):
        place = folder.relative_to(query).as_posix()
        there = box_file(target, place)
        if not is_whole(there) or read_manifest(there, NETWORK) != read_manifest(folder, NETWORK):
            copy_box(folder, there)


def _check_engine(path: Path, engine: EngineRecipe | None) -> None:
    """InputError if the existing store has another engine than the one requested. None is what a store gets for its size."""
    from multimodal.search.engine import EngineRecipe

    before, now = read_manifest(path, kind="store").config.get("engine"), None if engine is None else engine.as_json()
    exact = (None, EngineRecipe(EXACT).as_json())
    if before != now and not (before in exact and now in exact) and not (now is None and before == APPROXIMATE.as_json()):
        named = "exact search" if before is None else _named(before)
        wanted = "exact search" if now is None else _named(now)
        raise InputError(
            f"{path}: its engine is {named}, but {wanted} was requested. Give the same --engine, choose another "
            f"folder, or change it: multimodal store build-index {path} --engine CLASS"
        )


def _named(engine: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name}={value!r}" for name, value in engine["init_args"].items())
    return f"{engine['class_path']}({settings})"


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
        for name in (SEGMENTS, TOMBSTONES, FUSION, INDEX, MAP, LEFT_OUT, QUERY):
            # a link may lead to other people's files, and a writer removes old ones
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
        self.change(add=segment, made_from=made_from)

    def delete(self, ids: Sequence[int] | np.ndarray) -> None:
        """Delete pictures. Their rows stay on disk, unused, until `compact`. InputError if an id is not in the store."""
        self.change(delete=ids)

    def change(
        self,
        delete: Sequence[int] | np.ndarray = (),
        describe: pa.Table | None = None,
        add: Segment | None = None,
        made_from: Mapping[str, str] | None = None,
        left_out: pa.Table | None = None,
        next_id: int = 0,
        pictures: Mapping[str, Any] | None = None,
    ) -> None:
        """Several changes as one generation.

        delete, add, made_from: see `delete` and `append`. describe: a column `id`, and metadata columns whose values replace those of these
        pictures; ids, rows and thumbnails stay as they are. next_id: one that the ids given later are not below.
        left_out, pictures: of a store of people's own pictures, see `multimodal.search.folders`, in place of those before.
        """
        new = {} if describe is None else self._described(describe)
        described = [] if describe is None else describe["id"].to_pylist()
        going = np.unique(np.asarray([*described, *np.asarray(delete).tolist()], dtype=np.int64))
        parts = {**(self._without(going) if len(going) else self.store.manifest.parts), **new}
        if add is not None:
            name, facts = self._added(add, self.store.manifest.counts["next_segment"] + len(new))
            parts[name] = {**facts, "made_from": dict(made_from or {})}
            next_id = max([next_id, *(np.asarray(add.ids) + 1).tolist()])
        parts = self._with_map(parts, np.setdiff1d(going, described), 0 if add is None else len(add.ids))
        if left_out is not None:
            parts = {part: facts for part, facts in parts.items() if not is_left_out(part)}
            if len(left_out):
                name = f"{LEFT_OUT}{self.store.manifest.counts['generation'] + 1:06d}.parquet"
                parts[name] = write_left_out(self.path / name, left_out)
        config = self.store.manifest.config if pictures is None else {**self.store.manifest.config, PICTURES: dict(pictures)}
        self._commit(parts, next_id, config)

    def _added(self, segment: Segment, number: int) -> tuple[str, dict[str, Any]]:
        if segment.rows.shape[1] != self.store.dim:
            raise InputError(f"{self.path}: rows have {segment.rows.shape[1]} dimensions, the store has {self.store.dim}")
        if repeated := np.intersect1d(segment.ids, self.store.ids).tolist():
            raise InputError(f"{self.path}: ids must be unique in a store; these are in it already: {name_some(repeated)}")
        self._check_types(segment)
        rows = unit_rows(segment.rows, segment.ids).astype(np.float16)
        return self._write(replace(segment, rows=rows), number)

    def _without(self, going: np.ndarray) -> dict[str, Mapping[str, Any]]:
        """The parts of the generation without some pictures, whose ids (g,) are unique."""
        if missing := np.setdiff1d(going, self.store.ids).tolist():
            raise InputError(f"{self.path}: no picture with id {name_some(missing)}")
        by_segment = [(segment.number, np.intersect1d(going, ids)) for segment, ids in self.store.live()]
        new = [np.stack([np.full_like(ids, number), ids], axis=1) for number, ids in by_segment]
        tombstones = np.concatenate([self.store.deleted, *new])
        name = f"{TOMBSTONES}{self.store.manifest.counts['generation'] + 1:06d}.npy"
        write_array(self.path / name, tombstones)
        kept = {part: facts for part, facts in self.store.manifest.parts.items() if not is_tombstones(part)}
        return {**kept, name: {"ids": len(tombstones), "fingerprint": fingerprint_bytes(tombstones.tobytes())}}

    def _described(self, table: pa.Table) -> dict[str, Any]:
        """New segments with the pictures of a table, of at most DESCRIBED_TOGETHER each, and what the manifest says of them."""
        schema = schema_of(self.store)
        first = self.store.manifest.counts["next_segment"]
        made: dict[str, Any] = {}
        for start in range(0, len(table), DESCRIBED_TOGETHER):
            some = table.slice(start, DESCRIBED_TOGETHER)
            ids = some["id"].to_numpy()
            records = self.store.records(ids, schema.names)
            metadata = {
                field.name: some[field.name].combine_chunks()
                if field.name in some.column_names
                else pa.array([record[field.name] for record in records], field.type)
                for field in schema
            }
            thumbnails = self.store.thumbnails(ids)
            given = thumbnails if any(thumbnail is not None for thumbnail in thumbnails) else None
            segment = Segment(ids, self.store.take(ids), metadata, given)
            self._check_types(segment)
            name, facts = self._write(segment, first + len(made))
            made[name] = {**facts, "made_from": {}}
        return made

    def _with_map(self, parts: Mapping[str, Mapping[str, Any]], going: np.ndarray, num_added: int) -> dict[str, Mapping[str, Any]]:
        """The parts with the store's map as it is without some pictures; without a map if too few of all were on it when it was made."""
        found = map_part(parts)
        if found is None or not (len(going) or num_added):
            return dict(parts)
        name, facts = found
        rest = {part: facts for part, facts in parts.items() if part != name}
        num_left = facts["rows"] - (len(going) and len(np.intersect1d(going, read_kept(self.store, name, facts).ids)))
        num_coming = len(self.store) - len(going) + num_added
        if num_left < MIN_COVERED * num_coming or not num_left:
            told = f"its map was dropped: of {num_coming:,} pictures, only {num_left:,} were there when it was made"
            print(f"{self.path}: {told}. Make it again: multimodal store map {self.path}", file=sys.stderr)
            return rest
        if num_left == facts["rows"]:
            return dict(parts)
        kept = read_kept(self.store, name, facts).without(going)
        new = self._new(MAP)
        return {**rest, new: write_map(self.path / new, kept, self.path / name / REGIONS)}

    def make_map(self, anew: bool = False) -> bool:
        """Place all pictures by UMAP, name the regions, and keep both; whether anything was to do. It needs the extra `map`.

        anew: also if all pictures are on the map that the store keeps. InputError if the store has too few pictures.
        """
        from multimodal.search.making_map import make_map  # imported here: UMAP takes seconds to import

        if is_whole_map(self.store) and not anew:
            return False
        self.keep_map(*make_map(self.store))
        return True

    def keep_map(self, kept: Kept, regions: Regions) -> None:
        """Keep a map of the pictures as they are now, in place of the one before."""
        name = self._new(MAP)
        facts = write_map(self.path / name, kept, regions.as_json())
        others = {part: facts for part, facts in self.store.manifest.parts.items() if not is_map(part)}
        self._commit({**others, name: facts})

    def _new(self, folder: str) -> str:
        """The name of a part of the coming generation that is a folder."""
        name = f"{folder}{self.store.manifest.counts['generation'] + 1:06d}"
        if (self.path / name).is_symlink():
            raise InputError(f"{self.path / name}: is a link, and a new part of the store would be written there. Remove the link")
        return name

    def compact(self) -> None:
        """Rewrite the live rows without tombstones, in their order, as one segment, or as few of at most `joining.MAX_ROWS`.

        Memory is that of some thousand pictures, and of all ids.

        The index of the rewritten rows is made before they become a generation, so that no reader meets a store without one.
        """
        store = self.store
        gone = (is_segment, is_tombstones, is_index)
        kept = {part: facts for part, facts in store.manifest.parts.items() if not any(is_it(part) for is_it in gone)}
        recipe = recipe_of(store.manifest.config) if any(map(is_index, store.manifest.parts)) else None
        if not len(store):
            self._commit({**kept, **self._index(recipe, {}, [])})
            return
        schema, number = schema_of(store), store.manifest.counts["next_segment"]
        made: dict[str, dict[str, Any]] = {}
        for live in in_turn(store.live_positions):
            name, facts = self._make(number + len(made), partial(write_joined, live=live, schema=schema, dim=store.dim))
            made[name] = {**facts, "made_from": {} if made else store.sources}
        readers = [SegmentReader(self.path / name, facts["rows"], store.dim) for name, facts in made.items()]
        covered = [(segment, np.arange(len(segment.ids))) for segment in readers]
        index = self._index(recipe, {name: facts["fingerprint"] for name, facts in made.items()}, covered)
        self._commit({**made, **kept, **index})

    def build_index(self, engine: EngineRecipe | None = None, anew: bool = False) -> None:
        """Make the index that the store's engine keeps, or add what it does not cover yet; nothing for an engine that keeps none.

        A store that names no engine gets an approximate one if it is large, see `multimodal.search.kept.recipe_for`.
        engine: change to this one. anew: make it from nothing. InputError if the engine is not trusted, or cannot be reached.
        """
        store = self.store
        recipe = recipe_for(store) if engine is None else engine
        config = {**store.manifest.config, **({} if recipe is None else {"engine": recipe.as_json()})}
        is_same = config == store.manifest.config
        if is_same and not anew and not is_needed(store):
            return
        segments = {name: facts["fingerprint"] for name, facts in store.manifest.parts.items() if is_segment(name)}
        index = self._index(recipe, segments, store.live_positions, anew or not is_same)
        kept = {part: facts for part, facts in store.manifest.parts.items() if not is_index(part)}
        self._commit({**kept, **index}, config=config)

    def _index(
        self, recipe: EngineRecipe | None, segments: Mapping[str, str], live: Covered, anew: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Write the index of the coming generation: its name and facts, or nothing for an engine that keeps none."""
        if recipe is None:
            return {}
        name = self._new(INDEX)
        facts = write_index(self.store, recipe, segments, live, self.path / name, anew)
        return {} if facts is None else {name: facts}

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
            "ids": store.ids_fingerprint,
        }
        if (reach := store.reached(calibration)) is not None:
            facts["reach"] = reach.as_json()
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

    def _write(self, segment: Segment, number: int) -> tuple[str, dict[str, Any]]:
        return self._make(number, lambda folder: write_segment(folder, segment))

    def _make(self, number: int, write: Callable[[Path], dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        """Write a segment under a number that no generation has used. Files that a killed writer left under it are removed first."""
        name = segment_name(number)
        folder = self.path / name
        if folder.is_symlink():
            raise InputError(f"{folder}: is a link to {folder.resolve()}, and a new segment would be written there. Remove the link")
        if folder.exists():
            shutil.rmtree(folder)
        try:
            return name, write(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _commit(self, parts: Mapping[str, Mapping[str, Any]], next_id: int = 0, config: Mapping[str, Any] | None = None) -> None:
        """Make the parts the next generation; then remove the files that neither it nor the previous one names.

        next_id: see `change`. config: of the manifest, by default as before.
        """
        before = self.store.manifest
        segments = [facts["rows"] for name, facts in parts.items() if is_segment(name)]
        deleted = sum(facts["ids"] for name, facts in parts.items() if is_tombstones(name))
        used = [int(name.removeprefix(SEGMENTS)) + 1 for name in parts if is_segment(name)]
        counts = {
            "rows": sum(segments) - deleted,
            "deleted": deleted,
            "generation": before.counts["generation"] + 1,
            "next_segment": max([before.counts["next_segment"], *used]),
        }
        config = before.config if config is None else config
        if PICTURES in config:  # ids of a shard set are its own, and come again
            counts[NEXT_ID] = max(self.store.next_id, next_id)
        write_manifest(self.path, Manifest("store", config, counts, before.made_from, parts))
        for folder in (SEGMENTS, TOMBSTONES, FUSION, INDEX, MAP, LEFT_OUT):
            for path in (self.path / folder).glob("[0-9]*"):
                if folder + path.name not in {*parts, *before.parts} and PART.fullmatch(folder + path.name):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.store = Store(self.path, before=self.store, trust=self.trust)
