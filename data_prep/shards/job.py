"""Turn a source of pairs into shards. Unreadable pairs are dropped and listed in `bad.csv`; the others keep their places.

    data-prep make-shards folder photos --output shards/photos
    make_shards(folder, {"input": Path("photos")}, Path("shards/photos"))
    data-prep make-shards folder photos --output s3://bucket/photos

A source with a `plan` is read in parts, one per shard, by several processes or a Ray cluster; a job that was stopped, even killed,
resumes with the missing shards, and the set is the same to the byte. Other sources are read from their start, in this process.
A set at a URL is made the same way: each process uploads its shards, and this process makes the index from their sidecars, in memory.
"""

from __future__ import annotations

import inspect
import json as json_format
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.pictures.formats import checked
from data_prep.pictures.resize import QUALITY, Resize
from data_prep.pictures.scene_text import describe_reader, with_scene_text
from data_prep.shards.plan import (
    Piece,
    PieceDone,
    Plan,
    ShardJob,
    begin_again,
    forget,
    make_piece,
    plan_of,
    read_done,
    read_plan,
    repeated_names,
    source_path,
    where_of,
    write_plan,
)
from data_prep.shards.valid import valid_pairs
from data_prep.shards.workers import Failed, LocalWorkers, Workers, peak_rss_bytes, workers_of
from data_prep.sources import Source, find_source, input_fingerprint, source_names, with_defaults
from multimodal.boxes import MANIFEST, State, decode_manifest, state_of
from multimodal.doors.arguments import Filled, parse
from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.shards import Ledger, ShardSet, ShardWriter, finish, open_set
from multimodal.shards.folder import Folder, folder_of
from multimodal.shards.format import shard_name
from multimodal.shards.writer import clear_unfinished

BAD = "bad.csv"
FILLED = frozenset({"ledger", "part"})
"""Parameters of a source that are not settings."""
OPENED = frozenset({"source", "settings", "workers"})
"""Parameters of `make_shards` that are not options of its command."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What one run did. peak_rss_bytes: peak memory of the largest process that made shards."""

    num_shards: int
    peak_rss_bytes: int


def make_shards(
    source: Source,
    settings: Mapping[str, Any],
    output: str | Path,
    pairs_per_shard: int = 1000,
    max_bad_share: float = 0.05,
    overwrite: bool = False,
    max_pairs: int | None = None,
    resize: int | None = None,
    quality: int | None = None,
    ocr: str | None = None,
    json: bool = False,
    workers: Workers = LocalWorkers(),  # noqa: B008  # frozen
) -> ShardSet:
    """Write the pairs of a source as a shard set, after checking that each picture decodes; a set already made is reused.

    source, settings: a function from its settings, and a `ledger`, to an iterator of pairs.
    output: the folder of the set, or a URL of any file system that fsspec knows (s3://bucket/set; extra `remote`, and s3fs, gcsfs or the
        like); pairs that were left out are listed in its bad.csv.
    pairs_per_shard: number of pairs per shard before filtering; unreadable pairs are dropped. The last shard may have fewer.
    max_bad_share: fail if more than this share of all samples is broken.
    overwrite: replace a set in the output folder that was made with other settings or inputs, finished or not.
    max_pairs: read only the first pairs, at most this many, to try something out.
    resize: pixels of the shorter side; larger pictures are re-encoded as JPEGs of that size. By default every file keeps its bytes.
    quality: JPEG quality with --resize, 1 to 100; by default 95.
    ocr: add the text recognised in each picture to its main text: rapidocr (extra `ocr`), or your own reader, package.module:function.
    json: print a summary on stdout, as one JSON object.
    workers: what reads the parts of a source with a `plan`.
    A command that was stopped resumes if it is run again.
    Returns the set. One at a URL is read through a cache in the user's cache folder, which also gets its index.
    InputError: the source is empty, no good pair is left or too many are bad, or the folder holds something else.
    """
    start = time.monotonic()
    folder = folder_of(output)
    for name, value in (("pairs_per_shard", pairs_per_shard), ("max_pairs", max_pairs)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    settings = with_defaults(source, settings)
    config = {
        "source": source_path(source),
        "settings": {name: value for name, value in settings.items() if not isinstance(value, Path | None)},  # a box names no paths
        "inputs": _inputs(source, settings),
        "max_pairs": max_pairs,
        "pairs_per_shard": pairs_per_shard,
    }
    if resize is None and quality is not None:
        raise InputError("--quality applies to the JPEGs that --resize makes. Add --resize, or omit --quality")
    smaller = None if resize is None else Resize(resize, QUALITY if quality is None else quality)
    if smaller is not None:
        config["resize"] = asdict(smaller)
    if ocr is not None:
        config["ocr"] = describe_reader(ocr)
    state, plan = _look_at(folder, config, overwrite)
    if state is State.FINISHED:
        shards = open_set(output)
        print(f"{output}: is there already, {len(shards)} pairs", file=sys.stderr)
        made = _Made(0, peak_rss_bytes())
        num_bad = len(Ledger(folder.at(BAD)).written())
    else:
        plan = plan or _begun(source, settings, folder, config)
        ledger = Ledger(folder.at(BAD), max_bad_share)
        if plan is None:
            made = _make_in_turn(source, settings, output, config, ledger, ocr, smaller)
        else:
            job = ShardJob(source_path(source), settings, output, pairs_per_shard, max_pairs, ocr, smaller)
            made = _make_by_plan(job, plan, ledger, workers)
        shards, num_bad = open_set(output), len(ledger.written())
        left_out = f", {num_bad} left out: {folder.at(BAD)}" if num_bad else ""
        took = f"{time.monotonic() - start:.1f} s, at most {made.peak_rss_bytes / 1e6:.0f} MB of memory a process"
        print(f"{output}: {len(shards)} pairs{left_out}\n{made.num_shards} shards made in {took}", file=sys.stderr)
    if json:
        print(json_format.dumps(_summary(output, shards, num_bad, made, time.monotonic() - start)))
    return shards


def _summary(output: str | Path, shards: ShardSet, num_bad: int, made: _Made, seconds: float) -> dict[str, Any]:
    """Counts are of the whole set, except shards_made, seconds and peak_rss_bytes, which are of this run.

    num_bad: entries of its bad.csv, including captions whose picture is used with its other captions.
    """
    return {
        "output": str(output),
        "pairs": len(shards),
        "bad": num_bad,
        "shards": len(shards.shards),
        "bytes": shards.manifest.counts["size_bytes"],
        "shards_made": made.num_shards,
        "seconds": round(seconds, 3),
        "peak_rss_bytes": made.peak_rss_bytes,
    }


def _look_at(output: Folder, config: Mapping[str, Any], overwrite: bool) -> tuple[State, Plan | None]:
    """Whether the set exists, finished or not, and the plan to resume. A set to be replaced counts as unfinished from here on."""
    made = output.size_bytes(MANIFEST) is not None
    finished = decode_manifest(output.read([MANIFEST])[0], str(output), "shards").config if made else None
    plan = None if made else read_plan(output)
    unfinished = None if plan is None else plan.config
    remedies = [*(["finish it with its own command"] if plan else []), "choose another --output", "replace it with --overwrite"]
    state = state_of(str(output), config, finished, unfinished, remedies=remedies, overwrite=overwrite)
    if state is State.UNFINISHED:
        return state, plan
    if made and state is State.FRESH:
        output.remove(MANIFEST)
    if made or plan is not None:
        forget(output)  # of the set to be replaced, or of a job that was killed between its last two steps
    return state, None


def _begun(source: Source, settings: Mapping[str, Any], output: Folder, config: Mapping[str, Any]) -> Plan | None:
    """Write a new plan and return it; None for a source that has none."""
    planned = plan_of(source)
    if planned is None:
        return None
    parts = planned(config["pairs_per_shard"], **settings)
    if config["max_pairs"] is not None:
        parts = parts[: -(-config["max_pairs"] // config["pairs_per_shard"])]
    plan = Plan(config, parts)
    write_plan(output, plan)
    return plan


def _make_in_turn(
    source: Source,
    settings: Mapping[str, Any],
    output: str | Path,
    config: Mapping[str, Any],
    ledger: Ledger,
    ocr: str | None,
    smaller: Resize | None,
) -> _Made:
    """Make all shards in this process, one pair after the other; each full shard is followed by a new one."""
    where = where_of(source.__name__, settings)
    with ShardWriter(output, config["pairs_per_shard"], config) as writer, ledger:
        read = with_scene_text(source(**settings, ledger=ledger), ocr)
        pairs = islice(valid_pairs(read, where, ledger, smaller or checked), config["max_pairs"])
        for pair in track(pairs, f"shards of {source.__name__}", unit="pair", note=lambda: _left_out(ledger.num_bad)):
            writer.write(pair)
            ledger.good()
    return _Made(-(-writer.num_pairs // writer.pairs_per_shard), peak_rss_bytes())


def _make_by_plan(job: ShardJob, plan: Plan, ledger: Ledger, workers: Workers) -> _Made:
    """Make the parts that are not done yet, with the given workers, and finish the set when all are."""
    output = folder_of(job.output)
    done = {one.number: one for one in read_done(output, len(plan.parts))}
    if done:
        print(f"{output}: going on, {len(done)} of {len(plan.parts)} shards are there", file=sys.stderr)
    run = _Run(job, plan, ledger.max_bad_share, done)
    try:
        run.make([Piece(number, part) for number, part in enumerate(plan.parts) if number not in done], workers)
        run.make(run.pieces_to_repeat(), workers)
    except BaseException:  # also an interrupt: unfinished files of the workers must be removed
        if not read_done(output, len(plan.parts)):
            forget(output)  # there is nothing to resume
        raise
    where = where_of(job.source.rpartition(":")[2], job.settings)
    for number in range(len(plan.parts)):
        if number in run.given_up:
            ledger.bad(where, f"shard {shard_name(number)}", run.given_up[number], job.pairs_per_shard)
        elif number in run.done:
            for bad in run.done[number].bad:
                ledger.bad(bad.where, bad.key, bad.reason, bad.count)
            ledger.good(run.done[number].num_pairs)
    if not ledger.num_good:
        forget(output)
    ledger.close()
    clear_unfinished(output, keep={shard_name(number) for number, one in run.done.items() if one.num_pairs})  # files of workers that died
    finish(job.output, plan.config)
    forget(output)
    return _Made(run.num_made, run.peak_rss_bytes)


class _Run:
    """The parts of a job as they finish: which are done, which failed, and whether the set can still be good enough."""

    def __init__(self, job: ShardJob, plan: Plan, max_bad_share: float, done: Mapping[int, PieceDone]) -> None:
        self._job, self._plan, self._max_bad_share = job, plan, max_bad_share
        self._output = folder_of(job.output)
        self.done: dict[int, PieceDone] = {}
        self.given_up: dict[int, str] = {}
        self.num_made = 0
        self.peak_rss_bytes = 0
        self._num_pairs = self._num_bad = 0
        self._largest = job.pairs_per_shard
        for one in done.values():
            self._add(one)
        self._start, self._pairs_before = time.monotonic(), self._num_pairs

    def make(self, pieces: Sequence[Piece], workers: Workers) -> None:
        """Make these parts; stops early if too many samples are bad already, even if all others are good."""
        if not pieces:
            return
        label = f"shards of {self._output.name}"
        with closing(workers.run(partial(make_piece, self._job), pieces)) as results:
            for position, result in track(results, label, unit="shard", total=len(pieces), note=self._note):
                number = pieces[position].number
                if isinstance(result, Failed):
                    self.given_up[number] = result.reason
                    self._num_bad += self._job.pairs_per_shard
                else:
                    self._add(result)
                    self.num_made += 1
                    self.peak_rss_bytes = max(self.peak_rss_bytes, result.peak_rss_bytes)
                if self.is_hopeless:
                    break

    def pieces_to_repeat(self) -> list[Piece]:
        """Parts with names that an earlier part also has, to be made again without them; none until all parts are done.

        Computed when all are done, so it does not depend on the order in which they finished.
        """
        if self.is_hopeless:
            return []
        repeated = repeated_names(self._output, [number for number, one in self.done.items() if one.num_pairs])
        for number in repeated:
            begin_again(self._output, number)
            one = self.done.pop(number)
            self._num_pairs -= one.num_pairs
            self._num_bad -= sum(bad.count for bad in one.bad)
        return [Piece(number, self._plan.parts[number], names) for number, names in repeated.items()]

    @property
    def is_hopeless(self) -> bool:
        """Whether too much is bad even if everything still to come is good, each part being as large as the largest so far."""
        num_left = len(self._plan.parts) - len(self.done) - len(self.given_up)
        return self._num_bad > self._max_bad_share * (self._num_bad + self._num_pairs + num_left * self._largest)

    def _add(self, one: PieceDone) -> None:
        self.done[one.number] = one
        self._num_pairs += one.num_pairs
        self._num_bad += sum(bad.count for bad in one.bad)
        self._largest = max(self._largest, one.num_pairs)

    def _note(self) -> str:
        rate = (self._num_pairs - self._pairs_before) / max(time.monotonic() - self._start, 1e-9)
        return ", ".join(filter(None, [f"{self._num_pairs} pairs, {rate:.0f}/s", _left_out(self._num_bad)]))


def _left_out(num: int) -> str:
    return f"{num} left out" if num else ""


def make_shards_verb(args: Sequence[str]) -> None:
    """`data-prep make-shards <source> ...`: the settings of the source, of `make_shards` and of the workers on one command line."""
    prog = "data-prep make-shards"
    if not args or args[0] in ("-h", "--help"):
        width = max(map(len, source_names()))
        lines = [f"  {name:<{width}}  {text}" for name, text in source_names().items()]
        lines += ["", f"  {prog} folder photos --output shards/photos", f"  {prog} captions captions.tsv --output shards/captions"]
        own = "Name a source of your own by its path: package.module:function"
        print(
            "\n".join([f"usage: {prog} <source> ... --output OUTPUT", "", *lines, "", own, f"Options of a source: {prog} <source> --help"])
        )
        if not args:
            raise InputError(f"{prog}: a source is missing: give one of those above")
        return
    source = find_source(args[0])
    try:
        settings, options, engine = parse(f"{prog} {args[0]}", args[1:], Filled(source, FILLED), Filled(make_shards, OPENED), workers_of)
    except SystemExit:  # help was requested, and printed
        print(f"\n{inspect.getdoc(sys.modules[source.__module__])}")
        return
    make_shards(source, settings, workers=workers_of(**engine), **options)


def _inputs(source: Source, settings: Mapping[str, Any]) -> Any:
    """Fingerprints of the inputs: from the function `inputs` beside the source, or else of every path among the settings."""
    say = getattr(sys.modules[source.__module__], "inputs", None)
    if say is not None:
        return say(**settings)
    return {name: input_fingerprint(value) for name, value in settings.items() if isinstance(value, Path)}
