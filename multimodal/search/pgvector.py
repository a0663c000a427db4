"""A search engine on PostgreSQL: rows in a table, near ones found by the HNSW index of its extension pgvector.

    multimodal index ... --engine multimodal.search.pgvector.PgVector --engine.url postgresql://db/pictures --engine.table flickr8k
    multimodal store build-index S --engine multimodal.search.pgvector.PgVector

The table holds half-precision vectors by the number of their row. A store scores the candidates again with its own rows (`Coarse`), and
several generations of it share the table (`Retains`). Passwords are libpq's matter: ~/.pgpass, a service file, or PGPASSWORD.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from multimodal.boxes import atomic_write
from multimodal.errors import InputError, needing
from multimodal.search.engine import IndexGoneError, Neighbours

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

MAX_DIM = 4000
"""The longest half-precision vectors that pgvector's HNSW takes."""
MAX_CANDIDATES = 1000
"""The most that `hnsw.ef_search` can be."""
EXACT_SHARE = 20
"""An index is not worth its while where more than one in so many of the rows is wanted: then all are compared."""
URL_PARTS = ("host", "port", "dbname", "user", "service", "sslmode", "sslrootcert")
"""What a URL in a store's manifest may say. The rest is libpq's environment."""
NOTE = "table.json"
_UNFINISHED = "unfinished"
_BUILD_BYTES = 2 << 30  # at most, of the server's memory while it makes the index


class PgVector:
    """Nearest neighbours in a table of PostgreSQL with pgvector 0.8 or later."""

    oversampling = 2  # half precision swaps neighbours that are nearly equal

    def __init__(
        self,
        dim: int,
        url: str = "",
        table: str = "pictures",
        links: int = 16,
        build_candidates: int = 100,
        candidates: int = 100,
        exact_below: int = 5_000,
    ) -> None:
        """url: a libpq URL, such as postgresql://user@host:5432/database; by default what PGHOST, PGDATABASE ... say.

        table: its name, with a schema if it has one: photos.flickr8k. links, build_candidates: of the graph, `m` and `ef_construction`.
        candidates: how many a search looks at, `hnsw.ef_search`; more find more, and take longer.
        exact_below: where a filter lets fewer rows through, all of them are compared; else the index is searched until k pass.
        Nothing is connected yet. InputError: a URL with a password, or with what no URL of a store may say.
        """
        with needing("pgvector", "the engine on PostgreSQL"):
            import psycopg
        if not 1 <= dim <= MAX_DIM:
            raise InputError(f"vectors of {dim} dimensions: pgvector's HNSW index takes 1 to {MAX_DIM:,}. Choose another engine")
        try:
            parts = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise InputError(f"--engine.url: not a URL of PostgreSQL, such as postgresql://user@host/database: {_line(error)}") from None
        if "password" in parts:
            raise InputError(
                "--engine.url has a password, and a store's manifest is no place for one. Leave it out, and put it into ~/.pgpass, a "
                "service file, or PGPASSWORD"
            )
        if unknown := sorted(parts.keys() - set(URL_PARTS)):
            raise InputError(f"--engine.url says {unknown[0]}; it may say {', '.join(URL_PARTS)}. Set the rest by libpq's environment")
        names = table.split(".")
        if len(names) > 2 or not all(names):
            raise InputError(f"--engine.table {table!r}: expected a name, or schema.name")
        self.dim, self.url, self._names = dim, url, names
        self.links, self.build_candidates, self.candidates, self.exact_below = links, build_candidates, candidates, exact_below
        self._parts = parts
        self._session = _Session(url, self._where)
        self._token = _UNFINISHED
        self._num_rows: int | None = None  # None: there is no table yet
        self._allowed: np.ndarray | None = None

    @property
    def remote_host(self) -> str | None:
        """The first other machine that the URL names."""
        hosts = str(self._parts.get("host", "")).split(",")
        return next((host for host in hosts if not _is_local(host)), None)

    def __len__(self) -> int:
        return self._num_rows or 0

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if self._allowed is not None:
            raise ValueError("a filtered engine is a view; add to the engine that it was filtered from")
        if rows.ndim != 2 or rows.shape != (len(ids), self.dim):
            raise InputError(f"{len(ids)} ids and rows of shape {rows.shape}; wanted ({len(ids)}, {self.dim})")
        import psycopg

        self._make_table()
        with self._session.run() as cursor:
            try:
                with cursor.connection.transaction(), cursor.copy(self._sql("COPY {table} (id, row) FROM STDIN (FORMAT BINARY)")) as copy:
                    for block in _copied(np.asarray(ids, np.int64), rows):
                        copy.write(block)
            except psycopg.errors.UniqueViolation as error:
                raise InputError(f"ids must be unique in an engine: {_line(error)}") from None
        self._num_rows = len(self) + len(ids)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries of shape {queries.shape}; wanted (q, {self.dim})")
        if k < 1:
            raise InputError(f"k = {k}; it must be at least 1")
        if self._num_rows is None or not len(queries) or self._allowed is not None and not len(self):
            return Neighbours(
                np.empty((len(queries), min(k, len(self))), np.int64), np.empty((len(queries), min(k, len(self))), np.float32)
            )
        with self._session.run() as cursor:
            self._let_through(cursor)
            found = [self._nearest(cursor, query, k) for query in np.asarray(queries, np.float64)]
        width = min(len(line) for line in found)
        scores = np.array([[-distance for _, distance in line[:width]] for line in found], np.float32).reshape(len(queries), width)
        return Neighbours(np.array([[id for id, _ in line[:width]] for line in found], np.int64).reshape(len(queries), width), scores)

    def filter(self, ids: np.ndarray) -> Self:
        view = type(self).__new__(type(self))
        view.__dict__.update(self.__dict__)
        ids = np.unique(np.asarray(ids, np.int64))
        view._allowed = ids if self._allowed is None else np.intersect1d(ids, self._allowed)
        view._num_rows = 0
        if self._num_rows is not None and len(view._allowed):
            with self._session.run() as cursor:
                view._let_through(cursor)
                cursor.execute(self._sql("SELECT count(*) FROM {table} JOIN pg_temp.multimodal_allowed USING (id)"))
                view._num_rows = _one(cursor)
        return view

    def save(self, path: Path) -> None:
        """table.json: the table's name, and the mark by which it is known. Makes the HNSW index if there is none yet."""
        self._make_table()
        if self._token == _UNFINISHED:
            token = secrets.token_hex(8)
            num_bytes = len(self) * (3 * self.dim + 40 * self.links + 500)  # vectors, links and what a page leaves free, generously
            with self._session.run() as cursor, cursor.connection.transaction():
                cursor.execute(f"SET LOCAL maintenance_work_mem = '{max(64 << 20, min(num_bytes, _BUILD_BYTES)) >> 10}kB'")
                cursor.execute(
                    self._sql(
                        "CREATE INDEX ON {table} USING hnsw (row halfvec_ip_ops) "
                        f"WITH (m = {int(self.links)}, ef_construction = {int(self.build_candidates)})"
                    )
                )
                self._mark(cursor, token)
            self._token = token
            with self._session.run() as cursor:
                cursor.execute(self._sql("ANALYZE {table}"))
                cursor.execute("SELECT pg_advisory_unlock(%s)", [self._lock])
        with atomic_write(path / NOTE) as file:
            file.write(json.dumps({"table": ".".join(self._names), "mark": self._token, "rows": len(self)}).encode())

    def load(self, path: Path) -> Self:
        note = json.loads((path / NOTE).read_bytes())
        loaded = type(self).__new__(type(self))
        loaded.__dict__.update(self.__dict__)
        loaded._names, loaded._token = str(note["table"]).split("."), str(note["mark"])
        with self._session.run() as cursor:
            there = loaded._there(cursor)
            if there is None:
                raise IndexGoneError(f"there is no table {loaded._shown} in {self._where}")
            if there != {"multimodal": loaded._token, "dim": self.dim}:
                raise IndexGoneError(f"the table {loaded._shown} in {self._where} is no longer its own")
            cursor.execute(loaded._sql("SELECT count(*) FROM {table}"))
            loaded._num_rows = _one(cursor)
        return loaded

    def retain(self, ids: np.ndarray) -> None:
        view = self.filter(ids)
        with self._session.run() as cursor:
            view._let_through(cursor)
            cursor.execute(self._sql("DELETE FROM {table} t WHERE NOT EXISTS (SELECT FROM pg_temp.multimodal_allowed a WHERE a.id = t.id)"))
        self._num_rows = len(view)

    @property
    def _where(self) -> str:
        host = self._parts.get("host") or "PGHOST or its socket"
        return f"PostgreSQL ({', '.join(str(part) for part in (host, self._parts.get('port'), self._parts.get('dbname')) if part)})"

    @property
    def _shown(self) -> str:
        return ".".join(self._names)

    @property
    def _lock(self) -> int:
        """The number of the lock that whoever makes this table holds."""
        import hashlib

        return int.from_bytes(hashlib.sha256(self._shown.encode()).digest()[:8], "big", signed=True)

    def _sql(self, text: str) -> Composed:
        """SQL with the table's quoted name for {table}."""
        from psycopg.sql import SQL, Identifier

        return SQL(text).format(table=Identifier(*self._names))

    def _there(self, cursor: psycopg.Cursor[Any]) -> Any:
        """What the comment of the table says, None if there is no table."""
        from psycopg.sql import Identifier

        named = Identifier(*self._names).as_string()
        cursor.execute("SELECT oid, obj_description(oid, 'pg_class') FROM (SELECT to_regclass(%s)::oid) AS t (oid)", [named])
        oid, comment = cursor.fetchone() or (None, None)
        if oid is None:
            return None
        try:
            return json.loads(comment or "0")
        except ValueError:
            return 0

    def _mark(self, cursor: psycopg.Cursor[Any], token: str) -> None:
        from psycopg.sql import Literal

        cursor.execute(self._sql("COMMENT ON TABLE {table} IS ") + Literal(json.dumps({"multimodal": token, "dim": self.dim})))

    def _make_table(self) -> None:
        """Make the table, if this engine was neither loaded nor added to. One that a killed process left is replaced."""
        if self._num_rows is not None:
            return
        import psycopg

        with self._session.run() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [self._lock])
            if not _one(cursor):
                raise InputError(f"{self._where}: another process is making the table {self._shown}. Wait until it has finished")
            try:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                raise InputError(f"{self._where}: {_line(error)}. {_EXTENSION}") from None
            there = self._there(cursor)
            if there is not None and (not isinstance(there, dict) or there.get("multimodal") != _UNFINISHED):
                raise InputError(
                    f"{self._where}: there is a table {self._shown} already, of another store or program. Choose another --engine.table, "
                    f"or remove it in SQL: {self._sql('DROP TABLE {table}').as_string()}"
                )
            with cursor.connection.transaction():
                cursor.execute(self._sql("DROP TABLE IF EXISTS {table}"))
                cursor.execute(self._sql(f"CREATE TABLE {{table}} (id bigint PRIMARY KEY, row halfvec({self.dim}) NOT NULL)"))
                self._mark(cursor, _UNFINISHED)
        self._num_rows = 0

    def _let_through(self, cursor: psycopg.Cursor[Any]) -> None:
        """Have this view's ids in the session's own table, for a join."""
        if self._allowed is None or self._session.allowed is self._allowed:
            return
        self._session.allowed = None
        cursor.execute("CREATE TEMP TABLE IF NOT EXISTS multimodal_allowed (id bigint PRIMARY KEY)")
        cursor.execute("TRUNCATE pg_temp.multimodal_allowed")
        with cursor.copy("COPY pg_temp.multimodal_allowed (id) FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(_copied_ids(self._allowed))
        cursor.execute("ANALYZE pg_temp.multimodal_allowed")
        self._session.allowed = self._allowed

    def _nearest(self, cursor: psycopg.Cursor[Any], query: np.ndarray, k: int) -> list[tuple[int, float]]:
        """The k nearest ids with their distances, the negative inner products with the query at unit length."""
        vector = str((query / (np.linalg.norm(query) or 1.0)).astype(np.float16).tolist())  # longer ones may not fit half precision
        is_narrow = self._allowed is not None and len(self) < self.exact_below
        if not is_narrow and k * EXACT_SHARE <= len(self) and self._token != _UNFINISHED:
            self._session.look_at(cursor, min(max(int(self.candidates), k), MAX_CANDIDATES))
            within = "" if self._allowed is None else "WHERE EXISTS (SELECT FROM pg_temp.multimodal_allowed a WHERE a.id = t.id) "
            cursor.execute(
                self._sql(f"SELECT id, row <#> %s::halfvec FROM {{table}} t {within}ORDER BY row <#> %s::halfvec LIMIT %s"),
                [vector, vector, k],
            )
            found = sorted(cursor.fetchall(), key=lambda pair: (pair[1], pair[0]))
            if len(found) >= min(k, len(self)):
                return found
        joined = "" if self._allowed is None else "JOIN pg_temp.multimodal_allowed USING (id) "
        # + 0: an expression that no index has, so that all rows are compared
        cursor.execute(
            self._sql(f"SELECT id, (row <#> %s::halfvec) + 0 AS distance FROM {{table}} {joined}ORDER BY distance, id LIMIT %s"),
            [vector, k],
        )
        return cursor.fetchall()


class _Session:
    """A connection that is made when it is first needed, and again after it was lost."""

    def __init__(self, url: str, where: str) -> None:
        self.url, self.where = url, where
        self.allowed: np.ndarray | None = None
        self._candidates = 0
        self._connection: psycopg.Connection[Any] | None = None

    @contextmanager
    def run(self) -> Iterator[psycopg.Cursor[Any]]:
        """A cursor; what the server refuses is an InputError of one line."""
        import psycopg

        if self._connection is None or self._connection.closed:
            self._connection, self.allowed, self._candidates = self._connected(), None, 0
        try:
            with self._connection.cursor() as cursor:
                yield cursor
        except psycopg.OperationalError as error:
            raise InputError(f"{self.where}: {_line(error)}. Is the server still running? The next search connects again") from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise InputError(f"{self.where}: {_line(error)}. Connect as a user who may, or have the right granted") from None
        except psycopg.errors.UndefinedTable as error:
            raise InputError(f"{self.where}: {_line(error)}. It was removed while the store was open. Open the store again") from None
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise InputError(
                f"{self.where}: {_line(error)}. Name the server that may be written to: a filter needs a temporary table"
            ) from None
        except psycopg.errors.InvalidSchemaName as error:
            raise InputError(
                f"{self.where}: {_line(error)}. Make it: psql -c 'CREATE SCHEMA ...', or choose another --engine.table"
            ) from None

    def look_at(self, cursor: psycopg.Cursor[Any], num: int) -> None:
        """Set how many candidates the searches that follow look at."""
        if num != self._candidates:
            cursor.execute(f"SET hnsw.ef_search = {num}")
            self._candidates = num

    def _connected(self) -> psycopg.Connection[Any]:
        import psycopg

        try:
            connection = psycopg.connect(self.url, autocommit=True, connect_timeout=10, application_name="multimodal")
        except psycopg.OperationalError as error:
            raise InputError(f"{self.where}: cannot connect: {_line(error)}. {_remedy(str(error))}") from None
        found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        if found is not None and tuple(map(int, found[0].split(".")[:2])) < (0, 8):
            raise InputError(f"{self.where}: has pgvector {found[0]}, and 0.8 or later is needed. Run there: ALTER EXTENSION vector UPDATE")
        for name, value in {"hnsw.iterative_scan": "relaxed_order", "hnsw.max_scan_tuples": str(2**31 - 1)}.items():
            connection.execute(f"SET {name} = {value}")
        return connection


_EXTENSION = "Install pgvector on the server (https://github.com/pgvector/pgvector), and have a superuser run: CREATE EXTENSION vector"


def _remedy(message: str) -> str:
    """What to do about a connection that is refused, by libpq's message, which has no code at this point."""
    if "database" in message and "does not exist" in message:
        return "Make it: createdb NAME, or name another in --engine.url"
    if "password" in message or "authentication" in message or "role" in message:
        return "Name the user in --engine.url, and put the password into ~/.pgpass or PGPASSWORD"
    return "Start the server, or name its address in --engine.url (or PGHOST and PGPORT)"


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _one(cursor: psycopg.Cursor[Any]) -> Any:
    [value] = cursor.fetchone() or (None,)
    return value


def _is_local(host: str) -> bool:
    """Whether a host of a URL is this machine: a socket's folder, the loopback, or left to the environment."""
    return not host or host[0] in "/@" or host in ("localhost", "::1") or host.startswith("127.")


_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


def _copied(ids: np.ndarray, rows: np.ndarray, at_once: int = 4096) -> Iterator[bytes]:
    """Rows of (bigint, halfvec) as COPY reads them in its binary format."""
    dim = rows.shape[1]
    row = np.dtype(
        [("fields", ">i2"), ("size", ">i4"), ("id", ">i8"), ("bytes", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("row", ">f2", dim)]
    )
    yield _HEADER
    for start in range(0, len(ids), at_once):
        block = np.zeros(len(ids[start : start + at_once]), row)
        block["fields"], block["size"], block["id"], block["bytes"], block["dim"] = 2, 8, ids[start : start + at_once], 4 + 2 * dim, dim
        block["row"] = rows[start : start + at_once]
        yield block.tobytes()
    yield _TRAILER


def _copied_ids(ids: np.ndarray) -> bytes:
    block = np.zeros(len(ids), np.dtype([("fields", ">i2"), ("size", ">i4"), ("id", ">i8")]))
    block["fields"], block["size"], block["id"] = 1, 8, ids
    return _HEADER + block.tobytes() + _TRAILER
