"""The loader: every pair once an epoch, on any number of ranks and workers, from any position; bad samples keep their place."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.data import BlockShuffle, Captions, ColumnRows, PairLoader, Pixels, Shuffle, Shuffled, Side
from multimodal.data.conformance import MakeLoader, assert_exact_epoch, assert_exact_resume
from multimodal.errors import InputError
from multimodal.machine.cores import map_in_threads
from multimodal.pairs import Batch, Pair
from multimodal.shards import Ledger, ShardSet, ShardWriter
from multimodal.shards.columns import ColumnWriter

NUM = 23
NOT_A_PICTURE = 4
NOT_A_NUMBER = 17


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """23 pairs in three shards, with what goes wrong in real ones: a file that is no picture, and a feature row that is not a number."""
    path: Path = tmp_path_factory.mktemp("data_room") / "set"
    rng = np.random.default_rng(0)
    texts = [tuple(f"text {j} of {i}" for j in range(1 + i % 3)) for i in range(NUM)]
    with ShardWriter(path, pairs_per_shard=9) as writer:
        for i in range(NUM):
            encoded = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (12 + i % 4, 14, 3), dtype=np.uint8)).save(encoded, "PNG")
            image = b"not a picture" if i == NOT_A_PICTURE else encoded.getvalue()
            writer.write(Pair(f"{i}.png", image, "png", texts[i], f"group {i}"))
    shards = ShardSet(path)
    with ColumnWriter(shards, "features", dim=3, unit="pair", dtype="float32", config={}, made_from={}) as writer:
        for shard in writer.missing():
            rows = np.array([[i, i + 0.25, i + 0.5] for i in shard.ids], np.float32)
            if NOT_A_NUMBER in shard.ids:
                rows[NOT_A_NUMBER - shard.start, 1] = np.nan
            writer.write(shard, rows, None)
    with ColumnWriter(shards, "targets", dim=2, unit="text", dtype="float32", config={}, made_from={}) as writer:
        for shard in writer.missing():
            rows = np.array([[i, j] for i in shard.ids for j in range(len(texts[i]))], np.float32)
            writer.write(shard, rows, np.array([len(texts[i]) for i in shard.ids]))
    return shards


COLUMNS = (ColumnRows("features"), ColumnRows("targets"))
PICTURES = (Pixels(8), Captions())


def maker(
    shards: ShardSet, ids: np.ndarray, sides: tuple[Side, Side], seed: int = 0, num_workers: int = 0, shuffle: bool = True
) -> MakeLoader:
    def make(batch_size: int, rank: int, world_size: int) -> PairLoader:
        return PairLoader(shards, ids, *sides, batch_size, seed, shuffle=shuffle, num_workers=num_workers, rank=rank, world_size=world_size)

    return make


def loader(shards: ShardSet, sides: tuple[Side, Side] = COLUMNS, batch_size: int = 5, seed: int = 0, **settings: object) -> PairLoader:
    return PairLoader(shards, np.arange(NUM), *sides, batch_size, seed, **settings)


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for batches in zip(one, other, strict=True)
        for a, b in zip(*batches, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(
    ids=st.sets(st.integers(0, NUM - 1)),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 2**32),
    shuffle=st.booleans(),
)
def test_all_ranks_together_see_every_pair_once(
    shards: ShardSet, ids: set[int], batch_size: int, world_size: int, epoch: int, seed: int, shuffle: bool
) -> None:
    part = np.array(sorted(ids), np.int64)
    assert_exact_epoch(maker(shards, part, COLUMNS, seed, shuffle=shuffle), part, batch_size, world_size, epoch)


@settings(max_examples=25, deadline=None)
@given(
    num=st.integers(0, NUM),
    ranks=st.sampled_from([(2, 1, 1), (1, 2, 1), (3, 2, 3), (2, 3, 2), (4, 2, 8), (6, 1, 4), (5, 4, 2)]),
    epoch=st.integers(0, 3),
)
def test_a_run_goes_on_from_every_batch_on_other_numbers_of_ranks(
    shards: ShardSet, num: int, ranks: tuple[int, int, int], epoch: int
) -> None:
    batch_size, world_size, world_size_after = ranks
    if batch_size * world_size % world_size_after:
        world_size_after = world_size
    assert_exact_resume(maker(shards, np.arange(num), COLUMNS), batch_size, world_size, world_size_after, epoch)


@settings(max_examples=15, deadline=None)
@given(ids=st.sets(st.integers(0, NUM - 1)), lanes=st.sampled_from([1, 2, 6]), ranks=st.sampled_from([(3, 2, 3), (2, 3, 1)]))
def test_blocks_of_shards_are_as_exact_and_go_on_as_exactly(
    shards: ShardSet, ids: set[int], lanes: int, ranks: tuple[int, int, int]
) -> None:
    part, (batch_size, world_size, world_size_after) = np.array(sorted(ids), np.int64), ranks

    def make(batch_size: int, rank: int, world_size: int) -> PairLoader:
        order = BlockShuffle(shards=2, lanes=lanes)
        return PairLoader(shards, part, *COLUMNS, batch_size, seed=0, rank=rank, world_size=world_size, order=order)

    assert_exact_epoch(make, part, batch_size, world_size)
    assert_exact_resume(make, batch_size, world_size, world_size_after)


def test_ranks_whose_number_divides_the_lanes_read_shards_of_their_own(shards: ShardSet) -> None:
    def shards_of(rank: int, order: Shuffle) -> set[int]:
        part = np.concatenate([shard.ids for shard in shards.shards[:2]])  # two shards of the same size, so that no lane cuts one
        one = PairLoader(shards, part, *COLUMNS, 3, seed=0, rank=rank, world_size=2, order=order)
        return {int(shards.shard_numbers(id)) for batch in one for id in batch.id[batch.id >= 0].numpy()}

    assert shards_of(0, BlockShuffle(shards=1, lanes=2)) ^ shards_of(1, BlockShuffle(shards=1, lanes=2)) == {0, 1}


def test_pictures_and_captions_go_on_exactly_too(shards: ShardSet) -> None:
    assert_exact_epoch(maker(shards, np.arange(NUM), PICTURES), np.arange(NUM), batch_size=4, world_size=2)
    assert_exact_resume(maker(shards, np.arange(NUM), PICTURES), batch_size=4, world_size=2, world_size_after=1)


def test_workers_give_what_the_process_itself_gives_and_resume_as_it_does(shards: ShardSet) -> None:
    alone, worked = loader(shards, PICTURES, batch_size=6), loader(shards, PICTURES, batch_size=6, num_workers=2)
    for _ in range(2):
        assert equal(list(alone), list(worked))
    for _, _ in zip(range(2), worked, strict=False):  # left early, with batches prepared that nobody takes
        pass
    saved = worked.state_dict()
    assert saved["epoch"] == 2 and saved["offset"] == 12
    worked.load_state_dict(saved)
    assert equal(list(worked), list(alone)[2:])


def test_the_number_of_workers_does_not_move_the_global_random_state(shards: ShardSet) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(loader(shards, num_workers=1))
    assert torch.rand(1) == expected


def test_a_global_batch_holds_the_same_pairs_on_any_number_of_ranks(shards: ShardSet) -> None:
    def steps(batch_size: int, world_size: int) -> list[list[int]]:
        ranks = [loader(shards, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
        return [torch.stack([batch.id for batch in step], dim=1).flatten().tolist() for step in zip(*ranks, strict=True)]

    assert steps(8, 1) == steps(4, 2) == steps(2, 4)


def test_each_loop_is_the_next_epoch_and_each_epoch_has_its_own_order(shards: ShardSet) -> None:
    one = loader(shards)
    orders = [[batch.id.tolist() for batch in one] for _ in range(3)]
    assert one.epoch == 3
    assert orders[0] != orders[1] != orders[2] != orders[0]
    one.set_epoch(1)
    assert [batch.id.tolist() for batch in one] == orders[1]


def test_a_loop_that_was_left_early_starts_again(shards: ShardSet) -> None:
    one = loader(shards)
    first = next(iter(one))
    assert one.state_dict()["offset"] == 5
    assert torch.equal(next(iter(one)).id, first.id)
    one.set_epoch(one.epoch)
    assert torch.equal(next(iter(one)).id, first.id)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loop_that_goes_on_after_another_was_begun_is_refused(shards: ShardSet, num_workers: int) -> None:
    """It would take the other's batches from the workers, and move the position that the other has reached."""
    one = loader(shards, num_workers=num_workers)
    left, rest = iter(one), loader(shards)
    next(left)
    begun = iter(one)
    first = next(begun)
    with pytest.raises(InputError, match="after another one over the same loader was started. Make a loader for each"):
        next(left)
    assert one.state_dict()["offset"] == 5
    assert equal([first, *begun], list(rest)) and one.epoch == 1


def test_iterators_that_are_made_and_not_used_cost_a_resumed_run_nothing(shards: ShardSet) -> None:
    one = loader(shards)
    expected = list(loader(shards))[3:]
    one.load_state_dict({**one.state_dict(), "offset": 15})
    iter(one)
    one.set_epoch(0)
    assert len(one) == 5
    assert equal(list(one), expected)


def test_evaluation_keeps_the_order_and_asks_for_no_chance(shards: ShardSet) -> None:
    one = loader(shards, (Pixels(8), ColumnRows("targets")), shuffle=False)
    first, second = list(one), list(one)
    assert torch.cat([batch.id for batch in first])[:NUM].tolist() == list(range(NUM))
    assert equal(first, second)
    assert (torch.cat([batch.target for batch in first])[:, 1] == 0).all(), "the main text's row"


def test_the_text_changes_from_epoch_to_epoch_and_is_the_same_as_caption_and_as_row(shards: ShardSet) -> None:
    rows, captions = loader(shards, shuffle=True), loader(shards, (ColumnRows("features"), Captions()))
    chosen = []
    for _ in range(6):
        for row_batch, caption_batch in zip(rows, captions, strict=True):
            known = row_batch.id >= 0
            told = [f"text {int(j)} of {int(i)}" for i, j in row_batch.target[known].tolist()]
            assert told == caption_batch.target[: len(told)] and set(caption_batch.target[len(told) :]) <= {""}
            chosen += [int(j) for i, j in row_batch.target[known].tolist() if i == 2]  # which has three texts
    assert len(chosen) == 6 and len(set(chosen)) > 1


def test_a_bad_sample_keeps_its_place_and_shifts_nothing(shards: ShardSet) -> None:
    one = loader(shards, (Pixels(8), ColumnRows("targets")), shuffle=False)
    batches = list(one)
    ids, valid = torch.cat([batch.id for batch in batches]), torch.cat([batch.valid for batch in batches])
    images, texts = torch.cat([batch.image for batch in batches]), torch.cat([batch.target for batch in batches])
    assert torch.equal(ids[~valid], torch.tensor([NOT_A_PICTURE, -1, -1]))
    assert (images[NOT_A_PICTURE] == 0).all() and images.dtype == torch.uint8
    assert texts[:NUM, 0].tolist() == list(range(NUM))
    without = PairLoader(shards, np.delete(np.arange(NUM), NOT_A_PICTURE), Pixels(8), ColumnRows("targets"), 5, 0, shuffle=False)
    assert torch.equal(torch.cat([batch.image for batch in without])[:22], images[:NUM][ids[:NUM] != NOT_A_PICTURE])


def test_a_row_that_is_not_a_number_is_invalid_and_zero(shards: ShardSet) -> None:
    batches = list(loader(shards, shuffle=False))
    images, valid = torch.cat([batch.image for batch in batches]), torch.cat([batch.valid for batch in batches])
    assert (~valid).nonzero().flatten().tolist() == [NOT_A_NUMBER, NUM, NUM + 1]
    assert torch.isfinite(images).all()  # 0 * NaN would be NaN in a tower's gradient, mask or not


@pytest.mark.parametrize("sides", [PICTURES, (ColumnRows("features"), Captions())])
def test_a_tar_that_was_cut_since_costs_its_pairs_behind_the_cut(shards: ShardSet, sides: tuple[Side, Side], tmp_path: Path) -> None:
    copy = ShardSet(shutil.copytree(shards.path, tmp_path / "cut"))
    rows = copy.rows(copy.shards[1])  # ids 9 to 17
    os.truncate(copy.path / "000001.tar", rows[5].image_offset + 3)
    ledger = Ledger(tmp_path / "bad.csv")
    read = PairLoader(copy, np.arange(9, 17), *sides, 4, 0, ledger=ledger)
    batches, wholes = list(read), list(PairLoader(shards, np.arange(9, 17), *sides, 4, 0))
    for batch, whole in zip(batches, wholes, strict=True):
        assert torch.equal(batch.id, whole.id) and torch.equal(batch.valid, whole.valid & (batch.id < 14))
        assert torch.equal(batch.image[batch.valid], whole.image[batch.valid])
        kept = [(one, other) for one, other, valid in zip(batch.target, whole.target, batch.valid, strict=True) if valid]
        assert all(one == other for one, other in kept)
    told = {(bad.where, bad.key) for bad in ledger.entries}
    assert told == {("cut/000001", copy.key(id)) for id in range(14, 17)} and ledger.num_good == 5
    assert all("is beyond the end of the tar" in bad.reason for bad in ledger.entries)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_ledger_names_a_bad_pair_once_over_epochs(shards: ShardSet, tmp_path: Path, num_workers: int) -> None:
    ledger = Ledger(tmp_path / "bad.csv")
    one = loader(shards, (Pixels(8), ColumnRows("features")), ledger=ledger, num_workers=num_workers)
    for _ in range(3):
        list(one)
    assert ledger.num_good == NUM - 2
    assert sorted(bad.key for bad in ledger.entries) == sorted(shards.key(id) for id in (NOT_A_PICTURE, NOT_A_NUMBER))
    reasons = {bad.key: bad.reason for bad in ledger.entries}
    assert "not an image" in reasons[shards.key(NOT_A_PICTURE)]
    assert reasons[shards.key(NOT_A_NUMBER)] == "its row of column features is not finite"


def test_dropping_the_tail_leaves_out_less_than_a_batch_and_pads_nothing(shards: ShardSet) -> None:
    ranks = [loader(shards, batch_size=5, drop_tail=True, rank=rank, world_size=2) for rank in range(2)]
    seen = [batch.id for rank in ranks for batch in rank]
    assert [len(rank) for rank in ranks] == [2, 2]
    assert len(set(torch.cat(seen).tolist())) == 20 and (torch.cat(seen) >= 0).all()
    with pytest.raises(InputError, match="drop_tail=True leaves no batch: 23 pairs are fewer than batch_size 24 x 1 ranks"):
        loader(shards, batch_size=24, drop_tail=True)


def test_a_shuffled_side_gives_every_row_once_and_never_its_own(shards: ShardSet) -> None:
    part = np.arange(3, NUM)
    for seed in range(5):
        one = PairLoader(shards, part, ColumnRows("features"), Shuffled(ColumnRows("targets"), seed), 4, 0)
        batches = [*one, *one]
        ids = torch.cat([batch.id for batch in batches])
        texts = torch.cat([batch.target for batch in batches])[ids >= 0][:, 0].long()
        ids = ids[ids >= 0]
        assert (ids != texts).all()
        dealt = {(int(id), int(text)) for id, text in zip(ids, texts, strict=True)}
        assert len(dealt) == len(part), "both epochs deal the same rows"
        assert {text for _, text in dealt} == set(part.tolist())


def test_a_checkpoint_of_another_order_is_refused(shards: ShardSet) -> None:
    one = loader(shards)
    state = {**one.state_dict(), "offset": 10}
    with pytest.raises(InputError, match="seed=0 and this one has 1"):
        loader(shards, seed=1).load_state_dict(state)
    with pytest.raises(InputError, match=r"had the order FullShuffle\(\) and this one has BlockShuffle\(shards=2, lanes=8\)"):
        loader(shards, order=BlockShuffle(shards=2)).load_state_dict(state)
    with pytest.raises(InputError, match="other pairs than these 22"):
        PairLoader(shards, np.arange(22), *COLUMNS, 5, 0).load_state_dict(state)
    with pytest.raises(InputError, match=r"a global batch of 5, and this run has 4 x 2 ranks = 8. Choose batch_size x ranks = 5"):
        loader(shards, batch_size=4, world_size=2).load_state_dict(state)
    loader(shards, batch_size=4, world_size=2).load_state_dict({**state, "offset": 0})  # between epochs any batch will do


def test_settings_that_make_no_sense_are_refused(shards: ShardSet) -> None:
    with pytest.raises(InputError, match="batch_size=0"):
        loader(shards, batch_size=0)
    with pytest.raises(InputError, match="rank=2 is not one of 2 ranks"):
        loader(shards, rank=2, world_size=2)
    with pytest.raises(InputError, match="columns .*lda"):
        loader(shards, (ColumnRows("lda"), ColumnRows("targets")))
    with pytest.raises(InputError, match="scale"):
        Pixels(scale=(0.9, 0.1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to pin for")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_page_locked_batches_are_refused_where_there_is_no_gpu(shards: ShardSet, num_workers: int) -> None:
    with pytest.raises(InputError, match="pin=True: .*torch finds no GPU here"):
        loader(shards, PICTURES, pin=True, num_workers=num_workers)


def one_ahead(batches: PairLoader, work: Callable[[Batch], Any]) -> Iterator[Any]:
    """As batches are pinned."""
    return map_in_threads(work, batches, num_threads=1, ahead=2)


def running(others: Iterable[threading.Thread] = ()) -> set[threading.Thread]:
    """The threads of pools, without `others`: those that ran before, of whatever came earlier in this process."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")} - set(others)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_buffers_of_workers_hold_their_batches_until_a_slow_copy_ahead_is_made(shards: ShardSet, num_workers: int) -> None:
    def copy(batch: Batch) -> Batch:
        time.sleep(0.02)  # workers are done with all they may prepare long before
        return Batch(*(part.clone() if isinstance(part, torch.Tensor) else part for part in batch))

    one, other = (loader(shards, PICTURES, batch_size=1, num_workers=num) for num in (num_workers, 0))
    for _ in range(2):
        assert equal(list(one_ahead(one, copy)), list(other))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("taken", [iter, lambda batches: one_ahead(batches, lambda batch: batch)], ids=["as it comes", "one ahead"])
def test_a_missing_tar_is_reported_and_once_it_is_back_the_same_loader_continues(
    shards: ShardSet, tmp_path: Path, num_workers: int, taken: Callable[[PairLoader], Iterator[Batch]]
) -> None:
    path = Path(shutil.copytree(shards.path, tmp_path / "set"))
    tar, away = path / "000001.tar", path / "away"
    one = loader(ShardSet(path), PICTURES, num_workers=num_workers)
    tar.rename(away)
    before = running()
    with pytest.raises(
        InputError, match=f"^{tar}: the shard is missing; the manifest in {path} lists it. Restore it, or index the set again$"
    ):
        list(taken(one))
    assert not running(before)
    away.rename(tar)
    assert equal(list(taken(one)), list(loader(shards, PICTURES)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loop_over_results_that_is_left_early_leaves_no_thread(shards: ShardSet, num_workers: int) -> None:
    one, before = loader(shards, PICTURES, num_workers=num_workers), running()
    for _ in one_ahead(one, lambda batch: batch.id):
        assert running(before)
        break
    assert not running(before)
    assert equal(list(one), list(loader(shards, PICTURES))), "the epoch that was left starts again"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a GPU")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_pinned_batches_are_page_locked_and_hold_the_same(shards: ShardSet, num_workers: int) -> None:
    pinned = list(loader(shards, (Pixels(8), Captions()), pin=True, num_workers=num_workers))
    assert all(batch.image.is_pinned() and batch.id.is_pinned() and batch.valid.is_pinned() for batch in pinned)
    assert equal([Batch(*batch) for batch in pinned], list(loader(shards, (Pixels(8), Captions()))))
