"""Lateral chromatic aberration: nothing in the middle, and what is elsewhere moves away from it, in proportion."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.pictures.aberration import colour_shifts, lateral_aberration


def dots(size: int, at: list[tuple[int, int]]) -> np.ndarray:
    """Black, with soft white dots."""
    down, across = np.mgrid[:size, :size]
    bright = sum(255 * np.exp(-((down - y) ** 2 + (across - x) ** 2) / 8) for y, x in at)
    return np.repeat(np.asarray(bright)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def centre_of(channel: np.ndarray, near: tuple[int, int]) -> np.ndarray:
    """The centre of mass around a place, row and column."""
    down, across = np.mgrid[: channel.shape[0], : channel.shape[1]]
    weight = channel * (np.hypot(down - near[0], across - near[1]) < 9).astype(float)
    return np.array([(weight * down).sum(), (weight * across).sum()]) / weight.sum()


def test_dots_move_outwards_in_proportion_to_their_distance() -> None:
    size, at = 101, [(50, 50), (50, 80), (20, 50), (80, 80), (20, 20)]
    picture = dots(size, at)
    seen = lateral_aberration(picture, red=2.0, blue=-1.0)
    assert np.array_equal(seen[..., 1], picture[..., 1])
    corner = np.hypot(size / 2, size / 2)
    for place in at:
        radius = np.array(place) - 50
        for channel, shift in ((0, 2.0), (2, -1.0)):
            moved = centre_of(seen[..., channel], place) - centre_of(picture[..., channel], place)
            assert moved == pytest.approx(shift * radius / corner, abs=0.06)


def test_shifts_of_colours_are_found_again() -> None:
    picture = dots(101, [(50, 50)])
    for down, across in ((0, 0), (1, 0), (0, -1), (1, 1)):
        moved = picture.copy()
        moved[..., 0] = np.roll(picture[..., 0], (down, across), axis=(0, 1))
        assert colour_shifts(moved) == pytest.approx([down, across, 0, 0], abs=0.2)  # slopes of dots change within a pixel
    assert not colour_shifts(np.full((9, 9, 3), 50, np.uint8)).any()


@pytest.mark.parametrize("shape", [(5, 9, 3), (1, 1, 3), (8, 3, 3)])
def test_no_shift_changes_nothing_and_a_constant_stays(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(lateral_aberration(picture, 0.0, 0.0), picture)
    constant = np.full(shape, 93, np.uint8)
    assert np.array_equal(lateral_aberration(constant, 1.5, -0.3), constant)


def test_turning_the_picture_turns_the_aberration() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (30, 30, 3)).astype(np.uint8)
    turned = lateral_aberration(np.rot90(picture).copy(), 2.0, 1.0)
    assert np.abs(turned.astype(int) - np.rot90(lateral_aberration(picture, 2.0, 1.0))).max() <= 1  # of rounding


def test_a_shift_beyond_the_middle_is_refused() -> None:
    with pytest.raises(ValueError, match="red=-80 must be above -70.7"):
        lateral_aberration(np.zeros((100, 100, 3), np.uint8), red=-80, blue=0)
