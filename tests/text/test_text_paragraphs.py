"""Doc2Vec: a text's vector is where the objective, written as a loop, is largest; the same each time, and of one word the word's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.spaces import fit_doc2vec
from multimodal.errors import InputError
from multimodal.text import Doc2VecSpace, Normaliser, Vocabulary
from multimodal.text.conformance import check_space

WORDS = ["dog", "beach", "violin", "comet", "shell", "wave"]
COUNTS = np.array([40, 20, 9, 4, 2, 1])
TEXTS = ["dog beach", "violin", "dog dog comet wave violin shell beach", "beach dog", "zebra shell comet"]


def small_space(dm: bool = False, **more) -> Doc2VecSpace:
    random = np.random.default_rng(0)
    vectors, output = (random.standard_normal((6, 5)).astype(np.float32) for _ in range(2))
    return Doc2VecSpace(Normaliser(), Vocabulary(WORDS, COUNTS, 90), vectors, output, COUNTS, dm, **{"window": 2, "sample": 0.1, **more})


@pytest.fixture(scope="module", params=[False, True], ids=["PV-DBOW", "PV-DM"])
def fitted(request, texts):
    return fit_doc2vec(texts[:240], dim=16, dm=request.param, sample=0, prior=0.3)


@pytest.mark.parametrize("dm", [False, True])
def test_spaces_of_paragraphs_keep_the_contract(dm, tmp_path):
    check_space(small_space(dm), TEXTS, tmp_path, without=["gensim", "scipy", "torch", "numba"])


def test_a_fitted_space_keeps_the_contract(fitted, texts, tmp_path):
    check_space(fitted, [*texts[240:250], "dog"], tmp_path, without=["gensim", "scipy", "torch", "numba"])


def slow_objective(space: Doc2VecSpace, words: list[str], x: np.ndarray) -> float:
    """The formula of `Doc2VecSpace.infer`, a word and a noise word at a time, over all words as noise."""

    def log_logistic(value: float) -> float:
        return -math.log1p(math.exp(-value))

    ids = [space.vocabulary.position(word) for word in words]
    counts = [int(count) for count in space.counts]
    shares = [count / sum(counts) for count in counts]
    keep = [min(1.0, (math.sqrt(share / space.sample) + 1) * space.sample / share) for share in shares]  # as gensim's source has it
    powers = [count**0.75 for count in counts]
    total = -space.prior / 2 * float(x @ x)
    for at, word in enumerate(ids):
        around, size = x.copy(), 1.0
        if space.dm:
            for other in range(max(0, at - space.window), min(len(ids), at + space.window + 1)):
                if other != at:
                    around += keep[ids[other]] * space.vectors[ids[other]].astype(float)
                    size += keep[ids[other]]
        hidden = around / size
        one = log_logistic(float(space.output_vectors[word].astype(float) @ hidden))
        for noise, power in enumerate(powers):
            if noise != word:
                one += space.negative * power / sum(powers) * log_logistic(-float(space.output_vectors[noise].astype(float) @ hidden))
        total += keep[word] * size * one
    return total


@pytest.mark.parametrize("dm", [False, True])
@settings(max_examples=15, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=9), prior=st.sampled_from([0.1, 1.0, 10.0]))
def test_a_texts_vector_is_where_the_objective_written_as_a_loop_is_largest(dm, words, prior):
    space = small_space(dm, prior=prior)
    x = space.infer(np.array(space.vocabulary.ids(words)))
    slopes = []
    for axis in np.eye(space.dim) * 1e-4:
        ahead, behind = (slow_objective(space, words, x + sign * axis) for sign in (1, -1))
        assert max(ahead, behind) < slow_objective(space, words, x)
        slopes.append((ahead - behind) / 2e-4)
    np.testing.assert_allclose(slopes, 0, atol=1e-5 * (1 + len(words)))


def test_a_text_of_one_known_word_is_that_words_vector_and_longer_ones_are_inferred():
    space = small_space(scaling="none")
    dog, beside_unknown, twice = space.embed(["dog", "zebra dog", "dog dog"])
    assert np.array_equal(dog, space.vectors[0]) and np.array_equal(beside_unknown, dog)
    assert not np.allclose(twice, dog)
    np.testing.assert_allclose(twice, space.infer(np.array([0, 0])), rtol=1e-6)


def test_the_order_of_words_says_something_in_pv_dm_alone():
    texts = ["dog comet shell violin wave beach", "wave violin dog shell beach comet"]
    (one, other), (first, second) = small_space(False).embed(texts), small_space(True).embed(texts)
    assert np.array_equal(one, other)
    assert not np.allclose(first, second, atol=1e-3)


def test_a_long_text_in_portions_has_the_vector_that_it_has_at_once(monkeypatch):
    space = small_space(True)
    ids = np.random.default_rng(1).integers(0, 6, 50)
    whole = space.infer(ids)
    monkeypatch.setattr("multimodal.text.paragraphs._CONTEXTS_AT_ONCE", 7)
    np.testing.assert_allclose(space.infer(ids), whole, atol=1e-6)


def test_a_part_of_the_noise_words_stands_for_all(monkeypatch):
    random = np.random.default_rng(2)
    counts = np.sort(random.zipf(1.3, 3000).clip(1, 100_000))[::-1]
    vocabulary = Vocabulary([f"word{number}" for number in range(3000)], counts, 9)
    vectors = random.standard_normal((3000, 8)).astype(np.float32)
    ids = [random.choice(3000, 12, p=counts / counts.sum()) for _ in range(10)]

    def inferred() -> np.ndarray:
        space = Doc2VecSpace(Normaliser(), vocabulary, vectors, vectors[::-1], counts)
        rows = np.array([space.infer(one) for one in ids])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    part = inferred()
    monkeypatch.setattr("multimodal.text.paragraphs._NOISE_WORDS", 3000)
    assert ((part * inferred()).sum(axis=1) > 0.98).all()  # of random vectors, which share less than fitted ones


def test_a_held_out_text_is_nearest_to_texts_of_its_subject_and_to_its_words(fitted, texts):
    # texts[n] is of subject n % 3, and the last 60 were not fitted on
    rows, held_out = fitted.embed(texts[:240]), fitted.embed(texts[240:])
    nearest = (held_out @ rows.T).argsort(axis=1)[:, ::-1][:, :10]
    assert (nearest % 3 == np.arange(60)[:, None] % 3).mean() > 0.95
    words = fitted.embed(["dog", "beach", "violin"])
    assert ((held_out @ words.T).argmax(axis=1) == np.arange(60) % 3).mean() > 0.9


def test_the_same_seed_fits_the_same_space_and_each_variant_another(texts):
    few = {"dim": 8, "passes": 1, "min_count": 1}
    one, same, seeded, dm = (fit_doc2vec(texts[:60], **few, **more) for more in ({}, {}, {"seed": 1}, {"dm": True}))
    assert one.fingerprint == same.fingerprint and np.array_equal(one.output_vectors, same.output_vectors)
    assert len({one.fingerprint, seeded.fingerprint, dm.fingerprint}) == 3


def test_texts_longer_than_gensim_takes_at_once_are_read_to_their_end(texts):
    # gensim drops what a document has beyond 10,000 words without a word
    space = fit_doc2vec([" ".join(texts) * 6 + " late", "late late"], min_count=1, dim=4, passes=1)
    assert space.counts[space.vocabulary.position("late")] == 3


def test_what_does_not_belong_together_is_an_error(texts):
    vocabulary, one = Vocabulary(["dog"], np.ones(1), 1), np.ones((1, 3), np.float32)
    with pytest.raises(InputError, match="another vocabulary"):
        Doc2VecSpace(Normaliser(), vocabulary, one, np.ones((1, 4), np.float32), np.ones(1))
    with pytest.raises(InputError, match="counts must be"):
        Doc2VecSpace(Normaliser(), vocabulary, one, one, np.zeros(1))
    for wrong in ({"prior": 0.0}, {"sample": 1.5}, {"passes": 0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}(=| is)"):
            fit_doc2vec(texts[:9], min_count=1, **wrong)
