"""Approximate search for stores of many pictures: FAISS's inverted lists over codes of a few bytes; a store scores the candidates again.

    multimodal index --export E --shards D --output S --engine multimodal.search.ivf.IvfEngine --engine.recall 0.98

Rows are put into lists of near ones, and only the lists nearest to a query are read (Jégou et al., 2011). Their codes have 4 bits for every
two numbers, which FAISS compares in registers (fast scan; André et al., 2015). How many lists are read, and how many candidates are scored
again with the rows themselves, is chosen by measuring against exact search, with queries in words: these lie elsewhere than pictures do,
so that figures for pictures as queries say too much.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from multimodal.boxes import Manifest, check_values, read_manifest, write_manifest
from multimodal.boxes.arrays import let_go, read_array, write_array
from multimodal.errors import InputError
from multimodal.search.engine import Neighbours
from multimodal.search.flat import FlatEngine
from multimodal.search.segments import duplicates, name_some

KIND = "index"
MIN_ROWS = 50_000
"""Fewer rows are searched exactly, which takes as long."""
_PER_LIST = 64  # rows of the sample for each list; FAISS asks for 39 to 256
_MARGIN = 0.005  # chosen on one half of the queries, the recall on the other half is a little lower
_DEPTHS = (2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
"""Candidates for each wanted neighbour that are tried."""
_BITS = 4
_CODES = 2**_BITS
_COPIED_AT_ONCE = 2**24  # bytes
_ROW_COST, _LIST_COST = 400.0, 64.0
"""What scoring a row again costs, and opening a list, in units of comparing one code; measured, in single queries at a million rows."""


class IvfEngine:
    """Holds codes in place of rows, see `multimodal.search.engine.Coarse`. Until it has `min_rows` rows, it holds them, and is exact."""

    def __init__(self, dim: int, recall: float = 0.98, min_rows: int = MIN_ROWS) -> None:
        """recall: the share of the ten nearest rows that is to be found, for queries in words."""
        if not 0 < recall <= 1:
            raise InputError(f"recall = {recall}; expected a share, above 0 and at most 1")
        self.dim, self.recall, self.min_rows = dim, recall, min_rows
        self._few: FlatEngine | None = FlatEngine(dim)
        self._index: Any = None  # faiss.IndexIVF, once there are enough rows
        self._ids = np.empty(0, np.int64)  # FAISS has the positions in it, so that a filter is a bit for each row
        self._allowed: np.ndarray | None = None  # positions, ascending
        self._bits: np.ndarray | None = None
        self._selector: Any = None
        self._num_probes = 0  # 0: not tuned
        self._oversampling = _DEPTHS[-1]

    def __len__(self) -> int:
        return len(self._ids) if self._allowed is None else len(self._allowed)

    @property
    def oversampling(self) -> int:
        """See `Coarse`."""
        return self._oversampling if self._index is not None else 1

    def train(self, sample: np.ndarray, num_rows: int) -> None:
        """Choose lists and codes, before any row is added. sample: (m, d) float32 of the rows that will be added; num_rows: of how many."""
        if num_rows < self.min_rows or len(sample) < 2 * _PER_LIST:
            return
        num_lists = min(2 ** round(math.log2(math.sqrt(num_rows))), len(sample) // _PER_LIST)
        # an odd dimension is padded with a zero
        half = -(-self.dim // 2)
        index = _empty_index(2 * half, num_lists)
        index.cp.spherical, index.cp.max_points_per_centroid, index.cp.seed = True, 2 * _PER_LIST, 1
        index.train(self._padded(sample))
        self._index, self._few = index, None

    @staticmethod
    def sample_size(num_rows: int) -> int:
        """How many rows `train` wants."""
        return min(num_rows, _PER_LIST * 2 ** round(math.log2(math.sqrt(max(num_rows, 1)))))

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if self._allowed is not None:
            raise ValueError("a filtered engine is a view; add to the engine that it was filtered from")
        if rows.ndim != 2 or rows.shape != (len(ids), self.dim):
            raise InputError(f"{len(ids)} ids and rows of shape {rows.shape}; wanted ({len(ids)}, {self.dim})")
        ids = np.array(ids, dtype=np.int64)
        if repeated := duplicates(ids) or ids[np.isin(ids, self._ids)].tolist():
            raise InputError(f"ids must be unique in an engine; these come twice: {name_some(repeated)}")
        every = np.concatenate([self._ids, ids])
        if self._few is not None:
            self._few.add(ids, rows)
            if len(every) < self.min_rows:
                self._ids = every
                return
            ids, rows = every, self._few.rows()
            sample = np.linspace(0, len(rows) - 1, self.sample_size(len(rows))).round().astype(np.int64)
            self.train(rows[sample], len(rows))
        self._ids = every
        if self._index is not None:
            self._index.add(self._padded(rows))

    def tune(self, queries: np.ndarray, nearest: np.ndarray) -> dict[str, Any]:
        """Choose how many lists are read, and how many candidates are scored again, by one half of the queries; figures of the other.

        queries: (q, d) float32; nearest: (q, 10) int64, the ids of their nearest rows, by exact search.
        """
        if self._index is None:
            return {}
        chosen, told = queries[::2], queries[1::2]
        wanted = min(self.recall + _MARGIN, 1.0)
        self._num_probes, self._oversampling = self._index.nlist, _DEPTHS[-1]
        best = math.inf
        num = 1
        while num <= self._index.nlist:
            found, seen = self._candidates(chosen, _DEPTHS[-1] * nearest.shape[1], num), len(self._ids) * num / self._index.nlist
            for depth in _DEPTHS:
                cost = seen + _LIST_COST * num + _ROW_COST * depth * nearest.shape[1]
                if cost < best and _recall(found[:, : depth * nearest.shape[1]], nearest[::2]) >= wanted:
                    best, self._num_probes, self._oversampling = cost, num, depth
            num = max(num + 1, round(num * 1.4))
        found = self._candidates(told, self._oversampling * nearest.shape[1], self._num_probes)
        return {
            "recall": round(_recall(found, nearest[1::2]), 4),
            "neighbours": nearest.shape[1],
            "queries": len(told),
            "lists": self._index.nlist,
            "lists_read": self._num_probes,
            "oversampling": self._oversampling,
        }

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries of shape {queries.shape}; wanted (q, {self.dim})")
        if k < 1:
            raise InputError(f"k = {k}; it must be at least 1")
        if self._few is not None:
            return (self._few if self._allowed is None else self._few.filter(self._ids[self._allowed])).search(queries, k)
        k = min(k, len(self))
        if not (k and len(queries)):
            return Neighbours(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        # under a filter, as many lists more as it keeps rows less: then as many rows are compared
        num_probes = self._num_probes or self._index.nlist
        num_probes = min(-(-num_probes * len(self._ids) // max(len(self), 1)), self._index.nlist)
        while True:
            scores, ids = self._searched(queries, k, num_probes)
            if num_probes >= self._index.nlist or (ids >= 0).all():
                return Neighbours(ids, scores)
            num_probes = min(4 * num_probes, self._index.nlist)

    def filter(self, ids: np.ndarray) -> Self:
        view = type(self).__new__(type(self))
        view.__dict__ |= self.__dict__
        is_allowed = np.isin(self._ids, ids)
        if self._allowed is not None:
            is_allowed &= np.isin(np.arange(len(self._ids)), self._allowed)
        view._allowed = np.flatnonzero(is_allowed)
        view._bits = np.packbits(is_allowed, bitorder="little")  # which the selector reads there
        view._selector = faiss.IDSelectorBitmap(view._bits)  # type: ignore[call-arg, arg-type]
        return view

    def save(self, path: Path) -> None:
        """ids.npy (n,) int64. For few rows rows.npy (n, d) float32; else

        centroids.npy (l, d) and codebooks.npy (m, 16, 2) float32; sizes.npy (l,) int64, and list by list places.npy (n,) int64 among the
        ids and codes.npy uint8, blocks of 32 rows as FAISS compares them. Arrays, and not FAISS's own file: of these a stranger's can be
        checked before anything follows what it says.
        """
        write_array(path / "ids.npy", self._ids)
        if self._few is not None:
            write_array(path / "rows.npy", self._few.rows())
        else:
            lists = faiss.downcast_InvertedLists(self._index.invlists)
            sizes = np.array([lists.list_size(number) for number in range(self._index.nlist)], np.int64)
            filled = list(zip(np.flatnonzero(sizes).tolist(), sizes[sizes > 0].tolist(), strict=True))
            places = [faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in filled]
            codes = [faiss.rev_swig_ptr(lists.get_codes(number), _code_bytes(lists, size)) for number, size in filled]
            write_array(path / "places.npy", np.concatenate([np.empty(0, np.int64), *places]))
            write_array(path / "codes.npy", np.concatenate([np.empty(0, np.uint8), *codes]))
            write_array(path / "sizes.npy", sizes)
            write_array(path / "centroids.npy", self._index.quantizer.reconstruct_n(0, self._index.nlist))
            write_array(path / "codebooks.npy", faiss.vector_to_array(self._index.pq.centroids).reshape(-1, _CODES, 2))
        tuned = {"num_probes": self._num_probes, "oversampling": self._oversampling}
        write_manifest(path, Manifest(kind=KIND, config={"dim": self.dim, **tuned}, counts={"rows": len(self._ids)}))

    def load(self, path: Path) -> Self:
        config = read_manifest(path, kind=KIND).config
        check_values(path, "config", config, {"dim": int, "num_probes": int, "oversampling": int})
        if config["dim"] != self.dim:
            raise ValueError(f"holds rows of {config['dim']} dimensions, expected {self.dim}")
        ids = read_array(path / "ids.npy")
        if (path / "rows.npy").is_file():
            self.add(ids, read_array(path / "rows.npy"))
            return self
        names = ("centroids", "codebooks", "sizes", "places", "codes")
        centroids, codebooks, sizes, places, codes = (read_array(path / f"{name}.npy", mapped=name == "codes") for name in names)
        dim = 2 * -(-self.dim // 2)
        for array, shape, dtype in (
            (ids, (len(ids),), np.int64),
            (centroids, (len(sizes), dim), np.float32),
            (codebooks, (dim // 2, _CODES, 2), np.float32),
            (sizes, (len(sizes),), np.int64),
            (places, (len(ids),), np.int64),
            (codes, (len(codes),), np.uint8),
        ):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"holds {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape}")
        if not (0 <= config["num_probes"] <= len(sizes) and 1 <= config["oversampling"] <= _DEPTHS[-1]):
            raise ValueError(f"reads {config['num_probes']} of {len(sizes)} lists, and {config['oversampling']} times the candidates")
        index = _empty_index(dim, len(sizes))
        index.quantizer.add(np.ascontiguousarray(centroids))
        faiss.copy_array_to_vector(np.ascontiguousarray(codebooks).ravel(), index.pq.centroids)
        index.is_trained = True
        self._fill(index, places, sizes, codes)
        self._index, self._few, self._ids = index, None, ids
        self._num_probes, self._oversampling = config["num_probes"], config["oversampling"]
        return self

    @staticmethod
    def _fill(index: Any, places: np.ndarray, sizes: np.ndarray, codes: np.ndarray) -> None:
        """Put the places and codes of all lists, one list after the other, into an index without rows. ValueError if they do not fit."""
        lists, num = faiss.downcast_InvertedLists(index.invlists), len(places)
        within = sizes.min(initial=0) >= 0 and sizes.max(initial=0) <= num and int(sizes.sum()) == num
        if not within or places.min(initial=0) < 0 or places.max(initial=-1) >= num or (np.bincount(places, minlength=num) != 1).any():
            raise ValueError(f"its lists do not hold each of {num:,} rows once")
        stops = np.cumsum(_code_bytes(lists, sizes))
        if len(codes) != (stops[-1] if len(stops) else 0):
            raise ValueError(f"holds {len(codes):,} bytes of codes, expected {stops[-1] if len(stops) else 0:,}")
        row = read = 0
        for number, (size, stop) in enumerate(zip(sizes.tolist(), stops.tolist(), strict=True)):
            if size:
                some, num_bytes = places[row : row + size], _code_bytes(lists, size)
                lists.resize(number, size)
                faiss.memcpy(lists.get_ids(number), faiss.swig_ptr(some), some.nbytes)
                faiss.memcpy(lists.get_codes(number), faiss.swig_ptr(np.array(codes[stop - num_bytes : stop])), num_bytes)
                row += size
                if stop - read >= _COPIED_AT_ONCE:  # the copy is what is searched: the file's pages would only double the memory
                    let_go(codes[read:stop])
                    read = stop
        index.ntotal = num

    def _candidates(self, queries: np.ndarray, num: int, num_probes: int) -> np.ndarray:
        return self._searched(queries, min(num, len(self._ids)), num_probes)[1]

    def _searched(self, queries: np.ndarray, k: int, num_probes: int) -> tuple[np.ndarray, np.ndarray]:
        """(q, k) scores and ids; id -1 where the lists that were read have fewer."""
        params = faiss.SearchParametersIVF(nprobe=num_probes, sel=self._selector)  # type: ignore[call-arg]
        scores, positions = self._index.search(self._padded(queries), k, params=params)
        return scores, np.where(positions >= 0, self._ids[positions], -1)

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        padded = np.zeros((len(rows), self._index.d if self._index is not None else 2 * -(-self.dim // 2)), np.float32)
        padded[:, : self.dim] = rows
        return padded


def _empty_index(dim: int, num_lists: int) -> Any:
    """An `IndexIVFPQFastScan` whose lists and codes are not chosen yet. dim: an even number."""
    index: Any = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(dim), dim, num_lists, dim // 2, _BITS, faiss.METRIC_INNER_PRODUCT)
    return index


def _code_bytes(lists: Any, size: Any) -> Any:
    """The bytes that FAISS keeps for lists of some sizes: whole blocks of rows."""
    return -(-size // lists.n_per_block) * lists.block_size


def _recall(found: np.ndarray, nearest: np.ndarray) -> float:
    """The share of the nearest (q, k) that is found (q, m)."""
    return float(np.mean([np.isin(wanted, there).mean() for there, wanted in zip(found, nearest, strict=True)])) if len(nearest) else 1.0
