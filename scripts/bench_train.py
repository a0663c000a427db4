"""Pairs per second of a CLIP training: `multimodal fit` against open_clip's own `train_one_epoch`, in one run.

    python scripts/bench_train.py --data shards/flickr8k --out /tmp/bench --json train.json           # some 12 minutes on two idle cores
    python scripts/bench_train.py --data shards/flickr8k --out /tmp/bench --quick
    python scripts/bench_train.py --data shards/flickr8k --out /tmp/bench --device cuda --precision bf16-mixed --batch-size 256

Both train the same architecture from the same weights on the same tars, with the same optimiser, batch, precision, crops (random, 90 to
100 % of the area, mirrored in neither) and number of worker processes. Each system runs in fresh processes, in turn; a row has the median.

- Equal work: the loss of the first step on the same batch, before any speed is measured.
- The whole: a training with its loader, pictures read from disk; the second epoch counts.
- The loader alone, to normalised pictures and tokens on the device; the step alone, on one batch in memory.
- Peak memory: of the training process, and of it with its workers (the sum of their proportional set sizes, sampled twice a second).
- Floating-point operations per second of the step, as a share of a large matrix product's on this machine in the same run. Both are
  counted with texts padded to the model's context, which open_clip computes; ours stops at a batch's longest text where that changes
  nothing, so its share may be above one.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from bench_rows import Row, report

SCALE = (0.9, 1.0)
"""Of open_clip's default augmentation."""
LR, WEIGHT_DECAY, WARMUP, BETAS = 1e-4, 0.2, 2, (0.9, 0.98)
OURS, OPEN_CLIP = "ours: multimodal fit", "open_clip: train_one_epoch"
PARTS = ("whole", "loader", "step")
MATRIX = 2048


@dataclass(frozen=True, slots=True)
class Setting:
    """The command line's settings. data: a shard set with texts. out: a folder for the weights and the subset of tars."""

    data: Path
    out: Path
    model: str
    batch_size: int
    num_workers: int
    num_batches: int
    precision: str
    device: str


def bench(setting: Setting, runs: int) -> Iterator[Row]:
    """Rows: equal work, then each part for both systems in turn."""
    make_weights(setting)
    seen: dict[tuple[str, str], list[dict[str, float]]] = {}
    losses = {system: run(system, "loss", setting)["loss"] for system in (OURS, OPEN_CLIP)}
    if not math.isclose(*losses.values(), rel_tol=1e-4):
        sys.exit(f"error: not the same work: the first loss is {losses[OURS]} and {losses[OPEN_CLIP]}")
    for system, loss in losses.items():
        yield Row("the first step's loss", system, loss, "nats")
    for _ in range(runs):
        for part in PARTS:
            for system in (OURS, OPEN_CLIP):
                seen.setdefault((part, system), []).append(run(system, part, setting))
    for part in PARTS:
        speeds = {system: median(one["pairs_per_s"] for one in seen[part, system]) for system in (OURS, OPEN_CLIP)}
        for system, speed in speeds.items():
            yield Row(part, system, speed, "pairs/s", speeds[OURS] / speed)
    for name in ("main_mib", "all_mib"):
        peaks = {system: median(one[name] for one in seen["whole", system]) for system in (OURS, OPEN_CLIP)}
        case = {"main_mib": "peak memory, training process", "all_mib": "peak memory, with its workers"}[name]
        for system, peak in peaks.items():
            yield Row(case, system, peak, "MiB", peaks[OURS] / peak)
    limit = run(OPEN_CLIP, "matrix", setting)
    for system in (OURS, OPEN_CLIP):
        rate = median(one["pairs_per_s"] for one in seen["step", system]) * limit["flop_per_pair"]
        yield Row("step, of a matrix product", system, rate / 1e9, "GFLOP/s", share=rate / limit["flop_per_s"])


def make_weights(setting: Setting) -> None:
    """A folder as open_clip writes it, with random weights that both systems begin with."""
    folder = weights_folder(setting)
    if (folder / "open_clip_config.json").is_file():
        return
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model = open_clip.create_model(setting.model)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config(setting.model), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def weights_folder(setting: Setting) -> Path:
    return setting.out / f"{setting.model}-random"


def run(system: str, part: str, setting: Setting) -> dict[str, float]:
    """One part of one system in a fresh process; its figures, and its peak memory."""
    values = {**{name: str(value) for name, value in vars_of(setting).items()}}
    with tempfile.TemporaryDirectory(dir=setting.out) as scratch:
        job = {"system": system, "part": part, "scratch": scratch, "setting": values}
        started = subprocess.Popen([sys.executable, __file__, "--job", json.dumps(job)], stdout=subprocess.PIPE, text=True)
        peak, ended = _Peak(started.pid), threading.Event()
        watch = threading.Thread(target=peak.watch, args=(ended,))
        watch.start()
        printed, _ = started.communicate()
        ended.set()
        watch.join()
    if started.returncode:
        sys.exit(f"error: {system}, {part}: ended with {started.returncode}; its error is above")
    return {**json.loads(printed.splitlines()[-1]), "all_mib": peak.mib}


def vars_of(setting: Setting) -> dict[str, Any]:
    return {name: getattr(setting, name) for name in Setting.__slots__}


class _Peak:
    """The largest sum of the proportional set sizes of a process and its descendants (Linux)."""

    def __init__(self, pid: int) -> None:
        self.pid, self.mib = pid, 0.0

    def watch(self, ended: threading.Event) -> None:
        while not ended.wait(0.5):
            self.mib = max(self.mib, sum(map(_pss_mib, _family(self.pid))))


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
    except OSError:  # it has ended
        return


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


# In the processes that are measured ------------------------------------------------------------------------------------------------------


def job(given: dict[str, Any]) -> dict[str, float]:
    """One part of one system, in this process."""
    values = given["setting"]
    numbers = {name: int(values[name]) for name in ("batch_size", "num_workers", "num_batches")}
    setting = Setting(
        Path(values["data"]), Path(values["out"]), values["model"], **numbers, precision=values["precision"], device=values["device"]
    )
    parts: dict[str, dict[str, Callable[[Setting, Path], dict[str, float]]]] = {
        OURS: {"whole": our_whole, "loader": our_loader, "step": our_step, "loss": our_loss},
        OPEN_CLIP: {"whole": their_whole, "loader": their_loader, "step": their_step, "loss": their_loss, "matrix": matrix},
    }
    found = parts[given["system"]][given["part"]](setting, Path(given["scratch"]))
    return {**found, "main_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


class InMemory:
    """A loader that gives one batch again and again."""

    def __init__(self, batch: Any, setting: Setting) -> None:
        self.batch, self.num_batches, self.num_samples = batch, setting.num_batches, setting.num_batches * setting.batch_size

    def __iter__(self) -> Iterator[Any]:
        return repeat(self.batch, self.num_batches)

    def __len__(self) -> int:
        return self.num_batches


def our_whole(setting: Setting, scratch: Path) -> dict[str, float]:
    from multimodal.training.door import fit

    sys.path.insert(0, str(Path(__file__).parent))  # so that the recipe's class path finds the clock
    fit([*our_arguments(setting, scratch), "--trainer.callbacks+=bench_clock.EpochClock"])
    from bench_clock import EpochClock

    return {"pairs_per_s": setting.batch_size * setting.num_batches / EpochClock.seconds}


def our_loader(setting: Setting, scratch: Path) -> dict[str, float]:
    import torch

    module, data = our_parts(setting, scratch)
    loader, trunk = data.train_dataloader(), module.image_tower.trunk.to(setting.device)
    tokenizer = module.target_side.tokenizer
    mean, std = trunk.mean, trunk.std

    def epoch() -> None:
        for batch in islice(loader, setting.num_batches):
            batch.image.to(setting.device).float().sub_(mean).div_(std)
            tokenizer.padded([tokenizer.tokens(text).ids for text in batch.target], tokenizer.context_length)

    with torch.no_grad():
        return {"pairs_per_s": second_epoch(epoch, setting)}


def our_step(setting: Setting, scratch: Path) -> dict[str, float]:
    import lightning as L
    from bench_clock import EpochClock

    module, data = our_parts(setting, scratch)
    batch = next(iter(data.train_dataloader()))
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(
        max_epochs=2, accelerator=accelerator(setting), devices=1, precision=setting.precision, callbacks=[EpochClock()], **options
    ).fit(module, InMemory(batch, setting))
    return {"pairs_per_s": setting.batch_size * setting.num_batches / EpochClock.seconds}


def our_loss(setting: Setting, scratch: Path) -> dict[str, float]:
    import torch

    module, _ = our_parts(setting, scratch)
    pictures, texts = example(setting)
    with torch.no_grad():
        image, text = module.image_tower(pictures), module.target_side(texts)
        loss, _ = module.objective(image, text, torch.ones(len(texts), dtype=torch.bool))
    return {"loss": loss.item()}


def our_arguments(setting: Setting, scratch: Path) -> list[str]:
    """`multimodal fit` as a user calls it."""
    options = {
        "--config": "experiment/clip_scratch.yaml",
        "--clip": weights_folder(setting),
        "--model.image_tower.init_args.trunk.init_args.weights": "true",
        "--model.target_side.init_args.weights": "true",
        "--model.optimiser": json.dumps({"lr": LR, "weight_decay": WEIGHT_DECAY, "warmup_steps": WARMUP, "betas": BETAS}),
        "--data.shards": setting.data,
        "--data.validation_share": 0,
        "--data.image": json.dumps({"class_path": "multimodal.data.TowerPixels", "init_args": {"scale": SCALE}}),
        "--data.split": json.dumps({"held_out": 0.0}),
        "--data.batch_size": setting.batch_size,
        "--data.num_workers": setting.num_workers,
        "--trainer.max_epochs": 2,
        "--trainer.limit_train_batches": setting.num_batches,
        "--trainer.accelerator": accelerator(setting),
        "--trainer.precision": setting.precision,
        "--preflight.max_steps": 0,
        "--run": scratch / "run",
    }
    return [part for name, value in options.items() for part in (name, str(value))]


def our_parts(setting: Setting, scratch: Path) -> tuple[Any, Any]:
    """The module and the data of the same command, without its run."""
    from multimodal.training.door import build

    module, data = build(our_arguments(setting, scratch))
    data.setup("fit")
    return module, data


def their_whole(setting: Setting, scratch: Path) -> dict[str, float]:
    return {"pairs_per_s": their_epochs(setting, their_data(setting))}


def their_loader(setting: Setting, scratch: Path) -> dict[str, float]:
    loader = their_data(setting).dataloader

    def epoch() -> None:
        for images, texts in loader:
            images.to(setting.device), texts.to(setting.device)

    return {"pairs_per_s": second_epoch(epoch, setting)}


def their_step(setting: Setting, scratch: Path) -> dict[str, float]:
    batch = next(iter(their_data(setting).dataloader))

    data = SimpleNamespace(dataloader=InMemory(batch, setting), set_epoch=lambda epoch: None)
    return {"pairs_per_s": their_epochs(setting, data)}


def their_loss(setting: Setting, scratch: Path) -> dict[str, float]:
    import open_clip
    import torch
    from torchvision.transforms.functional import normalize

    model = their_model(setting)
    pictures, texts = example(setting)
    pixels = normalize(pictures / 255, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    with torch.no_grad():
        found = model(pixels, open_clip.get_tokenizer(setting.model)(texts))
        return {"loss": open_clip.ClipLoss()(*(found[name] for name in ("image_features", "text_features", "logit_scale"))).item()}


def their_epochs(setting: Setting, data: Any) -> float:
    """Pairs per second of the second of two epochs of open_clip's own training."""
    import torch
    from open_clip import ClipLoss
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    model = their_model(setting).to(setting.device)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    alone = [p for name, p in named if p.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name]
    known = {id(parameter) for parameter in alone}
    groups = [{"params": alone, "weight_decay": 0.0}, {"params": [p for _, p in named if id(p) not in known], "weight_decay": WEIGHT_DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=1e-8)
    scheduler = cosine_lr(optimizer, LR, WARMUP, 2 * setting.num_batches)
    precision = {"32-true": "fp32", "bf16-mixed": "amp_bf16"}[setting.precision]
    args = SimpleNamespace(
        device=setting.device, precision=precision, distill=False, accum_freq=1, skip_scheduler=False, horovod=False, grad_clip_norm=None,
        local_rank=0, rank=0, world_size=1, batch_size=setting.batch_size, log_every_n_steps=10, wandb=False, distributed=False,
    )  # fmt: skip
    numbers = iter(range(2))

    def epoch() -> None:
        train_one_epoch(model, {"train": data}, ClipLoss(), next(numbers), optimizer, None, scheduler, None, args)

    return second_epoch(epoch, setting)


def their_model(setting: Setting) -> Any:
    import open_clip

    return open_clip.create_model(f"local-dir:{weights_folder(setting)}", output_dict=True).train()


def their_data(setting: Setting) -> Any:
    import open_clip
    from open_clip.transform import AugmentationCfg, PreprocessCfg, image_transform_v2
    from open_clip_train.data import get_wds_dataset

    transform = image_transform_v2(PreprocessCfg(), is_train=True, aug_cfg=AugmentationCfg(scale=SCALE))
    tars = "::".join(str(path) for path in sorted(setting.data.glob("*.tar")))
    args = SimpleNamespace(
        train_data=tars,
        train_num_samples=setting.batch_size * setting.num_batches,
        train_data_upsampling_factors=None,
        seed=0,
        world_size=1,
        workers=setting.num_workers,
        batch_size=setting.batch_size,
    )
    return get_wds_dataset(args, transform, is_train=True, tokenizer=open_clip.get_tokenizer(setting.model))


def matrix(setting: Setting, scratch: Path) -> dict[str, float]:
    """Operations per second of a large product of float32 matrices, or in the precision asked for, and those of one pair's step."""
    import open_clip
    import torch
    from open_clip import ClipLoss
    from torch.utils.flop_counter import FlopCounterMode

    model = their_model(setting)
    with FlopCounterMode(display=False) as counted:
        found = model(torch.randn(8, 3, 224, 224), open_clip.get_tokenizer(setting.model)(["a dog"] * 8))
        ClipLoss()(found["image_features"], found["text_features"], found["logit_scale"]).backward()
    kind = torch.bfloat16 if setting.precision == "bf16-mixed" else torch.float32
    one, other = (torch.randn(MATRIX, MATRIX, device=setting.device, dtype=kind) for _ in range(2))

    def product() -> None:
        one @ other
        if setting.device == "cuda":
            torch.cuda.synchronize()

    product()
    taken = []
    for _ in range(10):
        begun = time.perf_counter()
        product()
        taken.append(time.perf_counter() - begun)
    return {"flop_per_s": 2 * MATRIX**3 / min(taken), "flop_per_pair": counted.get_total_flops() / 8}


def example(setting: Setting) -> tuple[Any, list[str]]:
    """A batch of random pictures and captions."""
    import torch

    pictures = torch.randint(0, 256, (16, 3, 224, 224), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return pictures, [f"a picture of {number} dogs{' and a cat' * (number % 3)}" for number in range(16)]


def second_epoch(epoch: Callable[[], None], setting: Setting) -> float:
    """Pairs per second of the second pass."""
    epoch()
    begun = time.perf_counter()
    epoch()
    return setting.batch_size * setting.num_batches / (time.perf_counter() - begun)


def accelerator(setting: Setting) -> str:
    return "gpu" if setting.device == "cuda" else "cpu"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a shard set of JPEGs with captions")
    parser.add_argument("--out", type=Path, help="a folder for the weights, which the next call reuses")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="few batches and one run, to test that it works; not a measurement")
    parser.add_argument("--runs", type=int, default=3, help="turns of each system; the median is reported")
    parser.add_argument("--model", default="ViT-S-32", help="an architecture of open_clip")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-batches", type=int, default=16, help="of an epoch")
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        print(json.dumps(job(given.job)))
        sys.exit()
    if not given.data or not given.out:
        parser.error("--data and --out are needed")
    given.out.mkdir(parents=True, exist_ok=True)
    per_worker = max(1, given.num_workers)  # open_clip gives each worker as many batches
    num_batches = -(-(4 if given.quick else given.num_batches) // per_worker) * per_worker
    asked = Setting(
        given.data.resolve(),
        given.out.resolve(),
        given.model,
        given.batch_size,
        given.num_workers,
        num_batches,
        given.precision,
        given.device,
    )
    report(bench(asked, 1 if given.quick else given.runs), given.json, {name: str(value) for name, value in vars_of(asked).items()})
