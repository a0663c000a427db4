"""Siamese losses: pairs of one label are pulled together, all others pushed apart to a margin.

    loss, parts = Siamese(margin=1.0)(image_rows, labels, batch.valid)

The mean is over all pairs of the batch, on all ranks. With c labels of equal size only one pair in c is of one label: `balanced` gives both
kinds half of the weight, as where pairs are drawn half and half. pytorch-metric-learning's ContrastiveLoss is the sum of two means, twice
the balanced one; by default it also scales rows to length one, and leaves pairs without a loss out of its means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal.errors import InputError
from multimodal.objectives.base import Parts, share_of_rank, sum_over_ranks
from multimodal.objectives.distances import Judged, sum_over_distances
from multimodal.objectives.labels import Labelled, LabelObjective


class PairsOfLabels(LabelObjective):
    """The mean over pairs of a function of their distance. margin: the distance beyond which pairs of two labels are left alone."""

    def __init__(self, margin: float = 1.0, balanced: bool = False, normalise: bool = False) -> None:
        super().__init__(normalise)
        if not margin > 0:
            raise InputError(f"{type(self).__name__}: margin={margin} must be above 0")
        self.margin, self.balanced = margin, balanced

    def same(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of pairs of one label by their distance, any shape, and its derivative."""
        raise NotImplementedError(f"{type(self).__name__}.same")

    def different(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of pairs of two labels by their distance, any shape, and its derivative."""
        raise NotImplementedError(f"{type(self).__name__}.different")

    def compare(self, batch: Labelled) -> tuple[Tensor, Parts]:
        num_same, num_different = (num.to(batch.rows.dtype) for num in _num_pairs(batch))
        if self.balanced:
            kinds = (num_same > 0).to(num_same) + (num_different > 0)
            weights = [1 / (kinds.clamp(min=1) * num.clamp(min=1)) for num in (num_same, num_different)]
        else:
            weights = [1 / (num_same + num_different).clamp(min=1)] * 2

        def judge(distances: Tensor, block: slice) -> Judged:
            same, different = batch.pairs(block)
            losses_same, slopes_same = self.same(distances)
            losses_different, slopes_different = self.different(distances)
            losses = torch.where(same, weights[0] * losses_same, torch.where(different, weights[1] * losses_different, 0.0))
            slopes = torch.where(same, weights[0] * slopes_same, torch.where(different, weights[1] * slopes_different, 0.0))
            apart, together = torch.where(different, distances, 0.0), torch.where(same, distances, 0.0)
            within = (different & (distances < self.margin)).sum().to(losses)
            return Judged(torch.stack([losses.sum(), together.sum(), apart.sum(), within]), slopes)

        figures = sum_over_distances(batch.rows, batch.others, judge)
        of_all = sum_over_ranks(figures.detach())
        parts = {
            "distance_same": of_all[1] / num_same.clamp(min=1),
            "distance_different": of_all[2] / num_different.clamp(min=1),
            "share_within_margin": of_all[3] / num_different.clamp(min=1),
        }
        return share_of_rank(figures[0], of_all[0]), parts


class Siamese(PairsOfLabels):
    """The distance d of pairs of one label, and max(0, margin - d) of pairs of two; neither is squared. The mean over all pairs.

    All pulls are equally strong, however far a pair is apart, so that an outlier counts no more than others.
    """

    def same(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        return distances, torch.ones_like(distances)

    def different(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        missing = (self.margin - distances).clamp(min=0)
        return missing, -(missing > 0).to(distances)


class SiameseSquared(PairsOfLabels):
    """d^2 / 2 of pairs of one label, max(0, margin - d)^2 / 2 of pairs of two (Hadsell, Chopra and LeCun, 2006, equation 4)."""

    def same(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        return distances.square() / 2, distances

    def different(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        missing = (self.margin - distances).clamp(min=0)
        return missing.square() / 2, -missing


def _num_pairs(batch: Labelled) -> tuple[Tensor, Tensor]:
    """The numbers of ordered pairs of one label, and of two, among the valid rows of all ranks; int64 scalars."""
    _, counts = batch.labels[batch.counted].unique(return_counts=True)
    num, same = counts.sum(), (counts * (counts - 1)).sum()
    return same, num * (num - 1) - same
