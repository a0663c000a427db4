"""The same commands on each engine: index, search, evaluate, verify, serve, and a change of engine, on one small real store."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multimodal.search.store import Store
from multimodal.serve.app import make_app
from tests.search.servers import postgres

if TYPE_CHECKING:
    from tests.conftest import Road

NAMES = ("flat.FlatEngine", "ivf.IvfEngine", "pgvector.PgVector", "qdrant.Qdrant")
FLAT, IVF, PGVECTOR, QDRANT = (f"multimodal.search.{name}" for name in NAMES)
QUERIES = ("red circle", "blue - square", "image:3 + green", "between red and blue in 3")
numbers = itertools.count()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture(params=[FLAT, IVF, PGVECTOR, QDRANT])
def engine(request) -> str:
    """What is typed to choose it."""
    if request.param == PGVECTOR:
        return f"--engine {PGVECTOR} --engine.url {request.getfixturevalue('url')} --engine.table by_command{next(numbers)}"
    if request.param == QDRANT:
        pytest.importorskip("qdrant_client", reason="needs qdrant-client, of the extra qdrant")
        return f"--engine {QDRANT} --engine.url memory --engine.collection by_command{next(numbers)}"
    return f"--engine {request.param}"


def told(road: Road, command: str) -> str:
    done = road.run(command)
    assert done.status == 0, f"{command}\n{done.err}"
    return done.out


def hits(road: Road, store: Path) -> list[list[tuple[int, float]]]:
    found = [json.loads(told(road, f"multimodal search --store {store} '{query}' --k 6 --json")) for query in QUERIES]
    return [[(hit["id"], round(hit["score"], 5)) for hit in one["hits"]] for one in found]


def test_a_store_that_names_an_engine_answers_as_one_with_exact_search(road: Road, engine: str, tmp_path: Path) -> None:
    index = f"multimodal index --export export --shards set --column trunk --device cpu --output {tmp_path / 'store'}"
    told(road, f"{index} {engine}")
    assert road.run(f"{index} {engine}").err.strip().endswith("is there already")
    assert hits(road, tmp_path / "store") == hits(road, Path("store"))
    evaluate = "multimodal evaluate retrieval --shards set --part all --store"
    assert told(road, f"{evaluate} {tmp_path / 'store'}") == told(road, f"{evaluate} store")
    assert "all well" in told(road, f"multimodal verify {tmp_path / 'store'}")
    where = told(road, f"multimodal search --store {tmp_path / 'store'} red --where name=red-square-1.png --k 5 --json")
    assert [hit["name"] for hit in json.loads(where)["hits"]] == ["red-square-1.png"]


def test_the_engine_of_a_store_is_changed_and_it_is_served(road: Road, engine: str, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    path = Path(shutil.copytree(road.folder / "store", tmp_path / "store"))
    told(road, f"multimodal store build-index {path} {engine}")
    client = TestClient(make_app(Store(path)))
    served = client.get("/api/search", params={"q": "red circle", "k": 6}).json()
    assert [hit["id"] for hit in served["hits"]] == [id for id, _ in hits(road, path)[0]]
    told(road, f"multimodal store build-index {path} --engine {FLAT}")
    assert hits(road, path) == hits(road, Path("store"))
    assert not any(name.startswith("index/") for name in Store(path).manifest.parts)
