"""What every objective is, and the arithmetic that makes any number of ranks equal to one process.

    loss, parts = objective(image_rows, text_rows, batch.valid)
    loss.backward()

**Several ranks.** Let N be the number of valid rows on all W ranks and l_i the loss of row i. One process would minimise L = (1/N) sum_i
l_i. DistributedDataParallel averages gradients over ranks, so rank r returns a tensor whose gradient is that of L_r = (W/N) sum_{i on r}
l_i:
    (1/W) sum_r grad L_r  =  (1/N) sum_i grad l_i  =  grad L
whatever the number of valid rows on each rank. The *value* that every rank returns is L itself, so that a figure logged on one rank is the
figure of the whole batch. A rank without a valid row adds no gradient, but still has a graph to run backward through; with no valid row on
any rank the loss is 0.

This holds under DDP, and in one process. Without DDP's averaging the gradients of several ranks would have to be averaged by hand.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

Parts = dict[str, Tensor]


class Objective(nn.Module):
    """What a run minimises: image side, text side and validity of the rows in, a scalar and named parts out."""

    def forward(self, image: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        """image (b, d), text (b, d) any float, valid (b,) bool -> (scalar to run backward from, detached scalars to log).

        Only rows that are valid count, whatever the others hold (NaN too); parts hold at least `loss`, and `rows`, the number of rows that
        counted on all ranks.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def output(self, image: Tensor) -> Tensor:
        """image (b, d) -> (b, d): what the image side means outside training, where stores compare it with a text's row. The vector itself,
        unless overridden.
        """
        return image


class RowObjective(Objective):
    """An objective that is the mean of one number a row. To add one, write `row_loss`.

    A text side of zeros alone is a text without a known word: it says nothing about its picture, and the row counts as invalid.
    """

    def row_loss(self, image: Tensor, text: Tensor) -> Tensor:
        """image (b, d), text (b, d), both float32 or float64 and finite -> (b,), what each row costs."""
        raise NotImplementedError(f"{type(self).__name__}.row_loss")

    def forward(self, image: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        image, text, valid = clean(image, text, valid)
        with torch.autocast(image.device.type, enabled=False):  # a mean of thousands of small numbers wants more than bf16's 8 bits
            losses = self.row_loss(image, text)
        num_valid = count(valid)
        loss = mean_over_ranks(losses, valid, num_valid)
        return loss, {"loss": loss.detach(), "rows": num_valid}


def clean(image: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides in at least float32 with zeros in rows that do not count, and which do: those valid and with a text that is not all zeros.

    Rows are replaced, not multiplied: 0 * NaN would be NaN, in the gradient too. Shapes stay, so that ranks stay in step.
    """
    if image.ndim != 2 or image.shape != text.shape:
        raise ValueError(
            f"the image side is {tuple(image.shape)} and the text side {tuple(text.shape)}; both must be (b, d) with one d. "
            f"Give the head of the image side as many outputs as the text side has numbers"
        )
    if valid.shape != image.shape[:1] or valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool of shape ({len(image)},), one a row; it is {valid.dtype} of shape {tuple(valid.shape)}")
    valid = valid & (text != 0).any(dim=1)
    image, text = (side.to(torch.promote_types(side.dtype, torch.float32)) for side in (image, text))
    keep = valid[:, None]
    return torch.where(keep, image, 0.0), torch.where(keep, text, 0.0), valid


def mean_over_ranks(losses: Tensor, valid: Tensor, num_valid: Tensor) -> Tensor:
    """losses (b,), valid (b,) bool, num_valid from `count` -> the mean over valid rows of all ranks, with the gradient that this rank owes
    DDP (see the module's text).
    """
    num_valid = num_valid.clamp(min=1).to(losses.dtype)  # a count in float32 would make 1/N a float32 too
    local = torch.where(valid, losses, 0.0).sum()
    owed = local * world_size() / num_valid
    if world_size() == 1:
        return owed
    return owed + (sum_over_ranks(local.detach()) / num_valid - owed).detach()


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
    """This process's place among them, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """all_gather whose backward sums what every rank owes to this rank's rows.

    all_reduce and a slice rather than reduce_scatter, which gloo does not have everywhere; the rows of a batch are small beside a tower's
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
