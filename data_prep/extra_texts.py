"""Texts of which no pictures are known, for a text space to be fitted on besides those of its shards: an encyclopaedia, say.

files = text_files(Path("wiki"))              # its .jsonl, .txt, both also as .gz, its dumps, what WikiExtractor wrote; or the one file
for text in documents(files): ...             # a stream, in the order of the files and of their lines
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from data_prep.lines import JSON_LINES, BadLine, document_of, json_object, numbered_lines, text_of_line
from data_prep.text_files import announced_encoding
from data_prep.wiki_dump import Dump, extracted_articles, extracted_files, is_dump, is_extracted
from data_prep.wikitext import read_wikitext
from multimodal.boxes import fingerprint_file, fingerprint_json
from multimodal.errors import InputError

SUFFIXES = (*JSON_LINES, ".txt", ".txt.gz")


def text_files(path: Path) -> list[Path]:
    """The file, or those of the folder: names that end in `SUFFIXES`, MediaWiki dumps, and WikiExtractor's `AA/wiki_00`. Sorted.

    Other folders in the folder are left alone: the space that is being made may lie there, and it holds a vocab.txt. InputError where
    there is none.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _holds_texts(file)) + extracted_files(path)
    else:
        files = [path] if path.is_file() and _holds_texts(path) else []
    if not files:
        state = "no such file lies in it" if path.is_dir() else "is no such file" if path.exists() else "does not exist"
        wanted = f"{', '.join(SUFFIXES)}, .xml or .xml.bz2 (a MediaWiki dump), or a folder of them or of WikiExtractor's files (AA/wiki_00)"
        raise InputError(f"{path}: {state}; extra texts are files that end in {wanted}")
    return files


def texts_fingerprint(files: Sequence[Path]) -> str:
    """Of the files' content, in their order; their names do not enter."""
    return fingerprint_json([fingerprint_file(file) for file in files])


def documents(files: Sequence[Path]) -> Iterator[str]:
    """The documents of files, blank ones passed over: a line, or the `text` of its JSON object, or an article; each after its title.

    InputError, with file and line or page, where one is broken: nothing would say of a space which texts it had missed.
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
            raise InputError(f"{file} line {number}: {error}. Mend it, or leave it out") from None
        if text:
            yield text


def _holds_texts(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) or is_dump(file) or is_extracted(file)


def _refuse(where: str, key: str, reason: str) -> NoReturn:
    raise InputError(f"{where}{f' {key}' if key else ''}: {reason}. Get the file again, or leave it out")
