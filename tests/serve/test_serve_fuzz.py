"""Whatever is asked: no 500, no reply that its description does not know, and nothing of this machine beside the stores.

Thousands of requests: make test-more ROUNDS=25 ARGS=tests/serve/test_serve_fuzz.py
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx2
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.serve.app import make_app
from multimodal.serve.served import Stores
from tests.serve.stores import WORDS

SECRET = "the-secret-beside-the-stores"
STATUSES = {200, 201, 303, 304, 307, 400, 404, 405, 409, 413, 415}
EXAMPLES = settings(max_examples=20, deadline=None)

PIECES = st.sampled_from(
    [
        *WORDS,
        "+",
        "-",
        "−",
        "(",
        ")",
        '"',
        "“",
        "*",
        "2*",
        "1e9*",
        "0*",
        ".5*",
        "image:",
        "image:3",
        "image:-1",
        "image:/etc/passwd",
        "near:2",
    ]
    + [
        "near:x",
        "topic:1",
        "topic:99",
        "export:topics:",
        "export:x:dog",
        "without",
        "instead of",
        "between",
        "and",
        "in",
        "5",
        "image:up-0123456789abcdef",
    ]
    + ["'", "\0", "\u2028", "<script>", "\ud7ff", "😀", "%", "../", "\\", ";", "--", "\n"]
)
TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)
QUERIES = st.lists(PIECES | TEXTS, max_size=8).map(" ".join)
TESTS = st.sampled_from(
    [
        "size > 3",
        "camera = x",
        "name like '%1%'",
        "date = 2021",
        "path like '%'",
        "flash = true",
        "angle between 1 and 2",
        "text is missing",
    ]
    + ["id in (3, 5)", "id > 5", "(", ")", "and", "or", "not", "in (", "`", "like '%%%%'", "date >", "size = 1e999", "nothing = 1", "''"]
)
WHERES = st.lists(TESTS | TEXTS, max_size=5).map(" and ".join) | TEXTS
NUMBERS = st.integers() | st.sampled_from([0, 1, 48, 1000, 10**30, -1]) | st.floats() | TEXTS
NAMES = st.sampled_from(["", "photos", "topics", "other", "..", "photos/../topics", "\0"]) | TEXTS
SEARCH: dict[str, st.SearchStrategy[Any]] = {
    "q": QUERIES,
    "k": NUMBERS,
    "offset": NUMBERS,
    "where": WHERES,
    "order": st.sampled_from(["", "name", "-date", "score", "`size`", "nothing", "-"]) | TEXTS,
    "cut_off": st.sampled_from(["", "0.5", "1", "0", "nan", "inf", "-1"]) | TEXTS,
    "fold": st.sampled_from(["", "true", "false", "on", "2"]) | TEXTS,
    "fusion": st.sampled_from(["", "product", "sum", "os.system", "multimodal.search.fusion.VectorSum"]) | TEXTS,
    "store": NAMES,
    "view": TEXTS,
    "id": NUMBERS,
}
PATHS = st.lists(
    st.sampled_from(
        [
            "..",
            "%2e%2e",
            "..%2f",
            "%00",
            "etc",
            "passwd",
            "web",
            "image",
            "thumbnails",
            "api",
            "3",
            "-1",
            "manifest.json",
            "secret.txt",
            "store",
        ]
    )
    | st.sampled_from(
        ["pages.css", "\\", "//", ".", "%5c..", "９", "up-0123456789abcdef", "pictures", "judgements", "last", "docs", "%c0%ae%c0%ae"]
    ),
    max_size=7,
).map("/".join)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.txt").write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, photo_store: Path, topic_store: Path) -> Iterator[TestClient]:
    copied = shutil.copytree(photo_store, tmp_path_factory.mktemp("asked") / "store")
    app = make_app(Stores.open([f"photos={copied}", f"topics={topic_store}"]))
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as made:
        yield made


def check(reply: Any) -> None:
    assert reply.status_code in STATUSES, (reply.status_code, reply.text[:300])
    assert SECRET not in reply.text and "root:" not in reply.text and "Traceback" not in reply.text
    if reply.status_code >= 400 and reply.content and not reply.headers["content-type"].startswith("text/html"):
        assert set(reply.json()) == {"error", "position"}


@EXAMPLES
@given(
    route=st.sampled_from(["/", "/api/search", "/api/terms", "/api/typed", "/api/similar", "/api/facets", "/api/stores"]),
    given=st.fixed_dictionaries({}, optional=SEARCH),
)
def test_no_address_fails(asked: TestClient, route: str, given: dict[str, Any]) -> None:
    check(asked.get(route, params={name: str(value) for name, value in given.items()}))


@EXAMPLES
@given(
    body=st.fixed_dictionaries({}, optional=SEARCH)
    | st.recursive(st.none() | st.booleans() | NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=5)
)
def test_no_posted_query_fails(asked: TestClient, body: Any) -> None:
    check(asked.post("/api/search", content=json.dumps(body).encode(errors="surrogatepass"), headers={"content-type": "application/json"}))


@EXAMPLES
@given(path=PATHS, method=st.sampled_from(["GET", "GET", "GET", "POST", "DELETE", "HEAD", "PUT"]))
def test_no_path_leads_anywhere_else(asked: TestClient, outside: Path, path: str, method: str) -> None:
    for start in ("", "web/", "image/", "thumbnails/", "api/pictures/"):
        check(by_asgi(asked, method, f"/{start}{path}"))
    check(by_asgi(asked, method, f"/web/{os.path.relpath(outside / 'secret.txt')}"))


def by_asgi(asked: TestClient, method: str, path: str) -> httpx2.Response:
    """A request whose path is as it is: a client would take `..` and `//` away, and a server would not."""
    raw_path = quote(path, safe="/%\\.").encode()
    started: dict[str, Any] = {}
    body = b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal body
        if message["type"] == "http.response.start":
            started.update(message)
        else:
            body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path.decode()),
        "raw_path": raw_path,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "server": ("testserver", 80),
        "client": ("testclient", 50000),
        "state": {},
    }
    assert asked.portal is not None
    asked.portal.call(asked.app, scope, receive, send)
    return httpx2.Response(started["status"], headers=started["headers"], content=body)


@EXAMPLES
@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            "query": QUERIES | st.none(),
            "id": NUMBERS,
            "relevant": st.booleans() | TEXTS,
            "a": NUMBERS,
            "b": NUMBERS,
            "same": st.booleans(),
            "store": NAMES,
        },
    )
)
def test_no_judgement_fails(asked: TestClient, body: dict[str, Any]) -> None:
    reply = asked.post("/api/judgements", content=json.dumps(body).encode(), headers={"content-type": "application/json"})
    check(reply)
    if reply.status_code == 201:
        assert asked.delete("/api/judgements/last", params={"store": body.get("store", "")}).json() == reply.json()
