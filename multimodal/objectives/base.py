"""The base class of objectives, and the arithmetic that makes any number of ranks equal to one process.

    loss, parts = objective(image_rows, text_rows, batch.valid)
    loss.backward()

**Several ranks.** Let N be the number of valid rows on all W ranks and l_i the loss of row i. One process would minimise L = (1/N) sum_i
l_i. DistributedDataParallel averages gradients over ranks, so rank r returns a tensor whose gradient is that of L_r = (W/N) sum_{i on r}
l_i:
    (1/W) sum_r grad L_r  =  (1/N) sum_i grad l_i  =  grad L
for any number of valid rows on each rank. The *value* that every rank returns is L itself, so a figure logged on one rank is the figure of
the whole batch. A rank without a valid row adds no gradient, but still has a graph to run backward through. Without a valid row on any
rank the loss is 0.

This holds under DDP, and in one process. Without DDP, average the gradients over ranks yourself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, distributed, nn

Parts = dict[str, Tensor]
Distance = Literal["cosine", "euclidean"]


class Objective(nn.Module):
    """What a run minimises: image side, target side and validity of the rows in, a scalar and named parts out."""

    uses_identity: bool = False
    """Whether `forward` takes a fourth argument, `Batch.identity`, which says which rows hold the same picture or the same target."""

    takes_labels: bool = False
    """Whether the target is a label: `forward` gets target (b,) int64, the number of each picture's class, in place of vectors."""
    is_pretext: bool = False
    """Whether pictures alone teach: the target is what the image side made along with its views (`multimodal.data.ViewsTarget`), of any
    shape. Validation reports the parts, and an export is the trunk alone."""
    chances: Mapping[str, float] = {}  # noqa: RUF012 (never changed)
    """The chance level of parts, by their names, where it is known."""
    distance: Distance = "cosine"
    """How two pictures are compared by what `output` gives: for those that take labels, validation goes by it."""

    @property
    def compares_with_texts(self) -> bool:
        """Whether the target side stands for texts, so that queries can be compared with pictures."""
        return not (self.takes_labels or self.is_pretext)

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        """image (b, d), target (b, d) any float, valid (b,) bool -> (scalar to run backward from, detached scalars to log).

        An objective that `takes_labels` gets target (b,) int64 from 0 on, equal for pictures of one class; 0 in rows that are not valid.
        Only valid rows count; the others may hold anything, even NaN. The parts include at least `loss`, and `rows`, the number of rows
        that counted on all ranks.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def at_step(self, step: int) -> None:
        """Told the number of the optimiser step, from 0, before each one of training: for what changes in the course of a run."""

    def output(self, image: Tensor) -> Tensor:
        """image (b, d) -> (b, d): the image vector outside training, which stores compare with a query's. By default it is `image`."""
        return image


class RowObjective(Objective):
    """An objective that is the mean of one loss per row. To add one, write `row_loss`.

    A target row of zeros stands for a text without a known word. It says nothing about its picture, so the row counts as invalid.
    """

    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        """image (b, d), target (b, d), both float32 or float64 and finite -> (b,), the loss of each row."""
        raise NotImplementedError(f"{type(self).__name__}.row_loss")

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        image, target, valid = clean(image, target, valid)
        with torch.autocast(image.device.type, enabled=False):  # a mean of thousands of small numbers needs more than bf16's 8 bits
            losses = self.row_loss(image, target)
        if losses.shape != valid.shape:
            raise ValueError(
                f"{type(self).__name__}.row_loss: expected shape ({len(valid)},), got {tuple(losses.shape)}. Return one number per row: "
                "their mean is taken over the valid rows of all ranks"
            )
        num_valid = count(valid)
        loss = mean_over_ranks(losses, valid, num_valid)
        return loss, {"loss": loss.detach(), "rows": num_valid}


def clean(image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides in at least float32, with zeros in rows that do not count; and which do: the valid ones whose target is not all zeros.

    Rows are replaced, not multiplied: 0 * NaN would be NaN, in the gradient too. Shapes do not change, so that ranks stay in step.
    """
    if image.ndim != 2 or image.shape != target.shape:
        raise ValueError(
            f"the image side is {tuple(image.shape)} and the target side {tuple(target.shape)}; both must be (b, d) with the same d. "
            f"Set the image head's dim_out to the dimension of the target side"
        )
    if valid.shape != image.shape[:1] or valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool of shape ({len(image)},), one per row; it is {valid.dtype} of shape {tuple(valid.shape)}")
    valid = valid & (target != 0).any(dim=1)
    image, target = (side.to(torch.promote_types(side.dtype, torch.float32)) for side in (image, target))
    keep = valid[:, None]
    return torch.where(keep, image, 0.0), torch.where(keep, target, 0.0), valid


def mean_over_ranks(losses: Tensor, valid: Tensor, num_valid: Tensor) -> Tensor:
    """losses (b,), valid (b,) bool, num_valid from `count` -> the mean over the valid rows of all ranks, with the gradient that DDP needs
    from this rank (see the module's docstring).
    """
    num_valid = num_valid.clamp(min=1).to(losses.dtype)  # a count in float32 would make 1/N a float32 too
    local = torch.where(valid, losses, 0.0).sum()
    return share_of_rank(local / num_valid, sum_over_ranks(local.detach()) / num_valid)


def share_of_rank(own: Tensor, loss: Tensor) -> Tensor:
    """What this rank returns of a loss that is the sum over ranks of own, a scalar: the value of the loss, without gradient, and the
    gradient that DDP needs from this rank (see the module's docstring).
    """
    owed = own * world_size()
    return owed if world_size() == 1 else owed + (loss - owed).detach()


def count(valid: Tensor) -> Tensor:
    """valid (b,) bool -> how many are True on all ranks, a float scalar."""
    return sum_over_ranks(valid.sum().to(torch.float32))


def sum_over_ranks(value: Tensor) -> Tensor:
    """A tensor of equal shape on every rank, without gradient -> its sum over ranks, on every rank."""
    if world_size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def gather(rows: Tensor) -> Tensor:
    """rows (b, ...) of equal shape on every rank -> (B, ...), the rows of rank 0 first; the gradient flows back to the rank a row came
    from.
    """
    return _Gather.apply(rows) if world_size() > 1 else rows


def world_size() -> int:
    """Ranks that train together; 1 where torch.distributed was not set up."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """all_gather whose backward pass sums the gradients of this rank's rows over all ranks.

    By all_reduce and a slice rather than reduce_scatter, which gloo does not always have; a batch's rows are small beside a tower's
    gradients.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        gathered = [torch.empty_like(rows) for _ in range(world_size())]
        distributed.all_gather(gathered, rows)
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]
