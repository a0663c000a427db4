"""Texts as points among word vectors: the text side of "Learning to Learn from Web Data" (Gomez et al., ECCV workshops 2018).

    space = from_wordllama(texts)
    space.embed(["a dog on the beach"])         # (1, 256), unit length: the words' vectors, weighted, summed

The vectors come from gensim's Word2Vec on your own texts, from the `wordllama` package, from a file (`vector_files.py`), or from subwords
(`subwords.py`); none of that is needed to open the space. In `paragraphs.py`, texts have vectors that are not sums of their words'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.errors import InputError
from multimodal.text.normalise import Normaliser
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
    """A vector for each word of a vocabulary, and how those of a text are combined.

    vectors: (v, d) float16 or float32.
    pooling: "mean": all occurrences count equally. "tfidf": a weighted mean, in which an occurrence of word w has the weight
    idf(w) = 1 + ln((1 + N) / (1 + df(w))), with N documents in the fitting corpus, df(w) of them with w (0 for a word that is not in the
    corpus). "sum": like mean, but not divided by the number of words.
    scaling: of the result. "length": to unit length, for which sum equals mean. "range": so that a row's smallest number is 0 and its
    largest 1, as Gomez et al. (2018) need for a cross-entropy. "none".
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
            raise InputError(f"vectors must be ({len(vocabulary)} words, d) but are {vectors.shape}: they belong to another vocabulary")
        if pooling not in POOLINGS:
            raise InputError(f"pooling {pooling!r} is unknown; it must be one of {', '.join(POOLINGS)}")
        if scaling not in SCALINGS:
            raise InputError(f"scaling {scaling!r} is unknown; it must be one of {', '.join(SCALINGS)}")
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
        """(n, d) float32, rows pooled and scaled by the space's settings; a text with no known word has a row of zeros."""
        documents, vectors_of = self._read(texts)
        sums = np.zeros((len(texts), self.dim))
        for members in _portions([len(document) for document in documents]):
            ids = np.concatenate([documents[member] for member in members])
            weights = self._word_weights(ids)[:, None]
            starts = np.cumsum([0, *(len(documents[member]) for member in members[:-1])])
            sums[members] = np.add.reduceat(vectors_of(ids) * weights, starts, axis=0)  # sums each text separately, in its own order
            if self.pooling != "sum" and self.scaling == "none":  # otherwise a factor on a row changes nothing
                sums[members] /= np.add.reduceat(weights, starts, axis=0)
        return scaled(sums, self.scaling).astype(np.float32)

    def _read(self, texts: Sequence[str]) -> tuple[list[np.ndarray], Callable[[np.ndarray], np.ndarray]]:
        """The words of each text by number, those of the vocabulary by position; and what gives their vectors, (w,) to (w, d) float64."""
        documents = [np.array(self.vocabulary.ids(self.normaliser.tokens(text)), np.int64) for text in texts]
        return documents, lambda ids: self.vectors[ids].astype(np.float64)

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """The same as `embed`, whose speed per text does not depend on their number."""
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
        scaling = {} if self.scaling == "length" else {"scaling": self.scaling}  # so that old spaces keep their fingerprint
        return {"pooling": self.pooling, **scaling}

    def _counts(self) -> Mapping[str, int]:
        return {"words": len(self.vocabulary), "dim": self.dim, "documents": self.vocabulary.num_documents}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError if it is not one."""
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
        """What a subclass needs beside these, by name."""
        return {}


def scaled(rows: np.ndarray, scaling: Scaling) -> np.ndarray:
    """(n, d) -> (n, d), see `WordSpace`; rows of zeros stay zero."""
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
