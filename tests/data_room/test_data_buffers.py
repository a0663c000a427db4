"""Buffers that workers write into: what is held stays as it is, and what nobody holds is used again."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multimodal.data import Captions, InPlace, PairLoader, Pixels, Reader, Shuffled, Side
from multimodal.data.buffers import Buffers
from multimodal.data.sides import open_side
from multimodal.pairs import Pair
from multimodal.shards import JoinedShards, ShardSet, ShardWriter


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """14 pictures of noise."""
    path, rng = tmp_path_factory.mktemp("buffers") / "set", np.random.default_rng(0)
    with ShardWriter(path, pairs_per_shard=8) as writer:
        for number in range(14):
            encoded = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)).save(encoded, "PNG")
            writer.write(Pair(f"{number}.png", encoded.getvalue(), "png", (f"text {number}",), str(number)))
    return ShardSet(path)


def rows(memory: np.ndarray) -> np.ndarray:
    """As a reader of rows of 2 x 3 bytes sees its memory."""
    return memory.reshape(-1, 2, 3).transpose(0, 2, 1)


@given(st.lists(st.integers(0, 5), max_size=40))
def test_what_is_held_is_never_written_to_and_what_is_not_is_used_again(moves: list[int]) -> None:
    """Each move lends one more buffer (0 to 2), or lets go of one of those held."""
    buffers, held = Buffers(num=3, num_bytes=12), []
    for step, move in enumerate(moves):
        if move < 3:
            number = buffers.take()
            assert (number is None) == (len(held) == 3)
            if number is not None:
                buffers.memory(number)[:] = step
                held.append((step, torch.from_numpy(buffers.lend(number, rows))[:1]))  # a part of it holds the whole
        elif held:
            held.pop(move % len(held))
        assert all((part == made).all() for made, part in held)


def test_what_was_taken_for_a_step_that_was_given_up_is_free_again() -> None:
    buffers = Buffers(num=2, num_bytes=6)
    kept = buffers.lend(buffers.take(), rows)
    assert buffers.take() is not None and buffers.take() is None
    buffers.reclaim()
    assert buffers.take() is not None and buffers.take() is None
    del kept
    assert buffers.take() is not None


def fill(buffers: Buffers, number: int) -> None:
    buffers.memory(number)[:] = number


@pytest.mark.parametrize("start", [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()])
def test_what_a_worker_writes_is_read_here_however_it_was_started(start: str) -> None:
    buffers = Buffers(num=3, num_bytes=5)
    worker = multiprocessing.get_context(start).Process(target=fill, args=(buffers, 2))
    worker.start()
    worker.join()
    assert [buffers.memory(number).tolist() for number in range(3)] == [[0] * 5, [0] * 5, [2] * 5]


def with_workers(shards: ShardSet, num_workers: int) -> PairLoader:
    return PairLoader(shards, np.arange(len(shards)), Pixels(8), Captions(), batch_size=1, seed=0, num_workers=num_workers)


@pytest.mark.parametrize("keep", [lambda batch: batch.image, lambda batch: batch.image[:, 1:], lambda batch: batch.image.numpy()[0]])
def test_pictures_that_a_loop_keeps_are_not_overwritten_by_later_ones(shards: ShardSet, keep: Callable[..., torch.Tensor]) -> None:
    """More of them than there are buffers."""
    loader, expected = with_workers(shards, 1), with_workers(shards, 0)
    kept = [keep(batch) for _ in range(2) for batch in loader]
    for ours, theirs in zip(kept, (batch for _ in range(2) for batch in expected), strict=True):
        assert np.array_equal(ours, keep(theirs))


def test_epochs_that_are_left_early_change_nothing_in_the_next(shards: ShardSet) -> None:
    loader = with_workers(shards, 2)
    for _ in range(8):
        next(iter(loader))
    read = [(batch.id.tolist(), batch.image.tolist(), batch.target) for batch in loader]
    assert read == [(batch.id.tolist(), batch.image.tolist(), batch.target) for batch in with_workers(shards, 0)]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("side", [Pixels(8), Shuffled(Pixels(8))], ids=["as they are", "shuffled"])
def test_pictures_lie_in_memory_alike_whether_they_came_by_a_buffer_or_by_pipe(shards: ShardSet, side: Side, num_workers: int) -> None:
    """Convolutions sum in another order where the layout is another; more are kept than there are buffers."""
    loader = PairLoader(shards, np.arange(len(shards)), side, Captions(), batch_size=2, seed=0, num_workers=num_workers)
    kept = [batch.image for _ in range(2) for batch in loader]
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in kept)


def test_sides_made_of_pictures_are_written_in_place_too(shards: ShardSet) -> None:
    """So that their pictures come by buffers: each picture is the one that it is by its own side."""
    joined, ids = JoinedShards({"a": shards, "b": shards}), np.array([20, 3, 14, 0, 27])
    words = np.arange(5, dtype=np.uint64)
    single = open_side(Pixels(8), shards, np.arange(14))
    reader, shuffled = open_side(Pixels(8), joined, np.arange(28)), open_side(Shuffled(Pixels(8)), shards, np.arange(14))
    assert isinstance(reader, InPlace) and isinstance(shuffled, InPlace)
    memory = np.full(5 * reader.row_bytes, 255, np.uint8)
    read = reader.read(ids, words, reader.rows_in(memory))
    assert np.shares_memory(read.values, memory) and np.array_equal(read.values, single(ids % 14, words).values)
    partners = np.array([next(other for other in range(14) if alike(shuffled, id, single, other)) for id in range(14)])
    assert sorted(partners) == list(range(14)) and (partners != np.arange(14)).all()


def test_kept_pictures_are_whole_in_training_too_and_read_once(shards: ShardSet) -> None:
    ids, words = np.arange(14), np.arange(14, dtype=np.uint64)
    kept, plain = open_side(Pixels(8, kept=True), shards, ids), open_side(Pixels(8), shards, ids)
    first, expected = kept(ids, words), plain(ids, None)
    assert np.array_equal(first.values, expected.values) and np.array_equal(first.ok, expected.ok)
    for tar in shards.path.glob("*.tar"):
        tar.rename(tar.with_suffix(".gone"))
    again = kept(ids[::-1][expected.ok[::-1]], words[expected.ok])
    assert np.array_equal(again.values, expected.values[::-1][expected.ok[::-1]])


def alike(one: Reader, id: int, other: Reader, other_id: int) -> bool:
    return np.array_equal(one(np.array([id]), None).values, other(np.array([other_id]), None).values)
