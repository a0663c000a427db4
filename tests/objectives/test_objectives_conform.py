"""Every objective against its plain loop and the suite, and what is special about each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal.objectives import (
    Clip,
    Cosine,
    KLDivergence,
    MeanSquaredError,
    Objective,
    SigLip,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
    contrastive,
)
from multimodal.objectives.conformance import (
    assert_conforms,
    assert_invalid_rows_change_nothing,
    assert_ranks_equal_one,
    example,
    outcome,
)
from multimodal.objectives.contrastive import info_nce, pairwise_sigmoid

ALL: list[Callable[[], Objective]] = [
    SigmoidCrossEntropy,
    partial(SigmoidCrossEntropy, low=-1.0, high=1.0),
    SoftCrossEntropy,
    KLDivergence,
    Cosine,
    MeanSquaredError,
    Clip,
    partial(Clip, scale=3.0),
    partial(Clip, label_smoothing=0.1),
    partial(Clip, mask_duplicates=True),
    partial(Clip, scale=3.0, label_smoothing=0.3, mask_duplicates=True),
    SigLip,
    partial(SigLip, scale=2.0, bias=0.5),
    partial(SigLip, scale=2.0, bias=0.5, mask_duplicates=True),
]

CONTRASTIVE: list[Callable[[], Objective]] = [
    Clip,
    SigLip,
    partial(Clip, label_smoothing=0.1, mask_duplicates=True),
    partial(SigLip, mask_duplicates=True),
]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(x - max(row)) for x in row]
    return [x / sum(exponentials) for x in exponentials]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosines(image: Tensor, target: Tensor) -> list[list[float]]:
    return [[dot(i, t) / math.sqrt(dot(i, i) * dot(t, t)) for t in target.tolist()] for i in image.tolist()]


def by_row(cost: Callable[[Objective, list[float], list[float]], float]) -> Callable[[Objective, Tensor, Tensor], float]:
    def slow(objective: Objective, image: Tensor, target: Tensor) -> float:
        return sum(cost(objective, i, t) for i, t in zip(image.tolist(), target.tolist(), strict=True)) / len(image)

    return slow


def slow_sigmoid_cross_entropy(objective: Objective, image: list[float], target: list[float]) -> float:
    assert isinstance(objective, SigmoidCrossEntropy)
    shares = [(t - objective.low) / (objective.high - objective.low) for t in target]
    return -sum(s * math.log(sigmoid(x)) + (1 - s) * math.log(sigmoid(-x)) for x, s in zip(image, shares, strict=True))


def slow_soft_cross_entropy(objective: Objective, image: list[float], target: list[float]) -> float:
    return -sum(t * math.log(p) for t, p in zip(target, softmax(image), strict=True))


def slow_kl(objective: Objective, image: list[float], target: list[float]) -> float:
    return sum(t * math.log(t / p) for t, p in zip(target, softmax(image), strict=True))


def slow_cosine(objective: Objective, image: list[float], target: list[float]) -> float:
    return 1 - dot(image, target) / math.sqrt(dot(image, image) * dot(target, target))


def slow_mean_squared_error(objective: Objective, image: list[float], target: list[float]) -> float:
    return sum((x - t) ** 2 for x, t in zip(image, target, strict=True)) / len(image)


def rivals(own: int, num: int, identity: Tensor | None) -> list[int]:
    """The rows that are compared with row own: itself, and those with another picture and another target."""
    if identity is None:
        return list(range(num))
    rows = identity.tolist()
    return [j for j in range(num) if j == own or (rows[j][0] != rows[own][0] and rows[j][1] != rows[own][1])]


def slow_clip(objective: Objective, image: Tensor, target: Tensor, identity: Tensor | None = None) -> float:
    assert isinstance(objective, Clip)
    scale, smoothing = objective.log_scale.exp().item(), objective.label_smoothing
    logits = [[scale * cosine for cosine in row] for row in cosines(image, target)]
    columns = [list(column) for column in zip(*logits, strict=True)]
    n, loss = len(logits), 0.0
    for i in range(n):
        among = rivals(i, n, identity)
        target = [smoothing / len(among) + (1 - smoothing if j == i else 0.0) for j in among]
        for row in (logits[i], columns[i]):
            loss -= sum(t * math.log(p) for t, p in zip(target, softmax([row[j] for j in among]), strict=True))
    return loss / (2 * n)


def slow_siglip(objective: Objective, image: Tensor, target: Tensor, identity: Tensor | None = None) -> float:
    assert isinstance(objective, SigLip)
    scale, bias = objective.log_scale.exp().item(), objective.bias.item()
    rows = cosines(image, target)
    n = len(rows)
    decisions = [(i, j) for i in range(n) for j in rivals(i, n, identity)]
    return -sum(math.log(sigmoid((1 if i == j else -1) * (scale * rows[i][j] + bias))) for i, j in decisions) / n


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


def test_examples_have_duplicates_of_both_kinds_on_one_rank_and_across_two() -> None:
    """What the checks of `mask_duplicates` rely on."""
    found = set()
    for seed in range(3):
        given = example(seed, num_invalid=0)
        for side in (0, 1):
            equal = given.identity[:, None, side] == given.identity[None, :, side]
            found |= {(side, i // 6 == j // 6) for i, j in equal.nonzero().tolist() if i < j}
    assert found == {(side, on_one_rank) for side in (0, 1) for on_one_rank in (True, False)}


def in_small_blocks(make: Callable[[], Objective]) -> Objective:
    contrastive.LOGITS_AT_ONCE = 50  # for 12 pairs in one process, 4 rows at a time
    return make()


def test_two_ranks_have_the_loss_and_the_gradient_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastive, "LOGITS_AT_ONCE", contrastive.LOGITS_AT_ONCE)  # put back afterwards
    assert_ranks_equal_one(*ALL, *(partial(in_small_blocks, make) for make in CONTRASTIVE))


@pytest.mark.parametrize("at_once", [1, 50, 12 * 12 - 1])
@pytest.mark.parametrize("make", CONTRASTIVE)
def test_blocks_of_rows_make_the_same_contrastive_loss(
    make: Callable[[], Objective], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outcome(make, example())
    monkeypatch.setattr(contrastive, "LOGITS_AT_ONCE", at_once)
    blocks = outcome(make, example())
    torch.testing.assert_close((blocks.loss, blocks.gradient), (whole.loss, whole.gradient), rtol=0, atol=1e-12)
    assert_conforms(make, SLOW[type(make())])


class CountsEveryRow(Objective):
    """The bug that the suite is there for: a mean over all rows, valid or not."""

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = ((image - target) * valid[:, None]).square().mean()
        return loss, {"loss": loss.detach(), "rows": valid.sum()}


def test_the_suite_finds_an_objective_that_counts_invalid_rows() -> None:
    with pytest.raises(AssertionError, match="the loop over 9 rows gives"):
        assert_conforms(CountsEveryRow, SLOW[MeanSquaredError])
    with pytest.raises(AssertionError, match="invalid rows: the loss differs"):
        assert_invalid_rows_change_nothing(CountsEveryRow)


class NoOutput(Cosine):
    def output(self, image: Tensor) -> Tensor:
        return torch.zeros_like(image)


class FreeInEvaluation(MeanSquaredError):
    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        return super().row_loss(image, target) if self.training else torch.zeros(len(image))


class MeanOfRows(MeanSquaredError):
    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        return super().row_loss(image, target).mean()


class InPlace(Cosine):
    """Normalises the side that it was given itself."""

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = super().forward(image, target, valid)
        target /= target.norm(dim=1, keepdim=True)
        return loss


class Whitened(Cosine):
    """Measures an output against the batch that it is in."""

    def output(self, image: Tensor) -> Tensor:
        return image - image.mean(dim=0)


class Running(MeanSquaredError):
    """Divides by what it has seen so far."""

    seen = 0

    def row_loss(self, image: Tensor, target: Tensor) -> Tensor:
        self.seen += 1
        return super().row_loss(image, target) * (1.0 if self.seen == 1 else 0.9)


class Unnamed(MeanSquaredError):
    """Logs its loss under a name of its own alone."""

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = super().forward(image, target, valid)
        return loss, {"squares": parts["loss"]}


WRONG = {
    NoOutput: "output is zero",
    FreeInEvaluation: "the loss in eval mode is 0.0, but the loop",
    MeanOfRows: r"row_loss gives shape \(\) for 12 rows",
    InPlace: "forward changes its inputs",
    Whitened: "output of a row depends on the other rows",
    Running: "it must depend on its arguments alone",
    Unnamed: "parts hold squares; loss and rows are required",
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_the_suite_rejects_a_wrong_objective_and_says_what_is_wrong(make: type[Objective]) -> None:
    right = next(base for base in make.__mro__ if base in SLOW)
    assert_conforms(right, SLOW[right])
    with pytest.raises(AssertionError, match=WRONG[make]):
        assert_conforms(make, SLOW[right])


def test_a_row_loss_that_is_a_mean_is_refused_where_it_is_trained_with() -> None:
    with pytest.raises(ValueError, match=r"MeanOfRows.row_loss: expected shape \(2,\), got \(\)"):
        MeanOfRows()(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([True, True]))


def test_what_the_image_side_means_outside_training() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 5
    for topics in (SoftCrossEntropy().output(logits), KLDivergence().output(logits)):
        torch.testing.assert_close(topics.sum(dim=1), torch.ones(4))
    assert SigmoidCrossEntropy().output(logits).min() >= 0 and SigmoidCrossEntropy().output(logits).max() <= 1
    shared = SigmoidCrossEntropy(low=-1, high=1).output(logits)
    torch.testing.assert_close(shared, torch.tanh(logits / 2))
    assert Cosine().output(logits) is logits
    for objective in (Clip(), SigLip()):
        torch.testing.assert_close(objective.output(logits).norm(dim=1), torch.ones(4))


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
    image, target = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.eye(4, 3) + 0.1
    loss, parts = objective(image, target, torch.ones(4, dtype=torch.bool))
    loss.backward()
    assert parts["scale"].item() == pytest.approx(100.0)
    assert objective.log_scale.grad is not None and objective.log_scale.grad.item() != 0


def test_the_contrastive_objectives_start_where_their_papers_do() -> None:
    assert Clip().log_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert SigLip().log_scale.item() == pytest.approx(math.log(10))
    assert SigLip().bias.item() == -10


@pytest.mark.parametrize(
    ("plain", "masking"), [(Clip, partial(Clip, mask_duplicates=True)), (SigLip, partial(SigLip, mask_duplicates=True))]
)
def test_without_duplicates_masking_them_changes_nothing(plain: Callable[[], Objective], masking: Callable[[], Objective]) -> None:
    given = replace(example(), identity=torch.arange(24).reshape(12, 2))
    one, other = outcome(plain, given), outcome(masking, given)
    assert torch.equal(one.loss, other.loss) and torch.equal(one.gradient, other.gradient)


def test_a_pair_that_comes_twice_costs_what_it_costs_once() -> None:
    """With the duplicate in the batch a row has the same candidates as without it."""
    given = example(num_invalid=0)
    given = replace(given, identity=torch.arange(24).reshape(12, 2))
    twice = given.at(torch.tensor([*range(12), 4]))
    image, target = twice.inputs @ torch.ones(4, 5, dtype=torch.float64) + twice.target.flip(1), twice.target
    for objective, cut in ((Clip(mask_duplicates=True), info_nce), (SigLip(mask_duplicates=True), pairwise_sigmoid)):
        objective.double()
        cosine = (F.normalize(image) @ F.normalize(target).T) * objective.log_scale.exp()
        own, among = torch.arange(13), contrastive.Candidates(twice.valid, twice.identity)
        with_it, without = cut(cosine, own, among.of(own))[4], cut(cosine[:12, :12], own[:12], given.valid)[4]
        torch.testing.assert_close(with_it, without, rtol=0, atol=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_is_torchs_among_valid_columns(label_smoothing: float) -> None:
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own, valid = torch.arange(6), torch.tensor([True] * 7 + [False] * 2)
    expected = F.cross_entropy(logits[:, :7], own, reduction="none", label_smoothing=label_smoothing)
    torch.testing.assert_close(info_nce(logits, own, valid, label_smoothing), expected)


def test_wrong_input_is_refused_with_what_to_do() -> None:
    ones = torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"image side is \(2, 3\) and the target side \(2, 4\).*Set the image head's dim_out"):
        Cosine()(torch.ones(2, 3), torch.ones(2, 4), ones)
    with pytest.raises(ValueError, match="valid must be bool of shape"):
        Cosine()(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2))
    with pytest.raises(ValueError, match=r"targets range from -0.5 to 1, outside \[0, 1\].*low=-1, high=1"):
        SigmoidCrossEntropy()(torch.zeros(2, 2), torch.tensor([[-0.5, 0.0], [1.0, 0.0]]), ones)
    with pytest.raises(ValueError, match="low=1"):
        SigmoidCrossEntropy(low=1, high=1)
    with pytest.raises(ValueError, match="scale=101"):
        Clip(scale=101)
    with pytest.raises(ValueError, match="label_smoothing=1.0 must be a share from 0 to below 1"):
        Clip(label_smoothing=1.0)
    for objective in (Clip(mask_duplicates=True), SigLip(mask_duplicates=True)):
        with pytest.raises(
            ValueError, match="mask_duplicates needs the identity .* the batch has nothing. Use a PairLoader with identify=True"
        ):
            objective(torch.ones(2, 3), torch.ones(2, 3), ones)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", ALL, ids=str)
def test_a_gpu_has_the_loss_and_the_gradient_of_the_processor(make: Callable[[], Objective]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, target = torch.randn(9, 6, generator=generator), torch.softmax(torch.randn(9, 6, generator=generator), dim=1)
    valid, identity = torch.arange(9) < 7, torch.randint(0, 12, (9, 2), generator=generator)
    found = []
    for device in ("cpu", "cuda"):
        image, objective = rows.to(device).requires_grad_(), make().to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            more = (identity.to(device),) if objective.uses_identity else ()
            loss, _ = objective(image, target.to(device), valid.to(device), *more)
        loss.backward()
        assert image.grad is not None
        found.append((loss.detach().cpu(), image.grad.cpu()))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)
