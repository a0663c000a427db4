"""Word spaces: a text is its words' vectors, weighted as the formula says; fitted the same twice, opened without what fitted them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.spaces import fit_word2vec, from_wordllama
from multimodal.errors import InputError
from multimodal.text import Normaliser, Vocabulary, WordSpace
from multimodal.text.conformance import check_space

PLAIN = Normaliser()
WORDS = ["dog", "beach", "violin", "comet"]


def small_space(pooling: str, scaling: str = "length") -> WordSpace:
    vectors = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    return WordSpace(PLAIN, Vocabulary(WORDS, np.array([8, 2, 1, 0]), 9), vectors, pooling, scaling=scaling)


@pytest.fixture(scope="module")
def fitted(texts):
    return fit_word2vec(texts, dim=16, passes=10)


@pytest.fixture(scope="module")
def llama():
    pytest.importorskip("wordllama", reason="the package wordllama brings the vectors (extra: prep)")
    return from_wordllama(["a woman scientist", "a dog on the beach", "fireboat zzyzx"])


@pytest.mark.parametrize("pooling", ["mean", "tfidf"])
def test_word_spaces_keep_the_contract(pooling, tmp_path):
    check_space(small_space(pooling), ["dog beach", "violin", "dog dog comet"], tmp_path, without=["gensim", "scipy", "torch"])


def test_pooling_without_scaling_is_mean_weighted_mean_and_sum():
    dog, beach = small_space("mean").vectors[:2].astype(float)
    idf_dog, idf_beach = 1 + math.log(10 / 9), 1 + math.log(10 / 3)
    wanted = {
        "mean": (2 * dog + beach) / 3,
        "sum": 2 * dog + beach,
        "tfidf": (2 * idf_dog * dog + idf_beach * beach) / (2 * idf_dog + idf_beach),
    }
    for pooling, row in wanted.items():
        space = small_space(pooling, "none")
        np.testing.assert_allclose(space.embed(["dog beach dog", "zebra"]), [row, np.zeros(6)], atol=1e-6)


def test_scaling_to_a_range_puts_each_row_between_zero_and_one_and_keeps_its_order():
    length, ranged = (small_space("tfidf", scaling).embed(["dog", "dog beach", "zebra"]) for scaling in ("length", "range"))
    assert ranged.min(axis=1).tolist() == [0, 0, 0] and ranged.max(axis=1).tolist() == [1, 1, 0]
    assert np.array_equal(length[:2].argsort(axis=1), ranged[:2].argsort(axis=1))


def test_a_scaled_space_keeps_the_contract_and_one_without_has_the_manifest_it_always_had(tmp_path):
    check_space(small_space("sum", "range"), ["dog beach", "violin", "dog dog comet"], tmp_path, without=["gensim"])
    assert "scaling" not in small_space("mean").manifest.config and small_space("mean", "none").manifest.config["scaling"] == "none"


def test_skip_gram_and_cbow_are_different_fits(texts):
    skip_gram, cbow = (fit_word2vec(texts[:60], dim=8, passes=1, min_count=1, cbow=cbow) for cbow in (False, True))
    assert skip_gram.vocabulary == cbow.vocabulary and not np.array_equal(skip_gram.vectors, cbow.vectors)


def slow_pooling(space: WordSpace, text: str, idf: dict[str, float]) -> np.ndarray:
    total = [0.0] * space.dim
    for word in text.split():
        if word in space.vocabulary:
            vector = space.vectors[space.vocabulary.position(word)]
            total = [one + idf[word] * float(value) for one, value in zip(total, vector, strict=True)]
    norm = math.sqrt(sum(value * value for value in total))
    return np.array([value / norm if norm else 0.0 for value in total])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([*WORDS, "zebra"]), max_size=6), max_size=8))
def test_pooling_equals_the_sum_over_words_written_as_a_loop(texts):
    texts = [" ".join(words) for words in texts]
    # 9 documents; "comet" is in none of them and so has the largest idf
    idf = {word: 1 + math.log(10 / (1 + count)) for word, count in zip(WORDS, [8, 2, 1, 0], strict=True)}
    for pooling, weights in (("mean", dict.fromkeys(WORDS, 1.0)), ("tfidf", idf)):
        space = small_space(pooling)
        wanted = [slow_pooling(space, text, weights) for text in texts]
        np.testing.assert_allclose(space.embed(texts), np.reshape(wanted, (len(texts), 6)), atol=1e-6)


def test_portions_of_many_texts_give_the_same_bits(monkeypatch, texts):
    space = small_space("tfidf")
    texts = [f"{text} dog beach" for text in texts]
    whole = space.embed(texts)
    monkeypatch.setattr("multimodal.text.words._MAX_ROWS", 7)
    assert np.array_equal(space.embed(texts), whole)


def test_word2vec_puts_words_of_one_subject_together_and_does_so_twice(fitted, texts, tmp_path):
    rows = fitted.embed(["dog", "puppy", "violin"])
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    again = fit_word2vec(texts, dim=16, passes=10)
    assert np.array_equal(again.vectors, fitted.vectors) and again.fingerprint == fitted.fingerprint
    check_space(fitted, ["dog puppy", "violin", "beach"], tmp_path, without=["gensim"])


def test_word2vec_reads_texts_longer_than_gensim_takes_at_once(texts):
    # gensim drops what a sentence has beyond 10,000 words without a word
    space = fit_word2vec([" ".join(texts) * 6, "late late late"], min_count=1, dim=4, passes=1)
    assert "late" in space.vocabulary


def test_wordllama_words_keep_the_contract_and_open_without_the_package(llama, tmp_path):
    check_space(llama, ["woman scientist", "beach", "fireboat"], tmp_path, without=["wordllama", "tokenizers", "torch", "gensim"])


def test_wordllama_knows_its_whole_words_and_every_word_of_the_texts(llama):
    for word in ("dog", "ocean", "music", "scientist", "fireboat", "zzyzx"):
        assert word in llama.vocabulary
    assert "the" not in llama.vocabulary and "Dog" not in llama.vocabulary and len(llama.vocabulary) > 5000
    assert llama.vocabulary.document_frequencies[llama.vocabulary.position("ocean")] == 0


def test_a_word_of_several_tokens_is_their_mean(llama):
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    from multimodal.text.packages import package_folder

    folder = package_folder("wordllama")
    ids = Tokenizer.from_file(str(folder / "tokenizers/l2_supercat_tokenizer_config.json")).encode("fireboat", add_special_tokens=False).ids
    assert len(ids) > 1
    mean = load_file(folder / "weights/l2_supercat_256.safetensors")["embedding.weight"][ids].astype(np.float32).mean(0)
    np.testing.assert_allclose(llama.vectors[llama.vocabulary.position("fireboat")], mean, atol=1e-3)


def test_wordllama_puts_like_words_together(llama):
    rows = llama.embed(["sea", "ocean", "violin"])
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.1


def test_a_missing_package_is_an_error_that_says_how_to_get_it():
    from multimodal.text.packages import package_folder

    with pytest.raises(InputError, match="pip install no-such-vectors"):
        package_folder("no-such-vectors")


def test_vectors_of_another_vocabulary_and_unknown_poolings_are_errors():
    vocabulary = Vocabulary(["dog"], np.ones(1), 1)
    with pytest.raises(InputError, match="another vocabulary"):
        WordSpace(PLAIN, vocabulary, np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="mean, tfidf"):
        WordSpace(PLAIN, vocabulary, np.zeros((1, 3), np.float32), "max")
