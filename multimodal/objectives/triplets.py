"""Triplet losses: an anchor should be nearer to a positive of its label than to a negative of another, at distances p and n.

    loss, parts = Triplet(margin=0.2, miner=SemiHard())(image_rows, labels, batch.valid)

The loss is the exact mean over all triplets that the miner chooses, of all ranks, and not over a sample: each anchor's distances are
sorted, each positive's triplets are ranges of them (`miners`), and a sum over a range takes no list. A batch of B rows costs B^2 log B time
and little memory. Distances are Euclidean and not squared.

The parts say which share of all triplets is easy, semi-hard and hard, whatever the miner chooses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal.errors import InputError
from multimodal.objectives.base import Parts, share_of_rank, sum_over_ranks
from multimodal.objectives.distances import Judged, sum_over_distances
from multimodal.objectives.labels import Labelled, LabelObjective
from multimodal.objectives.miners import Chosen, Miner, Ranked, SemiHard

SEMI_HARD: Miner = SemiHard()


class TripletsOfLabels(LabelObjective):
    """The mean over triplets of a pull of p and a hinge on n. miner: which triplets count (`multimodal.objectives.miners`)."""

    step: Tensor

    def __init__(self, margin: float = 1.0, miner: Miner = SEMI_HARD, normalise: bool = False) -> None:
        super().__init__(normalise)
        if not margin > 0:
            raise InputError(f"{type(self).__name__}: margin={margin} must be above 0")
        self.margin, self.miner = margin, miner
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))  # in checkpoints: a validation afterwards uses the same miner

    def at_step(self, step: int) -> None:
        self.step.fill_(step)

    pulls_always: bool
    """Whether p counts in every triplet, or only in those whose negative has a loss."""

    def reach(self, ranked: Ranked) -> Tensor:
        """Of each anchor and positive, how many of the nearest negatives have a loss: (m, k) or (m, 1) int64."""
        raise NotImplementedError(f"{type(self).__name__}.reach")

    def compare(self, batch: Labelled) -> tuple[Tensor, Parts]:
        miner = self.miner.at(self.step)

        def judge(distances: Tensor, block: slice) -> Judged:
            same, different = batch.pairs(block)
            ranked = Ranked.of(distances, same, different, self.margin)
            found, slopes = self._sum(distances, ranked, miner.choose(ranked), different)
            positive = ranked.is_positive
            kinds = [torch.where(positive, num, 0).sum() for num in (ranked.num_hard, ranked.num_violating)]
            counts = [*kinds, (positive * ranked.num_negatives).sum(), positive.sum(), ranked.num_negatives.sum()]
            apart = [torch.where(pairs, distances, 0.0).sum() for pairs in (same, different)]
            return Judged(torch.stack([*found, *(count.to(distances.dtype) for count in counts), *apart]), slopes)

        figures = sum_over_distances(batch.rows, batch.others, judge)
        _, num, hard, violating, triplets, positives, negatives, together, apart = (of_all := sum_over_ranks(figures.detach()))
        loss = share_of_rank(figures[0] / _at_least_one(num), of_all[0] / _at_least_one(num))
        parts = {
            "triplets": num,
            "share_easy": (triplets - violating) / triplets.clamp(min=1),
            "share_semi_hard": (violating - hard) / triplets.clamp(min=1),
            "share_hard": hard / triplets.clamp(min=1),
            "distance_same": together / positives.clamp(min=1),
            "distance_different": apart / negatives.clamp(min=1),
        }
        return loss, parts

    def _sum(self, distances: Tensor, ranked: Ranked, chosen: Chosen, different: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The sum of the chosen triplets' losses and their number, scalars, and the slopes (m, B) of the former.

        A triplet's loss is a sum of p, -n and the margin, each with factor 1 or 0. So the sum of all of them is that of each distance times
        a count, and the counts are the slopes.
        """
        start, stop, weight = chosen
        # the chosen negatives that have a loss: start .. end
        end = torch.minimum(stop, self.reach(ranked)).maximum(start)
        num, num_with_loss = weight * (stop - start), weight * (end - start)
        # how many ranges hold a place: one more from where each starts, one less from where it ends
        steps = distances.new_zeros(len(distances), distances.shape[1] + 1)
        steps.scatter_add_(1, start, weight).scatter_add_(1, end, -weight)
        of_negatives = torch.empty_like(distances).scatter_(1, ranked.negative_at, steps.cumsum(dim=1)[:, :-1])
        slopes = torch.where(different, -of_negatives, 0.0)
        slopes.scatter_add_(1, ranked.positive_at, num if self.pulls_always else num_with_loss)
        loss = (slopes * distances).sum() + self.margin * num_with_loss.sum()
        return (loss, num.sum()), slopes


class Triplet(TripletsOfLabels):
    """max(0, p - n + margin): only the difference counts (Schroff et al., 2015, with distances as they are instead of squared)."""

    pulls_always = False

    def reach(self, ranked: Ranked) -> Tensor:
        return ranked.num_violating


class TripletApart(TripletsOfLabels):
    """p + max(0, margin - n): the positive is always pulled, and the negative pushed until it is at the margin, wherever the positive is.

    So labels become points that are a margin apart, where `Triplet` is content with order.
    """

    pulls_always = True

    def reach(self, ranked: Ranked) -> Tensor:
        return torch.searchsorted(ranked.negatives, torch.full_like(ranked.negatives[:, :1], self.margin))


def _at_least_one(num: Tensor) -> Tensor:
    """The number of triplets, to divide by: 1 for none. With shares of tied triplets it may be a rounding below a whole number."""
    return torch.where(num > 0, num, 1.0)
