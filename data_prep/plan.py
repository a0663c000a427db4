"""Shards made side by side: a plan cuts the source into parts before the work starts, and each part becomes the shard of its number.

    write_plan(output, plan)
    done = make_part(job, Part(3, plan.parts[3]))     # in any process, any number of times, to the same bytes

While a job is unfinished its folder holds `plan.json`, what is to be made, and `parts/000003.json` for each part that is done: written
after the part's shard, so that a job which was killed goes on with the others. Both go when the set is finished, and leave no trace of how
it came about. A part of which nothing survives has no shard.
"""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.engine import peak_rss_bytes
from data_prep.pictures import checked
from data_prep.resize import Resize
from data_prep.scene_text import with_scene_text
from data_prep.sound import name_digest, sound
from data_prep.sources import Source
from multimodal.boxes import atomic_write
from multimodal.door import load
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger, write_shard
from multimodal.shards.format import TAR, shard_name
from multimodal.shards.ledger import Bad
from multimodal.shards.table import SIDECAR, open_table
from multimodal.shards.writer import clear_unfinished

PLAN, PARTS = "plan.json", "parts"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job is to make. config: as the finished set's manifest has it; JSON values. parts: of the source's own making, one a shard."""

    config: Mapping[str, Any]
    parts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What all parts of a job have in common. source: "package.module:function"."""

    source: str
    settings: Mapping[str, Any]
    output: Path
    pairs_per_shard: int
    max_pairs: int | None = None
    ocr: str | None = None
    resize: Resize | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One part to make. range: what the source's `plan` says of it. repeated: names that an earlier part has, and the shard it became."""

    number: int
    range: Mapping[str, Any]
    repeated: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartDone:
    """One part that was made: its pairs, the bytes of its tar (0: no pair, and no tar), what was left out, and what it took."""

    number: int
    num_pairs: int
    size_bytes: int
    bad: tuple[Bad, ...]
    seconds: float
    peak_rss_bytes: int

    def write(self, output: Path) -> None:
        """Mark it as done; the last thing to do for a part."""
        with atomic_write(_marker(output, self.number)) as file:
            file.write(json.dumps(asdict(self)).encode())


def plan_of(source: Source) -> Callable[..., list[dict[str, Any]]] | None:
    """The function `plan` beside a source that can be read in parts: it takes a `part`, and is found by its module and name."""
    if "part" not in inspect.signature(source).parameters or "<locals>" in source.__qualname__:
        return None
    return getattr(sys.modules[source.__module__], "plan", None)


def source_path(source: Source) -> str:
    """ "package.module:function": what finds the source again in another process, and names it in a manifest."""
    return f"{source.__module__}:{source.__qualname__}"


def read_plan(output: Path) -> Plan | None:
    """The plan of an unfinished job in that folder, if there is one."""
    path = output / PLAN
    if not path.is_file():
        return None
    try:
        return Plan(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a plan of ours: {error}. Remove it, or choose another --output") from None


def write_plan(output: Path, plan: Plan) -> None:
    """Begin a job: from here on the folder is one that the same job goes on with."""
    clear_unfinished(output)
    forget(output)
    with atomic_write(output / PLAN) as file:
        file.write((json.dumps(asdict(plan), indent=1, sort_keys=True) + "\n").encode())


def forget(output: Path) -> None:
    """Take away the plan and the marks, of a job that is finished or is given up."""
    if (output / PARTS).is_dir():  # looked at first: a finished set may lie where nothing can be written
        shutil.rmtree(output / PARTS)
    if (output / PLAN).is_file():
        (output / PLAN).unlink()


def read_done(output: Path, num_parts: int) -> list[PartDone]:
    """The parts that are done, ascending. What others left half-done is taken away."""
    done = [one for number in range(num_parts) if (one := _read_marker(output, number)) is not None]
    clear_unfinished(output, keep={shard_name(one.number) for one in done if one.num_pairs})
    for path in (output / PARTS).glob(".*.part"):
        path.unlink()
    return done


def make_part(job: ShardJob, part: Part) -> PartDone:
    """Read one part, write its shard, and mark it as done: the task that engines run."""
    start = time.monotonic()
    output, name = job.output, shard_name(part.number)
    where = where_of(job.source.rpartition(":")[2], job.settings)
    ledger = Ledger(output / "bad.csv")  # collects only: the job writes what all parts left out
    pairs: Iterator[Pair] = load(job.source)(**job.settings, part=part.range, ledger=ledger)
    if job.max_pairs is not None:
        pairs = islice(pairs, min(job.max_pairs - part.number * job.pairs_per_shard, job.pairs_per_shard))
    pairs = with_scene_text(pairs, job.ocr)
    pairs = _counted(sound(_once(pairs, part.repeated, where, ledger), where, ledger, job.resize or checked, num_threads=1), ledger)
    first = next(pairs, None)
    size_bytes = 0
    if first is not None:
        write_shard(output, part.number, chain([first], pairs), part.number * job.pairs_per_shard, job.pairs_per_shard)
        size_bytes = (output / f"{name}{TAR}").stat().st_size
    done = PartDone(part.number, ledger.num_good, size_bytes, tuple(ledger.entries), time.monotonic() - start, peak_rss_bytes())
    done.write(output)
    return done


def begin_again(output: Path, number: int) -> None:
    """Take a part's mark and shard away, since it is to be made otherwise."""
    _marker(output, number).unlink()
    for suffix in (TAR, SIDECAR):  # a tar without its sidecar would be taken for a stranger's
        (output / f"{shard_name(number)}{suffix}").unlink()


def repeated_names(output: Path, numbers: Collection[int]) -> dict[int, dict[str, str]]:
    """Number of a shard -> the names in it that an earlier shard of these has, each with that shard. 16 bytes a pair, and a sort.

    A source names each pair once. Where what it reads does not (two downloads of img2dataset in one folder), the first keeps the name.
    """
    names = {number: open_table(output / f"{shard_name(number)}{SIDECAR}").strings("name") for number in sorted(numbers)}
    digests = np.concatenate(
        [np.frombuffer(b"".join(map(name_digest, shard)), np.uint64) for shard in names.values()] or [np.zeros(0, np.uint64)]
    )
    order = np.argsort(digests, kind="stable")
    equal = digests[order[1:]] == digests[order[:-1]]
    suspects = np.unique(np.concatenate([order[1:][equal], order[:-1][equal]]))
    shards, starts = list(names), np.cumsum([0, *map(len, names.values())])
    first: dict[str, int] = {}
    repeated: dict[int, dict[str, str]] = {}
    for position in suspects:  # ascending: in the order of the set
        at = int(np.searchsorted(starts, position, side="right")) - 1
        number, name = shards[at], names[shards[at]][int(position - starts[at])]
        if first.setdefault(name, number) != number:
            repeated.setdefault(number, {})[name] = shard_name(first[name])
    return repeated


def where_of(source: str, settings: Mapping[str, Any]) -> str:
    """What the ledger calls the place that pairs come from: the source's `input`, or its name."""
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


def _marker(output: Path, number: int) -> Path:
    return output / PARTS / f"{shard_name(number)}.json"


def _read_marker(output: Path, number: int) -> PartDone | None:
    """None where the part is not done, or its shard was cut or taken away since."""
    path = _marker(output, number)
    if not path.is_file():
        return None
    facts = json.loads(path.read_bytes())
    done = PartDone(**facts | {"bad": tuple(Bad(**bad) for bad in facts["bad"])})
    tar = output / f"{shard_name(number)}{TAR}"
    is_there = tar.is_file() and tar.stat().st_size == done.size_bytes and tar.with_suffix(SIDECAR).is_file()
    return done if is_there or not done.num_pairs else None
