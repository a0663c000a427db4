"""Every objective against its plain loop and the suite, and what is special about each."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from multimodal.objectives import Clip, Cosine, KLDivergence, MeanSquaredError, Objective, SigLip, SigmoidCrossEntropy, SoftCrossEntropy
from multimodal.objectives.conformance import assert_conforms, assert_invalid_rows_change_nothing, assert_ranks_equal_one

ALL: list[Callable[[], Objective]] = [
    SigmoidCrossEntropy,
    partial(SigmoidCrossEntropy, low=-1.0, high=1.0),
    SoftCrossEntropy,
    KLDivergence,
    Cosine,
    MeanSquaredError,
    Clip,
    partial(Clip, scale=3.0),
    SigLip,
    partial(SigLip, scale=2.0, bias=0.5),
]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(x - max(row)) for x in row]
    return [x / sum(exponentials) for x in exponentials]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosines(image: Tensor, text: Tensor) -> list[list[float]]:
    return [[dot(i, t) / math.sqrt(dot(i, i) * dot(t, t)) for t in text.tolist()] for i in image.tolist()]


def by_row(cost: Callable[[Objective, list[float], list[float]], float]) -> Callable[[Objective, Tensor, Tensor], float]:
    def slow(objective: Objective, image: Tensor, text: Tensor) -> float:
        return sum(cost(objective, i, t) for i, t in zip(image.tolist(), text.tolist(), strict=True)) / len(image)

    return slow


def slow_sigmoid_cross_entropy(objective: Objective, image: list[float], text: list[float]) -> float:
    assert isinstance(objective, SigmoidCrossEntropy)
    shares = [(t - objective.low) / (objective.high - objective.low) for t in text]
    return -sum(s * math.log(sigmoid(x)) + (1 - s) * math.log(sigmoid(-x)) for x, s in zip(image, shares, strict=True))


def slow_soft_cross_entropy(objective: Objective, image: list[float], text: list[float]) -> float:
    return -sum(t * math.log(p) for t, p in zip(text, softmax(image), strict=True))


def slow_kl(objective: Objective, image: list[float], text: list[float]) -> float:
    return sum(t * math.log(t / p) for t, p in zip(text, softmax(image), strict=True))


def slow_cosine(objective: Objective, image: list[float], text: list[float]) -> float:
    return 1 - dot(image, text) / math.sqrt(dot(image, image) * dot(text, text))


def slow_mean_squared_error(objective: Objective, image: list[float], text: list[float]) -> float:
    return sum((x - t) ** 2 for x, t in zip(image, text, strict=True)) / len(image)


def slow_clip(objective: Objective, image: Tensor, text: Tensor) -> float:
    assert isinstance(objective, Clip)
    scale = objective.log_scale.exp().item()
    logits = [[scale * cosine for cosine in row] for row in cosines(image, text)]
    columns = [list(column) for column in zip(*logits, strict=True)]
    n = len(logits)
    return sum(-math.log(softmax(logits[i])[i]) - math.log(softmax(columns[i])[i]) for i in range(n)) / (2 * n)


def slow_siglip(objective: Objective, image: Tensor, text: Tensor) -> float:
    assert isinstance(objective, SigLip)
    scale, bias = objective.log_scale.exp().item(), objective.bias.item()
    rows = cosines(image, text)
    n = len(rows)
    return -sum(math.log(sigmoid((1 if i == j else -1) * (scale * rows[i][j] + bias))) for i in range(n) for j in range(n)) / n


SLOW = {
    SigmoidCrossEntropy: by_row(slow_sigmoid_cross_entropy),
    SoftCrossEntropy: by_row(slow_soft_cross_entropy),
    KLDivergence: by_row(slow_kl),
    Cosine: by_row(slow_cosine),
    MeanSquaredError: by_row(slow_mean_squared_error),
    Clip: slow_clip,
    SigLip: slow_siglip,
}


@pytest.mark.parametrize("make", ALL, ids=str)
def test_an_objective_is_its_loop_whatever_the_order_the_invalid_rows_and_the_precision(make: Callable[[], Objective]) -> None:
    assert_conforms(make, SLOW[type(make())])


def test_two_ranks_have_the_loss_and_the_gradient_of_one() -> None:
    assert_ranks_equal_one(*ALL)


class CountsEveryRow(Objective):
    """The bug that the suite is there for: a mean over all rows, valid or not."""

    def forward(self, image: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = ((image - text) * valid[:, None]).square().mean()
        return loss, {"loss": loss.detach(), "rows": valid.sum()}


def test_the_suite_finds_an_objective_that_counts_invalid_rows() -> None:
    with pytest.raises(AssertionError, match="the loop over 9 rows says"):
        assert_conforms(CountsEveryRow, SLOW[MeanSquaredError])
    with pytest.raises(AssertionError, match="invalid rows: the loss differs"):
        assert_invalid_rows_change_nothing(CountsEveryRow)


def test_what_the_image_side_means_outside_training() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 5
    for topics in (SoftCrossEntropy().output(logits), KLDivergence().output(logits)):
        torch.testing.assert_close(topics.sum(dim=1), torch.ones(4))
    assert SigmoidCrossEntropy().output(logits).min() >= 0 and SigmoidCrossEntropy().output(logits).max() <= 1
    shared = SigmoidCrossEntropy(low=-1, high=1).output(logits)
    torch.testing.assert_close(shared, torch.tanh(logits / 2))
    assert Cosine().output(logits) is logits
    for contrastive in (Clip(), SigLip()):
        torch.testing.assert_close(contrastive.output(logits).norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("objective", [SigmoidCrossEntropy(), SigmoidCrossEntropy(-1, 1), SoftCrossEntropy(), KLDivergence()], ids=repr)
def test_the_lowest_loss_is_where_the_output_is_the_target(objective: Objective) -> None:
    target = torch.softmax(torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    logits = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(logits, target, torch.ones(3, dtype=torch.bool))[0]
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(objective.output(logits).detach(), target, atol=1e-4, rtol=0)
    if isinstance(objective, KLDivergence):
        assert abs(closure().item()) < 1e-8


def test_the_scale_of_clip_stays_at_most_a_hundred_and_can_come_back() -> None:
    objective = Clip(scale=100.0)
    with torch.no_grad():
        objective.log_scale.add_(1.0)  # as a step of an optimiser that went too far
    image, text = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.eye(4, 3) + 0.1
    loss, parts = objective(image, text, torch.ones(4, dtype=torch.bool))
    loss.backward()
    assert parts["scale"].item() == pytest.approx(100.0)
    assert objective.log_scale.grad is not None and objective.log_scale.grad.item() != 0


def test_the_contrastive_objectives_start_where_their_papers_do() -> None:
    assert Clip().log_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert SigLip().log_scale.item() == pytest.approx(math.log(10))
    assert SigLip().bias.item() == -10


def test_wrong_input_is_refused_with_what_to_do() -> None:
    ones = torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"image side is \(2, 3\) and the text side \(2, 4\).*as many outputs"):
        Cosine()(torch.ones(2, 3), torch.ones(2, 4), ones)
    with pytest.raises(ValueError, match="valid must be bool of shape"):
        Cosine()(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2))
    with pytest.raises(ValueError, match=r"targets reach from -0.5 to 1, outside \[0, 1\].*low=-1, high=1"):
        SigmoidCrossEntropy()(torch.zeros(2, 2), torch.tensor([[-0.5, 0.0], [1.0, 0.0]]), ones)
    with pytest.raises(ValueError, match="low=1"):
        SigmoidCrossEntropy(low=1, high=1)
    with pytest.raises(ValueError, match="scale=101"):
        Clip(scale=101)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", ALL, ids=str)
def test_a_gpu_has_the_loss_and_the_gradient_of_the_processor(make: Callable[[], Objective]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, text = torch.randn(9, 6, generator=generator), torch.softmax(torch.randn(9, 6, generator=generator), dim=1)
    valid = torch.arange(9) < 7
    found = []
    for device in ("cpu", "cuda"):
        image, objective = rows.to(device).requires_grad_(), make().to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss, _ = objective(image, text.to(device), valid.to(device))
        loss.backward()
        assert image.grad is not None
        found.append((loss.detach().cpu(), image.grad.cpu()))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)
