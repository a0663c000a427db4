"""Which triplets of a batch a loss is the mean of: anchor, a positive of its label, a negative of another; at distances p and n.

    Triplet(margin=0.2, miner=SemiHard())
    Triplet(margin=0.2, miner=Schedule([SemiHard(), BatchHard()], begin=[2000]))

With margin m, a triplet is (Schroff et al., 2015; the borders belong to the outer kinds)
    easy        p + m <= n
    semi-hard   p < n < p + m
    hard        n <= p
and every triplet is one of the three. pytorch-metric-learning counts n = p + m, whose loss is 0, as semi-hard.

For one anchor and positive, each kind is a range of the negatives in the order of their distance. So a miner gives ranges, and no list of
triplets is ever made: there are 128 million in a batch of 2,048 rows of 64 labels. To add one, write `choose`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal.errors import InputError


@dataclass(frozen=True, slots=True)
class Ranked:
    """The distances of m anchors, in order.

    positives (m, k) farthest first, and -inf where an anchor has fewer; positive_at (m, k) int64, their columns.
    negatives (m, B) nearest first, and inf where an anchor has fewer; negative_at (m, B) int64, their columns. num_negatives (m, 1).
    num_hard, num_violating (m, k): of each positive, how many negatives are hard, and how many hard or semi-hard.
    """

    positives: Tensor
    positive_at: Tensor
    negatives: Tensor
    negative_at: Tensor
    num_negatives: Tensor
    num_hard: Tensor
    num_violating: Tensor

    @classmethod
    def of(cls, distances: Tensor, same: Tensor, different: Tensor, margin: float) -> Ranked:
        """distances (m, B); same, different (m, B) bool: the positives and the negatives of each anchor."""
        k = max(1, int(same.sum(dim=1).max()))
        positives, positive_at = distances.masked_fill(~same, -torch.inf).topk(k, dim=1)
        negatives, negative_at = distances.masked_fill(~different, torch.inf).sort(dim=1)
        num_hard = torch.searchsorted(negatives, positives, right=True)
        num_violating = torch.searchsorted(negatives, positives + margin).maximum(num_hard)  # p + m may round to p
        return cls(positives, positive_at, negatives, negative_at, different.sum(dim=1, keepdim=True), num_hard, num_violating)

    @property
    def is_positive(self) -> Tensor:
        """(m, k) bool."""
        return self.positives > -torch.inf

    @property
    def hardest(self) -> Tensor:
        """(m, k), the share of each positive in the farthest one: 1 for that alone, or equal shares of those that are equally far."""
        tied = (self.positives == self.positives[:, :1]) & self.is_positive
        return tied.to(self.positives) / tied.sum(dim=1, keepdim=True).clamp(min=1)


class Chosen(NamedTuple):
    """Of each anchor and positive, which negatives count, in the order of `Ranked.negatives`, and how much each triplet weighs."""

    start: Tensor
    """(m, k) int64"""
    stop: Tensor
    """(m, k) int64; not below start"""
    weight: Tensor
    """(m, k) of the distances' type; 0 where there is no positive."""


class Miner(ABC):
    """Settings of a choice among triplets."""

    @abstractmethod
    def choose(self, ranked: Ranked) -> Chosen:
        """The triplets of some anchors that count. A row of many equal distances has to give each of them an equal share."""

    def at(self, step: Tensor) -> Miner:
        """The miner at an optimiser step, an int64 scalar."""
        return self


@dataclass(frozen=True)
class All(Miner):
    """Every triplet, easy ones included: their zeros are part of the mean, so the loss falls as they become more."""

    def choose(self, ranked: Ranked) -> Chosen:
        return _every_positive(ranked, torch.zeros_like(ranked.num_hard), ranked.num_negatives.expand_as(ranked.num_hard))


@dataclass(frozen=True)
class Violating(Miner):
    """Hard and semi-hard triplets: those with a loss ("batch all" of Hermans et al., 2017; pytorch-metric-learning's default)."""

    def choose(self, ranked: Ranked) -> Chosen:
        return _every_positive(ranked, torch.zeros_like(ranked.num_hard), ranked.num_violating)


@dataclass(frozen=True)
class Easy(Miner):
    """p + m <= n. They have no loss in `Triplet`; in `TripletApart` their positives are still pulled."""

    def choose(self, ranked: Ranked) -> Chosen:
        return _every_positive(ranked, ranked.num_violating, ranked.num_negatives.expand_as(ranked.num_hard))


@dataclass(frozen=True)
class SemiHard(Miner):
    """p < n < p + m: the negative is farther than the positive, but not by the margin (Schroff et al., 2015). The safe choice at first."""

    def choose(self, ranked: Ranked) -> Chosen:
        return _every_positive(ranked, ranked.num_hard, ranked.num_violating)


@dataclass(frozen=True)
class Hard(Miner):
    """n <= p: the negative is at least as near as the positive. From random weights it collapses easily: all rows at one point is an
    easier way out than order.
    """

    def choose(self, ranked: Ranked) -> Chosen:
        return _every_positive(ranked, torch.zeros_like(ranked.num_hard), ranked.num_hard)


@dataclass(frozen=True)
class BatchHard(Miner):
    """One triplet of each anchor: its farthest positive with its nearest negative (Hermans et al., 2017).

    Of several that are equally far, or near, each triplet has an equal share. Mislabelled pictures are the hardest of all.
    """

    def choose(self, ranked: Ranked) -> Chosen:
        nearest = ranked.negatives[:, :1].contiguous()
        tied = torch.searchsorted(ranked.negatives, nearest, right=True).minimum(ranked.num_negatives)
        weight = ranked.hardest / tied.clamp(min=1)
        return Chosen(torch.zeros_like(ranked.num_hard), tied.expand_as(ranked.num_hard), weight)


@dataclass(frozen=True)
class HardestPositives(Miner):
    """Of each anchor only the farthest positive, with the negatives that another miner chooses for it."""

    negatives: Miner

    def choose(self, ranked: Ranked) -> Chosen:
        chosen = self.negatives.choose(ranked)
        return chosen._replace(weight=chosen.weight * ranked.hardest)

    def at(self, step: Tensor) -> Miner:
        return HardestPositives(self.negatives.at(step))


@dataclass(frozen=True)
class Schedule(Miner):
    """One miner after the other. begin: the optimiser step from which each miner but the first counts, ascending."""

    miners: list[Miner]
    begin: list[int]

    def __post_init__(self) -> None:
        if len(self.begin) != len(self.miners) - 1 or self.begin != sorted({0, *self.begin})[1:]:
            raise InputError(
                f"Schedule: {len(self.miners)} miners and begin={self.begin}: give for each miner but the first the step from which it "
                "counts, above 0 and ascending"
            )

    def choose(self, ranked: Ranked) -> Chosen:
        raise TypeError("Schedule.choose: a schedule chooses by step; call .at(step).choose")

    def at(self, step: Tensor) -> Miner:
        return self.miners[bisect_right(self.begin, int(step))].at(step)


def _every_positive(ranked: Ranked, start: Tensor, stop: Tensor) -> Chosen:
    return Chosen(start, stop, ranked.is_positive.to(ranked.positives))
