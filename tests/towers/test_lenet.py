"""LeNet: the lecture's layers, the same for the same seed, and known again from an export's card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multimodal.boxes.trust import Builder
from multimodal.errors import InputError
from multimodal.export.slots import SLOTS, build_trunk
from multimodal.towers import Head, ImageTower, LeNet, NoWeights
from multimodal.towers.weights import StoredWeights, Weights


def test_its_layers_and_sizes_are_those_of_the_lecture() -> None:
    tower = ImageTower(LeNet(), Head(256, 2))
    shapes = [tuple(one.shape) for one in tower.parameters() if one.ndim > 1]
    assert shapes == [(32, 1, 5, 5), (64, 32, 5, 5), (256, 1024), (256, 256), (2, 256)]
    pictures = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8).expand(-1, 3, -1, -1)
    assert tower(pictures).shape == (3, 2)
    assert LeNet(size=16)(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).shape == (2, 256)
    with pytest.raises(InputError, match="size=15 must be at least 16"):
        LeNet(size=15)


def test_it_is_a_function_of_its_seed_and_is_made_again_from_its_recipe(tmp_path: Path) -> None:
    one, other, third = LeNet(NoWeights(3)), LeNet(NoWeights(3)), LeNet(NoWeights(4))
    assert one.fingerprint == other.fingerprint != third.fingerprint
    made = build_trunk(Builder(tmp_path, SLOTS, (), {Weights: StoredWeights}), LeNet(NoWeights(3), frozen=True, size=20).recipe)
    assert isinstance(made, LeNet) and made.size == 20 and made.frozen and not any(p.requires_grad for p in made.parameters())
    assert made.preprocessing.size == 20 and made.has_fixed_size
