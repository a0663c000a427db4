"""Texts without pictures, on which a text space is fitted in addition to the texts of its shards: an encyclopaedia, for example.

files = text_files(Path("wiki"))              # its .jsonl, .txt (also .gz), dumps and WikiExtractor's files; or one such file
for text in documents(files): ...             # a stream, in the order of the files and of their lines
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from data_prep.files.lines import JSON_LINES, BadLine, document_of, json_object, numbered_lines, text_of_line
from data_prep.files.text_files import announced_encoding
from data_prep.wiki.dump import Dump, extracted_articles, extracted_files, is_dump, is_extracted
from data_prep.wiki.wikitext import read_wikitext
from multimodal.boxes import fingerprint_file, fingerprint_json
from multimodal.errors import InputError

SUFFIXES = (*JSON_LINES, ".txt", ".txt.gz")


def text_files(path: Path) -> list[Path]:
    """The file, or the files in the folder: names that end in `SUFFIXES`, MediaWiki dumps, and WikiExtractor's `AA/wiki_00`. Sorted.

    Other folders inside are ignored: one may be the space that is being made, which holds a vocab.txt. InputError if there is no file.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _holds_texts(file)) + extracted_files(path)
    else:
        files = [path] if path.is_file() and _holds_texts(path) else []
    if not files:
        state = "holds no such file" if path.is_dir() else "is not such a file" if path.exists() else "does not exist"
        wanted = f"{', '.join(SUFFIXES)}, .xml or .xml.bz2 (a MediaWiki dump), or a folder of them or of WikiExtractor's files (AA/wiki_00)"
        raise InputError(f"{path}: {state}; extra texts are files that end in {wanted}")
    return files


def texts_fingerprint(files: Sequence[Path]) -> str:
    """Fingerprint of the files' content, in their order; their names do not matter."""
    return fingerprint_json([fingerprint_file(file) for file in files])


def documents(files: Sequence[Path]) -> Iterator[str]:
    """The documents of files: a line, or the `text` of its JSON object, or an article; each after its title. Blank ones are skipped.

    InputError, with file and line or page, if one is broken: a space has no record of texts that it missed.
    """
    for file in files:
        if is_dump(file):
            dump = Dump(file)
            for page in dump.articles(bad=_refuse):
                if text := read_wikitext(page.markup, dump.words).text:
                    yield f"{page.title}\n{text}"
        elif is_extracted(file):
            yield from (f"{article.title}\n{article.text}" for article in extracted_articles(file, _refuse))
        else:
            yield from _lines(file)


def _lines(file: Path) -> Iterator[str]:
    is_json = file.name.lower().endswith(JSON_LINES)
    for number, line in numbered_lines(file, announced_encoding(file)):
        try:
            text = document_of(json_object(line)) if is_json else text_of_line(line)
        except BadLine as error:
            raise InputError(f"{file} line {number}: {error}. Fix this line, or remove it") from None
        if text:
            yield text


def _holds_texts(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) or is_dump(file) or is_extracted(file)


def _refuse(where: str, key: str, reason: str) -> NoReturn:
    raise InputError(f"{where}{f' {key}' if key else ''}: {reason}. Download the file again, or leave it out")
