"""What is there twice is found, whatever was done to it; what leaks is told; and a run can leave it out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from data_prep.__main__ import main
from data_prep.dedup.job import Pictures, dedup, find_duplicates, part_counts
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter, read_leave_out

NUM_SCENES = 30


def scene(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    ground = Image.fromarray(generator.integers(0, 256, (4, 5, 3), np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(ground)
    for _ in range(40):
        left, top, width, height = generator.integers(4, 200, 4).tolist()
        pen.rectangle((left, top, left + width // 2, top + height // 2), fill=tuple(generator.integers(0, 256, 3).tolist()))
    return ground


def encoded(image: Image.Image, format: str = "JPEG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def write_set(path: Path, pictures: Mapping[str, tuple[bytes, str]]) -> ShardSet:
    """Name -> (encoded picture, split)."""
    with ShardWriter(path, pairs_per_shard=10) as writer:
        for name, (image, split) in pictures.items():
            writer.write(Pair(name, image, "png" if image.startswith(b"\x89") else "jpg", (f"it is {name}",), name, split))
    return ShardSet(path)


def names_of(shards: ShardSet, path: Path) -> set[str]:
    return {shards.names[id] for id in read_leave_out(path, shards)}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardSet]:
    """`first`: 30 scenes, 20 to learn from, and planted duplicates of some; `second`: others, and two that are scenes of the first."""
    folder = tmp_path_factory.mktemp("sets")
    first = {f"scene {seed}": (encoded(scene(seed), quality=90), "train" if seed < 20 else "test") for seed in range(NUM_SCENES)}
    first["scene 1 again"] = (encoded(scene(1), quality=40), "train")
    first["scene 1 as PNG"] = (encoded(scene(1), "PNG"), "train")
    first["scene 2 small, held out"] = (encoded(scene(2).resize((160, 120))), "test")
    first["scene 3 cut, held out"] = (encoded(scene(3).crop((4, 3, 316, 237))), "dev")
    first["scene 21 again"] = (encoded(scene(21), quality=50), "test")
    first["blank"] = (encoded(Image.new("RGB", (90, 90))), "train")
    second = {f"other {seed}": (encoded(scene(seed)), "train") for seed in range(100, 110)}
    second["scene 22 brighter"] = (encoded(ImageEnhance.Brightness(scene(22)).enhance(1.2)), "train")
    second["scene 4 again"] = (encoded(scene(4), quality=50), "train")
    return {"first": write_set(folder / "first", first), "second": write_set(folder / "second", second)}


@pytest.fixture(scope="module")
def report(sets: dict[str, ShardSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dedup([one.path for one in sets.values()], tmp_path_factory.mktemp("report"), page=True)


def test_every_planted_duplicate_is_found_and_nothing_else(report: Path) -> None:
    with open(report / "groups.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[str, set[str]] = {}
    for row in rows:
        groups.setdefault(row["group"], set()).add(row["name"])
    assert sorted(map(sorted, groups.values())) == sorted(
        map(
            sorted,
            [
                {"scene 1", "scene 1 again", "scene 1 as PNG"},
                {"scene 2", "scene 2 small, held out"},
                {"scene 3", "scene 3 cut, held out"},
                {"scene 4", "scene 4 again"},
                {"scene 21", "scene 21 again"},
                {"scene 22", "scene 22 brighter"},
            ],
        )
    )
    assert all(0 <= int(row["bits_from_first"]) <= 48 for row in rows)


def test_what_is_learnt_from_and_near_to_what_is_held_out_is_listed_for_its_own_set(report: Path, sets: dict[str, ShardSet]) -> None:
    assert names_of(sets["first"], report / "first.leakage.json") == {"scene 2", "scene 3"}
    assert names_of(sets["second"], report / "second.leakage.json") == {"scene 22 brighter"}


def test_of_pictures_that_are_near_all_but_the_first_to_learn_from_are_listed(report: Path, sets: dict[str, ShardSet]) -> None:
    assert names_of(sets["first"], report / "first.duplicates.json") == {"scene 2", "scene 3", "scene 1 again", "scene 1 as PNG"}
    assert names_of(sets["second"], report / "second.duplicates.json") == {"scene 22 brighter", "scene 4 again"}


def test_the_report_counts_pairs_by_part(report: Path) -> None:
    told = json.loads((report / "report.json").read_text())
    assert {(one["one"], one["other"]): one["pairs"] for one in told["near_pairs"]} == {
        ("first dev", "first train"): 1,
        ("first test", "first test"): 1,
        ("first test", "first train"): 1,
        ("first test", "second train"): 1,
        ("first train", "first train"): 3,
        ("first train", "second train"): 1,
    }
    assert told["groups"] == 6 and told["blank"] == 1 and told["unread"] == 0 and told["leaks"] == {"first": 2, "second": 1}


def test_texts_and_names_of_sets_cannot_write_into_the_page(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script>'
    with ShardWriter(tmp_path / "<i>set", pairs_per_shard=10) as writer:
        for number in range(2):
            writer.write(Pair(str(number), encoded(scene(1), quality=80 + number), "jpg", (hostile,), str(number), "train"))
    page = (dedup([tmp_path / "<i>set"], tmp_path / "report", page=True) / "report.html").read_text()
    assert page.count("&lt;script&gt;") == 4 and "&lt;i&gt;set" in page
    assert "<script" not in page and "<i>" not in page


def test_the_page_shows_every_picture_of_a_group_with_those_that_leak_first(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert page.count("<img ") == 13 and page.count("data:image/jpeg;base64,") == 13
    assert page.index('<section class="leaks">') < page.index("<section>")
    assert "http:" not in page and "https:" not in page


def test_the_same_sets_give_the_same_report(report: Path, sets: dict[str, ShardSet], tmp_path: Path) -> None:
    again = dedup([one.path for one in sets.values()], tmp_path / "again", page=True)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {path.name: path.read_bytes() for path in report.iterdir()}


def test_a_report_keeps_no_list_of_a_set_that_only_an_earlier_call_had(sets: dict[str, ShardSet], tmp_path: Path) -> None:
    for given in (["first", "second"], ["second"]):
        dedup([sets[name].path for name in given], tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").glob("*.json")} == {
        "report.json",
        "second.leakage.json",
        "second.duplicates.json",
    }


def test_without_a_radius_only_equal_hashes_are_the_same(sets: dict[str, ShardSet], tmp_path: Path) -> None:
    again = write_set(tmp_path / "again", {"scene 25 copied": (sets["first"].image_bytes(25), "train")})
    found = dedup([sets["first"].path, again.path], tmp_path / "report", radius=0)
    assert names_of(again, found / "again.leakage.json") == {"scene 25 copied"}
    assert not names_of(sets["first"], found / "first.leakage.json")


def test_a_thousand_equal_pictures_are_one_group_and_cost_no_more() -> None:
    hashes = np.repeat(np.random.default_rng(0).integers(0, 2**64, (3, 4), np.uint64), [1000, 1, 1], axis=0)
    pictures = Pictures((), np.zeros(1002, np.int64), np.arange(1002), np.array(["train"] * 999 + ["test"] + ["train"] * 2), hashes)
    found = find_duplicates(pictures, 48)
    assert len(found.links.first) == 0
    assert found.leaks.sum() == 999 and np.bincount(found.group_of).tolist() == [1000, 1, 1]


def test_counts_equal_those_of_a_loop_over_all_pairs(sets: dict[str, ShardSet]) -> None:
    generator = np.random.default_rng(1)
    hashes = generator.integers(0, 2**64, (6, 1), np.uint64)[generator.integers(0, 6, 60)]
    hashes ^= np.uint64(1) << generator.integers(0, 64, (60, 1)).astype(np.uint64)
    parts = np.array(["train", "test", "dev"])[generator.integers(0, 3, 60)]
    pictures = Pictures((sets["first"],), np.zeros(60, np.int64), np.arange(60), parts, hashes)
    wanted: dict[tuple[str, str], int] = {}
    for one in range(60):
        for other in range(one + 1, 60):
            if np.bitwise_count(hashes[one] ^ hashes[other]).sum() <= 2:
                between = tuple(sorted((f"first {parts[one]}", f"first {parts[other]}")))
                wanted[between] = wanted.get(between, 0) + 1  # type: ignore[index]
    assert wanted and part_counts(pictures, find_duplicates(pictures, 2)) == wanted


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_compared(tmp_path: Path) -> None:
    pictures = {f"{seed}": (encoded(scene(seed)), "train") for seed in range(5)} | {"0 again": (encoded(scene(0), quality=50), "test")}
    pictures["broken"] = (encoded(scene(7))[:2000], "train")
    shards = write_set(tmp_path / "set", pictures)
    found = dedup([shards.path], tmp_path / "report", max_bad_share=0.5)
    assert names_of(shards, found / "set.leakage.json") == {"0"}
    assert shards.key(6) in (found / "bad.csv").read_text()


@pytest.mark.parametrize("radius", [-1, 128])
def test_a_radius_out_of_range_is_refused(sets: dict[str, ShardSet], tmp_path: Path, radius: int) -> None:
    with pytest.raises(InputError, match=f"radius is {radius}; with 256 bits give 0 to 127"):
        dedup([sets["first"].path], tmp_path / "report", radius=radius)


def test_two_sets_of_one_name_are_refused(sets: dict[str, ShardSet], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two sets are called first"):
        dedup([sets["first"].path, sets["first"].path], tmp_path / "report")


def test_the_command_prints_the_counts(sets: dict[str, ShardSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dedup", str(sets["first"].path), str(sets["second"].path), "--output", str(tmp_path / "report")]) == 0
    told = capsys.readouterr()
    assert "first test and second train" in told.out and "3 training pairs are near a held-out one" in told.err
    assert not (tmp_path / "report" / "report.html").exists()


@pytest.mark.parametrize("colours", [["white"], ["white", "black", "white"]])
def test_a_set_of_blank_pictures_has_nothing_to_compare(tmp_path: Path, colours: list[str]) -> None:
    blank = {f"{number} {colour}": (encoded(Image.new("RGB", (60, 40), colour)), "train") for number, colour in enumerate(colours)}
    found = dedup([write_set(tmp_path / "set", blank).path], tmp_path / "report", page=True)
    told = json.loads((found / "report.json").read_text())
    assert told["pictures"] == 0 and told["blank"] == len(colours) and told["near_pairs"] == []
