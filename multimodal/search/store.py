"""A store: a folder of vectors with their pictures' metadata, and the text space that embeds queries. It is searched without its export.

    store = Store("S"); store.ids, store.rows, store.records([3, 5]); store.search("beach - people")

A reader sees the generation that it opened (`multimodal.search.generation`); `multimodal.search.writing` makes the next. The files of a
generation stay until the second commit after it, so a reader that is busy during one commit can finish; a longer-lived one checks
`is_current()` and opens the store again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from multimodal.boxes import MANIFEST, box_file, fingerprint_bytes, read_manifest, reading
from multimodal.boxes.arrays import read_array
from multimodal.errors import InputError
from multimodal.search.asking import ask
from multimodal.search.calibration import TEMPLATES, Calibration, calibrate, sampled
from multimodal.search.cutoff import Reach, reach_of
from multimodal.search.folders import attached, whole_picture
from multimodal.search.fusion import Fusion, default_fusion, make_fusion
from multimodal.search.generation import (
    NEXT_ID,
    PICTURES,
    QUERY,
    SEGMENTS,
    check_manifest,
    fusion_fingerprint,
    is_fusion,
    is_index,
    is_segment,
    is_tombstones,
    segment_name,
)
from multimodal.search.hits import Hits
from multimodal.search.segments import SegmentReader, name_some
from multimodal.search.where import Where
from multimodal.text import TextSpace, open_space

if TYPE_CHECKING:
    from PIL import Image

    from multimodal.export.model import Export
    from multimodal.search.engine import Engine
    from multimodal.search.filters import FilterColumns
    from multimodal.search.places import StoreMap
    from multimodal.shards import ShardSet

_MAX_ID = np.iinfo(np.int64).max


class Store:
    """One generation of a store, to read. Opening reads the ids; rows and metadata are mapped and read when asked for.

    `ids` (n,) int64 are the live pictures, segment by segment; everything else comes in that order.
    """

    def __init__(self, path: str | Path, before: Store | None = None, trust: Sequence[str] = (), once: bool = False) -> None:
        """before: an earlier generation of the same store, whose segments and text space are not read again. trust: packages whose text
        spaces and engines may be loaded; see `open_space`. once: it will be searched once, and should take little memory; see
        `FlatEngine.add_mapped`.
        """
        self.path = Path(path)
        self.trust = tuple(trust)
        self.once = once
        self.shards: ShardSet | None = None
        """The set that the pictures came from, if it was attached."""
        self.folders: Mapping[str, Path] = {}
        """Where the folders are that the pictures came from, by their names in the store, if they were attached."""
        known = {} if before is None else {segment.number: segment for segment in before.segments}
        while True:
            self.manifest = read_manifest(self.path, kind="store")
            try:
                self._open(known)
                if (
                    before is not None
                    and "query_space" in vars(before)
                    and before.manifest.made_from[QUERY] == self.manifest.made_from[QUERY]
                ):
                    self.query_space = before.query_space  # a text tower takes seconds to load
                return
            except FileNotFoundError as error:  # a writer replaced the generation between our two reads, or the store is damaged
                if self.is_current():
                    raise InputError(
                        f"{self.path}: {error.filename} is named in the manifest but does not exist. Make the store again"
                    ) from None

    def _open(self, known: Mapping[int, SegmentReader]) -> None:
        check_manifest(self.path, self.manifest)
        segments = {int(name.removeprefix(SEGMENTS)): facts["rows"] for name, facts in self.manifest.parts.items() if is_segment(name)}
        self.segments: list[SegmentReader] = [
            known.get(number) or SegmentReader(box_file(self.path, segment_name(number)), num_rows, self.dim)
            for number, num_rows in segments.items()
        ]
        removed = [self._tombstones(name, facts) for name, facts in self.manifest.parts.items() if is_tombstones(name)]
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
    def next_id(self) -> int:
        """Larger than every id that the store has ever had, so that it can be given to a new picture."""
        every = [int(segment.ids.max()) + 1 for segment in self.segments if len(segment.ids)]
        return max([self.manifest.counts.get(NEXT_ID, 0), *every])

    @cached_property
    def version(self) -> str:
        """Of this generation: 12 hexadecimal digits, which change whenever anything that the manifest knows of changes."""
        return self.manifest.fingerprint[:12]

    @property
    def ids_fingerprint(self) -> str:
        """Of the ids, in whatever order: a picture that changes gets another id, so equal ones mean equal rows."""
        return fingerprint_bytes(np.sort(self.ids).tobytes())

    @property
    def is_calibrated(self) -> bool:
        """Whether the store keeps a calibration of the pictures that it has now."""
        kept = self.fitted
        return kept is not None and kept["rows"] == len(self) and kept.get("ids") in (None, self.ids_fingerprint)

    @property
    def sources(self) -> dict[str, str]:
        """What the segments were made from: name, as given to `append` -> fingerprint."""
        return {name: fingerprint for facts in self.manifest.parts.values() for name, fingerprint in facts.get("made_from", {}).items()}

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        attached = f", of {self.shards.place!r}" if self.shards is not None else ""
        recall = next((facts["figures"].get("recall") for name, facts in self.manifest.parts.items() if is_index(name)), None)
        approximate = "" if recall is None else f", approximate search with recall {recall}"
        return f"Store({str(self.path)!r}: {len(self):,} pictures, {self.family}, {self.dim} dimensions{approximate}{attached})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.trust, self.shards, self.folders)

    def search(
        self,
        query: str | Image.Image | np.ndarray,
        k: int = 10,
        model: Export | str | Path | None = None,
        where: Where | None = None,
        images: Mapping[str, Any] | None = None,
        fusion: str | Fusion | None = None,
        joined: Mapping[str, Store] | None = None,
        order: str = "score",
        cut_off: float | None = None,
        fold: bool = False,
    ) -> Hits:
        """The k pictures nearest to a query, best first, as a list that displays itself in a notebook.

        query: words with signs and weights, as in `multimodal search`: "2*beach without people", "image:17 + snow"; or one picture (a
        Pillow picture, or a uint8 array (h, w, 3)); or one vector (d,).
        model: the export that the store was made from, opened or as a folder; it encodes `image:<path>` and pictures.
        where: only pictures that meet this filter, 'date >= 2024-06 and camera = "X100"'; see `select`.
        images: name -> picture, file, or vector that `image:<name>` stands for in the query.
        fusion: how terms are combined: product, sum, or a class path; by default as the store keeps it.
        joined: name -> another store of the same pictures, which scores terms such as `export:<name>:beach`.
        order: the column in whose order hits are shown, such as "date", or "-date" from the newest to the oldest; they are chosen by score.
        cut_off: hide pictures that this share of random queries for something find as good ones of, above 0 and at most 1.
        fold: leave out pictures that nearly equal a better one; `Hit.like` of that one has their ids.
        Words that the text space does not know are left out with a warning; so it is if a cut-off hides every picture.
        InputError: the query does not parse, none of its words is known, its terms cancel, or an id, a file or a column does not exist.
        """
        return ask(self, query, k, model, where, images, fusion, joined, order, cut_off, fold)

    def attach(self, shards: ShardSet | None = None, folder: str | Path | Mapping[str, str | Path] | None = None) -> None:
        """Let hits show whole pictures, from where the store was made from: a shard set, or folders of people's own pictures.

        shards: InputError if its shards are others. folder: where the store's folder is now; of a store of several folders, the folder as
        the store calls it -> where it is. No other file is read for a hit, and none that has changed since.
        """
        if (shards is None) == (folder is None):
            raise InputError(
                "attach the shard set, or the folder, that the store was made from: store.attach(shards), store.attach(folder=...)"
            )
        if folder is not None:
            self.folders = attached(self, folder)
            return
        assert shards is not None
        there = set(shards.fingerprints.values())
        if missing := [name for name, fingerprint in self.sources.items() if fingerprint not in there]:
            raise InputError(
                f"{shards.place}: {self.path} was made from {len(missing)} shards that are not in this set or have changed, the first "
                f"one {missing[0]}. Attach the set that it was made from, or make the store again"
            )
        self.shards = shards

    @property
    def has_files(self) -> bool:
        """Whether its pictures are files in folders; those of a shard set are not."""
        return PICTURES in self.manifest.config

    def file_of(self, folder: str, path: str) -> Path:
        """The file of a picture, by its columns, where its folder is attached or else was when it was indexed."""
        return Path(self.folders.get(folder, folder)) / path

    def picture_bytes(self, id: int) -> bytes | None:
        """The encoded picture of an id: the whole one if its shard set or folder is attached, else its thumbnail, or None if it has none.

        InputError if the order of the set's shards, or the file, has changed since the store was made.
        """
        if self.folders:
            whole = whole_picture(self, id)
            return self.thumbnails([id])[0] if whole is None else whole
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

    @property
    def live_positions(self) -> list[tuple[SegmentReader, np.ndarray]]:
        """Each segment with the positions of its live rows."""
        return list(zip(self.segments, self._live, strict=True))

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
        """The engine over every live row, an exact one if the manifest names none; see `multimodal.search.kept`.

        InputError if it is not trusted, or if its index is not made yet, is stale or is damaged.
        """
        from multimodal.search.kept import open_engine  # imported here: reading a store for something else loads no engine

        return open_engine(self)

    @cached_property
    def map(self) -> StoreMap:
        """Where each picture is on the store's map. InputError if the map that it keeps is damaged."""
        from multimodal.search.places import open_map  # imported here: most readers need no map

        return open_map(self)

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

    @cached_property
    def reach(self) -> Reach:
        """What cut-offs are measured by, as the store keeps it; computed here for an older store, which keeps none.

        InputError if the store has no pictures, or its text space no words that are known.
        """
        kept = (self.fitted or {}).get("reach")
        if kept is not None:
            _ = self.calibration  # checks that it is what was written
            try:
                return Reach.from_json(kept)
            except ValueError as error:
                raise InputError(f"{self.path / MANIFEST}: {error}. Make the store again") from None
        found = self.reached(self.calibration if len(self.calibration.words) else self.calibrated())
        if found is None:
            raise InputError(f"{self.path}: a cut-off needs pictures, and words that the text space knows")
        return found

    def reached(self, calibration: Calibration) -> Reach | None:
        """What cut-offs are measured by, of the rows as they are now."""
        return reach_of((segment.rows()[live] for segment, live in zip(self.segments, self._live, strict=True)), calibration.queries)

    def _statistics(self, name: str, facts: Mapping[str, Any]) -> np.ndarray:
        """(d + 2 + w, d) float64, see `Calibration.as_array`."""
        path = box_file(self.path, name)
        try:
            with reading(path):
                array = read_array(path)
                if fusion_fingerprint(array, facts) != facts["fingerprint"]:
                    raise ValueError(f"with what {MANIFEST} says, such as the constants, it is not the calibration that was written")
                is_shaped = array.ndim == 2 and array.shape[1] == self.dim and len(array) >= self.dim + 2
                if array.dtype != np.float64 or not is_shaped or not np.isfinite(array).all():
                    wanted = f"at least {self.dim + 2} x {self.dim} finite numbers"
                    raise ValueError(f"a calibration is {wanted}, and this is {array.shape} {array.dtype}")
        except FileNotFoundError:
            raise InputError(f"{path} is gone: the store has changed since it was opened, or is damaged. Open it again") from None
        return array

    def calibrated(self, template: str | None = None) -> Calibration:
        """The calibration of the rows as they are now. template: by default that of the store, or of its family."""
        if template is None:
            template = TEMPLATES.get(self.family, "{}") if self.fitted is None else self.fitted["template"]
        ids = sampled(self.ids)
        if PICTURES in self.manifest.config and self.fitted is not None and self.fitted["template"] == template:
            words = self.calibration.words  # it has no texts, so these do not change, and no encoder is loaded for them
            return calibrate(ids, self.take(ids), [], self.query_space, template, words)
        texts = [str(record["text"] or "") for record in self.records(ids, ["text"])]
        return calibrate(ids, self.take(ids), texts, self.query_space, template)

    @property
    def rows(self) -> np.ndarray:
        """(n, d) float16 of unit length up to float16's rounding; memory-mapped if the store is one whole segment."""
        if len(self.segments) == 1 and len(self._live[0]) == len(self.segments[0].ids):
            return self.segments[0].rows()
        parts = [segment.rows()[live] for segment, live in zip(self.segments, self._live, strict=True)]
        return np.concatenate([np.empty((0, self.dim), np.float16), *parts])

    def __contains__(self, id: int) -> bool:
        return bool(self.has([id])[0])

    def has(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """(r,) bool: whether the store has a picture of each id, which may be any integers."""
        fits = np.array([abs(int(id)) <= _MAX_ID for id in ids], bool)
        if not len(self):
            return np.zeros_like(fits)
        asked = np.array([id if is_fit else 0 for id, is_fit in zip(ids, fits.tolist(), strict=True)], np.int64)
        rank = np.minimum(np.searchsorted(self.ids, asked, sorter=self._by_id), len(self) - 1)
        return fits & (self.ids[self._by_id[rank]] == asked)

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

    def may_have_thumbnails(self, ids: Sequence[int] | np.ndarray) -> list[bool]:
        """Whether the part of the store that has a picture has thumbnails at all, which is known without reading them."""
        found = [False] * len(ids)
        for segment, places, _ in self._places(ids):
            has_thumbnails = segment.has_thumbnails
            for place in places.tolist():
                found[place] = has_thumbnails
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

    def arrow_column(self, name: str) -> pa.ChunkedArray:
        """One metadata column as Arrow has it, n values in the order of `ids`, null where a segment does not have it."""
        chunks: list[pa.Array] = []
        for segment, live in zip(self.segments, self._live, strict=True):
            whole = segment.arrow_column(name)
            chunks += (whole if len(live) == len(segment.ids) else whole.take(live)).chunks
        kind, *others = {chunk.type for chunk in chunks if not pa.types.is_null(chunk.type)} or {pa.null()}
        if others:
            raise InputError(f"{self.path}: column {name} is {kind} in one segment and {others[0]} in another. Make the store again")
        return pa.chunked_array([chunk.cast(kind) for chunk in chunks], kind)

    @cached_property
    def filter_columns(self) -> FilterColumns:
        """What filters and orders have read of this generation."""
        from multimodal.search.filters import FilterColumns  # imported here: Arrow's compute functions take a tenth of a second

        return FilterColumns(self)

    def select(self, where: Where) -> np.ndarray:
        """The ids of the pictures that meet a filter, in the order of `ids`.

        where: such as 'date >= 2024-06 and camera = "X100"'; several, which must all be met; or column -> the value, or a list of allowed
        values. See `multimodal.search.where` and `multimodal.search.filters`.
        WhereError, an InputError, if it does not parse, or asks of a column what it does not have.
        """
        return self.ids[self.filter_columns.meeting(where)]

    def positions(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """(r,) int64: where some ids are among `self.ids`. InputError if the store does not have one."""
        if beyond := [int(id) for id in ids if abs(int(id)) > _MAX_ID]:
            raise InputError(f"{self.path}: no picture with id {name_some(beyond)}; it has {len(self):,}")
        asked = np.asarray(ids, dtype=np.int64)
        rank = np.searchsorted(self.ids, asked, sorter=self._by_id)
        if missing := [
            id for id, at in zip(asked.tolist(), rank.tolist(), strict=True) if at == len(self) or self.ids[self._by_id[at]] != id
        ]:
            raise InputError(f"{self.path}: no picture with id {name_some(missing)}; it has {len(self):,}")
        found: np.ndarray = self._by_id[rank]
        return found

    def _places(self, ids: Sequence[int] | np.ndarray) -> list[tuple[SegmentReader, np.ndarray, np.ndarray]]:
        """For each segment with any of the ids: the segment, their places in `ids`, their positions in the segment."""
        flat = self.positions(ids)
        stops = np.cumsum([0, *map(len, self._live)])
        owner = np.searchsorted(stops, flat, side="right") - 1
        found = []
        for index in np.unique(owner).tolist():
            places = np.flatnonzero(owner == index)
            found.append((self.segments[index], places, self._live[index][flat[places] - stops[index]]))
        return found


def _reopened(path: Path, trust: Sequence[str], shards: ShardSet | None, folders: Mapping[str, Path]) -> Store:
    store = Store(path, trust=trust)
    store.shards, store.folders = shards, folders
    return store
