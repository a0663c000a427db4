"""UCSD's Wikipedia: 2,866 sections of featured articles in ten classes, each with its one picture (Rasiwasia et al., 2010).

    data-prep make-shards ucsd_wikipedia wikipedia_dataset --output shards/ucsd
    multimodal evaluate classes --store S --shards shards/ucsd --label category --part test

    wikipedia_dataset/trainset_txt_img_cat.list       <text> TAB <picture> TAB <category, 1 to 10>; and testset_txt_img_cat.list
    wikipedia_dataset/texts_wd/<text>.xml             or texts/<text>.xml, as in the archive
    wikipedia_dataset/images_wd_256/<picture>.jpg     or images/<category>/<picture>.jpg, as in the archive

Download it from www.svcl.ucsd.edu/projects/crossmodal (wiki_top10cats.tar.gz); the folders with _wd in their names are the copies of
TextTopicNet's authors at github.com/lluisgomez/TextTopicNet.

N. Rasiwasia, J. Costa Pereira, E. Coviello, G. Doyle, G. Lanckriet, R. Levy, N. Vasconcelos, "A New Approach to Cross-Modal Multimedia
Retrieval", ACM Multimedia 2010.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.files.lines import BadLine, text_of_line
from data_prep.pictures.formats import offer
from data_prep.sources import check_listing, cut, input_fingerprint
from data_prep.sources._layout import check_layout, first_names
from data_prep.sources._xml import BadXml, parse_xml
from data_prep.wiki.wikitext import read_wikitext
from multimodal.boxes import fingerprint_bytes
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger

LISTS = {"train": "trainset_txt_img_cat.list", "test": "testset_txt_img_cat.list"}
TEXT_FOLDERS = ("texts_wd", "texts")
IMAGE_FOLDERS = ("images_wd_256", "images_wd", "images")
CATEGORIES = ("art", "biology", "geography", "history", "literature", "media", "music", "royalty", "sport", "warfare")

_NUMBERS = frozenset(map(str, range(1, len(CATEGORIES) + 1)))
_DOCUMENTS_AT_ONCE = 1000
_TEXT, _TEXT_END = re.compile(rb"<text\b[^<>]*>"), b"</text>"


def ucsd_wikipedia(input: Path, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The documents of the train list, then those of the test list, in their order; a document is a picture and its section.

    input: the folder that holds the two lists.

    Each document is its own group, as in the paper, whose split has sections of one article on both sides; `article` in the metadata names
    the article. `category` is the name of the class. Leftover wiki markup is removed from the texts.
    """
    texts, images = _folder(input, TEXT_FOLDERS), _pictures(_folder(input, IMAGE_FOLDERS))
    lines = _lines(input)
    listing = _digest(lines)
    for one in plan(_DOCUMENTS_AT_ONCE, input) if part is None else [part]:
        check_listing(input, listing, one["listing"])
        for split, number, line in lines[one["start"] : one["stop"]]:
            yield from _document(split, number, line, texts, images, ledger)


def plan(pairs_per_shard: int, input: Path) -> list[dict[str, Any]]:
    """Ranges of lines; the lines of the test list are numbered after those of the train list."""
    lines = _lines(input)
    return cut(len(lines), pairs_per_shard, listing=_digest(lines))


def inputs(input: Path) -> dict[str, str]:
    """Fingerprints of the lists, the texts and the pictures."""
    texts, images = _folder(input, TEXT_FOLDERS), _folder(input, IMAGE_FOLDERS)
    said = {split: input_fingerprint(input / name) for split, name in LISTS.items()}
    return said | {"texts": input_fingerprint(texts), "images": input_fingerprint(images, sorted(_pictures(images).values()))}


def _document(split: str, number: int, line: bytes, texts: Path, images: Mapping[str, Path], ledger: Ledger) -> Iterator[Pair]:
    where, picture = f"{LISTS[split]} line {number}", ""
    try:
        document, picture, category = _fields(line)
        text = _text(texts, document)
        if picture not in images:
            raise BadLine(f"no such picture: {picture}.jpg")
    except (BadLine, BadXml) as error:
        ledger.bad(where, picture, str(error))
        return
    metadata = {"category": CATEGORIES[category - 1], "article": document.rpartition("-")[0] or document}
    yield from offer(ledger, where, f"{picture}.jpg", images[picture].read_bytes(), [text], document, split, metadata)


def _fields(line: bytes) -> tuple[str, str, int]:
    fields = text_of_line(line).split("\t")
    if len(fields) != 3 or fields[2] not in _NUMBERS:
        raise BadLine(f"expected text, picture and category (1 to {len(CATEGORIES)}), separated by tabs, got {line[:80]!r}")
    if any(os.sep in stem or "\0" in stem for stem in fields[:2]):
        raise BadLine("expected the names of a text and of a picture, got a path")
    return fields[0], fields[1], int(fields[2])


def _text(texts: Path, document: str) -> str:
    """The section's text: the content of its <text> elements, or the whole file if it has none.

    A file that is not well-formed (a bare & in the text) is read as other code for this data set does: from <text> to </text>.
    """
    try:
        content = (texts / f"{document}.xml").read_bytes()
    except FileNotFoundError:
        raise BadLine(f"has no {texts.name}/{document}.xml") from None
    except OSError as error:  # its name is too long, or it may not be read
        raise BadLine(f"its text, {texts.name}/{document[:80]}.xml, cannot be read: {error.strerror}") from None
    try:
        root = parse_xml(content)
    except BadXml as error:
        begin, end = _TEXT.search(content), content.rfind(_TEXT_END)
        if begin is None or end < begin.end():
            raise BadXml(f"its text, {texts.name}/{document}.xml, {error}") from None
        return read_wikitext(text_of_line(content[begin.end() : end])).text
    elements = list(root.iter("text")) or [root]
    return read_wikitext("\n".join("".join(element.itertext()) for element in elements)).text


def _lines(input: Path) -> list[tuple[str, int, bytes]]:
    """(split, number in its list, line) of every document."""
    check_layout(input, "UCSD's Wikipedia", list(LISTS.values()))
    read = ((split, (input / name).read_bytes().splitlines()) for split, name in LISTS.items())
    lines = [(split, number, line) for split, held in read for number, line in enumerate(held, 1) if line.strip()]
    if not lines:
        raise InputError(f"{input}: its lists {' and '.join(LISTS.values())} name no document")
    return lines


def _digest(lines: list[tuple[str, int, bytes]]) -> str:
    return fingerprint_bytes(*(line + b"\n" for _, _, line in lines))[:16]


def _folder(input: Path, names: tuple[str, ...]) -> Path:
    check_layout(input, "UCSD's Wikipedia", list(LISTS.values()))
    found = next((input / name for name in names if (input / name).is_dir()), None)
    if found is None:
        raise InputError(f"{input}: expected the folder {' or '.join(names)}, and found {first_names(input)}")
    return found


def _pictures(folder: Path) -> dict[str, Path]:
    """Picture -> its file, in the folder or its subfolders by category."""
    return {path.stem: path for path in sorted(folder.rglob("*.jpg")) if not path.name.startswith(".")}
