"""An export of a CLIP model as a folder that open_clip loads: the way back.

multimodal to-open-clip --export exports/clip --output folders/clip

open_clip.create_model_and_transforms("local-dir:folders/clip")      # equal vectors; open_clip.get_tokenizer takes the same name
multimodal export --pretrained folders/clip --output exports/again
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor, nn

from multimodal.boxes import atomic_write
from multimodal.errors import InputError
from multimodal.export.model import Export, load_export
from multimodal.objectives import Clip, SigLip
from multimodal.text.clip import OpenClipSpace
from multimodal.text.encoder import MODEL
from multimodal.towers import OpenClipTrunk, Preprocessing
from multimodal.towers.pretrained import FOLDER_CONFIG, WEIGHT_FILES, as_json, tokenizer_files


def to_open_clip(export: str | Path, output: Path, trust: Sequence[str] = ()) -> Path:
    """Write an export of a CLIP model as a folder of open_clip: open_clip_config.json, weights, and the tokenizer's files if it has any.

    Args:
        export: made by `multimodal export --pretrained`: a folder, or hf://user/name.
        output: the folder to make; `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads it.
        trust: your own packages whose classes the export names. Their code is run.
    """
    opened = load_export(export, trust=trust)
    files = _files(opened)
    differing = [name for name, content in files.items() if (output / name).exists() and (output / name).read_bytes() != content]
    if differing:
        raise InputError(f"{output}: has another {differing[0]} already. Choose another --output, or delete this folder")
    for name, content in files.items():
        with atomic_write(output / name) as file:
            file.write(content)
    print(f'{output}: open_clip.create_model_and_transforms("local-dir:{output}") loads it', file=sys.stderr)
    if differences := _differences(opened):
        print(f"open_clip gives slightly other vectors: {'; '.join(differences)}", file=sys.stderr)
    return output


def _files(opened: Export) -> dict[str, bytes]:
    """Name -> content, the config last."""
    network, query = opened.network, opened.query
    trunk, objective = network.trunk, network.objective
    if not isinstance(trunk, OpenClipTrunk) or not isinstance(query, OpenClipSpace):
        raise InputError(f"{opened.path}: is not a model of open_clip, which has a class for each of its own only. Nothing can be written")
    if not isinstance(network.head, nn.Identity) or not isinstance(objective, Clip | SigLip):
        raise InputError(f"{opened.path}: has a head on top of its image tower, which a folder of open_clip cannot hold")
    state: dict[str, Tensor] = {f"visual.{name}": tensor for name, tensor in trunk.model.state_dict().items()}
    state |= {f"text.{name}": tensor for name, tensor in load_file(query.folder / MODEL).items()}
    state["logit_scale"] = objective.log_scale.detach()
    # custom_text: the text tower's weights have a prefix of their own, as all towers but OpenAI's have them in open_clip
    model: dict[str, Any] = {**trunk.model_cfg, **query.model_cfg, "custom_text": True}
    model["vision_cfg"] = _without_timm_kwargs(model["vision_cfg"], opened.path)
    if query.tokenizer.settings["clean"] == "none":  # which open_clip does not have
        model["text_cfg"] = {**model["text_cfg"], "tokenizer_kwargs": {"clean": "whitespace"}}
    if isinstance(objective, SigLip):
        state["logit_bias"] = objective.bias.detach()
        model["init_logit_bias"] = float(objective.bias.detach())
    config = {"model_cfg": model, "preprocess_cfg": _preprocess(opened.preprocessing, opened.path)}
    return {
        WEIGHT_FILES[0]: save({name: tensor.contiguous() for name, tensor in state.items()}),
        **tokenizer_files(query.tokenizer),
        FOLDER_CONFIG: as_json(config),
    }


def _without_timm_kwargs(vision: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The settings of an image tower that open_clip can have; InputError if it has no such network."""
    differs = vision.get("timm_kwargs", {})
    if sizes := sorted(set(differs) - {"act_layer"}):
        raise InputError(f"{where}: its image tower has {sizes[0]} {differs[sizes[0]]}, for which timm, and so open_clip, has no name")
    return {name: value for name, value in vision.items() if name != "timm_kwargs"}


def _differences(opened: Export) -> list[str]:
    """What open_clip does otherwise than an export of a folder of transformers, or one that pools long texts."""
    trunk, query = opened.network.trunk, opened.query
    assert isinstance(trunk, OpenClipTrunk) and isinstance(query, OpenClipSpace)  # `_files` has refused others
    found = []
    if "act_layer" in trunk.model_cfg["vision_cfg"].get("timm_kwargs", {}):
        found.append("its image tower has another form of GELU, exact or by a tanh")
    if opened.preprocessing.resize == "shortest_floor":
        found.append("it cuts out the middle of a quarter of the pictures one pixel further right or down")
    if query.tokenizer.settings["clean"] == "none":
        found.append("it cleans white space and HTML entities before the tokenizer")
    if query.tokenizer.long_texts == "pool":
        found.append("it cuts long texts")
    return found


def _preprocess(p: Preprocessing, where: Path) -> dict[str, Any]:
    if p.crop_share != 1 or p.interpolation not in ("bicubic", "bilinear"):
        raise InputError(
            f"{where}: its pictures are prepared with crop_share {p.crop_share} and {p.interpolation}, for which open_clip has no setting; "
            "it has crop_share 1 with bicubic or bilinear"
        )
    described = {
        "mean": list(p.mean),
        "std": list(p.std),
        "interpolation": p.interpolation,
        "resize_mode": "shortest" if p.resize == "shortest_floor" else p.resize,
    }
    return {**described, "fill_color": p.fill} if p.fill else described
