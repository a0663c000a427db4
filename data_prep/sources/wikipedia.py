"""Pictures in Wikipedia articles, each with the article and its caption: a ZIM file, or a MediaWiki dump and a folder of pictures.

    data-prep make-shards wikipedia enwiki-20250101-pages-articles-multistream.xml.bz2 --images commons --output shards/wikipedia
    data-prep make-shards wikipedia wikipedia_en_all_maxi_2025-08.zim --min-side-px 128 --output shards/wikipedia

The wikitext says which pictures an article has (`[[File:Name.jpg|thumb|caption]]`, galleries, infoboxes); or the table of WIT does
(Srinivasan et al., "WIT: Wikipedia-based Image Text Dataset", SIGIR 2021), which is needed for texts from WikiExtractor.

Kiwix's ZIM files hold articles as HTML together with their pictures, so one download is enough (extra `zim`). Their pictures have the size
shown in the article, mostly 220 to 250 pixels wide: with the default of --min-side-px nearly all are skipped.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from data_prep.files.lines import numbered_lines
from data_prep.pictures.formats import is_smaller, offer
from data_prep.sources import input_fingerprint
from data_prep.sources._images import Images, images_fingerprint
from data_prep.wiki.dump import Dump, OnBad, extracted_articles, extracted_files
from data_prep.wiki.html import read_html
from data_prep.wiki.wikitext import Article, Illustration, file_name, hashed_path, read_wikitext, words_of
from data_prep.wiki.zim import Zim, is_zim, picture_path
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger

# Formats that shards hold; articles also link vector drawings, sounds and films, which are skipped.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif")
_DRAWING = re.compile(r".*\.svg(\.\w+)+", re.IGNORECASE)  # rendered to pixels, as in ZIM files
_MAX_NAME_BYTES = 240  # MediaWiki stores no longer ones
_SAMPLED_PIECES = 8
_PAGES_A_PIECE = 32  # of a ZIM file
_PIECES_WITHOUT_PAIRS = 64  # in a part, where no sampled piece had a pair


def wikipedia(
    input: Path,
    images: Path | None = None,
    wit: Path | None = None,
    index: Path | None = None,
    min_side_px: int = 256,
    min_words: int = 50,
    part: Mapping[str, Any] | None = None,
    *,
    ledger: Ledger,
) -> Iterator[Pair]:
    """The pictures of each article, in the order of the dump and of the article; pictures of one article share a group.

    input: the dump, pages-articles as .xml.bz2 (multistream or not) or .xml; or WikiExtractor's output folder, together with `wit`;
        or a ZIM file of Kiwix (.zim, or the first file, .zimaa, of a split one), which needs nothing else.
    images: a folder with the pictures under their names on the wiki, with blanks or underscores, or in MediaWiki's hashed folders
        (a/a9/Example.jpg), or in tars. Missing pictures are skipped, since nobody has all of them.
    wit: a table of WIT (.tsv or .tsv.gz) with the pictures and captions of each article, to use instead of the wikitext.
    index: the index of a multistream dump; by default the one beside it.
    min_side_px: skip pictures whose shorter side has fewer pixels, such as flags and icons.
    min_words: skip articles with fewer words.
    part: one of the parts from `plan`; by default the whole input.

    The id of an article in a ZIM file is its path there; a picture that is missing in the file counts as bad.
    The texts are the article, after its title, and then the caption if there is one. A picture in several articles comes with each of them,
    named "article id/file name": a part does not know the other parts of the dump; `data-prep dedup` finds such pictures.
    """
    documents = _open(input, images, wit, index)
    with documents.pictures() as find:
        for article in documents.read(part, ledger.bad):
            where = f"{input.name} article {article.id}"
            found = list(_pictures_of(article, find, min_side_px, where, ledger))
            if not found or len(words_of(article.text)) < min_words:
                continue
            for one in found:
                texts = [f"{article.title}\n{article.text}", one.caption]
                metadata = {"title": article.title, "article": article.id} | ({"caption": one.caption} if one.caption else {})
                yield from offer(ledger, where, one.name, one.image, texts, article.id, metadata=metadata)


def plan(
    pairs_per_shard: int,
    input: Path,
    images: Path | None = None,
    wit: Path | None = None,
    index: Path | None = None,
    min_side_px: int = 256,
    min_words: int = 50,
) -> list[dict[str, Any]]:
    """Ranges of the dump, {"start": ..., "stop": ...}, or of the entries of a ZIM file, or lists of WikiExtractor's files, each with about
    pairs_per_shard pairs, as estimated by reading eight samples of the input.
    """
    documents = _open(input, images, wit, index)
    num = documents.num_pieces
    num_sampled = min(num, _SAMPLED_PIECES)
    sampled = [(2 * number + 1) * num // (2 * num_sampled) for number in range(num_sampled)]
    parts = (documents.part(piece, piece + 1) for piece in sampled)
    found = sum(1 for part in parts for _ in wikipedia(input, images, wit, index, min_side_px, min_words, part, ledger=Ledger(Path())))
    pieces_a_part = max(round(pairs_per_shard * len(sampled) / found), 1) if found else _PIECES_WITHOUT_PAIRS
    num_parts = -(-num // pieces_a_part)
    return [documents.part(*both) for both in pairwise(number * num // num_parts for number in range(num_parts + 1))]


def inputs(input: Path, images: Path | None, wit: Path | None, index: Path | None, min_side_px: int, min_words: int) -> dict[str, str]:
    """Fingerprints of the dump, the pictures and the table; not of the index, which only says where the dump can be cut."""
    if is_zim(input):
        return {"input": _zim(input, images, wit, index).fingerprint}
    said = {"input": input_fingerprint(input, extracted_files(input)), "images": images_fingerprint(_given(images, input))}
    return said | ({"wit": input_fingerprint(wit)} if wit is not None else {})


# Pictures ---------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Picture:
    name: str
    image: bytes
    caption: str


Find = Callable[[str], bytes | None]
"""File name -> its picture, None if it may be missing. InputError: why it cannot be read."""


def _pictures_of(article: _Article, find: Find, min_side_px: int, where: str, ledger: Ledger) -> Iterator[_Picture]:
    """The pictures that exist and are large enough."""
    names: set[str] = set()
    for one in article.illustrations:
        if not one.file.lower().endswith(_SUFFIXES):
            continue
        name = one.file.rpartition("/")[2]  # names on a wiki have no /; in a ZIM file pictures are in folders, and two may share a name
        name = f"{article.id}/{one.file if name in names else name}"
        names.add(name.rpartition("/")[2])
        try:
            image = find(one.file)
        except InputError as error:  # several members of the tars match, or a ZIM file lacks it
            ledger.bad(where, name, str(error))
            continue
        if image is not None and not is_smaller(image, min_side_px):
            yield _Picture(name, image, one.caption)


@contextmanager
def _pictures_in(images: Path) -> Iterator[Find]:
    with Images(images) as pictures:
        yield partial(_read, pictures)


def _read(pictures: Images, file: str) -> bytes | None:
    """Read by the stored name, the name with blanks, or MediaWiki's hashed path; None if it is not a valid file name on a wiki."""
    if "/" in file or "\0" in file or len(file.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        return None
    names = dict.fromkeys((file, file.replace("_", " "), hashed_path(file)))
    return next((image for name in names if (image := pictures.read(name)) is not None), None)


# Articles ---------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Article:
    id: str
    title: str
    text: str
    illustrations: tuple[Illustration, ...]


class _Documents(Protocol):
    """Articles, in pieces that can be read separately."""

    @property
    def num_pieces(self) -> int: ...

    def part(self, start: int, stop: int) -> dict[str, Any]:
        """The pieces [start, stop), as JSON that says where they are."""

    def read(self, part: Mapping[str, Any] | None, bad: OnBad) -> Iterator[_Article]: ...

    def pictures(self) -> AbstractContextManager[Find]:
        """A function that finds the files named by its articles."""


def _open(input: Path, images: Path | None, wit: Path | None, index: Path | None) -> _Documents:
    """Cached by a process for all its parts, until one of these files changes (of a folder or a split ZIM file, the path given)."""
    return _opened(input, images, wit, index, tuple(map(_stamp, (input, wit, index))))


def _stamp(path: Path | None) -> tuple[int, int] | None:
    if path is None or not path.exists():
        return None
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


@lru_cache(maxsize=4)
def _opened(input: Path, images: Path | None, wit: Path | None, index: Path | None, stamps: tuple[object, ...]) -> _Documents:
    if is_zim(input):
        return _OfZim(_zim(input, images, wit, index))
    images = _given(images, input)
    if not input.is_dir():
        dump = Dump(input, index)
        return _OfDump(dump, _read_wit(wit, dump.language) if wit is not None else None, images)
    files = extracted_files(input)
    if not files:
        raise InputError(f"{input}: is a folder without WikiExtractor's files (AA/wiki_00). Give them, or a dump: one file (.xml.bz2)")
    if wit is None:
        raise InputError(f"{input}: is a folder; WikiExtractor's texts do not say which pictures an article has: give a table with --wit")
    if index is not None:
        raise InputError(f"{input}: is a folder of WikiExtractor's files; --index is for a multistream dump. Leave it out")
    first = next((article for file in files for article in extracted_articles(file, lambda *_: None)), None)
    names = tuple(file.relative_to(input).as_posix() for file in files)
    return _OfExtractor(input, names, _read_wit(wit, first.language if first is not None else ""), images)


def _given(images: Path | None, input: Path) -> Path:
    if images is None:
        raise InputError(f"{input}: contains no pictures (only ZIM files do); give the folder or the .tar of the pictures with --images")
    return images


def _zim(input: Path, images: Path | None, wit: Path | None, index: Path | None) -> Zim:
    needless = [f"--{name}" for name, path in {"images": images, "wit": wit, "index": index}.items() if path is not None]
    if needless:
        raise InputError(f"{input}: a ZIM file contains its pictures, and says which article has which; leave out {', '.join(needless)}")
    return Zim(input)


Links = Mapping[str, tuple[Illustration, ...]]
"""Title of an article -> its pictures."""


def _read_or_name(read: Callable[[], Article], where: str, page: str, bad: OnBad) -> Article | None:
    """The article; or, if it cannot be read, None and a call of `bad`."""
    try:
        return read()
    except Exception as error:  # pages are untrusted: an unforeseen error costs the page, not this job and each that resumes it
        bad(where, page, f"the page cannot be read: {type(error).__name__}: {error}")
        return None


@dataclass(frozen=True)
class _OfDump:
    dump: Dump
    links: Links | None
    images: Path

    @cached_property
    def _cuts(self) -> list[int]:
        return self.dump.cuts()

    @property
    def num_pieces(self) -> int:
        return len(self._cuts) - 1

    def part(self, start: int, stop: int) -> dict[str, Any]:
        return {"start": self._cuts[start], "stop": self._cuts[stop]}

    def read(self, part: Mapping[str, Any] | None, bad: OnBad) -> Iterator[_Article]:
        for page in self.dump.articles(**(part or {}), bad=bad):
            if self.links is not None and page.title not in self.links:
                continue
            article = _read_or_name(partial(read_wikitext, page.markup, self.dump.words), self.dump.path.name, page.title, bad)
            if article is not None:
                illustrations = article.illustrations if self.links is None else self.links[page.title]
                yield _Article(page.id, page.title, article.text, illustrations)

    def pictures(self) -> AbstractContextManager[Find]:
        return _pictures_in(self.images)


@dataclass(frozen=True)
class _OfExtractor:
    folder: Path
    files: tuple[str, ...]
    links: Links
    images: Path

    @property
    def num_pieces(self) -> int:
        return len(self.files)

    def part(self, start: int, stop: int) -> dict[str, Any]:
        return {"files": list(self.files[start:stop])}

    def read(self, part: Mapping[str, Any] | None, bad: OnBad) -> Iterator[_Article]:
        for name in self.files if part is None else part["files"]:
            for one in extracted_articles(self.folder / name, bad):
                if one.title in self.links:
                    yield _Article(one.id, one.title, one.text, self.links[one.title])

    def pictures(self) -> AbstractContextManager[Find]:
        return _pictures_in(self.images)


@dataclass(frozen=True)
class _OfZim:
    zim: Zim

    @cached_property
    def _cuts(self) -> list[int]:
        """Numbers of entries: 0, that of every _PAGES_A_PIECE-th page, and the end."""
        return [0, *self.zim.page_entries()[_PAGES_A_PIECE::_PAGES_A_PIECE], self.zim.num_entries]

    @property
    def num_pieces(self) -> int:
        return len(self._cuts) - 1

    def part(self, start: int, stop: int) -> dict[str, Any]:
        return {"start": self._cuts[start], "stop": self._cuts[stop]}

    def read(self, part: Mapping[str, Any] | None, bad: OnBad) -> Iterator[_Article]:
        for page in self.zim.pages(**(part or {}), bad=bad):
            if "<img" not in page.html:  # a quick check, because parsing takes the longest
                continue
            article = _read_or_name(partial(read_html, page.html), self.zim.path.name, page.path, bad)
            if article is None:
                continue
            places = ((picture_path(page.path, one.file), one) for one in article.illustrations)
            found = tuple(replace(one, file=place) for place, one in places if place and not _DRAWING.fullmatch(place))
            yield _Article(page.path, page.title, article.text, found)

    def pictures(self) -> AbstractContextManager[Find]:
        return nullcontext(self.zim.picture)


# WIT --------------------------------------------------------------------------------------------------------------------------------------

_WIT_COLUMNS = ("language", "page_title", "image_url")
_WIT_CAPTIONS = ("caption_reference_description", "caption_attribution_description", "caption_alt_text_description")


def _read_wit(path: Path, language: str) -> Links:
    """The rows of a language ("": of all), each picture of an article once. Takes some 300 bytes of memory per row, 1.6 GB for English.

    The caption is the one under the picture; else the description on the picture's own page; else the alternative text.
    """
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(_decoded(path), delimiter="\t")
    header = next(rows, [])
    missing = [name for name in _WIT_COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: has no column {', '.join(missing)}; its first line must be WIT's header, and is: {', '.join(header)[:200]}"
        )
    links: dict[str, dict[str, str]] = {}
    for record in _records(path, header, rows):
        file = file_name(unquote(record["image_url"].rpartition("/")[2]))
        if file and language in ("", record["language"]):
            caption = next((" ".join(record[name].split()) for name in _WIT_CAPTIONS if record.get(name, "").strip()), "")
            links.setdefault(record["page_title"].replace("_", " "), {}).setdefault(file, caption)
    return {title: tuple(Illustration(*one) for one in captions.items()) for title, captions in links.items()}


def _records(path: Path, header: list[str], rows: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    """Its rows by column. InputError if one is broken: a set has no record of pictures that it missed."""
    try:
        for number, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise InputError(f"{path} row {number}: has {len(row)} fields for {len(header)} columns. Download the table again")
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: is not a table of WIT: {error}. Download the table again") from None


def _decoded(path: Path) -> Iterator[str]:
    for number, line in numbered_lines(path):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} line {number}: is not UTF-8 (byte {error.start + 1}). Download the table again") from None
