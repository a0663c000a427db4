"""Cached gradients (model.micro_batch_size): how far a batch of 1,024 in micro-batches of 64 is from the whole batch, and its peak memory.

.venv/bin/python scripts/check_micro_batches.py                 # minutes on two idle cores
.venv/bin/python scripts/check_micro_batches.py --pairs 128 --size 16 --batches 64 128

First table: Clip and SigLip that mask duplicates, in one process and in two under DistributedDataParallel, in float64 and float32. The
towers are a small ConvNeXt and a head with a hidden layer. `loss` and `gradient` are relative differences from one process that keeps all
activations: of the loss, and of the gradient of all weights (norm of the difference over norm). Without dropout that process encodes the
whole batch at once; with dropout it encodes the same micro-batches, because dropout is drawn for each. Exits with 1 if a difference is
above 1e-10 (float64) or 1e-5 (float32).

Second table: the peak of resident memory of a process that computes the gradient of a larger ConvNeXt, in float32, and how much of it is
above that of the same process before its batch.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn

from multimodal.machine.heap import freed_memory_kept, one_arena
from multimodal.objectives import Clip, Objective, SigLip
from multimodal.towers import Head, ImageTower, NoWeights, Trunk
from multimodal.training.micro_batches import encode

OBJECTIVES: dict[str, type[Clip] | type[SigLip]] = {"Clip": Clip, "SigLip": SigLip}
LIMITS = {"float64": 1e-10, "float32": 1e-5}
SIDE_PX, DIM_TEXT, DIM = 32, 48, 64
MEMORY_SIDE_PX = 32


@dataclass(frozen=True, slots=True)
class Case:
    objective: str
    dtype: str
    dropout: float
    pairs: int
    size: int
    """Pairs in a micro-batch."""


class Model(nn.Module):
    """Two towers and an objective; equal weights in every process."""

    def __init__(self, objective: Objective, architecture: str, dropout: float, side_px: int = SIDE_PX) -> None:
        super().__init__()
        torch.manual_seed(0)
        trunk = Trunk(architecture, NoWeights(0), frozen=False, size=side_px)
        self.image_tower = ImageTower(trunk, Head(trunk.dim, DIM, hidden=128, dropout=dropout))
        self.target_side = Head(DIM_TEXT, DIM, hidden=128, dropout=dropout)
        self.objective = objective

    def forward(self, batch: Inputs, size: int) -> Tensor:
        image, target = encode(self.image_tower, batch.image, size), encode(self.target_side, batch.target, size)
        return self.loss(image, target, batch)

    def loss(self, image: Tensor, target: Tensor, batch: Inputs) -> Tensor:
        loss: Tensor = self.objective(image, target, batch.valid, batch.identity)[0]
        return loss


@dataclass(frozen=True, slots=True)
class Inputs:
    image: Tensor
    target: Tensor
    valid: Tensor
    identity: Tensor

    def of_rank(self, rank: int, num_ranks: int) -> Inputs:
        return Inputs(*(part.chunk(num_ranks)[rank] for part in (self.image, self.target, self.valid, self.identity)))


def inputs(num: int, side_px: int = SIDE_PX, dtype: torch.dtype = torch.float32) -> Inputs:
    """Random pictures and rows; one in ten is not valid, and some have the picture or the target of another one."""
    given = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (num, 3, side_px, side_px), generator=given, dtype=torch.uint8)
    target = torch.randn(num, DIM_TEXT, generator=given).to(dtype)
    return Inputs(image, target, torch.rand(num, generator=given) < 0.9, torch.randint(0, 4 * num, (num, 2), generator=given))


def gradient(model: Model) -> Tensor:
    return torch.cat([torch.zeros_like(one).flatten() if one.grad is None else one.grad.flatten() for one in model.parameters()])


def model_of(case: Case) -> Model:
    return Model(OBJECTIVES[case.objective](mask_duplicates=True), "test_convnext", case.dropout).to(getattr(torch, case.dtype))


def reference(case: Case, num_ranks: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient in this process with all activations kept, with the random numbers that ranks in micro-batches draw."""
    model, batch = model_of(case), inputs(case.pairs, dtype=getattr(torch, case.dtype))
    if not case.dropout:
        loss = model(batch, case.pairs)
        loss.backward()
        return loss.detach(), gradient(model)
    images, texts = [], []
    for rank in range(num_ranks):
        own = batch.of_rank(rank, num_ranks)
        torch.manual_seed(100 + rank)
        images += [model.image_tower(part) for part in own.image.split(case.size)]
        texts += [model.target_side(part) for part in own.target.split(case.size)]
    loss = model.loss(torch.cat(images), torch.cat(texts), batch)
    loss.backward()
    return loss.detach(), gradient(model)


def in_micro_batches(case: Case, rank: int, num_ranks: int) -> tuple[Tensor, Tensor]:
    model, batch = model_of(case), inputs(case.pairs, dtype=getattr(torch, case.dtype)).of_rank(rank, num_ranks)
    trained = nn.parallel.DistributedDataParallel(model) if num_ranks > 1 else model
    torch.manual_seed(100 + rank)
    loss = trained(batch, case.size)
    loss.backward()
    return loss.detach(), gradient(model)


def run_rank(rank: int, num_ranks: int, folder: str, cases: list[Case]) -> None:
    torch.set_num_threads(1)
    importlib.import_module("torch.distributed.nn")  # before there is a group; see multimodal.objectives.conformance
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=num_ranks)
    torch.save([in_micro_batches(case, rank, num_ranks) for case in cases], Path(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


def on_ranks(cases: list[Case], num_ranks: int) -> list[list[tuple[Tensor, Tensor]]]:
    """What each rank finds for each case."""
    if num_ranks == 1:
        return [[in_micro_batches(case, 0, 1) for case in cases]]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(run_rank, (num_ranks, folder, cases), nprocs=num_ranks)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(num_ranks)]


def equality(num_pairs: int, size: int) -> bool:
    """Prints the first table; whether all is within the limits."""
    print(f"{num_pairs} pairs in micro-batches of {size}\n{'objective':<10}{'ranks':>6}{'':>9}{'dropout':>9}{'loss':>10}{'gradient':>10}")
    cases, fine = [Case(*kind, num_pairs, size) for kind in itertools.product(OBJECTIVES, LIMITS, (0.0, 0.2))], True
    for num_ranks in (1, 2):
        found = on_ranks(cases, num_ranks)
        for number, case in enumerate(cases):
            loss, wanted = reference(case, num_ranks)
            of_loss = max(float(abs(rank[number][0] - loss) / abs(loss)) for rank in found)
            of_gradient = max(float((rank[number][1] - wanted).norm() / wanted.norm()) for rank in found)
            fine &= max(of_loss, of_gradient) <= LIMITS[case.dtype]
            print(f"{case.objective:<10}{num_ranks:>6}{case.dtype:>9}{case.dropout:>9}{of_loss:>10.1e}{of_gradient:>10.1e}", flush=True)
    return fine


def resident(kind: str) -> float:
    """This process's VmHWM (the peak) or VmRSS, in MB."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def step(num_pairs: int, size: int) -> None:
    """One forward and backward pass; prints the peak of resident memory, and how much of it the pass added, in MB."""
    torch.set_num_threads(1)
    model = Model(Clip(mask_duplicates=True), "convnext_atto", 0.1, MEMORY_SIDE_PX)
    warm = inputs(2, MEMORY_SIDE_PX)
    model(warm, 2).backward()
    before, batch = resident("VmRSS"), inputs(num_pairs, MEMORY_SIDE_PX)
    with freed_memory_kept():
        model(batch, size).backward()
    print(resident("VmHWM"), resident("VmHWM") - before)


def memory(batches: list[int], size: int) -> None:
    """Prints the second table; only the two smaller batches are also encoded at once."""
    print(f"\nresident memory in MB, {MEMORY_SIDE_PX}-pixel pictures\n{'batch':>6}{'encoded':>14}{'peak':>8}{'added':>8}")
    for num, of in [(num, size) for num in batches] + [(num, num) for num in sorted(batches)[:2]]:
        command = [sys.executable, __file__, "--step", str(num), str(of)]
        told = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, target=True).stdout
        peak, added = map(float, told.split())
        print(f"{num:>6}{'at once' if of == num else f'{of} at a time':>14}{peak:>8.0f}{added:>8.0f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="*", default=[256, 1024, 4096])
    parser.add_argument("--step", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        step(*given.step)
        return 0
    fine = equality(given.pairs, given.size)
    memory(given.batches, given.size)
    return 0 if fine else 1


if __name__ == "__main__":
    one_arena()
    sys.exit(main())
