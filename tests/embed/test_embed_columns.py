"""Feature columns: what a row is, what a bad picture costs, and going on after a stop."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.data.decode import centre
from multimodal.embed.columns import embed
from multimodal.embed.pictures import as_batches, embed_pictures, pick_device
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures.decode import picture
from multimodal.shards.columns import Column, ColumnWriter
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import RemoteShards
from multimodal.shards.writer import ShardWriter
from multimodal.towers import NoWeights, Trunk

BAD = (5, 13)
NUM = 20


def encoded(number: int) -> bytes:
    if number in BAD:
        return b"not a picture"
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    with ShardWriter(tmp_path / "set", pairs_per_shard=7) as writer:
        for number in range(NUM):
            writer.write(Pair(f"{number}.png", encoded(number), "png", (f"text {number}",), f"group {number}"))
    return ShardSet(tmp_path / "set")


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return Trunk("test_efficientnet", NoWeights(1), size=32)


def by_hand(trunk: Trunk, number: int) -> np.ndarray:
    p = trunk.preprocessing
    with torch.inference_mode():
        return trunk(torch.from_numpy(centre(encoded(number), p.size, p.crop_share, "bicubic"))[None])[0].numpy()


@pytest.mark.parametrize(("batch_size", "num_threads"), [(1, 1), (3, 2), (64, 5)])
def test_a_row_is_the_trunks_feature_of_that_picture_whatever_the_batches_and_threads(
    shards: ShardSet, trunk: Trunk, batch_size: int, num_threads: int
) -> None:
    embed(shards.path, "tiny", trunk, batch_size=batch_size, num_threads=num_threads, max_bad_share=0.2, device="cpu")
    column = Column.of(shards, "tiny")
    assert (len(column), column.dim, column.unit) == (NUM, trunk.dim, "pair")
    for number in range(NUM):
        if number not in BAD:
            # float16 keeps 11 bits; another batch size adds up in another order
            np.testing.assert_allclose(column.rows(number)[0], by_hand(trunk, number), rtol=2e-3, atol=1e-4)


def test_a_set_at_a_url_has_the_same_rows(shards: ShardSet, trunk: Trunk, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs fsspec (the remote extra)")
    remote = RemoteShards(shards.path.as_uri(), tmp_path / "cache")
    for source in (shards.path, remote):
        embed(source, "tiny", trunk, batch_size=4, max_bad_share=0.2, device="cpu")
    here, there = (Column.of(source, "tiny").take(np.arange(NUM)) for source in (shards, remote.open()))
    assert np.array_equal(here, there, equal_nan=True)


def test_a_bad_picture_costs_its_own_row_and_is_named(shards: ShardSet, trunk: Trunk) -> None:
    folder = embed(shards.path, "tiny", trunk, max_bad_share=0.2, device="cpu")
    rows = Column.of(shards, "tiny").take(np.arange(NUM))
    assert tuple(np.flatnonzero(np.isnan(rows).all(axis=1))) == BAD
    assert np.isfinite(np.delete(rows, BAD, axis=0)).all()
    lines = (folder / "bad.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["000000", "000000005"], ["000001", "000000013"]]


def test_too_many_bad_pictures_fail_the_job_and_leave_no_finished_column(shards: ShardSet, trunk: Trunk) -> None:
    with pytest.raises(InputError, match="2 of 20 are bad"):
        embed(shards.path, "tiny", trunk, max_bad_share=0.05, device="cpu")
    with pytest.raises(InputError, match="was not finished"):
        Column.of(shards, "tiny")


def test_a_job_that_was_stopped_goes_on_and_gives_the_same_column_and_ledger(
    shards: ShardSet, trunk: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embed(shards.path, "whole", trunk, max_bad_share=0.2, device="cpu")
    write = ColumnWriter.write

    def stop_at_the_last(self: ColumnWriter, shard, rows, counts=None) -> None:  # type: ignore[no-untyped-def]
        if shard.name == "000002":
            raise KeyboardInterrupt
        write(self, shard, rows, counts)

    monkeypatch.setattr(ColumnWriter, "write", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        embed(shards.path, "stopped", trunk, max_bad_share=0.2, device="cpu")
    monkeypatch.undo()
    read: list[int] = []
    image_bytes = ShardSet.image_bytes
    monkeypatch.setattr(ShardSet, "image_bytes", lambda self, id: read.append(id) or image_bytes(self, id))
    stopped = embed(shards.path, "stopped", trunk, max_bad_share=0.2, device="cpu")
    assert sorted(read) == list(range(14, 20))  # the last shard alone
    for file in sorted(whole.iterdir()):
        assert (stopped / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_trunk_that_trains_makes_no_columns(shards: ShardSet) -> None:
    with pytest.raises(InputError, match="frozen"):
        embed(shards.path, "tiny", Trunk("test_efficientnet", NoWeights(), frozen=False, size=32), device="cpu")


def test_the_callers_thread_count_is_put_back(trunk: Trunk) -> None:
    before = torch.get_num_threads()
    batches = as_batches(np.arange(4), 2)
    results = list(embed_pictures(encoded, batches, trunk, trunk.preprocessing, num_threads=2, also=lambda decoded: decoded.image.size))
    assert torch.get_num_threads() == before
    assert [extra for result in results for extra in result.extras] == [picture(encoded(number)).size for number in range(4)]


def test_views_are_the_middle_and_then_crops_drawn_by_seed_view_and_id(shards: ShardSet, trunk: Trunk) -> None:
    settings = {"max_bad_share": 0.2, "device": "cpu"}
    one = Column(embed(shards.path, "one", trunk, **settings))
    three = Column(embed(shards.path, "three", trunk, views=3, seed=7, **settings))
    again = Column(embed(shards.path, "again", trunk, views=3, seed=7, batch_size=2, num_threads=1, **settings))
    assert (three.unit, three.num_rows) == ("view", 3 * NUM)
    for id in range(NUM):
        rows = three.rows(id).astype(np.float32)
        assert rows.shape == (3, trunk.dim)
        # float16, and sums in another order where batches differ
        np.testing.assert_allclose(rows[0], one.rows(id)[0], atol=1e-3)
        np.testing.assert_allclose(rows, again.rows(id), atol=1e-3)
        assert np.isnan(rows).all() if id in BAD else np.abs(rows[1] - rows[2]).max() > 2e-3


def test_fast_views_are_other_rows_of_nearly_the_same_pictures(shards: ShardSet, trunk: Trunk) -> None:
    settings = {"trunk": trunk, "views": 2, "max_bad_share": 0.2, "device": "cpu"}
    exact, fast = Column(embed(shards.path, "exact", **settings)), Column(embed(shards.path, "fast", exact=False, **settings))
    assert "exact" not in exact.manifest.config and fast.manifest.config["exact"] is False
    good = [id for id in range(NUM) if id not in BAD]
    ours, theirs = (np.stack([column.rows(id) for id in good]).astype(np.float32) for column in (fast, exact))
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], atol=1e-3)  # the middle is always exact
    apart = np.linalg.norm(theirs[:, 1] - theirs[:, 0], axis=1).mean()
    assert np.linalg.norm(ours[:, 1] - theirs[:, 1], axis=1).mean() < apart / 10


@pytest.mark.parametrize("name", ["cuda:97", "gpu", "meta:x"])
def test_a_device_that_this_machine_lacks_is_named_beside_those_it_has(name: str) -> None:
    with pytest.raises(InputError, match=rf"--device {name}: cannot be used here \(.+\)\. Available: cpu"):
        pick_device(name)
    assert pick_device("cpu") == torch.device("cpu")
