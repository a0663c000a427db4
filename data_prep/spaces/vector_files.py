"""Published word vectors: the files of GloVe, word2vec and FastText.

    space = from_vector_file("glove.6B.300d.txt", texts)           # also .vec, word2vec's .bin, FastText's .bin; plain or compressed
    space.embed(["a dog on the beach"])

The formats, recognised by the file's content, not its name:
- text: a line per word, with the word and its numbers separated by blanks or tabs; in word2vec's text format the first line has two numbers
  (words and dimensions).
- word2vec's binary: that line, then each word, a blank, and its numbers as little-endian float32.
- FastText's binary, with its subwords (`fasttext_file.py`).
Each may be compressed by gzip, bzip2 or xz, or be the only file of a zip. Nothing is ever unpickled.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import itertools
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar, cast

import numpy as np

from data_prep.spaces.corpus import Corpus
from data_prep.spaces.fasttext_file import LONGEST_WORD, MAGIC, MOST_DIMENSIONS, FastTextFile
from data_prep.spaces.words import WORDS
from multimodal.errors import InputError
from multimodal.text.normalise import Normaliser
from multimodal.text.space import Origin
from multimodal.text.subwords import FastTextSpace, ngram_hash, ngrams
from multimodal.text.vocabulary import Vocabulary, check_max_words
from multimodal.text.words import Pooling, Scaling, WordSpace

_ZIP = b"PK\x03\x04"
_OTHERS = {  # how other files begin, what they are, and what to do
    b"\x80": (
        "is a pickle, like gensim's .kv and .model, which could run code if it were opened",
        "Save the vectors with gensim's save_word2vec_format(..., binary=True)",
    ),
    b"SQLite format 3\0": ("is a database, like .magnitude files", "Use the vectors that it was made from, as text or word2vec's .bin"),
    b"\x93NUMPY": ("is an array without words", "Save words and vectors together, with gensim's save_word2vec_format(..., binary=True)"),
    b"\xff\xfe": ("is text in UTF-16", "Convert it: iconv -f utf-16 -t utf-8"),
    b"\xfe\xff": ("is text in UTF-16", "Convert it: iconv -f utf-16 -t utf-8"),
    b"\x1f\x8b": ("is packed twice", "Unpack it once"),
    b"BZh": ("is packed twice", "Unpack it once"),
    b"\xfd7zXZ\0": ("is packed twice", "Unpack it once"),
    _ZIP: ("is packed twice", "Unpack it once"),
    b"7z\xbc\xaf": ("is a 7z archive", "Unpack it"),
    b"Rar!": ("is a RAR archive", "Unpack it"),
    b"\x28\xb5\x2f\xfd": ("is packed by zstd", "Unpack it: zstd -d"),
}
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml")
_TAR = slice(257, 262)
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_LONGEST_LINE = 1 << 20  # bytes: of a word and 65,536 numbers
_BUFFER = 1 << 16
_WORDS_SHOWN = 3

T = TypeVar("T")
Entry = tuple[str, np.ndarray]


def from_vector_file(
    file: Path,
    texts: Iterable[str] = (),
    normaliser: Normaliser = WORDS,
    max_words: int | None = 400_000,
    pooling: Pooling = "tfidf",
    scaling: Scaling = "length",
    origin: Origin | None = None,
) -> WordSpace:
    """Take the word vectors of a file of GloVe, word2vec or FastText, weighted by the texts; a `FastTextSpace` if it has parts of words.

    Words that the normaliser would never give (punctuation, stop words, "New_York") are left out, and "Paris" is used for "paris" if that
    is not in the file. InputError, with the line, if the file does not follow its format.

    Args:
        file: text, a word and its numbers per line (GloVe's .txt; .vec); word2vec's .bin; FastText's .bin, with parts of words; or one of
            them as .gz, .bz2 or .xz, or by itself in a .zip. The format is recognised by the content.
        texts: one per document; they determine how rare each word is, for tf-idf.
        normaliser: from texts to words; words of the file that it never gives are left out.
        max_words: only the first this many words of the file, which begins with the most frequent.
        pooling: how a text's words count: mean, all alike; tfidf, rare ones more; sum, all alike and long texts more.
        scaling: of a text's row: length, to unit length (then sum equals mean); range, from 0 for the smallest number to 1 for the
            largest, for objectives between 0 and 1; none. Queries are treated as texts are, so it belongs to the space and not to a column.
        origin: how the space was made, for the manifest; by default these settings.
    """
    file = Path(file)
    check_file(file)
    check_max_words(max_words)
    frequencies, num_documents = _frequencies(texts, normaliser)

    def vocabulary_of(words: Iterable[str]) -> Vocabulary:
        words = list(words)
        return Vocabulary(words, np.array([frequencies.get(word, 0) for word in words], np.int64), num_documents)

    origin = origin or Origin({"file": file.name, "max_words": max_words})
    with _unpacked(file) as stream, np.errstate(over="ignore"):  # what is too large for float16 is found by `_finite`
        if stream.peek(len(MAGIC))[: len(MAGIC)] != MAGIC:
            halves = ((word, vector.astype(np.float16)) for word, vector in _vectors(stream, file))
            chosen = _chosen(halves, normaliser, max_words, file)
            words, vectors = _finite(list(chosen), np.stack(list(chosen.values())), file)
            return WordSpace(normaliser, vocabulary_of(words), vectors, pooling, origin, scaling)
        model = FastTextFile.read(stream, file)
        numbered = _chosen(zip(model.words, itertools.count(), strict=False), normaliser, max_words, file)
        vectors, ngram_vectors = _of_fasttext(model, list(numbered.values()))
        vectors = vectors.astype(np.float16)
    words, vectors = _finite(list(numbered), vectors, file)
    if ngram_vectors is None:
        return WordSpace(normaliser, vocabulary_of(words), vectors, pooling, origin, scaling)
    if not np.isfinite(ngram_vectors).all():
        raise InputError(f"{file}: holds subword vectors that are not finite numbers, or too large for float16. Download it again")
    return FastTextSpace(
        normaliser,
        vocabulary_of(words),
        vectors,
        pooling,
        origin,
        scaling,
        ngram_vectors=ngram_vectors,
        min_letters=model.min_letters,
        max_letters=model.max_letters,
    )


def check_file(file: Path) -> None:
    """InputError if there is no such file, or it is empty."""
    if file.is_dir():
        raise InputError(f"{file}: is a folder. Give the file of word vectors in it")
    if not file.is_file():
        raise InputError(f"{file}: does not exist; give a file of word vectors")
    if not file.stat().st_size:
        raise InputError(f"{file}: is empty. Download it again")


def read_vectors(file: Path) -> Iterator[Entry]:
    """Each word of a text file or of word2vec's binary with its vector (d,) float32, in the file's order."""
    with _unpacked(file) as stream:
        yield from _vectors(stream, file)


def _vectors(stream: io.BufferedReader, file: Path) -> Iterator[Entry]:
    lines = _lines(stream, file)
    first = next(lines, b"").removeprefix(codecs.BOM_UTF8)
    header = first.split()
    if len(header) == 2 and all(part.isdigit() and len(part) < 20 for part in header):
        num_words, dim = int(header[0]), int(header[1])
        if not 1 <= dim <= MOST_DIMENSIONS:
            raise InputError(f"{file}, line 1: says {dim} dimensions. Is this a complete file of word vectors?")
        if not _is_text(stream, dim):
            yield from _binary(stream, dim, num_words, file)
            return
        num_read = 0
        for entry in _text(lines, dim, 2, file):
            num_read += 1
            yield entry
        if num_read < num_words:
            print(
                f"{file}: its header says {num_words} words, and it holds {num_read}. If it was cut off, download it again", file=sys.stderr
            )
    else:
        yield from _text(itertools.chain([first] if first else [], lines), len(header) - 1, 1, file)


@contextmanager
def _unpacked(file: Path) -> Iterator[io.BufferedReader]:
    """The content of a file, decompressed while it is read. InputError if it is something else, or damaged."""
    try:
        with open(file, "rb") as raw, _opened(raw, file) as inner:
            stream = cast(io.BufferedReader, io.BufferedReader(cast(io.RawIOBase, inner), _BUFFER))
            _refuse_others(stream, file)
            yield stream
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # an error of the disk, not of the compressed data
            raise
        raise InputError(f"{file}: is compressed, and cut off or damaged ({error or type(error).__name__}). Download it again") from None


def _opened(raw: io.BufferedReader, file: Path) -> IO[bytes]:
    begin = raw.peek(6)
    if begin.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if begin.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if begin.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw)
    if not begin.startswith(_ZIP):
        return raw
    archive = zipfile.ZipFile(raw)
    members = [member for member in archive.infolist() if not member.is_dir() and not member.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:_WORDS_SHOWN])
        raise InputError(f"{file}: is a zip of {len(members)} files ({names} ...). Unpack it, and give one of them")
    try:
        return archive.open(members[0])
    except (RuntimeError, NotImplementedError) as error:  # a password, or a way of packing that Python does not know
        raise InputError(f"{file}: is a zip that cannot be read here ({error}). Unpack it, and give the file in it") from None


def _refuse_others(stream: io.BufferedReader, file: Path) -> None:
    """InputError, with a remedy, for other kinds of files that are recognised by their first bytes."""
    begin = stream.peek(512)
    for mark, (what, remedy) in _OTHERS.items():
        if begin.startswith(mark):
            raise InputError(f"{file}: {what}. {remedy}")
    if begin.lstrip(codecs.BOM_UTF8 + b" \t\r\n").lower().startswith(_WEB_PAGE):
        raise InputError(f"{file}: is a web page, not a file of word vectors. Download the file that the page links to")
    if begin[_TAR] == b"ustar":
        raise InputError(f"{file}: is a tar archive. Unpack it, and give the file of word vectors in it")


def _lines(stream: io.BufferedReader, file: Path) -> Iterator[bytes]:
    for number in itertools.count(1):
        line = stream.readline(_LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > _LONGEST_LINE:
            raise InputError(f"{file}, line {number}: is longer than {_LONGEST_LINE:,} bytes. This is not a file of word vectors")
        yield line


def _is_text(stream: io.BufferedReader, dim: int) -> bool:
    """Whether the next line is a word and numbers, in any encoding; or at least UTF-8 without control characters."""
    begin = stream.peek()
    if b"\n" in begin and _parsed(begin.split(b"\n", 1)[0], dim) is not None:
        return True
    try:
        decoded = codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in "\t\r\n" for character in decoded)


def _text(lines: Iterable[bytes], dim: int, begin: int, file: Path) -> Iterator[Entry]:
    for number, line in enumerate(lines, begin):
        if not line.strip():
            continue
        entry = _parsed(line, dim)
        if entry is None:
            wanted = f"{dim} numbers" if dim > 0 else "its numbers"
            raise InputError(f"{file}, line {number}: expected a word and {wanted}. Is this a complete file of word vectors?")
        yield entry


def _parsed(line: bytes, dim: int) -> Entry | None:
    """A line's word and its vector (d,) float32; None if it is not a word and that many numbers."""
    if dim < 1:
        return None
    word, *rest = line.rstrip().replace(b"\t", b" ").rsplit(b" ", dim)  # from the right: some words in GloVe's largest files contain blanks
    try:
        vector = np.array(rest, np.float32)
    except ValueError:
        return None
    return (word.decode("utf-8", "replace"), vector) if len(vector) == dim else None


def _binary(stream: io.BufferedReader, dim: int, num_words: int, file: Path) -> Iterator[Entry]:
    for number in range(1, num_words + 1):
        word = b"".join(itertools.islice(iter(lambda: stream.read(1).replace(b" ", b""), b""), LONGEST_WORD + 1))
        numbers = stream.read(4 * dim)
        if len(numbers) != 4 * dim or len(word) > LONGEST_WORD:
            raise InputError(
                f"{file}, word {number} of {num_words}: the file ends early, or is not in word2vec's format. Download it again"
            )
        yield word.lstrip(b"\n").decode("utf-8", "replace"), np.frombuffer(numbers, "<f4")


def _chosen(entries: Iterable[tuple[str, T]], normaliser: Normaliser, max_words: int | None, file: Path) -> dict[str, T]:
    """The content of each word that the normaliser produces, by the word in lower case."""
    found: dict[str, T] = {}
    exact: set[str] = set()
    for word, content in entries:
        small = word.lower()
        if small in exact or (small in found and small != word):
            continue
        if normaliser.tokens(word) != [small]:
            continue
        if small not in found and max_words is not None and len(found) == max_words:
            break
        found[small] = content
        if small == word:
            exact.add(small)
    if not found:
        raise InputError(
            f"{file}: has no word that the normaliser produces. Does the normaliser reduce words to stems? Choose another variant"
        )
    return found


def _finite(words: list[str], vectors: np.ndarray, file: Path) -> tuple[list[str], np.ndarray]:
    """Words and vectors (n, d) float16, without vectors that are not finite, which are reported on stderr."""
    good = np.isfinite(vectors).all(axis=1)
    if good.all():
        return words, vectors
    bad = [words[at] for at in np.flatnonzero(~good)]
    problem = f"{file}: the vectors of {len(bad)} of {len(words)} words are not finite numbers, or too large for float16"
    named = ", ".join(map(repr, bad[:_WORDS_SHOWN])) + (" ..." if len(bad) > _WORDS_SHOWN else "")
    if not good.any():
        raise InputError(f"{problem} ({named}). Download it again")
    print(f"{problem}; they are left out: {named}", file=sys.stderr)
    return [words[at] for at in np.flatnonzero(good)], vectors[good]


def _of_fasttext(model: FastTextFile, rows: list[int]) -> tuple[np.ndarray, np.ndarray | None]:
    """The vectors (n, d) float32 of the words at `rows`, and those of the n-grams (buckets, d) float16, or None if the file has none."""
    order = np.argsort(rows)
    vectors, ngram_vectors = np.empty((len(rows), model.dim), np.float32), None
    vectors[order], ngram_vectors = model.matrix([rows[at] for at in order])
    if ngram_vectors is None:
        return vectors, None
    for vector, row in zip(vectors, rows, strict=True):  # a word's vector is the mean of its row and of its n-grams'
        buckets = [ngram_hash(ngram) % model.num_buckets for ngram in ngrams(model.words[row], model.min_letters, model.max_letters)]
        for bucket in buckets:
            vector += ngram_vectors[bucket]
        vector /= len(buckets) + 1
    return vectors, ngram_vectors.astype(np.float16)


def _frequencies(texts: Iterable[str], normaliser: Normaliser) -> tuple[dict[str, int], int]:
    texts = iter(texts)
    first = next(texts, None)
    if first is None:
        return {}, 0
    seen = Corpus.read(itertools.chain([first], texts), normaliser).vocabulary
    return dict(zip(seen.words, seen.document_frequencies.tolist(), strict=True)), seen.num_documents
