"""Objectives of pretext tasks: against slow loops, across ranks, and what they refuse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from multimodal.objectives import (
    Colourisation,
    Inpainting,
    Jigsaw,
    Objective,
    PretextClasses,
    PretextRegression,
    RelativePosition,
    Rotation,
)
from multimodal.objectives.conformance import DIM, assert_conforms, assert_ranks_equal_one, example, outcome


def made(kind: type[Objective], *arguments: Any, **settings: Any) -> Objective:
    """With the same head whenever it is made."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*arguments, **settings)


CLASSES: list[Callable[[], Objective]] = [
    partial(made, Rotation, DIM),
    partial(made, Jigsaw, DIM, num_permutations=6),
    partial(made, Colourisation, DIM, [], num_colours=6),
]
REGRESSIONS: list[Callable[[], Objective]] = [
    partial(made, Inpainting, DIM, shape=[DIM]),
    partial(made, PretextRegression, DIM, [DIM], hidden=7),
]


def slow(objective: Objective, image: Tensor, target: Tensor) -> float:
    assert isinstance(objective, PretextClasses)
    losses = []
    for row, answer in zip(image, target.tolist(), strict=True):
        logits = objective.head(row[None])[0].tolist()
        losses.append(math.log(sum(math.exp(logit) for logit in logits)) - logits[answer])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("make", CLASSES)
def test_answers_in_numbers_conform(make: Callable[[], Objective]) -> None:
    assert_conforms(make, slow)


def slow_positions(image: Tensor, cells: Tensor, objective: RelativePosition) -> tuple[float, float]:
    """The loss and the share that is right, of rows (b, 9, d) in cells (b, 9), by four loops."""
    losses, right = [], []
    for shown, of in zip(image, cells.tolist(), strict=True):
        patches = [shown[of.index(cell)] for cell in range(9)]
        for row, column in itertools.product(range(3), repeat=2):
            for down, across in itertools.product((-1, 0, 1), repeat=2):
                if (down, across) == (0, 0) or not (0 <= row + down < 3 and 0 <= column + across < 3):
                    continue
                answer = [*itertools.product((-1, 0, 1), repeat=2)].index((down, across))
                answer -= answer > 4
                both = torch.cat([patches[3 * row + column], patches[3 * (row + down) + column + across]])
                logits = objective.head(both).tolist()
                losses.append(math.log(sum(math.exp(logit) for logit in logits)) - logits[answer])
                right.append(logits.index(max(logits)) == answer)
    assert len(losses) == 40 * len(image)
    return sum(losses) / len(losses), 100 * sum(right) / len(right)


def positions() -> tuple[RelativePosition, Tensor, Tensor, Tensor]:
    """An objective, 7 rows of nine patches, their cells, and which rows are valid."""
    objective = made(RelativePosition, 5, hidden=6).double()
    assert isinstance(objective, RelativePosition)
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(7, 45, dtype=torch.float64, generator=generator)
    cells = torch.stack([torch.randperm(9, generator=generator) for _ in range(7)])
    return objective, image, cells, torch.tensor([True, True, False, True, True, False, True])


def test_every_pair_of_neighbours_is_asked() -> None:
    objective, image, cells, valid = positions()
    image[~valid] = torch.nan
    image.requires_grad_()
    loss, parts = objective(image, cells, valid)
    wanted, right = slow_positions(image[valid].view(-1, 9, 5), cells[valid], objective)
    assert loss.item() == pytest.approx(wanted, abs=1e-12) and parts["accuracy"].item() == pytest.approx(right)
    assert parts["rows"] == 5 and objective.chances == {"accuracy": 15.0}
    loss.backward()
    assert image.grad is not None and torch.isfinite(image.grad).all() and not image.grad[~valid].any()
    assert (image.grad[valid].view(5, 9, 5).abs().sum(2) > 0).all(), "each patch teaches"
    with pytest.raises(ValueError, match="takes 45 features per picture"):
        objective(torch.zeros(7, 44), cells, valid)
    for wrong in (cells[:, 0], torch.zeros(7, 9, dtype=torch.int64), cells.double()):
        with pytest.raises(ValueError, match="0 to 8 each once. Set data.image to multimodal.data.PositionViews"):
            objective(image.detach(), wrong, valid)


def slow_squares(objective: Objective, image: Tensor, target: Tensor) -> float:
    assert isinstance(objective, PretextRegression)
    losses = []
    for row, answer in zip(image, target.tolist(), strict=True):
        squares = [(x - y) ** 2 for x, y in zip(objective.head(row[None])[0].tolist(), answer, strict=True)]
        losses.append(sum(squares) / len(squares))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("make", REGRESSIONS)
def test_answers_in_arrays_conform(make: Callable[[], Objective]) -> None:
    assert_conforms(make, slow_squares)


def test_ranks_equal_one() -> None:
    assert_ranks_equal_one(*CLASSES, *REGRESSIONS)


def slow_colours(objective: Colourisation, image: Tensor, answers: Tensor) -> tuple[float, float]:
    """The mean cross-entropy of every square's colour, and that of always saying how common these colours are, with one more of each."""
    wanted, losses, plain = answers.flatten().tolist(), [], []
    for row, answer in zip(image, answers.flatten(1), strict=True):
        logits = objective.head(row).view(objective.num_classes, -1).T.tolist()
        for of_square, colour in zip(logits, answer.tolist(), strict=True):
            losses.append(math.log(sum(math.exp(logit) for logit in of_square)) - of_square[colour])
            plain.append(-math.log((1 + wanted.count(colour)) / (objective.num_classes + len(wanted))))
    return sum(losses) / len(losses), sum(plain) / len(plain)


def test_each_square_asks_for_its_colour() -> None:
    objective, generator = made(Colourisation, DIM, [2, 3], num_colours=4).double(), torch.Generator().manual_seed(4)
    assert isinstance(objective, Colourisation)
    image = torch.randn(7, DIM, dtype=torch.float64, generator=generator)
    answers, valid = torch.randint(0, 4, (7, 2, 3), generator=generator), torch.tensor([True, True, False, True, True, False, True])
    image[~valid] = torch.nan
    answers[~valid] = 99
    image.requires_grad_()
    loss, parts = objective(image, answers, valid)
    wanted, plain = slow_colours(objective, image[valid], answers[valid])
    assert loss.item() == pytest.approx(wanted, abs=1e-12) and parts["rows"] == 5
    assert parts["explained"].item() == pytest.approx(100 * (1 - wanted / plain)) and objective.chances == {"explained": 0.0}
    loss.backward()
    assert image.grad is not None and torch.isfinite(image.grad).all() and not image.grad[~valid].any()
    seen = objective.seen.clone()
    assert seen.sum() == 4 + 5 * 6
    none, parts = objective.eval()(image.detach(), answers, torch.zeros(7, dtype=torch.bool))
    assert none == 0 and parts["explained"] == 0 and torch.equal(objective.seen, seen)
    for wrong, said in ((answers[:, 0], r"int64 answers of shape \(2, 3\)"), (answers.double(), "float64 of shape"), (answers, "is 99")):
        with pytest.raises(ValueError, match=said):
            objective(torch.zeros(7, DIM), wrong, torch.ones(7, dtype=torch.bool))


def test_to_know_how_common_each_colour_was_explains_nothing() -> None:
    objective, share = made(Colourisation, DIM, [3, 3], num_colours=4).double(), torch.tensor([0.5, 0.2, 0.2, 0.1])
    assert isinstance(objective, Colourisation)
    with torch.no_grad():
        objective.head.weight.zero_()
        objective.head.bias.copy_(share.log().repeat_interleave(9))
    objective.seen += 1e6 * share
    for colour in range(4):  # all squares of a picture have one colour, as few have in nature
        parts = objective.eval()(torch.zeros(1, DIM), torch.full((1, 3, 3), colour), torch.ones(1, dtype=torch.bool))[1]
        assert parts["explained"].item() == pytest.approx(0, abs=0.01)


def test_what_is_explained_is_a_share_of_the_squares_of_valid_rows() -> None:
    given, objective = example(), made(Inpainting, DIM, [1, DIM]).double()
    target, image = given.target[:, None], torch.randn(len(given.valid), DIM, dtype=torch.float64)
    _, parts = objective(image, torch.where(given.valid[:, None, None], target, torch.nan), given.valid)
    answers, wanted = objective.head(image)[given.valid], given.target[given.valid]
    left = ((answers - wanted) ** 2).sum() / (wanted**2).sum()
    assert parts["explained"].item() == pytest.approx(100 * (1 - left.item())) and objective.chances == {"explained": 0.0}
    with torch.no_grad():
        for parameter in objective.head.parameters():
            parameter.zero_()
    assert objective(image, target, given.valid)[1]["explained"].item() == pytest.approx(0.0)
    assert torch.isfinite(objective(image, 0 * target, given.valid)[1]["explained"])


def test_accuracy_is_the_share_of_valid_rows_that_are_right() -> None:
    given, objective = example(), made(Rotation, DIM).double()
    image = torch.randn(len(given.valid), DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    _, parts = objective(image, given.classes, given.valid)
    answers = objective.head(image).argmax(1).tolist()
    right = [answer == wanted for answer, wanted, ok in zip(answers, given.classes.tolist(), given.valid.tolist(), strict=True) if ok]
    assert parts["accuracy"].item() == pytest.approx(100 * sum(right) / len(right)) and objective.chances == {"accuracy": 25.0}


def test_its_head_is_trained() -> None:
    assert outcome(CLASSES[0], example()).gradient[-4 * (DIM + 1) :].abs().sum() > 0


@pytest.mark.parametrize(
    ("image", "target", "said"),
    [
        (torch.zeros(3, 8), torch.zeros(3, dtype=torch.int64), "takes 5 features per picture. Set model.objective's dim_in: 8"),
        (torch.zeros(3, 5), torch.zeros(3, 2), "takes one int64 answer for each row"),
        (torch.zeros(3, 5), torch.tensor([0, 1, 4]), "an answer is 4; Rotation has 4 classes"),
    ],
)
def test_what_does_not_fit_is_refused(image: Tensor, target: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rotation(5)(image, target, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"the shape \(2,\), not \(3, 4\). Set model.objective's shape"):
        Inpainting(5, [3, 4])(torch.zeros(3, 5), torch.zeros(3, 2), torch.ones(3, dtype=torch.bool))
