"""Hashes of the same picture in other clothes are near, and those of different pictures are as far as chance has it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_prep.dedup.phash import low_frequencies, perceptual_hash
from multimodal.pictures.decode import BadPicture, picture


def scene(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture with large and small things in it, drawn by seed."""
    generator = np.random.default_rng(seed)
    ground = Image.fromarray(generator.integers(0, 256, (4, 5, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(ground)
    for _ in range(40):
        left, top = generator.integers(0, width), generator.integers(0, height)
        right, bottom = left + generator.integers(4, width // 3), top + generator.integers(4, height // 3)
        (pen.ellipse if generator.random() < 0.5 else pen.rectangle)(
            (left, top, right, bottom), fill=tuple(generator.integers(0, 256, 3).tolist())
        )
    return ground


def encoded(image: Image.Image, format: str = "JPEG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def bits_between(one: bytes, other: bytes, num_bits: int = 256) -> int:
    hashes = [perceptual_hash(file, num_bits) for file in (one, other)]
    assert hashes[0] is not None and hashes[1] is not None
    return int(np.bitwise_count(hashes[0] ^ hashes[1]).sum())


def cut(image: Image.Image, share: float) -> Image.Image:
    across, down = round(share * image.width), round(share * image.height)
    return image.crop((across, down, image.width - across, image.height - down))


CHANGES: dict[str, tuple[int, Callable[[Image.Image], bytes]]] = {
    "of low quality": (16, lambda image: encoded(image, quality=35)),
    "a PNG": (16, lambda image: encoded(image, "PNG")),
    "a WebP": (16, lambda image: encoded(image, "WEBP", quality=60)),
    "half the size": (32, lambda image: encoded(image.resize((image.width // 2, image.height // 2)))),
    "three times the size": (32, lambda image: encoded(image.resize((image.width * 3, image.height * 3)))),
    "brighter": (32, lambda image: encoded(image.point(lambda value: min(255, int(1.2 * value))))),
    "grey": (32, lambda image: encoded(image.convert("L"))),
    "cut by a percent on each side": (48, lambda image: encoded(cut(image, 0.01))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_picture_is_near(change: str) -> None:
    most, changed = CHANGES[change]
    for seed in range(12):
        image = scene(seed)
        assert bits_between(encoded(image, quality=90), changed(image)) <= most


@pytest.mark.parametrize(("num_bits", "least"), [(64, 10), (256, 80)])
def test_different_pictures_are_far(num_bits: int, least: int) -> None:
    hashes = np.stack([perceptual_hash(encoded(scene(seed)), num_bits) for seed in range(60)])
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)[np.triu_indices(60, 1)]
    assert distances.min() >= least
    assert abs(distances.mean() - num_bits / 2) < num_bits / 32


def test_a_large_jpeg_that_is_decoded_small_has_the_hash_of_the_whole() -> None:
    image = scene(3, 1601, 1203)
    assert bits_between(encoded(image), encoded(image, "PNG")) <= 16


def test_a_picture_that_exif_turns_has_the_hash_of_what_is_seen() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(scene(1), exif=exif)
    assert bits_between(turned, encoded(picture(turned), "PNG")) <= 8


def test_half_of_the_bits_are_set_and_equal_files_have_equal_hashes() -> None:
    found = perceptual_hash(encoded(scene(0)), 256)
    assert found is not None and found.dtype == np.uint64 and found.shape == (4,)
    assert np.bitwise_count(found).sum() == 128
    assert np.array_equal(found, perceptual_hash(encoded(scene(0)), 256))


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_blank_picture_has_none(format: str) -> None:
    assert perceptual_hash(encoded(Image.new("RGB", (300, 200), "white"), format)) is None


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_picture_that_was_cut_off_is_refused(format: str) -> None:
    file = encoded(scene(0), format)
    with pytest.raises(BadPicture):
        perceptual_hash(file[: len(file) // 2])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_waves_are_those_of_the_cosine_transform_by_its_sum(seed: int) -> None:
    grey = np.random.default_rng(seed).uniform(0, 255, (12, 12))
    wanted = np.zeros((3, 3))
    for down in range(1, 4):
        for across in range(1, 4):
            total = 0.0
            for y in range(12):
                for x in range(12):
                    total += grey[y, x] * np.cos(np.pi * down * (2 * y + 1) / 24) * np.cos(np.pi * across * (2 * x + 1) / 24)
            wanted[down - 1, across - 1] = total * (2 / 12) / 12
    np.testing.assert_allclose(low_frequencies(grey, 3), wanted, atol=1e-10)


def test_no_two_of_five_hundred_photographs_are_near(shared_data: Path) -> None:
    tar_path = shared_data / "flickr8k" / "dev-00000.tar"
    if not tar_path.is_file():
        pytest.skip(f"real data absent: {tar_path}")
    with tarfile.open(tar_path) as tar:
        files = [tar.extractfile(member).read() for member in tar.getmembers()[:500] if member.name.endswith(".jpg")]  # type: ignore[union-attr]
    hashes = np.stack([perceptual_hash(file) for file in files])
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)[np.triu_indices(len(files), 1)]
    assert len(files) > 400 and distances.min() > 60
