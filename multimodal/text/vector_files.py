"""Word vectors that others fitted and published: the files of GloVe, word2vec and FastText.

    space = from_vector_file("glove.6B.300d.txt", texts)           # also .vec, word2vec's .bin, FastText's .bin; .gz of the first three
    space.embed(["a dog on the beach"])

The formats, told apart by what the file holds:
- text: a word and its numbers a line, blanks between them; where the first line is two numbers (words, dimensions) it is word2vec's.
- word2vec's binary: that line, then each word, a blank, and its numbers as little-endian float32.
- FastText's binary: read by gensim, parts of words and all.
"""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from multimodal.errors import InputError
from multimodal.text.corpus import Corpus
from multimodal.text.normalise import Normaliser
from multimodal.text.space import Origin
from multimodal.text.subwords import FastTextSpace
from multimodal.text.vocabulary import Vocabulary
from multimodal.text.words import Pooling, Scaling, WordSpace

_FASTTEXT = (793712314).to_bytes(4, "little")
_GZIP = b"\x1f\x8b"
_LONGEST_WORD = 1000  # bytes; what is longer is no word, and the file no file of words

Entry = tuple[str, np.ndarray]


def from_vector_file(
    file: Path,
    texts: Iterable[str] = (),
    normaliser: Normaliser | None = None,
    pooling: Pooling = "tfidf",
    max_words: int | None = 400_000,
    origin: Origin | None = None,
    scaling: Scaling = "length",
) -> WordSpace:
    """A word space of the vectors in a file; a `FastTextSpace` where the file knows parts of words.

    Words that the normaliser would never give (punctuation, stop words, "New_York") are left out, and "Paris" stands for "paris" where that
    is not in the file. max_words: the first so many of what is left, since files begin with the most frequent.
    texts: say how many documents hold a word, for tf-idf. InputError, with the line, where the file is not as its format has it.
    """
    file, normaliser = Path(file), normaliser or Normaliser()
    if not file.is_file():
        raise InputError(f"{file}: there is no such file of word vectors")
    frequencies, num_documents = _frequencies(texts, normaliser)

    def vocabulary_of(words: Iterable[str]) -> Vocabulary:
        words = list(words)
        return Vocabulary(words, np.array([frequencies.get(word, 0) for word in words], np.int64), num_documents)

    origin = origin or Origin({"file": file.name, "max_words": max_words})
    with _unpacked(file) as stream:
        is_fasttext = stream.peek(4)[:4] == _FASTTEXT
    if is_fasttext:
        from gensim.models.fasttext import load_facebook_vectors

        keyed = load_facebook_vectors(str(file))
        words, vectors = _chosen(zip(keyed.index_to_key, keyed.vectors, strict=True), normaliser, max_words, file)
        return FastTextSpace(
            normaliser,
            vocabulary_of(words),
            vectors,
            pooling,
            origin,
            scaling,
            ngram_vectors=keyed.vectors_ngrams.astype(np.float16),
            min_letters=keyed.min_n,
            max_letters=keyed.max_n,
        )
    words, vectors = _chosen(read_vectors(file), normaliser, max_words, file)
    return WordSpace(normaliser, vocabulary_of(words), vectors, pooling, origin, scaling)


def read_vectors(file: Path) -> Iterator[Entry]:
    """Each word of a text file or of word2vec's binary with its vector (d,) float32, in the file's order."""
    with _unpacked(file) as stream:
        first = stream.readline()
        header = first.split()
        if len(header) == 2 and all(part.isdigit() for part in header):
            num_words, dim = int(header[0]), int(header[1])
            yield from _lines(stream, dim, 2, file) if _is_text(stream) else _binary(stream, dim, num_words, file)
        else:
            yield from _lines(itertools.chain([first] if first else [], stream), len(header) - 1, 1, file)


@contextmanager
def _unpacked(file: Path) -> Iterator[io.BufferedReader]:
    with open(file, "rb") as raw:
        packed = raw.peek(2)[:2] == _GZIP
        yield io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 16) if packed else raw


def _is_text(stream: io.BufferedReader) -> bool:
    """Whether what comes next is UTF-8 without control characters: float32 numbers never are for long."""
    try:
        begin = codecs.getincrementaldecoder("utf-8")().decode(stream.peek())
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in "\t\r\n" for character in begin)


def _lines(lines: Iterable[bytes], dim: int, begin: int, file: Path) -> Iterator[Entry]:
    for number, line in enumerate(lines, begin):
        word, *rest = line.rstrip().rsplit(b" ", max(dim, 1))  # from the right: words of GloVe's largest files hold blanks
        try:
            vector = np.array(rest, np.float32)
        except ValueError:
            vector = np.empty(0, np.float32)
        if len(vector) != dim or dim < 1:
            raise InputError(f"{file}, line {number}: wanted a word and {dim} numbers. Is this a file of word vectors, and whole?")
        yield word.decode("utf-8", "replace"), vector


def _binary(stream: io.BufferedReader, dim: int, num_words: int, file: Path) -> Iterator[Entry]:
    for number in range(1, num_words + 1):
        word = b"".join(iter(lambda: stream.read(1).replace(b" ", b""), b""))
        numbers = stream.read(4 * dim)
        if len(numbers) != 4 * dim or len(word) > _LONGEST_WORD:
            raise InputError(f"{file}, word {number} of {num_words}: the file ends early, or is not word2vec's. Get it again")
        yield word.lstrip(b"\n").decode("utf-8", "replace"), np.frombuffer(numbers, "<f4")


def _chosen(entries: Iterable[Entry], normaliser: Normaliser, max_words: int | None, file: Path) -> tuple[list[str], np.ndarray]:
    found: dict[str, np.ndarray] = {}
    exact: set[str] = set()
    for word, vector in entries:
        small = word.lower()
        if small in exact or (small in found and small != word):
            continue
        if normaliser.tokens(word) != [small]:
            continue
        if small not in found and max_words is not None and len(found) == max_words:
            break
        found[small] = vector.astype(np.float16)
        if small == word:
            exact.add(small)
    if not found:
        raise InputError(f"{file}: holds no word that the normaliser gives. Does it reduce words to stems?")
    vectors = np.stack(list(found.values()))
    if not np.isfinite(vectors).all():
        raise InputError(f"{file}: holds vectors that are no numbers, or larger than float16 can say")
    return list(found), vectors


def _frequencies(texts: Iterable[str], normaliser: Normaliser) -> tuple[dict[str, int], int]:
    texts = iter(texts)
    first = next(texts, None)
    if first is None:
        return {}, 0
    seen = Corpus.read(itertools.chain([first], texts), normaliser).vocabulary
    return dict(zip(seen.words, seen.document_frequencies.tolist(), strict=True)), seen.num_documents
