"""Pictures that visitors give: embedded by the store's own export, bounded, and known by their names alone."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.errors import InputError
from multimodal.search.asking import PictureEncoder
from multimodal.search.store import Store
from multimodal.serve import schemas, uploads
from multimodal.serve.app import make_app
from multimodal.serve.limits import Refused
from multimodal.serve.served import Stores
from multimodal.serve.uploads import Uploads
from tests.serve.stores import encoded


@pytest.fixture(scope="module")
def client(clip_store: Path, clip_export: Path) -> TestClient:
    return TestClient(make_app(Stores.open([f"mine={clip_store}"], exports=[clip_export])))


def claims(width: int, height: int) -> bytes:
    """A PNG that says it is so large, in some bytes."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"


def spoilt(number: int, form: str, at: int, other: bytes) -> bytes:
    """A picture file with other bytes somewhere in it."""
    whole = encoded(number, form)
    return whole[:at] + other + whole[at + len(other) :]


def test_a_given_picture_is_a_term_and_finds_itself(client: TestClient, clip_store: Path) -> None:
    reply = client.post("/api/pictures", content=encoded(4), headers={"content-type": "image/jpeg"})
    uploaded = schemas.Uploaded.model_validate(reply.json(), strict=True)
    assert (uploaded.width, uploaded.height) == (48, 36) and uploaded.content.startswith("up-")
    assert client.post("/api/pictures", content=encoded(4)).json() == reply.json(), "the same file has the same name"
    found = client.get("/api/search", params={"q": f"image:{uploaded.content}"}).json()
    assert found["hits"][0]["name"] == "4.jpg" and found["hits"][0]["score"] > 0.99
    [part] = client.get("/api/terms", params={"q": f"image:{uploaded.content} +"}).json()["parts"]
    assert part["kind"] == "image" and part["known"]
    thumbnail = client.get(f"/thumbnails/{uploaded.content}")
    assert thumbnail.status_code == 200 and Image.open(io.BytesIO(thumbnail.content)).size == (48, 36)
    assert client.get("/api/stores").json()[0]["takes_pictures"]
    lines = client.get("/metrics").text.splitlines()
    assert f"multimodal_upload_bytes_total {2 * len(encoded(4))}" in lines


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (encoded(1)[:200], 415),
        (claims(60_000, 60_000), 413),
        (claims(0, 5), 415),
        (b"\xff\xd8\xff" + bytes(uploads.MAX_BYTES), 413),
    ],
)
def test_what_is_no_picture_or_too_large_is_refused(client: TestClient, content: bytes, status: int) -> None:
    reply = client.post("/api/pictures", content=content)
    assert reply.status_code == status, reply.text
    schemas.Problem.model_validate(reply.json(), strict=True)


@settings(max_examples=30, deadline=None)
@given(
    st.binary(max_size=200)
    | st.builds(spoilt, st.integers(0, 3), st.sampled_from(["jpeg", "png", "webp", "gif"]), st.integers(0, 400), st.binary(max_size=20))
)
def test_no_upload_fails(client: TestClient, content: bytes) -> None:
    reply = client.post("/api/pictures", content=content)
    assert reply.status_code in (200, 413, 415), reply.text


def test_a_body_without_a_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    sent = 0

    def endless():
        nonlocal sent
        for _ in range(100):
            sent += 1 << 20
            yield bytes(1 << 20)

    assert client.post("/api/pictures", content=endless()).status_code == 413


def test_without_its_export_a_store_takes_no_pictures(clip_store: Path, photo_store: Path, clip_export: Path) -> None:
    client = TestClient(make_app({"mine": Store(clip_store), "other": Store(photo_store)}))
    assert client.post("/api/pictures", content=encoded(1)).status_code == 409
    assert not client.get("/api/stores").json()[0]["takes_pictures"]
    with pytest.raises(InputError, match="no store that is served was made from this export"):
        Stores.open([str(photo_store)], exports=[clip_export])


def test_the_least_recently_used_goes_first_and_names_cannot_be_guessed(clip_store: Path, clip_export: Path, tmp_path: Path) -> None:
    encoder = PictureEncoder(Store(clip_store), clip_export)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    kept, other = Uploads(tmp_path / "a", b"key", max_kept=2), Uploads(tmp_path / "b", b"another key")
    names = [kept.add(encoded(id), encoder).content for id in range(2)]
    assert other.add(encoded(0), encoder).content != names[0]
    assert kept.vector(names[0], encoder.fingerprint) is not None  # used
    names.append(kept.add(encoded(2), encoder).content)
    there = [kept.vector(name, encoder.fingerprint) for name in names]
    assert [vector is not None for vector in there] == [True, False, True]
    assert np.array_equal(there[2], encoder.picture(Image.open(io.BytesIO(encoded(2)))))
    assert kept.thumbnail(names[1]) is None and kept.thumbnail(names[0]) is not None
    with pytest.raises(Refused):
        kept.add(b"x", encoder)
    assert not list(tmp_path.glob("*/.*.part"))
