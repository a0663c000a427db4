"""Zero-shot classification by the towers of a run in training: as by a slow loop over pictures and texts, however classes are given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.data import Captions, Pixels
from multimodal.data.decode import centre
from multimodal.errors import InputError
from multimodal.objectives import Clip
from multimodal.pairs import Pair
from multimodal.shards import ShardWriter, Split
from multimodal.towers import FolderEncoder, Head, ImageTower, NoWeights, TextTower, Trunk
from multimodal.training import PairData, PairModule
from multimodal.training.abilities import Ability, Measured, evaluating, open_classes, some

SIZE, NUM = 32, 37
COLOURS = {"dark_blue": (10, 20, 90), "green": (30, 170, 60), "red": (220, 30, 30)}
TEMPLATES = ("a {} sheet", "paper: {}")


def encoded(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 60, (40, 56, 3))
    file = io.BytesIO()
    Image.fromarray((noise + np.array(list(COLOURS.values())[number % 3])).clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as a shard set, a folder of classes and a .npz; templates."""
    path = tmp_path_factory.mktemp("classes")
    names = list(COLOURS)
    with ShardWriter(path / "set", pairs_per_shard=10) as writer:
        for number in range(NUM):
            metadata = {} if number == 5 else {"colour": names[number % 3]}
            writer.write(Pair(f"{number}.png", encoded(number), "png", (f"sheet {number}",), group=f"group {number}", metadata=metadata))
            for part in ("train", "test") if number == 0 else ("train",):
                of_class = path / "files" / part / names[number % 3]
                of_class.mkdir(parents=True, exist_ok=True)
                (of_class / f"{number:02d}.png").write_bytes(encoded(number))
    (path / "templates.txt").write_text("\n".join(TEMPLATES))
    return path


@pytest.fixture(scope="module")
def module(tiny_bert: Path) -> PairModule:
    torch.manual_seed(0)
    trunk = Trunk("test_efficientnet", NoWeights(0), frozen=False, size=SIZE)
    return PairModule(ImageTower(trunk, Head(256, 16)), TextTower(FolderEncoder(tiny_bert)), Clip())


class Measures(L.Callback):
    """Measures in a validation, which has a device and a precision; twice, since each validation reads the pictures again."""

    def __init__(self, ability: Ability) -> None:
        self.ability = ability
        self.found: list[Measured] = []

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, PairModule)
        module.train()
        with evaluating(module):
            self.found = [self.ability.measure(module), self.ability.measure(module)]
        assert module.training and module.image_tower.training
        module.eval()


def measured_by(ability: Ability, module: PairModule, data: PairData) -> Measured:
    measures = Measures(ability)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", devices=1, callbacks=[measures], use_distributed_sampler=False, **quiet)
    trainer.validate(module, datamodule=data, verbose=False)
    assert measures.found[0] == measures.found[1]
    return measures.found[0]


@pytest.fixture
def data(folder: Path) -> PairData:
    data = PairData(folder / "set", Pixels(SIZE), Captions(), Split(held_out=0.0), batch_size=8)
    data.setup("fit")
    return data


def slow(module: PairModule, numbers: list[int], crop_share: float) -> float:
    """The share of pictures, in per cent, whose class has the largest cosine; one picture and one text at a time."""
    module.eval()
    with torch.no_grad():
        classes = []
        for name in COLOURS:
            rows = [module.target_side([template.replace("{}", name.replace("_", " "))])[0] for template in TEMPLATES]
            classes.append(sum(row / row.norm() for row in rows))
        right = 0
        for number in numbers:
            row = module.image_tower(torch.from_numpy(centre(encoded(number), SIZE, crop_share, "bicubic"))[None])[0]
            cosines = [float(row @ one / one.norm() / row.norm()) for one in classes]
            right += cosines.index(max(cosines)) == number % 3
    return 100 * right / len(numbers)


def test_classes_of_a_shard_set_and_of_files_are_predicted_as_by_a_slow_loop(module: PairModule, data: PairData, folder: Path) -> None:
    given: dict[str, tuple[Path, str | None, list[int], float]] = {
        "shards": (folder / "set", "colour", [number for number in range(NUM) if number != 5], 0.875),  # one has no colour
        "files": (folder / "files", None, list(range(NUM)), 1.0),
    }
    for path, label, numbers, crop_share in given.values():
        classes = open_classes(path, label, "all", None, folder / "templates.txt", None, 1000, data)
        measured = measured_by(classes, module, data)
        assert measured.name == "val/zero_shot" and measured.num == len(numbers)
        assert measured.value == pytest.approx(slow(module, numbers, crop_share))
        most = max(sum(number % 3 == label for number in numbers) for label in range(3))
        assert measured.chance == pytest.approx(100 * most / len(numbers))


def test_at_most_so_many_are_measured_evenly_spread() -> None:
    ids = np.arange(5, 105)
    assert some(ids, 1000) is ids
    np.testing.assert_array_equal(some(ids, 10), ids[::10])


@pytest.mark.parametrize(
    ("path", "label", "said"),
    [
        ("set", None, "is a shard set; give its column of metadata too: --forgetting.label NAME"),
        ("set", "size", "forgetting.label=size: no pair of .* has it. Its metadata: colour"),
        ("files", "colour", "forgetting.label=colour: is for a shard set, and forgetting.classes=.* is not one"),
    ],
)
def test_labels_that_are_not_there_are_refused(data: PairData, folder: Path, path: str, label: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_classes(folder / path, label, "all", None, None, None, 1000, data)
