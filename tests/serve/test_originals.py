"""Original files: those that the store names, as they were indexed, and no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from multimodal.serve.app import make_app
from multimodal.serve.originals import picture_type
from multimodal.serve.served import Stores
from tests.serve.stores import encoded, write_files_store


def client_of(store: Path, **given: object) -> TestClient:
    return TestClient(make_app(Stores.open([str(store)], **given)))  # type: ignore[arg-type]


def test_files_that_the_store_names_are_sent_as_they_are(files: Path) -> None:
    client = client_of(files)
    for id in range(4):
        reply = client.get(f"/image/{id}")
        assert reply.content == encoded(id) and reply.headers["content-type"] == "image/jpeg"
        assert "sandbox" in reply.headers["content-security-policy"] and reply.headers["x-content-type-options"] == "nosniff"
        assert client.get(f"/image/{id}", headers={"If-None-Match": reply.headers["etag"]}).status_code == 304
    assert client.get("/api/stores").json()[0]["has_files"] and client.get("/api/pictures/1").json()["has_file"]
    for id in ("4", "-1", "x", "..%2f..%2fstore%2fmanifest.json"):
        assert client.get(f"/image/{id}").status_code == 404
    assert client_of(files, originals=False).get("/image/0").status_code == 404


def changed(path: Path) -> None:
    path.write_bytes(encoded(9))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def gone(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_out(path: Path) -> None:
    """Even to a file with the indexed content."""
    path.rename(path.parents[1] / "outside.jpg")
    path.symlink_to(path.parents[1] / "outside.jpg")


@pytest.mark.parametrize("change", [changed, cut_off, gone, folder_instead, pipe_instead, link_out])
def test_a_file_that_is_not_the_indexed_one_is_not_sent(files: Path, change) -> None:
    client = client_of(files)
    change(files.parent / "Photos" / "0.jpg")
    reply = client.get("/image/0")
    assert reply.status_code == 404 and "has changed" in reply.json()["error"]
    assert client.get("/image/2").content == encoded(2) and client.get("/thumbnails/0").status_code == 200


def test_a_link_within_the_folder_is_followed(files: Path) -> None:
    photos = files.parent / "Photos"
    (photos / "0.jpg").rename(photos / "sub" / "moved.jpg")
    (photos / "0.jpg").symlink_to(photos / "sub" / "moved.jpg")
    assert client_of(files).get("/image/0").content == encoded(0)


@pytest.mark.parametrize("path", ["../secret.jpg", "sub/../../secret.jpg", "/etc/passwd", "sub/./1.jpg", "a\0b", ""])
def test_a_store_cannot_name_a_file_outside_its_folder(tmp_path: Path, spaces: dict[str, Path], path: str) -> None:
    (tmp_path / "Photos" / "sub").mkdir(parents=True)
    content = encoded(1)
    (tmp_path / "secret.jpg").write_bytes(content)
    write_files_store(tmp_path / "store", spaces["wordvec"], tmp_path / "Photos", [path], [content])
    assert client_of(tmp_path / "store").get("/image/0").status_code == 404


@pytest.mark.parametrize(
    "content", [b"<html><script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"GIF8", b""]
)
def test_what_is_no_picture_is_not_sent_even_if_it_was_indexed(tmp_path: Path, spaces: dict[str, Path], content: bytes) -> None:
    (tmp_path / "Photos").mkdir()
    (tmp_path / "Photos" / "a.jpg").write_bytes(content)
    write_files_store(tmp_path / "store", spaces["wordvec"], tmp_path / "Photos", ["a.jpg"], [content])
    assert client_of(tmp_path / "store").get("/image/0").status_code == 404


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("jpeg", "image/jpeg"),
        ("png", "image/png"),
        ("webp", "image/webp"),
        ("gif", "image/gif"),
        ("avif", "image/avif"),
        ("bmp", "image/bmp"),
        ("tiff", "image/tiff"),
    ],
)
def test_the_media_type_is_that_of_the_bytes(form: str, kind: str) -> None:
    assert picture_type(encoded(1, form)) == kind
