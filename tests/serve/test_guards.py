"""What surrounds requests: the token, the origin, and the headers that a browser obeys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Message

from multimodal.errors import InputError
from multimodal.search.store import Store
from multimodal.serve import guards
from multimodal.serve.app import make_app
from multimodal.serve.guards import COOKIE, CSP, read_token
from tests.serve.stores import NUM

TOKEN = "a-token-of-this-test"
ROUTES = (
    "/",
    "/?q=beach",
    "/api/stores",
    "/api/search?q=beach",
    "/thumbnails/3",
    "/image/3",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/nothing",
)


@pytest.fixture(scope="module")
def guarded(photo_store: Path) -> TestClient:
    return TestClient(make_app(Store(photo_store), token=TOKEN), follow_redirects=False)


@pytest.mark.parametrize("address", ROUTES)
def test_without_the_token_nothing_is_told(guarded: TestClient, address: str) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}=\x80"},
        {"authorization": "Bearer \xff"},
    ):
        reply = guarded.get(address, headers={name: value.encode("latin-1") for name, value in headers.items()})
        assert reply.status_code == (303 if address.startswith("/?") or address == "/" else 401)
        assert "IMG_" not in reply.text and "www-authenticate" in reply.headers or reply.headers["location"].startswith("login?to=")
    assert guarded.get(address, headers={"authorization": f"bearer {TOKEN}"}).status_code == (
        404 if address in ("/image/3", "/nothing") else 200
    )
    assert guarded.post("/api/judgements", json={"a": 1, "b": 2, "same": True}).status_code == 401


def test_health_and_own_files_need_no_token_and_health_names_no_store_without_it(guarded: TestClient) -> None:
    assert guarded.get("/healthz").json() == {"status": "ok", "stores": {}}
    assert guarded.get("/healthz", headers={"authorization": f"bearer {TOKEN}"}).json()["stores"] == {"store": NUM}
    assert guarded.get("/web/pages.css").status_code == guarded.get("/login").status_code == 200


def test_the_login_sets_a_cookie_that_scripts_and_other_sites_cannot_use(photo_store: Path) -> None:
    client = TestClient(make_app(Store(photo_store), token=TOKEN), follow_redirects=False)
    assert client.get("/?q=beach").headers["location"] == "login?to=%2F%3Fq%3Dbeach"
    wrong = client.post("/login?to=/", data={"token": "wrong"})
    assert wrong.status_code == 401 and "not the token" in wrong.text and "set-cookie" not in wrong.headers
    right = client.post("/login?to=%2F%3Fq%3Dbeach", data={"token": TOKEN})
    assert right.status_code == 303 and right.headers["location"] == "/?q=beach"
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and TOKEN not in cookie
    assert client.get("/api/search", params={"q": "beach"}).status_code == 200
    # other programs on this host share its cookies, whatever they write into them
    beside = {"cookie": f'theirs={{"a": [1, 2]}}; {COOKIE}={client.cookies[COOKIE]}; more=" x'}
    assert TestClient(client.app).get("/api/search", params={"q": "beach"}, headers=beside).status_code == 200
    other = TestClient(make_app(Store(photo_store), token=TOKEN + "2"), cookies=dict(client.cookies))
    assert other.get("/api/search", params={"q": "beach"}).status_code == 401, "a new token ends every login"


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/\r\nSet-Cookie: a=b"])
def test_a_login_leads_nowhere_else(guarded: TestClient, to: str) -> None:
    reply = guarded.post("/login", params={"to": to}, data={"token": TOKEN})
    assert reply.headers["location"] == "/"


@pytest.mark.parametrize(
    ("token", "is_good"),
    [("x" * 16, True), (f"  {'x' * 20}\n", True), ("short", False), ("", False), ("é" * 20, False), ("a b" * 10, False)],
)
def test_a_token_is_long_and_one_word(tmp_path: Path, token: str, is_good: bool) -> None:
    (tmp_path / "token").write_text(token)
    if is_good:
        assert read_token(tmp_path / "token") == token.strip()
    else:
        with pytest.raises(InputError, match="at least 16"):
            read_token(tmp_path / "token")


def test_another_site_changes_nothing(client: TestClient) -> None:
    judgement = {"a": 1, "b": 2, "same": True}
    for origin in ("https://evil.example", "null", "http://testserver.evil.example", "http://testserver:81", "http://[::1", "testserver"):
        assert client.post("/api/judgements", json=judgement, headers={"origin": origin}).status_code == 403
        assert client.delete("/api/judgements/last", headers={"origin": origin}).status_code == 403
        assert client.post("/api/pictures", content=b"x", headers={"origin": origin}).status_code == 403
    assert client.get("/api/judgements").json() == []
    assert client.post("/api/search", json={"q": "beach"}, headers={"origin": "http://testserver"}).status_code == 200


def test_a_body_is_taken_up_to_its_limit_and_not_for_ever(photo_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "BODY_TIMEOUT_S", 0.2)
    client = TestClient(make_app(Store(photo_store)))
    whole = {"q": "beach", "where": "id < 9 or " * 40_000}
    assert "at most 100,000" in client.post("/api/search", json=whole).json()["error"]
    kind = {"content-type": "application/json"}
    for route in ("/api/search", "/api/judgements", "/api/map/place"):
        for body in (b" " * (guards.MAX_BODY_BYTES + 1), iter([b" " * 300_000] * 9)):
            reply = client.post(route, content=body, headers=kind)
            assert reply.status_code == 413 and "1,048,576 bytes" in reply.json()["error"]
    assert asyncio.run(status_of_a_body_that_never_ends(client.app)) == 408


async def status_of_a_body_that_never_ends(app: ASGIApp) -> int:
    """Of a search whose body comes byte by byte."""
    statuses = []

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    headers = [(b"host", b"testserver"), (b"content-type", b"application/json")]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/api/search", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize("address", ROUTES)
def test_head_tells_what_get_would(client: TestClient, address: str) -> None:
    asked, told = client.head(address), client.get(address)
    varying = {"content-length"} if address == "/metrics" else set()
    assert asked.status_code == told.status_code
    assert {name: asked.headers[name] for name in asked.headers if name not in varying} == {
        name: told.headers[name] for name in told.headers if name not in varying
    }


def test_no_message_names_a_folder_of_this_machine(client: TestClient, photo_store: Path) -> None:
    for address in (
        "/image/999",
        "/thumbnails/999",
        "/api/pictures/999",
        "/api/similar?id=999",
        "/?q=image:999",
        "/api/search?q=image:999",
    ):
        reply = client.get(address)
        assert reply.status_code in (400, 404) and "no picture with id 999" in reply.text and str(photo_store) not in reply.text


@pytest.mark.parametrize("address", [*ROUTES, "/api/search?q=(", "/web/nothing"])
def test_every_reply_tells_browsers_what_they_may_do(client: TestClient, address: str) -> None:
    headers = client.get(address).headers
    assert headers["content-security-policy"] in (CSP, "default-src 'none'; sandbox")
    assert headers["x-content-type-options"] == "nosniff" and headers["cross-origin-resource-policy"] == "same-origin"
    assert "unsafe" not in headers["content-security-policy"] and "cache-control" in headers
