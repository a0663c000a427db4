"""ImageCLEF's Wikipedia collection of 2010: 237,434 pictures and the articles they illustrate, on which TextTopicNet was trained.

    data-prep make-shards imageclef_wikipedia ImageCLEF_Wikipedia --output shards/imageclef

    ImageCLEF_Wikipedia/images/25/244845.jpg       or .jpeg; other formats, mostly diagrams, are skipped, as in the paper
    ImageCLEF_Wikipedia/metadata/25/244845.xml     <image><text xml:lang="en"><caption article="text/en/1/302038">Low tide.</caption> ...
    ImageCLEF_Wikipedia/text/en/1/302038           an article, in wiki markup; captions name it by its path from the top

Download it from www.imageclef.org/wikidata (after registration, 24 GB), or the smaller copy of TextTopicNet's authors from
github.com/lluisgomez/TextTopicNet (2.3 GB: JPEG of 256 x 256, English articles only).

T. Tsikrika, A. Popescu, J. Kludas, "Overview of the Wikipedia Image Retrieval Task at ImageCLEF 2011", CLEF 2011.
L. Gomez, Y. Patel, M. Rusinol, D. Karatzas, C. V. Jawahar, "Self-Supervised Learning of Visual Features through Embedding Images into Text
Topic Spaces", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from xml.etree.ElementTree import Element

from data_prep.files.lines import BadLine
from data_prep.pictures.formats import is_smaller, offer
from data_prep.sources import check_listing, cut
from data_prep.sources._layout import check_layout, file_names, first_names, folder_names, listing_fingerprint, names_digest
from data_prep.sources._xml import BadXml, parse_xml
from data_prep.sources.articles import Text
from data_prep.wiki.wikitext import read_wikitext
from data_prep.wiki.words import words_of_language
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger

Language = Literal["en", "de", "fr"]

IMAGES, METADATA = "images", "metadata"
SUFFIXES = (".jpg", ".jpeg")
MIN_SIDE_PX = 256
"""TextTopicNet leaves out pictures that are smaller in width or height."""

_PICTURES_AT_ONCE = 1000


def imageclef_wikipedia(
    input: Path,
    text: Text = "article",
    language: Language = "en",
    min_side_px: int = MIN_SIDE_PX,
    part: Mapping[str, Any] | None = None,
    *,
    ledger: Ledger,
) -> Iterator[Pair]:
    """The pictures that illustrate an article of the language, folder by folder; pictures of one article share a group.

    input: the folder that holds images and metadata.
    text: the text of a picture: article, the text of its article; caption; or both, two texts, caption first.
    language: of the caption and the article.
    min_side_px: skip pictures whose width or height is less. Pictures without a caption in the language that names an article are skipped
        too: the collection has many, and they are not broken.

    A picture in several articles stays with the first one in its metadata, as in the paper. Caption, article and the picture's title are
    always metadata.
    """
    for one in plan(_PICTURES_AT_ONCE, input, text, language, min_side_px) if part is None else [part]:
        folder = one["folder"]
        for file in _listed(input, folder, one["listing"])[one["start"] : one["stop"]]:
            yield from _picture(input, f"{folder}/{file}", text, language, min_side_px, ledger)


def plan(
    pairs_per_shard: int, input: Path, text: Text = "article", language: Language = "en", min_side_px: int = MIN_SIDE_PX
) -> list[dict[str, Any]]:
    """Ranges of pictures, each within one folder: its name, and positions among its sorted pictures."""
    check_layout(input, "ImageCLEF's Wikipedia", [IMAGES, METADATA])
    parts = []
    for folder in _folders(input):
        if files := file_names(input / IMAGES / folder, SUFFIXES):
            parts += cut(len(files), pairs_per_shard, folder=folder, listing=names_digest(files))
    if not parts:
        raise InputError(
            f"{input}: no picture ({', '.join(SUFFIXES)}) in the folders of {IMAGES}, which holds {first_names(input / IMAGES)}. "
            "Unpack the archives there"
        )
    return parts


def inputs(input: Path, text: Text, language: Language, min_side_px: int) -> dict[str, str]:
    """Fingerprint of names and sizes of the pictures and their metadata, not of the articles."""
    check_layout(input, "ImageCLEF's Wikipedia", [IMAGES, METADATA])
    folders = ((f"{kind}/{folder}", input / kind / folder) for folder in _folders(input) for kind in (IMAGES, METADATA))
    return {"input": listing_fingerprint((called, folder) for called, folder in folders if folder.is_dir())}


@dataclass(frozen=True, slots=True)
class _Caption:
    """From a picture's metadata: its caption and article in a language, and the title of the picture."""

    text: str
    article: str
    title: str


def _picture(input: Path, name: str, text: Text, language: Language, min_side_px: int, ledger: Ledger) -> Iterator[Pair]:
    where = str(PurePosixPath(METADATA, name).with_suffix(".xml"))
    try:
        caption = _caption(input / where, language)
        if caption is None:
            return
        image = (input / IMAGES / name).read_bytes()
        if is_smaller(image, min_side_px):
            return
        texts = [] if text == "article" else [caption.text]
        if text != "article" and not caption.text:
            raise BadLine("has no caption")
        if text != "caption":
            texts.append(_article(input, caption.article, language))
    except (BadLine, BadXml) as error:
        ledger.bad(where, name, str(error))
        return
    said = {"title": caption.title, "caption": caption.text, "article": caption.article}
    metadata = {field: value for field, value in said.items() if value}
    yield from offer(ledger, where, name, image, texts, caption.article, metadata=metadata)


def _caption(path: Path, language: Language) -> _Caption | None:
    """The first caption of the language that names an article; None if there is none. BadLine, BadXml: the file is broken."""
    try:
        root = parse_xml(path.read_bytes())
    except FileNotFoundError:
        raise BadLine("has no metadata") from None
    except BadXml as error:
        raise BadXml(f"its metadata {error}") from None
    for of_language in (child for child in root if child.get("xml:lang") == language):
        for caption in of_language.iter("caption"):
            if article := caption.get("article", "").strip():
                return _Caption(_words(caption), article, _words(root.find("name")))
    return None


def _words(element: Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())


def _article(input: Path, named: str, language: Language) -> str:
    """The text of an article. BadLine if it is missing, outside the collection, not UTF-8, or empty without its markup."""
    path = PurePosixPath(named)
    if path.is_absolute() or ".." in path.parts:
        raise BadLine(f"its article, {named}, lies outside the collection")
    try:
        text = read_wikitext((input / path).read_bytes().decode("utf-8"), words_of_language(language)).text
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadLine(f"its article, {named}, is not there") from None
    except OSError as error:  # its name is too long, or it may not be read
        raise BadLine(f"its article, {named[:80]}, cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadLine(f"its article, {named}, is not UTF-8 (byte {error.start})") from None
    if not text:
        raise BadLine(f"its article, {named}, has no text")
    return text


@lru_cache(maxsize=1)
def _listed(input: Path, folder: str, listing: str) -> list[str]:
    """The pictures of a folder, listed once per process for all its parts. InputError if any were added or removed since the plan."""
    files = file_names(input / IMAGES / folder, SUFFIXES)
    check_listing(input, names_digest(files), listing)
    return files


def _folders(input: Path) -> list[str]:
    """The numbered folders in the order of their numbers, then any others."""
    return sorted(folder_names(input / IMAGES), key=lambda name: (int(name) if name.isdecimal() else float("inf"), name))
