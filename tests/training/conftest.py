from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.pairs import Pair
from multimodal.shards import ColumnWriter, ShardSet, ShardWriter
from multimodal.training.offline_wandb import OfflineRun, read_offline

NUM_PAIRS, DIM_IMAGE, DIM_TEXT = 121, 6, 4
UNREADABLE = (3, 40)
"""Ids without a row in the column `some_bad`."""

RECIPE = f"""
model:
  image_tower:
    class_path: multimodal.towers.Head
    init_args: {{dim_in: {DIM_IMAGE}, dim_out: {DIM_TEXT}, dropout: 0.1, standardise: true}}
  target_side: {{class_path: torch.nn.Identity}}
  objective: {{class_path: multimodal.objectives.SoftCrossEntropy}}
  optimiser: {{lr: 1.0e-2, warmup_steps: 3}}
data:
  image: {{class_path: multimodal.data.ColumnRows, init_args: {{name: features}}}}
  target: {{class_path: multimodal.data.ColumnRows, init_args: {{name: topics}}}}
  batch_size: 16
  validation_share: 0.2
preflight: {{export: false}}
trainer: {{accelerator: cpu, max_epochs: 3, log_every_n_steps: 1}}
"""

WITNESS = '''
import json, os, signal
from pathlib import Path
import torch
from lightning.pytorch.callbacks import Callback

class Witness(Callback):
    """Writes down what each step of a rank sees, and ends the process after the step that the file <WITNESS>.dies names."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        path = os.environ["WITNESS"]
        seen = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "ids": batch.id[batch.valid].tolist(),
            "bad": batch.id[~batch.valid & (batch.id >= 0)].tolist(),
            "num_rows": len(batch.id),
            "chance": torch.rand(()).item(),  # what the next dropout of this step would have drawn
        }
        with open(f"{path}.rank{trainer.global_rank}", "a") as file:
            file.write(json.dumps(seen) + "\\n")
        dies = Path(f"{path}.dies")
        if dies.is_file() and dies.read_text().split()[0] == str(trainer.global_step):
            os.kill(os.getpid(), signal.Signals[dies.read_text().split()[1]])
'''

RANK = '''
import multiprocessing, os, sys
from multimodal.cli import main

def rank(environment, arguments, log):
    """One rank of `multimodal fit`, as torchrun starts it."""
    multiprocessing.set_start_method("fork", force=True)  # of its workers, as on the command line: they end with a rank that is killed
    os.environ.update(environment)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    sys.exit(main(["fit", *arguments]))
'''
LAUNCH_TIMEOUT_S = 500
WANDB_LOOKS = 4000
"""How often to look for the end of a run that W&B's own process writes; 20 looks a second, and it takes a part of one."""


class Witnessed:
    """What the ranks of runs saw, each step of each, and the order to die."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def steps(self, rank: int = 0) -> list[dict[str, Any]]:
        """Since the last `forget`."""
        path = Path(f"{self.path}.rank{rank}")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def take(self, num_ranks: int = 1) -> list[list[dict[str, Any]]]:
        """The steps of each rank, which are forgotten then."""
        told = [self.steps(rank) for rank in range(num_ranks)]
        for rank in range(num_ranks):
            Path(f"{self.path}.rank{rank}").unlink(missing_ok=True)
        return told

    def die_after(self, step: int | None, of: str = "SIGKILL") -> None:
        """Every rank that comes to the end of this optimiser step dies; None: none does."""
        path = Path(f"{self.path}.dies")
        path.unlink(missing_ok=True)
        if step is not None:
            path.write_text(f"{step} {of}")


def write_column(shards: ShardSet, name: str, rows: np.ndarray) -> None:
    with ColumnWriter(shards, name, rows.shape[1], "pair", "float32", {}, {"test": name}) as writer:
        for shard in writer.missing():
            writer.write(shard, rows[shard.start : shard.start + shard.num_pairs])


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Steps of a few rows are a hundred times slower on several threads where other processes want the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_pairs(folder: Path, num: int, generator: np.random.Generator) -> tuple[ShardSet, np.ndarray]:
    """Pairs in groups of two, with features and topics that can be told from them; the features (num, DIM_IMAGE) too."""
    with ShardWriter(folder, pairs_per_shard=50) as writer:
        for number in range(num):
            encoded = io.BytesIO()
            Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(encoded, "PNG")
            writer.write(Pair(f"{number}.png", encoded.getvalue(), "png", (f"thing {number}",), group=f"group {number // 2}"))
    shards = ShardSet(folder)
    features = generator.normal(size=(num, DIM_IMAGE)).astype(np.float32)
    topics = np.exp(2 * features[:, :DIM_TEXT])
    write_column(shards, "features", features)
    write_column(shards, "topics", topics / topics.sum(1, keepdims=True))
    return shards, features


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 121 pairs; columns with faults beside."""
    folder = tmp_path_factory.mktemp("shards")
    shards, features = write_pairs(folder, NUM_PAIRS, np.random.default_rng(0))
    write_column(shards, "constant", np.full((NUM_PAIRS, DIM_TEXT), 1 / DIM_TEXT))
    write_column(shards, "nothing", np.full((NUM_PAIRS, DIM_TEXT), np.nan))
    write_column(shards, "zeros", np.zeros((NUM_PAIRS, DIM_TEXT)))
    some_bad = features.copy()
    some_bad[list(UNREADABLE)] = np.nan
    write_column(shards, "some_bad", some_bad)
    return folder


@pytest.fixture(scope="session")
def more_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 19 pairs of another source, made as `pairs` are."""
    folder = tmp_path_factory.mktemp("more_shards")
    write_pairs(folder, 19, np.random.default_rng(1))
    return folder


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def told_wandb() -> Callable[[Path], OfflineRun]:
    """Reads what an offline run told W&B, once W&B's own process has written its end. Skips where wandb is not installed."""
    pytest.importorskip("wandb", reason="wandb is not installed (extra train)")

    def read(run: Path) -> OfflineRun:
        for _ in range(WANDB_LOOKS):
            if (told := read_offline(run)).is_finished:
                return told
            time.sleep(0.05)
        raise AssertionError(f"W&B's process has not written the end of {run}; it wrote {len(told.logged)} records of figures")

    return read


@pytest.fixture
def arguments(pairs: Path, recipe: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a small run: `arguments("run", "--trainer.max_epochs", "1")`."""

    def of(name: str, *more: str) -> list[str]:
        return ["--config", str(recipe), "--data.shards", str(pairs), "--run", str(tmp_path / name), *more]

    return of


@pytest.fixture
def witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Witnessed:
    """For runs with `--trainer.callbacks+=witness.Witness`."""
    (tmp_path / "witness.py").write_text(WITNESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WITNESS", str(tmp_path / "seen"))
    return Witnessed(tmp_path / "seen")


@contextlib.contextmanager
def meeting_place() -> Iterator[dict[str, str]]:
    """The environment in which the ranks of one run find each other: a port that is ours until they have ended.

    It is bound and does not listen, so the system gives it to nobody else, and rank zero, which allows a port to be used again, may listen.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(held.getsockname()[1]), "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def meeting() -> Iterator[dict[str, str]]:
    """See `meeting_place`."""
    with meeting_place() as environment:
        yield environment


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """`launch(arguments, num_ranks=3)`: processes of their own that run `multimodal fit` together over gloo; returns their exit statuses.

    They are forked from one that has imported everything once, which takes longer than these runs.
    """
    (tmp_path / "one_rank.py").write_text(RANK)
    monkeypatch.syspath_prepend(tmp_path)
    from one_rank import rank

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["multimodal.training.door", "multimodal.data", "multimodal.towers"])

    def run(arguments: list[str], num_ranks: int = 1, environment: Mapping[str, str] = {}) -> list[int]:
        with meeting_place() as meeting:  # one of its own: the last run's may still be listened to
            return run_at(meeting, arguments, num_ranks, environment)

    def run_at(meeting: dict[str, str], arguments: list[str], num_ranks: int, environment: Mapping[str, str]) -> list[int]:
        together = meeting | {"WITNESS": os.environ.get("WITNESS", ""), "WANDB_SERVICE": "", **environment}  # W&B: a process of their own
        more = ["--num_threads", "1", *(["--trainer.devices", str(num_ranks), "--trainer.strategy", "ddp"] if num_ranks > 1 else [])]
        log = tmp_path / "ranks.log"
        ranks = [
            context.Process(target=rank, args=(together | ({"LOCAL_RANK": str(number)} if num_ranks > 1 else {}), [*arguments, *more], log))
            for number in range(num_ranks)
        ]
        for one in ranks:
            one.start()
        try:
            until = time.monotonic() + LAUNCH_TIMEOUT_S
            while any(one.is_alive() for one in ranks) and time.monotonic() < until:
                wait([one.sentinel for one in ranks if one.is_alive()], timeout=1)
                if any(one.exitcode for one in ranks):  # where one has died the others wait for it in vain
                    until = min(until, time.monotonic() + 5)
        finally:
            for one in ranks:
                one.kill()
                one.join()
        statuses = [one.exitcode for one in ranks]
        assert all(status is not None for status in statuses)
        if any(status != 0 for status in statuses):
            print(log.read_text())
        return [int(status or 0) for status in statuses]

    return run
