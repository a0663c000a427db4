"""Texts as vectors that predict their own words: paragraph vectors, or Doc2Vec (Le and Mikolov, ICML 2014).

    space = fit_doc2vec(texts)
    space.embed(["a dog on the beach", "dog"])      # the first is inferred, the second is the word's own vector

gensim's `Doc2Vec` fits the words' vectors and the output weights; to open the space, only numpy is needed. gensim infers a text's vector by
steps along random words from a start drawn by Python's hash, so that a text gets another row each time. Here it is where those steps lead
on average: the maximum of the expected objective under a Gaussian prior, which is concave and has one answer (`Doc2VecSpace.infer`). Its
cosine to the mean of several of gensim's inferences is about that between gensim's own: on captions of Flickr8k (PV-DBOW, 200 dimensions,
all words as noise; 20, 100 and 400 epochs, a prior of 3, 1 and 0.3) 0.994, 0.997 and 0.997, against 0.979, 0.993 and 0.997 for gensim's;
on artificial texts, in both variants, `pytest tests/parity/test_gensim_doc2vec.py` prints it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Self

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
from multimodal.text.words import SCALINGS, Scaling, scaled

_NOISE_EXPONENT = 0.75  # of a word's frequency, as Mikolov et al. (2013) draw noise words
_NOISE_WORDS = 1024  # a sample of all; on 2,120 words, its cosine to the vector from all words is 0.990 or more, 0.970 with 512
_CONTEXTS_AT_ONCE = 64  # small enough for the processor's cache: twice as fast as 1,024
_MOST_STEPS = 2000  # usually about twenty; hundreds with a prior of 0.01
_STEPS_KEPT = 20
_OVERSHOT = 0.5  # of the slope at the start of a step
_TOLERANCE = 1e-7  # of the last step relative to the vector


class Doc2VecSpace(BoxedSpace):
    """Vectors of words, output weights that predict words, and the inference of a text's vector from both.

    vectors: (v, d) float32, of the words as inputs. A text of one known word has that word's vector as its row, so a query adds word
    vectors.
    output_vectors: (v, d) float32, the weights by which an input predicts each word (gensim's syn1neg).
    counts: (v,) int64, how often each word is in the fitting corpus; they give its probability as noise and how often it was left out.
    dm: whether a text's vector predicts a word together with the surrounding words (PV-DM, distributed memory, their mean), or by itself
    (PV-DBOW, distributed bag of words, which ignores word order). window: in PV-DM, words to each side.
    negative: noise words per word. sample: words that are more than this share of the corpus count less (Mikolov et al., 2013).
    prior: the precision of the Gaussian prior; see `infer`. scaling: of a row, as in `WordSpace`.
    """

    family: ClassVar[str] = "wordvec"
    setting_types = {"dm": bool, "window": int, "negative": int, "sample": (int, float), "prior": (int, float), "scaling": str}

    def __init__(
        self,
        normaliser: Normaliser,
        vocabulary: Vocabulary,
        vectors: np.ndarray,
        output_vectors: np.ndarray,
        counts: np.ndarray,
        dm: bool = False,
        window: int = 5,
        negative: int = 10,
        sample: float = 1e-3,
        prior: float = 3.0,
        scaling: Scaling = "length",
        origin: Origin = Origin(),  # noqa: B008 (frozen)
    ) -> None:
        num_words = len(vocabulary)
        if vectors.ndim != 2 or len(vectors) != num_words or output_vectors.shape != vectors.shape:
            raise InputError(
                f"vectors and output_vectors must be ({num_words} words, d) but are {vectors.shape} and {output_vectors.shape}: "
                "they belong to another vocabulary"
            )
        if counts.shape != (num_words,) or (counts < 1).any():
            raise InputError(f"counts must be ({num_words},) and at least 1; they are {counts.shape}")
        check_above_zero(window=window, negative=negative, prior=prior)
        if scaling not in SCALINGS:
            raise InputError(f"scaling {scaling!r} is unknown; it must be one of {', '.join(SCALINGS)}")
        self.normaliser = normaliser
        self.vocabulary = vocabulary
        self.vectors = vectors
        self.output_vectors = output_vectors
        self.counts = counts
        self.dm = dm
        self.window = window
        self.negative = negative
        self.sample = sample
        self.prior = prior
        self.scaling = scaling
        self.origin = origin

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32: a text of one known word has that word's vector, any other an inferred one; scaled by the space's setting.

        A text with no known word has a row of zeros. At 200 dimensions, a text of any length takes 3 to 7 ms of one core in PV-DBOW; in
        PV-DM a caption takes as much, and an article of 500 words 100 ms.
        """
        rows = np.zeros((len(texts), self.dim))
        for row, text in enumerate(texts):
            ids = np.array(self.vocabulary.ids(self.normaliser.tokens(text)), np.int64)
            if len(ids):
                rows[row] = self.vectors[ids[0]] if len(ids) == 1 else self.infer(ids)
        return scaled(rows, self.scaling).astype(np.float32)

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """The same as `embed`, whose speed per text does not depend on their number."""
        return self.embed(texts)

    def infer(self, ids: np.ndarray) -> np.ndarray:
        """(d,) float64, the vector of a text: ids (w,), its words by position, in order.

        The x at which

            sum_i keep(w_i) [log s(u(w_i) h_i) + negative sum_{v != w_i} P(v) log s(-u(v) h_i)] - prior / 2 |x|^2

        is largest. It is what negative sampling maximises on average over its draws, with output vectors u, the logistic function s and
        noise P(v) ~ count(v)^0.75. keep(w) is the probability that a frequent word is not left out. In PV-DBOW h_i = x. In PV-DM h_i is the
        mean of x and the vectors of the words around w_i, each weighted by keep; position i then counts as often as vectors are averaged in
        it, which matches gensim, whose steps go in full to each part of the mean.

        The prior replaces the few steps that gensim takes from a start near zero: about 60 to 100 / epochs. Without one, a text of few
        words has no maximum. The objective is concave and has one maximum: limited-memory BFGS finds it from zero. Two things differ from
        gensim: it takes no step at words it is sure of (|u h| above 6), and here P is over at most 1,024 words, the same for every text:
        the most frequent, and a sample of the others (equally spaced quantiles of P).
        """
        contexts = list(self._contexts(ids))
        x = np.zeros(self.dim)
        slope, noise_curvature = self._slope(contexts, x)
        steps: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_STEPS_KEPT)  # each with the decrease of the slope along it
        for _ in range(_MOST_STEPS):
            step = _quasi_newton_step(slope, steps, partial(self._roughly_solved, noise_curvature))
            rise = slope @ step
            there, noise_curvature = self._slope(contexts, x + step)
            while (fall := there @ step) < -_OVERSHOT * rise:  # far beyond the maximum along the step: go to where the secant has it
                step, rise = step * (rise / (rise - fall)), rise * (rise / (rise - fall))
                there, noise_curvature = self._slope(contexts, x + step)
            steps.append((step, slope - there))
            x, slope = x + step, there
            if np.linalg.norm(step) <= _TOLERANCE * np.linalg.norm(x):
                return x
        raise InputError(f"a text of {len(ids)} words has no vector after {_MOST_STEPS} steps; its prior is {self.prior:g}. Raise --prior")

    def _roughly_solved(self, noise_curvature: float, slope: np.ndarray) -> np.ndarray:
        """(d,) the inverse curvature times a slope (d,), with the curvature of noise words at their probabilities and of no other word."""
        noise = self._noise
        return noise.axes @ ((noise.axes.T @ slope) / (self.prior + noise_curvature * noise.spread))

    def _contexts(self, ids: np.ndarray) -> Iterator[_Contexts]:
        """In PV-DBOW one without surrounding words, which predicts the whole text; in PV-DM one for each of its words, in portions."""
        if not self.dm:
            words, times = np.unique(ids, return_counts=True)
            context = np.zeros(len(words), np.int64)
            yield self._contexts_of(np.zeros((1, self.dim)), np.ones(1), context, words, times * self._keep[words])
            return
        keep = self._keep[ids]
        around = keep[:, None] * self.vectors[ids]
        sums, sizes = np.zeros_like(around), np.ones(len(ids))
        for distance in range(1, min(self.window, len(ids) - 1) + 1):
            sums[distance:] += around[:-distance]
            sums[:-distance] += around[distance:]
            sizes[distance:] += keep[:-distance]
            sizes[:-distance] += keep[distance:]
        for start in range(0, len(ids), _CONTEXTS_AT_ONCE):
            part = slice(start, start + _CONTEXTS_AT_ONCE)
            yield self._contexts_of(sums[part], sizes[part], np.arange(len(sums[part])), ids[part], keep[part])

    def _contexts_of(self, sums: np.ndarray, sizes: np.ndarray, context: np.ndarray, words: np.ndarray, weights: np.ndarray) -> _Contexts:
        noise = self._noise
        noise_weights = np.bincount(context, weights, len(sums))[:, None] * noise.weights
        drawn = noise.position[words]
        own = drawn >= 0  # a word is not noise for itself
        noise_weights[context[own], drawn[own]] -= weights[own] * noise.weights[drawn[own]]
        return _Contexts(sums, sizes, context, self.output_vectors[words].astype(np.float64), weights, self.negative * noise_weights)

    def _slope(self, contexts: Sequence[_Contexts], x: np.ndarray) -> tuple[np.ndarray, float]:
        """The gradient (d,) of what `infer` maximises, at x (d,); and the sum of the curvature over noise words."""
        noise = self._noise.vectors
        slope, noise_curvature = -self.prior * x, 0.0
        for one in contexts:
            hidden = (one.sums + x) / one.sizes[:, None]  # (j, d)
            missed = _logistic(-(one.targets * hidden[one.context]).sum(axis=1))  # (t,)
            taken = _logistic(hidden @ noise.T)  # (j, m)
            push = one.noise_weights * taken
            slope = slope + one.targets.T @ (one.weights * missed) - noise.T @ push.sum(axis=0)
            noise_curvature += float((push * (1 - taken)).sum(axis=1) @ (1 / one.sizes))
        return slope, noise_curvature

    @cached_property
    def _keep(self) -> np.ndarray:
        """(v,) float64, the probability that an occurrence of a word was kept while fitting: gensim's formula."""
        if not self.sample:
            return np.ones(len(self.counts))
        ratio = self.sample * self.counts.sum() / self.counts
        return np.minimum(1, np.sqrt(ratio) + ratio)

    @cached_property
    def _noise(self) -> _Noise:
        chances = self.counts.astype(np.float64) ** _NOISE_EXPONENT
        chances /= chances.sum()
        words = np.arange(len(chances))
        if len(words) > _NOISE_WORDS:
            quantiles = np.searchsorted(np.cumsum(chances), (np.arange(_NOISE_WORDS) + 0.5) / _NOISE_WORDS)
            words, times = np.unique(quantiles, return_counts=True)
            chances = times / _NOISE_WORDS
        position = np.full(len(self.counts), -1, np.int64)
        position[words] = np.arange(len(words))
        vectors = self.output_vectors[words].astype(np.float64)
        return _Noise(vectors, chances, position, *np.linalg.eigh((vectors.T * chances) @ vectors))

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Words without a vector -> near spellings."""
        return unknown_words(text, self.normaliser, self.vocabulary)

    def _files(self) -> Mapping[str, bytes | Path]:
        tensors = {
            "vectors": np.ascontiguousarray(self.vectors),
            "output_vectors": np.ascontiguousarray(self.output_vectors),
            "counts": np.ascontiguousarray(self.counts),
            "document_frequencies": self.vocabulary.document_frequencies,
        }
        return {**word_files(self.normaliser, self.vocabulary), WEIGHTS: to_safetensors(tensors)}

    def _settings(self) -> Mapping[str, object]:
        sizes = {"window": self.window, "negative": self.negative, "sample": self.sample, "prior": self.prior}
        return {"dm": self.dm, **sizes, "scaling": self.scaling}

    def _counts(self) -> Mapping[str, int]:
        return {"words": len(self.vocabulary), "dim": self.dim, "documents": self.vocabulary.num_documents}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError if it is not one."""
        path = Path(path)
        manifest = open_box(path, cls)
        tensors, config = open_tensors(path / WEIGHTS), manifest.config
        space = cls(
            read_normaliser(path),
            read_vocabulary(path, tensors["document_frequencies"], manifest.counts["documents"]),
            tensors["vectors"],
            tensors["output_vectors"],
            tensors["counts"],
            **{name: config[name] for name in ("dm", "window", "negative", "sample", "prior", "scaling")},
            origin=origin_of(manifest),
        )
        return space._loaded_from(manifest)


@dataclass(frozen=True, slots=True, eq=False)
class _Contexts:
    """Some positions of a text: what is given at each beside the text's vector, and what is to be predicted there."""

    sums: np.ndarray
    """(j, d) sums of the vectors of the surrounding words."""
    sizes: np.ndarray
    """(j,) how many vectors are averaged, the text's own among them."""
    context: np.ndarray
    """(t,) the position of each word to be predicted."""
    targets: np.ndarray
    """(t, d) its output vector."""
    weights: np.ndarray
    """(t,) how much it counts."""
    noise_weights: np.ndarray
    """(j, m) how much each noise word counts that is not to be predicted."""


@dataclass(frozen=True, slots=True, eq=False)
class _Noise:
    vectors: np.ndarray
    """(m, d) float64 output vectors."""
    weights: np.ndarray
    """(m,) probabilities; they sum to one."""
    position: np.ndarray
    """(v,) the index of each word among the m, -1 if it is not one of them."""
    spread: np.ndarray
    """(d,) the eigenvalues of the mean of u u^T over noise words."""
    axes: np.ndarray
    """(d, d) its eigenvectors, as columns."""


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))  # never overflows


def _quasi_newton_step(
    slope: np.ndarray, steps: Sequence[tuple[np.ndarray, np.ndarray]], roughly_solved: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The uphill direction of limited-memory BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4). All vectors (d,).

    steps: the last ones, each with the decrease of the slope along it. roughly_solved: uses what is known of the curvature beforehand.
    """
    step, shares = slope, []
    for went, fell in reversed(steps):
        shares.append((went @ step) / (went @ fell))
        step = step - shares[-1] * fell
    step = roughly_solved(step)
    for (went, fell), share in zip(steps, reversed(shares), strict=True):
        step = step + (share - (fell @ step) / (went @ fell)) * went
    return step


def check_above_zero(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise InputError(f"{name}={value} must be above 0")
