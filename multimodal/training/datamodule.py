"""The pairs of a run: those to train on, those to validate on, and the two sides of a batch.

    data = PairData(Path("shards/emoji"), image=ColumnRows("trunk"), target=ColumnRows("lda40"), split=Split(held_out=0.2))

The held-out pairs (`split`'s test part) are not touched. Validation uses some of the training pairs, split off by group, so that a recipe
can be chosen without looking at the test pairs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import nn

from multimodal.boxes import fingerprint_bytes, fingerprint_file
from multimodal.data import Mixture, PairLoader, Shuffle, Side, Stream, StreamLoader
from multimodal.data.labels import Classes, KnownLabels, classes_of, labels_in, numbered
from multimodal.data.loader import EACH_ONCE, FULL_SHUFFLE, open_order
from multimodal.data.order import Order, random_words
from multimodal.data.sides import column_names, for_tower, open_side
from multimodal.errors import InputError
from multimodal.pairs import Batch
from multimodal.shards import JoinedShards, Ledger, Sets, ShardSet, Split, open_sets, read_leave_out
from multimodal.shards.streamed import is_pattern
from multimodal.towers import Trunk
from multimodal.training import streaming

BAD = "bad.csv"
NUM_OF_REMOTE = 32
SEARCHED, OF_A_CLASS = 10_000, 4
"""Among so many pairs, so many of a class are looked for to inspect a run taught by labels."""
NO_STREAM = Stream()


class PairData(L.LightningDataModule):
    """Loaders of training and validation pairs for each rank, from any position.

    shards: the shard set, a folder or a URL; or several, each under a name; or a pattern of tars, which are streamed
    (`s3://bucket/{00000..01242}.tar`, see `multimodal.shards.streamed`). image, target: the two sides of a batch (`multimodal.data`).
    split: which pairs are held out for the test.
    validation_share: the share of training groups to validate on instead; 0 trains on all of them, without validation.
    train_share: the share of the remaining groups to train on; a larger share contains a smaller one.
    batch_size: pairs per step on all ranks together. num_workers: processes per rank that prepare batches; columns need none.
    max_bad_share: the run stops once a larger share of its training pairs could not be read. seed: of order, crops and captions.
    order: the order of an epoch: fully shuffled, or in blocks of shards for a set larger than memory.
    mixture: for several sets, the share of each in an epoch, and its length; by default each pair of each set once.
    stream: for streamed tars, the length of an epoch, and how they are mixed.
    leave_out: a list of pairs that are neither trained on nor validated on; `data-prep dedup` writes one of near duplicates. For several
    sets, a list for any of them, by the set's name.
    cache: the folder for the tars and columns of sets at a URL; by default one in the user's cache folder.
    cache_bytes: the most that these tars take; by default 20 GiB.
    """

    def __init__(
        self,
        shards: Sets,
        image: Side,
        target: Side,
        split: Split,
        validation_share: float = 0.1,
        train_share: float = 1.0,
        batch_size: int = 64,
        num_workers: int = 0,
        max_bad_share: float = 0.05,
        seed: int = 0,
        order: Shuffle = FULL_SHUFFLE,
        mixture: Mixture = EACH_ONCE,
        stream: Stream = NO_STREAM,
        leave_out: dict[str, Path] | Path | None = None,
        cache: Path | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= validation_share < 1:
            raise InputError(f"data.validation_share={validation_share} must be a share from 0 to below 1")
        if not 0 < train_share <= 1:
            raise InputError(f"data.train_share={train_share} must be a share above 0 and at most 1")
        self.source, self.image, self.target, self.split = shards, image, target, split
        self.validation_share, self.train_share, self.batch_size, self.num_workers = validation_share, train_share, batch_size, num_workers
        self.max_bad_share, self.seed, self.order, self.mixture, self.leave_out = max_bad_share, seed, order, mixture, leave_out
        self.stream, self.cache, self.cache_bytes = stream, cache, cache_bytes
        self.ledger = Ledger(Path(BAD))  # collects only; `BadPairs` writes
        self.classes: Classes | None = None
        """The numbers of the classes if the target is a label, once the data are set up."""
        self.identify = False
        """Whether batches have the identity of their rows; the module sets it for an objective that uses it."""
        self._train_loader: PairLoader | StreamLoader | None = None
        self._train_state: dict[str, Any] = {}

    @property
    def is_streamed(self) -> bool:
        """Whether tars are streamed. `shards` is then a set of the stream's first pairs: those to validate on, and some to train on."""
        return is_pattern(self.source)

    def setup(self, stage: str) -> None:
        self.shards = self._open()
        if self.is_streamed and stage == "fit":
            self._say(streaming.not_promised(self))
        labels = labels_in(self.target)
        known = None if labels is None else KnownLabels.read(self.shards, _training_part(self.shards, self.split), labels.name)
        validates = None
        if labels is not None and known is not None and not labels.seen and self.validation_share:
            of_all = (value for of_set in known.of_sets.values() for value in of_set.values)
            chosen = labels.held_out(of_all, self.split.seed, self.validation_share)
            validates = partial(known.are_of, chosen)
        self.train_ids, self.validation_ids = cut(self.shards, self.split, self.validation_share, self.train_share, validates)
        if self.leave_out is not None:  # after the split: the other pairs keep their split
            listed = left_out(self.shards, self.leave_out)
            self.train_ids, self.validation_ids = (ids[~np.isin(ids, listed)] for ids in (self.train_ids, self.validation_ids))
        for part in JoinedShards.of(self.shards).parts(self.train_ids):
            if not len(part.ids):
                raise InputError(
                    f"{part.shards.place}: none of its {len(part.shards)} pairs is left to train on. Hold out less, or add pairs"
                )
        if self.validation_share and not len(self.validation_ids):
            raise InputError(
                f"{JoinedShards.of(self.shards)}: none of its {len(self.train_ids)} training pairs is left to validate on. "
                "Raise data.validation_share, or set it to 0 to train without validation"
            )
        self._numbered = self.target
        if known is not None:
            self.classes = classes_of(known.values(self.train_ids), known.values(self.validation_ids))
            self._numbered = numbered(self.target, self.classes, known)

    def train_dataloader(self) -> PairLoader | StreamLoader:
        if self.is_streamed and self.identify:
            raise InputError(
                f"data.shards={self.source}: streamed pairs have no identity, which mask_duplicates needs. Index the tars "
                "(multimodal shards index) to read them by id, or set mask_duplicates: false"
            )
        if self.is_streamed:
            self._train_loader = streaming.loader(self, **self._placed())
        else:
            self._train_loader = self._loader(self.train_ids, shuffle=True)
        # Lightning restores a loader's state only if it believes that it is inside an epoch; this one is always restored.
        if self._train_state:
            self._train_loader.load_state_dict(self._train_state)
            if isinstance(self._train_loader, StreamLoader) and not self._train_loader.is_exact:
                self._say(streaming.not_exact(self._train_state))
        return self._train_loader

    def num_read_by(self, epoch: int) -> int:
        """How many pairs a run has trained on by the end of an epoch: each of the set, or what its epochs have streamed."""
        return (self.stream.num_pairs or 0) * (epoch + 1) if self.is_streamed else len(self.train_ids)

    def val_dataloader(self) -> PairLoader | list[PairLoader]:
        return self._loader(self.validation_ids, shuffle=False) if len(self.validation_ids) else []

    def state_dict(self) -> dict[str, Any]:
        return self._train_loader.state_dict() if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._train_state = state_dict

    def some_pairs(self, num: int, rank: int = 0, world_size: int = 1) -> tuple[Batch, str]:
        """This rank's part of num training pairs drawn by seed (fewer if an epoch is shorter), and why the first unreadable one could not
        be read, or "". If the target is a label, several pairs of a class are among them.
        """
        order = open_order(self.shards, self.train_ids, self.seed, FULL_SHUFFLE, self.mixture)
        if self.classes is None:
            drawn = self.train_ids[order.ids(epoch=0, start=0, stop=min(num, order.num))]
        else:
            drawn = self._of_few_classes(self.train_ids[order.ids(epoch=0, start=0, stop=min(SEARCHED, order.num))], num)
        ids = np.array(list(dict.fromkeys(drawn.tolist())))  # a mixture may contain a pair twice
        rows, ledger = -(-len(ids) // world_size), Ledger(Path(BAD))  # never closed, so never written
        loader = PairLoader(
            self.shards,
            ids,
            self.image,
            self._numbered,
            rows,
            self.seed,
            shuffle=False,
            rank=rank,
            world_size=world_size,
            ledger=ledger,
            identify=self.identify,
        )
        return next(iter(loader)), str(ledger.entries[0]) if ledger.entries else ""

    def _of_few_classes(self, ids: np.ndarray, num: int) -> np.ndarray:
        """Up to num of the pairs, of as few classes as have four of them each; fewer each where classes are small."""
        reader = open_side(self._numbered, self.shards, self.train_ids)
        read = reader(ids, None)
        numbers = np.where(read.ok, read.values, -1 - np.arange(len(ids)))
        _, classes, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        place_in_class = np.zeros(len(ids), np.int64)
        order = np.argsort(classes, kind="stable")
        place_in_class[order] = np.arange(len(ids)) - np.repeat(np.cumsum([0, *counts[:-1]]), counts)
        whole = np.minimum(counts[classes], OF_A_CLASS)
        first_of_class = np.full(len(counts), len(ids))
        np.minimum.at(first_of_class, classes, np.arange(len(ids)))
        among = np.flatnonzero(place_in_class < OF_A_CLASS)
        # classes with the most pictures first, in the drawn order; a class's pictures stay together
        chosen = among[np.lexsort((place_in_class[among], first_of_class[classes[among]], -whole[among]))][:num]
        return ids[np.sort(chosen)]

    def some_texts(self, num: int) -> list[str]:
        """The texts of at most num training pairs, drawn by seed, as the first epoch takes them; [] if this side has none.

        Of a set at a URL only a few: each may be in a tar that has to be fetched.
        """
        num = NUM_OF_REMOTE if any(one.remote for one in JoinedShards.of(self.shards).sets.values()) else num
        ids = self.train_ids[Order(self.seed, len(self.train_ids)).ids(epoch=0, start=0, stop=min(num, len(self.train_ids)))]
        values = open_side(self._numbered, self.shards, ids)(ids, random_words(self.seed, 0, ids)).values
        return [] if isinstance(values, np.ndarray) else list(values)

    def prepare_for(self, image_tower: nn.Module) -> None:
        """`TowerPixels` become pixels as this tower's trunk expects them."""
        trunk = getattr(image_tower, "trunk", None)
        if isinstance(trunk, Trunk):
            given = {name: getattr(trunk.preprocessing, name) for name in ("size", "crop_share", "interpolation", "resize", "fill")}
            self.image, self.target = for_tower(self.image, **given), for_tower(self.target, **given)

    def made_from(self) -> dict[str, str]:
        """Fingerprints of what the run learns from: the shards, each column that a side reads, and the list of pairs left out; for each
        of several sets.
        """
        if self.is_streamed:
            return streaming.made_from(self)
        shards = self._open()
        sets = JoinedShards.of(shards)
        of = {name: f" of {name}" if isinstance(shards, JoinedShards) else "" for name in sets.sets}
        names = sorted({name for side in (self.image, self.target) for name in column_names(side)})
        columns = {f"column {name}{of[one]}": column.manifest.fingerprint for name in names for one, column in sets.columns(name).items()}
        lists = {}
        if self.leave_out is not None:
            left_out(shards, self.leave_out)  # raises if it is invalid
            paths = self.leave_out if isinstance(self.leave_out, Mapping) else dict.fromkeys(of, self.leave_out)
            lists = {f"leave_out{of[name]}": fingerprint_file(path) for name, path in paths.items()}
        return {**{f"shards{of[name]}": one.fingerprint for name, one in sets.sets.items()}, **columns, **lists}

    def _open(self) -> ShardSet | JoinedShards:
        if self.is_streamed:
            return streaming.first_pairs(self)
        if self.mixture != EACH_ONCE and not isinstance(self.source, Mapping):
            raise InputError(f"data.mixture needs several sets, but data.shards={self.source} is one. Name them: {{NAME: FOLDER, ...}}")
        opened = open_sets(self.source, self.cache, self.cache_bytes)
        if self.stream != NO_STREAM:
            raise InputError(f"data.stream needs a pattern of tars, and data.shards={self.source} is read by id. Leave data.stream out")
        return opened

    def _loader(self, ids: np.ndarray, shuffle: bool) -> PairLoader:
        return PairLoader(
            self.shards,
            ids,
            self.image,
            self._numbered,
            seed=self.seed,
            shuffle=shuffle,
            ledger=self.ledger if shuffle else None,
            order=self.order,
            mixture=self.mixture,
            identify=self.identify,
            **self._placed(),
        )

    def _say(self, line: str) -> None:
        if self.trainer is None or self.trainer.is_global_zero:
            print(line, file=sys.stderr, flush=True)

    def _placed(self) -> dict[str, Any]:
        """The arguments of a loader that depend on the process, such as its rank."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        rows = rows_per_rank(self.batch_size, world_size)
        return {"batch_size": rows, "num_workers": self.num_workers, "rank": rank, "world_size": world_size, "pin": pin}


Validates = Callable[[ShardSet, np.ndarray], np.ndarray]
"""(a set, ids (n,) of its training part) -> (n,) bool, which of them are validated on."""


def cut(
    shards: ShardSet | JoinedShards,
    split: Split,
    validation_share: float,
    train_share: float = 1.0,
    validates: Validates | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The ids (n,) to train on and (m,) to validate on, both from the split's training part and ascending.

    validates: which pairs are validated on; by default those of some groups, so that no group is in both.

    train_share: the other groups are ordered by a hash, and the first of them are taken, at least one: a larger share contains a smaller
    one, independent of validation. Each of several sets is split by itself; a group that is in two sets is on the same side in both.
    """
    if isinstance(shards, JoinedShards):
        cuts = [
            [shards.starts[name] + ids for ids in cut(one, split, validation_share, train_share, validates)]
            for name, one in shards.sets.items()
        ]
        trained, validated = (np.concatenate(parts) for parts in zip(*cuts, strict=True))
        return trained, validated
    ids = split.ids(shards, "train")
    inner = split.within_train(validation_share)
    groups = [shards.groups[id] for id in ids.tolist()]
    if validates is None:
        is_validated = np.fromiter((inner.part_of(group) == "test" for group in groups), bool, len(ids))
    else:
        is_validated = validates(shards, ids)
    if train_share == 1:
        return ids[~is_validated], ids[is_validated]
    left = {group for group, other in zip(groups, is_validated.tolist(), strict=True) if not other}
    first = sorted(left, key=lambda group: fingerprint_bytes(f"share {split.seed} {group}".encode("utf-8", "surrogatepass")))
    kept = set(first[: math.ceil(train_share * len(first))])
    is_kept = np.fromiter((group in kept for group in groups), bool, len(ids))
    return ids[is_kept & ~is_validated], ids[is_validated]


def _training_part(shards: ShardSet | JoinedShards, split: Split) -> np.ndarray:
    """(n,) int64, the ids that are not held out."""
    sets = JoinedShards.of(shards)
    return np.concatenate([sets.starts[name] + split.ids(one, "train") for name, one in sets.sets.items()])


def left_out(shards: ShardSet | JoinedShards, lists: Mapping[str, Path] | Path) -> np.ndarray:
    """(n,) int64, the ids of the pairs in one set's list, or in the lists of several sets by name."""
    if isinstance(shards, ShardSet):
        if isinstance(lists, Mapping):
            raise InputError(f"data.leave_out names lists for {', '.join(lists)}, but data.shards={shards.place} is one set. Give one FILE")
        return read_leave_out(lists, shards)
    if not isinstance(lists, Mapping):
        raise InputError(
            f"data.leave_out={lists} is a list of one set's pairs, but data.shards names several. "
            f"Name the set: {{{next(iter(shards.sets))}: FILE}}"
        )
    unknown = sorted(lists.keys() - shards.sets.keys())
    if unknown:
        raise InputError(f"data.leave_out has a list for {', '.join(unknown)}, but the sets are {', '.join(shards.sets)}")
    return np.concatenate(
        [np.zeros(0, np.int64), *(shards.starts[name] + read_leave_out(path, shards.sets[name]) for name, path in lists.items())]
    )


def rows_per_rank(batch_size: int, world_size: int) -> int:
    """batch_size / world_size, if that is a whole number; else InputError with the nearest sizes that divide."""
    if batch_size < 1:
        raise InputError(f"data.batch_size={batch_size} must be at least 1")
    if batch_size % world_size:
        below = batch_size - batch_size % world_size
        near = f"{below} and {below + world_size} do" if below else f"{world_size} does"
        raise InputError(f"data.batch_size={batch_size} does not divide by {world_size} ranks; {near}")
    return batch_size // world_size
