"""The page and its JSON over a small real store: what `multimodal search` finds, nothing unescaped, and no file of the server."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from fastapi.testclient import TestClient
from markupsafe import escape

from multimodal import cli
from multimodal.search.fusion import VectorSum
from multimodal.search.query import answer, as_json
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.serve.app import make_app
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace

WORDS = ("beach", "sunset", "snow")
EVIL = '<script>alert("1")</script>'
PNG = b"\x89PNG" + bytes(8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    random = np.random.default_rng(0)
    vectors = random.standard_normal((3, 4)).astype(np.float32)
    WordSpace(Normaliser(), Vocabulary(WORDS, np.arange(1, 4), 9), vectors).save(folder / "space")
    create_store(folder / "store", folder / "space", family="wordvec", export="e" * 64)
    with StoreWriter(folder / "store") as writer:
        metadata = {"name": ["a.png", "b.png", "c.png"], "text": [EVIL, "two", "three"], "year": [2003, 2001, None]}
        writer.append(Segment(np.array([7, 8, 9]), random.standard_normal((3, 4)), metadata, [PNG, b"\xff\xd8\xffJ", None]))
    return folder / "store"


@pytest.fixture(scope="module")
def client(path):
    return TestClient(make_app(Store(path)))


def same_answer(reply, printed):
    """Whether a reply is what the command line prints, with a server's facts beside it."""
    hits = [{name: hit[name] for name in kept} for hit, kept in zip(reply["hits"], printed["hits"], strict=True)]
    return {**{name: reply[name] for name in printed}, "hits": hits} == printed


def test_json_is_what_the_command_line_prints(client, path):
    reply = client.get("/api/search", params={"q": "beach - snow + zxqv", "k": 2})
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/json"
    assert same_answer(reply.json(), json.loads(as_json("beach - snow + zxqv", answer(Store(path), "beach - snow + zxqv", 2))))
    assert len(reply.json()["hits"]) == 2 and "zxqv" in reply.json()["unknown"]


@pytest.mark.parametrize(
    ("query", "told"), [("", "empty"), ("(beach", "never closed\n  (beach\n  ^"), ("image:3", "no picture"), ("zxqv", "zxqv")]
)
def test_a_wrong_query_is_a_message_in_both_places(client, query, told):
    reply = client.get("/api/search", params={"q": query})
    assert reply.status_code == 400 and told in reply.json()["error"]
    if query:
        page = client.get("/", params={"q": query}).text
        assert f'<pre role="alert">{escape(reply.json()["error"])}</pre>' in page


@pytest.mark.parametrize("written", ["image:{}", 'beach + image:"{}"', "beach - 0.5*(image:{} + snow)"])
def test_no_query_reads_a_file_of_the_server(client, tmp_path, written):
    (tmp_path / "secret.png").write_bytes(PNG)
    for file in (tmp_path / "secret.png", tmp_path / "not-there.png"):
        query = written.format(file)
        reply = client.get("/api/search", params={"q": query})
        assert reply.status_code == 400 and "this server reads no files" in reply.json()["error"]
        assert "this server reads no files" in client.get("/", params={"q": query}).text


def test_a_query_or_a_picture_cannot_write_into_the_page(client):
    for query in (f'beach "{EVIL}"', f"beach + {EVIL}", 'beach + "\' onfocus=1"'):
        page = client.get("/", params={"q": query}).text
        assert set(re.findall("<script.*?>", page)) == {'<script src="web/early.js">', '<script type="module" src="web/main.js">'}
        assert "' onfocus" not in page
    assert escape(EVIL) in client.get("/", params={"q": "beach"}).text


def test_a_click_searches_the_picture_and_what_is_in_the_box(client):
    page = client.get("/", params={"q": "2*beach - snow"}).text
    links = [parse_qs(urlsplit(unescape(link)).query)["q"][0] for link in re.findall(r'<div class="picture"><a href="([^"]+)"', page)]
    assert sorted(links) == [f"image:{id} + 2*beach - snow" for id in (7, 8, 9)]
    assert all(client.get("/", params={"q": link}).status_code == 200 for link in links)
    assert 'value="2*beach - snow"' in page


def test_page_and_json_say_how_a_store_s_scores_are_made(client, path, tmp_path):
    shutil.copytree(path, tmp_path / "store")
    with StoreWriter(tmp_path / "store") as writer:
        writer.calibrate(fusion=VectorSum())
    query = {"q": "beach without snow"}
    for asked, is_product in ((client, True), (TestClient(make_app(Store(tmp_path / "store"))), False)):
        told, page = asked.get("/api/search", params=query).json(), asked.get("/", params=query).text
        assert told["why_is"] == ("product" if is_product else "sum") and told["means"] == "beach without snow"
        assert ("how well they meet every term" in page) == is_product and ("by cosine" in page) == (not is_product)
        for hit in told["hits"]:
            assert list(hit["why"]) == ["beach", "without snow"]
            together = math.prod(hit["why"].values()) if is_product else sum(hit["why"].values())
            assert together == pytest.approx(hit["score"], abs=1e-5)
            for value in hit["why"].values():
                assert (f"<dd>×{value:.3f}</dd>" if is_product else f"<dd>{value:+.3f}</dd>".replace("-", "\u2212")) in page.replace(
                    "-", "\u2212"
                )


@pytest.mark.parametrize(
    ("query", "links"),
    [
        ("between beach and snow in 3", ["image:{} + beach", "image:{} + 0.5*beach + 0.5*snow", "image:{} + snow"]),
        ("between without beach and snow in 2", ["image:{} + (without beach)", "image:{} + snow"]),
        ("Without (beach + snow)", ["image:{} + (Without (beach + snow))"] * 3),
        ("without beach + snow", ["image:{} + (without beach + snow)"] * 3),
        ("snow instead of beach", ["image:{} + snow instead of beach"] * 3),
        ("-beach", ["image:{} + -beach"] * 3),
    ],
)
def test_a_click_works_in_every_kind_of_query_and_in_a_series_takes_its_step(client, query, links):
    ids = [hit["id"] for hit in client.get("/api/search", params={"q": query}).json()["hits"]]
    page = client.get("/", params={"q": query}).text
    found = [parse_qs(urlsplit(unescape(link)).query)["q"][0] for link in re.findall(r'<div class="picture"><a href="([^"]+)"', page)]
    assert found == [link.format(id) for link, id in zip(links, ids, strict=True)] and len(set(ids)) == len(ids)
    assert [client.get("/", params={"q": link}).status_code for link in found] == [200] * len(links)


def test_the_page_names_unknown_words_and_asks_nothing_of_a_network(client):
    page = client.get("/", params={"q": "beech + snow"})
    assert "not known to the text space: beech" in page.text and "Near spellings: beech: beach" in page.text
    for text in (page.text, client.get("/").text):
        assert "http:" not in text and "https:" not in text and "//" not in text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_thumbnails_have_their_media_type_and_others_are_not_found(client):
    first, second = client.get("/thumbnails/7"), client.get("/thumbnails/8")
    assert (first.content, first.headers["content-type"]) == (PNG, "image/png")
    assert second.headers["content-type"] == "image/jpeg"
    for id in ("9", "10", "-1", "x", "9" * 30, "9" * 5000, "..%2Fmanifest.json"):
        assert client.get(f"/thumbnails/{id}").status_code == 404


def test_a_filter_an_order_a_cut_off_and_folding_are_those_of_the_command_line(client, path):
    given = {"where": "year is not missing and name in (a.png, b.png, c.png)", "order": "-year", "cut_off": "1", "fold": "true"}
    reply = client.get("/api/search", params={"q": "beach"} | given)
    found = answer(Store(path), "beach", 10, where=given["where"], order="-year", cut_off=1.0, fold=True)
    assert same_answer(reply.json(), json.loads(as_json("beach", found))) and [hit["id"] for hit in reply.json()["hits"]] == [7, 8]
    page = client.get("/", params={"q": "beach"} | given).text
    assert f'value="{escape(given["where"])}"' in page and 'value="-year"' in page and " checked" in page
    [link, *_] = re.findall(r'<div class="picture"><a href="([^"]+)"', page)
    followed = parse_qs(urlsplit(unescape(link)).query)
    assert {name: followed[name] for name in given} == {name: [value] for name, value in given.items()}
    assert client.get("/", params={"q": "beach", "where": " ", "order": ""}).status_code == 200


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"where": "yaer = 2001"}, "where, column 1: there is no column yaer. Did you mean year"),
        ({"where": "year = " + "(" * 2000}, "where, column 8: a value is missing after ="),
        ({"order": "yaer"}, "order: there is no column yaer. Did you mean year"),
        ({"cut_off": "much"}, "cut-off 'much': a share of the random queries"),
        ({"cut_off": "nan"}, "cut-off nan: a share of the random queries"),
        ({"fold": "maybe"}, "fold 'maybe': true or false"),
    ],
)
def test_what_is_wrong_beside_the_query_is_a_message_in_both_places(client, given, told):
    reply = client.get("/api/search", params={"q": "beach"} | given)
    assert reply.status_code == 400 and reply.json()["error"].startswith(told)
    page = client.get("/", params={"q": "beach"} | given)
    assert page.status_code == 400 and f'<pre role="alert">{escape(reply.json()["error"])}</pre>' in page.text


def test_too_long_a_query_and_too_many_hits_are_refused(client):
    assert client.get("/api/search", params={"q": "image:" + "9" * 5000}).status_code == 400
    assert client.get("/api/search", params={"q": "image:" + "9" * 900}).status_code == 400
    for k in ("0", "1000000", "many"):
        reply = client.get("/api/search", params={"q": "beach", "k": k})
        assert reply.status_code == 400 and reply.json()["error"].startswith("k: Input should be")


def test_a_taken_port_is_a_message(path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["serve", "--store", str(path), "--port", str(taken.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err
    assert cli.main(["serve", "--store", str(path), "--port", "70000"]) == 2


def test_the_verb_serves_until_it_is_interrupted(path):
    command = [sys.executable, "-m", "multimodal.cli", "serve", "--store", str(path), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[0]
        with urlopen(f"{address}api/search?q=beach", timeout=30) as reply:
            assert len(json.load(reply)["hits"]) == 3
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 0 and rest == ""


def test_what_a_writer_commits_is_served_at_once_and_no_request_is_dropped(path, tmp_path):
    """Readers ask all the time while another adds, deletes and compacts; a reply is that of one generation, the last of the newest."""
    shutil.copytree(path, tmp_path / "store")
    random = np.random.default_rng(1)
    replies, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            replies.append(client.get("/api/search", params={"q": "beach", "k": 1000}))
            replies.append(client.get("/thumbnails/7"))
            replies.append(client.get("/", params={"q": "snow"}))

    with TestClient(make_app(Store(tmp_path / "store"))) as client, ThreadPoolExecutor(2) as threads:  # one event loop for all threads
        readers = [threads.submit(ask) for _ in range(2)]
        try:
            with StoreWriter(tmp_path / "store") as writer:
                for id in range(100, 115):
                    writer.append(Segment(np.array([id]), random.standard_normal((1, 4)), {"name": ["n"], "text": ["t"]}, [PNG]))
                    found = client.get("/api/search", params={"q": "beach", "k": 1000}).json()["hits"]
                    assert id in {hit["id"] for hit in found}
                    if id % 2:
                        writer.delete([id])
                        found = client.get("/api/search", params={"q": "beach", "k": 1000}).json()["hits"]
                        assert id not in {hit["id"] for hit in found}
                    if id % 5 == 0:
                        writer.compact()
        finally:
            stop.set()
        for reader in readers:
            reader.result()
        assert f"{len(Store(tmp_path / 'store')):,}" in client.get("/").text
    assert len(replies) > 10 and {reply.status_code for reply in replies} == {200}


def test_a_store_that_is_gone_is_served_on_and_said_once(path, tmp_path, capsys):
    shutil.copytree(path, tmp_path / "store")
    client = TestClient(make_app(Store(tmp_path / "store")))
    before = client.get("/api/search", params={"q": "beach"}).json()["hits"]
    (tmp_path / "store" / "manifest.json").write_text("{")
    for _ in range(3):
        assert client.get("/api/search", params={"q": "beach"}).json()["hits"] == before
    assert capsys.readouterr().err.count("cannot be opened again") == 1
