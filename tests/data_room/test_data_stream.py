"""Streamed tars: equal numbers of full batches on all ranks, the pairs that belong together, and what is broken is named."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.data import Captions, ColumnRows, Pixels, Shuffled, Stream, StreamLoader
from multimodal.data.stream import PLACE_BITS, short_names
from multimodal.errors import InputError
from multimodal.pairs import Batch
from multimodal.shards import Ledger

pytest.importorskip("webdataset", reason="streams need the extra `train`")

NUM_TARS, PER_TAR, SIZE = 4, 12, 8


def picture(number: int) -> bytes:
    """All pixels are `number`."""
    encoded = io.BytesIO()
    Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four tars of twelve pairs: picture n shows the grey n, and its text is "n"."""
    folder = tmp_path_factory.mktemp("tars")
    numbers = np.arange(NUM_TARS * PER_TAR).reshape(NUM_TARS, PER_TAR).tolist()
    return [
        write_tar(folder / f"{tar}.tar", [(f"{n}.{e}", c) for n in of_tar for e, c in (("png", picture(n)), ("txt", f"{n}".encode()))])
        for tar, of_tar in enumerate(numbers)
    ]


def loader(
    tars: Sequence[str], num_pairs: int = 40, batch_size: int = 5, buffer: int = 6, resample: bool = True, **more: Any
) -> StreamLoader:
    return StreamLoader(tars, Stream(num_pairs, resample, buffer), Pixels(SIZE), Captions(), batch_size, seed=0, **more)


def numbers(batches: Sequence[Batch]) -> list[int]:
    return [int(text) for batch in batches for text in batch.target]


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a.id, b.id) and torch.equal(a.image, b.image) and list(a.target) == list(b.target) for a, b in pairs)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_full_and_their_pictures_and_texts_belong_together(tars: list[str], num_workers: int) -> None:
    batches = list(loader(tars, num_pairs=37, num_workers=num_workers))
    assert len(batches) == 8 and {len(batch.id) for batch in batches} == {5}
    for batch in batches:
        assert batch.valid.all() and batch.image.shape == (5, 3, SIZE, SIZE) and batch.image.dtype == torch.uint8
        shown = [int(text) for text in batch.target]
        assert batch.image[:, 0, 0, 0].tolist() == shown
        assert [id >> PLACE_BITS for id in batch.id.tolist()] == [number // PER_TAR for number in shown]
        assert [id % 2**PLACE_BITS for id in batch.id.tolist()] == [number % PER_TAR for number in shown]


def test_ranks_and_workers_take_as_many_steps_and_read_different_pairs(tars: list[str]) -> None:
    ranks = [list(loader(tars, num_workers=2, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(batches) for batches in ranks] == [4, 4]
    assert numbers(ranks[0]) != numbers(ranks[1])
    assert numbers(ranks[0][0::2]) != numbers(ranks[0][1::2])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_loop_gives_the_same_batches_and_the_next_epoch_others(tars: list[str], num_workers: int) -> None:
    first, again = loader(tars, num_workers=num_workers), loader(tars, num_workers=num_workers)
    epochs = [list(first), list(first)]
    assert same(epochs[0], list(again)) and same(epochs[1], list(again))
    assert numbers(epochs[0]) != numbers(epochs[1])
    again.set_epoch(0)
    assert len(list(islice(again, 2))) == 2
    again.set_epoch(1)
    assert same(epochs[1], list(again)), "a loop that was left early leaves nothing behind"


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (1, 2), (2, 2)])
def test_without_resampling_every_tar_is_read_once_before_any_comes_again(tars: list[str], world_size: int, num_workers: int) -> None:
    share = {"num_pairs": 2 * NUM_TARS * PER_TAR, "batch_size": 2, "buffer": 1, "resample": False}
    read: list[int] = []
    for rank in range(world_size):
        read += numbers(list(loader(tars, num_workers=num_workers, rank=rank, world_size=world_size, **share)))  # type: ignore[arg-type]
    assert Counter(read) == dict.fromkeys(range(NUM_TARS * PER_TAR), 2)


def test_the_buffer_mixes_tars(tars: list[str]) -> None:
    one, many = (numbers(list(loader(tars, num_pairs=48, batch_size=12, buffer=buffer, resample=False))) for buffer in (1, 48))
    tars_in = [[len({number // PER_TAR for number in read[start : start + 12]}) for start in range(0, 48, 12)] for read in (one, many)]
    assert tars_in[0] == [1, 1, 1, 1] and min(tars_in[1]) > 1


def test_only_wanted_pairs_are_in_batches(tars: list[str]) -> None:
    read = numbers(list(loader(tars, wanted=lambda group, split: int(group) % 3 == 0)))
    assert set(read) == {number for number in range(48) if number % 3 == 0 and number in read} and len(read) == 40


def test_it_resumes_an_epoch_with_as_many_steps_as_were_left_and_says_whether_they_are_the_same(tars: list[str]) -> None:
    first = loader(tars)
    assert len(list(islice(first, 3))) == 3
    state = first.state_dict()
    resumed = loader(tars)
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == len(first) - 3 and not resumed.is_exact
    twice = loader(tars)
    twice.load_state_dict(state)
    assert same(rest, list(twice))
    at_the_end, other = loader(tars), loader(tars)
    list(at_the_end)
    other.load_state_dict(at_the_end.state_dict())
    assert other.is_exact and other.epoch == 1 and same(list(other), list(at_the_end))
    elsewhere = loader(tars, batch_size=10, rank=0, world_size=2)
    with pytest.raises(InputError, match="from the middle of an epoch with a global batch of 5"):
        elsewhere.load_state_dict(state)


def test_what_is_broken_is_named_once_and_costs_itself(tmp_path: Path, tars: list[str]) -> None:
    odd = [("a.txt", b"no picture"), ("b.png", b"not a picture at all"), ("b.txt", b"t"), ("c.png", picture(3)), ("d.png", picture(1)[:40])]
    members = [*odd, ("d.txt", b"1"), ("e.png", picture(7)), ("e.txt", b"7")]
    broken = write_tar(tmp_path / "broken.tar", members)
    (tmp_path / "cut.tar").write_bytes(Path(tars[0]).read_bytes()[:2000])
    ledger = Ledger(tmp_path / "bad.csv")
    batches = list(loader([broken, str(tmp_path / "cut.tar"), tars[1]], ledger=ledger, num_pairs=200, resample=False))
    invalid = [text for batch in batches for text, ok in zip(batch.target, batch.valid.tolist(), strict=True) if not ok]
    assert set(invalid) == {"1"} and len(numbers(batches)) == 200
    found = sorted((bad.where.rpartition("/")[2], bad.key, bad.reason.split(":")[0].split(";")[0]) for bad in ledger.entries)
    assert [(where, key) for where, key, _ in found] == [
        ("broken.tar", "a"), ("broken.tar", "b"), ("broken.tar", "c"), ("broken.tar", "d"), ("cut.tar", ""),
    ]  # fmt: skip
    assert [reason for _, _, reason in found][0] == "has no picture" and found[2][2] == "has no text"
    assert ledger.num_good == 200 - len(invalid)


def test_tars_without_pairs_or_that_are_gone_end_the_loop_with_their_name(tmp_path: Path, tars: list[str]) -> None:
    empty = write_tar(tmp_path / "texts.tar", [("a.txt", b"x")])
    with pytest.raises(
        InputError, match="texts.tar: like 19 tars before it, it has no pair to train on, for example texts.tar a: has no pic"
    ):
        list(loader([empty]))
    with pytest.raises(InputError, match="it has no pair to train on: all are held out"):
        list(loader(tars, wanted=lambda group, split: False))
    for num_workers in (0, 1):
        with pytest.raises(InputError, match="gone.tar: cannot be read: No such file or directory"):
            list(loader([str(tmp_path / "gone.tar")], num_workers=num_workers))


def test_what_a_stream_cannot_do_is_refused(tars: list[str]) -> None:
    for text in (ColumnRows("words"), Shuffled(Captions())):
        with pytest.raises(InputError, match="data.target=.*cannot be used with streamed tars.*multimodal shards index PATTERN"):
            StreamLoader(tars, Stream(10), Pixels(8), text, 2, seed=0)
    with pytest.raises(InputError, match="data.stream.num_pairs is not set"):
        StreamLoader(tars, Stream(), Pixels(8), Captions(), 2, seed=0)
    with pytest.raises(InputError, match="stream: buffer=0 must be at least 1"):
        Stream(10, buffer=0)


def test_names_of_tars_are_as_short_as_they_can_be() -> None:
    assert short_names(["s3://b/c/0.tar", "s3://b/c/1.tar"]) == ["0.tar", "1.tar"]
    assert short_names(["/data/a/0.tar", "/data/b/0.tar"]) == ["a/0.tar", "b/0.tar"]
    assert short_names(["0.tar"]) == ["0.tar"]
