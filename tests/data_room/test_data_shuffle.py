"""Orders in blocks: a permutation like any other, which reads few shards at a time; and what that costs in mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.data import BlockShuffle, FullShuffle, Order, how_mixed
from multimodal.errors import InputError

SIZES = st.lists(st.integers(0, 40), max_size=30).map(lambda sizes: np.array(sizes, np.int64))
SHUFFLES = st.builds(BlockShuffle, shards=st.integers(1, 9), lanes=st.integers(1, 9))


@given(sizes=SIZES, shuffle=SHUFFLES, seed=st.integers(-(2**63), 2**64), epoch=st.integers(0, 2**40))
def test_every_pair_comes_once_an_epoch_whatever_the_sizes_of_shards(
    sizes: np.ndarray, shuffle: BlockShuffle, seed: int, epoch: int
) -> None:
    num = int(sizes.sum())
    ids = shuffle.open(seed, sizes).ids(epoch, 0, num)
    assert ids.dtype == np.int64
    assert sorted(ids.tolist()) == list(range(num))


@given(sizes=SIZES, shuffle=SHUFFLES, epochs=st.tuples(st.integers(0, 9), st.integers(0, 9)), step=st.integers(1, 7), data=st.data())
def test_a_part_is_the_same_whoever_asks_for_it_and_whatever_was_asked_before(
    sizes: np.ndarray, shuffle: BlockShuffle, epochs: tuple[int, int], step: int, data: st.DataObject
) -> None:
    num = int(sizes.sum())
    start = data.draw(st.integers(0, num))
    stop = data.draw(st.integers(start, num))
    used = shuffle.open(3, sizes)
    used.ids(epochs[0], 0, num)
    part = used.ids(epochs[1], start, stop, step)
    assert np.array_equal(part, shuffle.open(3, sizes).ids(epochs[1], 0, num)[start:stop:step])


@given(sizes=SIZES, shuffle=SHUFFLES, epoch=st.integers(0, 5))
def test_a_lane_reads_at_most_k_shards_at_a_time(sizes: np.ndarray, shuffle: BlockShuffle, epoch: int) -> None:
    num = int(sizes.sum())
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    for lane in range(min(shuffle.lanes, num)):
        shards = shard_of[shuffle.open(0, sizes).ids(epoch, lane, num, shuffle.lanes)].tolist()
        begun_and_not_done = [len(set(shards[: at + 1]) & set(shards[at:])) for at in range(len(shards))]
        assert max(begun_and_not_done) <= shuffle.shards


@given(sizes=SIZES, shuffle=SHUFFLES)
def test_lanes_share_only_the_shards_that_their_ends_cut(sizes: np.ndarray, shuffle: BlockShuffle) -> None:
    num = int(sizes.sum())
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    order = shuffle.open(0, sizes)
    lanes = [set(shard_of[order.ids(0, lane, num, shuffle.lanes)].tolist()) for lane in range(min(shuffle.lanes, num))]
    assert sum(map(len, lanes)) <= len(set().union(*lanes)) + len(lanes)


def test_epochs_and_seeds_give_other_orders() -> None:
    sizes = np.array([5, 9, 1, 0, 7, 8, 20])
    orders = {tuple(BlockShuffle(2, 3).open(seed, sizes).ids(epoch, 0, 50).tolist()) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_shards_meet_others_from_epoch_to_epoch() -> None:
    order, sizes = BlockShuffle(shards=2, lanes=1).open(0, np.full(10, 4)), np.repeat(np.arange(10), 4)
    blocks = {tuple(sorted(set(sizes[order.ids(epoch, 0, 8)].tolist()))) for epoch in range(60)}
    assert len(blocks) > 25, "of 45 pairs of shards that may come first"


def test_where_no_lane_cuts_a_shard_every_pair_is_as_likely_at_a_position() -> None:
    order = BlockShuffle(shards=2, lanes=2).open(0, np.array([3, 3, 3, 3]))
    for position in (0, 1, 11):
        counts = np.bincount([order.ids(epoch, position, position + 1)[0] for epoch in range(600)], minlength=12)
        chi_square = ((counts - 50) ** 2 / 50).sum()
        assert (chi_square - 11) / np.sqrt(2 * 11) < 4, "standard deviations from what chance gives"


def test_one_lane_with_all_shards_in_one_block_mixes_as_a_full_shuffle_does() -> None:
    sizes = np.full(20, 100)
    block, full = (how_mixed(shuffle.open(0, sizes), sizes, batch_size=64) for shuffle in (BlockShuffle(20, 1), FullShuffle()))
    assert block.same_shard == pytest.approx(full.same_shard, rel=0.05)
    assert max(block.neighbours, full.neighbours) < 4 / np.sqrt(2000)
    assert block.shards_at_once == full.shards_at_once == 20


def test_the_mix_that_blocks_leave_is_one_in_shards_times_lanes() -> None:
    sizes = np.full(64, 200)
    for shards, lanes in ((1, 1), (4, 1), (4, 4), (16, 1)):
        mix = how_mixed(BlockShuffle(shards, lanes).open(0, sizes), sizes, batch_size=40)
        assert mix.same_shard == pytest.approx(1 / (shards * lanes), rel=0.1)
        assert mix.shards_at_once == shards * lanes


def test_the_mix_agrees_with_a_slow_loop() -> None:
    sizes, batch_size = np.array([5, 0, 9, 4, 6]), 5
    order = BlockShuffle(2, 2).open(1, sizes)
    shards = np.repeat(np.arange(5), sizes)[order.ids(0, 0, 24)].tolist()
    same = [
        shards[i] == shards[j]
        for start in range(0, 20, batch_size)
        for i in range(start, start + batch_size)
        for j in range(start, start + batch_size)
        if i != j
    ]
    mix = how_mixed(order, sizes, batch_size)
    assert mix.same_shard == pytest.approx(np.mean(same))
    assert mix.shards_at_once == max(len(set(shards[: at + 1]) & set(shards[at:])) for at in range(24))


def test_the_first_ids_are_those_of_every_release() -> None:
    small = BlockShuffle(shards=2, lanes=2).open(0, np.array([3, 0, 5, 2]))
    assert small.ids(0, 0, 10).tolist() == [5, 0, 3, 1, 4, 9, 6, 8, 7, 2]
    assert small.ids(1, 0, 10).tolist() == [5, 2, 6, 0, 4, 9, 3, 1, 7, 8]
    large = BlockShuffle(shards=8, lanes=8).open(42, np.full(1000, 1000))
    assert large.ids(3, 500_000, 500_008).tolist() == [281062, 710728, 596584, 11963, 888539, 180292, 48147, 493027]
    assert np.array_equal(FullShuffle().open(7, np.array([4, 6])).ids(2, 0, 10), Order(7, 10).ids(2, 0, 10))


@settings(max_examples=20)
@given(shuffle=SHUFFLES)
def test_positions_beyond_the_end_are_refused(shuffle: BlockShuffle) -> None:
    with pytest.raises(ValueError, match="positions 8 to 11 by 1 are not within 0 to 10"):
        shuffle.open(0, np.array([4, 6])).ids(0, 8, 11)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="shards=0 and lanes=8 must be at least 1"):
        BlockShuffle(shards=0)
