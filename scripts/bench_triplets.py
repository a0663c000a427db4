"""The exact mean over all semi-hard triplets of one batch, forward and backward: ours beside pytorch-metric-learning's miner and loss.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/bench_triplets.py                     # some minutes; 2,048 rows of 64 labels
    OMP_NUM_THREADS=1 .venv/bin/python scripts/bench_triplets.py --theirs-to 1024    # theirs takes GB of memory and most of the time

Before speeds are compared, loss and gradient are: both must be the same triplets. Each measurement is a process of its own; its
memory is the peak during the step, less what the process had before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from bench_rows import Row, report
from torch import Tensor

from multimodal.objectives import BatchHard, SemiHard, Triplet

MARGIN, DIM, NUM_LABELS = 0.2, 128, 64
MEASURED = {"ours": SemiHard(), "ours, batch-hard": BatchHard()}


def batch(num: int) -> tuple[Tensor, Tensor]:
    """Rows (n, d) of length one, near the mean of their label, as after some training; and labels (n,)."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(num) % NUM_LABELS
    centres = torch.randn(NUM_LABELS, DIM, generator=generator)
    rows = 0.74 * centres[label] + torch.randn(num, DIM, generator=generator)
    return torch.nn.functional.normalize(rows).requires_grad_(), label


def step(system: str, rows: Tensor, label: Tensor) -> tuple[Tensor, int]:
    """The loss and the number of its triplets."""
    if system != "theirs":
        loss, parts = Triplet(MARGIN, MEASURED[system])(rows, label, torch.ones(len(rows), dtype=torch.bool))
        return loss, int(parts["triplets"])
    from pytorch_metric_learning import distances, losses, miners, reducers

    plain = distances.LpDistance(normalize_embeddings=False)
    found = miners.TripletMarginMiner(MARGIN, "semihard", distance=plain)(rows, label)
    return losses.TripletMarginLoss(MARGIN, distance=plain, reducer=reducers.MeanReducer())(rows, label, found), len(found[0])


def measure(system: str, num: int) -> dict[str, float]:
    """One step in this process, after a small one to warm up. seconds: of a core, so that other work on the machine does not count."""
    small, label = batch(128)
    step(system, small, label)[0].backward()
    rows, label = batch(num)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    loss, triplets = step(system, rows, label)
    loss.backward()
    taken_s = time.process_time() - begun
    assert rows.grad is not None
    peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    norm = float(rows.grad.double().norm())
    return {"seconds": taken_s, "megabytes": peak_mb, "triplets": triplets, "loss": float(loss.detach()), "gradient": norm}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--theirs-to", type=int, default=2048, help="the largest batch for pytorch-metric-learning")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]))))
        return
    rows = []
    for num in given.sizes:
        systems = ["ours", *(["theirs"] if num <= given.theirs_to else []), "ours, batch-hard"]
        found = {system: _in_a_process(system, num) for system in systems}
        ours = found["ours"]
        if theirs := found.get("theirs"):
            # theirs takes distances by inner products, so that a few triplets in a million fall on the other side of a border
            assert all(abs(theirs[name] / ours[name] - 1) < 1e-4 for name in ("triplets", "loss", "gradient")), (theirs, ours)
        for system, of in found.items():
            ratio = None if system == "ours" else of["seconds"] / ours["seconds"]
            case = f"{num:,} rows, {of['triplets'] / 1e6:,.1f} M triplets"
            rows += [Row(case, system, 1000 * of["seconds"], "ms", ratio), Row(case, system, of["megabytes"], "MB")]
    report(rows, given.json, {"labels": NUM_LABELS, "dim": DIM, "threads": torch.get_num_threads()})


def _in_a_process(system: str, num: int) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--one", system, str(num)], capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


if __name__ == "__main__":
    main()
