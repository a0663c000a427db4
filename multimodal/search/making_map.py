"""`multimodal store map`: place the pictures of a store in two dimensions by UMAP, and name the regions. It needs the extra `map`.

multimodal store map stores/photos
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multimodal.boxes import fingerprint_bytes
from multimodal.errors import InputError, needing
from multimodal.search.places import NUM_LANDMARKS, SIDE, Kept, Principal, is_whole_map, place_like
from multimodal.search.regions import Regions, make_regions
from multimodal.search.segments import unit_rows
from multimodal.search.store import Store

MAX_FITTED = 100_000
"""UMAP places at most so many pictures, evenly spaced by id; the others have the place of those that are like them."""
MIN_PICTURES = 16
NUM_NEIGHBOURS = 15
NUM_DIMENSIONS = 64
"""UMAP looks for neighbours among so many principal components: they hold how pictures differ, and take a fraction of the time."""
_MARGIN, _MAX_STRETCH = 0.02, 1.8
_ROWS_AT_ONCE = 4096


def store_map(store: Path, anew: bool = False, trust: Sequence[str] = ()) -> None:
    """Place the pictures of a store on a map, so that those that are alike are near each other, and name its regions.

    The page of `multimodal serve` shows it. Without it, a store has a simpler map (PCA). Pictures that are added later are placed by
    those that are like them, until the map is made again. `multimodal index --map` does this at its end.

      multimodal store map stores/photos

    Args:
        store: the store's folder.
        anew: make it again, also if all pictures are on it.
        trust: packages whose classes the store names. Their code is run.
    """
    from multimodal.search.writing import StoreWriter

    opened = Store(store, trust=trust)
    if is_whole_map(opened) and not anew:  # it may be read-only: write nothing, not even a lock
        print(f"{store}: the map of {len(opened):,} pictures is up to date", file=sys.stderr)
        return
    with StoreWriter(store, trust) as writer:
        writer.make_map(anew)
        print(f"{store}: the map of {len(writer.store):,} pictures is done", file=sys.stderr)


def check_map_can_be_made() -> None:
    """InputError if the extra is missing: before hours of work are done for it."""
    with needing("map", "the map is made by UMAP, which"):
        import umap  # noqa: F401


def make_map(store: Store) -> tuple[Kept, Regions]:
    """The map of the pictures that a store has now, and its regions. The same one each time."""
    if len(store) < MIN_PICTURES:
        raise InputError(f"{store.path}: a map by UMAP needs at least {MIN_PICTURES} pictures, and there are {len(store):,}")
    check_map_can_be_made()
    ids = np.sort(store.ids)
    fitted = ids[:: max(1, -(-len(ids) // MAX_FITTED))]
    rows = store.take(fitted)
    points = _in_frame(_by_umap(rows, store))
    at = np.linspace(0, len(fitted) - 1, min(NUM_LANDMARKS, len(fitted))).round().astype(np.int64)
    landmarks, landmark_points = rows[at], points[at]
    every = np.empty((len(ids), 2), np.uint16)
    is_fitted = np.isin(ids, fitted)
    every[is_fitted] = points
    others = np.flatnonzero(~is_fitted)
    for start in range(0, len(others), _ROWS_AT_ONCE):
        some = others[start : start + _ROWS_AT_ONCE]
        every[some] = place_like(store.take(ids[some]), landmarks, landmark_points)
    version = fingerprint_bytes(ids.tobytes(), every.tobytes(), landmarks.tobytes())[:6]
    kept = Kept(ids, every, landmarks, landmark_points, version)
    return kept, make_regions(store, kept.of(store.ids, np.empty((len(store), 0)))[0])


def _by_umap(rows: np.ndarray, store: Store) -> np.ndarray:
    """(n, 2) float64. It begins at the places of PCA, so that the map is not turned or mirrored by chance, and uses one thread."""
    import umap

    units = unit_rows(rows, np.arange(len(rows)))
    values, vectors = np.linalg.eigh(store.calibration.covariance)
    components = (units - store.calibration.mean_row.astype(np.float32)) @ vectors[:, ::-1][:, :NUM_DIMENSIONS].astype(np.float32)
    begin = Principal.of_calibration(store.calibration).of(np.arange(len(rows)), rows)[0].astype(np.float32) / SIDE * 20 - 10
    begin += np.random.default_rng(0).normal(0, 1e-3, begin.shape).astype(np.float32)  # equal pictures would stay at one place
    reducer = umap.UMAP(n_neighbors=min(NUM_NEIGHBOURS, len(rows) - 1), min_dist=0.1, init=begin, random_state=0, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a graph in several pieces, and of what its own dependencies have deprecated
        return np.asarray(reducer.fit_transform(components), np.float64)


def _in_frame(places: np.ndarray) -> np.ndarray:
    """(n, 2) uint16: as large as they can be with a margin, and one direction stretched by at most _MAX_STRETCH."""
    low, high = places.min(axis=0), places.max(axis=0)
    extent = np.maximum(high - low, max(float((high - low).max()) / _MAX_STRETCH, 1e-9))
    scaled = 0.5 + (places - (low + high) / 2) / extent * (1 - 2 * _MARGIN)
    return np.rint(scaled * SIDE).astype(np.uint16)
