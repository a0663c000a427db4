from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class Server(ThreadingHTTPServer):
    """A folder on localhost, with things that go wrong: each file's first requests may be answered by faults."""

    daemon_threads = True

    def __init__(self, folder: Path, knows_ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.knows_ranges = folder, knows_ranges
        self.faults: defaultdict[str, list[str]] = defaultdict(list)
        """Name of a file -> what goes wrong with its coming requests: "503" or another status, "stall", "truncate", "cut" or "corrupt"."""
        self.asked: list[str] = []
        self.released = threading.Event()
        """Set where stalled answers may end."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/set"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self.server.asked.append(self.path.removeprefix("/set/"))
        self._answer(has_body=True)

    def _answer(self, has_body: bool) -> None:
        name = self.path.removeprefix("/set/")
        file = self.server.folder / name
        fault = self.server.faults[name].pop(0) if has_body and self.server.faults[name] else ""
        if fault.isdecimal():
            return self.send_error(int(fault))
        if not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()
        asked = self.headers.get("Range") if self.server.knows_ranges else None
        if asked:
            start, _, last = asked.removeprefix("bytes=").partition("-")
            content = content[int(start) : int(last) + 1]
        if fault == "corrupt":
            content = bytes([content[0] ^ 1]) + content[1:]
        if fault == "cut":  # as if the file itself were shorter
            content = content[: len(content) // 2]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault in ("stall", "truncate"):
            content = content[: len(content) // 2]
        if has_body:
            self.wfile.write(content)
        if fault == "stall":
            self.wfile.flush()
            self.server.released.wait(30)
        self.close_connection = True


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves a folder: serve(folder, knows_ranges=True) -> Server."""
    servers: list[Server] = []

    def start(folder: Path, knows_ranges: bool = True) -> Server:
        servers.append(Server(folder, knows_ranges))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()
