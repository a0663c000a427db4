"""What is trained on top of a trunk's or an encoder's features.

Head(dim_in=1280, dim_out=40, standardise=True)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """Subtract the mean and divide by the standard deviation of each input dimension, over all rows seen in training so far.

    Unlike batch normalisation it works the same in training and evaluation, is one affine map that folds into the next layer, and a row's
    output depends on the rest of the batch only through these running statistics. With several ranks the statistics are those of all
    ranks together, so the map is the same on any number of ranks. Meant for features that do not change (a frozen trunk's).
    Rows that are all zero or not finite are ignored: loaders put such rows where a sample could not be read.
    """

    mean: Tensor
    variance: Tensor
    num_rows: Tensor

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("num_rows", torch.zeros((), dtype=torch.int64))

    def forward(self, rows: Tensor) -> Tensor:
        """rows (b, d) float. Returns (b, d)."""
        if self.training:
            self._update(rows.detach().to(self.mean.dtype))
        return (rows - self.mean) * torch.rsqrt(self.variance + self.eps)

    @torch.no_grad()
    def _update(self, rows: Tensor) -> None:
        rows = rows[rows.isfinite().all(dim=1) & rows.any(dim=1)]
        # Sums about the mean so far, so that one all-reduce is enough and float32 does not cancel.
        shifted = rows - self.mean
        sums = torch.cat([shifted.sum(0), shifted.square().sum(0), shifted.new_tensor([float(len(rows))])])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        added = sums[-1]
        if added == 0:
            return
        seen = self.num_rows.to(added.dtype)
        dim = len(self.mean)
        shift = sums[:dim] / (seen + added)
        about_old_mean = (seen * self.variance + sums[dim:-1]) / (seen + added)
        self.mean.add_(shift)
        self.variance.copy_((about_old_mean - shift.square()).clamp_min(0))
        self.num_rows.add_(added.to(torch.int64))


class Head(nn.Module):
    """A linear head, or one with one hidden layer of GELU units: (b, dim_in) -> (b, dim_out).

    hidden: units of the hidden layer; None is a linear head.
    dropout: share of the input (and hidden) values dropped in training.
    activation: applied to the output; None leaves logits, which is what the objectives take.
    standardise: see `Standardise`; helps with features of frozen trunks whose dimensions have very different scales.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        hidden: int | None = None,
        dropout: float = 0.0,
        activation: nn.Module | None = None,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.dim_in = dim_in
        self.dim_out = dim_out
        self.standardise = Standardise(dim_in) if standardise else None
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(dim_in, hidden) if hidden else None
        self.output = nn.Linear(hidden or dim_in, dim_out)
        self.activation = activation

    def forward(self, rows: Tensor) -> Tensor:
        """rows (b, dim_in) float. Returns (b, dim_out)."""
        if self.standardise is not None:
            rows = self.standardise(rows)
        rows = self.dropout(rows)
        if self.hidden is not None:
            rows = self.dropout(nn.functional.gelu(self.hidden(rows)))
        rows = self.output(rows)
        return rows if self.activation is None else self.activation(rows)

    def as_layers(self) -> list[tuple[Tensor, Tensor]]:
        """The same map as one or two pairs of weight (out, in) and bias (out,), GELU between them, the standardisation folded in.

        Raises ValueError where the head ends in an activation.
        """
        if self.activation is not None:
            raise ValueError(f"this head has the activation {type(self.activation).__name__}, so it is not an affine map")
        layers = [layer for layer in (self.hidden, self.output) if layer is not None]
        found = [(layer.weight.detach().double(), layer.bias.detach().double()) for layer in layers]
        if self.standardise is not None:
            scale = torch.rsqrt(self.standardise.variance.double() + self.standardise.eps)
            weight, bias = found[0]
            found[0] = weight * scale, bias - weight @ (self.standardise.mean.double() * scale)
        return [(weight.float(), bias.float()) for weight, bias in found]
