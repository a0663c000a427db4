"""Articles with illustrations: one JSON object per line, and a folder of pictures or tars of them; each picture with its article's text.

    data-prep make-shards articles textbook/articles.jsonl.gz --output shards/textbook

    {"id": "a7", "title": "Tides", "text": "The moon ...", "images": [{"file": "a7-1.jpg", "caption": "Low tide."}], "subject": "physics"}

Any other field of an article or a picture, such as `subject`, becomes metadata. A `split` of the article is the source's own split.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data_prep.files.lines import BadLine, document_of, json_object, lines_from, numbered_lines, string_of
from data_prep.files.text_files import encoding_of, name_of
from data_prep.pictures.formats import offer
from data_prep.sources import check_listing, input_fingerprint
from data_prep.sources._images import Images
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures.decode import BadPicture
from multimodal.shards import Ledger

Text = Literal["article", "caption", "both"]

_ARTICLE_FIELDS = frozenset({"id", "title", "text", "images", "split"})
_PICTURE_FIELDS = frozenset({"file", "caption"})


def articles(
    input: Path,
    images: Path | None = None,
    text: Text = "article",
    encoding: str | None = None,
    allow_outside: bool = False,
    part: Mapping[str, Any] | None = None,
    *,
    ledger: Ledger,
) -> Iterator[Pair]:
    """The pictures of articles, in the order of the lines and of each article's list; pictures of one article share a group.

    input: the .jsonl or .jsonl.gz file; one object per line with id, title, text, and images: a list of objects with file and caption.
    images: the folder that its file names are relative to, or a folder of .tar files that hold them, or one .tar; by default the
        folder of the file.
    text: the text of a picture: article, the title and the text of its article; caption; or both, two texts, caption first.
    encoding: the encoding of the file, such as cp1251 or shift_jis, if it cannot be detected.
    allow_outside: also read pictures outside the folder of images, if the file refers to them.

    Title and caption are always metadata. A picture in several articles stays with the first, and the ledger lists the others: otherwise it
    could be on both sides of a split, in different groups.
    """
    with Images(images or input.parent, allow_outside=allow_outside) as pictures:
        found = _whole(input, text, encoding_of(input, encoding)) if part is None else _of_part(input, text, part)
        for candidate in found:
            one = candidate.found
            if isinstance(one, str):
                ledger.bad(f"{input.name} line {candidate.line}", candidate.file, one)
                continue
            try:
                image = pictures.read_named(one.file)
            except BadPicture as error:
                ledger.bad(one.where, one.file, str(error))
                continue
            yield from offer(ledger, one.where, one.file, image, one.texts, one.group, one.split, one.metadata)


def plan(
    pairs_per_shard: int, input: Path, images: Path | None, text: Text, encoding: str | None = None, allow_outside: bool = False
) -> list[dict[str, Any]]:
    """Ranges of the pictures in line order: from one place, [line, position in its `images`], up to another.

    offset: the byte at which the first line begins. repeated: [line, position, line of the picture's first mention].
    """
    parts: list[dict[str, Any]] = []
    num = 0
    encoding = encoding_of(input, encoding)
    same = {"encoding": encoding, "size_bytes": input.stat().st_size}
    for candidate in _whole(input, text, encoding):
        place = [candidate.line, candidate.position]
        if num % pairs_per_shard == 0:
            if parts:
                parts[-1]["stop"] = place
            parts.append({"offset": candidate.offset, "start": place, "stop": None, "repeated": [], **same})
        if candidate.first_line is not None:
            parts[-1]["repeated"].append([*place, candidate.first_line])
        num += 1
    return parts


def inputs(input: Path, images: Path | None, text: Text, encoding: str | None, allow_outside: bool) -> dict[str, str]:
    """Fingerprints of the articles and their pictures. Reports an encoding other than UTF-8 on stderr."""
    encoding = encoding_of(input, encoding)
    if name_of(encoding) != "UTF-8":
        print(f"{input}: read as {name_of(encoding)}", file=sys.stderr)
    names = (candidate.file for candidate in _whole(input, text, encoding) if isinstance(candidate.found, _Illustration))
    with Images(images or input.parent, allow_outside=allow_outside) as pictures:
        return {"input": input_fingerprint(input), "images": pictures.fingerprint(names)}


def holds_articles(path: Path, encoding: str | None = None) -> bool:
    """Whether the first object of a file of JSON Lines has a list `images` of objects: then it holds articles, not captions."""
    for _, line in numbered_lines(path, encoding_of(path, encoding)):
        try:
            pictures = json_object(line).get("images")
            return isinstance(pictures, list) and (not pictures or any(isinstance(picture, dict) for picture in pictures))
        except BadLine:  # reported when the file is read
            continue
    return False


@dataclass(frozen=True, slots=True)
class _Illustration:
    """Everything of a pair except its picture. where: the line, for the ledger."""

    where: str
    file: str
    texts: tuple[str, ...]
    group: str
    split: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A picture named in a line, or a line that names none: the illustration, or why it cannot be used.

    offset: the byte at which the line begins. position: in the list `images`. first_line: of an earlier mention of the same picture.
    """

    line: int
    offset: int
    position: int
    file: str
    found: _Illustration | str
    first_line: int | None = None

    def after(self, first_line: int) -> _Candidate:
        """The same, marked as a repetition."""
        return replace(self, first_line=first_line, found=f"came in line {first_line}, and stays with that article alone")


def _whole(input: Path, text: Text, encoding: str) -> Iterator[_Candidate]:
    """The whole file, each picture once. InputError if it names none."""
    line_of: dict[str, int] = {}
    is_empty = True
    for candidate in _candidates(input, text, encoding):
        is_empty = False
        if candidate.file in line_of:
            candidate = candidate.after(line_of[candidate.file])
        elif isinstance(candidate.found, _Illustration):
            line_of[candidate.file] = candidate.line
        yield candidate
    if is_empty:
        raise InputError(f"{input}: names no picture; each line must be a JSON object with a list `images` of objects with `file`")


def _of_part(input: Path, text: Text, part: Mapping[str, Any]) -> Iterator[_Candidate]:
    """One range of the plan; the plan itself lists earlier mentions of its pictures."""
    check_listing(input, input.stat().st_size, part["size_bytes"])
    start, stop = part["start"], part["stop"]
    first_lines = {(line, position): first_line for line, position, first_line in part["repeated"]}
    for candidate in _candidates(input, text, part["encoding"], part["offset"], start[0]):
        place = [candidate.line, candidate.position]
        if stop is not None and place >= stop:
            return
        if place >= start:
            first_line = first_lines.get((candidate.line, candidate.position))
            yield candidate if first_line is None else candidate.after(first_line)


def _candidates(input: Path, text: Text, encoding: str, offset: int = 0, number: int = 1) -> Iterator[_Candidate]:
    for line in lines_from(input, offset, number, encoding):
        try:
            article = json_object(line.content)
            pictures = article.get("images")
            if not isinstance(pictures, list):
                raise BadLine(f"has no list `images`; its fields are {', '.join(article) or 'none'}")
        except BadLine as error:
            yield _Candidate(line.number, line.start, 0, "", str(error))
            continue
        for position, picture in enumerate(pictures):
            file = _file_of(picture)
            try:
                if not file:
                    raise BadLine("a picture of its `images` names no `file`")
                found: _Illustration | str = _illustration(f"{input.name} line {line.number}", file, article, picture, text)
            except BadLine as error:
                found = str(error)
            yield _Candidate(line.number, line.start, position, file, found)


def _illustration(where: str, file: str, article: Mapping[str, Any], picture: Mapping[str, Any], text: Text) -> _Illustration:
    """BadLine if the article or the picture lacks a needed field, or a field is not a string."""
    title, caption = string_of(article, "title"), string_of(picture, "caption")
    texts = []
    if text != "article":
        if not caption:
            raise BadLine("has no caption")
        texts.append(caption)
    if text != "caption":
        if not string_of(article, "text"):  # a title alone is no article
            raise BadLine("its article has no text")
        texts.append(document_of(article))
    metadata = _others(article, _ARTICLE_FIELDS) | _others(picture, _PICTURE_FIELDS)
    metadata |= {name: value for name, value in (("title", title), ("caption", caption)) if value}
    return _Illustration(where, file, tuple(texts), _id_of(article), string_of(article, "split"), metadata)


def _file_of(picture: Any) -> str:
    file = picture.get("file") if isinstance(picture, dict) else None
    return file.strip() if isinstance(file, str) else ""


def _id_of(article: Mapping[str, Any]) -> str:
    id = article.get("id")
    text = str(id).strip() if isinstance(id, str | int) else ""
    if not text:
        raise BadLine("its article has no `id`, a string or a number")
    return text


def _others(record: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in known}
