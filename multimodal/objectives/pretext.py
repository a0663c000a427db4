"""The base of pretext tasks: objectives whose target was made along with the views of a picture, so that pictures alone teach.

    loss, parts = Rotation(dim_in=512)(features, turns, batch.valid)          # (b, 512), (b,) int64, (b,)

A pretext objective holds the layers that answer (the task's head), so that what a run exports is the trunk alone. It is judged by its own
answers in validation (`accuracy`), and what the trunk has learned from it by `multimodal evaluate probe`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.objectives.base import Objective, Parts, count, mean_over_ranks, sum_over_ranks


class PretextObjective(Objective):
    """What pictures ask about themselves. An export holds this class in place of the task's own, since the head is of no use there."""

    is_pretext = True


class PretextClasses(PretextObjective):
    """Questions with num_classes possible answers: cross-entropy of a head over the features of a picture's views.

    The mean of a picture's questions, of which it usually has one.

    dim_in: features of all views together. hidden: units of a hidden layer of the head, with ReLU; None for a linear head. shape: of the
    answers to one picture, as the views make them; () for a single one. The parts have the `accuracy` of the answers, in per cent.
    """

    def __init__(self, dim_in: int, num_classes: int, hidden: int | None = None, shape: Sequence[int] = ()) -> None:
        super().__init__()
        self.dim_in, self.num_classes, self.shape = dim_in, num_classes, tuple(shape)
        self.head = head(dim_in, num_classes * math.prod(shape), hidden)
        self.chances = {"accuracy": 100 / num_classes}

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        """image (b, dim_in), target (b, *shape) int64 in [0, num_classes), valid (b,) bool -> (scalar, detached scalars to log)."""
        image, target = clean_asked(image, target, valid, self.dim_in)
        if tuple(target.shape[1:]) != self.shape or target.dtype != torch.int64:
            expected = f"int64 answers of shape {self.shape}" if self.shape else "one int64 answer"
            raise ValueError(
                f"the target is {target.dtype} of shape {tuple(target.shape)}; {type(self).__name__} takes {expected} for each row. "
                f"Set data.image to the views of this task{', and model.objective.shape to what they ask' * bool(self.shape)}"
            )
        if ((target < 0) | (target >= self.num_classes)).any():
            raise ValueError(
                f"an answer is {int(target.max())}; {type(self).__name__} has {self.num_classes} classes, from 0. Give it as many as the "
                "views in data.image have"
            )
        wanted = target.reshape(len(target), -1)
        logits = self.head(image.to(next(self.head.parameters()).dtype)).view(len(image), self.num_classes, -1)
        with torch.autocast(image.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            losses = F.cross_entropy(logits, wanted, reduction="none").mean(dim=1)
        return answered(losses, (logits.argmax(dim=1) == wanted).to(losses.dtype).mean(dim=1), valid)


def answered(losses: Tensor, right: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
    """The mean loss of all ranks' valid rows, and their `accuracy`. losses (b,); right (b,) the share of each row's answers."""
    num_valid = count(valid)
    loss = mean_over_ranks(losses, valid, num_valid)
    share = sum_over_ranks(torch.where(valid, right, 0.0).sum().to(torch.float32)) / num_valid.clamp(min=1)
    return loss, {"loss": loss.detach(), "rows": num_valid, "accuracy": 100 * share}


class PretextRegression(PretextObjective):
    """A question whose answer is an array: the mean over its numbers of the squared error of a head over the features of a picture.

    dim_in: features of a picture. shape: of an answer. hidden: units of a hidden layer of the head, with ReLU; None for a linear head.
    The parts have `explained`: the share, in per cent, of the answers' sum of squares that is predicted. An answer of zeros, the plainest
    one, explains 0.
    """

    def __init__(self, dim_in: int, shape: list[int], hidden: int | None = None) -> None:
        super().__init__()
        self.dim_in, self.shape = dim_in, tuple(shape)
        self.head = head(dim_in, math.prod(shape), hidden)
        self.chances = {"explained": 0.0}

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        """image (b, dim_in), target (b, *shape) float, valid (b,) bool -> (scalar, detached scalars to log)."""
        image, target = clean_asked(image, target, valid, self.dim_in)
        if tuple(target.shape[1:]) != self.shape:
            raise ValueError(f"an answer has the shape {tuple(target.shape[1:])}, not {self.shape}. Set model.objective's shape to it")
        answers = self.head(image.to(next(self.head.parameters()).dtype))
        with torch.autocast(image.device.type, enabled=False):
            answers = answers.to(torch.promote_types(answers.dtype, torch.float32))
            wanted = target.flatten(1).to(answers.dtype)
            losses = (answers - wanted).square().mean(dim=1)
        num_valid = count(valid)
        loss = mean_over_ranks(losses, valid, num_valid)
        whole = sum_over_ranks(wanted.square().mean(dim=1).sum()) / num_valid.clamp(min=1)
        explained = 100 * (1 - loss.detach() / whole.clamp(min=torch.finfo(whole.dtype).tiny))
        return loss, {"loss": loss.detach(), "rows": num_valid, "explained": explained}


def head(dim_in: int, dim_out: int, hidden: int | None) -> nn.Module:
    """The layers that answer."""
    if hidden is None:
        return nn.Linear(dim_in, dim_out)
    return nn.Sequential(nn.Linear(dim_in, hidden), nn.ReLU(), nn.Linear(hidden, dim_out))


def clean_asked(image: Tensor, target: Tensor, valid: Tensor, dim_in: int) -> tuple[Tensor, Tensor]:
    """Features in at least float32, and answers; zeros where not valid: replaced, not multiplied, since 0 * NaN is NaN."""
    if image.ndim != 2 or image.shape[1] != dim_in:
        raise ValueError(
            f"the image side is {tuple(image.shape)}, and the objective takes {dim_in} features per picture. Set model.objective's dim_in: "
            f"{image.shape[-1]}"
        )
    if len(target) != len(image):
        raise ValueError(f"there are {len(target)} answers for {len(image)} pictures; expected one for each")
    if valid.shape != image.shape[:1] or valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool of shape ({len(image)},), one per row; it is {valid.dtype} of shape {tuple(valid.shape)}")
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    of_target = valid.view(-1, *[1] * (target.ndim - 1))
    return torch.where(valid[:, None], image, 0.0), torch.where(of_target, target, 0)
