"""Topics (latent Dirichlet allocation), fitted by gensim."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.spaces.corpus import Corpus
from data_prep.spaces.topic_figures import TopicFigures, halves, npmi, permuted_words, perplexity
from multimodal.boxes import atomic_write, fingerprint_json
from multimodal.errors import InputError, needing
from multimodal.machine.progress import track
from multimodal.text.normalise import Normaliser
from multimodal.text.space import Origin
from multimodal.text.topics import TopicSpace

_DOCUMENTS_SHOWN = 50_000  # over all passes, by default
_MAX_PASSES = 50
_LEMMAS = Normaliser(reduce="lemma")
_WORDS_SHOWN = 8
_COHERENT_WORDS = 10  # of a topic, the usual number


def fit_topics(
    texts: Iterable[str],
    normaliser: Normaliser = _LEMMAS,
    num_topics: int = 40,
    passes: int | None = None,
    seed: int = 0,
    min_count: int | None = None,
    max_share: float = 0.5,
    max_words: int | None = 100_000,
    alpha: float = 0.1,
    eta: float = 0.1,
    chunk_size: int = 500,
    held_out: Iterable[str] = (),
    num_processes: int = 1,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100_000,
    origin: Origin | None = None,
) -> TopicSpace:
    """Fit topics: latent Dirichlet allocation by online variational Bayes (Hoffman, Blei and Bach, NIPS 2010), by gensim.

    Same texts and settings, same topics. The space's manifest says how good they are (`TopicFigures`), under "figures".

    Args:
        texts: one per document.
        normaliser: from texts to words.
        num_topics: how many.
        passes: over the documents; by default as many as show 50,000 of them, from 1 to 50.
        seed: of the random start.
        min_count: words in fewer documents are left out; by default 1, 2 or 3, with less than 100, less than 500, or more documents, and
            less if that would leave a tenth of the documents without a word, or drop half of all words (as with titles).
        max_share: words in a larger share of the documents are left out.
        max_words: of the rest, only this many are kept, the most frequent.
        alpha: small values make few topics per document.
        eta: small values make few words per topic.
        chunk_size: documents between two updates of the topics.
        held_out: texts that the topics are not fitted on, and whose perplexity is reported.
        num_processes: more than one is faster, but the result is not repeatable, which the manifest then records.
        checkpoint: a file for the state of the fit.
        checkpoint_every: documents between two checkpoints of the fit in the output folder. A fit in one process that was killed
            resumes from there, by the same command, and gives the same topics; the texts are read again first.
        origin: how the space was made, for the manifest; by default these settings. InputError if no word is left.
    """
    with needing("prep", "fitting topics"):
        from gensim.models import LdaModel, LdaMulticore

    above_zero = {"num_topics": num_topics, "passes": passes, "alpha": alpha, "eta": eta, "chunk_size": chunk_size}
    for name, value in {**above_zero, "num_processes": num_processes}.items():
        if value is not None and value <= 0:
            raise InputError(f"{name} is {value}, and has to be above 0")
    corpus = Corpus.read(texts, normaliser, min_count, max_share, max_words)
    if passes is None:
        passes = int(np.clip(np.ceil(_DOCUMENTS_SHOWN / len(corpus)), 1, _MAX_PASSES))
    config = {"passes": passes, "seed": seed, "min_count": min_count, "max_share": max_share, "max_words": max_words}
    config |= {"alpha": alpha, "eta": eta, "chunk_size": chunk_size}
    origin = origin or Origin(config)
    settings: dict[str, Any] = {"num_topics": num_topics, "alpha": [alpha] * num_topics, "eta": eta, "random_state": seed}
    settings |= {"id2word": dict(enumerate(corpus.vocabulary.words)), "chunksize": min(chunk_size, len(corpus))}
    if num_processes > 1:
        model = LdaMulticore(_Bags(corpus), workers=num_processes, passes=passes, eval_every=None, **settings)
    else:
        model = LdaModel(**settings)
        told = _told(num_topics, config, origin, corpus)
        _train(model, corpus, passes, None if checkpoint is None else _Checkpoint(checkpoint, checkpoint_every, told))
    space = TopicSpace(normaliser, corpus.vocabulary, model.expElogbeta, model.alpha, origin=origin)
    figures = _figures(space, model.get_topics(), model.state.get_lambda().sum(axis=0), corpus, held_out)
    more = {"figures": asdict(figures)} | ({"num_processes": num_processes, "repeatable": False} if num_processes > 1 else {})
    space.origin = replace(origin, config={**origin.config, **more})
    return space


def lines(space: TopicSpace) -> Iterator[str]:
    """A readable summary of a fit: each topic by its top words, and how good the topics are."""
    for number, top in enumerate(space.top_words(_WORDS_SHOWN)):
        yield f"topic {number}: {' '.join(top)}"
    yield from TopicFigures(**space.origin.config["figures"]).lines()


def _figures(space: TopicSpace, topics: np.ndarray, word_weights: np.ndarray, corpus: Corpus, held_out: Iterable[str]) -> TopicFigures:
    """topics: (K, v) float, rows sum to one; word_weights: (v,) how often each word is in the corpus, up to a factor."""
    documents = [np.array(space.vocabulary.ids(space.normaliser.tokens(text)), np.int64) for text in held_out]
    split = [halves(ids) for ids in documents if len(ids) > 1]
    top = np.argsort(-space.topic_word, axis=1, kind="stable")[:, :_COHERENT_WORDS]
    coherence = [float(npmi(words, corpus).mean()) if top.shape[1] > 1 else 0.0 for words in (top, permuted_words(top))]
    if not split:
        return TopicFigures(None, None, 0, *coherence)
    gamma, rest = space.infer([first for first, _ in split]), [second for _, second in split]
    one_topic = (word_weights / word_weights.sum())[None]
    return TopicFigures(
        perplexity(topics, gamma / gamma.sum(1, keepdims=True), rest),
        perplexity(one_topic, np.ones((len(rest), 1)), rest),
        len(rest),
        *coherence,
    )


class _Bags:
    """The corpus as gensim reads it, a document at a time, repeatedly."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __len__(self) -> int:
        return len(self._corpus)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return map(_bow, self._corpus)


def _bow(document: np.ndarray) -> list[tuple[int, int]]:
    ids, counts = np.unique(document, return_counts=True)
    return list(zip(ids.tolist(), counts.tolist(), strict=True))


def _train(model: Any, corpus: Corpus, passes: int, checkpoint: _Checkpoint | None) -> None:
    """Does what gensim's `LdaModel.update` does in one process, chunk by chunk, to show progress and to resume."""
    from gensim.models.ldamodel import LdaState

    size = model.chunksize
    chunks = [(at_pass, start) for at_pass in range(passes) for start in range(0, len(corpus), size)]
    first = 0 if checkpoint is None else checkpoint.restore(model)
    model.state.numdocs = len(corpus)
    done = track(range(first, len(chunks)), "fitting topics", unit="document", total=(len(chunks) - first) * size, weight=size)
    for number in done:
        at_pass, start = chunks[number]
        sums = LdaState(model.eta, model.state.sstats.shape, model.dtype)
        model.do_estep([_bow(corpus[at]) for at in range(start, min(start + size, len(corpus)))], sums)
        step_size = pow(model.offset + at_pass + model.num_updates / size, -model.decay)
        model.do_mstep(step_size, sums, at_pass > 0)
        if checkpoint is not None:
            checkpoint.after(model, number, size)


class _Checkpoint:
    """The state of a fit in a .npz file: all that the next chunk's arithmetic depends on, so that a resumed fit gives the same topics.

    told: a fingerprint of settings and corpus. A file with another one is ignored, and overwritten.
    """

    def __init__(self, path: Path, every: int, told: str) -> None:
        self._path, self._every, self._told = path, every, told
        self._documents = 0

    def restore(self, model: Any) -> int:
        """Load the state in the file into a new model. Returns the number of the next chunk, 0 if there is no such file."""
        if not self._path.is_file():
            return 0
        with np.load(self._path, allow_pickle=False) as saved:
            if str(saved["told"]) != self._told:
                print(f"{self._path}: of another fit, and is not resumed", file=sys.stderr)
                return 0
            model.state.sstats = saved["sstats"]
            model.num_updates = int(saved["num_updates"])
            numbers = (int(saved["position"]), int(saved["has_gauss"]), float(saved["gauss"]))
            model.random_state.set_state(("MT19937", saved["random"], *numbers))
            model.sync_state()
            return int(saved["chunk"]) + 1

    def after(self, model: Any, chunk: int, num_documents: int) -> None:
        """Write the file if enough documents were read since it was last written."""
        self._documents += num_documents
        if self._documents < self._every:
            return
        self._documents = 0
        _, random, position, has_gauss, gauss = model.random_state.get_state(legacy=True)
        with atomic_write(self._path) as file:
            np.savez(
                file,
                told=self._told,
                sstats=model.state.sstats,
                num_updates=model.num_updates,
                random=random,
                position=position,
                has_gauss=has_gauss,
                gauss=gauss,
                chunk=chunk,
            )


def _told(num_topics: int, config: Mapping[str, Any], origin: Origin, corpus: Corpus) -> str:
    of_corpus = [corpus.vocabulary.fingerprint, len(corpus), len(corpus.words)]
    return fingerprint_json([num_topics, config, origin.config, origin.made_from, of_corpus])
