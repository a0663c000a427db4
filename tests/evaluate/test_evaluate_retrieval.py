from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.retrieval import RetrievalRow, as_table, evaluate, text_to_image_ranks
from multimodal.pairs import Pair
from multimodal.search.store import Store, StoreWriter
from multimodal.shards import ShardSet, ShardWriter, Split, finish

MakeStore = Callable[..., Store]
NUM = 200
KEYS = ["recipe", "family", "gallery", "num_pairs", "R@1", "R@5", "R@10", "median_rank", "mAP", "chance_R@10", "control"]
MORE_KEYS = ["R@10_low", "R@10_high", "seed", "direction", "num_queries", "trunk"]
ROW = RetrievalRow("topic_emoji", "topic", "unseen", 240, 5.0, 20.42, 35.83, 17.5, 13.37, 4.17, 30.0, 41.67, 3, False)


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
    ranks = text_to_image_ranks(make_store("store"), shards, np.arange(NUM))
    assert ranks.tolist() == [1] * NUM
    row = RetrievalRow.of(ranks, "perfect", "wordvec", "unseen")
    assert (row.recall_1, row.recall_5, row.recall_10, row.mean_average_precision, row.median_rank) == (100, 100, 100, 100, 1)
    assert (row.num_pairs, row.chance_recall_10, row.low, row.high) == (NUM, 5.0, 100, 100)


def test_a_shuffled_store_stays_at_chance(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store", np.random.default_rng(1).permutation(NUM))
    row = RetrievalRow.of(text_to_image_ranks(store, shards, np.arange(NUM)), "shuffled", "wordvec", "unseen", control=True)
    assert row.chance_recall_10 == 5.0
    assert abs(row.recall_10 - 5.0) < 5  # 200 queries: a standard deviation of 1.5
    assert abs(row.median_rank - NUM / 2) < NUM / 8
    assert row.low <= row.recall_10 <= row.high


def test_ranks_are_those_of_a_slow_loop(make_store: MakeStore, shards: ShardSet) -> None:
    belongs = np.arange(NUM)
    belongs[::3] = np.roll(belongs[::3], 1)  # two thirds right
    store, ids = make_store("store", belongs), np.arange(5, 65)
    ranks = text_to_image_ranks(store, shards, ids)
    assert ranks.tolist() == brute_force(store, shards, ids.tolist())
    assert 1 < ranks.max()


def test_the_gallery_is_the_part_that_is_asked_for(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store", np.random.default_rng(2).permutation(NUM))
    assert text_to_image_ranks(store, shards, np.arange(10)).max() <= 10


def test_the_order_of_the_ids_does_not_matter(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store", np.random.default_rng(3).permutation(NUM))
    order = np.random.default_rng(4).permutation(NUM)
    assert text_to_image_ranks(store, shards, order).tolist() == text_to_image_ranks(store, shards, np.arange(NUM))[order].tolist()


def test_a_picture_that_is_missing_costs_itself_alone_and_is_told(
    make_store: MakeStore, shards: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store("store", without=(0, 71, 199))
    assert text_to_image_ranks(store, shards, np.arange(NUM)).tolist() == [1] * (NUM - 3)
    row = evaluate(store.path, shards.path, part="all")
    assert row.num_pairs == NUM - 3 and row.recall_1 == 100
    assert row.chance_recall_10 == pytest.approx(100 * 10 / (NUM - 3), abs=0.01)
    assert "3 of 200 pictures are not in it" in capsys.readouterr().err


def test_a_store_of_other_shards_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "other") as writer:
        for number in range(3):
            writer.write(Pair(f"{number}.png", b"other", "png", ("beach",), f"group {number}"))
    with pytest.raises(InputError, match=r"store: has no pictures of .*other's shard 000000\. Run: multimodal index"):
        text_to_image_ranks(make_store("store"), ShardSet(tmp_path / "other"), np.arange(3))


def test_a_store_of_another_part_is_refused(make_store: MakeStore, shards: ShardSet) -> None:
    store = make_store("store")
    train, test = (Split().ids(shards, part) for part in ("train", "test"))
    with StoreWriter(store.path) as writer:
        writer.delete(test)
    with pytest.raises(InputError, match=rf"holds 0 of the {len(test)} pictures of this part of .*\. Index that part"):
        evaluate(store.path, shards.path, part="test")
    assert evaluate(store.path, shards.path, part="train").num_pairs == len(train)


@pytest.mark.parametrize("num", [0, 1])
def test_fewer_than_two_pairs_are_no_retrieval(make_store: MakeStore, shards: ShardSet, num: int) -> None:
    with pytest.raises(InputError, match=f"{num} pairs in this part; retrieval needs at least 2"):
        text_to_image_ranks(make_store("store"), shards, np.arange(num))


def test_evaluate_prints_the_table_and_writes_the_row(
    make_store: MakeStore, shards: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, split = tmp_path / "new" / "results.json", Split(seed=5, held_out=0.3)
    row = evaluate(make_store("store").path, shards.path, "test", split, "unseen", "mine", control=True, output=output)
    assert capsys.readouterr().out == as_table([row]) + "\n"
    assert [RetrievalRow.from_json(values) for values in json.loads(output.read_text())] == [row]
    assert (row.recipe, row.family, row.gallery, row.seed, row.control) == ("mine", "wordvec", "unseen", 5, True)
    assert row.num_pairs == len(split.ids(shards, "test"))


def test_a_row_goes_to_json_and_back_by_the_keys_of_results_json() -> None:
    values = ROW.as_json()
    assert set(values) == {*KEYS, *MORE_KEYS} and len(values) == len(KEYS) + len(MORE_KEYS)
    assert [values[key] for key in KEYS] == ["topic_emoji", "topic", "unseen", 240, 5.0, 20.42, 35.83, 17.5, 13.37, 4.17, False]
    assert RetrievalRow.from_json(json.loads(json.dumps(values))) == ROW
    assert all(type(values[key]) in (str, int, float, bool, type(None)) for key in values)
    older = {key: values[key] for key in values if key not in ("direction", "num_queries", "trunk")}
    assert RetrievalRow.from_json(older) == ROW


def test_figures_of_ranks_can_be_read_off() -> None:
    row = RetrievalRow.of(np.array([1, 2, 5, 6, 10, 11, 20, 40]), "r", "topic", "noto", seed=2)
    assert (row.recall_1, row.recall_5, row.recall_10) == (12.5, 37.5, 62.5)
    assert row.median_rank == 8.0 and row.chance_recall_10 == 100.0  # 10 of 8 pictures
    assert row.mean_average_precision == round(100 * np.mean(1 / np.array([1, 2, 5, 6, 10, 11, 20, 40])), 2)
    assert row.low < row.recall_10 < row.high
    assert all(type(value) in (str, int, float, bool) for value in row.as_json().values())  # no number of NumPy's


def test_the_table_joins_seeds_and_keeps_galleries_and_controls_apart() -> None:
    seeds = [replace(ROW, seed=seed, recall_10=ten, recall_1=one) for seed, ten, one in ((0, 30.0, 4.0), (1, 36.0, 5.0), (2, 33.0, 9.0))]
    rows = [*seeds, replace(ROW, gallery="noto", chance_recall_10=1.37), replace(ROW, control=True, recall_10=4.0)]
    header, joined, noto, control = as_table(rows).splitlines()
    assert header.split() == ["recipe", "gallery", "pairs", "R@1", "R@5", "R@10", "seeds", "chance", "median", "mAP"]
    assert joined.split() == "topic_emoji unseen 240 6.0 20.4 33.0 30.0..36.0 of 3 4.2 17.5 13.4".split()
    assert noto.split() == "topic_emoji noto 240 5.0 20.4 35.8 [30.0, 41.7] 1.4 17.5 13.4".split()
    assert control.split() == "topic_emoji shuffled unseen 240 5.0 20.4 4.0 [30.0, 41.7] 4.2 17.5 13.4".split()
    assert len({len(line) for line in (header, joined, noto, control)}) == 1


def test_the_table_of_one_seed_says_that_the_spread_is_an_interval_and_no_long_name_touches_the_next_column() -> None:
    header, row = as_table([replace(ROW, recipe="contrastive_emoji", control=True)]).splitlines()
    assert "95 % interval" in header and "seeds" not in header
    assert row.startswith("contrastive_emoji shuffled unseen ") and len(row) == len(header)


def test_a_store_whose_ids_are_those_of_other_pairs_by_now_is_refused(make_store: MakeStore, shards: ShardSet, tmp_path: Path) -> None:
    store = make_store("store")
    later = tmp_path / "set"
    later.mkdir()
    for shard in shards.shards[1:]:  # the first one is gone, and each pair that follows has a smaller id
        for suffix in (".tar", ".arrow"):
            shutil.copy(shards.path / f"{shard.name}{suffix}", later)
    finish(later, {})
    with pytest.raises(InputError, match="picture 0 is 0.png there and 70.png in"):
        text_to_image_ranks(store, ShardSet(later), np.arange(20))
