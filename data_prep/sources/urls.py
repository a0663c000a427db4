"""A list of URLs and texts (CC3M, CC12M, LAION): img2dataset downloads the pictures, and shards are made from its tars.

    data-prep make-shards urls cc12m.tsv --columns url caption --text-column caption --downloads cc12m --environment i2d \\
        --create-environment --output shards/cc12m

ACCESSES THE NETWORK: img2dataset requests every http and https URL of the list from this machine (it obeys X-Robots-Tag: noai, noimageai,
noindex and noimageindex). Other URLs, such as file:, are refused. With --create-environment, uv installs img2dataset and its dependencies
from PyPI into a separate environment, because it cannot share ours.

    list.tsv      url <TAB> text, with a header line, or with --columns to name them; or .csv; or .parquet (LAION). Separators, encodings
                  and usual names of columns (URL, TEXT, caption) are recognised as by the source `captions`
    downloads/    tars/00000.tar, 00000.parquet, 00000_stats.json, ... as img2dataset writes them; list.parquet, its input

img2dataset holds the list in memory: split a list of more than some ten million rows. The downloads are kept: a stopped command continues
with the missing tars, and making the shards again uses the same pictures. The web changes from day to day; the set's bad.csv lists which
URLs failed, and why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.files.columns import CAPTIONS, URLS, Column, pick
from data_prep.files.tables import Layout, layout_of
from data_prep.files.tables import rows as table_rows
from data_prep.sources import input_fingerprint
from data_prep.sources._img2dataset_program import ADDITIONAL_COLUMNS, TARS, FetchSettings, fetch, find_program, tar_names, unfinished
from data_prep.sources.img2dataset import img2dataset as adopt
from multimodal.boxes import atomic_write, state_of
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger
from multimodal.shards.format import broken_text

SUFFIXES = (".parquet", ".tsv", ".csv", ".tsv.gz", ".csv.gz")
TEXTS = ("text", *(name for name in CAPTIONS if name != "text"))
"""Usual names of the column of texts: those of captions, with `text` first."""
LIST, BEGUN = "list.parquet", "list.json"
SCHEMES = ("http://", "https://")

_ROWS_AT_ONCE = 10_000
_ROWS_A_TAR = 1000
_URL_SHOWN = 80


def urls(
    input: Path,
    downloads: Path,
    url_column: str | None = None,
    text_column: str | None = None,
    columns: list[str] | None = None,
    encoding: str | None = None,
    img2dataset: Path | None = None,
    environment: Path | None = None,
    create_environment: bool = False,
    max_urls: int | None = None,
    side_px: int | None = 256,
    timeout_s: int = 10,
    threads: int = 32,
    part: Mapping[str, Any] | None = None,
    *,
    ledger: Ledger,
) -> Iterator[Pair]:
    """The pictures of a list of URLs, each with its text; pictures of one URL share a group.

    input: the list: .parquet, .tsv or .csv, the last two also .gz.
    downloads: folder for the downloaded pictures; what is there already is not downloaded again.
    url_column: name of the column of URLs; by default the first usual name (url, image_url, ..., in any case).
    text_column: name of the column of texts; by default the first usual name (text, caption, description, ...).
    columns: the names of all columns of a .tsv or .csv without a header line, in order.
    encoding: the encoding of the list, such as cp1251 or shift_jis, if it cannot be detected.
    img2dataset: path of the program, if it is installed.
    environment: or the Python environment that has it.
    create_environment: make that environment if it does not exist (network: PyPI).
    max_urls: download only the first ones, for a quick try (--max-pairs limits the shards, not the downloads).
    side_px: resize pictures whose shorter side is longer to this, as JPEG; null keeps every file as the server sent it.
    timeout_s: give up on a server that sends nothing for this long.
    threads: connections at once, per core.

    Each of img2dataset's tars becomes a shard; it holds as many URLs as --pairs-per-shard said when the downloads were started.
    InputError: the list cannot be read, the downloads belong to another list, or img2dataset is missing or ends early.
    """
    parts = (
        plan(
            _ROWS_A_TAR,
            input,
            downloads,
            url_column,
            text_column,
            columns,
            encoding,
            img2dataset,
            environment,
            create_environment,
            max_urls,
            side_px,
            timeout_s,
            threads,
        )
        if part is None
        else [part]
    )
    for one in parts:
        tar = downloads / TARS / one["tar"]
        for failed in _failures(tar.with_suffix(".parquet")):
            ledger.bad(f"{input.name} {failed.place}", failed.url, failed.reason)
        yield from adopt(tar, ledger=ledger)


def plan(
    pairs_per_shard: int,
    input: Path,
    downloads: Path,
    url_column: str | None = None,
    text_column: str | None = None,
    columns: list[str] | None = None,
    encoding: str | None = None,
    img2dataset: Path | None = None,
    environment: Path | None = None,
    create_environment: bool = False,
    max_urls: int | None = None,
    side_px: int | None = 256,
    timeout_s: int = 10,
    threads: int = 32,
) -> list[dict[str, Any]]:
    """The tars, once all are downloaded: before that, it is not known which pictures there are."""
    listed = _List.open(input, url_column, text_column, columns, encoding)
    url_column, text_column = listed.names[listed.url_at], listed.names[listed.text_at]
    wanted = _Job(input_fingerprint(input), url_column, text_column, columns, max_urls, side_px, encoding)
    begun = _read_begun(downloads, wanted)
    if begun is None or unfinished(downloads, begun.num_rows, begun.rows_a_tar):
        program = find_program(img2dataset, environment, create_environment)
        if begun is None:
            print(f"{input}: {listed}", file=sys.stderr)
            begun = _begin(listed.rows(), downloads, wanted, pairs_per_shard)
        fetch(program, downloads / LIST, downloads, begun.num_rows, begun.rows_a_tar, FetchSettings(side_px, timeout_s, threads))
    return [{"tar": f"{name}.tar"} for name in tar_names(begun.num_rows, begun.rows_a_tar)]


def inputs(input: Path, **others: Any) -> dict[str, str]:
    """Fingerprint of the list; the pictures are in the downloads."""
    return {"input": input_fingerprint(input)}


# -- the downloads -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Job:
    """The settings that decide which pictures there are. input: fingerprint of the list."""

    input: str
    url_column: str
    text_column: str
    columns: list[str] | None
    max_urls: int | None
    side_px: int | None
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class _Begun:
    """Downloads that were started, as recorded in the folder's `list.json`."""

    job: _Job
    num_rows: int
    rows_a_tar: int


def _begin(rows: Iterator[_Row], downloads: Path, job: _Job, rows_a_tar: int) -> _Begun:
    downloads.mkdir(parents=True, exist_ok=True)
    num_rows = _write_list(islice(rows, job.max_urls), downloads / LIST)
    if not num_rows:
        raise InputError(f"the list has no URL; it needs one row per picture, with the columns {job.url_column} and {job.text_column}")
    begun = _Begun(job, num_rows, rows_a_tar)
    with atomic_write(downloads / BEGUN) as file:
        file.write(json.dumps(asdict(begun), indent=1).encode())
    return begun


def _read_begun(downloads: Path, wanted: _Job) -> _Begun | None:
    """The job of the downloads in the folder, None if there are none. InputError if they are another job's."""
    try:
        held = json.loads((downloads / BEGUN).read_bytes())
    except FileNotFoundError:
        if downloads.exists() and any(path.name != LIST for path in downloads.iterdir()):
            raise InputError(
                f"{downloads}: is not a folder of downloads of this source. Give another --downloads; for tars of img2dataset, use: "
                f"data-prep make-shards img2dataset {downloads}"
            ) from None
        return None
    begun = _Begun(_Job(**held["job"]), held["num_rows"], held["rows_a_tar"])
    state_of(downloads, asdict(wanted), asdict(begun.job), remedies=("give the same settings", "give other --downloads"))
    return begun


# -- the list ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the list for img2dataset. One that must not be downloaded keeps its place, without its URL.

    place: "line 2" of a table, "row 1" of Parquet. refused: why it is not downloaded, or None.
    """

    place: str
    url: str
    caption: str
    refused: str | None = None

    @classmethod
    def of(cls, place: str, url: Any, text: Any) -> _Row:
        url, text = (value.strip() if isinstance(value, str) else "" for value in (url, text))
        if reason := broken_text([url, text]):
            return cls(place, "", "", reason)
        if not url.lower().startswith(SCHEMES):
            return cls(place, "", text, f"its address is not http or https: {url[:_URL_SHOWN]!r}" if url else "has no address")
        return cls(place, url, text) if text else cls(place, "", text, f"has no text: {url[:_URL_SHOWN]}")


@dataclass(frozen=True, slots=True)
class _List:
    """How to read a list. names: of its columns. url_at, text_at: the positions of URLs and texts. layout: None for Parquet."""

    path: Path
    names: tuple[str, ...]
    url_at: int
    text_at: int
    layout: Layout | None

    @classmethod
    def open(
        cls, path: Path, url_column: str | None, text_column: str | None, columns: Sequence[str] | None, encoding: str | None
    ) -> _List:
        """InputError if its suffix is not that of a list, it lacks a column, or its encoding is unknown."""
        if not path.name.lower().endswith(SUFFIXES):
            raise InputError(f"{path}: is not a list of URLs, by its name. They end in {', '.join(SUFFIXES)}")
        if not path.is_file():
            raise InputError(f"{path}: is a folder; give the list of URLs" if path.is_dir() else f"{path}: does not exist")
        wanted = (Column("addresses", "--url-column", URLS, url_column), Column("texts", "--text-column", TEXTS, text_column))
        if path.suffix.lower() == ".parquet":
            layout, names = None, _parquet_names(path, columns, encoding)
        else:
            layout = layout_of(path, wanted, columns, encoding, lambda field: field.lower().startswith(SCHEMES))
            names = layout.names
        advice = "" if columns or layout is None else "; if that is not a header but the first row, name the columns with --columns"
        url_at, text_at = (pick(str(path), names, column, advice) for column in wanted)
        return cls(path, names, url_at, text_at, layout)

    def __str__(self) -> str:
        how = "read as Parquet" if self.layout is None else str(self.layout)
        return f"{how}; addresses in column {self.names[self.url_at]!r}, texts in {self.names[self.text_at]!r}"

    def rows(self) -> Iterator[_Row]:
        if self.layout is None:
            yield from self._parquet_rows()
            return
        for row in table_rows(self.path, self.layout):
            place = f"line {row.line}"
            if row.reason is None:
                yield _Row.of(place, row.fields[self.url_at], row.fields[self.text_at])
            else:
                yield _Row(place, "", "", row.reason)

    def _parquet_rows(self) -> Iterator[_Row]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        url, text = self.names[self.url_at], self.names[self.text_at]
        try:
            with pq.ParquetFile(self.path) as table:
                rows = (row for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[url, text]) for row in batch.to_pylist())
                for number, row in enumerate(rows, 1):
                    yield _Row.of(f"row {number}", row[url], row[text])
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: is not a valid Parquet file: {error}") from None


def _parquet_names(path: Path, columns: Sequence[str] | None, encoding: str | None) -> tuple[str, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if columns is not None:
        raise InputError(f"{path}: is Parquet, which names its own columns; leave out --columns")
    if encoding is not None:
        raise InputError(f"{path}: is Parquet, which needs no encoding; leave out --encoding")
    try:
        return tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is not a valid Parquet file: {error}") from None


def _write_list(rows: Iterator[_Row], path: Path) -> int:
    """Write the rows as Parquet, in batches; returns their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in ("url", "caption", *ADDITIONAL_COLUMNS)])
    num_rows = 0
    with atomic_write(path) as file, pq.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([asdict(row) for row in batch], schema))
            num_rows += len(batch)
    return num_rows


# -- failures ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Failure:
    place: str
    url: str
    reason: str


def _failures(path: Path) -> list[_Failure]:
    """The rows of a tar without a picture in it, in the order of the list."""
    import pyarrow.parquet as pq

    names = ["key", "url", "place", "refused", "status", "error_message"]
    rows = sorted(pq.read_table(path, columns=names).to_pylist(), key=lambda row: row["key"])
    return [
        _Failure(row["place"], row["url"], row["refused"] or f"{row['status'].replace('_', ' ')}: {row['error_message']}")
        for row in rows
        if row["status"] != "success"
    ]
