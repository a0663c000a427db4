"""Shards made in parallel: a plan divides the source into parts before the work starts, and each part becomes the shard of its number.

    write_plan(output, plan)
    done = make_piece(job, Piece(3, plan.parts[3]))     # in any process, any number of times, with the same bytes

While a job is unfinished, its folder holds `plan.json`, and `parts/000003.json` for each shard that is done. That mark is written after the
shard, so a killed job continues with the others. Plan and marks are removed when the set is finished. A part without a usable pair has no
shard.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_prep.pictures.formats import checked
from data_prep.pictures.resize import Resize
from data_prep.pictures.scene_text import with_scene_text
from data_prep.shards.valid import valid_pairs
from data_prep.shards.workers import peak_rss_bytes
from data_prep.sources import Source
from multimodal.doors.dispatch import load
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger, write_shard
from multimodal.shards.folder import Folder, folder_of
from multimodal.shards.format import TAR, shard_name
from multimodal.shards.ledger import Bad
from multimodal.shards.table import SIDECAR
from multimodal.shards.writer import clear_unfinished

PLAN, PARTS = "plan.json", "parts"


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of a job. config: as in the finished set's manifest; JSON values. parts: ranges from the source's `plan`, one per shard."""

    config: Mapping[str, Any]
    parts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ShardJob:
    """The settings that all pieces of a job share. source: "package.module:function". output: a folder, or a URL of fsspec."""

    source: str
    settings: Mapping[str, Any]
    output: str | Path
    pairs_per_shard: int
    max_pairs: int | None = None
    ocr: str | None = None
    resize: Resize | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """The pairs of one shard, to be made. range: its part of the plan. repeated: names that an earlier shard has, and that shard."""

    number: int
    range: Mapping[str, Any]
    repeated: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PieceDone:
    """A piece that was made: its pairs, the bytes of its tar (0: no pair, and no tar), the pairs left out, and the time and memory used."""

    number: int
    num_pairs: int
    size_bytes: int
    bad: tuple[Bad, ...]
    seconds: float
    peak_rss_bytes: int

    def write(self, output: Folder) -> None:
        """Mark it as done; the last step of a piece."""
        with output.writing(_marker(self.number)) as file:
            file.write(json.dumps(asdict(self)).encode())


def plan_of(source: Source) -> Callable[..., list[dict[str, Any]]] | None:
    """The function `plan` beside a source that can be read in parts: one that takes a `part`, and can be imported by name."""
    if "part" not in inspect.signature(source).parameters or "<locals>" in source.__qualname__:
        return None
    return getattr(sys.modules[source.__module__], "plan", None)


def source_path(source: Source) -> str:
    """ "package.module:function": how another process imports the source, and how a manifest names it."""
    return f"{source.__module__}:{source.__qualname__}"


def read_plan(output: Folder) -> Plan | None:
    """The plan of an unfinished job in that folder, or None."""
    if output.size_bytes(PLAN) is None:
        return None
    try:
        return Plan(**json.loads(output.read([PLAN])[0]))
    except (ValueError, TypeError) as error:
        raise InputError(f"{output.at(PLAN)}: not a valid plan: {error}. Remove it, or choose another --output") from None


def write_plan(output: Folder, plan: Plan) -> None:
    """Begin a job: from now on, the same job continues in this folder."""
    clear_unfinished(output)
    forget(output)
    with output.writing(PLAN) as file:
        file.write((json.dumps(asdict(plan), indent=1, sort_keys=True) + "\n").encode())


def forget(output: Folder) -> None:
    """Remove the plan and the marks, once a job is finished or given up."""
    output.remove_folder(PARTS)
    if output.size_bytes(PLAN) is not None:  # checked first: a finished set may be read-only
        output.remove(PLAN)


def read_done(output: Folder, num_parts: int) -> list[PieceDone]:
    """The pieces that are done, ascending. Removes unfinished files."""
    marks, files = output.files(PARTS), output.files()
    there = [marker for marker in map(_marker, range(num_parts)) if PurePosixPath(marker).name in marks]
    done = [one for one in map(_read_marker, output.read(there)) if _has_shard(one, files)]
    clear_unfinished(output, keep={shard_name(one.number) for one in done if one.num_pairs})
    for name in marks:
        if name.startswith(".") and name.endswith(".part"):
            output.remove(f"{PARTS}/{name}")
    return done


def make_piece(job: ShardJob, piece: Piece) -> PieceDone:
    """Read one part of the source, write its shard, and mark it as done: the task of workers."""
    start = time.monotonic()
    output, name = folder_of(job.output), shard_name(piece.number)
    where = where_of(job.source.rpartition(":")[2], job.settings)
    ledger = Ledger(output.at("bad.csv"))  # only collects: the job writes the entries of all pieces
    pairs: Iterator[Pair] = load(job.source)(**job.settings, part=piece.range, ledger=ledger)
    if job.max_pairs is not None:
        pairs = islice(pairs, min(job.max_pairs - piece.number * job.pairs_per_shard, job.pairs_per_shard))
    pairs = with_scene_text(pairs, job.ocr)
    pairs = _counted(valid_pairs(_once(pairs, piece.repeated, where, ledger), where, ledger, job.resize or checked, num_threads=1), ledger)
    first = next(pairs, None)
    size_bytes = 0
    if first is not None:
        write_shard(job.output, piece.number, chain([first], pairs), piece.number * job.pairs_per_shard, job.pairs_per_shard)
        size_bytes = output.size_bytes(f"{name}{TAR}") or 0
    done = PieceDone(piece.number, ledger.num_good, size_bytes, tuple(ledger.entries), time.monotonic() - start, peak_rss_bytes())
    done.write(output)
    return done


def begin_again(output: Folder, number: int) -> None:
    """Remove a piece's mark and shard, because it has to be made again."""
    output.remove(_marker(number))
    for suffix in (TAR, SIDECAR):  # a tar without its sidecar would look like one that we did not write
        output.remove(f"{shard_name(number)}{suffix}")


def repeated_names(output: Folder, numbers: Collection[int]) -> dict[int, dict[str, str]]:
    """Number of a shard -> the names in it that an earlier one of these shards has, each with that shard. 16 bytes per pair, and a sort.

    A shard's sidecar is open only while it is read, and again if one of its names may be repeated.

    A source should name each pair once. If its input does not (two downloads of img2dataset in one folder), the first keeps the name.
    """
    shards = sorted(numbers)
    sidecars = [f"{shard_name(number)}{SIDECAR}" for number in shards]
    by_shard = [table.strings("name").digests() for table in output.tables(sidecars)]
    digests = np.concatenate([np.zeros(0, np.uint64), *by_shard])
    order = np.argsort(digests, kind="stable")
    equal = digests[order[1:]] == digests[order[:-1]]
    suspects = np.unique(np.concatenate([order[1:][equal], order[:-1][equal]]))
    starts = np.cumsum([0, *map(len, by_shard)])
    places = np.searchsorted(starts, suspects, side="right") - 1
    opened = np.unique(places)
    names = {at: table.strings("name") for at, table in zip(opened, output.tables([sidecars[at] for at in opened]), strict=True)}
    first: dict[str, int] = {}
    repeated: dict[int, dict[str, str]] = {}
    for position, at in zip(suspects, places, strict=True):  # ascending: in the order of the set
        number, name = shards[at], names[at][int(position - starts[at])]
        if first.setdefault(name, number) != number:
            repeated.setdefault(number, {})[name] = shard_name(first[name])
    return repeated


def where_of(source: str, settings: Mapping[str, Any]) -> str:
    """The place that pairs come from, as named in the ledger: the source's `input`, or its name."""
    return str(settings.get("input", source))


def _once(pairs: Iterable[Pair], repeated: Mapping[str, str], where: str, ledger: Ledger) -> Iterator[Pair]:
    for pair in pairs:
        if pair.name in repeated:
            ledger.bad(where, pair.name, f"a pair of this name came before, in shard {repeated[pair.name]}")
        else:
            yield pair


def _counted(pairs: Iterable[Pair], ledger: Ledger) -> Iterator[Pair]:
    for pair in pairs:
        ledger.good()
        yield pair


def _marker(number: int) -> str:
    return f"{PARTS}/{shard_name(number)}.json"


def _read_marker(content: bytes) -> PieceDone:
    facts = json.loads(content)
    return PieceDone(**facts | {"bad": tuple(Bad(**bad) for bad in facts["bad"])})


def _has_shard(done: PieceDone, files: Mapping[str, int]) -> bool:
    """False if its shard was cut or removed since. files: those of the folder, with their sizes."""
    name = shard_name(done.number)
    return not done.num_pairs or (files.get(f"{name}{TAR}") == done.size_bytes and f"{name}{SIDECAR}" in files)
