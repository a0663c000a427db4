"""The map of a store: a place in two dimensions for every picture, so that pictures that are alike are near each other.

    store = Store("S"); store.map.points            # (n, 2) uint16, in the order of store.ids: x to the right, y upwards
    with StoreWriter("S") as writer: writer.make_map()      # UMAP, kept in the store: `multimodal store map S`

Every store has a map at once: the two directions in which its pictures differ most (PCA), which its calibration knows. A better one is made
by UMAP (McInnes et al., 2018) and kept as a part of the store, with the names of its regions. Pictures that are added later have the place
of those that are most like them; those that are deleted leave it. A place depends on a picture's row and the map alone, so it does not move
when others come and go, until the map is made again.

S/map/000006/ids.npy             (m,) int64 ascending: the pictures that were placed by UMAP, of those that the store has
             points.npy          (m, 2) uint16
             landmarks.npy       (l, d) float16: rows that new pictures are compared with
             landmark_points.npy (l, 2) uint16
             regions.json        see `multimodal.search.regions`
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from multimodal.boxes import box_file, fingerprint_bytes, fingerprint_file, fingerprint_json, link_or_copy, reading
from multimodal.boxes.arrays import read_array, write_array
from multimodal.errors import InputError
from multimodal.search.calibration import Calibration
from multimodal.search.generation import is_map
from multimodal.search.segments import SegmentReader, name_some

if TYPE_CHECKING:
    from multimodal.search.regions import Regions
    from multimodal.search.store import Store

SIDE = 65_535
"""The largest coordinate. Places are whole numbers, so that they are the same on every processor, and four bytes a picture."""
NUM_LANDMARKS = 8192
NUM_NEAR = 8
"""Landmarks that a new picture is placed by."""
SPREAD = 0.03 * SIDE
"""How far apart places are that agree with each other, see `consensus`."""
MIN_COVERED = 0.5
"""A map is dropped when a smaller share of the store's pictures was placed by UMAP."""
_ROWS_AT_ONCE = 4096
_SQUASH = 1.3
_FILES = {"ids": np.int64, "points": np.uint16, "landmarks": np.float16, "landmark_points": np.uint16}
REGIONS = "regions.json"


@dataclass(frozen=True, slots=True, eq=False)
class StoreMap:
    """The map of one generation.

    points: (n, 2) uint16, x and y, in the order of the store's ids. method: "umap" or "pca". version: hexadecimal digits, which differ for
    two maps. num_placed: pictures that were added after the map was made and have the place of those that are like them.
    regions: as they were kept with the map; None if they are not.
    """

    points: np.ndarray
    method: str
    version: str
    num_placed: int = 0
    regions: Regions | None = None


class Places(Protocol):
    """Something that knows the place of every row."""

    @property
    def method(self) -> str: ...
    @property
    def version(self) -> str: ...
    def of(self, ids: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(b, 2) uint16 of pictures with ids (b,) and rows (b, d); and (b,) bool, whether each is placed by others."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """The map by PCA of the statistics that a store keeps: no row is read before it is placed."""

    mean: np.ndarray
    axes: np.ndarray
    version: str
    method: str = "pca"

    @classmethod
    def of_calibration(cls, calibration: Calibration) -> Principal:
        """mean (d,), and axes (d, 2) over which rows have the standard deviation 1; the largest entry of each is positive."""
        values, vectors = np.linalg.eigh(calibration.covariance)
        axes = np.zeros((len(calibration.mean_row), 2))
        for at in range(min(2, len(values))):
            vector = vectors[:, -1 - at]
            sign = np.sign(vector[np.argmax(np.abs(vector))])
            axes[:, at] = sign * vector / np.sqrt(max(values[-1 - at], 1e-12))
        version = fingerprint_bytes(calibration.mean_row.tobytes(), calibration.covariance.tobytes())
        return cls(calibration.mean_row, axes, version[:6])

    def of(self, ids: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        units = rows.astype(np.float32)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        along = units @ self.axes.astype(np.float32) - (self.mean @ self.axes).astype(np.float32)
        # far ones come nearer instead of beyond the edge, and no two change sides
        squashed = 0.5 + 0.5 * along / np.sqrt(along**2 + _SQUASH**2)
        return np.rint(squashed * SIDE).astype(np.uint16), np.zeros(len(rows), bool)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The map that a store keeps. The fields are those of the files, see the module."""

    ids: np.ndarray
    points: np.ndarray
    landmarks: np.ndarray
    landmark_points: np.ndarray
    version: str
    method: str = "umap"

    def __post_init__(self) -> None:
        for name, dtype in _FILES.items():
            if getattr(self, name).dtype != dtype:
                raise ValueError(f"{name} holds {getattr(self, name).dtype}; expected {np.dtype(dtype)}")
        num, num_landmarks = len(self.ids), len(self.landmarks)
        for name, shape in {"ids": (num,), "points": (num, 2), "landmark_points": (num_landmarks, 2)}.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}; expected {shape}")
        if self.landmarks.ndim != 2 or not num_landmarks or (np.diff(self.ids) <= 0).any():
            raise ValueError("a map has landmarks, and ids in ascending order")

    def of(self, ids: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = np.minimum(np.searchsorted(self.ids, ids), max(len(self.ids) - 1, 0))
        is_new = self.ids[at] != ids if len(self.ids) else np.ones(len(ids), bool)
        points = np.empty((len(ids), 2), np.uint16)
        points[~is_new] = self.points[at[~is_new]]
        new = np.flatnonzero(is_new)
        for start in range(0, len(new), _ROWS_AT_ONCE):
            some = new[start : start + _ROWS_AT_ONCE]
            points[some] = place_like(rows[some], self.landmarks, self.landmark_points)
        return points, is_new

    def without(self, going: np.ndarray) -> Kept:
        """The map without some pictures. New ones have the place that they had with them."""
        kept = ~np.isin(self.ids, going)
        return Kept(self.ids[kept], self.points[kept], self.landmarks, self.landmark_points, self.version)

    def write(self, folder: Path) -> None:
        for name in _FILES:
            write_array(folder / f"{name}.npy", getattr(self, name))


def place_like(rows: np.ndarray, landmarks: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(b, 2) uint16: for each row (b, d), where its nearest landmarks (l, d) with the points (l, 2) agree; the nearest count most."""
    cosines = rows.astype(np.float32) @ landmarks.astype(np.float32).T
    num = min(NUM_NEAR, len(landmarks))
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :num] if len(landmarks) <= 64 else _largest(cosines, num)
    near = np.take_along_axis(cosines, order, axis=1)
    distances = near[:, :1] - near
    weights = np.exp(-distances / np.maximum(distances.mean(axis=1, keepdims=True), 1e-6))
    placed = [consensus(points[chosen], weight).point for chosen, weight in zip(order, weights, strict=True)]
    return np.array(placed).reshape(-1, 2).round().astype(np.uint16)


def _largest(values: np.ndarray, num: int) -> np.ndarray:
    """(b, num): the places of the largest values of each row, the largest first."""
    some = np.argpartition(-values, num - 1, axis=1)[:, :num]
    return np.take_along_axis(some, np.argsort(-np.take_along_axis(values, some, axis=1), axis=1, kind="stable"), axis=1)


@dataclass(frozen=True, slots=True)
class Consensus:
    """point: (2,) float64. share: of the weight, how much is within two SPREADs of it: 1 if all places agree."""

    point: np.ndarray
    share: float


def consensus(points: np.ndarray, weights: np.ndarray) -> Consensus:
    """Where weighted points (k, 2) are densest: a mean would lie between two groups, where no picture is.

    The point around which most weight lies, by a Gaussian of SPREAD, then the mean of all under that Gaussian.
    """
    places = points.astype(np.float64)
    squares = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    closeness = np.exp(-squares / (2 * SPREAD**2)) * weights
    best = int(np.argmax(closeness.sum(axis=1).round(9)))
    there = closeness[best]
    return Consensus(there @ places / there.sum(), float(weights[squares[best] <= (2 * SPREAD) ** 2].sum() / weights.sum()))


def are_inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(n,) bool: which points (n, 2) are within the polygon of corners (c, 2), of which a line to the right crosses an odd number of sides.

    A polygon may cross itself. Of polygons that share a side, a point on it is within one.
    """
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    inside = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


def map_part(parts: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]] | None:
    """The name and the facts of the map among the parts of a generation."""
    return next(((name, facts) for name, facts in parts.items() if is_map(name)), None)


def is_whole_map(store: Store) -> bool:
    """Whether the store keeps a map with all its pictures."""
    found = map_part(store.manifest.parts)
    return found is not None and found[1]["rows"] == len(store)


def describe_map(store: Store) -> str | None:
    """What to know of the map that a store keeps, in a sentence; None if there is nothing."""
    found = map_part(store.manifest.parts)
    if found is None or found[1]["rows"] == len(store):
        return None
    return (
        f"{len(store) - found[1]['rows']:,} of {len(store):,} pictures are placed on its map by those that are like them. To place "
        f"them by UMAP: multimodal store map {store.path}"
    )


def open_map(store: Store) -> StoreMap:
    """The map of a store: the one that it keeps, or PCA. Places that a segment has from an earlier generation are not computed again.

    InputError if the kept map is damaged, or names pictures that the store does not have.
    """
    found = map_part(store.manifest.parts)
    if not len(store):
        return StoreMap(np.empty((0, 2), np.uint16), "pca", "empty")
    regions = None
    places: Places
    if found is None:
        places = Principal.of_calibration(store.calibration)
    else:
        kept = read_kept(store, *found)
        if strangers := np.setdiff1d(kept.ids, store.ids).tolist():
            raise InputError(f"{store.path}: its map has pictures that are not in the store: {name_some(strangers)}. {_again(store)}")
        regions = _regions(store, found[0])
        places = kept
    points, are_placed = [], 0
    for segment, live in store.live_positions:
        every, is_new = _of_segment(segment, places)
        points.append(every[live])
        are_placed += int(is_new[live].sum())
    return StoreMap(np.concatenate(points), places.method, places.version, are_placed, regions)


def _of_segment(segment: SegmentReader, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Of all its rows, also deleted ones; kept with the segment, which later generations share."""
    found = segment.places.get(places.version)
    if found is None:
        rows, size = segment.rows(), 16 * _ROWS_AT_ONCE
        blocks = [places.of(segment.ids[at : at + size], rows[at : at + size]) for at in range(0, len(rows), size)]
        points = np.concatenate([np.empty((0, 2), np.uint16), *(block[0] for block in blocks)])
        is_new = np.concatenate([np.empty(0, bool), *(block[1] for block in blocks)])
        found = points, is_new
        segment.places = {places.version: found}  # one map at a time; another thread may be at another generation
    return found


def read_kept(store: Store, name: str, facts: Mapping[str, Any]) -> Kept:
    """The map that a store keeps. InputError if its files are not those that were written."""
    folder = box_file(store.path, name)
    if not folder.is_dir():
        raise InputError(f"{folder} is gone: the store has changed since it was opened, or is damaged. Open it again, or: {_again(store)}")
    try:
        with reading(folder):
            arrays = {file: read_array(box_file(folder, f"{file}.npy")) for file in _FILES}
            if map_fingerprint(folder, facts) != facts["fingerprint"]:
                raise ValueError("its files are not those that were written")
            ids, points, landmarks, landmark_points = (arrays[file] for file in _FILES)
            kept = Kept(ids, points, landmarks, landmark_points, facts["version"])
            if kept.landmarks.shape[1] != store.dim:
                raise ValueError(f"landmarks have {kept.landmarks.shape[1]} dimensions; the store has {store.dim}")
            return kept
    except (InputError, FileNotFoundError) as error:
        raise InputError(f"{error}. {_again(store)}") from None


def _regions(store: Store, name: str) -> Regions:
    from multimodal.search.regions import read_regions

    return read_regions(box_file(store.path, f"{name}/{REGIONS}"))


def _again(store: Store) -> str:
    return f"Make the map again: multimodal store map {store.path}"


def map_fingerprint(folder: Path, facts: Mapping[str, Any]) -> str:
    """Of the files of a map, and of what the manifest says of it."""
    files = {path.name: fingerprint_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    return fingerprint_json([files, {name: value for name, value in facts.items() if name != "fingerprint"}])


def write_map(folder: Path, kept: Kept, regions: Path | str) -> dict[str, Any]:
    """Write a map into a new folder; the facts for the manifest. regions: the file to copy, or the text to write."""
    if folder.exists():
        shutil.rmtree(folder)  # of a writer that was killed
    folder.mkdir(parents=True)
    try:
        kept.write(folder)
        if isinstance(regions, Path):
            link_or_copy(regions, folder / REGIONS)
        else:
            (folder / REGIONS).write_text(regions, encoding="utf-8")
        facts = {"rows": len(kept.ids), "method": kept.method, "version": kept.version}
        return {**facts, "fingerprint": map_fingerprint(folder, facts)}
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
