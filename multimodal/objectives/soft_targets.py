"""Objectives whose target is a distribution, or numbers in an interval: topics of a text, or word vectors.

objective = SoftCrossEntropy()
loss, parts = objective(logits, topics, batch.valid)      # (b, K), (b, K), (b,)
topics_seen = objective.output(logits)                    # (b, K), rows sum to one
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal.errors import InputError
from multimodal.objectives.base import RowObjective


def sigmoid_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Each row's sum over d of the binary cross-entropy between target and sigmoid(logits), in nats.

    logits (b, d); target (b, d) in [0, 1]. Returns (b,). The sum, as in Caffe's SigmoidCrossEntropyLoss, with which both papers trained:
    TextTopicNet (Gomez, Patel et al., 2017) and Learning to Learn from Web Data (Gomez et al., 2018).
    """
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=1)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Each row's cross-entropy between a target distribution and softmax(logits), in nats.

    logits (b, K); target (b, K), rows sum to one. Returns (b,).
    """
    return -(target * F.log_softmax(logits, dim=1)).sum(dim=1)


def kl_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Each row's KL(target || softmax(logits)), in nats: the soft cross-entropy minus the target's entropy, so 0 for a perfect prediction.

    logits (b, K); target (b, K), rows sum to one. Returns (b,). Same gradient as `soft_cross_entropy`.
    """
    return torch.xlogy(target, target).sum(dim=1) + soft_cross_entropy(logits, target)


class SigmoidCrossEntropy(RowObjective):
    """An independent sigmoid for each number of the target: the loss of TextTopicNet and of Learning to Learn from Web Data.

    low, high: the interval of the targets, mapped to [0, 1] for the loss and back by `output`. 0 and 1 for topics; -1 and 1 for word
    vectors of length one. A target outside it is an error: the loss would have no minimum.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < high:
            raise InputError(f"SigmoidCrossEntropy: low={low} must be below high={high}")
        self.low, self.high = low, high
        self._targets_seen = False

    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        if not self._targets_seen:  # one check is enough, as a column is uniform; each check makes a GPU wait
            self._check(target)
        # a row that does not count is all zeros, perhaps outside the interval; it is still finite, and the caller masks it
        return sigmoid_cross_entropy(image, (target - self.low) / (self.high - self.low))

    def output(self, image: Tensor) -> Tensor:
        """(b, d) logits -> (b, d) in [low, high]."""
        return self.low + (self.high - self.low) * torch.sigmoid(image)

    def _check(self, target: Tensor) -> None:
        counted = target[(target != 0).any(dim=1)]
        if not len(counted):
            return
        least, most = counted.min().item(), counted.max().item()
        slack = 1e-3 * (self.high - self.low)  # float16 columns round
        if least < self.low - slack or most > self.high + slack:
            raise ValueError(
                f"SigmoidCrossEntropy: targets range from {least:.3g} to {most:.3g}, outside [{self.low:g}, {self.high:g}]. "
                f"For word vectors of length one use low=-1, high=1"
            )
        self._targets_seen = True


class SoftCrossEntropy(RowObjective):
    """Cross-entropy with a target distribution: one softmax over all topics for each picture."""

    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        return soft_cross_entropy(image, target)

    def output(self, image: Tensor) -> Tensor:
        """(b, K) logits -> (b, K) probabilities, rows sum to one."""
        return torch.softmax(image, dim=1)


class KLDivergence(RowObjective):
    """KL from the target distribution to the picture's softmax: trains as `SoftCrossEntropy` does, and is 0 for a perfect prediction."""

    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        return kl_divergence(image, target)

    def output(self, image: Tensor) -> Tensor:
        """(b, K) logits -> (b, K) probabilities, rows sum to one."""
        return torch.softmax(image, dim=1)
