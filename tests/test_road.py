"""The smallest road through the real doors: drawings of coloured shapes, searched in words by a network that learnt from their captions."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multimodal.boxes import read_manifest
from multimodal.shards import ShardSet
from multimodal.shards.verify import find_problems

if TYPE_CHECKING:
    from tests.conftest import Road

KINDS = {
    "set": "shards",
    "space": "text-space",
    "set/columns/words": "column",
    "set/columns/trunk": "column",
    "run": "run",
    "export": "export",
    "store": "store",
}
EVALUATE = "multimodal evaluate retrieval --store store --shards set --part all --output results.json"


def tree(folder: Path) -> dict[str, str]:
    """Every file below the folder -> hash of its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("box", "kind"), KINDS.items())
def test_every_arrow_leaves_a_box_with_a_manifest_and_nothing_unfinished(road: Road, box: str, kind: str) -> None:
    assert read_manifest(road.folder / box, kind).counts
    assert not [path.name for path in (road.folder / box).rglob("*") if path.name.startswith(".") and path.suffix == ".part"]
    assert not list((road.folder / box).rglob("unfinished.json"))


def test_each_box_names_the_boxes_that_it_was_made_from(road: Road) -> None:
    manifests = {box: read_manifest(road.folder / box, kind) for box, kind in KINDS.items()}
    assert manifests["space"].made_from == {"shards": ShardSet(road.folder / "set").fingerprint}
    assert manifests["set/columns/words"].made_from["text-space"] == manifests["space"].fingerprint
    assert manifests["run"].made_from["column words"] == manifests["set/columns/words"].fingerprint
    assert manifests["run"].made_from["column trunk"] == manifests["set/columns/trunk"].fingerprint
    assert manifests["export"].made_from["text-space"] == manifests["space"].fingerprint
    assert manifests["export"].made_from["trunk"] == manifests["set/columns/trunk"].made_from["trunk"]
    assert manifests["store"].made_from["export"] == manifests["export"].fingerprint


def test_verify_finds_every_byte_as_it_was_written(road: Road) -> None:
    told = road.run("multimodal shards verify set")
    assert told.status == 0
    assert told.out == "set: 3 shards, 45 pairs, 2 columns: all well\n"
    assert not list(find_problems(ShardSet(road.folder / "set")))


def test_a_search_in_a_process_of_its_own_finds_the_drawings(road: Road) -> None:
    command = [sys.executable, "-m", "multimodal.cli", "search", "--store", "store", "--json", "--k", "5", "red + circle - blue"]
    done = subprocess.run(command, cwd=road.folder, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout)
    assert len(found["hits"]) == 5 and found["unknown"] == {}
    names = {path.name for path in (road.folder / "photos").glob("*.png")}
    assert {hit["name"] for hit in found["hits"]} <= names
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True) and -1 <= scores[-1] <= scores[0] <= 1


def test_even_two_epochs_find_more_than_chance(own_road: Road) -> None:
    told = own_road.run(EVALUATE)
    assert told.status == 0, told.err
    rows = json.loads((own_road.folder / "results.json").read_text())
    assert [row["direction"] for row in rows] == ["text->image", "image->text"]
    for row in rows:
        assert row["num_pairs"] == 45
        assert row["chance_R@10"] == pytest.approx(100 * 10 / 45, abs=0.01)
        assert f"{row['R@10']:.1f}" in told.out and f"{row['chance_R@10']:.1f}" in told.out
    assert rows[0]["R@10"] > 1.5 * rows[0]["chance_R@10"]


def test_a_second_time_every_command_says_that_it_is_there_and_changes_no_byte(own_road: Road, road_commands: dict[str, str]) -> None:
    assert own_road.run(EVALUATE).status == 0
    before = tree(own_road.folder)
    for command in road_commands.values():
        told = own_road.run(command)
        assert told.status == 0, told.err
        assert "is there already" in told.err or "is finished" in told.err or "is there already" in told.out, command
    assert own_road.run(EVALUATE).status == 0
    assert tree(own_road.folder) == before


def test_the_same_road_elsewhere_gives_the_same_bytes(road: Road, begin_road: Callable[[], Road], road_commands: dict[str, str]) -> None:
    other = begin_road()
    other.go()
    for box in road_commands:
        assert tree(road.folder / box) == tree(other.folder / box), box


def test_added_pictures_go_the_same_road(own_road: Road, road_commands: dict[str, str]) -> None:
    """A folder that grew is another set; what was made of the old one is refused, and made again with --overwrite or elsewhere."""
    (own_road.folder / "photos" / "zebra.png").write_bytes((own_road.folder / "photos" / "black-square-0.png").read_bytes())
    told = own_road.run(road_commands["set"])
    assert told.status == 2 and "was made with other settings or inputs: " in told.err and "--overwrite" in told.err
    assert own_road.run(road_commands["set"] + " --overwrite").status == 0
    for box in ("set/columns/words", "set/columns/trunk"):
        assert own_road.run(road_commands[box]).status == 0
    assert len(ShardSet(own_road.folder / "set")) == 46
    assert own_road.run("multimodal shards verify set").status == 0
