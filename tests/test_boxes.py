"""Boxes on disk: a copy is whole or says nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multimodal.boxes import Manifest, copy_box, is_whole, link_or_copy, read_manifest, write_manifest


def make_box(path: Path, content: bytes) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "rows").write_bytes(content)
    (path / "inner" / "more").write_bytes(content)
    write_manifest(path, Manifest("store", {"content": content.decode()}))
    return path


def no_links(source: object, target: object) -> None:
    raise OSError(18, "Invalid cross-device link")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_copy_equals_its_box_and_replaces_an_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    old, new = make_box(tmp_path / "old", b"old"), make_box(tmp_path / "new", b"new")
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    for source in (old, new, new):
        copy_box(source, tmp_path / "copy")
        assert (tmp_path / "copy" / "inner" / "more").read_bytes() == (source / "rows").read_bytes()
        assert read_manifest(tmp_path / "copy", "store") == read_manifest(source, "store")
    assert (tmp_path / "copy" / "rows").samefile(new / "rows") == has_links
    assert (old / "rows").read_bytes() == b"old"  # what the copy shared with it before was let go, not written over


def test_a_copy_that_was_stopped_has_no_manifest(tmp_path: Path) -> None:
    old, new = make_box(tmp_path / "old", b"old"), make_box(tmp_path / "new", b"new")
    copy_box(old, tmp_path / "copy")
    (tmp_path / "copy" / "rows").unlink()
    (tmp_path / "copy" / "rows").mkdir()  # in the way of the file
    with pytest.raises(OSError):
        copy_box(new, tmp_path / "copy")
    assert not is_whole(tmp_path / "copy")


def test_a_file_is_not_copied_onto_itself(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"content")
    link_or_copy(tmp_path / "one", tmp_path / "one")
    link_or_copy(tmp_path / "one", tmp_path / "two")
    link_or_copy(tmp_path / "two", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == b"content"
