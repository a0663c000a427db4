"""Several sets in one epoch: how much of each, in which order, and that every pair gets its turn."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.data import (
    BlockShuffle,
    Captions,
    ColumnRows,
    FullShuffle,
    Mixture,
    Order,
    PairLoader,
    Pixels,
    Reader,
    Rows,
    Shuffle,
    Shuffled,
    Side,
)
from multimodal.data.conformance import MakeLoader, assert_exact_epoch, assert_exact_mixture, assert_exact_resume
from multimodal.data.mixture import WINDOW, MixedOrder, interleaved
from multimodal.data.sides import open_side
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ColumnWriter, JoinedShards, Ledger, RemoteShards, ShardSet, ShardWriter

NAMES = "abcd"
FULL_SHUFFLE = FullShuffle()
PNG = b"\x89PNG\r\n\x1a\n" + bytes(300)
NUMS = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(lambda nums: dict(zip(NAMES, nums, strict=False)))
SHUFFLES = st.one_of(st.just(FullShuffle()), st.builds(BlockShuffle, shards=st.integers(1, 3), lanes=st.integers(1, 9)))
WEIGHTS = st.one_of(st.integers(1, 20), st.floats(0.5, 20))


@st.composite
def mixture_of(draw: st.DrawFn, nums: Mapping[str, int], weights: st.SearchStrategy[float], max_more: int = 200) -> Mixture:
    """A mixture of sets of these numbers of pairs in which each has a place: an epoch too short for that is an error."""
    chosen = draw(st.none() | st.fixed_dictionaries({name: weights for name in nums}))
    shares = [*map(Fraction, (chosen or nums).values())]
    fewest, num = math.ceil(sum(shares) / min(shares)), sum(nums.values())
    nums_pairs = st.integers(fewest, fewest + max_more)
    return Mixture(chosen, draw(nums_pairs if num < fewest else st.none() | nums_pairs))


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[Mixture, dict[str, int]]:
    """A mixture in which each set has a place, and how many pairs the sets have."""
    nums = draw(NUMS)
    return draw(mixture_of(nums, WEIGHTS)), nums


def opened(mixture: Mixture, nums: Mapping[str, int], shuffle: Shuffle = FULL_SHUFFLE, seed: int = 0) -> MixedOrder:
    """Shards of five pairs, and one of what is left."""
    return mixture.open(seed, {name: np.array([*[5] * (num // 5), num % 5]) for name, num in nums.items()}, shuffle)


@settings(deadline=None, max_examples=40)
@given(mixed=mixtures())
def test_an_epoch_holds_the_share_of_each_set_to_within_one(mixed: tuple[Mixture, dict[str, int]]) -> None:
    mixture, nums = mixed
    counts = mixture.counts(nums)
    assert sum(counts.values()) == (mixture.num_pairs or sum(nums.values()))
    weights = mixture.weights or nums
    total = sum(map(Fraction, weights.values()))
    assert all(abs(count - sum(counts.values()) * Fraction(weights[name]) / total) < 1 for name, count in counts.items())


@settings(deadline=None, max_examples=40)
@given(nums=NUMS)
def test_without_settings_an_epoch_is_each_pair_of_each_set_once(nums: dict[str, int]) -> None:
    assert Mixture().counts(nums) == nums
    order = opened(Mixture(), nums)
    assert sorted(order.ids(3, 0, order.num).tolist()) == list(range(sum(nums.values())))


@settings(deadline=None, max_examples=40)
@given(mixed=mixtures(), shuffle=SHUFFLES, seed=st.integers(-(2**63), 2**64), num_epochs=st.integers(1, 6))
def test_of_a_set_no_pair_has_come_twice_more_than_another_and_after_whole_passes_all_have_come_equally_often(
    mixed: tuple[Mixture, dict[str, int]], shuffle: Shuffle, seed: int, num_epochs: int
) -> None:
    mixture, nums = mixed
    order, counts = opened(mixture, nums, shuffle, seed), mixture.counts(nums)
    seen = np.zeros(sum(nums.values()), np.int64)
    for epoch in range(num_epochs):
        seen += np.bincount(order.ids(epoch, 0, order.num), minlength=len(seen))
        of_sets = np.split(seen, np.cumsum([*nums.values()])[:-1])
        for (name, num), of_set in zip(nums.items(), of_sets, strict=True):
            assert of_set.sum() == counts[name] * (epoch + 1)
            assert of_set.max() - of_set.min() <= (counts[name] * (epoch + 1) % num > 0)


@settings(deadline=None, max_examples=40)
@given(nums=st.tuples(st.integers(1, 12), st.integers(1, 12)), counts=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_over_the_least_common_multiple_of_the_passes_every_pair_comes_equally_often(
    nums: tuple[int, int], counts: tuple[int, int]
) -> None:
    order = opened(Mixture(dict(zip("ab", counts, strict=True)), sum(counts)), dict(zip("ab", nums, strict=True)))
    num_epochs = math.lcm(*(num // math.gcd(num, count) for num, count in zip(nums, counts, strict=True)))
    seen = sum(np.bincount(order.ids(epoch, 0, order.num), minlength=sum(nums)) for epoch in range(num_epochs))
    for num, count, of_set in zip(nums, counts, np.split(seen, [nums[0]]), strict=True):
        assert (of_set == num_epochs * count // num).all()


@settings(deadline=None, max_examples=40)
@given(mixed=mixtures(), shuffle=SHUFFLES, epoch=st.integers(0, 50), step=st.integers(1, 7), data=st.data())
def test_a_part_is_the_same_whoever_asks_for_it(
    mixed: tuple[Mixture, dict[str, int]], shuffle: Shuffle, epoch: int, step: int, data: st.DataObject
) -> None:
    order = opened(*mixed, shuffle)
    start = data.draw(st.integers(0, order.num))
    stop = data.draw(st.integers(start, order.num))
    for part, whole in zip(order.at(epoch, start, stop, step), order.at(epoch, 0, order.num), strict=True):
        assert part.dtype == np.int64 and np.array_equal(part, whole[start:stop:step])
    with pytest.raises(ValueError, match="are not within"):
        order.ids(epoch, start, order.num + 1)


@settings(deadline=None, max_examples=40)
@given(mixed=mixtures(), seed=st.integers(0, 2**32), epoch=st.integers(0, 9))
def test_what_a_set_gives_is_a_loop_over_its_own_passes(mixed: tuple[Mixture, dict[str, int]], seed: int, epoch: int) -> None:
    mixture, nums = mixed
    drawn = opened(mixture, nums, seed=seed).at(epoch, 0, sum(mixture.counts(nums).values()))
    first = 0
    for number, (name, num) in enumerate(nums.items()):
        slow, count = Order(seed + number * 2**32, num), mixture.counts(nums)[name]
        expected = []
        for place in range(epoch * count, (epoch + 1) * count):
            passed, own = divmod(place, num)
            expected.append((first + int(slow.ids(passed, own, own + 1)[0]), passed))
        here = (first <= drawn.ids) & (drawn.ids < first + num)
        assert sorted(zip(drawn.ids[here].tolist(), drawn.passes[here].tolist(), strict=True)) == sorted(expected)
        first += num


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_sets_are_interleaved_evenly_and_each_place_of_each_is_there_once(counts: list[int]) -> None:
    num = sum(counts)
    sets, ranks = interleaved(np.array(counts), np.arange(num))
    for number, count in enumerate(counts):
        assert ranks[sets == number].tolist() == list(range(count))
        so_far = np.cumsum(sets == number)
        assert all(abs(so_far[p] - (p + 1) * count / num) <= max(1, len(counts) - 1) for p in range(num))


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(1, 500), min_size=2, max_size=4), windows=st.integers(1, 4), epoch=st.integers(0, 3))
def test_each_batch_of_whole_windows_holds_the_shares(counts: list[int], windows: int, epoch: int) -> None:
    nums = dict(zip(NAMES, counts, strict=False))
    order, size = opened(Mixture(), nums), windows * WINDOW
    bounds = np.cumsum(counts)
    for start in range(0, order.num - size + 1, size):
        in_batch = np.bincount(np.searchsorted(bounds, order.ids(epoch, start, start + size), side="right"), minlength=len(counts))
        assert (abs(in_batch - size * np.array(counts) / sum(counts)) < len(counts)).all()


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_sets_of_regular_shares_do_not_always_come_to_the_same_ranks(world_size: int) -> None:
    order = opened(Mixture(), {"a": 1000 * (world_size - 1), "b": 1000})
    for rank in range(world_size):
        share = (order.ids(0, rank, order.num, world_size) >= 1000 * (world_size - 1)).mean()
        assert abs(share - 1 / world_size) < 5 * (1 / world_size / 1000) ** 0.5  # five standard errors of a fair deal


def test_ranks_whose_number_divides_the_lanes_read_shards_of_their_own_in_each_set() -> None:
    sizes = {"a": np.full(8, 8), "b": np.full(4, 8)}  # a lane of four is whole shards
    order = Mixture().open(0, sizes, BlockShuffle(shards=1, lanes=4))
    of_ranks = [set((order.ids(0, rank, order.num, 4) // 8).tolist()) for rank in range(4)]
    assert [len(of_rank) for of_rank in of_ranks] == [3] * 4 and len(set().union(*of_ranks)) == 12


def test_sets_of_one_size_have_orders_of_their_own() -> None:
    order = opened(Mixture(), {"a": 200, "b": 200})
    ids = order.ids(0, 0, 400)
    ranks = [np.argsort(np.argsort(ids[of_set])) for of_set in (np.flatnonzero(ids < 200), np.flatnonzero(ids >= 200))]
    assert abs(np.corrcoef(*ranks)[0, 1]) < 5 / 200**0.5


def test_the_first_ids_are_those_of_every_release() -> None:
    # As those of `Order`: whoever resumes a run relies on them.
    order = opened(Mixture({"a": 1, "b": 3}, 16), {"a": 10, "b": 7})
    assert order.ids(0, 0, 16).tolist() == [16, 11, 14, 11, 3, 5, 14, 7, 16, 10, 15, 12, 13, 12, 6, 15]
    assert order.at(1, 0, 16).passes.tolist() == [0, 1, 1, 0, 2, 2, 3, 2, 2, 0, 0, 2, 3, 3, 2, 2]
    in_lanes = opened(Mixture({"a": 1, "b": 3}, 16), {"a": 10, "b": 7}, BlockShuffle(shards=1, lanes=2))
    assert in_lanes.ids(0, 0, 16).tolist() == [5, 3, 13, 16, 13, 14, 10, 15, 11, 16, 12, 15, 14, 10, 7, 2]


@pytest.mark.parametrize(
    ("mixture", "nums", "told"),
    [
        (dict(weights={"a": 1, "c": 1}), {"a": 5, "b": 5}, "there are weights for a, c, and the sets are a, b. Give each set a weight"),
        (dict(weights={"a": 0, "b": 1}), {"a": 5, "b": 5}, "weights.a=0 must be above 0. To leave out a set, remove it from data.shards"),
        (dict(weights={"a": math.nan, "b": 1}), {"a": 5, "b": 5}, "weights.a=nan must be above 0"),
        (dict(num_pairs=0), {"a": 5}, "num_pairs=0 must be at least 1, or null"),
        (
            dict(weights={"a": 1, "b": 99}),
            {"a": 5, "b": 5},
            "an epoch of 10 pairs holds none of set a. Raise its weight of 1, or num_pairs",
        ),
        (dict(), {"a": 5, "b": 0}, "set b has no pair to train on. Remove it from data.shards"),
        (dict(num_pairs=2**32), {"a": 5}, "an epoch of 4294967296 pairs is too long. Set num_pairs to at most 2147483648"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(mixture: dict[str, object], nums: dict[str, int], told: str) -> None:
    with pytest.raises(InputError, match=f"mixture: {told}"):
        Mixture(**mixture).counts(nums)


def test_an_epoch_of_two_thousand_million_pairs_still_has_exact_shares() -> None:
    counts = np.array([3, 2**31 - 3 - 2**20, 2**20])
    sets, ranks = interleaved(counts, np.arange(2**31 - 5, 2**31))
    assert all(ranks[sets == number].max(initial=-1) in (-1, counts[number] - 1) for number in range(3))
    assert len(set(zip(sets.tolist(), ranks.tolist(), strict=True))) == 5


@dataclass(frozen=True)
class Bytes(Side):
    """A side that reads each picture, and shows its length."""

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return lambda ids, words: Rows(
            np.array([[len(shards.image_bytes(id))] for id in ids.tolist()]).reshape(-1, 1), np.ones(len(ids), bool)
        )


SIZES = {"cc": 23, "flickr": 6}
NOT_A_NUMBER = ("flickr", 4)
COLUMNS = (ColumnRows("features"), ColumnRows("targets"))


def write_set(path: Path, num: int, first: int, bad: int | None = None, texts: int = 3, dim: int = 2, space: str = "s" * 64) -> ShardSet:
    """Pairs whose features and targets say their number from first on; targets say which of a pair's texts they are too."""
    with ShardWriter(path, pairs_per_shard=4) as writer:
        for i in range(first, first + num):
            writer.write(Pair(f"{i}.png", PNG, "png", tuple(f"text {j} of {i}" for j in range(texts)), f"group {i}"))
    shards = ShardSet(path)
    with ColumnWriter(shards, "features", dim=1, unit="pair", dtype="float32", config={}, made_from={}) as writer:
        for shard in writer.missing():
            writer.write(shard, np.array([[np.nan if i == bad else first + i] for i in shard.ids], np.float32))
    with ColumnWriter(shards, "targets", dim, "text", "float32", {}, {"text-space": space}) as writer:
        for shard in writer.missing():
            rows = np.array([[first + i, j, 0][:dim] for i in shard.ids for j in range(texts)], np.float32)
            writer.write(shard, rows, np.full(shard.num_pairs, texts))
    return shards


@pytest.fixture(scope="session")
def joined(tmp_path_factory: pytest.TempPathFactory) -> JoinedShards:
    """A set of 23 pairs and one of 6, whose numbers are their ids in both together; one row of the second is no number."""
    folder = tmp_path_factory.mktemp("mixture")
    return JoinedShards(
        {"flickr": write_set(folder / "flickr8k", SIZES["flickr"], first=23, bad=4), "cc": write_set(folder / "cc3m", SIZES["cc"], first=0)}
    )


def maker(joined: JoinedShards, mixture: Mixture, ids: np.ndarray | None = None, order: Shuffle = FULL_SHUFFLE) -> MakeLoader:
    def make(batch_size: int, rank: int, world_size: int) -> PairLoader:
        of = np.arange(len(joined)) if ids is None else ids
        return PairLoader(joined, of, *COLUMNS, batch_size, seed=0, rank=rank, world_size=world_size, order=order, mixture=mixture)

    return make


WEIGHTS_OF_TWO = st.integers(1, 5)
IDS = st.tuples(*(st.sets(st.integers(0, num - 1), min_size=1) for num in SIZES.values())).map(
    lambda own: [np.array(sorted(own[0])), 23 + np.array(sorted(own[1]))]
)


@settings(deadline=None, max_examples=25)
@given(ids=IDS, order=SHUFFLES, batch_size=st.integers(1, 9), world_size=st.integers(1, 4), data=st.data())
def test_all_ranks_together_give_the_pairs_of_each_set_in_turn(
    joined: JoinedShards, ids: list[np.ndarray], order: Shuffle, batch_size: int, world_size: int, data: st.DataObject
) -> None:
    nums = dict(zip(SIZES, map(len, ids), strict=True))
    mixture = data.draw(mixture_of(nums, WEIGHTS_OF_TWO, max_more=60))
    counts = mixture.counts(nums)
    make = maker(joined, mixture, np.concatenate(ids), order)
    assert make(batch_size, 0, world_size).num_pairs == sum(counts.values())
    assert_exact_mixture(make, ids, batch_size, world_size, num_epochs=3)
    assert_exact_epoch(maker(joined, Mixture(), np.concatenate(ids), order), np.concatenate(ids), batch_size, world_size, epoch=2)


@settings(deadline=None, max_examples=8)
@given(
    mixture=mixture_of(SIZES, WEIGHTS_OF_TWO, max_more=60),
    ranks=st.sampled_from([(3, 2, 3), (2, 3, 1), (4, 2, 8), (6, 1, 4)]),
    epoch=st.integers(0, 3),
    order=SHUFFLES,
)
def test_a_mixture_goes_on_from_every_batch_on_other_numbers_of_ranks(
    joined: JoinedShards, mixture: Mixture, ranks: tuple[int, int, int], epoch: int, order: Shuffle
) -> None:
    batch_size, world_size, world_size_after = ranks
    if batch_size * world_size % world_size_after:
        world_size_after = world_size
    assert_exact_resume(maker(joined, mixture, order=order), batch_size, world_size, world_size_after, epoch)


def test_a_loader_that_begins_its_passes_anew_each_epoch_is_found_out(joined: JoinedShards) -> None:
    class Forgetful(PairLoader):
        def set_epoch(self, epoch: int) -> None:
            super().set_epoch(0)

    def make(batch_size: int, rank: int, world_size: int) -> PairLoader:
        mixture = Mixture({"cc": 1, "flickr": 1}, num_pairs=10)
        return Forgetful(joined, np.arange(len(joined)), *COLUMNS, batch_size, 0, rank=rank, world_size=world_size, mixture=mixture)

    with pytest.raises(AssertionError, match="after epoch 1, a pair of set 0 was seen 2 times and another 0"):
        assert_exact_mixture(make, [np.arange(23), np.arange(23, 29)], batch_size=5, world_size=2, num_epochs=3)


def test_rows_are_those_of_the_pairs_own_set_and_a_pair_seen_again_in_an_epoch_has_another_text(joined: JoinedShards) -> None:
    loader = PairLoader(joined, np.arange(29), *COLUMNS, 7, seed=0, mixture=Mixture({"cc": 1, "flickr": 40}))
    told = set()
    for batch in loader:
        used = batch.valid
        assert torch.equal(batch.image[used, 0].long(), batch.id[used]) and torch.equal(batch.target[used, 0].long(), batch.id[used])
        told |= set(zip(batch.id.tolist(), batch.target[:, 1].tolist(), strict=True))
    assert {id for id, _ in told if id >= 23 and id != 27} == {23, 24, 25, 26, 28}
    assert sum(id == 24 for id, _ in told) > 1


def test_workers_give_what_the_process_itself_gives(joined: JoinedShards) -> None:
    def loader(num_workers: int) -> PairLoader:
        mixture = Mixture({"cc": 2, "flickr": 3})
        return PairLoader(joined, np.arange(29), ColumnRows("features"), Captions(), 6, 0, num_workers=num_workers, mixture=mixture)

    alone, helped = loader(0), loader(2)
    batches = list(zip(alone, helped, strict=True))
    assert all(torch.equal(one.id, other.id) and one.target == other.target for one, other in batches)
    assert all(text.endswith(f" of {id}") for one, _ in batches for id, text in zip(one.id.tolist(), one.target, strict=True) if id >= 0)


def test_pictures_of_several_sets_are_those_of_each_with_their_channels_last_in_memory(tmp_path: Path) -> None:
    generator, sets = np.random.default_rng(0), {}
    for name, num in (("a", 3), ("b", 2)):
        with ShardWriter(tmp_path / name) as writer:
            for i in range(num):
                encoded = io.BytesIO()
                Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(encoded, "PNG")
                writer.write(Pair(f"{i}.png", encoded.getvalue(), "png", ("a text",), f"group {i}"))
        sets[name] = ShardSet(tmp_path / name)
    ids, words = np.array([4, 0, 3, 2, 1]), np.arange(5, dtype=np.uint64)
    rows = open_side(Pixels(8), JoinedShards(sets), ids)(ids, words)
    assert rows.ok.all() and rows.values.transpose(0, 2, 3, 1).flags.c_contiguous
    for name, places in (("a", [1, 3, 4]), ("b", [0, 2])):
        own = Pixels(8).open(sets[name], ids)(ids[places] - (3 if name == "b" else 0), words[places])
        assert np.array_equal(rows.values[places], own.values)


@pytest.mark.parametrize("side", [ColumnRows("targets"), Captions()], ids=repr)
def test_the_control_permutes_the_rows_of_each_set_within_the_set(joined: JoinedShards, side: Side) -> None:
    ids = np.arange(1, 29)
    values = open_side(Shuffled(side), joined, ids)(ids, None).values
    dealt = [int(str(value).split()[-1]) if isinstance(value, str) else int(value[0]) for value in values]
    assert sorted(dealt[:22]) == list(range(1, 23)) and sorted(dealt[22:]) == list(range(23, 29))
    assert all(own != other for own, other in zip(ids.tolist(), dealt, strict=True))


def test_a_pair_that_cannot_be_read_is_named_with_its_set_and_each_is_counted_once(joined: JoinedShards, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bad.csv", max_bad_share=0.1)
    loader = PairLoader(joined, np.arange(29), *COLUMNS, 5, 0, ledger=ledger, mixture=Mixture({"cc": 1, "flickr": 3}))
    for _ in range(4):
        assert all(not batch.valid[batch.id == 27].any() for batch in loader)
    (bad,) = ledger.entries
    assert (bad.where, bad.key) == ("flickr/000001", joined.sets["flickr"].key(4)) and "not finite" in bad.reason
    assert ledger.num_good == 28


def test_a_checkpoint_of_other_weights_does_not_go_on_and_the_same_weights_to_another_scale_do(joined: JoinedShards) -> None:
    def loader(mixture: Mixture) -> PairLoader:
        return PairLoader(joined, np.arange(29), *COLUMNS, 5, 0, mixture=mixture)

    state = loader(Mixture({"cc": 1, "flickr": 3})).state_dict()
    loader(Mixture({"flickr": 6, "cc": 2})).load_state_dict(state)
    with pytest.raises(InputError, match=r"had the order FullShuffle\(\) of \[7, 22\] and this one has FullShuffle\(\) of \[15, 14\]"):
        loader(Mixture({"cc": 1, "flickr": 1})).load_state_dict(state)


def test_a_mixture_at_urls_gives_the_batches_of_the_folders(joined: JoinedShards, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed (extra remote)")
    there = JoinedShards(
        {
            name: RemoteShards(shards.path.as_uri(), tmp_path, cache_bytes=4 * shards.shards[0].size_bytes, index=shards.path).open()
            for name, shards in joined.sets.items()
        }
    )
    mixture, order = Mixture({"cc": 1, "flickr": 2}), BlockShuffle(shards=2, lanes=1)
    here, far = (PairLoader(sets, np.arange(29), Bytes(), Captions(), 4, 0, order=order, mixture=mixture) for sets in (joined, there))
    for _ in range(2):
        assert all(torch.equal(one.id, other.id) and one.target == other.target for one, other in zip(here, far, strict=True))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (dict(dim=3), "cc/columns/targets and .*flickr/columns/targets: dim is 2 and 3. Sets are mixed by columns that mean the same"),
        (dict(space="t" * 64), r"cc/columns/targets and .*flickr/columns/targets: text-space is ssssssssssss\.\. and tttttttttttt\.\."),
    ],
)
def test_columns_that_do_not_mean_the_same_are_refused_with_both_named(tmp_path: Path, other: dict[str, object], told: str) -> None:
    sets = JoinedShards({"cc": write_set(tmp_path / "cc", 3, 0), "flickr": write_set(tmp_path / "flickr", 3, 3, **other)})
    with pytest.raises(InputError, match=told):
        PairLoader(sets, np.arange(6), *COLUMNS, 2, seed=0)


def test_ids_that_are_not_in_order_are_refused(joined: JoinedShards) -> None:
    with pytest.raises(ValueError, match="must be ascending"):
        PairLoader(joined, np.array([24, 3]), *COLUMNS, 2, seed=0)
