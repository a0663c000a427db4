"""Texts as vectors that foretell their own words: paragraph vectors, or Doc2Vec (Le and Mikolov, ICML 2014).

    space = fit_doc2vec(texts)
    space.embed(["a dog on the beach", "dog"])      # the first is inferred, the second is the word's own vector

gensim's `Doc2Vec` fits the words' vectors and the output weights; opened, the space needs numpy alone. gensim infers a text's vector by
steps along random words from a start drawn by Python's hash, so that a text has another row each time. Here it is where those steps lead
in the mean: the maximum of the expected objective under a Gaussian prior, which is concave and has one answer (`Doc2VecSpace.infer`). The
cosine of that answer to the mean of several of gensim's inferences is about that of gensim's to each other: on captions of Flickr8k
(PV-DBOW, 200 dimensions, all words as noise; 20, 100 and 400 epochs, a prior of 3, 1 and 0.3) 0.994, 0.997 and 0.997, and 0.979, 0.993 and
0.997 among gensim's; on made texts, in both variants, as `pytest tests/parity/test_gensim_doc2vec.py` prints it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.errors import InputError
from multimodal.text.corpus import Corpus
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
from multimodal.text.words import SCALINGS, Scaling, Sentences, scaled, trained

_NOISE_EXPONENT = 0.75  # of a word's frequency, as Mikolov et al. (2013) draw noise words
_NOISE_WORDS = 1024  # that stand for all; on 2,120 words, a text's cosine to its vector by all of them is 0.990 or more, 0.970 by 512
_CONTEXTS_AT_ONCE = 64  # whose numbers by noise word stay near the processor: twice as fast as 1,024
_MOST_STEPS = 2000  # some twenty are taken; hundreds with a prior of 0.01
_STEPS_KEPT = 20
_OVERSHOT = 0.5  # of the slope at a step's begin
_TOLERANCE = 1e-7  # of the last step beside the vector


class Doc2VecSpace(BoxedSpace):
    """Vectors of words, output weights that foretell words, and the inference of a text's vector from both.

    vectors: (v, d) float32, of the words as inputs. They are the rows of texts of one known word: so a query's words add up among word
    vectors.
    output_vectors: (v, d) float32, the weights by which an input foretells each word (gensim's syn1neg).
    counts: (v,) int64, how often each word is in the fitting corpus, which says how likely it is as noise and how much of it was left out.
    dm: whether a text's vector foretells a word together with the words around it (PV-DM, distributed memory, their mean), or by itself
    (PV-DBOW, distributed bag of words, where the order of the words says nothing). window: in PV-DM, words to each side.
    negative: noise words to each word. sample: words that are more than this share of the corpus count less (Mikolov et al., 2013).
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
                f"vectors and output_vectors must be ({num_words} words, d) and are {vectors.shape} and {output_vectors.shape}: "
                "vectors of another vocabulary"
            )
        if counts.shape != (num_words,) or (counts < 1).any():
            raise InputError(f"counts must be ({num_words},), of each word at least 1, and are {counts.shape}")
        _check_above_zero(window=window, negative=negative, prior=prior)
        if scaling not in SCALINGS:
            raise InputError(f"scaling {scaling!r} is none of {', '.join(SCALINGS)}")
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
        """(n, d) float32: of a text of one known word its vector, of any other the one inferred, scaled as the space's setting says.

        A text with no known word has a row of zeros. At 200 dimensions a text takes some 3 to 7 ms of one core in PV-DBOW, whatever its
        length; in PV-DM a caption takes as much, and an article of 500 words 100 ms.
        """
        rows = np.zeros((len(texts), self.dim))
        for row, text in enumerate(texts):
            ids = np.array(self.vocabulary.ids(self.normaliser.tokens(text)), np.int64)
            if len(ids):
                rows[row] = self.vectors[ids[0]] if len(ids) == 1 else self.infer(ids)
        return scaled(rows, self.scaling).astype(np.float32)

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """The same as `embed`, whose speed does not depend on how many texts there are."""
        return self.embed(texts)

    def infer(self, ids: np.ndarray) -> np.ndarray:
        """(d,) float64, the vector of a text: ids (w,), its words by position, in order.

        The x at which

            sum_i keep(w_i) [log s(u(w_i) h_i) + negative sum_{v != w_i} P(v) log s(-u(v) h_i)] - prior / 2 |x|^2

        is largest: what negative sampling maximises in the mean over its draws, with output vectors u, the logistic function s and noise
        P(v) ~ count(v)^0.75. keep(w) is the chance that a frequent word is not left out. In PV-DBOW h_i = x. In PV-DM h_i is the mean of x
        and the vectors of the words around w_i, each of them weighed by keep; position i then counts as often as vectors are averaged in
        it, which is what gensim's steps come to, since they go whole to the mean's parts.

        The prior stands for the few steps that gensim takes from a start near zero: about 60 to 100 / epochs. Without one a text of few
        words has no maximum. The objective is concave, and has one maximum: limited-memory BFGS finds it from zero. Two things are not
        gensim's: it takes no step at words it is sure of (|u h| above 6), and P is here over at most 1,024 words, the same for every text:
        the most frequent, and of the others some that stand for all (quantiles of P at equal distances).
        """
        contexts = list(self._contexts(ids))
        x = np.zeros(self.dim)
        slope, noise_curvature = self._slope(contexts, x)
        steps: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_STEPS_KEPT)  # each with by how much the slope fell
        for _ in range(_MOST_STEPS):
            step = _quasi_newton_step(slope, steps, partial(self._roughly_solved, noise_curvature))
            rise = slope @ step
            there, noise_curvature = self._slope(contexts, x + step)
            while (fall := there @ step) < -_OVERSHOT * rise:  # far behind the maximum along the step: to where a line has it
                step, rise = step * (rise / (rise - fall)), rise * (rise / (rise - fall))
                there, noise_curvature = self._slope(contexts, x + step)
            steps.append((step, slope - there))
            x, slope = x + step, there
            if np.linalg.norm(step) <= _TOLERANCE * np.linalg.norm(x):
                return x
        raise InputError(f"a text of {len(ids)} words has no vector after {_MOST_STEPS} steps; its prior is {self.prior:g}. Raise --prior")

    def _roughly_solved(self, noise_curvature: float, slope: np.ndarray) -> np.ndarray:
        """(d,) the curvature's inverse times a slope (d,), as if noise words bent the objective by their chances, and no other word."""
        noise = self._noise
        return noise.axes @ ((noise.axes.T @ slope) / (self.prior + noise_curvature * noise.spread))

    def _contexts(self, ids: np.ndarray) -> Iterator[_Contexts]:
        """In PV-DBOW one without words around, that foretells all of a text; in PV-DM one for each of its words, in portions."""
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
        own = drawn >= 0  # a word is no noise to itself
        noise_weights[context[own], drawn[own]] -= weights[own] * noise.weights[drawn[own]]
        return _Contexts(sums, sizes, context, self.output_vectors[words].astype(np.float64), weights, self.negative * noise_weights)

    def _slope(self, contexts: Sequence[_Contexts], x: np.ndarray) -> tuple[np.ndarray, float]:
        """The gradient (d,) of what `infer` maximises, at x (d,); and the sum over noise words of how much each bends it."""
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
        """(v,) float64, the chance that an occurrence of a word was not left out while fitting: gensim's formula."""
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
        """From a box that `save` wrote. InputError where it is not one."""
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
    """Some places of a text: what is given at each beside the text's vector, and what is to be foretold there."""

    sums: np.ndarray
    """(j, d) of the vectors of the words around."""
    sizes: np.ndarray
    """(j,) how many vectors are averaged, the text's own among them."""
    context: np.ndarray
    """(t,) the place of each word that is to be foretold."""
    targets: np.ndarray
    """(t, d) its output vector."""
    weights: np.ndarray
    """(t,) how much it counts."""
    noise_weights: np.ndarray
    """(j, m) how much each noise word counts that is not to be foretold."""


@dataclass(frozen=True, slots=True, eq=False)
class _Noise:
    vectors: np.ndarray
    """(m, d) float64 output vectors."""
    weights: np.ndarray
    """(m,) that sum to one."""
    position: np.ndarray
    """(v,) of each word among the m, -1 where it is not one of them."""
    spread: np.ndarray
    """(d,) the eigenvalues of the mean of u u^T over noise words."""
    axes: np.ndarray
    """(d, d) its eigenvectors, as columns."""


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))  # never overflows


def _quasi_newton_step(
    slope: np.ndarray, steps: Sequence[tuple[np.ndarray, np.ndarray]], roughly_solved: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Where limited-memory BFGS goes from here (Nocedal and Wright, Numerical Optimization, algorithm 7.4), uphill. All vectors (d,).

    steps: the last ones, each with by how much the slope fell along it. roughly_solved: by what is known of the curvature beforehand.
    """
    step, shares = slope, []
    for went, fell in reversed(steps):
        shares.append((went @ step) / (went @ fell))
        step = step - shares[-1] * fell
    step = roughly_solved(step)
    for (went, fell), share in zip(steps, reversed(shares), strict=True):
        step = step + (share - (fell @ step) / (went @ fell)) * went
    return step


def _check_above_zero(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise InputError(f"{name} is {value}, and has to be above 0")


def fit_doc2vec(
    texts: Iterable[str],
    normaliser: Normaliser | None = None,
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
    """Paragraph vectors with negative sampling by gensim's `Doc2Vec`, in one thread; same texts, settings and seed, same space.

    PV-DBOW fits the words' vectors beside the texts' (gensim's dbow_words, skip-gram by the same output weights), or they would stay as
    they were drawn. PV-DM looks at the whole window at every place, as Le and Mikolov do, and not at a part of it drawn anew each time. The
    vectors of the texts that it was fitted on are not kept: while it lasts the fit holds four bytes a dimension for each of them.

    texts: one a document. dim: of the vectors. passes: over the corpus. window: words to each side. min_count: words in fewer documents
    have no vector. max_words: the most frequent so many have one. dm, sample, prior, scaling: see `Doc2VecSpace`; sample 0 leaves none out.
    origin: what the manifest says of how the space came about; by default these settings. InputError where no word is left.
    """
    from gensim.models import Doc2Vec

    _check_above_zero(prior=prior)
    if not 0 <= sample < 1:
        raise InputError(f"sample is {sample}; it is a share of the corpus: 0 or more, and less than 1")
    normaliser = normaliser or Normaliser()
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
