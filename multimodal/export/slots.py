"""Which classes an export, a feature column or a run may name, and its trunk built from what it says.

    trunk = build_trunk(Builder(box, SLOTS, trust), recipe)

Any other class is built only if the user trusts its package (`multimodal.boxes.trust`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from multimodal import objectives, towers
from multimodal.boxes.trust import Builder, Classes, classes_of, import_trusted
from multimodal.errors import InputError
from multimodal.export.kept import CLIP_TOWERS
from multimodal.objectives import Miner, Objective
from multimodal.towers import Head, ImageTower, TextTower, Trunk, Tuning, Weights
from multimodal.towers.text import Encoder
from multimodal.towers.trunk import is_known

ACTIVATIONS = (
    *(
        "CELU",
        "ELU",
        "GELU",
        "Hardshrink",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "Identity",
        "LeakyReLU",
        "LogSigmoid",
        "LogSoftmax",
        "Mish",
    ),
    *(
        "PReLU",
        "ReLU",
        "ReLU6",
        "SELU",
        "SiLU",
        "Sigmoid",
        "Softmax",
        "Softmin",
        "Softplus",
        "Softshrink",
        "Softsign",
        "Tanh",
        "Tanhshrink",
    ),
)
"""The classes of torch.nn that a head may end in."""
HEADS = {**classes_of(nn, nn.Module, ("Identity", "Linear")), **classes_of(towers, Head)}
IMAGE_TOWERS = {**HEADS, **classes_of(towers, ImageTower)}
TARGET_SIDES = {**HEADS, **classes_of(towers, TextTower), **classes_of(towers, towers.ClipTextTower)}
SLOTS: dict[type, Classes] = {
    nn.Module: {
        **classes_of(nn, nn.Module, ACTIVATIONS),
        **classes_of(towers, towers.AffineJitter),
        **classes_of(towers, towers.ColourJitter),
        **classes_of(towers, towers.RandomErasing),
    },
    **{base: classes_of(towers, base) for base in (Weights, Head, Encoder, Tuning)},
    Trunk: {path: one for path, one in classes_of(towers, Trunk).items() if path not in CLIP_TOWERS},
    Objective: classes_of(objectives, Objective),
    Miner: classes_of(objectives, Miner),
}
"""The type of a parameter -> the classes that an export, a column or a run may name for it; any other only if its package is trusted."""
RUN_SLOTS: dict[type, Classes] = {**SLOTS, Trunk: classes_of(towers, Trunk)}
"""The same for a run: its CLIP models are those that it has kept (`from_run`)."""


def build_trunk(builder: Builder, recipe: Any) -> Trunk:
    """The trunk of a recipe. If timm does not know its architecture, the user's trusted packages are imported: one may register it."""
    architecture = recipe.get("init_args", {}).get("architecture") if isinstance(recipe, Mapping) else None
    if isinstance(architecture, str) and not is_known(architecture):
        for package in builder.trust:
            import_trusted(package, builder.box)
        if not is_known(architecture) and not builder.trust and architecture.isidentifier():
            raise InputError(
                f"{builder.box}: timm has no architecture {architecture!r}. If a package of yours registers it, add: --trust PACKAGE"
            )
    trunk: Trunk = builder.build(recipe, Trunk)
    return trunk


def description(config: Mapping[str, Any]) -> dict[str, Any]:
    """A described object as an export's card has it: its class path and its arguments, perhaps none."""
    return {"class_path": config["class_path"], "init_args": dict(config.get("init_args") or {})}
