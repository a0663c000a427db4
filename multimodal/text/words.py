"""Texts as points among word vectors: the text side of "Learning to Learn from Web Data" (Gomez et al., ECCV workshops 2018).

    space = from_wordllama(texts)
    space.embed(["a dog on the beach"])         # (1, 256), unit length: the words' vectors, weighted, summed

The vectors come from gensim's Word2Vec on one's own texts, from the `wordllama` package, from a file (`vector_files.py`), or from parts of
words (`subwords.py`); none of that is needed to open the space. `paragraphs.py` has texts whose vectors are no sum of their words'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.errors import InputError
from multimodal.text.corpus import Corpus
from multimodal.text.normalise import Normaliser
from multimodal.text.packages import package_folder, package_version
from multimodal.text.space import (
    WEIGHTS,
    BoxedSpace,
    Origin,
    open_box,
    open_tensors,
    origin_of,
    read_normaliser,
    read_vocabulary,
    unknown_words,
    word_files,
)
from multimodal.text.vocabulary import Vocabulary

Pooling = Literal["mean", "tfidf", "sum"]
POOLINGS: tuple[Pooling, ...] = ("mean", "tfidf", "sum")
Scaling = Literal["length", "range", "none"]
SCALINGS: tuple[Scaling, ...] = ("length", "range", "none")
_MAX_ROWS = 1 << 14  # word vectors gathered at once


class WordSpace(BoxedSpace):
    """A vector for each word of a vocabulary, and how those of a text become one.

    vectors: (v, d) float16 or float32.
    pooling: "mean", every occurrence of a word counts alike; "tfidf", a weighted mean, in which one of word w counts
    idf(w) = 1 + ln((1 + N) / (1 + df(w))), where N documents are in the fitting corpus, df(w) of them with w, and one that the corpus never
    had 1 + ln(1 + N); "sum", as mean, not divided by the number of words.
    scaling: of the result. "length", to unit length, where sum is the same as mean; "range", so that a row's smallest number is 0 and its
    largest 1, as Gomez et al. (2018) need it for a cross-entropy; "none".
    """

    family: ClassVar[str] = "wordvec"
    setting_types = {"pooling": str}

    def __init__(
        self,
        normaliser: Normaliser,
        vocabulary: Vocabulary,
        vectors: np.ndarray,
        pooling: Pooling = "tfidf",
        origin: Origin = Origin(),  # noqa: B008 (frozen)
        scaling: Scaling = "length",
    ) -> None:
        if vectors.ndim != 2 or len(vectors) != len(vocabulary):
            raise InputError(f"vectors must be ({len(vocabulary)} words, d) and are {vectors.shape}: vectors of another vocabulary")
        if pooling not in POOLINGS:
            raise InputError(f"pooling {pooling!r} is none of {', '.join(POOLINGS)}")
        if scaling not in SCALINGS:
            raise InputError(f"scaling {scaling!r} is none of {', '.join(SCALINGS)}")
        self.normaliser = normaliser
        self.vocabulary = vocabulary
        self.vectors = vectors
        self.pooling = pooling
        self.scaling = scaling
        self.origin = origin

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, rows pooled and scaled as the space's settings say; a text with no known word has a row of zeros."""
        documents, vectors_of = self._read(texts)
        sums = np.zeros((len(texts), self.dim))
        for members in _portions([len(document) for document in documents]):
            ids = np.concatenate([documents[member] for member in members])
            weights = self._word_weights(ids)[:, None]
            starts = np.cumsum([0, *(len(documents[member]) for member in members[:-1])])
            sums[members] = np.add.reduceat(vectors_of(ids) * weights, starts, axis=0)  # sums each text by itself, in its own order
            if self.pooling != "sum" and self.scaling == "none":  # otherwise a factor of a row changes nothing
                sums[members] /= np.add.reduceat(weights, starts, axis=0)
        return scaled(sums, self.scaling).astype(np.float32)

    def _read(self, texts: Sequence[str]) -> tuple[list[np.ndarray], Callable[[np.ndarray], np.ndarray]]:
        """The words of each text by number, those of the vocabulary by position; and what gives their vectors, (w,) to (w, d) float64."""
        documents = [np.array(self.vocabulary.ids(self.normaliser.tokens(text)), np.int64) for text in texts]
        return documents, lambda ids: self.vectors[ids].astype(np.float64)

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """The same as `embed`, whose speed does not depend on how many texts there are."""
        return self.embed(texts)

    def _word_weights(self, ids: np.ndarray) -> np.ndarray:
        if self.pooling != "tfidf":
            return np.ones(len(ids))
        frequencies = self.vocabulary.document_frequencies[ids]
        return 1 + np.log((1 + self.vocabulary.num_documents) / (1 + frequencies))

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Words without a vector -> near spellings."""
        return unknown_words(text, self.normaliser, self.vocabulary)

    def _files(self) -> Mapping[str, bytes | Path]:
        tensors = {"vectors": np.ascontiguousarray(self.vectors), "document_frequencies": self.vocabulary.document_frequencies}
        return {**word_files(self.normaliser, self.vocabulary), WEIGHTS: to_safetensors(tensors)}

    def _settings(self) -> Mapping[str, object]:
        scaling = {} if self.scaling == "length" else {"scaling": self.scaling}  # a space saved before there was a choice stays the same
        return {"pooling": self.pooling, **scaling}

    def _counts(self) -> Mapping[str, int]:
        return {"words": len(self.vocabulary), "dim": self.dim, "documents": self.vocabulary.num_documents}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError where it is not one."""
        path = Path(path)
        manifest = open_box(path, cls)
        tensors = open_tensors(path / WEIGHTS)
        vocabulary = read_vocabulary(path, tensors["document_frequencies"], manifest.counts["documents"])
        config = manifest.config
        space = cls(
            read_normaliser(path),
            vocabulary,
            tensors["vectors"],
            config["pooling"],
            origin_of(manifest),
            config.get("scaling", "length"),
            **cls._more(tensors, config),
        )
        return space._loaded_from(manifest)

    @classmethod
    def _more(cls, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Any]:
        """What a kind of word space needs beside all that, by name."""
        return {}


def scaled(rows: np.ndarray, scaling: Scaling) -> np.ndarray:
    """(n, d) -> (n, d), as `WordSpace` says; rows of zeros stay so."""
    if scaling == "none":
        return rows
    if scaling == "range":
        rows = rows - rows.min(axis=1, keepdims=True)
        size = rows.max(axis=1, keepdims=True)
    else:
        size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, size, out=np.zeros_like(rows), where=size > 0)


def _portions(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of the texts that have words, in portions of bounded size."""
    members: list[int] = []
    rows = 0
    for member, length in enumerate(lengths):
        if not length:
            continue
        if members and rows + length > _MAX_ROWS:
            yield members
            members, rows = [], 0
        members.append(member)
        rows += length
    if members:
        yield members


def fit_word2vec(
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
) -> WordSpace:
    """Skip-gram with negative sampling (Mikolov et al., 2013) by gensim's `Word2Vec`; same texts, settings and seed, same vectors.

    It runs in one thread, since several would make the result depend on their race.

    texts: one a document. dim: of the vectors. passes: over the corpus. window: words to each side that a word predicts.
    min_count: words in fewer documents have no vector. max_words: the most frequent so many have one.
    cbow: the words around foretell a word, all at once, instead of a word each of those around it: faster, and weaker for rare words.
    origin: what the manifest says of how the space came about; by default these settings. InputError where no word is left.
    """
    from gensim.models import Word2Vec

    normaliser = normaliser or Normaliser()
    corpus = Corpus.read(texts, normaliser, min_count, max_words=max_words)
    keyed = trained(partial(Word2Vec, sg=0 if cbow else 1), Sentences(corpus), dim, passes, seed, window).wv
    vectors = np.stack([keyed[word] for word in corpus.vocabulary.words]).astype(np.float32)
    config = {"passes": passes, "seed": seed, "window": window, "min_count": min_count, "max_words": max_words, "cbow": cbow}
    return WordSpace(normaliser, corpus.vocabulary, vectors, pooling, origin or Origin(config), scaling)


def trained(kind: Callable[..., Any], sentences: Sentences, dim: int, passes: int, seed: int, window: int) -> Any:
    """One of gensim's models after `passes` over the corpus, in one thread, 10 noise words to each. InputError for a count below one."""
    for name, value in {"dim": dim, "passes": passes, "window": window}.items():
        if value <= 0:
            raise InputError(f"{name} is {value}, and has to be above 0")
    model = kind(vector_size=dim, window=window, min_count=1, negative=10, seed=seed, workers=1, epochs=passes)
    model.build_vocab(sentences)
    model.train(sentences, total_examples=len(sentences), epochs=passes)
    return model


class Sentences:
    """The corpus as gensim reads it, a document at a time, cut where gensim would drop the rest."""

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
    normaliser: Normaliser | None = None,
    pooling: Pooling = "tfidf",
    origin: Origin | None = None,
    scaling: Scaling = "length",
) -> WordSpace:
    """A word space of the 256-d token vectors in the PyPI package `wordllama` (0.4, MIT), which is read as data and never imported.

    Its words are the tokenizer's whole words (lower-case letters) that the normaliser leaves as they are, and every word of the texts;
    a word's vector is the mean of its tokens'. Document frequencies, for tf-idf, are those of the texts. InputError where the package
    is missing.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    normaliser = normaliser or Normaliser()
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
