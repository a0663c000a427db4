"""What any objective must do, as checks for your own objective, one line each.

    assert_conforms(Cosine, slow=lambda image, target: (1 - cos(image, target)).mean())
    assert_ranks_equal_one(Cosine, partial(Clip, scale=5.0))       # two processes, which take seconds to start:
                                                                   # check many objectives in one call

`slow` defines the objective for valid rows, as the plainest loop: (objective, image (n, d), target (n, d)) -> a number. If the objective
uses the identity of its rows, `slow` gets it as a fourth argument (n, 2). If it takes labels, target is (n,) int64.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn

from multimodal.objectives.base import Objective, RowObjective
from multimodal.objectives.pretext import PretextClasses

Make = Callable[[], Objective]
Slow = Callable[..., float]
TIMEOUT_S = 120.0
NUM, DIM, DIM_IN, NUM_CLASSES = 12, 5, 4, 4


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs of a tower (n, e), target rows (n, d), validity (n,), identity (n, 2), and classes (n,) int64, which tests may change."""

    inputs: Tensor
    target: Tensor
    valid: Tensor
    identity: Tensor
    classes: Tensor

    def at(self, rows: Tensor | slice) -> Example:
        """Some of the rows, or all in another order."""
        return Example(self.inputs[rows], self.target[rows], self.valid[rows], self.identity[rows], self.classes[rows])

    def target_of(self, objective: Objective) -> Tensor:
        """What teaches the pictures: the classes for an objective that takes labels, or answers that are numbers; else the target rows."""
        return self.classes if objective.takes_labels or isinstance(objective, PretextClasses) else self.target

    def labels(self, objective: Objective) -> tuple[Tensor, ...]:
        """What the objective takes after the two sides."""
        return (self.valid, self.identity) if objective.uses_identity else (self.valid,)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one backward pass: the loss, and the gradient of every parameter of tower and objective as one vector."""

    loss: Tensor
    gradient: Tensor


def example(seed: int = 0, num: int = NUM, num_invalid: int = 3) -> Example:
    """Random rows in float64; targets are distributions, which every objective accepts. The last rows are invalid.

    Some rows have the picture of another one, and some its target, by their identity. There are four classes, of several rows each.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num, DIM_IN, generator=generator, dtype=torch.float64)
    target = torch.softmax(2 * torch.randn(num, DIM, generator=generator, dtype=torch.float64), dim=1)
    identity = torch.randint(0, 2 * num, (num, 2), generator=generator)
    classes = torch.arange(num)[torch.randperm(num, generator=generator)] % NUM_CLASSES
    return Example(inputs, target, torch.arange(num) < num - num_invalid, identity, classes)


def outcome(make: Make, example: Example) -> Outcome:
    """Loss and gradient with a linear tower of fixed weights and a new objective, in this process alone."""
    model = _Model(make())
    return _run(model, model, example)


def assert_conforms(make: Make, slow: Slow) -> None:
    """All checks that one process can do; `assert_ranks_equal_one` does the rest."""
    assert_row_loss_is_one_number_a_row(make)
    assert_equals_the_loop(make, slow)
    assert_only_its_arguments_count(make)
    assert_output_is_of_each_row_alone(make)
    assert_row_order_is_irrelevant(make)
    assert_identity_is_equality_alone(make)
    assert_labels_are_equality_alone(make)
    assert_invalid_rows_change_nothing(make)
    assert_nothing_valid_costs_nothing(make)
    assert_finite_in_bf16(make)


def assert_row_loss_is_one_number_a_row(make: Make) -> None:
    """A `RowObjective` returns one number per row: its base class takes the mean over the valid rows of all ranks."""
    given, objective = example(num_invalid=0), make()
    if isinstance(objective, RowObjective):
        shape = tuple(objective.row_loss(_Model(objective).tower(given.inputs).detach(), given.target).shape)
        assert shape == (NUM,), f"row_loss gives shape {shape} for {NUM} rows, expected ({NUM},): one number per row, not their mean"


def assert_only_its_arguments_count(make: Make) -> None:
    """forward changes neither side, and the same batch has the same loss again after other batches."""
    given, other = example(), example(seed=1)
    objective = _Model(make()).objective
    tower = _Model(objective).tower
    arguments = tower(given.inputs).detach(), given.target_of(objective), *given.labels(objective)
    before = [argument.clone() for argument in arguments]
    first = objective(*arguments)[0].item()
    untouched = all(torch.equal(argument, copy) for argument, copy in zip(arguments, before, strict=True))
    assert untouched, "forward changes its inputs: work on copies"
    objective(tower(other.inputs).detach(), other.target_of(objective), *other.labels(objective))
    again = objective(*arguments)[0].item()
    assert again == first, f"the loss of a batch is {first}, and {again} after another batch: it must depend on its arguments alone"


def assert_output_is_of_each_row_alone(make: Make) -> None:
    """The vectors that stores hold: finite, not zero, different for different rows, and independent of the other rows."""
    given = example()
    model = _Model(make())
    image = model.tower(given.inputs).detach()
    for mode in (True, False):
        output = model.train(mode).objective.output(image)
        assert output.shape == image.shape, f"output has shape {tuple(output.shape)} for input {tuple(image.shape)}"
        assert torch.isfinite(output).all(), "output is not finite"
        assert (output != 0).any(dim=1).all(), "output is zero in some row, which no query can find"
        assert len(output.unique(dim=0)) == NUM, "output is the same for different rows"
        alone = torch.cat([model.objective.output(row) for row in image.split(1)])
        torch.testing.assert_close(alone, output, atol=1e-8, rtol=0, msg=lambda text: f"output of a row depends on the other rows. {text}")


def assert_equals_the_loop(make: Make, slow: Slow) -> None:
    """The loss equals that of the plain loop over the valid rows, with and without invalid rows, in training and evaluation."""
    for num_invalid, mode in ((0, True), (3, True), (3, False)):
        given = example(num_invalid=num_invalid)
        model = _Model(make()).train(mode)
        image = model.tower(given.inputs).detach()
        loss, parts = model.objective(image, given.target_of(model.objective), *given.labels(model.objective))
        kept = given.at(given.valid)
        expected = slow(model.objective, image[given.valid], kept.target_of(model.objective), *kept.labels(model.objective)[1:])
        assert abs(loss.item() - expected) < 1e-8, (
            f"the loss{'' if mode else ' in eval mode'} is {loss.item()}, but the loop over {int(given.valid.sum())} rows gives {expected}"
        )
        assert {"loss", "rows"} <= parts.keys(), f"parts hold {', '.join(parts) or 'nothing'}; loss and rows are required"
        assert parts["loss"].item() == loss.item() and parts["rows"].item() == given.valid.sum().item()
        assert not any(part.requires_grad for part in parts.values()), "parts are for logging: detach them"


def assert_row_order_is_irrelevant(make: Make) -> None:
    """Rows in another order give the same loss and gradient."""
    given = example()
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(1))
    _assert_equal(outcome(make, given), outcome(make, given.at(order)), "rows in another order")


def assert_identity_is_equality_alone(make: Make) -> None:
    """What counts is which rows have equal numbers, not the numbers."""
    given = example()
    renumbered = replace(given, identity=2**61 - 3 * given.identity)
    _assert_equal(outcome(make, renumbered), outcome(make, given), "other numbers for the same pictures and texts")


def assert_labels_are_equality_alone(make: Make) -> None:
    """What counts is which rows have equal labels, not the labels; unless the objective learns something for each of them."""
    given, objective = example(), make()
    if objective.takes_labels and not any(True for _ in objective.parameters()):
        renumbered = replace(given, classes=2**61 - 3 * given.classes)
        _assert_equal(outcome(make, renumbered), outcome(make, given), "other numbers for the same labels")


def assert_invalid_rows_change_nothing(make: Make) -> None:
    """Rows that are marked invalid, with any content, and rows with all-zero target change neither loss nor gradient."""
    given = example()
    keep = given.valid
    alone = outcome(make, given.at(keep))
    _assert_equal(outcome(make, given), alone, "invalid rows")
    for poison in (float("nan"), float("inf"), 1e30):
        target = torch.where(keep[:, None], given.target, poison)
        _assert_equal(outcome(make, replace(given, target=target)), alone, f"invalid target rows of {poison}")
        image = torch.where(keep[:, None], _Model(make()).tower(given.inputs), poison).detach().requires_grad_()
        objective = make()
        objective(image, given.target_of(objective), *given.labels(objective))[0].backward()
        assert image.grad is not None and torch.isfinite(image.grad).all(), f"invalid image rows of {poison} reach the gradient"
        assert (image.grad[~keep] == 0).all(), "invalid image rows have a gradient"
    for number in (*given.classes.unique().tolist(), -1, 2**62):
        classes = torch.where(keep, given.classes, number)
        _assert_equal(outcome(make, replace(given, classes=classes)), alone, f"invalid rows of class {number}")
    if not make().compares_with_texts:
        return
    unknown = torch.where(keep[:, None], given.target, 0.0)
    _assert_equal(outcome(make, replace(given, target=unknown, valid=torch.ones_like(keep))), alone, "texts without a known word")


def assert_nothing_valid_costs_nothing(make: Make) -> None:
    """A batch without a valid row has loss 0 and a gradient of zeros: backward runs, so that ranks stay in step, and changes nothing."""
    nothing = outcome(make, example(num_invalid=NUM))
    assert nothing.loss.item() == 0 and (nothing.gradient == 0).all()


def assert_finite_in_bf16(make: Make) -> None:
    """Loss and gradient are finite with bfloat16 sides and under autocast, also for large rows, and the loss is near that of the same
    sides in float64.
    """
    given = example()
    for scale in (1.0, 100.0):
        objective = make()
        rough = (scale * _Model(objective).tower(given.inputs)).detach().to(torch.bfloat16).requires_grad_()
        rounded = replace(given, target=given.target.to(torch.bfloat16))
        exact = replace(rounded, target=rounded.target.double())
        expected, _ = objective(rough.detach().double(), exact.target_of(objective), *exact.labels(objective))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = objective(rough, rounded.target_of(objective), *rounded.labels(objective))
        loss.backward()
        assert rough.grad is not None and torch.isfinite(loss) and torch.isfinite(rough.grad).all(), (
            f"not finite in bfloat16 at scale {scale}"
        )
        # a sum in bfloat16, which keeps 8 bits, would be further off
        assert abs(loss.item() - expected.item()) <= 0.05 * max(1.0, abs(expected.item())), (
            f"{loss.item()} in bfloat16, {expected.item()} in float64"
        )


def assert_ranks_equal_one(*makes: Make, num_ranks: int = 2) -> None:
    """Several processes under DistributedDataParallel have the loss and gradient of one that sees all rows, also if some have no
    valid row.

    The objectives must pickle: a class, or a functools.partial of one. TimeoutError where the processes do not finish, as on a machine
    without loopback.
    """
    examples = [example(), example(seed=1, num_invalid=0), example(seed=2, num_invalid=NUM // 2), example(seed=3, num_invalid=NUM)]
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        ranks = [context.Process(target=_rank, args=(rank, num_ranks, folder, makes, examples), daemon=True) for rank in range(num_ranks)]
        threads, os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS"), "1"
        try:
            for process in ranks:
                process.start()
        finally:
            os.environ.pop("OMP_NUM_THREADS") if threads is None else os.environ.update(OMP_NUM_THREADS=threads)
        _join(ranks)
        results = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(num_ranks)]
    cases = [(make, given) for make in makes for given in examples]
    for number, (make, given) in enumerate(cases):
        alone = outcome(make, given)
        for rank in range(num_ranks):
            case = f"{make}, example {number % len(examples)}: rank {rank} of {num_ranks}"
            _assert_equal(Outcome(*results[rank][number]), alone, case)


class _Model(nn.Module):
    """A linear tower of fixed weights in front of the objective, in float64."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.tower = nn.Linear(DIM_IN, DIM)
        weights = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in self.tower.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=weights))
        self.objective = objective
        self.double()

    def forward(self, given: Example) -> Tensor:
        loss: Tensor = self.objective(self.tower(given.inputs), given.target_of(self.objective), *given.labels(self.objective))[0]
        return loss


def _run(module: nn.Module, model: _Model, given: Example) -> Outcome:
    loss = module(given)
    loss.backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return Outcome(loss.detach(), torch.cat([gradient.flatten() for gradient in gradients]))


def _rank(rank: int, world_size: int, folder: str, makes: tuple[Make, ...], examples: list[Example]) -> None:
    torch.set_num_threads(1)
    # Before there is a group: DistributedDataParallel imports it otherwise, its default arguments then keep the group for good, and
    # the group's threads abort the process where they free a tensor while the interpreter ends
    importlib.import_module("torch.distributed.nn")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    results = []
    for make in makes:
        for given in examples:
            model = _Model(make())
            mine = slice(rank * NUM // world_size, (rank + 1) * NUM // world_size)
            found = _run(nn.parallel.DistributedDataParallel(model), model, given.at(mine))
            results.append((found.loss, found.gradient))
    torch.save(results, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def _join(processes: Sequence[BaseProcess]) -> None:
    try:
        for process in processes:
            process.join(TIMEOUT_S)
            if process.is_alive():
                raise TimeoutError(f"{len(processes)} gloo ranks did not finish in {TIMEOUT_S:.0f} s. Is the loopback network device up?")
            if process.exitcode:
                raise RuntimeError(f"a rank ended with exit code {process.exitcode}; its traceback is on stderr")
    finally:
        for process in processes:
            process.kill()


def _assert_equal(one: Outcome, other: Outcome, case: str) -> None:
    torch.testing.assert_close(one.loss, other.loss, atol=1e-8, rtol=0, msg=lambda text: f"{case}: the loss differs. {text}")
    torch.testing.assert_close(one.gradient, other.gradient, atol=1e-8, rtol=0, msg=lambda text: f"{case}: the gradient differs. {text}")
