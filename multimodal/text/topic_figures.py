"""How good topics are: how well they foretell words of documents that they were not fitted on, and whether a topic's words go together.

perplexity(topics, shares, rest)            # of words whose documents' other half gave the shares; lower is better
npmi(top_words, documents)                  # (K,) from -1 (never in one document) over 0 (as chance has it) to 1 (always together)

Both are read beside what they must beat: the perplexity of one topic alone (`unigrams`), and the coherence of the same words dealt to the
topics at random (`dealt`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Bag = tuple[np.ndarray, np.ndarray]
"""A document: (w,) int64 positions of its distinct words, ascending, and (w,) float64 how often each occurs."""


@dataclass(frozen=True, slots=True)
class TopicFigures:
    """Of fitted topics, as their space's manifest has them, to four digits: a fingerprint should not hang on the last bits of a sum.

    perplexity, unigrams: of the second halves of the held-out documents; None where none were held out. npmi, dealt: means over topics.
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
        """For a person to read."""
        lines = []
        if self.perplexity is not None:
            lines.append(f"perplexity of {self.held_out_documents} held-out documents: {self.perplexity}; of one topic: {self.unigrams}")
        return [*lines, f"NPMI coherence of top words: {self.npmi}; of the same words dealt at random: {self.dealt}"]


def halves(ids: np.ndarray) -> tuple[Bag, Bag]:
    """A document's words (w,) in reading order, every second one apart: two bags of the same subject, the first one the larger."""
    first, second = (np.unique(ids[start::2].astype(np.int64), return_counts=True) for start in (0, 1))
    return (first[0], first[1].astype(np.float64)), (second[0], second[1].astype(np.float64))


def perplexity(topics: np.ndarray, shares: np.ndarray, bags: Sequence[Bag]) -> float:
    """exp of the mean negative log probability of the bags' words, each bag under its own mixture of the topics.

    topics: (K, v), rows sum to one; shares: (n, K), rows sum to one; bags: n. Where the shares were inferred from the other half of each
    document this is "document completion" (Wallach et al., Evaluation methods for topic models, ICML 2009). v words, all alike, give v.
    """
    log_probability = num_words = 0.0
    for mixture, (ids, counts) in zip(shares, bags, strict=True):
        log_probability += float(counts @ np.log(mixture @ topics[:, ids]))
        num_words += float(counts.sum())
    return float(np.exp(-log_probability / num_words))


def npmi(top_words: np.ndarray, documents: Iterable[np.ndarray]) -> np.ndarray:
    """(K,) the mean over pairs of a topic's top words of log(p(a, b) / p(a) p(b)) / -log p(a, b); p are shares of the documents.

    top_words: (K, k) positions, k > 1; documents: each the positions of its words. Bouma, Normalized (pointwise) mutual information in
    collocation extraction (GSCL 2009); for topics: Aletras and Stevenson (IWCS 2013). A pair that never meets counts -1.
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


def dealt(top_words: np.ndarray) -> np.ndarray:
    """(K, k) the same words dealt to the topics at random, the same way each time."""
    return np.random.default_rng(0).permutation(top_words.ravel()).reshape(top_words.shape)


def _counted(words: np.ndarray, documents: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """(m, m) documents that hold both of two words, on the diagonal those that hold one; and how many documents there are."""
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
