"""Pictures with a class or an identity and no text are pairs: written, read, indexed and verified; what needs texts says so."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.pictures.scene_text import add_scene_text
from data_prep.spaces.columns import make_columns
from data_prep.spaces.texts import read_texts
from multimodal.data import Captions
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter
from multimodal.shards.index import index_tars
from multimodal.shards.labels import in_order, read_labels
from multimodal.shards.verify import find_problems, read_lengths
from multimodal.text import Normaliser, Vocabulary, WordSpace


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def pair(number: int) -> Pair:
    """Every third one has a text."""
    texts = ("a dog", "a wet dog") if number % 3 == 0 else ()
    return Pair(
        f"{number}.png", picture(number), "png", texts, f"group {number}", metadata={"label": f"{number % 4}", "camera": number % 2}
    )


NUM = 9
PAIRS = [pair(number) for number in range(NUM)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("without") / "set"
    with ShardWriter(folder, pairs_per_shard=4) as writer:
        for one in PAIRS:
            writer.write(one)
    return ShardSet(folder)


def test_they_are_read_as_they_were_written_and_nothing_is_wrong_with_them(shards: ShardSet) -> None:
    assert list(shards) == PAIRS
    assert shards.num_texts.tolist() == [len(one.texts) for one in PAIRS]
    assert not list(find_problems(shards))
    assert len(read_lengths(shards).characters) == 2 * 3 and shards.manifest.counts["texts"] == 6
    with tarfile.open(shards.path / "000000.tar") as tar:
        names = tar.getnames()
    assert "000000000.txt" in names and "000000001.txt" not in names and "000000001.json" in names


def test_a_foreign_index_finds_them_too(shards: ShardSet, tmp_path: Path) -> None:
    for tar in shards.path.glob("*.tar"):
        (tmp_path / tar.name).write_bytes(tar.read_bytes())
    index_tars(tmp_path)
    assert list(ShardSet(tmp_path)) == PAIRS


def test_a_blank_text_is_still_none() -> None:
    with pytest.raises(ValueError, match="has a blank text among its 2; a picture without any has texts="):
        Pair("a.png", b"x", "png", ("a", " "), "g")


def test_captions_of_such_pairs_are_bad_rows_with_a_reason(shards: ShardSet) -> None:
    rows = Captions().open(shards, np.arange(NUM))(np.arange(4), np.arange(4, dtype=np.uint64))
    assert list(rows.values) == ["a dog", "", "", "a wet dog"] and rows.ok.tolist() == [True, False, False, True]
    assert list(rows.reasons) == ["has no text"] * 2


def test_text_found_in_such_a_picture_is_its_text() -> None:
    [found] = add_scene_text([PAIRS[1]], lambda image: ["STOP"])
    assert found.texts == ("STOP",)


def test_what_needs_texts_says_so(shards: ShardSet, tmp_path: Path) -> None:
    space = WordSpace(Normaliser(), Vocabulary(("dog",), np.ones(1, np.int64), 10), np.ones((1, 2), np.float32))
    space.save(tmp_path / "space")
    with pytest.raises(InputError, match="6 of 9 pairs have no text, such as 1.png, and a column of a text space needs a text of each"):
        make_columns(tmp_path / "space", shards.path, "words")
    assert list(read_texts(shards.path, "all")) == ["a dog\na wet dog"] * 3


def test_a_text_space_of_no_texts_at_all_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "set") as writer:
        writer.write(PAIRS[1])
    with pytest.raises(InputError, match="1 of 1 pairs have no text.*a text space needs"):
        read_texts(tmp_path / "set", "all")


@pytest.mark.parametrize(
    ("values", "ordered"),
    [
        (["9", "10", "2", None, "2"], ["2", "9", "10"]),
        (["0010", "0002"], ["0002", "0010"]),
        (["b", "10", "a"], ["10", "a", "b"]),
        ([], []),
    ],
)
def test_classes_are_in_the_order_of_their_values(values: list[str | None], ordered: list[str]) -> None:
    assert in_order(values) == ordered


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "has no label in its metadata, which has nothing"),
        ({"label": "", "camera": 1}, "has an empty label in its metadata"),
        ({"label": 0.5}, "its label is 0.5; expected text or a whole number"),
        ({"label": True}, "its label is True"),
        ({"label": ["a"]}, r"its label is \['a'\]"),
    ],
)
def test_a_label_that_is_none_has_a_reason(tmp_path: Path, metadata: dict, reason: str) -> None:
    with ShardWriter(tmp_path / "set") as writer:
        writer.write(Pair("a.png", picture(0), "png", (), "a", metadata={"label": 7}))
        writer.write(Pair("b.png", picture(1), "png", (), "b", metadata=metadata))
    found = read_labels(ShardSet(tmp_path / "set"), np.arange(2), "label")
    assert found.values == ["7", None]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(found.reasons[1])
