"""InstaCities1M in its authors' layout: their split by position, captions as they were written, each post a pair of its own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.conformance import check_broken_items, check_parts, check_source, read_all
from data_prep.sources.instacities import CAPTIONS, IMAGES, TEST_PER_CITY, VAL_PER_CITY, instacities, plan
from multimodal.errors import InputError
from multimodal.shards import ShardSet
from multimodal.text import Normaliser

SMALL = {"test_per_city": 2, "val_per_city": 1}
NUM_POSTS = {"london": 6, "miami": 4}


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def caption(city: str, post: int) -> str:
    return f"Day {post} \U0001f305\n.\n#SunsetBeach #{city}2016 @me\n"


def data_set(root: Path) -> Path:
    """Two cities of a few posts, ids of different lengths among them."""
    for city, num in NUM_POSTS.items():
        (root / IMAGES / city).mkdir(parents=True)
        (root / CAPTIONS / city).mkdir(parents=True)
        for post in range(num):
            (root / IMAGES / city / f"{post * 7}.jpg").write_bytes(picture(post + len(city)))
            (root / CAPTIONS / city / f"{post * 7}.txt").write_text(caption(city, post), encoding="utf-8")
    (root / IMAGES / "london" / "._0.jpg").write_bytes(b"left alone")
    (root / IMAGES / "london" / "Thumbs.db").write_bytes(b"left alone")
    return root


def test_posts_come_city_by_city_in_the_order_of_their_ids_with_the_authors_split(tmp_path: Path) -> None:
    pairs = check_source(instacities, {"input": data_set(tmp_path), **SMALL})
    assert [(pair.name, pair.split) for pair in pairs] == [
        ("london/0.jpg", "test"),
        ("london/14.jpg", "test"),
        ("london/21.jpg", "val"),
        ("london/28.jpg", "train"),
        ("london/35.jpg", "train"),
        ("london/7.jpg", "train"),
        ("miami/0.jpg", "test"),
        ("miami/14.jpg", "test"),
        ("miami/21.jpg", "val"),
        ("miami/7.jpg", "train"),
    ]
    assert all(pair.group == pair.name.removesuffix(".jpg") and pair.metadata == {"city": pair.name.split("/")[0]} for pair in pairs)
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(instacities, {"input": tmp_path, **SMALL}, pairs_per_shard)


def test_a_caption_keeps_its_lines_and_hashtags_which_a_normaliser_reads(tmp_path: Path) -> None:
    first = check_source(instacities, {"input": data_set(tmp_path), **SMALL})[0]
    assert first.texts == ("Day 0 \U0001f305\n.\n#SunsetBeach #london2016 @me",)
    assert Normaliser(variant="hashtag").tokens(first.texts[0]) == ["day", "sunset", "beach", "london"]


def test_without_a_split_of_its_own_the_hash_of_the_post_decides(tmp_path: Path) -> None:
    pairs = check_source(instacities, {"input": data_set(tmp_path), "test_per_city": 0, "val_per_city": 0})
    assert len(pairs) == 10 and not any(pair.split for pair in pairs)


def test_the_authors_held_out_a_fifth_of_each_citys_hundred_thousand_posts() -> None:
    assert (TEST_PER_CITY, VAL_PER_CITY) == (15_000, 5_000)


def test_a_city_that_would_be_held_out_whole_is_an_error_that_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="london has 6 posts, and the first 15000 .* leaves none to train on.*--test-per-city"):
        plan(1000, data_set(tmp_path))
    with pytest.raises(InputError, match="miami has 4 posts"):
        plan(1000, tmp_path, test_per_city=3, val_per_city=1)
    with pytest.raises(InputError, match="neither can be negative"):
        plan(1000, tmp_path, test_per_city=-1)


def test_broken_posts_cost_themselves_and_move_no_other_into_another_split(tmp_path: Path) -> None:
    whole, damaged = data_set(tmp_path / "whole"), data_set(tmp_path / "damaged")
    (damaged / IMAGES / "london" / "0.jpg").unlink()
    (damaged / CAPTIONS / "london" / "14.txt").unlink()
    (damaged / CAPTIONS / "london" / "21.txt").write_bytes("café".encode("latin1"))
    (damaged / CAPTIONS / "miami" / "0.txt").write_text(" \n")
    (damaged / IMAGES / "miami" / "14.jpg").write_bytes(picture(1)[:60])
    lost = ["london/0.jpg", "london/14.jpg", "london/21.jpg", "miami/0.jpg", "miami/14.jpg"]
    check_broken_items(instacities, {"input": whole, **SMALL}, {"input": damaged, **SMALL}, lost)
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(instacities, {"input": damaged, **SMALL}, pairs_per_shard)
    _, ledger = read_all(instacities, {"input": damaged, **SMALL})
    reasons = {bad.key: bad.reason for bad in ledger.entries}
    assert reasons["london/0.jpg"] == f"has no {IMAGES}/london/0.jpg"
    assert reasons["london/14.jpg"] == f"has no {CAPTIONS}/london/14.txt"
    assert reasons["london/21.jpg"] == "its caption is not UTF-8 (byte 3)"
    assert reasons["miami/0.jpg"] == "has no text"


def test_a_wrong_folder_says_what_was_expected_and_what_was_found(tmp_path: Path) -> None:
    root = data_set(tmp_path / "data" / "InstaCities1M")
    with pytest.raises(InputError, match=rf"expected {IMAGES}, {CAPTIONS}, and found InstaCities1M/. They are in {root}: give that folder"):
        plan(10, tmp_path / "data")
    with pytest.raises(InputError, match=rf"and found london/, miami/. They are in {root}"):
        plan(10, root / CAPTIONS)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="and found nothing. Give the folder of InstaCities1M that holds"):
        plan(10, tmp_path / "other")
    with pytest.raises(InputError, match="does not exist"):
        plan(10, tmp_path / "nowhere")


def test_a_city_of_which_half_was_unpacked_is_an_error(tmp_path: Path) -> None:
    (data_set(tmp_path) / IMAGES / "sydney").mkdir()
    with pytest.raises(InputError, match="sydney has pictures but no captions. Unpack both archives"):
        plan(10, tmp_path)


def test_a_part_of_a_folder_that_changed_since_the_plan_is_an_error(tmp_path: Path) -> None:
    part = plan(2, data_set(tmp_path), **SMALL)[1]
    (tmp_path / IMAGES / "london" / "8.jpg").write_bytes(picture(8))
    with pytest.raises(InputError, match="has changed since this job was started"):
        read_all(instacities, {"input": tmp_path, **SMALL, "part": part})


def test_the_command_makes_shards_of_it_and_notices_a_new_post(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data_set(tmp_path / "data")
    command = ["make-shards", "instacities", str(root), "--test-per-city", "2", "--val-per-city", "1", "--output", str(tmp_path / "set")]
    assert main(command) == 0
    shards = ShardSet(tmp_path / "set")
    assert len(shards) == 10 and shards.splits[3] == "train"
    assert main(command) == 0 and "is there already" in capsys.readouterr().err
    (root / IMAGES / "miami" / "99.jpg").write_bytes(picture(99))
    (root / CAPTIONS / "miami" / "99.txt").write_text("new")
    assert main(command) == 2 and "inputs.input" in capsys.readouterr().err
