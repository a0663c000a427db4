"""Files of word vectors: each format gives the vectors that were written, and what is damaged is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.text import FastTextSpace, Normaliser, WordSpace, from_vector_file
from multimodal.text.conformance import check_space

WORDS = ["the", "dog", ",", "New_York", "Paris", "beach", "Dog", "café"]
VECTORS = np.random.default_rng(0).standard_normal((len(WORDS), 12)).astype(np.float32)
KEPT = ["dog", "paris", "beach", "café"]  # no stop word, no punctuation, and "Dog" is there in small letters


def lines() -> list[str]:
    return [f"{word} {' '.join(map(str, vector.tolist()))}" for word, vector in zip(WORDS, VECTORS, strict=True)]


def written(path: Path, form: str) -> Path:
    header = f"{len(WORDS)} {VECTORS.shape[1]}\n".encode()
    binary = header + b"".join(word.encode() + b" " + vector.tobytes() for word, vector in zip(WORDS, VECTORS, strict=True))
    text = "".join(f"{line}\n" for line in lines()).encode()
    content = {"glove": text, "vec": header + text.replace(b"\n", b" \n"), "binary": binary, "with newlines": _with_newlines(header)}[form]
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _with_newlines(header: bytes) -> bytes:  # as gensim and the first word2vec write it
    return header + b"".join(word.encode() + b" " + vector.tobytes() + b"\n" for word, vector in zip(WORDS, VECTORS, strict=True))


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.gz"])
@pytest.mark.parametrize("form", ["glove", "vec", "binary", "with newlines"])
def test_each_format_gives_the_vectors_written(form, name, tmp_path):
    space = from_vector_file(written(tmp_path / name, form), ["a dog", "dog and beach"])
    assert list(space.vocabulary.words) == KEPT
    wanted = VECTORS[[WORDS.index(word) for word in ["dog", "Paris", "beach", "café"]]]
    assert np.array_equal(space.vectors, wanted.astype(np.float16))
    assert space.vocabulary.document_frequencies.tolist() == [2, 0, 1, 0] and space.vocabulary.num_documents == 2


def test_a_space_from_a_file_keeps_the_contract(tmp_path):
    space = from_vector_file(written(tmp_path / "glove.txt", "glove"))
    (tmp_path / "box").mkdir()
    check_space(space, ["dog beach", "paris", "café dog"], tmp_path / "box", without=["gensim", "torch"])


def test_the_first_words_are_kept_and_small_letters_stand_before_capitals(tmp_path):
    assert list(from_vector_file(written(tmp_path / "a.txt", "glove"), max_words=2).vocabulary.words) == ["dog", "paris"]
    (tmp_path / "b.txt").write_text("Dog 1 0\nDOG 2 0\ndog 3 0\n")
    assert from_vector_file(tmp_path / "b.txt").vectors.tolist() == [[3, 0]]


def test_a_word_of_a_text_file_may_hold_blanks(tmp_path):
    (tmp_path / "glove.txt").write_text("dog 1 2 3\n. . . 4 5 6\nbeach 7 8 9\n")
    assert list(from_vector_file(tmp_path / "glove.txt").vocabulary.words) == ["dog", "beach"]


def test_a_file_of_facebooks_program_brings_its_parts_of_words(tmp_path):
    models = pytest.importorskip("gensim.models", reason="gensim writes the file (extra: prep)")
    from gensim.models.fasttext import save_facebook_model

    model = models.FastText([["dog", "beach", "violin"]] * 50, vector_size=8, min_count=1, bucket=100, workers=1, seed=1)
    save_facebook_model(model, str(tmp_path / "fasttext.bin"))
    space = from_vector_file(tmp_path / "fasttext.bin", ["a dog"])
    assert isinstance(space, FastTextSpace) and sorted(space.vocabulary.words) == ["beach", "dog", "violin"]
    for word in ("dog", "dogs", "beachside"):
        np.testing.assert_allclose(space.word_vector(word), model.wv[word], atol=2e-3 * np.abs(model.wv[word]).max())  # float16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dog 1 2 3\nbeach 1 2\n", "line 2: wanted a word and 3 numbers"),
        (b"dog 1 2 3\nbeach 1 two 3\n", "line 2: wanted a word and 3 numbers"),
        (b"", "no word that the normaliser gives"),
        (b"dog\n", "line 1: wanted a word and"),
        (b"2 3\n" + b"dog " + bytes(range(12)) + b"beach " + bytes(4), "word 2 of 2: the file ends early"),
        (b"the 1 2\n", "no word that the normaliser gives"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_where(content, message, tmp_path):
    (tmp_path / "vectors").write_bytes(content)
    with pytest.raises(InputError, match=message):
        from_vector_file(tmp_path / "vectors")


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file of word vectors"):
        from_vector_file(tmp_path / "glove.txt")


def test_a_word_space_says_what_file_it_is_of(tmp_path):
    space = from_vector_file(written(tmp_path / "glove.txt", "glove"), normaliser=Normaliser(), pooling="mean", scaling="range")
    assert isinstance(space, WordSpace) and space.origin.config["file"] == "glove.txt"
    rows = space.embed(["dog beach", "zxqv"])
    assert rows[0].min() == 0 and rows[0].max() == 1 and not rows[1].any()
