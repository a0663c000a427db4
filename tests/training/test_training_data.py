from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.data import Captions, ColumnRows, PairLoader, Shuffled
from multimodal.data.conformance import MakeLoader, assert_exact_epoch, assert_exact_resume
from multimodal.errors import InputError
from multimodal.shards import Column, ShardSet, Split, write_leave_out
from multimodal.training.conformance import loaders_of
from multimodal.training.datamodule import PairData, cut, rows_per_rank
from multimodal.training.door import build


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_validation_is_cut_from_train_by_group_and_never_from_test(pairs: Path, seed: int, share: float) -> None:
    shards, split = ShardSet(pairs), Split(seed=seed, held_out=0.3)
    train, validation = cut(shards, split, share)
    assert sorted([*train, *validation]) == list(split.ids(shards, "train"))
    assert not {shards.groups[id] for id in train} & {shards.groups[id] for id in validation}
    assert share or not len(validation)


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_of_train_are_nested_whole_groups_and_leave_validation_as_it_is(pairs: Path, seed: int) -> None:
    shards, split = ShardSet(pairs), Split(seed=seed, held_out=0.3)
    cuts = [cut(shards, split, 0.2, share) for share in (0.25, 0.5, 1.0)]
    whole, validation = cut(shards, split, 0.2)
    for (smaller, _), (larger, _) in zip(cuts, cuts[1:], strict=False):
        assert set(smaller) < set(larger)
        left_out = {shards.groups[id] for id in set(larger) - set(smaller)}
        assert not left_out & {shards.groups[id] for id in smaller}
    assert all(np.array_equal(validates, validation) for _, validates in cuts)
    assert np.array_equal(cuts[-1][0], whole)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_share_of_train_that_is_none_is_refused(pairs: Path, share: float) -> None:
    with pytest.raises(InputError, match="data.train_share"):
        PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), train_share=share)


def test_who_validates_has_nothing_to_do_with_who_is_held_out(pairs: Path) -> None:
    groups = [f"group {number}" for number in range(4000)]
    held_out = np.array([Split(seed=0, held_out=0.5).part_of(group) == "test" for group in groups])
    validates = np.array([Split(seed=-1, held_out=0.5).part_of(group) == "test" for group in groups])
    assert abs(np.corrcoef(held_out, validates)[0, 1]) < 4 / len(groups) ** 0.5  # four standard errors of no correlation


@given(batch_size=st.integers(1, 500), world_size=st.integers(1, 16))
def test_a_batch_divides_by_the_ranks_or_the_nearest_sizes_that_do_are_named(batch_size: int, world_size: int) -> None:
    if batch_size % world_size == 0:
        assert rows_per_rank(batch_size, world_size) * world_size == batch_size
        return
    with pytest.raises(InputError, match=f"data.batch_size={batch_size} does not divide by {world_size} ranks; ") as told:
        rows_per_rank(batch_size, world_size)
    sizes = [int(word) for word in str(told.value).split("; ")[1].split() if word.isdigit()]
    assert sizes and all(size % world_size == 0 and abs(size - batch_size) < world_size for size in sizes)


def test_the_example_of_thirty_pairs_on_eight_ranks_reads_as_promised() -> None:
    with pytest.raises(InputError, match="^data.batch_size=30 does not divide by 8 ranks; 24 and 32 do$"):
        rows_per_rank(30, 8)


def test_a_run_is_made_from_its_shards_and_the_columns_of_both_sides(pairs: Path) -> None:
    data = PairData(pairs, ColumnRows("features"), Shuffled(ColumnRows("topics")), Split())
    shards = ShardSet(pairs)
    columns = {f"column {name}": Column.of(shards, name).manifest.fingerprint for name in ("features", "topics")}
    assert data.made_from() == {"shards": shards.fingerprint, **columns}
    assert PairData(pairs, ColumnRows("features"), Captions(), Split()).made_from().keys() == {"shards", "column features"}


def test_where_everything_is_held_out_the_message_says_so(pairs: Path) -> None:
    with pytest.raises(InputError, match="none of its 121 pairs is left to train on"):
        PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(held_out=1.0)).setup("fit")


def test_a_validation_share_too_small_to_hold_a_pair_is_refused(pairs: Path) -> None:
    with pytest.raises(InputError, match="training pairs is left to validate on"):
        PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), validation_share=1e-9).setup("fit")


def test_ranks_share_the_pairs_of_a_preflight_among_them(pairs: Path) -> None:
    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split())
    data.setup("fit")
    parts = [data.some_pairs(16, rank, 3)[0] for rank in range(3)]
    ids = np.concatenate([part.id[part.valid].numpy() for part in parts])
    assert len(ids) == len(set(ids.tolist())) == 16
    assert set(ids.tolist()) <= set(data.train_ids.tolist())
    assert sorted(data.some_pairs(16)[0].id.tolist()) == sorted(ids.tolist())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_data_module_gives_every_pair_once_and_goes_on_exactly_on_other_ranks(pairs: Path, world_size: int) -> None:
    def data(batch_size: int) -> PairData:
        return PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), batch_size=batch_size)

    ids, _ = cut(ShardSet(pairs), Split(), validation_share=0.1)
    for epoch in (0, 3):
        assert_exact_epoch(loaders_of(data), ids, 18 // world_size, world_size, epoch)
    for world_size_after in (1, 2, 3):
        assert_exact_resume(loaders_of(data), 18 // world_size, world_size, world_size_after)


def test_a_recipe_is_checked_as_it_is_written(arguments: Callable[..., list[str]]) -> None:
    def data(batch_size: int) -> PairData:
        return build(arguments("none", "--data.batch_size", str(batch_size)))[1]

    one = data(12)
    one.setup("fit")
    assert_exact_epoch(loaders_of(data), one.train_ids, batch_size=6, world_size=2)


class OfOneRank(PairData):
    """A data module that takes no notice of ranks."""

    def train_dataloader(self) -> PairLoader:
        return PairLoader(self.shards, self.train_ids, self.image, self.target, self.batch_size // self.trainer.world_size, self.seed)


class Forgetful(PairData):
    """A data module whose loader begins anew after a resume."""

    def state_dict(self) -> dict[str, object]:
        return {}

    def train_dataloader(self) -> PairLoader:
        loader = super().train_dataloader()
        loader.load_state_dict = lambda state: loader.set_epoch(state["epoch"])
        return loader


def test_data_modules_that_repeat_or_forget_are_found_out(pairs: Path) -> None:
    def of(kind: type[PairData]) -> MakeLoader:
        return loaders_of(lambda batch_size: kind(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), batch_size=batch_size))

    ids, _ = cut(ShardSet(pairs), Split(), validation_share=0.1)
    with pytest.raises(AssertionError, match=f"rows seen for {len(ids)} pairs"):
        assert_exact_epoch(of(OfOneRank), ids, batch_size=8, world_size=2)
    assert_exact_epoch(of(Forgetful), ids, batch_size=8, world_size=2)
    with pytest.raises(AssertionError, match="after 1 steps"):
        assert_exact_resume(of(Forgetful), batch_size=8, world_size=2)


def test_pairs_of_a_list_are_neither_trained_on_nor_validated_on_and_the_others_stay_where_they_are(pairs: Path, tmp_path: Path) -> None:
    shards, split = ShardSet(pairs), Split(held_out=0.3)
    train, validation = cut(shards, split, 0.2)
    listed = [*train[::3].tolist(), *validation[:2].tolist()]
    write_leave_out(tmp_path / "list.json", shards, listed, "for a test")
    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), split, validation_share=0.2, leave_out=tmp_path / "list.json")
    data.setup("fit")
    assert data.train_ids.tolist() == [id for id in train.tolist() if id not in listed]
    assert data.validation_ids.tolist() == validation[2:].tolist()


def test_a_run_is_made_from_its_list_of_pairs_to_leave_out_too(pairs: Path, tmp_path: Path) -> None:
    told = []
    for ids in ([3], [4]):
        write_leave_out(tmp_path / "list.json", ShardSet(pairs), ids, "for a test")
        told.append(PairData(pairs, ColumnRows("features"), Captions(), Split(), leave_out=tmp_path / "list.json").made_from())
    assert told[0].keys() == {"shards", "column features", "leave_out"}
    assert told[0]["leave_out"] != told[1]["leave_out"]
