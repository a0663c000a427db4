"""Texts as mixtures of K topics: latent Dirichlet allocation (Blei, Ng and Jordan, JMLR 2003), the text side of TextTopicNet.

    space = fit_topics(texts, Normaliser(reduce="lemma"), num_topics=40)
    space.embed(["a dog on the beach"])     # (1, 40), the row sums to one
    space.top_words(8)                      # 40 lists of 8 words

gensim fits; inference is here, deterministic from a fixed start: in numpy for the few texts of a query, and compiled
(`compiled_topics.py`) for the many of a column. From the same start both equal `LdaModel.inference` within 1e-5. gensim itself starts each
document at random: on the captions of 400 photos, K = 20, that alone moves a row by 1.2e-3 (total variation, mean), and our start differs
by 8.7e-4; on a corpus of overlapping artificial topics by 5.7e-3 and 6.4e-3. Printed by `pytest tests/parity/test_gensim.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.boxes import Manifest
from multimodal.errors import InputError
from multimodal.text.compiled_topics import Bag, infer_documents
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

_EPSILON = float(np.finfo(np.float32).eps)  # what gensim adds to each word's normaliser, in its default precision
_MAX_ELEMENTS = 1 << 22  # words x topics in memory at once: 32 MB


class TopicSpace(BoxedSpace):
    """K topics over a vocabulary.

    topic_word: (K, v) float32, exp(E[log beta]) of the fitted topics: gensim's `expElogbeta`. alpha: (K,) float32, the prior of a document.
    iterations, gamma_threshold: inference of a document stops when the mean change of gamma is below the threshold; gensim's rule.
    """

    family: ClassVar[str] = "topic"
    setting_types = {"iterations": int, "gamma_threshold": (int, float)}

    def __init__(
        self,
        normaliser: Normaliser,
        vocabulary: Vocabulary,
        topic_word: np.ndarray,
        alpha: np.ndarray,
        iterations: int = 50,
        gamma_threshold: float = 0.001,
        origin: Origin = Origin(),  # noqa: B008 (frozen)
    ) -> None:
        if topic_word.ndim != 2 or topic_word.shape[1] != len(vocabulary):
            raise InputError(
                f"topic_word must be (topics, {len(vocabulary)} words) but is {topic_word.shape}: it belongs to another vocabulary"
            )
        if alpha.shape != topic_word.shape[:1]:
            raise InputError(f"alpha must be ({len(topic_word)},), one number per topic, but is {alpha.shape}")
        self.normaliser = normaliser
        self.vocabulary = vocabulary
        self.topic_word = topic_word
        self.alpha = alpha
        self.iterations = iterations
        self.gamma_threshold = gamma_threshold
        self.origin = origin

    @property
    def num_topics(self) -> int:
        return len(self.alpha)

    @property
    def dim(self) -> int:
        return self.num_topics

    def bag(self, text: str) -> Bag:
        """The known words of a text, counted."""
        ids, counts = np.unique(np.array(self.vocabulary.ids(self.normaliser.tokens(text)), np.int64), return_counts=True)
        return ids, counts.astype(np.float64)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, K) float32: how much of each topic is in each text. Rows sum to one; a text with no known word has a row of zeros.

        (The prior's mean would be the Bayesian answer for such a text, but then every unknown query would have the same hits.)
        """
        return self._shares(texts, self.infer)

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """Like `embed`, up to 1e-6, for so many texts that compiling the inference first (some seconds, once) pays off."""
        return self._shares(texts, self.infer_many)

    def _shares(self, texts: Sequence[str], infer: Callable[[Sequence[Bag]], np.ndarray]) -> np.ndarray:
        bags = [self.bag(text) for text in texts]
        gamma = infer(bags)
        known = np.array([len(ids) > 0 for ids, _ in bags], bool).reshape(-1, 1)
        return np.where(known, gamma / gamma.sum(1, keepdims=True), 0).astype(np.float32)

    def infer(self, bags: Sequence[Bag], gamma: np.ndarray | None = None) -> np.ndarray:
        """(n, K) float64 variational Dirichlet parameters of n documents. Blei et al. (2003), in the form of Lee and Seung (2001).

        gamma: (n, K) where to start; by default at one everywhere, so that the result depends only on the document.

        Documents of similar length share one batched product, padded with words of count zero. The padding depends only on the document, so
        no document's arithmetic depends on its neighbours: any batching gives bitwise the same result. It is in float64, so that rounding
        does not decide when a document stops.
        """
        start = self._start(len(bags), gamma)
        result = np.empty_like(start)
        lengths = np.array([_filled_length(len(ids)) for ids, _ in bags], np.int64)
        for length in np.unique(lengths).tolist():
            of_length = np.flatnonzero(lengths == length)
            size = max(1, _MAX_ELEMENTS // max(1, length * self.num_topics))
            for members in np.split(of_length, range(size, len(of_length), size)):
                ids, counts = np.zeros((len(members), length), np.int64), np.zeros((len(members), length))
                for row, member in enumerate(members):
                    num_words = len(bags[member][0])
                    ids[row, :num_words], counts[row, :num_words] = bags[member]
                result[members] = self._infer_batch(ids, counts, start[members])
        return result

    def infer_many(self, bags: Sequence[Bag], gamma: np.ndarray | None = None) -> np.ndarray:
        """Like `infer`, up to 1e-9 of a document's shares, by compiled loops. InputError if numba (extra: prep) is missing.

        Both compute in float64 and differ only in the order of their sums. Here too, no document's arithmetic depends on its neighbours.
        """
        start = self._start(len(bags), gamma)
        return infer_documents(self._word_topic, self.alpha, bags, start, self.iterations, self.gamma_threshold, _EPSILON)

    @cached_property
    def _word_topic(self) -> np.ndarray:
        """(v, K) float32: a word's numbers side by side."""
        return np.ascontiguousarray(self.topic_word.T, np.float32)

    def _start(self, num: int, gamma: np.ndarray | None) -> np.ndarray:
        start = np.ones((num, self.num_topics)) if gamma is None else np.asarray(gamma, np.float64)
        if start.shape != (num, self.num_topics):
            raise ValueError(f"gamma must be ({num}, {self.num_topics}) but is {start.shape}")
        return start

    def _infer_batch(self, ids: np.ndarray, counts: np.ndarray, gamma: np.ndarray) -> np.ndarray:
        """ids, counts (n, w); gamma (n, K) -> (n, K)."""
        alpha = self.alpha.astype(np.float64)
        words = np.ascontiguousarray(self.topic_word[:, ids.ravel()].T.astype(np.float64)).reshape(*ids.shape, self.num_topics)  # (n, w, K)
        result = np.empty_like(gamma)
        active = np.arange(len(gamma))
        weight = np.exp(_expected_log(gamma))  # (n, K)
        for _ in range(self.iterations):
            # The share of topic k in word w is proportional to weight_k * beta_kw; substituting that into the update of gamma
            # leaves two matrix products, without computing the (w, K) shares.
            norm = np.matmul(words, weight[:, :, None])[:, :, 0] + _EPSILON  # (n, w)
            last, gamma = gamma, alpha + weight * np.matmul((counts / norm)[:, None, :], words)[:, 0, :]
            change = np.abs(gamma - last).mean(1)
            result[active] = gamma
            going = change >= self.gamma_threshold
            if not going.any():
                break
            if not going.all():
                active, gamma, words, counts = active[going], gamma[going], words[going], counts[going]
            weight = np.exp(_expected_log(gamma))
        return result

    def top_words(self, k: int) -> list[list[str]]:
        """The k most probable words of each topic, most probable first, ties in the vocabulary's order."""
        best = np.argsort(-self.topic_word, axis=1, kind="stable")[:, :k]
        return [[self.vocabulary.words[word] for word in row] for row in best]

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Words that are not in the vocabulary -> near spellings."""
        return unknown_words(text, self.normaliser, self.vocabulary)

    def _files(self) -> Mapping[str, bytes | Path]:
        tensors: dict[str, np.ndarray] = {
            "topic_word": np.ascontiguousarray(self.topic_word, np.float32),
            "alpha": np.ascontiguousarray(self.alpha, np.float32),
            "document_frequencies": self.vocabulary.document_frequencies,
        }
        return {**word_files(self.normaliser, self.vocabulary), WEIGHTS: to_safetensors(tensors)}

    def _settings(self) -> Mapping[str, object]:
        return {"iterations": self.iterations, "gamma_threshold": self.gamma_threshold}

    def _counts(self) -> Mapping[str, int]:
        return {"topics": self.num_topics, "words": len(self.vocabulary), "documents": self.vocabulary.num_documents}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError if it is not one."""
        path = Path(path)
        manifest: Manifest = open_box(path, cls)
        tensors = open_tensors(path / WEIGHTS)
        space = cls(
            read_normaliser(path),
            read_vocabulary(path, tensors["document_frequencies"], manifest.counts["documents"]),
            tensors["topic_word"],
            tensors["alpha"],
            manifest.config["iterations"],
            manifest.config["gamma_threshold"],
            origin_of(manifest),
        )
        return space._loaded_from(manifest)


def _expected_log(gamma: np.ndarray) -> np.ndarray:
    """E[log theta] of Dirichlet distributions: digamma(gamma) - digamma(sum gamma), over the last axis."""
    return digamma(gamma) - digamma(gamma.sum(-1, keepdims=True))


def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of log gamma for x > 0, to 1e-11. Importing scipy for it would delay the first search by 0.15 s.

    Abramowitz and Stegun: 6.3.6 (recurrence) six times, then 6.3.18 (asymptotic series), which is exact enough from 6 up.
    """
    x = np.asarray(x, np.float64)
    steps = (1 / (x[..., None] + _STEPS)).sum(-1)
    x = x + len(_STEPS)
    inverse = 1 / (x * x)
    series = inverse * (
        1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse * (1 / 240 - inverse * (5 / 660 - inverse * 691 / 32760))))
    )
    return np.log(x) - 0.5 / x - series - steps


_STEPS = np.arange(6.0)


def _filled_length(num_words: int) -> int:
    """The next of 0, 1, 2, 3, 4, 6, 8, 12, 16, 24 ...: few lengths, and at most a third of a document is padding."""
    if num_words <= 2:
        return num_words
    power = 1 << (num_words - 1).bit_length()
    return power * 3 // 4 if num_words <= power * 3 // 4 else power
