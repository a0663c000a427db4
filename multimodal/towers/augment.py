"""Data augmentation on the device, for a batch of pictures. Crops are made while decoding, in `multimodal.data`; colour jitter is here.

tower = ImageTower(trunk, head, augment=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4))

Any module from (b, 3, h, w) uint8 to the same can be an augmentation. The tower calls it in training mode only, and exports leave it out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal.errors import InputError

GREY = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in a grey: ITU-R 601-2, with torchvision's digits."""


class ColourJitter(nn.Module):
    """Change brightness, contrast and saturation by random factors, drawn for each picture; see `colour_jitter`.

    brightness, contrast, saturation: a factor is drawn uniformly from 1 - x (at least 0) to 1 + x, by torch's generator of the batch's
    device; 0 changes nothing. torchvision's ColorJitter draws one set of factors for a whole batch, and their order; here the order is
    fixed, as above.
    grey: the probability that a picture becomes grey (saturation 0; SimCLR, arXiv 2002.05709, uses 0.2).
    """

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, grey: float = 0.0) -> None:
        super().__init__()
        self.ranges = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.grey = grey
        if not 0 <= grey <= 1:
            raise InputError(f"ColourJitter: grey={grey} must be a probability, from 0 to 1")
        for name, value in self.ranges.items():
            if value < 0:
                raise InputError(f"ColourJitter: {name}={value} must not be negative; 0 changes nothing")

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8. Returns the same shape and type."""
        *drawn, chance = torch.rand(len(self.ranges) + 1, len(image), device=image.device)
        low, high = (torch.tensor(ends, device=image.device).unsqueeze(1) for ends in zip(*map(_ends, self.ranges.values()), strict=True))
        brightness, contrast, saturation = low + (high - low) * torch.stack(drawn)
        return colour_jitter(image, brightness, contrast, saturation * (chance >= self.grey))


def colour_jitter(image: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """image (b, 3, h, w) uint8 and three factors (b,), one for each picture. Returns (b, 3, h, w) uint8.

    Each picture is blended in turn with black, with its mean grey, and with its greyscale version. A factor of 1 leaves it unchanged, a
    larger one extrapolates, as in torchvision's adjust_brightness, adjust_contrast and adjust_saturation on floats. Rounded at the end.
    """
    pixels = image.float()
    pixels = (pixels * _each(brightness)).clamp(0, 255)
    pixels = _mixed(pixels, _greys(pixels).mean(dim=(1, 2, 3), keepdim=True), contrast)
    pixels = _mixed(pixels, _greys(pixels), saturation)
    return pixels.round().to(torch.uint8)


def _ends(value: float) -> tuple[float, float]:
    return max(0.0, 1 - value), 1 + value


def _mixed(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (other + (pixels - other) * _each(factor)).clamp(0, 255)


def _greys(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _each(factor: Tensor) -> Tensor:
    return factor.view(-1, 1, 1, 1)
