"""A training step here against open_clip's own, `open_clip_train.train.train_one_epoch`: equal losses and gradients for equal weights.

For CLIP and SigLIP, on one process and two, with and without accumulation: theirs keeps the features of a step's earlier batches, ours
encodes one batch in micro-batches. Two things of theirs are not the gradient of the loss, and AdamW hardly notices either: on two processes
without `--local-loss --gather-with-grad`, the gradients of the towers are smaller by the number of processes; when it accumulates, those of
scale and bias are larger by the number of batches. The first is turned on here, the second divided out.
"""

from __future__ import annotations

import importlib
import json
import math
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, multiprocessing, nn

from multimodal.objectives import Clip, SigLip
from multimodal.objectives.contrastive import begin_at
from multimodal.towers import ClipTextTower, ClipTrunk, ImageTower
from multimodal.training.micro_batches import encode

open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")
training = pytest.importorskip("open_clip_train.train", reason="needs open_clip_torch")
B, ACCUMULATED, TOLERANCE, TIMEOUT_S = 16, 2, 1e-5, 300.0
TEXTS = [
    f"{colour} {thing}" for colour in ("a red", "two blue", "green", "") for thing in ("dogs on the beach", "cat", "snow " * 9, "boats")
]
MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 10, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
CASES = [(bias, accumulate) for bias in (None, -7.0) for accumulate in (1, ACCUMULATED)]
"""(the bias: None for CLIP, a number for SigLIP; the batches of a step)"""


def pictures() -> Tensor:
    return torch.randint(0, 256, (B, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def folder_of(scratch: Path, bias: float | None) -> Path:
    """A folder of open_clip with random weights."""
    folder = scratch / f"clip{bias}"
    folder.mkdir()
    torch.manual_seed(1)
    model = open_clip.CustomTextCLIP(**MODEL, init_logit_scale=math.log(12.0), init_logit_bias=bias)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    model_cfg = {**MODEL, "custom_text": True, **({} if bias is None else {"init_logit_bias": bias})}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    return folder


class Kept(torch.optim.SGD):
    """Keeps the gradients of the step, and leaves the weights alone."""

    def step(self, closure: Any = None) -> None:
        self.kept = [parameter.grad.clone() for group in self.param_groups for parameter in group["params"]]


class Batches:
    """A rank's pairs in as many batches, as open_clip's loaders give them."""

    def __init__(self, images: Tensor, tokens: Tensor, num: int) -> None:
        self.batches = list(zip(images.chunk(num), tokens.chunk(num), strict=True))
        self.num_batches, self.num_samples = num, len(images)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


def theirs(folder: Path, bias: float | None, accumulate: int, mine: slice, rank: int, world_size: int) -> tuple[float, dict[str, Tensor]]:
    """The loss of a step of `train_one_epoch`, and the gradient of each parameter by its name."""
    model = open_clip.CustomTextCLIP(**MODEL, output_dict=True, init_logit_bias=bias)
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    images = (pictures()[mine] / 255 - mean) / std
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)[mine]
    place = {"rank": rank, "world_size": world_size}
    exact = {"local_loss": True, "gather_with_grad": True}
    loss = open_clip.loss.ClipLoss(**exact, **place) if bias is None else open_clip.loss.SigLipLoss(**place)
    losses: list[float] = []
    hook = loss.register_forward_hook(lambda *given: losses.append(sum(given[2].values()).item()))
    settings = {"device": "cpu", "precision": "fp32", "distill": False, "skip_scheduler": True, "grad_clip_norm": None, "horovod": False}
    shown = {**place, "local_rank": rank, "log_every_n_steps": 1, "batch_size": B, "wandb": False}
    optimizer = Kept(model.parameters(), lr=0.1)
    data = {"train": Namespace(set_epoch=lambda epoch: None, dataloader=Batches(images, tokens, accumulate))}
    network = nn.parallel.DistributedDataParallel(model) if world_size > 1 else model
    training.train_one_epoch(network, data, loss, 0, optimizer, None, None, None, Namespace(accum_freq=accumulate, **settings, **shown))
    hook.remove()
    return losses[-1], dict(zip([name for name, _ in model.named_parameters()], optimizer.kept, strict=True))


class Step(nn.Module):
    """Both towers and the objective, as `PairModule.training_step` goes through them."""

    def __init__(self, folder: Path, accumulate: int, world_size: int) -> None:
        super().__init__()
        self.image_tower, self.target_side = ImageTower(ClipTrunk(str(folder))), ClipTextTower(str(folder))
        pairing = self.target_side.pairing
        self.objective = Clip() if pairing.bias is None else SigLip()
        begin_at(self.objective, pairing.log_scale, pairing.bias)
        self.micro_batch_size = None if accumulate == 1 else B // accumulate // world_size

    def forward(self, images: Tensor, texts: list[str]) -> Tensor:
        image, text = encode(self.image_tower, images, self.micro_batch_size), encode(self.target_side, texts, self.micro_batch_size)
        loss: Tensor = self.objective(image, text, torch.ones(len(images), dtype=torch.bool))[0]
        return loss


def ours(folder: Path, accumulate: int, mine: slice, world_size: int) -> tuple[float, dict[str, Tensor]]:
    """The same by this project's parts; gradients by open_clip's names."""
    step = Step(folder, accumulate, world_size).train()
    network = nn.parallel.DistributedDataParallel(step) if world_size > 1 else step
    loss = network(pictures()[mine], TEXTS[mine])
    loss.backward()
    renamed = {"image_tower.trunk.model.": "visual.", "target_side.network.": "text.", "objective.log_scale": "logit_scale"}
    gradients = {}
    for name, parameter in step.named_parameters():
        for own, its in {**renamed, "objective.bias": "logit_bias"}.items():
            name = name.replace(own, its)
        assert parameter.grad is not None
        gradients[name] = parameter.grad
    return loss.item(), gradients


def differences(folder: Path, bias: float | None, accumulate: int, rank: int = 0, world_size: int = 1) -> dict[str, float]:
    """How far losses and gradients are apart, the latter in shares of the largest gradient."""
    mine = slice(rank * B // world_size, (rank + 1) * B // world_size)
    loss, gradients = ours(folder, accumulate, mine, world_size)
    their_loss, their_gradients = theirs(folder, bias, accumulate, mine, rank, world_size)
    if world_size > 1:  # each rank's own there, that of all ranks here
        total = torch.tensor(their_loss)
        distributed.all_reduce(total)
        their_loss = total.item() / world_size
    assert gradients.keys() == their_gradients.keys()
    for name in {"logit_scale", "logit_bias"} & gradients.keys():  # theirs are summed once for each batch that is accumulated
        their_gradients[name] /= accumulate
    largest = max(gradient.abs().max().item() for gradient in their_gradients.values())
    apart = {name: (gradient - their_gradients[name]).abs().max().item() / largest for name, gradient in gradients.items()}
    return {"loss": abs(loss - their_loss) / abs(their_loss), **apart}


def _rank(rank: int, scratch: str, folders: dict[float | None, Path]) -> None:
    torch.set_num_threads(1)
    importlib.import_module("torch.distributed.nn")  # before there is a group, see multimodal.objectives.conformance
    distributed.init_process_group("gloo", init_method=f"file://{scratch}/meeting", rank=rank, world_size=2)
    found = [differences(folders[bias], bias, accumulate, rank, 2) for bias, accumulate in CASES]
    torch.save(found, Path(scratch) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize(("bias", "accumulate"), CASES)
def test_a_step_has_the_loss_and_the_gradient_of_open_clips(bias: float | None, accumulate: int, tmp_path: Path) -> None:
    found = differences(folder_of(tmp_path, bias), bias, accumulate)
    assert max(found.values()) < TOLERANCE, found


def test_two_processes_have_the_loss_and_the_gradient_of_open_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {bias: folder_of(tmp_path, bias) for bias in (None, -7.0)}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(rank, str(tmp_path), folders), daemon=True) for rank in range(2)]
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(TIMEOUT_S)
            assert process.exitcode == 0
    finally:
        for process in ranks:
            process.kill()
    for rank in range(2):
        for case, found in zip(CASES, torch.load(tmp_path / f"{rank}.pt", weights_only=True), strict=True):
            assert max(found.values()) < TOLERANCE, (case, found)
