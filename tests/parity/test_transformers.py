"""Exports of transformers' CLIP and SigLIP folders against transformers itself: equal vectors for equal weights, and what is refused.

Small networks with random weights; scripts/compare_transformers.py does the same with full ones.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from multimodal.cli import main
from multimodal.data.decode import Decoded, centre
from multimodal.errors import InputError
from multimodal.export.light import light_tower
from multimodal.export.model import export_pretrained, load_export
from multimodal.export.to_onnx import add_onnx
from multimodal.text.conformance import check_space
from multimodal.towers import ClipTextTower, ClipTrunk
from multimodal.towers.pretrained import find_model

transformers = pytest.importorskip("transformers")
pytest.importorskip("open_clip", reason="needs open_clip_torch")
pytest.importorskip("sentencepiece", reason="needs sentencepiece, of the extra [train]")
TOLERANCE = 1e-5
SMALL = {"hidden_size": 64, "intermediate_size": 130, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE = {**SMALL, "image_size": 32, "patch_size": 8}
OF_SIGLIP = {"max_position_embeddings": 24, "hidden_size": 48, "projection_size": 64}
CASES: dict[str, dict[str, Any]] = {
    "clip": {"kind": "clip", "text": SMALL, "vision": {**IMAGE, "hidden_size": 48}, "projection_dim": 32},
    "clip gelu": {
        "kind": "clip",
        "text": {**SMALL, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "eos_token_id": 2},
        "vision": {**IMAGE, "hidden_act": "gelu"},
        "projection_dim": 32,
        "resample": 2,
    },
    "siglip": {"kind": "siglip", "text": {**SMALL, **OF_SIGLIP}, "vision": IMAGE},
    "siglip 2": {
        "kind": "siglip",
        "text": {**SMALL, **OF_SIGLIP},
        "vision": {**IMAGE, "patch_size": 5},
        "tokenizer": "gemma",
        "resample": 2,
    },
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/compare_transformers.py"""
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    try:
        import compare_transformers
    finally:
        sys.path.pop(0)
    return compare_transformers


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, script: ModuleType) -> dict[str, Path]:
    """A folder of transformers for each of CASES, with random weights."""
    path = tmp_path_factory.mktemp("folders")
    return {name: script.write_folder(path / name.replace(" ", "_"), **case) for name, case in CASES.items()}


@pytest.fixture
def changed(folders: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a folder with other values in one of its JSON files; None removes one, and "a.b" is b in a."""

    def change(name: str, file: str, values: dict[str, Any]) -> Path:
        shutil.copytree(folders[name], tmp_path / "folder")
        path = tmp_path / "folder" / file
        settings = json.loads(path.read_text()) if path.is_file() else {}
        for key, value in values.items():
            *parts, last = key.split(".")
            within = settings
            for part in parts:
                within = within[part]
            within[last] = value
        path.write_text(json.dumps(settings))
        return tmp_path / "folder"

    return change


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_transformers(name: str, folders: dict[str, Path], script: ModuleType, tmp_path: Path) -> None:
    if name.startswith("siglip"):  # a network of these sizes has no name in timm, so open_clip cannot have it
        export = export_pretrained(str(folders[name]), tmp_path / "other")
        with pytest.raises(InputError, match="has no name"):
            script.to_open_clip(export, tmp_path / "back_of_other")
    found = script.compare(folders[name], tmp_path, with_open_clip=not name.startswith("siglip"))
    print(name, found)
    assert found.pillow <= TOLERANCE
    assert found.texts <= TOLERANCE
    assert found.torchvision < 0.1 * found.apart[0], "the same picture up to how pixels are rounded"
    assert min(found.apart) > 1000 * TOLERANCE, "different pictures have different vectors, and so have different texts"


@pytest.mark.parametrize("kind", ["CLIPImageProcessorPil", "SiglipImageProcessorPil"])
@pytest.mark.parametrize("resample", [2, 3])
def test_pixels_are_those_of_transformers_with_pillow(kind: str, resample: int, script: ModuleType) -> None:
    is_clip, square = kind.startswith("CLIP"), {"height": 48, "width": 48}
    sizes = {"size": {"shortest_edge": 48}, "crop_size": square} if is_clip else {"size": square}
    process = getattr(transformers, kind)(**sizes, resample=resample, do_normalize=False, do_rescale=False)
    interpolation, resize = ("bilinear", "bicubic")[resample - 2], "shortest_floor" if is_clip else "squash"
    for shape, encoded in script.odd_pictures().items():
        decoded = Decoded(encoded)
        wanted = process(images=decoded.image, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(centre(decoded, 48, 1.0, interpolation, resize), wanted), shape


def test_the_middle_of_a_picture_is_rounded_down_as_transformers_does() -> None:
    columns = np.repeat(np.arange(35, dtype=np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    picture = Decoded.of(Image.fromarray(columns))
    assert centre(picture, 32, 1.0, "bicubic", "shortest_floor")[0, 0, 0] == 1
    assert centre(picture, 32, 1.0, "bicubic", "shortest")[0, 0, 0] == 2


@pytest.mark.parametrize("name", ["clip", "siglip"])
@pytest.mark.slow
def test_the_text_side_keeps_the_contract_of_text_spaces(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    space = load_export(export_pretrained(str(folders[name]), tmp_path / "export")).query
    texts = ["a photo of a dog", "two cats in the snow", "beach"]
    check_space(space, texts, tmp_path / "spaces", without=["gensim", "lightning"], tolerance=TOLERANCE, spells=True)


@pytest.mark.parametrize("name", ["clip", "siglip"])
@pytest.mark.slow
def test_both_towers_as_onnx_have_the_vectors_of_torch(name: str, folders: dict[str, Path], script: ModuleType, tmp_path: Path) -> None:
    made = export_pretrained(str(folders[name]), tmp_path / "export", "pool")
    plain = load_export(made)
    pictures, texts = list(script.odd_pictures().values())[::4], ["a photo of a dog", "", "Two cats, in snow! " * 40]
    wanted, rows = plain.encode_image(pictures), plain.encode_text(texts)
    add_onnx(made)
    tower = light_tower(made)
    assert tower is not None
    np.testing.assert_allclose(tower.encode_image(pictures), wanted, atol=TOLERANCE)
    np.testing.assert_allclose(load_export(made).encode_text(texts), rows, atol=TOLERANCE)


def test_an_export_becomes_a_folder_of_open_clip(
    folders: dict[str, Path], script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export, back = tmp_path / "export", tmp_path / "back"
    assert main(["export", "--pretrained", str(folders["clip"]), "--output", str(export)]) == 0
    assert "contrastive export, 32 dimensions" in capsys.readouterr().out
    assert main(["to-open-clip", "--export", str(export), "--output", str(back)]) == 0
    said = capsys.readouterr().err
    assert "one pixel further right or down; it cleans white space and HTML entities" in said and "GELU" not in said
    opened, again = load_export(export), load_export(export_pretrained(str(back), tmp_path / "again"))
    model, _, transform = script.open_clip.create_model_and_transforms(f"local-dir:{back}")
    tokens, texts = script.open_clip.get_tokenizer(f"local-dir:{back}"), ["a photo of a dog", "Two cats, in snow!", "snow " * 100]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 33, 3), dtype=np.uint8))  # half a pixel, both round down
    with torch.inference_mode():
        rows = model.eval().encode_text(tokens(texts), normalize=True), model.encode_image(transform(picture)[None], normalize=True)
    for one in (opened, again):
        np.testing.assert_allclose(one.encode_text(texts), rows[0], atol=TOLERANCE)
        np.testing.assert_allclose(one.encode_image(picture), rows[1], atol=TOLERANCE)
    assert load_file(back / "open_clip_model.safetensors")["logit_scale"] == opened.network.objective.log_scale


def test_the_names_of_siglip_in_timm_are_networks_of_those_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    from multimodal.towers.transformers_folder import _SIGLIP_SIZES, TANH_IN_TIMM

    for (width, layers, heads, inner, patch), (stem, sizes) in _SIGLIP_SIZES.items():
        for size in sizes:
            with torch.device("meta"):
                model = timm.create_model(f"{stem}_{size}")
            block = model.blocks[0]
            assert (len(model.blocks), block.attn.num_heads, model.patch_embed.patch_size) == (layers, heads, (patch, patch))
            assert tuple(block.mlp.fc1.weight.shape) == (inner, width) and model.global_pool == "map"
            assert model.patch_embed.img_size == (size, size) and model.pos_embed.shape[1] == (size // patch) ** 2
            is_tanh = "tanh" in (type(block.mlp.act).__name__ + str(getattr(block.mlp.act, "approximate", ""))).lower()
            assert is_tanh == (f"{stem}_{size}" in TANH_IN_TIMM)


def test_siglip_is_read_without_a_mask_as_it_was_trained(
    changed: Callable[..., Path], folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed("siglip", "tokenizer_config.json", {"model_input_names": ["input_ids", "attention_mask"]})
    masked = load_export(export_pretrained(str(folder), tmp_path / "export"))
    assert "trained to see it, so the export does without the mask" in capsys.readouterr().err
    wanted = load_export(export_pretrained(str(folders["siglip"]), tmp_path / "wanted"))
    assert np.array_equal(masked.encode_text(["a dog"]), wanted.encode_text(["a dog"]))


@pytest.mark.parametrize(
    ("name", "file", "values", "message"),
    [
        ("clip", "config.json", {"model_type": "blip"}, "'blip'.*only clip and siglip are read"),
        ("clip", "config.json", {"model_type": "clip_text_model"}, "one tower of a model. Give the folder of the whole model"),
        ("siglip 2", "config.json", {"model_type": "siglip2"}, "NaFlex"),
        ("clip", "config.json", {"text_config.hidden_act": "relu"}, "towers have hidden_act quick_gelu and relu"),
        ("siglip", "config.json", {"text_config.hidden_act": "relu"}, "hidden_act is relu"),
        ("clip", "config.json", {"text_config.hidden_size": "wide"}, "transformers cannot read it"),
        ("clip", "config.json", {"text_config.num_hidden_layers": 3}, "lacks text_model.encoder.layers.2"),
        ("clip", "config.json", {"text_config.num_hidden_layers": 1}, "has also text_model.encoder.layers.1"),
        ("clip", "config.json", {"projection_dim": 48}, "weights cannot be read|of another shape"),
        ("clip", "config.json", {"text_config.eos_token_id": 5}, "ends a text with token 49407, but the network looks for 5"),
        ("clip", "config.json", {"vision_config.image_size": [32, 64]}, "only square ones"),
        ("clip", "config.json", {"text_config.hidden_size": 8_000_000}, "width is 8000000"),
        ("clip", "config.json", {"auto_map": {"AutoModel": "code.Model"}}, "auto_map, which names code"),
        ("clip", "config.json", {"text_config._attn_implementation": "somebody/kernels"}, "names code to run"),
        ("siglip", "config.json", {"vision_config.vision_use_head": False}, "has no head"),
        ("siglip", "config.json", {"vision_config.layer_norm_eps": 1e-5}, "layer_norm_eps of its image tower"),
        ("siglip", "config.json", {"text_config.projection_size": 48}, "gives 48 dimensions, its image tower 64"),
        ("clip", "processor_config.json", {"image_processor.image_processor_type": "BitImageProcessor"}, "BitImageProcessor; only"),
        ("clip", "processor_config.json", {"image_processor.crop_size": {"height": 16, "width": 16}}, "for a network of 32 pixels"),
        ("clip", "processor_config.json", {"image_processor.size": {"shortest_edge": 40}}, "for a network of 32 pixels"),
        ("siglip", "processor_config.json", {"image_processor.do_rescale": False}, "do_rescale False"),
        ("siglip 2", "tokenizer_config.json", {"padding_side": "left"}, "pads on the left"),
        ("clip", "adapter_config.json", {"peft_type": "LORA"}, "merge_and_unload"),
    ],
)
def test_a_folder_that_cannot_be_mapped_is_refused_with_the_reason(
    name: str, file: str, values: dict[str, Any], message: str, changed: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export_pretrained(str(changed(name, file, values)), tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("model.safetensors", "weights cannot be read"),
        ("processor_config.json", "holds no preprocessor_config.json or processor_config.json"),
        ("tokenizer.json", "its tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(without: str, message: str, changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed("clip", "config.json", {})
    (folder / without).unlink()
    with pytest.raises(InputError, match=message):
        export_pretrained(str(folder), tmp_path / "export")


def test_an_older_folder_with_a_preprocessor_config_and_half_precision_is_read(
    changed: Callable[..., Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = changed("clip", "config.json", {})
    (folder / "processor_config.json").unlink()
    settings = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    state = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # a buffer that older releases saved
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    one = load_export(export_pretrained(str(folder), tmp_path / "export"))
    two = load_export(export_pretrained(str(folders["clip"]), tmp_path / "wanted"))
    assert one.preprocessing == two.preprocessing
    np.testing.assert_allclose(one.encode_text(["a dog"]), two.encode_text(["a dog"]), atol=1e-2)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_what_a_run_keeps_of_a_folder_makes_the_same_towers(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    found = find_model(str(folders[name]))
    found.write(tmp_path / "kept")
    kept = find_model(str(tmp_path / "kept"), weights=False)
    assert (kept.model, kept.preprocess, kept.tokenizer) == (found.model, found.preprocess, found.tokenizer)
    trunk, text = ClipTrunk(str(tmp_path / "kept"), weights=False), ClipTextTower(str(tmp_path / "kept"), weights=False)
    trunk.model.load_state_dict(found.read().visual.state_dict())
    text.network.load_state_dict(found.read().text.state_dict())
    assert find_model(str(folders[name])).fingerprint == found.fingerprint
    assert ClipTrunk(str(folders[name])).fingerprint == trunk.fingerprint
    bias = trunk.pairing.bias
    assert bias == (-10 if name.startswith("siglip") else None)
