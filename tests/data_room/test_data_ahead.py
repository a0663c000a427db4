"""A set at a URL trains as the folder does, and its tars come before they are asked for, in the order of the epoch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal.data import BlockShuffle, Captions, FullShuffle, PairLoader, Reader, Rows, Shuffle, Side
from multimodal.data.ahead import Ahead
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import RemoteShards, ShardSet, ShardWriter

NUM_SHARDS, PER_SHARD = 8, 5


@pytest.fixture
def local(tmp_path: Path) -> ShardSet:
    with ShardWriter(tmp_path / "set", pairs_per_shard=PER_SHARD) as writer:
        for i in range(NUM_SHARDS * PER_SHARD):
            writer.write(Pair(f"{i:02}.png", b"\x89PNG\r\n\x1a\n" + bytes(500), "png", (f"text {i}",), f"group {i:02}"))
    return ShardSet(tmp_path / "set")


def remote(local: ShardSet, num_shards_cached: int = NUM_SHARDS) -> ShardSet:
    """The same set by its URL; all its tars are of one size."""
    size_bytes = local.shards[0].size_bytes
    return RemoteShards(
        local.path.as_uri(), local.path.parent / "cache", cache_bytes=num_shards_cached * size_bytes, tries=2, wait_s=0.01
    ).open()


def fetched(shards: ShardSet) -> list[int]:
    """The numbers of the shards in the cache."""
    return [number for number, shard in enumerate(shards.shards) if (shards.path.parent / f"{shard.fingerprint}.tar").exists()]


def fetchers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "fetch ahead"}


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.01)


@pytest.mark.parametrize("order", [FullShuffle(), BlockShuffle(shards=2, lanes=1)], ids=repr)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_set_at_a_url_are_those_of_the_folder(local: ShardSet, order: Shuffle, num_workers: int) -> None:
    ids = np.arange(NUM_SHARDS * PER_SHARD)
    here, there = (
        PairLoader(shards, ids, Pixel(), Captions(), batch_size=6, seed=0, num_workers=num_workers, order=order)
        for shards in (local, remote(local, num_shards_cached=3))
    )
    for _ in range(2):
        pairs = list(zip(here, there, strict=True))
        assert all(torch.equal(one.id, other.id) and one.target == other.target for one, other in pairs)


def test_tars_of_coming_steps_are_there_before_they_are_read_as_far_as_the_window_holds(local: ShardSet) -> None:
    shards = remote(local)
    assert shards.remote is not None
    steps = [np.array([0, 1]), np.array([35, 2]), np.array([20]), np.array([11])]
    with Ahead(shards, shards.remote, steps, window_bytes=2 * local.shards[0].size_bytes) as ahead:
        until(lambda: fetched(shards) == [0, 7])
        ahead.reached(0)  # shard 0 is still wanted by step 1
        time.sleep(0.05)
        assert fetched(shards) == [0, 7]
        ahead.reached(1)
        until(lambda: fetched(shards) == [0, 2, 4, 7])


def test_a_loader_fetches_the_epochs_next_tars_while_a_batch_is_used(local: ShardSet) -> None:
    shards = remote(local)
    order = BlockShuffle(shards=1, lanes=1)
    loader = PairLoader(shards, np.arange(len(shards)), Pixel(), Captions(), batch_size=PER_SHARD, seed=0, order=order)
    before, batches = fetchers(), iter(loader)
    first = next(batches)
    assert fetchers() - before
    coming = order.open(0, np.full(NUM_SHARDS, PER_SHARD)).ids(0, 0, 4 * PER_SHARD) // PER_SHARD
    assert set(shards.shard_numbers(first.id.numpy()).tolist()) == {coming[0]}
    until(lambda: set(fetched(shards)) >= set(coming.tolist()))  # half the cache: four tars
    batches.close()
    until(lambda: fetchers() <= before)


def test_a_tar_that_cannot_be_fetched_ahead_ends_the_epoch_with_the_reason(local: ShardSet) -> None:
    shards = remote(local)
    assert shards.remote is not None
    (local.path / "000003.tar").unlink()
    before = fetchers()
    with Ahead(shards, shards.remote, [np.array([15])], window_bytes=10**6) as ahead:
        until(lambda: fetchers() <= before)
        with pytest.raises(InputError, match="000003.tar: is not there"):
            ahead.reached(0)


class Pixel(Side):
    """A side that reads the tar and decodes nothing."""

    def open(self, shards: ShardSet, ids: np.ndarray) -> Reader:
        return _Pixel(shards)


class _Pixel:
    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards

    def __call__(self, ids: np.ndarray, words: np.ndarray | None) -> Rows:
        values = np.array([[len(self.shards.image_bytes(id))] for id in ids.tolist()], np.float32).reshape(-1, 1)
        return Rows(values, np.ones(len(ids), bool))
