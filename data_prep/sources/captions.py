"""A file of captions beside a folder of pictures or tars of them: a table, JSON of COCO or Karpathy, JSON Lines, Parquet, Flickr tokens.

    data-prep make-shards captions flickr8k/captions.tsv --output shards/flickr8k
    data-prep make-shards captions annotations/captions_train2017.json --images train2017 --output shards/coco

What a name ends in says how the file is read:
- .tsv, .csv, also .gz: a header line with the columns `file`, `caption` and, where the source has splits of its own, `split`; then a row a
  caption. Fields are separated by commas, semicolons, tabs or `|`. Other usual names are known too (image, filepath, file_name, title,
  text, ...; case is no matter): the first of file, file_name, filename, filepath, image, ... and of caption, text, description, sentence,
  comment, title, alt counts, and a line on stderr says which was taken. Without a header line, two columns are told by what they hold.
- .txt, .token: such a table, or Flickr's token file, `name.jpg#0<TAB>caption` on each line.
- .jsonl, .jsonl.gz: an object a line with those fields; `caption` may be a list. .parquet: those columns, likewise.
- .json: COCO's captions_*.json, or Karpathy's dataset_*.json with its splits ("restval" counts as "train", as in the papers); or a list of
  objects with those fields.
Text may be UTF-8, UTF-16, Windows-1252 or Mac Roman, and is then read as its bytes say; other encodings are named with --encoding.
Pictures are found by their names as they are, else without regard to case and to how accents are composed, with \\ for /, and, of absolute
paths, by their last folders.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.pictures import offer
from data_prep.sources import check_listing, cut, input_fingerprint
from data_prep.sources._caption_entries import Columns, Entries, Entry
from data_prep.sources._caption_json import read_json
from data_prep.sources._caption_tables import read_json_lines, read_parquet, read_text
from data_prep.sources._images import Images
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures import BadPicture
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
        folder that the file lies in.
    file_column: what the column of the pictures' file names is called, or that field of JSON Lines; by default the first usual name.
    caption_column: what that of the captions is called; by default the first usual name.
    split_column: what that of the source's own split is called; by default `split` where there is one.
    columns: the names of all columns of a table that has no header line, in their order.
    encoding: the encoding of the file, such as cp1251 or shift_jis, where its bytes do not say it.
    allow_outside: read pictures that the file names outside the folder of the pictures, too.
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
    """Ranges of the pictures in the order of their first mention. The whole file is read for that: captions may lie anywhere in it."""
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
    """The file and the pictures beside it, for telling a set that was made of them. How the file was read goes to stderr."""
    named = _columns(file_column, caption_column, split_column, columns, encoding)
    ledger = Ledger(Path())  # what is bad is written down when the pairs are read
    entries = read_captions(input, named, ledger)
    num_captions = sum(bad.key in entries for bad in ledger.entries)
    left_out = f"; broken captions of pictures that have others: {num_captions}, named in bad.csv" if num_captions else ""
    if not entries.is_plain or left_out:
        print(f"{input}: {entries.note}{left_out}", file=sys.stderr)
    files = [entry.file for entry in entries]
    with Images(images or input.parent, files, allow_outside) as pictures:
        return {"input": input_fingerprint(input), "images": pictures.fingerprint(files)}


def _columns(file: str | None, caption: str | None, split: str | None, names: list[str] | None, encoding: str | None) -> Columns:
    return Columns(file, caption, split, None if names is None else tuple(names), encoding)


def _read(input: Path, columns: Columns) -> tuple[list[Entry], list[Bad]]:
    """The pictures that the file names, and the rows that cannot be used, which do not count where their picture has other captions."""
    ledger = Ledger(Path())
    entries = read_captions(input, columns, ledger)
    return list(entries), [replace(bad, count=0) if bad.key in entries else bad for bad in ledger.entries]


@lru_cache(maxsize=1)
def _listed(input: Path, columns: Columns, listing: str) -> tuple[list[Entry], list[Bad]]:
    """As `_read`, once a process. InputError where the file has changed since the plan was made."""
    check_listing(input, input_fingerprint(input), listing)
    return _read(input, columns)


def read_captions(input: Path, columns: Columns, ledger: Ledger) -> Entries:
    """What the file says, read by its suffix. A row that cannot be used goes to the ledger by its place.

    InputError: the file is not there, is of no format that is read, cannot be read as what its name says, lacks a column, holds nothing,
    or puts one picture into two splits.
    """
    formats = ", ".join(SUFFIXES)
    if not input.is_file():
        raise InputError(f"{input}: is a folder; the file of captions is wanted" if input.is_dir() else f"{input}: does not exist")
    suffix = next((suffix for suffix in SUFFIXES if input.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"{input}: is no file of captions by its name. They end in {formats}")
    entries = Entries(input, ledger)
    _READERS[suffix](input, columns, entries)
    if not entries.num_rows:
        raise InputError(f"{input}: holds no caption")
    return entries
