"""A folder of pictures is indexed, ours (`multimodal index --pictures`) beside rclip, with the same network on the same cores.

python -m venv /tmp/rclip && /tmp/rclip/bin/pip install rclip==3.3.0
.venv/bin/python scripts/bench_index.py --pictures FOLDER --rclip /tmp/rclip/bin/python                     # all pictures, three runs each
.venv/bin/python scripts/bench_index.py --pictures FOLDER --rclip /tmp/rclip/bin/python --num 500 --runs 1     # on a busy machine

The network is ViT-B-32-256, rclip's own, with random weights: a model of open_clip, exported for us and as the ONNX file that rclip looks
for. Runs alternate, each as a command in a process of its own, on a copy of the pictures and into a new store; both hash every file, ours
also makes thumbnails and reads EXIF. Prints pictures per second by the clock and by the time of the cores (on a busy machine the second is
the one to compare), the ratio of each pair of runs, how near the vectors are, and the limit: the network alone, on pixels in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

ARCHITECTURE = "ViT-B-32-256"
INDEX = """
import os, sys
from rclip.main import init_rclip
init_rclip(os.getcwd(), 8)
"""
LIMIT_BATCHES = 24


@dataclass(frozen=True, slots=True)
class Run:
    """wall_s: by the clock. core_s: of user and system, over all its threads. peak_mb: of its memory."""

    wall_s: float
    core_s: float
    peak_mb: float


def run(command: list[str], folder: Path, environment: dict[str, str]) -> Run:
    """A command in a process of its own; its error output is shown if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    if status:
        sys.exit(f"error: {' '.join(command)}\n{told.decode(errors='replace')}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def make_models(folder: Path) -> None:
    """folder/model: of open_clip, with random weights. folder/export: ours. folder/rclip: what rclip has after it has downloaded."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from multimodal.export.model import export_pretrained

    torch.manual_seed(0)
    model = open_clip.create_model(ARCHITECTURE, pretrained=None).eval()
    (folder / "model").mkdir()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model" / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config(ARCHITECTURE), "preprocess_cfg": {}}
    (folder / "model" / "open_clip_config.json").write_text(json.dumps(config))
    export_pretrained(str(folder / "model"), folder / "export")
    home = folder / "rclip"
    for name in ("ViT-B-32-256-datacomp_s34b_b86k/textual.onnx", "tokenizer/bpe_simple_vocab_16e6.txt.gz"):  # not read while it indexes
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model.visual,
        (torch.zeros(2, 3, 256, 256),),
        home / "ViT-B-32-256-datacomp_s34b_b86k" / "visual.onnx",
        input_names=["input"],
        output_names=["output"],
        dynamo=True,
        dynamic_shapes=({0: batch},),
        verbose=False,
    )


def limit(export: Path, cores: int) -> tuple[float, float]:
    """Pictures per second of the network alone, a thread per core and batches of 8, by the clock and by the cores' time."""
    import torch

    from multimodal.embed.pictures import EmbeddedBatch, in_order
    from multimodal.export.model import load_export
    from multimodal.machine.heap import freed_memory_kept
    from multimodal.towers import folded

    opened = load_export(export)
    network, size = folded(opened.network), opened.preprocessing.size
    pixels = torch.randint(0, 256, (8, 3, size, size), dtype=torch.uint8)

    def work(ids: np.ndarray) -> EmbeddedBatch:
        with torch.inference_mode():
            return EmbeddedBatch(ids, network(pixels).numpy(), {}, [])

    batches = [np.arange(8)] * LIMIT_BATCHES
    with freed_memory_kept():
        list(in_order(work, batches[:cores], cores))
        began, core_s = time.perf_counter(), time.process_time()
        list(in_order(work, batches, cores))
    num = 8 * LIMIT_BATCHES
    return num / (time.perf_counter() - began), num / (time.process_time() - core_s)


def cosines(store: Path, rclip: Path, pictures: Path) -> np.ndarray:
    """Of the two vectors of each picture."""
    from multimodal.search.store import Store

    ours = Store(store)
    rows = dict(zip(ours.column("path"), ours.take(ours.ids).astype(np.float64), strict=True))
    with sqlite3.connect(rclip / "db.sqlite3") as database:
        theirs = database.execute("select filepath, vector from images where deleted is null or deleted = 0").fetchall()
    found = []
    for path, vector in theirs:
        one, two = rows[os.path.relpath(path, pictures)], np.frombuffer(vector, np.float32).astype(np.float64)
        found.append(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    assert len(found) == len(rows), f"{len(found)} pictures by rclip and {len(rows)} by us"
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of pictures, at any depth")
    parser.add_argument("--rclip", type=Path, required=True, help="the Python of an environment with rclip 3.3.0")
    parser.add_argument("--num", type=int, help="index only so many of them, the first by path")
    parser.add_argument("--runs", type=int, default=3, help="of each")
    given = parser.parse_args()
    from multimodal.machine.cores import usable_cores
    from multimodal.pictures.folders import PictureWalk

    cores = len(usable_cores())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # in another process: a process that this one starts has at least its memory, as the system counts the peak
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            other.submit(make_models, folder).result()
            by_clock, by_cores = other.submit(limit, folder / "export", cores).result()
        chosen = sorted(PictureWalk(given.pictures))[: given.num]
        for name in chosen:
            (folder / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(given.pictures / name, folder / "pictures" / name)
        pictures, num = folder / "pictures", len(chosen)
        models = list((folder / "rclip").iterdir())

        def ours() -> Run:
            shutil.rmtree(folder / "store", ignore_errors=True)
            command = [sys.executable, "-m", "multimodal.cli", "index", "--pictures", str(pictures), "--export", str(folder / "export")]
            return run([*command, "--output", str(folder / "store")], folder, environment)

        def again() -> Run:
            return run([sys.executable, "-m", "multimodal.cli", "rescan", str(folder / "store")], folder, environment)

        def theirs() -> Run:
            for path in (folder / "rclip").iterdir():
                if path not in models:
                    path.unlink()
            # without OMP_NUM_THREADS: onnxruntime's threads are set by rclip, one per core
            plain = {name: value for name, value in environment.items() if name != "OMP_NUM_THREADS"}
            return run([str(given.rclip), "-c", INDEX], pictures, {**plain, "RCLIP_DATADIR": str(folder / "rclip")})

        def theirs_again() -> Run:
            return run([str(given.rclip), "-c", INDEX], pictures, {**environment, "RCLIP_DATADIR": str(folder / "rclip")})

        ways: dict[str, Callable[[], Run]] = {"ours": ours, "rclip": theirs, "ours, nothing new": again, "rclip, nothing new": theirs_again}
        found: dict[str, list[Run]] = {name: [] for name in ways}
        print(f"{num:,} pictures, {cores} cores, {ARCHITECTURE} with random weights")
        print(f"network alone: {by_clock:.1f} pictures/s by the clock, {by_cores:.1f} per second of a core", flush=True)
        for number in range(given.runs):
            for name, way in ways.items():
                found[name].append(one := way())
                print(f"run {number + 1}, {name}: {one.wall_s:.1f} s, {one.core_s:.1f} s of cores, peak {one.peak_mb:.0f} MB", flush=True)
        for name in ("ours", "rclip"):
            clock, core = (median(num / getattr(one, unit) for one in found[name]) for unit in ("wall_s", "core_s"))
            print(f"{name}: {clock:.1f} pictures/s, {core:.1f} per second of a core: {core / by_cores:.2f} of the network alone")
        for unit, called in (("wall_s", "by the clock"), ("core_s", "by the cores' time")):
            ratios = [getattr(b, unit) / getattr(a, unit) for a, b in zip(found["ours"], found["rclip"], strict=True)]
            print(f"ours / rclip {called}: {median(ratios):.2f} ({', '.join(f'{one:.2f}' for one in ratios)})")
        near = cosines(folder / "store", folder / "rclip", pictures)
        print(f"cosine of the two vectors of a picture: {near.min():.5f} at least, {near.mean():.6f} in the mean")


if __name__ == "__main__":
    main()
