"""`multimodal verify`: says of every kind of box that it is well, and of every file in it that it was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from multimodal.errors import InputError
from multimodal.search.writing import StoreWriter
from multimodal.verify import problems_of

BOXES = ("set", "set/columns/words", "set/columns/trunk", "space", "export", "store")
UNCHECKED = {"bad.csv"}
"""A log: no hash is kept of it."""


@pytest.mark.parametrize("box", BOXES)
def test_a_whole_box_is_well_and_every_file_that_changes_is_found(road, tmp_path: Path, box: str) -> None:
    told = road.run(f"multimodal verify {box}")
    assert told.status == 0 and "all well" in told.out, told.err
    copy = Path(shutil.copytree(road.folder / box, tmp_path / Path(box).name))
    files = [path for path in sorted(copy.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.name not in UNCHECKED and path.suffix != ".arrow" or path.name == "index.arrow"]
    if box == "set":  # columns are boxes of their own
        files = [path for path in files if "columns" not in path.parts]
    assert files
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
        assert _is_broken(copy) or path.name == "manifest.json", path  # by which the others are judged
        path.write_bytes(whole[: len(whole) // 2])
        assert _is_broken(copy), path
        path.unlink()
        assert _is_broken(copy), path
        path.write_bytes(whole)
    assert not list(problems_of(copy))


def _is_broken(box: Path) -> bool:
    try:
        return bool(list(problems_of(box)))
    except InputError:  # no manifest, or no box any more
        return True


def test_a_run_is_well_and_a_checkpoint_that_was_cut_is_found(own_road) -> None:
    assert "a run keeps no hashes" in own_road.run("multimodal verify run").out
    checkpoint = own_road.folder / "run" / "checkpoints" / "best.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    told = own_road.run("multimodal verify run")
    assert told.status == 2 and "checkpoints/best.ckpt" in told.err


def test_what_is_broken_is_named_for_people_and_for_scripts(own_road) -> None:
    (own_road.folder / "store" / "query" / "vocab.txt").write_text("other\n")
    told = own_road.run("multimodal verify store")
    assert told.status == 2 and "vocab.txt" in told.out
    assert "store is broken in 1 place:" in told.err and "multimodal index" in told.err
    told = own_road.run("multimodal verify store --json")
    assert told.status == 2 and "vocab.txt" in json.loads(told.out)["problems"][0]["reason"]
    told = own_road.run("multimodal verify photos")
    assert told.status == 2 and "holds no manifest.json" in told.err


def test_a_store_whose_folders_are_links_is_not_written_to(own_road, tmp_path: Path) -> None:
    store, elsewhere = own_road.folder / "store", tmp_path / "elsewhere"
    (store / "segments").rename(elsewhere)
    (store / "segments").symlink_to(elsewhere)
    (elsewhere / "123456").mkdir()
    (elsewhere / "123456" / "mine.txt").write_text("a file of somebody")
    with pytest.raises(InputError, match="segments: is a link"), StoreWriter(store) as writer:
        writer.compact()
    assert (elsewhere / "123456" / "mine.txt").is_file()
    assert own_road.run("multimodal search --store store red").status == 2
