"""Turn a source of pairs into shards. What is broken costs itself, is named in `bad.csv`, and shifts nothing.

    data-prep make-shards folder photos --output shards/photos
    make_shards(folder, {"input": Path("photos")}, Path("shards/photos"))
    data-prep make-shards folder photos --output s3://bucket/photos

A source that has a `plan` is read in parts, by several processes or a Ray cluster, a shard each; a job that was stopped, however hard,
goes on with the shards that are not done, and the set is the same to the byte. Other sources are read from their start, in this process.
A set at a URL is the same again: each process uploads its shards, and the index is made from their sidecars, in this process's memory.
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

from data_prep.engine import Engine, Failed, LocalEngine, engine_of, peak_rss_bytes
from data_prep.pictures import checked
from data_prep.plan import (
    Part,
    PartDone,
    Plan,
    ShardJob,
    begin_again,
    forget,
    make_part,
    plan_of,
    read_done,
    read_plan,
    repeated_names,
    source_path,
    where_of,
    write_plan,
)
from data_prep.resize import QUALITY, Resize
from data_prep.scene_text import describe_reader, with_scene_text
from data_prep.sound import sound
from data_prep.sources import Source, find_source, input_fingerprint, source_names, with_defaults
from multimodal.arguments import parse
from multimodal.boxes import MANIFEST, decode_manifest, flat
from multimodal.errors import InputError
from multimodal.progress import track
from multimodal.shards import Ledger, ShardSet, ShardWriter, finish, open_set
from multimodal.shards.folder import Folder, folder_of
from multimodal.shards.format import shard_name

BAD = "bad.csv"


@dataclass(frozen=True, slots=True)
class _Made:
    """What one run did. peak_rss_bytes: of the process, of all that made shards, that had the most memory at a time."""

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
    workers: Engine = LocalEngine(),  # noqa: B008  # frozen
) -> ShardSet:
    """Write the pairs of a source as a shard set, every picture checked to decode; a set that was made so already is used as it is.

    source, settings: a function from its settings, and a `ledger`, to an iterator of pairs.
    output: the folder of the set, or a URL of any file system that fsspec knows (s3://bucket/set; extra `remote`, and s3fs, gcsfs or the
        like); what was left out is listed in its bad.csv.
    pairs_per_shard: pairs that are read for one tar; it holds those that are sound. The last tar may have fewer.
    max_bad_share: the job fails where more than this share of all samples is broken.
    overwrite: replace what was made from something else, finished or not, in the output folder.
    max_pairs: take only so many pairs, the first ones, to try something out.
    resize: pixels of a picture's shorter side; a larger picture becomes a JPEG of that size. By default every file keeps its bytes.
    quality: of those JPEGs, 1 to 100; by default 95.
    ocr: add what can be read in each picture to its main text: rapidocr (extra `ocr`), or a reader of your own, package.module:function.
    json: print what was made on stdout, as one JSON object.
    workers: where the parts of a source are read that has a `plan`.
    A command that was stopped goes on where it was when it is given again.
    Returns the set. One at a URL is read through a cache in the user's cache folder, where its index is fetched to.
    InputError: the source is empty, nothing good is left or too much is bad, or the folder holds something else.
    """
    start = time.monotonic()
    folder = folder_of(output)
    for name, value in (("pairs_per_shard", pairs_per_shard), ("max_pairs", max_pairs)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; at least 1 is needed")
    settings = with_defaults(source, settings)
    config = {
        "source": source_path(source),
        "settings": {name: value for name, value in settings.items() if not isinstance(value, Path | None)},  # a box names no paths
        "inputs": _inputs(source, settings),
        "max_pairs": max_pairs,
        "pairs_per_shard": pairs_per_shard,
    }
    if resize is None and quality is not None:
        raise InputError("--quality is of the JPEGs that --resize makes; add that, or leave the quality out")
    smaller = None if resize is None else Resize(resize, QUALITY if quality is None else quality)
    if smaller is not None:
        config["resize"] = asdict(smaller)
    if ocr is not None:
        config["ocr"] = describe_reader(ocr)
    if _is_made(folder, config, overwrite):
        shards = open_set(output)
        print(f"{output}: is there already, {len(shards)} pairs", file=sys.stderr)
        made = _Made(0, peak_rss_bytes())
        num_bad = len(Ledger(folder.at(BAD)).written())
    else:
        plan = _settled_plan(source, settings, folder, config, overwrite)
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
    """All that is counted is of the whole set, but for shards_made, seconds and peak_rss_bytes, which are of this run.

    num_bad: entries of its bad.csv, a caption whose picture is used with its others among them.
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


def _is_made(output: Folder, config: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the finished set is there. One made otherwise becomes unfinished where it may be overwritten; InputError where it may not."""
    if output.size_bytes(MANIFEST) is None:
        return False
    manifest = decode_manifest(output.read([MANIFEST])[0], str(output), "shards")
    differences = _differences(manifest.config, config)
    if not differences:
        forget(output)  # of a job that was killed between its last two steps
        return True
    if not overwrite:
        raise InputError(f"{output}: holds shards made otherwise: {differences}. Choose another --output, or replace them with --overwrite")
    output.remove(MANIFEST)
    forget(output)
    return False


def _settled_plan(source: Source, settings: Mapping[str, Any], output: Folder, config: Mapping[str, Any], overwrite: bool) -> Plan | None:
    """The plan to go by: the one that is there, or a new one; None for a source that has none.

    InputError where the folder holds the plan of something else, and it may not be overwritten.
    """
    old = read_plan(output)
    if old is not None:
        differences = _differences(old.config, config)
        if not differences:
            return old
        if not overwrite:
            raise InputError(
                f"{output}: holds the unfinished shards of another job: {differences}. Finish that with its own command, "
                "choose another --output, or replace them with --overwrite"
            )
        forget(output)
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
    """One pair after the other, in this process; a shard is cut wherever it is full."""
    where = where_of(source.__name__, settings)
    with ShardWriter(output, config["pairs_per_shard"], config) as writer, ledger:
        read = with_scene_text(source(**settings, ledger=ledger), ocr)
        pairs = islice(sound(read, where, ledger, smaller or checked), config["max_pairs"])
        for pair in track(pairs, f"shards of {source.__name__}", unit="pair", note=lambda: _left_out(ledger.num_bad)):
            writer.write(pair)
            ledger.good()
    return _Made(-(-writer.num_pairs // writer.pairs_per_shard), peak_rss_bytes())


def _make_by_plan(job: ShardJob, plan: Plan, ledger: Ledger, workers: Engine) -> _Made:
    """Make the parts that are not done yet, wherever the engine runs them, and finish the set once all are."""
    output = folder_of(job.output)
    done = {one.number: one for one in read_done(output, len(plan.parts))}
    if done:
        print(f"{output}: going on, {len(done)} of {len(plan.parts)} shards are there", file=sys.stderr)
    run = _Run(job, plan, ledger.max_bad_share, done)
    try:
        run.make([Part(number, part) for number, part in enumerate(plan.parts) if number not in done], workers)
        run.make(run.parts_to_repeat(), workers)
    except BaseException:  # an interrupt is one: what the workers were writing has to go
        if not read_done(output, len(plan.parts)):
            forget(output)  # there is nothing to go on with
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
    finish(job.output, plan.config)
    forget(output)
    return _Made(run.num_made, run.peak_rss_bytes)


class _Run:
    """The parts of a job as they come in: which are done, which were given up, and whether the set can still be good enough."""

    def __init__(self, job: ShardJob, plan: Plan, max_bad_share: float, done: Mapping[int, PartDone]) -> None:
        self._job, self._plan, self._max_bad_share = job, plan, max_bad_share
        self._output = folder_of(job.output)
        self.done: dict[int, PartDone] = {}
        self.given_up: dict[int, str] = {}
        self.num_made = 0
        self.peak_rss_bytes = 0
        self._num_pairs = self._num_bad = 0
        self._largest = job.pairs_per_shard
        for one in done.values():
            self._add(one)
        self._start, self._pairs_before = time.monotonic(), self._num_pairs

    def make(self, parts: Sequence[Part], workers: Engine) -> None:
        """Make these parts; stops early where the bad ones are too many already, however good the others may be."""
        if not parts:
            return
        label = f"shards of {self._output.name}"
        with closing(workers.run(partial(make_part, self._job), parts)) as results:
            for position, result in track(results, label, unit="shard", total=len(parts), note=self._note):
                number = parts[position].number
                if isinstance(result, Failed):
                    self.given_up[number] = result.reason
                    self._num_bad += self._job.pairs_per_shard
                else:
                    self._add(result)
                    self.num_made += 1
                    self.peak_rss_bytes = max(self.peak_rss_bytes, result.peak_rss_bytes)
                if self.is_hopeless:
                    break

    def parts_to_repeat(self) -> list[Part]:
        """Those with names that an earlier part has, which are to be made without them; none while the set is not whole.

        Looked for once all are there, and the same whatever the order in which they ended.
        """
        if self.is_hopeless:
            return []
        repeated = repeated_names(self._output, [number for number, one in self.done.items() if one.num_pairs])
        for number in repeated:
            begin_again(self._output, number)
            one = self.done.pop(number)
            self._num_pairs -= one.num_pairs
            self._num_bad -= sum(bad.count for bad in one.bad)
        return [Part(number, self._plan.parts[number], names) for number, names in repeated.items()]

    @property
    def is_hopeless(self) -> bool:
        """Whether too much is bad even if all that is still to come were good, taken for as much as the largest part so far."""
        num_left = len(self._plan.parts) - len(self.done) - len(self.given_up)
        return self._num_bad > self._max_bad_share * (self._num_bad + self._num_pairs + num_left * self._largest)

    def _add(self, one: PartDone) -> None:
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
    """`data-prep make-shards <source> ...`: the settings of the source, of `make_shards` and of the engine on one command line."""
    prog = "data-prep make-shards"
    if not args or args[0] in ("-h", "--help"):
        width = max(map(len, source_names()))
        lines = [f"  {name:<{width}}  {text}" for name, text in source_names().items()]
        own = "A source of your own is named by its path: package.module:function"
        print(
            "\n".join([f"usage: {prog} <source> ... --output OUTPUT", "", *lines, "", own, f"What a source takes: {prog} <source> --help"])
        )
        if not args:
            raise InputError(f"{prog}: name a source, one of the above")
        return
    source = find_source(args[0])
    try:
        filled = {"ledger", "part", "source", "settings", "workers"}
        settings, options, engine = parse(f"{prog} {args[0]}", args[1:], source, make_shards, engine_of, skip=filled)
    except SystemExit:  # the help was asked for, and printed
        print(f"\n{inspect.getdoc(sys.modules[source.__module__])}")
        return
    make_shards(source, settings, workers=engine_of(**engine), **options)


def _inputs(source: Source, settings: Mapping[str, Any]) -> Any:
    """What the settings lead to: as the function `inputs` beside the source says, or else the fingerprint of every path among them."""
    say = getattr(sys.modules[source.__module__], "inputs", None)
    if say is not None:
        return say(**settings)
    return {name: input_fingerprint(value) for name, value in settings.items() if isinstance(value, Path)}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """ "pairs_per_shard 1000 there, 500 wanted" for each setting that differs; "" where none does."""
    old, new = flat(old), flat(new)
    return "; ".join(
        f"{name} {_short(old.get(name))} there, {_short(new.get(name))} wanted"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    )


def _short(value: Any) -> str:
    return f"{value[:8]}.." if isinstance(value, str) and len(value) == 64 else repr(value)
