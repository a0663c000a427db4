"""Sources of pairs, one file each: `data_prep/sources/<name>.py` has a function <name> from its settings to an iterator of `Pair`.

    def folder(input: Path, *, ledger: Ledger) -> Iterator[Pair]: ...
    find_source("folder"), find_source("my_package.my_module:my_source")

To add one, put a file here, or name your own function by its dotted path: there is no list to extend. A source yields its pairs in the same
order every time, with unique names, and sets their groups. It writes broken items to the ledger and continues, and knows nothing of shards.
`make_shards` checks that pictures decode; `data_prep.conformance` checks the rest.

A source that can be read in parts has, in the same module, `plan(pairs_per_shard, <its settings>)`: a list of JSON objects, each of which
names a range of the input (file and offset, positions in a sorted listing) of about pairs_per_shard pairs. The source takes one of them as
its setting `part`; with None it reads all of them in turn. A part is read without the others, by any process on any machine, and becomes
a shard. If something has to be listed first, its digest goes into the parts (`check_listing`), and each process may keep the listing.

A set that was made before is recognised by its settings and their inputs: the fingerprint of every path among them, or the result (JSON
values) of a function `inputs` of the same settings in the same module.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from multimodal.boxes import fingerprint_bytes, fingerprint_file
from multimodal.doors.dispatch import load
from multimodal.errors import InputError, near_names
from multimodal.pairs import Pair

Source = Callable[..., Iterator[Pair]]
"""Settings, and the ledger as the keyword `ledger` -> pairs."""

TEXT_SUFFIXES = frozenset({".txt", ".tsv", ".csv", ".json", ".jsonl"})


def input_fingerprint(path: Path, files: Iterable[Path] | None = None) -> str:
    """A cheap fingerprint of an input path: the content of files and texts; for pictures and tars in a folder, names and sizes.

    files: those in the folder that the source reads, in its order; by default all. Other files that appear there later, such as shards
    written into the folder of photos, then make no difference.
    The path's own name makes no difference: the same photos elsewhere make the same shards. InputError if nothing is there.
    """
    if path.is_file():
        return fingerprint_file(path)
    if not path.is_dir():
        raise InputError(f"{path}: does not exist. Give the file or folder to read the pairs from")
    if files is None:
        files = sorted(file for file in path.rglob("*") if file.is_file())
    # A table may name pictures by absolute paths, outside its own folder.
    names = ((file.relative_to(path) if file.is_relative_to(path) else file, file) for file in files)
    facts = [[os.fsencode(name), file.stat().st_size, _text_fingerprint(file)] for name, file in names]
    return fingerprint_bytes(repr(facts).encode())


def _text_fingerprint(file: Path) -> str:
    return fingerprint_file(file) if file.suffix.lower() in TEXT_SUFFIXES else ""


def with_defaults(source: Source, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of the source except `part`, with defaults filled in. InputError for an unknown or missing setting."""
    try:
        bound = inspect.signature(source).bind(**settings, ledger=None)
    except TypeError as error:
        raise InputError(f"source {source.__name__}: {error}") from None
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name not in ("ledger", "part")}


def cut(num: int, pairs_per_shard: int, **same: Any) -> list[dict[str, Any]]:
    """The parts of a listing of num items: {"start": 0, "stop": 1000, **same}, ... One empty part for an empty listing."""
    return [{"start": start, "stop": min(start + pairs_per_shard, num), **same} for start in range(0, max(num, 1), pairs_per_shard)]


def check_listing(path: Path, found: Any, wanted: Any) -> None:
    """InputError if a listing, or its digest, differs from the one that the plan was made with."""
    if found != wanted:
        raise InputError(f"{path}: has changed since this job was started. Start again with --overwrite")


def source_names() -> dict[str, str]:
    """The sources in this folder: name -> the first line of its module's docstring. None of them is imported."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0] for path in files}


def find_source(name: str) -> Source:
    """The source of that name, with hyphens or underscores, or the function at "package.module:function"; InputError if there is none."""
    if ":" in name:
        return load(name)
    known = source_names()
    stem = name.replace("-", "_")
    if stem not in known:
        raise InputError(f"there is no source {name!r}. {near_names(stem, known)} (name your own source as package.module:function)")
    return load(f"{__name__}.{stem}:{stem}")
