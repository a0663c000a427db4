"""Word vectors that know parts of words, so that any word has one: FastText (Bojanowski et al., TACL 2017).

    space = fit_fasttext(texts)
    space.embed(["a beachside promenade"])     # words that no text had are the mean of their n-grams

Fitted by gensim, or read from the `.bin` file of Facebook's program (`vector_files.py`); opened and used with numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.errors import InputError
from multimodal.text.corpus import Corpus
from multimodal.text.normalise import Normaliser
from multimodal.text.space import WEIGHTS, Origin, unknown_words, word_files
from multimodal.text.vocabulary import Vocabulary
from multimodal.text.words import Pooling, Scaling, Sentences, WordSpace, trained


class FastTextSpace(WordSpace):
    """A word space in which a word without a vector of its own has the mean of the vectors of its n-grams.

    n-grams: runs of `min_letters` to `max_letters` letters of the word between "<" and ">", by their hash among num_buckets vectors.
    ngram_vectors: (num_buckets, d) float16 or float32. The rest as in `WordSpace`; such a word counts as one that the corpus never had.
    """

    def __init__(
        self,
        normaliser: Normaliser,
        vocabulary: Vocabulary,
        vectors: np.ndarray,
        pooling: Pooling = "tfidf",
        origin: Origin = Origin(),  # noqa: B008 (frozen)
        scaling: Scaling = "length",
        *,
        ngram_vectors: np.ndarray,
        min_letters: int,
        max_letters: int,
    ) -> None:
        super().__init__(normaliser, vocabulary, vectors, pooling, origin, scaling)
        if ngram_vectors.ndim != 2 or ngram_vectors.shape[1] != vectors.shape[1] or not len(ngram_vectors):
            raise InputError(f"ngram_vectors must be (buckets, {vectors.shape[1]}) and are {ngram_vectors.shape}")
        if not 1 <= min_letters <= max_letters:
            raise InputError(f"n-grams of {min_letters} to {max_letters} letters: the first has to be above 0, and not above the second")
        self.ngram_vectors = ngram_vectors
        self.min_letters = min_letters
        self.max_letters = max_letters

    def word_vector(self, word: str) -> np.ndarray | None:
        """(d,) float64; None where the word is unknown and too short to have an n-gram."""
        if word in self.vocabulary:
            return self.vectors[self.vocabulary.position(word)].astype(np.float64)
        buckets = [ngram_hash(ngram) % len(self.ngram_vectors) for ngram in ngrams(word, self.min_letters, self.max_letters)]
        return self.ngram_vectors[buckets].mean(axis=0, dtype=np.float64) if buckets else None

    def _read(self, texts: Sequence[str]) -> tuple[list[np.ndarray], Callable[[np.ndarray], np.ndarray]]:
        new: dict[str, int] = {}
        vectors: list[np.ndarray] = []
        documents = []
        for text in texts:
            ids = []
            for word in self.normaliser.tokens(text):
                if word in self.vocabulary:
                    ids.append(self.vocabulary.position(word))
                    continue
                if word not in new and (vector := self.word_vector(word)) is not None:
                    new[word] = len(self.vocabulary) + len(vectors)
                    vectors.append(vector)
                if word in new:
                    ids.append(new[word])
            documents.append(np.array(ids, np.int64))

        def vectors_of(ids: np.ndarray) -> np.ndarray:
            found = np.empty((len(ids), self.dim))
            known = ids < len(self.vocabulary)
            found[known] = self.vectors[ids[known]]
            found[~known] = [vectors[id] for id in (ids[~known] - len(self.vocabulary)).tolist()] if not known.all() else 0
            return found

        return documents, vectors_of

    def _word_weights(self, ids: np.ndarray) -> np.ndarray:
        weights = np.full(len(ids), 1 + np.log(1 + self.vocabulary.num_documents) if self.pooling == "tfidf" else 1.0)
        known = ids < len(self.vocabulary)
        weights[known] = super()._word_weights(ids[known])
        return weights

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Words too short for an n-gram, and where no word can be placed those that the normaliser drops -> near spellings."""
        words = dict.fromkeys(self.normaliser.tokens(text))
        unplaced = [word for word in words if self.word_vector(word) is None]
        if unplaced or not words:
            found = unknown_words(text, self.normaliser, self.vocabulary)
            return {word: near for word, near in found.items() if word not in words or word in unplaced}
        return {}

    def _files(self) -> Mapping[str, bytes | Path]:
        tensors = {
            "vectors": np.ascontiguousarray(self.vectors),
            "ngram_vectors": np.ascontiguousarray(self.ngram_vectors),
            "document_frequencies": self.vocabulary.document_frequencies,
        }
        return {**word_files(self.normaliser, self.vocabulary), WEIGHTS: to_safetensors(tensors)}

    def _settings(self) -> Mapping[str, object]:
        return {**super()._settings(), "min_letters": self.min_letters, "max_letters": self.max_letters}

    def _counts(self) -> Mapping[str, int]:
        return {**super()._counts(), "ngram_buckets": len(self.ngram_vectors)}

    @classmethod
    def _more(cls, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Any]:
        return {"ngram_vectors": tensors["ngram_vectors"], "min_letters": config["min_letters"], "max_letters": config["max_letters"]}


def fit_fasttext(
    texts: Iterable[str],
    normaliser: Normaliser | None = None,
    dim: int = 300,
    passes: int = 5,
    seed: int = 0,
    window: int = 5,
    min_count: int = 5,
    max_words: int | None = 400_000,
    pooling: Pooling = "tfidf",
    origin: Origin | None = None,
    scaling: Scaling = "length",
    cbow: bool = False,
    min_letters: int = 3,
    max_letters: int = 6,
    num_buckets: int = 200_000,
) -> FastTextSpace:
    """By gensim's `FastText`, in one thread; same texts, settings and seed, same vectors.

    min_letters, max_letters: of the n-grams. num_buckets: how many vectors they share; Facebook's program has 2,000,000, which at 300
    dimensions are 1.2 GB, and more than a corpus of some million words can fill. The rest as in `fit_word2vec`.
    """
    from gensim.models import FastText

    if num_buckets < 1 or not 1 <= min_letters <= max_letters:
        raise InputError(f"num_buckets {num_buckets}, n-grams of {min_letters} to {max_letters} letters: all are above 0, in this order")
    normaliser = normaliser or Normaliser()
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


def ngrams(word: str, min_letters: int, max_letters: int) -> list[bytes]:
    """The n-grams of "<word>", in UTF-8, in the order of Facebook's program: by where they begin, then by length.

    "<" or ">" alone is none.
    """
    marked = f"<{word}>"
    found = []
    for start in range(len(marked)):
        for length in range(min_letters, min(max_letters, len(marked) - start) + 1):
            if length > 1 or 0 < start < len(marked) - 1:
                found.append(marked[start : start + length].encode())
    return found


def ngram_hash(ngram: bytes) -> int:
    """32 bits of FNV-1a, each byte taken as a signed one: a slip of Facebook's program that its files are made with."""
    value = 2166136261
    for byte in ngram:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value
