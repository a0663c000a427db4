"""From a query to hits: equal to brute force, independent of how the query is written, and honest about what it left out."""

from __future__ import annotations

import json
import math
import re
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.boxes import Manifest, write_manifest
from multimodal.errors import InputError
from multimodal.pairs import Hit
from multimodal.search.door import search_verb
from multimodal.search.query import answer, search
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import open_space

WORDS = ["beach", "sunset", "red snow", "man woman", "image:7", "image:25", '"dog + people"']


@pytest.fixture(scope="module")
def store(store_of_forty) -> Store:
    return Store(store_of_forty)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _ranking(store: Store, query: str, k: int = 10, fusion: str | None = None) -> list[tuple[int, float]] | str:
    """(id, score) best first, or "nothing" where the query cancels. Words that are unknown warn; here they are expected."""
    try:
        return [(hit.id, hit.score) for hit in answer(store, query, k, fusion=fusion).hits]
    except InputError as error:
        assert "cancels" in str(error) or "knows no word" in str(error)
        return "nothing"


QUERIES = st.lists(st.tuples(st.sampled_from([-1.5, -1.0, 0.5, 1.0, 2.0]), st.sampled_from(WORDS)), min_size=1, max_size=4)


def _written(terms: list[tuple[float, str]]) -> str:
    return " ".join(f"{'-' if weight < 0 else '+'} {abs(weight)}*{text}" for weight, text in terms)


def test_hits_of_the_sum_equal_brute_force_over_the_files(store):
    words = {word: _unit(store.query_space.embed([word])[0]) for word in ("beach", "sunset")}
    query = _unit(2 * words["beach"] - words["sunset"] + _unit(store.take([7])[0]))
    cosines = dict(zip(store.ids.tolist(), (_unit(store.rows) @ query).tolist(), strict=True))
    best = sorted(cosines, key=lambda id: (-round(cosines[id], 6), id))[:12]
    hits = store.search("2*beach - sunset + image:7", k=12, fusion="sum")
    assert [hit.id for hit in hits] == best
    assert [hit.score for hit in hits] == pytest.approx([cosines[id] for id in best], abs=1e-6)
    assert [(hit.name, hit.text) for hit in hits] == [(f"{id}.png", f"picture {id}") for id in best]


@settings(deadline=None, max_examples=40)  # times two families
@given(terms=QUERIES, random=st.randoms())
def test_a_plus_b_finds_what_b_plus_a_finds(store, terms, random):
    assert _ranking(store, _written(terms)) == _ranking(store, _written(random.sample(terms, len(terms))))


@settings(deadline=None, max_examples=40)  # times two families
@given(terms=QUERIES)
def test_twice_a_finds_what_a_plus_a_finds(store, terms):
    written = _written(terms)
    assert _ranking(store, f"2*({written})") == _ranking(store, f"({written}) + ({written})")
    assert _ranking(store, f"2*({written})", fusion="sum") == _ranking(store, written, fusion="sum")


@settings(deadline=None, max_examples=40)  # times two families
@given(terms=QUERIES, weight=st.sampled_from([-2.0, 1.0, 1000.0]), at=st.integers(0, 4))
def test_an_inserted_unknown_word_changes_nothing(store, terms, weight, at):
    longer = [*terms[:at], (weight, "zxqv"), *terms[at:]]
    assert _ranking(store, _written(longer)) == _ranking(store, _written(terms))


@settings(deadline=None, max_examples=40)  # times two families
@given(terms=QUERIES, k=st.integers(1, 45))
def test_k_hits_are_the_first_k_of_all_and_their_scores_fall(store, terms, k):
    everything = _ranking(store, _written(terms), k=100)
    if everything == "nothing":
        return
    assert len(everything) == len(store)
    assert [score for _, score in everything] == sorted((score for _, score in everything), reverse=True)
    assert _ranking(store, _written(terms), k) == everything[:k]


@settings(deadline=None, max_examples=40)  # times two families
@given(terms=QUERIES)
def test_why_sums_or_multiplies_to_the_score(store, terms):
    for fusion, together in (("sum", sum), ("product", math.prod)):
        try:
            found = answer(store, _written(terms), k=5, fusion=fusion)
        except InputError:
            continue
        assert found.is_product == (fusion == "product")
        for hit in found.hits:
            assert tuple(hit.why) == found.steps[0].labels
            assert together(hit.why.values()) == pytest.approx(hit.score, abs=1e-6)  # totals have six decimals
            assert fusion == "sum" or all(0 <= factor <= 1 + 1e-6 for factor in hit.why.values())


def test_every_picture_of_the_store_finds_itself_first(store):
    for id in store.ids.tolist():
        assert search(store, f"image:{id}", k=1)[0].id == id
        best = store.search(f"image:{id}", k=1, fusion="sum")[0]
        assert best.id == id and best.score == pytest.approx(1.0, abs=1e-6)


def test_a_picture_finds_itself_before_equal_ones_of_smaller_id(store):
    assert [hit.id for hit in search(store, "image:25", k=2)] == [25, 5]
    assert [hit.id for hit in search(store, "image:5", k=2)] == [5, 25]


def test_a_picture_finds_itself_first_among_more_equal_ones_than_were_asked_for(tmp_path, space_box):
    create_store(tmp_path, space_box, family="topic", export="e" * 64)
    rows = np.tile(np.random.default_rng(0).standard_normal(8), (200, 1))
    with StoreWriter(tmp_path) as writer:
        writer.append(Segment(np.arange(200), rows, {"name": ["a"] * 200, "text": ["b"] * 200}))
    hits = search(Store(tmp_path), "image:150", k=3)
    assert [hit.id for hit in hits] == [150, 0, 1]


def test_more_hits_than_pictures_gives_all_of_them_and_an_empty_store_none(store, empty_store):
    assert len(search(store, "beach", k=1000)) == 39
    assert search(Store(empty_store), "beach", k=5) == []


def test_a_deleted_picture_is_neither_found_nor_a_query(store):
    assert 3 not in [hit.id for hit in search(store, "beach", k=1000)]
    with pytest.raises(InputError, match="no picture with id 3"):
        search(store, "image:3")


def test_a_filter_leaves_only_what_fits_and_ranks_it_as_before(store):
    everything = [hit for hit in search(store, "beach + image:7", k=100) if hit.id % 2 == 0]
    assert search(store, "beach + image:7", k=100, where={"set": "noto"}) == everything
    assert search(store, "beach + image:7", k=100, where="set = noto") == everything
    assert search(store, "beach", where={"set": "nowhere"}) == []


def test_unknown_words_are_warned_about_in_python(store):
    with pytest.warns(UserWarning, match="not known to the text space: beech\nleft out: beech.*\nNear spellings: beech: beach"):
        hits = search(store, "beech + sunset")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search(store, "sunset") == hits


@pytest.mark.parametrize("query", ["image:99", "image:99999999999999999999", "beach + image:40"])
def test_an_id_that_the_store_does_not_have_is_refused(store, query):
    with pytest.raises(InputError, match=f"no picture with id {re.search(r'[0-9]+', query).group()}"):
        search(store, query)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("image:" + "9" * 5000, "no picture has an id of 5,000 digits"),
        ("image:~nobody-of-that-name", "neither an id of the store nor a file"),
        ("image:" + "x" * 300, "neither an id of the store nor a file"),
        ("image:a\0b", "neither an id of the store nor a file"),
        ("beach \udcff", "the query is not valid UTF-8"),
        ("(" * 20_000, "more than 50 nested signs, weights and parentheses"),
    ],
    ids=["digits", "a user", "a long name", "NUL", "a byte", "depth"],
)
def test_a_query_that_nobody_means_is_an_error_and_no_traceback(store, query, message):
    with pytest.raises(InputError, match=message):
        search(store, query)


def test_no_hits_wanted_is_refused(store):
    with pytest.raises(InputError, match="k = 0"):
        search(store, "beach", k=0)


def test_a_picture_of_ones_own_goes_through_the_encoder_given(store, tmp_path):
    picture = tmp_path / "my picture.png"
    picture.write_bytes(b"\x89PNG")
    row = store.take([11]).astype(np.float32)
    seen = []

    def encode(paths):
        seen.extend(paths)
        return row

    assert search(store, f'image:"{picture}"', k=1, image_encoder=encode)[0].id == 11
    assert seen == [picture]
    with pytest.raises(InputError, match=r"Add --export <folder>"):
        search(store, f'image:"{picture}"')
    with pytest.raises(InputError, match=r"shape \(1, 3\); this store needs \(1, 8\)"):
        search(store, f'image:"{picture}"', image_encoder=lambda paths: np.ones((1, 3)))
    with pytest.raises(InputError, match="zero or not finite"):
        search(store, f'image:"{picture}"', image_encoder=lambda paths: np.zeros((1, 8)))
    with pytest.raises(InputError, match="image:nowhere.png is neither an id of the store nor a file"):
        search(store, "image:nowhere.png", image_encoder=encode)


def test_the_verb_prints_rank_score_id_name_and_text(store_of_forty, capsys):
    search_verb("image:7", store_of_forty, k=2, fusion="sum")
    printed = capsys.readouterr()
    first, second = printed.out.splitlines()
    assert first.split() == ["1", "+1.0000", "7", "7.png", "picture", "7"]
    assert second.split()[0] == "2"
    assert printed.err == ""


def test_the_verb_names_unknown_words_on_stderr_only(store_of_forty, capsys):
    search_verb("beech + sunset", store_of_forty, k=3)
    noted = capsys.readouterr()
    search_verb("sunset", store_of_forty, k=3)
    assert noted.out == capsys.readouterr().out
    assert "not known to the text space: beech" in noted.err and "beech: beach" in noted.err


@pytest.mark.parametrize(("fusion", "sign", "together"), [("sum", "[+-]", sum), ("product", "x", math.prod)])
def test_the_verb_prints_what_each_term_does(store_of_forty, capsys, fusion, sign, together):
    search_verb("beach - sunset", store_of_forty, k=1, why=True, fusion=fusion)
    hit, why = capsys.readouterr().out.splitlines()
    assert "beach" in why and "- sunset" in why
    values = [float(value.lstrip("x")) for value in re.findall(rf" ({sign}[0-9.]+)", why)]
    assert len(values) == 2 and together(values) == pytest.approx(float(hit.split()[1]), abs=2e-4)  # printed with four decimals each


def test_the_verb_prints_json_that_holds_the_hits(store_of_forty, capsys):
    search_verb("beech + image:7", store_of_forty, k=2, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["query"] == "beech + image:7" and printed["left_out"] == ["beech"] and "beach" in printed["unknown"]["beech"]
    ranks = [hit.pop("rank") for hit in printed["hits"]]
    assert ranks == [1, 2]
    assert [Hit(**hit | {"like": tuple(hit["like"])}) for hit in printed["hits"]] == answer(Store(store_of_forty), "image:7", k=2).hits
    assert (
        printed["why_is"] == "product" and printed["means"] == "image:7 + beech" and printed["candidates"].startswith("the nearest of all")
    )


def test_the_verb_s_json_says_how_scores_are_made_and_what_a_series_is(store_of_forty, capsys):
    search_verb("between beach and snow without dog in 3", store_of_forty, json=True, fusion="sum")
    printed = json.loads(capsys.readouterr().out)
    assert printed["why_is"] == "sum" and len(printed["hits"]) == 3 and printed["candidates"] == "all 39 pictures"
    assert printed["means"].split(" | ")[::2] == ["beach", "snow without dog"] and printed["left_out"] == []
    assert list(printed["hits"][2]["why"]) == ["snow", "without dog"]


def test_the_verb_filters_by_column_and_value(store_of_forty, capsys):
    search_verb("beach", store_of_forty, k=40, where=["set=noto"])
    ids = [int(line.split()[2]) for line in capsys.readouterr().out.splitlines()]
    assert sorted(ids) == [id for id in range(0, 40, 2)]
    search_verb("beach", store_of_forty, k=40, where=["name in (2.png, 7.png, none.png)", "set = emoji"])
    assert [int(line.split()[2]) for line in capsys.readouterr().out.splitlines()] == [7]
    with pytest.raises(InputError, match="where, column 5: an operator is missing after noto"):
        search_verb("beach", store_of_forty, where=["noto"])


def test_the_verb_says_when_there_is_nothing_to_show(empty_store, capsys):
    search_verb("beach", empty_store)
    printed = capsys.readouterr()
    assert printed.out == "" and "none of its 0 pictures" in printed.err


def test_an_export_that_the_store_was_not_made_from_is_refused(store_of_forty, tmp_path):
    write_manifest(tmp_path, Manifest(kind="export", config={}))
    with pytest.raises(InputError, match="was made from eeeeeeeeeeee"):
        search_verb("beach", store_of_forty, export=tmp_path)


def test_the_page_holds_its_pictures_and_escapes_what_came_from_outside(tmp_path, space_box, capsys):
    create_store(tmp_path / "store", space_box, family="wordvec", export="e" * 64)
    pictures = [b"\x89PNG1", b"\xff\xd8\xff2", b"RIFF....WEBP", None]
    with StoreWriter(tmp_path / "store") as writer:
        nasty = {"name": ["a", "b", "c", "<script>d"], "text": ['<b>"x"</b>', "y", "z", "w"]}
        writer.append(Segment(np.arange(4), np.eye(4, 8), nasty, pictures))
    search_verb('"<i>sunset" + sunset + image:0', tmp_path / "store", html=tmp_path / "deep/hits.html")
    page = (tmp_path / "deep/hits.html").read_text()
    for kind in ("png", "jpeg", "webp"):
        assert page.count(f"data:image/{kind};base64,") == 1
    assert "no thumbnail" in page and "&lt;script&gt;d" in page and "&lt;i&gt;sunset" in page
    assert not re.search(r"<script|<b>|<i>", page)
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_the_page_of_each_way_says_how_its_scores_are_made(store_of_forty, tmp_path):
    for fusion, said, shown in (("product", "how well they meet every term", "<dd>×0."), ("sum", "by cosine", "<dd>+0.")):
        search_verb("beach + snow without dog", store_of_forty, k=3, html=tmp_path / f"{fusion}.html", fusion=fusion)
        page = (tmp_path / f"{fusion}.html").read_text()
        assert said in page and shown in page and page.count("without dog</dt>") == page.count("<li>") == 3


def test_the_verb_joins_stores_by_their_names_or_families(store_of_forty, tmp_path, capsys):
    family = Store(store_of_forty).family
    search_verb("beach + 2*snow", store_of_forty, k=5)
    alone = capsys.readouterr().out
    search_verb("beach + 2*export:mine:snow", store_of_forty, k=5, join=[f"mine={store_of_forty}"])
    assert capsys.readouterr().out == alone
    search_verb(f"beach + 2*export:{family}:snow", store_of_forty, k=5, join=[str(store_of_forty)])
    assert capsys.readouterr().out == alone
    with pytest.raises(InputError, match=f"is joined as {family} already. Give names: --join NAME="):
        search_verb("beach", store_of_forty, join=[str(store_of_forty)] * 2)


def test_a_store_opens_without_the_export_that_it_was_made_from(store_of_forty, tmp_path):
    moved = tmp_path / "moved"
    subprocess.run(["cp", "-r", str(store_of_forty), str(moved)], check=True)
    assert search(Store(moved), "beach") == search(Store(store_of_forty), "beach")
    assert open_space(moved / "query").dim == Store(moved).dim
    assert isinstance(Store(moved).path, Path)
