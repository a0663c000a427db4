"""Files of word vectors: each format gives the vectors that were written, and what is damaged is named."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_prep.spaces import from_vector_file
from multimodal.errors import InputError
from multimodal.text import FastTextSpace, Normaliser, WordSpace
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
        (b"dog 1 2 3\nbeach 1 2\n", "line 2: expected a word and 3 numbers"),
        (b"dog 1 2 3\nbeach 1 two 3\n", "line 2: expected a word and 3 numbers"),
        (b"", "is empty. Download it again"),
        (b"dog\n", "line 1: expected a word and"),
        (b"2 3\n" + b"dog " + bytes(range(12)) + b"beach " + bytes(4), "word 2 of 2: the file ends early"),
        (b"the 1 2\n", "no word that the normaliser produces"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_where(content, message, tmp_path):
    (tmp_path / "vectors").write_bytes(content)
    with pytest.raises(InputError, match=message):
        from_vector_file(tmp_path / "vectors")


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="does not exist; give a file of word vectors"):
        from_vector_file(tmp_path / "glove.txt")


def test_a_word_space_says_what_file_it_is_of(tmp_path):
    space = from_vector_file(written(tmp_path / "glove.txt", "glove"), normaliser=Normaliser(), pooling="mean", scaling="range")
    assert isinstance(space, WordSpace) and space.origin.config["file"] == "glove.txt"
    rows = space.embed(["dog beach", "zxqv"])
    assert rows[0].min() == 0 and rows[0].max() == 1 and not rows[1].any()


def fasttext(words=("dog", "beach", "violin"), buckets=7, dim=4, kind=2, labels=0, longest=6, quantised=0, rows=None) -> bytes:
    """A file as Facebook's program writes it, made of plain numbers: header, words, matrix."""
    header = struct.pack("<14id", 793712314, 12, dim, 5, 5, 1, 5, 1, 1, kind, buckets, 3, longest, 100, 1e-4)
    counts = struct.pack("<3i2q", len(words) + labels, len(words), labels, 100, -1)
    entries = b"".join(word.encode() + b"\0" + struct.pack("<qb", 9, 0) for word in words)
    rows = len(words) + buckets if rows is None else rows
    matrix = np.random.default_rng(1).standard_normal((min(rows, 100), dim)).astype("<f4")
    return header + counts + entries + bytes([quantised]) + struct.pack("<2q", rows, dim) + matrix.tobytes() + b"hidden layer"


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("content", [fasttext(), "".join(f"{line}\n" for line in lines()).encode()], ids=["fasttext", "glove"])
@pytest.mark.parametrize("name", ["a.gz", "a.bz2", "a.xz", "a.zip", "wrong.suffix"])
def test_a_packed_file_gives_what_the_unpacked_one_does(content, name, tmp_path):
    (tmp_path / "plain").write_bytes(content)
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".suffix": gzip.compress}
    path = tmp_path / name
    if path.suffix == ".zip":
        zipped(path, **{"__MACOSX/._a": b"", "a.bin": content})
    else:
        path.write_bytes(packed[path.suffix](content))
    wanted, found = from_vector_file(tmp_path / "plain"), from_vector_file(path)
    assert type(found) is type(wanted) and found.vocabulary == wanted.vocabulary and np.array_equal(found.vectors, wanted.vectors)


def test_a_fasttext_word_is_the_mean_of_its_row_and_its_parts(tmp_path):
    (tmp_path / "a.bin").write_bytes(fasttext(words=("the", "violin", "Dog"), longest=3))
    matrix = np.frombuffer(fasttext(words=("the", "violin", "Dog"), longest=3)[-12 - 10 * 16 : -12], "<f4").reshape(10, 4)
    space = from_vector_file(tmp_path / "a.bin")
    assert isinstance(space, FastTextSpace) and space.vocabulary.words == ("violin", "dog")
    hashes = [2166136261] * 3
    for number, part in enumerate([b"<Do", b"Dog", b"og>"]):
        for byte in part:
            hashes[number] = (hashes[number] ^ byte) * 16777619 % 2**32
    wanted = np.mean([matrix[2], *(matrix[3 + value % 7] for value in hashes)], axis=0)
    np.testing.assert_allclose(space.vectors[1], wanted, rtol=2e-3)  # float16


@pytest.mark.parametrize("buckets", [0, 7])
def test_a_fasttext_file_without_parts_of_words_works_as_words_alone(buckets, tmp_path):
    (tmp_path / "a.bin").write_bytes(fasttext(buckets=buckets, longest=0))
    space = from_vector_file(tmp_path / "a.bin")
    assert type(space) is WordSpace and space.vocabulary.words == ("dog", "beach", "violin")


def test_a_fasttext_file_that_was_cut_anywhere_says_so(tmp_path):
    whole = fasttext().removesuffix(b"hidden layer")
    for end in range(4, len(whole)):
        (tmp_path / "a.bin").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"a.bin: is a FastText file that is cut off or damaged \(it ends in"):
            from_vector_file(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (fasttext(kind=3, labels=2), "is a FastText classifier"),
        (fasttext(labels=2), "is a FastText classifier"),
        (fasttext(quantised=1), "is a quantised FastText model"),
        (fasttext(rows=10**12), "1000000000000 vectors of 4 numbers for 3 words"),
        (fasttext(buckets=2**31 - 1, rows=2**31 + 2), "ends in its vectors of n-grams"),
        (fasttext(words=()).replace(struct.pack("<3i", 0, 0, 0), struct.pack("<3i", 2**31 - 1, 2**31 - 1, 0)), "2147483647"),
        (fasttext(words=("d" * 2000,)), "2000 bytes as its word 1"),
        (b"1000000000000 4\n" + b"dog " + bytes(range(16)), "word 2 of 1000000000000: the file ends early"),
        (b"3 1000000000000\n" + b"dog " + bytes(range(16)), "line 1: says 1000000000000 dimensions"),
        (b"dog " + b"1" * (1 << 21), "line 1: is longer than"),
        (b"<!DOCTYPE html>\n<title>404</title>", "is a web page"),
        (pickle.dumps({"vectors": 1}), "is a pickle, like gensim's .kv"),
        (b"SQLite format 3\0" + bytes(100), "is a database, like .magnitude files"),
        (b"\x93NUMPY" + bytes(100), "is an array without words"),
        ("dog 1 2\n".encode("utf-16"), "is text in UTF-16"),
        (gzip.compress(gzip.compress(b"dog 1 2\n")), "is packed twice"),
        (gzip.compress(fasttext())[:-60], "is compressed, and cut off or damaged"),
        (bz2.compress(fasttext())[:-60], "is compressed, and cut off or damaged"),
        (lzma.compress(fasttext())[:-60], "is compressed, and cut off or damaged"),
        (b"PK\x03\x04" + bytes(100), "is compressed, and cut off or damaged"),
        (b"dog 1 2\n\nbeach 1 2\nviolin 1 2 3 4\nwave x\n", "line 5: expected a word and 2 numbers"),
        (b"dog nan 1\nbeach 1e9 2\n", "the vectors of 2 of 2 words are not finite numbers, or too large for float16"),
    ],
)
def test_a_file_without_word_vectors_is_named_and_never_a_traceback(content, message, tmp_path):
    (tmp_path / "vectors.bin").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        from_vector_file(tmp_path / "vectors.bin")
    assert "vectors.bin" in str(raised.value) and "\n" not in str(raised.value)


def test_a_zip_of_several_files_and_a_folder_are_refused(tmp_path):
    zipped(tmp_path / "glove.zip", a=b"dog 1 2\n", b=b"dog 1 2\n")
    with pytest.raises(InputError, match=r"is a zip of 2 files \(a, b ...\). Unpack it, and give one of them"):
        from_vector_file(tmp_path / "glove.zip")
    with pytest.raises(InputError, match="is a folder"):
        from_vector_file(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"dog 1 2\nbeach 3 4\n\n\n",
        b"dog 1 2\r\nbeach 3 4\r\n",
        b"\xef\xbb\xbfdog 1 2\nbeach 3 4",
        b"dog\t1\t2\nbeach\t3\t4\n",
        b"3 2\ncaf\xe9 9 9\ndog 1 2\nbeach 3 4\n",
        b"dog 1 2\nbeach 3 4\ndog 7 7\nviolin nan 1\n",
    ],
    ids=["blank last lines", "CRLF", "byte order mark", "tabs", "cp1252 under a header", "a word twice and one that is no number"],
)
def test_text_as_programs_write_it_is_read(content, tmp_path):
    (tmp_path / "vectors.vec").write_bytes(content)
    space = from_vector_file(tmp_path / "vectors.vec")
    assert space.vocabulary.words == ("dog", "beach") and space.vectors.tolist() == [[1, 2], [3, 4]]


def test_words_that_are_left_out_and_words_that_are_missing_are_reported(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("9 2\ndog 1 2\nviolin nan 1\n")
    from_vector_file(tmp_path / "a.txt")
    said = capsys.readouterr().err
    assert "says 9 words, and it holds 2" in said and "vectors of 1 of 2 words" in said and "they are left out: 'violin'" in said
