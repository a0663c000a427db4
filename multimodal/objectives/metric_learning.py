"""Any loss of pytorch-metric-learning that takes embeddings and labels, named by its class path.

    model:
      objective:
        class_path: multimodal.objectives.PytorchMetricLearning
        init_args:
          loss:
            class_path: pytorch_metric_learning.losses.MultiSimilarityLoss
            init_args: {alpha: 2.0, beta: 50.0, base: 0.5}

Needs the extra `metric`. Two of that library's defaults change what is minimised:
- its distances scale rows to length one, so in two dimensions all of them are on a circle, where ten classes have no room. For a loss of
  distances, give `distance: {class_path: pytorch_metric_learning.distances.LpDistance, init_args: {normalize_embeddings: false}}`. Cosine
  similarity, the default of multi-similarity and proxy-anchor, always does.
- the mean of triplet and contrastive losses is over terms above zero only, so the loss may stay as it is while ever fewer are left. For the
  plain mean, give `reducer: {class_path: pytorch_metric_learning.reducers.MeanReducer}`.

To validate or export a run with it: --trust pytorch_metric_learning. Opening the export needs neither.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal.errors import InputError
from multimodal.objectives.base import Parts
from multimodal.objectives.labels import Labelled, LabelObjective


class PytorchMetricLearning(LabelObjective):
    """A loss of pytorch-metric-learning on the valid rows of all ranks together. Each rank computes all of it.

    loss: multi-similarity (Wang et al., 2019), proxy-anchor (Kim et al., 2020), or any other called as loss(embeddings, labels). The
    parameters of one with proxies are trained along. Its labels must be numbers from 0 to num_classes - 1, those of validation too.
    distance, reducer: in place of the loss's own, as pytorch-metric-learning takes them.
    normalise: see `LabelObjective`; most of these losses do it themselves, inside.
    """

    def __init__(
        self, loss: nn.Module, distance: nn.Module | None = None, reducer: nn.Module | None = None, normalise: bool = False
    ) -> None:
        super().__init__(normalise)
        if distance is not None:
            loss.distance = distance
        if reducer is not None:
            loss.set_reducer(reducer)  # type: ignore[operator]
        self.loss = loss
        if getattr(getattr(loss, "distance", None), "normalize_embeddings", False):
            self.distance = "cosine"

    def compare(self, batch: Labelled) -> tuple[Tensor, Parts]:
        rows, labels = batch.others[batch.counted], batch.labels[batch.counted]
        num_classes = _num_classes(self.loss)
        if num_classes is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise InputError(
                f"{type(self.loss).__name__}: num_classes={num_classes}, and labels are from {int(labels.min())} to {int(labels.max())}. "
                f"Set its num_classes to {int(labels.max()) + 1} at least"
            )
        nothing = 0.0 * batch.others.sum()  # a graph on every rank, even without a row
        if len(rows):
            # Every rank has the whole loss, so the gathered rows get its gradient from each, and DDP's average over ranks makes it one.
            loss: Tensor = self.loss(rows, labels)
            return loss + nothing, {}
        return nothing + sum((0.0 * one.sum() for one in self.parameters()), torch.zeros_like(nothing)), {}


def _num_classes(loss: nn.Module) -> int | None:
    """How many classes a loss with proxies is for. Some of these losses say 0, and only their proxies tell."""
    said = getattr(loss, "num_classes", None)
    proxies, columns = getattr(loss, "proxies", None), getattr(loss, "W", None)
    if said == 0 and isinstance(columns, Tensor):
        return columns.shape[1]
    return len(proxies) if said == 0 and isinstance(proxies, Tensor) else said
