"""Shards that img2dataset wrote: tars of <key>.jpg, <key>.txt and <key>.json, read one after the other.

    data-prep make-shards img2dataset laion/ --output shards/laion     # a copy, without pictures that do not decode
    multimodal shards index laion/                                     # no copy: writes an index beside the tars, which stay as they are

Our own shards have the same members, and can be read again in this way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.pictures.formats import offer
from data_prep.sources import input_fingerprint
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger
from multimodal.shards.scan import OpenTar, Sample

_METADATA = ("key", "url")


def img2dataset(input: Path, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The samples of a folder of tars, in the order of the tars' names and of their members; samples of one address share a group.

    input: the folder of .tar files, or one of them.
    The text is `texts` of the .json, else the .txt, else `caption`, `text` or `title` of the .json; a `split` there is the source's own.
    Samples are found as in `multimodal shards index`. Damaged ones go to the ledger, and cost only themselves.
    Each tar becomes one shard, regardless of its number of samples. Give the largest number as --pairs-per-shard (img2dataset writes
    10000): samples beyond that get longer keys.
    """
    for tar in _found(input) if part is None else [input / part["tar"] if input.is_dir() else input]:
        yield from _pairs(tar, ledger)


def plan(pairs_per_shard: int, input: Path) -> list[dict[str, Any]]:
    """The tars, by name: a tar has no index, so it can only be read from its start."""
    return [{"tar": tar.name} for tar in _found(input)]


def inputs(input: Path) -> dict[str, str]:
    """Fingerprint of the tars."""
    return {"input": input_fingerprint(input, _tars(input))}


def _found(input: Path) -> list[Path]:
    tars = _tars(input)
    if not input.exists():
        raise InputError(f"{input}: does not exist; give a folder of .tar files")
    if not tars:
        raise InputError(f"{input}: has no .tar file; give the folder of img2dataset's tars")
    return tars


def _tars(input: Path) -> list[Path]:
    return sorted(input.glob("*.tar")) if input.is_dir() else [input]


def _pairs(path: Path, ledger: Ledger) -> Iterator[Pair]:
    with OpenTar(path) as tar:
        for sample in tar.samples():
            yield from _pair(tar, sample, ledger)
        for bad in tar.bad:
            ledger.bad(bad.where, bad.key, bad.reason)
        if tar.passed_over:
            num = len(tar.passed_over)
            print(f"{path}: {num} members of the system (__MACOSX, @eaDir, ._*) are skipped", file=sys.stderr)


def _pair(tar: OpenTar, sample: Sample, ledger: Ledger) -> Iterator[Pair]:
    try:
        picture, _ = tar.picture(sample)
        record = tar.record(sample, picture.name)
    except ValueError as error:
        ledger.bad(tar.name, sample.key, str(error))
        return
    about = record["metadata"]
    metadata = {"key": sample.key} | {name: about[name] for name in _METADATA if isinstance(about.get(name), str | int)}
    yield from offer(ledger, tar.name, picture.name, tar.read(picture), record["texts"], record["group"], record["split"], metadata)
