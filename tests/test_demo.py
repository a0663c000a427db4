"""The demo's choice of a source for the user's own data, by what is in the path."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from data_prep.sources import find_source
from data_prep.sources.captions import captions
from multimodal.demo import _attempt, _of_first_seed, _own_source, _splits, demo
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.road import Gallery, Training
from multimodal.shards import ShardSet, ShardWriter, Split


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        ("t.tsv", "file\tcaption\n", "captions"),
        ("t.CSV", "file,caption\n", "captions"),
        ("captions_val2017.json", "{}", "captions"),
        ("Flickr8k.token.txt", "a.jpg#0\ta\n", "captions"),
        ("t.parquet", "", "captions"),
        ("t.jsonl", '{"file": "a.jpg", "caption": "a"}\n', "captions"),
        ("t.jsonl", '{"id": "a", "text": "b", "images": []}\n', "articles"),
        ("t.jsonl.gz", '{"id": "a", "text": "b", "images": []}\n', "articles"),
        ("photos/a.jpg", "", "folder"),
        ("tars/0.tar", "", "img2dataset"),
    ],
)
def test_the_source_is_chosen_by_what_is_in_the_path(tmp_path: Path, name: str, content: str, source: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    data = path if path.parent == tmp_path else path.parent
    assert _own_source(data) == [source, "--input", data] and callable(find_source(source))
    if source in ("captions", "articles"):
        assert _own_source(data, tmp_path) == [source, "--input", data, "--images", tmp_path]
    else:
        with pytest.raises(InputError, match="only for a file of captions or articles, and .* is a folder"):
            _own_source(data, tmp_path)


def test_every_option_that_a_message_about_a_table_names_reaches_its_reader(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("bild;text\n")
    table = {"--file-column": "bild", "--columns": ["bild", "text"], "--encoding": "cp1251", "--allow-outside": True}
    given = [*("--file-column", "bild", "--columns", "bild", "text", "--encoding", "cp1251", "--allow-outside")]
    assert _own_source(tmp_path / "t.csv", None, table) == ["captions", "--input", tmp_path / "t.csv", *given]
    options = {"file_column", "caption_column", "split_column", "columns", "encoding", "allow_outside"}
    assert options <= set(inspect.signature(demo).parameters) & set(inspect.signature(captions).parameters)
    with pytest.raises(InputError, match="--file-column: only for a file of captions, and .* is a folder"):
        _own_source(tmp_path, None, {"--file-column": "bild"})
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "b", "images": []}\n')
    with pytest.raises(InputError, match="holds articles, whose field names are fixed; leave out --file-column"):
        _own_source(tmp_path / "a.jsonl", None, {"--file-column": "bild", "--encoding": "utf-8"})


def test_data_that_no_source_reads_is_an_error_that_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(
        InputError, match=r"t.xlsx: files of captions and articles end in .tsv, .csv, .*.parquet.*; for pictures, give their folder"
    ):
        demo(tmp_path / "t.xlsx", output=tmp_path / "out")
    with pytest.raises(InputError, match="nowhere: does not exist. --data takes a folder of images, a file of captions, a .jsonl"):
        demo(tmp_path / "nowhere", output=tmp_path / "out")
    with pytest.raises(InputError, match="--images pictures: needs --data"):
        demo(images=Path("pictures"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def shard_set(path: Path, groups: list[str]) -> Gallery:
    with ShardWriter(path) as writer:
        for number, group in enumerate(groups):
            writer.write(Pair(f"{number}.png", b"picture", "png", (f"text {number}",), group=group))
    return Gallery("unseen", path, "test")


@pytest.mark.parametrize("groups", [[f"photo {number}" for number in range(30)], [f"class {number % 5}" for number in range(30)]])
def test_thirty_pictures_always_have_splits_that_leave_enough_on_both_sides(tmp_path: Path, groups: list[str]) -> None:
    gallery = shard_set(tmp_path / "set", groups)
    splits = _splits(gallery, 3)
    assert len(splits) == 3 and splits == sorted(set(splits))
    for seed in splits:
        ids = Split(seed).ids(ShardSet(gallery.shards), "test")
        assert len(ids) >= 2 and 30 - len(ids) >= 16 and len({groups[id] for id in ids.tolist()}) > 1


def test_many_pictures_are_split_by_the_first_seeds(tmp_path: Path) -> None:
    assert _splits(shard_set(tmp_path / "set", [f"photo {number}" for number in range(200)]), 3) == [0, 1, 2]


def test_too_few_pictures_or_groups_stop_the_demo_before_its_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"10 pairs, \d+ to train on and \d+ held out .*at least 16 and 2 .*: give it more pictures"):
        _splits(shard_set(tmp_path / "few", [f"photo {number}" for number in range(10)]), 1)
    with pytest.raises(InputError, match=r"its 40 pairs have only 2 groups \('cat', 'dog'\), and a group is never split"):
        _splits(shard_set(tmp_path / "two", ["cat", "dog"] * 20), 1)


def test_what_a_family_cannot_do_is_its_own_loss_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery, done = shard_set(tmp_path / "set", [f"photo {number}" for number in range(30)]), []
    command = ("data-prep", "fit-text-space", "word2vec", "--shards", gallery.shards, "--min-count", 99, "--output", tmp_path / "space")
    with pytest.raises(InputError, match="in at least 99 of them. Lower min_count"):
        _attempt(done, *command)
    said = capsys.readouterr().err
    assert said.startswith("$ data-prep fit-text-space word2vec") and "error: no word of" in said and len(done) == 1


def test_the_first_split_on_which_any_family_learned_is_the_one_shown(tmp_path: Path) -> None:
    gallery = Gallery("unseen", tmp_path, "test")
    trainings = [
        Training(name, name, tmp_path, tmp_path, tmp_path, "text", [gallery], seed) for name, seed in (("a", 3), ("b", 3), ("a", 5))
    ]
    assert _of_first_seed(trainings) == trainings[:2]


def test_a_tar_among_photos_leaves_them_a_folder_of_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "holiday").mkdir()
    for name in ("backup.tar", "holiday/a dog.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert _own_source(tmp_path) == ["folder", "--input", tmp_path]
    assert "uses its pictures, and ignores its 1 .tar files" in capsys.readouterr().err
