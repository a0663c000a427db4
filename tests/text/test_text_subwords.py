"""FastText: any word has a vector, the one that gensim gives it; saved and opened without gensim."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.spaces import fit_fasttext
from data_prep.spaces.corpus import Corpus
from multimodal.errors import InputError
from multimodal.text import FastTextSpace, Normaliser, Vocabulary
from multimodal.text.conformance import check_space
from multimodal.text.subwords import ngram_hash, ngrams


@pytest.fixture(scope="module")
def fitted(texts):
    return fit_fasttext(texts, dim=16, passes=10, num_buckets=2000)


@pytest.mark.parametrize("pooling", ["mean", "tfidf", "sum"])
def test_spaces_of_subwords_keep_the_contract(pooling, tmp_path):
    random = np.random.default_rng(0)
    vocabulary = Vocabulary(["dog", "beach"], np.array([8, 2]), 9)
    grams = random.standard_normal((50, 6)).astype(np.float16)
    space = FastTextSpace(
        Normaliser(),
        vocabulary,
        random.standard_normal((2, 6)).astype(np.float32),
        pooling,
        ngram_vectors=grams,
        min_letters=3,
        max_letters=6,
    )
    check_space(space, ["dog beach", "dogs", "beachside zxqv dog"], tmp_path, without=["gensim", "scipy", "torch"])


def test_a_word_that_no_text_had_is_near_those_it_shares_parts_with(fitted):
    assert "beaches" not in fitted.vocabulary
    rows = fitted.embed(["beaches", "beach", "violin"])
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    assert fitted.unknown_words("beaches") == {}


def test_a_word_too_short_for_an_ngram_is_unknown(texts):
    vocabulary = Vocabulary(["dog"], np.array([3]), 9)
    one = {"ngram_vectors": np.ones((5, 4), np.float32), "min_letters": 5, "max_letters": 6}
    space = FastTextSpace(Normaliser(), vocabulary, np.ones((1, 4), np.float32), **one)
    assert not space.embed(["ox"]).any() and space.unknown_words("ox dog") == {"ox": []}
    assert space.embed(["oxen"]).any()


def test_the_same_seed_fits_the_same_vectors(texts):
    one, same = (fit_fasttext(texts[:60], dim=8, passes=1, min_count=1, num_buckets=100, cbow=True) for _ in range(2))
    assert one.fingerprint == same.fingerprint


def test_vectors_of_known_and_unknown_words_are_gensims(texts):
    FastText = pytest.importorskip("gensim.models", reason="gensim is the reference (extra: prep)").FastText
    space = fit_fasttext(texts, Normaliser(), dim=8, passes=2, num_buckets=300)
    corpus = Corpus.read(texts, Normaliser(), 5)
    words = [[corpus.vocabulary.words[position] for position in document] for document in corpus]
    model = FastText(vector_size=8, window=5, min_count=1, sg=1, negative=10, seed=0, workers=1, epochs=2, bucket=300)
    model.build_vocab(words)
    model.train(words, total_examples=len(words), epochs=2)
    for word in ["beach", "beaches", "dogged", "ünterseeböot", "小さい犬"]:
        np.testing.assert_allclose(space.word_vector(word), model.wv[word], atol=2e-3 * np.abs(model.wv[word]).max())  # float16


def test_ngrams_and_their_hashes_are_those_of_facebooks_program():
    gensim = pytest.importorskip("gensim.models.fasttext_inner", reason="gensim is the reference (extra: prep)")
    for word in ["a", "dog", "wäre", "日本語", "promenade"]:
        for least, most in [(1, 2), (3, 6), (5, 5)]:
            found = ngrams(word, least, most)
            assert found == gensim.compute_ngrams_bytes(word, least, most)
            assert [ngram_hash(gram) for gram in found] == [gensim.ft_hash_bytes(gram) for gram in found]


def test_ngrams_of_no_length_are_an_error(texts):
    with pytest.raises(InputError, match="n-grams of 4 to 3 letters"):
        fit_fasttext(texts, min_letters=4, max_letters=3)
