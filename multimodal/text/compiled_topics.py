"""Topic inference for very many documents, compiled: what `TopicSpace.infer` computes, at four to five times the speed of gensim's.

    infer_documents(word_topic, alpha, bags, start, iterations=50, threshold=0.001, epsilon=0)      # (n, K)

numba compiles the loops at the first call (some seconds) and keeps the machine code in its cache, beside this file or in the user's cache
folder. It is part of the extra prep and not needed to search: numpy handles a query's few words.

On Wikipedia documents numpy is slower than gensim: its temporary arrays do not fit into the processor's cache, and in portions that do fit,
the calls take longer than the work. Here a document's words stay in the cache until it has converged. Measured by
`scripts/bench_prep_lda.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from multimodal.errors import missing_extra

Bag = tuple[np.ndarray, np.ndarray]
"""A document: (w,) int64 positions of its distinct words, ascending, and (w,) float64 how often each occurs."""

_DOCUMENTS_AT_ONCE = 4096


def infer_documents(
    word_topic: np.ndarray,
    alpha: np.ndarray,
    bags: Sequence[Bag],
    start: np.ndarray,
    iterations: int,
    threshold: float,
    epsilon: float,
) -> np.ndarray:
    """(n, K) float64 variational Dirichlet parameters of n documents.

    word_topic: (v, K) float32, C-contiguous, a row per word. alpha: (K,). start: (n, K). iterations, threshold: a document stops after that
    many steps, or when the mean change of gamma is below the threshold. epsilon: added to each word's normaliser.

    A document's result depends only on the document, and equals numpy's up to rounding: both compute in float64, but sum in a different
    order. InputError if numba is missing.
    """
    infer = _compiled()
    result = np.empty_like(start, np.float64)
    for first in range(0, len(bags), _DOCUMENTS_AT_ONCE):
        portion = bags[first : first + _DOCUMENTS_AT_ONCE]
        ends = np.cumsum([0, *(len(ids) for ids, _ in portion)])
        infer(
            word_topic,
            alpha.astype(np.float64),
            np.concatenate([ids for ids, _ in portion]),
            np.concatenate([counts for _, counts in portion]),
            ends,
            np.ascontiguousarray(start[first : first + len(portion)], np.float64),
            iterations,
            threshold,
            epsilon,
            result[first : first + len(portion)],
        )
    return result


@cache
def _compiled() -> Callable[..., None]:
    try:
        from numba import njit
    except ImportError:
        raise missing_extra("prep", "inferring the topics of many documents needs numba, which is not installed") from None
    # Sums in any order, so that the compiler can add four numbers at once; NaN and infinity keep their meaning. error_model: a division
    # by zero is infinity, as in numpy; a test before each division would prevent vectorising the loop over topics.
    compiled: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})(_infer)
    return compiled


def _infer(
    word_topic: np.ndarray,
    alpha: np.ndarray,
    ids: np.ndarray,
    counts: np.ndarray,
    ends: np.ndarray,
    start: np.ndarray,
    iterations: int,
    threshold: float,
    epsilon: float,
    result: np.ndarray,
) -> None:
    """The loops. ids, counts: the words of all documents, one document after the other; document i has [ends[i], ends[i + 1])."""
    num_topics = word_topic.shape[1]
    longest = 0
    for document in range(len(ends) - 1):
        longest = max(longest, ends[document + 1] - ends[document])
    # Four words at a time, padded with words of count zero: the weights and the sums are then read once for four.
    words = np.zeros((longest + 3, num_topics))
    times = np.zeros(longest + 3)
    gamma = np.empty(num_topics + 1)  # the last is the sum, so that one loop computes all digammas
    expected_log = np.empty(num_topics + 1)
    weight = np.empty(num_topics)
    total = np.empty(num_topics)
    for document in range(len(ends) - 1):
        first = ends[document]
        num_words = ends[document + 1] - first
        filled = (num_words + 3) // 4 * 4
        for word in range(num_words):
            times[word] = counts[first + word]
            for topic in range(num_topics):
                words[word, topic] = word_topic[ids[first + word], topic]
        for word in range(num_words, filled):
            times[word] = 0.0
            for topic in range(num_topics):
                words[word, topic] = 0.0
        for topic in range(num_topics):
            gamma[topic] = start[document, topic]
        for _ in range(iterations):
            gamma_sum = 0.0
            for topic in range(num_topics):
                gamma_sum += gamma[topic]
            gamma[num_topics] = gamma_sum
            for topic in range(num_topics + 1):  # digamma, as `topics.digamma`, with the six steps of the recurrence as one fraction
                x = gamma[topic]
                square = x * (x + 5)  # (x + 1)(x + 4) is 4 more, (x + 2)(x + 3) is 6 more
                steps = (2 * x + 5) * ((3 * square + 20) * square + 24) / (square * (square + 4) * (square + 6))
                shifted = x + 6
                inverse = 1 / (shifted * shifted)
                series = inverse * (
                    1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse * (1 / 240 - inverse * (5 / 660 - inverse * (691 / 32760)))))
                )
                expected_log[topic] = np.log(shifted) - 0.5 / shifted - series - steps
            for topic in range(num_topics):
                weight[topic] = np.exp(expected_log[topic] - expected_log[num_topics])
                total[topic] = 0.0
            for word in range(0, filled, 4):
                norm_0 = norm_1 = norm_2 = norm_3 = 0.0
                for topic in range(num_topics):
                    norm_0 += words[word, topic] * weight[topic]
                    norm_1 += words[word + 1, topic] * weight[topic]
                    norm_2 += words[word + 2, topic] * weight[topic]
                    norm_3 += words[word + 3, topic] * weight[topic]
                share_0 = times[word] / (norm_0 + epsilon)
                share_1 = times[word + 1] / (norm_1 + epsilon)
                share_2 = times[word + 2] / (norm_2 + epsilon)
                share_3 = times[word + 3] / (norm_3 + epsilon)
                for topic in range(num_topics):
                    total[topic] += (
                        share_0 * words[word, topic]
                        + share_1 * words[word + 1, topic]
                        + share_2 * words[word + 2, topic]
                        + share_3 * words[word + 3, topic]
                    )
            change = 0.0
            for topic in range(num_topics):
                updated = alpha[topic] + weight[topic] * total[topic]
                change += abs(updated - gamma[topic])
                gamma[topic] = updated
            if change / num_topics < threshold:
                break
        for topic in range(num_topics):
            result[document, topic] = gamma[topic]
