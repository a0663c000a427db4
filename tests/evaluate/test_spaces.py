"""`multimodal text-space show` says what a space holds: its topics with their pairs, and what is near a word."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from multimodal.cli import main
from multimodal.evaluate.spaces import neighbours, strongest_pairs
from multimodal.pairs import Pair
from multimodal.shards import Column, ColumnWriter, ShardSet, ShardWriter
from multimodal.text import Doc2VecSpace, FastTextSpace, Normaliser, TopicSpace, Vocabulary, WordSpace

VOCABULARY = Vocabulary(["dog", "beach", "violin"], np.array([3, 2, 1]), 5)


def topics() -> TopicSpace:
    topic_word = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]], np.float32)
    return TopicSpace(Normaliser(), VOCABULARY, topic_word, np.full(2, 0.1, np.float32))


@pytest.fixture
def shards(tmp_path) -> ShardSet:
    file = io.BytesIO()
    Image.new("RGB", (20, 30), "green").save(file, "png")
    with ShardWriter(tmp_path / "shards", pairs_per_shard=3) as writer:
        for number in range(5):
            image = b"no picture" if number == 2 else file.getvalue()
            writer.write(Pair(f"{number}.png", image, "png", (f"text {number}",), group=str(number)))
    return ShardSet(tmp_path / "shards")


@pytest.fixture
def column(shards) -> Column:
    """Pair 2 has most of topic 0, pair 0 of topic 1; pair 4 has no row."""
    rows = np.array([[0.1, 0.9], [0.5, 0.5], [0.8, 0.2], [0.6, 0.4], [np.nan, np.nan]], np.float32)
    with ColumnWriter(shards, "lda", 2, "pair", "float32", {}, {"text-space": topics().fingerprint}) as writer:
        for shard in shards.shards:
            writer.write(shard, rows[shard.start : shard.start + shard.num_pairs])
    return Column.of(shards, "lda")


def test_show_prints_topics_or_frequent_words(tmp_path, capsys):
    topics().save(tmp_path / "topics")
    WordSpace(Normaliser(), VOCABULARY, np.eye(3, dtype=np.float32)).save(tmp_path / "words")
    assert main(["text-space", "show", str(tmp_path / "topics"), "--num-words", "2"]) == 0
    shown = capsys.readouterr().out
    assert "family topic, 2 dimensions" in shown and "topic   0: beach violin" in shown and "topic   1: dog violin" in shown
    assert main(["text-space", "show", str(tmp_path / "words")]) == 0
    assert "most frequent: dog beach violin" in capsys.readouterr().out


def test_a_space_of_paragraphs_shows_its_way_its_words_and_what_is_near_them(tmp_path, capsys):
    vectors = np.array([[1, 0], [3, 4], [-1, 1]], np.float32)
    Doc2VecSpace(Normaliser(), VOCABULARY, vectors, vectors, np.array([3, 2, 1]), dm=True).save(tmp_path / "paragraphs")
    assert main(["text-space", "show", str(tmp_path / "paragraphs"), "--words", "dog"]) == 0
    shown = capsys.readouterr().out
    assert "PV-DM" in shown and "most frequent: dog beach violin" in shown and "near dog: beach 0.60, violin -0.71" in shown


def test_show_of_what_is_no_space_is_an_error(tmp_path, capsys):
    assert main(["text-space", "show", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err


def test_neighbours_are_by_cosine_and_leave_out_the_word_itself():
    space = WordSpace(Normaliser(), VOCABULARY, np.array([[1, 0], [3, 4], [-1, 1]], np.float32))
    found = neighbours(space, "Dog", 5)
    assert [one.word for one in found] == ["beach", "violin"]
    assert [one.nearness for one in found] == pytest.approx([0.6, -(0.5**0.5)])


def test_neighbours_among_topics_are_the_words_that_speak_of_the_same():
    found = neighbours(topics(), "dog", 2)
    assert [one.word for one in found] == ["violin", "beach"]
    dog, violin = np.array([0.1, 0.5]) / 0.6, np.array([0.2, 0.4]) / 0.6
    assert found[0].nearness == pytest.approx(np.sqrt(dog * violin).sum())


def test_a_word_known_by_its_parts_alone_has_neighbours_too():
    grams = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    space = FastTextSpace(Normaliser(), VOCABULARY, np.eye(3, 4, dtype=np.float32), ngram_vectors=grams, min_letters=3, max_letters=4)
    assert len(neighbours(space, "beaches", 5)) == 3


def test_show_names_near_words_and_an_unknown_one_with_its_spellings(tmp_path, capsys):
    topics().save(tmp_path / "topics")
    assert main(["text-space", "show", str(tmp_path / "topics"), "--words", "dog", "beach"]) == 0
    assert "near dog: violin 0.98, beach 0." in capsys.readouterr().out
    assert main(["text-space", "show", str(tmp_path / "topics"), "--words", "baech"]) == 2
    assert "Near spellings: beach" in capsys.readouterr().err


def test_the_strongest_pairs_of_a_topic_come_first_and_pairs_without_a_row_do_not_count(column):
    first, second = strongest_pairs(topics(), column, 5, 2)
    assert first.ids.tolist() == [2, 3] and second.ids.tolist() == [0, 1]
    assert first.share == pytest.approx(0.5) and second.share == pytest.approx(0.5)


def test_a_page_has_each_topic_with_its_pictures(column, shards, tmp_path, capsys):
    topics().save(tmp_path / "topics")
    command = ["text-space", "show", str(tmp_path / "topics"), "--shards", str(shards.path), "--column", "lda", "--words", "dog"]
    assert main([*command, "--num-pairs", "2", "--html", str(tmp_path / "page.html")]) == 0
    assert "topic   0  50.0 %: beach violin dog\n      text 2 | text 3" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 3 and 'title="text 2"' in page  # pair 2's picture is broken, and is a blank
    assert "50.0 % of all pictures" in page and "violin 0.98" in page


def test_a_column_of_another_space_and_a_column_without_shards_are_errors(column, shards, tmp_path, capsys):
    topics().save(tmp_path / "topics")
    WordSpace(Normaliser(), VOCABULARY, np.eye(3, dtype=np.float32)).save(tmp_path / "words")
    TopicSpace(Normaliser(), VOCABULARY, np.ones((2, 3), np.float32), np.ones(2, np.float32)).save(tmp_path / "other")
    for space, message in (("other", "made by text space"), ("words", "has no topics")):
        assert main(["text-space", "show", str(tmp_path / space), "--shards", str(shards.path), "--column", "lda"]) == 2
        assert message in capsys.readouterr().err
    assert main(["text-space", "show", str(tmp_path / "topics"), "--column", "lda"]) == 2
    assert "need each other" in capsys.readouterr().err
