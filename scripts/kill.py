"""Kill jobs at random moments, run them again until they finish, and compare the results with those of an undisturbed run.

.venv/bin/python scripts/kill.py --trials 100 --seed 1
.venv/bin/python scripts/kill.py --trials 20 --jobs fit index        # only these jobs, in turn

A trial makes its own copy of tiny inputs, kills the job once or twice with SIGKILL, including its workers, and lets it finish. The results
must be equal: files byte for byte, checkpoints tensor for tensor. W&B's folder and locks are not compared. Prints a table of counts; exits
with 1 if anything differs or a job does not finish. Jobs are forked from a process that has imported everything once, because importing
takes longer than the jobs: 100 trials take about five minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 60, 220), "yellow": (240, 210, 30)}
RECIPE = """
num_threads: 1
checkpoint_every_n_steps: 2
model:
  image_tower: {class_path: multimodal.towers.Head, init_args: {dim_in: 256, dim_out: 8, dropout: 0.1, standardise: true}}
  target_side: {class_path: torch.nn.Identity}
  objective: {class_path: multimodal.objectives.Cosine}
  optimiser: {lr: 1.0e-2, warmup_steps: 2}
data:
  image: {class_path: multimodal.data.ColumnRows, init_args: {name: trunk}}
  target: {class_path: multimodal.data.ColumnRows, init_args: {name: words}}
  batch_size: 8
  validation_share: 0.2
preflight: {max_steps: 5, min_fall: 0.0}
trainer: {accelerator: cpu, max_epochs: 6, log_every_n_steps: 1}
"""
ROAD = {
    "make-shards": ("set", "data-prep make-shards folder photos --output set --pairs-per-shard 5"),
    "fit-text-space": ("space", "data-prep fit-text-space word2vec --shards set --output space --dim 8 --min-count 1 --passes 5"),
    "make-columns": ("set/columns/words", "data-prep make-columns --space space --shards set --name words"),
    "embed": (
        "set/columns/trunk",
        "multimodal embed --shards set --name trunk --trunk.architecture test_efficientnet "
        "--trunk.weights multimodal.towers.NoWeights --trunk.size 48 --device cpu",
    ),
    "fit": ("run", "multimodal fit --config recipe.yaml --data.shards set --run run"),
    "export": ("export", "multimodal export --run run --space space --output export"),
    "index": ("store", "multimodal index --export export --shards set --output store --device cpu"),
    "index-pictures": (
        "photo-store",
        "multimodal index --pictures {whole}/photos --export {whole}/export --output photo-store --device cpu --segment-size 7",
    ),
    "index-album": (
        "album-store",
        "multimodal index --pictures {whole}/album --export {whole}/export --output album-store --device cpu --segment-size 7",
    ),
    "rescan": ("rescanned-store", "multimodal rescan rescanned-store --device cpu --segment-size 7"),
}
"""Job -> the box that it makes, and its command, in the order of the road. A store of folders knows them by their absolute paths."""
BEGINS_AS = {"rescan": "album-store"}
"""Job -> the box that its own begins as a copy of. After `index-album`, the folder is changed."""
KILLED = ("make-shards", "make-columns", "embed", "index", "index-pictures", "rescan", "fit")
PRELOADED = (
    "data_prep.__main__",
    "data_prep.shards.job",
    "data_prep.spaces.columns",
    "data_prep.spaces.job",
    "multimodal.cli",
    "multimodal.embed.columns",
    "multimodal.embed.photos",
    "multimodal.embed.stores",
    "multimodal.export.model",
    "multimodal.training.door",
)
TIMEOUT_S = 300


def draw(folder: Path) -> None:
    """60 drawings of 48 pixels with sidecars that describe them."""
    from PIL import Image

    folder.mkdir()
    for colour, rgb in COLOURS.items():
        for place in range(15):
            picture = Image.new("RGB", (48, 48), (255, 255, 255))
            picture.paste(rgb, (place, place, place + 30, place + 20))
            picture.save(folder / f"{colour}-{place:02d}.png")
            (folder / f"{colour}-{place:02d}.txt").write_text(f"a {colour} box at {place} on white paper\n")


def change_album(folder: Path) -> None:
    """New, changed, moved, renamed and removed pictures, and some that cannot be read."""
    from PIL import Image

    for number, path in enumerate(sorted(folder.glob("*.png"))):
        match number % 6:
            case 0:
                path.unlink()
            case 1:
                (folder / "moved").mkdir(exist_ok=True)
                path.rename(folder / "moved" / path.name)
            case 2:
                Image.new("RGB", (48, 48), (number, 99, 99)).save(path)
            case 3:
                Image.new("RGB", (48, 48), (99, 99, number)).save(folder / f"new-{path.name}")
            case 4:
                (folder / f"broken-{path.name}").write_bytes(b"broken")


def start(command: str, folder: Path) -> int:
    """Fork a process, the leader of its own group, that runs the command in the folder; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        door, *arguments = shlex.split(command)
        sys.argv = [door, *arguments]
        main = importlib.import_module({"multimodal": "multimodal.cli", "data-prep": "data_prep.__main__"}[door]).main
        status = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def end(child: int, after_s: float | None = None) -> int | None:
    """Wait for a job, and kill it with its workers after after_s seconds; its status, or None if it was killed."""
    until = time.monotonic() + (TIMEOUT_S if after_s is None else after_s)
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # it has not made its group yet
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def differences(one: Path, other: Path) -> list[str]:
    """The files that differ between two boxes, or are in only one of them."""
    import torch  # not above: make-shards starts processes, and each imports this file

    files = [{path.relative_to(box) for path in box.rglob("*") if path.is_file() and _is_compared(path, box)} for box in (one, other)]
    different = files[0] ^ files[1]
    for name in files[0] & files[1]:
        if name.suffix == ".ckpt":
            equal = _equal(*(torch.load(box / name, weights_only=True) for box in (one, other)))
        else:
            equal = (one / name).read_bytes() == (other / name).read_bytes()
        if not equal:
            different.add(name)
    return sorted(map(str, different))


def _is_compared(path: Path, box: Path) -> bool:
    inside = path.relative_to(box).parts
    # Columns are inside their set but are separate jobs. Locks, and temporary files that a kill leaves behind, have hidden names.
    return inside[0] not in ("wandb", "wandb-id", "columns") and not path.name.startswith(".")


def _equal(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def begin(job: str, folder: Path) -> None:
    """What the box of a job is before it."""
    if job in BEGINS_AS:
        shutil.copytree(folder / BEGINS_AS[job], folder / ROAD[job][0])


def trial(job: str, whole: Path, folder: Path, takes_s: float, chance: random.Random) -> tuple[int, list[str]]:
    """Kill a job once or twice and let it finish; returns how many kills hit it, and what differs."""
    box, command = ROAD[job][0], ROAD[job][1].format(whole=whole)
    shutil.copytree(whole, folder, ignore=lambda at, names: ["log"] if Path(at) == whole else [])
    shutil.rmtree(folder / box)
    begin(job, folder)
    hits = 0
    for _ in range(chance.randint(1, 2)):
        status = end(start(command, folder), chance.uniform(0, takes_s))
        hits += status is None
        if status:  # it failed by itself, without a kill
            return hits, [f"status {status} after {hits} kills"]
    status = end(start(command, folder))
    if status != 0:
        last = (folder / "log").read_text(errors="replace").splitlines()[-1:]
        return hits, [f"status {status}: {' '.join(last)}"]
    return hits, differences(whole / box, folder / box)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="number of trials, of all jobs in turn")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--jobs", nargs="+", choices=KILLED, default=KILLED, help="which jobs to kill")
    given = parser.parse_args()
    for module in PRELOADED:
        importlib.import_module(module)
    chance, counts, failed = random.Random(given.seed), {job: Counter[str]() for job in given.jobs}, 0
    with tempfile.TemporaryDirectory() as scratch:
        whole, takes_s = Path(scratch, "whole"), {}
        whole.mkdir()
        draw(whole / "photos")
        (whole / "recipe.yaml").write_text(RECIPE)
        draw(whole / "album")
        for job, (_, command) in ROAD.items():
            begin(job, whole)
            began = time.monotonic()
            if status := end(start(command.format(whole=whole), whole)):
                sys.exit(f"error: {command} ended with {status}\n{(whole / 'log').read_text(errors='replace')}")
            takes_s[job] = time.monotonic() - began
            if job == "index-album":
                change_album(whole / "album")
        for number in range(given.trials):
            job = given.jobs[number % len(given.jobs)]
            folder = Path(scratch, f"trial{number}")
            hits, different = trial(job, whole, folder, takes_s[job], chance)
            counts[job].update(trials=1, kills=hits, **{"different" if different else "equal": 1})
            if different:
                failed += 1
                print(f"trial {number}, {job}: {', '.join(different)}", flush=True)
            shutil.rmtree(folder)
    print(f"{'job':<14}{'trials':>8}{'kills':>8}{'equal':>8}{'different':>11}{'takes':>9}")
    for job, count in counts.items():
        print(f"{job:<14}{count['trials']:>8}{count['kills']:>8}{count['equal']:>8}{count['different']:>11}{takes_s[job]:>8.1f}s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
