"""The pairs of a run: which are trained on, which tell how well it goes, and the two sides of a batch.

    data = PairData(Path("shards/emoji"), image=ColumnRows("trunk"), text=ColumnRows("lda40"), split=Split(held_out=0.2))

The pairs that are held out of everything (`split`'s test part) are not touched: how well a run goes is asked of a part of the training
pairs, cut off by group, so that a recipe can be chosen without looking at what it will be judged by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from multimodal.boxes import fingerprint_bytes, fingerprint_file
from multimodal.data import Mixture, PairLoader, Shuffle, Side
from multimodal.data.loader import EACH_ONCE, FULL_SHUFFLE, open_order
from multimodal.data.sides import column_names
from multimodal.errors import InputError
from multimodal.pairs import Batch
from multimodal.shards import JoinedShards, Ledger, Sets, ShardSet, Split, open_sets, read_leave_out

BAD = "bad.csv"


class PairData(L.LightningDataModule):
    """Loaders of training and validation pairs for each rank, from any position.

    shards: the shard set, a folder or a URL; or several, each under a name. image, text: the two sides of a batch
    (`multimodal.data`).
    split: which pairs are held out of everything.
    validation_share: of the groups that are trained on, how many to validate on instead; 0 trains on them all and validates on nothing.
    train_share: of the groups that are left, how many to train on; a larger share holds those of a smaller one.
    batch_size: pairs of one step on all ranks together. num_workers: processes a rank that prepare batches; columns need none.
    max_bad_share: the run stops once a larger share of its training pairs could not be read. seed: of order, crops and captions.
    order: which order an epoch has: any pair after any other, or blocks of shards for a set larger than memory.
    mixture: of several sets, how much of each an epoch has, and how long it is; by default each pair of each set once.
    leave_out: a list of pairs that are neither trained on nor validated on; `data-prep dedup` writes those of near duplicates. Of several
    sets a list each, under the set's name, for those that have one.
    cache: of sets at a URL, the folder where their tars are kept, and their columns; by default one in the user's cache folder.
    cache_bytes: the most that tars take there; by default 20 GiB.
    """

    def __init__(
        self,
        shards: Sets,
        image: Side,
        text: Side,
        split: Split,
        validation_share: float = 0.1,
        train_share: float = 1.0,
        batch_size: int = 64,
        num_workers: int = 0,
        max_bad_share: float = 0.05,
        seed: int = 0,
        order: Shuffle = FULL_SHUFFLE,
        mixture: Mixture = EACH_ONCE,
        leave_out: dict[str, Path] | Path | None = None,
        cache: Path | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= validation_share < 1:
            raise InputError(f"data.validation_share={validation_share} must be a share from 0 to below 1")
        if not 0 < train_share <= 1:
            raise InputError(f"data.train_share={train_share} must be a share above 0 and at most 1")
        self.source, self.image, self.text, self.split = shards, image, text, split
        self.validation_share, self.train_share, self.batch_size, self.num_workers = validation_share, train_share, batch_size, num_workers
        self.max_bad_share, self.seed, self.order, self.mixture, self.leave_out = max_bad_share, seed, order, mixture, leave_out
        self.cache, self.cache_bytes = cache, cache_bytes
        self.ledger = Ledger(Path(BAD))  # collects only; `BadPairs` writes
        self._train_loader: PairLoader | None = None
        self._train_state: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        self.shards = self._open()
        self.train_ids, self.validation_ids = cut(self.shards, self.split, self.validation_share, self.train_share)
        if self.leave_out is not None:  # after the cut: who is trained on and who is validated on stays as it was
            listed = left_out(self.shards, self.leave_out)
            self.train_ids, self.validation_ids = (ids[~np.isin(ids, listed)] for ids in (self.train_ids, self.validation_ids))
        for part in JoinedShards.of(self.shards).parts(self.train_ids):
            if not len(part.ids):
                raise InputError(
                    f"{part.shards.place}: none of its {len(part.shards)} pairs is left to train on. Hold out less, or bring more pairs"
                )
        if self.validation_share and not len(self.validation_ids):
            raise InputError(
                f"{JoinedShards.of(self.shards)}: no pair to validate on, of {len(self.train_ids)}. "
                "Raise data.validation_share, or set it to 0 to do without"
            )

    def train_dataloader(self) -> PairLoader:
        self._train_loader = self._loader(self.train_ids, shuffle=True)
        # Lightning gives a loader its state back only where it believes to be inside an epoch; this one is given it always.
        if self._train_state:
            self._train_loader.load_state_dict(self._train_state)
        return self._train_loader

    def val_dataloader(self) -> PairLoader | list[PairLoader]:
        return self._loader(self.validation_ids, shuffle=False) if len(self.validation_ids) else []

    def state_dict(self) -> dict[str, Any]:
        return self._train_loader.state_dict() if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._train_state = state_dict

    def some_pairs(self, num: int, rank: int = 0, world_size: int = 1) -> tuple[Batch, str]:
        """This rank's part of num training pairs drawn by seed (fewer where an epoch has not so many), and why the first unreadable one is,
        or "".
        """
        order = open_order(self.shards, self.train_ids, self.seed, FULL_SHUFFLE, self.mixture)
        drawn = self.train_ids[order.ids(epoch=0, start=0, stop=min(num, order.num))]
        ids = np.array(list(dict.fromkeys(drawn.tolist())))  # a mixture may have a pair twice
        rows, ledger = -(-len(ids) // world_size), Ledger(Path(BAD))  # never closed, so never written
        loader = PairLoader(
            self.shards, ids, self.image, self.text, rows, self.seed, shuffle=False, rank=rank, world_size=world_size, ledger=ledger
        )
        return next(iter(loader)), str(ledger.entries[0]) if ledger.entries else ""

    def made_from(self) -> dict[str, str]:
        """Fingerprints of what the run learns from: the shards, each column that a side reads, and the list of pairs left out; of
        several sets, each one's.
        """
        shards = self._open()
        sets = JoinedShards.of(shards)
        of = {name: f" of {name}" if isinstance(shards, JoinedShards) else "" for name in sets.sets}
        names = sorted({name for side in (self.image, self.text) for name in column_names(side)})
        columns = {f"column {name}{of[one]}": column.manifest.fingerprint for name in names for one, column in sets.columns(name).items()}
        lists = {}
        if self.leave_out is not None:
            left_out(shards, self.leave_out)  # says what is wrong with them
            paths = self.leave_out if isinstance(self.leave_out, Mapping) else dict.fromkeys(of, self.leave_out)
            lists = {f"leave_out{of[name]}": fingerprint_file(path) for name, path in paths.items()}
        return {**{f"shards{of[name]}": one.fingerprint for name, one in sets.sets.items()}, **columns, **lists}

    def _open(self) -> ShardSet | JoinedShards:
        if self.mixture != EACH_ONCE and not isinstance(self.source, Mapping):
            raise InputError(f"data.mixture is of several sets, and data.shards={self.source} is one. Name them: {{NAME: FOLDER, ...}}")
        return open_sets(self.source, self.cache, self.cache_bytes)

    def _loader(self, ids: np.ndarray, shuffle: bool) -> PairLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return PairLoader(
            self.shards,
            ids,
            self.image,
            self.text,
            rows_per_rank(self.batch_size, world_size),
            self.seed,
            shuffle=shuffle,
            num_workers=self.num_workers,
            rank=rank,
            world_size=world_size,
            pin=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            ledger=self.ledger if shuffle else None,
            order=self.order,
            mixture=self.mixture,
        )


def cut(shards: ShardSet | JoinedShards, split: Split, validation_share: float, train_share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The ids (n,) to train on and (m,) to validate on, both of the split's training part and ascending; no group is in both.

    train_share: the groups that are not validated on, in the order of a hash, and of them the first so many, at least one: a larger share
    holds a smaller one, whatever is validated on. Several sets are each cut by themselves; a group of two sets is on one side in both.
    """
    if isinstance(shards, JoinedShards):
        cuts = [[shards.starts[name] + ids for ids in cut(one, split, validation_share, train_share)] for name, one in shards.sets.items()]
        trained, validated = (np.concatenate(parts) for parts in zip(*cuts, strict=True))
        return trained, validated
    ids = split.ids(shards, "train")
    # A hash of its own (users' seeds count from 0), so that who validates has nothing to do with who is held out.
    inner = Split(seed=-1 - split.seed, held_out=validation_share)
    groups = [shards.groups[id] for id in ids.tolist()]
    validates = np.fromiter((inner.part_of(group) == "test" for group in groups), bool, len(ids))
    if train_share == 1:
        return ids[~validates], ids[validates]
    left = {group for group, other in zip(groups, validates.tolist(), strict=True) if not other}
    first = sorted(left, key=lambda group: fingerprint_bytes(f"share {split.seed} {group}".encode("utf-8", "surrogatepass")))
    kept = set(first[: math.ceil(train_share * len(first))])
    return ids[np.fromiter((group in kept for group in groups), bool, len(ids))], ids[validates]


def left_out(shards: ShardSet | JoinedShards, lists: Mapping[str, Path] | Path) -> np.ndarray:
    """(n,) int64, the ids of the pairs in a list of one set's, or in the lists of several sets by their names."""
    if isinstance(shards, ShardSet):
        if isinstance(lists, Mapping):
            raise InputError(f"data.leave_out names lists for {', '.join(lists)}, and data.shards={shards.place} is one set. Give one FILE")
        return read_leave_out(lists, shards)
    if not isinstance(lists, Mapping):
        raise InputError(
            f"data.leave_out={lists} is a list of one set's pairs, and data.shards names several. "
            f"Say of which: {{{next(iter(shards.sets))}: FILE}}"
        )
    unknown = sorted(lists.keys() - shards.sets.keys())
    if unknown:
        raise InputError(f"data.leave_out has a list for {', '.join(unknown)}, and the sets are {', '.join(shards.sets)}")
    return np.concatenate(
        [np.zeros(0, np.int64), *(shards.starts[name] + read_leave_out(path, shards.sets[name]) for name, path in lists.items())]
    )


def rows_per_rank(batch_size: int, world_size: int) -> int:
    """batch_size / world_size, where that is a whole number; InputError with the nearest sizes that are."""
    if batch_size < 1:
        raise InputError(f"data.batch_size={batch_size} must be at least 1")
    if batch_size % world_size:
        below = batch_size - batch_size % world_size
        near = f"{below} and {below + world_size} do" if below else f"{world_size} does"
        raise InputError(f"data.batch_size={batch_size} does not divide by {world_size} ranks; {near}")
    return batch_size // world_size
