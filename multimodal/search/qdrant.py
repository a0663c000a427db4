"""A search engine on Qdrant: rows as the points of a collection on a server or a cluster.

    multimodal index ... --engine multimodal.search.qdrant.Qdrant --engine.url http://localhost:6333 --engine.collection flickr8k
    QDRANT_API_KEY=... multimodal search --store S "red dress"

The collection holds half-precision vectors by the number of their row. A store scores the candidates again with its own rows (`Coarse`),
and several generations of it share the collection (`Retains`). An API key comes from QDRANT_API_KEY alone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np

from multimodal.boxes import atomic_write
from multimodal.errors import InputError, needing
from multimodal.search.engine import IndexGoneError, Neighbours
from multimodal.search.segments import duplicates, name_some

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

MEMORY = "memory"
"""In place of a URL: the client's local mode. It compares all points in Python, and ends with the process: for tests and notebooks."""
KEY = "QDRANT_API_KEY"
NOTE = "collection.json"
_UNFINISHED = "unfinished"
_IDS_AT_ONCE, _ROWS_AT_ONCE, _QUERIES_AT_ONCE = 10_000, 1_000, 64


class Qdrant:
    """Nearest neighbours in a collection of Qdrant 1.16 or later."""

    oversampling = 2  # half precision swaps neighbours that are nearly equal

    def __init__(
        self,
        dim: int,
        url: str = "http://localhost:6333",
        collection: str = "pictures",
        links: int = 16,
        build_candidates: int = 100,
        candidates: int = 128,
    ) -> None:
        """url: of the server, or "memory". collection: its name there. links, build_candidates: of the graph, `m` and `ef_construct`.

        candidates: how many a search looks at, `hnsw_ef`; more find more, and take longer.
        Nothing is connected yet. InputError: a URL with a password or a key.
        """
        with needing("qdrant", "the engine on Qdrant"):
            import qdrant_client  # noqa: F401
        if url != MEMORY:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InputError(f"--engine.url {url.rpartition('@')[2]}: expected http://HOST:6333, https://HOST:6333, or {MEMORY}")
            if "@" in parts.netloc or parts.query:
                raise InputError(
                    f"--engine.url has a user, a password or a key, and a store's manifest is no place for one. Leave it out, and set {KEY}"
                )
        self.dim, self.url, self.collection = dim, url, collection
        self.links, self.build_candidates, self.candidates = links, build_candidates, candidates
        self._mark = _UNFINISHED
        self._num_rows: int | None = None  # None: there is no collection yet
        self._allowed: np.ndarray | None = None

    @property
    def remote_host(self) -> str | None:
        """The machine that the URL names, if it is another one."""
        host = "" if self.url == MEMORY else urlsplit(self.url).hostname or ""
        return None if host in ("", "localhost", "::1") or host.startswith("127.") else host

    def __len__(self) -> int:
        return self._num_rows or 0

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if self._allowed is not None:
            raise ValueError("a filtered engine is a view; add to the engine that it was filtered from")
        if rows.ndim != 2 or rows.shape != (len(ids), self.dim):
            raise InputError(f"{len(ids)} ids and rows of shape {rows.shape}; wanted ({len(ids)}, {self.dim})")
        self._make_collection()
        ids = np.asarray(ids, np.int64)
        repeated = duplicates(ids)
        with self._client() as client:
            for block in _blocks(ids, _IDS_AT_ONCE) if len(self) else ():
                there = client.retrieve(self.collection, block.tolist(), with_payload=False, with_vectors=False)
                repeated += [int(point.id) for point in there]
            if repeated:
                raise InputError(f"ids must be unique in an engine; these come twice: {name_some(repeated)}")
            if len(ids):
                vectors = np.ascontiguousarray(rows, np.float32).copy()
                client.upload_collection(self.collection, vectors, ids=ids.tolist(), batch_size=_ROWS_AT_ONCE, wait=True)
        self._num_rows = len(self) + len(ids)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries of shape {queries.shape}; wanted (q, {self.dim})")
        if k < 1:
            raise InputError(f"k = {k}; it must be at least 1")
        if not self._num_rows or not len(queries):
            return _empty(len(queries), min(k, len(self)))
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        units = (queries / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        parts = [self._nearest(block, k) for block in _blocks(units, _QUERIES_AT_ONCE)]
        width = min(part.ids.shape[1] for part in parts)
        ids, scores = (np.concatenate([getattr(part, name)[:, :width] for part in parts]) for name in ("ids", "scores"))
        return Neighbours(ids, (scores * lengths).astype(np.float32))

    def filter(self, ids: np.ndarray) -> Self:
        view = type(self).__new__(type(self))
        view.__dict__.update(self.__dict__)
        ids = np.unique(np.asarray(ids, np.int64))
        view._allowed = ids if self._allowed is None else np.intersect1d(ids, self._allowed)
        view._num_rows = 0
        if self._num_rows:
            with self._client() as client:
                for block in _blocks(view._allowed, _IDS_AT_ONCE):
                    view._num_rows += client.count(self.collection, count_filter=_only(block), exact=True).count
        return view

    def save(self, path: Path) -> None:
        """collection.json: its name, and the mark by which it is known."""
        self._make_collection()
        if self._mark == _UNFINISHED:
            mark = secrets.token_hex(8)
            with self._client() as client:
                client.update_collection(self.collection, metadata=self._metadata(mark))
            self._mark = mark
        with atomic_write(path / NOTE) as file:
            file.write(json.dumps({"collection": self.collection, "mark": self._mark, "rows": len(self)}).encode())

    def load(self, path: Path) -> Self:
        note = json.loads((path / NOTE).read_bytes())
        name, mark = str(note["collection"]), str(note["mark"])
        with self._client() as client:
            if not client.collection_exists(name):
                raise IndexGoneError(f"there is no collection {name} in {self._where}")
            if (client.get_collection(name).config.metadata or {}) != self._metadata(mark):
                raise IndexGoneError(f"the collection {name} in {self._where} is no longer its own")
            self._num_rows = client.count(name, exact=True).count
        self.collection, self._mark = name, mark
        return self

    def retain(self, ids: np.ndarray) -> None:
        from qdrant_client import models

        with self._client() as client:
            offset, gone = None, []
            while True:
                points, offset = client.scroll(self.collection, limit=_IDS_AT_ONCE, offset=offset, with_payload=False, with_vectors=False)
                there = np.array([point.id for point in points], np.int64)
                gone.append(there[~np.isin(there, ids)])
                if offset is None:
                    break
            for block in _blocks(np.concatenate(gone), _IDS_AT_ONCE):
                client.delete(self.collection, models.PointIdsList(points=block.tolist()), wait=True)
            self._num_rows = client.count(self.collection, exact=True).count

    @property
    def _where(self) -> str:
        return f"Qdrant ({self.url})"

    def _metadata(self, mark: str) -> dict[str, Any]:
        return {"multimodal": mark, "dim": self.dim}

    @cached_property
    def _own(self) -> QdrantClient:
        return _in_memory() if self.url == MEMORY else _connected(self.url)

    @contextmanager
    def _client(self) -> Iterator[QdrantClient]:
        """The client; what the server refuses, or that there is none, is an InputError of one line."""
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            yield self._own
        except ResponseHandlingException as error:
            raise InputError(f"{self._where}: cannot connect: {error}. Start the server, or name its address in --engine.url") from None
        except UnexpectedResponse as error:
            remedy = f"Set {KEY}" if error.status_code in (401, 403) else f"It is asked for the collection {self.collection}"
            raise InputError(f"{self._where}: answers {error.status_code} {error.reason_phrase}. {remedy}") from None

    def _make_collection(self) -> None:
        """Make the collection, if this engine was neither loaded nor added to. One that a killed process left is replaced."""
        if self._num_rows is not None:
            return
        from qdrant_client import models

        with self._client() as client:
            if client.collection_exists(self.collection):
                if (client.get_collection(self.collection).config.metadata or {}).get("multimodal") != _UNFINISHED:
                    raise InputError(
                        f"{self._where}: there is a collection {self.collection} already, of another store or program. Choose another "
                        "--engine.collection, or remove it there"
                    )
                client.delete_collection(self.collection)
            graph = models.HnswConfigDiff(m=self.links, ef_construct=self.build_candidates)
            half = models.VectorParams(size=self.dim, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16, hnsw_config=graph)
            client.create_collection(self.collection, vectors_config=half, metadata=self._metadata(_UNFINISHED))
            if (client.get_collection(self.collection).config.metadata or {}) != self._metadata(_UNFINISHED):
                raise InputError(f"{self._where}: keeps no metadata of a collection. Qdrant 1.16 or later is needed")
        self._num_rows = 0

    def _nearest(self, units: np.ndarray, k: int) -> Neighbours:
        """The k best points for each query of unit length."""
        if self._allowed is None:
            return self._found(units, k, None)
        k = min(k, len(self))
        with self._client() as client:
            every = client.count(self.collection, exact=False).count
        if k and len(self) * 10 >= every:  # a filter that lets much through: ask for more, and leave out what does not pass
            wanted = -(-k * every // len(self)) + k
            while wanted < every:
                found = self._found(units, wanted, None)
                passes = np.isin(found.ids, self._allowed)
                if passes.sum(axis=1).min() >= k:
                    order = np.argsort(~passes, axis=1, kind="stable")[:, :k]
                    return Neighbours(np.take_along_axis(found.ids, order, 1), np.take_along_axis(found.scores, order, 1))
                wanted *= 2
        parts = [self._found(units, k, block) for block in _blocks(self._allowed, _IDS_AT_ONCE)]
        ids, scores = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("ids", "scores"))
        order = np.lexsort((ids, -scores), axis=1)[:, :k]
        return Neighbours(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))

    def _found(self, units: np.ndarray, k: int, only: np.ndarray | None) -> Neighbours:
        from qdrant_client import models

        params = None if self.url == MEMORY else models.SearchParams(hnsw_ef=max(self.candidates, k))
        within = None if only is None else _only(only)
        requests = [models.QueryRequest(query=unit.tolist(), limit=k, params=params, filter=within) for unit in units]
        with self._client() as client:
            answers = [answer.points for answer in client.query_batch_points(self.collection, requests)]
        width = min(map(len, answers))
        if not width:
            return _empty(len(units), 0)
        ids = np.array([[point.id for point in points[:width]] for points in answers], np.int64)
        return Neighbours(ids, np.array([[point.score for point in points[:width]] for points in answers], np.float32))


def _only(ids: np.ndarray) -> Any:
    from qdrant_client import models

    return models.Filter(must=[models.HasIdCondition(has_id=ids.tolist())])


def _empty(num_queries: int, k: int) -> Neighbours:
    return Neighbours(np.empty((num_queries, k), np.int64), np.empty((num_queries, k), np.float32))


def _blocks(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(array), size):
        yield array[start : start + size]


@cache
def _in_memory() -> QdrantClient:
    """One for the process, so that a store that was made in it can be opened in it."""
    from qdrant_client import QdrantClient

    return QdrantClient(location=":memory:")


def _connected(url: str) -> QdrantClient:
    from qdrant_client import QdrantClient

    port = urlsplit(url).port or (443 if url.startswith("https:") else 6333)
    return QdrantClient(url=url, port=port, api_key=os.environ.get(KEY), timeout=60, check_compatibility=False)
