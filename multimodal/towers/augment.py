"""Changes of a batch of pictures that training makes on the device. Geometry is cut while decoding, in `multimodal.data`; colour is here.

tower = ImageTower(trunk, head, augment=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4))

Any module from (b, 3, h, w) uint8 to the same is an augmentation; the tower calls it in training mode only, and exports leave it out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal.errors import InputError

GREY = (0.2989, 0.587, 0.114)
"""Red's, green's and blue's share of a grey: ITU-R 601-2, in torchvision's digits."""


class ColourJitter(nn.Module):
    """Brightness, contrast and saturation of each picture changed by factors of its own, as `colour_jitter` does.

    brightness, contrast, saturation: a factor is drawn evenly from 1 - x (at least 0) to 1 + x, by torch's generator of the batch's device;
    0 changes nothing. torchvision's ColorJitter draws one set for a whole batch, and an order; here the order is the one above.
    grey: chance of a picture to lose its colours altogether (saturation 0; SimCLR, arXiv 2002.05709, has 0.2).
    """

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, grey: float = 0.0) -> None:
        super().__init__()
        self.ranges = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.grey = grey
        if not 0 <= grey <= 1:
            raise InputError(f"ColourJitter: grey={grey} must be a chance, from 0 to 1")
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
    """image (b, 3, h, w) uint8 and three factors (b,) of its pictures. Returns (b, 3, h, w) uint8.

    Each picture is mixed, one after the other, with black, with the mean of its greys, with its greys; factor 1 is the picture and above it
    lies beyond: torchvision's adjust_brightness, adjust_contrast and adjust_saturation on floats. It is rounded once, at the end.
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
