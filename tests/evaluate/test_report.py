from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.classes import Confusion
from multimodal.evaluate.page import render
from multimodal.evaluate.report import (
    Failures,
    HeatMap,
    LearningCurve,
    Lookup,
    Report,
    Table,
    ask,
    curves_of,
    failures_of,
    learning_curves_of,
    topics_of,
)
from multimodal.evaluate.retrieval import RetrievalRow, retrieve
from multimodal.search.store import Store
from multimodal.shards import ShardSet

if TYPE_CHECKING:
    from tests.conftest import Road

MakeStore = Callable[..., Store]
NUM = 200


def test_topics_come_with_their_words_share_and_pictures(make_store: MakeStore) -> None:
    store = make_store("store", family="topic")
    topics = topics_of(store, num_words=3, num_pictures=2)
    assert len(topics) == store.dim
    assert sum(topic.share for topic in topics) == pytest.approx(1, abs=1e-3)
    assert [topic.share for topic in topics] == sorted((topic.share for topic in topics), reverse=True)
    top_words = [list(words) for words in store.query_space.top_words(3)]  # type: ignore[attr-defined]
    assert sorted(list(topic.words) for topic in topics) == sorted(top_words)
    rows = np.asarray(store.rows, np.float64)
    rows /= rows.sum(axis=1, keepdims=True)
    texts = store.column("text")
    for topic in topics:
        number = top_words.index(list(topic.words))
        assert topic.share == pytest.approx(rows[:, number].mean(), abs=1e-3)
        assert topic.pictures[0].text == texts[int(rows[:, number].argmax())]
        assert len(topic.pictures) == 2 and all(picture.thumbnail for picture in topic.pictures)


def test_a_store_without_topics_says_so(make_store: MakeStore) -> None:
    with pytest.raises(InputError, match="is a wordvec store, which has no topics"):
        topics_of(make_store("store"))


def test_answers_hold_pictures_or_the_reason_why_there_are_none(make_store: MakeStore) -> None:
    found, unknown, cancelled = ask(make_store("store"), "wordvec", ["beach + dog", "zxqv", "dog - dog"], k=3)
    assert len(found.pictures) == 3 and not found.note
    assert {"beach", "dog"} & set(found.pictures[0].text.split())
    assert not unknown.pictures and 'knows no word of "zxqv"' in unknown.note
    assert not cancelled.pictures and "cancels to nothing" in cancelled.note


def test_curves_are_read_from_a_run(road: Road) -> None:
    loss, recall = curves_of(road.folder / "run", "tiny")
    assert (loss.recipe, loss.figure, recall.figure) == ("tiny", "train/loss", "val/R@10")
    assert list(loss.steps) == [0, 1, 2, 3, 4, 5] and loss.values[-1] < loss.values[0]
    assert list(recall.steps) == [2, 5] and all(0 <= value <= 100 for value in recall.values)
    assert curves_of(road.folder / "run", "tiny", ["val/none"]) == []
    page = render(Report("demo", [], [], [], [], [loss, recall], []))
    assert page.count("<polyline") == 2


def test_a_figure_that_a_run_judged_comes_with_its_chance(road: Road) -> None:
    loss, recall = curves_of(road.folder / "run", "tiny")
    assert loss.chance is None
    assert recall.chance is not None and 0 < recall.chance <= 100


# -- single queries ------------------------------------------------------------------------------------------------------------------------


def every(found: Failures) -> list[Lookup]:
    return [*found.worst, *found.near, *found.best]


def test_failures_have_the_ranks_of_the_figure(make_store: MakeStore, shards: ShardSet) -> None:
    belongs = np.arange(NUM)
    belongs[::3] = np.roll(belongs[::3], 1)
    store, ids = make_store("store", belongs), np.arange(NUM)
    first = dict(zip((shards.texts(int(id))[0] for id in ids), retrieve(store, shards, ids)[0].first.tolist(), strict=True))
    found = failures_of(store, shards, ids, num=NUM)
    assert {one.query: one.rank for one in every(found)} == first and len(every(found)) == NUM
    assert (found.num_queries, found.num_pictures, found.recipe) == (NUM, NUM, "wordvec")
    assert all(one.rank > 1 for one in found.worst) and {one.rank for one in found.best} == {1} and not found.near


def test_the_worst_have_the_largest_ranks_and_near_misses_the_smallest_but_the_first(make_store: MakeStore, shards: ShardSet) -> None:
    store, ids = make_store("store", np.random.default_rng(5).permutation(NUM)), np.arange(NUM)
    ranks = sorted(retrieve(store, shards, ids)[0].first.tolist())
    found = failures_of(store, shards, ids, num=5)
    assert [one.rank for one in found.worst] == ranks[::-1][:5]
    assert [one.rank for one in found.near] == [rank for rank in ranks if rank > 1][:5]
    assert len({one.query for one in every(found)}) == len(every(found))
    assert failures_of(store, shards, ids, num=5) == found


def test_what_was_found_is_what_a_slow_loop_finds_and_holds_the_own_picture_at_its_rank(make_store: MakeStore, shards: ShardSet) -> None:
    store, ids = make_store("store", np.random.default_rng(6).permutation(NUM)), np.arange(20, 60)
    rows = store.take(ids).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts = {shards.texts(int(id))[0]: place for place, id in enumerate(ids)}
    for one in every(failures_of(store, shards, ids, num=10, num_found=6)):
        own = texts[one.query]
        scores = rows @ store.query_space.embed([one.query])[0].astype(np.float64)
        order = sorted(range(len(ids)), key=lambda place: (-scores[place], place == own))  # what ties stands before the own picture
        assert [picture.text for picture in one.found] == [shards.texts(int(ids[place]))[0] for place in order[:6]]
        assert one.own.text == one.query and one.rank == order.index(own) + 1
        if one.rank <= 6:
            assert one.found[one.rank - 1] == one.own


def test_of_several_texts_of_a_picture_one_is_shown(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store", np.random.default_rng(7).permutation(NUM))
    found = failures_of(store, shards, np.arange(NUM), num=NUM, queries="all")
    assert (found.num_queries, found.num_pictures) == (2 * NUM, NUM)
    for kind in (found.worst, found.near, found.best):
        assert len({one.own.text for one in kind}) == len(kind)


def test_a_text_of_which_no_word_is_known_found_nothing_and_ranks_last(make_store: MakeStore, shards: ShardSet) -> None:
    found = failures_of(make_store("store"), shards, np.arange(NUM), num=4, queries="all")
    assert {one.query for one in found.worst} == {"another text"}
    assert all(one.rank == NUM and not one.found and "knows no word" in one.note for one in found.worst)
    assert not any(one.note for one in found.best)


def test_a_gallery_of_two_pictures_has_failures(make_store: MakeStore, shards: ShardSet) -> None:
    belongs = np.arange(NUM)
    belongs[:2] = [1, 0]
    (worst, other) = failures_of(make_store("store", belongs), shards, np.arange(2)).worst
    assert worst.rank == other.rank == 2
    assert [picture.text for picture in worst.found] == [other.query, worst.query]


def test_failures_of_another_part_are_refused(make_store: MakeStore, shards: ShardSet) -> None:
    with pytest.raises(InputError, match="holds 1 of the 2 pictures"):
        failures_of(make_store("store", without=(0,)), shards, np.arange(2))


# -- rows of figures -----------------------------------------------------------------------------------------------------------------------


def row(recall_10: float, seed: int = 0, control: bool = False, recipe: str = "topic") -> RetrievalRow:
    return RetrievalRow(
        recipe=recipe,
        family=recipe,
        trunk="pretrained",
        gallery="unseen",
        direction="text->image",
        num_pairs=240,
        num_queries=240,
        recall_1=5.0,
        recall_5=20.0,
        recall_10=recall_10,
        median_rank=17.0,
        mean_average_precision=13.0,
        chance_recall_10=4.2,
        low=recall_10 - 3,
        high=recall_10 + 3,
        seed=seed,
        control=control,
    )


def test_learning_curves_are_means_over_seeds_without_controls() -> None:
    rows = {
        200: [row(30.0), row(40.0, seed=1), row(50.0, recipe="wordvec"), row(4.0, control=True), replace(row(9.0), trunk="random")],
        100: [row(20.0)],
    }
    topic, wordvec = learning_curves_of(rows)
    assert topic == LearningCurve("topic", [100, 200], [20.0, 35.0], [17.0, 30.0], [23.0, 40.0], pytest.approx(4.2), family="topic")
    assert (wordvec.num_pairs, wordvec.values, wordvec.low, wordvec.high) == ([200], [50.0], [47.0], [53.0])
    assert learning_curves_of({}) == []


def test_learning_curves_of_several_galleries_or_directions_are_refused() -> None:
    with pytest.raises(ValueError, match="of one gallery and direction"):
        learning_curves_of({1: [row(20.0)], 2: [replace(row(20.0), gallery="noto")]})
    with pytest.raises(ValueError, match="of one gallery and direction"):
        learning_curves_of({1: [row(20.0), replace(row(20.0), direction="image->text")]})


def test_what_does_not_fit_together_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="table mAP: 2 columns .* but a row of 1 cells"):
        Table("mAP", "", ["recipe", "mAP"], [["topic"]])
    with pytest.raises(ValueError, match=r"heat map topic: 2 names, shares of shape \(2, 2\), chance of \(3,\)"):
        HeatMap("topic", Confusion(["a", "b"], np.eye(2)), "", "", np.ones(3))
    for nums in ([2, 1], [1, 1], [1, 2, 3], []):
        with pytest.raises(ValueError, match="learning curve topic: needs ascending num_pairs"):
            LearningCurve("topic", nums, [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], 1.0)
