"""Data augmentation on the device, for a batch of pictures. Crops are made while decoding, in `multimodal.data`; the rest is here.

tower = ImageTower(trunk, head, augment=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4))
tower = ImageTower(trunk, head, augment=AffineJitter(degrees=15, translate=0.1, scale=(0.8, 1.2), shear=15, fill=255))
tower = ImageTower(trunk, head, augment=RandomErasing(probability=0.5))

Any module from (b, 3, h, w) uint8 to the same can be an augmentation. The tower calls it in training mode only, and exports leave it out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
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


class AffineJitter(nn.Module):
    """Turn, shear, scale and move each picture at random, all of a batch in one resampling; see `affine`.

    degrees: turned by up to so many, either way. translate: moved by up to this share of its sides, either way. scale: a factor between
    these two, as often above as below their geometric mean. shear: by up to so many degrees, along each axis. fill: the grey value, 0 to
    255, of what comes into view. Everything is drawn for each picture, by torch's generator of the batch's device.
    """

    def __init__(
        self, degrees: float = 15.0, translate: float = 0.1, scale: tuple[float, float] = (0.8, 1.2), shear: float = 15.0, fill: int = 0
    ) -> None:
        super().__init__()
        if not 0 < scale[0] <= scale[1]:
            raise InputError(f"AffineJitter: scale={list(scale)} must be two factors above 0, the smaller first")
        for name, value, most in (("degrees", degrees, 180), ("translate", translate, 1), ("shear", shear, 80)):
            if not 0 <= value <= most:
                raise InputError(f"AffineJitter: {name}={value} must be from 0 to {most}; 0 changes nothing")
        if not 0 <= fill <= 255:
            raise InputError(f"AffineJitter: fill={fill} must be a grey value, from 0 to 255")
        self.degrees, self.translate, self.scale, self.shear, self.fill = degrees, translate, scale, shear, fill

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8. Returns the same shape and type."""
        chance = 2 * torch.rand(6, len(image), device=image.device) - 1
        low, high = (math.log(factor) for factor in self.scale)
        factor = torch.exp((low + high) / 2 + (high - low) / 2 * chance[1])
        move = self.translate * chance[2:4].T * torch.tensor([image.shape[3], image.shape[2]], device=image.device)
        return affine(image, self.degrees * chance[0], move, factor, self.shear * chance[4:6].T, self.fill)


def affine(image: Tensor, angle: Tensor, translate: Tensor, scale: Tensor, shear: Tensor, fill: int = 0) -> Tensor:
    """image (b, 3, h, w) uint8; angle (b,) degrees clockwise; translate (b, 2) pixels right and down; scale (b,) factors; shear (b, 2)
    degrees along x and y. Returns (b, 3, h, w) uint8.

    Each picture is sheared along x, then along y, turned and scaled about its centre, then moved, as by torchvision's `affine` on floats
    with bilinear interpolation. fill: the grey value of pixels from outside the picture. Rounded at the end.
    """
    height, width = image.shape[2:]
    turn, (along_x, along_y) = torch.deg2rad(angle), torch.deg2rad(shear).T
    cosine, sine = torch.cos(turn - along_y) / torch.cos(along_y), torch.sin(turn - along_y) / torch.cos(along_y)
    # The inverse of rotation x shear along y x shear along x: where in the picture an output pixel comes from.
    rows = [
        [torch.cos(turn) - sine * torch.tan(along_x), torch.sin(turn) + cosine * torch.tan(along_x)],
        [-sine, cosine],
    ]
    inverse = torch.stack([torch.stack(row, 1) for row in rows], 1) / scale[:, None, None]
    offset = -inverse @ translate[:, :, None]
    sides = torch.tensor([width, height], device=image.device)
    # to coordinates from -1 to 1
    theta = torch.cat([inverse * sides / sides[:, None], 2 * offset / sides[:, None]], 2)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    pixels = F.grid_sample(image.float() - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (pixels + fill).round().to(torch.uint8)


class RandomErasing(nn.Module):
    """Cover a rectangle of some pictures, so that no part of a thing is relied on alone (Zhong et al., AAAI 2020, arXiv 1708.04896).

    probability: that a picture has one. area: its share of the picture, uniform between these two; ratio: height over width, as often
    above as below the geometric mean of these two. Sides longer than the picture's are cut to it. fill: red, green and blue, 0 to 255; by
    default the mean colour of ImageNet, which networks see as zero. Everything is drawn for each picture, by torch's generator of the
    batch's device.
    """

    def __init__(
        self,
        probability: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: tuple[int, int, int] = (124, 116, 104),
    ) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise InputError(f"RandomErasing: probability={probability} must be from 0 to 1")
        if not 0 < area[0] <= area[1] <= 1:
            raise InputError(f"RandomErasing: area={list(area)} must be two shares above 0 and at most 1, the smaller first")
        if not 0 < ratio[0] <= ratio[1]:
            raise InputError(f"RandomErasing: ratio={list(ratio)} must be two factors above 0, the smaller first")
        if any(not 0 <= value <= 255 for value in fill):
            raise InputError(f"RandomErasing: fill={list(fill)} must be red, green and blue, from 0 to 255")
        self.probability, self.area, self.ratio, self.fill = probability, area, ratio, fill

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8. Returns the same shape and type."""
        num, _, height, width = image.shape
        chance = torch.rand(5, num, device=image.device)
        area = height * width * (self.area[0] + (self.area[1] - self.area[0]) * chance[1])
        low, high = (math.log(factor) for factor in self.ratio)
        ratio = torch.exp(low + (high - low) * chance[2])
        tall = torch.sqrt(area * ratio).round().clamp(1, height)
        wide = torch.sqrt(area / ratio).round().clamp(1, width)
        top, left = ((chance[3 + at] * (side - length + 1)).floor() for at, (side, length) in enumerate(((height, tall), (width, wide))))
        rows, columns = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None]) & (chance[0] < self.probability)[:, None]
        in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
        covered = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
        return torch.where(covered, torch.tensor(self.fill, dtype=torch.uint8, device=image.device).view(1, 3, 1, 1), image)


def _ends(value: float) -> tuple[float, float]:
    return max(0.0, 1 - value), 1 + value


def _mixed(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (other + (pixels - other) * _each(factor)).clamp(0, 255)


def _greys(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _each(factor: Tensor) -> Tensor:
    return factor.view(-1, 1, 1, 1)
