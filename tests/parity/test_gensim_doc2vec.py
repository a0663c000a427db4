"""Paragraph vectors beside gensim's own `Doc2Vec`: the same fit, and what `infer_vector` comes to over its random steps."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.spaces import fit_doc2vec
from data_prep.spaces.corpus import Corpus
from multimodal.text import Doc2VecSpace, Normaliser

gensim_models = pytest.importorskip("gensim.models", reason="gensim is the reference (extra: prep)")

NUM_FITTED = 160
PASSES = 10


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """200 drawn from a topic model: few topics a document, 5 to 60 words of 200."""
    random = np.random.default_rng(0)
    words = np.array([f"w{first}{second}" for first in "abcdefghij" for second in "abcdefghijklmnopqrst"])
    topics = random.dirichlet(np.full(len(words), 0.05), 10)
    shares = random.dirichlet(np.full(10, 0.2), 200)
    return [" ".join(random.choice(words, random.integers(5, 60), p=share @ topics)) for share in shares]


@pytest.fixture(scope="module", params=[(False, 0), (False, 0.005), (True, 0), (True, 0.005)], ids=str)
def both(request, texts) -> tuple[Doc2VecSpace, gensim_models.Doc2Vec]:
    dm, sample = request.param
    space = fit_doc2vec(texts[:NUM_FITTED], dim=24, passes=PASSES, seed=3, window=4, min_count=1, dm=dm, sample=sample)
    corpus = Corpus.read(texts[:NUM_FITTED], Normaliser())
    tagged = gensim_models.doc2vec.TaggedDocument
    documents = [tagged([corpus.vocabulary.words[at] for at in document], [number]) for number, document in enumerate(corpus)]
    variant = {"dm": 1, "shrink_windows": False} if dm else {"dm": 0, "dbow_words": 1}
    settings = {"window": 4, "min_count": 1, "negative": 10, "sample": sample, "seed": 3, "workers": 1}
    return space, gensim_models.Doc2Vec(documents, vector_size=24, epochs=PASSES, **variant, **settings)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_a_space_fitted_here_has_gensims_numbers(both):
    space, model = both
    rows = [model.wv.key_to_index[word] for word in space.vocabulary.words]
    assert np.array_equal(space.vectors, model.wv.vectors[rows])
    assert np.array_equal(space.output_vectors, model.syn1neg[rows])
    chances = space.counts**0.75 / (space.counts**0.75).sum()
    cumulated = model.cum_table[rows].astype(float) / model.cum_table[-1]
    order = np.argsort(rows)
    np.testing.assert_allclose(np.cumsum(chances[order]), cumulated[order], atol=1e-6)
    if space.sample:
        kept = np.minimum(1, model.wv.expandos["sample_int"][rows] / 2**32)
        np.testing.assert_allclose(space._keep, kept, atol=1e-6)


@pytest.mark.parametrize(("epochs", "prior"), [(20, 3.0), (100, 0.8)])
def test_an_inferred_vector_is_about_as_near_to_gensims_as_gensims_are_to_each_other(both, texts, epochs, prior, capsys):
    space, model = both
    fitted = Doc2VecSpace(
        *(space.normaliser, space.vocabulary, space.vectors, space.output_vectors, space.counts),
        dm=space.dm,
        window=space.window,
        sample=space.sample,
        prior=prior,
    )
    documents = [fitted.normaliser.tokens(text) for text in texts[NUM_FITTED:]]
    ours = unit(np.array([fitted.infer(np.array(fitted.vocabulary.ids(words))) for words in documents]))
    model.random.seed(0)
    theirs = unit(np.array([[model.infer_vector(words, epochs=epochs) for words in documents] for _ in range(3)]))
    mean = unit(theirs.mean(axis=0))
    from_ours = (ours * mean).sum(axis=-1).mean()
    among = np.mean([(theirs[i] * theirs[j]).sum(axis=-1).mean() for i in range(3) for j in range(i)])

    def agreement(rows: np.ndarray, others: np.ndarray) -> float:
        """Rank correlation of how near each document is to each other one, mean over documents."""
        ranks = [(one @ one.T).argsort(axis=1).argsort(axis=1).astype(float) for one in (rows, others)]
        return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)]))

    ranked = agreement(ours, mean)
    ranked_among = np.mean([agreement(theirs[i], theirs[j]) for i in range(3) for j in range(i)])
    with capsys.disabled():
        print(f"\n{epochs} epochs, prior {prior}: cosine to gensim {from_ours:.4f}, gensim to itself {among:.4f}; ", end="")
        print(f"rank correlation {ranked:.4f}, {ranked_among:.4f}")
    # A prior is not quite what stopping early is, and where frequent words are left out, PV-DM's windows reach farther than their mean.
    assert from_ours > among - 0.015
    assert ranked > ranked_among - 0.02
