"""Texts as points among word vectors: the text side of "Learning to Learn from Web Data" (Gomez et al., ECCV workshops 2018).

    space = from_wordllama(texts)
    space.embed(["a dog on the beach"])         # (1, 256), unit length: the words' vectors, weighted, summed

The vectors come from gensim's Word2Vec on one's own texts, or from the `wordllama` package; neither is needed to open the space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

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

Pooling = Literal["mean", "tfidf"]
POOLINGS: tuple[Pooling, ...] = ("mean", "tfidf")
_MAX_ROWS = 1 << 14  # word vectors gathered at once


class WordSpace(BoxedSpace):
    """A vector for each word of a vocabulary, and how those of a text become one.

    vectors: (v, d) float16 or float32.
    pooling: "mean", every occurrence of a word counts alike; "tfidf", one of word w counts idf(w) = 1 + ln((1 + N) / (1 + df(w))), where
    N documents are in the fitting corpus, df(w) of them with w. A word of the space that the corpus never had gets the largest idf,
    1 + ln(1 + N). The sum is brought to unit length, so dividing by the number of words first would change nothing.
    """

    family: ClassVar[str] = "wordvec"

    def __init__(
        self,
        normaliser: Normaliser,
        vocabulary: Vocabulary,
        vectors: np.ndarray,
        pooling: Pooling = "tfidf",
        origin: Origin = Origin(),  # noqa: B008 (frozen)
    ) -> None:
        if vectors.ndim != 2 or len(vectors) != len(vocabulary):
            raise InputError(f"vectors must be ({len(vocabulary)} words, d) and are {vectors.shape}: vectors of another vocabulary")
        if pooling not in POOLINGS:
            raise InputError(f"pooling {pooling!r} is none of {', '.join(POOLINGS)}")
        self.normaliser = normaliser
        self.vocabulary = vocabulary
        self.vectors = vectors
        self.pooling = pooling
        self.origin = origin

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, rows of unit length; a text with no known word has a row of zeros."""
        documents = [np.array(self.vocabulary.ids(self.normaliser.tokens(text)), np.int64) for text in texts]
        sums = np.zeros((len(texts), self.dim))
        for members in _portions([len(document) for document in documents]):
            ids = np.concatenate([documents[member] for member in members])
            weighted = self.vectors[ids].astype(np.float64) * self._word_weights(ids)[:, None]
            starts = np.cumsum([0, *(len(documents[member]) for member in members[:-1])])
            sums[members] = np.add.reduceat(weighted, starts, axis=0)  # sums each text by itself, in its own order
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0).astype(np.float32)

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """The same as `embed`, whose speed does not depend on how many texts there are."""
        return self.embed(texts)

    def _word_weights(self, ids: np.ndarray) -> np.ndarray:
        if self.pooling == "mean":
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
        return {"pooling": self.pooling}

    def _counts(self) -> Mapping[str, int]:
        return {"words": len(self.vocabulary), "dim": self.dim, "documents": self.vocabulary.num_documents}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError where it is not one."""
        path = Path(path)
        manifest = open_box(path, cls)
        tensors = open_tensors(path / WEIGHTS)
        vocabulary = read_vocabulary(path, tensors["document_frequencies"], manifest.counts["documents"])
        space = cls(read_normaliser(path), vocabulary, tensors["vectors"], manifest.config["pooling"], origin_of(manifest))
        return space._loaded_from(manifest)


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
) -> WordSpace:
    """Skip-gram with negative sampling (Mikolov et al., 2013) by gensim's `Word2Vec`; same texts, settings and seed, same vectors.

    It runs in one thread, since several would make the result depend on their race.

    texts: one a document. dim: of the vectors. passes: over the corpus. window: words to each side that a word predicts.
    min_count: words in fewer documents have no vector. max_words: the most frequent so many have one.
    origin: what the manifest says of how the space came about; by default these settings. InputError where no word is left.
    """
    from gensim.models import Word2Vec

    for name, value in {"dim": dim, "passes": passes, "window": window}.items():
        if value <= 0:
            raise InputError(f"{name} is {value}, and has to be above 0")
    normaliser = normaliser or Normaliser()
    corpus = Corpus.read(texts, normaliser, min_count, max_words=max_words)
    model = Word2Vec(vector_size=dim, window=window, min_count=1, sg=1, negative=10, seed=seed, workers=1, epochs=passes)
    sentences = _Sentences(corpus)
    model.build_vocab(sentences)
    model.train(sentences, total_examples=len(sentences), epochs=passes)
    vectors = np.stack([model.wv[word] for word in corpus.vocabulary.words]).astype(np.float32)
    config = {"passes": passes, "seed": seed, "window": window, "min_count": min_count, "max_words": max_words}
    return WordSpace(normaliser, corpus.vocabulary, vectors, pooling, origin or Origin(config))


class _Sentences:
    """The corpus as gensim reads it, a document at a time, cut where gensim would drop the rest."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __len__(self) -> int:
        return sum(1 for _ in self._parts())

    def __iter__(self) -> Iterator[list[str]]:
        words = self._corpus.vocabulary.words
        for part in self._parts():
            yield [words[position] for position in part]

    def _parts(self) -> Iterator[np.ndarray]:
        from gensim.models.word2vec import MAX_WORDS_IN_BATCH

        for document in self._corpus.documents:
            for start in range(0, len(document), MAX_WORDS_IN_BATCH):
                yield document[start : start + MAX_WORDS_IN_BATCH]


def from_wordllama(
    texts: Iterable[str],
    normaliser: Normaliser | None = None,
    pooling: Pooling = "tfidf",
    origin: Origin | None = None,
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
    return WordSpace(normaliser, Vocabulary(words, frequencies, seen.num_documents), vectors, pooling, origin or Origin(config))


_WORD_START = "\u2581"  # SentencePiece's mark of a space
