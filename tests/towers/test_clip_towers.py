"""The towers of CLIP models, to train: which weights move, by how much in which layer, and what of it an export gets."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multimodal.errors import InputError
from multimodal.towers import ClipTextTower, ClipTrunk, ImageTower, Locked, LockedNorms, Lora, Tuning
from multimodal.towers.layers import layer_numbers
from multimodal.towers.pretrained import find_model, read_once
from multimodal.towers.tuning import NORMS
from multimodal.training.optimisers import AdamWCosine

open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
VIT = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8}
RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8}
TIMM = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"}
TEXTS = ["a dog on the beach", "two cats", "snow"]


def write_config(folder: Path, vision: dict[str, Any], embed_dim: int = 32) -> str:
    """A folder that describes a model and has no weights."""
    folder.mkdir()
    config = {"model_cfg": {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": TEXT}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a model with a ViT, a ResNet, and a network of timm."""
    folder = tmp_path_factory.mktemp("named")
    kinds = {"vit": (VIT, 32), "resnet": (RESNET, 32), "timm": (TIMM, 64)}
    return {kind: write_config(folder / kind, vision, dim) for kind, (vision, dim) in kinds.items()}


def trunk_of(named: str, tuning: Tuning | None = None, checkpointing: bool = False, seed: int = 0) -> ClipTrunk:
    torch.manual_seed(seed)
    trunk = ClipTrunk(named, tuning, weights=False, checkpointing=checkpointing)
    if "resnet" in named:  # open_clip begins its blocks at zero, so that nothing would reach the weights below
        for name, parameter in trunk.model.named_parameters():
            if "bn3.weight" in name:
                nn.init.ones_(parameter)
    return trunk.train()


def text_of(named: str, tuning: Tuning | None = None, checkpointing: bool = False) -> ClipTextTower:
    torch.manual_seed(0)
    return ClipTextTower(named, tuning, weights=False, checkpointing=checkpointing).train()


def pictures(trunk: ClipTrunk, num: int = 4) -> Tensor:
    size = trunk.preprocessing.size
    return torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def step(tower: nn.Module, rows: Any) -> None:
    """One step of gradient descent on a loss that every weight has a part in."""
    moving = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    (tower(rows) * torch.linspace(-1, 2, tower.dim)).square().sum().backward()
    with torch.no_grad():
        for parameter in moving:
            assert parameter.grad is not None
            parameter -= 0.1 * nn.functional.normalize(parameter.grad.flatten(), dim=0).view_as(parameter)  # a step of one length
            parameter.grad = None


def test_the_vectors_of_both_towers_are_open_clips(named: dict[str, str]) -> None:
    trunk, text = trunk_of(named["vit"]).eval(), text_of(named["vit"]).eval()
    model = open_clip.CustomTextCLIP(32, VIT, TEXT)
    model.visual.load_state_dict(trunk.model.state_dict())
    model.text.load_state_dict(text.network.state_dict())
    with torch.no_grad():
        pixels = (pictures(trunk) / 255 - trunk.mean) / trunk.std
        torch.testing.assert_close(trunk(pictures(trunk)), model.encode_image(pixels), atol=1e-5, rtol=0)
        tokens = open_clip.SimpleTokenizer(context_length=12)(TEXTS)
        torch.testing.assert_close(text(TEXTS), model.encode_text(tokens), atol=1e-5, rtol=0)
        rows = text(["", "dog", "  "])
    assert not rows[[0, 2]].any() and rows[1].any(), "a text without a word is left out by objectives"


@pytest.mark.parametrize("kind", ["vit", "resnet", "timm"])
def test_locked_norms_keep_their_weights_and_statistics_and_all_else_moves(kind: str, named: dict[str, str]) -> None:
    trunk = trunk_of(named[kind], LockedNorms())
    norms = {f"{name}.{own}" for name, one in trunk.model.named_modules() if isinstance(one, NORMS) for own in one.state_dict()}
    before = copy.deepcopy(trunk.model.state_dict())
    step(trunk, pictures(trunk))
    changed = {name for name, tensor in trunk.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert norms and not norms & changed
    still = {name for name, _ in trunk.model.named_parameters()} - norms - changed
    assert not {name for name in still if "k_proj.bias" not in name}, "the bias of keys has no effect in attention"


@pytest.mark.parametrize("kind", ["vit", "resnet", "timm"])
def test_a_locked_tower_stays_as_it_is(kind: str, named: dict[str, str]) -> None:
    trunk = trunk_of(named[kind], Locked())
    before = copy.deepcopy(trunk.model.state_dict())
    assert not trunk(pictures(trunk)).requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.model.state_dict().items())
    assert not text_of(named[kind], Locked())(TEXTS).requires_grad


@pytest.mark.parametrize(
    ("kind", "tuning"),
    [("vit", Lora(4)), ("vit", Lora(2, 3, ["attn", "c_fc", "c_proj"])), ("resnet", Lora(4, 16, ["conv1", "conv3"])), ("timm", Lora(4))],
)
def test_adapters_begin_without_effect_and_are_merged_into_what_was_there(kind: str, tuning: Lora, named: dict[str, str]) -> None:
    plain, trunk = trunk_of(named[kind]).eval(), trunk_of(named[kind], tuning)
    shown = pictures(trunk)
    torch.testing.assert_close(trunk(shown), plain(shown), atol=1e-6, rtol=1e-5)
    before = {name: tensor.clone() for name, tensor in trunk.model.state_dict().items() if "lora_" not in name}
    for _ in range(3):  # adapters are products of two matrices, and only one of them moves in the first step
        step(trunk, shown)
    learned = trunk.model.state_dict()
    assert all(torch.equal(learned[name], tensor) for name, tensor in before.items()), "not a bit of the weights below"
    assert all(name.endswith("default.weight") for name, one in trunk.model.named_parameters() if one.requires_grad)
    stored = trunk.stored().eval()
    assert stored.model.state_dict().keys() == plain.model.state_dict().keys()
    torch.testing.assert_close(stored(shown), trunk(shown), atol=1e-5, rtol=1e-5)
    assert (stored(shown) - plain(shown)).abs().max() > 1e-3


def test_the_text_tower_has_adapters_too(named: dict[str, str], tmp_path: Path) -> None:
    text = text_of(named["vit"], Lora(4))
    for _ in range(3):
        step(text, TEXTS)
    rows = nn.functional.normalize(text(TEXTS)).detach().numpy()
    assert abs(text.as_space(tmp_path).embed(TEXTS) - rows).max() < 1e-5


def test_merged_attention_is_the_sum_that_the_paper_defines(named: dict[str, str]) -> None:
    trunk = trunk_of(named["vit"], Lora(2, 6))
    for _ in range(2):
        step(trunk, pictures(trunk))
    state, merged = trunk.model.state_dict(), trunk.stored().model.state_dict()
    at = "transformer.resblocks.1.attn."
    for where, its in (("", "in_proj_weight"), ("base_layer.out_proj.", "out_proj.weight")):
        a, b = (state[f"{at}{where}lora_{part}.default.weight"] for part in "AB")
        weight = state[f"{at}base_layer.in_proj_weight" if not where else f"{at}base_layer.out_proj.base_layer.weight"]
        torch.testing.assert_close(merged[at + its], weight + 6 / 2 * b @ a)


@pytest.mark.parametrize(
    ("kind", "tuning", "message"),
    [
        ("resnet", Lora(), r"finds no attention in it. Name layers: targets, of conv1, conv2"),
        ("resnet", Lora(targets=["q_proj"]), "no layer is called q_proj. There are: conv1"),
        ("vit", Lora(targets=["atn"]), "no layer is called atn. There are: conv1, attn, c_fc, c_proj"),
    ],
)
def test_adapters_that_would_have_no_effect_are_refused(kind: str, tuning: Lora, message: str, named: dict[str, str]) -> None:
    with pytest.raises(InputError, match=message):
        trunk_of(named[kind], tuning)


@pytest.mark.parametrize("tower", ["visual", "text"])
def test_layers_are_those_that_open_clip_unlocks_one_after_the_other(tower: str, named: dict[str, str]) -> None:
    network: Any = trunk_of(named["vit"]).model if tower == "visual" else text_of(named["vit"]).network
    layers = layer_numbers(network)
    assert layers is not None
    top = max(layers.values())
    assert top == 4
    for unlocked in range(1, top + 2):
        network.lock(unlocked)
        moving = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert moving == {name for name, number in layers.items() if number > top - unlocked}


def test_layers_of_a_resnet_are_stem_blocks_and_pooling(named: dict[str, str]) -> None:
    layers = layer_numbers(trunk_of(named["resnet"]).model)
    assert layers is not None
    wanted = {"conv2.weight": 0, "layer1.0.bn1.bias": 1, "layer2.0.downsample.0.weight": 2, "layer2.1.conv1.weight": 3}
    wanted |= {"layer3.0.conv1.weight": 4, "layer4.0.conv3.weight": 5, "attnpool.c_proj.weight": 6}
    assert {name: layers[name] for name in wanted} == wanted
    assert layer_numbers(nn.Linear(2, 3)) is None


def test_each_layer_has_a_share_of_the_rate_above_it(named: dict[str, str]) -> None:
    towers = nn.ModuleDict({"image_tower": ImageTower(trunk_of(named["vit"])), "target_side": text_of(named["vit"], Lora(2))})
    optimizer = AdamWCosine(lr=1.0, layer_decay=0.5, rates={"target_side": 2.0}).optimizer(towers)
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    names = {name: rates[id(one)] for name, one in towers.named_parameters() if one.requires_grad}
    found = {
        name.partition(".model.")[2] or name.partition(".network.")[2]: rate
        for name, rate in names.items()
        if name.endswith((".proj", "conv1.weight", "resblocks.1.ln_1.bias", "resblocks.2.attn.lora_A.default.weight"))
    }
    assert found == {
        "proj": 1.0,
        "conv1.weight": 0.5**4,
        "transformer.resblocks.1.ln_1.bias": 0.5**2,
        "transformer.resblocks.2.attn.lora_A.default.weight": 2.0 * 0.5,
    }


def test_activations_that_are_computed_again_give_the_same_gradient(named: dict[str, str]) -> None:
    for make, rows in ((trunk_of, pictures(trunk_of(named["vit"]))), (text_of, TEXTS)):
        gradients = []
        for checkpointing in (False, True):
            tower = make(named["vit"], None, checkpointing)
            tower(rows).square().sum().backward()
            gradients.append([parameter.grad for parameter in tower.parameters()])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)
    with pytest.raises(InputError, match="no gradient checkpointing"):
        trunk_of(named["resnet"], None, True)


def test_a_file_is_read_once_for_both_towers(named: dict[str, str], tmp_path: Path) -> None:
    folder = Path(write_config(tmp_path / "clip", VIT))
    torch.save(open_clip.CustomTextCLIP(32, VIT, TEXT).state_dict(), folder / "weights.pt")
    found = find_model(str(folder))
    with read_once():
        assert found.read() is find_model(str(folder)).read()
        trunk, text = ClipTrunk(str(folder)), ClipTextTower(str(folder))
        step(trunk, pictures(trunk))
        assert trunk.pairing == text.pairing
    again = ClipTrunk(str(folder))
    assert not torch.equal(again.model.proj, trunk.model.proj), "training a tower does not change what is read next"


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        (None, True, "no CLIP model is named. Name one with --clip"),
        ("ViT-B-32", True, "neither a file nor weights that open_clip knows for ViT-B-32"),
        ("ViT-B-23", False, "neither a folder nor a model of open_clip"),
        ("roberta-ViT-B-32", False, "text tower is 'roberta-base' of transformers"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(model: str | None, weights: bool, message: str) -> None:
    for tower in (ClipTrunk, ClipTextTower):
        with pytest.raises(InputError, match=message):
            tower(model, weights=weights)
