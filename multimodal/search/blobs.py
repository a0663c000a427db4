"""Byte strings that lie one after another in one file, and where each begins in another: any of them is found by one read.

    write_blobs(folder / "thumbnails", jpegs)        # thumbnails.bin, thumbnails.npy
    blobs = Blobs(folder / "thumbnails.bin", folder / "thumbnails.npy", num_rows=20_000)
    blobs.values(np.array([3, 17]))                  # [b"...", None]: an empty one is None

Parquet has to decode a group of rows for one value, and to read first where all groups are: 0.3 s for a million pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from multimodal.boxes import atomic_write, reading
from multimodal.boxes.arrays import read_array, write_array


def write_blobs(path: Path, blobs: Iterable[bytes | None]) -> None:
    """Write n byte strings, and an array (n + 1,) int64 of where each begins, as `path` with the suffixes .bin and .npy."""
    stops = [0]
    with atomic_write(path.with_suffix(".bin")) as file:
        for blob in blobs:
            file.write(blob or b"")
            stops.append(stops[-1] + len(blob or b""))
    write_array(path.with_suffix(".npy"), np.array(stops, np.int64))


class Blobs:
    """Of one pair of files, which do not change. Places are kept once they were read, 8 bytes each; the content is opened for each call."""

    def __init__(self, content: Path, places: Path, num_rows: int) -> None:
        self._content, self._places, self._num_rows = content, places, num_rows
        self._stops: np.ndarray | None = None

    def values(self, positions: np.ndarray) -> list[bytes | None]:
        """The byte strings at positions (r,), in their order. InputError if a file is damaged."""
        if self._stops is None:
            self._stops = self._read_stops()
        found: list[bytes | None] = []
        with reading(self._content), self._content.open("rb", buffering=0) as file:
            for begin, end in zip(self._stops[positions].tolist(), self._stops[positions + 1].tolist(), strict=True):
                file.seek(begin)
                blob = file.read(end - begin)
                if len(blob) != end - begin:
                    raise ValueError(f"ends at byte {begin + len(blob):,} of {end:,}")
                found.append(blob or None)
        return found

    def _read_stops(self) -> np.ndarray:
        with reading(self._places):
            stops = read_array(self._places)
            if stops.shape != (self._num_rows + 1,) or stops.dtype != np.int64:
                raise ValueError(f"holds {stops.dtype} {stops.shape}; expected int64 ({self._num_rows + 1},)")
            if stops[0] != 0 or (np.diff(stops) < 0).any() or stops[-1] != self._content.stat().st_size:
                raise ValueError(f"is not about {self._content.name}: its places do not fill {self._content.stat().st_size:,} bytes")
        return stops
