"""A batch in micro-batches: the loss and gradient of the whole, at the memory of a part."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from multimodal.cli import main
from multimodal.errors import InputError
from multimodal.objectives import Clip, Cosine, KLDivergence, MeanSquaredError, Objective, SigLip, SigmoidCrossEntropy, SoftCrossEntropy
from multimodal.towers import Head, ImageTower, NoWeights, Trunk
from multimodal.training import PairModule
from multimodal.training.door import build, fit
from multimodal.training.micro_batches import encode
from multimodal.training.validate import validate

DIM_IN, DIM = 12, 8
OBJECTIVES: list[Callable[[], Objective]] = [
    Clip,
    SigLip,
    partial(SigLip, scale=2.0, bias=0.5),
    Cosine,
    KLDivergence,
    MeanSquaredError,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
]


class Letters(nn.Module):
    """Strings to vectors, by how often each letter is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(26, DIM)

    def forward(self, texts: Sequence[str]) -> Tensor:
        counts = torch.tensor([[text.count(chr(97 + letter)) for letter in range(26)] for text in texts], dtype=torch.float64)
        return torch.sigmoid(self.output(counts.to(self.output.weight)))


class Model(nn.Module):
    """An image tower with dropout, a target side and an objective; equal seeds have equal weights."""

    def __init__(self, objective: Objective, target_side: Callable[[], nn.Module], dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.image_tower = nn.Sequential(nn.Linear(DIM_IN, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, DIM), nn.Dropout(dropout))
        self.target_side = target_side()
        self.objective = objective

    def forward(self, image: Tensor, text: Tensor | Sequence[str], valid: Tensor, micro_batch_size: int | None) -> Tensor:
        sides = (encode(tower, of, micro_batch_size) for tower, of in self.sides(image, text))
        loss: Tensor = self.objective(*sides, valid)[0]
        return loss

    def sides(self, image: Tensor, text: Tensor | Sequence[str]) -> list[tuple[nn.Module, Tensor | Sequence[str]]]:
        return [(self.image_tower, image), (self.target_side, text)]


def outcome(model: Model, image: Tensor, text: Tensor | Sequence[str], valid: Tensor, micro_batch_size: int | None) -> list[Tensor]:
    """The loss, and the gradient of each parameter."""
    torch.manual_seed(2)
    loss = model(image, text, valid, micro_batch_size)
    loss.backward()
    return [loss.detach(), *(torch.zeros_like(one) if one.grad is None else one.grad for one in model.parameters())]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("target_side", [nn.Identity, partial(nn.Linear, DIM, DIM), Letters])
def test_loss_and_gradient_are_those_of_one_large_batch(
    make: Callable[[], Objective], target_side: Callable[[], nn.Module], dtype: torch.dtype, tolerance: float
) -> None:
    if make().__class__ in (SigmoidCrossEntropy, KLDivergence, SoftCrossEntropy) and target_side().__class__ is nn.Linear:
        target_side = lambda: nn.Sequential(nn.Linear(DIM, DIM), nn.Softmax(dim=1))  # noqa: E731  targets in [0, 1]
    given = torch.Generator().manual_seed(0)
    image = torch.randn(1024, DIM_IN, generator=given, dtype=dtype)
    columns = torch.softmax(torch.randn(1024, DIM, generator=given, dtype=dtype), dim=1)
    letters = torch.randint(97, 123, (1024, 9), generator=given)
    texts = ["".join(map(chr, row)) for row in letters.tolist()]
    valid = torch.rand(1024, generator=given) < 0.9
    whole, parts = (
        outcome(Model(make(), target_side).to(dtype), image, texts if target_side is Letters else columns, valid, size)
        for size in (None, 64)
    )
    assert parts[0].item() == pytest.approx(whole[0].item(), rel=tolerance)
    scale = torch.cat([gradient.flatten() for gradient in whole[1:]]).norm()
    for part, expected in zip(parts[1:], whole[1:], strict=True):
        assert (part - expected).norm() <= tolerance * scale


@given(num=st.integers(1, 40), size=st.integers(1, 50), num_invalid=st.integers(0, 40), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_any_size_of_batch_and_micro_batch_and_any_number_of_invalid_rows(num: int, size: int, num_invalid: int, seed: int) -> None:
    given = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(num, dim, generator=given, dtype=torch.float64) for dim in (DIM_IN, DIM))
    valid = torch.arange(num) < num - num_invalid
    image[~valid] = 0.0  # what loaders put where there is no pair
    whole, parts = (outcome(Model(Clip(), nn.Identity).double(), image, text, valid, of) for of in (None, size))
    for part, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


class Chance(nn.Module):
    """Adds noise of each generator that a tower may use: torch's, Python's and NumPy's."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows * (1 + 0.1 * (torch.randn(()) + random.gauss(0, 1) + np.random.default_rng(np.random.randint(99)).normal()))


CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA"))


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("make", [Clip, SigLip])
def test_a_micro_batch_draws_the_same_random_numbers_when_it_is_encoded_again(make: Callable[[], Objective], device: str) -> None:
    """Equal to the same micro-batches with all activations kept."""
    image = torch.randn(50, DIM_IN, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    texts, valid = [f"{chr(97 + number % 26)} thing {number}" for number in range(50)], torch.ones(50, dtype=torch.bool, device=device)
    found, drawn_next = [], []
    for cached in (True, False):
        model = Model(make(), lambda: nn.Sequential(Letters(), Chance(), nn.Dropout(0.3)), dropout=0.5).double().to(device)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        if cached:
            loss = model(image, texts, valid, 16)
        else:
            sides = (torch.cat([tower(of[start : start + 16]) for start in range(0, 50, 16)]) for tower, of in model.sides(image, texts))
            loss = model.objective(*sides, valid)[0]
        loss.backward()
        drawn_next.append((torch.rand(()), torch.rand((), device=device), random.random(), np.random.random()))
        found.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for one, expected in zip(*found, strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-12)
    assert drawn_next[0] == drawn_next[1]  # as if nothing was encoded again


class Watched(nn.Module):
    """Counts the rows whose activations are in memory while it encodes others."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(DIM_IN, 16), nn.Linear(16, DIM)
        self.kept: list[tuple[StorageWeakRef, int]] = []
        self.most = self.num_calls = 0

    def forward(self, rows: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(rows))  # tanh's backward and that of the next layer need its output
        self.kept = [(ref, num) for ref, num in self.kept if not ref.expired()] + [(StorageWeakRef(hidden.untyped_storage()), len(rows))]
        self.most, self.num_calls = max(self.most, sum(num for _, num in self.kept)), self.num_calls + 1
        return self.output(hidden)


@pytest.mark.parametrize(("num", "size"), [(64, 16), (256, 16), (1000, 16)])
def test_the_activations_of_one_micro_batch_are_kept_at_a_time(num: int, size: int) -> None:
    tower = Watched()
    rows, text, valid = torch.randn(num, DIM_IN), torch.randn(num, DIM), torch.ones(num, dtype=torch.bool)
    Clip()(encode(tower, rows, size), text, valid)[0].backward()
    assert tower.most <= 2 * size and tower.num_calls == 2 * -(-num // size)  # an old one may go when the next one's are made
    tower.most = 0
    with torch.no_grad():  # as in validation
        encode(tower, rows, size)
    assert tower.most <= 2 * size
    tower(rows)
    assert tower.most >= num  # it does count


def test_in_bfloat16_it_is_as_near_to_float64_as_one_large_batch_is() -> None:
    given = torch.Generator().manual_seed(0)
    image, text = (torch.randn(1024, dim, generator=given, dtype=torch.float64) for dim in (DIM_IN, DIM))
    valid, side = torch.ones(1024, dtype=torch.bool), partial(nn.Linear, DIM, DIM)
    exact = torch.cat([one.flatten() for one in outcome(Model(Clip(), side).double(), image, text, valid, None)])
    off = []
    for size in (None, 8):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = outcome(Model(Clip(), side), image.float(), text.float(), valid, size)
        off.append((torch.cat([one.flatten() for one in found]) - exact).norm())
    assert off[1] < 1.5 * off[0]


class Running(nn.Module):
    """Its own statistics of all rows so far, in a buffer that it replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(DIM_IN))

    def forward(self, rows: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * rows.detach().mean(0)
        return rows - self.mean


def test_statistics_of_a_batch_are_refused_unless_they_are_frozen() -> None:
    trunk = lambda frozen: Trunk("test_efficientnet", NoWeights(0), frozen=frozen, size=32)  # noqa: E731
    tower = lambda trunk: ImageTower(trunk, Head(trunk.dim, DIM))  # noqa: E731
    with pytest.raises(
        InputError, match=r"image_tower.trunk.model.bn1 is a BatchNormAct2d.*frozen: true.*leave model.micro_batch_size out"
    ):
        PairModule(tower(trunk(False)), nn.Identity(), Clip(), micro_batch_size=4)
    with pytest.raises(InputError, match="target_side.standardise is a Standardise"):
        PairModule(Head(6, 4), Head(5, 4, standardise=True), Clip(), micro_batch_size=4)
    with pytest.raises(InputError, match="must be at least 1, or null"):
        PairModule(Head(6, 4), nn.Identity(), Clip(), micro_batch_size=0)
    for counts, rows in ((Running(), torch.randn(9, DIM_IN)), (nn.InstanceNorm1d(3, track_running_stats=True), torch.randn(9, 3, 4))):
        with pytest.raises(InputError, match="encoding changes .*mean of .*, and each micro-batch is encoded twice"):
            encode(counts, rows, 4)
    assert encode(counts.eval(), rows, 4).shape == rows.shape

    module = PairModule(tower(trunk(True)), nn.Identity(), Clip(), micro_batch_size=4)
    pictures = torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8)
    parts, whole = (encode(module.image_tower, pictures, size) for size in (4, None))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


RECIPE = """
model:
  image_tower: {class_path: multimodal.towers.Head, init_args: {dim_in: 6, dim_out: 6, hidden: 16, dropout: 0, standardise: false}}
  target_side: {class_path: multimodal.towers.Head, init_args: {dim_in: 4, dim_out: 6}}
  objective: {class_path: multimodal.objectives.Clip}
  optimiser:
    class_path: multimodal.training.SGDSteps
    init_args: {lr: 0.1}
data:
  image: {class_path: multimodal.data.ColumnRows, init_args: {name: some_bad}}
  target: {class_path: multimodal.data.ColumnRows, init_args: {name: topics}}
  batch_size: 32
  validation_share: 0.2
preflight: {export: false, max_steps: 0}
trainer: {accelerator: cpu, max_epochs: 2, log_every_n_steps: 1, precision: 64-true}
"""
COUNTS = '''
import json, os
from lightning.pytorch.callbacks import Callback
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

class Counts(Callback):
    """Writes down how often DDP has averaged each bucket of gradients over ranks."""

    def __init__(self, path: str):
        self.path, self.num = path, {}

    def on_train_start(self, trainer, module):
        trainer.strategy.model.register_comm_hook(None, self._averages)

    def _averages(self, state, bucket):
        self.num[bucket.index()] = self.num.get(bucket.index(), 0) + 1
        return allreduce_hook(None, bucket)

    def on_train_end(self, trainer, module):
        if trainer.is_global_zero:
            with open(self.path, "w") as file:
                json.dump([trainer.global_step, self.num], file)
'''


@pytest.fixture
def command(pairs: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a contrastive run in float64, with pairs that cannot be read and a last batch that is padded."""
    (tmp_path / "contrastive.yaml").write_text(RECIPE)
    common = ["--config", str(tmp_path / "contrastive.yaml"), "--data.shards", str(pairs)]
    return lambda name, *more: [*common, "--run", str(tmp_path / name), *more]


def weights(run: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("more", "tolerance"),
    [
        (["--model.objective", "multimodal.objectives.SigLip", "--trainer.gradient_clip_val", "0.1"], 1e-10),
        (["--trainer.precision", "32-true", "--preflight.max_steps", "100"], 1e-5),
        (["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.5"], 1e-10),
        (["--model.objective", "multimodal.objectives.MeanSquaredError", "--trainer.accumulate_grad_batches", "2"], 1e-10),
    ],
)
def test_a_run_in_micro_batches_is_the_run_in_whole_batches(command: Callable[..., list[str]], more: list[str], tolerance: float) -> None:
    whole, parts = fit(command("whole", *more)), fit(command("parts", *more, "--model.micro_batch_size", "7"))
    assert_close(whole, parts, tolerance)
    start = build(command("start", *more))[0].state_dict()
    assert any((value - start[name]).norm() > 20 * tolerance for name, value in weights(whole).items() if name in start)
    assert (whole / "manifest.json").read_bytes() == (parts / "manifest.json").read_bytes()  # it is where, not what, is computed
    again = fit(command("parts", *more, "--model.micro_batch_size", "5"))  # so another one is no other run
    figures = validate(again, accelerator="cpu")
    assert figures["val/num_pairs"] > 0


def test_a_run_in_bfloat16_is_as_near_to_one_in_float32_in_micro_batches_as_in_whole_ones(command: Callable[..., list[str]]) -> None:
    rounded = ["--trainer.precision", "bf16-mixed"]
    exact = weights(fit(command("exact", "--trainer.precision", "32-true")))
    whole, parts = (weights(fit(command(f"of_{size}", *rounded, "--model.micro_batch_size", size))) for size in ("null", "7"))
    off = [torch.stack([(value - exact[name]).norm() for name, value in run.items()]).norm() for run in (whole, parts)]
    assert 0 < off[1] < 1.5 * off[0]


def test_two_processes_in_micro_batches_train_what_one_does_and_average_their_gradients_once_a_step(
    command: Callable[..., list[str]], launch: Callable[..., list[int]], tmp_path: Path
) -> None:
    (tmp_path / "counts.py").write_text(COUNTS)
    counts = ["--trainer.callbacks+=counts.Counts", "--trainer.callbacks.path", str(tmp_path / "counts.json")]
    assert launch(command("two", "--model.micro_batch_size", "5", *counts), num_ranks=2) == [0, 0]
    one = fit(command("one"))
    assert_close(tmp_path / "two", one, 1e-10)
    num_steps, averaged = json.loads((tmp_path / "counts.json").read_text())
    assert num_steps == 6 and averaged and set(averaged.values()) == {num_steps}


def test_validate_repeats_the_figures_and_names_a_size_that_is_no_number(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(command("run", "--trainer.precision", "32-true", "--model.micro_batch_size", "3"))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("micro_batch_size: 3", "micro_batch_size: three"))
    assert main(["validate", "--run", str(run), "--accelerator", "cpu"]) == 2
    assert "model.micro_batch_size is 'three'; expected a whole number or null" in capsys.readouterr().err
