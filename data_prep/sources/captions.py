"""A file of captions with a folder of pictures or tars of them: a table, JSON of COCO or Karpathy, JSON Lines, Parquet, Flickr tokens.

    data-prep make-shards captions flickr8k/captions.tsv --output shards/flickr8k
    data-prep make-shards captions annotations/captions_train2017.json --images train2017 --output shards/coco

The suffix decides how the file is read:
- .tsv, .csv, also .gz: a header line with the columns `file`, `caption` and, if the source has its own splits, `split`; then one row per
  caption. Fields are separated by commas, semicolons, tabs or `|`. Other usual names work too, in any case: the first of file, file_name,
  filename, filepath, image, ..., and the first of caption, text, description, sentence, comment, title, alt; a line on stderr says which
  were used. Without a header line, two columns are recognised by their content.
- .txt, .token: such a table, or Flickr's token file, with `name.jpg#0<TAB>caption` on each line.
- .jsonl, .jsonl.gz: one object per line with those fields; `caption` may be a list. .parquet: those columns, likewise.
- .json: COCO's captions_*.json, or Karpathy's dataset_*.json with its splits ("restval" counts as "train", as in the papers); or a list of
  objects with those fields.
UTF-8, UTF-16, Windows-1252 and Mac Roman are detected; for other encodings use --encoding.
Pictures are found by their exact names; else ignoring case and the composition of accents, with \\ for /, and absolute paths by their last
folders.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.pictures.formats import offer
from data_prep.sources import check_listing, cut, input_fingerprint
from data_prep.sources._caption_entries import Columns, Entries, Entry
from data_prep.sources._caption_json import read_json
from data_prep.sources._caption_tables import read_json_lines, read_parquet, read_text
from data_prep.sources._images import Images
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures.decode import BadPicture
from multimodal.shards import Ledger
from multimodal.shards.ledger import Bad

_READERS: dict[str, Callable[[Path, Columns, Entries], None]] = {
    ".tsv": read_text,
    ".csv": read_text,
    ".txt": read_text,
    ".token": read_text,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".jsonl.gz": read_json_lines,
    ".parquet": read_parquet,
    ".tsv.gz": read_text,
    ".csv.gz": read_text,
}
SUFFIXES = tuple(_READERS)


def captions(
    input: Path,
    images: Path | None = None,
    file_column: str | None = None,
    caption_column: str | None = None,
    split_column: str | None = None,
    columns: list[str] | None = None,
    encoding: str | None = None,
    allow_outside: bool = False,
    part: Mapping[str, Any] | None = None,
    *,
    ledger: Ledger,
) -> Iterator[Pair]:
    """The pictures that a file of captions names, in the order of their first mention, each with all its captions in their order.

    input: the file: .tsv, .csv, .tsv.gz, .csv.gz, .txt, .token, .json, .jsonl, .jsonl.gz or .parquet.
    images: the folder that its file names are relative to, or a folder of .tar files that hold them, or one .tar; by default the
        folder of the file.
    file_column: name of the column, or field of JSON Lines, with the pictures' file names; by default the first usual name.
    caption_column: name of the column of captions; by default the first usual name.
    split_column: name of the column of the source's own split; by default `split` if there is one.
    columns: the names of all columns of a table without a header line, in order.
    encoding: the encoding of the file, such as cp1251 or shift_jis, if it cannot be detected.
    allow_outside: also read pictures outside the folder of images, if the file refers to them.
    """
    named = _columns(file_column, caption_column, split_column, columns, encoding)
    entries, unusable = _read(input, named) if part is None else _listed(input, named, part["listing"])
    every = [entry.file for entry in entries]
    if part is not None:
        entries, unusable = entries[part["start"] : part["stop"]], unusable if part["start"] == 0 else []
    for bad in unusable:  # rows that belong to no picture
        ledger.bad(bad.where, bad.key, bad.reason, bad.count)
    with Images(images or input.parent, every, allow_outside) as pictures:
        for entry in entries:
            where = f"{input.name} {entry.place}"
            try:
                image = pictures.read_named(entry.file)
            except BadPicture as error:
                ledger.bad(where, entry.file, str(error))
                continue
            yield from offer(ledger, where, entry.file, image, entry.captions, entry.file, entry.split)


def plan(
    pairs_per_shard: int,
    input: Path,
    images: Path | None,
    file_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    columns: list[str] | None = None,
    encoding: str | None = None,
    allow_outside: bool = False,
) -> list[dict[str, Any]]:
    """Ranges of the pictures in the order of their first mention. Reads the whole file, because a picture's captions may be anywhere."""
    entries, _ = _read(input, _columns(file_column, caption_column, split_column, columns, encoding))
    return cut(len(entries), pairs_per_shard, listing=input_fingerprint(input))


def inputs(
    input: Path,
    images: Path | None,
    file_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    columns: list[str] | None,
    encoding: str | None,
    allow_outside: bool,
) -> dict[str, str]:
    """Fingerprints of the file and its pictures. Reports on stderr how the file was read."""
    named = _columns(file_column, caption_column, split_column, columns, encoding)
    ledger = Ledger(Path())  # bad rows are recorded when the pairs are read
    entries = read_captions(input, named, ledger)
    num_captions = sum(bad.key in entries for bad in ledger.entries)
    left_out = f"; broken captions of pictures that have others: {num_captions}, listed in bad.csv" if num_captions else ""
    if not entries.is_plain or left_out:
        print(f"{input}: {entries.note}{left_out}", file=sys.stderr)
    files = [entry.file for entry in entries]
    with Images(images or input.parent, files, allow_outside) as pictures:
        return {"input": input_fingerprint(input), "images": pictures.fingerprint(files)}


def _columns(file: str | None, caption: str | None, split: str | None, names: list[str] | None, encoding: str | None) -> Columns:
    return Columns(file, caption, split, None if names is None else tuple(names), encoding)


def _read(input: Path, columns: Columns) -> tuple[list[Entry], list[Bad]]:
    """The pictures that the file names, and the unusable rows, which do not count if their picture has other captions."""
    ledger = Ledger(Path())
    entries = read_captions(input, columns, ledger)
    return list(entries), [replace(bad, count=0) if bad.key in entries else bad for bad in ledger.entries]


@lru_cache(maxsize=1)
def _listed(input: Path, columns: Columns, listing: str) -> tuple[list[Entry], list[Bad]]:
    """As `_read`, once per process. InputError if the file has changed since the plan was made."""
    check_listing(input, input_fingerprint(input), listing)
    return _read(input, columns)


def read_captions(input: Path, columns: Columns, ledger: Ledger) -> Entries:
    """The file's entries, read by its suffix. Unusable rows go to the ledger, by their place.

    InputError: the file does not exist, has an unknown suffix, cannot be read as its suffix says, lacks a column, is empty, or puts one
    picture into two splits.
    """
    formats = ", ".join(SUFFIXES)
    if not input.is_file():
        raise InputError(f"{input}: is a folder; give the file of captions" if input.is_dir() else f"{input}: does not exist")
    suffix = next((suffix for suffix in SUFFIXES if input.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"{input}: is not a file of captions, by its name. They end in {formats}")
    entries = Entries(input, ledger)
    _READERS[suffix](input, columns, entries)
    if not entries.num_rows:
        raise InputError(f"{input}: holds no caption. Give a file with at least one")
    return entries
