"""Texts of which no pictures are known, for a text space to be fitted on besides those of its shards: an encyclopaedia, say.

files = text_files(Path("wiki"))              # its .jsonl, .jsonl.gz, .txt and .txt.gz, or the one file
for text in documents(files): ...             # a stream, in the order of the files and of their lines
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.lines import JSON_LINES, BadLine, document_of, json_object, numbered_lines, text_of_line
from multimodal.boxes import fingerprint_file, fingerprint_json
from multimodal.errors import InputError

SUFFIXES = (*JSON_LINES, ".txt", ".txt.gz")


def text_files(path: Path) -> list[Path]:
    """The file, or those in the folder whose names end in `SUFFIXES`, sorted. InputError where there is none.

    Folders in the folder are left alone: the space that is being made may lie there, and it holds a vocab.txt.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(SUFFIXES))
    else:
        files = [path] if path.is_file() and path.name.lower().endswith(SUFFIXES) else []
    if not files:
        state = "no such file lies in it" if path.is_dir() else "is no such file" if path.exists() else "does not exist"
        raise InputError(f"{path}: {state}; extra texts are files that end in {', '.join(SUFFIXES)}, or a folder of them")
    return files


def texts_fingerprint(files: Sequence[Path]) -> str:
    """Of the files' content, in their order; their names do not enter."""
    return fingerprint_json([fingerprint_file(file) for file in files])


def documents(files: Sequence[Path]) -> Iterator[str]:
    """The documents of files of lines: a JSON object's `text` with its `title` before it, or the line itself; blank ones are passed over.

    InputError, with file and line, where a line is broken: nothing would say of a space which texts it had missed.
    """
    for file in files:
        is_json = file.name.lower().endswith(JSON_LINES)
        for number, line in numbered_lines(file):
            try:
                text = document_of(json_object(line)) if is_json else text_of_line(line)
            except BadLine as error:
                raise InputError(f"{file} line {number}: {error}. Mend it, or leave it out") from None
            if text:
                yield text
