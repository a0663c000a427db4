"""A run that pictures alone teach, through the real doors: it answers above chance where there is an up, and exports its trunk alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from multimodal.embed.stores import index
from multimodal.errors import InputError
from multimodal.evaluate.probe import probe
from multimodal.export.model import export, load_export
from multimodal.export.run import Run
from multimodal.export.trained import read_checkpoint
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.shards import ShardWriter
from multimodal.training.door import fit
from multimodal.training.validate import validate
from multimodal.verify import problems_of

NUM, SIZE = 90, 32


def picture(number: int) -> np.ndarray:
    """A bright sky over a dark ground, each with noise."""
    generator = np.random.default_rng(number)
    sky, ground = generator.integers(150, 230, 3), generator.integers(20, 100, 3)
    rows = np.where(np.arange(40)[:, None, None] < generator.integers(15, 25), sky, ground)
    return np.clip(rows + generator.integers(-20, 20, (40, 40, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretext") / "set"
    with ShardWriter(folder, pairs_per_shard=40) as writer:
        for number in range(NUM):
            file = io.BytesIO()
            Image.fromarray(picture(number)).save(file, "PNG")
            writer.write(Pair(f"{number}.png", file.getvalue(), "png", (), f"{number}"))
    return folder


RECIPE = f"""
model:
  image_tower:
    class_path: multimodal.towers.ImageTower
    init_args:
      trunk:
        class_path: multimodal.towers.Trunk
        init_args:
          architecture: test_efficientnet
          weights: {{class_path: multimodal.towers.NoWeights, init_args: {{seed: 0}}}}
          frozen: false
          size: {SIZE}
  target_side: {{class_path: torch.nn.Identity}}
  objective: {{class_path: multimodal.objectives.Rotation, init_args: {{dim_in: 256}}}}
  optimiser: {{lr: 1.0e-2}}
data:
  image: {{class_path: multimodal.data.RotationViews, init_args: {{pixels: {{size: {SIZE}, scale: [0.5, 1.0]}}}}}}
  target: {{class_path: multimodal.data.ViewsTarget}}
  batch_size: 24
  validation_share: 0.3
  split: {{held_out: 0.0}}
preflight: {{max_steps: 0}}
trainer: {{accelerator: cpu, max_epochs: 10}}
"""


@pytest.fixture(scope="module")
def command(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    path = tmp_path_factory.mktemp("recipe") / "pretext.yaml"
    path.write_text(RECIPE)
    return lambda run, *more: ["--config", str(path), "--data.shards", str(shards), "--run", str(run), *more]


@pytest.fixture(scope="module")
def run(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(command(tmp_path_factory.mktemp("asked") / "run"))


def test_it_answers_above_chance_in_evaluation_mode(run: Path) -> None:
    made = Run(run)
    assert made.monitor == "val/accuracy" and made.best is not None
    assert made.best["val/chance_accuracy"] == 25.0 and made.best["val/accuracy"] > 70
    assert validate(run)["val/accuracy"] == pytest.approx(made.best["val/accuracy"])


def test_its_export_is_the_trunk_alone(run: Path, shards: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "export")
    opened = load_export(tmp_path / "export")
    kept = load_file(tmp_path / "export" / "weights.safetensors")
    assert opened.card.dim == 256 and {name.partition(".")[0] for name in kept} == {"trunk"} and not list(problems_of(tmp_path / "export"))
    state, _ = read_checkpoint(Run(run).checkpoint)
    trunk = {name.removeprefix("image_tower."): one for name, one in state.items() if name.startswith("image_tower.trunk.")}
    assert kept.keys() == trunk.keys() and all(torch.equal(kept[name], one) for name, one in trunk.items())
    with pytest.raises(InputError, match="taught without texts"):
        opened.encode_text("a dog")
    index(tmp_path / "export", shards, tmp_path / "store")
    assert next(iter(Store(tmp_path / "store").search("image:7", k=1))).id == 7


def test_its_trunk_is_probed(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "export")
    pictures = np.stack([np.rot90(picture(number), number % 2)[:32, :32] for number in range(60)])
    labels = np.arange(60) % 2
    np.savez(
        tmp_path / "upright.npz", x_train=pictures[:40], y_train=labels[:40], x_test=pictures[40:], y_test=labels[40:], names=["up", "side"]
    )
    [row] = probe(tmp_path / "upright.npz", tmp_path / "export", size=[SIZE], output=tmp_path / "probe.json")
    assert row.linear > 90 and json.loads((tmp_path / "probe.json").read_text())[0]["dim"] == 256


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--model.objective", "multimodal.objectives.Clip"], "Clip does not answer what data.image .*RotationViews.* asks"),
        (["--data.target", "multimodal.data.Captions"], "Rotation is a pretext task: its target is made from the picture.*ViewsTarget"),
        (["--model.target_side", "multimodal.towers.Head", "--model.target_side.dim_in=4", "--model.target_side.dim_out=4"], "Identity"),
        (["--model.objective.dim_in", "5"], "Set model.objective's dim_in: 256"),
        (["--forgetting.pairs", "nowhere"], "forgetting is measured by texts"),
    ],
)
def test_what_does_not_go_with_a_pretext_task_is_refused(
    command: Callable[..., list[str]], tmp_path: Path, settings: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        fit(command(tmp_path / "run", *settings, "--preflight.max_steps", "1"))
