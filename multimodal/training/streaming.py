"""A run on streamed tars: which of `PairData`'s settings make sense, what it trains on, and what it validates on.

The split is the exact loader's: a pair is held out, validated on or trained on by a hash of its group, so that after `shards index` the
same pairs are held out. The pairs to validate on are the first that the stream has; they are copied into the cache, once for all runs on
the same tars, with some pairs to train on, which the preflight inspects.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.boxes import fingerprint_json, is_whole
from multimodal.data import StreamLoader
from multimodal.data.loader import EACH_ONCE, FULL_SHUFFLE
from multimodal.data.stream import check_sides, short_names
from multimodal.errors import InputError
from multimodal.machine.portable import lock_file
from multimodal.shards import ShardSet, Split
from multimodal.shards.streamed import copy_first, tars_of
from multimodal.urls import Transport, is_url, user_cache

if TYPE_CHECKING:
    from multimodal.training.datamodule import PairData

NUM_TO_TRAIN = 256
"""Pairs to train on that are copied, too: more than a preflight asks for."""
MIN_SEEN = 20_000
"""Among so many pairs, or those of an epoch if they are more, the pairs to validate on are looked for."""


@dataclass(frozen=True, slots=True)
class PartOf:
    """(group, split in the source) -> "train", "validation", or the name of a part that a run leaves alone."""

    split: Split
    validation_share: float

    def __call__(self, group: str, own: str) -> str:
        part = self.split.part_of(group, own)
        return "validation" if part == "train" and self.split.within_train(self.validation_share).part_of(group) == "test" else part


@dataclass(frozen=True, slots=True)
class Trained:
    """Which pairs are trained on."""

    part_of: PartOf

    def __call__(self, group: str, own: str) -> bool:
        return self.part_of(group, own) == "train"


def not_promised(data: PairData) -> str:
    """The line that a run on a stream prints at its start: what is not exact."""
    num, pattern = len(tars_of(str(data.source))), shlex.quote(str(data.source))
    return (
        f"{data.source}: streams {num} tars. An epoch is {data.stream.num_pairs} pairs as they come: some may come twice, others not at "
        "all, and a run that resumes within an epoch draws the rest of it anew. For exact epochs and resuming: multimodal shards index "
        f"{pattern}"
    )


def not_exact(state: Mapping[str, Any]) -> str:
    """The line that a resumed run prints if its next pairs are not those that it would have had without the stop. state: the loader's."""
    if state["offset"]:
        return f"the stream resumes within epoch {state['epoch']}, after {state['offset']} pairs: the rest of the epoch is drawn anew"
    return f"the stream resumes at the start of epoch {state['epoch']}, on other ranks or workers: its pairs come in another order"


def loader(data: PairData, **place: Any) -> StreamLoader:
    """The loader of the pairs to train on. place: the arguments of `StreamLoader` that depend on the process, such as its rank."""
    wanted = Trained(PartOf(data.split, data.validation_share))
    return StreamLoader(
        tars_of(str(data.source)), data.stream, data.image, data.target, seed=data.seed, wanted=wanted, ledger=data.ledger, **place
    )


def first_pairs(data: PairData) -> ShardSet:
    """The set of the stream's first pairs, copied at the first call. InputError if a setting does not go with a stream."""
    _check(data)
    tars = tars_of(str(data.source))
    nums = {"train": NUM_TO_TRAIN, "validation": data.stream.validation_pairs if data.validation_share else 0}
    split = {"split": asdict(data.split), "validation_share": data.validation_share}
    name = f"stream-{fingerprint_json({'tars': tars, 'state': _state(tars), 'pairs': nums, **split})[:16]}"
    folder = (user_cache() / "shards" if data.cache is None else data.cache) / name
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder.with_name(f".{name}.lock")):
        if not is_whole(folder):
            most = max(data.stream.num_pairs or 0, MIN_SEEN)
            try:
                copy_first(tars, folder, PartOf(data.split, data.validation_share), nums, most)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return ShardSet(folder)


def made_from(data: PairData) -> dict[str, str]:
    """Fingerprints of the tars' names, and of the first pairs: the content of all tars is not read before training."""
    return {"tars": fingerprint_json(short_names(tars_of(str(data.source)))), "first pairs": first_pairs(data).fingerprint}


def _check(data: PairData) -> None:
    check_sides(data.image, data.target)
    if data.stream.num_pairs is None:
        raise InputError(
            f"data.shards={data.source}: tars do not say how many pairs they have. Set data.stream.num_pairs, the pairs of an epoch"
        )
    settings = {
        "train_share": data.train_share == 1,
        "leave_out": data.leave_out is None,
        "order": data.order == FULL_SHUFFLE,
        "mixture": data.mixture == EACH_ONCE,
    }
    for name, is_default in settings.items():
        if not is_default:
            raise InputError(
                f"data.{name} needs an index, and data.shards={data.source} is streamed. Leave it out, or index the tars: "
                f"multimodal shards index {shlex.quote(str(data.source))}"
            )


def _state(tars: list[str]) -> list[Any]:
    """What shows cheaply that the tars have changed: sizes and times of local ones, or the size of the first at a URL."""
    if is_url(tars[0]):
        return [Transport().info(tars[0])["size"]]
    stats = [Path(tar).stat() for tar in tars if not is_url(tar)]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]
