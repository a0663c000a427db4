"""Boxes on disk: a copy is whole or says nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.lib
import pytest

from multimodal.boxes import (
    STALE_S,
    Manifest,
    atomic_write,
    copy_box,
    is_whole,
    link_or_copy,
    read_manifest,
    reading,
    remove_stale,
    write_manifest,
    write_output,
)
from multimodal.errors import InputError


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


WRITE = "import sys, os; from multimodal.boxes import atomic_write\nwith atomic_write(sys.argv[1]) as file: {}"


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".part")


def test_what_a_killed_process_left_is_taken_away_by_the_next_that_writes_there(tmp_path: Path) -> None:
    for name in ("000000.tar", "manifest.json"):
        subprocess.run([sys.executable, "-c", WRITE.format("os.kill(os.getpid(), 9)"), tmp_path / name])
        assert len(parts(tmp_path)) == 1  # the second one took the first one's away
    subprocess.run([sys.executable, "-c", WRITE.format("pass"), tmp_path / "other"], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE.format("print(flush=True); file.write(sys.stdin.buffer.read())"), tmp_path / "slow"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin and writer.stdout and writer.stdout.readline()
        with atomic_write(tmp_path / "mine") as file:
            file.write(b"mine")
            remove_stale(tmp_path)
            assert len(parts(tmp_path)) == 2
        writer.communicate(b"slow")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"mine": b"mine", "slow": b"slow"}


def test_another_hosts_file_is_left_for_a_day_and_other_peoples_for_ever(tmp_path: Path) -> None:
    for name in (".a.tar.ffffff-abcdefgh.part", ".b.tar.ffffff-abcdefgh.part", ".film.mkv.part", "film.part", ".a.tar.x1y2z3a4.part"):
        (tmp_path / name).touch()
    long_ago = (tmp_path / "film.part").stat().st_mtime - STALE_S - 60
    os.utime(tmp_path / ".b.tar.ffffff-abcdefgh.part", (long_ago, long_ago))
    remove_stale(tmp_path)
    assert parts(tmp_path) == [".a.tar.ffffff-abcdefgh.part", ".a.tar.x1y2z3a4.part", ".film.mkv.part", "film.part"]


def test_what_is_no_regular_file_is_written_through_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with write_output(pipe) as file:
        file.write(b"hits")
    assert os.read(reader, 10) == b"hits" and pipe.is_fifo()
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    with write_output(tmp_path / "page.html") as file:
        file.write(b"page")
    assert (tmp_path / "page.html").read_bytes() == b"page"


@pytest.mark.parametrize("leads_to", ["device", "pipe", "file"])
def test_a_link_among_the_files_of_a_box_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, leads_to: str) -> None:
    pipe, theirs, link = tmp_path / "pipe", tmp_path / "theirs", tmp_path / "box" / "bad.csv"
    os.mkfifo(pipe)
    theirs.write_bytes(b"work")
    link.parent.mkdir()
    link.symlink_to({"device": Path("/dev/null"), "pipe": pipe, "file": theirs}[leads_to])
    with atomic_write(link) as file:
        file.write(b"key,reason")
    assert not link.is_symlink() and link.read_bytes() == b"key,reason"
    assert pipe.is_fifo() and theirs.read_bytes() == b"work"


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("config", [], r"config is \[\]; expected dict"),
        ("counts", {"rows": "3"}, "counts.rows is '3'; expected int"),
        ("counts", {"rows": True}, "counts.rows is True; expected int"),
        ("made_from", {"export": None}, "made_from.export is None; expected str"),
        ("parts", {"a": 1}, "parts.a is 1; expected dict"),
        ("format_version", "new", "format_version is 'new'; expected int"),
        ("more", 1, "unexpected keyword argument 'more'"),
    ],
)
def test_a_manifest_of_another_shape_is_an_error_that_names_the_entry(tmp_path: Path, entry: str, value: object, message: str) -> None:
    box = make_box(tmp_path / "box", b"rows")
    manifest = json.loads((box / "manifest.json").read_text())
    (box / "manifest.json").write_text(json.dumps(manifest | {entry: value}))
    with pytest.raises(InputError, match=f"manifest.json: .*{message}"):
        read_manifest(box, "store")


def test_a_manifest_that_is_nested_without_end_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"kind": ' + "[" * 100_000)
    with pytest.raises(InputError, match="not a valid manifest"):
        read_manifest(tmp_path, "store")


@pytest.mark.parametrize("depth", [100, 101, 600])
def test_a_manifest_whose_fingerprint_could_not_be_taken_is_an_error(tmp_path: Path, depth: int) -> None:
    nested = "[" * (depth - 2) + "]" * (depth - 2)  # in the config, in the manifest
    (tmp_path / "manifest.json").write_text(f'{{"kind": "store", "config": {{"a": {nested}}}}}')
    if depth > 100:
        with pytest.raises(InputError, match="manifest.json: not a valid manifest: nested more than 100 deep"):
            read_manifest(tmp_path, "store")
    else:
        assert read_manifest(tmp_path, "store").fingerprint


def test_what_a_parser_raises_names_the_file_and_what_the_system_raises_stays(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.json: cannot be read \(JSONDecodeError: .*damaged"), reading("a.json"):
        json.loads("{")
    with pytest.raises(InputError, match=r"a.parquet: cannot be read \(ArrowNotImplementedError: "), reading("a.parquet"):
        raise pyarrow.lib.ArrowNotImplementedError("a codec that is not built in")
    with pytest.raises(InputError, match=r"a.zip: cannot be read \(BadZipFile"), reading("a.zip", zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"no archive"))
    with pytest.raises(FileNotFoundError), reading("a.json"):
        (tmp_path / "a.json").read_text()


def test_half_a_surrogate_pair_in_a_manifest_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest(kind="store", config={"stop_words": ["the"]}))
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("the", "\\ud800"))
    with pytest.raises(InputError, match="not a valid manifest: .*surrogates"):
        read_manifest(tmp_path, kind="store")
