"""Case lda: topics of 100,000 documents, our inference against gensim's: with as many processes, the same start, the same stopping rule.

40 topics are fitted on the articles of `enwiki`. A document is one of them with its words resampled with replacement. Each process
times the inference alone, without making the documents and converting them for gensim. Further rows show that the work is equal: our
distance from gensim's float64, which must agree; and the share of documents that agree with its float32, the default that is timed, where
rounding sometimes leads to one step more or less. The last rows show how far gensim's random start moves a document.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from bench_rows import Given, Row
from gensim.models import LdaModel

from data_prep.spaces import fit_topics
from data_prep.spaces.topic_figures import Bag
from multimodal.boxes import is_whole
from multimodal.errors import InputError
from multimodal.machine.cores import usable_cores
from multimodal.text import Normaliser, TopicSpace, topics

NUM_TOPICS, NUM_DOCUMENTS, PORTION = 40, 100_000, 2000
OURS, NUMPY, GENSIM = "ours: compiled", "ours: numpy, as a query", "gensim LdaModel.inference"
WITHIN = 1e-5


def rows(given: Given) -> Iterator[Row]:
    num_documents, runs = NUM_DOCUMENTS // 25 if given.quick else NUM_DOCUMENTS, given.runs
    case = f"topics, {num_documents:,} documents"
    space = _prepare(given.data, given.out)
    num_processes = len(usable_cores())
    parts = [range(number, num_documents, num_processes) for number in range(num_processes)]
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:

        def rate(system: str, share: int = 1) -> float:
            """Documents per second of all processes together, by the time of the slowest."""
            some = [part[: len(part) // share] for part in parts]
            return sum(map(len, some)) / max(pool.map(_seconds, [space] * len(some), [system] * len(some), some))

        for system in (OURS, NUMPY, GENSIM):  # compiles, and fills the caches
            rate(system, num_documents // PORTION)
        measured = [(rate(OURS), rate(GENSIM)) for _ in range(runs)]
        slow = rate(NUMPY, 4)
        ours, gensim = median(one for one, _ in measured), median(other for _, other in measured)
        yield Row(case, OURS, ours, "docs/s", 1.0)
        yield Row(case, GENSIM, gensim, "docs/s", median(one / other for one, other in measured))
        yield Row(case, NUMPY, slow, "docs/s", ours / slow)
    found = _distances(space, range(0, num_documents, max(1, num_documents // PORTION)))
    if found.to_float64.max() > WITHIN:
        raise InputError(f"{case}: a share is {found.to_float64.max():.1e} from gensim's in float64: not the same work")
    for precision, differences in (("float64", found.to_float64), ("float32", found.to_float32)):
        yield Row(case, f"within {WITHIN} of gensim's {precision}, same start", 100 * float((differences <= WITHIN).mean()), "per cent")
        yield Row(case, f"largest difference to its {precision}, same start", 1e6 * float(differences.max()), "1e-6")
    yield Row(case, "our fixed start to gensim, total variation", 1e6 * found.variation, "1e-6")
    yield Row(case, "gensim to gensim, its random start", 1e6 * found.variation_of_gensim, "1e-6")


def _prepare(data: Path, out: Path) -> Path:
    articles = data / "enwiki" / "articles.jsonl.gz"
    if not articles.is_file():
        raise InputError(f"{articles}: is missing; JSON Lines with title and text, gzip-compressed")
    if not is_whole(out / "lda"):
        with gzip.open(articles, "rt", encoding="utf-8") as file:
            texts = [f"{article['title']}\n{article['text']}" for article in map(json.loads, file)]
        space = fit_topics(texts, Normaliser(reduce="lemma"), NUM_TOPICS, passes=3)
        bags = [bag for bag in map(space.bag, texts) if len(bag[0])]
        np.save(out / "ids.npy", np.concatenate([ids for ids, _ in bags]))
        np.save(out / "counts.npy", np.concatenate([counts for _, counts in bags]))
        np.save(out / "ends.npy", np.cumsum([len(ids) for ids, _ in bags]))
        space.save(out / "lda")
    return out / "lda"


@cache
def _opened(path: Path) -> tuple[TopicSpace, list[Bag]]:
    ids, counts, ends = (np.load(path.parent / f"{name}.npy") for name in ("ids", "counts", "ends"))
    return TopicSpace.load(path), list(zip(np.split(ids, ends[:-1]), np.split(counts, ends[:-1]), strict=True))


def _document(articles: list[Bag], number: int) -> Bag:
    """Document `number`, the same in every process."""
    random = np.random.default_rng(number)
    ids, counts = articles[random.integers(len(articles))]
    drawn = random.multinomial(int(counts.sum()), counts / counts.sum())
    return ids[drawn > 0], drawn[drawn > 0].astype(np.float64)


def _seconds(path: Path, system: str, numbers: range) -> float:
    """The time of the inference of these documents in this process."""
    space, articles = _opened(path)
    taken = 0.0
    for start in range(0, len(numbers), PORTION):
        bags = [_document(articles, number) for number in numbers[start : start + PORTION]]
        if system == GENSIM:
            documents, model = _as_gensim(bags), _gensim(path)
            begun = time.perf_counter()
            model.inference(documents)
        else:
            infer = space.infer_many if system == OURS else space.infer
            begun = time.perf_counter()
            infer(bags)
        taken += time.perf_counter() - begun
    return taken


@cache
def _gensim(path: Path, dtype: type[np.float32] | type[np.float64] = np.float32) -> LdaModel:
    """gensim's model with our topics."""
    space, _ = _opened(path)
    words = dict(enumerate(space.vocabulary.words))
    model = LdaModel(id2word=words, num_topics=space.num_topics, alpha=space.alpha.tolist(), dtype=dtype)
    model.expElogbeta = np.ascontiguousarray(space.topic_word, dtype)
    return model


def _as_gensim(bags: list[Bag]) -> list[list[tuple[int, int]]]:
    return [list(zip(ids.tolist(), counts.astype(int).tolist(), strict=True)) for ids, counts in bags]


class _Distances(NamedTuple):
    """Largest difference of a share in each document, from the same start; and mean total variations, from different starts."""

    to_float64: np.ndarray
    to_float32: np.ndarray
    variation: float
    variation_of_gensim: float


def _distances(path: Path, numbers: range) -> _Distances:
    space, articles = _opened(path)
    bags = [_document(articles, number) for number in numbers]

    def gensims(model: LdaModel, seed: int) -> np.ndarray:
        model.random_state = np.random.RandomState(seed)
        return _shares(model.inference(_as_gensim(bags))[0])

    def to_gensim(model: LdaModel) -> np.ndarray:
        start = np.random.RandomState(1).gamma(100.0, 1.0 / 100.0, (len(bags), space.num_topics)).astype(model.dtype)
        # gensim adds the epsilon of its precision to each word's norm; ours is that of its default, float32
        with patch.object(topics, "_EPSILON", np.finfo(model.dtype).eps):
            return np.abs(_shares(space.infer_many(bags, start)) - gensims(model, 1)).max(1)

    precise, usual = _gensim(path, np.float64), _gensim(path)
    ours, one, other = _shares(space.infer_many(bags)), gensims(usual, 1), gensims(usual, 2)
    return _Distances(to_gensim(precise), to_gensim(usual), _variation(ours, one), _variation(one, other))


def _shares(gamma: np.ndarray) -> np.ndarray:
    return gamma / gamma.sum(1, keepdims=True)


def _variation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).sum(1).mean() / 2)
