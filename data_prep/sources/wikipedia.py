"""Pictures of Wikipedia's articles, each with the article and its caption: a ZIM file, or a MediaWiki dump and a folder of pictures.

    data-prep make-shards wikipedia enwiki-20250101-pages-articles-multistream.xml.bz2 --images commons --output shards/wikipedia
    data-prep make-shards wikipedia wikipedia_en_all_maxi_2025-08.zim --min-side-px 128 --output shards/wikipedia

Which picture belongs to which article is said by the wikitext (`[[File:Name.jpg|thumb|caption]]`, galleries, infoboxes) or by the table of
WIT (Srinivasan et al., "WIT: Wikipedia-based Image Text Dataset", SIGIR 2021), of which also the text that WikiExtractor wrote makes use.

The ZIM files of Kiwix hold articles as HTML together with their pictures, so that one download is enough (extra `zim`). Their pictures have
the size at which the article shows them, most of them 220 to 250 pixels wide: with the default of --min-side-px nearly all are passed over.
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

from data_prep.lines import numbered_lines
from data_prep.pictures import is_smaller, offer
from data_prep.sources import input_fingerprint
from data_prep.sources._images import Images, images_fingerprint
from data_prep.wiki_dump import Dump, OnBad, extracted_articles, extracted_files
from data_prep.wiki_html import read_html
from data_prep.wikitext import Article, Illustration, file_name, hashed_path, read_wikitext, words_of
from data_prep.zim import Zim, is_zim, picture_path
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger

# What shards hold; articles also link drawings, sounds and films, which are no pairs.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif")
_DRAWING = re.compile(r".*\.svg(\.\w+)+", re.IGNORECASE)  # as pixels, which a ZIM file has of it
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

    input: the dump, pages-articles as .xml.bz2 (multistream or not) or .xml; or the folder that WikiExtractor wrote, together with `wit`;
        or a ZIM file of Kiwix (.zim; of one in several files the first, .zimaa), which is all that is needed.
    images: a folder with the pictures under their names on the wiki, with blanks or underscores, or below MediaWiki's hashed folders
        (a/a9/Example.jpg), or in tars. A picture that is not there is passed over: nobody has all of them.
    wit: a table of WIT (.tsv or .tsv.gz) that says which pictures an article has, with which captions, in place of the wikitext.
    index: the index of a multistream dump; by default the one beside it.
    min_side_px: pictures whose shorter side has fewer pixels are passed over, as flags and icons.
    min_words: articles with fewer words are passed over.
    part: one of those that `plan` made; by default all of the input.

    An article of a ZIM file has its path there as its id; a picture of it that is not in the file is bad, as a broken one.
    The texts are the article, its title before it, and then the caption where there is one. A picture of several articles comes with each
    of them, named "article id/file name": what is in another part of the dump is not known here, and `data-prep dedup` finds it.
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
    """Ranges of the dump, {"start": ..., "stop": ...}, or of the entries of a ZIM file, or files of WikiExtractor's, of about so many pairs
    each: as eight places of the input let expect, which are read for that.
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
    """The dump, the pictures and the table, for telling a set that was made of them; an index only says where the dump may be cut."""
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
"""The picture of that file, None where nobody expects it to be there. InputError: why it cannot be had."""


def _pictures_of(article: _Article, find: Find, min_side_px: int, where: str, ledger: Ledger) -> Iterator[_Picture]:
    """Those that are there and large enough."""
    names: set[str] = set()
    for one in article.illustrations:
        if not one.file.lower().endswith(_SUFFIXES):
            continue
        name = one.file.rpartition("/")[2]  # which no name on a wiki has; in a ZIM file pictures lie in folders, and two may share a name
        name = f"{article.id}/{one.file if name in names else name}"
        names.add(name.rpartition("/")[2])
        try:
            image = find(one.file)
        except InputError as error:  # several members of the tars could be meant; a ZIM file does not hold it
            ledger.bad(where, name, str(error))
            continue
        if image is not None and not is_smaller(image, min_side_px):
            yield _Picture(name, image, one.caption)


@contextmanager
def _pictures_in(images: Path) -> Iterator[Find]:
    with Images(images) as pictures:
        yield partial(_read, pictures)


def _read(pictures: Images, file: str) -> bytes | None:
    """By its stored name, by the name with blanks, or where MediaWiki keeps it; None for what is no name of a file on a wiki."""
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
    """Articles, in pieces that can be read by themselves."""

    @property
    def num_pieces(self) -> int: ...

    def part(self, start: int, stop: int) -> dict[str, Any]:
        """The pieces [start, stop), as JSON that says where they are."""

    def read(self, part: Mapping[str, Any] | None, bad: OnBad) -> Iterator[_Article]: ...

    def pictures(self) -> AbstractContextManager[Find]:
        """How the files that its articles name are found."""


def _open(input: Path, images: Path | None, wit: Path | None, index: Path | None) -> _Documents:
    """Kept by a process for all its parts, until one of these changes; of a folder, or of a ZIM in pieces, what is looked at first."""
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
        raise InputError(f"{input}: is a folder; text that WikiExtractor wrote does not say which pictures it had: give a table, --wit")
    if index is not None:
        raise InputError(f"{input}: is a folder of WikiExtractor's files; --index is of a multistream dump. Leave it out")
    first = next((article for file in files for article in extracted_articles(file, lambda *_: None)), None)
    names = tuple(file.relative_to(input).as_posix() for file in files)
    return _OfExtractor(input, names, _read_wit(wit, first.language if first is not None else ""), images)


def _given(images: Path | None, input: Path) -> Path:
    if images is None:
        raise InputError(f"{input}: has no pictures in it, as a ZIM file does; give the folder or the .tar where they lie, --images")
    return images


def _zim(input: Path, images: Path | None, wit: Path | None, index: Path | None) -> Zim:
    needless = [f"--{name}" for name, path in {"images": images, "wit": wit, "index": index}.items() if path is not None]
    if needless:
        raise InputError(f"{input}: a ZIM file holds its pictures, and says which article has which; leave {', '.join(needless)} out")
    return Zim(input)


Links = Mapping[str, tuple[Illustration, ...]]
"""Title of an article -> its pictures."""


def _read_or_name(read: Callable[[], Article], where: str, page: str, bad: OnBad) -> Article | None:
    """The article, or None where it cannot be read, and `bad` is told."""
    try:
        return read()
    except Exception as error:  # strangers write pages: what nobody thought of costs its page, and not this job and each that resumes it
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
        """Numbers of entries: the first, that of each so-manieth page, and the end."""
        return [0, *self.zim.page_entries()[_PAGES_A_PIECE::_PAGES_A_PIECE], self.zim.num_entries]

    @property
    def num_pieces(self) -> int:
        return len(self._cuts) - 1

    def part(self, start: int, stop: int) -> dict[str, Any]:
        return {"start": self._cuts[start], "stop": self._cuts[stop]}

    def read(self, part: Mapping[str, Any] | None, bad: OnBad) -> Iterator[_Article]:
        for page in self.zim.pages(**(part or {}), bad=bad):
            if "<img" not in page.html:  # which most pages of a ZIM file without pictures do not have, and parsing takes the longest
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
    """The rows of a language ("": of all), each picture of an article once; some 300 bytes a row stay in memory, of English 1.6 GB.

    The caption is the one under the picture; where there is none, what the picture's own page says of it; then the text for the blind.
    """
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(_decoded(path), delimiter="\t")
    header = next(rows, [])
    missing = [name for name in _WIT_COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: has no column {', '.join(missing)}; its first line should be that of WIT, and is: {', '.join(header)[:200]}"
        )
    links: dict[str, dict[str, str]] = {}
    for record in _records(path, header, rows):
        file = file_name(unquote(record["image_url"].rpartition("/")[2]))
        if file and language in ("", record["language"]):
            caption = next((" ".join(record[name].split()) for name in _WIT_CAPTIONS if record.get(name, "").strip()), "")
            links.setdefault(record["page_title"].replace("_", " "), {}).setdefault(file, caption)
    return {title: tuple(Illustration(*one) for one in captions.items()) for title, captions in links.items()}


def _records(path: Path, header: list[str], rows: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    """Its rows by column. InputError where one is broken: nothing would say of a set which pictures it had missed."""
    try:
        for number, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise InputError(f"{path} row {number}: has {len(row)} fields, where there are {len(header)} columns. Get the table again")
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: is no table of WIT: {error}. Get the table again") from None


def _decoded(path: Path) -> Iterator[str]:
    for number, line in numbered_lines(path):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} line {number}: is not UTF-8 (byte {error.start + 1}). Get the table again") from None
