"""Topics: found where they are, inferred the same for a document whatever stands beside it, opened without gensim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.spaces import fit_topics
from multimodal.errors import InputError
from multimodal.text import Normaliser, TopicSpace, Vocabulary, open_space
from multimodal.text.compiled_topics import _infer
from multimodal.text.conformance import check_space
from multimodal.text.topics import _filled_length, digamma

PLAIN = Normaliser()


@pytest.fixture(scope="module")
def space(texts):
    return fit_topics(texts, PLAIN, num_topics=3, passes=5)


def random_space(num_topics: int, num_words: int, seed: int) -> TopicSpace:
    random = np.random.default_rng(seed)
    words = [f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"[:num_words]]
    topic_word = random.dirichlet(np.full(num_words, 0.1), num_topics).astype(np.float32) + np.float32(1e-6)
    return TopicSpace(PLAIN, Vocabulary(words, np.ones(num_words), 10), topic_word, np.full(num_topics, 0.1, np.float32))


def test_topics_keep_the_contract(space, tmp_path):
    check_space(
        space, ["a dog on the beach", "concert by the sea", "puppy", "wave wave wave wave"], tmp_path, without=["gensim", "scipy", "torch"]
    )


def test_each_topic_finds_its_block_of_words(space, blocks):
    assert sorted(map(sorted, space.top_words(8))) == sorted(map(sorted, blocks))


def test_a_text_of_one_subject_is_mostly_one_topic_and_a_mixed_one_two(space):
    dog, sea, both = space.embed(["dog puppy leash bark kennel", "beach wave sand surf tide", "dog puppy beach wave"])
    assert dog.max() > 0.8 and sea.max() > 0.8 and dog.argmax() != sea.argmax()
    assert both[dog.argmax()] > 0.3 and both[sea.argmax()] > 0.3


def test_the_same_seed_fits_the_same_topics_and_another_seed_others(texts):
    one, same, other = (fit_topics(texts[:60], PLAIN, num_topics=5, passes=2, seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(one.topic_word, same.topic_word) and one.fingerprint == same.fingerprint
    assert not np.array_equal(one.topic_word, other.topic_word) and one.fingerprint != other.fingerprint


def stopped(*texts: str):
    """Held-out texts, read when the topics are fitted: here the fit ends before it is whole."""
    yield from texts
    raise KeyboardInterrupt


def test_a_fit_that_was_stopped_goes_on_to_the_same_topics(texts, tmp_path, capsys):
    settings = {"normaliser": PLAIN, "num_topics": 3, "passes": 2, "chunk_size": 40}
    undisturbed = fit_topics(texts, **settings)
    for every in (120, 350):  # of 2 x 300 documents; the last note is of document 600, and of one in the second pass
        file = tmp_path / f"{every}.npz"
        with pytest.raises(KeyboardInterrupt):
            fit_topics(texts, **settings, held_out=stopped(), checkpoint=file, checkpoint_every=every)
        note = np.load(file)["chunk"]
        again = fit_topics(texts, **settings, checkpoint=file, checkpoint_every=every)
        assert np.array_equal(again.topic_word, undisturbed.topic_word) and note >= 8
    capsys.readouterr()
    other = fit_topics(texts, **{**settings, "num_topics": 4}, checkpoint=file, checkpoint_every=10**9)
    assert "of another fit" in capsys.readouterr().err
    assert np.array_equal(other.topic_word, fit_topics(texts, **{**settings, "num_topics": 4}).topic_word)


def test_unknown_words_are_named_with_near_spellings_and_move_nothing(space):
    assert space.unknown_words("dog and baech") == {"baech": ["beach"]}
    assert np.array_equal(space.embed(["dog baech zxqv"]), space.embed(["dog"]))
    assert space.unknown_words("the") == {"the": []}  # nothing is known of the whole text, so what was dropped is named


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), num_topics=st.sampled_from([1, 2, 7]), lengths=st.lists(st.integers(0, 30), max_size=12))
def test_rows_sum_to_one_and_no_batching_changes_a_bit(seed, num_topics, lengths):
    space = random_space(num_topics, 20, seed % 5)
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(space.vocabulary.words, length)) for length in lengths]
    rows = space.embed(texts)
    assert np.allclose(rows.sum(1), [1.0 if text else 0.0 for text in texts], atol=1e-6)
    alone = [space.embed([text]) for text in texts]
    assert np.array_equal(rows, np.concatenate([np.zeros((0, num_topics), np.float32), *alone]))


def test_many_documents_go_through_in_portions_with_the_same_bits(monkeypatch):
    space = random_space(4, 20, 0)
    random = np.random.default_rng(1)
    texts = [" ".join(random.choice(space.vocabulary.words, length)) for length in random.integers(1, 40, 100)]
    whole = space.embed(texts)
    monkeypatch.setattr("multimodal.text.topics._MAX_ELEMENTS", 200)
    assert np.array_equal(space.embed(texts), whole)


def slow_gamma(space: TopicSpace, words: list[int], start: np.ndarray) -> np.ndarray:
    """Blei, Ng and Jordan (2003), figure 6, with the shares phi written out, one occurrence of a word after the other."""
    gamma = start.copy()
    for _ in range(space.iterations):
        last = gamma
        gamma = space.alpha.astype(np.float64).copy()
        weight = np.exp(digamma(last) - digamma(last.sum()))
        for word in words:
            phi = weight * space.topic_word[:, word]
            gamma += phi / phi.sum()
        if np.abs(gamma - last).mean() < space.gamma_threshold:
            break
    return gamma


def test_inference_equals_the_textbook_written_as_a_loop():
    space = random_space(5, 20, 3)
    random = np.random.default_rng(0)
    for length in (1, 2, 5, 17, 40):
        words = random.integers(0, 20, length).tolist()
        start = random.gamma(100, 0.01, 5)
        bag = np.unique(words, return_counts=True)
        found = space.infer([(bag[0], bag[1].astype(float))], start[None])
        # gensim adds 1.2e-7 to each word's norm against division by zero, and the textbook does not
        np.testing.assert_allclose(found[0], slow_gamma(space, words, start), rtol=1e-4)


@pytest.mark.parametrize("num_topics", [1, 2, 7, 40])
def test_compiled_inference_is_numpys(num_topics):
    pytest.importorskip("numba", reason="numba compiles the loops (extra: prep)")
    space = random_space(num_topics, 20, 3)
    random = np.random.default_rng(num_topics)
    bags = [
        space.bag(" ".join(random.choice(space.vocabulary.words, length))) for length in [*range(12), 200, *random.integers(1, 40, 100)]
    ]
    start = random.gamma(100, 0.01, (len(bags), num_topics))
    for gamma in (None, start):
        one, other = space.infer(bags, gamma), space.infer_many(bags, gamma)
        np.testing.assert_allclose(other / other.sum(1, keepdims=True), one / one.sum(1, keepdims=True), atol=1e-9)
    alone = [space.infer_many([bag], row[None]) for bag, row in zip(bags, start, strict=True)]
    assert np.array_equal(np.concatenate(alone), space.infer_many(bags, start))
    assert space.infer_many([]).shape == (0, num_topics)


def test_the_loops_say_the_same_before_they_are_compiled(monkeypatch):
    space = random_space(5, 20, 3)
    bags = [space.bag(" ".join(space.vocabulary.words[:length])) for length in (0, 1, 6, 20)]
    monkeypatch.setattr("multimodal.text.compiled_topics._compiled", lambda: _infer)
    np.testing.assert_allclose(space.infer_many(bags), space.infer(bags), rtol=1e-9)


def test_rows_made_in_bulk_are_rows_made_one_by_one(space):
    pytest.importorskip("numba", reason="numba compiles the loops (extra: prep)")
    texts = ["dog puppy beach", "zxqv", "", "wave " * 50]
    np.testing.assert_allclose(space.embed_many(texts), space.embed(texts), atol=1e-6)


def test_filled_lengths_hold_the_document_with_at_most_half_as_much_again():
    lengths = [_filled_length(num_words) for num_words in range(2000)]
    assert all(num_words <= length <= max(num_words, 1.5 * num_words) for num_words, length in enumerate(lengths))
    assert len(set(lengths)) < 25


def test_digamma_has_its_known_values_and_recurrence():
    assert digamma(np.array([1.0]))[0] == pytest.approx(-0.5772156649015329, abs=1e-12)
    assert digamma(np.array([0.5]))[0] == pytest.approx(-0.5772156649015329 - 2 * np.log(2), abs=1e-12)
    x = np.geomspace(1e-3, 1e6, 500)
    np.testing.assert_allclose(digamma(x + 1) - digamma(x), 1 / x, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("num_texts", "kept"), [(99, 3), (100, 2), (499, 2), (500, 1)])
def test_in_a_small_corpus_rarer_words_count(num_texts, kept):
    texts = ["single double triple", "double triple", "triple", *["common filler"] * num_texts][:num_texts]
    space = fit_topics(texts, PLAIN, num_topics=2, passes=1, max_share=0.9)
    assert len({"single", "double", "triple"} & set(space.vocabulary.words)) == kept


def test_a_corpus_without_words_is_an_error_that_says_so():
    with pytest.raises(InputError, match="no texts"):
        fit_topics([], PLAIN, num_topics=2)
    with pytest.raises(InputError, match="no word"):
        fit_topics(["the", "of"], PLAIN, num_topics=2)


@pytest.mark.parametrize("setting", ["num_topics", "passes", "alpha", "eta", "chunk_size"])
def test_no_topics_and_no_passes_are_an_error(setting):
    with pytest.raises(InputError, match=f"{setting} is 0, and has to be above 0"):
        fit_topics(["a red apple"], **{setting: 0})


def test_topics_of_another_vocabulary_are_an_error():
    space = random_space(2, 20, 0)
    with pytest.raises(InputError, match="another vocabulary"):
        TopicSpace(PLAIN, Vocabulary(["dog"], np.ones(1), 1), space.topic_word, space.alpha)


def test_numbers_of_topics_and_words_are_in_the_manifest(space, tmp_path):
    space.save(tmp_path)
    assert open_space(tmp_path).manifest.counts == {"documents": 300, "topics": 3, "words": 24}
