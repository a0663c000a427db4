"""Sums over the Euclidean distances of many rows, in memory that does not grow with their product.

    figures = sum_over_distances(rows, others, judge)      # (b, d), (B, d) -> (f,); figures[0] has a gradient

A metric loss is a sum over pairs or triplets of a batch, and each distance has a known part in it. So a block of rows is judged at a time,
in the forward pass, and its part in the gradient is added up at once: nothing of size (b, B) is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DISTANCES_AT_ONCE = 2**19
"""Distances in memory at a time: those of 256 rows with 2,048. About 60 bytes are needed for each while triplets are mined."""


class Judged(NamedTuple):
    """What a judge says of a block of distances (m, B)."""

    figures: Tensor
    """(f,) sums over the block, of the distances' type; the first is differentiated."""
    slopes: Tensor
    """(m, B) the derivative of figures[0] by each distance."""


Judge = Callable[[Tensor, slice], Judged]
"""(distances (m, B), which of the rows they belong to) -> what they add. Called without gradients."""


def distances(rows: Tensor, others: Tensor) -> Tensor:
    """rows (m, d), others (n, d) -> (m, n) Euclidean distances, without gradient.

    By differences, not by inner products: equal rows have a distance of exactly 0, and equal pairs equal distances, on any rank.
    """
    with torch.no_grad():
        return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def sum_over_distances(rows: Tensor, others: Tensor, judge: Judge) -> Tensor:
    """Sums over the distances of rows (b, d) and others (B, d), both float32 or float64 -> (f,), of which the first has a gradient.

    The distance of two equal rows has none in one direction; its part in the gradient is 0. b must not be 0.
    """
    figures: Tensor = _SumOverDistances.apply(rows, others, judge)
    return figures


class _SumOverDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, others: Tensor, judge: Judge) -> Tensor:
        # Distances do not change with the origin. Near the rows, the differences of large vectors below lose no digits.
        centre = others.mean(dim=0)
        rows, others = rows - centre, others - centre
        size = max(1, DISTANCES_AT_ONCE // len(others))
        to_rows, to_others = torch.empty_like(rows), torch.zeros_like(others)
        figures: Tensor | None = None
        for start in range(0, len(rows), size):
            block = slice(start, min(start + size, len(rows)))
            apart = distances(rows[block], others)
            found, slopes = judge(apart, block)
            pulls = torch.where(apart > 0, slopes / apart, 0.0)  # d|a - b| / da = (a - b) / |a - b|
            to_rows[block] = pulls.sum(dim=1, keepdim=True) * rows[block] - pulls @ others
            to_others += pulls.sum(dim=0)[:, None] * others - pulls.T @ rows[block]
            figures = found if figures is None else figures + found
        assert figures is not None
        ctx.save_for_backward(to_rows, to_others)
        return figures

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        to_rows, to_others = ctx.saved_tensors
        return upstream[0] * to_rows, upstream[0] * to_others, None
