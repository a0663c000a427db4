"""Engines on servers: PostgreSQL with pgvector, and Qdrant in its client's local mode. They keep the contract, and say what is wrong."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.search.conformance import brute_force, check_engine
from multimodal.search.engine import EngineRecipe
from multimodal.search.layered import Rescored
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from tests.search import random_changes
from tests.search.servers import postgres

PGVECTOR, QDRANT = "multimodal.search.pgvector.PgVector", "multimodal.search.qdrant.Qdrant"
numbers = itertools.count()


@pytest.fixture(scope="module")
def space_box(space_boxes) -> Path:
    return space_boxes["wordvec"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture
def pgvector(url) -> Callable:
    """Makes engines, each with a table of its own."""
    from multimodal.search.pgvector import PgVector

    return lambda dim, **settings: PgVector(dim, **{"url": url, "table": f"table{next(numbers)}", **settings})


@pytest.fixture
def qdrant() -> Callable:
    pytest.importorskip("qdrant_client", reason="needs qdrant-client, of the extra qdrant")
    from multimodal.search.qdrant import Qdrant

    return lambda dim, **settings: Qdrant(dim, **{"url": "memory", "collection": f"collection{next(numbers)}", **settings})


def sql(url: str, text: str) -> list[tuple]:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else []


def units(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pgvector_keeps_the_contract(pgvector, tmp_path):
    check_engine(pgvector, tmp_path, min_recall=0.95, num_queries=12)


def test_qdrant_keeps_the_contract(qdrant, tmp_path):
    check_engine(qdrant, tmp_path, min_recall=0.95, num_queries=4)


def test_a_graph_of_pgvector_is_searched_until_k_rows_pass_a_filter(pgvector, tmp_path, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c enable_seqscan=off -c enable_sort=off")  # else, of so few rows, PostgreSQL compares them all
    n, random = 2000, np.random.default_rng(2)
    ids, rows, queries = np.arange(n), units(n, 16), units(20, 16, seed=1)
    engine = pgvector(16, exact_below=0)
    engine.add(ids, rows)
    engine.save(tmp_path)
    for share in (1, 0.5, 0.1, 0.01, 0.001):
        allowed = np.sort(random.choice(n, round(share * n), replace=False))
        whole = Rescored(engine, lambda wanted: rows[wanted])
        found = (whole if share == 1 else whole.filter(allowed)).search(queries, 10)
        wanted = brute_force(allowed, rows[allowed], queries, 10)
        assert found.ids.shape == wanted.ids.shape and set(found.ids.ravel().tolist()) <= set(allowed.tolist()), share
        recall = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.ids.tolist(), wanted.ids.tolist(), strict=True)])
        assert recall >= 0.95, share


@pytest.mark.parametrize("engine", [PGVECTOR, QDRANT])
def test_a_store_on_a_server_equals_one_made_at_once_after_any_changes(engine, request, tmp_path):
    settings = {"url": request.getfixturevalue("url"), "table": "changed"}
    if engine == QDRANT:
        pytest.importorskip("qdrant_client", reason="needs qdrant-client, of the extra qdrant")
        settings = {"url": "memory", "collection": "changed"}
    done = random_changes.run(tmp_path, EngineRecipe(engine, settings), num=30, seed=2)
    assert done["compact"] and done["change"] and done["build index"] and done["search with a filter"]


def test_a_name_with_signs_is_a_name(url, tmp_path):
    from multimodal.search.pgvector import PgVector

    sql(url, "CREATE TABLE innocent (id int)")
    engine = PgVector(4, url, table='x"; DROP TABLE innocent; --')
    engine.add(np.arange(3), units(3, 4))
    engine.save(tmp_path)
    assert len(PgVector(4, url).load(tmp_path)) == 3 and sql(url, "SELECT count(*) FROM innocent") == [(0,)]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("postgresql://me:hush@host/db", "has a password, and a store's manifest is no place"),
        ("postgresql://host/db?passfile=/etc/passwd", "says passfile; it may say host, port"),
        ("nonsense", "not a URL of PostgreSQL"),
    ],
)
def test_a_url_that_no_manifest_may_hold_is_refused_and_not_repeated(address, problem):
    pytest.importorskip("psycopg", reason="needs psycopg, of the extra pgvector")
    from multimodal.search.pgvector import PgVector

    with pytest.raises(InputError, match=problem) as refused:
        PgVector(4, address)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(("class_path", "library", "extra"), [(PGVECTOR, "psycopg", "pgvector"), (QDRANT, "qdrant_client", "qdrant")])
def test_a_library_that_is_missing_is_named_with_its_extra(class_path, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"the engine on \w+ needs {library}. Run: pip install .*\[{extra}\]"):
        EngineRecipe(class_path).make(4, Path("store"), [])


def test_keys_and_odd_urls_of_qdrant_are_refused_and_not_repeated():
    pytest.importorskip("qdrant_client", reason="needs qdrant-client, of the extra qdrant")
    from multimodal.search.qdrant import Qdrant

    for address in ("http://me:hush@host:6333", "http://host:6333?api_key=hush"):
        with pytest.raises(InputError, match="has a user, a password or a key.*QDRANT_API_KEY") as refused:
            Qdrant(4, address)
        assert "hush" not in str(refused.value)
    with pytest.raises(InputError, match="expected http://HOST:6333"):
        Qdrant(4, "/tmp/folder")


def test_a_server_that_is_not_there_and_a_database_that_is_not_are_named_with_the_remedy(url):
    from multimodal.search.pgvector import PgVector

    with pytest.raises(
        InputError, match=r"PostgreSQL \(localhost, 1, x\): cannot connect: .* Start the server, or name its address"
    ) as refused:
        PgVector(4, "postgresql://localhost:1/x").add(np.arange(1), units(1, 4))
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match='database "nothing" does not exist. Make it: createdb'):
        PgVector(4, url.replace("/postgres?", "/nothing?")).add(np.arange(1), units(1, 4))
    with pytest.raises(InputError, match='schema "nothing" does not exist.*another --engine.table'):
        PgVector(4, url, table="nothing.pictures").add(np.arange(1), units(1, 4))


def test_a_qdrant_that_is_not_there_is_named_with_the_remedy(monkeypatch):
    pytest.importorskip("qdrant_client", reason="needs qdrant-client, of the extra qdrant")
    from multimodal.search.qdrant import Qdrant

    for name in ("NO_PROXY", "no_proxy"):  # its client asks a proxy that the environment names, also for this machine
        monkeypatch.setenv(name, "localhost")
    with pytest.raises(InputError, match=r"Qdrant \(http://localhost:1\): cannot connect: .*Start the server, or name its address"):
        Qdrant(4, "http://localhost:1").add(np.arange(1), units(1, 4))


def test_a_table_of_someone_else_is_never_touched(url):
    from multimodal.search.pgvector import PgVector

    sql(url, "CREATE TABLE theirs AS SELECT 7 AS id")
    with pytest.raises(InputError, match='a table theirs already, of another store or program.*DROP TABLE "theirs"'):
        PgVector(4, url, table="theirs").add(np.arange(1), units(1, 4))
    assert sql(url, "SELECT id FROM theirs") == [(7,)]


def test_a_collection_of_another_store_is_never_touched(qdrant, tmp_path):
    mine = qdrant(4)
    mine.add(np.arange(3), units(3, 4))
    mine.save(tmp_path)
    with pytest.raises(InputError, match="of another store or program. Choose another --engine.collection"):
        qdrant(4, collection=mine.collection).add(np.arange(1), units(1, 4))
    assert len(qdrant(4).load(tmp_path)) == 3


def test_a_table_that_a_killed_process_left_is_replaced_and_one_that_is_being_made_is_not(url, pgvector):
    from multimodal.search.pgvector import PgVector

    left = pgvector(4)
    left.add(np.arange(3), units(3, 4))
    name = ".".join(left._names)
    with pytest.raises(InputError, match="another process is making the table"):
        PgVector(4, url, table=name).add(np.arange(2), units(2, 4))
    sql(url, f"SELECT pg_terminate_backend({left._session._connection.info.backend_pid}, 60000)")  # as when its process dies; waits for it
    again = PgVector(4, url, table=name)
    again.add(np.arange(2), units(2, 4))
    assert sql(url, f"SELECT count(*) FROM {name}") == [(2,)]


def test_a_connection_that_breaks_is_reported_and_made_again(url, pgvector, tmp_path):
    engine = pgvector(4)
    engine.add(np.arange(3), units(3, 4))
    engine.save(tmp_path)
    view, name = engine.filter(np.arange(2)), engine._names[0]
    pid = engine._session._connection.info.backend_pid
    sql(url, f"SELECT pg_terminate_backend({pid}, 60000)")  # waits for its end
    with pytest.raises(InputError, match="Is the server still running. The next search connects again"):
        engine.search(units(1, 4), 2)
    assert engine.search(units(1, 4), 2).ids.shape == (1, 2)
    assert set(view.search(units(1, 4), 5).ids[0].tolist()) == {0, 1}, "a filter outlives the connection"
    sql(url, f"DROP TABLE {name}")
    with pytest.raises(InputError, match=f'relation "{name}" does not exist. It was removed while the store was open'):
        engine.search(units(1, 4), 2)


@pytest.mark.parametrize(
    ("class_path", "address", "host"),
    [(PGVECTOR, "postgresql://db.example/x", "db.example"), (PGVECTOR, "postgresql://localhost,db.example/x", "db.example")]
    + [(QDRANT, "https://q.example:6333", "q.example")],
)
def test_a_store_does_not_make_a_command_connect_to_another_machine(class_path, address, host):
    pytest.importorskip("psycopg", reason="needs psycopg, of the extra pgvector")
    pytest.importorskip("qdrant_client", reason="needs qdrant-client, of the extra qdrant")
    recipe = EngineRecipe(class_path, {"url": address})
    module = class_path.rpartition(".")[0]
    with pytest.raises(InputError, match=f"on another machine, {host}, and no command connects there.*--trust {module}"):
        recipe.make(4, Path("store"), [])
    assert recipe.make(4, Path("store"), [module]).remote_host == host


def test_an_index_that_lost_rows_or_is_gone_is_made_anew(url, tmp_path, space_box, segment):
    path, recipe = tmp_path / "store", EngineRecipe(PGVECTOR, {"url": url, "table": "lossy"})
    create_store(path, space_box, family="wordvec", export="e" * 64, engine=recipe)
    with StoreWriter(path) as writer:
        writer.append(segment(range(20)))
        writer.build_index()
    query = np.ones((1, 8), np.float32)
    expected = Store(path).engine.search(query, 20).ids.tolist()
    for damage, problem in {
        "DELETE FROM lossy WHERE ctid = '(0,1)'": "has 19 rows, and covers 20 pictures",
        "COMMENT ON TABLE lossy IS 'mine'": "no longer its own",
        "DROP TABLE lossy": "no table lossy",
    }.items():
        sql(url, damage)
        with pytest.raises(InputError, match=f"{problem}.*Make it again: multimodal store build-index {path} --anew"):
            _ = Store(path).engine
        if "COMMENT" in damage:
            sql(url, "DROP TABLE lossy")
        with StoreWriter(path) as writer:
            writer.build_index(anew=True)
        assert Store(path).engine.search(query, 20).ids.tolist() == expected


def test_what_a_store_keeps_of_a_server_is_a_name_and_a_mark(url, tmp_path, space_box, segment):
    path, recipe = tmp_path / "store", EngineRecipe(PGVECTOR, {"url": url, "table": "named"})
    create_store(path, space_box, family="wordvec", export="e" * 64, engine=recipe)
    with StoreWriter(path) as writer:
        writer.append(segment(range(5)))
        writer.build_index()
        writer.append(segment(range(5, 9)))
        writer.build_index()
    notes = [json.loads(note.read_text()) for note in sorted((path / "index").rglob("table.json"))]
    assert [note["rows"] for note in notes] == [5, 9] and {note["table"] for note in notes} == {"named"}
    assert len({note["mark"] for note in notes}) == 1


@pytest.mark.parametrize("engine", [PGVECTOR, QDRANT])
def test_a_reader_drops_what_a_later_generation_added_to_the_table_that_they_share(engine, request, tmp_path, space_box, segment):
    settings = {"url": request.getfixturevalue("url"), "table": "shared"}
    if engine == QDRANT:
        pytest.importorskip("qdrant_client", reason="needs qdrant-client, of the extra qdrant")
        settings = {"url": "memory", "collection": "shared"}
    path = tmp_path / "store"
    create_store(path, space_box, family="wordvec", export="e" * 64, engine=EngineRecipe(engine, settings))
    with StoreWriter(path) as writer:
        writer.append(segment(range(10)))
        writer.build_index()
        reader, queries = Store(path), units(5, 8)
        before = [reader.engine.search(queries, k).ids.tolist() for k in (1, 6, 10)]
        writer.append(segment(range(100, 150)))  # some are nearer, and they are many beside the reader's own
        writer.build_index()
    assert [reader.engine.search(queries, k).ids.tolist() for k in (1, 6, 10)] == before
    assert [Store(path).engine.search(queries, k).ids.tolist() for k in (1, 6, 10)] != before
