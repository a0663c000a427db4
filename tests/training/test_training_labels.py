"""A run that labels teach, through the real doors: trained, validated among unseen classes, exported, indexed, and asked with pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from multimodal.cli import main
from multimodal.embed.columns import embed
from multimodal.embed.stores import index
from multimodal.errors import InputError
from multimodal.evaluate.retrieval import retrieve
from multimodal.export.model import export, load_export
from multimodal.export.run import Run
from multimodal.objectives import Objective
from multimodal.objectives.base import Parts, count, gather, mean_over_ranks, rank
from multimodal.objectives.conformance import assert_conforms
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.shards import ShardSet, ShardWriter
from multimodal.towers import NoWeights, Trunk
from multimodal.training.door import fit
from multimodal.training.validate import validate
from multimodal.verify import problems_of

NUM_CLASSES, OF_EACH = 12, 6
TRUST = [__name__.partition(".")[0]]
COLOURS = [(255 * (number & 1), 85 * (number >> 1 & 3), 127 * (number >> 3)) for number in range(NUM_CLASSES)]


class Apart(Objective):
    """The Siamese loss: pictures of one class at one place, others at least a margin apart."""

    takes_labels = True

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        image = torch.where(valid[:, None], image.to(torch.promote_types(image.dtype, torch.float32)), 0.0)
        rows, classes, there = gather(image), gather(target), gather(valid.to(torch.uint8)).bool()
        with torch.autocast(image.device.type, enabled=False):
            squares = (image[:, None] - rows[None]).square().sum(2)
            same = classes[None] == target[:, None]
            losses = torch.where(same, squares, torch.relu(1 - (squares + 1e-12).sqrt()).square())
            other = there[None] & (torch.arange(len(rows))[None] != (torch.arange(len(image)) + rank() * len(image))[:, None])
            per_row = torch.where(other, losses, 0.0).sum(1) / other.sum(1).clamp(min=1)
        num = count(valid)
        loss = mean_over_ranks(per_row, valid, num)
        return loss, {"loss": loss.detach(), "rows": num}


def slow(objective: Objective, image: Tensor, target: Tensor) -> float:
    rows, losses = image.tolist(), []
    for own, row in enumerate(rows):
        one = []
        for at, other in enumerate(rows):
            square = sum((x - y) ** 2 for x, y in zip(row, other, strict=True))
            if at != own:
                one.append(square if target[own] == target[at] else max(0.0, 1 - (square + 1e-12) ** 0.5) ** 2)
        losses.append(sum(one) / len(one))
    return sum(losses) / len(losses)


def picture(label: int, number: int) -> bytes:
    """Of its class's colour, with noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(number).integers(-20, 20, (40, 40, 3))
    Image.fromarray(np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled") / "set"
    with ShardWriter(folder, pairs_per_shard=40) as writer:
        for number in range(NUM_CLASSES * OF_EACH):
            label = number % NUM_CLASSES
            writer.write(Pair(f"{number}.png", picture(label, number), "png", (), f"{number}", metadata={"label": f"colour {label:02}"}))
    embed(folder, "features", Trunk("test_efficientnet", NoWeights(1), size=32), device="cpu")
    return folder


RECIPE = f"""
model:
  image_tower: {{class_path: multimodal.towers.Head, init_args: {{dim_in: 256, dim_out: 8, standardise: true}}}}
  target_side: {{class_path: torch.nn.Identity}}
  objective: {{class_path: {__name__}.Apart}}
  optimiser: {{lr: 1.0e-2}}
data:
  image: {{class_path: multimodal.data.ColumnRows, init_args: {{name: features}}}}
  target: {{class_path: multimodal.data.Labels}}
  batch_size: 16
  validation_share: 0.25
  split: {{held_out: 0.0}}
trainer: {{accelerator: cpu, max_epochs: 6}}
"""


@pytest.fixture(scope="module")
def command(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    path = tmp_path_factory.mktemp("recipe") / "labels.yaml"
    path.write_text(RECIPE)
    return lambda run, *more: ["--config", str(path), "--data.shards", str(shards), "--run", str(run), *more]


@pytest.fixture(scope="module")
def run(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(command(tmp_path_factory.mktemp("taught") / "run"))


def test_the_objective_of_these_tests_conforms() -> None:
    assert_conforms(Apart, slow)


def test_it_is_judged_among_classes_that_it_never_saw(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = Run(run).best
    assert Run(run).monitor == "val/mAP@R" and best is not None
    assert best["val/num_classes"] == 3 and best["val/num_pairs"] == best["val/num_queries"] == 3 * OF_EACH
    assert best["val/mAP@R"] > 60 > 3 * best["val/chance_mAP@R"] and best["val/R@1"] > 80
    assert best["val/chance_R@1"] == pytest.approx(100 * (OF_EACH - 1) / (3 * OF_EACH - 1))
    classes = json.loads((run / "classes.json").read_text())
    assert classes["name"] == "label" and len(classes["trained"]) == 9 and len(classes["validated"]) == 3
    assert classes["trained"] == sorted(classes["trained"]) and not set(classes["trained"]) & set(classes["validated"])
    figures = validate(run, trust=TRUST)
    assert figures["val/mAP@R"] == pytest.approx(best["val/mAP@R"])


def test_permuted_labels_stay_at_chance(command: Callable[..., list[str]], tmp_path: Path) -> None:
    control = ["--data.target", "multimodal.data.Shuffled", "--data.target.side", "multimodal.data.Labels", "--preflight.max_steps", "0"]
    made = Run(fit(command(tmp_path / "run", *control, "--trainer.max_epochs", "2")))
    assert made.monitor == "val/mAP@R" and made.best is not None and made.best["val/mAP@R"] < 4 * made.best["val/chance_mAP@R"]


def test_a_finished_run_is_known_again_and_trained_further(command: Callable[..., list[str]], tmp_path: Path) -> None:
    short = command(tmp_path / "run", "--trainer.max_epochs", "1", "--preflight.max_steps", "0")
    assert fit(short) == fit(short)
    longer = Run(fit([*short, "--trainer.max_epochs", "2", "--extend"]))
    whole = Run(fit(command(tmp_path / "whole", "--trainer.max_epochs", "2", "--preflight.max_steps", "0")))
    assert longer.metrics[-1].keys() == whole.metrics[-1].keys()


def test_its_export_reads_pictures_and_says_that_it_reads_no_words(run: Path, shards: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "export", trust=TRUST)
    opened = load_export(tmp_path / "export", trust=TRUST)
    assert opened.card.family == "metric" and opened.card.dim == 8 and not list(problems_of(tmp_path / "export"))
    with pytest.raises(InputError, match="'a dog' cannot be compared.*taught without texts.*image:photo.jpg"):
        opened.encode_text("a dog")
    index(tmp_path / "export", shards, tmp_path / "store", trust=TRUST)
    store = Store(tmp_path / "store")
    assert len(store) == NUM_CLASSES * OF_EACH
    found = store.search("image:5", k=OF_EACH)
    assert [hit.id % NUM_CLASSES for hit in found] == [5] * OF_EACH and found[0].text == ""
    with pytest.raises(InputError, match="'red' cannot be compared"):
        store.search("red")
    with pytest.raises(InputError, match="72 of 72 pairs have no text, such as 0.png, and retrieval by text needs"):
        retrieve(store, ShardSet(shards), np.arange(NUM_CLASSES * OF_EACH))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["--model.objective", "multimodal.objectives.Clip"],
            "Clip compares a picture with the vector of its target, but .*Labels",
        ),
        (
            ["--data.target", "multimodal.data.ColumnRows", "--data.target.name", "features"],
            "Apart takes labels, but .* gives none",
        ),
        (["--model.target_side", "multimodal.towers.Head", "--model.target_side.dim_in=4", "--model.target_side.dim_out=4"], "Identity"),
        (["--forgetting.pairs", "nowhere"], "forgetting is measured by texts, and this run reads none"),
        (["--data.target.name", "identity"], "identity has 0 values"),
    ],
)
def test_what_does_not_go_with_labels_is_refused(command: Callable[..., list[str]], tmp_path: Path, settings: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit(command(tmp_path / "run", *settings))


def test_the_command_line_prints_the_figures_beside_chance(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--run", str(run), "--trust", *TRUST]) == 0
    printed = capsys.readouterr().out
    assert "val/mAP@R" in printed and "chance" in printed
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["target"]["init_args"]["name"] == "label"
