"""Objectives that know a picture by its own text among all others of the batch, on all ranks.

    objective = Clip()
    loss, parts = objective(image_rows, text_rows, batch.valid)      # (b, d), (b, d), (b,); rows need no length one

Rows that are not valid are left out as pictures and as texts: they are nobody's negative. So are texts without a known word (a row of
zeros). The scales are parameters of the objective: give them to the optimiser, without weight decay.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal.objectives.base import Objective, Parts, clean, count, gather, mean_over_ranks, rank

MAX_SCALE = 100.0


def info_nce(logits: Tensor, own: Tensor, valid: Tensor) -> Tensor:
    """Each row's cross-entropy for finding its own column among the valid ones, in nats.

    logits (b, B); own (b,) int64, the column that belongs to each row; valid (B,) bool, of columns. Returns (b,); rows whose own column is
    not valid hold 0.
    """
    # The row's own column stays in, also where it is not valid: a row of -inf alone has a gradient of NaN, which no later mask takes away.
    keep = valid[None, :] | (torch.arange(logits.shape[1], device=logits.device)[None, :] == own[:, None])
    losses = F.cross_entropy(logits.masked_fill(~keep, float("-inf")), own, reduction="none")
    return torch.where(valid[own], losses, 0.0)


def pairwise_sigmoid(logits: Tensor, own: Tensor, valid: Tensor) -> Tensor:
    """Each row's sum over valid columns of -log sigmoid(z * logit), z = 1 for its own column and -1 for others, in nats.

    logits (b, B); own (b,) int64; valid (B,) bool. Returns (b,). SigLIP (Zhai et al., 2023), algorithm 1.
    """
    is_own = torch.arange(logits.shape[1], device=logits.device)[None, :] == own[:, None]
    losses = F.softplus(torch.where(is_own, -logits, logits))
    return torch.where(valid[None, :], losses, 0.0).sum(dim=1)


class Clip(Objective):
    """Symmetric InfoNCE with a learnt scale (Radford et al., 2021, figure 3): pictures find their texts and texts their pictures.

    scale: what the scale starts from; CLIP's is 1 / 0.07. It is held to at most 100, as there, by setting it back after a step that went
    beyond.
    """

    def __init__(self, scale: float = 1 / 0.07) -> None:
        super().__init__()
        if not 0 < scale <= MAX_SCALE:
            raise ValueError(f"Clip: scale={scale} must be above 0 and at most {MAX_SCALE:g}")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, image: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        image, text, valid = clean(image, text, valid)
        if self.training:
            with torch.no_grad():  # here, at the start of the next step, because an objective does not see the optimiser
                self.log_scale.clamp_(max=math.log(MAX_SCALE))
        with torch.autocast(image.device.type, enabled=False):
            scale = self.log_scale.exp()
            image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
            valid_everywhere, own = gather(valid.to(torch.uint8)).bool(), _own(image)
            to_text = info_nce(scale * image @ gather(text).T, own, valid_everywhere)
            to_image = info_nce(scale * text @ gather(image).T, own, valid_everywhere)
        num_valid = count(valid)
        to_text, to_image = (mean_over_ranks(losses, valid, num_valid) for losses in (to_text, to_image))
        loss = (to_text + to_image) / 2
        parts = {"loss": loss, "image_to_text": to_text, "text_to_image": to_image, "scale": scale, "rows": num_valid}
        return loss, {name: value.detach() for name, value in parts.items()}

    def output(self, image: Tensor) -> Tensor:
        """(b, d) -> (b, d) of length one."""
        return F.normalize(image, dim=1)


class SigLip(Objective):
    """A sigmoid for every picture with every text (Zhai et al., 2023): each of the B * B is asked whether the two belong together.

    scale, bias: what the two learnt numbers start from; the paper's t' = log 10 and b = -10, so that at first nearly all answers are no, as
    most should be.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"SigLip: scale={scale} must be above 0")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, image: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        image, text, valid = clean(image, text, valid)
        with torch.autocast(image.device.type, enabled=False):
            scale = self.log_scale.exp()
            logits = scale * F.normalize(image, dim=1) @ gather(F.normalize(text, dim=1)).T + self.bias
            losses = pairwise_sigmoid(logits, _own(image), gather(valid.to(torch.uint8)).bool())
        num_valid = count(valid)
        loss = mean_over_ranks(losses, valid, num_valid)
        parts = {"loss": loss, "scale": scale, "bias": self.bias, "rows": num_valid}
        return loss, {name: value.detach() for name, value in parts.items()}

    def output(self, image: Tensor) -> Tensor:
        """(b, d) -> (b, d) of length one."""
        return F.normalize(image, dim=1)


def _own(rows: Tensor) -> Tensor:
    """(b, d) of this rank -> (b,) int64, the places of its rows among those of all ranks."""
    return torch.arange(len(rows), device=rows.device) + rank() * len(rows)
