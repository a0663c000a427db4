"""Objectives that learn from labels: against slow loops over pairs and triplets, across ranks, and where a batch is odd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from multimodal.errors import InputError
from multimodal.objectives import (
    All,
    BatchHard,
    Easy,
    Hard,
    HardestPositives,
    LabelObjective,
    Miner,
    Objective,
    Schedule,
    SemiHard,
    Siamese,
    SiameseSquared,
    SupervisedContrastive,
    Triplet,
    TripletApart,
    Violating,
    distances,
)
from multimodal.objectives.conformance import assert_conforms, assert_ranks_equal_one
from multimodal.objectives.siamese import PairsOfLabels
from multimodal.objectives.triplets import TripletsOfLabels

PAIRS: list[Callable[[], PairsOfLabels]] = [
    Siamese,
    partial(Siamese, margin=4.0, balanced=True),
    SiameseSquared,
    partial(SiameseSquared, margin=4.0, balanced=True),
    partial(Siamese, margin=1.2, normalise=True),
]
MINERS: list[Miner] = [
    All(),
    Violating(),
    Easy(),
    SemiHard(),
    Hard(),
    BatchHard(),
    HardestPositives(SemiHard()),
    HardestPositives(All()),
    Schedule([SemiHard(), BatchHard()], begin=[10]),
]
TRIPLETS: list[Callable[[], TripletsOfLabels]] = [
    *(partial(kind, margin=2.0, miner=miner) for kind in (Triplet, TripletApart) for miner in MINERS),
    partial(TripletApart, margin=20.0),  # no negative beyond the margin
    partial(Triplet, margin=0.3, normalise=True),
]
LABELLED: list[Callable[[], LabelObjective]] = [*PAIRS, *TRIPLETS, SupervisedContrastive, partial(SupervisedContrastive, temperature=0.5)]


def apart(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum().sqrt()


def slow_pairs(objective: Objective, image: Tensor, label: Tensor) -> Tensor:
    assert isinstance(objective, PairsOfLabels)
    m = objective.margin
    rows = objective.output(image)
    of_same, of_different = [], []
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            d = apart(rows[i], rows[j])
            short = (m - d).clamp(min=0)
            if label[i] == label[j]:
                of_same.append(d if isinstance(objective, Siamese) else d**2 / 2)
            else:
                of_different.append(short if isinstance(objective, Siamese) else short**2 / 2)
    if objective.balanced:
        return torch.stack([torch.stack(losses).mean() for losses in (of_same, of_different)]).mean()
    return torch.stack([*of_same, *of_different]).mean()


def hinge(objective: TripletsOfLabels, p: Tensor, n: Tensor) -> Tensor:
    m = objective.margin
    return (p - n + m).clamp(min=0) if isinstance(objective, Triplet) else p + (m - n).clamp(min=0)


def chosen(miner: Miner, p: Tensor, negatives: list[Tensor], positives: list[Tensor], m: float) -> Iterator[Tensor]:
    """The negatives that count for an anchor and its positive."""
    if isinstance(miner, Schedule):
        miner = miner.miners[0]
    if isinstance(miner, HardestPositives):
        if p == max(positives):
            yield from chosen(miner.negatives, p, negatives, positives, m)
        return
    for n in negatives:
        if isinstance(miner, BatchHard):
            takes = p == max(positives) and n == min(negatives)
        else:
            takes = {All: True, Violating: n < p + m, Easy: p + m <= n, SemiHard: p < n < p + m, Hard: n <= p}[type(miner)]
        if takes:
            yield n


def slow_triplets(objective: Objective, image: Tensor, label: Tensor) -> Tensor:
    assert isinstance(objective, TripletsOfLabels)
    rows = objective.output(image)
    losses = []
    for a in range(len(rows)):
        positives = [apart(rows[a], rows[i]) for i in range(len(rows)) if i != a and label[i] == label[a]]
        negatives = [apart(rows[a], rows[i]) for i in range(len(rows)) if label[i] != label[a]]
        for p in positives:
            losses += [hinge(objective, p, n) for n in chosen(objective.miner, p, negatives, positives, objective.margin)]
    return torch.stack(losses).mean() if losses else 0 * rows.sum()


def slow_softmax(objective: SupervisedContrastive, image: Tensor, label: Tensor) -> Tensor:
    rows = [row / row.square().sum().sqrt() for row in image]
    of_anchors = []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        exponentials = {a: torch.exp(torch.dot(rows[i], rows[a]) / objective.temperature) for a in others}
        of_anchor = [-torch.log(exponentials[p] / sum(exponentials.values())) for p in others if label[p] == label[i]]
        of_anchors += [torch.stack(of_anchor).mean()] if of_anchor else []
    return torch.stack(of_anchors).mean() if of_anchors else 0 * image.sum()


def slow(objective: Objective, image: Tensor, label: Tensor) -> Tensor:
    if isinstance(objective, SupervisedContrastive):
        return slow_softmax(objective, image, label)
    return (slow_pairs if isinstance(objective, PairsOfLabels) else slow_triplets)(objective, image, label)


def batch(seed: int = 0, num: int = 14, num_labels: int = 4, dim: int = 3) -> tuple[Tensor, Tensor]:
    """Rows (n, d) float64 with a gradient, in which every kind of triplet occurs, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, num_labels, (num,), generator=generator)
    rows = 0.7 * torch.randn(num_labels, dim, generator=generator, dtype=torch.float64)[label]
    return (rows + torch.randn(num, dim, generator=generator, dtype=torch.float64)).requires_grad_(), label


def gradient(loss: Tensor, rows: Tensor) -> Tensor:
    [found] = torch.autograd.grad(loss, rows)
    return found


def valid(rows: Tensor) -> Tensor:
    return torch.ones(len(rows), dtype=torch.bool)


@pytest.mark.parametrize("make", LABELLED, ids=str)
def test_an_objective_of_labels_is_its_loop_whatever_the_order_the_invalid_rows_and_the_precision(make: Callable[[], Objective]) -> None:
    assert_conforms(make, lambda *arguments: slow(*arguments).item())


@pytest.mark.parametrize("make", LABELLED, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient_are_those_of_the_slow_loop(make: Callable[[], Objective], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "DISTANCES_AT_ONCE", 40)  # several blocks of rows
    objective = make()
    rows, label = batch(seed)
    loss, parts = objective(rows, label, valid(rows))
    expected = slow(objective, rows, label)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(gradient(loss, rows), gradient(expected, rows), rtol=0, atol=1e-8)
    assert all(part.isfinite() for part in parts.values())


def test_the_shares_of_triplets_are_counted_whatever_is_mined() -> None:
    rows, label = batch()
    kinds = []
    for a in range(len(rows)):
        for p in (apart(rows[a], rows[i]) for i in range(len(rows)) if i != a and label[i] == label[a]):
            for n in (apart(rows[a], rows[i]) for i in range(len(rows)) if label[i] != label[a]):
                kinds.append("hard" if n <= p else "semi_hard" if n < p + 1 else "easy")
    for miner in MINERS:
        parts = Triplet(margin=1.0, miner=miner)(rows, label, valid(rows))[1]
        for kind in ("easy", "semi_hard", "hard"):
            assert kinds.count(kind)
            assert parts[f"share_{kind}"].item() == pytest.approx(kinds.count(kind) / len(kinds), abs=1e-12)
    assert Triplet(margin=1.0, miner=SemiHard())(rows, label, valid(rows))[1]["triplets"] == kinds.count("semi_hard")


@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_have_the_loss_and_the_gradient_of_one(num_ranks: int) -> None:
    """Labels are split over ranks, some ranks have fewer valid rows than others, and some have none; see `conformance.example`."""
    assert_ranks_equal_one(*LABELLED, num_ranks=num_ranks)


@pytest.mark.parametrize("make", LABELLED, ids=str)
@pytest.mark.parametrize(
    "label", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 1]], ids=["of one label", "all different", "two and two", "one alone"]
)
@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["identical rows", "rows apart"])
def test_an_odd_batch_has_a_finite_loss_and_gradient(make: Callable[[], Objective], label: list[int], spread: float) -> None:
    rows = (1 + spread * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss, parts = make()(rows, torch.tensor(label), valid(rows))
    found = gradient(loss, rows)
    assert loss.isfinite() and found.isfinite().all() and all(part.isfinite() for part in parts.values())
    if not spread:
        # rows of length one leave float32's rounding
        assert found.abs().max() <= 1e-6 * isinstance(make(), SupervisedContrastive), "identical rows have no direction to move in"


@pytest.mark.parametrize("kind", [Triplet, TripletApart])
def test_a_label_with_one_picture_gives_negatives_but_no_anchor(kind: type[TripletsOfLabels]) -> None:
    rows, label = batch()
    alone = torch.cat([label[:-1], torch.tensor([99])])
    loss, parts = kind(miner=All())(rows, alone, valid(rows))
    counts = alone.bincount()
    assert parts["triplets"] == sum(c * (c - 1) * (len(rows) - c) for c in counts.tolist())
    torch.testing.assert_close(loss, slow_triplets(kind(miner=All()), rows, alone), rtol=0, atol=1e-8)


def test_collapsed_rows_cost_the_margin_and_are_hard() -> None:
    rows, label = torch.ones(6, 2), torch.arange(6) // 2
    for objective in (Triplet(margin=0.7, miner=BatchHard()), Triplet(margin=0.7, miner=Hard()), TripletApart(margin=0.7, miner=All())):
        loss, parts = objective(rows, label, valid(rows))
        assert loss.item() == pytest.approx(0.7) and parts["share_hard"] == 1
    assert Triplet(miner=SemiHard())(rows, label, valid(rows))[1]["triplets"] == 0


def test_borders_belong_to_the_outer_kinds() -> None:
    """On a line, an anchor at 0 and its positive at 1, with a negative exactly at 1, and one exactly at 1 + margin."""
    rows, label = torch.tensor([[0.0], [1.0], [-1.0], [1.5]]), torch.tensor([0, 0, 1, 2])
    for miner, num in ((Hard(), 2), (SemiHard(), 0), (Easy(), 2)):  # of the anchor at 1: n = 2 is easy, n = 0.5 is hard
        assert Triplet(margin=0.5, miner=miner)(rows, label, valid(rows))[1]["triplets"] == num, miner


def test_those_that_are_equally_hard_share_one_triplet() -> None:
    """An anchor at 0 with two positives at distance 2 and two negatives at distance 1; everything else is far away."""
    rows = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 0, 0, 1, 2])
    objective = Triplet(margin=1.0, miner=BatchHard())
    loss, parts = objective(rows, label, valid(rows))
    assert parts["triplets"].item() == pytest.approx(3)  # labels 1 and 2 have no positive
    mirrored = torch.tensor([0, 2, 1, 4, 3])
    found = gradient(loss, rows)
    torch.testing.assert_close(found[mirrored], -found, rtol=0, atol=1e-12)  # no side is preferred


def test_a_schedule_changes_the_miner_at_its_step_and_a_checkpoint_knows_where_it_is() -> None:
    rows, label = batch()
    scheduled = Triplet(miner=Schedule([SemiHard(), HardestPositives(All()), BatchHard()], begin=[3, 5]))

    def loss(miner: Miner) -> float:
        return Triplet(miner=miner)(rows, label, valid(rows))[0].item()

    expected = [SemiHard()] * 3 + [HardestPositives(All())] * 2 + [BatchHard()] * 2
    for step, miner in enumerate(expected):
        scheduled.at_step(step)
        assert scheduled(rows, label, valid(rows))[0].item() == loss(miner), step
        restored = Triplet(miner=scheduled.miner)
        restored.load_state_dict(scheduled.state_dict())
        assert restored(rows, label, valid(rows))[0].item() == loss(miner), step
    for begin in ([3], [5, 3], [0, 3], [3, 3]):
        with pytest.raises(InputError, match="give for each miner but the first the step"):
            Schedule([SemiHard(), All(), BatchHard()], begin=begin)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_distances_do_not_lose_digits_far_from_the_origin(offset: float) -> None:
    """In float32, rows 0.01 apart and 1,000 from the origin: each coordinate still has 1/16,000, and the gradient no less."""
    rows, label = batch(num=10)
    near = (0.01 * rows.detach()).float() + offset
    exact = near.double().requires_grad_()
    rough = near.clone().requires_grad_()
    found, expected = (gradient(Triplet(margin=0.01, miner=All())(one, label, valid(one))[0], one) for one in (rough, exact))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_memory_of_the_exact_mean_does_not_grow_with_the_triplets() -> None:
    """Nothing as large as the matrix of distances is kept for the backward pass."""
    rows, label = batch(num=300, num_labels=20)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Triplet()(rows, label, valid(rows))
    assert max(kept) < 300 * 300 / 10


def test_wrong_input_is_refused_with_what_to_do() -> None:
    rows = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"takes rows \(b, d\) and one int64 label for each. Set data.target to multimodal.data.Labels"):
        Siamese()(rows, rows, valid(rows))
    with pytest.raises(ValueError, match="valid must be bool of shape"):
        Siamese()(rows, torch.arange(3), torch.ones(3))
    for kind in (Siamese, SiameseSquared, Triplet, TripletApart):
        with pytest.raises(ValueError, match=f"{kind.__name__}: margin=0 must be above 0"):
            kind(margin=0)
    with pytest.raises(ValueError, match="temperature=0 must be above 0"):
        SupervisedContrastive(temperature=0)
    with pytest.raises(TypeError, match="call .at"):
        Schedule([SemiHard()], begin=[]).choose(None)  # type: ignore[arg-type]
