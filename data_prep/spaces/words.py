"""Word vectors: fitted by gensim, or those of the package wordllama."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from data_prep.spaces.corpus import Corpus
from multimodal.errors import InputError, needing
from multimodal.text.normalise import Normaliser
from multimodal.text.packages import package_folder, package_version
from multimodal.text.space import Origin
from multimodal.text.vocabulary import Vocabulary
from multimodal.text.words import Pooling, Scaling, WordSpace

WORDS = Normaliser()
"""From texts to words, by default."""


def fit_word2vec(
    texts: Iterable[str],
    normaliser: Normaliser = WORDS,
    dim: int = 300,
    passes: int = 5,
    seed: int = 0,
    window: int = 5,
    min_count: int = 5,
    max_words: int | None = 400_000,
    cbow: bool = False,
    pooling: Pooling = "tfidf",
    scaling: Scaling = "length",
    origin: Origin | None = None,
) -> WordSpace:
    """Fit word vectors: skip-gram with negative sampling, or CBOW (Mikolov et al., 2013), by gensim's Word2Vec.

    Same texts, settings and seed, same vectors: it runs in one thread, since with several the result would depend on their timing. Good
    vectors need some millions of words: with fewer, add extra texts, or use wordllama's.

    Args:
        texts: one per document.
        normaliser: from texts to words.
        dim: dimensions of a vector.
        passes: over the documents.
        seed: of the random start.
        window: words to each side that a word predicts.
        min_count: words in fewer documents have no vector.
        max_words: only this many words have one, the most frequent.
        cbow: the words around predict a word all at once (continuous bag of words), instead of a word each of them: faster, and weaker for
            rare words.
        pooling: how a text's words count: mean, all alike; tfidf, rare ones more; sum, all alike and long texts more.
        scaling: of a text's row: length, to unit length (then sum equals mean); range, from 0 for the smallest number to 1 for the
            largest, for objectives between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        origin: how the space was made, for the manifest; by default these settings. InputError if no word is left.
    """
    with needing("prep", "fitting word vectors"):
        from gensim.models import Word2Vec

    corpus = Corpus.read(texts, normaliser, min_count, max_words=max_words)
    keyed = trained(partial(Word2Vec, sg=0 if cbow else 1), Sentences(corpus), dim, passes, seed, window).wv
    vectors = np.stack([keyed[word] for word in corpus.vocabulary.words]).astype(np.float32)
    config = {"passes": passes, "seed": seed, "window": window, "min_count": min_count, "max_words": max_words, "cbow": cbow}
    return WordSpace(normaliser, corpus.vocabulary, vectors, pooling, origin or Origin(config), scaling)


def trained(kind: Callable[..., Any], sentences: Sentences, dim: int, passes: int, seed: int, window: int) -> Any:
    """One of gensim's models after `passes` over the corpus, in one thread, with 10 noise words each. InputError for a count below one."""
    for name, value in {"dim": dim, "passes": passes, "window": window}.items():
        if value <= 0:
            raise InputError(f"{name} is {value}, and has to be above 0")
    model = kind(vector_size=dim, window=window, min_count=1, negative=10, seed=seed, workers=1, epochs=passes)
    model.build_vocab(sentences)
    model.train(sentences, total_examples=len(sentences), epochs=passes)
    return model


class Sentences:
    """The corpus as gensim reads it, a document at a time, split where gensim would drop the rest."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __len__(self) -> int:
        return sum(1 for _ in self._cut())

    def __iter__(self) -> Iterator[Any]:
        return (words for _, words in self.parts())

    def parts(self) -> Iterator[tuple[int, list[str]]]:
        """The number of a document and the words of a part of it."""
        words = self._corpus.vocabulary.words
        for number, part in self._cut():
            yield number, [words[position] for position in part]

    def _cut(self) -> Iterator[tuple[int, np.ndarray]]:
        from gensim.models.word2vec import MAX_WORDS_IN_BATCH

        for number, document in enumerate(self._corpus):
            for start in range(0, len(document), MAX_WORDS_IN_BATCH):
                yield number, document[start : start + MAX_WORDS_IN_BATCH]


def from_wordllama(
    texts: Iterable[str],
    normaliser: Normaliser = WORDS,
    pooling: Pooling = "tfidf",
    scaling: Scaling = "length",
    origin: Origin | None = None,
) -> WordSpace:
    """Take the token vectors of the PyPI package `wordllama` (0.4, MIT; 256 dimensions), which is read as data and never imported.

    Its words are the tokenizer's whole words (lower-case letters) that the normaliser leaves as they are, and every word of the texts;
    a word's vector is the mean of its tokens'. Document frequencies, for tf-idf, are those of the texts. InputError if the package
    is missing.

    Args:
        texts: one per document.
        normaliser: from texts to words.
        pooling: how a text's words count: mean, all alike; tfidf, rare ones more; sum, all alike and long texts more.
        scaling: of a text's row: length, to unit length (then sum equals mean); range, from 0 for the smallest number to 1 for the
            largest, for objectives between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        origin: how the space was made, for the manifest; by default these settings.
    """
    with needing("prep", "reading the vectors of wordllama"):
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

    folder = package_folder("wordllama")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    token_vectors = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]  # (32000, 256) float16
    corpus = Corpus.read(texts, normaliser)
    seen = corpus.vocabulary
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])  # a token's id says how common it is
    whole = [piece[1:] for piece, _ in pieces if piece[0] == _WORD_START and piece[1:].isalpha() and piece[1:].islower()]
    brought = [word for word in whole if word not in seen and normaliser.tokens(word) == [word]]
    words = [*seen.words, *dict.fromkeys(brought)]
    frequencies = np.concatenate([seen.document_frequencies, np.zeros(len(words) - len(seen), np.int64)])
    encoded = tokenizer.encode_batch(words, add_special_tokens=False)
    vectors = np.stack([token_vectors[one.ids].mean(axis=0, dtype=np.float32) for one in encoded]).astype(np.float16)
    config = {"package": "wordllama", "version": package_version("wordllama")}
    return WordSpace(normaliser, Vocabulary(words, frequencies, seen.num_documents), vectors, pooling, origin or Origin(config), scaling)


_WORD_START = "\u2581"  # SentencePiece's mark of a space
