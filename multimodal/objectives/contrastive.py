"""Contrastive objectives: match a picture with its own text among all others of the batch, on all ranks.

    objective = Clip()
    loss, parts = objective(image_rows, text_rows, batch.valid)      # (b, d), (b, d), (b,); rows may have any length

Rows that are not valid are left out on both sides: they serve as no negatives. So are texts without a known word (a row of zeros). The
scales are parameters of the objective: give them to the optimiser, without weight decay.

**Duplicates.** Two pairs with the same text, or with the same picture, are each other's negatives, though each picture fits both texts.
With `mask_duplicates` they are not: for row i, the columns j != i whose picture or text equals its own are left out, as if they were not
in the batch; they do not become positives either. This is the elimination of false negatives (Huynh et al., 2022, "Boosting Contrastive
Self-Supervised Learning with False Negative Cancellation"), and `remove_accidental_hits` of TensorFlow Recommenders.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multimodal.errors import InputError
from multimodal.objectives.base import Objective, Parts, clean, count, gather, mean_over_ranks, rank

MAX_SCALE = 100.0
LOGITS_AT_ONCE = 2**20
"""Logits in memory at a time: those of 1,024 pairs in one process. See `in_blocks`."""


def info_nce(logits: Tensor, own: Tensor, counted: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Each row's cross-entropy for finding its own column among those that count, in nats.

    logits (b, B); own (b,) int64, the column that belongs to each row; counted (B,) or (b, B) bool, of columns. Returns (b,); 0 for rows
    whose own column does not count. label_smoothing: the share of the target that is spread evenly over all columns that count, its own
    too (Szegedy et al., 2016, section 7; as in `torch.nn.functional.cross_entropy`).
    """
    # The row's own column stays in even if it does not count: a row of -inf alone has a gradient of NaN, which no later mask removes.
    keep = counted | _is_own(logits, own)
    kept = logits.masked_fill(~keep, float("-inf"))
    losses = F.cross_entropy(kept, own, reduction="none")
    if label_smoothing:
        evenly = kept.logsumexp(dim=1) - torch.where(keep, logits, 0.0).sum(dim=1) / keep.sum(dim=1)
        losses = (1 - label_smoothing) * losses + label_smoothing * evenly
    return torch.where(counted.expand_as(logits).gather(1, own[:, None])[:, 0], losses, 0.0)


def pairwise_sigmoid(logits: Tensor, own: Tensor, counted: Tensor) -> Tensor:
    """Each row's sum over the columns that count of -log sigmoid(z * logit), z = 1 for its own column and -1 for others, in nats.

    logits (b, B); own (b,) int64; counted (B,) or (b, B) bool. Returns (b,). SigLIP (Zhai et al., 2023), algorithm 1.
    """
    losses = F.softplus(torch.where(_is_own(logits, own), -logits, logits))
    return torch.where(counted, losses, 0.0).sum(dim=1)


def _is_own(logits: Tensor, own: Tensor) -> Tensor:
    """(b, B), (b,) -> (b, B) bool."""
    return torch.arange(logits.shape[1], device=logits.device)[None, :] == own[:, None]


class Candidates:
    """The columns among which each row of this rank has to find its own: the valid ones of all ranks, perhaps without duplicates.

    valid (b,) bool and identity (b, 2) int64, or None, of this rank's rows.
    """

    def __init__(self, valid: Tensor, identity: Tensor | None) -> None:
        self.valid = gather(valid.to(torch.uint8)).bool()
        self.identity = None if identity is None else gather(identity)

    def __len__(self) -> int:
        return len(self.valid)

    def of(self, own: Tensor) -> Tensor:
        """own (m,) int64 -> which columns count: (B,) bool, or (m, B) if that differs between rows."""
        if self.identity is None:
            return self.valid
        picture, text = (numbers[own][:, None] == numbers[None, :] for numbers in self.identity.unbind(dim=1))
        columns = torch.arange(len(self), device=own.device)
        return self.valid & (~(picture | text) | (columns[None, :] == own[:, None]))


def in_blocks(losses: Callable[[Tensor, Tensor], Tensor], rows: Tensor, own: Tensor, num_columns: int) -> Tensor:
    """`losses(rows, own)`, for at most `LOGITS_AT_ONCE` logits at a time: they are made again in the backward pass, instead of being kept.

    So memory does not grow with the square of the batch. rows (b, d), own (b,), and as many of each in a block. Returns (b,).
    """
    size = max(1, LOGITS_AT_ONCE // num_columns)
    if len(rows) <= size:
        return losses(rows, own)
    blocks = zip(rows.split(size), own.split(size), strict=True)
    return torch.cat([checkpoint(losses, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks])


class Clip(Objective):
    """Symmetric InfoNCE with a learned scale (Radford et al., 2021, figure 3): pictures find their texts and texts their pictures.

    scale: the initial scale; CLIP's is 1 / 0.07. It is clamped to at most 100 after each step, as in CLIP.
    label_smoothing: the share of each target that is spread evenly over all candidates; see `info_nce`. CLIP's is 0.
    mask_duplicates: pairs with the same picture or the same text are not each other's negatives; see the module's docstring.
    """

    def __init__(self, scale: float = 1 / 0.07, label_smoothing: float = 0.0, mask_duplicates: bool = False) -> None:
        super().__init__()
        if not 0 < scale <= MAX_SCALE:
            raise InputError(f"Clip: scale={scale} must be above 0 and at most {MAX_SCALE:g}")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"Clip: label_smoothing={label_smoothing} must be a share from 0 to below 1")
        self.label_smoothing, self.uses_identity = label_smoothing, mask_duplicates
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, image: Tensor, target: Tensor, valid: Tensor, identity: Tensor | None = None) -> tuple[Tensor, Parts]:
        image, text, valid = clean(image, target, valid)
        among = Candidates(valid, _checked(identity, self))
        if self.training:
            with torch.no_grad():  # here, at the start of the next step, because an objective has no access to the optimiser
                self.log_scale.clamp_(max=math.log(MAX_SCALE))
        with torch.autocast(image.device.type, enabled=False):
            scale = self.log_scale.exp()
            image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
            own, texts, images = _own(image), gather(text), gather(image)

            def find(rows: Tensor, columns: Tensor) -> Tensor:
                """Each row's loss, (b,), for finding its own column among all (B, d)."""
                return in_blocks(
                    lambda rows, own: info_nce(scale * rows @ columns.T, own, among.of(own), self.label_smoothing), rows, own, len(columns)
                )

            to_text, to_image = find(image, texts), find(text, images)
        num_valid = count(valid)
        to_text, to_image = (mean_over_ranks(losses, valid, num_valid) for losses in (to_text, to_image))
        loss = (to_text + to_image) / 2
        parts = {"loss": loss, "image_to_text": to_text, "text_to_image": to_image, "scale": scale, "rows": num_valid}
        return loss, {name: value.detach() for name, value in parts.items()}

    def output(self, image: Tensor) -> Tensor:
        """(b, d) -> (b, d) of length one."""
        return F.normalize(image, dim=1)


class SigLip(Objective):
    """A sigmoid for every picture with every text (Zhai et al., 2023): B * B binary decisions whether the two belong together.

    scale, bias: the initial values of the two learned numbers; the paper's t' = log 10 and b = -10, so that at first nearly all decisions
    are no, as most should be.
    mask_duplicates: no decision on a picture with another pair's text if the two pairs have the same picture or the same text; see the
        module's docstring.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0, mask_duplicates: bool = False) -> None:
        super().__init__()
        if not scale > 0:
            raise InputError(f"SigLip: scale={scale} must be above 0")
        self.uses_identity = mask_duplicates
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, image: Tensor, target: Tensor, valid: Tensor, identity: Tensor | None = None) -> tuple[Tensor, Parts]:
        image, text, valid = clean(image, target, valid)
        among = Candidates(valid, _checked(identity, self))
        with torch.autocast(image.device.type, enabled=False):
            scale = self.log_scale.exp()
            image, texts = F.normalize(image, dim=1), gather(F.normalize(text, dim=1))
            own, bias = _own(image), self.bias
            losses = in_blocks(
                lambda rows, own: pairwise_sigmoid(scale * rows @ texts.T + bias, own, among.of(own)), image, own, len(texts)
            )
        num_valid = count(valid)
        loss = mean_over_ranks(losses, valid, num_valid)
        parts = {"loss": loss, "scale": scale, "bias": self.bias, "rows": num_valid}
        return loss, {name: value.detach() for name, value in parts.items()}

    def output(self, image: Tensor) -> Tensor:
        """(b, d) -> (b, d) of length one."""
        return F.normalize(image, dim=1)


def begin_at(objective: Objective, log_scale: float, bias: float | None) -> None:
    """Give a `Clip` or a `SigLip` the scale and the bias of a trained model; what the objective or the model lacks stays as it is."""
    with torch.no_grad():
        if isinstance(objective, Clip | SigLip):
            objective.log_scale.fill_(log_scale)
        if isinstance(objective, SigLip) and bias is not None:
            objective.bias.fill_(bias)


def _own(rows: Tensor) -> Tensor:
    """(b, d) of this rank -> (b,) int64, the indices of its rows among those of all ranks."""
    return torch.arange(len(rows), device=rows.device) + rank() * len(rows)


def _checked(identity: Tensor | None, objective: Objective) -> Tensor | None:
    """The identity of each row if the objective uses it; ValueError if it has none to use."""
    if not objective.uses_identity:
        return None
    if identity is None or identity.ndim != 2 or identity.shape[1] != 2 or identity.dtype != torch.int64:
        found = "nothing" if identity is None else f"{identity.dtype} of shape {tuple(identity.shape)}"
        raise ValueError(
            f"{type(objective).__name__}: mask_duplicates needs the identity of each pair's picture and text, int64 of shape (b, 2), and "
            f"the batch has {found}. Use a PairLoader with identify=True, or set mask_duplicates: false"
        )
    return identity
