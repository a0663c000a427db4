"""The whole road on a set at a URL, given as a plain URL to every command: the boxes are those of the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multimodal.boxes import read_manifest

MORE = {"set/columns/words": " --num-processes 2", "run": " --data.num_workers 2"}
BOXES = {"space": "text-space", "run": "run", "export": "export", "store": "store"}
AFTER = {
    "multimodal search --store store 'red + circle'": "a red circle",
    "multimodal evaluate retrieval --store store --shards URL": "text->image",
    "multimodal evaluate classes --store store --shards URL --label colour": "has no colour in its metadata",
    "multimodal text-space show space --shards URL --column words": "WordSpace",
    "data-prep fit-text-space topics --shards URL --output topics --num-topics 2": "2 topics",
    "data-prep dedup URL set --output dedup": "two sets are called set",
    "data-prep dedup URL --output dedup": "45 pictures",
    "multimodal shards verify URL": "45 pairs, 2 columns: all well",
}
"""A command -> some of what it says."""


def test_the_whole_road_on_a_url_makes_what_it_makes_of_the_folder(
    road: Any,
    begin_road: Callable[[], Any],
    road_commands: dict[str, str],
    serve: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = begin_road()
    own.go("set")
    server = serve(own.folder / "set")
    for box, command in road_commands.items():
        if box != "set":
            told = own.run(command.replace("shards set", f"shards {server.url}") + MORE.get(box, ""))
            assert told.status == 0, told.err
    for box, kind in BOXES.items():
        assert read_manifest(own.folder / box, kind) == read_manifest(road.folder / box, kind), box
    for command, said in AFTER.items():
        told = own.run(command.replace("URL", server.url))
        assert said in told.out + told.err, command
    [at] = (tmp_path / "cache" / "multimodal" / "shards").glob("set-*")
    for name in ("words", "trunk"):
        assert read_manifest(at / "columns" / name, "column") == read_manifest(road.folder / "set" / "columns" / name, "column")
    assert not (own.folder / "set" / "columns").exists() and not [path for path in own.folder.iterdir() if ":" in path.name]
