"""The API: replies are of their schemas and say what the command line says, and nothing asked of it reads a file or runs code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from multimodal.search.facets import facets
from multimodal.search.query import answer, as_json
from multimodal.search.store import Store
from multimodal.search.terms import understand
from multimodal.search.words import Words
from multimodal.serve import schemas
from multimodal.serve.app import make_app
from multimodal.serve.served import Stores
from tests.serve.stores import NUM, WORDS

QUERIES = ("beach", "beach + snow", "dog without people", "snow instead of beach", "between dog and tree in 4", "image:3 + red", "near:5")


@pytest.mark.parametrize("query", QUERIES)
def test_a_search_is_that_of_the_command_line_by_get_and_by_post(client: TestClient, photo_store: Path, query: str) -> None:
    printed = json.loads(as_json(query, answer(Store(photo_store), query, 7)))
    got = client.get("/api/search", params={"q": query, "k": 7})
    posted = client.post("/api/search", json={"q": query, "k": 7})
    assert got.status_code == posted.status_code == 200 and got.json() == posted.json()
    found = schemas.Found.model_validate(got.json(), strict=True)
    assert {name: got.json()[name] for name in printed if name != "hits"} == {name: printed[name] for name in printed if name != "hits"}
    assert [{name: hit[name] for name in printed["hits"][0]} for hit in got.json()["hits"]] == printed["hits"]
    assert all((hit.has_thumbnail, hit.width, hit.height) == (True, 48, 36) for hit in found.hits)
    assert found.store == "photos" and found.version == Store(photo_store).version


@pytest.mark.parametrize("given", [{}, {"where": "flash = true"}, {"cut_off": "0.9"}, {"fold": "true"}, {"fusion": "sum"}])
def test_pages_side_by_side_are_one_long_page(client: TestClient, given: dict[str, str]) -> None:
    whole = client.get("/api/search", params={"q": "beach + dog", "k": 40, **given}).json()
    parts = [client.get("/api/search", params={"q": "beach + dog", "k": 7, "offset": offset, **given}).json() for offset in range(0, 42, 7)]
    together = [hit for part in parts for hit in part["hits"]]
    assert together[: len(whole["hits"])] == whole["hits"] and [hit["rank"] for hit in together] == list(range(1, len(together) + 1))
    if "fold" not in given:
        everything = client.get("/api/search", params={"q": "beach + dog", "k": 1000, **given}).json()
        assert {part["num_found"] for part in parts} == {len(everything["hits"])}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"offset": 10, "order": "name"}, "an order by name is that of the best k pictures"),
        ({"offset": 9990, "k": 11}, "this server goes to 10,000"),
        ({"fusion": "os.system"}, "product or sum"),
        ({"fusion": "multimodal.search.fusion.VectorSum"}, "product or sum"),
        ({"store": "other"}, "no store is served as other"),
        ({"q": "beach +"}, "query, column 8"),
        ({"q": "image:up-0123456789abcdef"}, "no such picture"),
        ({"q": "image:/etc/passwd"}, "this server reads no files"),
    ],
)
def test_what_is_refused_says_why(client: TestClient, given: dict[str, str], told: str) -> None:
    reply = client.get("/api/search", params={"q": "beach"} | given)
    problem = schemas.Problem.model_validate(reply.json(), strict=True)
    assert reply.status_code == (404 if "store" in given else 400) and told in problem.error
    assert problem.position == (7 if given.get("q") == "beach +" else None)


def test_a_filter_is_as_long_as_a_list_of_ten_thousand_pictures_and_no_longer(client: TestClient) -> None:
    names = ", ".join(f"IMG_{id}.jpg" for id in range(20))
    asked = {"q": "beach", "where": f"name in ({names})", "k": 60}
    assert len(client.post("/api/search", json=asked).json()["hits"]) == 20
    told = client.post("/api/search", json=asked | {"where": "size = " + "(" * 100_000})
    assert told.status_code == 400 and "the filter has 100,007 characters; this server accepts at most 100,000" in told.json()["error"]
    many = " or ".join(f"size = {number}" for number in range(0, 5000, 50))
    assert len(client.post("/api/search", json=asked | {"where": many}).json()["hits"]) == 5


def test_another_store_answers_by_its_name_and_scores_terms_of_the_first(client: TestClient, topic_store: Path) -> None:
    own = client.get("/api/search", params={"q": "beach", "store": "topics"}).json()
    assert [hit["id"] for hit in own["hits"][:5]] == [hit.id for hit in answer(Store(topic_store), "beach", 5).hits]
    joined = client.get("/api/search", params={"q": "dog + export:topics:topic:2", "k": 5})
    assert joined.status_code == 200 and len(joined.json()["hits"]) == 5
    names = [facts["name"] for facts in client.get("/api/stores").json()]
    assert names == ["photos", "topics"]


def test_the_stores_say_what_they_have(client: TestClient) -> None:
    photos, topics = TypeAdapter(list[schemas.StoreFacts]).validate_python(client.get("/api/stores").json(), strict=True)
    kinds = {column.name: column.kind for column in photos.columns}
    assert {kinds[name] for name in ("size", "angle", "width")} == {"number"} and kinds["date"] == "date" and kinds["flash"] == "boolean"
    assert photos.num_pictures == NUM and photos.has_thumbnails and not topics.has_thumbnails and not photos.takes_pictures
    assert photos.takes_pictures_not is not None and "--export" in photos.takes_pictures_not


def test_similar_pictures_are_a_search_from_the_picture(client: TestClient) -> None:
    assert (
        client.get("/api/similar", params={"id": 4, "k": 5}).json()["hits"]
        == client.get("/api/search", params={"q": "image:4", "k": 5}).json()["hits"]
    )
    assert client.get("/api/similar", params={"id": -4}).status_code == 400 and client.get("/api/similar").status_code == 400


def test_a_picture_is_told_with_its_metadata_words_and_topics(client: TestClient, photo_store: Path) -> None:
    told = schemas.PictureFacts.model_validate(client.get("/api/pictures/3").json(), strict=True)
    assert (
        told.name == "IMG_3.jpg" and "camera" not in told.metadata and told.metadata["date"] == "2023-04-04 12:00:00" and told.topics == []
    )
    assert [word.text for word in told.words] == [
        near.word for near in Words.of(Store(photo_store)).near(Store(photo_store).take([3]), 10)[0]
    ]
    of_topics = schemas.PictureFacts.model_validate(client.get("/api/pictures/3", params={"store": "topics"}).json(), strict=True)
    assert [topic.share for topic in of_topics.topics] == sorted((topic.share for topic in of_topics.topics), reverse=True)
    for id in ("60", "-1", "x", "9" * 30):
        assert client.get(f"/api/pictures/{id}").status_code == 404


@pytest.mark.parametrize("where", ["", 'camera = "Pixel 7"', "date >= 2022", "size < 0"])
def test_facets_count_what_their_filters_select(client: TestClient, photo_store: Path, where: str) -> None:
    store = Store(photo_store)
    told = TypeAdapter(list[schemas.FacetColumn]).validate_python(client.get("/api/facets", params={"where": where}).json())
    assert [one.column for one in told] == [one.column for one in facets(store, where or None)]
    num = len(store.select(where)) if where else NUM
    for facet in told:
        for part in (*facet.values, *facet.bins):
            both = part.where if not where else f"({where}) and {part.where}"
            assert len(store.select(both)) == part.count, (facet.column, part)
        counted = sum(part.count for part in (*facet.values, *facet.bins))
        assert counted + facet.missing == num, f"{facet.column}: every picture is in one part"
    assert {"path", "camera", "size", "date", "flash"} <= {one.column for one in told} or not num
    assert not {"text", "content"} & {one.column for one in told}


def test_terms_are_chips_with_near_spellings(client: TestClient) -> None:
    told = schemas.Terms.model_validate(client.get("/api/terms", params={"q": "2*beach - red without snwo"}).json(), strict=True)
    chips = [(part.label, part.role, part.weight, part.known) for part in told.parts]
    assert chips == [("beach", "wanted", 2.0, True), ("red", "subtracted", 1.0, True), ("snwo", "without", 1.0, False)]
    assert told.parts[2].spellings[0] == "snow" and told.error is None and told.series is None
    [swap] = client.get("/api/terms", params={"q": "dog instead of people"}).json()["parts"]
    assert (swap["role"], swap["content"], swap["old"]) == ("swap", "dog", "people")
    series = client.get("/api/terms", params={"q": "between tree and dog in 5"}).json()
    assert series["series"] == 5 and [(part["label"], part["step"]) for part in series["parts"]] == [("tree", 0), ("dog", 1)]
    topics = client.get("/api/terms", params={"q": "topic:2", "store": "topics"}).json()["parts"]
    assert set(topics[0]["words"]) == set(WORDS)


def test_words_near_a_query_are_suggested_and_not_its_own(client: TestClient) -> None:
    client.get("/api/pictures/3")  # waits for the words
    told = client.get("/api/terms", params={"q": "beach"}).json()["suggestions"]
    assert told and set(one["text"] for one in told) <= set(WORDS) - {"beach"}


@settings(max_examples=30, deadline=None)
@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=60)
    | st.lists(
        st.sampled_from([*WORDS, "+", "-", "(", ")", '"', "2*", "image:3", "without", "instead of", "between", "and", "in", "5"]),
        max_size=9,
    ).map(" ".join)
)
def test_whatever_is_typed_is_described(client: TestClient, text: str) -> None:
    reply = client.get("/api/terms", params={"q": text})
    assert reply.status_code == 200, text
    told = schemas.Terms.model_validate(reply.json(), strict=True)
    assert told.error is None or told.position is not None
    assert all(0 <= part.position <= len(text) for part in told.parts)
    both = client.get("/api/typed", params={"q": text, "k": 7})
    alone = client.get("/api/search", params={"q": text, "k": 7})
    if both.status_code == 200 and both.json()["found"] is not None:
        found, expected = both.json()["found"], alone.json()
        assert {**found, "time_ms": 0} == {**expected, "time_ms": 0} and both.json()["terms"] == reply.json()
    elif both.status_code == 200:
        is_unknown = bool(told.parts) and not any(part.known for part in told.parts)
        assert not text.strip() or told.error is not None or is_unknown
    else:
        assert both.json() == alone.json(), "what has no vector, such as a sum of opposites, is an error of the search"


def test_terms_come_in_the_order_in_which_they_are_typed(photo_store: Path) -> None:
    typed = understand(Store(photo_store), "tree + beach - (dog + 2*red) without snow")
    assert [part.term.content for part in typed.parts] == ["tree", "beach", "dog", "red", "snow"]
    assert typed.vector is not None and np.isclose(np.linalg.norm(typed.vector), 1)


def test_thumbnails_are_known_again_and_fixed_with_the_version(client: TestClient, photo_store: Path) -> None:
    version = Store(photo_store).version
    first = client.get("/thumbnails/3")
    assert first.status_code == 200 and first.headers["cache-control"] == "no-cache" and first.headers["content-type"] == "image/jpeg"
    again = client.get("/thumbnails/3", headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
    assert again.status_code == 304 and again.content == b""
    assert "immutable" in client.get("/thumbnails/3", params={"v": version}).headers["cache-control"]
    assert "immutable" not in client.get("/thumbnails/3", params={"v": "0" * 12}).headers["cache-control"]


def test_thumbnails_of_many_pictures_are_those_of_each(client: TestClient, photo_store: Path) -> None:
    store = Store(photo_store)
    ids = [*store.ids[::-1].tolist(), 10**6, 10**25, 3, 3]
    reply = client.get("/api/thumbnails", params={"ids": ",".join(map(str, ids)), "v": store.version})
    lengths = np.frombuffer(reply.content, "<u4", len(ids))
    parts = np.split(np.frombuffer(reply.content, np.uint8, offset=4 * len(ids)), np.cumsum(lengths)[:-1])
    assert [part.tobytes() for part in parts] == [(store.thumbnails([id])[0] or b"") if id in store else b"" for id in ids]
    assert "immutable" in reply.headers["cache-control"] and sum(lengths) > 0
    for wrong in ("", "3,", "-1", "x", ",".join(["3"] * 201)):
        assert client.get("/api/thumbnails", params={"ids": wrong}).status_code in (400, 404), wrong


def test_the_description_names_every_route_and_the_page_shows_it(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    routes = {"/api/stores", "/api/search", "/api/terms", "/api/similar", "/api/pictures/{id}", "/api/facets", "/api/pictures"}
    assert routes | {"/api/judgements", "/api/judgements/last", "/image/{id}", "/thumbnails/{id}", "/healthz", "/metrics"} <= set(
        described["paths"]
    )
    assert not any("422" in route["responses"] for methods in described["paths"].values() for route in methods.values())
    page = client.get("/docs").text
    assert all(path in page for path in described["paths"])
    assert "//" not in page.replace("<!doctype", "") or not re.search(r"https?:", page)


def test_own_files_have_their_types_and_nothing_else_is_there(client: TestClient) -> None:
    style = client.get("/web/pages.css")
    assert style.status_code == 200 and style.headers["content-type"].startswith("text/css")
    assert client.get("/web/pages.css", headers={"If-None-Match": style.headers["etag"]}).status_code == 304
    for name in ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "nothing.js", "", "web.css/../../app.py"):
        assert client.get(f"/web/{name}").status_code == 404


def test_names_of_stores_are_those_of_folders_or_as_given(photo_store: Path, topic_store: Path) -> None:
    assert [served.name for served in Stores.open([str(photo_store), f"other={topic_store}"])] == ["photos", "other"]
    with pytest.raises(ValueError, match="is called photos already"):
        Stores.open([str(photo_store), f"photos={topic_store}"])
    with pytest.raises(ValueError, match="does not exist"):
        Stores.open([str(photo_store / "nothing")])


def test_health_and_metrics_tell_what_was_done(photo_store: Path) -> None:
    client = TestClient(make_app(Store(photo_store)))
    assert client.get("/healthz").json() == {"status": "ok", "stores": {"store": NUM}}
    for _ in range(3):
        client.get("/api/search", params={"q": "beach"})
    client.get("/api/search", params={"q": "beach +"})
    client.get("/no/such/address")
    lines = client.get("/metrics").text.splitlines()
    assert 'multimodal_requests_total{route="/api/search",method="GET",status="200"} 3' in lines
    assert 'multimodal_requests_total{route="/api/search",method="GET",status="400"} 1' in lines
    assert 'multimodal_requests_total{route="other",method="GET",status="404"} 1' in lines
    assert "multimodal_kept_answers_total 2" in lines and f'multimodal_pictures{{store="store"}} {NUM}' in lines
    assert 'multimodal_engine_seconds_count{store="store"} 1' in lines
    buckets = [float(line.split()[-1]) for line in lines if line.startswith('multimodal_request_seconds_bucket{route="/api/search"')]
    assert buckets == sorted(buckets) and buckets[-1] == 4
