"""The zero-shot classifier against open_clip's own, on a small model of random weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from multimodal.embed.class_texts import class_weights, predict

open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")

NAMES = ("airplane", "fire truck", "cat", "aquarium fish", "oak tree", "ray", "cup")
TEMPLATES = (("{}",), ("a photo of a {}.",), ("a photo of a {}.", "a drawing of the {}", "{}, seen from above"))


@pytest.mark.parametrize("templates", TEMPLATES, ids=len)
def test_weights_and_predictions_are_those_of_build_zero_shot_classifier(templates: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = open_clip.model.CLIP(
        embed_dim=24,
        vision_cfg=open_clip.CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=16, image_size=32),
        text_cfg=open_clip.CLIPTextCfg(context_length=24, width=64, heads=2, layers=2),
    ).eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=24)

    def embed_texts(texts: Sequence[str]) -> np.ndarray:
        with torch.inference_mode():
            return model.encode_text(tokenizer(list(texts))).numpy()

    theirs = open_clip.build_zero_shot_classifier(model, tokenizer, NAMES, templates, num_classes_per_batch=3).T
    ours = class_weights(embed_texts, NAMES, templates)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)

    with torch.inference_mode():
        pictures = model.encode_image(torch.randn(50, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
        logits = torch.nn.functional.normalize(pictures, dim=-1) @ theirs.T
    assert predict(pictures.numpy(), ours).tolist() == logits.argmax(dim=1).tolist()
    assert len(set(logits.argmax(dim=1).tolist())) > 1
