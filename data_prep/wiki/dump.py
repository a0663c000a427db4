"""Articles of a wiki from a MediaWiki XML dump (pages-articles), all of them or any range.

    dump = Dump(Path("enwiki-20250101-pages-articles-multistream.xml.bz2"))
    cuts = dump.cuts()                                               # where it can be cut, without decompressing it
    for page in dump.articles(cuts[3], cuts[4], bad=print): ...      # those that begin there; read_wikitext(page.markup, dump.words)

A .bz2 with one stream or many, or plain .xml. Redirects and pages that are not articles (talk, templates, categories) are skipped. The XML
is not parsed but searched for its few elements: inside them every < is written as &lt;, so there is no ambiguity.

Also reads WikiExtractor's output (`extracted_articles`), which is plain text already.
"""

from __future__ import annotations

import bz2
import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.parsers import expat

from data_prep.files.lines import BadLine, json_object, numbered_lines, string_of, text_of_line
from data_prep.wiki.bzip2 import Damage, block_starts, is_bzip2, read_blocks
from data_prep.wiki.wikitext import unescaped
from data_prep.wiki.words import Words, words_of_language
from multimodal.errors import InputError

_DUMP = re.compile(r".*\.xml(-[\w-]+)?(\.bz2)?", re.IGNORECASE)  # also one of several files: enwiki-...-articles1.xml-p1p41242.bz2

_PLAIN_BYTES = 1 << 20  # the distance between cuts in a plain file
_TOP_BYTES = 1 << 12  # <mediawiki> is the first element
_HEAD_BYTES = 1 << 24  # the siteinfo is some 10 kB
_MAX_PAGE_BYTES = 1 << 26  # MediaWiki's own limit for a page is 2 MB
_MAX_DIGITS = 18  # of a byte's number
_FILE, _CATEGORY = 6, 14

OnBad = Callable[[str, str, str], None]
"""(where, key, reason), as `Ledger.bad`."""


@dataclass(frozen=True, slots=True)
class Page:
    """An article. id: its number in the wiki; markup: its wikitext."""

    id: str
    title: str
    markup: str


class Dump:
    """A dump, any range of which can be read separately; each read opens the file again.

    path: the .xml or .xml.bz2. index: the multistream index (`...-multistream-index.txt.bz2`), with which the dump can be cut without
    reading it; by default the one beside a dump named `...-multistream.xml.bz2`, if there is one.
    """

    def __init__(self, path: Path, index: Path | None = None) -> None:
        if not path.is_file():
            raise InputError(f"{path}: does not exist; give a MediaWiki dump, .xml or .xml.bz2")
        self.path = path
        self.index = index if index is not None else _index_beside(path)
        self._is_bzip2 = is_bzip2(path)

    def cuts(self) -> list[int]:
        """Where the file can be cut, ascending, including its start and its end: at least two. In bits of a .bz2 file, else in bytes.

        At the streams of an index, at the blocks of a .bz2 file, at each MB of a plain one. UTF-16, which no real dump uses, is one piece.
        """
        size = self.path.stat().st_size
        end = 8 * size if self._is_bzip2 else size
        if self._encoding != "utf-8":
            return [0, end]
        if self.index is not None:
            starts = _stream_starts(self.path, self.index)
        else:
            starts = block_starts(self.path) if self._is_bzip2 else list(range(0, size, _PLAIN_BYTES))
        return [0, *starts[1:], end]

    def articles(self, start: int = 0, stop: int | None = None, *, bad: OnBad) -> Iterator[Page]:
        """The articles that begin in a range of the file; calls `bad` for damaged blocks, pages lost with them, and broken pages.

        start, stop: two of the cuts. Consecutive ranges give each article once.
        """

        def cut_off(raw: bytes) -> None:
            bad(self.path.name, _name(raw), "the page has no end: the dump is damaged or cut off there")

        own = self._reporting_damage(self._chunks(start, stop), bad)
        after = (None if isinstance(chunk, Damage) else chunk for chunk in self._chunks(stop, None)) if stop is not None else iter(())
        for raw in _raw_pages(own, after, cut_off):
            if _NOT_ARTICLE.search(raw, 0, max(raw.find(b"<revision>"), 0)):
                continue
            try:
                page = _page(raw)
            except BadLine as error:
                bad(self.path.name, _name(raw), str(error))
                continue
            if not self.words.is_redirect(page.markup):  # old dumps, and those of other programs, have no element for it
                yield page

    @cached_property
    def words(self) -> Words:
        """The words of its language, with the head's names for the namespaces of files and categories (which lack older names)."""
        names = {int(key): unescaped(name) for key, name in re.findall(r'<namespace key="(-?\d{1,9})"[^<>]*>([^<]*)<', self._head)}
        file, category = ((names[number],) if names.get(number) else () for number in (_FILE, _CATEGORY))
        return words_of_language(self.language, file, category)

    @cached_property
    def language(self) -> str:
        """Such as "en", from the head's `xml:lang`, or its `<dbname>`, "enwiki"; "" if the dump has neither."""
        top = re.search(r"<mediawiki\b[^<>]*", self._head)
        found = re.search(r'\bxml:lang="([\w-]+)"', top[0]) if top else None
        if found is None:
            found = re.search(r"<dbname>([a-z_]+)wiki<", self._head)
        return found[1].replace("_", "-") if found else ""

    @cached_property
    def _head(self) -> str:
        """Everything up to the end of <siteinfo>."""
        head = b""
        for chunk in self._chunks(0, None):
            head += chunk if isinstance(chunk, bytes) else b""
            if b"</siteinfo>" in head or b"<page>" in head or len(head) > _HEAD_BYTES:
                break
        return re.split(b"</siteinfo>|<page>", head)[0].decode("utf-8", "replace")

    @cached_property
    def _encoding(self) -> str:
        """InputError if the file is not a dump."""
        start = next((chunk for chunk in self._stored(0, None) if isinstance(chunk, bytes)), b"")
        encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
        declared = re.match(rb"""(?:\xef\xbb\xbf)?<\?xml[^>]*encoding=["']([\w-]+)""", start)
        if declared and declared[1].lower() != b"utf-8":
            raise InputError(f"{self.path}: its XML is in {declared[1].decode()}; it must be in UTF-8 or UTF-16, as MediaWiki writes it")
        if "<mediawiki" not in start[:_TOP_BYTES].decode(encoding, "replace"):
            raise InputError(f"{self.path}: is not a MediaWiki dump: it does not begin with <mediawiki>")
        return encoding

    def _reporting_damage(self, chunks: Iterator[bytes | Damage], bad: OnBad) -> Iterator[bytes | None]:
        """The chunks, with None in place of a damaged one, which is reported by the range in which it begins."""
        for chunk in chunks:
            if isinstance(chunk, Damage):
                bad(f"{self.path.name} at bit {chunk.start}", "", f"its bzip2 is damaged: {chunk.reason}")
                yield None
            else:
                yield chunk

    def _chunks(self, start: int, stop: int | None) -> Iterator[bytes | Damage]:
        """A range, decompressed, as UTF-8."""
        if self._encoding == "utf-8":
            return self._stored(start, stop)
        return self._recoded() if start == 0 else iter(())

    def _recoded(self) -> Iterator[bytes | Damage]:
        decoder = codecs.getincrementaldecoder(self._encoding)("replace")
        for chunk in self._stored(0, None):
            yield decoder.decode(chunk).encode() if isinstance(chunk, bytes) else chunk

    def _stored(self, start: int, stop: int | None) -> Iterator[bytes | Damage]:
        if self._is_bzip2:
            return read_blocks(self.path, start, stop)
        return _read_plain(self.path, start, stop)


def is_dump(path: Path) -> bool:
    """Whether a file is a dump, by its name."""
    return _DUMP.fullmatch(path.name) is not None


def is_extracted(path: Path) -> bool:
    """Whether a file is WikiExtractor's, by its name."""
    return _EXTRACTED.fullmatch(path.name) is not None


# Where streams begin ----------------------------------------------------------------------------------------------------------------------


def _index_beside(path: Path) -> Path | None:
    """`...-multistream-index.txt.bz2`, or for one of several files `...-multistream-index1.txt-p1p41242.bz2`; also decompressed."""
    name, num_replaced = re.subn(r"-multistream(\d*)\.xml", r"-multistream-index\1.txt", path.name)
    names = (name, name.removesuffix(".bz2")) if num_replaced else ()
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _stream_starts(path: Path, index: Path) -> list[int]:
    """In bits, ascending: of the head, and of the lines `byte:page id:title` of an index. InputError: the index is of another dump."""
    starts = [0]
    with bz2.open(index) if is_bzip2(index) else open(index, "rb") as lines:
        for number, line in enumerate(lines, 1):
            byte = line.partition(b":")[0]
            if not byte.isdigit() or len(byte) > _MAX_DIGITS:
                raise InputError(f"{index} line {number}: does not begin with a byte offset and a colon; is it the index of {path.name}?")
            if int(byte) != starts[-1]:
                starts.append(int(byte))
    with open(path, "rb") as file:
        for start in starts[:: max(len(starts) // 100, 1)] + starts[-1:]:
            file.seek(start)
            if file.read(3) != b"BZh":
                raise InputError(f"{index}: names a stream at byte {start} of {path}, where none begins. Use the index of this dump")
    return [8 * start for start in sorted(starts)]


def _read_plain(path: Path, start: int, stop: int | None) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        left = path.stat().st_size - start if stop is None else stop - start
        while left > 0 and (chunk := file.read(min(left, _PLAIN_BYTES))):
            left -= len(chunk)
            yield chunk


# Pages ------------------------------------------------------------------------------------------------------------------------------------

_OPEN, _CLOSE = b"<page>", b"</page>"
_NOT_ARTICLE = re.compile(rb"<(?:ns>(?!0</ns>)|redirect\b)")
_TITLE = re.compile(rb"<title>([^<]*)</title>")
_ID = re.compile(rb"<id>(\d+)</id>")
_TEXT = re.compile(rb"<text\b(?:[^<>]*+(?<=/)>|[^<>]*+>([^<]*+)</text>)")


def _raw_pages(own: Iterator[bytes | None], after: Iterator[bytes | None], cut_off: Callable[[bytes], None]) -> Iterator[bytes]:
    """<page> ... </page> of each page that begins in `own`; the last may end in `after`. None in either: data is missing there."""
    rest = b""
    for chunk in own:
        if chunk is None or len(rest) > _MAX_PAGE_BYTES:
            if rest.startswith(_OPEN):
                cut_off(rest)
            rest = b""
        pages, rest = _whole_pages(rest + (chunk or b""), cut_off)
        yield from pages
    begun_here = len(rest)  # a page, or the first letters of its tag
    while rest:
        chunk = next(after, None)
        rest += chunk or b""
        begin = rest.find(_OPEN)
        if begin < 0 or begin >= begun_here:
            return
        end = rest.find(_CLOSE)
        if end >= 0 and rest.find(_OPEN, begin + 1, end) < 0:
            yield rest[begin:end]
            return
        if end >= 0 or chunk is None or len(rest) > _MAX_PAGE_BYTES:
            cut_off(rest)
            return


def _whole_pages(content: bytes, cut_off: Callable[[bytes], None]) -> tuple[list[bytes], bytes]:
    """The pages that end in it, and the rest: an incomplete page, or what may be the beginning of its tag."""
    pages: list[bytes] = []
    at = 0
    while (begin := content.find(_OPEN, at)) >= 0:
        end = content.find(_CLOSE, begin)
        if end < 0:
            return pages, content[begin:]
        last = content.rfind(_OPEN, begin, end)
        if last > begin:
            cut_off(content[begin:last])
        pages.append(content[last:end])
        at = end + len(_CLOSE)
    tail = content[max(at, len(content) - len(_OPEN) + 1) :]
    return pages, next((tail[start:] for start in range(len(tail)) if _OPEN.startswith(tail[start:])), b"")


def _page(raw: bytes) -> Page:
    """BadLine if something is missing or is not UTF-8. Uses the main text of the last revision."""
    title, id = _TITLE.search(raw), _ID.search(raw)
    text = _TEXT.search(raw, max(raw.rfind(b"<revision>"), 0))
    missing = [name for name, found in (("title", title), ("id", id), ("text", text)) if found is None]
    if title is None or id is None or text is None:
        raise BadLine(f"the page has no {', '.join(missing)}")
    return Page(id[1].decode(), _content(title[1]), _content(text[1] or b""))


def _name(raw: bytes) -> str:
    """The title, for the ledger."""
    title = _TITLE.search(raw)
    return unescaped(title[1].decode("utf-8", "replace")) if title else ""


def _content(xml: bytes) -> str:
    """The text of an element, stripped. BadLine if it is not UTF-8 or not XML.

    `&amp;nbsp;` becomes `&nbsp;`, which belongs to the wikitext.
    """
    found: list[str] = []
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.buffer_size = max(len(xml), 1)
    parser.CharacterDataHandler = found.append
    try:
        parser.Parse(b"<text>%b</text>" % xml, True)
    except expat.ExpatError as error:
        text_of_line(xml)
        raise BadLine(f"its XML is broken: {error}") from None
    return "".join(found).strip()


# WikiExtractor ----------------------------------------------------------------------------------------------------------------------------

_EXTRACTED = re.compile(r"wiki_\d+")
_DOC = re.compile(r'<doc id="([^"]*)"(?: revid="[^"]*")? url="([^"]*)" title="(.*)">')
_DOC_END = "</doc>"


@dataclass(frozen=True, slots=True)
class ExtractedArticle:
    """An article without its markup. language: of the wiki, from its URL; "" if there is none."""

    id: str
    title: str
    text: str
    language: str


def extracted_files(folder: Path) -> list[Path]:
    """WikiExtractor's files in a folder (`AA/wiki_00`, ...), sorted."""
    return sorted(file for file in folder.glob("*/wiki_*") if is_extracted(file) and file.is_file())


def extracted_articles(file: Path, bad: OnBad) -> Iterator[ExtractedArticle]:
    """The articles of one such file, `<doc ...>` elements or JSON Lines; skips those without text, such as redirects."""
    open_doc: re.Match[str] | None = None
    lines: list[str] = []
    for number, raw in numbered_lines(file):
        where = f"{file.parent.name}/{file.name} line {number}"
        try:
            line = text_of_line(raw)
            if open_doc is None and line.startswith("{"):
                record = json_object(raw)
                id, url, title, text = (string_of(record, name) for name in ("id", "url", "title", "text"))
            elif open_doc is None:
                open_doc, lines = _DOC.fullmatch(line), []
                if open_doc is None:
                    raise BadLine("is neither <doc id=... url=... title=...> nor a JSON object; is this WikiExtractor's output?")
                continue
            elif line != _DOC_END:
                lines.append(line)
                continue
            else:
                id, url, title = open_doc.groups()
                is_repeated = bool(lines) and unescaped(lines[0]) == unescaped(title)
                text = "\n".join(lines[1:] if is_repeated else lines)
                open_doc = None
        except BadLine as error:
            bad(where, "", str(error))
            continue
        if text:
            language = re.match(r"https?://([\w-]+)\.wiki", url)
            yield ExtractedArticle(id, unescaped(title), unescaped(text), language[1] if language else "")
    if open_doc is not None:
        bad(f"{file.parent.name}/{file.name}", open_doc[3], "the article has no </doc>: the file is cut off there")
