"""Case lda: topics of 100,000 documents, our inference beside gensim's: as many processes, the same start, the same stopping rule.

40 topics are fitted on the articles of `enwiki`, and a document is one of them whose words are drawn again, with replacement, as many as it
has. Each process times the inference alone: to make the documents, and gensim's form of them, is no part of it. The rows that follow say
that the work was equal (how many documents agree within 1e-5; in gensim's float32, rounding sometimes decides that it makes a step more or
less), and how far gensim's random start moves a document.
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

import numpy as np
from bench_rows import Given, Row

from multimodal.boxes import is_whole
from multimodal.cores import usable_cores
from multimodal.errors import InputError
from multimodal.text import Normaliser, TopicSpace, fit_topics
from multimodal.text.topic_figures import Bag

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
            """Documents a second of all processes; the slowest says how long it took."""
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
    agreeing, largest, to_gensim, among_gensim = _distances(space, range(0, num_documents, max(1, num_documents // PORTION)))
    if agreeing < 0.99:
        raise InputError(f"{case}: only {agreeing:.1%} of the documents are within {WITHIN} of gensim's: not the same work")
    yield Row(case, f"within {WITHIN} of gensim, same start", 100 * agreeing, "per cent")
    yield Row(case, "largest difference of a share, same start", 1e6 * largest, "1e-6")
    yield Row(case, "our fixed start to gensim, total variation", 1e6 * to_gensim, "1e-6")
    yield Row(case, "gensim to gensim, its random start", 1e6 * among_gensim, "1e-6")


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
    """What the inference of these documents takes in this process."""
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
def _gensim(path: Path):
    """gensim's model with our topics."""
    from gensim.models import LdaModel

    space, _ = _opened(path)
    model = LdaModel(id2word=dict(enumerate(space.vocabulary.words)), num_topics=space.num_topics, alpha=space.alpha.tolist())
    model.expElogbeta = np.ascontiguousarray(space.topic_word)
    return model


def _as_gensim(bags: list[Bag]) -> list[list[tuple[int, int]]]:
    return [list(zip(ids.tolist(), counts.astype(int).tolist(), strict=True)) for ids, counts in bags]


def _distances(path: Path, numbers: range) -> tuple[float, float, float, float]:
    """From the same start: share of documents that agree, largest difference. Total variation: ours to gensim's, gensim's of two starts."""
    space, articles = _opened(path)
    bags = [_document(articles, number) for number in numbers]
    model = _gensim(path)

    def gensims(seed: int) -> np.ndarray:
        model.random_state = np.random.RandomState(seed)
        return _shares(model.inference(_as_gensim(bags))[0])

    start = np.random.RandomState(1).gamma(100.0, 1.0 / 100.0, (len(bags), space.num_topics)).astype(model.dtype)
    one, other = gensims(1), gensims(2)
    difference = np.abs(_shares(space.infer_many(bags, start)) - one).max(1)
    ours = _shares(space.infer_many(bags))
    return float((difference <= WITHIN).mean()), float(difference.max()), _variation(ours, one), _variation(one, other)


def _shares(gamma: np.ndarray) -> np.ndarray:
    return gamma / gamma.sum(1, keepdims=True)


def _variation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).sum(1).mean() / 2)
