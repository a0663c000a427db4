"""Supervised contrastive loss: cross-entropy over the cosines of each row with the batch, where rows of its own label are right.

    loss, parts = SupervisedContrastive(temperature=0.1)(image_rows, labels, batch.valid)

Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020 (arXiv 2004.11362), equation 2, but with the mean over anchors for the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal.errors import InputError
from multimodal.objectives.base import Parts, share_of_rank, sum_over_ranks
from multimodal.objectives.labels import Labelled, LabelObjective


class SupervisedContrastive(LabelObjective):
    """Of each anchor, the mean over the other rows p of its label of -log(exp(s_p) / sum_a exp(s_a)), over all other rows a.

    s is the cosine with the anchor, divided by the temperature. The mean over anchors; a row without another one of its label is no anchor,
    but is among the a of others.
    Every other label of the batch is a negative, hardest first by itself: there is no margin and no miner. Compares by cosine.
    temperature: smaller ones look at the hardest negatives alone.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(normalise=True)
        if not temperature > 0:
            raise InputError(f"SupervisedContrastive: temperature={temperature} must be above 0")
        self.temperature = temperature

    def compare(self, batch: Labelled) -> tuple[Tensor, Parts]:
        same, different = batch.pairs(slice(0, len(batch.rows)))
        cosines = batch.rows @ batch.others.T
        logits = cosines / self.temperature
        least = torch.finfo(logits.dtype).min / 2  # not -inf: a row that is alone would have no finite gradient
        log_all = torch.where(same | different, logits, least).logsumexp(dim=1)
        num_same = same.sum(dim=1)
        losses = log_all - torch.where(same, logits, 0.0).sum(dim=1) / num_same.clamp(min=1)
        counts = torch.stack([(num_same > 0).sum(), num_same.sum(), different.sum()]).to(losses)
        anchors, pairs_same, pairs_different = sum_over_ranks(counts).clamp(min=1)
        own = torch.where(num_same > 0, losses, 0.0).sum() / anchors
        sums = torch.stack([own, torch.where(same, cosines, 0.0).sum(), torch.where(different, cosines, 0.0).sum()])
        of_all = sum_over_ranks(sums.detach())
        parts = {"cosine_same": of_all[1] / pairs_same, "cosine_different": of_all[2] / pairs_different}
        return share_of_rank(own, of_all[0]), parts
