"""Our losses and miners against pytorch-metric-learning's, and its losses through our adapter.

By default it scales rows to length one and averages non-zero terms; the comparisons set both as ours has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from multimodal.errors import InputError
from multimodal.objectives import (
    All,
    BatchHard,
    Easy,
    Hard,
    LabelObjective,
    Miner,
    PytorchMetricLearning,
    SemiHard,
    Siamese,
    SupervisedContrastive,
    Triplet,
    Violating,
)
from multimodal.objectives.conformance import NUM_CLASSES, assert_conforms, assert_ranks_equal_one

pytest.importorskip("pytorch_metric_learning", reason="needs pytorch-metric-learning: the extra metric")
from pytorch_metric_learning import distances, losses, miners, reducers

PLAIN = distances.LpDistance(normalize_embeddings=False)
MARGIN = 0.7


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 5, (30,), generator=generator)
    centres = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    return (0.5 * centres[label] + torch.randn(30, 4, generator=generator, dtype=torch.float64)).requires_grad_(), label


def agree(ours: LabelObjective, theirs: Callable[[Tensor, Tensor], Tensor], times: float = 1.0) -> None:
    for seed in range(3):
        rows, label = batch(seed)
        loss = ours(rows, label, torch.ones(len(rows), dtype=torch.bool))[0]
        expected = times * theirs(rows, label)
        torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
        found, wanted = (torch.autograd.grad(one, rows)[0] for one in (loss, expected))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(All(), None), (SemiHard(), "semihard"), (Hard(), "hard"), (Violating(), "all"), (Easy(), "easy")], ids=str
)
def test_triplets_are_theirs(ours: Miner, theirs: str | None) -> None:
    loss = losses.TripletMarginLoss(margin=MARGIN, distance=PLAIN, reducer=reducers.MeanReducer())
    miner: Any = theirs and miners.TripletMarginMiner(margin=MARGIN, type_of_triplets=theirs, distance=PLAIN)
    agree(Triplet(MARGIN, ours), lambda rows, label: loss(rows, label, miner(rows, label) if miner else None))


def test_batch_hard_is_theirs() -> None:
    loss = losses.TripletMarginLoss(margin=MARGIN, distance=PLAIN, reducer=reducers.MeanReducer())
    miner = miners.BatchHardMiner(distance=PLAIN)
    agree(Triplet(MARGIN, BatchHard()), lambda rows, label: loss(rows, label, miner(rows, label)))


def test_their_mean_of_non_zero_terms_is_the_mean_of_violating_triplets() -> None:
    agree(Triplet(MARGIN, Violating()), losses.TripletMarginLoss(margin=MARGIN, distance=PLAIN))


def test_their_contrastive_loss_is_twice_the_balanced_siamese_one() -> None:
    loss = losses.ContrastiveLoss(pos_margin=0, neg_margin=3.0, distance=PLAIN, reducer=reducers.MeanReducer())
    agree(Siamese(3.0, balanced=True), loss, times=0.5)


def test_normalised_triplets_are_their_default_distance() -> None:
    loss = losses.TripletMarginLoss(margin=MARGIN, reducer=reducers.MeanReducer())
    agree(Triplet(MARGIN, All(), normalise=True), loss)


def test_the_supervised_contrastive_loss_is_theirs() -> None:
    agree(SupervisedContrastive(temperature=0.2), losses.SupConLoss(temperature=0.2))


def multi_similarity() -> PytorchMetricLearning:
    return PytorchMetricLearning(losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5))


def proxy_anchor() -> PytorchMetricLearning:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return PytorchMetricLearning(losses.ProxyAnchorLoss(num_classes=NUM_CLASSES, embedding_size=5))


def triplets() -> PytorchMetricLearning:
    return PytorchMetricLearning(losses.TripletMarginLoss(margin=MARGIN), PLAIN, reducers.MeanReducer())


ADAPTED = [multi_similarity, proxy_anchor, triplets]


@pytest.mark.parametrize("make", [multi_similarity, triplets])
def test_a_loss_of_theirs_conforms_as_an_objective(make: Callable[[], PytorchMetricLearning]) -> None:
    assert_conforms(make, lambda objective, image, label: objective.loss(image, label).item())


def test_ranks_have_the_loss_and_the_gradient_of_one_that_of_proxies_included() -> None:
    assert_ranks_equal_one(*ADAPTED)


def test_proxies_take_the_labels_that_they_were_made_for() -> None:
    objective = PytorchMetricLearning(losses.ProxyAnchorLoss(num_classes=3, embedding_size=2))
    rows, valid = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.ones(4, dtype=torch.bool)
    assert objective(rows, torch.tensor([0, 1, 2, 2]), valid)[0].isfinite()
    with pytest.raises(InputError, match="num_classes=3, and labels are from 0 to 5. Set its num_classes to 6 at least"):
        objective(rows, torch.tensor([0, 1, 5, 2]), valid)


def test_proxies_tell_their_number_where_the_loss_does_not() -> None:
    rows, label, valid = torch.randn(4, 2), torch.arange(4), torch.ones(4, dtype=torch.bool)
    for make in (losses.NormalizedSoftmaxLoss, losses.ProxyNCALoss):
        loss, _ = PytorchMetricLearning(make(num_classes=4, embedding_size=2))(rows, label, valid)
        assert loss.isfinite()
        with pytest.raises(InputError, match="num_classes=3, and labels are from 0 to 3. Set its num_classes to 4 at least"):
            PytorchMetricLearning(make(num_classes=3, embedding_size=2))(rows, label, valid)


def test_what_normalising_by_default_does_in_two_dimensions() -> None:
    """The trap: rows that differ in length alone are one point on the circle, and cost nothing to keep there."""
    rows, label = torch.tensor([[1.0, 0.0], [1.1, 0.0], [5.0, 0.0], [5.1, 0.0]]), torch.tensor([0, 0, 1, 1])
    by_default = PytorchMetricLearning(losses.TripletMarginLoss(margin=1.0))
    valid = torch.ones(4, dtype=torch.bool)
    assert by_default(rows, label, valid)[0].item() == pytest.approx(1.0)  # the margin, as if all were one point
    assert Triplet(1.0, All())(rows, label, valid)[0].item() == 0.0
