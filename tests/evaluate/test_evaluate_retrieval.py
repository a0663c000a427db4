from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.figures import Found, read_found
from multimodal.evaluate.retrieval import RetrievalRow, as_table, evaluate, retrieve
from multimodal.metrics import chance_recall_at, interval
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter
from multimodal.shards import ShardSet, ShardWriter, Split, finish

MakeStore = Callable[..., Store]
NUM = 200
WORDS = tuple("beach sunset woman man scientist dog snow people tree river cat house car boat horse bread lamp chair".split())
KEYS = ["recipe", "family", "gallery", "num_pairs", "R@1", "R@5", "R@10", "median_rank", "mAP", "chance_R@10", "control"]
MORE_KEYS = ["R@10_low", "R@10_high", "seed", "trunk", "direction", "num_queries"]
FIGURES = (5.0, 20.42, 35.83, 17.5, 13.37, 4.17, 30.0, 41.67)
ROW = RetrievalRow("topic_emoji", "topic", "imagenet", "unseen", "text->image", 240, 240, *FIGURES, 3, False)


def text_to_image(store: Store, shards: ShardSet, ids: np.ndarray) -> np.ndarray:
    """The ranks of one direction."""
    [found] = retrieve(store, shards, ids, directions=["text->image"])
    assert found.ids.tolist() == [id for id in ids.tolist() if id in store.ids]
    return found.first


def found_of(first: list[int], groups: list[str] | None = None, direction: str = "text->image", num_gallery: int | None = None) -> Found:
    """Queries with one relevant item each, found at these ranks."""
    ranks = np.array(first)
    names = groups or [f"group {number}" for number in range(len(first))]
    return Found(direction, num_gallery or len(first), np.arange(len(first)), np.array(names), ranks, 1 / ranks, np.ones_like(ranks))


def brute_force(store: Store, shards: ShardSet, ids: list[int]) -> list[int]:
    """Ranks by a slow loop: one and all pictures with at least the own one's cosine."""
    found = []
    rows = {id: row / np.linalg.norm(row) for id, row in zip(ids, store.take(ids).astype(np.float64), strict=True)}
    for id in ids:
        query = store.query_space.embed([shards.texts(id)[0]])[0].astype(np.float64)
        own = float(query @ rows[id])
        found.append(1 + sum(other != id and float(query @ rows[other]) >= own for other in ids))
    return found


def test_a_perfect_store_finds_every_picture_first(make_store: MakeStore, shards: ShardSet) -> None:
    for found, direction in zip(retrieve(make_store("store"), shards, np.arange(NUM)), ("text->image", "image->text"), strict=True):
        assert found.first.tolist() == [1] * NUM
        row = RetrievalRow.of(found, "perfect", "wordvec", "unseen")
        assert (row.recall_1, row.recall_5, row.recall_10, row.mean_average_precision, row.median_rank) == (100, 100, 100, 100, 1)
        assert (row.num_pairs, row.num_queries, row.chance_recall_10, row.low, row.high) == (NUM, NUM, 5.0, 100, 100)
        assert row.direction == direction


def test_a_shuffled_store_stays_at_chance(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store", np.random.default_rng(1).permutation(NUM))
    for found in retrieve(store, shards, np.arange(NUM)):
        row = RetrievalRow.of(found, "shuffled", "wordvec", "unseen", control=True)
        assert row.chance_recall_10 == 5.0
        assert abs(row.recall_10 - 5.0) < 5  # 200 queries: a standard deviation of 1.5
        assert abs(row.median_rank - NUM / 2) < NUM / 8
        assert row.low <= row.recall_10 <= row.high


def test_ranks_are_those_of_a_slow_loop(make_store: MakeStore, shards: ShardSet) -> None:
    belongs = np.arange(NUM)
    belongs[::3] = np.roll(belongs[::3], 1)  # two thirds right
    store, ids = make_store("store", belongs), np.arange(5, 65)
    ranks = text_to_image(store, shards, ids)
    assert ranks.tolist() == brute_force(store, shards, ids.tolist())
    assert 1 < ranks.max()


def test_the_gallery_is_the_part_that_is_asked_for(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store", np.random.default_rng(2).permutation(NUM))
    assert text_to_image(store, shards, np.arange(10)).max() <= 10


def test_the_order_of_the_ids_does_not_matter(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store", np.random.default_rng(3).permutation(NUM))
    order = np.random.default_rng(4).permutation(NUM)
    assert text_to_image(store, shards, order).tolist() == text_to_image(store, shards, np.arange(NUM))[order].tolist()


@pytest.fixture
def captioned(tmp_path: Path) -> ShardSet:
    """40 pictures with one to five texts each, all different but for "dog snow", which the first three share; two pictures a group."""
    different = iter(np.random.default_rng(7).permutation([" ".join(words) for words in combinations(WORDS, 3)]).tolist())
    with ShardWriter(tmp_path / "captioned") as writer:
        for number in range(40):
            texts = tuple(next(different) for _ in range(1 + number % 5))
            writer.write(Pair(f"{number}.png", b"unread", "png", (*texts, "dog snow") if number < 3 else texts, f"group {number // 2}"))
    return ShardSet(tmp_path / "captioned")


def test_with_all_texts_every_text_is_a_query_and_a_picture_is_as_near_as_the_best_of_its_own(
    make_store: MakeStore, captioned: ShardSet
) -> None:
    store, ids = make_store("store", of=captioned, rows=np.random.default_rng(8).normal(size=(40, 24))), np.arange(4, 40)
    to_image, to_text = retrieve(store, captioned, ids, queries="all")
    texts = [(int(id), text) for id in ids for text in captioned.texts(int(id))]
    rows = store.take(ids).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = store.query_space.embed([text for _, text in texts]).astype(np.float64) @ rows.T
    scores /= np.linalg.norm(store.query_space.embed([text for _, text in texts]), axis=1, keepdims=True)
    of_text = np.array([id for id, _ in texts])
    assert to_image.ids.tolist() == of_text.tolist() and to_image.num_gallery == len(ids)
    for line, id, rank in zip(scores, of_text, to_image.first.tolist(), strict=True):
        assert rank == np.sum(line >= line[np.flatnonzero(ids == id)[0]])
    assert to_text.ids.tolist() == ids.tolist() and to_text.num_gallery == len(texts)
    for line, id, rank, precision, num in zip(scores.T, ids, to_text.first, to_text.precision, to_text.num_relevant, strict=True):
        order = np.argsort(-line, kind="stable")
        own = [place for place, text in enumerate(order, 1) if of_text[text] == id]
        assert (rank, num) == (own[0], len(captioned.texts(int(id))))
        assert precision == pytest.approx(np.mean([number / place for number, place in enumerate(own, 1)]))
    assert to_text.groups.tolist() == [f"group {id // 2}" for id in ids]
    row = RetrievalRow.of(to_text, "r", "wordvec", "unseen")
    assert (row.num_pairs, row.num_queries) == (36, 36) and RetrievalRow.of(to_image, "r", "wordvec", "unseen").num_queries == len(texts)
    each = [chance_recall_at(len(texts), 10, len(captioned.texts(int(id)))) for id in ids]
    assert row.chance_recall_10 == pytest.approx(100 * np.mean(each), abs=0.01)


def test_equal_texts_of_two_pictures_count_against_both(make_store: MakeStore, captioned: ShardSet) -> None:
    space = make_store("other").query_space
    rows = np.random.default_rng(9).normal(size=(40, 24))
    rows[:3] = space.embed(["dog snow"])
    to_image, to_text = retrieve(make_store("store", of=captioned, rows=rows), captioned, np.arange(40), queries="all")
    assert to_text.first[:3].tolist() == [3, 3, 3]  # behind the two others' texts
    texts = [text for id in range(40) for text in captioned.texts(id)]
    assert [rank for rank, text in zip(to_image.first.tolist(), texts, strict=True) if text == "dog snow"] == [3, 3, 3]


def test_a_missing_picture_costs_only_itself_and_is_reported(
    make_store: MakeStore, shards: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store("store", without=(0, 71, 199))
    assert text_to_image(store, shards, np.arange(NUM)).tolist() == [1] * (NUM - 3)
    for row in evaluate(store.path, shards.path, part="all"):
        assert row.num_pairs == NUM - 3 and row.recall_1 == 100
        assert row.chance_recall_10 == pytest.approx(100 * 10 / (NUM - 3), abs=0.01)
    assert "lacks 3 of 200 pictures" in capsys.readouterr().err


def test_a_store_of_other_shards_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "other") as writer:
        for number in range(3):
            writer.write(Pair(f"{number}.png", b"other", "png", ("beach",), f"group {number}"))
    with pytest.raises(InputError, match=r"store: has no pictures from .*other's shard 000000\. Run: multimodal index"):
        text_to_image(make_store("store"), ShardSet(tmp_path / "other"), np.arange(3))


def test_a_store_of_another_part_is_refused(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store")
    train, test = (Split().ids(shards, part) for part in ("train", "test"))
    with StoreWriter(store.path) as writer:
        writer.delete(test)
    with pytest.raises(InputError, match=rf"holds 0 of the {len(test)} pictures of this split of .*\. Index that split"):
        evaluate(store.path, shards.path, part="test")
    assert evaluate(store.path, shards.path, part="train")[0].num_pairs == len(train)


@pytest.mark.parametrize("num", [0, 1])
def test_fewer_than_two_pairs_are_no_retrieval(make_store: MakeStore, shards: ShardSet, num: int) -> None:
    with pytest.raises(InputError, match=f"{num} pairs in this split; retrieval needs at least 2"):
        text_to_image(make_store("store"), shards, np.arange(num))


def test_pairs_that_are_all_of_one_group_are_one_observation(make_store: MakeStore, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "one") as writer:
        for number in range(3):
            writer.write(Pair(f"{number}.png", b"unread", "png", (f"dog {WORDS[number]}",), "holiday"))
    one = ShardSet(tmp_path / "one")
    with pytest.raises(InputError, match="one: all 3 pairs of this split are in one group, 'holiday'"):
        retrieve(make_store("store", of=one), one, np.arange(3))


def test_evaluate_prints_the_table_and_writes_the_rows_and_what_each_query_found(
    make_store: MakeStore, shards: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, split = tmp_path / "new" / "results.json", Split(seed=5, held_out=0.3)
    named = {"gallery": "unseen", "recipe": "mine", "trunk": "random", "control": True}
    rows = evaluate(make_store("store").path, shards.path, "test", split, queries="all", output=output, **named)  # type: ignore[arg-type]
    found = read_found(output)
    assert capsys.readouterr().out == as_table(rows, found) + "\n"
    assert [RetrievalRow.from_json(values) for values in json.loads(output.read_text())] == rows
    assert [RetrievalRow.of(one, "mine", "wordvec", "unseen", "random", 5, True) for one in found] == rows
    assert [row.direction for row in rows] == ["text->image", "image->text"]
    num = len(split.ids(shards, "test"))
    assert [(row.num_pairs, row.num_queries) for row in rows] == [(num, 2 * num), (num, num)]


def test_one_direction_may_be_asked_for(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store").path
    [row] = evaluate(store, shards.path, directions=["image->text", "image->text"])
    assert row == evaluate(store, shards.path)[1]


def test_a_row_goes_to_json_and_back_by_the_keys_of_results_json() -> None:
    values = ROW.as_json()
    assert set(values) == {*KEYS, *MORE_KEYS} and len(values) == len(KEYS) + len(MORE_KEYS)
    assert [values[key] for key in KEYS] == ["topic_emoji", "topic", "unseen", 240, 5.0, 20.42, 35.83, 17.5, 13.37, 4.17, False]
    assert RetrievalRow.from_json(json.loads(json.dumps(values))) == ROW
    assert all(type(values[key]) in (str, int, float, bool) for key in values)


def test_figures_of_ranks_can_be_read_off() -> None:
    row = RetrievalRow.of(found_of([1, 2, 5, 6, 10, 11, 20, 40]), "r", "topic", "noto", seed=2)
    assert (row.recall_1, row.recall_5, row.recall_10) == (12.5, 37.5, 62.5)
    assert row.median_rank == 8.0 and row.chance_recall_10 == 100.0  # 10 of 8 pictures
    assert row.mean_average_precision == round(100 * np.mean(1 / np.array([1, 2, 5, 6, 10, 11, 20, 40])), 2)
    assert row.low < row.recall_10 < row.high
    assert all(type(value) in (str, int, float, bool) for value in row.as_json().values())  # no number of NumPy's


def test_the_interval_takes_pairs_of_one_group_as_one() -> None:
    first = [1, 50] * 20
    alone = RetrievalRow.of(found_of(first), "r", "topic", "unseen")
    together = RetrievalRow.of(found_of(first, [f"group {number % 8}" for number in range(40)]), "r", "topic", "unseen")
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_the_table_joins_seeds_and_keeps_galleries_directions_trunks_and_controls_apart() -> None:
    seeds = [replace(ROW, seed=seed, recall_10=ten, recall_1=one) for seed, ten, one in ((0, 30.0, 4.0), (1, 36.0, 5.0), (2, 33.0, 9.0))]
    others = [replace(ROW, gallery="noto", chance_recall_10=1.37), replace(ROW, control=True, recall_10=4.0)]
    others += [replace(ROW, direction="image->text"), replace(ROW, trunk="random")]
    found = [found_of([1, 3, 30, 40, 50 + seed] * 8) for seed in range(3)] + [found_of([1, 90] * 20) for _ in others]
    header, joined, noto, control, backwards, random = as_table([*seeds, *others], found).splitlines()
    assert header.split() == ("recipe trunk gallery direction queries pictures R@1 R@5 R@10 95 % interval seeds chance median mAP".split())
    low, high = (100 * share for share in interval(np.concatenate([one.first for one in found[:3]]) <= 10, np.tile(found[0].groups, 3)))
    begins = "topic_emoji imagenet unseen text->image 240 240 6.0 20.4 33.0"
    assert joined.split() == f"{begins} [{low:.1f}, {high:.1f}] 30.0..36.0 of 3 4.2 17.5 13.4".split()
    assert noto.split()[:4] == ["topic_emoji", "imagenet", "noto", "text->image"] and noto.split()[-3:] == ["1.4", "17.5", "13.4"]
    assert control.split()[:3] == ["topic_emoji", "shuffled", "imagenet"] and " 4.0 " in control and ".." not in control
    assert "image->text" in backwards and random.split()[1] == "random"
    assert len({len(line) for line in (header, joined, noto, control, backwards, random)}) == 1


def test_the_table_of_one_seed_has_no_column_of_seeds_and_its_interval_is_the_rows() -> None:
    found = found_of([1, 5, 30, 70] * 10)
    row = RetrievalRow.of(found, "contrastive_emoji", "contrastive", "unseen", control=True)
    header, line = as_table([row], [found]).splitlines()
    assert "95 % interval" in header and "seeds" not in header and f"[{row.low:.1f}, {row.high:.1f}]" in line
    assert line.startswith("contrastive_emoji shuffled  pretrained  unseen ") and len(line) == len(header)


def test_a_table_wants_what_the_queries_of_every_row_found() -> None:
    with pytest.raises(ValueError, match="2 rows and query results of 1"):
        as_table([ROW, ROW], [found_of([1, 2])])


def test_a_store_whose_ids_are_those_of_other_pairs_by_now_is_refused(make_store: MakeStore, shards: ShardSet, tmp_path: Path) -> None:
    store = make_store("store")
    later = tmp_path / "set"
    later.mkdir()
    for shard in shards.shards[1:]:  # the first one is gone, and each pair that follows has a smaller id
        for suffix in (".tar", ".arrow"):
            shutil.copy(shards.path / f"{shard.name}{suffix}", later)
    finish(later, {})
    with pytest.raises(InputError, match="picture 0 is 0.png in the store and 70.png in"):
        text_to_image(store, ShardSet(later), np.arange(20))
