"""A server that other sites cannot read through their visitors' browsers, and that waiting connections do not stop."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.serve.app import make_app
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    vectors = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    WordSpace(Normaliser(), Vocabulary(("beach", "sunset", "snow"), np.arange(1, 4), 9), vectors).save(folder / "space")
    create_store(folder / "store", folder / "space", family="wordvec", export="e" * 64)
    with StoreWriter(folder / "store") as writer:
        writer.append(Segment(np.arange(3), vectors, {"name": ["a", "b", "c"], "text": ["one", "two\x1b[2J", "three"]}))
    return folder / "store"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("localhost", 200),
        ("192.168.1.7", 200),
        ("photos.example:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_only_names_of_this_machine_are_answered(path: Path, host: str, status: int) -> None:
    client = TestClient(make_app(Store(path), ["photos.example"]))
    reply = client.get("/api/search", params={"q": "beach"}, headers={"host": host})
    assert reply.status_code == status
    assert ("hits" in reply.json()) == (status == 200)


@pytest.fixture
def port(path: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "multimodal.cli", "serve", "--store", str(path), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        yield int(server.stderr.readline().split(":")[2].split("/")[0])
        server.send_signal(signal.SIGINT)


def test_connections_that_say_nothing_do_not_stop_others_and_are_closed(port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    for connection in held:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    client.request("GET", "/api/search?q=beach")
    assert len(json.loads(client.getresponse().read())["hits"]) == 3
    for connection in held:
        connection.settimeout(120)
        assert connection.recv(1) == b""  # closed from over there
        connection.close()
