"""Augmentation on the device: each picture's colours change as torchvision changes them, in training alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from multimodal.errors import InputError
from multimodal.towers import AffineJitter, ColourJitter, Head, ImageTower, NoWeights, RandomErasing, Trunk
from multimodal.towers.augment import affine, colour_jitter


def pictures(num: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (num, 3, 20, 17), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_picture_is_changed_as_torchvision_changes_it_alone() -> None:
    images = pictures()
    factors = torch.linspace(0, 2, 18)[torch.randperm(18, generator=torch.Generator().manual_seed(1))].view(3, 6)
    ours = colour_jitter(images, *factors)
    assert ours.dtype == torch.uint8 and ours.shape == images.shape
    for image, jittered, brightness, contrast, saturation in zip(images, ours, *factors.tolist(), strict=True):
        theirs = functional.adjust_brightness(image / 255, brightness)
        theirs = functional.adjust_saturation(functional.adjust_contrast(theirs, contrast), saturation)
        assert (jittered / 255 - theirs).abs().max() <= 0.501 / 255  # ours is rounded, once


def test_factors_of_one_change_nothing_and_of_nought_leave_black_grey_and_the_mean() -> None:
    images, one, nought = pictures(), torch.ones(6), torch.zeros(6)
    assert torch.equal(colour_jitter(images, one, one, one), images)
    assert torch.equal(ColourJitter(0, 0, 0)(images), images)
    assert (colour_jitter(images, nought, one, one) == 0).all()
    flat, grey = colour_jitter(images, one, nought, one), colour_jitter(images, one, one, nought)
    assert (flat == flat[:, :1, :1, :1]).all()
    assert (grey == grey[:, :1]).all() and not (grey == grey[:, :, :1, :1]).all()


def test_the_factors_are_torchs_own_chance_and_each_pictures_own() -> None:
    images = pictures(1).expand(4, -1, -1, -1)
    jitter = ColourJitter()
    torch.manual_seed(3)
    first = jitter(images)
    torch.manual_seed(3)
    assert torch.equal(jitter(images), first), "resuming a run draws the same"
    assert not torch.equal(jitter(images), first)
    assert not torch.equal(first[0], first[1])


def test_a_share_of_the_pictures_loses_its_colours() -> None:
    images = pictures(1).expand(1000, -1, -1, -1)
    torch.manual_seed(0)
    jittered = ColourJitter(0, 0, 0, grey=0.2)(images)
    is_grey = (jittered == jittered[:, :1]).all(dim=(1, 2, 3))
    assert abs(is_grey.float().mean() - 0.2) < 4 * (0.2 * 0.8 / 1000) ** 0.5, "four standard deviations of so many draws"
    assert torch.equal(jittered[~is_grey], images[~is_grey])


def test_a_tower_augments_in_training_alone_and_keeps_no_weight_of_it() -> None:
    trunk = Trunk("test_efficientnet", NoWeights(0), size=48)
    plain = ImageTower(trunk, Head(trunk.dim, 4))
    tower = ImageTower(trunk, plain.head, augment=ColourJitter())
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    assert tower.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(tower.eval()(images), plain.eval()(images))
    assert not torch.equal(tower.train()(images), plain.train()(images))


def test_a_negative_range_is_refused() -> None:
    with pytest.raises(InputError, match="contrast=-0.1 must not be negative"):
        ColourJitter(contrast=-0.1)
    with pytest.raises(InputError, match="grey=2 must be a probability"):
        ColourJitter(grey=2)


def test_each_drawing_is_turned_sheared_scaled_and_moved_as_by_torchvision_alone() -> None:
    chance = torch.Generator().manual_seed(1)
    images = pictures()
    images[:, :, :3], images[:, :, -3:], images[:, :, :, :3], images[:, :, :, -3:] = 0, 0, 0, 0
    angle, move = 120 * torch.rand(6, generator=chance) - 60, 6 * torch.rand(6, 2, generator=chance) - 3
    scale, shear = 0.6 + torch.rand(6, generator=chance), 60 * torch.rand(6, 2, generator=chance) - 30
    ours = affine(images, angle, move, scale, shear)
    for image, made, *given in zip(images, ours, angle.tolist(), move.tolist(), scale.tolist(), shear.tolist(), strict=True):
        theirs = functional.affine(image.float(), *given, interpolation=InterpolationMode.BILINEAR)
        assert (made - theirs).abs().max() <= 0.501  # ours is rounded
    assert torch.equal(affine(255 - images, angle, move, scale, shear, fill=255), 255 - ours), "a white ground stays white"


def test_affine_jitter_of_nothing_changes_nothing_and_each_picture_has_its_own() -> None:
    images = pictures(1).expand(5, -1, -1, -1)
    assert torch.equal(AffineJitter(0, 0, (1, 1), 0)(images), images)
    torch.manual_seed(3)
    first = AffineJitter()(images)
    torch.manual_seed(3)
    assert torch.equal(AffineJitter()(images), first) and len(first.flatten(1).unique(dim=0)) == 5
    for settings, said in (({"scale": (0, 1)}, "two factors above 0"), ({"shear": 90}, "shear=90"), ({"fill": 256}, "fill=256")):
        with pytest.raises(InputError, match=said):
            AffineJitter(**settings)


def test_random_erasing_covers_one_rectangle_of_a_share_of_the_pictures() -> None:
    torch.manual_seed(0)
    images = torch.full((2000, 3, 24, 16), 255, dtype=torch.uint8)
    erased = RandomErasing(0.4, area=(0.1, 0.3), ratio=(0.5, 2.0), fill=(1, 2, 3))(images)
    covered = (erased != 255).all(dim=1)
    assert torch.equal(covered, (erased != 255).any(dim=1)), "all channels are covered together"
    has_one = covered.any(dim=2).any(dim=1)
    assert has_one.float().mean().item() == pytest.approx(0.4, abs=0.04)
    rows, columns = covered.any(dim=2).sum(dim=1)[has_one], covered.any(dim=1).sum(dim=1)[has_one]
    area = covered.sum(dim=(1, 2))[has_one]
    assert torch.equal(area, rows * columns), "a rectangle without holes"
    shares = area / (24 * 16)
    assert shares.min() > 0.08 and shares.max() < 0.33 and shares.std() > 0.04
    assert (erased.permute(0, 2, 3, 1)[covered] == torch.tensor([1, 2, 3], dtype=torch.uint8)).all()
    assert torch.equal(RandomErasing(0.0)(images), images)
    tops = covered[has_one].any(dim=2).float().argmax(dim=1)
    assert tops.min() == 0 and (tops + rows).max() == 24, "anywhere"


@pytest.mark.parametrize(
    "wrong", [{"probability": 1.5}, {"area": (0.5, 0.2)}, {"area": (0.0, 0.2)}, {"ratio": (0, 1)}, {"fill": (0, 0, 256)}]
)
def test_wrong_erasing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"RandomErasing: {next(iter(wrong))}="):
        RandomErasing(**wrong)
