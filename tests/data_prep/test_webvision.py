"""WebVision in its owners' layouts: lists line by line beside each other, texts in JSON files that many pictures share."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.conformance import check_broken_items, check_parts, check_source, read_all
from data_prep.sources.webvision import plan, webvision
from multimodal.errors import InputError
from multimodal.shards import ShardSet

CLASSES = ["tench, Tinca tinca", "goldfish", "great white shark"]
GOOGLE = {
    "google/q0001.json": [
        {"title": "A tench", "description": "Caught in May."},
        {"title": "Not downloaded"},
        {"title": " ", "description": "A bowl."},
    ],
    "google/q0002.json": [{"title": "Shark", "tags": ["sea", "fish"], "description": None}],
}
FLICKR = {"flickr/q0001.json": [{"tags": ["tench", " pond "], "title": "DSC1", "description": ""}]}
ROWS = {
    "google": [("google/q0001.json", 1, 0), ("google/q0001.json", 3, 1), ("google/q0002.json", 1, 2)],
    "flickr": [("flickr/q0001.json", 1, 0)],
}
NAMES = {
    "google": ["google/q0001/a.jpg", "google/q0001/c.jpg", "google/q0002/a.jpg"],
    "flickr": ["flickr/q0001/f.jpg"],
    "val": ["val000001.jpg", "val000002.jpg"],
}


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def data_set(root: Path, layout: str = "json") -> Path:
    """layout: json, as the archives unpack; meta, with the JSON files under meta/ and the pictures under train_images_256/."""
    for source in ("google", "flickr"):
        write_lists(root, source, [source])
    write_lists(root, "all", ["google", "flickr"])
    write(root / "info/val_filelist.txt", "val000001.jpg 2\nval000002.jpg 0\n")
    write(root / "info/synsets.txt", "".join(f"n0144076{number} {words}\n" for number, words in enumerate(CLASSES)))
    for path, rows in (GOOGLE | FLICKR).items():
        source, _, name = path.partition("/")
        write(root / (f"{source}_json/{name}" if layout == "json" else f"meta/{path}"), json.dumps(rows))
    for seed, name in enumerate(NAMES["google"] + NAMES["flickr"]):
        write(root / ("" if layout == "json" else "train_images_256") / name, picture(seed))
    for seed, name in enumerate(NAMES["val"], 10):
        write(root / "val_images_256" / name, picture(seed))
    return root


def write_lists(root: Path, called: str, sources: list[str]) -> None:
    rows = [(name, *row) for source in sources for name, row in zip(NAMES[source], ROWS[source], strict=True)]
    write(root / f"info/train_filelist_{called}.txt", "".join(f"{name} {label}\n" for name, _, _, label in rows))
    write(root / f"info/train_meta_list_{called}.txt", "".join(f"{path} {row}\n" for _, path, row, _ in rows))


@pytest.mark.parametrize("layout", ["json", "meta"])
def test_pictures_come_with_their_row_of_text_and_their_class(tmp_path: Path, layout: str) -> None:
    pairs = check_source(webvision, {"input": data_set(tmp_path, layout)})
    assert [(pair.name, pair.texts, pair.split, pair.group, pair.metadata) for pair in pairs] == [
        ("google/q0001/a.jpg", ("A tench\nCaught in May.",), "train", "google/q0001/a.jpg", {"label": 0, "class": "tench, Tinca tinca"}),
        ("google/q0001/c.jpg", ("A bowl.",), "train", "google/q0001/c.jpg", {"label": 1, "class": "goldfish"}),
        ("google/q0002/a.jpg", ("Shark\nsea, fish",), "train", "google/q0002/a.jpg", {"label": 2, "class": "great white shark"}),
        ("flickr/q0001/f.jpg", ("DSC1\ntench, pond",), "train", "flickr/q0001/f.jpg", {"label": 0, "class": "tench, Tinca tinca"}),
    ]
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(webvision, {"input": tmp_path}, pairs_per_shard)


def test_the_lists_of_google_and_flickr_are_those_of_all_one_after_the_other(tmp_path: Path) -> None:
    data_set(tmp_path)
    parts = [check_source(webvision, {"input": tmp_path, "filelist": name}) for name in ("google", "flickr")]
    assert parts[0] + parts[1] == check_source(webvision, {"input": tmp_path})


def test_title_description_and_tags_may_be_texts_of_their_own(tmp_path: Path) -> None:
    pairs = check_source(webvision, {"input": data_set(tmp_path), "text": "parts"})
    assert [pair.texts for pair in pairs] == [("A tench", "Caught in May."), ("A bowl.",), ("Shark", "sea, fish"), ("DSC1", "tench, pond")]


def test_pictures_of_val_are_paired_with_the_name_of_their_class(tmp_path: Path) -> None:
    settings = {"input": data_set(tmp_path), "filelist": "val"}
    pairs = check_source(webvision, settings)
    assert [(pair.name, pair.texts, pair.split) for pair in pairs] == [
        ("val000001.jpg", ("great white shark",), "val"),
        ("val000002.jpg", ("tench, Tinca tinca",), "val"),
    ]
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(webvision, settings, pairs_per_shard)
    (tmp_path / "info/synsets.txt").unlink()
    with pytest.raises(InputError, match="expected info/synsets.txt, and found"):
        plan(10, **settings)


def test_without_class_names_a_training_picture_keeps_its_number(tmp_path: Path) -> None:
    (data_set(tmp_path) / "info/synsets.txt").unlink()
    assert [pair.metadata for pair in check_source(webvision, {"input": tmp_path, "filelist": "flickr"})] == [{"label": 0}]


def many(root: Path, rows_of: dict[str, int]) -> Path:
    """Lists of so many rows of each JSON file; only the first picture is there, and no text is read."""
    rows = [(query, row) for query, num in rows_of.items() for row in range(1, num + 1)]
    write(root / "info/train_filelist_google.txt", "".join(f"google/{query}/{row}.jpg 0\n" for query, row in rows))
    write(root / "info/train_meta_list_google.txt", "".join(f"google/{query}.json {row}\n" for query, row in rows))
    write(root / "google/q1/1.jpg", picture(0))
    write(root / "google_json/q1.json", "[]")
    return root


def test_parts_end_where_a_json_file_does_unless_it_has_more_rows_than_a_shard(tmp_path: Path) -> None:
    parts = plan(4, many(tmp_path, {"q1": 3, "q2": 1, "q3": 2, "q4": 3, "q5": 9}), "google")
    assert [(part["line"], part["num"]) for part in parts] == [(0, 4), (4, 2), (6, 3), (9, 4), (13, 4), (17, 1)]


@pytest.mark.parametrize(
    ("path", "content", "lost", "reason"),
    [
        ("google_json/q0001.json", "[{}", 2, "its text is in google/q0001.json, which is not JSON"),
        ("google_json/q0001.json", '{"rows": []}', 2, "its text is in google/q0001.json: expected a list, got a dict"),
        (
            "google_json/q0001.json",
            '[{"title": "A tench", "description": "Caught in May."}]',
            1,
            "its text is in row 3 of google/q0001.json",
        ),
        ("google_json/q0002.json", '["Shark"]', 1, "row 1 of google/q0002.json: expected an object, got a str"),
        ("google_json/q0002.json", '[{"title": 7}]', 1, "its `title`: expected a string, got a int"),
        ("google_json/q0002.json", '[{"tags": "sea"}]', 1, "`tags` in row 1 of google/q0002.json is no list of strings"),
        ("google_json/q0002.json", '[{"title": "", "tags": []}]', 1, "has no text"),
        (
            "google_json/q0002.json",
            None,
            1,
            "its text is in google/q0002.json, and none of these files exists: google_json/q0002.json, meta/google",
        ),
        ("google/q0002/a.jpg", None, 1, "no such picture in"),
        ("google/q0002/a.jpg", "no picture", 1, "not a picture"),
        ("info/synsets.txt", "n01 tench, Tinca tinca\nn02 goldfish\n", 1, "its class is 2, and info/synsets.txt has 0 to 1"),
    ],
)
def test_what_is_broken_costs_the_pictures_it_speaks_of(tmp_path: Path, path: str, content: str | None, lost: int, reason: str) -> None:
    whole, damaged = data_set(tmp_path / "whole"), data_set(tmp_path / "damaged")
    if content is None:
        (damaged / path).unlink()
    else:
        write(damaged / path, content)
    settings = [{"input": root, "filelist": "google"} for root in (whole, damaged)]
    names = NAMES["google"][:2][-lost:] if "q0001" in path else NAMES["google"][2:]
    check_broken_items(webvision, *settings, names)
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(webvision, settings[1], pairs_per_shard)
    _, ledger = read_all(webvision, settings[1])
    assert all(bad.reason.startswith(reason) for bad in ledger.entries), ledger.entries


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("google/q0002/a.jpg", "google/q0002.json 1", "expected path and class, `google/q0001/a.jpg 0`, got b'google/q0002/a.jpg'"),
        ("google/q0002/a.jpg x", "google/q0002.json 1", "expected path and class, `google/q0001/a.jpg 0`, got b'google/q0002/a.jpg x'"),
        ("google/q0002/a.jpg 2", "google/q0002.json", "expected JSON file and row, `google/q0001.json 1`, got b'google/q0002.json'"),
        ("google/q0002/a.jpg 2", "google/q0002.json 0", "its text is in row 0 of google/q0002.json, which has 1"),
        ("google/q0002/a.jpg 2", "../google_json/q0002.json 1", "its text is in ../google_json/q0002.json, and none of these files exists"),
        ("../google/q0002/a.jpg 2", "google/q0002.json 1", "its path leads out of the data set"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_by_its_number(tmp_path: Path, file: str, text: str, reason: str) -> None:
    data_set(tmp_path)
    for name, line in (("train_filelist_google", file), ("train_meta_list_google", text)):
        path = tmp_path / f"info/{name}.txt"
        path.write_text("\n".join([*path.read_text().splitlines()[:2], line]) + "\n")
    pairs, ledger = read_all(webvision, {"input": tmp_path, "filelist": "google"})
    assert [pair.name for pair in pairs] == NAMES["google"][:2]
    [bad] = ledger.entries
    assert bad.where == "train_filelist_google.txt line 3" and bad.reason.startswith(reason)


@pytest.mark.parametrize(
    ("name", "other"), [("train_filelist_google", "train_meta_list_google"), ("train_meta_list_google", "train_filelist_google")]
)
def test_lists_of_different_length_are_an_error(tmp_path: Path, name: str, other: str) -> None:
    path = data_set(tmp_path) / f"info/{name}.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=rf"{name}.txt: ends after 2 lines, before {other}.txt"):
        plan(10, tmp_path, "google")


def test_a_wrong_folder_a_missing_archive_and_an_empty_list_are_reported(tmp_path: Path) -> None:
    root = data_set(tmp_path / "data" / "WebVision")
    with pytest.raises(InputError, match=rf"found WebVision/. They are in {root}: give that folder"):
        plan(10, tmp_path / "data")
    (root / "google_json").rename(root / "elsewhere")
    with pytest.raises(
        InputError, match=r"expected google_json/q0001.json, meta/google/q0001.json, google/q0001.json, and found elsewhere/"
    ):
        plan(10, root, "google")
    (root / "elsewhere").rename(root / "google_json")
    (root / "google").rename(root / "pictures")
    with pytest.raises(InputError, match=r"the first picture is google/q0001/a.jpg; expected google/q0001, train_images_256/google/q0001"):
        plan(10, root, "google")
    (root / "info/val_filelist.txt").write_text("")
    with pytest.raises(InputError, match="val_filelist.txt: is empty"):
        plan(10, root, "val")


def test_the_command_makes_shards_of_it_and_notices_another_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data_set(tmp_path / "data")
    command = ["make-shards", "webvision", str(root), "--filelist", "google", "--output", str(tmp_path / "set")]
    assert main(command) == 0 and len(ShardSet(tmp_path / "set")) == 3
    assert main(command) == 0 and "is there already" in capsys.readouterr().err
    write(root / "google_json/q0002.json", json.dumps([{"title": "A longer text"}]))
    assert main(command) == 2 and "inputs.json" in capsys.readouterr().err
