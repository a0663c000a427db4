"""What any objective must do, to be called with one's own in one line.

    assert_conforms(Cosine, slow=lambda image, text: (1 - cos(image, text)).mean())
    assert_ranks_equal_one(Cosine, partial(Clip, scale=5.0))       # two processes; one call for many objectives, since starting them takes
    seconds

`slow` says what the objective means for rows that all count, in the plainest loop: (objective, image (n, d), text (n, d)) -> a number.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn

from multimodal.objectives.base import Objective

Make = Callable[[], Objective]
Slow = Callable[[Objective, Tensor, Tensor], float]
TIMEOUT_S = 120.0
NUM, DIM, DIM_IN = 12, 5, 4


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs of a tower (n, e), target rows (n, d) and validity (n,), all of which a test may change."""

    inputs: Tensor
    text: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one backward pass gave: the loss, and the gradient of every parameter of tower and objective in one row."""

    loss: Tensor
    gradient: Tensor


def example(seed: int = 0, num: int = NUM, num_invalid: int = 3) -> Example:
    """Random rows in float64; targets are distributions, which every objective can take. The last rows are invalid."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num, DIM_IN, generator=generator, dtype=torch.float64)
    text = torch.softmax(2 * torch.randn(num, DIM, generator=generator, dtype=torch.float64), dim=1)
    return Example(inputs, text, torch.arange(num) < num - num_invalid)


def outcome(make: Make, example: Example) -> Outcome:
    """Of a linear tower of fixed weights and a new objective, in this process alone."""
    model = _Model(make())
    return _run(model, model, example)


def assert_conforms(make: Make, slow: Slow) -> None:
    """All that one process can show; `assert_ranks_equal_one` shows the rest."""
    assert_equals_the_loop(make, slow)
    assert_row_order_is_irrelevant(make)
    assert_invalid_rows_change_nothing(make)
    assert_nothing_valid_costs_nothing(make)
    assert_finite_in_bf16(make)


def assert_equals_the_loop(make: Make, slow: Slow) -> None:
    """The loss is what the plain loop over the rows that count says, with invalid rows about and without."""
    for num_invalid in (0, 3):
        given = example(num_invalid=num_invalid)
        model = _Model(make())
        image = model.tower(given.inputs).detach()
        loss, parts = model.objective(image, given.text, given.valid)
        expected = slow(model.objective, image[given.valid], given.text[given.valid])
        assert abs(loss.item() - expected) < 1e-8, (
            f"the loss is {loss.item()}, and the loop over {int(given.valid.sum())} rows says {expected}"
        )
        assert parts["loss"].item() == loss.item() and parts["rows"].item() == given.valid.sum().item()
        assert not any(part.requires_grad for part in parts.values()), "parts are to be logged: detach them"
        assert model.objective.output(image).shape == image.shape


def assert_row_order_is_irrelevant(make: Make) -> None:
    """Rows in another order give the same loss and gradient."""
    given = example()
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(1))
    _assert_equal(
        outcome(make, given), outcome(make, Example(given.inputs[order], given.text[order], given.valid[order])), "rows in another order"
    )


def assert_invalid_rows_change_nothing(make: Make) -> None:
    """Rows that are marked, whatever they hold, and rows whose text is all zeros count as if they were not there, in loss and gradient."""
    given = example()
    keep = given.valid
    alone = outcome(make, Example(given.inputs[keep], given.text[keep], keep[keep]))
    _assert_equal(outcome(make, given), alone, "invalid rows")
    for poison in (float("nan"), float("inf"), 1e30):
        text = torch.where(keep[:, None], given.text, poison)
        _assert_equal(outcome(make, Example(given.inputs, text, keep)), alone, f"invalid text rows of {poison}")
        image = torch.where(keep[:, None], _Model(make()).tower(given.inputs), poison).detach().requires_grad_()
        make()(image, given.text, keep)[0].backward()
        assert image.grad is not None and torch.isfinite(image.grad).all(), f"invalid image rows of {poison} reach the gradient"
        assert (image.grad[~keep] == 0).all(), "invalid image rows have a gradient"
    unknown = torch.where(keep[:, None], given.text, 0.0)
    _assert_equal(outcome(make, Example(given.inputs, unknown, torch.ones_like(keep))), alone, "texts without a known word")


def assert_nothing_valid_costs_nothing(make: Make) -> None:
    """A batch without a valid row has loss 0 and a gradient of zeros: a backward pass, for ranks that stay in step, and no change."""
    nothing = outcome(make, example(num_invalid=NUM))
    assert nothing.loss.item() == 0 and (nothing.gradient == 0).all()


def assert_finite_in_bf16(make: Make) -> None:
    """Loss and gradient are finite with bfloat16 sides and under autocast, also for rows that are large, and the loss is near that of
    float32.
    """
    given = example()
    for scale in (1.0, 100.0):
        objective = make()
        image = (scale * _Model(objective).tower(given.inputs)).detach()
        expected, _ = objective(image, given.text, given.valid)
        rough = image.to(torch.bfloat16).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = objective(rough, given.text.to(torch.bfloat16), given.valid)
        loss.backward()
        assert rough.grad is not None and torch.isfinite(loss) and torch.isfinite(rough.grad).all(), (
            f"not finite in bfloat16 at scale {scale}"
        )
        # bfloat16 keeps 8 bits, of each side; a sum that went through it as well would be further off
        assert abs(loss.item() - expected.item()) <= 0.05 * max(1.0, abs(expected.item())), (
            f"{loss.item()} in bfloat16, {expected.item()} in float64"
        )


def assert_ranks_equal_one(*makes: Make) -> None:
    """Two processes under DistributedDataParallel have the loss and the gradient of one that sees all rows; also with a rank without a
    valid row.

    The objectives must pickle: a class, or a functools.partial of one. TimeoutError where the processes do not finish, as on a machine
    without loopback.
    """
    examples = [example(), example(seed=1, num_invalid=0), example(seed=2, num_invalid=NUM // 2), example(seed=3, num_invalid=NUM)]
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        ranks = [context.Process(target=_rank, args=(rank, 2, folder, makes, examples), daemon=True) for rank in range(2)]
        threads, os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS"), "1"
        try:
            for process in ranks:
                process.start()
        finally:
            os.environ.pop("OMP_NUM_THREADS") if threads is None else os.environ.update(OMP_NUM_THREADS=threads)
        _join(ranks)
        results = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]
    cases = [(make, given) for make in makes for given in examples]
    for number, (make, given) in enumerate(cases):
        alone = outcome(make, given)
        for rank in range(2):
            case = f"{make}, example {number % len(examples)}: rank {rank} of 2"
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
        loss: Tensor = self.objective(self.tower(given.inputs), given.text, given.valid)[0]
        return loss


def _run(module: nn.Module, model: _Model, given: Example) -> Outcome:
    loss = module(given)
    loss.backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return Outcome(loss.detach(), torch.cat([gradient.flatten() for gradient in gradients]))


def _rank(rank: int, world_size: int, folder: str, makes: tuple[Make, ...], examples: list[Example]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    results = []
    for make in makes:
        for given in examples:
            model = _Model(make())
            mine = slice(rank * NUM // world_size, (rank + 1) * NUM // world_size)
            part = Example(given.inputs[mine], given.text[mine], given.valid[mine])
            found = _run(nn.parallel.DistributedDataParallel(model), model, part)
            results.append((found.loss, found.gradient))
    torch.save(results, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def _join(processes: Sequence[BaseProcess]) -> None:
    try:
        for process in processes:
            process.join(TIMEOUT_S)
            if process.is_alive():
                raise TimeoutError(f"two gloo ranks did not finish in {TIMEOUT_S:.0f} s. Is the loopback network device up?")
            if process.exitcode:
                raise RuntimeError(f"a rank ended with exit code {process.exitcode}; its traceback is on stderr")
    finally:
        for process in processes:
            process.kill()


def _assert_equal(one: Outcome, other: Outcome, case: str) -> None:
    torch.testing.assert_close(one.loss, other.loss, atol=1e-8, rtol=0, msg=lambda text: f"{case}: the loss differs. {text}")
    torch.testing.assert_close(one.gradient, other.gradient, atol=1e-8, rtol=0, msg=lambda text: f"{case}: the gradient differs. {text}")
