"""Stores made through an export: they equal it, whichever way the rows were made, and grow with their shards."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from multimodal.data.decode import Decoded
from multimodal.embed.columns import embed
from multimodal.embed.stores import THUMBNAIL_PX, index, thumbnail
from multimodal.errors import InputError
from multimodal.export.model import export, load_export
from multimodal.objectives import Cosine
from multimodal.pairs import Pair
from multimodal.search.query import search
from multimodal.search.store import Store
from multimodal.shards.columns import Column, ColumnWriter
from multimodal.shards.reader import ShardSet
from multimodal.shards.split import Split
from multimodal.shards.writer import ShardWriter, finish, write_shard
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace
from multimodal.towers import Head, NoWeights, Trunk

NUM, DIM, BAD = 23, 4, 7
WORDS = ("dog", "cat", "beach", "snow", "woman")


def encoded(number: int) -> bytes:
    if number == BAD:
        return b"not a picture"
    file = io.BytesIO()
    low = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(low).resize((180, 120), Image.Resampling.BICUBIC).save(file, "png")
    return file.getvalue()


def pair(number: int) -> Pair:
    texts, metadata = (f"{WORDS[number % 5]} {WORDS[number % 3]}", "more"), {"caption": "Snow. (credit: someone)"} if number == 4 else {}
    return Pair(f"{number}.png", encoded(number), "png", texts, f"group {number}", metadata=metadata)


def make_shards(path: Path) -> ShardSet:
    with ShardWriter(path, pairs_per_shard=8) as writer:
        for number in range(NUM):
            writer.write(pair(number))
    return ShardSet(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a feature column `tiny`, and an export of a run on it."""
    path = tmp_path_factory.mktemp("world")
    shards = make_shards(path / "set")
    vectors = np.random.default_rng(0).normal(size=(len(WORDS), DIM)).astype(np.float32)
    space = WordSpace(Normaliser(), Vocabulary(WORDS, np.ones(len(WORDS), np.int64), 10), vectors)
    space.save(path / "space")
    with ColumnWriter(shards, "words", DIM, "pair", "float32", {}, {"text-space": space.fingerprint}) as column:
        for shard in column.missing():
            column.write(shard, space.embed([shards.texts(id)[0] for id in shard.ids]))
    embed(path / "set", "tiny", Trunk("test_efficientnet", NoWeights(1), size=32), device="cpu")
    torch.manual_seed(0)
    head = Head(256, DIM, standardise=True).train()
    head(torch.from_numpy(np.nan_to_num(Column.of(shards, "tiny").take(np.arange(NUM)))))  # statistics that set pictures apart
    parts = {"image_tower": head, "text_side": nn.Identity(), "objective": Cosine()}
    state = {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}
    (path / "run" / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": state, "global_step": 1}, path / "run" / "checkpoints" / "best.ckpt")
    model = {
        "image_tower": {"class_path": "multimodal.towers.Head", "init_args": {"dim_in": 256, "dim_out": DIM, "standardise": True}},
        "text_side": {"class_path": "torch.nn.Identity"},
        "objective": {"class_path": "multimodal.objectives.Cosine"},
    }
    sides = {
        side: {"class_path": "multimodal.data.ColumnRows", "init_args": {"name": name}}
        for side, name in (("image", "tiny"), ("text", "words"))
    }
    (path / "run" / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": {"shards": str(path / "set"), **sides}}))
    export(path / "run", path / "export", path / "space")
    return path


def cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    one, two = one.astype(np.float64), two.astype(np.float64)
    return (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


@pytest.mark.parametrize("column", [None, "tiny"])
def test_a_store_equals_its_export(tmp_path: Path, world: Path, column: str | None) -> None:
    store = Store(index(world / "export", world / "set", tmp_path / "store", column=column, device="cpu"))
    by_hand = load_export(world / "export").embed_encoded([encoded(id) for id in store.ids.tolist()])
    assert cosines(store.rows, by_hand).min() >= 0.999
    # and the rows tell pictures apart, so that the line above says something
    assert cosines(store.rows, np.roll(by_hand, 1, axis=0)).min() < 0.9


def test_ids_names_and_texts_are_those_of_the_shards_and_the_bad_picture_is_left_out(tmp_path: Path, world: Path) -> None:
    store = Store(index(world / "export", world / "set", tmp_path / "store", device="cpu"))
    assert store.ids.tolist() == [id for id in range(NUM) if id != BAD]
    columns = ("name", "text", "group", "key", "set")
    assert store.records([3], columns) == [{"name": "3.png", "text": "snow dog", "group": "group 3", "key": "000000003", "set": "set"}]
    assert store.records([4], ["text"]) == [{"text": "Snow. (credit: someone)"}], "a picture's own caption is what describes it"
    assert "set/000000,000000007,not an image" in (tmp_path / "store" / "bad.csv").read_text().replace('"', "")


def test_a_store_is_searched_in_words_and_from_a_picture(tmp_path: Path, world: Path) -> None:
    store = Store(index(world / "export", world / "set", tmp_path / "store", device="cpu"))
    assert len(search(store, "dog + snow", k=5)) == 5
    assert search(store, "image:11", k=1)[0].id == 11


def test_thumbnails_are_small_whole_pictures_and_can_be_left_out(tmp_path: Path, world: Path) -> None:
    store = Store(index(world / "export", world / "set", tmp_path / "with", device="cpu"))
    (small,) = store.thumbnails([3])
    assert small is not None
    image = Image.open(io.BytesIO(small))
    assert (image.format, image.size) == ("JPEG", (THUMBNAIL_PX, THUMBNAIL_PX * 120 // 180))
    assert small == thumbnail(Decoded(encoded(3)))
    without = Store(index(world / "export", world / "set", tmp_path / "without", thumbnails=False, column="tiny", device="cpu"))
    assert without.thumbnails([3]) == [None]


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_holds_that_parts_pictures_alone(tmp_path: Path, world: Path, part: str) -> None:
    split = Split(seed=3, held_out=0.4)
    store = Store(index(world / "export", world / "set", tmp_path / "store", part=part, split=split, max_bad_share=0.2, device="cpu"))
    assert store.ids.tolist() == [id for id in split.ids(ShardSet(world / "set"), part).tolist() if id != BAD]


def test_the_two_parts_make_the_whole(tmp_path: Path, world: Path) -> None:
    for part in ("train", "test"):
        index(world / "export", world / "set", tmp_path / "store", part=part, column="tiny", max_bad_share=0.2, device="cpu")
    assert sorted(Store(tmp_path / "store").ids.tolist()) == [id for id in range(NUM) if id != BAD]


def test_run_again_nothing_is_done_again(tmp_path: Path, world: Path) -> None:
    index(world / "export", world / "set", tmp_path / "store", device="cpu")
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in (tmp_path / "store").rglob("*.*") if path.name != "bad.csv"}
    ledger = (tmp_path / "store" / "bad.csv").read_text()
    index(world / "export", world / "set", tmp_path / "store", device="cpu")
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in before} == before
    assert (tmp_path / "store" / "bad.csv").read_text() == ledger


def test_shards_that_were_added_are_added(tmp_path: Path, world: Path) -> None:
    make_shards(tmp_path / "set")
    index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")
    write_shard(tmp_path / "set", 3, (pair(number) for number in range(NUM, NUM + 4)), first_key=NUM)
    finish(tmp_path / "set", {})
    index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")
    store = Store(tmp_path / "store")
    assert len(store.segments) == 4
    assert sorted(store.ids.tolist()) == [id for id in range(NUM + 4) if id != BAD]


def test_shards_that_changed_under_a_store_are_refused(tmp_path: Path, world: Path) -> None:
    make_shards(tmp_path / "set")
    index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")
    write_shard(tmp_path / "set", 2, (pair(number) for number in range(40, 45)), first_key=40)
    finish(tmp_path / "set", {})
    with pytest.raises(InputError, match="set/000002 as it was"):
        index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")


def test_shards_that_changed_places_under_a_store_are_refused(tmp_path: Path, world: Path) -> None:
    shards = make_shards(tmp_path / "set")
    index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")
    for suffix in (".tar", ".arrow"):
        (tmp_path / "set" / f"{shards.shards[0].name}{suffix}").unlink()
    finish(tmp_path / "set", {})
    with pytest.raises(InputError, match="picture 0 is 0.png there and 8.png in .*set, whose shards have changed places"):
        index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")


def test_a_column_of_another_trunk_is_refused_by_both_names(tmp_path: Path, world: Path) -> None:
    make_shards(tmp_path / "set")
    other = Trunk("test_efficientnet", NoWeights(2), size=32)
    embed(tmp_path / "set", "other", other, device="cpu")
    with pytest.raises(InputError) as refused:
        index(world / "export", tmp_path / "set", tmp_path / "store", column="other", device="cpu")
    for named in (other.fingerprint[:12], load_export(world / "export").network.trunk.fingerprint[:12], "other"):
        assert named in str(refused.value)


def test_too_many_bad_pictures_fail_the_job(tmp_path: Path, world: Path) -> None:
    with pytest.raises(InputError, match="1 of 23 are bad"):
        index(world / "export", world / "set", tmp_path / "store", max_bad_share=0.01, device="cpu")
