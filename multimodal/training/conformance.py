"""The checks of `multimodal.data.conformance` for a data module, your own or a recipe's: each rank in turn, in one process.

from multimodal.data.conformance import assert_exact_epoch, assert_exact_resume
from multimodal.training.conformance import loaders_of
from multimodal.training.door import build

make = loaders_of(lambda batch_size: MyData("shards/mine", batch_size=batch_size))
make = loaders_of(lambda batch_size: build(["--config", "mine.yaml", "--run", "none", "--data.batch_size", str(batch_size)])[1])
assert_exact_epoch(make, ids, batch_size=3, world_size=2)
assert_exact_resume(make, batch_size=3, world_size=2, world_size_after=3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch

from multimodal.data.conformance import Loader, MakeLoader
from multimodal.pairs import Batch


def loaders_of(make_data: Callable[[int], L.LightningDataModule]) -> MakeLoader:
    """What the checks need, from a data module's training loaders.

    make_data: pairs of one step on all ranks together -> a new data module. It gets its rank from `self.trainer`. Its loaders yield
    `Batch` and have `set_epoch`; if they hold the run's position, they also have `state_dict` and `load_state_dict`.
    """

    def make(batch_size: int, rank: int, world_size: int) -> Loader:
        data = make_data(batch_size * world_size)
        data.trainer = _Rank(rank, world_size)  # type: ignore[assignment]
        data.prepare_data()
        data.setup("fit")
        return _TrainLoader(data)

    return make


@dataclass(frozen=True, slots=True)
class _Strategy:
    root_device: torch.device = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class _Rank:
    """What a data module reads from a trainer, for one rank; a real trainer of three ranks needs three processes."""

    global_rank: int
    world_size: int
    strategy: _Strategy = field(default=_Strategy())

    @property
    def local_rank(self) -> int:
        return self.global_rank


class _TrainLoader:
    """A data module's training loader, saved and resumed by Lightning's two hooks: the module's and the loader's."""

    def __init__(self, data: L.LightningDataModule) -> None:
        self.data = data
        self.loader: Any = data.train_dataloader()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"data": self.data.state_dict(), "loader": self.loader.state_dict() if hasattr(self.loader, "state_dict") else {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.data.load_state_dict(state["data"])
        self.loader = self.data.train_dataloader()
        if hasattr(self.loader, "load_state_dict"):
            self.loader.load_state_dict(state["loader"])
