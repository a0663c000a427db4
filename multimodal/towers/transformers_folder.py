"""A CLIP or SigLIP model as transformers' `save_pretrained` writes it, as a model of open_clip.

    found = describe(Path("downloads/clip-vit-base-patch32"))         # settings as open_clip has them, and the tokenizer
    model = read_model(folder, found.model)                           # .visual, .text, .logit_scale, .logit_bias

The folder holds config.json, the weights, preprocessor_config.json or processor_config.json, and the tokenizer's files. Both libraries have
the same networks: only names differ, and how attention's weights are stacked. What has no counterpart in open_clip is refused.
`multimodal.towers.pretrained.find_model` is what finds such folders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, SiglipConfig, SiglipImageProcessorPil, SiglipModel

from multimodal.boxes import reading
from multimodal.errors import InputError
from multimodal.text.clip import build_tower, check_model
from multimodal.text.encoder import CONFIG, check_holds_no_code, without_progress_bar
from multimodal.towers.transformers_tokenizer import read_tokenizer

KINDS: Mapping[str, tuple[Any, Any]] = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}
"""model_type of the networks that are read -> their classes in transformers."""
_PARTS = {"clip": ("clip_text_model", "clip_vision_model"), "siglip": ("siglip_text_model", "siglip_vision_model")}
_PROCESSORS = {"CLIPImageProcessor": CLIPImageProcessorPil, "SiglipImageProcessor": SiglipImageProcessorPil}
_SIGLIP_SIZES = {  # (width, layers, heads, width of the MLP, patch) -> timm's name without the size, and its sizes
    (768, 12, 12, 3072, 16): ("vit_base_patch16_siglip", (224, 256, 384, 512)),
    (768, 12, 12, 3072, 32): ("vit_base_patch32_siglip", (256,)),
    (1024, 24, 16, 4096, 16): ("vit_large_patch16_siglip", (256, 384, 512)),
    (1152, 27, 16, 4304, 14): ("vit_so400m_patch14_siglip", (224, 378, 384)),
    (1152, 27, 16, 4304, 16): ("vit_so400m_patch16_siglip", (256, 384, 512)),
    (1536, 40, 16, 6144, 16): ("vit_giantopt_patch16_siglip", (256, 384)),
}
TANH_IN_TIMM = frozenset(
    "vit_base_patch32_siglip_256 vit_large_patch16_siglip_512 vit_so400m_patch16_siglip_256 vit_so400m_patch16_siglip_384 "
    "vit_so400m_patch16_siglip_512 vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384".split()
)
"""Names of timm with SigLIP's own activation, GELU by a tanh. Its others have the exact one, which changes vectors slightly."""
_EPS, _TIMM_EPS = 1e-5, 1e-6  # of a layer norm: torch's default, and timm's in its vision transformers


@dataclass(frozen=True, slots=True)
class Described:
    """A model without its weights. model: its `model_cfg`. preprocess: its `preprocess_cfg`. tokenizer: what `ClipTokenizer` takes.
    begins_at: the scale and the bias of an untrained one, as a `model_cfg` says them.
    """

    model: dict[str, Any]
    preprocess: dict[str, Any]
    tokenizer: Mapping[str, Any]
    tokenizer_json: str
    begins_at: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Names:
    """transformers' names of a tower's weights -> open_clip's.

    tower: a tensor, or a module with a weight and perhaps a bias. layers: what a layer's names begin with, with {} for its number.
    block: the modules in a layer. qkv: the stacked projections of attention, without weight or bias.
    """

    tower: Mapping[str, str]
    layers: tuple[str, str]
    block: Mapping[str, str]
    qkv: str


_OPEN_CLIP_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OPEN_CLIP_LAYERS = "transformer.resblocks.{}."
_CLIP_TEXT = _Names(
    tower={
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm": "ln_final",
        "text_projection.weight": "text_projection",
    },
    layers=("text_model.encoder.layers.{}.", _OPEN_CLIP_LAYERS),
    block=_OPEN_CLIP_BLOCK,
    qkv="attn.in_proj_",
)
_SIGLIP_TEXT = _Names(
    tower={
        **{old: new for old, new in _CLIP_TEXT.tower.items() if old != "text_projection.weight"},
        "text_model.head": "text_projection",
    },
    layers=_CLIP_TEXT.layers,
    block=_OPEN_CLIP_BLOCK,
    qkv="attn.in_proj_",
)
_CLIP_IMAGE = _Names(
    tower={
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.patch_embedding": "conv1",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.pre_layrnorm": "ln_pre",
        "vision_model.post_layernorm": "ln_post",
        "visual_projection.weight": "proj",
    },
    layers=("vision_model.encoder.layers.{}.", _OPEN_CLIP_LAYERS),
    block=_OPEN_CLIP_BLOCK,
    qkv="attn.in_proj_",
)
_SIGLIP_IMAGE = _Names(  # a vision transformer of timm, pooled by attention (MAP, Zhai et al., 2022)
    tower={
        "vision_model.embeddings.patch_embedding": "trunk.patch_embed.proj",
        "vision_model.embeddings.position_embedding.weight": "trunk.pos_embed",
        "vision_model.post_layernorm": "trunk.norm",
        "vision_model.head.probe": "trunk.attn_pool.latent",
        "vision_model.head.attention.in_proj_weight": "trunk.attn_pool.in_proj_weight",
        "vision_model.head.attention.in_proj_bias": "trunk.attn_pool.in_proj_bias",
        "vision_model.head.attention.out_proj": "trunk.attn_pool.proj",
        "vision_model.head.layernorm": "trunk.attn_pool.norm",
        "vision_model.head.mlp.fc1": "trunk.attn_pool.mlp.fc1",
        "vision_model.head.mlp.fc2": "trunk.attn_pool.mlp.fc2",
    },
    layers=("vision_model.encoder.layers.{}.", "trunk.blocks.{}."),
    block={"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"},
    qkv="attn.qkv.",
)


def describe(folder: Path) -> Described:
    """What a folder's model is; InputError if the folder cannot be read, or open_clip has no such network."""
    config, kind = _config(folder)
    if (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder}: has adapter_config.json: only a part of its weights. Merge them first, by peft's merge_and_unload()")
    is_siglip = kind == "siglip"
    model = (_siglip if is_siglip else _clip)(config, folder / CONFIG)
    for side in ("visual", "text"):
        check_model(model, side, folder / CONFIG)
    settings, content = read_tokenizer(folder, model["text_cfg"], is_siglip)
    # As `to-open-clip` writes them, so that what is kept of a model can be read again
    model["text_cfg"] |= {"hf_tokenizer_name": folder.resolve().name, "tokenizer_kwargs": {"clean": settings["clean"]}}
    preprocess = _preprocessing(folder, config.vision_config.image_size, "SiglipImageProcessor" if is_siglip else "CLIPImageProcessor")
    begins_at = (
        {"init_logit_scale": math.log(10), "init_logit_bias": -10.0} if is_siglip else {"init_logit_scale": config.logit_scale_init_value}
    )
    return Described(model, preprocess, settings, content, begins_at)


class TwoTowers(nn.Module):
    """A CLIP model as this project uses one: two towers of open_clip, and what their cosines are multiplied with and shifted by."""

    def __init__(self, visual: nn.Module, text: nn.Module, logit_scale: Tensor, logit_bias: Tensor | None) -> None:
        super().__init__()
        self.visual, self.text = visual, text
        self.register_buffer("logit_scale", logit_scale)
        self.register_buffer("logit_bias", logit_bias)


def read_model(folder: Path, model: Mapping[str, Any]) -> TwoTowers:
    """The towers of a folder with their weights, in evaluation mode. model: as `describe` gives it."""
    config, kind = _config(folder)
    state = _weights(folder, config, kind)
    log_scale, bias = state.pop("logit_scale").reshape(()), state.pop("logit_bias", None)
    layers = config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers
    names = (_SIGLIP_IMAGE, _SIGLIP_TEXT) if kind == "siglip" else (_CLIP_IMAGE, _CLIP_TEXT)
    visual_state, text_state = (dict(_renamed(state, one, number)) for one, number in zip(names, layers, strict=True))
    assert not state, sorted(state)  # the tables name every weight of the two classes
    if kind == "siglip":
        visual_state = _as_timm(visual_state)
    else:  # ours are matrices that vectors are multiplied with, theirs are linear layers
        visual_state["proj"], text_state["text_projection"] = visual_state["proj"].T, text_state["text_projection"].T
    shared = {name: model[name] for name in ("embed_dim", "quick_gelu")}
    visual = build_tower({**shared, "vision_cfg": model["vision_cfg"]}, "visual", folder)
    text = build_tower({**shared, "text_cfg": model["text_cfg"]}, "text", folder)
    visual.load_state_dict(visual_state)
    text.load_state_dict(text_state)
    return TwoTowers(visual, text, log_scale, None if bias is None else bias.reshape(())).eval()


def _config(folder: Path) -> tuple[Any, str]:
    """The settings of a folder's network with transformers' defaults, and its model_type."""
    path = folder / CONFIG
    with reading(path):
        kind = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    if kind not in KINDS:
        reason = ""
        if kind == "siglip2":
            reason = ", which reads pictures of every shape (NaFlex). SigLIP 2 of one size, such as siglip2-base-patch16-224, is read"
        elif any(kind in parts for parts in _PARTS.values()):
            reason = ", which is one tower of a model. Give the folder of the whole model"
        raise InputError(
            f"{path}: is transformers' {kind!r} (model_type){reason}. Of transformers' models, only {' and '.join(KINDS)} are read"
        )
    check_holds_no_code(folder, frozenset((kind, *_PARTS[kind])))
    try:
        config = KINDS[kind][0].from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises what its checks raise, of several libraries
        raise InputError(f"{path}: transformers cannot read it: {' '.join(str(error).split())[:300]}") from None
    return config, kind


def _clip(config: Any, where: Path) -> dict[str, Any]:
    """The `model_cfg`."""
    vision, text = config.vision_config, config.text_config
    if vision.hidden_act != text.hidden_act:
        raise InputError(f"{where}: its towers have hidden_act {vision.hidden_act} and {text.hidden_act}; open_clip has one for both")
    # Before transformers 4.31, the end token was the one with the highest number, whatever the settings said (2)
    end = {"pool_type": "argmax"} if text.eos_token_id == 2 else {"pool_type": "eos", "eos_id": text.eos_token_id}
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "vision_cfg": _vision(vision, where) | _transformer(vision, where),
        "text_cfg": _text(text) | _transformer(text, where) | end,
    }


def _siglip(config: Any, where: Path) -> dict[str, Any]:
    """The `model_cfg`: the image tower is a vision transformer of timm."""
    vision, text = config.vision_config, config.text_config
    if not vision.vision_use_head:
        raise InputError(f"{where}: its image tower has no head (vision_use_head), so it gives no vector")
    if text.projection_size != vision.hidden_size:
        raise InputError(f"{where}: its text tower gives {text.projection_size} dimensions, its image tower {vision.hidden_size}")
    if vision.layer_norm_eps != _TIMM_EPS:
        raise InputError(f"{where}: layer_norm_eps of its image tower is {vision.layer_norm_eps}; the towers of timm have {_TIMM_EPS}")
    if vision.hidden_act not in ("gelu", "gelu_pytorch_tanh"):
        raise InputError(
            f"{where}: hidden_act of its image tower is {vision.hidden_act}; the towers of timm have gelu and gelu_pytorch_tanh"
        )
    image_size = _vision(vision, where)["image_size"]
    pooled = {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}
    return {
        "embed_dim": vision.hidden_size,
        "quick_gelu": False,
        "vision_cfg": {"image_size": image_size, "timm_pool": "map", "timm_proj": "none", **_timm(vision)},
        "text_cfg": _text(text) | _transformer(text, where) | pooled,
    }


def _timm(vision: Any) -> dict[str, Any]:
    """The name of a SigLIP image tower in timm, and in what it differs (see `build_tower`)."""
    sizes = (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads, vision.intermediate_size, vision.patch_size)
    stem, published = _SIGLIP_SIZES.get(sizes, ("vit_base_patch16_siglip", ()))
    name = f"{stem}_{vision.image_size if vision.image_size in published else (*published, 224)[0]}"
    differs: dict[str, Any] = {}
    if vision.image_size not in published:
        differs = {"img_size": vision.image_size}
    if sizes not in _SIGLIP_SIZES:
        width, depth, heads, _, patch = sizes
        differs |= {"patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads, "mlp_ratio": _mlp_ratio(vision)}
    if (vision.hidden_act == "gelu_pytorch_tanh") != (name in TANH_IN_TIMM):
        differs["act_layer"] = "gelu_tanh" if vision.hidden_act == "gelu_pytorch_tanh" else "gelu"
    return {"timm_model_name": name, **({"timm_kwargs": differs} if differs else {})}


def _vision(vision: Any, where: Path) -> dict[str, Any]:
    if type(vision.image_size) is not int or type(vision.patch_size) is not int or vision.num_channels != 3:
        raise InputError(
            f"{where}: its pictures are {vision.image_size} pixels in patches of {vision.patch_size} with {vision.num_channels} channels; "
            "only square ones of 3 channels are supported"
        )
    heads = vision.num_attention_heads
    return {"image_size": vision.image_size, "patch_size": vision.patch_size, "head_width": vision.hidden_size // heads}


def _text(text: Any) -> dict[str, Any]:
    return {"context_length": text.max_position_embeddings, "vocab_size": text.vocab_size, "heads": text.num_attention_heads}


def _transformer(tower: Any, where: Path) -> dict[str, Any]:
    """What both towers have in common."""
    settings: dict[str, Any] = {"layers": tower.num_hidden_layers, "width": tower.hidden_size, "mlp_ratio": _mlp_ratio(tower)}
    if tower.hidden_act not in ("gelu", "quick_gelu", "gelu_pytorch_tanh"):
        raise InputError(f"{where}: hidden_act is {tower.hidden_act}; open_clip has gelu, quick_gelu and gelu_pytorch_tanh")
    if tower.hidden_act == "gelu_pytorch_tanh":
        settings["act_kwargs"] = {"approximate": "tanh"}
    return settings if tower.layer_norm_eps == _EPS else {**settings, "norm_kwargs": {"eps": tower.layer_norm_eps}}


def _mlp_ratio(tower: Any) -> float:
    """The ratio r for which int(width * r) is the width of the MLP, as open_clip and timm compute it."""
    width, inner = tower.hidden_size, tower.intermediate_size
    ratio = inner / width
    return ratio if int(width * ratio) == inner else (inner + 0.5) / width


def _weights(folder: Path, config: Any, kind: str) -> dict[str, Tensor]:
    """Every weight of the folder's model by transformers' name, in float32. InputError unless the folder has exactly those."""
    options = {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True, "attn_implementation": "eager"}
    try:
        with without_progress_bar():
            model, found = KINDS[kind][1].from_pretrained(folder, config=config, **options)
    except Exception as error:  # of several libraries: files that are missing, damaged, or of another network
        raise InputError(f"{folder}: its weights cannot be read: {' '.join(str(error).split())[:300]}") from None
    for what, named in (
        ("lacks", found["missing_keys"]),
        ("has also", found["unexpected_keys"]),
        ("has of another shape", found["mismatched_keys"]),
    ):
        names = sorted(str(name) for name in named if not str(name).endswith("position_ids"))  # a buffer, which older releases saved
        if names:
            raise InputError(f"{folder}: its file of weights {what} {names[0]} ({len(names)} in all), so it is not that of a {kind} model")
    state: dict[str, Tensor] = model.state_dict()
    return state


def _renamed(state: dict[str, Tensor], names: _Names, num_layers: int) -> Iterator[tuple[str, Tensor]]:
    """A tower's weights by open_clip's names, taken out of the state."""
    for old, new in names.tower.items():
        yield from _moved(state, old, new)
    for number in range(num_layers):
        old_layer, new_layer = (prefix.format(number) for prefix in names.layers)
        for old, new in names.block.items():
            yield from _moved(state, old_layer + old, new_layer + new)
        for kind in ("weight", "bias"):
            stacked = [state.pop(f"{old_layer}self_attn.{one}_proj.{kind}") for one in "qkv"]
            yield f"{new_layer}{names.qkv}{kind}", torch.cat(stacked)


def _moved(state: dict[str, Tensor], old: str, new: str) -> Iterator[tuple[str, Tensor]]:
    for suffix in ("", ".weight", ".bias"):
        if old + suffix in state:
            yield new + suffix, state.pop(old + suffix)


def _as_timm(visual: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm has a batch axis for positions, and attention's query apart from its keys and values where it pools."""
    visual["trunk.pos_embed"] = visual["trunk.pos_embed"][None]
    for kind in ("weight", "bias"):
        stacked = visual.pop(f"trunk.attn_pool.in_proj_{kind}")
        width = len(stacked) // 3
        visual[f"trunk.attn_pool.q.{kind}"], visual[f"trunk.attn_pool.kv.{kind}"] = stacked[:width], stacked[width:]
    return visual


def _preprocessing(folder: Path, image_size: int, default: str) -> dict[str, Any]:
    """The `preprocess_cfg` of a folder's image processor. default: its class, if the folder does not say."""
    try:
        described, _ = CLIPImageProcessorPil.get_image_processor_dict(folder, local_files_only=True)
    except Exception as error:  # transformers' own, also for a file that is missing
        raise InputError(
            f"{folder}: holds no preprocessor_config.json or processor_config.json that can be read "
            f"({' '.join(str(error).split())[:200]}). Save the processor into the folder, too"
        ) from None
    kind = str(described.get("image_processor_type") or described.get("feature_extractor_type") or default)
    kind = kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if kind not in _PROCESSORS:
        raise InputError(f"{folder}: its pictures are prepared by transformers' {kind}; only {' and '.join(_PROCESSORS)} are supported")
    try:
        made: Any = _PROCESSORS[kind](**described)
        size, crop = made.size, made.crop_size if getattr(made, "do_center_crop", False) else None
        is_usual = made.do_resize and made.do_rescale and abs(made.rescale_factor * 255 - 1) < 1e-6
        interpolation = Resampling(made.resample).name.lower()
        mean, std = ([float(value) for value in values] for values in (made.image_mean, made.image_std))
    except Exception as error:  # of values that are no settings
        raise InputError(f"{folder}: its image processor's settings are not valid: {' '.join(str(error).split())[:300]}") from None
    whole = (size.height, size.width) == (image_size, image_size)
    middle = size.shortest_edge == image_size and not size.longest_edge
    cropped = None if crop is None else (crop.height, crop.width)
    if not is_usual or not (whole or middle) or cropped not in ((None, (image_size,) * 2) if whole else ((image_size,) * 2,)):
        raise InputError(
            f"{folder}: its image processor has size {dict(size)}, crop_size {None if crop is None else dict(crop)}, do_resize "
            f"{made.do_resize}, do_rescale {made.do_rescale} and rescale_factor {made.rescale_factor}, for a network of {image_size} "
            "pixels. Supported: both sides to that size, or the shorter one and the middle square; pixels divided by 255"
        )
    normalised = {"mean": mean, "std": std} if made.do_normalize else {"mean": [0.0] * 3, "std": [1.0] * 3}
    return {**normalised, "interpolation": interpolation, "resize_mode": "squash" if whole else "shortest_floor"}
