"""A trunk of stripes: each stripe's features are those of that part of the maps alone."""

from __future__ import annotations

import pytest
import torch

from multimodal.errors import InputError
from multimodal.towers import NoWeights, StripedTrunk, Trunk, folded


def test_stripes_are_pooled_apart_and_one_stripe_is_the_whole_picture() -> None:
    pictures = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    whole = Trunk("test_efficientnet", NoWeights(0), size=96, num_maps=1)
    one, three = (StripedTrunk("test_efficientnet", NoWeights(0), size=96, num_maps=1, stripes=num) for num in (1, 3))
    assert three.dim == 3 * whole.dim and one.fingerprint != whole.fingerprint
    assert torch.allclose(one(pictures), whole(pictures), atol=1e-6)
    last, [before] = three.model.forward_intermediates((pictures / 255 - three.mean) / three.std, indices=1)  # type: ignore[operator]
    upper, _, lower = three(pictures).split(whole.dim, dim=1)
    for rows, at in ((upper, slice(0, 1)), (lower, slice(2, 3))):
        for part, feature_map in zip(rows.split([last.shape[1], before.shape[1]], dim=1), (last, before), strict=True):
            pooled = feature_map[:, :, at].mean(dim=(2, 3))
            assert torch.allclose(torch.cosine_similarity(part, pooled), torch.ones(2), atol=1e-5)
    without = StripedTrunk("test_efficientnet", NoWeights(0), size=96, num_maps=1, last=False)
    assert torch.allclose(
        torch.cosine_similarity(without(pictures)[:, : without.dim // 3], before[:, :, :1].mean(dim=(2, 3))), torch.ones(2)
    )
    assert torch.allclose(folded(three)(pictures), three(pictures), atol=1e-4)


def test_a_picture_and_its_mirror_image_have_the_same_mirrored_features() -> None:
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    trunk = StripedTrunk("test_efficientnet", NoWeights(0), size=64, stripes=2, mirrored=True)
    assert torch.allclose(trunk(pictures), trunk(pictures.flip(3)), atol=1e-5)
    assert trunk.recipe["init_args"]["mirrored"] and trunk.recipe["init_args"]["stripes"] == 2


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="stripes=0 must be at least 1"):
        StripedTrunk("test_efficientnet", NoWeights(0), stripes=0)
    with pytest.raises(InputError, match="without the last features, num_maps must be at least 1"):
        StripedTrunk("test_efficientnet", NoWeights(0), last=False)
