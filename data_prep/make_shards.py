"""Turn a source of pairs into shards. What is broken costs itself, is named in `bad.csv`, and shifts nothing.

data-prep make-shards folder photos --output shards/photos
make_shards(folder, {"input": Path("photos")}, Path("shards/photos"))
"""

from __future__ import annotations

import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.pictures import BadPicture, checked
from data_prep.resize import Resize
from data_prep.sources import Source, find_source, input_fingerprint, source_names
from multimodal.arguments import parse
from multimodal.boxes import MANIFEST, is_whole, read_manifest
from multimodal.cores import usable_cores
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.progress import track
from multimodal.shards import Ledger, ShardSet, ShardWriter

DECODE_AHEAD = 64  # pictures on their way through the decoder; bounds the memory, not the speed


def make_shards(
    source: Source,
    settings: Mapping[str, Any],
    output: Path,
    pairs_per_shard: int = 1000,
    max_bad_share: float = 0.05,
    overwrite: bool = False,
    max_pairs: int | None = None,
    resize: int | None = None,
    quality: int = 95,
) -> ShardSet:
    """Write the pairs of a source as a shard set, every picture checked to decode; a set that was made so already is used as it is.

    source, settings: a function from its settings, and a `ledger`, to an iterator of pairs.
    output: the folder of the set; what was left out is listed in its bad.csv.
    pairs_per_shard: pairs in one tar, the last one may have fewer.
    max_bad_share: the job fails where more than this share of all samples is broken.
    max_pairs: take only so many pairs, the first ones, to try something out.
    overwrite: replace a set in the output folder that was made from something else.
    resize: pixels of a picture's shorter side; a larger picture becomes a JPEG of that size. By default every file keeps its bytes.
    quality: of those JPEGs, 1 to 100.
    InputError: the source is empty, nothing good is left or too much is bad, or the folder holds something else.
    """
    settings = _with_defaults(source, settings)
    config = {
        "source": f"{source.__module__}:{source.__qualname__}",
        "settings": {name: value for name, value in settings.items() if not isinstance(value, Path | None)},  # a box names no paths
        "inputs": _inputs(source, settings),
        "max_pairs": max_pairs,
    }
    smaller = None if resize is None else Resize(resize, quality)
    if smaller is not None:
        config["resize"] = asdict(smaller)
    if max_pairs is not None and max_pairs < 1:
        raise InputError(f"max_pairs is {max_pairs}; at least 1 is needed")
    if is_whole(output):
        differences = _differences(read_manifest(output, "shards").config, config | {"pairs_per_shard": pairs_per_shard})
        if not differences:
            shards = ShardSet(output)
            print(f"{output}: is there already, {len(shards)} pairs", file=sys.stderr)
            return shards
        if not overwrite:
            raise InputError(
                f"{output}: holds shards made otherwise: {differences}. Choose another --output, or replace them with --overwrite"
            )
        (output / MANIFEST).unlink()  # from here on the folder is an unfinished set, which the writer replaces
    where = str(settings.get("input", source.__name__))
    with ShardWriter(output, pairs_per_shard, config) as writer, Ledger(output / "bad.csv", max_bad_share) as ledger:
        pairs = islice(sound(source(**settings, ledger=ledger), where, ledger, smaller or checked), max_pairs)
        for pair in track(pairs, f"shards of {source.__name__}", unit="pair"):
            try:
                writer.write(pair)
            except InputError as error:
                ledger.bad(where, pair.name, str(error))
            else:
                ledger.good()
    print(
        f"{output}: {writer.num_pairs} pairs" + (f", {ledger.num_bad} left out: {ledger.path}" if ledger.num_bad else ""), file=sys.stderr
    )
    return ShardSet(output)


def sound(pairs: Iterable[Pair], where: str, ledger: Ledger, prepare: Callable[[Pair], Pair] = checked) -> Iterator[Pair]:
    """The pairs whose picture decodes and whose name is new, in their order; the others go to the ledger.

    prepare: what is done to each; BadPicture where it cannot be, because the picture does not decode.
    Decoded by as many threads as there are cores: Pillow lets go of the interpreter while it decodes.
    """
    seen: set[bytes] = set()  # 8 bytes a name: a million names in some 60 MB, and one false alarm in 10^7 runs of that size
    with ThreadPoolExecutor(len(usable_cores())) as threads:
        waiting: deque[tuple[Pair, Future[Pair]]] = deque()

        def finished() -> Iterator[Pair]:
            pair, prepared = waiting.popleft()
            try:
                ready = prepared.result()
            except BadPicture as error:
                ledger.bad(where, pair.name, str(error))
            else:
                yield ready

        for pair in pairs:
            digest = blake2b(pair.name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            if digest in seen:
                ledger.bad(where, pair.name, "a pair of this name came before")
                continue
            seen.add(digest)
            waiting.append((pair, threads.submit(prepare, pair)))
            if len(waiting) >= DECODE_AHEAD:
                yield from finished()
        while waiting:
            yield from finished()


def make_shards_verb(args: Sequence[str]) -> None:
    """`data-prep make-shards <source> ...`: the settings of the source and those of `make_shards` on one command line."""
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
        settings, options = parse(f"{prog} {args[0]}", args[1:], source, make_shards, skip={"ledger", "source", "settings"})
    except SystemExit:  # the help was asked for, and printed
        return
    make_shards(source, settings, **options)


def _with_defaults(source: Source, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of the source, so that one given as its default equals one left out."""
    try:
        bound = inspect.signature(source).bind(**settings, ledger=None)
    except TypeError as error:
        raise InputError(f"source {source.__name__}: {error}") from None
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name != "ledger"}


def _inputs(source: Source, settings: Mapping[str, Any]) -> Any:
    """What the settings lead to: as the function `inputs` beside the source says, or else the fingerprint of every path among them."""
    say = getattr(sys.modules[source.__module__], "inputs", None)
    if say is not None:
        return say(**settings)
    return {name: input_fingerprint(value) for name, value in settings.items() if isinstance(value, Path)}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """ "pairs_per_shard 1000 there, 500 wanted" for each setting that differs; "" where none does."""
    old, new = _flat(old), _flat(new)
    return "; ".join(
        f"{name} {_short(old.get(name))} there, {_short(new.get(name))} wanted"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _short(value: Any) -> str:
    return f"{value[:8]}.." if isinstance(value, str) and len(value) == 64 else repr(value)
