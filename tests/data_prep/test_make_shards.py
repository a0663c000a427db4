from __future__ import annotations

import csv
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.shards.job import make_shards
from data_prep.sources.folder import folder
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger, ShardSet


def picture(seed: int, size: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


WORDS = "apple bear cat dog eel fox goat hen ibis jay".split()


def photos(root: Path, num: int = 10, size: int = 16) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for n in range(num):
        (root / f"{WORDS[n]}.png").write_bytes(picture(n, size))
    return root


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def ledger_rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    """Exit status and stderr of one command."""
    status = main([str(argument) for argument in argv])
    return status, capsys.readouterr().err


def test_a_folder_becomes_a_shard_set_with_its_texts(tmp_path: Path) -> None:
    shards = make_shards(folder, {"input": photos(tmp_path / "photos")}, tmp_path / "set", pairs_per_shard=4)
    assert [shard.num_pairs for shard in shards.shards] == [4, 4, 2]
    assert [shards.texts(id) for id in range(10)] == [(word,) for word in WORDS]
    assert shards.image_bytes(3) == picture(3)
    assert not (tmp_path / "set" / "bad.csv").exists()


def test_the_same_photos_elsewhere_make_the_same_bytes(tmp_path: Path) -> None:
    for place in ("here", "there"):
        make_shards(folder, {"input": photos(tmp_path / place)}, tmp_path / f"set-{place}")
    assert tars(tmp_path / "set-here") == tars(tmp_path / "set-there")
    here, there = ((tmp_path / f"set-{place}" / "manifest.json").read_bytes() for place in ("here", "there"))
    assert here == there and str(tmp_path).encode() not in here


def test_a_broken_picture_is_named_and_costs_only_itself(tmp_path: Path) -> None:
    whole = make_shards(folder, {"input": photos(tmp_path / "whole")}, tmp_path / "set", pairs_per_shard=4)
    damaged = photos(tmp_path / "damaged")
    (damaged / "fox.png").write_bytes(picture(5)[:-40])  # in the middle of the second shard
    shards = make_shards(folder, {"input": damaged}, tmp_path / "set-damaged", pairs_per_shard=4, max_bad_share=0.1)
    changed = {name for name, content in tars(tmp_path / "set").items() if content != tars(tmp_path / "set-damaged")[name]}
    assert changed == {"000001.tar"}
    assert [shards.pair(id) for id in range(9)] == [whole.pair(id) for id in range(10) if whole.names[id] != "fox.png"]
    header, row = ledger_rows(tmp_path / "set-damaged" / "bad.csv")
    assert row[:2] == [str(damaged), "fox.png"] and row[2].startswith("does not decode")


def test_too_many_broken_pictures_fail_the_job_and_leave_no_manifest(tmp_path: Path) -> None:
    damaged = photos(tmp_path / "photos")
    (damaged / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1 of 11 are bad \(9.1%\), more than --max-bad-share 0.05"):
        make_shards(folder, {"input": damaged}, tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()
    assert len(make_shards(folder, {"input": damaged}, tmp_path / "set", max_bad_share=0.1)) == 10


def test_a_set_that_is_there_is_used_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "set"
    command = ("make-shards", "folder", photos(tmp_path / "photos"), "--output", output)
    assert told(capsys, *command)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    assert told(capsys, *command) == (0, f"{output}: is there already, 10 pairs\n")
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before


@pytest.mark.parametrize("change", ["a photo more", "another sidecar", "another setting"])
def test_a_set_made_from_something_else_is_replaced_only_when_asked(tmp_path: Path, change: str) -> None:
    source, output = photos(tmp_path / "photos"), tmp_path / "set"
    (source / "cat.txt").write_text("a cat")
    make_shards(folder, {"input": source}, output)
    before = tars(output)
    pairs_per_shard = 1000
    if change == "a photo more":
        (source / "kiwi.png").write_bytes(picture(20))
    elif change == "another sidecar":
        (source / "cat.txt").write_text("a hat")  # of the same length
    else:
        pairs_per_shard = 5
    wanted = "pairs_per_shard was 1000 and is 5 now" if change == "another setting" else r"inputs.input was \w{12}.. and is \w{12}.. now"
    with pytest.raises(InputError, match=f"was made with other settings or inputs: {wanted}"):
        make_shards(folder, {"input": source}, output, pairs_per_shard)
    assert tars(output) == before
    assert len(make_shards(folder, {"input": source}, output, pairs_per_shard, overwrite=True)) == len(list(source.glob("*.png")))
    assert tars(output) != before


@pytest.mark.parametrize("source", ["folder", "captions", "img2dataset"])
def test_shards_written_into_the_folder_of_the_photos_are_recognised_by_the_second_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    given = photos(tmp_path / "photos")
    if source == "captions":
        given = given / "captions.tsv"
        given.write_text("file\tcaption\n" + "".join(f"{word}.png\ta drawn {word}\n" for word in WORDS))
    if source == "img2dataset":
        make_shards(folder, {"input": given}, tmp_path / "tars")
        given = tmp_path / "tars"
    output = (given if given.is_dir() else given.parent) / "runs" / "set"
    command = ["make-shards", source, str(given), "--output", str(output)]
    assert told(capsys, *command)[0] == 0
    (output.parent / "page.html").write_text("made later")
    assert told(capsys, *command) == (0, f"{output}: is there already, 10 pairs\n")


def test_an_invalid_number_is_reported_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = told(capsys, "make-shards", "folder", "photos", "--output", "set", "--max-pairs", "ten")
    assert (status, said) == (2, "error: --max-pairs: expected int, got ten. See: data-prep make-shards folder --help\n")


def test_only_the_first_pairs_are_taken_where_so_many_are_asked_for(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    shards = make_shards(folder, {"input": source}, tmp_path / "set", max_pairs=3)
    assert list(shards.names) == ["apple.png", "bear.png", "cat.png"]
    with pytest.raises(InputError, match="max_pairs was 3 and is not set now"):
        make_shards(folder, {"input": source}, tmp_path / "set")
    with pytest.raises(InputError, match="max_pairs is 0"):
        make_shards(folder, {"input": source}, tmp_path / "none", max_pairs=0)


# -- wrong input, through the door ---------------------------------------------------------------------------------------------------------


def test_an_empty_folder_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    status, message = told(capsys, "make-shards", "folder", tmp_path / "photos", "--output", tmp_path / "set")
    assert status == 2
    assert (
        message.splitlines()[-1]
        == f"error: {tmp_path / 'photos'}: no picture (jpg, png, webp, avif) in it or its subfolders. Give the folder that holds them"
    )


def test_a_folder_whose_only_picture_is_unreadable_is_an_error_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(picture(0)[:100])
    status, message = told(capsys, "make-shards", "folder", tmp_path / "photos", "--output", tmp_path / "set")
    assert status == 2
    assert f"error: nothing good is left: {tmp_path / 'photos'} cat.png: does not decode: " in message
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["bad.csv"]


def test_pictures_without_any_text_are_an_error_that_says_what_to_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_0001.png").write_bytes(picture(0))
    status, message = told(capsys, "make-shards", "folder", tmp_path / "photos", "--output", tmp_path / "set")
    assert status == 2
    assert "IMG_0001.png: has no text: no words in its name, and no IMG_0001.txt" in message


def test_unknown_sources_and_settings_are_reported_with_similar_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "make-shards", "foldr") == (
        2,
        "error: there is no source 'foldr'. Did you mean folder? (name your own source as package.module:function)\n",
    )
    assert told(capsys, "make-shards", "folder", tmp_path, "--outptu", "x") == (
        2,
        "error: there is no option --outptu. Did you mean --output or --input? See: data-prep make-shards folder --help\n",
    )


def test_settings_come_from_a_recipe_and_a_key_it_does_not_know_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"input": str(photos(tmp_path / "photos")), "output": str(tmp_path / "set"), "pairs_per_shard": 3}))
    assert told(capsys, "make-shards", "folder", "--config", recipe, "--pairs-per-shard", "6")[0] == 0
    assert len(ShardSet(tmp_path / "set").shards) == 2
    recipe.write_text(json.dumps({"inptu": "photos"}))
    status, message = told(capsys, "make-shards", "folder", "--config", recipe)
    assert status == 2 and "'inptu'" in message


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on file size stands in for the disk's end: the write fails in the same place, with an errno of its own."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [
        sys.executable,
        "-B",  # bytecode is cut off at the limit without an error, and everything after this would import it
        "-m",
        "data_prep",
        "make-shards",
        "folder",
        photos(tmp_path / "photos", size=64),
        "--output",
        tmp_path / "set",
    ]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # Python itself leaves a .pyc that is cut at the limit, and then reads it
    done = subprocess.run(command, preexec_fn=limit, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "set").iterdir())


# -- sources of other people ---------------------------------------------------------------------------------------------------------------

OWN = '''
from collections.abc import Iterator
from multimodal.pairs import Pair
from multimodal.shards import Ledger

def colours(num: int, *, ledger: Ledger) -> Iterator[Pair]:
    """Pictures of one colour.

    num: how many.
    """
    import io
    from PIL import Image
    for n in range(num):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (n, 0, 0)).save(file, "PNG")
        yield Pair(f"{n}.png", file.getvalue(), "png", (f"red {n}",), str(n))
'''


def test_a_source_from_outside_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_source.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert told(capsys, "make-shards", "own_source:colours", "--num", "3", "--output", tmp_path / "set")[0] == 0
    assert list(ShardSet(tmp_path / "set").groups) == ["0", "1", "2"]
    assert main(["make-shards", "own_source:colours", "--help"]) == 0
    assert "--num NUM" in (printed := capsys.readouterr().out) and "how many (required)" in printed


def test_names_that_come_twice_and_texts_that_cannot_be_stored_are_left_out_and_named(tmp_path: Path) -> None:
    def source(*, ledger: Ledger) -> Iterator[Pair]:
        for name, text in [("a", "first"), ("a", "second"), ("b", "half a pair \ud800"), ("c", "third")]:
            yield Pair(name, picture(0), "png", (text,), name)

    shards = make_shards(source, {}, tmp_path / "set", max_bad_share=0.5)
    assert [shards.texts(id)[0] for id in range(len(shards))] == ["first", "third"]
    assert [(row[1], row[2][:24]) for row in ledger_rows(tmp_path / "set" / "bad.csv")[1:]] == [
        ("a", "a pair of this name came"),
        ("b", "pair 'b' cannot be store"),
    ]


def test_a_source_without_any_pair_is_an_error(tmp_path: Path) -> None:
    def source(*, ledger: Ledger) -> Iterator[Pair]:
        yield from ()

    with pytest.raises(InputError, match="nothing was read"):
        make_shards(source, {}, tmp_path / "set")
    with pytest.raises(InputError, match="unexpected keyword argument 'colour'"):
        make_shards(source, {"colour": "red"}, tmp_path / "set")


def test_a_source_that_stops_halfway_leaves_no_manifest_and_the_next_run_makes_the_set(tmp_path: Path) -> None:
    whole = photos(tmp_path / "photos")

    def unplugged(input: Path, *, ledger: Ledger) -> Iterator[Pair]:
        for n, pair in enumerate(folder(input, ledger=ledger)):
            if n == 7:
                raise OSError("unplugged")
            yield pair

    with pytest.raises(OSError, match="unplugged"):
        make_shards(unplugged, {"input": whole}, tmp_path / "set", pairs_per_shard=2)
    assert not (tmp_path / "set" / "manifest.json").exists()
    assert len(make_shards(folder, {"input": whole}, tmp_path / "set", pairs_per_shard=2)) == 10
