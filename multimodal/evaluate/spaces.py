"""The verb `multimodal text-space show`: a text space's words, its topics with pictures, and the nearest words of a word.

multimodal text-space show spaces/lda40 --words dog beach
multimodal text-space show spaces/lda40 --shards shards/wiki --column lda40 --html topics.html
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multimodal.boxes import write_output
from multimodal.doors.printable import printable
from multimodal.errors import InputError
from multimodal.metrics import score_blocks, unit
from multimodal.shards import Column, SetPath, ShardSet, open_set
from multimodal.text import Doc2VecSpace, FastTextSpace, TextSpace, TopicSpace, WordSpace, open_space
from multimodal.text.space import NamesDimensions

_ROWS_AT_ONCE = 1 << 14
_TEXT_SHOWN = 40
_THUMBNAIL_PX = 96


@dataclass(frozen=True, slots=True)
class Near:
    """A word and its nearness, at most 1."""

    word: str
    nearness: float


@dataclass(frozen=True, slots=True)
class Strongest:
    """A topic over a column: the mean of its shares, and the ids of the pairs with most of it, in descending order."""

    share: float
    ids: np.ndarray


def show(
    space: Path,
    num_words: int = 10,
    words: list[str] | None = None,
    shards: SetPath | None = None,
    column: str | None = None,
    num_pairs: int = 6,
    html: Path | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
) -> None:
    """Print a text space's class, dimensions and fingerprint, and its topics' top words or its most frequent words.

    Args:
        space: the folder of the text space.
        num_words: words shown for each topic, or in all, and near each of `words`.
        words: for each of these, show the nearest words: by the angle between word vectors, or by the similarity of their topics.
        shards: a shard set, a folder or a URL, whose pairs illustrate the topics.
        column: the column of that set that the space made: it gives each topic's size and the pairs with most of it.
        num_pairs: pairs shown for each topic.
        html: also write all of it, with the pairs' pictures, as a page to this file.
        cache: the folder for the tars and columns of a set at a URL; by default one in the user's cache folder.
        cache_bytes: the most that these tars take; by default 20 GiB.
        trust: your own packages whose classes the text space names. Their code is run; without this option, nothing is imported
            because a folder names it.
    """
    opened = open_space(space, trust)
    facts = list(_facts(space, opened))
    near = {word: neighbours(opened, word, num_words) for word in words or ()}
    strongest: list[Strongest] = []
    if (shards is None) != (column is None):
        raise InputError("--shards and --column need each other: the column must be of those shards, made by this space")
    source = None if shards is None else open_set(shards, cache, cache_bytes)
    if source is not None and column is not None:
        strongest = strongest_pairs(opened, Column.of(source, column), len(source), num_pairs)
    tops = opened.top_words(num_words) if isinstance(opened, NamesDimensions) else []
    print(printable("\n".join(facts)))
    for number, top in enumerate(tops):
        share = f" {100 * strongest[number].share:5.1f} %" if strongest else ""
        print(printable(f"  topic {number:3d}{share}: {' '.join(top)}"))
        if source is not None:
            print(printable(f"      {' | '.join(_text(source, id) for id in strongest[number].ids.tolist())}"))
    for word, found in near.items():
        print(printable(f"  near {word}: {', '.join(f'{one.word} {one.nearness:.2f}' for one in found)}"))
    if html is not None:
        with write_output(html) as file:
            file.write(_page(space, facts, tops, strongest, source, near).encode())
        print(f"{html}: written", file=sys.stderr)


def neighbours(space: TextSpace, word: str, k: int) -> list[Near]:
    """The k words nearest to a word, nearest first, without itself; InputError if the space has no words, or not this one.

    For word vectors the nearness is the cosine. For topics it is the Bhattacharyya coefficient, the sum over topics of
    sqrt(p(topic | word) p(topic | other)), with a uniform prior over topics.
    """
    if not isinstance(space, TopicSpace | WordSpace | Doc2VecSpace):
        raise InputError(f"a {type(space).__name__} reads whole texts and has no list of words; --words is for topics and word vectors")
    tokens = space.normaliser.tokens(word)
    named = tokens[0] if len(tokens) == 1 else word
    query = space.word_vector(named) if isinstance(space, FastTextSpace) and len(tokens) == 1 else None
    if query is None and named not in space.vocabulary:
        spelt = ", ".join(space.vocabulary.near(named)) or "none"
        raise InputError(f"no word {word!r} is in the space ({len(space.vocabulary):,} words). Near spellings: {spelt}")
    if query is None:
        query = _word_rows(space, space.vocabulary.position(named), space.vocabulary.position(named) + 1)[0]
    query = unit(query[None])
    words = (unit(_word_rows(space, start, start + _ROWS_AT_ONCE)) for start in range(0, len(space.vocabulary), _ROWS_AT_ONCE))
    nearness = np.concatenate([block.scores[0] for rows in words for block in score_blocks(query, rows)])
    if named in space.vocabulary:
        nearness[space.vocabulary.position(named)] = -np.inf
    best = np.argsort(-nearness, kind="stable")[:k]
    return [Near(space.vocabulary.words[at], float(nearness[at])) for at in best if np.isfinite(nearness[at])]


def strongest_pairs(space: TextSpace, column: Column, num: int, k: int) -> list[Strongest]:
    """For each topic its mean share over a column's rows (the first of each of `num` pairs), and the k pairs with most of it.

    Pairs without a row are left out. InputError if the dimensions have no names, or if another space made the column.
    """
    if not isinstance(space, NamesDimensions):
        raise InputError(f"a {type(space).__name__} has no topics; --column is only for topic spaces")
    made_by = column.manifest.made_from.get("text-space")
    if made_by != space.fingerprint:
        raise InputError(
            f"column {column.name}: made by text space {str(made_by)[:12]}, but this is {space.fingerprint[:12]}. "
            "Name the column of this space, or make one: data-prep make-columns"
        )
    rows = column.take(np.arange(num))
    valid = np.flatnonzero(np.isfinite(rows).all(axis=1))
    rows = rows[valid]
    if not len(rows):
        raise InputError(f"column {column.name}: no pair has a row")
    best = np.argsort(-rows, axis=0, kind="stable")[:k]
    return [Strongest(float(rows[:, topic].mean(dtype=np.float64)), valid[best[:, topic]]) for topic in range(rows.shape[1])]


def _word_rows(space: TopicSpace | WordSpace | Doc2VecSpace, start: int, stop: int) -> np.ndarray:
    """(w, d) float64 vectors of the words [start, stop); their cosine is their nearness."""
    if isinstance(space, WordSpace | Doc2VecSpace):
        return space.vectors[start:stop].astype(np.float64)
    shares = space.topic_word[:, start:stop].T.astype(np.float64)  # squared, a row of unit length sums to one
    return np.sqrt(shares / shares.sum(axis=1, keepdims=True))


def _facts(path: Path, space: TextSpace) -> Iterator[str]:
    yield f"{path}: {type(space).__name__}, family {space.family}, {space.dim} dimensions, {space.fingerprint[:12]}"
    if isinstance(space, TopicSpace | WordSpace | Doc2VecSpace):
        yield f"{len(space.vocabulary)} words, fitted on {space.vocabulary.num_documents} documents"
    if isinstance(space, WordSpace):
        yield f"pooling {space.pooling}, scaling {space.scaling}; most frequent: {' '.join(space.vocabulary.words[:10])}"
    if isinstance(space, Doc2VecSpace):
        way = "PV-DM" if space.dm else "PV-DBOW"
        yield f"{way}, prior {space.prior:g}, scaling {space.scaling}; most frequent: {' '.join(space.vocabulary.words[:10])}"


def _text(source: ShardSet, id: int) -> str:
    text = " ".join(next(iter(source.texts(id)), "").split()) or source.names[id]
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}..."


def _page(
    path: Path,
    facts: Sequence[str],
    tops: Sequence[Sequence[str]],
    strongest: Sequence[Strongest],
    source: ShardSet | None,
    near: dict[str, list[Near]],
) -> str:
    # Imported here, because printing needs neither search nor drawing.
    from multimodal.evaluate.page import render
    from multimodal.evaluate.report import Picture, Report, Table, Topic

    def pictures(ids: np.ndarray) -> list[Picture]:
        if source is None:
            return []
        return [Picture(_thumbnail(source.image_bytes(id)), " ".join(source.texts(id))) for id in ids.tolist()]

    topics = [
        Topic(
            [f"{number}: {top[0]}", *top[1:]] if top else [str(number)],
            strongest[number].share if strongest else None,
            pictures(strongest[number].ids) if strongest else [],
        )
        for number, top in enumerate(tops)
    ]
    if strongest:
        topics.sort(key=lambda topic: -(topic.share or 0))
    longest = max(map(len, near.values()), default=0)
    rows = [[word, *(f"{one.word} {one.nearness:.2f}" for one in found), *[""] * (longest - len(found))] for word, found in near.items()]
    header = ["word", *map(str, range(1, longest + 1))]
    tables = [Table("Near words", "Nearest first; 1 means the same.", header, rows)] if near else []
    return render(Report(str(path), facts, [], [], topics, [], [], tables=tables, photographs=True))


def _thumbnail(encoded: bytes) -> bytes | None:
    from multimodal.pictures.decode import BadPicture, picture
    from multimodal.pictures.thumbnails import thumbnail_jpeg

    try:
        return thumbnail_jpeg(picture(encoded), _THUMBNAIL_PX)
    except BadPicture:
        return None  # shown as a blank with its text
