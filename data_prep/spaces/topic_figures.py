"""How good topics are: how well they predict the words of held-out documents, and how coherent the words of each topic are.

perplexity(topics, shares, rest)            # of one half of each document, given shares inferred from the other half; lower is better
npmi(top_words, documents)                  # (K,) from -1 (never in one document) over 0 (chance) to 1 (always together)

Each has a baseline: the perplexity of a single topic (`unigrams`), and the coherence of the same words permuted across topics
(`dealt`, its name in manifests).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from multimodal.text.compiled_topics import Bag


@dataclass(frozen=True, slots=True)
class TopicFigures:
    """Figures of fitted topics, as in the space's manifest: to four digits, so that fingerprints do not depend on the last bits of a sum.

    perplexity, unigrams: of the second halves of the held-out documents; None if none were held out. npmi: the mean over topics. dealt: the
    same mean after the words were permuted across topics.
    """

    perplexity: float | None
    unigrams: float | None
    held_out_documents: int
    npmi: float
    dealt: float

    def __post_init__(self) -> None:
        for name in ("perplexity", "unigrams", "npmi", "dealt"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(f"{value:.4g}"))

    def lines(self) -> list[str]:
        """As readable text."""
        lines = []
        if self.perplexity is not None:
            lines.append(f"perplexity of {self.held_out_documents} held-out documents: {self.perplexity}; of one topic: {self.unigrams}")
        return [*lines, f"NPMI coherence of top words: {self.npmi}; of the same words permuted across topics: {self.dealt}"]


def halves(ids: np.ndarray) -> tuple[Bag, Bag]:
    """Split a document's words (w,) in reading order alternately into two bags; the first has the extra word, if there is one."""
    first, second = (np.unique(ids[start::2].astype(np.int64), return_counts=True) for start in (0, 1))
    return (first[0], first[1].astype(np.float64)), (second[0], second[1].astype(np.float64))


def perplexity(topics: np.ndarray, shares: np.ndarray, bags: Sequence[Bag]) -> float:
    """exp of the mean negative log probability of the bags' words, each bag under its own mixture of the topics.

    topics: (K, v), rows sum to one; shares: (n, K), rows sum to one; bags: n. If the shares were inferred from the other half of each
    document, this is "document completion" (Wallach et al., Evaluation methods for topic models, ICML 2009). Uniform over v words gives v.
    """
    log_probability = num_words = 0.0
    for mixture, (ids, counts) in zip(shares, bags, strict=True):
        log_probability += float(counts @ np.log(mixture @ topics[:, ids]))
        num_words += float(counts.sum())
    return float(np.exp(-log_probability / num_words))


def npmi(top_words: np.ndarray, documents: Iterable[np.ndarray]) -> np.ndarray:
    """(K,) the mean over pairs of a topic's top words of log(p(a, b) / p(a) p(b)) / -log p(a, b); p are shares of the documents.

    top_words: (K, k) positions, k > 1; documents: each the positions of its words. Bouma, Normalized (pointwise) mutual information in
    collocation extraction (GSCL 2009); for topics: Aletras and Stevenson (IWCS 2013). A pair that never occurs together counts as -1.
    """
    words, inverse = np.unique(top_words, return_inverse=True)
    slots = inverse.reshape(top_words.shape)
    together, num_documents = _counted(words, documents)
    share = together / max(1, num_documents)
    alone = np.diag(share)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(share / np.outer(alone, alone)) / -np.log(share)
    value = np.where(share == 0, -1.0, np.where(share == 1, 1.0, value))
    upper = np.triu_indices(top_words.shape[1], 1)
    return np.array([value[np.ix_(row, row)][upper].mean() for row in slots])


def permuted_words(top_words: np.ndarray) -> np.ndarray:
    """(K, k) the same words permuted across topics, with a fixed seed."""
    return np.random.default_rng(0).permutation(top_words.ravel()).reshape(top_words.shape)


def _counted(words: np.ndarray, documents: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """(m, m) the number of documents that hold both words, on the diagonal those that hold the word; and the number of documents."""
    slot = np.full(int(words.max()) + 1, -1)
    slot[words] = np.arange(len(words))
    together = np.zeros((len(words), len(words)))
    num_documents = 0
    for ids in documents:
        held = slot[ids[ids < len(slot)]]
        held = np.unique(held[held >= 0])
        together[np.ix_(held, held)] += 1
        num_documents += 1
    return together, num_documents
