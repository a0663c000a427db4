"""Vectors of texts (Doc2Vec), fitted by gensim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from data_prep.spaces.corpus import Corpus
from data_prep.spaces.words import WORDS, Sentences, trained
from multimodal.errors import InputError, needing
from multimodal.text.normalise import Normaliser
from multimodal.text.paragraphs import Doc2VecSpace, check_above_zero
from multimodal.text.space import Origin
from multimodal.text.words import Scaling


def fit_doc2vec(
    texts: Iterable[str],
    normaliser: Normaliser = WORDS,
    dim: int = 300,
    passes: int = 20,
    seed: int = 0,
    window: int = 5,
    min_count: int = 5,
    max_words: int | None = 400_000,
    dm: bool = False,
    sample: float = 1e-3,
    prior: float = 3.0,
    scaling: Scaling = "length",
    origin: Origin | None = None,
) -> Doc2VecSpace:
    """Fit vectors of texts that predict their words: PV-DBOW or PV-DM (Le and Mikolov, 2014), by gensim's Doc2Vec, in one thread.

    Same texts, settings and seed, same space. A text's vector is inferred from its words, to the same numbers each time; one word by itself
    has the vector fitted for it, so that queries can add and subtract words. The vectors of the texts that it was fitted on are not kept:
    the fit needs four bytes per dimension for each of them. Good vectors need some millions of words: with fewer, add extra
    texts.

    PV-DBOW fits the words' vectors beside the texts' (gensim's dbow_words, skip-gram by the same output weights), or they would stay as
    they were drawn. PV-DM looks at the whole window at every place, as Le and Mikolov do, and not at a part of it drawn anew each time.

    Args:
        texts: one per document.
        normaliser: from texts to words.
        dim: dimensions of a vector.
        passes: over the documents.
        seed: of the random start.
        window: words to each side that a word is predicted from.
        min_count: words in fewer documents have no vector.
        max_words: only this many words have one, the most frequent.
        dm: a text's vector predicts a word together with the words around it (PV-DM, distributed memory), instead of by itself (PV-DBOW,
            distributed bag of words): faster to fit, and for texts of hundreds of words far slower to infer.
        sample: words that are a larger share of the corpus than this are subsampled, and count less in a text; 0 for none.
        prior: how strongly a text's vector is held near zero until its words say otherwise: the precision of a Gaussian. 3 is about what
            gensim infers in 20 epochs, 1 in 100. With dm on few texts take 0.3, or their subjects hardly show.
        scaling: of a text's row: length, to unit length; range, from 0 for the smallest number to 1 for the largest, for objectives
            between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        origin: how the space was made, for the manifest; by default these settings. InputError if no word is left.
    """
    with needing("prep", "fitting vectors of texts"):
        from gensim.models import Doc2Vec

    check_above_zero(prior=prior)
    if not 0 <= sample < 1:
        raise InputError(f"sample is {sample}; it is a share of the corpus: 0 or more, and less than 1")
    corpus = Corpus.read(texts, normaliser, min_count, max_words=max_words)
    variant = {"dm": 1, "dm_mean": 1, "shrink_windows": False} if dm else {"dm": 0, "dbow_words": 1}
    model = trained(partial(Doc2Vec, sample=sample, **variant), _Tagged(corpus), dim, passes, seed, window)
    rows = [model.wv.key_to_index[word] for word in corpus.vocabulary.words]
    config = {"passes": passes, "seed": seed, "min_count": min_count, "max_words": max_words}
    return Doc2VecSpace(
        normaliser,
        corpus.vocabulary,
        model.wv.vectors[rows],
        model.syn1neg[rows],
        np.array([model.wv.get_vecattr(word, "count") for word in corpus.vocabulary.words], np.int64),
        dm,
        window,
        model.negative,
        sample,
        prior,
        scaling,
        origin or Origin(config),
    )


class _Tagged(Sentences):
    """The corpus as gensim's Doc2Vec reads it; the parts of a long document have one vector."""

    def __iter__(self) -> Iterator[Any]:
        from gensim.models.doc2vec import TaggedDocument

        for number, words in self.parts():
            yield TaggedDocument(words, [number])
