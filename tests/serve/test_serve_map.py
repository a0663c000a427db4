"""The map over HTTP: the bytes are what the store says, and a change of the store is seen in them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from multimodal.search.placing import place
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.serve.app import make_app
from multimodal.serve.map import as_filter
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace

WORDS = ("beach", "sunset", "snow", "dog")
NUM = 60


def _store(folder: Path, ids: np.ndarray) -> Path:
    random = np.random.default_rng(0)
    WordSpace(Normaliser(), Vocabulary(WORDS, np.arange(1, 5), 9), random.standard_normal((4, 4)).astype(np.float32)).save(folder / "space")
    create_store(folder / "store", folder / "space", family="wordvec", export="e" * 64)
    with StoreWriter(folder / "store") as writer:
        metadata = {"name": [f"{id}.png" for id in ids], "text": [WORDS[id % 4] for id in ids], "year": [2000 + id % 7 for id in ids]}
        writer.append(Segment(ids, random.standard_normal((len(ids), 4)), metadata))
        writer.calibrate()
    return folder / "store"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return _store(tmp_path_factory.mktemp("served_map"), np.arange(NUM) * 3)


def client_of(path: Path) -> TestClient:
    return TestClient(make_app(Store(path)))


@pytest.fixture(scope="module")
def client(path) -> TestClient:
    return client_of(path)


def unpack(content: bytes) -> tuple[dict, bytes]:
    magic, size = content[:4], struct.unpack("<I", content[4:8])[0]
    assert magic == b"MAP1" and size % 8 == 0  # so that a browser can look at the arrays where they are
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def test_the_bytes_are_the_ids_and_places_of_the_store(client, path):
    store = Store(path)
    header, rest = unpack(client.get("/api/map").content)
    assert header == {
        "num": NUM,
        "generation": store.manifest.counts["generation"],
        "method": "pca",
        "version": store.map.version,
        "num_placed": 0,
        "ids": "u4",
    }
    assert len(rest) == 8 * NUM
    assert np.frombuffer(rest, "<u4", NUM).tolist() == store.ids.tolist()
    assert np.frombuffer(rest, "<u2", 2 * NUM, 4 * NUM).reshape(-1, 2).tolist() == store.map.points.tolist()


def test_large_ids_are_sent_whole(tmp_path):
    path = _store(tmp_path, np.array([3, 2**40, 2**52 + 1]))
    header, rest = unpack(client_of(path).get("/api/map").content)
    assert header["ids"] == "f8" and np.frombuffer(rest, "<f8", 3).tolist() == [3, 2**40, 2**52 + 1]


def test_what_a_browser_has_is_not_sent_again_until_the_store_changes(tmp_path):
    path = _store(tmp_path, np.arange(20))
    client = client_of(path)
    tag = client.get("/api/map").headers["etag"]
    again = client.get("/api/map", headers={"If-None-Match": tag})
    assert again.status_code == 304 and not again.content and again.headers["etag"] == tag
    with StoreWriter(path) as writer:
        writer.delete([3])
    changed = client.get("/api/map", headers={"If-None-Match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag and unpack(changed.content)[0]["num"] == 19


def test_a_filter_is_one_bit_a_picture(client, path):
    store = Store(path)
    header, rest = unpack(client.get("/api/map/passing", params={"where": "year >= 2004"}).content)
    passes = np.unpackbits(np.frombuffer(rest, np.uint8), bitorder="little")
    assert store.ids[passes[:NUM] == 1].tolist() == store.select("year >= 2004").tolist() and not passes[NUM:].any()
    assert header["num_passing"] == passes.sum()


def test_regions_have_filters_that_find_their_pictures(client, path):
    store = Store(path)
    found = client.get("/api/map/regions").json()
    assert found["version"] == store.map.version and found["levels"][0]
    for region in found["levels"][0]:
        inside = store.select(region["where"]).tolist()
        assert region["name"] and len(inside) >= 0.9 * region["num"]  # a hull may have more corners
    assert client.get("/api/map/regions").json() == found
    assert as_filter("abc", [(0, 0), (9, 9)]) == ""


def test_a_query_is_placed_as_in_python(client, path):
    found = client.post("/api/map/place", json={"q": "beach without snow", "where": "year >= 2003"}).json()
    wanted = place(Store(path), "beach without snow", "year >= 2003")
    assert found["ids"] == list(wanted.ids)
    assert [(term["label"], term["is_without"], (term["x"], term["y"])) for term in found["terms"]] == [
        (term.part.term.label, term.part.is_without, term.point) for term in wanted.terms
    ]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"q": ""}, "empty"),
        ({"q": "image:/etc/passwd"}, "this server reads no files"),
        ({"q": "beach", "fusion": "os.system"}, "product or sum"),
        ({"q": "beach", "where": "map inside 3"}, "no polygon"),
        ({"q": "zxqv"}, "zxqv"),
        ({"q": "beach", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_query_is_a_message(client, asked, told):
    reply = client.post("/api/map/place", json=asked)
    assert reply.status_code == 400 and told in reply.json()["error"]


def test_a_wrong_filter_or_store_is_a_message(client):
    assert client.get("/api/map/passing", params={"where": "yeer = 3"}).json()["error"].startswith("where, column 1")
    assert client.get("/api/map", params={"store": "other"}).status_code == 404
