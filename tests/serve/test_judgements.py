"""Judgements: what was reported as kept is on disk, in the order of its numbers, whoever else writes."""

from __future__ import annotations

import csv
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.search.store import Store
from multimodal.search.upkeep import compact
from multimodal.serve.app import make_app
from multimodal.serve.judgements import Judgements, plain
from multimodal.verify import problems_of

NUM_EACH = 25


@pytest.fixture
def store(tmp_path: Path, photo_store: Path) -> Path:
    return Path(shutil.copytree(photo_store, tmp_path / "S"))


def relevant(query: str, id: int, is_relevant: bool = True, name: str = 'a, "b".jpg') -> dict[str, Any]:
    return {"query": query, "id": id, "name": name, "relevant": is_relevant}


def table(store: Path, name: str) -> list[dict[str, str]]:
    """As any other program reads it."""
    with open(store / "judgements" / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_tables_are_plain_csv_and_undo_takes_the_last_away(store: Path) -> None:
    judgements = Judgements(store)
    assert judgements.undo() is None and judgements.rows() == []
    assert [
        judgements.add(relevant("beach, snow", 3)),
        judgements.add({"a": 1, "b": 2, "same": False}),
        judgements.add(relevant("é “x”", 4, False)),
    ] == [1, 2, 3]
    assert table(store, "relevant.csv")[0] == {"number": "1", "query": "beach, snow", "id": "3", "name": 'a, "b".jpg', "relevant": "true"}
    assert table(store, "pairs.csv") == [{"number": "2", "a": "1", "b": "2", "same": "false"}]
    assert judgements.undo(1) is None, "it is not the last one"
    assert judgements.undo(3) == {"number": 3, **relevant("é “x”", 4, False)}
    assert judgements.undo() == {"number": 2, "a": 1, "b": 2, "same": False} and table(store, "pairs.csv") == []
    assert judgements.rows("beach, snow") == [{"number": 1, **relevant("beach, snow", 3)}] and judgements.rows("beach") == []
    assert judgements.add({"a": 5, "b": 6, "same": True}) == 2


TEXTS = st.text(max_size=8) | st.text(alphabet="'=+-@ a", max_size=4)


@settings(max_examples=15, deadline=None)
@given(done=st.lists(st.tuples(st.sampled_from(["relevant", "pair", "undo"]), TEXTS, st.booleans()), max_size=12))
def test_the_tables_are_what_a_list_would_be(tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, str, bool]]) -> None:
    judgements, log = Judgements(tmp_path_factory.mktemp("judged")), list[dict[str, Any]]()
    for what, text, yes in done:
        if what == "undo":
            assert judgements.undo() == (log.pop() if log else None)
            continue
        value = relevant(plain(text) or "q", 1, yes, plain(text)) if what == "relevant" else {"a": 1, "b": 2, "same": yes}
        log.append({"number": judgements.add(value), **value})
    assert judgements.rows() == log
    if any("query" in row for row in log):
        cells = [cell for row in table(judgements.path, "relevant.csv") for cell in (row["query"], row["name"])]
        assert not [cell for cell in cells if cell[:1] in "=+-@" and cell], "a spreadsheet would compute it"


def write(store: Path, writer: int, report: Callable[[Any], None]) -> None:
    judgements = Judgements(store)
    for number in range(NUM_EACH):
        value = relevant(f"query {writer}", number) if number % 2 else {"a": writer, "b": number, "same": True}
        report((judgements.add(value), value))


def test_writers_at_once_lose_nothing_and_number_without_gaps(store: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    writers = [context.Process(target=write, args=(store, writer, queue.put)) for writer in range(3)]
    for writer in writers:
        writer.start()
    log = dict(queue.get(timeout=60) for _ in range(3 * NUM_EACH))
    for writer in writers:
        writer.join()
    assert sorted(log) == list(range(1, 3 * NUM_EACH + 1))
    assert Judgements(store).rows() == [{"number": number, **log[number]} for number in sorted(log)]


def test_what_a_kill_left_unfinished_is_not_there_and_stops_nobody(store: Path) -> None:
    judgements = Judgements(store)
    judgements.add(relevant("beach", 3))
    with open(store / "judgements" / "relevant.csv", "ab") as file:
        file.write(b'2,"half a li')
    assert [row["number"] for row in judgements.rows()] == [1]
    assert judgements.add(relevant("dog", 4)) == 2 and [row["query"] for row in table(store, "relevant.csv")] == ["beach", "dog"]


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"number,a,b,same\n1,2\n", b"number,a,b,same\n1,2,3,perhaps\n", b"number,a,b,same\nx,2,3,true\n"]
)
def test_a_table_that_is_not_ours_is_an_error_and_stays(store: Path, content: bytes) -> None:
    (store / "judgements").mkdir()
    (store / "judgements" / "pairs.csv").write_bytes(content)
    with pytest.raises(InputError, match="pairs.csv"):
        Judgements(store).add({"a": 1, "b": 2, "same": True})
    assert (store / "judgements" / "pairs.csv").read_bytes() == content


@pytest.mark.parametrize("part", ["", "/pairs.csv", "/.lock"])
def test_a_store_cannot_lead_judgements_elsewhere(store: Path, tmp_path: Path, part: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if part:
        (store / "judgements").mkdir()
        outside = outside / "file"
    (store / f"judgements{part}").symlink_to(outside)
    with pytest.raises(InputError):
        Judgements(store).add({"a": 1, "b": 2, "same": True})
    assert not list((tmp_path / "outside").iterdir())


def test_judging_by_the_api(store: Path) -> None:
    client = TestClient(make_app(Store(store)))
    kept = client.post("/api/judgements", json={"query": " beach   + snow", "id": 3, "relevant": True})
    assert (kept.status_code, kept.json()["number"]) == (201, 1)
    assert client.post("/api/judgements", json={"a": 3, "b": 4, "same": False}).json()["number"] == 2
    rows = client.get("/api/judgements", params={"q": "beach + snow"}).json()
    assert rows == [{"number": 1, "query": "beach + snow", "id": 3, "name": "IMG_3.jpg", "relevant": True}]
    assert client.delete("/api/judgements/last").json()["a"] == 3 and len(client.get("/api/judgements").json()) == 1
    for wrong in (
        {},
        {"query": "beach", "id": 3},
        {"a": 3, "b": 3, "same": True},
        {"a": 3, "b": 999, "same": True},
        {"query": " ", "id": 3, "relevant": True},
        {"query": "x", "id": 3, "relevant": True, "a": 1},
        {"query": "x" * 2000, "id": 3, "relevant": True},
        {"a": 1, "b": 2, "same": True, "extra": 1},
        {"a": 2**70, "b": 2, "same": True},
    ):
        assert client.post("/api/judgements", json=wrong).status_code == 400, wrong
    half = b'{"query": "\\ud800", "id": 3, "relevant": true}'
    assert client.post("/api/judgements", content=half, headers={"content-type": "application/json"}).status_code == 400
    assert client.delete("/api/judgements/last", params={"number": 7}).status_code == 404
    assert len(client.get("/api/judgements").json()) == 1
    assert client.get("/api/judgements", params={"store": "x"}).status_code == 404


def test_a_store_is_the_same_with_judgements(store: Path) -> None:
    before = Store(store).version
    Judgements(store).add({"a": 1, "b": 2, "same": True})
    assert Store(store).version == before and not list(problems_of(store))
    compact(store)
    assert len(Judgements(store).rows()) == 1
