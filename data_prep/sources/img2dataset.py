"""Shards that img2dataset wrote: tars of <key>.jpg, <key>.txt and <key>.json, read one after the other.

    data-prep make-shards img2dataset laion/ --output shards/laion     # a copy: pictures that do not decode are left out, others resized
    multimodal shards index laion/                                     # no copy: the tars stay as they are, and an index lies beside them

Our own shards have the same members and can be read again in this way.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.pictures import PICTURE_SUFFIXES, offer
from data_prep.sources import input_fingerprint
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger

_METADATA = ("key", "url")


def img2dataset(input: Path, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """The samples of a folder of tars, in the order of the tars' names and of their members; samples of one address share a group.

    input: the folder of .tar files, or one of them.
    The text is `texts` of the .json, else the .txt, else `caption` of the .json; a `split` there is the source's own.
    What is damaged goes to the ledger: one sample, or what follows the damage in a tar.
    Of each tar a shard is made, however many samples it has. Give the most of them as --pairs-per-shard (img2dataset writes 10000): samples
    beyond that have longer keys.
    """
    for tar in _found(input) if part is None else [input / part["tar"] if input.is_dir() else input]:
        for sample in _samples(tar, ledger):
            yield from _pair(tar, sample, ledger)


def plan(pairs_per_shard: int, input: Path) -> list[dict[str, Any]]:
    """The tars, by name: where a sample begins is known only once what lies before it was read."""
    return [{"tar": tar.name} for tar in _found(input)]


def inputs(input: Path) -> dict[str, str]:
    """The tars, for telling a set that was made of them."""
    return {"input": input_fingerprint(input, _tars(input))}


def _found(input: Path) -> list[Path]:
    tars = _tars(input)
    if not input.exists():
        raise InputError(f"{input}: does not exist; a folder of .tar files is wanted")
    if not tars:
        raise InputError(f"{input}: no .tar file lies in it")
    return tars


def _tars(input: Path) -> list[Path]:
    return sorted(input.glob("*.tar")) if input.is_dir() else [input]


@dataclass(slots=True)
class _Sample:
    key: str
    members: dict[str, bytes] = field(default_factory=dict)


def _pair(tar: Path, sample: _Sample, ledger: Ledger) -> Iterator[Pair]:
    suffix = next((suffix for suffix in sample.members if f".{suffix.lower()}" in PICTURE_SUFFIXES), None)
    if suffix is None:
        ledger.bad(tar.name, sample.key, f"has no picture, only {', '.join(sample.members)}")
        return
    try:
        record = json.loads(sample.members.get("json", b"{}"))
        text = sample.members.get("txt", b"").decode("utf-8")
        if not isinstance(record, dict):
            raise ValueError("the .json holds no object")
    except ValueError as error:  # of JSON and of UTF-8 alike
        ledger.bad(tar.name, sample.key, f"its text cannot be read: {error}")
        return
    texts = record.get("texts") or [text.strip() or record.get("caption") or ""]
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        ledger.bad(tar.name, sample.key, "its texts are not a list of strings")
        return
    group = record.get("group") or record.get("url") or sample.key
    metadata = {"key": sample.key} | {name: record[name] for name in _METADATA if record.get(name) is not None}
    split = record.get("split")
    own = split if isinstance(split, str) else ""
    yield from offer(ledger, tar.name, f"{sample.key}.{suffix}", sample.members[suffix], texts, str(group), own, metadata)


def _samples(path: Path, ledger: Ledger) -> Iterator[_Sample]:
    """Runs of adjacent members of one key (the member's path up to the first dot of its name)."""
    sample: _Sample | None = None
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, slash, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                key = f"{folder}{slash}{stem}"
                if sample is not None and sample.key != key:
                    whole, sample = sample, None
                    yield whole
                if sample is None:
                    sample = _Sample(key)
                sample.members[suffix] = _content(tar, member)
            _check_end(tar)
    except (tarfile.TarError, EOFError) as error:
        ledger.bad(path.name, sample.key if sample else "", f"the tar is damaged from here on: {error}")
        return
    if sample is not None:
        yield sample


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "a regular file has content"
    content = file.read()
    if len(content) != member.size:
        raise EOFError(f"{member.name} has {len(content)} of {member.size} bytes")
    return content


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a damaged header in the middle for the end; after a real end nothing but zeros follows."""
    file: Any = tar.fileobj
    file.seek(tar.offset)
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise EOFError(f"no member's header at byte {tar.offset}, and more data after it")
