"""Sources of pairs, one file each: `data_prep/sources/<name>.py` holds a function <name> from its settings to an iterator of `Pair`.

    def folder(input: Path, *, ledger: Ledger) -> Iterator[Pair]: ...
    find_source("folder"), find_source("my_package.my_module:my_source")

To add one, put a file here, or name a function of your own by its dotted path: there is no list to extend. A source yields its pairs in the
same order every time, names each once, sets groups, writes what is broken into the ledger and goes on, and knows nothing of shards.
`make_shards` checks that pictures decode; `data_prep.conformance` holds a source to the rest.

A source that can be cut has, beside it, `plan(pairs_per_shard, <its settings>)`, a list of JSON objects that each name a range of the input
(file and offset, positions in a sorted listing) of about pairs_per_shard pairs, and takes one of them as its setting `part`; by None it
reads all of them, one after the other. A part is read without the others, by any process of any machine, and becomes a shard. Where
something has to be listed first, its digest goes into the parts (`check_listing`), and each process may keep the listing.

Shards that were made already are told from others by their settings and by what these lead to: the fingerprint of every path among them,
or what a function `inputs` beside the source, of the same settings, returns (JSON values).
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from multimodal.arguments import near_names
from multimodal.boxes import fingerprint_bytes, fingerprint_file
from multimodal.door import load
from multimodal.errors import InputError
from multimodal.pairs import Pair

Source = Callable[..., Iterator[Pair]]
"""Settings, and the ledger as the keyword `ledger` -> pairs."""

TEXT_SUFFIXES = frozenset({".txt", ".tsv", ".csv", ".json", ".jsonl"})


def input_fingerprint(path: Path, files: Iterable[Path] | None = None) -> str:
    """What an input path holds, cheaply: of a file and of texts the content, of pictures and tars in a folder their names and sizes.

    files: those below the folder that the source reads, in its order; by default all of them. A source that names them is not told to
    have changed by what else comes to lie there, as the shards themselves where they are written into the folder of the photos.
    The path's own name does not enter: the same photos elsewhere make the same shards. InputError where there is nothing.
    """
    if path.is_file():
        return fingerprint_file(path)
    if not path.is_dir():
        raise InputError(f"{path}: does not exist. Give the file or folder that the pairs are to be read from")
    if files is None:
        files = sorted(file for file in path.rglob("*") if file.is_file())
    # A table may name pictures by absolute paths, which lie in no folder of its own.
    names = ((file.relative_to(path) if file.is_relative_to(path) else file, file) for file in files)
    facts = [[os.fsencode(name), file.stat().st_size, _text_fingerprint(file)] for name, file in names]
    return fingerprint_bytes(repr(facts).encode())


def _text_fingerprint(file: Path) -> str:
    return fingerprint_file(file) if file.suffix.lower() in TEXT_SUFFIXES else ""


def cut(num: int, pairs_per_shard: int, **same: Any) -> list[dict[str, Any]]:
    """The parts of a listing of num items: {"start": 0, "stop": 1000, **same}, ... One that is empty where nothing is listed."""
    return [{"start": start, "stop": min(start + pairs_per_shard, num), **same} for start in range(0, max(num, 1), pairs_per_shard)]


def check_listing(path: Path, found: Any, wanted: Any) -> None:
    """InputError where what is listed, or its digest, is not what a plan was made with."""
    if found != wanted:
        raise InputError(f"{path}: has changed since this job was begun. Begin again with --overwrite")


def source_names() -> dict[str, str]:
    """The sources in this folder: name -> the first line that its module says of itself. None of them is imported."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0] for path in files}


def find_source(name: str) -> Source:
    """The source of that name, hyphens or underscores, or the function at "package.module:function"; InputError where there is none."""
    if ":" in name:
        return load(name)
    known = source_names()
    stem = name.replace("-", "_")
    if stem not in known:
        raise InputError(
            f"there is no source {name!r}. {near_names(stem, known)} (a source of your own is named as package.module:function)"
        )
    return load(f"{__name__}.{stem}:{stem}")
