"""Vectors of words and of their parts (FastText), fitted by gensim."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from data_prep.spaces.corpus import Corpus
from data_prep.spaces.words import WORDS, Sentences, trained
from multimodal.errors import InputError, needing
from multimodal.text.normalise import Normaliser
from multimodal.text.space import Origin
from multimodal.text.subwords import FastTextSpace
from multimodal.text.words import Pooling, Scaling


def fit_fasttext(
    texts: Iterable[str],
    normaliser: Normaliser = WORDS,
    dim: int = 300,
    passes: int = 5,
    seed: int = 0,
    window: int = 5,
    min_count: int = 5,
    max_words: int | None = 400_000,
    cbow: bool = False,
    min_letters: int = 3,
    max_letters: int = 6,
    num_buckets: int = 200_000,
    pooling: Pooling = "tfidf",
    scaling: Scaling = "length",
    origin: Origin | None = None,
) -> FastTextSpace:
    """Fit vectors of words and of parts of words, so that any word has one, by gensim's FastText, in one thread.

    Same texts, settings and seed, same vectors.

    Args:
        texts: one per document.
        normaliser: from texts to words.
        dim: dimensions of a vector.
        passes: over the documents.
        seed: of the random start.
        window: words to each side that a word predicts.
        min_count: words in fewer documents have no vector of their own.
        max_words: only this many words have one, the most frequent.
        cbow: the words around predict a word all at once (continuous bag of words), instead of a word each of them.
        min_letters: least letters of a part of a word, counting marks for the word's start and end.
        max_letters: most letters of a part of a word.
        num_buckets: vectors that the parts share, by hash. Facebook's program has 2,000,000, which at 300 dimensions are 1.2 GB, and more
            than a corpus of some million words can fill.
        pooling: how a text's words count: mean, all alike; tfidf, rare ones more; sum, all alike and long texts more.
        scaling: of a text's row: length, to unit length (then sum equals mean); range, from 0 for the smallest number to 1 for the
            largest, for objectives between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        origin: how the space was made, for the manifest; by default these settings. InputError if no word is left.
    """
    with needing("prep", "fitting vectors of parts of words"):
        from gensim.models import FastText

    if num_buckets < 1 or not 1 <= min_letters <= max_letters:
        raise InputError(f"num_buckets {num_buckets}, n-grams of {min_letters} to {max_letters} letters: all are above 0, in this order")
    corpus = Corpus.read(texts, normaliser, min_count, max_words=max_words)
    kind = partial(FastText, sg=0 if cbow else 1, min_n=min_letters, max_n=max_letters, bucket=num_buckets)
    keyed = trained(kind, Sentences(corpus), dim, passes, seed, window).wv
    vectors = np.stack([keyed[word] for word in corpus.vocabulary.words]).astype(np.float32)
    config = {"passes": passes, "seed": seed, "window": window, "min_count": min_count, "max_words": max_words, "cbow": cbow}
    return FastTextSpace(
        normaliser,
        corpus.vocabulary,
        vectors,
        pooling,
        origin or Origin(config),
        scaling,
        ngram_vectors=keyed.vectors_ngrams.astype(np.float16),
        min_letters=min_letters,
        max_letters=max_letters,
    )
