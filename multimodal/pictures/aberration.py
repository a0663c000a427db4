"""Synthetic lateral chromatic aberration: a lens that magnifies colours differently, to show what a network reads from that alone.

    seen = lateral_aberration(pixels, red=2.0, blue=2.0)         # (h, w, 3) uint8 -> the same

Towards the corners, edges get fringes that point away from the middle, so that a patch tells where it was (Doersch, Gupta and Efros, ICCV
2015, arXiv 1505.05192, section 3).
"""

from __future__ import annotations

import math

import numpy as np


def lateral_aberration(pixels: np.ndarray, red: float, blue: float) -> np.ndarray:
    """pixels (h, w, 3) uint8 -> (h, w, 3) uint8, with red and blue moved outwards from the middle, and green left where it was.

    red, blue: by how many pixels at the corners; a shift grows in proportion to the distance from the middle, where it is 0. A negative one
    moves inwards, and repeats the pixels at the edge. Bilinear.
    """
    corner = math.hypot(*(side / 2 for side in pixels.shape[:2]))
    for name, shift in (("red", red), ("blue", blue)):
        if not -corner < shift < math.inf:
            raise ValueError(f"{name}={shift} must be above {-corner:.1f}, minus the distance from the middle to the corners")
    moved = pixels.copy()
    for channel, shift in ((0, red), (2, blue)):
        if shift:
            moved[..., channel] = _magnified(pixels[..., channel], 1 + shift / corner)
    return moved


def colour_shifts(pixels: np.ndarray) -> np.ndarray:
    """pixels (h, w, 3) uint8 -> (4,) float64: by how many pixels red and blue are moved against green, each down and across.

    Least squares for a small shift s of one channel c: c - green = -s * (slope of green). Exact for no shift of a grey picture; a picture's
    own colours add noise, and where green has no slopes the estimate goes to 0.
    """
    red, green, blue = (pixels[..., channel].astype(np.float64) for channel in range(3))
    slopes = np.gradient(green)
    return np.array([-((one - green) * slope).mean() / ((slope**2).mean() + 1) for one in (red, blue) for slope in slopes])


def _magnified(channel: np.ndarray, by: float) -> np.ndarray:
    """channel (h, w) uint8, magnified about its middle."""
    rows = channel.astype(np.float64)
    for _ in range(2):  # down, then across: the transposed one
        num = len(rows)
        middle = (num - 1) / 2
        places = np.clip(middle + (np.arange(num) - middle) / by, 0, num - 1)
        below = np.minimum(places.astype(np.int64), max(num - 2, 0))
        above = np.minimum(below + 1, num - 1)
        share = (places - below)[:, None]
        rows = ((1 - share) * rows[below] + share * rows[above]).T
    return np.rint(rows).astype(np.uint8)
