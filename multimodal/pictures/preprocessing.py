"""What a network expects of a picture before it: size, crop, filter, padding, and mean and deviation of the channels. It needs no torch.

preprocessing = Preprocessing(224, 0.875, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
preprocessing.pixels(picture(encoded))                      # (3, 224, 224) uint8; mean and std are the network's own work
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

MAX_SIZE = 4096
"""The largest picture side in pixels: a box that names a huge size must not make us allocate all memory, for pictures or positions."""
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Resize = Literal["shortest", "shortest_floor", "longest", "squash"]
Size = int | tuple[int, int]
"""Of a picture in pixels: height and width of a square, or (height, width)."""


def height_width(size: Size) -> tuple[int, int]:
    """Both, of a size."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The preprocessing of pictures that a trunk expects.

    size: height and width of its input, in pixels; or (height, width).
    crop_share: the share of the shorter side that the centre crop keeps (scale the shorter side to size / crop_share, then crop to size).
        Where height and width differ, the side is the one that is shorter beside them.
    interpolation: antialiased, as in Pillow.
    mean, std: of each of the three channels, for pixels in [0, 1]; applied on the device.
    resize: which side is brought to that size: the shorter one (the rest is cut off; `centre_of` says how its two ways differ), the
    longer one (the rest is padded with the grey value fill, 0 to 255), or both ("squash"). The last two keep the whole picture, so
    crop_share is 1.

    ValueError: a value has the wrong type or is out of range; the message names it.
    """

    size: Size
    crop_share: float
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Resize = "shortest"
    fill: int = 0

    def __post_init__(self) -> None:
        three = "three numbers"
        fits = {
            "size": (_is_size(self.size), f"a whole number from 1 to {MAX_SIZE}, or two: height and width"),
            "crop_share": (_are_numbers(self.crop_share) and 0 < self.crop_share <= 1, "a share above 0, up to 1"),
            "interpolation": (self.interpolation in get_args(Interpolation), f"one of {', '.join(get_args(Interpolation))}"),
            "mean": (_are_three(self.mean), three),
            "std": (_are_three(self.std) and all(value > 0 for value in self.std), f"{three} above 0"),
            "resize": (
                self.resize in get_args(Resize) and (self.resize.startswith("shortest") or self.crop_share == 1),
                f"one of {', '.join(get_args(Resize))}, and one of the first two if crop_share is not 1",
            ),
            "fill": (type(self.fill) is int and 0 <= self.fill <= 255, "a whole number from 0 to 255"),
        }
        for name, (is_fit, wanted) in fits.items():
            if not is_fit:
                raise ValueError(f"preprocessing: {name} is {getattr(self, name)!r}; expected {wanted}")

    def pixels(self, image: Image.Image) -> np.ndarray:
        """A picture, as `picture` or `shown` gives it -> (3, h, w) uint8."""
        return centre_of(image, self.size, self.crop_share, self.interpolation, self.resize, self.fill)

    def as_json(self) -> dict[str, Any]:
        """As JSON values; the inverse of `Preprocessing.from_json`. Without resize and fill where they are what most trunks have: boxes
        made before these two existed have the same fingerprints.
        """
        values = {**asdict(self), "size": size_as_json(self.size), "mean": list(self.mean), "std": list(self.std)}
        return {name: value for name, value in values.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `as_json`. ValueError: a value is missing, unknown, or invalid."""
        if (given := set(values)) | set(_DEFAULTS) != (wanted := {each.name for each in fields(cls)}):
            raise ValueError(f"preprocessing: has {', '.join(sorted(given)) or 'nothing'}; expected {', '.join(sorted(wanted))}")
        for name in ("mean", "std"):
            if not isinstance(values[name], list):
                raise ValueError(f"preprocessing: {name} is {values[name]!r}; expected three numbers")
        size = tuple(values["size"]) if isinstance(values["size"], list) else values["size"]
        return cls(**{**values, "size": size, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


_DEFAULTS = {each.name: each.default for each in fields(Preprocessing) if each.default is not MISSING}


def centre_of(
    image: Image.Image,
    size: Size,
    crop_share: float = 0.875,
    interpolation: Interpolation = "bicubic",
    resize: Resize = "shortest",
    fill: int = 0,
) -> np.ndarray:
    """A picture for evaluation, or its middle -> (3, h, w) uint8 of that size, antialiased.

    resize: "shortest" brings the shorter side to floor(size / crop_share) and cuts out the middle square: what timm's evaluation
    transform does with crop_pct = crop_share, to the last bit. "shortest_floor" does what transformers' CLIPImageProcessor does with
    Pillow: it rounds the place of that square down, where timm, torchvision and open_clip round half a pixel to even. The other two do
    what open_clip's transform of that name does, to the last bit: "squash" brings both sides to size, whatever the shape was; "longest"
    brings the longer side to size and pads the shorter one with the grey value fill. They keep the whole picture, so crop_share must be 1.
    Where height and width differ, the shorter side is the one that leaves no margin, and the longer side the one that is not cut off.
    """
    tall, wide = height_width(size)
    keeps_whole = resize in ("longest", "squash")
    if not 0 < crop_share <= 1 or (keeps_whole and crop_share != 1):
        raise ValueError(f"crop_share={crop_share} must be above 0 and at most 1, and 1 if resize is {resize!r}")
    if keeps_whole:
        return _pixels(_whole(image, tall, wide, Image.Resampling[interpolation.upper()], resize, fill))
    across, down = math.floor(wide / crop_share), math.floor(tall / crop_share)
    width, height = image.size
    if across != down:
        ratio = min(width / across, height / down)
        width, height = round(width / ratio), round(height / ratio)
    elif width <= height:
        width, height = across, int(across * height / width)
    else:
        width, height = int(down * width / height), down
    image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    to_whole = math.floor if resize == "shortest_floor" else round
    left, top = to_whole((width - wide) / 2), to_whole((height - tall) / 2)
    return _pixels(image.crop((left, top, left + wide, top + tall)))


def _whole(image: Image.Image, tall: int, wide: int, interpolation: Image.Resampling, resize: Resize, fill: int) -> Image.Image:
    """All of a picture at that size: its shape changed, or padded."""
    if resize == "squash":
        return image.resize((wide, tall), interpolation)
    ratio = max(image.width / wide, image.height / tall)
    width, height = (max(1, round(side / ratio)) for side in image.size)  # a line of 100 to 1 keeps a pixel
    canvas = Image.new("RGB", (wide, tall), (fill, fill, fill))
    canvas.paste(image.resize((width, height), interpolation), ((wide - width) // 2, (tall - height) // 2))
    return canvas


def _pixels(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def size_as_json(size: Size) -> int | list[int]:
    """A size as JSON has it."""
    return size if isinstance(size, int) else list(size)


def _is_size(size: object) -> bool:
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    return all(type(side) is int and 0 < side <= MAX_SIZE for side in sides)


def _are_three(values: Sequence[object]) -> bool:
    return len(values) == 3 and _are_numbers(*values)


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values)
