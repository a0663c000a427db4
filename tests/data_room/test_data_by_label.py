"""P labels with K pictures each in a batch: every picture once an epoch, labels distinct, the same on any number of ranks."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.data import ColumnRows, Mixture, PairLoader, Pixels, PxK
from multimodal.data.by_label import PxKOrder
from multimodal.data.conformance import MakeLoader, assert_exact_epoch, assert_exact_resume
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ColumnWriter, JoinedShards, ShardSet, ShardWriter

SIZES = st.lists(st.integers(1, 23), max_size=30)
P, K = st.integers(1, 7), st.integers(1, 6)
FEATURES = ColumnRows("features")
NO_LABEL = 3


def labels_of(sizes: list[int], seed: int = 0) -> np.ndarray:
    """As many pictures of each label, in any order; labels that are no consecutive numbers."""
    return np.random.default_rng(seed).permutation(np.repeat(7 * np.arange(len(sizes)) - 3, sizes))


def batches(order: PxKOrder, epoch: int) -> np.ndarray:
    """(batches, P, K) ids."""
    return order.ids(epoch, 0, order.num).reshape(-1, order.num_labels, order.num_pictures)


@settings(max_examples=40)
@given(sizes=SIZES, p=P, k=K, seed=st.integers(-(2**63), 2**64), epoch=st.integers(0, 2**40))
def test_every_picture_comes_once_an_epoch_and_a_group_is_of_one_label(sizes: list[int], p: int, k: int, seed: int, epoch: int) -> None:
    labels = labels_of(sizes)
    order = PxKOrder(seed, labels, p, k)
    ids = batches(order, epoch)
    assert ids.dtype == np.int64
    assert sorted(ids[ids >= 0].tolist()) == list(range(len(labels)))
    for group in ids.reshape(-1, k):
        assert len({labels[id] for id in group if id >= 0}) <= 1


@settings(max_examples=40)
@given(sizes=SIZES, p=P, k=K, epoch=st.integers(0, 5))
def test_turns_of_a_label_are_as_few_and_as_even_as_can_be(sizes: list[int], p: int, k: int, epoch: int) -> None:
    labels = labels_of(sizes)
    groups = batches(PxKOrder(0, labels, p, k), epoch).reshape(-1, k)
    turns: dict[int, list[int]] = {}
    for group in groups[(groups >= 0).any(axis=1)]:
        turns.setdefault(int(labels[group.max()]), []).append(int((group >= 0).sum()))
    for label, found in turns.items():
        num = int((labels == label).sum())
        assert len(found) == -(-num // k) and max(found) - min(found) <= 1
    assert len(groups) == p * -(-sum(map(len, turns.values())) // p), "no more batches than the turns need"


@settings(max_examples=40)
@given(sizes=SIZES, p=P, k=K, epoch=st.integers(0, 5))
def test_a_batch_has_distinct_labels_where_it_can(sizes: list[int], p: int, k: int, epoch: int) -> None:
    labels = labels_of(sizes)
    order = PxKOrder(0, labels, p, k)
    for batch in batches(order, epoch):
        for label, times in Counter(int(labels[group.max()]) for group in batch if group.max() >= 0).items():
            num_turns = -(-int((labels == label).sum()) // k)
            assert times <= -(-num_turns // order.num_batches) + (num_turns > order.num_batches), (times, num_turns, order.num_batches)


@settings(max_examples=40)
@given(sizes=SIZES, p=P, k=K, epochs=st.tuples(st.integers(0, 9), st.integers(0, 9)), step=st.integers(1, 7), data=st.data())
def test_a_part_is_the_same_whoever_asks_for_it_and_whatever_was_asked_before(
    sizes: list[int], p: int, k: int, epochs: tuple[int, int], step: int, data: st.DataObject
) -> None:
    labels = labels_of(sizes)
    used = PxKOrder(3, labels, p, k)
    start = data.draw(st.integers(0, used.num))
    stop = data.draw(st.integers(start, used.num))
    used.ids(epochs[0], 0, used.num)
    part = used.ids(epochs[1], start, stop, step)
    assert np.array_equal(part, PxKOrder(3, labels, p, k).ids(epochs[1], 0, used.num)[start:stop:step])


def test_what_labels_are_called_is_irrelevant() -> None:
    labels = labels_of([5, 9, 1, 7, 8])
    assert np.array_equal(PxKOrder(0, labels, 2, 4).ids(1, 0, 24), PxKOrder(0, 100 + 2 * labels, 2, 4).ids(1, 0, 24))


def test_which_labels_meet_and_which_pictures_change_from_epoch_to_epoch() -> None:
    labels = labels_of([8] * 40)
    order = PxKOrder(0, labels, 4, 4)
    met = [{frozenset(labels[batch[:, 0]].tolist()) for batch in batches(order, epoch)} for epoch in range(3)]
    assert len(set.union(*met)) > 0.9 * sum(map(len, met))
    grouped = [{frozenset(group.tolist()) for group in batches(order, epoch).reshape(-1, 4)} for epoch in range(3)]
    assert len(set.union(*grouped)) > 0.9 * sum(map(len, grouped))


def test_the_order_is_pinned() -> None:
    """A run that resumes relies on it."""
    assert PxKOrder(0, np.array([0, 0, 0, 0, 0, 1, 1, 1, 2]), 2, 3).ids(1, 0, 12).tolist() == PINNED


PINNED = [2, 3, 0, 7, 6, 5, 8, -1, -1, 1, 4, -1]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """27 pairs of six people, in three shards; one of them has no identity."""
    path: Path = tmp_path_factory.mktemp("labelled") / "set"
    numbers = labels_of([9, 7, 5, 3, 2, 1]).tolist()
    with ShardWriter(path, pairs_per_shard=10) as writer:
        for i, number in enumerate(numbers):
            metadata = {} if i == NO_LABEL else {"identity": f"{number:04}"}
            encoded = io.BytesIO()
            Image.new("L", (8, 8), 9 * i).save(encoded, "PNG")
            writer.write(Pair(f"{i}.png", encoded.getvalue(), "png", (f"someone {i}",), f"group {i}", metadata=metadata))
    shards = ShardSet(path)
    with ColumnWriter(shards, "features", dim=1, unit="pair", dtype="float32", config={}, made_from={}) as writer:
        for shard in writer.missing():
            writer.write(shard, np.array([*shard.ids], np.float32)[:, None], None)
    return shards


def maker(shards: ShardSet, ids: np.ndarray, order: PxK, side: ColumnRows | Pixels = FEATURES, workers: int = 0) -> MakeLoader:
    def make(batch_size: int, rank: int, world_size: int) -> PairLoader:
        both = side, FEATURES
        return PairLoader(shards, ids, *both, batch_size, 0, num_workers=workers, rank=rank, world_size=world_size, order=order)

    return make


@settings(max_examples=6, deadline=None)
@given(
    ids=st.sets(st.integers(0, 26).filter(lambda id: id != NO_LABEL), min_size=1), ranks=st.sampled_from([(6, 1), (3, 2), (2, 3), (1, 6)])
)
def test_all_ranks_together_see_every_pair_once(shards: ShardSet, ids: set[int], ranks: tuple[int, int]) -> None:
    part = np.array(sorted(ids), np.int64)
    for order in (PxK("identity", 3, 2), PxK("identity", 2, 3), PxK("identity", 1, 6)):
        assert_exact_epoch(maker(shards, part, order), part, *ranks)


@pytest.mark.parametrize("ranks", [(6, 1, 3), (2, 3, 2), (3, 2, 1)])
def test_a_run_goes_on_from_every_batch_on_other_numbers_of_ranks(shards: ShardSet, ranks: tuple[int, int, int]) -> None:
    assert_exact_resume(maker(shards, np.arange(27), PxK("identity", 2, 3)), *ranks)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_in_shared_buffers_are_at_the_places_of_their_ids(shards: ShardSet, workers: int) -> None:
    """Empty places in the middle of a batch have pictures of zeros."""
    side = Pixels(8, scale=(1, 1), ratio=(1, 1), flip=False)
    seen = 0
    for batch in maker(shards, np.arange(27), PxK("identity", 2, 4), side, workers)(8, 0, 1):
        for id, picture, target, valid in zip(batch.id.tolist(), batch.image, batch.target, batch.valid.tolist(), strict=True):
            assert valid == (id >= 0)
            assert (picture == (9 * id if valid else 0)).all() and float(target) == (id if valid else 0)
            seen += valid
    assert seen == 27


def test_a_pair_without_a_label_is_read_once_in_a_turn_of_its_own(shards: ShardSet) -> None:
    ids = [batch.id.tolist() for batch in maker(shards, np.arange(27), PxK("identity", 3, 2))(6, 0, 1)]
    groups = [batch[at : at + 2] for batch in ids for at in (0, 2, 4)]
    assert [group for group in groups if NO_LABEL in group] in ([[NO_LABEL, -1]], [[-1, NO_LABEL]])


def test_orders_that_cannot_be_made_are_refused_with_what_to_do(shards: ShardSet) -> None:
    with pytest.raises(InputError, match="for batches of 6 pairs, and they have 8. Set data.batch_size to 6"):
        maker(shards, np.arange(27), PxK("identity", 3, 2))(4, 0, 2)
    with pytest.raises(InputError, match="none of 27 pairs can be ordered by colour, such as .* has no colour in its metadata"):
        maker(shards, np.arange(27), PxK("colour", 3, 2))(6, 0, 1)
    with pytest.raises(InputError, match="labels=0 and pictures=2 must be at least 1"):
        PxK("identity", 0, 2)
    joined = JoinedShards({"a": shards, "b": shards})
    with pytest.raises(InputError, match="needs the labels of one set, and data.shards names several"):
        PairLoader(joined, np.arange(54), FEATURES, FEATURES, 6, 0, order=PxK("identity", 3, 2), mixture=Mixture())
