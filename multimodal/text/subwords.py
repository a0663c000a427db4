"""Word vectors made of subwords, so that any word has one: FastText (Bojanowski et al., TACL 2017).

    space = fit_fasttext(texts)
    space.embed(["a beachside promenade"])     # a word that is in no text is the mean of its n-grams

Fitted by gensim, or read from the `.bin` file of Facebook's program (`vector_files.py`); opened and used with only numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.errors import InputError
from multimodal.text.normalise import Normaliser
from multimodal.text.space import WEIGHTS, Origin, unknown_words, word_files
from multimodal.text.vocabulary import Vocabulary
from multimodal.text.words import Pooling, Scaling, WordSpace


class FastTextSpace(WordSpace):
    """A word space in which a word without its own vector gets the mean of its n-grams' vectors.

    n-grams: runs of `min_letters` to `max_letters` letters of the word between "<" and ">", by their hash among num_buckets vectors.
    ngram_vectors: (num_buckets, d) float16 or float32. The rest as in `WordSpace`; such a word counts as one that is not in the corpus.
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
            raise InputError(f"ngram_vectors must be (buckets, {vectors.shape[1]}) but are {ngram_vectors.shape}")
        if not 1 <= min_letters <= max_letters:
            raise InputError(f"n-grams of {min_letters} to {max_letters} letters: the first must be above 0, and not above the second")
        self.ngram_vectors = ngram_vectors
        self.min_letters = min_letters
        self.max_letters = max_letters

    def word_vector(self, word: str) -> np.ndarray | None:
        """(d,) float64; None if the word is unknown and too short to have an n-gram."""
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
        """Words too short for an n-gram, and, if no word is known, those that the normaliser drops -> near spellings."""
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


def ngrams(word: str, min_letters: int, max_letters: int) -> list[bytes]:
    """The n-grams of "<word>", in UTF-8, in the order of Facebook's program: by start, then by length.

    "<" or ">" alone is not one.
    """
    marked = f"<{word}>"
    found = []
    for start in range(len(marked)):
        for length in range(min_letters, min(max_letters, len(marked) - start) + 1):
            if length > 1 or 0 < start < len(marked) - 1:
                found.append(marked[start : start + length].encode())
    return found


def ngram_hash(ngram: bytes) -> int:
    """32 bits of FNV-1a, each byte taken as signed: a bug of Facebook's program on which its files depend."""
    value = 2166136261
    for byte in ngram:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value
