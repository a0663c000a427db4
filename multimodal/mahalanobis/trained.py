"""A linear map trained by triplets: in the vectors that it makes, an anchor is nearer to its same one than to its different one.

L = by_labels(rows, labels, start=whitening(within, 0.1))
L = by_triplets(rows, triplets, start)

Compared are directions, as a search by cosine does. Training begins at a map that is good already, such as whitening within classes, and is
short: what few triplets know, a long training overfits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.mahalanobis.pairs import Triplets
from multimodal.objectives import Triplet, Violating

MARGIN = 0.2
NUM_STEPS = 300
RATE = 1e-3
BATCH, MOST_LABELS = 256, 32
"""Rows in a step, of at most so many labels; and triplets in a step."""


def by_labels(rows: np.ndarray, labels: np.ndarray, start: np.ndarray, seed: int = 0) -> np.ndarray:
    """(k, d): the start (k, d), trained on all semi-hard and hard triplets of batches. labels: (n,), below 0 where unknown."""
    known = np.flatnonzero(labels >= 0)
    _, groups, sizes = np.unique(labels[known], return_inverse=True, return_counts=True)
    members = np.split(known[np.argsort(groups, kind="stable")], np.cumsum(sizes)[:-1])
    several = np.flatnonzero(sizes > 1)
    objective = Triplet(MARGIN, Violating(), normalise=True)
    data = torch.from_numpy(rows).float()

    def loss(weight: Tensor, rng: np.random.Generator) -> Tensor:
        chosen = rng.choice(several, min(MOST_LABELS, len(several)), replace=False)
        num = BATCH // len(chosen)
        places = np.concatenate([rng.permutation(members[one])[:num] for one in chosen.tolist()])
        numbers = torch.from_numpy(np.repeat(chosen, np.minimum(sizes[chosen], num)))
        of_all: Tensor = objective(data[places] @ weight.T, numbers, torch.ones(len(places), dtype=torch.bool))[0]
        return of_all

    return _trained(start, loss, seed)


def by_triplets(rows: np.ndarray, triplets: Triplets, start: np.ndarray, seed: int = 0) -> np.ndarray:
    """(k, d): the start (k, d), trained on given triplets, whose mean loss is max(0, p - n + margin)."""
    data = torch.from_numpy(rows).float()

    def loss(weight: Tensor, rng: np.random.Generator) -> Tensor:
        some = triplets[rng.choice(len(triplets), min(BATCH, len(triplets)), replace=False)]
        anchor, same, different = (F.normalize(data[places] @ weight.T, dim=1) for places in (some.anchor, some.same, some.different))
        apart = [(anchor - other).square().sum(dim=1).clamp(min=1e-12).sqrt() for other in (same, different)]
        return F.relu(apart[0] - apart[1] + MARGIN).mean()

    return _trained(start, loss, seed)


def _trained(start: np.ndarray, loss: Callable[[Tensor, np.random.Generator], Tensor], seed: int) -> np.ndarray:
    """A square map after the start, from the identity on: so the rate is that of a map of unit scale, whatever the rows' own is."""
    begin, rng = torch.from_numpy(start).float(), np.random.default_rng(seed)
    square = torch.eye(len(begin), requires_grad=True)
    optimiser = torch.optim.Adam([square], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, NUM_STEPS)
    for _ in range(NUM_STEPS):
        optimiser.zero_grad()
        loss(square @ begin, rng).backward()
        optimiser.step()
        schedule.step()
    return np.asarray(square.detach().double().numpy() @ start)
