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
from multimodal.embed.metadata import MAX_COLUMNS, MetadataColumns
from multimodal.embed.stores import THUMBNAIL_PX, index, thumbnail
from multimodal.errors import InputError
from multimodal.export.model import export, load_export
from multimodal.objectives import Cosine
from multimodal.pairs import Pair
from multimodal.search.query import search
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter
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


METADATA = {"camera": "X100", "year": 1999, "indoors": True, "share": 0.5, "nothing": None, "name": "a name of its own"}


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
    parts = {"image_tower": head, "target_side": nn.Identity(), "objective": Cosine()}
    state = {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}
    (path / "run" / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": state, "global_step": 1}, path / "run" / "checkpoints" / "best.ckpt")
    model = {
        "image_tower": {"class_path": "multimodal.towers.Head", "init_args": {"dim_in": 256, "dim_out": DIM, "standardise": True}},
        "target_side": {"class_path": "torch.nn.Identity"},
        "objective": {"class_path": "multimodal.objectives.Cosine"},
    }
    sides = {
        side: {"class_path": "multimodal.data.ColumnRows", "init_args": {"name": name}}
        for side, name in (("image", "tiny"), ("target", "words"))
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


@pytest.mark.parametrize("column", [None, "crops"])
def test_with_views_a_vector_is_the_mean_over_the_views_of_its_picture(tmp_path: Path, world: Path, column: str | None) -> None:
    embed(world / "set", "crops", Trunk("test_efficientnet", NoWeights(1), size=32), views=4, device="cpu")
    settings = {"column": column, "device": "cpu", "thumbnails": False}
    store = Store(index(world / "export", world / "set", tmp_path / "store", views=3, **settings))
    exported, crops = load_export(world / "export"), Column.of(ShardSet(world / "set"), "crops")
    slow = np.stack(
        [np.mean([exported.embed_features(row[None])[0] for row in np.array(crops.rows(id)[:3])], axis=0) for id in store.ids.tolist()]
    )
    assert store.ids.tolist() == [id for id in range(NUM) if id != BAD]
    assert cosines(store.rows, slow).min() >= 0.999
    centre = exported.embed_features(crops.take(store.ids))
    assert cosines(store.rows, centre).min() < 0.999, "the views differ, so that the line above says something"
    for views in (1, 2):
        with pytest.raises(InputError, match="its pictures have --views 3, so others need that too"):
            index(world / "export", world / "set", tmp_path / "store", views=views, **settings)


def test_more_views_than_a_column_has_are_refused(tmp_path: Path, world: Path) -> None:
    with pytest.raises(InputError, match=r"tiny: has 1 views of each picture, and --views 2 needs as many"):
        index(world / "export", world / "set", tmp_path / "store", column="tiny", views=2, device="cpu")
    with pytest.raises(InputError, match="views=0 must be at least 1"):
        index(world / "export", world / "set", tmp_path / "store", views=0, device="cpu")


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
    assert (image.format, image.size) == ("JPEG", (180, 120)), "a small picture as it is"
    assert small == thumbnail(Decoded(encoded(3)))
    file = io.BytesIO()
    image.resize((1800, 1200)).save(file, "png")
    assert Image.open(io.BytesIO(thumbnail(Decoded(file.getvalue())))).size == (THUMBNAIL_PX, THUMBNAIL_PX * 2 // 3)
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


def test_a_job_that_was_stopped_before_it_calibrated_is_finished_by_the_same_command(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Store(index(world / "export", world / "set", tmp_path / "whole", column="tiny", device="cpu"))
    assert whole.fitted is not None and whole.fitted["rows"] == len(whole) == NUM - 1

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StoreWriter, "calibrate", stop)
        index(world / "export", world / "set", tmp_path / "store", column="tiny", device="cpu")
    assert len(Store(tmp_path / "store")) == NUM - 1 and Store(tmp_path / "store").fitted is None
    segments = {path: path.stat().st_ino for path in (tmp_path / "store/segments").rglob("*.npy")}
    index(world / "export", world / "set", tmp_path / "store", column="tiny", device="cpu")
    assert {path: path.stat().st_ino for path in segments} == segments, "no picture is embedded again"
    assert Store(tmp_path / "store").fitted == whole.fitted
    manifest = (tmp_path / "store/manifest.json").read_bytes()
    index(world / "export", world / "set", tmp_path / "store", column="tiny", device="cpu")
    assert (tmp_path / "store/manifest.json").read_bytes() == manifest, "and then there is nothing left to do"


def test_a_template_is_kept_until_another_is_given_and_new_shards_are_calibrated_with_it(tmp_path: Path, world: Path) -> None:
    make_shards(tmp_path / "set")
    index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu", template="dog or {}")
    assert Store(tmp_path / "store").calibration.template == "dog or {}"
    write_shard(tmp_path / "set", 3, (pair(number) for number in range(NUM, NUM + 4)), first_key=NUM)
    finish(tmp_path / "set", {})
    index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")
    fitted = Store(tmp_path / "store").fitted
    assert fitted is not None and (fitted["template"], fitted["rows"]) == ("dog or {}", NUM + 3)
    index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu", template="{}")
    fitted = Store(tmp_path / "store").fitted
    assert fitted is not None and fitted["template"] == "{}"
    with pytest.raises(InputError, match=r"template 'dog': expected a text with one \{\}"):
        index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu", template="dog")


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
    with pytest.raises(InputError, match="set/000002 was .* and is .* now"):
        index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")


def test_shards_that_changed_places_under_a_store_are_refused(tmp_path: Path, world: Path) -> None:
    shards = make_shards(tmp_path / "set")
    index(world / "export", tmp_path / "set", tmp_path / "store", device="cpu")
    for suffix in (".tar", ".arrow"):
        (tmp_path / "set" / f"{shards.shards[0].name}{suffix}").unlink()
    finish(tmp_path / "set", {})
    with pytest.raises(InputError, match="picture 0 is 0.png in the store and 8.png in .*set: the shards have been removed or reordered"):
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


@pytest.fixture(scope="module")
def told_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures in two shards with metadata of every kind, of which two keys have another type in the second shard."""
    path = tmp_path_factory.mktemp("told")
    with ShardWriter(path / "set", pairs_per_shard=3) as writer:
        for number in range(6):
            metadata = METADATA | ({"camera": 100, "tags": ["a", "b"], "page": "x" * 5000} if number > 2 else {})
            writer.write(
                Pair(f"{number}.png", encoded(number), "png", ("dog",), f"g{number}", split="dev" if number % 2 else "", metadata=metadata)
            )
    return path / "set"


def test_what_came_with_pictures_is_kept_as_text_and_what_is_no_scalar_is_named_once(
    world: Path, told_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(world / "export", told_of, tmp_path / "store", device="cpu")
    left_out = "of the metadata, these are no columns: page (longer than 1,000 characters: 3 pictures), tags (a list or object: 3 pictures)"
    assert capsys.readouterr().err.count(left_out) == 1
    store = Store(tmp_path / "store")
    assert store.column("camera") == ["X100"] * 3 + ["100"] * 3
    assert [store.column(name)[0] for name in ("year", "indoors", "share", "metadata.name")] == ["1999", "true", "0.5", "a name of its own"]
    assert store.column("split") == [None, "dev"] * 3 and "nothing" not in store.columns and "tags" not in store.columns
    assert store.select({"camera": "100", "split": "dev"}).tolist() == [3, 5]


def test_a_store_that_was_begun_without_metadata_goes_on_without_it(
    world: Path, told_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stores of before there were such columns are of this kind: the same command says that nothing is left to do."""
    index(world / "export", told_of, tmp_path / "store", device="cpu", metadata=False)
    manifest = (tmp_path / "store" / "manifest.json").read_bytes()
    assert b"metadata" not in manifest and Store(tmp_path / "store").columns == ["group", "key", "name", "set", "text"]
    capsys.readouterr()
    index(world / "export", told_of, tmp_path / "store", device="cpu")
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "store" / "manifest.json").read_bytes() == manifest
    with pytest.raises(InputError, match="was begun without metadata, and goes on so"):
        index(world / "export", told_of, tmp_path / "store", device="cpu", metadata=True)


def test_keys_that_are_data_themselves_make_no_more_than_a_hundred_columns() -> None:
    columns = MetadataColumns()
    found = columns.of([{"split": "", "metadata": {f"id{number}": 1}} for number in range(150)])
    assert len(found) == MAX_COLUMNS and columns.left_out.startswith("id100 (more than 100 columns: 1 pictures), ")
    assert columns.left_out.endswith(" and 45 more")
