"""Word vectors that others fitted and published: the files of GloVe, word2vec and FastText.

    space = from_vector_file("glove.6B.300d.txt", texts)           # also .vec, word2vec's .bin, FastText's .bin; plain or packed
    space.embed(["a dog on the beach"])

The formats, told apart by what the file holds, whatever its name:
- text: a word and its numbers a line, blanks or tabs between them; where the first line is two numbers (words and dimensions) it is
  word2vec's.
- word2vec's binary: that line, then each word, a blank, and its numbers as little-endian float32.
- FastText's binary: parts of words and all (`fasttext_file.py`).
Each of them by itself, or packed by gzip, bzip2 or xz, or as the only file of a zip. Nothing of a file is ever unpickled.
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

from multimodal.errors import InputError
from multimodal.text.corpus import Corpus
from multimodal.text.fasttext_file import LONGEST_WORD, MAGIC, MOST_DIMENSIONS, FastTextFile
from multimodal.text.normalise import Normaliser
from multimodal.text.space import Origin
from multimodal.text.subwords import FastTextSpace, ngram_hash, ngrams
from multimodal.text.vocabulary import Vocabulary, check_max_words
from multimodal.text.words import Pooling, Scaling, WordSpace

_ZIP = b"PK\x03\x04"
_OTHERS = {  # how other files begin, what they are, and what to do
    b"\x80": (
        "is a pickle, as gensim's .kv and .model are, which could run code if it were opened",
        "Save the vectors with gensim's save_word2vec_format(..., binary=True)",
    ),
    b"SQLite format 3\0": ("is a database, as .magnitude files are", "Take the vectors that it was made of, as text or word2vec's .bin"),
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
        raise InputError(f"{file}: holds vectors of parts of words that are no numbers, or larger than float16 can hold. Get it again")
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
    """InputError where there is no such file, or nothing in it."""
    if file.is_dir():
        raise InputError(f"{file}: is a folder. Give the file of word vectors that lies in it")
    if not file.is_file():
        raise InputError(f"{file}: there is no such file of word vectors")
    if not file.stat().st_size:
        raise InputError(f"{file}: is empty. Get it again")


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
            raise InputError(f"{file}, line 1: says {dim} dimensions. Is this a file of word vectors, and whole?")
        if not _is_text(stream, dim):
            yield from _binary(stream, dim, num_words, file)
            return
        num_read = 0
        for entry in _text(lines, dim, 2, file):
            num_read += 1
            yield entry
        if num_read < num_words:
            print(f"{file}: says {num_words} words and holds {num_read}. If it was cut off, get it again", file=sys.stderr)
    else:
        yield from _text(itertools.chain([first] if first else [], lines), len(header) - 1, 1, file)


@contextmanager
def _unpacked(file: Path) -> Iterator[io.BufferedReader]:
    """What a file holds, unpacked while it is read. InputError where it is something else, or damaged."""
    try:
        with open(file, "rb") as raw, _opened(raw, file) as inner:
            stream = cast(io.BufferedReader, io.BufferedReader(cast(io.RawIOBase, inner), _BUFFER))
            _refuse_others(stream, file)
            yield stream
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, and not of what is packed
            raise
        raise InputError(f"{file}: is packed, and cut off or damaged ({error or type(error).__name__}). Get it again") from None


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
    """InputError, with what to do, for files that are told by how they begin and hold no vectors that could be read."""
    begin = stream.peek(512)
    for mark, (what, remedy) in _OTHERS.items():
        if begin.startswith(mark):
            raise InputError(f"{file}: {what}. {remedy}")
    if begin.lstrip(codecs.BOM_UTF8 + b" \t\r\n").lower().startswith(_WEB_PAGE):
        raise InputError(f"{file}: is a web page, and no file of word vectors. Download the file that the page offers")
    if begin[_TAR] == b"ustar":
        raise InputError(f"{file}: is a tar archive. Unpack it, and give the file of word vectors in it")


def _lines(stream: io.BufferedReader, file: Path) -> Iterator[bytes]:
    for number in itertools.count(1):
        line = stream.readline(_LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > _LONGEST_LINE:
            raise InputError(f"{file}, line {number}: is longer than {_LONGEST_LINE:,} bytes. This is no file of word vectors")
        yield line


def _is_text(stream: io.BufferedReader, dim: int) -> bool:
    """Whether what comes next is a line of a word and numbers, in whatever encoding; or at least UTF-8 without control characters."""
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
            raise InputError(f"{file}, line {number}: wanted a word and {wanted}. Is this a file of word vectors, and whole?")
        yield entry


def _parsed(line: bytes, dim: int) -> Entry | None:
    """A line's word and its vector (d,) float32; None where it is not a word and so many numbers."""
    if dim < 1:
        return None
    word, *rest = line.rstrip().replace(b"\t", b" ").rsplit(b" ", dim)  # from the right: words of GloVe's largest files hold blanks
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
            raise InputError(f"{file}, word {number} of {num_words}: the file ends early, or is not word2vec's. Get it again")
        yield word.lstrip(b"\n").decode("utf-8", "replace"), np.frombuffer(numbers, "<f4")


def _chosen(entries: Iterable[tuple[str, T]], normaliser: Normaliser, max_words: int | None, file: Path) -> dict[str, T]:
    """What belongs to each word that the normaliser gives, in small letters."""
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
        raise InputError(f"{file}: holds no word that the normaliser gives. Does it reduce words to stems?")
    return found


def _finite(words: list[str], vectors: np.ndarray, file: Path) -> tuple[list[str], np.ndarray]:
    """Words and vectors (n, d) float16 without those that are no finite numbers, which are named on stderr."""
    good = np.isfinite(vectors).all(axis=1)
    if good.all():
        return words, vectors
    bad = [words[at] for at in np.flatnonzero(~good)]
    said = f"{file}: holds vectors that are no numbers, or larger than float16 can hold, for {len(bad)} of {len(words)} words"
    named = ", ".join(map(repr, bad[:_WORDS_SHOWN])) + (" ..." if len(bad) > _WORDS_SHOWN else "")
    if not good.any():
        raise InputError(f"{said} ({named}). Get it again")
    print(f"{said}, which are left out: {named}", file=sys.stderr)
    return [words[at] for at in np.flatnonzero(good)], vectors[good]


def _of_fasttext(model: FastTextFile, rows: list[int]) -> tuple[np.ndarray, np.ndarray | None]:
    """The vectors (n, d) float32 of the words at `rows`, and those of the n-grams (buckets, d) float16; None where the file has none."""
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
